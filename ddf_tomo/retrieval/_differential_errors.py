"""Compiled standard errors of the linear retrieval: how far each frame pulls the result."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    ALL,
    ALL_PAIRS,
    INVERSE,
    PAD,
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
from ddf_tomo.retrieval._differential_maps import scattered
from ddf_tomo.retrieval._differential_solve import UPPER, times
from ddf_tomo.retrieval._differential_sums import frame_of, slopes
from ddf_tomo.retrieval._lanes import lanewise, least, where

# What all frames share: shares of the pattern in the regressors, unknowns, flat regressor, weight, change of T.
SHARES, SOLUTION, SHAPE, WEIGHT, OF_T, INVERSE_SQUARE = 0, SIZE, *range(2 * SIZE, 2 * SIZE + 4)
SUMMED = ALL + ALL_PAIRS  # over the frames: what pulls are made of, and products of it
SCATTERED = tuple(scattered(True))
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
def _add_pull(c, summed, leverages, few, k, here, first, photons, d, row, most_leverage, pulls, segment):
    """Add what a frame's pull is made of to the sums: its scores over the window, and its pull on the pixel's own T."""
    free = 1 / (1 - least(leverages[0, c], most_leverage))
    parts = [summed[a, c] * free for a in range(SIZE)]
    parts.append(photons[d, row, first + c] * few[k, TUG, here, first + c])
    n = ALL
    for a in range(ALL):
        pulls[row, segment, a, c] += parts[a]
        for b in range(a, ALL):
            pulls[row, segment, n, c] += parts[a] * parts[b]
            n += 1


@compiled
def _add_pulls(ring, few, count, r, last, row, window, near, photons, d, most_leverage, summed, leverages, pulls):
    """Add what the pulls of ``count`` frames at a row of the coarse grid are made of to sums over the frames.

    ``ring`` (frame, row, `SIZE` · column), ``few``: scores, and leverage with pulls on T, of the latest rows. A row of
    the ring is a row of each score for the first `SEGMENT` columns, then for the next.
    """
    depth, pitch, columns = ring.shape[1], ring.shape[2], few.shape[3]
    here, zero, high = row % few.shape[2], window.dtype.type(0), pulls.shape[0]
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        rows = summed[: SIZE * width].reshape(SIZE, width)
        for k in range(count):
            begin = k * depth * pitch + SIZE * first
            filtered_down(ring, begin, pitch, depth, r, last, window, zero, rows, np.intp(0), SIZE * width)
            begin = (2 * k + LEVERAGE) * few.shape[2] * columns + first
            filtered_down(few, begin, columns, few.shape[2], row, high - 1, near, zero, leverages, np.intp(0), width)
            _add_pull(
                width, rows, leverages, few, k, here, first, photons, d, row, most_leverage, pulls, first // SEGMENT
            )


@compiled
def spread_of_pulls(pulls, inverse, share, number, known, scatter, start, stop):
    """How the pulls on (ln T, unknowns) scatter about their mean, summed over a ``number`` of frames, where ``known``.

    ``pulls`` as `scatter_of_pulls` leaves them. A pull is the same linear function of its parts in every frame, so that
    it is enough to apply it to their products summed over the frames.
    """
    for r in range(start, stop):
        for segment in range(pulls.shape[1]):
            first = segment * SEGMENT
            width = min(SEGMENT, known.shape[1] - first)
            _spread(width, pulls, r, segment, first, inverse, share, number, known, scatter)


@lanewise
def _spread(c, pulls, r, segment, first, inverse, share, number, known, scatter):
    mean, n, parts = [pulls[r, segment, a, c] for a in range(ALL)], ALL, {}
    less, is_known = 1 / number[r, first + c], known[r, first + c]
    for a in range(ALL):
        for b in range(a, ALL):
            parts[a, b] = pulls[r, segment, n, c] - mean[a] * (mean[b] * less)
            n += 1
    rows = {(a, b): inverse[place(a, b, SIZE), r, first + c] for a, b in UPPER}
    own = times(rows, [float(a == SIZE - 1) - share[a, r, first + c] for a in range(SIZE)])  # of T, beside its tug
    effects = [own, *([rows[min(a, b), max(a, b)] for b in range(SIZE)] for a in range(SIZE))]
    tugs = [parts[a, SIZE] for a in range(SIZE)]
    lifted = [times(parts, effect) for effect in effects]
    lifted[0] = [one + other for one, other in zip(lifted[0], tugs, strict=True)]
    for n, (a, b) in enumerate(SCATTERED):
        found = _product(lifted[a], effects[b])
        if b == 0:
            found += _product(tugs, own) + parts[SIZE, SIZE]
        scatter[n, r, first + c] = where(is_known, found, 0)


def _product(one, other):
    return sum((a * b for a, b in zip(one[1:], other[1:], strict=True)), one[0] * other[0])


@compiled
def scatter_of_pulls(
    pattern, reference, roots, flat, precision, taps, window, near, unknowns, own, change, inverse, photons,
    coarse, density, most_leverage, group, misfit, pulls, start, stop,
):  # fmt: skip
    """Sums over the frames of what their pulls on (ln T, unknowns) are made of, at rows of the coarse grid.

    To ``pulls`` (grid row, segment, `SUMMED`, `SEGMENT`): the scores over the window and the frame's pull on the
    pixel's own T, then the upper triangle of their products. ``inverse`` and ``photons`` (distance, …) are those of the
    grid. The squared residuals of the rows that belong to these are added up in ``misfit``. ``near``: the window's taps
    on the grid. ``group`` frames at a time: of them the latest rows stay in the second cache.
    """
    distances, rows, columns = precision.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    one, nothing = dtype.type(1), dtype.type(0)
    reach, margin, across = len(window) - 1, (len(window) - 1) // coarse + 1, photons.shape[2]
    least_row, most = max(start * coarse - reach, 0), min((stop - 1) * coarse + reach + 1, rows)
    last, before = min(stop * coarse, rows), len(near) - 1
    ring = np.empty((group, 2 * reach + 1, SIZE * across), dtype)
    few = np.empty((group, 2, 2 * len(near), across), dtype)
    phases = np.empty((group, SIZE, coarse, rounded(across + 2 * margin)), dtype)
    short = np.empty((group, rounded(across + 2 * before)), dtype)
    slope, scores = np.empty((1, SEGMENT + 2 * PAD), dtype), np.empty((SIZE + 2, SEGMENT), dtype)
    weighted, thin = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE + 2, SEGMENT), dtype)
    summed, leverages = np.empty(SIZE * SEGMENT, dtype), np.empty((1, SEGMENT), dtype)
    shared = np.empty((INVERSE_SQUARE + 1, SEGMENT), dtype)
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
                        at = (k * ring.shape[1] + r % ring.shape[1]) * SIZE * across
                        for first in range(0, across, SEGMENT):
                            width = min(SEGMENT, across - first)
                            there = at + first * SIZE + a * width
                            _thinned_along(phases, begin + first, pitch, coarse, window, ring, there, width)
                    if on_grid:
                        at = ((2 * k + LEVERAGE) * few.shape[2] + here) * across
                        filtered_along(short, k * short.shape[1] + before, near, few, at, across)
                while row < stop and min(row * coarse + reach, rows - 1) <= r:
                    _add_pulls(
                        ring, few, count, row * coarse, rows - 1, row, window, near, photons, d, most_leverage, summed,
                        leverages, pulls,
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
