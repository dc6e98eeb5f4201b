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


# -- frames -----------------------------------------------------------------------------------------------------------


@compiled
def _add_one(image, tap, total):
    """``total += tap · image``."""
    for c in range(len(total)):
        total[c] += tap * image[c]


@compiled
def _scaled_copy(image, tap, total):
    """``total = tap · image``."""
    for c in range(len(total)):
        total[c] = tap * image[c]


@compiled
def _down(images, n, r, taps, repeat, line, first):
    """Filter image n across the rows, at row r, into ``line`` from ``first`` on; three lags at a time.

    Outside there is nothing, or the border again if ``repeat``. The taps are one more than a multiple of three.
    """
    last, width = images.shape[1] - 1, images.shape[2]
    total = line[first : first + width]
    _scaled_copy(images[n, r], taps[0], total)
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
def _along(line, taps, images, n, r, first):
    """Filter along a row into row r of image n from ``first`` on; ``line`` extends as far as the filter reaches."""
    middle = len(taps) - 1
    width = len(line) - 2 * middle
    total = images[n, r, first : first + width]
    _scaled_copy(line[middle : middle + width], taps[0], total)
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
            _down(frames, f, r, taps, True, line, reach)
            line[:reach] = line[reach]
            line[reach + columns :] = line[reach + columns - 1]
            _along(line, taps, smoothed, f, r + PAD, PAD)


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


@compiled
def _place(a, b):
    """Of (a, b), a ≤ b, in the upper triangle."""
    return a * SIZE - a * (a - 1) // 2 + b - a


# -- derivatives and their products -----------------------------------------------------------------------------------


@compiled
def _regressors(pattern, r, first, width, taps, slope, g):
    """−∂_j, −∂_k, ½∂_jj, ∂_jk, ½∂_kk of ``width`` columns of row r into the first rows of ``g``.

    ``taps`` (2, 5) are those of the first derivative and half of those of the second; ``slope`` (SEGMENT + 2 PAD) is
    scratch for ∂_j.
    """
    stop = first + width + 2 * PAD
    a1, a2, a3, a4 = (
        pattern[r + 3, first:stop],
        pattern[r + 2, first:stop],
        pattern[r + 1, first:stop],
        pattern[r, first:stop],
    )
    b1, b2, b3, b4 = (
        pattern[r + 5, first:stop],
        pattern[r + 6, first:stop],
        pattern[r + 7, first:stop],
        pattern[r + 8, first:stop],
    )
    m = pattern[r + 4, first:stop]
    f1, f2, f3, f4 = taps[0, 1], taps[0, 2], taps[0, 3], taps[0, 4]
    s0, s1, s2, s3, s4 = taps[1, 0], taps[1, 1], taps[1, 2], taps[1, 3], taps[1, 4]
    for c in range(width + 2 * PAD):
        slope[c] = f1 * (b1[c] - a1[c]) + f2 * (b2[c] - a2[c]) + f3 * (b3[c] - a3[c]) + f4 * (b4[c] - a4[c])
    across = g[2]
    for c in range(width):
        near = s1 * (b1[c + 4] + a1[c + 4]) + s2 * (b2[c + 4] + a2[c + 4])
        across[c] = s0 * m[c + 4] + near + s3 * (b3[c + 4] + a3[c + 4]) + s4 * (b4[c + 4] + a4[c + 4])
    for c in range(width):
        near = f1 * (slope[c + 5] - slope[c + 3]) + f2 * (slope[c + 6] - slope[c + 2])
        g[3, c] = near + f3 * (slope[c + 7] - slope[c + 1]) + f4 * (slope[c + 8] - slope[c])
        g[0, c] = -slope[c + 4]
    for c in range(width):
        near = f1 * (m[c + 3] - m[c + 5]) + f2 * (m[c + 2] - m[c + 6])
        g[1, c] = near + f3 * (m[c + 1] - m[c + 7]) + f4 * (m[c] - m[c + 8])
        near = s0 * m[c + 4] + s1 * (m[c + 3] + m[c + 5]) + s2 * (m[c + 2] + m[c + 6])
        g[4, c] = near + s3 * (m[c + 1] + m[c + 7]) + s4 * (m[c] + m[c + 8])


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


