"""Compiled standard errors of the linear retrieval: how far each frame pulls the result."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    ALL,
    ALL_PAIRS,
    INVERSE,
    PAD,
    PAIRS,
    ROOT,
    ROWS,
    SEGMENT,
    SIZE,
    add_scaled,
    ahead,
    compiled,
    filtered_along,
    filtered_down,
    inlined,
    scaled_copy,
)
from ddf_tomo.retrieval._differential_solve import store_rows, times
from ddf_tomo.retrieval._differential_sums import copy_rows, left_of, take_frame

LEVERAGE, TUG = 0, 1  # of one frame at a pixel of the coarse grid: before the window sum, and on the pixel's own T


@compiled
def _split(row, unit, coarse, first, count, phases):
    """Entry ``coarse · n + phase`` of a row times ``unit`` to place n of that phase."""
    if coarse == 2:
        even, odd = phases[0, first : first + count], phases[1, first : first + count]
        for n in range(count):
            even[n], odd[n] = row[2 * n] * unit[2 * n], row[2 * n + 1] * unit[2 * n + 1]
    else:
        for phase in range(coarse):
            target = phases[phase, first : first + count]
            for n in range(count):
                target[n] = row[n * coarse + phase] * unit[n * coarse + phase]


@compiled
def _thin(row, coarse, thinned):
    """Every ``coarse``-th entry."""
    if coarse == 2:
        for n in range(len(thinned)):
            thinned[n] = row[2 * n]
    else:
        for n in range(len(thinned)):
            thinned[n] = row[n * coarse]


@compiled
def _thinned_along(phases, margin, taps, total):
    """Filter along a row given by its phases, whose first ``margin`` places lie before it; at phase 0 only."""
    coarse, width = len(phases), len(total)
    scaled_copy(phases[0, margin : margin + width], taps[0], total)
    for lag in range(1, len(taps), 3):
        a1 = phases[-lag % coarse, margin - (lag + coarse - 1) // coarse :]
        a2 = phases[(-lag - 1) % coarse, margin - (lag + coarse) // coarse :]
        a3 = phases[(-lag - 2) % coarse, margin - (lag + coarse + 1) // coarse :]
        b1 = phases[lag % coarse, margin + lag // coarse :]
        b2 = phases[(lag + 1) % coarse, margin + (lag + 1) // coarse :]
        b3 = phases[(lag + 2) % coarse, margin + (lag + 2) // coarse :]
        t1, t2, t3 = taps[lag], taps[lag + 1], taps[lag + 2]
        for n in range(width):
            total[n] += t1 * (a1[n] + b1[n]) + t2 * (a2[n] + b2[n]) + t3 * (a3[n] + b3[n])


@inlined
def _scores(z, u, share, change, weight, shape, left, unit, width):
    """Regressors in ``z`` without their share of the pattern; the residual ``left``, and weighted as ``unit``."""
    left_of(z, u, change, left, width)
    for c in range(width):
        p = z[0, c]
        unit[c] = left[c] * z[ROOT, c] * z[ROOT, c] * weight[c]
        z[1, c] -= share[0, c] * p
        z[2, c] -= share[1, c] * p
        z[3, c] -= share[2, c] * p
        z[4, c] -= share[3, c] * p
        z[5, c] -= share[4, c] * p
        z[6, c] = shape[c] - share[5, c] * p


@compiled
def _leverage_and_tug(z, left, weight, inverse_square, matrix, coarse, density, count, leverage, tug):
    """Of every ``coarse``-th pixel: what a frame carries of its window's information, and its pull on the pixel's T."""
    dtype = z.dtype
    thin, lifted = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    for a in range(SIZE):
        _thin(z[a + 1], coarse, thin[a, :count])
    times(matrix, thin, lifted, count)
    for n in range(count):
        leverage[n] = 0
    for a in range(SIZE):
        for n in range(count):
            leverage[n] += thin[a, n] * lifted[a, n]
    for n in range(count):
        c = n * coarse
        w = z[ROOT, c] * z[ROOT, c]
        leverage[n] *= w * weight[c] * density
        tug[n] = w * z[0, c] * left[c] * inverse_square[c]


@compiled
def _add_pulls(ring, few, r, last, row, window, near, inverse, share, part, most_leverage, mean, squares):
    """Add what frames do to (ln T, unknowns) at a row of the coarse grid to sums over the frames.

    ``ring`` (frame, row, `SIZE`, column), ``few``: scores, and leverage with pulls on T, of the latest rows; ``share``,
    ``part``: of the pattern in the regressors, of this distance in the photons.
    """
    columns = part.shape[1]
    dtype = ring.dtype
    one = dtype.type(1)
    matrix, shares = np.empty((PAIRS, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    scores, influence = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    pull, total = np.empty((ALL, SEGMENT), dtype), np.empty((ALL, SEGMENT), dtype)
    products, free = np.empty((ALL_PAIRS, SEGMENT), dtype), np.empty(SEGMENT, dtype)
    summed, leverages = np.empty((len(ring), SIZE, columns), dtype), np.empty((len(ring), columns), dtype)
    for k in range(len(ring)):
        rows, all_six = ring[k].reshape(ring[k].size), summed[k].reshape(SIZE * columns)
        filtered_down(rows, 0, SIZE * columns, ring.shape[1], r, last, window, False, all_six)
        rows, high = few[k, LEVERAGE].reshape(few[k, LEVERAGE].size), inverse.shape[1]
        filtered_down(rows, 0, columns, few.shape[2], row, high - 1, near, False, leverages[k])
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        photons = part[row, first : first + width]
        copy_rows(inverse, row, first, width, matrix)
        copy_rows(share, row, first, width, shares)
        copy_rows(mean, row, first, width, total)
        copy_rows(squares, row, first, width, products)
        for k in range(len(ring)):
            for a in range(SIZE):
                scaled_copy(summed[k, a, first:], one, scores[a, :width])
            tug, leverage = few[k, TUG, row % few.shape[2], first : first + width], leverages[k, first : first + width]
            times(matrix, scores, influence, width)
            for c in range(width):
                free[c] = one / (one - min(leverage[c], most_leverage))
                pull[0, c] = photons[c] * tug[c]
            for a in range(SIZE):
                for c in range(width):
                    pull[a + 1, c] = influence[a, c] * free[c]
                    pull[0, c] -= shares[a, c] * pull[a + 1, c]
            for c in range(width):
                pull[0, c] += pull[SIZE, c]
            n = 0
            for a in range(ALL):
                for c in range(width):
                    total[a, c] += pull[a, c]
                for b in range(a, ALL):
                    for c in range(width):
                        products[n, c] += pull[a, c] * pull[b, c]
                    n += 1
        store_rows(total, row, first, width, mean)
        store_rows(products, row, first, width, squares)


@compiled
def scatter_of_pulls(
    pattern, reference, roots, flat, precision, taps, window, near, unknowns, own, change, inverse, share, photons,
    coarse, density, most_leverage, group, misfit, mean, squares, start, stop,
):  # fmt: skip
    """Sums over the frames of what they do to (ln T, unknowns), at rows ``start`` to ``stop`` of the coarse grid.

    ``mean`` (`ALL`, grid row, grid column) and ``squares`` (`ALL_PAIRS`, …) of their pulls; ``inverse``, ``share`` and
    ``photons`` (distance, …) are those of the grid. The squared residuals of the rows that belong to these are added up
    in ``misfit``. ``near``: the window's taps on the grid. ``group`` frames at a time: of them the latest rows stay in
    the second cache, and what they share is read once.
    """
    distances, rows, columns = precision.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    one = dtype.type(1)
    reach, margin, across = len(window) - 1, (len(window) - 1) // coarse + 1, photons.shape[2]
    least, most = max(start * coarse - reach, 0), min((stop - 1) * coarse + reach + 1, rows)
    last = min(stop * coarse, rows)
    ring = np.zeros((group, 2 * reach + 1, SIZE, across), dtype)
    few = np.zeros((group, 2, 2 * len(near), across), dtype)
    phases = np.zeros((group, SIZE, coarse, across + 2 * margin), dtype)
    short = np.zeros((group, across + 2 * len(near) - 2), dtype)
    z, slope = np.zeros((ROWS, SEGMENT), dtype), np.empty(SEGMENT + 2 * PAD, dtype)
    left, unit, between = np.zeros(SEGMENT, dtype), np.zeros(SEGMENT, dtype), np.empty(SEGMENT, dtype)
    shares, u = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    matrix = np.empty((PAIRS, SEGMENT), dtype)
    for d in range(distances):
        for f in range(d * steps, (d + 1) * steps, group):
            count, row = min(group, (d + 1) * steps - f), start
            for r in range(least, most):
                on_grid, mine, place = r % coarse == 0, start * coarse <= r < last, (r // coarse) % few.shape[2]
                for first in range(0, columns, SEGMENT):
                    width = min(SEGMENT, columns - first)
                    n, thin = (width + coarse - 1) // coarse, first // coarse
                    weight, shape = precision[d, r, first : first + width], flat[d, r, first : first + width]
                    for row_ahead in (precision[d], flat[d], change[d], own[d, INVERSE], misfit[d]):
                        ahead(row_ahead, r + 1, first, width)
                    copy_rows(own[d, :SIZE], r, first, width, shares)
                    copy_rows(unknowns, r, first, width, u)
                    scaled_copy(change[d, r, first:], one, between[:width])
                    for c in range(width):
                        u[SIZE - 1, c] *= shape[c]
                    if on_grid:
                        copy_rows(inverse, r // coarse, thin, n, matrix)
                    for c in range(width, SEGMENT):
                        unit[c] = 0
                    for k in range(count):
                        root = roots[d, (f + k - d * steps) % roots.shape[1]]
                        take_frame(pattern[f + k], reference[f + k], root, r, first, width, taps[d], slope, z)
                        _scores(z, u, shares, between, weight, shape, left, unit, width)
                        if mine:
                            squared = misfit[d, r, first : first + width]
                            for c in range(width):
                                squared[c] += left[c] * left[c] if z[ROOT, c] > 0 else one - one
                        if on_grid:
                            _leverage_and_tug(
                                z, left, weight, own[d, INVERSE, r, first:], matrix, coarse, density, n,
                                short[k, len(near) - 1 + thin : len(near) - 1 + thin + n],
                                few[k, TUG, place, thin : thin + n],
                            )  # fmt: skip
                        for a in range(SIZE):
                            _split(z[a + 1], unit, coarse, margin + thin, n, phases[k, a])
                for k in range(count):
                    for a in range(SIZE):
                        _thinned_along(phases[k, a], margin, window, ring[k, r % ring.shape[1], a])
                    if on_grid:
                        filtered_along(short[k], near, few[k, LEVERAGE, place])
                while row < stop and min(row * coarse + reach, rows - 1) <= r:
                    _add_pulls(
                        ring[:count], few[:count], row * coarse, rows - 1, row, window, near, inverse, share,
                        photons[d], most_leverage, mean, squares,
                    )  # fmt: skip
                    row += 1


@compiled
def window_means(scatter, window, coarse, means, start, stop):
    """Means, over the window at every pixel, of what is known on a coarse grid where its last map is one."""
    count, high, wide = scatter.shape
    columns = means.shape[2]
    dtype = means.dtype
    one = dtype.type(1)
    reach = len(window) - 1
    line, row_sum, known = np.zeros(columns + 2 * reach, dtype), np.empty(wide, dtype), np.empty(columns, dtype)
    for r in range(start, stop):
        low, top = max(-(-(r - reach) // coarse), 0), min((r + reach) // coarse, high - 1)
        for n in range(count - 1, -1, -1):
            for c in range(wide):
                row_sum[c] = 0
            for row in range(low, top + 1):
                add_scaled(scatter[n, row], window[abs(row * coarse - r)], row_sum)
            for c in range(wide):
                line[reach + c * coarse] = row_sum[c]
            target = means[n, r]
            filtered_along(line, window, target)
            if n == count - 1:
                for c in range(columns):
                    known[c] = one / target[c] if target[c] > 0 else one - one
            else:
                for c in range(columns):
                    target[c] *= known[c]
