"""The compiled inner loops of the linear retrieval (numba, CPU); the obvious form is `_differential_torch`.

Frames are ``(frame, row, column)``, those of one distance together, and patterns have `PAD` rows and columns around
them. Rows are worked on in segments of `SEGMENT` columns, for which the sums over all steps stay in the first cache;
scratch arrays have constant shapes, so that the compiler sees that their rows do not overlap and uses vector registers
along the columns. Constants come in arrays of the frames' dtype: numba takes Python's for double ones. A function
treats rows ``start`` to ``stop``, and what it writes belongs to these.
"""

from __future__ import annotations

import numpy as np
from numba import njit

PAD = 4  # reach of the derivatives
SEGMENT = 128
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


# -- frames -----------------------------------------------------------------------------------------------------------


@compiled
def add_two(first, second, tap, total):
    """``total += tap (first + second)``."""
    for c in range(len(total)):
        total[c] += tap * (first[c] + second[c])


@compiled
def smooth_rows(frames, taps, smoothed, start, stop):
    """Gaussian smoothing of ``frames``, whose borders repeat, into the middle of ``smoothed``."""
    count, rows, columns = frames.shape
    reach = len(taps) - 1
    line = np.empty(columns + 2 * reach, frames.dtype)
    inner = line[reach : reach + columns]
    for f in range(count):
        for r in range(start, stop):
            for c in range(columns):
                inner[c] = taps[0] * frames[f, r, c]
            for lag in range(1, reach + 1):
                add_two(frames[f, max(r - lag, 0)], frames[f, min(r + lag, rows - 1)], taps[lag], inner)
            line[:reach] = line[reach]
            line[reach + columns :] = line[reach + columns - 1]
            target = smoothed[f, r + PAD, PAD : PAD + columns]
            for c in range(columns):
                target[c] = taps[0] * inner[c]
            for lag in range(1, reach + 1):
                add_two(line[reach - lag :], line[reach + lag :], taps[lag], target)


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


# -- derivatives and their products -----------------------------------------------------------------------------------


@compiled
def _across(above, below, slope_tap, bend_tap, slope, bend):
    """One lag of both derivatives across the rows."""
    for c in range(len(slope)):
        slope[c] += slope_tap * (below[c] - above[c])
        bend[c] += bend_tap * (below[c] + above[c])


@compiled
def _regressors(pattern, r, first, width, taps, near, g):
    """−∂_j, −∂_k, ½∂_jj, ∂_jk, ½∂_kk of ``width`` columns of row r into the first rows of ``g``.

    ``taps`` (2, 5) are those of the first derivative and half of those of the second; ``near`` (2, SEGMENT + 2 PAD)
    is scratch for derivatives across the rows.
    """
    wide = width + 2 * PAD
    middle = pattern[r + PAD, first : first + wide]
    slope, bend = near[0, :wide], near[1, :wide]
    for c in range(wide):
        slope[c] = 0
        bend[c] = taps[1, 0] * middle[c]
    for lag in range(1, PAD + 1):
        above, below = pattern[r + PAD - lag, first : first + wide], pattern[r + PAD + lag, first : first + wide]
        _across(above, below, taps[0, lag], taps[1, lag], slope, bend)
    f1, f2, f3, f4 = taps[0, 1], taps[0, 2], taps[0, 3], taps[0, 4]
    s0, s1, s2, s3, s4 = taps[1, 0], taps[1, 1], taps[1, 2], taps[1, 3], taps[1, 4]
    for c in range(width):
        g[0, c] = -slope[c + 4]
        g[2, c] = bend[c + 4]
        g[3, c] = (
            f1 * (slope[c + 5] - slope[c + 3])
            + f2 * (slope[c + 6] - slope[c + 2])
            + f3 * (slope[c + 7] - slope[c + 1])
            + f4 * (slope[c + 8] - slope[c])
        )
    for c in range(width):
        g[1, c] = (
            f1 * (middle[c + 3] - middle[c + 5])
            + f2 * (middle[c + 2] - middle[c + 6])
            + f3 * (middle[c + 1] - middle[c + 7])
            + f4 * (middle[c] - middle[c + 8])
        )
        g[4, c] = (
            s0 * middle[c + 4]
            + s1 * (middle[c + 3] + middle[c + 5])
            + s2 * (middle[c + 2] + middle[c + 6])
            + s3 * (middle[c + 1] + middle[c + 7])
            + s4 * (middle[c] + middle[c + 8])
        )


