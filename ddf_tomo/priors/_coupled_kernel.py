"""Compiled passes over a volume for priors of neighbouring voxels' differences (numba, CPU).

Torch makes three arrays of the volume's size for every step of ``√Σ (D c)²``; these read the volume once and write a
number a voxel, or the volume. Both work on lines ``x`` from ``start`` to ``stop``; what they write belongs to these.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SUMS = {"reassoc", "contract", "nsz"}  # sums over coefficients may be taken in registers


@njit(nogil=True, error_model="numpy", cache=True, fastmath=SUMS)
def products(first, second, factors, out, start, stop):
    """``out[:, x, y, z]`` = ``|D a|²``, ``D a · D b``, ``|D b|²``, with ``factors`` of the coefficients."""
    nx, ny, nz, many = first.shape
    for x in range(start, stop):
        for y in range(ny):
            for z in range(nz):
                aa = ab = bb = first.dtype.type(0)
                for axis in range(3):
                    fx, fy, fz = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                    if fx == nx or fy == ny or fz == nz:
                        continue
                    for c in range(many):
                        a = first[fx, fy, fz, c] - first[x, y, z, c]
                        b = second[fx, fy, fz, c] - second[x, y, z, c]
                        weighted = factors[c] * a
                        aa += weighted * a
                        ab += weighted * b
                        bb += factors[c] * b * b
                out[0, x, y, z], out[1, x, y, z], out[2, x, y, z] = aa, ab, bb


@njit(nogil=True, error_model="numpy", cache=True, fastmath=SUMS)
def gradient(volume, factors, rounding, out, start, stop):
    """``out`` = ``Dᵀ κ D c`` with ``κ = 1 / √(|D c|² + rounding²)``, the gradient of the rounded total variation."""
    nx, ny, nz, many = volume.shape
    # κ of the line of voxels at x, and of that at x - 1, whose differences end here.
    here, before = np.empty((ny, nz), volume.dtype), np.empty((ny, nz), volume.dtype)
    if start > 0:
        _curvatures(volume, factors, rounding, before, start - 1)
    for x in range(start, stop):
        _curvatures(volume, factors, rounding, here, x)
        for y in range(ny):
            for z in range(nz):
                mine = here[y, z]
                for c in range(many):
                    value = volume[x, y, z, c]
                    total = volume.dtype.type(0)
                    if x + 1 < nx:
                        total += mine * (value - volume[x + 1, y, z, c])
                    if y + 1 < ny:
                        total += mine * (value - volume[x, y + 1, z, c])
                    if z + 1 < nz:
                        total += mine * (value - volume[x, y, z + 1, c])
                    if x > 0:
                        total += before[y, z] * (value - volume[x - 1, y, z, c])
                    if y > 0:
                        total += here[y - 1, z] * (value - volume[x, y - 1, z, c])
                    if z > 0:
                        total += here[y, z - 1] * (value - volume[x, y, z - 1, c])
                    out[x, y, z, c] = factors[c] * total
        here, before = before, here


@njit(nogil=True, error_model="numpy", fastmath=SUMS)
def _curvatures(volume, factors, rounding, out, x):
    nx, ny, nz, many = volume.shape
    for y in range(ny):
        for z in range(nz):
            square = rounding * rounding
            for axis in range(3):
                fx, fy, fz = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                if fx == nx or fy == ny or fz == nz:
                    continue
                for c in range(many):
                    a = volume[fx, fy, fz, c] - volume[x, y, z, c]
                    square += factors[c] * a * a
            out[y, z] = 1 / np.sqrt(square)
