"""The linear retrieval on a CPU, by compiled loops over the rows of a tile; the same sums as `_differential_torch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._threads import in_parallel
from ddf_tomo.retrieval._differential_maps import (
    LEAST_CONTRAST,
    LEAST_PIVOT,
    MOST_LEVERAGE,
    OPAQUE,
    UNINFORMATIVE,
    Fit,
    coarseness,
    options_of,
    powers,
    usable,
)
from ddf_tomo.retrieval._filters import FIRST, SECOND, gaussian_taps
from ddf_tomo.retrieval.method import View

ROWS = 16  # of a thread at least


def fit(view: View, options: dict[str, Any], tick: Callable[[], object]) -> Fit:
    """Fit one view; ``tick()`` is called three times for every frame."""
    from ddf_tomo.retrieval import _differential_errors as errors
    from ddf_tomo.retrieval import _differential_frames as frames
    from ddf_tomo.retrieval import _differential_solve as solve
    from ddf_tomo.retrieval import _differential_sums as products

    window_sigma, smoothing, background = options_of(options)
    distances, steps, rows, columns = view.sample.shape
    count, size = distances * steps, 5 + background
    dtype: Any = np.float64 if view.sample.dtype == torch.float64 else np.float32
    smoother, window = _taps(smoothing, True, dtype), _taps(window_sigma, False, dtype)
    taps = np.array([FIRST, [tap / 2 for tap in SECOND]], dtype)
    exponents = powers(background).numpy()
    grown = np.zeros((distances, frames.SIZE), dtype)
    grown[:, :size] = view.reach.numpy()[:, None] ** exponents

    def maps(*shape: int) -> NDArray[Any]:
        return np.empty((*shape, rows, columns), dtype)

    def by_rows(work: Callable[..., None], *arguments: Any, count: int = rows) -> None:
        in_parallel(count, ROWS, lambda start, stop: work(*arguments, start, stop))

    def passed() -> None:
        for _ in range(count):
            tick()

    pattern, reference, noise, clean = (
        np.zeros((count, rows + 2 * frames.PAD, columns + 2 * frames.PAD), dtype) for _ in range(4)
    )
    for images, smoothed in ((view.sample, pattern), (view.reference, reference)):
        by_rows(frames.smooth_rows, images.reshape(count, rows, columns).numpy(), smoother, smoothed)
    mean, ratio = maps(distances), maps(distances)
    by_rows(frames.mean_and_ratio, pattern, reference, view.weights.contiguous().numpy(), mean, ratio)
    bright = ratio > OPAQUE
    transmission = np.where(bright, ratio, dtype(1))
    used, informative = usable(view.weights, torch.from_numpy(bright), smoothing)
    weights = used.contiguous().numpy()
    precision = np.where(informative.numpy(), transmission / ((1 + transmission) * mean), dtype(0))
    half = dtype(0.5)

    by_rows(frames.make_patterns, pattern, reference, transmission, half)
    in_parallel(count, 1, lambda start, stop: frames.repeat_borders(pattern, start, stop))
    unknowns, scale, valid = maps(frames.SIZE), maps(frames.SIZE), np.empty((rows, columns), bool)
    own = maps(distances, frames.OWN)
    sums, gathered = maps(frames.SECOND_MAPS), maps(frames.SECOND_MAPS)
    first = slice(frames.FIRST_MAPS)
    common = (weights, mean, precision, grown, taps, unknowns)
    by_rows(products.sum_products, pattern, reference, *common, noise, own, sums, False)
    by_rows(products.gather, sums[first], window, gathered[first])
    limits = np.array([UNINFORMATIVE, LEAST_CONTRAST**2, LEAST_PIVOT], dtype)
    by_rows(solve.first_solution, gathered, size, limits, scale, unknowns, valid)
    passed()

    change = np.where(bright & valid, 1 + _change(own, unknowns), dtype(1)).clip(dtype(0.5), dtype(2))
    transmission = transmission * change
    by_rows(frames.change_patterns, pattern, reference, change, half)
    in_parallel(count, 1, lambda start, stop: frames.repeat_borders(pattern, start, stop))
    excess = half * (1 - transmission) / (1 + transmission)
    by_rows(products.sum_products, pattern, reference, *common, noise, own, sums, True)
    by_rows(products.take_off_share, noise, pattern, _change(own, unknowns))
    in_parallel(count, 1, lambda start, stop: frames.repeat_borders(noise, start, stop))
    by_rows(products.free_of_blur, noise, excess, unknowns, grown, taps, clean)
    by_rows(products.sum_noise, clean, weights, excess, precision, grown, taps, dtype(0.25), sums)
    by_rows(products.gather, sums, window, gathered)
    inverse = maps(frames.PAIRS)
    by_rows(solve.second_solution, gathered, size, limits, scale, unknowns, inverse, valid)
    passed()

    coarse = coarseness(window_sigma)
    high, wide = -(-rows // coarse), -(-columns // coarse)
    change = _change(own, unknowns)
    counted = (weights > 0).sum(1, dtype=dtype) * dtype(steps // weights.shape[1])
    frames_of_pixel = counted.sum(0)
    photons = counted * mean
    total = photons.sum(0)
    photons = np.where(total > 0, photons / np.where(total > 0, total, 1), dtype(1 / distances))
    misfit, pulls = np.zeros_like(mean), np.empty((count, frames.PULLS, high, wide), dtype)
    settings = (window, coarse, size)
    grid = (..., slice(None, None, coarse), slice(None, None, coarse))
    inverse = np.ascontiguousarray(inverse[grid])

    def pull(start: int, stop: int) -> None:
        for block in range(start, stop, frames.BLOCK):
            ends = block, min(block + frames.BLOCK, stop)
            errors.pulls_of_frames(pattern, reference, *common, inverse, own, *settings, misfit, pulls, *ends)

    in_parallel(high, frames.BLOCK, pull)
    scatter, means = np.empty((frames.ALL_PAIRS + 1, high, wide), dtype), maps(frames.ALL_PAIRS + 1)
    number = np.where(frames_of_pixel > 0, frames_of_pixel, dtype(count))
    on_grid = [np.ascontiguousarray(each[grid]) for each in (own, photons, number, valid)]

    by_rows(errors.scatter_of_pulls, pulls, inverse, *on_grid, dtype(MOST_LEVERAGE), scatter, count=high)
    by_rows(errors.window_means, scatter, window, coarse, means)
    passed()
    whole = 1 + change + unknowns[5]
    upper = [n for n, (a, b) in enumerate((a, b) for a in range(7) for b in range(a, 7)) if b <= size]
    return Fit(
        *map(
            torch.from_numpy,
            (
                np.where(bright, transmission * np.where(valid, whole, dtype(1)), ratio),
                unknowns[:size],
                means[upper] if len(upper) < frames.ALL_PAIRS else means[: frames.ALL_PAIRS],
                misfit,
                counted,
                mean,
                valid & bright.any(0) & (means[-1] > 0),
            ),
        )
    )


def _change(own: NDArray[Any], unknowns: NDArray[Any]) -> NDArray[Any]:
    """Each distance's T, relative to the one divided out, less 1."""
    change = own[:, len(unknowns)].copy()
    for a, u in enumerate(unknowns):
        change -= own[:, a] * u
    return change


def _taps(sigma: float, unit_sum: bool, dtype: Any) -> NDArray[Any]:
    """Taps of a Gaussian, one more than a multiple of three of them, as the kernels take three lags at a time."""
    taps = gaussian_taps(sigma, unit_sum=unit_sum)
    return np.array(taps + (0.0,) * (-(len(taps) - 1) % 3), dtype)
