"""Random media: their scattering function, second moment and visibility, from the spectrum by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.integrate
import torch

import ddf_tomo as dt
from ddf_tomo.acquisition import FibrousMedium, scattering_screen
from ddf_tomo.operators.spherical_harmonics import from_function

WAVELENGTH = 5e-11
K = 2 * math.pi / WAVELENGTH
FIBRES = FibrousMedium(4e-7, 4.5e-6, 1.5e-6, (0.5, 1.0, 0.3))


def spectrum(q):
    """Φ(q), the Fourier transform of the autocorrelation, by its definition for a Gaussian."""
    axis = np.array([0.5, 1.0, 0.3]) / np.linalg.norm([0.5, 1.0, 0.3])
    along = q @ axis
    across2 = (q**2).sum(-1) - along**2
    volume = (2 * np.pi) ** 1.5 * 4.5e-6 * 1.5e-6**2
    return 4e-7**2 * volume * np.exp(-0.5 * ((4.5e-6 * along) ** 2 + 1.5e-6**2 * across2))


def test_scattering_is_the_third_moment_of_the_spectrum():
    for direction in np.random.default_rng(1).standard_normal((4, 3)):
        unit = direction / np.linalg.norm(direction)
        expected, _ = scipy.integrate.quad(lambda q, u=unit: spectrum(q * 1e6 * u) * q**3, 0, 30, epsabs=0)
        found = FIBRES.scattering(torch.from_numpy(unit))
        assert float(found) == pytest.approx(expected * 1e24 / (4 * math.pi), rel=1e-6)


def test_the_second_moment_is_the_variance_of_the_slopes():
    """In the plane of spatial frequencies: <α_a α_b> = L ∫ q_a q_b Φ(q_j, q_k, 0) d²q / (2π)²."""
    q = np.linspace(-8e6, 8e6, 801)
    j, k = np.meshgrid(q, q, indexing="ij")
    power = spectrum(np.stack([j, k, 0 * j], -1)) * (q[1] - q[0]) ** 2 / (2 * np.pi) ** 2 * 1e-3
    expected = [(j * j * power).sum(), (j * k * power).sum(), (k * k * power).sum()]
    np.testing.assert_allclose(FIBRES.second_moment(1e-3), expected, rtol=1e-6)


def test_the_second_moment_is_that_of_the_tensor_model():
    """The package's own response, on coefficients of f, for a beam along z of a slab of one voxel."""
    fibres = FibrousMedium(4e-7, 2.5e-6, 1.5e-6, (0.5, 1.0, 0.3))  # smooth enough for ell 12
    geometry = dt.Geometry.from_angles([0.0], 0.0, (1, 1, 1), (1, 1))
    frame = torch.from_numpy(np.stack([geometry.j[0], geometry.k[0], geometry.p[0]]))
    coefficients = from_function(lambda x: fibres.scattering(torch.tensor(x) @ frame.T).numpy(), 12, degree=60)
    matrix = dt.SecondMomentResponse().matrix(geometry, 12)[0]
    np.testing.assert_allclose(matrix @ np.asarray(coefficients), fibres.second_moment(1.0), rtol=1e-3)


def test_small_separations_are_the_second_moment():
    theta = FIBRES.second_moment(2e-4)
    r = torch.tensor([[1e-8, 0.0], [0.0, 1e-8], [1e-8, 1e-8]], dtype=torch.float64)
    jj, jk, kk = (0.5 * K**2 * theta * 1e-16).tolist()
    expected = torch.tensor([jj, kk, jj + 2 * jk + kk], dtype=torch.float64)
    torch.testing.assert_close(FIBRES.visibility_exponent(r, 2e-4, WAVELENGTH), expected, rtol=1e-3, atol=0)
    far = FIBRES.visibility_exponent(torch.tensor([1.0, 1.0]), 2e-4, WAVELENGTH)
    along = scipy.integrate.quad(lambda z: np.exp(-0.5 * (z * 1e-6) ** 2 * inverse_zz()), -60, 60)[0] * 1e-6
    assert float(far) == pytest.approx(K**2 * 4e-7**2 * along * 2e-4, rel=1e-6)


def inverse_zz():
    axis = np.array([0.5, 1.0, 0.3]) / np.linalg.norm([0.5, 1.0, 0.3])
    return axis[2] ** 2 / 4.5e-6**2 + (1 - axis[2] ** 2) / 1.5e-6**2


def slopes(phase, pixel):
    """Covariance (jj, jk, kk) of the gradient over k, by spectra."""
    f = [torch.fft.fftfreq(n, pixel, dtype=torch.float64) for n in phase.shape]
    transform = torch.fft.fft2(phase)
    j = torch.fft.ifft2(2j * math.pi * f[0][:, None] * transform).real / K
    k = torch.fft.ifft2(2j * math.pi * f[1] * transform).real / K
    return torch.stack([j * j, j * k, k * k], -1)


