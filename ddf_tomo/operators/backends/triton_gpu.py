"""Triton kernels on a GPU; under Triton's interpreter (``TRITON_INTERPRET=1`` from the start) on the CPU, for tests."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import message, neighbour
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends.table import view_table

FAR = 2.0**29  # voxels: farther out nothing is hit, and integers that count 2⁻³² of a voxel do not overflow
LARGEST_BLOCK = 16  # channels: a cache line or two of each voxel, and 4 threads that share its coordinates
ADDRESSES_OF_32_BITS = 2**31
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # multiply-adds as one instruction; Triton 3.10 has to be asked


def view_numbers(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int64]]:
    """What the kernels need of each view: 24 numbers, 8 sizes, and how many rows and columns a voxel can reach.

    Numbers: voxel coordinate ``u`` of pixel (0, 0) in slice 0, and its steps per row, column and slice; the same of
    ``w``; minus the voxel's own ``u`` less what its slice adds, per voxel along x, y and z; the same of ``w``; the
    lower end of the rows whose rays can touch voxel (0, 0, 0), and its steps along x, y and z; the same of the columns;
    length of ray per slice. Sizes: slices, voxels along ``u`` and ``w``; strides in voxels along slice, ``u``, ``w``.
    """
    table, main = view_table(geometry)
    views = np.arange(len(geometry))
    axes = np.stack([main, np.where(main == 0, 1, 0), np.where(main == 2, 1, 2)], axis=1)
    numbers, sizes = np.zeros((len(geometry), 24)), np.zeros((len(geometry), 8), np.int32)
    sizes[:, :6] = table[:, :6]
    numbers[:, :8] = np.clip(np.nan_to_num(table[:, 6:14], nan=FAR), -FAR, FAR)
    for first, step, axis in ((8, 9, 1), (11, 13, 2)):
        numbers[views, first + axes[:, 0]] = table[:, step]
        numbers[views, first + axes[:, axis]] = -1.0
    # Steps per row and column, (u_row, u_column; w_row, w_column): its determinant is the length of ray per slice.
    (a, b), (c, d) = numbers[:, 1:3].T, numbers[:, 5:7].T
    determinant = a * d - b * c
    reach = np.zeros((len(geometry), 2), np.int64)
    for place, (first, of_u, of_w) in enumerate(((14, d, -b), (18, -c, a))):
        of_u, of_w = of_u / determinant, of_w / determinant
        half = np.abs(of_u) + np.abs(of_w)
        reach[:, place] = np.ceil(2 * half - 1e-12)  # the largest number of integers in an open interval
        numbers[:, first] = -(of_u * numbers[:, 0] + of_w * numbers[:, 4]) - half
        numbers[:, first + 1 : first + 4] = -(of_u[:, None] * numbers[:, 8:11] + of_w[:, None] * numbers[:, 11:14])
    numbers[:, 22] = table[:, 14]
    return numbers, sizes, reach


class Projector:
    """See `ddf_tomo.operators.backends.Backend`. Nothing here waits for the device, but the first use of another one.

    Kernels run on torch's current stream. Besides float32 and float64, arrays may be float16 or bfloat16: that is how
    they are stored, sums are float32.
    """

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        if device.type == "cpu" and not is_interpreted():
            hint = "TRITON_INTERPRET=1, set before triton is imported, runs it slowly on the CPU"
            raise ValueError(message("device", "'cuda' with backend='triton'", repr(str(device)), hint))
        self.geometry = geometry
        numbers, self._sizes, self._reach = view_numbers(geometry)
        fixed = np.rint(numbers * 2.0**32).astype(np.int64)
        self._numbers = {torch.float64: numbers, torch.int64: fixed}
        self._uploaded: dict[torch.device, tuple[torch.Tensor, ...]] = {}
        self._tables(torch.empty(0, device=device))

    def _tables(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers, as the kind of input wants them, and sizes on the device of an input."""
        if like.device not in self._uploaded:
            arrays = *self._numbers.values(), self._sizes
            self._uploaded[like.device] = tuple(torch.from_numpy(array).to(like.device) for array in arrays)
        exact, fixed, sizes = self._uploaded[like.device]
        return (exact if like.dtype == torch.float64 else fixed), sizes

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        """``projections += A volume``, a program for each tile of pixels and block of channels of a view."""
        from ddf_tomo.operators.backends import _triton_kernel as kernel

        rows, columns = self.geometry.detector_shape
        numbers, sizes = self._tables(volume)
        channels, block = volume.shape[-1], block_of(volume.shape[-1])
        high, wide = tile(1024 // block, 2)
        tiles = len(projections) * math.ceil(rows / high) * math.ceil(columns / wide)
        source = in_blocks(volume, block)
        with on(volume.device):
            kernel.project[(tiles * math.ceil(channels / block),)](
                projections,
                source,
                numbers[views],
                sizes[views],
                rows,
                columns,
                channels,
                WIDE=source.numel() >= ADDRESSES_OF_32_BITS,
                TILE_ROWS=high,
                TILE_COLUMNS=wide,
                BLOCK=block,
                **OPTIONS,
            )

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        """``volume += Aᵀ projections``, a program for each brick of voxels and block of channels."""
        from ddf_tomo.operators.backends import _triton_kernel as kernel

        numbers, _ = self._tables(volume)
        channels, block = volume.shape[-1], block_of(volume.shape[-1])
        brick = tile(1024 // block, 3)
        bricks = math.prod(math.ceil(size / edge) for size, edge in zip(volume.shape, brick, strict=False))
        reach_rows, reach_columns = self._reach[views].max(axis=0).tolist()
        source = in_blocks(projections, block)
        with on(volume.device):
            kernel.backproject[(bricks * math.ceil(channels / block),)](
                volume,
                source,
                numbers[views],
                len(projections),
                *volume.shape[:3],
                *self.geometry.detector_shape,
                channels,
                WIDE=source[0].numel() >= ADDRESSES_OF_32_BITS,
                REACH_ROWS=reach_rows,
                REACH_COLUMNS=reach_columns,
                BRICK_X=brick[0],
                BRICK_Y=brick[1],
                BRICK_Z=brick[2],
                BLOCK=block,
                **OPTIONS,
            )


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, as they do if ``TRITON_INTERPRET=1`` was set before its import."""
    triton = neighbour("triton")
    from ddf_tomo.operators.backends import _triton_kernel as kernel

    return not isinstance(kernel.project, triton.JITFunction)


def block_of(channels: int) -> int:
    """Channels of one program: the power of two that wastes the fewest lanes, and of those the largest."""
    if channels <= LARGEST_BLOCK // 2:
        return 1 << (channels - 1).bit_length()
    return min((LARGEST_BLOCK, LARGEST_BLOCK // 2), key=lambda block: -channels % block)


def tile(count: int, axes: int) -> tuple[int, ...]:
    """Edges, powers of two, of a compact box of 64 … 256 places; the last axis is that of neighbours in memory."""
    bits = min(max(count, 64), 256).bit_length() - 1
    return tuple(1 << (bits + axis) // axes for axis in range(axes))


def in_blocks(array: torch.Tensor, block: int) -> torch.Tensor:
    """The array with zeros after its channels, as far as the blocks go."""
    missing = -array.shape[-1] % block
    return torch.nn.functional.pad(array, (0, missing)) if missing else array


def on(device: torch.device) -> Any:
    """Make the device the one where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
