"""Plug-and-play: with proximal maps for denoisers it solves the problems they belong to; what it tells of itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import SaxsResponse, TensorXRayTransform, wrap
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import L1, Smoothness
from ddf_tomo.priors.learned import GradientStep, ResidualUNet
from ddf_tomo.solvers import cgls, plug_and_play
from ddf_tomo.solvers.plug_and_play import noise_of, noise_variance
from tests.solvers.registry import WEIGHTS, data, operator

METHODS = ("admm", "proximal-gradient")
VARIANCE = 0.04
OPTIONS = {"weights": WEIGHTS, "variance": VARIANCE, "sigma": (0.5, 0.2), "ramp": 4, "inner_iterations": 8}


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", METHODS)
def test_quadratic_priors(method):
    """``λ/2 |x|²``: the proximal map for ADMM, the gradient step for proximal gradients; both end at the minimum."""
    weight = 2.0

    def denoiser(x, sigma):
        step = weight * sigma**2 / VARIANCE
        return x / (1 + step) if method == "admm" else (1 - step) * x

    options = OPTIONS if method == "admm" else OPTIONS | {"sigma": (0.1, 0.08)}
    found = plug_and_play(operator(), data(), denoiser, method=method, iterations=40, progress=False, **options)
    expected = cgls(operator(), data(), weights=WEIGHTS, tikhonov=weight, iterations=60, tolerance=1e-9, progress=False)
    assert relative(found.x, expected.x) < 1e-6
    assert found.changes[-1] < 1e-6


def test_a_prior_with_corners():
    """``|x|`` on a diagonal operator, where the minimum is known: soft thresholds."""
    generator = torch.Generator().manual_seed(0)
    gain = 1 + torch.rand(3, 3, 3, 6, generator=generator, dtype=torch.float64)
    y = 2 * torch.randn(gain.shape, generator=generator, dtype=torch.float64)
    A = wrap((lambda x: gain * x, lambda y: gain * y), gain.shape, gain.shape)

    def denoiser(x, sigma):
        return L1().proximal(x, 0.8 * sigma**2 / VARIANCE)

    options = OPTIONS | {"weights": None, "sigma": (0.5, 0.15)}
    found = plug_and_play(A, y, denoiser, iterations=40, progress=False, **options)
    expected = y.sign() * ((gain * y).abs() - 0.8).clamp(min=0) / gain**2
    assert 10 < int((expected == 0).sum()) < 152
    torch.testing.assert_close(found.x, expected, atol=1e-6, rtol=0)


def test_the_strength():
    """Twice the strength is twice the weight."""
    half = plug_and_play(operator(), data(), shrink(1.0), strength=2.0, iterations=60, progress=False, **OPTIONS)
    whole = cgls(operator(), data(), weights=WEIGHTS, tikhonov=2.0, iterations=60, tolerance=1e-9, progress=False)
    assert relative(half.x, whole.x) < 1e-5


def shrink(weight):
    return lambda x, sigma: x / (1 + weight * sigma**2 / VARIANCE)


def test_noise_levels_fall_and_stay():
    solution = plug_and_play(operator(), data(), shrink(1.0), iterations=8, progress=False, **OPTIONS)
    assert solution.sigmas[:5] == pytest.approx(np.geomspace(0.5, 0.2, 5))
    assert set(solution.sigmas[4:]) == {0.2}
    assert len(solution.changes) == solution.iterations == 8


def test_it_does_not_converge_while_the_level_falls():
    solution = plug_and_play(operator(), data(), shrink(1.0), tolerance=1.0, progress=False, **OPTIONS)
    assert (solution.stopped_by, solution.iterations) == ("convergence", 5)


def saxs(noise=0.02, shape=(10, 10, 10)):
    geometry = tilt_series(shape, tilts_rad=[0.0, 0.5], views=[8, 8], detector_shape=(14, 14))
    return simulate(helicoidal_fibres, geometry, SaxsResponse(np.arange(6) * np.pi / 6), noise=noise)


@pytest.mark.parametrize("method", METHODS)
def test_the_fixed_point_residual_falls_with_a_gradient_step(method):
    torch.manual_seed(0)
    denoiser, scan = GradientStep(ResidualUNet((6, 8, 10))).eval().requires_grad_(False), saxs(shape=(6, 6, 6))
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    solution = plug_and_play(A, scan.data, denoiser, method=method, weights=scan.weights, iterations=20, progress=False)
    assert solution.changes[-1] < 0.1 * solution.changes[0]
    assert solution.changes[-1] <= solution.changes[13]
    assert torch.isfinite(solution.x).all()


def test_levels_from_the_data():
    scan = saxs()
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    smoothness = Smoothness((10, 10, 10))

    def denoiser(x, sigma):
        return x - 0.05 * smoothness.gradient(x)

    solution = plug_and_play(A, scan.data, denoiser, weights=scan.weights, iterations=16, progress=False)
    start = cgls(A, scan.data, weights=scan.weights, iterations=10, progress=False)
    assert solution.sigmas[0] == pytest.approx(4 * max(noise_of(start.x), solution.sigmas[-1]))
    assert solution.sigmas[-1] < solution.sigmas[0]


def test_the_variance_of_noise():
    """Weights that are inverse variances give 1, whatever they are, where the signal is smooth."""
    generator = np.random.default_rng(0)
    deviation = generator.uniform(0.1, 3, (40, 30, 30, 2))
    y = np.linspace(0, 50, 30)[:, None, None] + generator.normal(size=deviation.shape) * deviation
    weights = deviation**-2
    weights[generator.random(weights.shape) < 0.05] = 0
    y[weights == 0] = 1e6
    assert noise_variance(torch.from_numpy(y), torch.from_numpy(weights)) == pytest.approx(1, rel=0.05)
    assert noise_variance(torch.from_numpy(5 * y), torch.from_numpy(weights)) == pytest.approx(25, rel=0.05)


def test_nowhere_negative():
    scan = saxs(noise=0.1)
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    options = {"weights": scan.weights, "sigma": (0.1, 0.1), "iterations": 3, "progress": False}
    free, positive = (plug_and_play(A, scan.data, lambda x, s: x, positive=p, **options) for p in (False, True))
    directions = SaxsResponse(np.arange(30) * np.pi / 30).matrix(scan.geometry, 2).flatten(0, 1).float()
    assert float((free.x @ directions.T).min()) < -1e-3
    assert float((positive.x @ directions.T).min()) > -1e-5
    misfit = scan.full_weights() * (A(positive.x).numpy() - scan.data) ** 2
    assert positive.residuals[-1] == pytest.approx(misfit.sum() ** 0.5, rel=1e-5)


def test_what_is_refused():
    same = wrap((lambda x: x, lambda y: y), (4, 4, 4, 6), (4, 4, 4, 6))
    y = torch.ones(4, 4, 4, 6)
    for given, kind, text in (
        ({"denoiser": None}, TypeError, r"^denoiser: expected a function"),
        ({"denoiser": lambda x, s: x[..., :1]}, ValueError, r"^denoiser: expected one that gives a tensor of shape"),
        ({"denoiser": lambda x, s: x / 0}, ValueError, r"^denoiser: expected one that gives finite"),
        ({"method": "hqs"}, ValueError, r"^method: expected one of 'admm'"),
        ({"sigma": (0.1, 0.2)}, ValueError, r"^sigma: expected a first and a last"),
        ({"sigma": 0.1}, ValueError, r"^sigma: expected shape"),
        ({"strength": 0.0}, ValueError, r"^strength: expected"),
        ({"variance": -1.0}, ValueError, r"^variance: expected"),
        ({"positive": 1}, TypeError, r"^positive: expected"),
    ):
        with pytest.raises(kind, match=text):
            plug_and_play(same, y, **{"denoiser": lambda x, s: x, "sigma": (0.2, 0.1), "iterations": 1} | given)
    small = wrap((lambda x: x, lambda y: y), (4, 2, 1, 1), (4, 2, 1, 1))
    with pytest.raises(ValueError, match=r"^variance: expected a number, where the detector has no three"):
        plug_and_play(small, torch.ones(4, 2, 1, 1), lambda x, s: x, iterations=1)
