"""Samples that are defined in continuous space and can be had on any grid.

Coordinates are ±1 at the faces of the volume; edges are soft. Each sample consists of one or two families of fibres,
``f(q) = Σ w (isotropic + fibre(q · n))``, and of isotropic ground: never negative, at the order that holds it exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ddf_tomo._checks import LARGEST_SEED, integer, number, real_array
from ddf_tomo.phantoms._fields import Family, Field, coordinates, inside, smooth, truth_of, unit
from ddf_tomo.phantoms.truth import Truth


def helicoidal_fibres(
    shape: Sequence[int], ell_max: int = 4, *, pitch: float = 1.0, isotropic: float = 0.2, sharpness: int = 2
) -> Truth:
    """Layers of fibres whose direction turns about the z axis from layer to layer, as in bone or insect cuticle.

    In coordinates of ±1 at the faces of the volume the sample is an ellipsoid with half axes 0.75, 0.75, 0.85 and a
    soft edge, denser towards one side. Fibres lie 15° out of the xy plane and make one turn over ``pitch`` times the
    height of the volume. They scatter across themselves, as (1 - (q·n)²)², on an isotropic ground.

    Parameters
    ----------
    shape
        Voxels along ``(x, y, z)``; the sample does not depend on it.
    ell_max
        Order of the returned coefficients: 4 holds the function exactly (and ``f ≥ 0``), lower ones truncate it.
    pitch
        Height of a full turn of the fibres, relative to the volume.
    isotropic
        Isotropic part, relative to the mean of the directional part.
    sharpness
        Power of the fibres' ``(1 - (q·n)²)^sharpness``; above 2 the exact order is ``2 sharpness``.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)``; the mean is at most ``1 + isotropic``.

    Examples
    --------
    >>> coefficients, directions, mask = helicoidal_fibres((16, 16, 16))
    >>> coefficients.shape
    (16, 16, 16, 15)
    """
    x, y, z = coordinates(shape)
    pitch = number(pitch, "pitch", low=1e-6)
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.75) ** 2 + (z / 0.85) ** 2)
    density = np.clip((1.05 - radius) / 0.1, 0, 1) * (0.8 + 0.2 * x)
    turn, rise = 2 * np.pi * z / (2 * pitch), math.radians(15)
    directions = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.full_like(z, np.sin(rise))], -1)
    return truth_of([(density, directions)], ell_max, isotropic, sharpness)


def fibre_bundles(
    shape: Sequence[int],
    ell_max: int = 4,
    *,
    bundles: int = 7,
    radius: float = 0.28,
    seed: int = 0,
    isotropic: float = 0.2,
    sharpness: int = 2,
) -> Truth:
    """Curved bundles of fibres that pass each other inside a ball, with empty space between them.

    The axis of a bundle is a straight line in a random direction with a sinusoidal bend, and all its fibres are copies
    of that axis. Where two bundles would meet, the later one gives way, so that they share the soft edges only.

    Parameters
    ----------
    shape, ell_max, isotropic, sharpness
        As in `helicoidal_fibres`.
    bundles
        How many, 1 … 100.
    radius
        Of a bundle, where 1 is half the edge of the volume.
    seed
        Of positions, directions and bends.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)``; directions are those of the bundle that is the densest there.

    Examples
    --------
    >>> fibre_bundles((16, 16, 16))
    <Truth: 16 × 16 × 16 voxels, 15 coefficients, sample in 26.4% of them>
    """
    points = np.stack(coordinates(shape), -1)
    radius = number(radius, "radius", low=0.01, high=1.0)
    generator = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    count = integer(bundles, "bundles", low=1, high=100)

    def families() -> Iterator[Family]:
        free = inside(np.linalg.norm(points, axis=-1), 0.85)
        for _ in range(count):
            (along, u, v), _ = np.linalg.qr(generator.normal(size=(3, 3)))
            place, phase = generator.uniform(-0.55, 0.55, 2), generator.uniform(0, 2 * np.pi, 2)
            bend, wave = generator.uniform(0.1, 0.2, 2), generator.uniform(1.5, 3.0)
            angle = wave * (points @ along)[..., None] + phase
            offset = np.stack([points @ u, points @ v], -1) - place - bend * np.sin(angle)
            slope = wave * bend * np.cos(angle)
            tube = inside(np.linalg.norm(offset, axis=-1), radius)
            yield free * tube, unit(along + slope[..., :1] * u + slope[..., 1:] * v)
            free = free * (1 - tube)

    return truth_of(families(), ell_max, isotropic, sharpness)


def crossing_fibres(
    shape: Sequence[int],
    ell_max: int = 4,
    *,
    angles_rad: Any = (math.pi / 6, math.pi / 2),
    share: float = 0.6,
    isotropic: float = 0.2,
    sharpness: int = 2,
) -> Truth:
    """Two families of fibres that interpenetrate everywhere in an ellipsoid; they cross at an angle that varies.

    The families lie at half the crossing angle on either side of a bisector that is oblique to all axes. Their crossing
    angle grows along z. The *principal* direction of the whole function (`Truth.derived`) is neither family's own.

    Parameters
    ----------
    shape, ell_max, isotropic, sharpness
        As in `helicoidal_fibres`.
    angles_rad
        Crossing angles at the low and the high face in z, 0 … π/2.
    share
        Share of the first family in the scattering, 0 … 1.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)`` with the directions of the stronger family; ``second_directions`` are those
        of the other one.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.derived import angle_between
    >>> truth = crossing_fibres((16, 16, 16), angles_rad=(np.pi / 3, np.pi / 3))
    >>> np.allclose(angle_between(truth.directions, truth.second_directions), np.pi / 3)
    True
    """
    x, y, z = coordinates(shape)
    low, high = real_array(angles_rad, "angles_rad", (2,)).tolist()
    for angle in (low, high):
        number(angle, "angles_rad", low=0.0, high=math.pi / 2)
    share = number(share, "share", low=0.0, high=1.0)
    density = inside(np.sqrt((x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.85) ** 2), 1.0) * (0.85 + 0.15 * y)
    half = ((low + high) + (high - low) * z)[..., None] / 4
    bisector, across = np.array([2, 1, 2]) / 3, np.array([1, 2, -2]) / 3
    first, second = np.cos(half) * bisector + np.sin(half) * across, np.cos(half) * bisector - np.sin(half) * across
    families = [(share * density, first), ((1 - share) * density, second)]
    stronger, weaker = families if share >= 0.5 else families[::-1]
    return truth_of([stronger, weaker], ell_max, isotropic, sharpness, second=weaker[1])


def shells(
    shape: Sequence[int],
    ell_max: int = 4,
    *,
    count: int = 3,
    tilt_rad: float = math.pi / 4,
    isotropic: float = 0.2,
    sharpness: int = 2,
) -> Truth:
    """Concentric shells of tangential fibres about a hollow core and a canal along z, as in teeth and osteons.

    Fibres run around the z axis, tilted towards the poles by an angle that alternates between ``±tilt_rad`` from shell
    to shell and passes smoothly from one to the next; the density is lower where shells meet.

    Parameters
    ----------
    shape, ell_max, isotropic, sharpness
        As in `helicoidal_fibres`.
    count
        Number of shells, 1 … 100.
    tilt_rad
        Largest angle between the fibres and the circles around z, 0 … π/2.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)``.

    Examples
    --------
    >>> import numpy as np
    >>> truth = shells((16, 16, 16))
    >>> outwards = np.stack(np.meshgrid(*[np.arange(16) - 7.5] * 3, indexing="ij"), -1)
    >>> float(np.abs((truth.directions * outwards).sum(-1)).max()) < 1e-12
    True
    """
    x, y, z = coordinates(shape)
    count = integer(count, "count", low=1, high=100)
    tilt = number(tilt_rad, "tilt_rad", low=0.0, high=math.pi / 2)
    from_axis, radius = np.hypot(x, y), np.sqrt(x**2 + y**2 + z**2)
    # On the axis itself, inside the canal, any tangent will do.
    cos, sin = (
        np.divide(part, from_axis, out=np.full_like(x, at), where=from_axis > 0) for part, at in ((x, 1), (y, 0))
    )
    polar = np.arctan2(from_axis, z)
    around = np.stack([-sin, cos, 0 * z], -1)
    polewards = np.stack([np.cos(polar) * cos, np.cos(polar) * sin, -np.sin(polar)], -1)
    inner, outer = 0.2, 0.85
    depth = np.pi * count * (radius - inner) / (outer - inner)  # π a shell
    angle = tilt * np.sin(depth)[..., None]
    density = inside(radius, outer) * (1 - inside(radius, inner)) * (1 - inside(from_axis, 0.15))
    density = density * (0.85 - 0.15 * np.cos(2 * depth))
    return truth_of([(density, np.cos(angle) * around + np.sin(angle) * polewards)], ell_max, isotropic, sharpness)


def mixture(shape: Sequence[int], ell_max: int = 4, *, isotropic: float = 0.2, sharpness: int = 2) -> Truth:
    """An ellipsoid that is isotropic at one end, oriented at the other and graded between, with inclusions and voids.

    The oriented share grows from 0 at x < -0.4 to 1 at x > 0.3. Its fibres fan out in a plane that is oblique to all
    axes. Two balls are void; a third, in the oriented part, is dense and isotropic. The mean is ``1 + isotropic`` in
    the bulk and 1.5 times that in the inclusion.

    Parameters
    ----------
    shape, ell_max, isotropic, sharpness
        As in `helicoidal_fibres`.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)``; directions are the fibres' and mean little where these have no share:
        `Truth.derived` tells the anisotropy.

    Examples
    --------
    >>> truth = mixture((16, 16, 16))
    >>> bulk = truth.derived().fractional_anisotropy[truth.mask]
    >>> bool(bulk.min() < 0.01), bool(bulk.max() > 0.35)
    (True, True)
    """
    x, y, z = coordinates(shape)
    points = np.stack([x, y, z], -1)

    def ball(centre: tuple[float, float, float], radius: float) -> Field:
        return inside(np.linalg.norm(points - np.array(centre), axis=-1), radius)

    solid = inside(np.sqrt((x / 0.85) ** 2 + (y / 0.7) ** 2 + (z / 0.75) ** 2), 1.0)
    solid = solid * (1 - ball((-0.45, 0.2, 0.25), 0.2)) * (1 - ball((0.25, -0.25, -0.35), 0.22))
    inclusion = ball((0.35, 0.2, 0.25), 0.24)
    oriented = smooth((x + 0.4) / 0.7) * (1 - inclusion)
    turn = (np.pi / 4 * (y + z))[..., None]
    directions = np.cos(turn) * np.array([2, 2, 1]) / 3 + np.sin(turn) * np.array([-2, 1, 2]) / 3
    ground = solid * ((1 - oriented) + 0.5 * inclusion)
    return truth_of([(solid * oriented, directions)], ell_max, isotropic, sharpness, ground=ground)


def random_field(
    shape: Sequence[int],
    ell_max: int = 4,
    *,
    seed: int = 0,
    cycles: float = 1.5,
    modes: int = 16,
    isotropic: float = 0.2,
    sharpness: int = 2,
) -> Truth:
    """Random smooth density, direction and anisotropy in a ball, from a few Fourier modes that a seed draws.

    Four fields are sums of waves with random wave vectors and phases, of variance 1: ``g`` and the vector ``v``. The
    density follows ``1 / (1 + exp(-2 g))``, fibres lie along ``v``, and their share is ``|v|² / (|v|² + 1/2)``, the
    rest being isotropic: where ``v`` vanishes and directions are undefined, the function is isotropic and continuous.

    Parameters
    ----------
    shape, ell_max, isotropic, sharpness
        As in `helicoidal_fibres`.
    seed
        Of the waves. The same seed gives the same sample on every grid.
    cycles
        Periods of the shortest wave over the edge of the volume, 0 … 100.
    modes
        Number of waves of each field, 1 … 1000.

    Returns
    -------
    Truth
        ``(coefficients, directions, mask)``.

    Examples
    --------
    >>> import numpy as np
    >>> first, again, other = (random_field((8, 8, 8), seed=seed).coefficients for seed in (1, 1, 2))
    >>> np.array_equal(first, again), np.array_equal(first, other)
    (True, False)
    """
    points = np.stack(coordinates(shape), -1)
    generator = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    cycles = number(cycles, "cycles", low=0.0, high=100.0)
    modes = integer(modes, "modes", low=1, high=1000)
    # Wave vectors evenly spread in a ball: the cube root makes large ones as frequent as their shells are large.
    vectors = unit(generator.normal(size=(modes, 4, 3))) * np.cbrt(generator.uniform(size=(modes, 4, 1)))
    phases = generator.uniform(0, 2 * np.pi, (modes, 4))
    fields = np.zeros((*points.shape[:3], 4))
    for vector, phase in zip(np.pi * cycles * vectors, phases, strict=True):
        fields += math.sqrt(2 / modes) * np.cos(points @ vector.T + phase)
    strength = (fields[..., 1:] ** 2).sum(-1)
    oriented = strength / (strength + 0.5)
    density = inside(np.linalg.norm(points, axis=-1), 0.85) / (1 + np.exp(-2 * fields[..., 0]))
    family = density * oriented, unit(fields[..., 1:])
    return truth_of([family], ell_max, isotropic, sharpness, ground=density * (1 - oriented))


PHANTOMS: dict[str, Callable[..., Truth]] = {
    "helicoidal": helicoidal_fibres,
    "bundles": fibre_bundles,
    "crossing": crossing_fibres,
    "shells": shells,
    "mixture": mixture,
    "random": random_field,
}
"""All phantoms by name; each is called with a volume shape, ``ell_max``, and options by keyword."""
