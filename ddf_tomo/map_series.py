"""Maps of all views of a scan, with where the views were: what retrieval writes and reconstruction reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo._checks import FileFormatError, check_shape, choice, flag, message, number, of_kind, real_array
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete
from ddf_tomo._geometry_file import read_geometry, write_geometry
from ddf_tomo._phase_volume import from_angles
from ddf_tomo._reconstruct import reconstruct
from ddf_tomo._scan_maps import DECREMENT_UNIT, QUANTITIES
from ddf_tomo.geometry import Geometry
from ddf_tomo.manifest import Manifest
from ddf_tomo.readers.scans import Frames
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.retrieval.frames import retrieve
from ddf_tomo.retrieval.maps import LAYOUT, Maps
from ddf_tomo.retrieval.visibility import calibrated, estimate_exponent
from ddf_tomo.scan import Scan

__all__ = ["MapSeries"]
ENTRY = "series"
PLANCK_TIMES_C = 1.239841984e-9  # keV m
SCALARS = ("attenuation", "phase")
DIRECTIONAL = ("scattering", "rank-two", "visibility")
FOR_ALL = ("method", "prior", "weight", "iterations", "positive", "progress", "start", "levels")


@dataclass(frozen=True, eq=False, repr=False)
class MapSeries:
    """Maps of all views with their geometry.

    Parameters
    ----------
    maps
        Of shape ``(view, row, column)``.
    geometry
        Of the views: rows along j, columns along k.
    distances_m
        From which they were retrieved: with several, transmission is free of propagation contrast.
    energy_kev
        Of the photons, where known.
    title, provenance
        As in `Scan`.

    Raises
    ------
    TypeError, ValueError
        If these are no maps, or the geometry has another number of views or pixels.

    Examples
    --------
    >>> one, three = np.ones((2, 4, 5)), np.ones((2, 4, 5, 3))
    >>> maps = Maps(one, three[..., :2], three, 0 * one, one, three[..., :2], three, one, one, one > 0, 1e-5, 1.0)
    >>> series = MapSeries(maps, Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 5), (4, 5)))
    >>> series, series.scan("attenuation").response
    (<MapSeries: 2 views of 4 × 5 pixels>, IsotropicResponse())
    """

    maps: Maps
    geometry: Geometry
    distances_m: tuple[float, ...] = ()
    energy_kev: float | None = None
    title: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        of_kind(Maps, self.maps, "maps")
        of_kind(Geometry, self.geometry, "geometry")
        of_kind(Mapping, self.provenance, "provenance", "a mapping of names to texts and numbers")
        of_kind(str, self.title, "title", "a text")
        check_shape(self.maps.transmission.shape, "maps", (len(self.geometry), *self.geometry.detector_shape))
        several = real_array(self.distances_m, "distances_m", (None,))
        positive = tuple(number(each, "distances_m", low=0, low_open=True) for each in several)
        object.__setattr__(self, "distances_m", positive)
        if self.energy_kev is not None:
            object.__setattr__(self, "energy_kev", number(self.energy_kev, "energy_kev", low=0, low_open=True))

    def __len__(self) -> int:
        return len(self.geometry)

    def __repr__(self) -> str:
        rows, columns = self.geometry.detector_shape
        return f"<MapSeries: {len(self)} views of {rows} × {columns} pixels>"

    @property
    def wavelength_m(self) -> float:
        """Of the photons; raises ``ValueError`` where the energy is not known."""
        if self.energy_kev is None:
            raise ValueError(message("energy_kev", "the energy of the photons", None))
        return PLANCK_TIMES_C / self.energy_kev

    # -- where they come from, and files ------------------------------------------------------------------------------

    @classmethod
    def retrieve(
        cls,
        frames: Frames | Manifest,
        method: str = "differential",
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> MapSeries:
        """The maps of a scan's frames.

        Parameters
        ----------
        frames
            A manifest, or what its `Manifest.frames` gave.
        method, **options
            Of `ddf_tomo.retrieval.retrieve`.
        checkpoint
            File that keeps finished views: what was interrupted goes on from there. It is not removed at the end.
        progress
            Show a progress bar; by default only when it takes long.

        Raises
        ------
        ValueError, TypeError
            As `ddf_tomo.retrieval.retrieve`.

        Examples
        --------
        >>> import tempfile
        >>> folder, generator = Path(tempfile.mkdtemp()), np.random.default_rng(0)
        >>> reference = 1000 * (1 + 0.3 * generator.random((6, 24, 24)))
        >>> np.save(folder / "reference.npy", reference)
        >>> np.save(folder / "sample.npy", np.stack([0.8 * reference, 0.6 * reference]))
        >>> scan = Manifest(sample="sample.npy", reference="reference.npy", angles_deg=[0, 90], folder=folder)
        >>> series = MapSeries.retrieve(scan)
        >>> series, [round(float(image.mean()), 3) for image in series.maps.transmission]
        (<MapSeries: 2 views of 24 × 24 pixels>, [0.8, 0.6])
        """
        found = frames.frames() if isinstance(frames, Manifest) else frames
        of_kind(Frames, found, "frames", "a Manifest, or its frames")
        if found.geometry is None:
            raise ValueError(message("frames", "frames with their geometry", "none"))
        given = found.arguments() | options
        maps = retrieve(**given, method=method, checkpoint=checkpoint, progress=progress)
        if maps.correlation_lengths_m is not None and found.energy_kev is not None and found.distances_m:
            maps = calibrated(maps, PLANCK_TIMES_C / found.energy_kev)
        return cls(maps, found.geometry, found.distances_m, found.energy_kev, found.title, {"method": method})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to HDF5 at ``path``: the layout of `Maps.save`, with the geometry beside; `Maps.load` reads it too.

        Raises
        ------
        TypeError
            If the provenance does not consist of texts and numbers.
        """
        import h5py

        told = {name: getattr(self, name) for name in ("distances_m", "energy_kev", "title")}
        try:
            text = json.dumps(told | {"provenance": dict(self.provenance)})
        except (TypeError, ValueError) as error:
            raise TypeError(message("provenance", "texts and numbers", error)) from error
        with replaced_when_complete(path) as partial:
            self.maps.save(partial)
            with h5py.File(partial, "r+") as file:
                file[ENTRY] = np.bytes_(text.encode())
                write_geometry(file, self.geometry)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MapSeries:
        """Read what `save` wrote to ``path``; anything else raises `ddf_tomo.FileFormatError`."""
        maps = Maps.load(path)
        with reading_hdf5(path, "maps of a scan") as file:
            if ENTRY not in file:
                hint = "These are maps without angles: ddf-tomo retrieve writes them where a manifest tells the angles"
                raise FileFormatError(message("path", "maps with their geometry", "maps alone", hint))
            told = json.loads(file[ENTRY][()])
            geometry = read_geometry(file)
            return cls(
                maps,
                geometry,
                tuple(told["distances_m"]),
                told["energy_kev"],
                str(told["title"]),
                told["provenance"],
            )

    @staticmethod
    def is_one(path: str | os.PathLike[str]) -> bool:
        """Whether the file at ``path`` holds maps, of a scan or not."""
        try:
            with reading_hdf5(path, "maps") as file:
                return bool(read_header(file).get("layout") == LAYOUT)
        except (FileNotFoundError, FileFormatError):
            return False

    # -- what they become ---------------------------------------------------------------------------------------------

    def scan(self, quantity: str = "scattering", **options: Any) -> Scan:
        """One of the quantities as a `Scan`.

        Parameters
        ----------
        quantity, **options
            As in `Scan.from_maps`. Whether propagation contrast is in the transmission, and at which sides of the
            detector there is air, is known here; the exponent of visibilities at several lengths is estimated.
        """
        choice(quantity, "quantity", tuple(QUANTITIES))
        if quantity == "visibility" and options.get("exponent") is None and self._lengths() > 1:
            options |= {"exponent": min(estimate_exponent(self.maps).value, 2.0)}
        known = {"propagation": len(self.distances_m) < 2, "air": self._sides(), "title": self.title}
        told: dict[str, Any] = dict(self.provenance)
        if self.energy_kev is not None:
            told["energy_kev"] = self.energy_kev
        return Scan.from_maps(self.maps, self.geometry, quantity=quantity, **{**known, "provenance": told, **options})

    def _lengths(self) -> int:
        """Different correlation lengths of the maps."""
        return len(set(self.maps.correlation_lengths_m or ()))

    def _sides(self) -> str:
        """The sides that no sample reaches: those along which the rotation axis does not lie."""
        geometry = self.geometry
        axis = np.linalg.eigh(np.einsum("va,vb->ab", geometry.p, geometry.p))[1][:, 0]
        along_rows, along_columns = (np.abs(each @ axis).mean() for each in (geometry.j, geometry.k))
        return "columns" if along_columns <= along_rows else "rows"

    def reconstruct(
        self,
        quantity: str = "scattering",
        *,
        scalars: Sequence[str] = SCALARS,
        binning: int = 1,
        checkpoint: str | os.PathLike[str] | None = None,
        of_maps: Mapping[str, Any] | None = None,
        integrated: bool = False,
        **options: Any,
    ) -> Reconstruction:
        """The tensor volume, and on the same grid the volumes of attenuation and refractive decrement.

        Parameters
        ----------
        quantity
            ``"scattering"``, ``"rank-two"`` or ``"visibility"``, see `Scan.from_maps`.
        scalars
            Some of ``"attenuation"`` and ``"phase"``, or none. They become `Reconstruction.scalars`:
            ``attenuation_per_m`` (``attenuation_per_voxel``, where the voxel's size is not known) and
            ``refractive_decrement``, δ.
        binning
            Pixels that are averaged in each direction first.
        checkpoint
            Folder to keep states in, see `reconstruct`.
        of_maps
            Options of `Scan.from_maps`, such as ``exponent``.
        integrated
            Leave δ as it follows from the phase of each view, integrated. By default that is where an iteration starts
            which fits the refraction angles of all views themselves, with their errors: less noise, and less of what
            integration spreads. Other methods than conjugate gradients, and other priors than total variation, leave
            it so too.
        **options
            Of `reconstruct`; for the scalars those that make sense there.

        Examples
        --------
        >>> from ddf_tomo.phantoms import tilt_series
        >>> geometry = tilt_series((6, 6, 6), tilts_rad=[0.0], views=[12])
        >>> shape = (12, *geometry.detector_shape)
        >>> one, three = np.ones(shape), np.ones((*shape, 3))
        >>> zero = 0 * three[..., :2]
        >>> maps = Maps(0.9 * one, zero, three, 0 * one, one, 1 + zero, three, one, one, one > 0, 1e-5, 1.0)
        >>> volume = MapSeries(maps, geometry).reconstruct(prior=None, iterations=2, ell_max=0)
        >>> sorted(volume.scalars)
        ['attenuation_per_m', 'refractive_decrement']
        """
        choice(quantity, "quantity", DIRECTIONAL)
        wanted = [choice(each, "scalars", SCALARS) for each in ((scalars,) if isinstance(scalars, str) else scalars)]
        folder = None if checkpoint is None else Path(checkpoint)
        if folder is not None:
            folder.mkdir(exist_ok=True)
        for_maps, integrated = dict(of_maps or {}), flag(integrated, "integrated")
        scans = [self.scan(quantity, **for_maps), *(self.scan(each, **_shared(for_maps)) for each in wanted)]
        scans = [each.binned(binning) for each in scans]
        plain = {name: value for name, value in options.items() if name in FOR_ALL}
        # Tensors have methods and starts of their own; a scalar is quickly found.
        plain |= {"method": "cg"} if plain.get("method") in ("irtt", "fbp") else {}
        differential = plain.get("method", "cg") == "cg" and plain.get("prior", "auto") in ("auto", "tv")
        made = [
            reconstruct(
                scan, **(plain if place else options), checkpoint=None if folder is None else folder / str(place)
            )
            for place, scan in enumerate(scans)
        ]
        volumes = {}
        for name, volume in zip(wanted, made[1:], strict=True):
            values = np.asarray(volume.coefficients[..., 0])
            if name == "phase":
                edges = float(self.maps.pixel_size_m or 1) / float(volume.voxel_size_m or 1)  # pixels in a voxel's edge
                values = values * values.dtype.type(edges)
                if not integrated and differential:
                    values = from_angles(self.maps, self.geometry, binning, values, for_maps.get("weighted", True))
                volumes["refractive_decrement"] = values * values.dtype.type(DECREMENT_UNIT)
            elif volume.voxel_size_m is None:
                volumes["attenuation_per_voxel"] = values
            else:
                volumes["attenuation_per_m"] = values / values.dtype.type(volume.voxel_size_m)
        return replace(made[0], scalars=volumes)


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that scans of scalars have too."""
    return {
        name: value for name, value in options.items() if name in ("weighted", "propagation", "air", "voxel_size_m")
    }