def test_a_phase_screen_has_the_medium_s_slopes():
    theta = FIBRES.second_moment(2e-4)
    screens = [FIBRES.phase_screen((256, 256), 0.5e-6, 2e-4, WAVELENGTH, seed=n) for n in range(8)]
    found = torch.stack([slopes(phase, 0.5e-6).mean((0, 1)) for phase in screens]).mean(0)
    scale = (theta[0] * theta[2]).sqrt()
    assert ((found - theta) / torch.stack([theta[0], scale, theta[2]])).abs().max() < 0.05
    variance = float(FIBRES.visibility_exponent(torch.tensor([1.0, 1.0]), 2e-4, WAVELENGTH))
    assert float(torch.stack(screens).var()) == pytest.approx(variance, rel=0.06)
    assert torch.equal(screens[3], FIBRES.phase_screen((256, 256), 0.5e-6, 2e-4, WAVELENGTH, seed=3))


def test_a_screen_for_a_map():
    """Two halves that scatter differently, and a third that does not scatter."""
    theta = torch.zeros(384, 256, 3, dtype=torch.float64)
    theta[:128] = torch.tensor([5e-12, 2e-12, 3e-12])
    theta[128:256] = torch.tensor([1e-12, -1.5e-12, 4e-12])
    pieces = []
    for seed in range(6):
        phase = scattering_screen(theta, 1e-6, WAVELENGTH, 2e-6, seed=seed)
        found = slopes(phase, 1e-6)
        pieces.append(torch.stack([found[n * 128 + 12 : n * 128 + 116].mean((0, 1)) for n in range(3)]))
    mean = torch.stack(pieces).mean(0)
    assert (mean[0] / theta[0, 0] - 1).abs().max() < 0.08
    assert ((mean[1] - theta[200, 0]).abs() / 4e-12).max() < 0.05
    assert mean[2].abs().max() < 1e-14


def test_every_anisotropy_that_is_offered_is_met():
    """Weights of the mixture give Θ exactly, at all azimuths, up to the limit that the message names."""
    from ddf_tomo.acquisition.media import _mixture

    angle = torch.linspace(0, math.pi, 37, dtype=torch.float64)
    jj, kk, jk = 1 + 0.86 * (2 * angle).cos(), 1 - 0.86 * (2 * angle).cos(), 0.86 * (2 * angle).sin()
    theta = torch.stack([jj, jk, kk], -1)[None]
    total = torch.zeros(37, 3, dtype=torch.float64)
    for share, correlation in _mixture(theta, 1.0):
        assert (share >= 0).all()
        inverse = torch.linalg.inv(correlation)
        total += share[0][:, None] * torch.stack([inverse[0, 0], inverse[0, 1], inverse[1, 1]])
    torch.testing.assert_close(total, theta[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: FibrousMedium(1e-6, 1e-6, 1e-6, (0, 0, 0)), "direction: expected a vector that is not zero"),
        (lambda: FibrousMedium(1e-6, -1e-6, 1e-6), "length_m: expected"),
        (lambda: FIBRES.scattering(torch.ones(2)), "directions: expected shape"),
        (lambda: FIBRES.visibility_exponent(torch.ones(3), 1e-3, WAVELENGTH), "separation_m: expected shape"),
        (lambda: FibrousMedium(1e-4, 2e-6, 1e-6).second_moment(2.0), "thickness_m: expected a finite"),
        (lambda: FibrousMedium(1e-4, 2e-6, 1e-6).visibility_exponent(torch.ones(2), 1e-2, 1e-11), "expected a medium"),
        (lambda: FIBRES.phase_screen((64, 64), 1e-6, 1e-5, WAVELENGTH), "pixel_size_m: expected half"),
        (lambda: FIBRES.phase_screen((64, 64), 5e-7, 1e-3, WAVELENGTH), "pixel_size_m: expected at most 2.88e-07 m"),
        (lambda: FIBRES.phase_screen((16, 16), 5e-7, 1e-4, WAVELENGTH), "shape: expected four correlation lengths"),
        (
            lambda: scattering_screen(torch.ones(64, 64, 2), 1e-6, WAVELENGTH, 2e-6),
            "second_moment_rad2: expected shape",
        ),
        (
            lambda: scattering_screen(1e-12 * torch.tensor([1.0, 2.0, 1.0]).expand(64, 64, 3), 1e-6, WAVELENGTH, 2e-6),
            "second_moment_rad2: expected positive semidefinite tensors, got an eigenvalue -1e-12",
        ),
        (
            lambda: scattering_screen(1e-12 * torch.tensor([1.0, 0.0, 0.01]).expand(64, 64, 3), 1e-6, WAVELENGTH, 2e-6),
            "second_moment_rad2: expected an anisotropy up to 0.865, got 0.980",
        ),
    ],
)
def test_wrong_media_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
