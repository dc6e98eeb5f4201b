"""What samples are made of: coordinates, soft edges, families of fibres."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import even_order, message, number, size_tuple
from ddf_tomo.operators.spherical_harmonics import coefficient_count
from ddf_tomo.phantoms.truth import Truth, fibre_legendre, zonal

LARGEST_VOLUME = 2**30
Field = NDArray[np.float64]
Family = tuple[Field, Field]  # weight (x, y, z), direction (x, y, z, 3)


def truth_of(
    families: Iterable[Family],
    ell_max: int,
    isotropic: float,
    sharpness: int,
    *,
    ground: Field | None = None,
    second: Field | None = None,
) -> Truth:
    """Sum of fibres, with their isotropic part, and of isotropic ``ground``; both have the mean ``1 + isotropic``."""
    order = even_order(ell_max)
    legendre = np.array(fibre_legendre(sharpness))
    legendre[0] += number(isotropic, "isotropic", low=0.0, high=1e6)
    exact: Any = 0.0
    mean: Any = 0.0
    strongest: Any = None
    for weight, direction in families:
        exact = exact + weight[..., None] * zonal(direction, legendre)
        mean = mean + weight
        if strongest is None:
            strongest, directions = weight, direction
        else:
            directions = np.where((weight > strongest)[..., None], direction, directions)
            strongest = np.maximum(weight, strongest)
    if ground is not None:
        exact[..., 0] += ground * legendre[0]
        mean = mean + ground
    exact = exact.astype(np.float32)
    lacking = coefficient_count(order) - exact.shape[-1]
    if lacking > 0:
        exact = np.pad(exact, [(0, 0)] * 3 + [(0, lacking)])
    coefficients = exact if lacking >= 0 else np.ascontiguousarray(exact[..., :lacking])
    return Truth(coefficients, directions, mean > 0.1 * mean.max(initial=0.0), exact, second)


def coordinates(shape: Sequence[int]) -> tuple[Field, Field, Field]:
    """Coordinates of the voxels' centres, ±1 at the faces."""
    sizes = size_tuple(shape, "shape", 3)
    if math.prod(sizes) > LARGEST_VOLUME:
        raise ValueError(message("shape", f"at most {LARGEST_VOLUME} voxels", sizes))
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in sizes), indexing="ij")
    return x, y, z


def smooth(t: Field) -> Field:
    """0 below 0, 1 above 1, and between them a cubic without kinks."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def inside(distance: Field, radius: float, edge: float = 0.15) -> Field:
    """1 inside the radius, 0 outside, with an edge of this width."""
    return smooth((radius - distance) / edge + 0.5)


def unit(vectors: Field) -> Field:
    """Vectors of length 1; zero, which has no direction, becomes z."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1), [0.0, 0.0, 1.0])