@compiled
def _scale(g, powers, size, width):
    """Bring regressors to the longest distance."""
    for a in range(size):
        if powers[a] != 1:
            for c in range(width):
                g[a, c] *= powers[a]


@compiled
def _add_products(g, gw, upper, first, size, width):
    """Add the upper triangle of ``g gwᵀ`` to the rows of ``upper`` from ``first`` on."""
    n = first
    for a in range(size):
        for b in range(a, size):
            for c in range(width):
                upper[n, c] += g[a, c] * gw[b, c]
            n += 1


@compiled
def sum_products(
    pattern, reference, weights, mean, precision, powers, taps, unknowns, noise, own, maps, second, start, stop
):
    """Normal equations of the windowed unknowns with the transmission eliminated, before the window sums.

    ``maps`` has rows as `RIGHT` and the following say; ``own`` (distance, `OWN`, row, column). On the ``second`` pass
    what the ``unknowns`` leave of each frame's difference goes to ``noise``.
    """
    distances, _, columns = mean.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    two, zero, one = dtype.type(2), dtype.type(0), dtype.type(1)
    sums, contrast = np.empty((SUMS, SEGMENT), dtype), np.empty((5, SEGMENT), dtype)
    g, gw = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    near, y = np.empty((2, SEGMENT + 2 * PAD), dtype), np.empty(SEGMENT, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            maps[:, r, first : first + width] = 0
            for d in range(distances):
                sums[:] = contrast[:] = 0
                for c in range(width):
                    g[5, c] = mean[d, r, first + c] * powers[d, 5]
                for s in range(steps):
                    f = d * steps + s
                    p = pattern[f, r + PAD, first + PAD : first + PAD + width]
                    other = reference[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, s % weights.shape[1], r, first : first + width]
                    _regressors(pattern[f], r, first, width, taps, near, g)
                    _scale(g, powers[d], 5, width)
                    for c in range(width):
                        y[c] = two * (p[c] - other[c])
                    for a in range(SIZE):
                        for c in range(width):
                            gw[a, c] = g[a, c] * w[c]
                    for c in range(width):
                        sums[0, c] += p[c] * p[c] * w[c]
                        sums[PY, c] += p[c] * y[c] * w[c]
                    for a in range(SIZE):
                        for c in range(width):
                            sums[PG + a, c] += p[c] * gw[a, c]
                            sums[GY + a, c] += y[c] * gw[a, c]
                    _add_products(g, gw, sums, GG, SIZE, width)
                    if second:
                        left = noise[f, r + PAD, first + PAD : first + PAD + width]
                        for c in range(width):
                            left[c] = y[c]
                        for a in range(SIZE):
                            u = unknowns[a, r, first : first + width]
                            for c in range(width):
                                left[c] -= u[c] * g[a, c]
                    else:
                        for c in range(width):
                            contrast[0, c] += w[c]
                            contrast[1, c] += w[c] * other[c]
                            contrast[2, c] += w[c] * other[c] * other[c]
                        for c in range(width):
                            scaled = y[c] + other[c]
                            contrast[3, c] += w[c] * scaled
                            contrast[4, c] += w[c] * scaled * scaled
                _eliminate(sums, precision, own, maps, d, r, first, width, one)
                if not second:
                    for c in range(width):
                        factor = precision[d, r, first + c]
                        for a in range(SIZE):
                            maps[SQUARES + a, r, first + c] += factor * sums[GG + a * SIZE - a * (a - 1) // 2, c]
                        share = one / contrast[0, c] if contrast[0, c] > 0 else zero
                        of_reference = contrast[2, c] - contrast[1, c] * contrast[1, c] * share
                        of_sample = contrast[4, c] - contrast[3, c] * contrast[3, c] * share
                        maps[CONTRASTS, r, first + c] += factor * of_reference
                        maps[CONTRASTS + 1, r, first + c] += factor * of_sample


@compiled
def _eliminate(sums, precision, own, maps, d, r, first, width, one):
    """Take the pixel's transmission out of the sums and add what is left, weighted, to a row of the maps."""
    stop = first + width
    weight, inverse, change = precision[d, r, first:stop], own[d, INVERSE, r, first:stop], own[d, CHANGE, r, first:stop]
    for c in range(width):
        inverse[c] = one / sums[0, c] if sums[0, c] > 0 else one - one
        change[c] = sums[PY, c] * inverse[c]
    n = 0
    for a in range(SIZE):
        share, right = own[d, a, r, first:stop], maps[RIGHT + a, r, first:stop]
        for c in range(width):
            share[c] = sums[PG + a, c] * inverse[c]
        for c in range(width):
            right[c] += weight[c] * (sums[GY + a, c] - share[c] * sums[PY, c])
        for b in range(a, SIZE):
            normal = maps[n, r, first:stop]
            for c in range(width):
                normal[c] += weight[c] * (sums[GG + n, c] - share[c] * sums[PG + b, c])
            n += 1


@compiled
def free_of_blur(residual, excess, unknowns, powers, taps, noise, start, stop):
    """The residual of a blurred pattern is noise blurred: undo it to first order."""
    distances, _, columns = excess.shape
    steps = len(residual) // distances
    dtype = residual.dtype
    g, near = np.empty((SIZE, SEGMENT), dtype), np.empty((2, SEGMENT + 2 * PAD), dtype)
    total = np.empty(SEGMENT, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for d in range(distances):
                factor = excess[d, r, first : first + width]
                for s in range(steps):
                    f = d * steps + s
                    _regressors(residual[f], r, first, width, taps, near, g)
                    total[:] = 0
                    for a in range(5):
                        u, power = unknowns[a, r, first : first + width], powers[d, a]
                        for c in range(width):
                            total[c] += power * u[c] * g[a, c]
                    one = residual[f, r + PAD, first + PAD : first + PAD + width]
                    other = noise[f, r + PAD, first + PAD : first + PAD + width]
                    for c in range(width):
                        other[c] = one[c] + factor[c] * total[c]


@compiled
def sum_noise(noise, weights, excess, precision, powers, taps, quarter, maps, start, stop):
    """What noise adds to the normal equations, and take what it adds off their right side."""
    distances, _, columns = excess.shape
    steps = len(noise) // distances
    dtype = noise.dtype
    g, gw = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    near, sums = np.empty((2, SEGMENT + 2 * PAD), dtype), np.empty((5 + OF_NOISE, SEGMENT), dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for d in range(distances):
                sums[:] = 0
                for s in range(steps):
                    f = d * steps + s
                    left = noise[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, s % weights.shape[1], r, first : first + width]
                    _regressors(noise[f], r, first, width, taps, near, g)
                    _scale(g, powers[d], 5, width)
                    for a in range(5):
                        for c in range(width):
                            gw[a, c] = g[a, c] * w[c]
                            sums[a, c] += gw[a, c] * left[c]
                    _add_products(g, gw, sums, 5, 5, width)
                for n in range(OF_NOISE):
                    for c in range(width):
                        maps[NOISE + n, r, first + c] += quarter * precision[d, r, first + c] * sums[5 + n, c]
                for a in range(5):
                    for c in range(width):
                        factor = precision[d, r, first + c] * excess[d, r, first + c]
                        maps[RIGHT + a, r, first + c] -= factor * sums[a, c]


@compiled
def gather(maps, taps, sums, start, stop):
    """Window sums of ``maps`` (map, row, column); what lies outside the image counts as zero."""
    count, rows, columns = maps.shape
    reach = len(taps) - 1
    line = np.zeros(columns + 2 * reach, maps.dtype)
    inner = line[reach : reach + columns]
    nothing = np.zeros(columns, maps.dtype)
    for n in range(count):
        for r in range(start, stop):
            for c in range(columns):
                inner[c] = taps[0] * maps[n, r, c]
            for lag in range(1, reach + 1):
                above = maps[n, r - lag] if r >= lag else nothing
                below = maps[n, r + lag] if r + lag < rows else nothing
                add_two(above, below, taps[lag], inner)
            target = sums[n, r]
            for c in range(columns):
                target[c] = taps[0] * inner[c]
            for lag in range(1, reach + 1):
                add_two(line[reach - lag :], line[reach + lag :], taps[lag], target)


# -- small systems, a segment of pixels at a time ---------------------------------------------------------------------


@compiled
def _place(a, b):
    """Of (a, b), a ≤ b, in the upper triangle."""
    return a * SIZE - a * (a - 1) // 2 + b - a


@compiled
def _factor(m, lowest, width, one):
    """Upper triangle of A into U, A = UᵀU, with the inverse of its diagonal; ``lowest`` pivots: positive if A is."""
    for k in range(SIZE):
        kk = _place(k, k)
        for c in range(width):
            lowest[c] = min(lowest[c], m[kk, c])
            pivot = m[kk, c] if m[kk, c] > 0 else one
            m[kk, c] = one / np.sqrt(pivot)
        for b in range(k + 1, SIZE):
            for c in range(width):
                m[kk + b - k, c] *= m[kk, c]
        for a in range(k + 1, SIZE):
            for b in range(a, SIZE):
                n = _place(a, b)
                for c in range(width):
                    m[n, c] -= m[kk + a - k, c] * m[kk + b - k, c]


@compiled
def _invert(m, v, width):
    """U with inverted diagonal into the upper triangle of A⁻¹ = U⁻¹ U⁻ᵀ; ``v`` is scratch for U⁻¹."""
    for b in range(SIZE):
        bb = _place(b, b)
        v[bb, :width] = m[bb, :width]
        for a in range(b - 1, -1, -1):
            n, aa = _place(a, b), _place(a, a)
            v[n, :width] = 0
            for k in range(a + 1, b + 1):
                for c in range(width):
                    v[n, c] -= m[aa + k - a, c] * v[_place(k, b), c]
            for c in range(width):
                v[n, c] *= m[aa, c]
    for a in range(SIZE):
        for b in range(a, SIZE):
            n = _place(a, b)
            m[n, :width] = 0
            for k in range(b, SIZE):
                for c in range(width):
                    m[n, c] += v[_place(a, k), c] * v[_place(b, k), c]


@compiled
def _scaled(maps, r, first, width, scale, use, size, m, one):
    """The normal matrices with a diagonal near 1; the identity where they are not to be used, and beyond ``size``."""
    n = 0
    for a in range(SIZE):
        for b in range(a, SIZE):
            if b < size:
                for c in range(width):
                    value = maps[n, r, first + c] * scale[a, r, first + c] * scale[b, r, first + c]
                    m[n, c] = value if use[c] else (one if a == b else one - one)
            else:
                for c in range(width):
                    m[n, c] = one if a == b else one - one
            n += 1


@compiled
def _times(inverse, vector, total, width):
    """A symmetric matrix, by its upper triangle, times a vector."""
    for a in range(SIZE):
        for c in range(width):
            total[a, c] = 0
        for b in range(SIZE):
            n = _place(min(a, b), max(a, b))
            for c in range(width):
                total[a, c] += inverse[n, c] * vector[b, c]


@compiled
def first_solution(maps, size, limits, scale, unknowns, valid, start, stop):
    """Unknowns, the scales of their matrices, and where there is information; ``limits``: its share and contrast."""
    columns = maps.shape[2]
    dtype = maps.dtype
    one = dtype.type(1)
    m, v = np.empty((PAIRS, SEGMENT), dtype), np.empty((PAIRS, SEGMENT), dtype)
    right, found = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    lowest, use = np.empty(SEGMENT, dtype), np.empty(SEGMENT, np.bool_)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for c in range(width):
                use[c] = maps[CONTRASTS, r, first + c] > limits[1] * maps[CONTRASTS + 1, r, first + c]
            for a in range(size):
                for c in range(width):
                    kept, there = maps[_place(a, a), r, first + c], maps[SQUARES + a, r, first + c]
                    use[c] = use[c] & (kept > limits[0] * there) & (there > 0)
            for a in range(SIZE):
                for c in range(width):
                    kept = maps[_place(a, a), r, first + c] if use[c] and a < size else one
                    scale[a, r, first + c] = one / np.sqrt(kept)
            _scaled(maps, r, first, width, scale, use, size, m, one)
            lowest[:] = one
            _factor(m, lowest, width, one)
            _invert(m, v, width)
            for a in range(SIZE):
                for c in range(width):
                    right[a, c] = maps[RIGHT + a, r, first + c] * scale[a, r, first + c]
            _times(m, right, found, width)
            for c in range(width):
                valid[r, first + c] = use[c] & (lowest[c] > 0)
            for a in range(SIZE):
                for c in range(width):
                    value = found[a, c] * scale[a, r, first + c]
                    unknowns[a, r, first + c] = value if valid[r, first + c] and a < size else one - one


@compiled
def second_solution(maps, size, scale, unknowns, inverse, valid, start, stop):
    """Unknowns and the inverses of their matrices, the share of noise taken off."""
    columns = maps.shape[2]
    dtype = maps.dtype
    one = dtype.type(1)
    m, v = np.empty((PAIRS, SEGMENT), dtype), np.empty((PAIRS, SEGMENT), dtype)
    right, found = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    lowest, use = np.empty(SEGMENT, dtype), np.empty(SEGMENT, np.bool_)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            use[:width] = valid[r, first : first + width]
            lowest[:] = one
            for attempt in range(2):  # with twice the noise taken off, then once
                if attempt == 0:
                    _take_off(maps, r, first, width, one + one)
                else:
                    _take_off(maps, r, first, width, -one)
                _scaled(maps, r, first, width, scale, use, size, m, one)
                _factor(m, lowest, width, one)
                for c in range(width):
                    use[c] = use[c] & (lowest[c] > 0)
            _scaled(maps, r, first, width, scale, use, size, m, one)
            _factor(m, lowest, width, one)
            _invert(m, v, width)
            for a in range(SIZE):
                for c in range(width):
                    right[a, c] = maps[RIGHT + a, r, first + c] * scale[a, r, first + c]
            _times(m, right, found, width)
            for c in range(width):
                valid[r, first + c] = use[c]
            n = 0
            for a in range(SIZE):
                for c in range(width):
                    value = found[a, c] * scale[a, r, first + c]
                    unknowns[a, r, first + c] = value if use[c] and a < size else one - one
                for b in range(a, SIZE):
                    for c in range(width):
                        inverse[n, r, first + c] = m[n, c] * scale[a, r, first + c] * scale[b, r, first + c]
                    n += 1


@compiled
def _take_off(maps, r, first, width, share):
    """Take a share of the noise off the normal matrices."""
    n = 0
    for a in range(5):
        for b in range(a, 5):
            for c in range(width):
                maps[_place(a, b), r, first + c] -= share * maps[NOISE + n, r, first + c]
            n += 1


# -- how far each frame pulls the result ------------------------------------------------------------------------------


@compiled
def pulls_of_frames(
    pattern, reference, weights, mean, precision, powers, taps, unknowns, inverse, own, window, coarse, size,
    misfit, pulls, start, stop,
):  # fmt: skip
    """Scores, leverage and pull on T of every frame at rows ``start`` to ``stop`` of the coarse grid.

    ``pulls`` (frame, `PULLS`, grid row, grid column); the squared residuals of these rows are added up in ``misfit``.
    """
    distances, rows, columns = mean.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    two, one = dtype.type(2), dtype.type(1)
    density = dtype.type(coarse * coarse / size)
    reach, across = len(window) - 1, pulls.shape[3]
    least, most = max(start * coarse - reach, 0), min((stop - 1) * coarse + reach + 1, rows)
    scores, heavy = np.empty((SIZE, most - least, columns), dtype), np.zeros((most - least, across), dtype)
    line, short = np.zeros(columns + 2 * reach, dtype), np.zeros(across + 2 * (reach // coarse), dtype)
    g, near = np.empty((SIZE, SEGMENT), dtype), np.empty((2, SEGMENT + 2 * PAD), dtype)
    left, shares, lifted = np.empty(SEGMENT, dtype), np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    matrix = np.empty((PAIRS, SEGMENT), dtype)
    last = min(stop * coarse, rows)
    for d in range(distances):
        for f in range(d * steps, (d + 1) * steps):
            for first in range(0, columns, SEGMENT):
                width = min(SEGMENT, columns - first)
                for r in range(least, most):
                    p = pattern[f, r + PAD, first + PAD : first + PAD + width]
                    other = reference[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, (f - d * steps) % weights.shape[1], r, first : first + width]
                    weight = precision[d, r, first : first + width]
                    _regressors(pattern[f], r, first, width, taps, near, g)
                    _scale(g, powers[d], 5, width)
                    for c in range(width):
                        g[5, c] = mean[d, r, first + c] * powers[d, 5]
                    change = own[d, CHANGE, r, first : first + width]
                    for c in range(width):
                        left[c] = two * (p[c] - other[c]) - change[c] * p[c]
                    for a in range(SIZE):
                        share, u = own[d, a, r, first : first + width], unknowns[a, r, first : first + width]
                        for c in range(width):
                            g[a, c] -= share[c] * p[c]
                            left[c] -= u[c] * g[a, c]
                    if start * coarse <= r < last:
                        squared = misfit[d, r, first : first + width]
                        for c in range(width):
                            squared[c] += left[c] * left[c] if w[c] > 0 else one - one
                    for a in range(SIZE):
                        target = scores[a, r - least, first : first + width]
                        for c in range(width):
                            target[c] = g[a, c] * left[c] * w[c] * weight[c]
                    if r % coarse == 0:
                        n = (width + coarse - 1) // coarse
                        for a in range(SIZE):
                            for c in range(n):
                                shares[a, c] = g[a, c * coarse]
                        for k in range(PAIRS):
                            for c in range(n):
                                matrix[k, c] = inverse[k, r, first + c * coarse]
                        _times(matrix, shares, lifted, n)
                        target = heavy[r - least, first // coarse : first // coarse + n]
                        target[:] = 0
                        for a in range(size):
                            for c in range(n):
                                target[c] += shares[a, c] * lifted[a, c]
                        for c in range(n):
                            target[c] *= w[c * coarse] * weight[c * coarse] * density
                        if start * coarse <= r < last:
                            target = pulls[f, TUG, r // coarse, first // coarse : first // coarse + n]
                            inverted = own[d, INVERSE, r, first : first + width]
                            for c in range(n):
                                k = c * coarse
                                target[c] = p[k] * left[k] * w[k] * inverted[k]
            for row in range(start, stop):
                r = row * coarse - least
                inner = line[reach : reach + columns]
                for a in range(SIZE):
                    for c in range(columns):
                        inner[c] = window[0] * scores[a, r, c]
                    for lag in range(1, reach + 1):
                        if r >= lag and r + lag < most - least:
                            add_two(scores[a, r - lag], scores[a, r + lag], window[lag], inner)
                        elif r >= lag:
                            _add_one(scores[a, r - lag], window[lag], inner)
                        elif r + lag < most - least:
                            _add_one(scores[a, r + lag], window[lag], inner)
                    target = pulls[f, a, row]
                    for c in range(across):
                        target[c] = window[0] * inner[c * coarse]
                    for lag in range(1, reach + 1):
                        before, after = line[reach - lag :], line[reach + lag :]
                        for c in range(across):
                            target[c] += window[lag] * (before[c * coarse] + after[c * coarse])
                inner = short[reach // coarse : reach // coarse + across]
                inner[:] = heavy[r] * window[0]
                for lag in range(coarse, reach + 1, coarse):
                    if r >= lag:
                        _add_one(heavy[r - lag], window[lag], inner)
                    if r + lag < most - least:
                        _add_one(heavy[r + lag], window[lag], inner)
                target = pulls[f, LEVERAGE, row]
                target[:] = inner * window[0]
                for lag in range(1, reach // coarse + 1):
                    middle = reach // coarse
                    add_two(short[middle - lag :], short[middle + lag :], window[lag * coarse], target)


@compiled
def _add_one(image, tap, total):
    """``total += tap · image``."""
    for c in range(len(total)):
        total[c] += tap * image[c]


@compiled
def scatter_of_pulls(pulls, inverse, own, photons, frames, valid, coarse, most_leverage, scatter, start, stop):
    """Scatter over the frames of what they do to (ln T, unknowns), at rows of the coarse grid.

    ``scatter`` (`ALL_PAIRS` + 1, grid row, grid column), the last one for where there is one; ``frames``: their number.
    """
    distances = len(photons)
    count, _, _, columns = pulls.shape
    dtype = pulls.dtype
    one = dtype.type(1)
    matrix, share = np.empty((PAIRS, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    scores, pull = np.empty((SIZE, SEGMENT), dtype), np.empty((ALL, SEGMENT), dtype)
    mean, squares = np.empty((ALL, SEGMENT), dtype), np.empty((ALL_PAIRS, SEGMENT), dtype)
    influence = np.empty((SIZE, SEGMENT), dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for row in range(start, stop):
            r = row * coarse
            for k in range(PAIRS):
                for c in range(width):
                    matrix[k, c] = inverse[k, r, (first + c) * coarse]
            share[:] = mean[:] = squares[:] = 0
            for d in range(distances):
                for a in range(SIZE):
                    for c in range(width):
                        place = (first + c) * coarse
                        share[a, c] += photons[d, r, place] * own[d, a, r, place]
            for f in range(count):
                d = f // (count // distances)
                for a in range(SIZE):
                    for c in range(width):
                        scores[a, c] = pulls[f, a, row, first + c]
                _times(matrix, scores, influence, width)
                for c in range(width):
                    pull[0, c] = photons[d, r, (first + c) * coarse] * pulls[f, TUG, row, first + c]
                for a in range(SIZE):
                    for c in range(width):
                        free = one / (one - min(pulls[f, LEVERAGE, row, first + c], most_leverage))
                        pull[a + 1, c] = influence[a, c] * free
                        pull[0, c] -= share[a, c] * pull[a + 1, c]
                for c in range(width):
                    pull[0, c] += pull[SIZE, c]
                for a in range(ALL):
                    for c in range(width):
                        mean[a, c] += pull[a, c]
                _add_products(pull, pull, squares, 0, ALL, width)
            n = 0
            for a in range(ALL):
                for b in range(a, ALL):
                    for c in range(width):
                        place = (first + c) * coarse
                        value = squares[n, c] - mean[a, c] * mean[b, c] / frames[r, place]
                        scatter[n, row, first + c] = value if valid[r, place] else one - one
                    n += 1
            for c in range(width):
                scatter[ALL_PAIRS, row, first + c] = one if valid[r, (first + c) * coarse] else one - one


@compiled
def window_means(scatter, window, coarse, means, start, stop):
    """Means, over the window at every pixel, of what is known on a coarse grid where its last map is one."""
    count, high, wide = scatter.shape
    columns = means.shape[2]
    dtype = means.dtype
    one = dtype.type(1)
    reach = len(window) - 1
    line, total = np.zeros(columns + 2 * reach, dtype), np.empty(columns, dtype)
    rows = np.empty(wide, dtype)
    known = np.empty(columns, dtype)
    for r in range(start, stop):
        low, top = max(-(-(r - reach) // coarse), 0), min((r + reach) // coarse, high - 1)
        for n in range(count - 1, -1, -1):
            rows[:] = 0
            for row in range(low, top + 1):
                _add_one(scatter[n, row], window[abs(row * coarse - r)], rows)
            for c in range(wide):
                line[reach + c * coarse] = rows[c]
            inner = line[reach : reach + columns]
            for c in range(columns):
                total[c] = window[0] * inner[c]
            for lag in range(1, reach + 1):
                add_two(line[reach - lag :], line[reach + lag :], window[lag], total)
            if n == count - 1:
                for c in range(columns):
                    known[c] = one / total[c] if total[c] > 0 else one - one
                    means[n, r, c] = total[c]
            else:
                for c in range(columns):
                    means[n, r, c] = total[c] * known[c]
