"""MUMOTT's geometry object to ours and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import angular_response, message, neighbour, of_kind
from ddf_tomo._mumott_frames import (
    INNER_AXIS,
    OUTER_AXIS,
    angles_from_j_to_k,
    frames_from_geometry,
    geometry_from_frames,
    stage_angles,
)
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.circle import covers_full_circle
from ddf_tomo.operators.responses import SaxsResponse


class MumottFaultWarning(UserWarning):
    """MUMOTT's own result is wrong here, and was not copied."""


def geometry_from(
    mumott_geometry: Any,
    *,
    volume_shape: Sequence[int] | None = None,
    detector_shape: Sequence[int] | None = None,
) -> Geometry:
    """The geometry of a ``mumott.Geometry``, with its system and reconstruction rotations applied.

    Parameters
    ----------
    mumott_geometry
        MUMOTT's geometry; it is read, not kept.
    volume_shape, detector_shape
        Used instead of MUMOTT's, for instance where those are not set yet.

    Raises
    ------
    ValueError
        If MUMOTT's directions are not orthonormal, or shapes are not set.

    Warns
    -----
    MumottFaultWarning
        If several ``system_rotations`` make MUMOTT 2.3 turn j differently from p and k; j is turned as they are.

    Examples
    --------
    >>> import mumott
    >>> theirs = mumott.Geometry()
    >>> theirs.append(mumott.core.geometry.GeometryTuple(j_offset=0.5))
    >>> geometry_from(theirs, volume_shape=(4, 4, 4), detector_shape=(4, 4)).j_offset.tolist()
    [0.5]
    """
    p_0, j_0, k_0 = _directions(mumott_geometry)
    rotations = np.asarray(mumott_geometry.rotations_as_array, float).reshape(-1, 3, 3)
    return geometry_from_frames(
        rotations,
        p_0,
        j_0,
        k_0,
        _floats(mumott_geometry.j_offsets),
        _floats(mumott_geometry.k_offsets),
        mumott_geometry.volume_shape if volume_shape is None else volume_shape,
        mumott_geometry.projection_shape if detector_shape is None else detector_shape,
    )


def response_from(mumott_geometry: Any) -> SaxsResponse:
    """The detector segments of a ``mumott.Geometry``, with angles that run from j towards k.

    Parameters
    ----------
    mumott_geometry
        MUMOTT's geometry; it is read, not kept.

    Warns
    -----
    MumottFaultWarning
        If MUMOTT's judgement of what the segments cover cannot be right.

    Examples
    --------
    >>> import mumott
    >>> theirs = mumott.Geometry()
    >>> theirs.detector_angles = [0.0, 0.8, 1.6]
    >>> response_from(theirs).channels
    3
    """
    _, j_0, k_0 = _directions(mumott_geometry)
    origin, positive_90 = mumott_geometry.detector_direction_origin, mumott_geometry.detector_direction_positive_90
    angles = angles_from_j_to_k(mumott_geometry.detector_angles, origin, positive_90, j_0, k_0)
    full_circle = bool(mumott_geometry.full_circle_covered)
    judged = covers_full_circle(angles)
    if len(angles) <= 3 and judged != full_circle:
        warnings.warn(
            f"full_circle_covered={full_circle} does not go with {len(angles)} detector angles "
            f"{np.round(angles, 4).tolist()} (MUMOTT 2.3 misjudges up to three segments); {judged} is used",
            MumottFaultWarning,
            stacklevel=2,
        )
        full_circle = judged
    return SaxsResponse(angles, mumott_geometry.two_theta, full_circle)


