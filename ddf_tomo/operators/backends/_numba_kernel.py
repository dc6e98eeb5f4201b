"""The compiled inner loops of the X-ray transform (numba, CPU); the obvious form stands in ``reference``.

A ray visits the slices normal to the largest component of its direction, and in each of them the four voxels around
the point where it crosses (Joseph 1982, IEEE Trans. Med. Imaging 1, 192). Both directions take these voxels and their
weights from `_locate`, so that one is the transpose of the other to the last bit of the weights.

What the kernels read and write of a volume is a copy of a part of it, with slices, ``u`` and ``w`` in this order
whatever the main axis, channels padded to whole vector registers, and an empty border: one voxel below and two above.
A ray outside ends in the border, and nothing has to be asked in the inner loop.

- Forward: all threads read one slab of slices, as large as fits the last cache; a thread owns rows of pixels.
- Adjoint: a thread owns a brick, as large as fits its own cache, goes through all views, and adds the brick to the
  volume. Nobody else writes there: no races, and one order of the sum, whatever the number of threads.

The geometry is a table of numbers (`view_table`), so that nothing is compiled for a new one. What is compiled for a
number of lanes, the widths of vector registers, serves every number of channels.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

SLICES = 8  # whose voxels are located together
STRIP = 16  # pixels whose voxels are located before the first of them is read
BELOW, BORDER = 1, 3  # empty voxels before, and in all
MOST_LANES = 16
_INT = ir.IntType(32)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _at(builder: Any, data: Any, index: Any, vector: Any) -> Any:
    """Address of the elements from ``index`` on, as a pointer to a vector."""
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes))


def _interleaved(builder: Any, even: Any, odd: Any) -> Any:
    order = [place for pair in zip(range(SLICES), range(SLICES, 2 * SLICES), strict=True) for place in pair]
    return builder.shuffle_vector(even, odd, ir.Constant(ir.VectorType(_INT, 2 * SLICES), order))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


@intrinsic
def _locate(
    typing_context: Any,
    u: Any,
    u_step: Any,
    w: Any,
    w_step: Any,
    size_u: Any,
    size_w: Any,
    stride_slice: Any,
    stride_u: Any,
    stride_w: Any,
    places: Any,
    weights: Any,
    at: Any,
) -> Any:
    """Where a ray crosses `SLICES` slices: ``places[at, slice]``, ``weights[at, near or far in u, slice, in w]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *numbers, places_value, weights_value, at_value = arguments
        start_u, step_u, start_w, step_w, count_u, count_w, *strides = numbers
        double = ir.VectorType(ir.DoubleType(), SLICES)
        integer = ir.VectorType(_INT, SLICES)
        real = ir.VectorType(context.get_value_type(weights.dtype), SLICES)
        slices = ir.Constant(double, [float(s) for s in range(SLICES)])
        floor = ir.FunctionType(double, [double])
        floor = cgutils.get_or_insert_function(builder.module, floor, f"llvm.floor.v{SLICES}f64")

        def along(start: Any, step: Any, count: Any) -> tuple[Any, Any, Any]:
            """Voxel below the crossing, counted from the first of the border, and the weights of it and the next."""
            place = _multiply_add(builder, _splat(builder, step, SLICES), slices, _splat(builder, start, SLICES))
            low = ir.Constant(double, [-2.0] * SLICES)
            high = _splat(builder, builder.sitofp(count, ir.DoubleType()), SLICES)
            place = builder.select(builder.fcmp_ordered(">", place, low), place, low)  # NaN goes there, too
            place = builder.select(builder.fcmp_ordered("<", place, high), place, high)
            below = builder.call(floor, [place])
            far = builder.fptrunc(builder.fsub(place, below), real) if real != double else builder.fsub(place, below)
            near = builder.fsub(ir.Constant(real, [1.0] * SLICES), far)
            voxel = builder.add(builder.fptosi(below, integer), ir.Constant(integer, [BELOW] * SLICES))
            # What is below the border is a large number when read without sign, and goes to the border above.
            last = builder.add(builder.trunc(count, _INT), ir.Constant(_INT, BELOW))
            last = _splat(builder, last, SLICES)
            return builder.select(builder.icmp_unsigned("<", voxel, last), voxel, last), near, far

        voxel_u, *of_u = along(start_u, step_u, count_u)
        voxel_w, *of_w = along(start_w, step_w, count_w)
        counts = ir.Constant(integer, list(range(SLICES))), voxel_u, voxel_w
        place = ir.Constant(integer, [0] * SLICES)
        for count, stride in zip(counts, strides, strict=True):
            stride = _splat(builder, builder.trunc(stride, _INT), SLICES)
            place = builder.add(place, builder.mul(count, stride))
        first = builder.mul(at_value, ir.Constant(at_value.type, SLICES))
        data = _data(context, builder, places, places_value)
        builder.store(place, _at(builder, data, first, integer), align=4)
        data = _data(context, builder, weights, weights_value)
        for number, factor in enumerate(of_u):
            pair = _interleaved(builder, *(builder.fmul(factor, other) for other in of_w))
            index = builder.mul(first, ir.Constant(first.type, 4))
            index = builder.add(index, ir.Constant(first.type, number * 2 * SLICES))
            builder.store(pair, _at(builder, data, index, pair.type), align=4)
        return context.get_dummy_value()

    numbers = (u, u_step, w, w_step, size_u, size_w, stride_slice, stride_u, stride_w)
    return types.void(*numbers, places, weights, at), generate


