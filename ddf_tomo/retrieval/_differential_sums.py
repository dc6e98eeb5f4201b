"""Compiled sums over the frames of the linear retrieval: normal equations of each pixel, what noise adds, windows."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    CHANGE,
    CONTRASTS,
    DIFFERENCE,
    FIRST_MAPS,
    FLAT,
    INVERSE,
    LEFT,
    OF_FRAME,
    OF_NOISE,
    OWN,
    PAD,
    PATTERN,
    RIGHT,
    ROOT,
    ROWS,
    SECOND_MAPS,
    SEGMENT,
    SIZE,
    SQUARES,
    SUMS,
    ahead,
    clear,
    compiled,
    filtered_along,
    inlined,
    scaled_copy,
)


@compiled
def place(a, b, size):
    """Of (a, b), a ≤ b, in the upper triangle."""
    return a * size - a * (a - 1) // 2 + b - a


# -- derivatives and their products -----------------------------------------------------------------------------------


@compiled
def regressors_of(pattern, r, first, width, taps, slope, z):
    """−∂_j, −∂_k, ½∂_jj, ∂_jk, ½∂_kk of ``width`` columns of row r into the rows 1 to 5 of ``z``.

    ``taps`` (2, 5) are those of the first derivative and half of those of the second; ``slope`` (SEGMENT + 2 PAD) is
    scratch for ∂_j: it is read last, when its stores are done.
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
    across = z[3]
    for c in range(width):
        near = s1 * (b1[c + 4] + a1[c + 4]) + s2 * (b2[c + 4] + a2[c + 4])
        across[c] = s0 * m[c + 4] + near + s3 * (b3[c + 4] + a3[c + 4]) + s4 * (b4[c + 4] + a4[c + 4])
    for c in range(width):
        near = f1 * (m[c + 3] - m[c + 5]) + f2 * (m[c + 2] - m[c + 6])
        z[2, c] = near + f3 * (m[c + 1] - m[c + 7]) + f4 * (m[c] - m[c + 8])
        near = s0 * m[c + 4] + s1 * (m[c + 3] + m[c + 5]) + s2 * (m[c + 2] + m[c + 6])
        z[5, c] = near + s3 * (m[c + 1] + m[c + 7]) + s4 * (m[c] + m[c + 8])
    for c in range(width):
        near = f1 * (slope[c + 5] - slope[c + 3]) + f2 * (slope[c + 6] - slope[c + 2])
        z[4, c] = near + f3 * (slope[c + 7] - slope[c + 1]) + f4 * (slope[c + 8] - slope[c])
        z[1, c] = -slope[c + 4]


@compiled
def take_frame(pattern, reference, root, r, first, width, taps, slope, z):
    """The rows of one frame, as `DIFFERENCE` and its neighbours say, into ``z``; its next ones are asked for."""
    ahead(pattern, r + 2 * PAD + 1, first, width + 2 * PAD)
    ahead(reference, r + PAD + 1, first + PAD, width)
    ahead(root, r + 1, first, width)
    regressors_of(pattern, r, first, width, taps, slope, z)
    p, other = pattern[r + PAD, first + PAD :], reference[r + PAD, first + PAD :]
    weight = root[r, first:]
    for c in range(width):
        difference = p[c] - other[c]
        z[0, c], z[DIFFERENCE, c], z[ROOT, c] = p[c], difference + difference, weight[c]