def to_geometry(
    geometry: Geometry,
    response: Any = None,
    *,
    p_0: ArrayLike | None = None,
    j_0: ArrayLike | None = None,
    k_0: ArrayLike | None = None,
) -> Any:
    """A ``mumott.Geometry`` of our geometry.

    Inner and outer angles are filled in where MUMOTT's default stage can do all rotations (its filtered back-projection
    and its alignment want them), otherwise they stay unset.

    Parameters
    ----------
    geometry
        The geometry; all its frames must be of one handedness, because one rotation a view is all that MUMOTT has.
    response
        The angular response. Of a `SaxsResponse` the segments, scattering angle and coverage pass over exactly; others
        get as many evenly spaced placeholder angles as they have channels.
    p_0, j_0, k_0
        Directions of the unrotated set-up, shape ``(3,)``; the default is MUMOTT's, with the beam reversed for
        right-handed frames.

    Raises
    ------
    ValueError
        If frames are of both hands, or of another than the directions given.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.2, (4, 4, 4), (4, 4))
    >>> theirs = to_geometry(geometry)
    >>> np.round(theirs.inner_angles, 9).tolist(), geometry_from(theirs) == geometry
    ([0.0, 0.5], True)
    """
    of_kind(Geometry, geometry, "geometry")
    if response is not None:
        angular_response(response)
    module = neighbour("mumott.core.geometry")
    rotations, start = frames_from_geometry(geometry, p_0, j_0, k_0)
    theirs = module.Geometry()
    theirs.p_direction_0, theirs.j_direction_0, theirs.k_direction_0 = start
    theirs.detector_direction_origin, theirs.detector_direction_positive_90 = start[1:]
    theirs.volume_shape, theirs.projection_shape = geometry.volume_shape, geometry.detector_shape
    inner, outer = stage_angles(rotations) or ([None] * len(geometry),) * 2
    for rotation, j_offset, k_offset, inner_angle, outer_angle in zip(
        rotations, geometry.j_offset, geometry.k_offset, inner, outer, strict=True
    ):
        axes = {"inner_axis": np.array(INNER_AXIS), "outer_axis": np.array(OUTER_AXIS)}
        angles = {"inner_angle": inner_angle, "outer_angle": outer_angle}
        theirs.append(module.GeometryTuple(rotation, float(j_offset), float(k_offset), **angles, **axes))
    theirs.detector_angles, theirs.two_theta, theirs.full_circle_covered = segments(response)
    return theirs


def segments(response: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Detector angles, scattering angles and full coverage, as MUMOTT wants them of any response (or none)."""
    if response is None:
        return np.zeros(0), np.zeros(1), False
    if hasattr(response, "detector_angles_rad"):
        two_theta = np.atleast_1d(getattr(response, "two_theta_rad", 0.0))  # tensors have none
        return np.asarray(response.detector_angles_rad), two_theta, bool(getattr(response, "full_circle", False))
    return np.arange(response.channels) * np.pi / response.channels, np.zeros(1), False


def _floats(offsets: Sequence[Any]) -> NDArray[np.float64]:
    """MUMOTT's files leave zero-dimensional and one-element arrays in the lists of offsets."""
    return np.array([np.ravel(offset)[0] for offset in offsets], float)


def _directions(mumott_geometry: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """``(p_0, j_0, k_0)`` after the system rotations, each applied to all three in turn."""
    if not hasattr(mumott_geometry, "system_rotations"):
        raise TypeError(message("mumott_geometry", "a mumott.Geometry", type(mumott_geometry).__name__))
    turn = np.eye(3)
    for rotation in mumott_geometry.system_rotations:
        turn = np.asarray(rotation, float) @ turn
    # MUMOTT keeps the direction before the system rotations only here.
    j_0 = turn @ mumott_geometry._j_direction_0
    if np.abs(j_0 - mumott_geometry.j_direction_0).max() > 1e-9:
        warnings.warn(
            f"MUMOTT 2.3 composes several system_rotations in the reverse order for j_direction_0: it says "
            f"{np.round(mumott_geometry.j_direction_0, 6).tolist()} where p and k go with {np.round(j_0, 6).tolist()}. "
            "The latter is used; MUMOTT's own projector is wrong for this geometry",
            MumottFaultWarning,
            stacklevel=3,
        )
    return mumott_geometry.p_direction_0, j_0, mumott_geometry.k_direction_0
