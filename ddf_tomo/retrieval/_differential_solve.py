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
    ask,
    compiled,
    filtered_down,
    place,
)
from ddf_tomo.retrieval._lanes import lanewise, least, root, where

UPPER = tuple((a, b) for a in range(SIZE) for b in range(a, SIZE))


def _factor(m):
    """Upper triangle U, A = UᵀU, with the inverse of its diagonal, and the lowest pivot: positive if A is."""
    m, lowest = dict(m), None
    for k in range(SIZE):
        pivot = m[k, k]
        lowest = pivot if lowest is None else least(pivot, lowest)
        m[k, k] = 1 / root(where(pivot > 0, pivot, 1))
        for b in range(k + 1, SIZE):
            m[k, b] *= m[k, k]
        for a in range(k + 1, SIZE):
            for b in range(a, SIZE):
                m[a, b] -= m[k, a] * m[k, b]
    return m, lowest


def _solution(u, right):
    """x of UᵀU x = right."""
    x = list(right)
    for a in range(SIZE):
        for k in range(a):
            x[a] -= u[k, a] * x[k]
        x[a] *= u[a, a]
    for a in reversed(range(SIZE)):
        for k in range(a + 1, SIZE):
            x[a] -= u[a, k] * x[k]
        x[a] *= u[a, a]
    return x


def _inverse(u):
    """Upper triangle of A⁻¹ = U⁻¹ U⁻ᵀ."""
    v = {}
    for b in range(SIZE):
        v[b, b] = u[b, b]
        for a in reversed(range(b)):
            v[a, b] = -u[a, a] * sum((u[a, k] * v[k, b] for k in range(a + 2, b + 1)), u[a, a + 1] * v[a + 1, b])
    return {(a, b): sum((v[a, k] * v[b, k] for k in range(b + 1, SIZE)), v[a, b] * v[b, b]) for a, b in UPPER}


def times(m, vector):
    """A symmetric matrix, by its upper triangle, times a vector."""
    rows = [[m[min(a, b), max(a, b)] * vector[b] for b in range(SIZE)] for a in range(SIZE)]
    return [sum(row[1:], row[0]) for row in rows]


def _used(use, sixth):
    return [use] * (SIZE - 1) + [use & (sixth > 0)]


def _scaled(m, scale, used):
    """Matrices with a diagonal near 1; the identity where they are not to be used."""
    return {(a, b): where(used[b], m[a, b] * scale[a] * scale[b], float(a == b)) for a, b in UPPER}


@compiled
def _gather(maps, count, window, r, first, found):
    """Sums of ``count`` maps across the window's rows; what lies outside the image counts as zero."""
    rows, segments, deep, _ = maps.shape
    pitch, start, size = segments * deep * SEGMENT, first // SEGMENT * deep * SEGMENT, count * SEGMENT
    ask(size, maps, start + (r + len(window)) * pitch)
    filtered_down(maps, start, pitch, rows, r, rows - 1, window, window.dtype.type(0), found, np.intp(0), size)


@compiled
def first_solution(maps, window, sixth, limits, scales, unknowns, valid, start, stop):
    """Unknowns, the scales of their matrices, and where there is information.

    ``limits``: least share of the squares that differs, squared contrast, pivot. The last unknown where ``sixth`` is 1.
    """
    columns = unknowns.shape[2]
    found = np.empty((FIRST_MAPS, SEGMENT), maps.dtype)
    for first in range(0, columns, SEGMENT):
        for r in range(start, stop):
            _gather(maps, FIRST_MAPS, window, r, first, found)
            _solve(min(SEGMENT, columns - first), found, sixth, limits, r, first, scales, unknowns, valid)


@lanewise
def _solve(c, maps, sixth, limits, r, first, scales, unknowns, valid):
    m = {(a, b): maps[place(a, b, SIZE), c] for a, b in UPPER}
    use = maps[CONTRASTS, c] > limits[1] * maps[CONTRASTS + 1, c]
    for a in range(SIZE):
        there = maps[SQUARES + a, c]
        enough = least(m[a, a] - limits[0] * there, there)
        use = use & ((enough if a < SIZE - 1 else where(sixth > 0, enough, 1)) > 0)
    used = _used(use, sixth)
    scale = [1 / root(where(each, m[a, a], 1)) for a, each in enumerate(used)]
    u, lowest = _factor(_scaled(m, scale, used))
    is_valid = use & (lowest > limits[2])
    found = _solution(u, [maps[RIGHT + a, c] * scale[a] for a in range(SIZE)])
    for a in range(SIZE):
        scales[a, r, first + c] = scale[a]
        unknowns[a, r, first + c] = where(is_valid & used[a], found[a] * scale[a], 0)
    valid[r, first + c] = is_valid


@compiled
def second_solution(maps, window, sixth, limits, scales, unknowns, inverse, coarse, valid, start, stop):
    """Unknowns and, on the coarse grid, the inverses of their matrices, the share of noise taken off."""
    columns = unknowns.shape[2]
    found, m = np.empty((SECOND_MAPS, SEGMENT), maps.dtype), np.empty((PAIRS, SEGMENT), maps.dtype)
    for first in range(0, columns, SEGMENT):
        width = min(SEGMENT, columns - first)
        for r in range(start, stop):
            _gather(maps, SECOND_MAPS, window, r, first, found)
            if r % coarse == 0:
                _solve_again_inverse(width, found, sixth, limits, r, first, scales, unknowns, valid, m)
                for n in range(PAIRS):
                    for c in range(0, width, coarse):
                        inverse[n, r // coarse, (first + c) // coarse] = m[n, c]
            else:
                _solve_again(width, found, sixth, limits, r, first, scales, unknowns, valid, m)


def _solving_again(with_inverse):
    def body(c, maps, sixth, limits, r, first, scales, unknowns, valid, inverse):
        m, n = {(a, b): maps[place(a, b, SIZE), c] for a, b in UPPER}, NOISE
        once, twice = dict(m), dict(m)  # the noise taken off
        for a in range(SIZE - 1):
            for b in range(a, SIZE - 1):
                noise = maps[n, c]
                once[a, b], twice[a, b] = m[a, b] - noise, m[a, b] - (noise + noise)
                n += 1
        scale, use = [scales[a, r, first + c] for a in range(SIZE)], valid[r, first + c]
        _, lowest = _factor(_scaled(twice, scale, _used(use, sixth)))
        is_valid = use & (lowest > limits[2])
        used = _used(is_valid, sixth)
        u, _ = _factor(_scaled(once, scale, used))  # with less taken off it cannot fail where it did not before
        found = _solution(u, [maps[RIGHT + a, c] * scale[a] for a in range(SIZE)])
        for a in range(SIZE):
            unknowns[a, r, first + c] = where(used[a], found[a] * scale[a], 0)
        valid[r, first + c] = is_valid
        if with_inverse:
            for (a, b), value in _inverse(u).items():
                inverse[place(a, b, SIZE), c] = value * scale[a] * scale[b]

    return lanewise(body)


_solve_again, _solve_again_inverse = _solving_again(False), _solving_again(True)
