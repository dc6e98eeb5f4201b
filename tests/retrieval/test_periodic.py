"""Demodulation of gratings and grids whose waves are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from ddf_tomo.retrieval.periodic import METHOD, find_waves

INNER = (slice(16, -16), slice(16, -16))
GRID = ((0.02, 0.137), (0.137, -0.015))  # cycles a pixel
U, C, T = (0.8, -1.1), (0.5, 0.2, 0.9), 0.7


def waves_of(kind: str) -> tuple[NDArray[np.float64], list[float], NDArray[np.float64]]:
    """Frequencies, amplitudes, and in how many steps' shifts each wave turns."""
    if kind == "lines":
        return np.array([[0.0, 0.137]]), [0.35], np.array([[1.0, 0.0]])
    orders = np.array([[1, 0], [0, 1], [1, 1], [1, -1]], float)
    return orders @ np.array(GRID), [0.35, 0.3, 0.18, 0.18], orders


def frames(kind: str, steps: int, size: int, counts: float | None = None, seed: int = 0, reach: float = 1.0) -> Any:
    """(sample, reference), ``(step, row, column)`` in units of the mean reference; uneven steps of the mask."""
    generator = np.random.default_rng(seed)
    j, k = np.mgrid[:size, :size].astype(float)
    shifts = np.stack([np.arange(steps) / steps, 2 * np.arange(steps) / steps], 1) + 0.02 * generator.random((steps, 2))
    both = []
    for has_sample in (True, False):
        stack = np.ones((steps, size, size))
        for wave, amplitude, order in zip(*waves_of(kind), strict=True):
            q = 2 * np.pi * wave
            loss = 0.5 * (q[0] ** 2 * C[0] + 2 * q[0] * q[1] * C[1] + q[1] ** 2 * C[2]) * reach**2
            u = reach * np.array(U) if has_sample else np.zeros(2)
            phase = q[0] * (j - u[0]) + q[1] * (k - u[1]) + 2 * np.pi * (shifts @ order)[:, None, None]
            stack += amplitude * (math.exp(-loss) if has_sample else 1) * np.cos(phase)
        stack *= T if has_sample else 1
        both.append(stack if counts is None else generator.poisson(stack.clip(0) * counts) / counts)
    return both


def fit(sample: Any, reference: Any, counts: float = math.nan, **options: Any) -> Maps:
    sample, reference = (torch.as_tensor(np.asarray(each)) for each in (sample, reference))
    sample, reference = (each[None] if each.ndim == 3 else each for each in (sample, reference))
    reach = torch.tensor(options.pop("reach", [1.0]), dtype=sample.dtype)
    view = View(sample, reference, torch.ones(1, 1, *sample.shape[-2:]).to(sample), reach, counts)
    return METHOD.fit(view, METHOD.check(options, tuple(sample.shape)), int)


def test_waves_are_found_between_the_lines_of_the_spectrum():
    found = find_waves(torch.from_numpy(frames("grid", 1, 90)[1]), 6)
    expected = waves_of("grid")[0]
    expected = np.where(expected[:, 1:] > 0, expected, -expected)
    assert len(found) == 4
    for wave in expected:
        assert np.abs(found.numpy() - wave).sum(1).min() < 2e-5
    with pytest.raises(ValueError, match="reference: expected a periodic pattern"):
        find_waves(torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("steps", "window"), [(1, None), (1, 8.0), (5, None), (9, 1.5)])
def test_a_grid_tells_everything(steps: int, window: float | None):
    maps = fit(*frames("grid", steps, 96), window=window)
    np.testing.assert_allclose(maps.displacement[INNER].mean((0, 1)), U, atol=2e-3)
    np.testing.assert_allclose(maps.covariance[INNER].mean((0, 1)), C, atol=2e-3)
    np.testing.assert_allclose(maps.transmission[INNER].mean(), T, atol=1e-4)
    assert np.abs(np.asarray(maps.displacement[INNER]) - U).max() < 0.03
    assert maps.valid[INNER].all()
    # Each harmonic is a channel, and the law of a Gaussian holds in all of them.
    channels = torch.isfinite(maps.visibility_error[INNER]).all((0, 1)).reshape(len(maps.correlation_lengths_m), -1)
    assert channels.sum() == 4
    for length, azimuth in channels.nonzero().tolist():
        q = 2 * math.pi * maps.correlation_lengths_m[length]
        cos, sin = math.cos(maps.azimuths_rad[azimuth]), math.sin(maps.azimuths_rad[azimuth])
        expected = 0.5 * q * q * (C[0] * cos**2 + 2 * C[1] * cos * sin + C[2] * sin**2)
        found = maps.visibility[INNER][..., length * len(maps.azimuths_rad) + azimuth].mean()
        assert float(found) == pytest.approx(expected, rel=0.02)  # two lengths differ by half a percent


