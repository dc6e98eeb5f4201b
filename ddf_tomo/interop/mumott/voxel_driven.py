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

    @numba.njit(nogil=True, cache=True)
    def add_slab(  # pragma: no cover - compiled
        volume: Any, projections: Any, row_of: Any, column_of: Any, start: int, stop: int
    ) -> None:
        views, rows, columns, channels = projections.shape
        for view in range(views):
            for x in range(start, stop):
                for y in range(volume.shape[1]):
                    row = row_of[view, 0] * x + row_of[view, 1] * y + row_of[view, 3]
                    column = column_of[view, 0] * x + column_of[view, 1] * y + column_of[view, 3]
                    for z in range(volume.shape[2]):
                        a, b = row + row_of[view, 2] * z, column + column_of[view, 2] * z
                        low_a, low_b = int(np.floor(a)), int(np.floor(b))
                        for step_a in range(2):
                            for step_b in range(2):
                                near_a, near_b = low_a + step_a, low_b + step_b
                                if 0 <= near_a < rows and 0 <= near_b < columns:
                                    weight = (1 - abs(a - near_a)) * (1 - abs(b - near_b))
                                    for c in range(channels):
                                        volume[x, y, z, c] += weight * projections[view, near_a, near_b, c]

    return add_slab