@inlined
def _accumulate(p, other, w, g, sums, width):
    """Add all products of one frame to the sums of a segment, written out so that one loop makes them."""
    for c in range(width):
        v, pattern, difference = w[c], p[c], p[c] - other[c]
        difference += difference
        pv = pattern * v
        sums[0, c] += pattern * pv
        sums[7, c] += difference * pv
        g0, g1, g2, g3, g4, g5 = g[0, c], g[1, c], g[2, c], g[3, c], g[4, c], g[5, c]
        h0, h1, h2, h3, h4, h5 = g0 * v, g1 * v, g2 * v, g3 * v, g4 * v, g5 * v
        sums[1, c] += pattern * h0
        sums[2, c] += pattern * h1
        sums[3, c] += pattern * h2
        sums[4, c] += pattern * h3
        sums[5, c] += pattern * h4
        sums[6, c] += pattern * h5
        sums[8, c] += difference * h0
        sums[9, c] += difference * h1
        sums[10, c] += difference * h2
        sums[11, c] += difference * h3
        sums[12, c] += difference * h4
        sums[13, c] += difference * h5
        sums[14, c] += g0 * h0
        sums[15, c] += g0 * h1
        sums[16, c] += g0 * h2
        sums[17, c] += g0 * h3
        sums[18, c] += g0 * h4
        sums[19, c] += g0 * h5
        sums[20, c] += g1 * h1
        sums[21, c] += g1 * h2
        sums[22, c] += g1 * h3
        sums[23, c] += g1 * h4
        sums[24, c] += g1 * h5
        sums[25, c] += g2 * h2
        sums[26, c] += g2 * h3
        sums[27, c] += g2 * h4
        sums[28, c] += g2 * h5
        sums[29, c] += g3 * h3
        sums[30, c] += g3 * h4
        sums[31, c] += g3 * h5
        sums[32, c] += g4 * h4
        sums[33, c] += g4 * h5
        sums[34, c] += g5 * h5


@inlined
def _accumulate_noise(noise, w, g, sums, width):
    """The same for noise and its derivatives."""
    for c in range(width):
        v, left = w[c], noise[c]
        g0, g1, g2, g3, g4 = g[0, c], g[1, c], g[2, c], g[3, c], g[4, c]
        h0, h1, h2, h3, h4 = g0 * v, g1 * v, g2 * v, g3 * v, g4 * v
        sums[0, c] += left * h0
        sums[1, c] += left * h1
        sums[2, c] += left * h2
        sums[3, c] += left * h3
        sums[4, c] += left * h4
        sums[5, c] += g0 * h0
        sums[6, c] += g0 * h1
        sums[7, c] += g0 * h2
        sums[8, c] += g0 * h3
        sums[9, c] += g0 * h4
        sums[10, c] += g1 * h1
        sums[11, c] += g1 * h2
        sums[12, c] += g1 * h3
        sums[13, c] += g1 * h4
        sums[14, c] += g2 * h2
        sums[15, c] += g2 * h3
        sums[16, c] += g2 * h4
        sums[17, c] += g3 * h3
        sums[18, c] += g3 * h4
        sums[19, c] += g4 * h4


@compiled
def _copy_rows(source, r, first, width, target):
    """Row r of each image of ``source``, a segment of it, to the rows of ``target``."""
    for a in range(len(target)):
        row = source[a, r, first : first + width]
        for c in range(width):
            target[a, c] = row[c]


