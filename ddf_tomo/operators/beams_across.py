"""Which views see structure in a given direction: beams perpendicular to it, their spacing and their gaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ddf_tomo.geometry import Geometry

PAIRS_AT_ONCE = 4096


def view_spacing(geometry: Geometry) -> float:
    """Median angle between a beam and the nearest other one (as lines, repeated beams once), at most 30°; radians.

    Examples
    --------
    >>> import numpy as np
    >>> geometry = Geometry.from_angles(np.arange(10) * np.pi / 10, 0.0, (8, 8, 8), (8, 8))
    >>> round(10 * view_spacing(geometry) / np.pi, 6)
    1.0
    """
    nearest = []
    for start in range(0, len(geometry), 1000):
        angles = np.arccos(np.clip(np.abs(geometry.p[start : start + 1000] @ geometry.p.T), 0, 1))
        nearest.append(np.where(angles < 1e-4, np.inf, angles).min(axis=1))
    return float(min(np.median(np.concatenate(nearest)), np.pi / 6))


def largest_gap(beams: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Largest gap between lines ``beams`` (n, 3) on the circle across ``direction``, in radians; π for none or one.

    Examples
    --------
    >>> import numpy as np
    >>> round(largest_gap(np.eye(3)[:2], np.array([0.0, 0.0, 1.0])) / np.pi, 9)
    0.5
    """
    if not len(beams):
        return float(np.pi)
    first, second = np.linalg.svd(direction[None])[2][1:]
    azimuth = np.sort(np.mod(np.arctan2(beams @ second, beams @ first), np.pi))
    return float(np.diff(azimuth, append=azimuth[0] + np.pi).max())


def beams_across_z(count: int) -> Geometry:
    """``count`` beams all around the z axis, with ``j`` along it.

    Examples
    --------
    >>> beams_across_z(4).p.round(3)[2].tolist()
    [0.0, 1.0, 0.0]
    """
    angles = np.pi * np.arange(count) / count
    p = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)
    j = np.tile([0.0, 0.0, 1.0], (count, 1))
    return _directions_only(p, j, np.cross(p, j))


def seeing_views(
    geometry: Geometry, grid: NDArray[np.float64], sine: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Geometry]]:
    """Views nearly perpendicular to each direction, turned to the nearest perpendicular beam.

    Parameters
    ----------
    geometry
        The views.
    grid
        Unit vectors, shape ``(directions, 3)``.
    sine
        Sine of the largest angle from perpendicular.

    Yields
    ------
    tuple
        For a chunk of directions: their indices; then for each pair of a direction and a view that sees it the index of
        the direction, that of the view, and the turned frame (as a `Geometry` of as many views as pairs).

    Examples
    --------
    >>> import numpy as np
    >>> geometry = Geometry.from_angles([0.0, np.pi / 2], 0.0, (4, 4, 4), (4, 4))  # beams along y and x
    >>> [(pair[1].tolist(), pair[2].tolist()) for pair in seeing_views(geometry, np.eye(3), 0.1)]
    [([0, 1, 2, 2], [0, 1, 0, 1])]
    """
    size = max(1, PAIRS_AT_ONCE // len(geometry))
    for start in range(0, len(grid), size):
        chunk = np.arange(start, min(start + size, len(grid)))
        along = grid[chunk] @ geometry.p.T
        # Margin for rounding: a beam exactly at the tolerance (regular tilts) is in.
        direction, view = np.nonzero(np.abs(along) <= sine + 1e-9)
        if not view.size:
            continue
        p, j, k = geometry.p[view], geometry.j[view], geometry.k[view]
        across = p - along[direction, view, None] * grid[chunk[direction]]
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        # The smallest rotation that takes p to across, applied to vectors perpendicular to p.
        middle = (p + across) / (1 + np.sum(p * across, axis=1, keepdims=True))
        frame = [vector - middle * np.sum(across * vector, axis=1, keepdims=True) for vector in (j, k)]
        yield chunk, chunk[direction], view, _directions_only(across, *frame)


def _directions_only(p: NDArray[np.float64], j: NDArray[np.float64], k: NDArray[np.float64]) -> Geometry:
    zeros = np.zeros(len(p))
    return Geometry(p, j, k, zeros, zeros, (1, 1, 1), (1, 1))