@inlined
def _accumulate(one, other, sums, width):
    """Add all products of two frames' rows to the sums of a segment, written out so that one loop makes them."""
    for c in range(width):
        v, w = one[ROOT, c], other[ROOT, c]
        p, g0, g1, g2 = v * one[0, c], v * one[1, c], v * one[2, c], v * one[3, c]
        g3, g4, y = v * one[4, c], v * one[5, c], v * one[6, c]
        q, h0, h1, h2 = w * other[0, c], w * other[1, c], w * other[2, c], w * other[3, c]
        h3, h4, x = w * other[4, c], w * other[5, c], w * other[6, c]
        sums[0, c] += p * p + q * q
        sums[1, c] += p * g0 + q * h0
        sums[2, c] += p * g1 + q * h1
        sums[3, c] += p * g2 + q * h2
        sums[4, c] += p * g3 + q * h3
        sums[5, c] += p * g4 + q * h4
        sums[6, c] += p * v + q * w
        sums[7, c] += p * y + q * x
        sums[8, c] += g0 * g0 + h0 * h0
        sums[9, c] += g0 * g1 + h0 * h1
        sums[10, c] += g0 * g2 + h0 * h2
        sums[11, c] += g0 * g3 + h0 * h3
        sums[12, c] += g0 * g4 + h0 * h4
        sums[13, c] += g0 * v + h0 * w
        sums[14, c] += g0 * y + h0 * x
        sums[15, c] += g1 * g1 + h1 * h1
        sums[16, c] += g1 * g2 + h1 * h2
        sums[17, c] += g1 * g3 + h1 * h3
        sums[18, c] += g1 * g4 + h1 * h4
        sums[19, c] += g1 * v + h1 * w
        sums[20, c] += g1 * y + h1 * x
        sums[21, c] += g2 * g2 + h2 * h2
        sums[22, c] += g2 * g3 + h2 * h3
        sums[23, c] += g2 * g4 + h2 * h4
        sums[24, c] += g2 * v + h2 * w
        sums[25, c] += g2 * y + h2 * x
        sums[26, c] += g3 * g3 + h3 * h3
        sums[27, c] += g3 * g4 + h3 * h4
        sums[28, c] += g3 * v + h3 * w
        sums[29, c] += g3 * y + h3 * x
        sums[30, c] += g4 * g4 + h4 * h4
        sums[31, c] += g4 * v + h4 * w
        sums[32, c] += g4 * y + h4 * x
        sums[33, c] += v * v + w * w
        sums[34, c] += v * y + w * x
        sums[35, c] += y * y + x * x


@inlined
def _accumulate_noise(one, other, sums, width):
    """The same for noise and its derivatives, without the noise's own square."""
    for c in range(width):
        v, w = one[ROOT, c], other[ROOT, c]
        n, g0, g1, g2, g3, g4 = v * one[0, c], v * one[1, c], v * one[2, c], v * one[3, c], v * one[4, c], v * one[5, c]
        m, h0, h1, h2, h3 = w * other[0, c], w * other[1, c], w * other[2, c], w * other[3, c], w * other[4, c]
        h4 = w * other[5, c]
        sums[0, c] += n * g0 + m * h0
        sums[1, c] += n * g1 + m * h1
        sums[2, c] += n * g2 + m * h2
        sums[3, c] += n * g3 + m * h3
        sums[4, c] += n * g4 + m * h4
        sums[5, c] += g0 * g0 + h0 * h0
        sums[6, c] += g0 * g1 + h0 * h1
        sums[7, c] += g0 * g2 + h0 * h2
        sums[8, c] += g0 * g3 + h0 * h3
        sums[9, c] += g0 * g4 + h0 * h4
        sums[10, c] += g1 * g1 + h1 * h1
        sums[11, c] += g1 * g2 + h1 * h2
        sums[12, c] += g1 * g3 + h1 * h3
        sums[13, c] += g1 * g4 + h1 * h4
        sums[14, c] += g2 * g2 + h2 * h2
        sums[15, c] += g2 * g3 + h2 * h3
        sums[16, c] += g2 * g4 + h2 * h4
        sums[17, c] += g3 * g3 + h3 * h3
        sums[18, c] += g3 * g4 + h3 * h4
        sums[19, c] += g4 * g4 + h4 * h4


@compiled
def copy_rows(source, r, first, width, target):
    """Row r of each image of ``source``, a segment of it, to the rows of ``target``."""
    for a in range(len(target)):
        ahead(source[a], r + 1, first, width)
        row = source[a, r, first : first + width]
        for c in range(width):
            target[a, c] = row[c]


@inlined
def left_of(z, u, change, left, width):
    """What the unknowns and the pixel's change of T leave of a frame's difference; the sixth times its regressor."""
    for c in range(width):
        near = change[c] * z[0, c] + u[0, c] * z[1, c] + u[1, c] * z[2, c] + u[2, c] * z[3, c]
        left[c] = z[DIFFERENCE, c] - near - u[3, c] * z[4, c] - u[4, c] * z[5, c] - u[5, c]


