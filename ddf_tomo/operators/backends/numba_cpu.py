"""The compiled kernel on the CPU, with as many threads as torch uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import message
from ddf_tomo._threads import in_parallel
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends.table import is_axial, one_slice, view_table

# Measured on two cores with 1 MiB of second-level cache each: flat from half of these to twice as much.
SLAB_BYTES = 8 * 2**20  # shared by all threads: fits the last cache
BRICK_BYTES = 768 * 2**10  # of each thread: fits the cache of its core
MOST_CHANNELS = 128  # of one pass, and
LARGEST_SLAB = 32 * 2**20  # bytes of the fewest slices that a pass copies, if 16 channels do not need more
ROWS_A_TILE = 8
SMALLEST_BRICK = 8


class Projector:
    """See `ddf_tomo.operators.backends.Backend`."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self.geometry, self._is_axial = geometry, is_axial(geometry)
        self._table, self._main_axis = view_table(one_slice(geometry) if self._is_axial else geometry)

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        """Slab by slab: a copy that all threads read, then tiles of pixels that each belong to one."""
        from ddf_tomo.operators.backends import _numba_kernel as kernel

        flat, signals = volume.numpy().reshape(-1), projections.numpy().reshape(-1)
        for part in self._passes(volume, views):
            slices, size_u, size_w = part.sizes
            stride_u = part.padded * (size_w + kernel.BORDER if part.stride_w else 1)
            stride = stride_u * (size_u + kernel.BORDER)
            shape = stride, stride_u, part.stride_w, size_u, size_w
            most = max(SLAB_BYTES // (stride * volume.element_size() * kernel.SLICES), 1) * kernel.SLICES
            most = min(most, _rounded_up(slices, kernel.SLICES))
            slab = torch.empty(most * stride, dtype=volume.dtype).numpy()
            for first in range(0, slices, most):
                here = min(most, slices - first)
                full = _rounded_up(here, kernel.SLICES)
                slab[here * stride : full * stride] = 0
                copy = partial(kernel.copy_slab, flat, slab, shape, part.strides, part.channels, first, here)
                in_parallel(size_u + kernel.BORDER, 4, copy)
                arguments = slab, signals, shape, part.lanes, part.channels, first, full, *part.detector, part.views
                project = partial(kernel.forward_tiles, *arguments, part.chosen, ROWS_A_TILE)
                in_parallel(len(part.chosen) * -(-part.detector[0] // ROWS_A_TILE), 1, project)
            del slab, copy, arguments, project  # before the next one is made

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        """Brick by brick, each of one thread, which goes through all views."""
        from ddf_tomo.operators.backends import _numba_kernel as kernel

        flat, signals = volume.numpy().reshape(-1), projections.numpy().reshape(-1)
        for part in self._passes(volume, views):
            slices, size_u, size_w = part.sizes
            area = BRICK_BYTES // (kernel.SLICES * part.padded * volume.element_size())
            w = _even_piece(size_w, int(area**0.5) - kernel.BORDER) if part.stride_w else 1
            u = _even_piece(size_u, area // (w + kernel.BORDER if part.stride_w else 1) - kernel.BORDER)
            arguments = flat, signals, part.strides, part.sizes, (u, w), part.lanes, part.stride_w, part.channels
            backproject = partial(kernel.adjoint_bricks, *arguments, *part.detector, part.views, part.chosen)
            in_parallel(-(-slices // kernel.SLICES) * -(-size_u // u) * -(-size_w // w), 1, backproject)

    def _passes(self, volume: torch.Tensor, views: slice) -> Iterator[_Pass]:
        """The work in parts of equal kind: some channels, and the views of one main axis."""
        channels, (rows, columns) = volume.shape[-1], self.geometry.detector_shape
        if self._is_axial:
            # Planes do not mix, and are to the kernel what channels are: the same memory, longer vectors.
            channels, columns = channels * columns, 1
        table = self._table[views]
        for axis in range(3):
            chosen = np.flatnonzero(self._main_axis[views] == axis)
            if not chosen.size:
                continue
            numbers = [int(n) for n in table[chosen[0], :6]]
            most = self._channels_a_pass(numbers, volume.element_size())
            for first in range(0, channels, most):
                count = min(most, channels - first)
                lanes = 16 if self._is_axial else lanes_for(count)
                padded = _rounded_up(count, lanes)
                yield _Pass(
                    sizes=(numbers[0], numbers[1], numbers[2]),
                    strides=(numbers[3], numbers[4], numbers[5]),
                    channels=(channels, first, count, padded),
                    lanes=lanes,
                    stride_w=0 if self._is_axial else padded,
                    detector=(rows, columns),
                    views=table,
                    chosen=chosen,
                )

    def _channels_a_pass(self, numbers: list[int], itemsize: int) -> int:
        """As many as keep the fewest slices that can be copied in bounds, a multiple of the longest vector."""
        from ddf_tomo.operators.backends import _numba_kernel as kernel

        _, size_u, size_w, *_ = numbers
        plane = (size_u + kernel.BORDER) * (1 if self._is_axial else size_w + kernel.BORDER)
        lanes = kernel.MOST_LANES
        if plane * kernel.SLICES * lanes >= 2**32:  # places in a part are numbers of 32 bits
            raise ValueError(message("geometry", "slices of fewer than 33 million voxels", f"{size_u} × {size_w}"))
        fitting = LARGEST_SLAB // (plane * kernel.SLICES * itemsize) // lanes * lanes
        return min(max(fitting, lanes), MOST_CHANNELS)


@dataclass(frozen=True)
class _Pass:
    sizes: tuple[int, int, int]  # of the volume along slice, u, w
    strides: tuple[int, int, int]  # in voxels
    channels: tuple[int, int, int, int]  # in all, first and count of this pass, and count with padding
    lanes: int
    stride_w: int  # in a padded part of the volume; 0: nothing along w
    detector: tuple[int, int]
    views: NDArray[np.float64]
    chosen: NDArray[Any]

    @property
    def padded(self) -> int:
        return self.channels[3]


def lanes_for(channels: int) -> int:
    """Width of the vectors that ``channels`` are padded to: that which wastes least, and of those the widest."""
    return 1 if channels == 1 else min((16, 8, 4), key=lambda lanes: _rounded_up(channels, lanes))


def _rounded_up(count: int, to: int) -> int:
    return -(-count // to) * to


def _even_piece(count: int, most: int) -> int:
    """Length of pieces of at most ``most``, or of the smallest that make sense, as equal as they can be."""
    return -(-count // -(-count // max(most, SMALLEST_BRICK)))