def test_lines_tell_what_is_across_them():
    maps = fit(*frames("lines", 5, 80))
    assert maps.azimuths_rad == pytest.approx((math.pi / 2,), abs=1e-4)
    assert maps.correlation_lengths_m == pytest.approx((0.137,), abs=1e-4)
    np.testing.assert_allclose(maps.displacement[INNER][..., 1], U[1], atol=1e-3)
    np.testing.assert_allclose(maps.covariance[INNER][..., 2], C[2], atol=3e-3)
    assert torch.isinf(maps.displacement_error[..., 0]).all()
    assert torch.isinf(maps.covariance_error[..., :2]).all()
    assert torch.isfinite(maps.displacement_error[..., 1]).all()


@pytest.mark.parametrize(("steps", "window", "known"), [(1, 4.0, True), (6, 2.0, True), (6, 2.0, False)])
def test_error_bars_cover_as_they_should(steps: int, window: float, known: bool):
    pulls: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("displacement", "covariance", "transmission")}
    for seed in range(3):
        drawn = frames("grid", steps, 96, counts=2000, seed=seed)
        maps = fit(*drawn, 2000.0 if known else math.nan, window=window, waves=waves_of("grid")[0])
        for name, value in {"displacement": U, "covariance": C, "transmission": T}.items():
            error = np.asarray(getattr(maps, name + "_error")[INNER])
            pulls[name].append((np.asarray(getattr(maps, name)[INNER]) - value) / error)
        assert float(maps.chi2[INNER].mean()) == pytest.approx(1, abs=0.15)
    for name, pull in pulls.items():
        # 64 x 64 pixels x 3 make 250 windows at 2 pixels, some 60 at 4. That bright parts of the pattern are noisier
        # than dark ones makes the harmonics of a grid share noise, which the error bars leave out.
        slack = 0.07 if window < 3 else 0.1
        assert abs(np.mean(np.abs(pull) < 1) - 0.683) < slack, name
        assert abs(np.mean(np.abs(pull) < 2) - 0.954) < slack, name


def test_distances_share_displacement_and_give_lengths():
    both = [frames("lines", 4, 64, reach=r) for r in (0.5, 1.0)]
    sample, reference = (np.stack([pair[n] for pair in both]) for n in (0, 1))
    maps = fit(sample, reference, reach=[0.5, 1.0])
    np.testing.assert_allclose(maps.displacement[INNER][..., 1], U[1], atol=2e-3)
    assert maps.correlation_lengths_m == pytest.approx((0.137 / 2, 0.137), abs=1e-4)
    near, far = maps.visibility[INNER].mean((0, 1)).tolist()
    assert far / near == pytest.approx(4, abs=0.05)


def test_waves_that_cannot_be_told_apart_are_refused():
    drawn = frames("grid", 1, 64)
    with pytest.raises(ValueError, match="window: expected one that tells the waves apart"):
        fit(*drawn, window=0.5)


@pytest.mark.parametrize(
    ("options", "shape", "says"),
    [
        ({"window": 0.1}, (1, 1, 40, 40), "window: expected"),
        ({"waves": [0.1, 0.2, 0.3]}, (1, 1, 40, 40), "waves: expected shape"),
        ({"waves": "all"}, (1, 1, 40, 40), "waves: expected frequencies"),
        ({"waves": [[0.9, 0.0]]}, (1, 1, 40, 40), "waves: expected frequencies of"),
        ({"harmonics": 0}, (1, 1, 40, 40), "harmonics: expected an integer"),
        ({"smoothing": 1.0}, (1, 1, 40, 40), "smoothing: expected one of"),
        ({}, (1, 1, 10, 40), "sample: expected at least 16 rows and columns"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], shape: tuple[int, ...], says: str):
    with pytest.raises((ValueError, TypeError), match=says):
        METHOD.check(options, shape)