@compiled
def sum_products(
    pattern, reference, roots, flat, precision, taps, window, unknowns, noise, own, maps, second, start, stop
):
    """Normal equations of the windowed unknowns with the transmission eliminated, summed along the window's rows.

    ``maps`` (row, segment, map, `SEGMENT`) as `RIGHT` and the following say, ``own`` (distance, `OWN`, row, column).
    On the ``second`` pass what the ``unknowns`` leave of each frame's difference goes to ``noise``, and the right side
    waits for `sum_noise`.
    """
    distances, _, columns = flat.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    reach = len(window) - 1
    sums, z = np.empty((SUMS, SEGMENT), dtype), np.zeros((2, ROWS, SEGMENT), dtype)
    u, change = np.empty((SIZE, SEGMENT), dtype), np.empty(SEGMENT, dtype)
    nothing = np.zeros(SEGMENT, dtype)
    slope = np.empty(SEGMENT + 2 * PAD, dtype)
    lines, summed = np.zeros((FIRST_MAPS, columns + 2 * reach), dtype), np.empty(columns, dtype)
    for r in range(start, stop):
        clear(lines)
        for first in range(0, columns, SEGMENT):
            width = min(SEGMENT, columns - first)
            part = lines[:, reach + first : reach + first + width]
            for d in range(distances):
                clear(sums)
                if second:
                    copy_rows(unknowns, r, first, width, u)
                    shape = flat[d, r, first : first + width]
                    for c in range(width):
                        u[5, c] *= shape[c]
                for s in range(0, steps, 2):
                    for k in range(2):
                        if s + k == steps:
                            clear(z[k, ROOT:])
                            continue
                        f = d * steps + s + k
                        root = roots[d, (s + k) % roots.shape[1]]
                        take_frame(pattern[f], reference[f], root, r, first, width, taps[d], slope, z[k])
                        if second:
                            left_of(z[k], u, nothing, noise[f, r + PAD, first + PAD :], width)
                    _accumulate(z[0], z[1], sums, width)
                _eliminate(sums, flat, precision, own, part, d, r, first, width, second)
                if second:
                    _change(own[d], unknowns, r, first, width, change)
                    for f in range(d * steps, (d + 1) * steps):
                        left, p = noise[f, r + PAD, first + PAD :], pattern[f, r + PAD, first + PAD :]
                        for c in range(width):
                            left[c] -= change[c] * p[c]
        for n in range(RIGHT if second else FIRST_MAPS):
            filtered_along(lines[n], window, summed)
            _store_segments(summed, maps[r], n)
        if second:
            for n in range(RIGHT, RIGHT + SIZE):
                _store_segments(lines[n, reach : reach + columns], maps[r], n)


@compiled
def _store_segments(row, maps, n):
    """A row to map n of its segments."""
    for k in range(len(maps)):
        source, target = row[k * SEGMENT : (k + 1) * SEGMENT], maps[k, n]
        for c in range(len(source)):
            target[c] = source[c]


@compiled
def _change(own, unknowns, r, first, width, change):
    """A distance's T relative to the one divided out, less 1, its flat regressor being in the share."""
    start = own[CHANGE, r, first : first + width]
    for c in range(width):
        change[c] = start[c]
    for a in range(SIZE):
        share, u = own[a, r, first : first + width], unknowns[a, r, first : first + width]
        for c in range(width):
            change[c] -= share[c] * u[c]


@compiled
def _eliminate(sums, flat, precision, own, lines, d, r, first, width, second):
    """Take the pixel's transmission out of the sums and add what is left, weighted, to the lines."""
    stop = first + width
    one = sums.dtype.type(1)
    half = one / (one + one)
    weight, shape = precision[d, r, first:stop], flat[d, r, first:stop]
    inverse, change = own[d, INVERSE, r, first:stop], own[d, CHANGE, r, first:stop]
    ahead(flat[d], r + 1, first, width)
    ahead(precision[d], r + 1, first, width)
    for a in range(OWN):
        ahead(own[d, a], r + 1, first, width)
    if not second:
        _contrasts(sums, weight, lines[CONTRASTS], half, -half, width)
        _contrasts(sums, weight, lines[CONTRASTS + 1], half, half, width)
    for a in range(OF_FRAME):
        n = place(min(a, FLAT), max(a, FLAT), OF_FRAME)
        for c in range(width):
            sums[n, c] *= shape[c]
    n = place(FLAT, FLAT, OF_FRAME)
    for c in range(width):
        sums[n, c] *= shape[c]
        inverse[c] = one / sums[0, c] if sums[0, c] > 0 else one - one
        change[c] = sums[LEFT, c] * inverse[c]
    n = 0
    for a in range(SIZE):
        share, right, left = own[d, a, r, first:stop], lines[RIGHT + a], place(a + 1, LEFT, OF_FRAME)
        for c in range(width):
            share[c] = sums[a + 1, c] * inverse[c]
        for c in range(width):
            right[c] += weight[c] * (sums[left, c] - share[c] * sums[LEFT, c])
        for b in range(a, SIZE):
            normal, product = lines[n], place(a + 1, b + 1, OF_FRAME)
            for c in range(width):
                normal[c] += weight[c] * (sums[product, c] - share[c] * sums[b + 1, c])
            n += 1
        if not second:
            square, product = lines[SQUARES + a], place(a + 1, a + 1, OF_FRAME)
            for c in range(width):
                square[c] += weight[c] * sums[product, c]


