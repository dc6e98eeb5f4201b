"""The compiled inner loops of the linear retrieval (numba, CPU); the obvious form is `_differential_torch`.

Frames are ``(frame, row, column)``, those of one distance together, and patterns have `PAD` rows and columns around
them. Rows are worked on in segments of `SEGMENT` columns, for which the sums over all steps stay in the first cache;
scratch arrays have constant shapes, so that the compiler sees that their rows do not overlap and uses vector registers
along the columns. Constants come in arrays of the frames' dtype: numba takes Python's for double ones. A function
treats rows ``start`` to ``stop``, and what it writes belongs to these. Inner loops run over ``c`` alone, on slices: of
``first + c`` the compiler cannot tell that it is not negative, and then uses no vector registers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

PAD = 4  # reach of the derivatives
SEGMENT = 96
BLOCK = 32  # rows of the coarse grid whose scores are made together
SIZE, PAIRS = 6, 21  # unknowns; without a background the last one is kept at zero
OF_NOISE = 15  # pairs of those with derivatives
ALL, ALL_PAIRS = 7, 28  # ln T and the unknowns
# Sums of a pixel: pattern², pattern · regressors, pattern · difference, regressors · difference, regressors².
PG, PY, GY, GG = 1, 7, 8, 14
SUMS = GG + PAIRS
# Maps to be gathered: normal equations, right side, then (first pass) squares and contrasts or (second) noise.
RIGHT, SQUARES, CONTRASTS, FIRST_MAPS = PAIRS, PAIRS + SIZE, PAIRS + 2 * SIZE, PAIRS + 2 * SIZE + 2
NOISE, SECOND_MAPS = PAIRS + SIZE, PAIRS + SIZE + OF_NOISE
# A pixel's own: share of the pattern in each regressor, its T's change without them, 1 / pattern².
CHANGE, INVERSE, OWN = SIZE, SIZE + 1, SIZE + 2
# Pulls of one frame on a window: scores, leverage, and its pull on the pixel's T.
LEVERAGE, TUG, PULLS = SIZE, SIZE + 1, SIZE + 2

compiled = njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
inlined = njit(inline="always")  # where constant shapes have to be seen


@compiled
def add_scaled(image, tap, total):
    """``total += tap · image``."""
    for c in range(len(total)):
        total[c] += tap * image[c]


@compiled
def scaled_copy(image, tap, total):
    """``total = tap · image``."""
    for c in range(len(total)):
        total[c] = tap * image[c]


@compiled
def filtered_down(images, n, r, taps, repeat, line, first):
    """Filter image n across the rows, at row r, into ``line`` from ``first`` on; three lags at a time.

    Outside there is nothing, or the border again if ``repeat``. The taps are one more than a multiple of three.
    """
    last, width = images.shape[1] - 1, images.shape[2]
    total = line[first : first + width]
    scaled_copy(images[n, r], taps[0], total)
    for lag in range(1, len(taps), 3):
        a1, a2, a3 = max(r - lag, 0), max(r - lag - 1, 0), max(r - lag - 2, 0)
        b1, b2, b3 = min(r + lag, last), min(r + lag + 1, last), min(r + lag + 2, last)
        s1 = t1 = taps[lag]
        s2 = t2 = taps[lag + 1]
        s3 = t3 = taps[lag + 2]
        if not repeat:
            s1, s2, s3 = s1 * (r >= lag), s2 * (r > lag), s3 * (r > lag + 1)
            t1, t2, t3 = t1 * (r + lag <= last), t2 * (r + lag < last), t3 * (r + lag + 1 < last)
        for c in range(width):
            near = s1 * images[n, a1, c] + t1 * images[n, b1, c] + s2 * images[n, a2, c] + t2 * images[n, b2, c]
            total[c] += near + s3 * images[n, a3, c] + t3 * images[n, b3, c]


@compiled
def filtered_along(line, taps, images, n, r, first):
    """Filter along a row into row r of image n from ``first`` on; ``line`` extends as far as the filter reaches."""
    middle = len(taps) - 1
    width = len(line) - 2 * middle
    total = images[n, r, first : first + width]
    scaled_copy(line[middle : middle + width], taps[0], total)
    for lag in range(1, len(taps), 3):
        before, after = line[middle - lag - 2 :], line[middle + lag :]
        t1, t2, t3 = taps[lag], taps[lag + 1], taps[lag + 2]
        for c in range(width):
            near = t1 * (before[c + 2] + after[c]) + t2 * (before[c + 1] + after[c + 1])
            total[c] += near + t3 * (before[c] + after[c + 2])


@compiled
def smooth_rows(frames, taps, smoothed, start, stop):
    """Gaussian smoothing of ``frames``, whose borders repeat, into the middle of ``smoothed``."""
    count, _, columns = frames.shape
    reach = len(taps) - 1
    line = np.empty(columns + 2 * reach, frames.dtype)
    for f in range(count):
        for r in range(start, stop):
            filtered_down(frames, f, r, taps, True, line, reach)
            line[:reach] = line[reach]
            line[reach + columns :] = line[reach + columns - 1]
            filtered_along(line, taps, smoothed, f, r + PAD, PAD)


@compiled
def repeat_borders(frames, start, stop):
    """Fill what is around the frames ``start`` to ``stop``."""
    rows, columns = frames.shape[1] - 2 * PAD, frames.shape[2] - 2 * PAD
    for f in range(start, stop):
        for r in range(PAD, PAD + rows):
            frames[f, r, :PAD] = frames[f, r, PAD]
            frames[f, r, PAD + columns :] = frames[f, r, PAD + columns - 1]
        for r in range(PAD):
            frames[f, r] = frames[f, PAD]
            frames[f, PAD + rows + r] = frames[f, PAD + rows - 1]


@compiled
def mean_and_ratio(sample, reference, weights, mean, ratio, start, stop):
    """Weighted mean of the reference over the steps of each distance, and the least-squares ratio of both frames."""
    distances, _, columns = mean.shape
    steps = len(sample) // distances
    total, squares = np.empty(columns, mean.dtype), np.empty(columns, mean.dtype)
    one = mean.dtype.type(1)
    for d in range(distances):
        for r in range(start, stop):
            average, shares = mean[d, r], ratio[d, r]
            total[:] = squares[:] = average[:] = shares[:] = 0
            for s in range(steps):
                w = weights[d % len(weights), s % weights.shape[1], r]
                a, b = sample[d * steps + s, r + PAD, PAD:], reference[d * steps + s, r + PAD, PAD:]
                for c in range(columns):
                    total[c] += w[c]
                    average[c] += w[c] * b[c]
                for c in range(columns):
                    squares[c] += w[c] * b[c] * b[c]
                    shares[c] += w[c] * b[c] * a[c]
            for c in range(columns):
                if total[c] > 0:
                    average[c] /= total[c]
                    shares[c] = shares[c] / squares[c] if squares[c] > 0 else one - one
                else:
                    average[c] = shares[c] = one


@compiled
def make_patterns(sample, reference, transmission, half, start, stop):
    """``sample`` becomes the pattern ``(S/T + R)/2``; ``half`` is ½."""
    distances, _, columns = transmission.shape
    steps = len(sample) // distances
    factor = np.empty(columns, sample.dtype)
    for d in range(distances):
        for r in range(start, stop):
            for c in range(columns):
                factor[c] = half / transmission[d, r, c]
            for s in range(steps):
                a, b = sample[d * steps + s, r + PAD, PAD:], reference[d * steps + s, r + PAD, PAD:]
                for c in range(columns):
                    a[c] = a[c] * factor[c] + half * b[c]


@compiled
def change_patterns(pattern, reference, change, half, start, stop):
    """Divide ``change`` out of the sample's half of the pattern."""
    distances, _, columns = change.shape
    steps = len(pattern) // distances
    factor = np.empty(columns, pattern.dtype)
    for d in range(distances):
        for r in range(start, stop):
            for c in range(columns):
                factor[c] = (half + half) / change[d, r, c]
            for s in range(steps):
                a, b = pattern[d * steps + s, r + PAD, PAD:], reference[d * steps + s, r + PAD, PAD:]
                for c in range(columns):
                    a[c] = (a[c] - half * b[c]) * factor[c] + half * b[c]