@intrinsic(prefer_literal=True)
def _couple(
    typing_context: Any,
    forward: Any,
    lanes: Any,
    corners: Any,
    part: Any,
    stride_u: Any,
    stride_w: Any,
    places: Any,
    weights: Any,
    at: Any,
    block: Any,
    pixels: Any,
    pixel: Any,
) -> Any:
    """One block of channels of one pixel and its voxels in `SLICES` slices, in vector registers.

    ``forward``: pixel += Σ weight · voxel; otherwise voxel += weight · pixel, for each of them. With one lane the two
    neighbours along ``w`` make a vector; two ``corners`` mean that there is nothing along ``w``.
    """
    is_forward, width, count = forward.literal_value, lanes.literal_value, corners.literal_value
    in_pairs = width == 1

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, _, part_value, step_u, step_w, places_value, weights_value, at_value, block_value, *others = arguments
        pixels_value, pixel_value = others
        real = context.get_value_type(part.dtype)
        size = context.get_abi_sizeof(real)
        wide = at_value.type
        vector = ir.VectorType(real, 2 if in_pairs else width)
        volume = builder.gep(_data(context, builder, part, part_value), [block_value])
        where = _data(context, builder, places, places_value)
        factors = _data(context, builder, weights, weights_value)
        along_u = [volume, builder.gep(volume, [step_u])]
        bases = along_u if in_pairs or count == 2 else [p for q in along_u for p in (q, builder.gep(q, [step_w]))]
        first = builder.mul(at_value, ir.Constant(wide, SLICES))
        first_factor = builder.mul(first, ir.Constant(wide, 4))
        address = builder.gep(_data(context, builder, pixels, pixels_value), [pixel_value])
        address = address if in_pairs else builder.bitcast(address, vector.as_pointer())
        alignment = size if in_pairs else min(width * size, 64)
        value = builder.load(address, align=size if in_pairs else alignment)
        if in_pairs and not is_forward:
            value = _splat(builder, value, 2)
        totals = [ir.Constant(vector, [0.0] * vector.count)] * len(bases)
        for slice_ in range(SLICES):
            index = builder.load(builder.gep(where, [builder.add(first, ir.Constant(wide, slice_))]))
            index = builder.zext(index, wide)
            voxels = [builder.bitcast(builder.gep(base, [index]), vector.as_pointer()) for base in bases]
            loaded = [builder.load(voxel, align=alignment) for voxel in voxels]
            for number, (voxel, old) in enumerate(zip(voxels, loaded, strict=True)):
                side, corner = (number, 0) if len(bases) == 2 else divmod(number, 2)
                at_factor = ir.Constant(wide, side * 2 * SLICES + 2 * slice_ + corner)
                factor = builder.gep(factors, [builder.add(first_factor, at_factor)])
                if in_pairs:
                    weight = builder.load(builder.bitcast(factor, vector.as_pointer()), align=size)
                else:
                    weight = _splat(builder, builder.load(factor), width)
                if is_forward:
                    totals[number] = _multiply_add(builder, weight, old, totals[number])
                else:
                    builder.store(_multiply_add(builder, weight, value, old), voxel, align=alignment)
        if is_forward:
            while len(totals) > 1:
                totals = [builder.fadd(a, b) for a, b in zip(totals[::2], totals[1::2], strict=True)]
            total = totals[0]
            if in_pairs:
                total = builder.fadd(*(builder.extract_element(total, ir.Constant(_INT, n)) for n in range(2)))
            builder.store(builder.fadd(value, total), address, align=size if in_pairs else alignment)
        return context.get_dummy_value()

    # fmt: off
    return types.void(
        forward, lanes, corners, part, stride_u, stride_w, places, weights, at, block, pixels, pixel
    ), generate
    # fmt: on