@inlined
def _subtract_model(g, u, left, width):
    """Take what the unknowns explain off a difference."""
    for c in range(width):
        near = u[0, c] * g[0, c] + u[1, c] * g[1, c] + u[2, c] * g[2, c]
        left[c] -= near + u[3, c] * g[3, c] + u[4, c] * g[4, c] + u[5, c] * g[5, c]


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
    one = dtype.type(1)
    sums, contrast = np.empty((SUMS, SEGMENT), dtype), np.empty((5, SEGMENT), dtype)
    g, u = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    slope = np.empty(SEGMENT + 2 * PAD, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for n in range(len(maps)):
                maps[n, r, first : first + width] = 0
            if second:
                _copy_rows(unknowns, r, first, width, u)
            for d in range(distances):
                sums[:] = contrast[:] = 0
                _scaled_copy(mean[d, r, first : first + width], powers[d, 5], g[5, :width])
                for s in range(steps):
                    f = d * steps + s
                    p = pattern[f, r + PAD, first + PAD : first + PAD + width]
                    other = reference[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, s % weights.shape[1], r, first : first + width]
                    _regressors(pattern[f], r, first, width, taps, slope, g)
                    _scale(g, powers[d], 5, width)
                    _accumulate(p, other, w, g, sums, width)
                    if second:
                        left = noise[f, r + PAD, first + PAD : first + PAD + width]
                        for c in range(width):
                            difference = p[c] - other[c]
                            left[c] = difference + difference
                        _subtract_model(g, u, left, width)
                    else:
                        for c in range(width):
                            scaled = p[c] + p[c] - other[c]
                            contrast[0, c] += w[c]
                            contrast[1, c] += w[c] * other[c]
                            contrast[2, c] += w[c] * other[c] * other[c]
                            contrast[3, c] += w[c] * scaled
                            contrast[4, c] += w[c] * scaled * scaled
                _eliminate(sums, precision, own, maps, d, r, first, width, one)
                if not second:
                    weight = precision[d, r, first : first + width]
                    for a in range(SIZE):
                        square, n = maps[SQUARES + a, r, first : first + width], GG + _place(a, a)
                        for c in range(width):
                            square[c] += weight[c] * sums[n, c]
                    for n in range(2):
                        target = maps[CONTRASTS + n, r, first : first + width]
                        for c in range(width):
                            share = one / contrast[0, c] if contrast[0, c] > 0 else one - one
                            total, squares = contrast[1 + 2 * n, c], contrast[2 + 2 * n, c]
                            target[c] += weight[c] * (squares - total * total * share)


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
def take_off_share(noise, pattern, change, start, stop):
    """Take ``change`` times the pattern off the noise: what a pixel's transmission explains of it."""
    distances, _, columns = change.shape
    steps = len(noise) // distances
    for d in range(distances):
        for r in range(start, stop):
            share = change[d, r]
            for s in range(steps):
                left, p = noise[d * steps + s, r + PAD, PAD:], pattern[d * steps + s, r + PAD, PAD:]
                for c in range(columns):
                    left[c] -= share[c] * p[c]


@compiled
def free_of_blur(residual, excess, unknowns, powers, taps, noise, start, stop):
    """The residual of a blurred pattern is noise blurred: undo it to first order."""
    distances, _, columns = excess.shape
    steps = len(residual) // distances
    dtype = residual.dtype
    g, u = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype)
    slope = np.empty(SEGMENT + 2 * PAD, dtype)
    g[5] = 0
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for d in range(distances):
                _copy_rows(unknowns, r, first, width, u)
                _scale(u, powers[d], SIZE, width)
                factor = excess[d, r, first : first + width]
                for a in range(SIZE):
                    for c in range(width):
                        u[a, c] *= -factor[c]
                for s in range(steps):
                    f = d * steps + s
                    _regressors(residual[f], r, first, width, taps, slope, g)
                    one = residual[f, r + PAD, first + PAD : first + PAD + width]
                    other = noise[f, r + PAD, first + PAD : first + PAD + width]
                    for c in range(width):
                        other[c] = one[c]
                    _subtract_model(g, u, other, width)


