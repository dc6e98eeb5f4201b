"""Windowed cross-correlation against frames whose displacement and blur are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ddf_tomo.retrieval.correlation import METHOD, peaks
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from tests.retrieval.simulation import frames

INNER = (slice(14, -14), slice(14, -14))


def fit(sample: Any, reference: Any, counts: float = math.nan, weights: Any = None, **options: Any) -> Maps:
    level = float(np.mean(reference))
    sample, reference = (torch.as_tensor(np.asarray(each) / level) for each in (sample, reference))
    sample, reference = (each[None] if each.ndim == 3 else each for each in (sample, reference))
    reach = torch.tensor(options.pop("reach", [1.0]), dtype=sample.dtype)
    weights = torch.ones(1, 1, *sample.shape[-2:]) if weights is None else torch.as_tensor(weights)
    view = View(sample, reference, weights.to(sample), reach, counts)
    return METHOD.fit(view, METHOD.check(options, tuple(sample.shape)), int)


def test_the_best_shift_is_that_of_plain_correlation():
    # One step, one wide window: numpy's correlation coefficient, shift by shift.
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((1, 20, 22))
    sample = np.roll(reference, (2, -1), (1, 2)) + 0.2 * generator.standard_normal(reference.shape)
    u, best, inside = peaks(*(torch.from_numpy(each) for each in (sample, reference)), torch.ones(1, 20, 22).double(),
                            search=3, window=100.0)  # fmt: skip
    expected = {}
    for j in range(-3, 4):
        for k in range(-3, 4):
            rows, columns = slice(max(j, 0), 20 + min(j, 0)), slice(max(k, 0), 22 + min(k, 0))
            moved = reference[0, rows.start - j : rows.stop - j, columns.start - k : columns.stop - k]
            expected[j, k] = np.corrcoef(sample[0, rows, columns].ravel(), moved.ravel())[0, 1]
    assert max(expected, key=expected.__getitem__) == (2, -1)
    np.testing.assert_allclose(best, expected[2, -1], atol=2e-3)
    np.testing.assert_allclose(u[:, 10, 11].round(), (2, -1))
    assert inside.all()


@pytest.mark.parametrize("displacement", [(0.0, 0.0), (0.5, -0.3), (1.3, -2.2)])
def test_displacement_transmission_and_blur(displacement: tuple[float, float]):
    sample, reference = frames(8, (56, 56), displacement=displacement, covariance=(0.3, 0.0, 0.3), transmission=0.7)
    maps = fit(sample, reference)
    off = np.asarray(maps.displacement[INNER]) - displacement
    assert np.abs(off.mean((0, 1))).max() < 6e-3
    assert off.std((0, 1)).max() < 0.025
    np.testing.assert_allclose(maps.transmission[INNER].mean(), 0.7, atol=2e-3)
    np.testing.assert_allclose(maps.covariance[INNER].mean((0, 1)), (0.3, 0, 0.3), atol=0.02)
    assert maps.valid[INNER].all()


def test_large_shifts_are_searched_for_and_told_when_beyond_the_search():
    sample, reference = frames(6, (48, 48), displacement=(-7.4, 5.2))
    found = fit(sample, reference, search=8)
    np.testing.assert_allclose(found.displacement[INNER].mean((0, 1)), (-7.4, 5.2), atol=0.03)
    assert fit(sample, reference, search=4).valid[INNER].double().mean() < 0.05


@pytest.mark.parametrize("known", [True, False])
def test_error_bars(known: bool):
    pulls = []
    u, c = (0.5, -0.3), 0.2
    for seed in range(2):
        sample, reference = frames(
            10, (56, 56), displacement=u, covariance=(c, 0.0, c), transmission=0.8, counts=1000, seed=seed
        )
        maps = fit(sample, reference, 1000.0 if known else math.nan)
        parts = [
            (maps.transmission - 0.8)[..., None] / maps.transmission_error[..., None],
            (maps.displacement - torch.tensor(u)) / maps.displacement_error,
            (maps.covariance - torch.tensor([c, 0, c]))[..., :1] / maps.covariance_error[..., :1],
        ]
        pulls.append(np.asarray(torch.cat(parts, -1)[INNER]))
    spread = np.std(pulls, axis=(0, 1, 2))
    assert (spread > 0.6).all()
    assert (spread < 1.4).all(), spread


def test_distances_are_put_together_at_the_longest():
    both = [frames(8, (56, 56), displacement=(r * 1.6, -r * 0.8), covariance=(0.3 * r * r, 0, 0.3 * r * r), counts=5000)
            for r in (0.5, 1.0)]  # fmt: skip
    sample, reference = (np.stack([pair[n] for pair in both]) for n in (0, 1))
    maps = fit(sample, reference, 5000.0, reach=[0.5, 1.0])
    np.testing.assert_allclose(maps.displacement[INNER].mean((0, 1)), (1.6, -0.8), atol=0.01)
    np.testing.assert_allclose(maps.covariance[INNER].mean((0, 1)), (0.3, 0, 0.3), atol=0.03)
    alone = fit(sample[1], reference[1], 5000.0)
    assert maps.displacement_error[INNER].mean() < alone.displacement_error[INNER].mean()


def test_dead_pixels_count_nothing():
    sample, reference = frames(8, (56, 56), displacement=(0.4, 0.2))
    weights = np.ones((1, 1, 56, 56))
    weights[..., 25:28, 30] = 0
    broken = sample.copy()
    broken[..., 25:28, 30] = 40 * reference.mean()
    level = np.where(weights[0] > 0, broken, reference.mean())
    maps = fit(level, reference, weights=weights)
    assert np.abs(np.asarray(maps.displacement[INNER]) - (0.4, 0.2)).max() < 0.06


def test_frames_without_pattern_are_not_valid():
    generator = np.random.default_rng(0)
    sample, reference = generator.poisson(1000, (2, 6, 40, 40))
    maps = fit(sample, reference, 1000.0)
    assert maps.valid.double().mean() < 0.02
    assert torch.isinf(maps.displacement_error[~maps.valid]).all()


@pytest.mark.parametrize(
    ("options", "shape", "says"),
    [
        ({"search": 0}, (1, 8, 40, 40), "search: expected an integer"),
        ({"search": 30}, (1, 8, 40, 40), "search: expected an integer"),
        ({"window": 0.1}, (1, 8, 40, 40), "window: expected"),
        ({"smoothing": 1.0}, (1, 8, 40, 40), "smoothing: expected one of"),
        ({}, (1, 8, 8, 40), "sample: expected at least 9 rows and columns"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], shape: tuple[int, ...], says: str):
    with pytest.raises((ValueError, TypeError), match=says):
        METHOD.check(options, shape)
