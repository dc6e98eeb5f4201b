"""MUMOTT's way of stating a geometry: rotations of the sample, directions of the unrotated set-up, stage angles.

Plain numpy, because MUMOTT's files are read and written without MUMOTT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import message, real_array
from ddf_tomo.geometry import ORTHONORMAL_TOLERANCE, Geometry, rotation_about

P_0, J_0, K_0 = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
INNER_AXIS, OUTER_AXIS = (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)
LIKELY_DEGREES_RAD = 4 * np.pi
"""Angles beyond this many radians are taken for degrees: two full turns, where scans rarely go beyond one."""


def geometry_from_frames(
    rotations: ArrayLike,
    p_0: ArrayLike,
    j_0: ArrayLike,
    k_0: ArrayLike,
    j_offset: ArrayLike,
    k_offset: ArrayLike,
    volume_shape: Sequence[int],
    detector_shape: Sequence[int],
) -> Geometry:
    """The geometry with ``p = Rᵀ p_0`` and so on; ``rotations`` of shape ``(views, 3, 3)`` may contain reflections."""
    matrices = real_array(rotations, "rotations", (None, 3, 3))
    axes = (real_array(axis, name, (3,)) for axis, name in ((p_0, "p_0"), (j_0, "j_0"), (k_0, "k_0")))
    with np.errstate(over="ignore", invalid="ignore"):  # `Geometry` refuses what overflows
        p, j, k = (np.einsum("vab,a->vb", matrices, axis) for axis in axes)
    contents: Any = (p, j, k, j_offset, k_offset, volume_shape, detector_shape)
    return Geometry(*contents)


def frames_from_geometry(
    geometry: Geometry,
    p_0: ArrayLike | None = None,
    j_0: ArrayLike | None = None,
    k_0: ArrayLike | None = None,
) -> tuple[Float64[np.ndarray, "views 3 3"], Float64[np.ndarray, "3 3"]]:
    """Rotations of the sample, and the unrotated directions ``(p_0, j_0, k_0)`` as rows.

    The defaults are MUMOTT's, with the beam reversed where frames are right-handed.

    Raises
    ------
    ValueError
        If views differ in handedness, or differ from the directions given: no rotation joins such frames.
    """
    left = geometry.is_left_handed
    if len(geometry) and left.any() != left.all():
        found = f"{np.count_nonzero(left)} left-handed of {len(left)}"
        raise ValueError(message("geometry", "frames (j, k, p) of one handedness, as MUMOTT needs", found))
    default_p = P_0 if left.all() else tuple(-np.array(P_0))
    given = ((p_0, "p_0", default_p), (j_0, "j_0", J_0), (k_0, "k_0", K_0))
    start = np.stack([real_array(default if axis is None else axis, name, (3,)) for axis, name, default in given])
    if np.abs(start @ start.T - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise ValueError(message("p_0, j_0, k_0", "orthonormal directions", start.tolist()))
    frames = np.stack([geometry.p, geometry.j, geometry.k], axis=1)
    rotations = np.einsum("ia,vib->vab", start, frames)
    if (np.linalg.det(rotations) < 0).any():
        expected = f"a {'left' if left.all() else 'right'}-handed frame (j_0, k_0, p_0), as the geometry's"
        raise ValueError(message("p_0, j_0, k_0", expected, start.tolist()))
    return rotations, start


def stage_angles(
    rotations: NDArray[np.float64], inner_axis: ArrayLike = INNER_AXIS, outer_axis: ArrayLike = OUTER_AXIS
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Angles with ``R = R_outer R_inner`` about two perpendicular unit axes, or ``None`` where views need a third.

    The inner rotation leaves its axis i alone, so ``R i = R_outer i`` and must stay perpendicular to the outer axis o.

    Examples
    --------
    >>> import numpy as np
    >>> turns = rotation_about((1, 0, 0), np.array([0.25])) @ rotation_about((0, 0, -1), np.array([-2.0]))
    >>> inner, outer = stage_angles(turns)
    >>> inner.round(9).tolist(), outer.round(9).tolist()
    ([-2.0], [0.25])
    """
    i, o = np.asarray(inner_axis, float), np.asarray(outer_axis, float)
    third = np.cross(o, i)
    turned = rotations @ i
    outer = np.arctan2(turned @ third, turned @ i)
    inner_rotations = rotation_about(o, -outer) @ rotations
    side = inner_rotations @ o
    inner = np.arctan2(side @ np.cross(i, o), side @ o)
    again = rotation_about(o, outer) @ rotation_about(i, inner)
    return (inner, outer) if np.abs(again - rotations).max(initial=0.0) < 1e-9 else None


def angles_from_j_to_k(
    detector_angles_rad: ArrayLike, origin: ArrayLike, positive_90: ArrayLike, j_0: ArrayLike, k_0: ArrayLike
) -> Float64[np.ndarray, " segments"]:
    """Detector angles that run from j towards k, of angles that run from ``origin`` towards ``positive_90``.

    ``cos a origin + sin a positive_90 = e(φ₀ ± a)`` with ``e(φ) = cos φ j + sin φ k``, minus for a mirrored sense.

    Raises
    ------
    ValueError
        If the two directions are not perpendicular unit vectors in the plane of the detector.

    Examples
    --------
    >>> angles_from_j_to_k([0.0, 0.5], (0, 0, 1), (1, 0, 0), (1, 0, 0), (0, 0, 1)).round(3).tolist()
    [1.571, 1.071]
    """
    names = ("detector_direction_origin", "detector_direction_positive_90")
    axes = np.stack([real_array(axis, name, (3,)) for axis, name in zip((origin, positive_90), names, strict=True)])
    in_plane = axes @ np.stack([np.asarray(j_0, float), np.asarray(k_0, float)], axis=1)
    if np.abs(in_plane @ in_plane.T - np.eye(2)).max() > ORTHONORMAL_TOLERANCE:
        expected = "perpendicular unit vectors in the plane of the detector"
        raise ValueError(message(" and ".join(names), expected, axes.tolist()))
    start = np.arctan2(in_plane[0, 1], in_plane[0, 0])
    return start + np.sign(np.linalg.det(in_plane)) * real_array(detector_angles_rad, "detector_angles", (None,))
