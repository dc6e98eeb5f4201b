"""Simulated samples and scans whose truth is known.

A phantom is a definition in continuous space, sampled on any grid, with ``f ≥ 0`` in every direction. Data are never
made with the grid that reconstructs them (the "inverse crime"): `simulate` projects a finer one and bins the detector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import even_order, integer, message, number, real_array, size_tuple
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.circle import check_geometry
from ddf_tomo.operators.spherical_harmonics import evaluate, order_of, orders
from ddf_tomo.operators.tensor import Response, TensorXRayTransform

if TYPE_CHECKING:
    from ddf_tomo.scan import Scan

# Tilts of a real tensor scan and the number of views at each: fewer views where the tilt shortens the circle.
SCAN_TILTS_RAD = np.radians([0.0, 7.5, 15.0, 22.5, 30.0, 37.5, 45.0])
LARGEST_VOLUME, MOST_VIEWS = 2**30, 10**6
SCAN_VIEWS = (24, 45, 42, 40, 40, 34, 30)


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


def zonal(directions: NDArray[np.float64], legendre: ArrayLike) -> NDArray[np.float64]:
    """Coefficients of functions symmetric about ``directions``: ``f(q) = Σ_l legendre[l/2] P_l(q · n)``, even l.

    By the addition theorem ``c_lm = legendre[l/2] Y_lm(n) / (2l + 1)`` for harmonics of mean square 1.

    Parameters
    ----------
    directions
        Unit vectors ``n``, shape ``(..., 3)``.
    legendre
        Legendre coefficients for l = 0, 2, 4, ….

    Examples
    --------
    >>> import numpy as np
    >>> zonal(np.array([0.0, 0.0, 1.0]), [1.0, 1.0]).round(4).tolist()  # 1 + P2(q_z) = 1/2 + 3/2 q_z²
    [1.0, 0.0, 0.0, 0.4472, 0.0, 0.0]
    """
    amplitudes = real_array(legendre, "legendre", (None,))
    ell, _ = orders(2 * len(amplitudes) - 2)
    factors: NDArray[np.float64] = amplitudes[ell // 2] / (2 * ell + 1)
    return evaluate(real_array(directions, "directions"), 2 * len(amplitudes) - 2) * factors


# f = isotropic + 15/8 (1 - t²)², t = q·n: what fibres along n scatter, brightest in the plane across them; of degree 4,
# with mean 1 + isotropic, and Legendre coefficients (1, -10/7, 3/7).
FIBRE_LEGENDRE = (1.0, -10 / 7, 3 / 7)


def helicoidal_fibres(
    shape: Sequence[int], ell_max: int = 4, *, pitch: float = 1.0, isotropic: float = 0.2
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_]]:
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

    Returns
    -------
    coefficients
        Shape ``(x, y, z, coefficient)``, float32; the mean is at most ``1 + isotropic``.
    directions
        Fibre directions, unit vectors, shape ``(x, y, z, 3)``.
    mask
        Where the density exceeds 10 % of its largest value; shape ``(x, y, z)``.

    Examples
    --------
    >>> coefficients, directions, mask = helicoidal_fibres((16, 16, 16))
    >>> coefficients.shape
    (16, 16, 16, 15)
    """
    sizes = size_tuple(shape, "shape", 3)
    if math.prod(sizes) > LARGEST_VOLUME:
        raise ValueError(message("shape", f"at most {LARGEST_VOLUME} voxels", sizes))
    order = even_order(ell_max)
    pitch = number(pitch, "pitch", low=1e-6)
    isotropic = number(isotropic, "isotropic", low=0.0, high=1e6)
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in sizes), indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.75) ** 2 + (z / 0.85) ** 2)
    density = np.clip((1.05 - radius) / 0.1, 0, 1) * (0.8 + 0.2 * x)
    turn, rise = 2 * np.pi * z / (2 * pitch), math.radians(15)
    directions = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.full_like(z, np.sin(rise))], -1)
    legendre = np.zeros(max(order // 2 + 1, 3))
    legendre[:3] = FIBRE_LEGENDRE
    legendre[0] += isotropic
    coefficients = density[..., None] * zonal(directions, legendre[: order // 2 + 1])
    return coefficients.astype(np.float32), directions, density > 0.1 * density.max(initial=0.0)


def simulate(
    sample: Any,
    geometry: Geometry,
    response: Response,
    *,
    oversampling: int = 2,
    noise: float = 0.0,
    seed: int = 0,
) -> Scan:
    """A scan of a phantom, projected on a finer grid than ``geometry``'s, with white Gaussian noise.

    Parameters
    ----------
    sample
        Function from a volume shape to coefficients ``(x, y, z, coefficient)`` (or a tuple that begins with them), such
        as `helicoidal_fibres`.
    geometry
        Geometry of the scan; the sample is evaluated on ``geometry.refined(oversampling)``.
    response
        Angular response of the measurement.
    oversampling
        Voxels of the simulation per voxel of ``geometry``, along each axis.
    noise
        Standard deviation, relative to the largest signal. Known to the scan through its weights (inverse variances).
    seed
        Of the noise.

    Returns
    -------
    Scan
        With line integrals in voxels of ``geometry``.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8), views=[3], tilts_rad=[0.0]), SecondMomentResponse())
    >>> scan.data.shape
    (3, 8, 8, 3)
    """
    from ddf_tomo.scan import Scan

    factor = integer(oversampling, "oversampling", low=1, high=32)
    check_geometry(geometry)
    fine = geometry.refined(factor)
    noise = number(noise, "noise", low=0.0)
    if not callable(sample):
        raise TypeError(message("sample", "a function of the volume shape", type(sample).__name__))
    field = sample(fine.volume_shape)
    field = as_tensor(field[0] if isinstance(field, tuple) else field, "sample")
    if tuple(field.shape[:-1]) != fine.volume_shape:
        raise ValueError(message("sample", f"coefficients of shape {fine.volume_shape} + (K,)", tuple(field.shape)))
    ell_max = order_of(field.shape[-1], "sample")
    signals = TensorXRayTransform(fine, response, ell_max)(field) / factor
    rows, columns = geometry.detector_shape
    data = signals.reshape(len(geometry), rows, factor, columns, factor, -1).mean((2, 4)).numpy()
    sigma = noise * float(np.abs(data).max(initial=0.0))
    weights = None
    if sigma > 0:
        generator = np.random.default_rng(integer(seed, "seed"))
        data = data + sigma * generator.standard_normal(data.shape, dtype=np.float32)
        weights = np.full(data.shape, 1 / sigma**2, np.float32)
    return Scan(data=data, geometry=geometry, response=response, weights=weights)
