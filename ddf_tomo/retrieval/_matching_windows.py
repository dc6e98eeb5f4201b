"""Compiled window sums and small solves of `ddf_tomo.retrieval.matching` (numba, CPU).

As in ``_matching_kernel``, functions work on rows ``start`` to ``stop`` and write only there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ddf_tomo.retrieval._matching_kernel import FAST, VALUE


@njit(**FAST)
def gather_down(terms, taps, sloped, out, start, stop):
    """Window sums along the rows' index, and of the first ``sloped`` channels with the distance as a weight besides.

    Outside of the image there is nothing.
    """
    rows, columns, channels = terms.shape
    reach = len(taps) // 2
    for j in range(start, stop):
        out[j] = 0
        for n in range(max(j - reach, 0), min(j + reach + 1, rows)):
            tap = taps[n - j + reach]
            far = tap * (n - j)
            for k in range(columns):
                for c in range(channels):
                    out[j, k, c] += tap * terms[n, k, c]
                for c in range(sloped):
                    out[j, k, channels + c] += far * terms[n, k, c]


@njit(**FAST)
def gather_across(terms, taps, sloped, out, start, stop):
    """Window sums along the columns' index of what `gather_down` made, sums weighted by the distance along it last."""
    columns, channels = terms.shape[1:]
    reach = len(taps) // 2
    for j in range(start, stop):
        out[j] = 0
        for k in range(columns):
            for n in range(max(k - reach, 0), min(k + reach + 1, columns)):
                tap = taps[n - k + reach]
                far = tap * (n - k)
                for c in range(channels):
                    out[j, k, c] += tap * terms[j, n, c]
                for c in range(sloped):
                    out[j, k, channels + c] += far * terms[j, n, c]


@njit(**FAST)
def cholesky(matrix, ridge):
    """Lower factor of a matrix scaled to a diagonal of 1, plus ridge, in place; False if it is not positive."""
    size = len(matrix)
    for a in range(size):
        for b in range(a + 1):
            total = matrix[a, b] + (ridge if a == b else 0.0)
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            if a == b:
                if total <= 1e-9:
                    return False
                matrix[a, a] = np.sqrt(total)
            else:
                matrix[a, b] = total / matrix[b, b]
    return True


@njit(**FAST)
def solve(factor, vector):
    """Solve in place with the lower factor that `cholesky` left."""
    size = len(vector)
    for a in range(size):
        for b in range(a):
            vector[a] -= factor[a, b] * vector[b]
        vector[a] /= factor[a, a]
    for a in range(size - 1, -1, -1):
        for b in range(a + 1, size):
            vector[a] -= factor[b, a] * vector[b]
        vector[a] /= factor[a, a]


@njit(**FAST)
def matrix_of(upper, out):
    """Symmetric matrix from its upper triangle, row by row; returns how many numbers that took."""
    size, at = len(out), 0
    for a in range(size):
        for b in range(a, size):
            out[a, b] = out[b, a] = upper[at]
            at += 1
    return at


@njit(**FAST)
def update(
    sums, slope, sloped, again, chosen, pixelwise, furthest, lowest, highest,
    own, transmission, theta, change, start, stop,
):  # fmt: skip
    """Solve the gathered normal equations, move the parameters, and write how far, ``Δᵀ A Δ``; -1 if impossible.

    ``again``: the sums are of scores alone; ``sloped``: they hold first moments, and unknowns that change over the
    window do not pull to where it knows most. A step is cut to ``furthest`` pixels and the eigenvalues of C stay
    between ``lowest`` and ``highest``.
    """
    columns, count = theta.shape[1], len(chosen)
    matrix, factor = np.empty((count, count)), np.empty((count, count))
    down, across = np.empty((count, count)), np.empty((count, count))
    step, scale, right = np.empty(count), np.empty(count), np.empty(count)
    for j in range(start, stop):
        for k in range(columns):
            at = matrix_of(sums[j, k], matrix)
            if sloped:
                matrix_of(sums[j, k, at + count + 2 :], down)
                matrix_of(sums[j, k, 2 * at + count + 2 :], across)
            here = theta[j, k]
            change[j, k] = -1
            positive = True
            for n in range(count):
                positive = positive and matrix[n, n] > 0
            if not positive:
                continue
            for n in range(count):
                scale[n] = 1 / np.sqrt(matrix[n, n])
            for n in range(count):
                right[n] = sums[j, k, at + n]
                for i in range(0 if again else count):
                    right[n] -= matrix[n, i] * here[chosen[i]]
                    if sloped:
                        right[n] -= down[n, i] * slope[j, k, chosen[i], 0] + across[n, i] * slope[j, k, chosen[i], 1]
                step[n] = right[n] * scale[n]
            ridge = 1e-6
            while True:
                for n in range(count):
                    for i in range(n + 1):
                        factor[n, i] = matrix[n, i] * scale[n] * scale[i]
                if cholesky(factor, ridge):
                    break
                ridge *= 30
            solve(factor, step)
            for n in range(count):
                step[n] *= scale[n]
            length = np.sqrt(step[0] ** 2 + step[1] ** 2)
            cut = min(1.0, furthest / max(length, 1e-30))
            moved = 0.0
            for n in range(count):
                step[n] *= cut
            for n in range(count):
                for i in range(count):
                    moved += step[n] * matrix[n, i] * step[i]
                here[chosen[n]] += step[n]
            change[j, k] = abs(moved)
            bound(here, lowest, highest)
            if pixelwise:
                t = own[j, k, 0]
                for n in range(count):
                    t -= own[j, k, 1 + n] * here[chosen[n]]
                transmission[j, k] = min(max(t, 0.5 * transmission[j, k]), 2 * transmission[j, k])
            else:
                transmission[j, k] *= np.exp(min(max(step[count - 1], -0.7), 0.7))
            here[VALUE] = np.log(transmission[j, k])


@njit(**FAST)
def bound(theta, lowest, highest):
    """Bring the eigenvalues of C into a range."""
    mean, half, off = 0.5 * (theta[2] + theta[4]), 0.5 * (theta[2] - theta[4]), theta[3]
    radius = np.sqrt(half * half + off * off)
    large, small = min(max(mean + radius, lowest), highest), min(max(mean - radius, lowest), highest)
    if radius > 0 and (large != mean + radius or small != mean - radius):
        shrink = 0.5 * (large - small) / radius
        mean, half, off = 0.5 * (large + small), half * shrink, off * shrink
        theta[2], theta[3], theta[4] = mean + half, off, mean - half
    elif radius == 0:
        theta[2] = theta[4] = large