@compiled
def sum_noise(noise, weights, excess, precision, powers, taps, quarter, maps, start, stop):
    """What noise adds to the normal equations, and take what it adds off their right side."""
    distances, _, columns = excess.shape
    steps = len(noise) // distances
    dtype = noise.dtype
    g, sums = np.empty((SIZE, SEGMENT), dtype), np.empty((5 + OF_NOISE, SEGMENT), dtype)
    slope = np.empty(SEGMENT + 2 * PAD, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            for d in range(distances):
                sums[:] = 0
                for s in range(steps):
                    f = d * steps + s
                    left = noise[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, s % weights.shape[1], r, first : first + width]
                    _regressors(noise[f], r, first, width, taps, slope, g)
                    _scale(g, powers[d], 5, width)
                    _accumulate_noise(left, w, g, sums, width)
                weight, factor = precision[d, r, first : first + width], excess[d, r, first : first + width]
                for n in range(OF_NOISE):
                    target = maps[NOISE + n, r, first : first + width]
                    for c in range(width):
                        target[c] += quarter * weight[c] * sums[5 + n, c]
                for a in range(5):
                    target = maps[RIGHT + a, r, first : first + width]
                    for c in range(width):
                        target[c] -= weight[c] * factor[c] * sums[a, c]


@compiled
def gather(maps, taps, sums, start, stop):
    """Window sums of ``maps`` (map, row, column); what lies outside the image counts as zero."""
    count, _, columns = maps.shape
    reach = len(taps) - 1
    line = np.zeros(columns + 2 * reach, maps.dtype)
    for n in range(count):
        for r in range(start, stop):
            _down(maps, n, r, taps, False, line, reach)
            _along(line, taps, sums, n, r, 0)


# -- small systems, a segment of pixels at a time ---------------------------------------------------------------------


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
def _scaled(m, scale, use, size, width, scaled):
    """Matrices with a diagonal near 1; the identity where they are not to be used, and beyond ``size``."""
    one = m.dtype.type(1)
    n = 0
    for a in range(SIZE):
        for b in range(a, SIZE):
            diagonal = one if a == b else one - one
            for c in range(width):
                value = m[n, c] * scale[a, c] * scale[b, c]
                scaled[n, c] = value if use[c] > 0 and b < size else diagonal
            n += 1


@compiled
def _times(inverse, vector, total, width):
    """A symmetric matrix, by its upper triangle, times a vector."""
    for a in range(SIZE):
        for c in range(width):
            total[a, c] = inverse[_place(0, a), c] * vector[0, c]
        for b in range(1, SIZE):
            n = _place(min(a, b), max(a, b))
            for c in range(width):
                total[a, c] += inverse[n, c] * vector[b, c]


@compiled
def _solve(m, right, scale, use, size, found, width):
    """``found`` = scaled inverse times right side, zero where it is not to be used and beyond ``size``."""
    for a in range(SIZE):
        for c in range(width):
            right[a, c] *= scale[a, c]
    _times(m, right, found, width)
    for a in range(SIZE):
        for c in range(width):
            value = found[a, c] * scale[a, c]
            found[a, c] = value if use[c] > 0 and a < size else value - value


@compiled
def _store_rows(source, r, first, width, target):
    """The rows of ``source`` to row r of each image of ``target``."""
    for a in range(len(target)):
        row = target[a, r, first : first + width]
        for c in range(width):
            row[c] = source[a, c]


@compiled
def first_solution(maps, size, limits, scales, unknowns, valid, start, stop):
    """Unknowns, the scales of their matrices, and where there is information.

    ``limits``: least share of the squares that differs, squared contrast, pivot.
    """
    columns = maps.shape[2]
    dtype = maps.dtype
    one = dtype.type(1)
    all_maps, m, v = (
        np.empty((FIRST_MAPS, SEGMENT), dtype),
        np.empty((PAIRS, SEGMENT), dtype),
        np.empty((PAIRS, SEGMENT), dtype),
    )
    scale, found, use = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype), np.empty(SEGMENT, dtype)
    lowest = np.empty(SEGMENT, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            _copy_rows(maps, r, first, width, all_maps)
            for c in range(width):
                enough = all_maps[CONTRASTS, c] > limits[1] * all_maps[CONTRASTS + 1, c]
                use[c] = one if enough else one - one
            for a in range(size):
                n = _place(a, a)
                for c in range(width):
                    kept, there = all_maps[n, c], all_maps[SQUARES + a, c]
                    enough = min(kept - limits[0] * there, there)
                    use[c] = use[c] if enough > 0 else one - one
            for a in range(SIZE):
                n = _place(a, a)
                for c in range(width):
                    kept = all_maps[n, c] if use[c] > 0 and a < size else one
                    scale[a, c] = one / np.sqrt(kept)
            _scaled(all_maps, scale, use, size, width, m)
            lowest[:] = one
            _factor(m, lowest, width, one)
            _invert(m, v, width)
            for c in range(width):
                use[c] = min(use[c], lowest[c] - limits[2])
            _solve(m, all_maps[RIGHT:SQUARES], scale, use, size, found, width)
            _store_rows(scale, r, first, width, scales)
            _store_rows(found, r, first, width, unknowns)
            is_valid = valid[r, first : first + width]
            for c in range(width):
                is_valid[c] = use[c] > 0


@compiled
def second_solution(maps, size, limits, scales, unknowns, inverse, valid, start, stop):
    """Unknowns and the inverses of their matrices, the share of noise taken off."""
    columns = maps.shape[2]
    dtype = maps.dtype
    one = dtype.type(1)
    all_maps, m, v = (
        np.empty((SECOND_MAPS, SEGMENT), dtype),
        np.empty((PAIRS, SEGMENT), dtype),
        np.empty((PAIRS, SEGMENT), dtype),
    )
    scale, found, use = np.empty((SIZE, SEGMENT), dtype), np.empty((SIZE, SEGMENT), dtype), np.empty(SEGMENT, dtype)
    lowest = np.empty(SEGMENT, dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            _copy_rows(maps, r, first, width, all_maps)
            _copy_rows(scales, r, first, width, scale)
            is_valid = valid[r, first : first + width]
            for c in range(width):
                use[c] = one if is_valid[c] else one - one
            lowest[:] = one
            _take_off(all_maps, one + one, width)
            _scaled(all_maps, scale, use, size, width, m)
            _factor(m, lowest, width, one)
            _take_off(all_maps, -one, width)
            for c in range(width):
                use[c] = min(use[c], lowest[c] - limits[2])
            _scaled(all_maps, scale, use, size, width, m)
            _factor(m, lowest, width, one)  # with less taken off it cannot fail where it did not before
            _invert(m, v, width)
            _solve(m, all_maps[RIGHT:NOISE], scale, use, size, found, width)
            n = 0
            for a in range(SIZE):
                for b in range(a, SIZE):
                    for c in range(width):
                        m[n, c] *= scale[a, c] * scale[b, c]
                    n += 1
            _store_rows(m, r, first, width, inverse)
            _store_rows(found, r, first, width, unknowns)
            for c in range(width):
                is_valid[c] = use[c] > 0


@compiled
def _take_off(maps, share, width):
    """Take a share of the noise off the normal matrices."""
    n = NOISE
    for a in range(5):
        for b in range(a, 5):
            for c in range(width):
                maps[_place(a, b), c] -= share * maps[n, c]
            n += 1


# -- how far each frame pulls the result ------------------------------------------------------------------------------


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
                    _regressors(pattern[f], r, first, width, taps, slope, g)
                    _scale(g, powers[d], 5, width)
                    _scaled_copy(mean[d, r, first : first + width], powers[d, 5], g[5, :width])
                    _copy_rows(own[d], r, first, width, share)
                    _copy_rows(unknowns, r, first, width, u)
                    for c in range(width):
                        left[c] = p[c] + p[c] - other[c] - other[c] - share[CHANGE, c] * p[c]
                        g[0, c] -= share[0, c] * p[c]
                        g[1, c] -= share[1, c] * p[c]
                        g[2, c] -= share[2, c] * p[c]
                        g[3, c] -= share[3, c] * p[c]
                        g[4, c] -= share[4, c] * p[c]
                        g[5, c] -= share[5, c] * p[c]
                    _subtract_model(g, u, left, width)
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
                        _copy_rows(inverse, r // coarse, first // coarse, n, matrix)
                        _times(matrix, thin, lifted, n)
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
                    _down(scores, a, r, window, False, line, reach)
                    target = pulls[f, a, row]
                    if coarse == 1:
                        _along(line, window, pulls[f], a, row, 0)
                        continue
                    for phase in range(coarse):
                        _thin(line[phase:], coarse, phases[phase, : (len(line) - phase + coarse - 1) // coarse])
                    _scaled_copy(phases[reach % coarse, reach // coarse :], window[0], target)
                    for lag in range(1, reach + 1):
                        before, after = reach - lag, reach + lag
                        _add_one(phases[before % coarse, before // coarse :], window[lag], target)
                        _add_one(phases[after % coarse, after // coarse :], window[lag], target)
                inner = short[near_reach : near_reach + across]
                _scaled_copy(heavy[r], window[0], inner)
                for lag in range(coarse, reach + 1, coarse):
                    if r >= lag:
                        _add_one(heavy[r - lag], window[lag], inner)
                    if r + lag < most - least:
                        _add_one(heavy[r + lag], window[lag], inner)
                target = pulls[f, LEVERAGE, row]
                _scaled_copy(inner, window[0], target)
                for lag in range(1, near_reach + 1):
                    _add_one(short[near_reach - lag :], window[lag * coarse], target)
                    _add_one(short[near_reach + lag :], window[lag * coarse], target)


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
            _copy_rows(inverse, r, first, width, matrix)
            share[:] = mean[:] = squares[:] = 0
            for d in range(distances):
                part = photons[d, r, first : first + width]
                for a in range(SIZE):
                    row = own[d, a, r, first : first + width]
                    for c in range(width):
                        share[a, c] += part[c] * row[c]
            for f in range(count):
                part = photons[f // (count // distances), r, first : first + width]
                _copy_rows(pulls[f], r, first, width, scores)
                _times(matrix, scores, influence, width)
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
                _add_products(pull, pull, squares, 0, ALL, width)
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
                _add_one(scatter[n, row], window[abs(row * coarse - r)], row_sum)
            for c in range(wide):
                line[reach + c * coarse] = row_sum[c]
            target = means[n, r]
            _along(line, window, means, n, r, 0)
            if n == count - 1:
                for c in range(columns):
                    known[c] = one / target[c] if target[c] > 0 else one - one
            else:
                for c in range(columns):
                    target[c] *= known[c]