@compiled
def _contrasts(sums, weight, line, half, sign, width):
    """Squares of what differs between the steps in the reference (−½) or the sample over T (½), p ∓ ½ y."""
    one = half + half
    ones, of_pattern, of_left = place(FLAT, FLAT, OF_FRAME), FLAT, place(FLAT, LEFT, OF_FRAME)
    last = SUMS - 1
    for c in range(width):
        share = one / sums[ones, c] if sums[ones, c] > 0 else one - one
        total = sums[of_pattern, c] + sign * sums[of_left, c]
        squares = sums[PATTERN, c] + (sign + sign) * sums[LEFT, c] + half * half * sums[last, c]
        line[c] += weight[c] * (squares - total * total * share)


@compiled
def free_of_blur(residual, excess, unknowns, taps, noise, start, stop):
    """The residual of a blurred pattern is noise blurred: undo it to first order."""
    distances, _, columns = excess.shape
    steps = len(residual) // distances
    dtype = residual.dtype
    z, u = np.zeros((ROWS, SEGMENT), dtype), np.zeros((SIZE, SEGMENT), dtype)
    slope, nothing = np.empty(SEGMENT + 2 * PAD, dtype), np.zeros(SEGMENT, dtype)
    for r in range(start, stop):
        for first in range(0, columns, SEGMENT):
            width = min(SEGMENT, columns - first)
            for d in range(distances):
                factor = excess[d, r, first : first + width]
                copy_rows(unknowns[: SIZE - 1], r, first, width, u[: SIZE - 1])
                for a in range(SIZE - 1):
                    for c in range(width):
                        u[a, c] *= -factor[c]
                for f in range(d * steps, (d + 1) * steps):
                    ahead(residual[f], r + 2 * PAD + 1, first, width + 2 * PAD)
                    regressors_of(residual[f], r, first, width, taps[d], slope, z)
                    scaled_copy(residual[f, r + PAD, first + PAD :], dtype.type(1), z[DIFFERENCE, :width])
                    left_of(z, u, nothing, noise[f, r + PAD, first + PAD :], width)


@compiled
def sum_noise(noise, roots, excess, precision, taps, window, quarter, maps, start, stop):
    """What noise adds to the normal equations, and take what it adds off their right side; along the window's rows."""
    distances, _, columns = excess.shape
    steps = len(noise) // distances
    dtype = noise.dtype
    reach = len(window) - 1
    z, sums = np.zeros((2, ROWS, SEGMENT), dtype), np.empty((5 + OF_NOISE, SEGMENT), dtype)
    slope = np.empty(SEGMENT + 2 * PAD, dtype)
    lines, summed = np.zeros((SECOND_MAPS - RIGHT, columns + 2 * reach), dtype), np.empty(columns, dtype)
    for r in range(start, stop):
        clear(lines)
        for a in range(SIZE):
            for k in range(maps.shape[1]):
                first = reach + k * SEGMENT
                scaled_copy(
                    maps[r, k, RIGHT + a], dtype.type(1), lines[a, first : min(first + SEGMENT, reach + columns)]
                )
        for first in range(0, columns, SEGMENT):
            width = min(SEGMENT, columns - first)
            for d in range(distances):
                clear(sums)
                for s in range(0, steps, 2):
                    for k in range(2):
                        if s + k == steps:
                            clear(z[k, ROOT:])
                            continue
                        image = noise[d * steps + s + k]
                        ahead(image, r + 2 * PAD + 1, first, width + 2 * PAD)
                        regressors_of(image, r, first, width, taps[d], slope, z[k])
                        scaled_copy(image[r + PAD, first + PAD :], dtype.type(1), z[k, 0, :width])
                        scaled_copy(roots[d, (s + k) % roots.shape[1], r, first:], dtype.type(1), z[k, ROOT, :width])
                    _accumulate_noise(z[0], z[1], sums, width)
                weight, factor = precision[d, r, first : first + width], excess[d, r, first : first + width]
                for n in range(OF_NOISE):
                    target = lines[SIZE + n, reach + first : reach + first + width]
                    for c in range(width):
                        target[c] += quarter * weight[c] * sums[5 + n, c]
                for a in range(5):
                    target = lines[a, reach + first : reach + first + width]
                    for c in range(width):
                        target[c] -= weight[c] * factor[c] * sums[a, c]
        for n in range(SECOND_MAPS - RIGHT):
            filtered_along(lines[n], window, summed)
            _store_segments(summed, maps[r], RIGHT + n)
