"""The compiled inner loops of the linear retrieval (numba, CPU); the obvious form is `_differential_torch`.

Frames are ``(frame, row, column)``, those of one distance together, and patterns have `PAD` rows and columns around
them. Rows are worked on in segments of `SEGMENT` columns, for which the sums over all steps stay in the first cache.
Constants come in arrays of the frames' dtype: numba takes Python's for double ones. A function treats rows ``start``
to ``stop``, and what it writes belongs to these. Filters read arrays of four axes into such of two across rows, of two
into four along them: of each there is one kind to compile. Rows are as long as whole vectors on the coarse grid.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ddf_tomo.retrieval._lanes import MOST, lanewise, where

PAD = 4  # reach of the derivatives
SEGMENT = 128
BLOCK = 32  # rows of the coarse grid at least that are worth the rows around them
SIZE, PAIRS = 6, 21  # unknowns; without a background the last one is kept at zero
OF_NOISE = 15  # pairs of those with derivatives
ALL, ALL_PAIRS = 7, 28  # ln T and the unknowns
# Sums of products: of the pattern, five derivatives, the flat regressor's shape, and twice the difference of frames.
OF_FRAME, SUMS = 8, 36
PATTERN, FLAT, LEFT = 0, 6, 7
# Maps to be gathered: normal equations, right side, then (first pass) squares and contrasts or (second) noise.
RIGHT, SQUARES, CONTRASTS, FIRST_MAPS = PAIRS, PAIRS + SIZE, PAIRS + 2 * SIZE, PAIRS + 2 * SIZE + 2
NOISE, SECOND_MAPS = PAIRS + SIZE, PAIRS + SIZE + OF_NOISE
# A pixel's own: share of the pattern in each regressor, its T's change without them, 1 / pattern².
CHANGE, INVERSE, OWN = SIZE, SIZE + 1, SIZE + 2

compiled = njit(nogil=True, cache=True, fastmath=True, error_model="numpy")


@compiled
def rounded(count):
    """Up to whole vectors."""
    return (count + MOST - 1) // MOST * MOST


def place(a, b, size):
    """Of (a, b), a ≤ b, in the upper triangle."""
    return a * size - a * (a - 1) // 2 + b - a


@lanewise
def clear(c, rows):
    """Zero everywhere, if as many as there are numbers are asked for."""
    rows.flat[c] = 0


@lanewise
def ask(c, image, start):
    """For memory that is needed soon: rows of many images come in turn."""
    image.flat.ahead(start + c)


@lanewise
def scaled(c, image, start, tap, total, at):
    """``total = tap · image``, from these places on."""
    total.flat[at + c] = tap * image.flat[start + c]


@lanewise
def add_scaled(c, image, start, tap, total, at):
    """``total += tap · image``, from these places on."""
    total.flat[at + c] += tap * image.flat[start + c]


@lanewise
def _add_rows(c, image, a1, b1, a2, b2, a3, b3, s1, t1, s2, t2, s3, t3, total, at):
    near = s1 * image.flat[a1 + c] + t1 * image.flat[b1 + c] + s2 * image.flat[a2 + c] + t2 * image.flat[b2 + c]
    total.flat[at + c] += near + s3 * image.flat[a3 + c] + t3 * image.flat[b3 + c]


@lanewise
def _add_columns(c, line, before, after, t1, t2, t3, total, at):
    near = t1 * (line.flat[before + c + 2] + line.flat[after + c])
    near += t2 * (line.flat[before + c + 1] + line.flat[after + c + 1])
    total.flat[at + c] += near + t3 * (line.flat[before + c] + line.flat[after + c + 2])


@compiled
def _row(first, pitch, place, depth):
    """Where a row of a ring begins, one at most a turn off; divisions would take longer than the sums."""
    place = place + depth if place < 0 else place - depth if place >= depth else place
    return first + place * pitch


@compiled
def filtered_down(image, first, pitch, depth, r, last, taps, border, total, at, width):
    """Filter across the rows, at row r, into ``total`` from ``at`` on; three lags at a time.

    Row r begins at ``first + r · pitch`` of ``image``. Above row 0 and below row ``last`` there is the border again, so
    many times of it: 0 or 1, in the taps' dtype, as numba compiles each kind of literal anew. Of a ring of ``depth``
    rows, the latest ones, row r is at ``r % depth``. The taps are one more than a multiple of three.
    """
    turn = r // depth * depth
    scaled(width, image, _row(first, pitch, r - turn, depth), taps[0], total, at)
    for lag in range(1, len(taps), 3):
        s1, s2, s3 = taps[lag], taps[lag + 1], taps[lag + 2]
        t1 = s1 if r + lag <= last else s1 * border
        t2 = s2 if r + lag < last else s2 * border
        t3 = s3 if r + lag + 1 < last else s3 * border
        s1 = s1 if r >= lag else s1 * border
        s2 = s2 if r > lag else s2 * border
        s3 = s3 if r > lag + 1 else s3 * border
        _add_rows(
            width, image,
            _row(first, pitch, max(r - lag, 0) - turn, depth), _row(first, pitch, min(r + lag, last) - turn, depth),
            _row(first, pitch, max(r - lag - 1, 0) - turn, depth),
            _row(first, pitch, min(r + lag + 1, last) - turn, depth),
            _row(first, pitch, max(r - lag - 2, 0) - turn, depth),
            _row(first, pitch, min(r + lag + 2, last) - turn, depth),
            s1, t1, s2, t2, s3, t3, total, at,
        )  # fmt: skip


@compiled
def filtered_along(line, start, taps, total, at, width):
    """Filter along a row, at ``width`` places from ``start`` on, into ``total`` from ``at`` on."""
    scaled(width, line, start, taps[0], total, at)
    for lag in range(1, len(taps), 3):
        t1, t2, t3 = taps[lag], taps[lag + 1], taps[lag + 2]
        _add_columns(width, line, start - lag - 2, start + lag, t1, t2, t3, total, at)


@compiled
def patterns(sample, reference, weights, taps, opaque, smooth_sample, smooth_reference, mean, ratio, start, stop):
    """Smooth both frames, find their ratio and make patterns ``(S/T + R)/2`` of them, in place of the sample.

    T is the ratio where that is above ``opaque``. Borders repeat. The smooth frames have an axis of length 1 in front.
    """
    steps, _, columns = sample.shape[1:]
    count = len(mean) * steps
    line = np.empty((1, columns + 2 * (len(taps) - 1)), sample.dtype)
    sums = np.empty((2, columns), sample.dtype)
    for r in range(start, stop):
        for f in range(count):
            _smooth(sample, f, r, taps, line, smooth_sample)
            _smooth(reference, f, r, taps, line, smooth_reference)
        for d in range(len(mean)):
            _no_means(columns, mean, ratio, d, r, sums)
            for s in range(steps):
                i, j = d % len(weights), s % weights.shape[1]
                _add_means(
                    columns, smooth_sample, smooth_reference, d * steps + s, weights, i, j, mean, ratio, d, r, sums
                )
            _means(columns, mean, ratio, d, r, sums)
            for s in range(steps):
                _pattern(columns, smooth_sample, smooth_reference, d * steps + s, ratio, opaque, d, r)


@compiled
def _smooth(images, f, r, taps, line, smooth):
    """Row r of an image whose borders repeat."""
    rows, columns = images.shape[2:]
    reach, first = len(taps) - 1, f * rows * columns
    ask(columns, images, first + (r + reach + 1) * columns)
    filtered_down(images, first, columns, rows, r, rows - 1, taps, taps.dtype.type(1), line, reach, columns)
    for c in range(reach):
        line[0, c], line[0, reach + columns + c] = line[0, reach], line[0, reach + columns - 1]
    filtered_along(line, reach, taps, smooth, (f * smooth.shape[2] + r + PAD) * smooth.shape[3] + PAD, columns)


@lanewise
def _no_means(c, mean, ratio, d, r, sums):
    mean[d, r, c] = ratio[d, r, c] = sums[0, c] = sums[1, c] = 0


@lanewise
def _add_means(c, sample, reference, f, weights, i, j, mean, ratio, d, r, sums):
    a, b, w = sample[0, f, r + PAD, c + PAD], reference[0, f, r + PAD, c + PAD], weights[i, j, r, c]
    sums[0, c] += w
    sums[1, c] += w * b * b
    mean[d, r, c] += w * b
    ratio[d, r, c] += w * a * b


@lanewise
def _means(c, mean, ratio, d, r, sums):
    """Weighted mean of the reference over the steps, and the least-squares ratio of both frames."""
    total, squares = sums[0, c], sums[1, c]
    mean[d, r, c] = where(total > 0, mean[d, r, c] / total, 1)
    share = where(squares > 0, ratio[d, r, c] / squares, 0)
    ratio[d, r, c] = where(total > 0, share, 1)


@lanewise
def _pattern(c, sample, reference, f, ratio, opaque, d, r):
    found = ratio[d, r, c]
    here = sample[0, f, r + PAD, c + PAD] / where(found > opaque, found, 1)
    sample[0, f, r + PAD, c + PAD] = 0.5 * (here + reference[0, f, r + PAD, c + PAD])


def repeat_borders(frames, columns):
    """Fill what is around the frames, of which so many columns count."""
    frames[:, :, :PAD], frames[:, :, PAD + columns :] = frames[:, :, PAD, None], frames[:, :, PAD + columns - 1, None]
    frames[:, :PAD], frames[:, -PAD:] = frames[:, PAD, None], frames[:, -PAD - 1, None]


@compiled
def change_patterns(pattern, reference, change, start, stop):
    """Divide ``change`` out of the sample's half of the pattern."""
    distances, _, columns = change.shape
    steps = len(pattern) // distances
    for d in range(distances):
        for r in range(start, stop):
            for f in range(d * steps, (d + 1) * steps):
                _changed(columns, pattern, reference, change, d, f, r)


@lanewise
def _changed(c, pattern, reference, change, d, f, r):
    half = 0.5 * reference[f, r + PAD, c + PAD]
    pattern[f, r + PAD, c + PAD] = (pattern[f, r + PAD, c + PAD] - half) / change[d, r, c] + half
