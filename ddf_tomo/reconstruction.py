"""From a scan to a volume of spherical functions, in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import (
    FileFormatError,
    message,
    real_array,
)
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo.derived import Derived, derive
from ddf_tomo.geometry import ARRAYS, Geometry
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.scan import response_from_repr

LAYOUT = "ddf_tomo reconstruction 1"
HEADER_NAMES = ("ell_max", "voxel_size_m", "settings", "provenance")


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """A reconstructed volume with what is needed to read, judge and repeat it; made by `reconstruct`.

    Attributes
    ----------
    coefficients
        Harmonic coefficients ``(x, y, z, coefficient)`` in the package's (and MUMOTT's) order, or for rank-2 responses
        the tensor's six numbers. Units: those of the data per voxel edge.
    ell_max
        Highest order.
    geometry, response
        Of the scan.
    residuals
        Norm of the weighted residual before the first iteration and after each.
    voxel_size_m
        Edge of a voxel in metres, where known.
    settings
        How it was made: method, weight of the smoothness penalty, iterations; and what share of the (weighted) data
        remained as residual.
    provenance
        Where the data came from, version, time.
    """

    coefficients: NDArray[Any]
    ell_max: int
    geometry: Geometry
    response: Any
    residuals: tuple[float, ...] = ()
    voxel_size_m: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _derived(self) -> Derived:
        return derive(self.coefficients, of_harmonics=getattr(self.response, "of_harmonics", True))

    def derived(self) -> Derived:
        """Mean, fractional anisotropy, principal directions, and where they can be trusted (computed once)."""
        return self._derived

    def predicted(self) -> NDArray[Any]:
        """The data that this volume would give, shape ``(views, J, K, channels)``."""
        return TensorXRayTransform(self.geometry, self.response, self.ell_max)(self.coefficients)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write HDF5: coefficients, derived quantities, geometry, settings; whole or not at all.

        Raises
        ------
        TypeError
            If the response is not one of the package's own, which alone can be stored.
        """
        import h5py

        try:
            response_from_repr(repr(self.response))
        except FileFormatError as error:
            raise TypeError(
                message("response", "one of the package's own, to be stored", repr(self.response))
            ) from error
        with replaced_when_complete(path) as partial, h5py.File(partial, "w") as file:
            header = {name: getattr(self, name) for name in HEADER_NAMES}
            write_header(file, {"layout": LAYOUT, "response": repr(self.response)} | header)
            file.create_dataset("coefficients", data=self.coefficients, compression="gzip", shuffle=True)
            file["residuals"] = np.asarray(self.residuals, np.float64)
            for name in ARRAYS:
                file[f"geometry/{name}"] = getattr(self.geometry, name)
            for name in ("volume_shape", "detector_shape"):
                file[f"geometry/{name}"] = np.array(getattr(self.geometry, name))
            derived = self.derived()
            for name in ("mean", "fractional_anisotropy", "direction", "eigenvalues"):
                values = getattr(derived, name).astype(np.float32)
                file.create_dataset(f"derived/{name}", data=values, compression="gzip", shuffle=True)
            file.create_dataset("derived/valid", data=derived.valid, compression="gzip")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reconstruction:
        """Read what `save` wrote.

        Raises
        ------
        FileFormatError
            If the file is truncated or foreign.
        """
        with reading_hdf5(path, "a reconstruction") as file:
            header = read_header(file, LAYOUT)
            parts: Any = (file[f"geometry/{name}"][()] for name in (*ARRAYS, "volume_shape", "detector_shape"))
            geometry = Geometry(*parts)
            values = {name: header[name] for name in HEADER_NAMES}
            stored = file["coefficients"]
            shape = (*geometry.volume_shape, None)
            coefficients = real_array(stored[()], "coefficients", shape, dtype=stored.dtype.type)
            return cls(
                coefficients=coefficients,
                geometry=geometry,
                response=response_from_repr(header["response"]),
                residuals=tuple(float(value) for value in file["residuals"][()]),
                **values,
            )

    def __repr__(self) -> str:
        x, y, z, count = self.coefficients.shape
        return f"<Reconstruction: {x} × {y} × {z} voxels, {count} coefficients (ell_max={self.ell_max})>"

    def summary(self) -> str:
        """A few lines for a person."""
        derived = self.derived()
        share = f"{derived.valid.mean():.1%} of the voxels hold sample"
        anisotropy = f"median fractional anisotropy there {_median(derived.fractional_anisotropy[derived.valid]):.3f}"
        lines = [repr(self), f"{share}, {anisotropy}"]
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.settings.items())])


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0
