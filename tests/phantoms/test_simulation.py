"""Scans of samples that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddf_tomo import (
    Geometry,
    IsotropicResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
)
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import PHANTOMS, helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import cgls

GEOMETRY = tilt_series((10, 9, 8), views=(4, 5), tilts_rad=(0.0, 0.4))
SAXS = SaxsResponse(np.arange(4) * np.pi / 4)


@pytest.mark.parametrize("response", [SecondMomentResponse(), SaxsResponse(np.arange(4) * np.pi / 4)])
def test_a_finer_grid_is_no_inverse_crime(response):
    """Without oversampling the data are the operator's own, to the last digit; with it they differ by per cents."""
    truth = helicoidal_fibres(GEOMETRY.volume_shape)[0]
    own = TensorXRayTransform(GEOMETRY, response, 4)(truth)
    crime = simulate(helicoidal_fibres, GEOMETRY, response, oversampling=1)
    np.testing.assert_array_equal(crime.data, own)
    honest = simulate(helicoidal_fibres, GEOMETRY, response)
    difference = np.linalg.norm(honest.data - own) / np.linalg.norm(own)
    assert 0.01 < difference < 0.2
    finer = simulate(helicoidal_fibres, GEOMETRY, response, oversampling=4)
    assert np.linalg.norm(finer.data - honest.data) < difference * np.linalg.norm(own)
    assert honest.weights is None
    assert honest.geometry == GEOMETRY


def test_line_integrals_are_in_voxels_of_the_scan():
    """A block of ones: its mass is the sum of the detector, whatever the grid."""

    def block(shape):
        values = np.zeros((*shape, 1))
        values[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 1
        return values

    geometry = Geometry.from_angles([0.0, 0.3], 0.1, (8, 8, 8), (12, 12), j_offset=0.4)
    for factor in (1, 2, 3):
        scan = simulate(block, geometry, IsotropicResponse(), oversampling=factor)
        mass = block(tuple(factor * n for n in (8, 8, 8))).sum() / factor**3
        np.testing.assert_allclose(scan.data.sum((1, 2, 3)), mass, rtol=0.02)


def test_noise_is_what_it_says():
    clean = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse())
    noisy = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.02, seed=5)
    sigma = 0.02 * np.abs(clean.data).max()
    difference = noisy.data - clean.data
    assert difference.std() == pytest.approx(sigma, rel=0.05)
    assert abs(difference.mean()) < 0.1 * sigma
    np.testing.assert_allclose(noisy.weights, 1 / sigma**2, rtol=1e-5)
    assert noisy.data.dtype == noisy.weights.dtype == np.float32
    again, other = (
        simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.02, seed=seed) for seed in (5, 6)
    )
    np.testing.assert_array_equal(again.data, noisy.data)
    assert np.abs(other.data - noisy.data).max() > sigma


def test_samples_may_be_tensors_arrays_or_tuples():
    def tensors(shape):
        return torch.ones(*shape, 6, dtype=torch.float64)

    def arrays(shape):
        values = np.ones((*shape, 6))
        values.setflags(write=False)
        return values, "and more"

    first, second = (simulate(sample, GEOMETRY, RankTwoResponse()) for sample in (tensors, arrays))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.data.dtype == np.float64
    assert not simulate(lambda shape: np.zeros((*shape, 6)), GEOMETRY, RankTwoResponse(), noise=0.1).data.any()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"sample": 3}, TypeError, "^sample: expected a function of the volume shape"),
        ({"sample": lambda shape: np.ones((*shape, 7))}, ValueError, "^sample: expected"),
        ({"sample": lambda shape: np.ones((3, *shape[1:], 6))}, ValueError, "^sample: expected coefficients of shape"),
        ({"sample": lambda shape: np.ones((*shape, 6)) * 1j}, TypeError, "^sample: expected an array of real numbers"),
        ({"oversampling": 0}, ValueError, "^oversampling: expected an integer"),
        ({"noise": -0.1}, ValueError, "^noise: expected a finite number"),
        ({"noise": 0.1, "seed": -1}, ValueError, "^seed: expected an integer"),
    ],
)
def test_bad_simulations(arguments, error, text):
    with pytest.raises(error, match=text):
        simulate(**{"sample": helicoidal_fibres, "geometry": GEOMETRY, "response": SecondMomentResponse(), **arguments})


