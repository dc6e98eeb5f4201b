"""The compiled kernel on the CPU, with as many threads as torch uses."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from ddf_tomo._threads import in_parallel
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends.table import is_axial, one_slice, view_table

SLICES_A_SLAB = 4


class Projector:
    """See `ddf_tomo.operators.backends.Backend`."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self.geometry, self._is_axial = geometry, is_axial(geometry)
        self._table, self._main_axis = view_table(one_slice(geometry) if self._is_axial else geometry)

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        self._run("forward", volume, projections, views)

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        self._run("adjoint", volume, projections, views)

    def _run(self, way: str, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        from ddf_tomo.operators.backends import _numba_kernel as kernel

        rows, columns = self.geometry.detector_shape
        channels, table = volume.shape[-1], self._table[views].copy()
        if self._is_axial:
            # Planes do not mix, and are to the kernel what channels are: the same memory, longer vectors.
            channels, columns = channels * columns, 1
        arrays = volume.numpy().reshape(-1), projections.numpy().reshape(-1), channels, rows, columns
        table[:, 3:6] *= channels
        if way == "forward":
            in_parallel(len(table) * rows, 8, partial(kernel.forward_rows, *arrays, table))
            return
        for axis in range(3):
            chosen = np.flatnonzero(self._main_axis[views] == axis)
            if chosen.size:
                slab = partial(kernel.adjoint_slab, *arrays, table, chosen)
                in_parallel(self.geometry.volume_shape[axis], SLICES_A_SLAB, slab)
