"""The inner loops of the X-ray transform on a GPU (Triton); the obvious form stands in ``reference``.

Both directions gather, so that each number is written by one program and sums have one order: results repeat to the
bit, and nothing is atomic.

- forward: a program owns a tile of pixels × a block of channels of one view. It goes through the slices, reads the four
  voxels around each ray, and keeps its sums in registers.
- adjoint: a program owns a brick of voxels × a block of channels. It goes through the views, and in each of them
  through the few pixels whose rays may pass the voxel at less than one voxel within its slice: with ``M`` the steps of
  the voxel coordinates per row and column, these are the integers in the parallelogram ``M⁻¹ (-1, 1)²`` about the
  voxel's shadow, at most three rows and three columns (`triton_gpu.view_numbers`).

Where a ray passes is one affine function of pixel and slice, with the same coefficients in both kernels. For float64 it
is computed in float64. Otherwise it is an integer that counts 2⁻³² of a voxel: two instructions an addition on any
card, and exact in whatever order. What becomes a float32 is only the fraction, or the distance of a voxel from rays
near it, so that weights are right to 2⁻²² however large the volume is.

All tables are data: nothing is compiled for a new geometry, but for the number of rows and columns within reach (2 or
3 each) and for addresses beyond 31 bits. Channels come in blocks, to which the caller pads the array that is read, so
that a thread loads 16 bytes at once and no lane of a load is ever masked for its channel.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Where things are in the numbers of a view (`triton_gpu.view_numbers`), and how many numbers and sizes there are.
U, W, VOXEL_U, VOXEL_W = tl.constexpr(0), tl.constexpr(4), tl.constexpr(8), tl.constexpr(11)
FIRST_ROW, FIRST_COLUMN, LENGTH = tl.constexpr(14), tl.constexpr(18), tl.constexpr(22)
NUMBERS, SIZES = tl.constexpr(24), tl.constexpr(8)


@triton.jit
def _split(position):
    """Floor and fraction of a coordinate."""
    if position.dtype == tl.int64:
        floor = (position >> 32).to(tl.int32)
        fraction = position.to(tl.uint32).to(tl.float32) * (1.0 / 4294967296.0)
    else:
        whole = tl.floor(position)
        floor = whole.to(tl.int32)
        fraction = position - whole
    return floor, fraction


@triton.jit
def _near(position):
    """A coordinate as what is computed in: right to rounding where it is small."""
    floor, fraction = _split(position)
    return floor.to(fraction.dtype) + fraction


@triton.jit
def _affine(numbers, a, b):
    """A coordinate without its last term: ``n₀ + n₁ a + n₂ b``."""
    return tl.load(numbers) + a * tl.load(numbers + 1) + b * tl.load(numbers + 2)


@triton.jit
def _below(index, size):
    """Whether ``0 ≤ index < size``, by one comparison."""
    return index.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def _of_voxel(numbers, x, y, z):
    return x * tl.load(numbers) + y * tl.load(numbers + 1) + z * tl.load(numbers + 2)


@triton.jit(do_not_specialize=["rows", "columns", "channels"])
def project(
    projections,
    volume,
    numbers,
    sizes,
    rows,
    columns,
    channels,
    WIDE: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the projection of ``volume`` to ``projections``: one program a tile of pixels and block of channels."""
    blocks, tiles_across = tl.cdiv(channels, BLOCK), tl.cdiv(columns, TILE_COLUMNS)
    tiles = tl.cdiv(rows, TILE_ROWS) * tiles_across
    program = tl.program_id(0)
    tile, view = (program // blocks) % tiles, program // blocks // tiles
    lane = tl.arange(0, TILE_ROWS * TILE_COLUMNS)
    row = tile // tiles_across * TILE_ROWS + lane // TILE_COLUMNS
    column = tile % tiles_across * TILE_COLUMNS + lane % TILE_COLUMNS
    channel = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]

    numbers += view * NUMBERS
    sizes += view * SIZES
    slices, size_u, size_w = tl.load(sizes), tl.load(sizes + 1), tl.load(sizes + 2)
    stride, stride_u, stride_w = tl.load(sizes + 3), tl.load(sizes + 4), tl.load(sizes + 5)
    if WIDE:
        stride, stride_u, stride_w = stride.to(tl.int64), stride_u.to(tl.int64), stride_w.to(tl.int64)
    stride, stride_u, stride_w = stride * blocks * BLOCK, stride_u * blocks * BLOCK, stride_w * blocks * BLOCK

    length = _near(tl.load(numbers + LENGTH))
    u_start, w_start = _affine(numbers + U, row, column), _affine(numbers + W, row, column)
    u_step, w_step = tl.load(numbers + U + 3), tl.load(numbers + W + 3)
    total = tl.zeros([TILE_ROWS * TILE_COLUMNS, BLOCK], length.dtype)
    for slice_ in range(slices):
        u, tu = _split(u_start + slice_ * u_step)
        w, tw = _split(w_start + slice_ * w_step)
        corner = slice_ * stride + u * stride_u + w * stride_w
        for a in tl.static_range(2):
            within_u = _below(u + a, size_u)
            for b in tl.static_range(2):
                inside = within_u & _below(w + b, size_w)
                weight = (tu if a else 1 - tu) * (tw if b else 1 - tw)
                place = volume + (corner + (a * stride_u + b * stride_w))[:, None] + channel
                voxel = tl.load(place, mask=inside[:, None], other=0.0)
                total += weight[:, None] * voxel.to(total.dtype)

    pixel = (view.to(tl.int64) * rows + row) * columns + column
    place = projections + (pixel * channels)[:, None] + channel
    mine = ((row < rows) & (column < columns))[:, None] & (channel < channels)
    before = tl.load(place, mask=mine, other=0.0).to(total.dtype)
    tl.store(place, (before + length * total).to(projections.dtype.element_ty), mask=mine)


