"""Compiled solution of the linear retrieval's normal equations: small systems, a segment of pixels at a time."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    CONTRASTS,
    FIRST_MAPS,
    NOISE,
    PAIRS,
    RIGHT,
    SECOND_MAPS,
    SEGMENT,
    SIZE,
    SQUARES,
    ahead,
    compiled,
    filtered_down,
)
from ddf_tomo.retrieval._differential_sums import copy_rows, place


@compiled
def _gather(maps, window, r, first, found):
    """Sums across the window's rows; what lies outside the image counts as zero."""
    rows, segments, count, _ = maps.shape
    pitch, start = segments * count * SEGMENT, first // SEGMENT * count * SEGMENT
    if r + len(window) < rows:
        ahead(maps.reshape(rows, pitch), r + len(window), start, found.size)
    filtered_down(maps.reshape(rows * pitch), start, pitch, rows, r, rows - 1, window, False, found.reshape(found.size))


@compiled
def _factor(m, lowest, width, one):
    """Upper triangle of A into U, A = UᵀU, with the inverse of its diagonal; ``lowest`` pivots: positive if A is."""
    for k in range(SIZE):
        kk = place(k, k, SIZE)
        for c in range(width):
            lowest[c] = min(lowest[c], m[kk, c])
            pivot = m[kk, c] if m[kk, c] > 0 else one
            m[kk, c] = one / np.sqrt(pivot)
        for b in range(k + 1, SIZE):
            for c in range(width):
                m[kk + b - k, c] *= m[kk, c]
        for a in range(k + 1, SIZE):
            for b in range(a, SIZE):
                n = place(a, b, SIZE)
                for c in range(width):
                    m[n, c] -= m[kk + a - k, c] * m[kk + b - k, c]


@compiled
def _invert(m, v, width):
    """U with inverted diagonal into the upper triangle of A⁻¹ = U⁻¹ U⁻ᵀ; ``v`` is scratch for U⁻¹."""
    for b in range(SIZE):
        bb = place(b, b, SIZE)
        for c in range(width):
            v[bb, c] = m[bb, c]
        for a in range(b - 1, -1, -1):
            n, aa = place(a, b, SIZE), place(a, a, SIZE)
            for c in range(width):
                v[n, c] = 0
            for k in range(a + 1, b + 1):
                for c in range(width):
                    v[n, c] -= m[aa + k - a, c] * v[place(k, b, SIZE), c]
            for c in range(width):
                v[n, c] *= m[aa, c]
    for a in range(SIZE):
        for b in range(a, SIZE):
            n = place(a, b, SIZE)
            for c in range(width):
                m[n, c] = 0
            for k in range(b, SIZE):
                for c in range(width):
                    m[n, c] += v[place(a, k, SIZE), c] * v[place(b, k, SIZE), c]


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
def times(inverse, vector, total, width):
    """A symmetric matrix, by its upper triangle, times a vector."""
    for a in range(SIZE):
        m = inverse[place(0, a, SIZE)]
        n = inverse[place(min(1, a), max(1, a), SIZE)]
        o = inverse[place(min(2, a), max(2, a), SIZE)]
        p = inverse[place(min(3, a), max(3, a), SIZE)]
        q = inverse[place(min(4, a), max(4, a), SIZE)]
        s = inverse[place(a, 5, SIZE)]
        for c in range(width):
            near = m[c] * vector[0, c] + n[c] * vector[1, c] + o[c] * vector[2, c]
            total[a, c] = near + p[c] * vector[3, c] + q[c] * vector[4, c] + s[c] * vector[5, c]


@compiled
def _solve(m, right, scale, use, size, found, width):
    """``found`` = scaled inverse times right side, zero where it is not to be used and beyond ``size``."""
    for a in range(SIZE):
        for c in range(width):
            right[a, c] *= scale[a, c]
    times(m, right, found, width)
    for a in range(SIZE):
        for c in range(width):
            value = found[a, c] * scale[a, c]
            found[a, c] = value if use[c] > 0 and a < size else value - value


@compiled
def store_rows(source, r, first, width, target):
    """The rows of ``source`` to row r of each image of ``target``."""
    for a in range(len(target)):
        row = target[a, r, first : first + width]
        for c in range(width):
            row[c] = source[a, c]


@compiled
def first_solution(maps, window, size, limits, scales, unknowns, valid, start, stop):
    """Unknowns, the scales of their matrices, and where there is information.

    ``limits``: least share of the squares that differs, squared contrast, pivot.
    """
    columns = unknowns.shape[2]
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
            _gather(maps, window, r, first, all_maps)
            for c in range(width):
                enough = all_maps[CONTRASTS, c] > limits[1] * all_maps[CONTRASTS + 1, c]
                use[c] = one if enough else one - one
            for a in range(size):
                n = place(a, a, SIZE)
                for c in range(width):
                    kept, there = all_maps[n, c], all_maps[SQUARES + a, c]
                    enough = min(kept - limits[0] * there, there)
                    use[c] = use[c] if enough > 0 else one - one
            for a in range(SIZE):
                n = place(a, a, SIZE)
                for c in range(width):
                    kept = all_maps[n, c] if use[c] > 0 and a < size else one
                    scale[a, c] = one / np.sqrt(kept)
            _scaled(all_maps, scale, use, size, width, m)
            for c in range(width):
                lowest[c] = one
            _factor(m, lowest, width, one)
            _invert(m, v, width)
            for c in range(width):
                use[c] = min(use[c], lowest[c] - limits[2])
            _solve(m, all_maps[RIGHT:SQUARES], scale, use, size, found, width)
            store_rows(scale, r, first, width, scales)
            store_rows(found, r, first, width, unknowns)
            is_valid = valid[r, first : first + width]
            for c in range(width):
                is_valid[c] = use[c] > 0


@compiled
def second_solution(maps, window, size, limits, scales, unknowns, inverse, coarse, valid, start, stop):
    """Unknowns and, on the coarse grid, the inverses of their matrices, the share of noise taken off."""
    columns = unknowns.shape[2]
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
            _gather(maps, window, r, first, all_maps)
            copy_rows(scales, r, first, width, scale)
            is_valid = valid[r, first : first + width]
            for c in range(width):
                use[c] = one if is_valid[c] else one - one
            for c in range(width):
                lowest[c] = one
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
            if r % coarse == 0:
                n = 0
                for a in range(SIZE):
                    for b in range(a, SIZE):
                        row = inverse[n, r // coarse, first // coarse :]
                        for c in range(0, width, coarse):
                            row[c // coarse] = m[n, c] * scale[a, c] * scale[b, c]
                        n += 1
            store_rows(found, r, first, width, unknowns)
            for c in range(width):
                is_valid[c] = use[c] > 0


@compiled
def _take_off(maps, share, width):
    """Take a share of the noise off the normal matrices."""
    n = NOISE
    for a in range(5):
        for b in range(a, 5):
            for c in range(width):
                maps[place(a, b, SIZE), c] -= share * maps[n, c]
            n += 1