@intrinsic(prefer_literal=True)
def _four(typing_context: Any, add: Any, source: Any, at: Any, target: Any, to: Any, factor: Any, valid: Any) -> Any:
    """Four elements: ``target = factor · source``, or ``target += factor · source`` in the first ``valid`` of them."""
    is_sum = add.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source_value, at_value, target_value, to_value, factor_value, valid_value = arguments
        vector = ir.VectorType(context.get_value_type(source.dtype), 4)
        size = context.get_abi_sizeof(vector.element)
        value = builder.load(_at(builder, _data(context, builder, source, source_value), at_value, vector), align=size)
        factor_value = context.cast(builder, factor_value, factor, source.dtype)
        value = builder.fmul(value, _splat(builder, factor_value, 4))
        address = _at(builder, _data(context, builder, target, target_value), to_value, vector)
        if is_sum:
            old = builder.load(address, align=size)
            index = ir.Constant(ir.VectorType(valid_value.type, 4), list(range(4)))
            is_valid = builder.icmp_signed("<", index, _splat(builder, valid_value, 4))
            value = builder.select(is_valid, builder.fadd(old, value), old)
        builder.store(value, address, align=size)
        return context.get_dummy_value()

    return types.void(add, source, at, target, to, factor, valid), generate


@njit(inline="always")
def _pad(source, at, target, to, factor, channels):
    """The channels of a voxel or pixel, times ``factor``, for whole registers; what fills these up is arbitrary."""
    _, _, count, padded = channels
    if padded > 1 and at + padded <= source.size:
        for c in range(0, padded, 4):
            _four(False, source, at + c, target, to + c, factor, 4)
    else:
        for c in range(count):
            target[to + c] = factor * source[at + c]


@njit(inline="always")
def _unpad(source, at, target, to, factor, channels, is_last):
    """Add ``factor`` times the channels of a voxel or pixel.

    What follows in ``target`` is written as it was; where that may be another thread's, ``is_last`` has to say so.
    """
    _, _, count, padded = channels
    if padded > 1 and not is_last:
        for c in range(0, padded, 4):
            _four(True, source, at + c, target, to + c, factor, count - c)
    else:
        for c in range(count):
            target[to + c] += factor * source[at + c]


@njit(inline="always")
def _crossing(start, step, slope, size, count):
    """Range of ``i`` in ``[0, count)`` outside of which ``start + i·step`` meets no voxel in any of the `SLICES`."""
    low, high = -1.0 - max((SLICES - 1) * slope, 0.0), size - min((SLICES - 1) * slope, 0.0)
    if abs(step) < 1e-12:
        return (0.0, count) if low - 1.0 < start < high + 1.0 else (0.0, 0.0)
    one, other = (low - start) / step, (high - start) / step
    return max(math.floor(min(one, other)), 0.0), min(math.ceil(max(one, other)) + 1.0, count)


@njit(inline="always")
def _columns(view, u, w, size_u, size_w, columns):
    """First and last pixel of a row whose rays may meet any of the `SLICES` slices."""
    first, last = _crossing(u, view[8], view[9], float(size_u), float(columns))
    first_w, last_w = _crossing(w, view[12], view[13], float(size_w), float(columns))
    first, last = max(first, first_w), min(last, last_w)
    return (int(first), int(last)) if first < last else (0, 0)


@njit(inline="always")
def _blocks(forward, lanes, corners, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count):
    for block in range(0, padded, lanes):
        for at in range(count):
            where = (pixel + at) * padded + block
            _couple(forward, lanes, corners, part, stride_u, stride_w, places, weights, at, block, pixels, where)


@njit(inline="always")
def _strip(forward, lanes, part, shape, view, u, w, padded, pixels, pixel, count, places, weights):
    """Couple ``count`` neighbouring pixels, from ``pixel`` on, with `SLICES` slices at the beginning of a part.

    ``shape`` of the part: strides of slice, ``u`` and ``w``, and sizes along ``u`` and ``w`` without border.
    """
    stride, stride_u, stride_w, size_u, size_w = shape
    for at in range(count):
        u_at, w_at = u + at * view[8], w + at * view[12]
        _locate(u_at, view[9], w_at, view[13], size_u, size_w, stride, stride_u, stride_w, places, weights, at)
    if stride_w == 0:
        _blocks(forward, 16, 2, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count)
    elif lanes == 16:
        _blocks(forward, 16, 4, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count)
    elif lanes == 8:
        _blocks(forward, 8, 4, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count)
    elif lanes == 4:
        _blocks(forward, 4, 4, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count)
    else:
        _blocks(forward, 1, 4, part, stride_u, stride_w, places, weights, padded, pixels, pixel, count)