# -- the inverse crime ------------------------------------------------------------------------------------------------


def test_the_difference_from_the_coarse_projection_shrinks_with_the_voxel():
    """Second order: half the voxel, a quarter of the difference (measured: 0.13, 0.032, 0.007 at 8, 16, 32 voxels)."""
    differences = []
    for size in (8, 16):
        geometry = tilt_series((size, size, size), views=(4, 4), tilts_rad=(0.0, 0.6))
        own = TensorXRayTransform(geometry, SAXS, 4)(PHANTOMS["shells"]((size, size, size)).coefficients)
        data = simulate("shells", geometry, SAXS).data
        differences.append(np.linalg.norm(data - own) / np.linalg.norm(own))
    assert 0.05 < differences[0] < 0.2
    assert 0.15 < differences[1] / differences[0] < 0.4


def test_the_inverse_crime_flatters():
    geometry = tilt_series((10, 10, 10), views=(9, 13, 13), tilts_rad=(0.0, 0.4, 0.8))
    truth, errors = helicoidal_fibres((10, 10, 10)), []
    for oversampling in (1, 2, 4):
        scan = simulate("helicoidal", geometry, SAXS, oversampling=oversampling)
        found = cgls(TensorXRayTransform(geometry, SAXS, 4), scan.data, iterations=30, progress=False).x
        errors.append(compare(found.numpy(), truth).nrmse)
        assert scan.provenance["oversampling"] == oversampling
    assert errors[0] < 0.6 * errors[1]
    assert errors[2] == pytest.approx(errors[1], rel=0.15)  # twice finer is enough


# -- samples by name, and tensors -------------------------------------------------------------------------------------


def test_samples_by_name():
    named = simulate("shells", GEOMETRY, SAXS)
    np.testing.assert_array_equal(named.data, simulate(PHANTOMS["shells"], GEOMETRY, SAXS).data)
    assert named.provenance["sample"] == "shells"


@pytest.mark.parametrize("response", [RankTwoResponse(), RankTwoSaxsResponse([0.0, 0.7, 1.4])])
def test_a_rank_two_response_sees_the_tensors_of_a_phantom(response):
    """Its harmonics, six numbers up to order 2 as well, must never be taken for a tensor."""
    expected = simulate(lambda shape: helicoidal_fibres(shape).tensors(), GEOMETRY, response)
    for order in (2, 4):
        found = simulate(lambda shape, order=order: helicoidal_fibres(shape, order), GEOMETRY, response)
        np.testing.assert_array_equal(found.data, expected.data)


# -- counting noise ---------------------------------------------------------------------------------------------------


def flat(shape):
    """The same signal in all pixels that see the middle of a slab."""
    return np.ones((*shape, 1))


SLAB = Geometry.from_angles(np.zeros(40), 0.0, (16, 4, 16), (16, 16))


