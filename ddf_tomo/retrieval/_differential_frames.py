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
from numba import njit, types
from numba.extending import intrinsic

PAD = 4  # reach of the derivatives
SEGMENT = 128
BLOCK = 32  # rows of the coarse grid at least that are worth the rows around them
LINE = 16  # numbers of float32 that come from memory together
SIZE, PAIRS = 6, 21  # unknowns; without a background the last one is kept at zero
OF_NOISE = 15  # pairs of those with derivatives
ALL, ALL_PAIRS = 7, 28  # ln T and the unknowns
# Of one frame, row by row: pattern, five derivatives, difference, root of the weight; sums of products of the first
# seven and one, the flat regressor's shape.
DIFFERENCE, ROOT, ROWS = 6, 7, 8
OF_FRAME, SUMS = 8, 36
PATTERN, FLAT, LEFT = 0, 6, 7  # among the products' factors: after the pattern come the regressors
# Maps to be gathered: normal equations, right side, then (first pass) squares and contrasts or (second) noise.
RIGHT, SQUARES, CONTRASTS, FIRST_MAPS = PAIRS, PAIRS + SIZE, PAIRS + 2 * SIZE, PAIRS + 2 * SIZE + 2
NOISE, SECOND_MAPS = PAIRS + SIZE, PAIRS + SIZE + OF_NOISE
# A pixel's own: share of the pattern in each regressor, its T's change without them, 1 / pattern².
CHANGE, INVERSE, OWN = SIZE, SIZE + 1, SIZE + 2

compiled = njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
inlined = njit(inline="always")  # where constant shapes have to be seen


@intrinsic
def _prefetch(typing, row, c):
    """Ask for the memory of ``row[c]``, which may lie past its end."""

    def generate(context, builder, signature, arguments):
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(8).as_pointer())
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, *[integer] * 3])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(ask, [pointer, *(ir.Constant(integer, n) for n in (0, 3, 1))])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(row, types.intp), generate


@compiled
def ahead(image, r, first, width):
    """Ask for a segment of row r, if there is one, while others are worked on: rows of many images come in turn."""
    if r < len(image):
        row = image[r]
        for c in range(first, first + width, LINE):
            _prefetch(row, c)


@compiled
def clear(rows):
    """Zero everywhere."""
    for n in range(len(rows)):
        for c in range(rows.shape[1]):
            rows[n, c] = 0


@compiled
def scaled_copy(image, tap, total):
    """``total = tap · image``."""
    for c in range(len(total)):
        total[c] = tap * image[c]


@compiled
def add_scaled(image, tap, total):
    """``total += tap · image``."""
    for c in range(len(total)):
        total[c] += tap * image[c]


@inlined
def _row(image, first, pitch, place, depth, width):
    """Of a ring of rows, one at most a turn off; divisions would take longer than the sums."""
    place = place + depth if place < 0 else place - depth if place >= depth else place
    start = first + place * pitch
    return image[start : start + width]


@compiled
def filtered_down(image, first, pitch, depth, r, last, taps, repeat, total):
    """Filter across the rows, at row r, into ``total``; three lags at a time.

    Row r begins at ``first + r · pitch`` of ``image``. Above row 0 and below row ``last`` there is nothing, or the
    border again if ``repeat``. Of a ring of ``depth`` rows, the latest ones, row r is at ``r % depth``. The taps are
    one more than a multiple of three.
    """
    width = len(total)
    turn = r // depth * depth
    scaled_copy(_row(image, first, pitch, r - turn, depth, width), taps[0], total)
    for lag in range(1, len(taps), 3):
        a1 = _row(image, first, pitch, max(r - lag, 0) - turn, depth, width)
        a2 = _row(image, first, pitch, max(r - lag - 1, 0) - turn, depth, width)
        a3 = _row(image, first, pitch, max(r - lag - 2, 0) - turn, depth, width)
        b1 = _row(image, first, pitch, min(r + lag, last) - turn, depth, width)
        b2 = _row(image, first, pitch, min(r + lag + 1, last) - turn, depth, width)
        b3 = _row(image, first, pitch, min(r + lag + 2, last) - turn, depth, width)
        s1 = t1 = taps[lag]
        s2 = t2 = taps[lag + 1]
        s3 = t3 = taps[lag + 2]
        if not repeat:
            s1, s2, s3 = s1 * (r >= lag), s2 * (r > lag), s3 * (r > lag + 1)
            t1, t2, t3 = t1 * (r + lag <= last), t2 * (r + lag < last), t3 * (r + lag + 1 < last)
        for c in range(width):
            near = s1 * a1[c] + t1 * b1[c] + s2 * a2[c] + t2 * b2[c]
            total[c] += near + s3 * a3[c] + t3 * b3[c]