@njit(nogil=True, error_model="numpy", cache=True)
def copy_slab(volume, slab, shape, strides, channels, first_slice, slices, start, stop):
    """Copy slices of the volume into the slab, lines ``start … stop`` along ``u`` counted with their border."""
    stride, stride_u, stride_w, size_u, size_w = shape
    total, first, _, _ = channels
    one = slab.dtype.type(1)
    full = size_w * stride_w if stride_w else stride_u
    for s in range(slices):
        for u in range(start, stop):
            line = s * stride + u * stride_u
            inside = BELOW <= u < size_u + BELOW
            slab[line : line + BELOW * stride_w if inside else line + stride_u] = 0
            slab[line + BELOW * stride_w + full : line + stride_u] = 0
    # Neighbours in memory follow each other, along w or along the slices.
    along_w = strides[2] == 1
    for outer in range(slices if along_w else 1):
        for u in range(max(start, BELOW), min(stop, size_u + BELOW)):
            line = u * stride_u + BELOW * stride_w
            from_line = first_slice * strides[0] + (u - BELOW) * strides[1]
            if along_w and total == 1:
                from_line += outer * strides[0]
                slab[line + outer * stride : line + outer * stride + size_w] = volume[from_line : from_line + size_w]
                continue
            for w in range(size_w):
                for inner in range(1 if along_w else slices):
                    s = outer + inner
                    at = (from_line + s * strides[0] + w * strides[2]) * total + first
                    _pad(volume, at, slab, line + s * stride + w * stride_w, one, channels)


