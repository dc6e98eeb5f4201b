"""The filter on the detector: Fourier transforms of NumPy, and the compiled loops against the same in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddf_tomo.operators.detector_filter import DetectorFrequencies, DirectionalFilter, fast_length, transform_stages


def run(stages, x):
    """A transform by its stages, in NumPy."""
    for kind, start, stop in zip(stages.kinds, stages.starts[:-1], stages.starts[1:], strict=True):
        terms, targets = stages.factors[start:stop] * x[stages.sources[start:stop]], stages.targets[start:stop]
        x = np.zeros(targets.max() + 1, complex)
        if kind > 0:
            x[targets[:, 0]] = terms.sum(1)
        else:
            x[targets] = np.fft.fft(terms, axis=1) if kind == 0 else 4 * np.fft.ifft(terms, axis=1)
    return x


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 16, 24, 64, 72, 81])
def test_stages_make_the_transform(length):
    generator = np.random.default_rng(length)
    given, wanted = -(-length // 2), length // 2 + 1
    x = generator.normal(size=length) + 1j * generator.normal(size=length)
    for inverse, expected in ((False, np.fft.fft), (True, lambda *a: length * np.fft.ifft(*a))):
        whole = run(transform_stages(length, length, length, inverse=inverse), x)
        np.testing.assert_allclose(whole[:length], expected(x), atol=1e-12)
        part = run(transform_stages(length, given, wanted, inverse=inverse), x[:given])
        np.testing.assert_allclose(part[:wanted], expected(x[:given], length)[:wanted], atol=1e-12)
    half = np.fft.rfft(x.real)
    back = run(transform_stages(length, len(half), length, inverse=True, of_half=True), half)
    np.testing.assert_allclose(back[:length].real, length * x.real, atol=1e-11)


def test_fast_lengths():
    assert [fast_length(n) for n in (1, 2, 5, 7, 10, 13, 64, 65)] == [1, 2, 6, 8, 12, 16, 64, 72]


def problem(shape, channels, coefficients, dtype=torch.float64, directions=20, views=3):
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, dtype=dtype, generator=generator)

    grid = DetectorFrequencies(shape, 0.3, normal(1))
    filter_ = DirectionalFilter(
        eigenvalues=normal(directions, coefficients).square() + 0.1,
        inward=normal(directions, coefficients, coefficients),
        outward=normal(directions, coefficients, coefficients),
        nearest=torch.randint(0, directions, (views, len(grid.azimuths)), generator=generator),
        response=normal(views, channels, coefficients),
        ramp=1 / (1 + grid.radius),
        damping=normal(len(grid.radius)).square(),
        passing=grid.radius < 0.6,
    )
    return grid, filter_, normal(views, *shape, channels)


# One pixel across; odd; more channels than vectors; more frequencies than fit a block.
CASES = [((1, 5), 1, 1), ((7, 10), 3, 6), ((12, 8), 9, 15), ((16, 16), 5, 28), ((33, 90), 2, 45)]


@pytest.mark.parametrize(("shape", "channels", "coefficients"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_as_by_torch(shape, channels, coefficients, dtype):
    grid, filter_, data = problem(shape, channels, coefficients, dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5

    def close(found, expected):
        assert found.shape == expected.shape
        assert found.dtype == dtype
        assert float((found - expected).norm() / expected.norm()) < tolerance

    spectra = grid.transform(data)
    close(spectra, grid.transform_by_torch(data))
    close(grid.back(spectra, slice(0, 3), filter_), grid.back_by_torch(spectra, slice(0, 3), filter_))
    close(grid.back(spectra[1:], slice(1, 3), filter_), grid.back(spectra, slice(0, 3), filter_)[1:])


def test_spectra_are_those_of_numpy():
    grid, _, data = problem((6, 9), 2, 1)
    transform = np.fft.fft2(data.numpy(), grid.padded, axes=(1, 2))[:, : grid.padded[0] // 2 + 1]
    found = torch.complex(*grid.transform(data).unbind(1)).unflatten(1, grid.shape).numpy()
    np.testing.assert_allclose(found, transform.transpose(0, 2, 1, 3), atol=1e-12)


def test_a_filter_that_does_nothing_gives_the_data_back():
    """Weights of 1 everywhere, also at frequency 0, where the sectors' parts of the ramp are."""
    grid, _, data = problem((8, 12), 3, 3)
    one = torch.ones_like(grid.radius)
    identity, nothing = torch.eye(3, dtype=one.dtype), 0 * one
    filter_ = DirectionalFilter(
        eigenvalues=torch.ones(1, 3, dtype=one.dtype),
        inward=identity[None],
        outward=identity[None],
        nearest=torch.zeros(3, len(grid.azimuths), dtype=torch.int64),
        response=identity.expand(3, 3, 3),
        ramp=torch.where(grid.radius > 0, 1 / grid.radius, 1 / grid.zero.mean()),
        damping=nothing,
        passing=one > 0,
    )
    torch.testing.assert_close(grid.back(grid.transform(data), slice(0, 3), filter_), data)


def test_frequency_zero_is_the_mean_over_its_cell():
    """Of |ξ|, by quadrature of SciPy; every other frequency is in the sector that is nearest to it."""
    from scipy.integrate import dblquad

    grid = DetectorFrequencies((6, 9), 0.3, torch.zeros((), dtype=torch.float64))
    a, b = (0.5 / n for n in grid.padded)
    mean = 4 * dblquad(lambda s, t: math.hypot(s, t), 0, a, 0, b)[0] / (4 * a * b)
    assert float(grid.zero.mean()) == pytest.approx(mean, rel=1e-3)
    along_k, along_j = np.fft.fftfreq(grid.padded[1])[:, None], np.fft.rfftfreq(grid.padded[0])[None]
    away = (np.arctan2(along_j, along_k).ravel()[1:] - grid.azimuths.numpy()[grid.sector][1:]) % np.pi
    assert np.minimum(away, np.pi - away).max() <= np.pi / len(grid.azimuths) / 2 + 1e-12