@compiled
def filtered_along(line, taps, total):
    """Filter along a row into ``total``; ``line`` extends as far as the filter reaches to both sides."""
    middle, width = len(taps) - 1, len(total)
    scaled_copy(line[middle : middle + width], taps[0], total)
    for lag in range(1, len(taps), 3):
        before, after = line[middle - lag - 2 :], line[middle + lag :]
        t1, t2, t3 = taps[lag], taps[lag + 1], taps[lag + 2]
        for c in range(width):
            near = t1 * (before[c + 2] + after[c]) + t2 * (before[c + 1] + after[c + 1])
            total[c] += near + t3 * (before[c] + after[c + 2])


@compiled
def patterns(sample, reference, weights, taps, opaque, smooth_sample, smooth_reference, mean, ratio, start, stop):
    """Smooth both frames, find their ratio and make patterns ``(S/T + R)/2`` of them, in place of the sample.

    T is the ratio where that is above ``opaque``. Borders repeat.
    """
    count, _, columns = sample.shape
    steps = count // len(mean)
    reach = len(taps) - 1
    line = np.empty(columns + 2 * reach, sample.dtype)
    for r in range(start, stop):
        for f in range(count):
            _smooth(sample[f], r, taps, line, smooth_sample[f, r + PAD, PAD : PAD + columns])
            _smooth(reference[f], r, taps, line, smooth_reference[f, r + PAD, PAD : PAD + columns])
        for d in range(len(mean)):
            frames = slice(d * steps, (d + 1) * steps)
            both = smooth_sample[frames, r + PAD, PAD:], smooth_reference[frames, r + PAD, PAD:]
            _mean_and_ratio(*both, weights[d % len(weights), :, r], mean[d, r], ratio[d, r])
            _patterns(*both, ratio[d, r], opaque)


@compiled
def _smooth(image, r, taps, line, smooth):
    """Row r of an image whose borders repeat."""
    reach, columns = len(taps) - 1, len(smooth)
    ahead(image, r + reach + 1, 0, columns)
    rows, middle = len(image), line[reach : reach + columns]
    filtered_down(image.reshape(rows * columns), 0, columns, rows, r, rows - 1, taps, True, middle)
    for c in range(reach):
        line[c], line[reach + columns + c] = line[reach], line[reach + columns - 1]
    filtered_along(line, taps, smooth)


@compiled
def _mean_and_ratio(sample, reference, weights, mean, ratio):
    """Weighted mean of the reference over the steps, and the least-squares ratio of both frames, of one row."""
    columns = len(mean)
    total, squares = np.zeros(columns, mean.dtype), np.zeros(columns, mean.dtype)
    one = mean.dtype.type(1)
    for c in range(columns):
        mean[c] = ratio[c] = 0
    for s in range(len(sample)):
        w, a, b = weights[s % len(weights)], sample[s], reference[s]
        for c in range(columns):
            wb = w[c] * b[c]
            total[c] += w[c]
            mean[c] += wb
            squares[c] += wb * b[c]
            ratio[c] += wb * a[c]
    for c in range(columns):
        average = mean[c] / total[c] if total[c] > 0 else one
        share = ratio[c] / squares[c] if squares[c] > 0 else one - one
        mean[c], ratio[c] = average, share if total[c] > 0 else one


@compiled
def _patterns(sample, reference, ratio, opaque):
    columns = len(ratio)
    factor = np.empty(columns, sample.dtype)
    one = ratio.dtype.type(1)
    half = one / (one + one)
    for c in range(columns):
        factor[c] = half / ratio[c] if ratio[c] > opaque else half
    for s in range(len(sample)):
        a, b = sample[s], reference[s]
        for c in range(columns):
            a[c] = a[c] * factor[c] + half * b[c]


def repeat_borders(frames):
    """Fill what is around the frames."""
    frames[:, :, :PAD], frames[:, :, -PAD:] = frames[:, :, PAD, None], frames[:, :, -PAD - 1, None]
    frames[:, :PAD], frames[:, -PAD:] = frames[:, PAD, None], frames[:, -PAD - 1, None]


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
