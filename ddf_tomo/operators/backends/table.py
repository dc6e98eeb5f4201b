"""A geometry as the plain numbers that a compiled kernel takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo.geometry import Geometry


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
