"""The reference problem of retrieval: its frames against closed forms, its bound against Monte Carlo."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def problem():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("retrieval_problem")


def uniform(problem, size, u, widths, angle, transmission=0.8, steps=3):
    """Frames of fields that are the same everywhere, and the fine patterns they were made of."""
    generator, fine = np.random.default_rng(4), size * problem.FINE
    patterns = [problem.speckle(generator, fine) for _ in range(steps)]
    drawn = iter(patterns)
    covariance = np.broadcast_to(problem.tensor(*np.float64(widths), angle), (fine, fine, 3))
    t, shift = np.full((fine, fine), transmission), np.broadcast_to(np.float64(u), (fine, fine, 2))
    return problem.splatted(t, shift, covariance, lambda: next(drawn), steps), patterns


def test_rays_do_what_the_fourier_domain_does(problem):
    u, widths, angle = (1.3, -0.4), (0.9, 0.3), 0.7
    made, patterns = uniform(problem, 32, u, widths, angle)
    f_j, f_k = (problem.FINE * f for f in problem.frequencies(32 * problem.FINE))
    jj, jk, kk = problem.tensor(*widths, angle)
    transfer = np.exp(-2j * np.pi * (f_j * u[0] + f_k * u[1]))
    transfer = transfer * np.exp(-2 * np.pi**2 * (jj * f_j**2 + 2 * jk * f_j * f_k + kk * f_k**2))
    for frame, pattern in zip(made.sample, patterns, strict=True):
        expected = 0.8 * np.fft.ifft2(np.fft.fft2(pattern) * transfer).real
        np.testing.assert_allclose(frame, expected[:: problem.FINE, :: problem.FINE], rtol=2e-4)
    np.testing.assert_allclose(made.displacement, np.broadcast_to(u, (32, 32, 2)), atol=1e-4)
    np.testing.assert_allclose(made.covariance, np.broadcast_to((jj, jk, kk), (32, 32, 3)), atol=1e-3)


def test_flux_is_conserved_and_the_speckle_is_as_said(problem):
    made = problem.reference_problem(96, 3)
    fine = problem.fields(96, np.random.default_rng(0))[0]
    assert made.transmission.sum() == pytest.approx(fine.mean() * 96**2, rel=1e-5)
    assert made.reference.mean() == pytest.approx(1, abs=1e-3)
    assert made.reference.std() == pytest.approx(0.3, rel=0.02)
    spectrum = np.abs(np.fft.fft2(made.reference - 1)) ** 2
    correlation = np.fft.ifft2(spectrum).real.mean(0)
    assert correlation[0, 2] > correlation[0, 0] / 2 > correlation[0, 3]  # full width of 4 to 6 pixels
    assert np.linalg.norm(made.displacement, axis=-1).max() < 1.7
    assert made.covariance[..., [0, 2]].min() > 0.29**2


def test_the_bound_is_what_weighted_least_squares_attains(problem):
    """Monte Carlo on uniform fields, linearised at the truth, in a Gaussian window of the same taps."""
    made, _ = uniform(problem, 32, (0.5, 0.2), (1.0, 0.5), 0.4, steps=16)
    taps, counts = problem.gaussian(1.5), 5000.0
    limit = problem.bound(made, counts, taps)[16, 16]
    pattern, (f_j, f_k) = np.fft.fft2(made.sample), (2j * np.pi * f for f in problem.frequencies(32))
    factors = (1 + 0 * f_j, -f_j, -f_k, f_j**2 / 2, f_j * f_k, f_k**2 / 2)
    near = np.s_[:, 16 - len(taps) // 2 : 17 + len(taps) // 2, 16 - len(taps) // 2 : 17 + len(taps) // 2]
    columns = np.stack([(np.fft.ifft2(pattern * f).real)[near].ravel() for f in factors], -1) * counts
    expected = made.sample[near].ravel() * counts
    weights = np.tile(np.outer(taps, taps).ravel(), 16) / expected
    generator = np.random.default_rng(0)
    noise = generator.poisson(expected, (2000, len(expected))) - expected
    found = np.linalg.solve(columns.T @ (weights[:, None] * columns), columns.T @ (weights * noise).T)
    np.testing.assert_allclose(limit, found[1:].std(-1), rtol=0.1)  # the pattern is not the same all over the window


def test_a_perfect_answer_and_a_turned_one_are_judged(problem):
    made = problem.reference_problem(96, 3)
    errors = np.full((96, 96, 5), 0.1)
    figures = problem.judge(made, made.displacement, made.covariance, errors, errors)
    assert figures["direction, median"] == figures["u RMSE"] == figures["missing"] == 0
    assert figures["C_jk, within 1 σ"] == 1
    turned = np.stack([made.covariance[..., 2], -made.covariance[..., 1], made.covariance[..., 0]], -1)
    figures = problem.judge(made, made.displacement + 0.2, turned, errors, errors)
    assert figures["direction, median"] == pytest.approx(90)
    assert figures["u_j, RMSE over the bound"] == pytest.approx(2)
    assert figures["u_k, within 1.96 σ"] == 0
    assert figures["trace C, relative RMSE"] == pytest.approx(0, abs=1e-12)


def test_half_a_pixel_is_half_a_pixel(problem):
    """The Fourier series through the pixels, shifted: what the speckle has beyond it is 0.4 %."""
    made = problem.half_pixel_problem(64, 3)
    shift = np.exp(-1j * np.pi * sum(problem.frequencies(64)))
    shifted = np.fft.ifft2(np.fft.fft2(made.reference) * shift).real
    assert np.sqrt(np.mean((shifted - made.sample) ** 2)) < 5e-3 * made.reference.std()


def test_noise_is_of_the_counts_asked_for(problem):
    noisy = problem.reference_problem(96, 3).at(500, steps=2)
    assert noisy.sample.shape == (2, 96, 96)
    assert noisy.reference.mean() == pytest.approx(500, rel=0.01)
    expected = problem.reference_problem(96, 3)
    assert np.mean((noisy.sample - 500 * expected.sample[:2]) ** 2 / (500 * expected.sample[:2])) == pytest.approx(
        1, rel=0.05
    )
