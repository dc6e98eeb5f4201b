"""MUMOTT's back-projection: every voxel reads the detector where its centre falls, by bilinear interpolation.

It is not the transpose of the projection (on white noise it is off by 17 %), so that solvers which take it for one
converge to something else. It is here to reproduce MUMOTT's own numbers, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._threads import in_parallel
from ddf_tomo.geometry import Geometry

SIDE = 8  # voxels along x and y of what is finished for all views before the next: it stays in a cache


def backproject_voxel_driven(geometry: Geometry, projections: NDArray[Any]) -> NDArray[Any]:
    """Volume ``(x, y, z, channels)`` from projections ``(views, J, K, channels)``; outside the detector is zero.

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (3, 3, 3), (3, 3))
    >>> backproject_voxel_driven(geometry, np.ones((1, 3, 3, 1))).sum()
    np.float64(27.0)
    """
    rows, columns = geometry.detector_shape
    volume = np.zeros((*geometry.volume_shape, projections.shape[-1]), projections.dtype)
    # Row and column of a voxel's centre: steps along x, y, z, and the place of voxel (0, 0, 0).
    first = 0.5 - np.array(geometry.volume_shape) / 2
    places = [
        np.concatenate([axis, (axis @ first - offset + size / 2 - 0.5)[:, None]], axis=1)
        for axis, offset, size in (
            (geometry.j, geometry.j_offset, rows),
            (geometry.k, geometry.k_offset, columns),
        )
    ]
    kernel = _kernel()
    if volume.size and projections.size:
        in_parallel(len(volume), 1, lambda a, b: kernel(volume, projections, places[0], places[1], a, b))
    return volume


@cache
def _kernel() -> Callable[..., None]:
    import numba

    @numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
    def add_slab(  # pragma: no cover - compiled
        volume: Any, projections: Any, row_of: Any, column_of: Any, start: int, stop: int
    ) -> None:
        views, rows, columns, channels = projections.shape
        high, deep, number = volume.shape[1], volume.shape[2], volume.dtype.type
        for first_x in range(start, stop, SIDE):
            for first_y in range(0, high, SIDE):
                for view in range(views):
                    for x in range(first_x, min(first_x + SIDE, stop)):
                        for y in range(first_y, min(first_y + SIDE, high)):
                            row = row_of[view, 0] * x + row_of[view, 1] * y + row_of[view, 3]
                            column = column_of[view, 0] * x + column_of[view, 1] * y + column_of[view, 3]
                            for z in range(deep):
                                a, b = row + row_of[view, 2] * z, column + column_of[view, 2] * z
                                above, left = int(np.floor(a)), int(np.floor(b))
                                if above < -1 or above >= rows or left < -1 or left >= columns:
                                    continue
                                # What lies outside has no weight; some pixel is read in its place.
                                near_a = 1 - (a - above) if above >= 0 else 0.0
                                near_b = 1 - (b - left) if left >= 0 else 0.0
                                far_a = a - above if above + 1 < rows else 0.0
                                far_b = b - left if left + 1 < columns else 0.0
                                below, right = min(above + 1, rows - 1), min(left + 1, columns - 1)
                                above, left = max(above, 0), max(left, 0)
                                w1, w2 = number(near_a * near_b), number(near_a * far_b)
                                w3, w4 = number(far_a * near_b), number(far_a * far_b)
                                p1, p2 = projections[view, above, left], projections[view, above, right]
                                p3, p4 = projections[view, below, left], projections[view, below, right]
                                total = volume[x, y, z]
                                for c in range(channels):
                                    total[c] += w1 * p1[c] + w2 * p2[c] + w3 * p3[c] + w4 * p4[c]

    return add_slab
