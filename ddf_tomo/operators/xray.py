"""The X-ray transform: line integrals of every channel of a volume, in every view."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import NOT_NUMBERS, check_shape, choice, integer, message
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators._xray_reference import backproject_reference, project_reference
from ddf_tomo.operators.autograd import OpaqueOperator

BACKENDS = ("auto", "numba", "reference")
SLICES_A_SLAB = 4


class XRayTransform(OpaqueOperator):
    """Line integrals along the beams of a parallel-beam geometry, all channels at once, with the exact adjoint.

    A ray samples each slice of the volume normal to the largest component of ``p`` by bilinear interpolation and
    weights the samples with the length ``1/max|p|`` between slices (Joseph 1982, IEEE Trans. Med. Imaging 1, 192; the
    model of MUMOTT and ASTRA). Outside the volume is zero. Line integrals are in units of the volume times voxels.

    Parameters
    ----------
    geometry
        Beams, detector, and volume.
    backend
        ``"numba"``: compiled CPU kernel. ``"reference"``: the same sums in plain torch operations, slow and obvious, on
        any device. ``"auto"``: numba on the CPU, the reference elsewhere.
    device
        Where inputs live (default ``"cpu"``); inputs on another device are refused rather than copied in silence.
    channels
        Number of channels, if it is to be fixed (SciPy wants fixed shapes); otherwise the input decides.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or an input does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 4), 0.2, volume_shape=(16, 16, 8), detector_shape=(16, 8))
    >>> A = XRayTransform(geometry)
    >>> projections = A(np.ones((16, 16, 8, 6), np.float32))
    >>> projections.shape, A.T(projections).shape, A.views([0, 2]).range_shape
    ((4, 16, 8, 6), (16, 16, 8, 6), (2, 16, 8, None))
    """

    def __init__(
        self,
        geometry: Geometry,
        backend: str = "auto",
        device: torch.device | str | None = None,
        *,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(geometry, Geometry):
            raise TypeError(message("geometry", "a ddf_tomo.Geometry", type(geometry).__name__))
        self.geometry, self.requested_backend = geometry, choice(backend, "backend", BACKENDS)
        self.device = _device(device)
        self.channels = None if channels is None else integer(channels, "channels", low=1)
        on_cpu = self.device.type == "cpu"
        if backend == "numba" and not on_cpu:
            raise ValueError(message("device", "'cpu' with backend='numba'", repr(str(self.device))))
        self.backend = ("numba" if on_cpu else "reference") if backend == "auto" else backend
        self.domain_shape = (*geometry.volume_shape, self.channels)
        self.range_shape = (len(geometry), *geometry.detector_shape, self.channels)
        self._is_axial = is_axial(geometry)
        self._table, self._main_axis = view_table(one_slice(geometry) if self._is_axial else geometry)

    def views(self, indices: Any) -> XRayTransform:
        return XRayTransform(self.geometry[indices], self.requested_backend, self.device, channels=self.channels)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        projections = x.new_zeros((len(x), len(self.geometry), *self.geometry.detector_shape, x.shape[-1]))
        for volume, target in zip(x, projections, strict=True):
            self.project_into(target, volume)
        return projections

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        volumes = y.new_zeros((len(y), *self.geometry.volume_shape, y.shape[-1]))
        for projections, target in zip(y, volumes, strict=True):
            self.backproject_into(target, projections)
        return volumes

    def project_into(self, projections: torch.Tensor, volume: torch.Tensor, views: slice = slice(None)) -> None:
        """Add the projection of one contiguous ``volume`` to ``projections`` of some ``views``; no autograd."""
        if self.backend == "reference":
            projections += project_reference(self.geometry[views], volume)
        elif projections.numel() and volume.numel():
            self._run_numba("forward", volume, projections, np.arange(len(self.geometry))[views])

    def backproject_into(self, volume: torch.Tensor, projections: torch.Tensor, views: slice = slice(None)) -> None:
        """Add the backprojection of contiguous ``projections`` of some ``views`` to ``volume``; no autograd."""
        if self.backend == "reference":
            volume += backproject_reference(self.geometry[views], projections)
        elif projections.numel() and volume.numel():
            self._run_numba("adjoint", volume, projections, np.arange(len(self.geometry))[views])

    def _run_numba(self, way: str, volume: torch.Tensor, projections: torch.Tensor, views: NDArray[np.int64]) -> None:
        from ddf_tomo.operators import _xray_kernel as kernel

        rows, columns = self.geometry.detector_shape
        channels = volume.shape[-1]
        check_shape(projections.shape, "projections", (len(views), rows, columns, channels))
        if self._is_axial:
            # Planes do not mix, and are to the kernel what channels are: the same memory, longer vectors.
            channels, columns = channels * columns, 1
        arrays = volume.numpy().reshape(-1), projections.numpy().reshape(-1), channels, rows, columns
        table = self._table[views]
        table[:, 3:6] *= channels
        if way == "forward":
            in_parallel(len(views) * rows, 8, partial(kernel.forward_rows, *arrays, table))
            return
        for axis in range(3):
            chosen = np.flatnonzero(self._main_axis[views] == axis)
            if chosen.size:
                slab = partial(kernel.adjoint_slab, *arrays, table, chosen)
                in_parallel(self.geometry.volume_shape[axis], SLICES_A_SLAB, slab)


def _device(device: Any) -> torch.device:
    try:
        return torch.device("cpu" if device is None else device)
    except NOT_NUMBERS as error:
        raise TypeError(message("device", "a torch device such as 'cpu' or 'cuda:0'", repr(device))) from error


def is_axial(geometry: Geometry) -> bool:
    """Whether all beams are normal to z and each column ``b`` of the detector sees the plane ``z = b`` and no other."""
    upright = (geometry.k == (0.0, 0.0, 1.0)).all() and not geometry.p[:, 2].any() and not geometry.j[:, 2].any()
    return bool(upright) and not geometry.k_offset.any() and geometry.volume_shape[2] == geometry.detector_shape[1]


def one_slice(geometry: Geometry) -> Geometry:
    """The same views of a single plane normal to z, on a detector of a single column."""
    (x, y, _), (rows, _) = geometry.volume_shape, geometry.detector_shape
    return replace(geometry, volume_shape=(x, y, 1), detector_shape=(rows, 1))


@np.errstate(over="ignore", invalid="ignore")  # an offset may be so far out that its coordinates are infinite
def view_table(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What a kernel needs of each view, as plain numbers; shape ``(views, 15)``, and the main axis of each view.

    Columns: number of slices and of voxels along the two in-slice axes ``u``, ``w``; strides (in voxels) along slice,
    ``u``, ``w``; voxel coordinate ``u`` of pixel (0, 0) in slice 0, and its steps per row, column and slice; the same
    of ``w``; length of ray per slice.

    A ray through the pixel centre ``o`` meets the slice at ``x_m`` at ``r = o + (x_m - o_m)/p_m p``.
    """
    sizes, views = np.array(geometry.volume_shape), np.arange(len(geometry))
    main = np.abs(geometry.p).argmax(axis=1) if len(geometry) else np.zeros(0, np.int64)
    axes = np.stack([main, np.where(main == 0, 1, 0), np.where(main == 2, 1, 2)], axis=1)
    strides = np.array([sizes[1] * sizes[2], sizes[2], 1])
    rows, columns = geometry.detector_shape
    corner = (0.5 - rows / 2 + geometry.j_offset)[:, None] * geometry.j
    corner = corner + (0.5 - columns / 2 + geometry.k_offset)[:, None] * geometry.k
    table = np.empty((len(geometry), 15))
    table[:, 0:3], table[:, 3:6] = sizes[axes], strides[axes]
    for first, axis in ((6, axes[:, 1]), (10, axes[:, 2])):
        slope = geometry.p[views, axis] / geometry.p[views, main]

        def on_slice(vector: NDArray[Any], axis: Any = axis, slope: Any = slope) -> NDArray[Any]:
            return vector[views, axis] - slope * vector[views, main]

        table[:, first] = on_slice(corner) - slope * (sizes[main] - 1) / 2 + (sizes[axis] - 1) / 2
        table[:, first + 1], table[:, first + 2], table[:, first + 3] = (
            on_slice(geometry.j),
            on_slice(geometry.k),
            slope,
        )
    table[:, 14] = 1 / np.abs(geometry.p[views, main])
    return table, main


_pools: dict[int, ThreadPoolExecutor] = {}
# Threads do not survive a fork, the objects that stand for them do: a forked data loader must start its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def in_parallel(count: int, grain: int, work: Callable[[int, int], Any]) -> None:
    """Run ``work(start, stop)`` over ``[0, count)`` in pieces of at least ``grain``, on torch's number of threads."""
    threads = torch.get_num_threads()
    piece = max(grain, -(-count // (8 * threads)))
    starts = range(0, count, piece)
    if threads == 1 or len(starts) == 1:
        work(0, count)
        return
    pool = _pools.setdefault(threads, ThreadPoolExecutor(threads, "ddf_tomo"))
    for future in [pool.submit(work, start, min(start + piece, count)) for start in starts]:
        future.result()