@njit(nogil=True, error_model="numpy", cache=True)
def forward_tiles(
    slab, projections, shape, lanes, channels, first_slice, slices, rows, columns, views, chosen, tile, start, stop
):
    """Add the projection of a slab to tiles ``start … stop``: some rows of a view each, view after view."""
    one = slab.dtype.type(1)
    stride, _, _, size_u, size_w = shape
    in_all, from_channel, _, padded = channels
    tiles = -(-rows // tile)
    total = _aligned(np.empty(tile * columns * padded + MOST_LANES, slab.dtype))
    places, weights = np.empty(STRIP * SLICES, np.int32), np.empty(4 * STRIP * SLICES, slab.dtype)
    ranges = np.empty((tile, 2), np.int64)
    for unit in range(start, stop):
        index, first_row = chosen[unit // tiles], unit % tiles * tile
        many = min(tile, rows - first_row)
        view = views[index]
        total[:] = 0
        for s in range(0, slices, SLICES):
            u_corner = view[6] + first_row * view[7] + (first_slice + s) * view[9]
            w_corner = view[10] + first_row * view[11] + (first_slice + s) * view[13]
            begin, end = _ranges(view, u_corner, w_corner, size_u, size_w, many, columns, ranges)
            part = slab[s * stride :]
            for strip in range(begin, end, STRIP):
                for row in range(many):
                    first, last = max(ranges[row, 0], strip), min(ranges[row, 1], strip + STRIP)
                    u = u_corner + row * view[7] + first * view[8]
                    w = w_corner + row * view[11] + first * view[12]
                    pixel = row * columns + first
                    count_here = last - first
                    _strip(True, lanes, part, shape, view, u, w, padded, total, pixel, count_here, places, weights)
        scale = one * view[14]
        for row in range(many):
            for column in range(columns):
                pixel = ((index * rows + first_row + row) * columns + column) * in_all + from_channel
                here = (row * columns + column) * padded
                is_last = row == many - 1 and column == columns - 1
                _unpad(total, here, projections, pixel, scale, channels, is_last)


@njit(nogil=True, error_model="numpy", cache=True)
def adjoint_bricks(
    volume, projections, strides, sizes, extents, lanes, stride_w, channels, rows, columns, views, chosen, start, stop
):
    """Add the backprojection of the ``chosen`` views to bricks ``start … stop`` of the volume.

    ``sizes`` of the volume along slice, ``u``, ``w``; ``extents`` of a brick along ``u`` and ``w``.
    """
    one = volume.dtype.type(1)
    in_all, from_channel, _, padded = channels
    many_u, many_w = -(-sizes[1] // extents[0]), -(-sizes[2] // extents[1])
    full_w = extents[1] + BORDER if stride_w else 1
    brick = _aligned(np.empty(SLICES * (extents[0] + BORDER) * full_w * padded + MOST_LANES, volume.dtype))
    line = _aligned(np.zeros(STRIP * padded + MOST_LANES, volume.dtype))
    ranges = np.empty((rows, 2), np.int64)
    places, weights = np.empty(STRIP * SLICES, np.int32), np.empty(4 * STRIP * SLICES, volume.dtype)
    for unit in range(start, stop):
        first_slice = unit // (many_u * many_w) * SLICES
        u0, w0 = unit // many_w % many_u * extents[0], unit % many_w * extents[1]
        size_u, size_w = min(extents[0], sizes[1] - u0), min(extents[1], sizes[2] - w0)
        stride_u = padded * (size_w + BORDER if stride_w else 1)
        shape = (stride_u * (size_u + BORDER), stride_u, stride_w, size_u, size_w)
        brick[: SLICES * shape[0]] = 0
        for index in chosen:
            view = views[index]
            scale = one * view[14]
            u_corner = view[6] + first_slice * view[9] - u0
            w_corner = view[10] + first_slice * view[13] - w0
            first_row, last_row = _rows(view, u_corner, w_corner, size_u, size_w, rows)
            u_corner, w_corner = u_corner + first_row * view[7], w_corner + first_row * view[11]
            begin, end = _ranges(view, u_corner, w_corner, size_u, size_w, last_row - first_row, columns, ranges)
            for strip in range(begin, end, STRIP):
                for row in range(last_row - first_row):
                    first, last = max(ranges[row, 0], strip), min(ranges[row, 1], strip + STRIP)
                    pixel = ((index * rows + first_row + row) * columns + first) * in_all + from_channel
                    for at in range(last - first):
                        _pad(projections, pixel + at * in_all, line, at * padded, scale, channels)
                    u = u_corner + row * view[7] + first * view[8]
                    w = w_corner + row * view[11] + first * view[12]
                    _strip(False, lanes, brick, shape, view, u, w, padded, line, 0, last - first, places, weights)
        # Where the brick ends along the axis that is contiguous in memory, what follows may be another thread's.
        along_slices, full = strides[0] == 1, min(SLICES, sizes[0] - first_slice)
        for s in range(full):
            for u in range(size_u):
                for w in range(size_w):
                    here = s * shape[0] + (u + BELOW) * stride_u + (w + BELOW) * stride_w
                    there = (first_slice + s) * strides[0] + (u0 + u) * strides[1] + (w0 + w) * strides[2]
                    is_last = s == full - 1 if along_slices else w == size_w - 1
                    _unpad(brick, here, volume, there * in_all + from_channel, one, channels, is_last)


@njit(inline="always")
def _ranges(view, u, w, size_u, size_w, rows, columns, ranges):
    """Fill in which pixels of each row may meet a part of the volume; first and last of all of them."""
    begin, end = columns, 0
    for row in range(rows):
        first, last = _columns(view, u + row * view[7], w + row * view[11], size_u, size_w, columns)
        ranges[row, 0], ranges[row, 1] = first, last
        if first < last:
            begin, end = min(begin, first), max(end, last)
    return begin, end


@njit(inline="always")
def _rows(view, u, w, size_u, size_w, rows):
    """First and last row of the detector whose rays may meet a brick: the corners of its shadow, in pixels."""
    determinant = view[7] * view[12] - view[8] * view[11]
    first, last = math.inf, -math.inf
    for slice_ in (0, SLICES - 1):
        for far_u in (-1.0, float(size_u)):
            for far_w in (-1.0, float(size_w)):
                du, dw = far_u - u - slice_ * view[9], far_w - w - slice_ * view[13]
                row = (du * view[12] - dw * view[8]) / determinant
                first, last = min(first, row), max(last, row)
    if not (first < rows and last > -1.0):
        return 0, 0
    return int(max(math.floor(first), 0.0)), int(min(math.ceil(last) + 1.0, float(rows)))


@njit(inline="always")
def _aligned(array):
    """The rest of an array from the first cache line on that begins in it."""
    return array[-(array.ctypes.data // array.itemsize) % (64 // array.itemsize) :]
