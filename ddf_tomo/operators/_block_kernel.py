"""The compiled inner loops of convolutions with matrix kernels (numba, CPU); the obvious form is `matrix_product`.

A symmetric K × K matrix at each frequency, of which the upper triangle is stored row by row: ``K (K + 1) / 2`` numbers.
Frequencies are the fastest axis everywhere, so that vector registers hold neighbouring frequencies.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def multiply_rows(spectrum, symbol, start, stop):
    """``spectrum[:, r, f] = S(r, f) spectrum[:, r, f]`` for rows ``start ≤ r < stop``.

    ``spectrum`` is real, shape (K, rows, 2 · frequencies), real and imaginary parts in turn; ``symbol`` has shape
    (rows, pairs, frequencies).
    """
    size, frequencies = spectrum.shape[0], symbol.shape[2]
    real, imaginary = np.empty((size, frequencies), spectrum.dtype), np.empty((size, frequencies), spectrum.dtype)
    sum_real, sum_imaginary = np.empty_like(real), np.empty_like(real)
    for r in range(start, stop):
        for a in range(size):
            for f in range(frequencies):
                real[a, f], imaginary[a, f] = spectrum[a, r, 2 * f], spectrum[a, r, 2 * f + 1]
        sum_real[:] = 0
        sum_imaginary[:] = 0
        pair = 0
        for a in range(size):
            for f in range(frequencies):
                sum_real[a, f] += symbol[r, pair, f] * real[a, f]
                sum_imaginary[a, f] += symbol[r, pair, f] * imaginary[a, f]
            pair += 1
            for b in range(a + 1, size):
                for f in range(frequencies):
                    s = symbol[r, pair, f]
                    sum_real[a, f] += s * real[b, f]
                    sum_imaginary[a, f] += s * imaginary[b, f]
                    sum_real[b, f] += s * real[a, f]
                    sum_imaginary[b, f] += s * imaginary[a, f]
                pair += 1
        for a in range(size):
            for f in range(frequencies):
                spectrum[a, r, 2 * f], spectrum[a, r, 2 * f + 1] = sum_real[a, f], sum_imaginary[a, f]


@njit(nogil=True, cache=True, error_model="numpy")
def invert_rows(symbol, inverse, identity, laplacian, stiffness, floor, failed, start, stop):
    """``inverse = (S + identity + stiffness(r, f) · laplacian)⁻¹`` for rows ``start ≤ r < stop``, by Gauss and Jordan.

    Where an eigenvalue lies below about ``floor``, ``failed[r, f]`` becomes true and nothing is written.
    """
    size, frequencies = identity.shape[0], symbol.shape[2]
    m, factor = np.empty((size, size)), np.empty((size, size))
    for r in range(start, stop):
        for f in range(frequencies):
            pair = 0
            for a in range(size):
                for b in range(a, size):
                    m[a, b] = m[b, a] = symbol[r, pair, f] + identity[a, b] + stiffness[r, f] * laplacian[a, b]
                    pair += 1
            factor[:] = m
            for a in range(size):  # pivots of what is left without the floor: positive if all eigenvalues exceed it
                factor[a, a] -= floor
            positive = True
            for k in range(size):
                if not factor[k, k] > 0:
                    positive = False
                    break
                for a in range(k + 1, size):
                    share = factor[a, k] / factor[k, k]
                    for b in range(k + 1, size):
                        factor[a, b] -= share * factor[k, b]
            if not positive:
                failed[r, f] = True
                continue
            for k in range(size):
                pivot = 1 / m[k, k]
                m[k, k] = 1.0
                for b in range(size):
                    m[k, b] *= pivot
                for a in range(size):
                    if a != k:
                        share = m[a, k]
                        m[a, k] = 0.0
                        for b in range(size):
                            m[a, b] -= share * m[k, b]
            pair = 0
            for a in range(size):
                for b in range(a, size):
                    inverse[r, pair, f] = m[a, b]
                    pair += 1
