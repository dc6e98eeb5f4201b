"""Compiled standard errors of the linear retrieval: how far each frame pulls the result."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    ALL,
    ALL_PAIRS,
    INVERSE,
    PAD,
    PAIRS,
    SEGMENT,
    SIZE,
    add_scaled,
    clear,
    compiled,
    filtered_along,
    filtered_down,
    place,
    rounded,
    scaled,
)
from ddf_tomo.retrieval._differential_solve import UPPER, times
from ddf_tomo.retrieval._differential_sums import frame_of, slopes
from ddf_tomo.retrieval._lanes import lanewise, least, where

# What all frames share: shares of the pattern in the regressors, unknowns, flat regressor, weight, change of T.
SHARES, SOLUTION, SHAPE, WEIGHT, OF_T, INVERSE_SQUARE = 0, SIZE, *range(2 * SIZE, 2 * SIZE + 4)
PULLS, WORK = PAIRS + SIZE + 1, PAIRS + SIZE + 1 + ALL + ALL_PAIRS  # behind the inverse, shares, and photons
LEVERAGE, TUG = 0, 1  # of one frame at a pixel of the coarse grid: before the window sum, and on the pixel's own T


@lanewise
def _collect(c, own, unknowns, change, precision, flat, d, r, first, here):
    """What all frames share at a segment, to rows of ``here``: images that lie one after the other share few places
    of a cache."""
    shape = flat[d, r, first + c]
    for a in range(SIZE):
        here[SHARES + a, c] = own[d, a, r, first + c]
        here[SOLUTION + a, c] = unknowns[a, r, first + c] * (shape if a == SIZE - 1 else 1)
        own.ahead(d, a, r + 1, first + c)
    here[SHAPE, c], here[WEIGHT, c] = shape, precision[d, r, first + c]
    here[OF_T, c], here[INVERSE_SQUARE, c] = change[d, r, first + c], own[d, INVERSE, r, first + c]


@lanewise
def _scores(
    c, pattern, reference, f, r, first, roots, d, step, taps, slope, here, misfit, counts, scores, weighted
):  # fmt: skip
    """Regressors without their share of the pattern, then weight and tug, and the regressors times the residual."""
    p, regressors, left = frame_of(c, pattern, reference, f, r, first, taps, d, slope, 0)
    root, weight = roots[d, step, r, first + c], here[WEIGHT, c]
    roots.ahead(d, step, r + 1, first + c)
    left -= here[OF_T, c] * p + here[SOLUTION + SIZE - 1, c]
    for a, each in enumerate(regressors):
        left -= here[SOLUTION + a, c] * each
    lit = root * root
    misfit[d, r, first + c] += where(root > 0, left * left, 0) * counts
    for a, each in enumerate([*regressors, here[SHAPE, c]]):
        score = each - here[SHARES + a, c] * p
        scores[a, c], weighted[a, c] = score, score * (left * lit * weight)
    scores[SIZE, c], scores[SIZE + 1, c] = lit * weight, lit * p * left * here[INVERSE_SQUARE, c]


@lanewise
def _halve(c, rows, n, halves, a, at):
    """Entries ``2 c`` and ``2 c + 1`` of row n to two rows."""
    halves[a, 0, at + c], halves[a, 1, at + c] = rows.halves(n, c)


@lanewise
def _thin_half(c, rows, n, thin):
    thin[n, c], _ = rows.halves(n, c)


@compiled
def _split(rows, coarse, at, count, phases, k):
    """Entry ``coarse · n + phase`` of each row to place n of that phase."""
    for a in range(SIZE):
        if coarse == 2:
            _halve(count, rows, a, phases[k], a, at)
        else:
            for phase in range(coarse):
                for n in range(count):
                    phases[k, a, phase, at + n] = rows[a, n * coarse + phase]


@compiled
def _thin(rows, coarse, count, thinned):
    """Every ``coarse``-th entry of each row."""
    for a in range(len(thinned)):
        if coarse == 2:
            _thin_half(count, rows, a, thinned)
        else:
            for n in range(count):
                thinned[a, n] = rows[a, n * coarse]


@lanewise
def _add_thinned(c, phases, a1, b1, a2, b2, a3, b3, t1, t2, t3, total, at):
    near = t1 * (phases.flat[a1 + c] + phases.flat[b1 + c]) + t2 * (phases.flat[a2 + c] + phases.flat[b2 + c])
    total.flat[at + c] += near + t3 * (phases.flat[a3 + c] + phases.flat[b3 + c])


@compiled
def _place(start, pitch, coarse, lag):
    """Of what is ``lag`` columns on, among rows of one phase each."""
    return start + lag % coarse * pitch + lag // coarse


@compiled
def _thinned_along(phases, start, pitch, coarse, taps, total, at, width):
    """Filter along a row given by its phases, whose first place is ``start``; at phase 0 only."""
    scaled(width, phases, start, taps[0], total, at)
    for lag in range(1, len(taps), 3):
        a1, a2 = _place(start, pitch, coarse, -lag), _place(start, pitch, coarse, -lag - 1)
        b1, b2 = _place(start, pitch, coarse, lag), _place(start, pitch, coarse, lag + 1)
        a3, b3 = _place(start, pitch, coarse, -lag - 2), _place(start, pitch, coarse, lag + 2)
        _add_thinned(width, phases, a1, b1, a2, b2, a3, b3, taps[lag], taps[lag + 1], taps[lag + 2], total, at)


@lanewise
def _leverage_and_tug(c, thin, inverse, row, first, density, short, k, at, few, place_of_row):
    """Of every ``coarse``-th pixel: what a frame carries of its window's information, and its pull on the pixel's T."""
    scores = [thin[a, c] for a in range(SIZE)]
    lifted = times({(a, b): inverse[place(a, b, SIZE), row, first + c] for a, b in UPPER}, scores)
    carried = sum((one * other for one, other in zip(scores[1:], lifted[1:], strict=True)), scores[0] * lifted[0])
    short[k, at + first + c] = carried * thin[SIZE, c] * density
    few[k, TUG, place_of_row, first + c] = thin[SIZE + 1, c]


@lanewise
def _open(c, inverse, share, part, d, row, mean, squares, work):
    """What all frames share at a row of the coarse grid, and their sums, to rows of ``work``."""
    for n in range(PAIRS):
        work[n, c] = inverse[n, row, c]
    for a in range(SIZE):
        work[PAIRS + a, c] = share[a, row, c]
    work[PAIRS + SIZE, c] = part[d, row, c]
    for a in range(ALL):
        work[PULLS + a, c] = mean[a, row, c]
    for n in range(ALL_PAIRS):
        work[PULLS + ALL + n, c] = squares[n, row, c]


@lanewise
def _close(c, work, row, mean, squares):
    for a in range(ALL):
        mean[a, row, c] = work[PULLS + a, c]
    for n in range(ALL_PAIRS):
        squares[n, row, c] = work[PULLS + ALL + n, c]


@lanewise
def _add_pull(c, summed, leverages, few, k, n, here, most_leverage, work):
    """Add what a frame does to (ln T, unknowns) to the sums; ``summed``: scores over the window, its own from n on."""
    free = 1 / (1 - least(leverages[k, c], most_leverage))
    inverse = {(a, b): work[place(a, b, SIZE), c] for a, b in UPPER}
    pull = [each * free for each in times(inverse, [summed[n + a, c] for a in range(SIZE)])]
    first = pull[-1] + work[PAIRS + SIZE, c] * few[k, TUG, here, c]
    for a, each in enumerate(pull):
        first -= work[PAIRS + a, c] * each
    pull, n = [first, *pull], PULLS + ALL
    for a in range(ALL):
        work[PULLS + a, c] += pull[a]
        for b in range(a, ALL):
            work[n, c] += pull[a] * pull[b]
            n += 1


@compiled
def _add_pulls(
    ring, few, count, r, last, row, window, near, inverse, share, part, d, most_leverage, summed, leverages, work,
    mean, squares,
):  # fmt: skip
    """Add what ``count`` frames do to (ln T, unknowns) at a row of the coarse grid to sums over the frames.

    ``ring`` (frame, row, `SIZE`, column), ``few``: scores, and leverage with pulls on T, of the latest rows.
    """
    _, depth, _, columns = ring.shape
    here, zero = row % few.shape[2], window.dtype.type(0)
    _open(columns, inverse, share, part, d, row, mean, squares, work)
    for k in range(count):
        pitch = SIZE * columns
        filtered_down(ring, k * depth * pitch, pitch, depth, r, last, window, zero, summed, k * pitch, pitch)
        start, high = (2 * k + LEVERAGE) * few.shape[2] * columns, inverse.shape[1]
        filtered_down(few, start, columns, few.shape[2], row, high - 1, near, zero, leverages, k * columns, columns)
        _add_pull(columns, summed, leverages, few, k, k * SIZE, here, most_leverage, work)
    _close(columns, work, row, mean, squares)


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
    one, nothing = dtype.type(1), dtype.type(0)
    reach, margin, across = len(window) - 1, (len(window) - 1) // coarse + 1, photons.shape[2]
    least_row, most = max(start * coarse - reach, 0), min((stop - 1) * coarse + reach + 1, rows)
    last, before = min(stop * coarse, rows), len(near) - 1
    ring = np.empty((group, 2 * reach + 1, SIZE, across), dtype)
    few = np.empty((group, 2, 2 * len(near), across), dtype)
    phases = np.empty((group, SIZE, coarse, rounded(across + 2 * margin)), dtype)
    short = np.empty((group, rounded(across + 2 * before)), dtype)
    slope, scores = np.empty((1, SEGMENT + 2 * PAD), dtype), np.empty((SIZE + 2, SEGMENT), dtype)
    weighted, thin = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE + 2, SEGMENT), dtype)
    summed, leverages = np.empty((group * SIZE, across), dtype), np.empty((group, across), dtype)
    work, shared = np.empty((WORK, across), dtype), np.empty((INVERSE_SQUARE + 1, SEGMENT), dtype)
    clear(ring.size, ring)
    clear(few.size, few)
    clear(phases.size, phases)
    clear(short.size, short)
    for d in range(distances):
        for f in range(d * steps, (d + 1) * steps, group):
            count, row = min(group, (d + 1) * steps - f), start
            for r in range(least_row, most):
                on_grid, mine, here = r % coarse == 0, start * coarse <= r < last, (r // coarse) % few.shape[2]
                for first in range(0, columns, SEGMENT):
                    width = min(SEGMENT, columns - first)
                    n, thin_first = width // coarse, first // coarse
                    _collect(width, own, unknowns, change, precision, flat, d, r, first, shared)
                    for k in range(count):
                        step = (f + k - d * steps) % (roots.shape[1] - 1)
                        slopes(width + 2 * PAD, pattern, f + k, r, first, taps, d, slope, 0)
                        _scores(
                            width, pattern, reference, f + k, r, first, roots, d, step, taps, slope, shared, misfit,
                            one if mine else nothing, scores, weighted,
                        )  # fmt: skip
                        if on_grid:
                            _thin(scores, coarse, n, thin)
                            _leverage_and_tug(
                                n, thin, inverse, r // coarse, thin_first, density, short, k, before, few, here
                            )
                        _split(weighted, coarse, margin + thin_first, n, phases, k)
                pitch = phases.shape[3]
                for k in range(count):
                    for a in range(SIZE):
                        begin = (k * SIZE + a) * coarse * pitch + margin
                        at = (k * ring.shape[1] + r % ring.shape[1]) * SIZE
                        _thinned_along(phases, begin, pitch, coarse, window, ring, (at + a) * across, across)
                    if on_grid:
                        at = ((2 * k + LEVERAGE) * few.shape[2] + here) * across
                        filtered_along(short, k * short.shape[1] + before, near, few, at, across)
                while row < stop and min(row * coarse + reach, rows - 1) <= r:
                    _add_pulls(
                        ring, few, count, row * coarse, rows - 1, row, window, near, inverse, share, photons, d,
                        most_leverage, summed, leverages, work, mean, squares,
                    )  # fmt: skip
                    row += 1


@lanewise
def _divide_known(c, means, n, r, known):
    """By the map of what is known, whose reciprocal comes last; row r of map n."""
    means[0, n, r, c] *= known[c]


@lanewise
def _known(c, means, n, r, known):
    found = means[0, n, r, c]
    known[c] = where(found > 0, 1 / where(found > 0, found, 1), 0)


@compiled
def window_means(scatter, window, coarse, means, start, stop):
    """Means, over the window at every pixel, of what is known on a coarse grid where its last map is one.

    They have an axis of length 1 in front.
    """
    count, high, wide = scatter.shape
    rows, columns = means.shape[2:]
    reach = len(window) - 1
    line, row_sum = np.empty((1, rounded(columns + 2 * reach)), scatter.dtype), np.empty(wide, scatter.dtype)
    clear(line.size, line)
    known = np.empty(columns, scatter.dtype)
    for r in range(start, stop):
        low, top = max(-(-(r - reach) // coarse), 0), min((r + reach) // coarse, high - 1)
        for n in range(count - 1, -1, -1):
            clear(wide, row_sum)
            for row in range(low, top + 1):
                add_scaled(wide, scatter, (n * high + row) * wide, window[abs(row * coarse - r)], row_sum, 0)
            for c in range(wide):
                line[0, reach + c * coarse] = row_sum[c]
            filtered_along(line, reach, window, means, (n * rows + r) * columns, columns)
            if n == count - 1:
                _known(columns, means, n, r, known)
            else:
                _divide_known(columns, means, n, r, known)