@triton.jit(do_not_specialize=["views", "size_x", "size_y", "size_z", "rows", "columns", "channels"])
def backproject(
    volume,
    projections,
    numbers,
    views,
    size_x,
    size_y,
    size_z,
    rows,
    columns,
    channels,
    WIDE: tl.constexpr,
    REACH_ROWS: tl.constexpr,
    REACH_COLUMNS: tl.constexpr,
    BRICK_X: tl.constexpr,
    BRICK_Y: tl.constexpr,
    BRICK_Z: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the backprojection of ``projections`` to ``volume``: one program a brick of voxels and block of channels."""
    blocks, bricks_y, bricks_z = tl.cdiv(channels, BLOCK), tl.cdiv(size_y, BRICK_Y), tl.cdiv(size_z, BRICK_Z)
    program = tl.program_id(0)
    brick = program // blocks
    lane = tl.arange(0, BRICK_X * BRICK_Y * BRICK_Z)
    x = brick // bricks_z // bricks_y * BRICK_X + lane // (BRICK_Y * BRICK_Z)
    y = brick // bricks_z % bricks_y * BRICK_Y + lane // BRICK_Z % BRICK_Y
    z = brick % bricks_z * BRICK_Z + lane % BRICK_Z
    channel = program % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    pitch = blocks * BLOCK

    total = tl.zeros([BRICK_X * BRICK_Y * BRICK_Z, BLOCK], _near(tl.load(numbers)).dtype)
    for _ in range(views):
        row, _rest = _split(tl.load(numbers + FIRST_ROW) + _of_voxel(numbers + FIRST_ROW + 1, x, y, z))
        column, _rest = _split(tl.load(numbers + FIRST_COLUMN) + _of_voxel(numbers + FIRST_COLUMN + 1, x, y, z))
        row += 1
        column += 1
        # How far the ray of the first pixel passes from this voxel, and by how much the other pixels' rays differ.
        u = _near(_affine(numbers + U, row, column) + _of_voxel(numbers + VOXEL_U, x, y, z))
        w = _near(_affine(numbers + W, row, column) + _of_voxel(numbers + VOXEL_W, x, y, z))
        u_row, u_column = _near(tl.load(numbers + U + 1)), _near(tl.load(numbers + U + 2))
        w_row, w_column = _near(tl.load(numbers + W + 1)), _near(tl.load(numbers + W + 2))
        length = _near(tl.load(numbers + LENGTH))
        if WIDE:
            row, column = row.to(tl.int64), column.to(tl.int64)
        first = (row * columns + column) * pitch
        for a in tl.static_range(REACH_ROWS):
            is_row = _below(row + a, rows)
            for b in tl.static_range(REACH_COLUMNS):
                weight_u = tl.maximum(1 - tl.abs(u + (a * u_row + b * u_column)), 0)
                weight_w = tl.maximum(1 - tl.abs(w + (a * w_row + b * w_column)), 0)
                weight = length * (weight_u * weight_w)
                place = projections + (first + (a * columns + b) * pitch)[:, None] + channel
                seen = (weight > 0) & (is_row & _below(column + b, columns))
                pixel = tl.load(place, mask=seen[:, None], other=0.0)
                total += weight[:, None] * pixel.to(total.dtype)
        numbers += NUMBERS
        projections += rows.to(tl.int64) * columns * pitch

    voxel = (x.to(tl.int64) * size_y + y) * size_z + z
    place = volume + (voxel * channels)[:, None] + channel
    mine = ((x < size_x) & (y < size_y) & (z < size_z))[:, None] & (channel < channels)
    before = tl.load(place, mask=mine, other=0.0).to(total.dtype)
    tl.store(place, (before + total).to(volume.dtype.element_ty), mask=mine)
