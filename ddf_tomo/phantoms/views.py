"""View patterns of real tensor scans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ddf_tomo._checks import integer, real_array, size_tuple
from ddf_tomo.geometry import Geometry

# Tilts of a real tensor scan and the number of views at each: fewer views where the tilt shortens the circle.
SCAN_TILTS_RAD = np.radians([0.0, 7.5, 15.0, 22.5, 30.0, 37.5, 45.0])
SCAN_VIEWS = (24, 45, 42, 40, 40, 34, 30)
MOST_VIEWS = 10**6


def tilt_series(
    volume_shape: Sequence[int],
    detector_shape: Sequence[int] | None = None,
    tilts_rad: Any = SCAN_TILTS_RAD,
    views: Sequence[int] = SCAN_VIEWS,
) -> Geometry:
    """The view pattern of a tensor scan: a full turn at each tilt, half a turn at tilt 0; 255 views by default.

    Parameters
    ----------
    volume_shape
        Voxels along ``(x, y, z)``.
    detector_shape
        Pixels along ``(j, k)``; by default the ``x`` and ``z`` lengths of the volume.
    tilts_rad
        Outer (tilt) angles in radians.
    views
        Number of views at each tilt.

    Raises
    ------
    ValueError
        If there is not one number of views for each tilt, or a size is not positive.

    Examples
    --------
    >>> len(tilt_series((32, 32, 32)))
    255
    """
    tilts = real_array(tilts_rad, "tilts_rad", (None,))
    counts = real_array(views, "views", tilts.shape)
    volume = size_tuple(volume_shape, "volume_shape", 3)
    detector = (volume[0], volume[2]) if detector_shape is None else detector_shape
    series = []
    for tilt, count in zip(tilts, counts, strict=True):
        turn = np.pi if tilt == 0 else 2 * np.pi
        inner = np.arange(integer(count, "views", low=1, high=MOST_VIEWS)) * turn / count
        series.append(Geometry.from_angles(inner, tilt, volume, detector))
    return Geometry.concatenate(series)
