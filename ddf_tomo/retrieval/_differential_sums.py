"""Compiled sums over the frames of the linear retrieval: normal equations of each pixel, what noise adds, windows."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    CHANGE,
    CONTRASTS,
    GG,
    GY,
    INVERSE,
    NOISE,
    OF_NOISE,
    PAD,
    PG,
    PY,
    RIGHT,
    SEGMENT,
    SIZE,
    SQUARES,
    SUMS,
    compiled,
    filtered_along,
    filtered_down,
    inlined,
    scaled_copy,
)


@compiled
def place(a, b):
    """Of (a, b), a ≤ b, in the upper triangle."""
    return a * SIZE - a * (a - 1) // 2 + b - a


# -- derivatives and their products -----------------------------------------------------------------------------------


@compiled
def regressors_of(pattern, r, first, width, taps, slope, g):
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
def grow(g, powers, size, width):
    """Bring regressors to the longest distance."""
    for a in range(size):
        if powers[a] != 1:
            for c in range(width):
                g[a, c] *= powers[a]


@compiled
def add_products(g, gw, upper, first, size, width):
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
def copy_rows(source, r, first, width, target):
    """Row r of each image of ``source``, a segment of it, to the rows of ``target``."""
    for a in range(len(target)):
        row = source[a, r, first : first + width]
        for c in range(width):
            target[a, c] = row[c]


@inlined
def subtract_model(g, u, left, width):
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
                copy_rows(unknowns, r, first, width, u)
            for d in range(distances):
                sums[:] = contrast[:] = 0
                scaled_copy(mean[d, r, first : first + width], powers[d, 5], g[5, :width])
                for s in range(steps):
                    f = d * steps + s
                    p = pattern[f, r + PAD, first + PAD : first + PAD + width]
                    other = reference[f, r + PAD, first + PAD : first + PAD + width]
                    w = weights[d, s % weights.shape[1], r, first : first + width]
                    regressors_of(pattern[f], r, first, width, taps, slope, g)
                    grow(g, powers[d], 5, width)
                    _accumulate(p, other, w, g, sums, width)
                    if second:
                        left = noise[f, r + PAD, first + PAD : first + PAD + width]
                        for c in range(width):
                            difference = p[c] - other[c]
                            left[c] = difference + difference
                        subtract_model(g, u, left, width)
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
                        square, n = maps[SQUARES + a, r, first : first + width], GG + place(a, a)
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
                copy_rows(unknowns, r, first, width, u)
                grow(u, powers[d], SIZE, width)
                factor = excess[d, r, first : first + width]
                for a in range(SIZE):
                    for c in range(width):
                        u[a, c] *= -factor[c]
                for s in range(steps):
                    f = d * steps + s
                    regressors_of(residual[f], r, first, width, taps, slope, g)
                    one = residual[f, r + PAD, first + PAD : first + PAD + width]
                    other = noise[f, r + PAD, first + PAD : first + PAD + width]
                    for c in range(width):
                        other[c] = one[c]
                    subtract_model(g, u, other, width)


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
                    regressors_of(noise[f], r, first, width, taps, slope, g)
                    grow(g, powers[d], 5, width)
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
            filtered_down(maps, n, r, taps, False, line, reach)
            filtered_along(line, taps, sums, n, r, 0)
