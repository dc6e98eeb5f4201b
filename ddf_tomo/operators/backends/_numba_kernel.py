"""The compiled inner loops of the X-ray transform (numba, CPU); the obvious form stands in ``_xray_reference``.

A ray visits the slices normal to the largest component of its direction, and in each of them the four voxels around
the point where it crosses (Joseph 1982, IEEE Trans. Med. Imaging 1, 192). Both directions walk through `_row` and use
the weights computed there, so that one is the transpose of the other to the last bit of the weights:

- forward: a thread owns rows of pixels, and goes through the slices; what it reads of the volume is shared by the rows
  of a tile, what it writes stays in the first-level cache;
- adjoint: a thread owns a slab of slices, and goes through views and rows; nobody else writes there, so that there are
  no races and the sum has one order, whatever the number of threads.

The geometry comes as a table of numbers (`view_table` in ``xray``), so that nothing is compiled for a new one. Channels
are taken in blocks of as many lanes as a vector register holds; the last block is moved back to end at the last
channel, and the lanes that it shares with its predecessor are blanked.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS_A_TILE = 8


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, lanes: int) -> Any:
    """Address of ``lanes`` consecutive elements of a flat array, as a pointer to a vector."""
    data = context.make_array(kind)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(kind.dtype), lanes)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _blank(builder: Any, vector: Any, blanked: Any, lanes: int) -> Any:
    """Zero in the first ``blanked`` lanes."""
    index = ir.Constant(ir.VectorType(blanked.type, lanes), list(range(lanes)))
    keep = builder.icmp_signed(">=", index, _splat(builder, blanked, lanes))
    return builder.select(keep, vector, ir.Constant(vector.type, [0.0] * lanes))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("fast",)), c, flags=("fast",))


@intrinsic(prefer_literal=True)
def _block(
    typing_context: Any,
    forward: Any,
    lanes: Any,
    volume: Any,
    voxels: Any,
    weights: Any,
    pixels: Any,
    at: Any,
    blank: Any,
) -> Any:
    """One block of channels of one pixel and the four voxels around its ray, in vector registers.

    ``forward``: pixel += Σ weight · voxel; otherwise voxel += weight · pixel, for each of the four.
    """
    count, is_forward = lanes.literal_value, forward.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, volume_value, voxel_values, weight_values, pixels_value, at_value, blank_value = arguments
        pixel = _pointer(context, builder, pixels, pixels_value, at_value, count)
        corners = [
            _pointer(context, builder, volume, volume_value, index, count)
            for index in cgutils.unpack_tuple(builder, voxel_values)
        ]
        factors = [_splat(builder, weight, count) for weight in cgutils.unpack_tuple(builder, weight_values)]
        size = context.get_abi_sizeof(context.get_value_type(volume.dtype))
        if is_forward:
            total = ir.Constant(factors[0].type, [0.0] * count)
            for factor, corner in zip(factors, corners, strict=True):
                total = _multiply_add(builder, factor, builder.load(corner, align=size), total)
            old = builder.load(pixel, align=size)
            builder.store(builder.fadd(old, _blank(builder, total, blank_value, count)), pixel, align=size)
        else:
            value = _blank(builder, builder.load(pixel, align=size), blank_value, count)
            for factor, corner in zip(factors, corners, strict=True):
                old = builder.load(corner, align=size)
                builder.store(_multiply_add(builder, factor, value, old), corner, align=size)
        return context.get_dummy_value()

    return types.void(forward, lanes, volume, voxels, weights, pixels, at, blank), generate


@njit(inline="always")
def _crossing(start, step, size, count):
    """Range of ``i`` in ``[0, count)`` outside of which ``start + i·step`` is certainly not in ``(-1, size)``."""
    if abs(step) < 1e-12:
        return (0.0, count) if -2.0 < start < size + 1.0 else (0.0, 0.0)
    one, other = (-1.0 - start) / step, (size - start) / step
    return max(math.floor(min(one, other)), 0.0), min(math.ceil(max(one, other)) + 1.0, count)


@njit(inline="always")
def _blocks(forward, lanes, volume, corner, step_u, step_w, weights, pixels, pixel, channels):
    for start in range(0, channels, lanes):
        blank = max(start + lanes - channels, 0)
        voxel = corner + start - blank
        voxels = (voxel, voxel + step_w, voxel + step_u, voxel + step_u + step_w)
        if forward:
            _block(True, lanes, volume, voxels, weights, pixels, pixel + start - blank, blank)
        else:
            _block(False, lanes, volume, voxels, weights, pixels, pixel + start - blank, blank)


@njit(nogil=True, error_model="numpy")
def _row(forward, volume, pixels, channels, view, one, row, slice_, first_pixel, columns):
    """Couple one row of pixels with one slice of the volume."""
    size_u, size_w = int(view[1]), int(view[2])
    stride_u, stride_w = int(view[4]), int(view[5])
    scale = view[14]
    u_start, u_step = view[6] + row * view[7] + slice_ * view[9], view[8]
    w_start, w_step = view[10] + row * view[11] + slice_ * view[13], view[12]
    first_u, last_u = _crossing(u_start, u_step, float(size_u), float(columns))
    first_w, last_w = _crossing(w_start, w_step, float(size_w), float(columns))
    first, last = max(first_u, first_w), min(last_u, last_w)
    if not first < last:
        return
    base = slice_ * int(view[3])
    for column in range(int(first), int(last)):
        u, w = u_start + column * u_step, w_start + column * w_step
        floor_u, floor_w = math.floor(u), math.floor(w)
        # Compared as floats: offsets beyond all bounds must not become an address.
        if not (-1.0 <= floor_u < size_u and -1.0 <= floor_w < size_w):
            continue
        iu, iw = int(floor_u), int(floor_w)
        tu, tw = u - floor_u, w - floor_w
        u0, u1, w0, w1 = (1.0 - tu) * scale, tu * scale, 1.0 - tw, tw
        corner = base + iu * stride_u + iw * stride_w
        step_u, step_w = stride_u, stride_w
        # Outside is zero: a corner beyond the faces gets weight 0 and the address of one within.
        if iu < 0:
            u0, corner, step_u = 0.0, corner + stride_u, 0
        elif iu == size_u - 1:
            u1, step_u = 0.0, 0
        if iw < 0:
            w0, corner, step_w = 0.0, corner + stride_w, 0
        elif iw == size_w - 1:
            w1, step_w = 0.0, 0
        weights = (type(one)(u0 * w0), type(one)(u0 * w1), type(one)(u1 * w0), type(one)(u1 * w1))
        pixel = first_pixel + column * channels
        if channels >= 16:
            _blocks(forward, 16, volume, corner, step_u, step_w, weights, pixels, pixel, channels)
        elif channels >= 8:
            _blocks(forward, 8, volume, corner, step_u, step_w, weights, pixels, pixel, channels)
        elif channels >= 4:
            _blocks(forward, 4, volume, corner, step_u, step_w, weights, pixels, pixel, channels)
        elif channels >= 2:
            _blocks(forward, 2, volume, corner, step_u, step_w, weights, pixels, pixel, channels)
        else:
            _blocks(forward, 1, volume, corner, step_u, step_w, weights, pixels, pixel, channels)


@njit(nogil=True, error_model="numpy", cache=True)
def forward_rows(volume, projections, channels, rows, columns, views, start, stop):
    """Project into rows ``start … stop`` of the flat ``projections`` (view after view)."""
    one = volume.dtype.type(1)
    line = columns * channels
    tile = start
    while tile < stop:
        view_index = tile // rows
        end = min(tile + ROWS_A_TILE, stop, (view_index + 1) * rows)
        view = views[view_index]
        for slice_ in range(int(view[0])):
            for flat in range(tile, end):
                _row(
                    True,
                    volume,
                    projections,
                    channels,
                    view,
                    one,
                    flat - view_index * rows,
                    slice_,
                    flat * line,
                    columns,
                )
        tile = end


@njit(nogil=True, error_model="numpy", cache=True)
def adjoint_slab(volume, projections, channels, rows, columns, views, chosen, start, stop):
    """Add the backprojection of the ``chosen`` views (of one main axis) into slices ``start … stop``."""
    one = volume.dtype.type(1)
    line = columns * channels
    for view_index in chosen:
        view = views[view_index]
        for row in range(rows):
            for slice_ in range(start, stop):
                first_pixel = (view_index * rows + row) * line
                _row(False, volume, projections, channels, view, one, row, slice_, first_pixel, columns)
