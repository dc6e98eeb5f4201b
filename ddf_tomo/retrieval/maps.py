"""What a retrieval gives: maps of transmission, displacement and blur on the detector, with standard errors."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, dense, message, number, real_array
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header

Array = NDArray[Any] | Tensor
LAYOUT = "ddf_tomo maps 1"
CHANNELS: dict[str, tuple[int | None, ...]] = {
    "displacement": (2,),
    "displacement_error": (2,),
    "covariance": (3,),
    "covariance_error": (3,),
    "error_matrix": (21,),
    "visibility": (None,),
    "visibility_error": (None,),
}
LENGTHS_M = {"pixel_size_m": (1e-12, 1.0), "distance_m": (1e-6, 1e6)}  # what can be right
MAY_LACK = ("chi2", "error_matrix", "visibility", "visibility_error")  # maps that not every method gives
AXES = ("azimuths_rad", "correlation_lengths_m", "windows_px")  # sequences of numbers
WIDEST = 1e4  # pixels
OPTIONAL = (*LENGTHS_M, *MAY_LACK, *AXES)


class Direction(NamedTuple):
    """Principal axes of the blur, each of shape ``(..., row, column)``; made by `Maps.direction`.

    Attributes
    ----------
    angle_rad : (..., row, column)
        Of the strongest blur, from j (down the rows) towards k (along the columns), in (-π/2, π/2].
    anisotropy : (..., row, column)
        Difference of the eigenvalues over the sum of their magnitudes, in [0, 1].
    largest, smallest : (..., row, column)
        Eigenvalues of C in square pixels.
    """

    angle_rad: Array
    anisotropy: Array
    largest: Array
    smallest: Array


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of one or more views; numpy arrays or torch tensors ``(..., row, column[, channel])``.

    Axis j of the detector runs along the rows' index (down), axis k along the columns' (right). With a displacement u
    and a blur covariance C the sample's frame is ``I(x) = T (G_C * I_ref)(x - u)``.

    Attributes
    ----------
    transmission : (..., row, column)
        Share of the reference's intensity. With one distance it holds the propagation contrast as well: a warp that
        conserves photons brings the factor ``1 − ∇·u``, which nothing tells from absorption.
    displacement : (..., row, column, 2)
        u_j, u_k in pixels.
    covariance : (..., row, column, 3)
        C_jj, C_jk, C_kk in square pixels. Noise can make it indefinite; it is not forced to be positive, so that
        averages of it stay unbiased.
    background : (..., row, column)
        Intensity without any pattern (glare, scatter wider than the window), relative to what keeps the pattern.
    transmission_error, displacement_error, covariance_error, background_error
        Standard errors, of the shape of what they belong to; infinite where nothing could be found.
    residual : (..., row, column)
        Standard deviation over the steps of what the model leaves of S/T - R, as share of the reference.
    valid : (..., row, column), bool
        False where the mask's pattern is missing or drowned in noise; u, C and background are zero there.
    pixel_size_m, distance_m : float or None
        In the plane and over the length that relate pixels to angles. Of several distances it is the longest:
        displacement and covariance are those on its detector.
    chi2 : (..., row, column) or None
        Squared residual over its expected noise, a degree of freedom: 1 where the model fits.
    error_matrix : (..., row, column, 21) or None
        Upper triangle of the covariance of the estimates (T, u_j, u_k, C_jj, C_jk, C_kk), row by row. Its diagonal
        holds the squares of the standard errors, and is as infinite where nothing could be found.
    visibility, visibility_error : (..., row, column, length · azimuth) or None
        ``-ln V`` of the blur's Fourier transform, azimuths running fastest, and its standard errors.
    azimuths_rad : tuple of float or None
        Azimuths of the visibility, from j towards k.
    correlation_lengths_m : tuple of float or None
        Correlation lengths λ d / period of the visibility.
    windows_px : tuple of float or None
        By what average the displacement is coarser than the transmission, as standard deviations of Gaussians G: by
        ``1 − Π (1 − G)``, which is G for one, and ``2G − G²`` for two that are equal (what the first left was fitted
        again). None where both are of one resolution.

    Examples
    --------
    >>> from ddf_tomo.datasets import four_rods
    >>> from ddf_tomo.retrieval import retrieve
    >>> rods = four_rods()
    >>> maps = retrieve(rods.sample[..., 1690:1730], rods.reference[..., 1690:1730],
    ...                 pixel_size_m=rods.pixel_size_m, distance_m=rods.distance_m)
    >>> maps.covariance.shape[-1], bool(maps.direction().anisotropy.mean() > 0.4)
    (3, True)
    """

    transmission: Array
    displacement: Array
    covariance: Array
    background: Array
    transmission_error: Array
    displacement_error: Array
    covariance_error: Array
    background_error: Array
    residual: Array
    valid: Array
    pixel_size_m: float | None = None
    distance_m: float | None = None
    chi2: Array | None = None
    error_matrix: Array | None = None
    visibility: Array | None = None
    visibility_error: Array | None = None
    azimuths_rad: tuple[float, ...] | None = None
    correlation_lengths_m: tuple[float, ...] | None = None
    windows_px: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        shape = tuple(getattr(self.transmission, "shape", ()))
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in OPTIONAL:
                continue
            if field.name in AXES:
                numbers = tuple(map(float, real_array(value, field.name, (None,))))
                if field.name == "windows_px" and not all(0 <= each <= WIDEST for each in numbers):
                    raise ValueError(message(field.name, f"standard deviations of 0 to {WIDEST:g} pixels", numbers))
                object.__setattr__(self, field.name, numbers)
            elif field.name not in LENGTHS_M:
                if not isinstance(value, np.ndarray | Tensor):
                    raise TypeError(message(field.name, "a numpy array or torch tensor", type(value).__name__))
                if isinstance(value, Tensor):
                    dense(value, field.name)
                kind = str(value.dtype).removeprefix("torch.")
                if (kind == "bool") != (field.name == "valid") or not kind.startswith(("bool", "float", "int", "uint")):
                    expected = "true and false" if field.name == "valid" else "real numbers"
                    raise TypeError(message(field.name, expected, f"dtype {kind}"))
                check_shape(tuple(value.shape), field.name, shape + CHANNELS.get(field.name, ()))
            else:
                low, high = LENGTHS_M[field.name]
                object.__setattr__(self, field.name, number(value, field.name, low=low, high=high))
        of_visibility = (self.visibility, self.visibility_error, self.azimuths_rad, self.correlation_lengths_m)
        if any(each is None for each in of_visibility) != all(each is None for each in of_visibility):
            raise ValueError(
                message("visibility", "its errors, azimuths and correlation lengths, or none of them", "some")
            )
        if self.visibility is not None:
            channels = len(self.azimuths_rad or ()) * len(self.correlation_lengths_m or ())
            for name in ("visibility", "visibility_error"):
                check_shape(tuple(getattr(self, name).shape), name, (*shape, channels))

    def __repr__(self) -> str:
        shape = tuple(self.transmission.shape)
        return f"Maps(shape={shape}, pixel_size_m={self.pixel_size_m}, distance_m={self.distance_m})"

    def _radians_per_pixel(self) -> float:
        if self.pixel_size_m is None or self.distance_m is None:
            missing = "pixel_size_m" if self.pixel_size_m is None else "distance_m"
            raise ValueError(message(missing, "a length in metres", None, "Give it to retrieve() to get angles"))
        return self.pixel_size_m / self.distance_m

    def refraction_angle(self) -> tuple[Array, Array]:
        """Refraction angles (α_j, α_k) in rad, ``u s/d``, and their standard errors, ``(..., row, column, 2)``."""
        unit = self._radians_per_pixel()
        return self.displacement * unit, self.displacement_error * unit

    def scattering(self) -> tuple[Array, Array]:
        """Scattering covariance Θ = C (s/d)² in rad², (jj, jk, kk), and its standard errors."""
        unit = self._radians_per_pixel() ** 2
        return self.covariance * unit, self.covariance_error * unit

    def direction(self) -> Direction:
        """Direction of strongest blur, anisotropy and both eigenvalues of C.

        Fibres scatter perpendicular to themselves: they stand at ``angle_rad + π/2``.
        """
        covariance = torch.as_tensor(self.covariance)
        jj, jk, kk = covariance.unbind(-1)
        angle = 0.5 * torch.atan2(2 * jk, jj - kk)
        mean, radius = 0.5 * (jj + kk), torch.hypot(0.5 * (jj - kk), jk)
        largest, smallest = mean + radius, mean - radius
        size = largest.abs() + smallest.abs()
        anisotropy = torch.where(size > 0, 2 * radius / torch.where(size > 0, size, 1), 0).clamp(max=1)
        found = (angle, anisotropy, largest, smallest)
        return Direction(*(found if isinstance(self.covariance, Tensor) else (entry.numpy() for entry in found)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to HDF5 at ``path``, under a temporary name until it is complete."""
        import h5py

        with replaced_when_complete(path) as partial, h5py.File(partial, "w") as file:
            described = {name: getattr(self, name) for name in (*LENGTHS_M, *AXES)}
            write_header(file, {"layout": LAYOUT} | described)
            for name in (field.name for field in fields(self) if field.name not in described):
                value = getattr(self, name)
                if value is None:
                    continue
                array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
                file.create_dataset(name, data=array, compression="gzip" if array.size else None)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Maps:
        """Read what `save` wrote to ``path``, as numpy arrays; anything else raises `ddf_tomo.FileFormatError`."""
        with reading_hdf5(path, "maps") as file:
            header = read_header(file, LAYOUT)
            described: Any = {name: header.get(name) for name in (*LENGTHS_M, *AXES)}
            names = [f.name for f in fields(cls) if f.name not in described]
            values = {name: file[name][()] for name in names if name in file or name not in MAY_LACK}
            return cls(**values, **described)
