"""Compiled standard errors of the linear retrieval: how far each frame pulls the result."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    ALL,
    ALL_PAIRS,
    CHANGE,
    INVERSE,
    LEVERAGE,
    PAD,
    PAIRS,
    PULLS,
    SEGMENT,
    SIZE,
    TUG,
    add_scaled,
    compiled,
    filtered_along,
    filtered_down,
    scaled_copy,
)
from ddf_tomo.retrieval._differential_solve import times
from ddf_tomo.retrieval._differential_sums import add_products, copy_rows, grow, regressors_of, subtract_model


@compiled
def _thin(row, coarse, thinned):
    """Every ``coarse``-th entry."""
    for c in range(len(thinned)):
        thinned[c] = row[c * coarse]


@compiled
def pulls_of_frames(
    pattern, reference, weights, mean, precision, powers, taps, unknowns, inverse, own, window, coarse, size,
    misfit, pulls, start, stop,
):  # fmt: skip
    """Scores, leverage and pull on T of every frame at rows ``start`` to ``stop`` of the coarse grid.

    ``inverse`` is that of the grid; ``pulls`` (frame, `PULLS`, grid row, grid column). The squared residuals of the
    rows that belong to these are added up in ``misfit``.
    """
    distances, rows, columns = mean.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    one = dtype.type(1)
    density = dtype.type(coarse * coarse / size)
    reach, across = len(window) - 1, pulls.shape[3]
    least, most = max(start * coarse - reach, 0), min((stop - 1) * coarse + reach + 1, rows)
    last = min(stop * coarse, rows)
    scores, heavy = np.empty((SIZE, most - least, columns), dtype), np.zeros((most - least, across), dtype)
    line = np.zeros(columns + 2 * reach, dtype)
    phases = np.zeros((coarse, across + 2 * reach // coarse + 2), dtype)
    near_reach = reach // coarse
    short = np.zeros(across + 2 * near_reach, dtype)
    g, slope = np.empty((SIZE, SEGMENT), dtype), np.empty(SEGMENT + 2 * PAD, dtype)
    left, unit = np.empty(SEGMENT, dtype), np.empty(SEGMENT, dtype)
    matrix, thin, lifted = (
        np.empty((PAIRS, SEGMENT), dtype),
        np.empty((SIZE, SEGMENT), dtype),
        np.empty((SIZE, SEGMENT), dtype),
    )
    share, u = np.empty((SIZE + 2, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    for d in range(distances):
        for f in range(d * steps, (d + 1) * steps):
            for first in range(0, columns, SEGMENT):
                width = min(SEGMENT, columns - first)
                n = (width + coarse - 1) // coarse
                for r in range(least, most):
                    p = pattern[f, r + PAD, first + PAD : first + PAD + width]
                    other = reference[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, (f - d * steps) % weights.shape[1], r, first : first + width]
                    weight = precision[d, r, first : first + width]
                    regressors_of(pattern[f], r, first, width, taps, slope, g)
                    grow(g, powers[d], 5, width)
                    scaled_copy(mean[d, r, first : first + width], powers[d, 5], g[5, :width])
                    copy_rows(own[d], r, first, width, share)
                    copy_rows(unknowns, r, first, width, u)
                    for c in range(width):
                        left[c] = p[c] + p[c] - other[c] - other[c] - share[CHANGE, c] * p[c]
                        g[0, c] -= share[0, c] * p[c]
                        g[1, c] -= share[1, c] * p[c]
                        g[2, c] -= share[2, c] * p[c]
                        g[3, c] -= share[3, c] * p[c]
                        g[4, c] -= share[4, c] * p[c]
                        g[5, c] -= share[5, c] * p[c]
                    subtract_model(g, u, left, width)
                    if start * coarse <= r < last:
                        squared = misfit[d, r, first : first + width]
                        for c in range(width):
                            squared[c] += left[c] * left[c] if w[c] > 0 else one - one
                    for c in range(width):
                        unit[c] = left[c] * w[c] * weight[c]
                    for a in range(SIZE):
                        target = scores[a, r - least, first : first + width]
                        for c in range(width):
                            target[c] = g[a, c] * unit[c]
                    if r % coarse == 0:
                        for a in range(SIZE):
                            _thin(g[a], coarse, thin[a, :n])
                        copy_rows(inverse, r // coarse, first // coarse, n, matrix)
                        times(matrix, thin, lifted, n)
                        target = heavy[r - least, first // coarse : first // coarse + n]
                        target[:] = 0
                        for a in range(size):
                            for c in range(n):
                                target[c] += thin[a, c] * lifted[a, c]
                        for c in range(width):
                            unit[c] = w[c] * weight[c] * density
                        _thin(unit, coarse, thin[0, :n])
                        for c in range(n):
                            target[c] *= thin[0, c]
                        if start * coarse <= r < last:
                            for c in range(width):
                                unit[c] = p[c] * left[c] * w[c] * share[INVERSE, c]
                            _thin(unit, coarse, pulls[f, TUG, r // coarse, first // coarse : first // coarse + n])
            for row in range(start, stop):
                r = row * coarse - least
                for a in range(SIZE):
                    filtered_down(scores, a, r, window, False, line, reach)
                    target = pulls[f, a, row]
                    if coarse == 1:
                        filtered_along(line, window, pulls[f], a, row, 0)
                        continue
                    for phase in range(coarse):
                        _thin(line[phase:], coarse, phases[phase, : (len(line) - phase + coarse - 1) // coarse])
                    scaled_copy(phases[reach % coarse, reach // coarse :], window[0], target)
                    for lag in range(1, reach + 1):
                        before, after = reach - lag, reach + lag
                        add_scaled(phases[before % coarse, before // coarse :], window[lag], target)
                        add_scaled(phases[after % coarse, after // coarse :], window[lag], target)
                inner = short[near_reach : near_reach + across]
                scaled_copy(heavy[r], window[0], inner)
                for lag in range(coarse, reach + 1, coarse):
                    if r >= lag:
                        add_scaled(heavy[r - lag], window[lag], inner)
                    if r + lag < most - least:
                        add_scaled(heavy[r + lag], window[lag], inner)
                target = pulls[f, LEVERAGE, row]
                scaled_copy(inner, window[0], target)
                for lag in range(1, near_reach + 1):
                    add_scaled(short[near_reach - lag :], window[lag * coarse], target)
                    add_scaled(short[near_reach + lag :], window[lag * coarse], target)


@compiled
def scatter_of_pulls(pulls, inverse, own, photons, frames, valid, most_leverage, scatter, start, stop):
    """Scatter over the frames of what they do to (ln T, unknowns); all arrays are those of the coarse grid.

    ``scatter`` (`ALL_PAIRS` + 1, grid row, grid column), the last one for where there is one; ``frames``: their number.
    """
    distances = len(photons)
    count, _, _, columns = pulls.shape
    dtype = pulls.dtype
    one = dtype.type(1)
    matrix, share = np.empty((PAIRS, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    scores, pull = np.empty((PULLS, SEGMENT), dtype), np.empty((ALL, SEGMENT), dtype)
    mean, squares = np.empty((ALL, SEGMENT), dtype), np.empty((ALL_PAIRS, SEGMENT), dtype)
    influence, free = np.empty((SIZE, SEGMENT), dtype), np.empty(SEGMENT, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            copy_rows(inverse, r, first, width, matrix)
            share[:] = mean[:] = squares[:] = 0
            for d in range(distances):
                part = photons[d, r, first : first + width]
                for a in range(SIZE):
                    row = own[d, a, r, first : first + width]
                    for c in range(width):
                        share[a, c] += part[c] * row[c]
            for f in range(count):
                part = photons[f // (count // distances), r, first : first + width]
                copy_rows(pulls[f], r, first, width, scores)
                times(matrix, scores, influence, width)
                for c in range(width):
                    pull[0, c] = part[c] * scores[TUG, c]
                    free[c] = one / (one - min(scores[LEVERAGE, c], most_leverage))
                for a in range(SIZE):
                    for c in range(width):
                        pull[a + 1, c] = influence[a, c] * free[c]
                        pull[0, c] -= share[a, c] * pull[a + 1, c]
                for c in range(width):
                    pull[0, c] += pull[SIZE, c]
                for a in range(ALL):
                    for c in range(width):
                        mean[a, c] += pull[a, c]
                add_products(pull, pull, squares, 0, ALL, width)
            number, is_valid = frames[r, first : first + width], valid[r, first : first + width]
            for c in range(width):
                free[c] = one if is_valid[c] else one - one
            n = 0
            for a in range(ALL):
                for b in range(a, ALL):
                    target = scatter[n, r, first : first + width]
                    for c in range(width):
                        target[c] = (squares[n, c] - mean[a, c] * mean[b, c] / number[c]) * free[c]
                    n += 1
            scatter[ALL_PAIRS, r, first : first + width] = free[:width]


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
            row_sum[:] = 0
            for row in range(low, top + 1):
                add_scaled(scatter[n, row], window[abs(row * coarse - r)], row_sum)
            for c in range(wide):
                line[reach + c * coarse] = row_sum[c]
            target = means[n, r]
            filtered_along(line, window, means, n, r, 0)
            if n == count - 1:
                for c in range(columns):
                    known[c] = one / target[c] if target[c] > 0 else one - one
            else:
                for c in range(columns):
                    target[c] *= known[c]
