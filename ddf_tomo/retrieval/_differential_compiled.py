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
    scattered,
    usable,
)
from ddf_tomo.retrieval._filters import FIRST, SECOND, gaussian_taps
from ddf_tomo.retrieval.method import View

ROWS = 16  # of a thread at least
VECTOR = 8  # numbers
KEPT = 1 << 19  # bytes: half of a usual second cache, for rows of window sums


def fit(view: View, options: dict[str, Any], tick: Callable[[], object]) -> Fit:
    """Fit one view; ``tick()`` is called three times for every frame."""
    from ddf_tomo.retrieval import _differential_errors as errors
    from ddf_tomo.retrieval import _differential_frames as frames
    from ddf_tomo.retrieval import _differential_solve as solve
    from ddf_tomo.retrieval import _differential_sums as products

    window_sigma, smoothing, background = options_of(options)
    distances, steps, rows, seen = view.sample.shape
    count, size, coarse = distances * steps, 5 + background, coarseness(window_sigma)
    columns = -(-seen // (VECTOR * coarse)) * VECTOR * coarse  # whole vectors, also of every coarse-th pixel
    dtype: Any = np.float64 if view.sample.dtype == torch.float64 else np.float32
    smoother, window = _taps(smoothing, True, dtype), _taps(window_sigma, False, dtype)
    reach = view.reach.numpy().astype(dtype)[:, None, None]
    taps = np.array([FIRST, [tap / 2 for tap in SECOND]], dtype) * np.stack([reach, reach**2], 1)[:, :, 0]

    def maps(*shape: int) -> NDArray[Any]:
        return np.empty((*shape, rows, columns), dtype)

    def by_rows(work: Callable[..., None], *arguments: Any, count: int = rows, grain: int = ROWS) -> None:
        in_parallel(count, grain, lambda start, stop: work(*arguments, start, stop))

    def passed() -> None:
        for _ in range(count):
            tick()

    pattern, reference, noise, clean = (
        np.zeros((count, rows + 2 * frames.PAD, columns + 2 * frames.PAD), dtype) for _ in range(4)
    )
    images = (_wider(each.numpy(), columns, "edge") for each in (view.sample, view.reference))
    mean, ratio = maps(distances), maps(distances)
    opaque, half, sixth = dtype(OPAQUE), dtype(0.5), dtype(background)
    given = _wider(view.weights.numpy(), columns)
    by_rows(frames.patterns, *images, given, smoother, opaque, pattern[None], reference[None], mean, ratio)
    bright = ratio > opaque
    transmission = np.where(bright, ratio, dtype(1))
    counting, informative = usable(view.weights, torch.from_numpy(bright[..., :seen]), smoothing)
    used = _wider(counting.numpy(), columns)
    roots = np.concatenate([np.sqrt(used), np.zeros_like(used[:, :1])], 1)  # of one more step, which is nothing
    known = _wider(informative.numpy(), columns)
    precision = np.where(known, transmission / ((1 + transmission) * mean), dtype(0))
    flat = mean if background else np.zeros_like(mean)

    frames.repeat_borders(pattern, seen)
    unknowns, scale, valid = maps(frames.SIZE), maps(frames.SIZE), np.empty((rows, columns), bool)
    own = maps(distances, frames.OWN)
    sums = np.zeros((rows, -(-columns // frames.SEGMENT), frames.SECOND_MAPS, frames.SEGMENT), dtype)
    common = (pattern, reference, roots, flat, precision, taps, window)
    limits = np.array([UNINFORMATIVE, LEAST_CONTRAST**2, LEAST_PIVOT], dtype)
    by_rows(products.sum_products, *common, unknowns, noise, own, sums, False)
    by_rows(solve.first_solution, sums, window, sixth, limits, scale, unknowns, valid)
    valid[:, seen:] = False
    passed()

    change = np.where(bright & valid, 1 + _change(own, unknowns), dtype(1)).clip(half, dtype(2))
    transmission = transmission * change
    by_rows(frames.change_patterns, pattern, reference, change)
    frames.repeat_borders(pattern, seen)
    excess = half * (1 - transmission) / (1 + transmission)
    by_rows(products.sum_products, *common, unknowns, noise, own, sums, True)
    frames.repeat_borders(noise, seen)
    by_rows(products.free_of_blur, noise, excess, unknowns, taps, clean)
    clean[:, :, frames.PAD + seen :] = 0
    by_rows(products.sum_noise, clean, roots, excess, precision, taps, window, sums)
    high, wide = -(-rows // coarse), -(-columns // coarse)
    inverse = np.empty((frames.PAIRS, high, wide), dtype)
    by_rows(solve.second_solution, sums, window, sixth, limits, scale, unknowns, inverse, coarse, valid)
    valid[:, seen:] = False
    passed()

    change = _change(own, unknowns)
    counted = (used > 0).sum(1, dtype=dtype) * dtype(steps // used.shape[1])
    frames_of_pixel = counted.sum(0)
    photons = counted * mean
    total = photons.sum(0)
    photons = np.where(total > 0, photons / np.where(total > 0, total, 1), dtype(1 / distances))
    number = np.where(frames_of_pixel > 0, frames_of_pixel, dtype(count))
    grid = (..., slice(None, None, coarse), slice(None, None, coarse))
    photons, number, known = (np.ascontiguousarray(each[grid]) for each in (photons, number, valid))
    share = (own[grid][:, : frames.SIZE] * photons[:, None]).sum(0)
    misfit = np.zeros_like(mean)
    pulls = np.zeros((high, -(-wide // frames.SEGMENT), errors.SUMMED, frames.SEGMENT), dtype)
    pairs = len(scattered(background))
    scatter, means = np.empty((pairs + 1, high, wide), dtype), maps(pairs + 1)
    near = _padded(window[::coarse])
    kept = frames.SIZE * (2 * len(window) - 1) * wide * dtype(0).itemsize
    settings = coarse, dtype(coarse * coarse / size), dtype(MOST_LEVERAGE), max(1, min(steps, KEPT // kept))
    given_once = (*common, near, unknowns, own, change, inverse, photons, *settings)
    by_rows(errors.scatter_of_pulls, *given_once, misfit, pulls, count=high, grain=frames.BLOCK)
    by_rows(errors.spread_of_pulls, pulls, inverse, share, number, known, scatter, count=high)
    scatter[-1] = known  # over what is of no use without a background
    by_rows(errors.window_means, scatter, window, coarse, means[None])
    passed()
    whole = 1 + change + unknowns[5]
    transmission = np.where(bright, transmission * np.where(valid, whole, dtype(1)), ratio)
    valid &= bright.any(0) & (means[-1] > 0)
    found = transmission, unknowns[:size], means[:-1], misfit, counted, mean, valid
    return Fit(*(torch.from_numpy(each[..., :seen]) for each in found))


def _wider(images: NDArray[Any], columns: int, mode: Any = "constant") -> NDArray[Any]:
    """With more columns, of zeros or like the last one; contiguous."""
    more = columns - images.shape[-1]
    return np.pad(images, [(0, 0)] * (images.ndim - 1) + [(0, more)], mode) if more else np.ascontiguousarray(images)


def _change(own: NDArray[Any], unknowns: NDArray[Any]) -> NDArray[Any]:
    """Each distance's T, relative to the one divided out, less 1."""
    change = own[:, len(unknowns)].copy()
    for a, u in enumerate(unknowns):
        change -= own[:, a] * u
    return change


def _taps(sigma: float, unit_sum: bool, dtype: Any) -> NDArray[Any]:
    """Taps of a Gaussian, one more than a multiple of three of them, as the kernels take three lags at a time."""
    taps = gaussian_taps(sigma, unit_sum=unit_sum)
    return _padded(np.array(taps, dtype))


def _padded(taps: NDArray[Any]) -> NDArray[Any]:
    return np.pad(taps, (0, -(len(taps) - 1) % 3))
