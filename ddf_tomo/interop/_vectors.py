"""Geometries given as free detector vectors, as ASTRA and tomosipo hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ddf_tomo._checks import message, real_array
from ddf_tomo.geometry import ORTHONORMAL_TOLERANCE, Geometry


def geometry_from_vectors(
    ray: ArrayLike,
    centre: ArrayLike,
    j: ArrayLike,
    k: ArrayLike,
    volume_shape: Sequence[int],
    detector_shape: Sequence[int],
    argument: str,
) -> Geometry:
    """A geometry from ray, detector centre and the steps between rows (j) and columns (k), in voxels, our axis order.

    Rays of any length are accepted. Where a detector sits along its beam does not matter to parallel beams.

    Raises
    ------
    ValueError
        If pixels are not squares of the voxel's edge, or a detector is not perpendicular to its beam.
    """
    ray = real_array(ray, argument, (None, 3))
    centre, j, k = (real_array(value, argument, ray.shape) for value in (centre, j, k))
    lengths = np.linalg.norm(ray, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(message(argument, "rays with a direction", "a ray of length zero"))
    pitches = np.stack([np.linalg.norm(j, axis=1), np.linalg.norm(k, axis=1)])
    if (np.abs(pitches - 1) > ORTHONORMAL_TOLERANCE).any():
        found = f"pitches from {pitches.min():.6g} to {pitches.max():.6g}"
        raise ValueError(message(argument, "detector pixels of one voxel's edge", found, "rescale all lengths"))
    p = ray / lengths
    tilts = np.abs(np.stack([(p * j).sum(1), (p * k).sum(1), (j * k).sum(1)]))
    if (tilts > ORTHONORMAL_TOLERANCE).any():
        view = int(tilts.max(axis=0).argmax())
        expected = "detectors perpendicular to their beams, with perpendicular rows and columns"
        raise ValueError(message(argument, expected, f"view {view}, off by {tilts[:, view].max():.2g}"))
    # Normalising what is already normalised would cost the last digit of a round trip.
    p = np.where(np.abs(lengths - 1) < 1e-14, ray, p)
    offsets = (centre * j).sum(1), (centre * k).sum(1)
    contents: Any = (p, j, k, *offsets, volume_shape, detector_shape)
    return Geometry(*contents)
