"""The compiled inner loop of `geometry_gradient` (numba, CPU); the obvious form is `ray_sums_reference` there."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")
def ray_sums(volume, strides, sums, views, start, stop):
    """Add to ``sums[view, row, column, 5, channel]`` for rows of the detector ``start ≤ view · rows + row < stop``.

    ``volume`` is flat, with one empty voxel around it and channels last; ``strides`` (views, 3) count its numbers along
    slice, u, w. ``views`` has the columns of `view_table`. The sums over the slices ``s`` are those of the interpolated
    value f, of ∂f/∂u, s ∂f/∂u, ∂f/∂w and s ∂f/∂w.
    """
    rows, columns, channels = sums.shape[1], sums.shape[2], sums.shape[4]
    one = volume.dtype.type(1)
    for unit in range(start, stop):
        index, row = unit // rows, unit % rows
        view = views[index]
        stride_s, stride_u, stride_w = strides[index]
        size_u, size_w = view[1], view[2]
        for column in range(columns):
            total = sums[index, row, column]
            u_0 = view[6] + row * view[7] + column * view[8]
            w_0 = view[10] + row * view[11] + column * view[12]
            low, high = _inside(u_0, view[9], size_u, 0.0, view[0])
            low, high = _inside(w_0, view[13], size_w, low, high)
            for s in range(int(low), int(high)):
                u, w = u_0 + s * view[9], w_0 + s * view[13]
                near_u, near_w = math.floor(u), math.floor(w)
                if not (near_u >= -1 and near_u < size_u and near_w >= -1 and near_w < size_w):
                    continue
                a, b, here = one * (u - near_u), one * (w - near_w), one * s
                at = (s + 1) * stride_s + (int(near_u) + 1) * stride_u + (int(near_w) + 1) * stride_w
                for c in range(channels):
                    first, second = volume[at + c], volume[at + stride_w + c]
                    third, fourth = volume[at + stride_u + c], volume[at + stride_u + stride_w + c]
                    below, above = first + b * (second - first), third + b * (fourth - third)
                    along_u = above - below
                    along_w = (second - first) + a * ((fourth - third) - (second - first))
                    total[0, c] += below + a * along_u
                    total[1, c] += along_u
                    total[2, c] += here * along_u
                    total[3, c] += along_w
                    total[4, c] += here * along_w


@njit(inline="always")
def _inside(start, step, size, low, high):
    """Narrow the slices ``low … high`` to those where ``start + s · step`` may lie within (-1, size)."""
    if step == 0.0 or not np.isfinite(start):
        return (low, high) if start > -1.0 and start < size else (low, low)
    first, last = (-1.0 - start) / step, (size - start) / step
    if first > last:
        first, last = last, first
    return max(low, math.floor(first)), max(low, min(high, math.ceil(last) + 1.0))