@pytest.mark.parametrize("counts", [0.3, 5.0, 100.0])
def test_counting_noise_is_poisson(counts):
    clean = simulate(flat, SLAB, IsotropicResponse()).data
    scan = simulate(flat, SLAB, IsotropicResponse(), noise_model="poisson", counts=counts, seed=3)
    assert clean.min() == pytest.approx(4.0)
    found = scan.data.astype(float) * counts / 4
    np.testing.assert_allclose(found, np.round(found), atol=1e-4)
    n = found.size
    assert found.mean() == pytest.approx(counts, abs=5 * math.sqrt(counts / n))
    assert found.var() == pytest.approx(counts, rel=5 * math.sqrt((2 + 1 / counts) / n))
    # Weights: inverse variances from the counts alone, right on average, finite at zero counts.
    np.testing.assert_allclose(scan.weights, (counts / 4) ** 2 / (found + 1), rtol=1e-4)
    expected = (counts / 4) ** 2 * (1 - math.exp(-counts)) / counts
    assert scan.weights.mean() == pytest.approx(expected, rel=0.03)
    # χ² per datum: E[(n - λ)² / (n + 1)] = (λ + 1)² (1 - exp(-λ)) / λ - (λ + 1), in closed form.
    misfit = (scan.weights * (scan.data - 4) ** 2).mean()
    closed = (counts + 1) ** 2 * (1 - math.exp(-counts)) / counts - (counts + 1)
    assert misfit == pytest.approx(closed, rel=0.06)


def test_counting_noise_follows_the_signal():
    clean = simulate("helicoidal", GEOMETRY, SAXS)
    noisy = simulate("helicoidal", GEOMETRY, SAXS, noise_model="poisson", counts=400.0, seed=1)
    unit = clean.data.max() / 400
    difference, strong = noisy.data - clean.data, clean.data > 0.5 * clean.data.max()
    assert not noisy.data[clean.data == 0].any()
    assert (difference[strong] ** 2).mean() == pytest.approx(clean.data[strong].mean() * unit, rel=0.15)
    weak = (clean.data > 0) & (clean.data < 0.2 * clean.data.max())
    assert (difference[weak] ** 2).mean() == pytest.approx(clean.data[weak].mean() * unit, rel=0.15)
    assert noisy.data.dtype == noisy.weights.dtype == np.float32
    again, other = (simulate("helicoidal", GEOMETRY, SAXS, noise_model="poisson", counts=400, seed=s) for s in (1, 2))
    np.testing.assert_array_equal(again.data, noisy.data)
    assert np.abs(other.data - noisy.data).max() > 0
    assert noisy.provenance["counts"] == 400
    empty = simulate(lambda shape: np.zeros((*shape, 1)), SLAB, IsotropicResponse(), noise_model="poisson", counts=10)
    assert not empty.data.any()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"sample": "nothing"}, "^sample: expected one of 'helicoidal', "),
        ({"noise_model": "Poisson"}, "^noise_model: expected one of"),
        ({"noise_model": "poisson"}, "^counts: expected the counts at the largest signal, got None"),
        ({"counts": 10}, "^counts: expected None, as noise_model is 'gaussian'"),
        ({"noise_model": "poisson", "counts": 0}, "^counts: expected a finite number"),
        ({"noise_model": "poisson", "counts": 9, "noise": 0.1}, "^noise: expected 0, as noise_model is 'poisson'"),
        ({"sample": lambda shape: np.full((*shape, 1), 1e-30), "noise": 0.1}, "^noise: expected inverse variances"),
        (
            {
                "sample": lambda shape: np.full((*shape, 1), 1e-30),
                "response": SAXS,
                "noise_model": "poisson",
                "counts": 9,
            },
            "^counts: expected inverse variances",
        ),
        ({"noise_model": "poisson", "counts": 9}, "^noise_model: expected signals that are not negative"),
    ],
)
def test_bad_noise(arguments, text):
    arguments = {"sample": "helicoidal", "geometry": GEOMETRY, "response": SecondMomentResponse(), **arguments}
    with pytest.raises(ValueError, match=text):
        simulate(**arguments)


def test_a_phantom_on_one_grid_is_no_sample():
    with pytest.raises(TypeError, match=r"^sample: expected a function of the volume shape"):
        simulate(Geometry, GEOMETRY, SAXS)
    with pytest.raises(TypeError, match=r"^sample: expected a function of the volume shape, or the name"):
        simulate(helicoidal_fibres((10, 9, 8)), GEOMETRY, SAXS)
