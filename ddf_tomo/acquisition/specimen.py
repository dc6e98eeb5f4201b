"""What stands in the beam, in physical units: scattering, refraction and attenuation of a sample on any grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import choice, message, number, of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import SecondMomentResponse
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform
from ddf_tomo.phantoms import PHANTOMS

__all__ = ["Specimen", "phantom_specimen"]

Volume = Callable[[tuple[int, ...]], Any]


@dataclass(frozen=True)
class Specimen:
    """A sample as functions of a grid: each takes a volume shape ``(x, y, z)`` and gives values in its voxels.

    Parameters
    ----------
    scattering
        Coefficients of the scattering function, ``(x, y, z, coefficient)``, in rad² per metre: the covariance of the
        angular spread is ``Θ_ab = ∫dl (1/π) ∮ e_a e_b f dφ``.
    delta
        Decrement of the refractive index, ``(x, y, z)``, without unit; None where nothing refracts.
    mu
        Linear attenuation coefficient, ``(x, y, z)``, per metre; None where nothing absorbs.
    name
        For people.

    Examples
    --------
    >>> ball = Specimen(lambda shape: np.full((*shape, 1), 1e-9), mu=lambda shape: np.full(shape, 100.0))
    >>> ball.values((4, 4, 4))[0].shape
    (4, 4, 4, 1)
    """

    scattering: Volume
    delta: Volume | None = None
    mu: Volume | None = None
    name: str = "a function"

    def values(self, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
        """Scattering, delta and mu on a grid, checked.

        Parameters
        ----------
        shape
            Voxels along ``(x, y, z)``.

        Raises
        ------
        ValueError
            If a function gives another shape, or values that are not finite.
        """
        found: list[NDArray[Any] | None] = []
        for name, axes in (("scattering", 4), ("delta", 3), ("mu", 3)):
            function = getattr(self, name)
            if function is None:
                found.append(None)
                continue
            if not callable(function):
                expected = "a function of the volume shape"
                raise TypeError(message(f"specimen.{name}", expected, type(function).__name__))
            value = np.asarray(function(shape), np.float32)
            if value.shape[:3] != tuple(shape) or value.ndim != axes:
                expected = f"an array of shape {tuple(shape)}" + (" + (K,)" if axes == 4 else "")
                raise ValueError(message(f"specimen.{name}", expected, value.shape))
            if not np.isfinite(value).all():
                raise ValueError(message(f"specimen.{name}", "finite values", "NaN or infinite ones"))
            found.append(value)
        scattering, delta, mu = found
        if scattering is None:
            raise TypeError(message("specimen.scattering", "a function of the volume shape", None))
        order_of(scattering.shape[-1], "specimen.scattering")
        return scattering, delta, mu


def phantom_specimen(
    phantom: str,
    geometry: Geometry,
    *,
    voxel_size_m: float,
    pixel_size_m: float,
    distance_m: float,
    blur: float = 1.0,
    shift: float = 0.5,
    transmission: float = 0.8,
) -> Specimen:
    """A phantom with as much scattering, refraction and absorption as the detector shall see.

    Refraction and attenuation go with its density, the mean of the scattering function over the sphere.

    Parameters
    ----------
    phantom
        A name from `ddf_tomo.phantoms.PHANTOMS`.
    geometry
        Views of the scan, in which the strongest signals are looked for.
    voxel_size_m, pixel_size_m, distance_m
        Edge of a voxel of ``geometry``, pixel of the frames, and the (longest) distance to the detector.
    blur
        Largest entry of the blur covariance, in square pixels at that distance.
    shift
        Largest displacement, in pixels at that distance; 0 for a sample that does not refract.
    transmission
        Lowest transmission, in (0, 1].

    Raises
    ------
    ValueError, TypeError
        If an argument is not of the kind above.

    Examples
    --------
    >>> from ddf_tomo.phantoms import tilt_series
    >>> geometry = tilt_series((8, 8, 8), views=[3], tilts_rad=[0.0])
    >>> sample = phantom_specimen("helicoidal", geometry, voxel_size_m=4e-5, pixel_size_m=1e-5, distance_m=1.0)
    >>> f"{sample.scattering((8, 8, 8))[..., 0].max():.1e}"  # rad²/m
    '2.9e-07'
    """
    function = PHANTOMS[choice(phantom, "phantom", tuple(PHANTOMS))]
    of_kind(Geometry, geometry, "geometry")
    voxel, pixel, distance = (
        number(value, name, low=1e-12, high=1e6)
        for value, name in (
            (voxel_size_m, "voxel_size_m"),
            (pixel_size_m, "pixel_size_m"),
            (distance_m, "distance_m"),
        )
    )
    blur, shift = number(blur, "blur", low=0, high=1e4), number(shift, "shift", low=0, high=1e4)
    lowest = number(transmission, "transmission", low=1e-6, high=1)

    made = function(geometry.volume_shape).exact
    response = SecondMomentResponse()
    theta = TensorXRayTransform(geometry, response, order_of(made.shape[-1]))(made) * voxel
    thickness = np.asarray(XRayTransform(geometry)(made[..., :1]))[..., 0] * voxel
    slopes = [np.abs(np.gradient(thickness, voxel, axis=axis)).max() for axis in (1, 2)]
    strongest = float(np.abs(np.asarray(theta)).max()), math.hypot(*slopes), float(thickness.max())
    if min(strongest) <= 0:
        raise ValueError(message("geometry", "views that meet the sample", "none"))
    angle = pixel / distance
    factors = blur * angle**2 / strongest[0], shift * angle / strongest[1], -math.log(lowest) / strongest[2]

    def scaled(factor: float, mean: bool) -> Volume:
        def values(shape: tuple[int, ...]) -> Any:
            exact = function(shape).exact
            return np.float32(factor) * (exact[..., 0] if mean else exact)

        return values

    delta, mu = (scaled(factor, mean=True) if factor > 0 else None for factor in factors[1:])
    return Specimen(scaled(factors[0], mean=False), delta, mu, phantom)
