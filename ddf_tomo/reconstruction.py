"""From a scan to a volume of spherical functions, in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo import export
from ddf_tomo._checks import FileFormatError, check_shape, file_path, flag, message, number, of_kind, real_array
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo._geometry_file import read_geometry, write_geometry
from ddf_tomo._response_text import response_from_repr
from ddf_tomo.derived import Derived, derive
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.tensor import TensorXRayTransform

LAYOUT = "ddf_tomo reconstruction 1"
HEADER_NAMES = ("ell_max", "voxel_size_m", "settings", "provenance")
STORED = (*export.SIGNALS, "tensor", "eigenvalues", "direction", "power")


@dataclass(frozen=True, eq=False)
class DataFit:
    """How a volume agrees with the data that it was made of; made by `reconstruct`, learned prior or not.

    Attributes
    ----------
    per_datum
        χ²: mean square of the residuals over the variance of the noise. About 1 where the volume explains the data,
        less where it follows the noise. Weights are those that were minimised with, the largest clipped.
    per_view
        The same of each view, shape ``(views)``; NaN where all weights are zero.
    noise
        Standard deviation that this is relative to, of a datum of mean weight, in units of the data.
    noise_from
        ``"weights"``: these are inverse variances; ``"neighbouring pixels"``: the scan has no weights but 0 and 1, and
        noise was measured as what changes from pixel to pixel, so that it contains fine structure.

    Examples
    --------
    >>> fit = DataFit(1.21, np.array([1.0, 1.42]), 0.02, "weights")
    >>> fit.over_noise
    1.1
    """

    per_datum: float
    per_view: NDArray[np.float64]
    noise: float
    noise_from: str

    @property
    def over_noise(self) -> float:
        """Root mean square of the residuals in units of their standard deviations."""
        return float(np.sqrt(self.per_datum))


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
    scalars
        Volumes without direction on the same grid, ``(x, y, z)``, by name: attenuation and refractive decrement, which
        dark-field frames tell as well (`ddf_tomo.map_series.MapSeries`).
    fit
        Residual of the data against their noise, where it was kept.
    """

    coefficients: NDArray[Any]
    ell_max: int
    geometry: Geometry
    response: Any
    residuals: tuple[float, ...] = ()
    voxel_size_m: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    fit: DataFit | None = None

    def __post_init__(self) -> None:
        given, shape = self.coefficients, (None,) * 4
        if type(given) is np.ndarray and given.dtype in (np.float32, np.float64):
            check_shape(given.shape, "coefficients", shape)
        else:
            object.__setattr__(self, "coefficients", real_array(given, "coefficients", shape))
        if self.voxel_size_m is not None:
            object.__setattr__(self, "voxel_size_m", number(self.voxel_size_m, "voxel_size_m", low=0, low_open=True))
        of_kind(Mapping, self.scalars, "scalars", "a mapping of names to volumes")
        for name, volume in self.scalars.items():
            real_array(volume, f"scalars[{name!r}]", self.coefficients.shape[:3])
        for name in ("settings", "provenance"):
            of_kind(Mapping, getattr(self, name), name, "a mapping of names to texts and numbers")
        real_array(self.residuals, "residuals", (None,), finite=False)

    @property
    def unit(self) -> str:
        """Of the coefficients, as a text: that of the data, where the scan told it, per edge of a voxel.

        Examples
        --------
        >>> geometry = Geometry.from_angles([0.0, 1.0], 0.0, (2, 2, 2), (2, 2))
        >>> Reconstruction(np.ones((2, 2, 2, 1)), 0, geometry, None, voxel_size_m=1e-5).unit
        'data per voxel edge of 1e-05 m'
        """
        edge = "" if self.voxel_size_m is None else f" of {self.voxel_size_m:g} m"
        return f"{self.provenance.get('data_unit', 'data')} per voxel edge{edge}"

    @cached_property
    def _derived(self) -> Derived:
        return derive(self.coefficients, of_harmonics=self._of_harmonics, unit=self.unit)

    @property
    def _of_harmonics(self) -> bool:
        return getattr(self.response, "of_harmonics", True)

    def derived(self) -> Derived:
        """Mean, anisotropies, principal directions, order, power per ℓ, and where they hold (computed once)."""
        return self._derived

    def predicted(self) -> NDArray[Any]:
        """The data that this volume would give, shape ``(views, J, K, channels)``."""
        return TensorXRayTransform(self.geometry, self.response, self.ell_max)(self.coefficients)

    def save(self, path: str | os.PathLike[str], format: str | None = None, *, coefficients: bool = False) -> None:
        """Write the volume and its derived quantities, whole or not at all.

        Parameters
        ----------
        path
            Its suffix chooses the format, unless that is given:

            - ``.h5``, ``.hdf5``, ``.nxs`` (``"hdf5"``): everything, and what `load` reads; with NeXus attributes, by
              which viewers such as silx and h5web open on the mean.
            - ``.vti`` (``"vti"``): an image for ParaView and other programs on VTK, with tensors for its tensor glyphs.
            - ``.xdmf`` (``"xdmf"``): the same for ParaView, as a text beside the ``.h5`` of the same name, which is
              written too. (Saving that ``.h5`` again renews the ``.xdmf``.)
            - any name with ``format="mumott"``: HDF5 in the layout of MUMOTT's results.
        format
            One of these names.
        coefficients
            Whether ``.vti`` and ``.xdmf`` show the coefficients too. HDF5 holds them anyway.

        Raises
        ------
        TypeError
            If the response is not one of the package's own, which alone HDF5 can hold.
        ValueError
            If the format is none of these, or the ``.h5`` beside an ``.xdmf`` holds something else.

        Examples
        --------
        >>> import tempfile
        >>> from ddf_tomo import SecondMomentResponse
        >>> geometry = Geometry.from_angles([0.0, 1.0], 0.0, (2, 2, 2), (2, 2))
        >>> made = Reconstruction(np.ones((2, 2, 2, 6)), 2, geometry, SecondMomentResponse())
        >>> folder = Path(tempfile.mkdtemp())
        >>> made.save(folder / "volume.vti")
        >>> made.save(folder / "volume.xdmf")
        >>> sorted(file.name for file in folder.iterdir())
        ['volume.h5', 'volume.vti', 'volume.xdmf']
        """
        import h5py

        kind, target = export.format_of(path, format), Path(path)
        shown = self.coefficients if flag(coefficients, "coefficients") else None
        spacing = 1.0 if self.voxel_size_m is None else self.voxel_size_m
        if kind == "hdf5" and target.suffix == ".h5" and export.is_our_xdmf(target.with_suffix(".xdmf")):
            kind, target = "xdmf", target.with_suffix(".xdmf")
        if kind == "mumott":
            harmonics = self.coefficients if self._of_harmonics else coefficients_from_tensor(self.coefficients)
            notes = {name: getattr(self, name) for name in HEADER_NAMES}
            export.write_mumott_result(target, harmonics, iterations=max(0, len(self.residuals) - 1), notes=notes)
        elif kind == "vti":
            export.write_vti(target, export.display_arrays(self.derived(), shown) | dict(self.scalars), spacing)
        else:
            try:
                response_from_repr(repr(self.response))
            except FileFormatError as error:
                expected = "one of the package's own, to be stored"
                raise TypeError(message("response", expected, repr(self.response))) from error
            self.derived()  # fails, if it does, before there is a file
            if kind == "xdmf":
                arrays = export.display_arrays(self.derived(), shown) | dict(self.scalars)
                export.write_xdmf(target, arrays, spacing, contents=self._write)
            else:
                with replaced_when_complete(target) as partial, h5py.File(partial, "w") as file:
                    self._write(file)

    def _write(self, file: Any) -> None:
        header = {name: getattr(self, name) for name in HEADER_NAMES}
        write_header(file, {"layout": LAYOUT, "response": repr(self.response)} | header)
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        file.create_dataset("coefficients", data=self.coefficients, **packed)
        file["residuals"] = np.asarray(self.residuals, np.float64)
        write_geometry(file, self.geometry)
        for name, volume in self.scalars.items():
            file.create_dataset(f"scalars/{name}", data=volume, **packed)
        if self.fit is not None:
            for name, value in vars(self.fit).items():
                file[f"fit/{name}"] = np.bytes_(value.encode()) if isinstance(value, str) else value
        derived = self.derived()
        for name in STORED:
            file.create_dataset(f"derived/{name}", data=export.single(getattr(derived, name)), **packed)
        file.create_dataset("derived/valid", data=derived.valid, compression="gzip")
        export.annotate(
            file,
            derived.units,
            spacing=1.0 if self.voxel_size_m is None else self.voxel_size_m,
            unit_of_length="voxel" if self.voxel_size_m is None else "m",
            title=str(self.provenance.get("title", "")),
            settings=self.settings,
            provenance=self.provenance,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reconstruction:
        """Read what `save` wrote as HDF5; of an ``.xdmf``, the ``.h5`` beside it.

        Parameters
        ----------
        path
            Of the file.

        Raises
        ------
        FileFormatError
            If the file is truncated or foreign.
        """
        path = file_path(path)
        path = path.with_suffix(".h5") if path.suffix.lower() == ".xdmf" else path
        with reading_hdf5(path, "a reconstruction") as file:
            header = read_header(file, LAYOUT)
            geometry = read_geometry(file)
            values = {name: header[name] for name in HEADER_NAMES}
            stored = file["coefficients"]
            shape = (*geometry.volume_shape, None)
            coefficients = real_array(stored[()], "coefficients", shape, dtype=stored.dtype.type)
            return cls(
                coefficients=coefficients,
                geometry=geometry,
                response=response_from_repr(header["response"]),
                residuals=tuple(float(value) for value in file["residuals"][()]),
                scalars={name: volume[()] for name, volume in file.get("scalars", {}).items()},
                fit=_read_fit(file["fit"]) if "fit" in file else None,
                **values,
            )

    def __repr__(self) -> str:
        x, y, z, count = self.coefficients.shape
        return f"<Reconstruction: {x} × {y} × {z} voxels, {count} coefficients (ell_max={self.ell_max})>"

    def _repr_html_(self) -> str:
        from ddf_tomo._html import reconstruction_html

        return reconstruction_html(self, derive)

    def summary(self) -> str:
        """A few lines for a person."""
        derived = self.derived()
        share = f"{np.count_nonzero(derived.valid) / max(1, derived.valid.size):.1%} of the voxels hold sample"
        anisotropy = f"median fractional anisotropy there {_median(derived.fractional_anisotropy[derived.valid]):.3f}"
        lines = [repr(self), f"{share}, {anisotropy}", *(["also: " + ", ".join(self.scalars)] if self.scalars else [])]
        if self.fit is not None and self.fit.noise_from:
            lines.append(f"residual: χ² of {self.fit.per_datum:.3g} per datum, noise from {self.fit.noise_from}")
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.settings.items())])


def _read_fit(group: Any) -> DataFit:
    per_datum, noise = (float(group[name][()]) for name in ("per_datum", "noise"))
    per_view = real_array(group["per_view"][()], "fit (per_view)", (None,), finite=False)
    return DataFit(per_datum, per_view, noise, bytes(group["noise_from"][()]).decode())


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0
