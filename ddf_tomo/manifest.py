"""One text file that describes a scan: where its frames lie, and what has to be known to use them.

A manifest is TOML. Its keys are in the manual (``docs/manifest.md``); `Manifest` has a field for each.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, check_shape, file_path, message
from ddf_tomo._files import replaced_when_complete
from ddf_tomo._geometry_file import geometry_of_file
from ddf_tomo._manifest_keys import AXES, DIRECTIONS, KEYS, from_file, spread
from ddf_tomo._manifest_text import located, read_tables, toml
from ddf_tomo.geometry import Geometry
from ddf_tomo.readers.scans import Frames, Wanted, frames_of

__all__ = ["Manifest"]
TABLES = tuple(dict.fromkeys(table for table, _, _ in KEYS.values()))
RADIANS = {"deg": np.pi / 180, "rad": 1.0}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A scan as a file describes it; see the manual's page on the manifest for every key.

    Directions are those of somebody at the source who looks along the beam: ``"right"``, ``"left"``, ``"up"``,
    ``"down"``, ``"along"`` (the beam), ``"against"``. Before it is turned, the sample's x points right, y along the
    beam, z up.

    Parameters
    ----------
    sample
        Files of the frames with the sample: a name, relative to ``folder``, with ``{view}``, ``{distance}``, ``{step}``
        in place of numbers; in HDF5 ``"file.h5:/name/of/dataset"``.
    reference
        The same without the sample, for all views or with ``{view}``; frames with different ``{repeat}`` are averaged.
        By default the flat fields in the sample's files (NXtomo, DataExchange).
    reference_at
        For references that were repeated during the scan: at which view each ``{repeat}`` was, counted from 0. Each
        view is then compared with what lies between the two next to it.
    dark, flat
        Frames without beam, and without mask and sample; all are averaged. ``*`` stands for anything.
    bad_pixels
        An image that is not zero where a pixel is to be ignored.
    order
        Axes of the frames inside a file, the slowest first; those that are in its name are left out.
    missing
        ``"mask"``: frames that are not there get no weight; ``"refuse"``: they are an error.
    title
        A line for people.
    pixel_size_m
        In the plane of the sample.
    distances_m
        From the sample (or from the mask behind it) to the detector, over the magnification in a cone beam.
    energy_kev
        Of the photons.
    steps, views
        How many; where files do not tell.
    volume_shape
        Voxels along x, y, z; by default what the detector sees.
    view_numbers, distance_numbers, step_numbers
        Numbers in the names of files, in the order of angles, distances and steps; by default those found, ascending.
    rows, columns
        Where the index of rows and that of columns grow.
    counts_per_photon
        Gain of the detector.
    saturation
        Counts at or above it are excluded.
    angles_deg, angles_rad
        Rotation angle of each view: a list, ``{"first": …, "last": …, "count": …}``, ``{"first": …, "step": …,
        "count": …}``, or the name of a text file or ``"file.h5:/dataset"``.
    tilts_deg, tilts_rad
        Tilt of the rotation stage, likewise.
    axis, tilt_axis
        Direction about which positive angles turn the sample, right-handed.
    centre
        Row or column, from 0, of the picture on which the axis lies; by default the middle.
    geometry
        HDF5 file with a `Geometry` instead: maps of a scan, a reconstruction, or what an alignment wrote.
    folder
        Where names of files start.
    file
        That it was read from, for messages.

    Raises
    ------
    TypeError, ValueError
        If a value is not of the kind above, or two of them contradict each other.

    Examples
    --------
    >>> scan = Manifest(sample="frames.h5:/sample", reference="frames.h5:/reference", steps=12, pixel_size_m=6.5e-6,
    ...                 distances_m=0.7, angles_deg={"first": 0, "step": 3, "count": 60})
    >>> scan.distances_m, len(scan.angles())
    ((0.7,), 60)
    """

    sample: str
    reference: str | None = None
    reference_at: Any = None
    dark: str | None = None
    flat: str | None = None
    bad_pixels: str | None = None
    order: tuple[str, ...] = AXES
    missing: str = "mask"
    title: str = ""
    pixel_size_m: float | None = None
    distances_m: Any = None
    energy_kev: float | None = None
    steps: int | None = None
    views: int | None = None
    volume_shape: Any = None
    view_numbers: Any = None
    distance_numbers: Any = None
    step_numbers: Any = None
    rows: str = "down"
    columns: str = "right"
    counts_per_photon: float | None = None
    saturation: float | None = None
    angles_deg: Any = None
    angles_rad: Any = None
    tilts_deg: Any = None
    tilts_rad: Any = None
    axis: str = "down"
    tilt_axis: str = "right"
    centre: float | None = None
    geometry: str | None = None
    folder: Any = field(default=Path(), compare=False)
    file: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        optional = {each.name for each in fields(self) if each.default is None}
        for name, (_, _, check) in KEYS.items():
            value = getattr(self, name)
            if value is not None or name not in optional:
                object.__setattr__(self, name, check(value, name))
        object.__setattr__(self, "folder", file_path(self.folder, "folder"))
        if DIRECTIONS[self.rows][0] ** 2 == DIRECTIONS[self.columns][0] ** 2:
            raise ValueError(message("columns", f"a direction across {self.rows!r}, that of the rows", self.columns))
        for kind in ("angles", "tilts"):
            if getattr(self, f"{kind}_deg") is not None and getattr(self, f"{kind}_rad") is not None:
                raise ValueError(message(f"{kind}_rad", f"only one of {kind}_deg and {kind}_rad", "both"))
        if self.axis in ("along", "against"):
            raise ValueError(message("axis", "an axis across the beam", repr(self.axis)))
        given = next((name for name in ("angles_deg", "angles_rad") if getattr(self, name) is not None), None)
        if self.geometry is not None and given:
            raise ValueError(message("geometry", "either a file with a geometry or angles", f"both, {given} too"))
        count = None if given is None or isinstance(getattr(self, given), str) else len(self.angles())
        if count is not None and self.views not in (None, count):
            raise ValueError(message(str(given), f"{self.views} angles, one for each view", count))

    # -- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read a manifest; names in it are relative to its folder.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        FileFormatError
            If it is not TOML, or a key is unknown, missing or wrong; the message names line, table and key.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scan.toml"
        >>> _ = path.write_text("[scan]\\nsteps = 0\\n[files]\\nsample = 'frames.h5'")
        >>> try:
        ...     Manifest.read(path)
        ... except FileFormatError as error:
        ...     print(str(error).partition("scan.toml, ")[2])
        line 2, [scan] steps: expected an integer in [1, 1000000], got 0
        """
        file = file_path(path)
        values = read_tables(file, KEYS, "a manifest", required={"sample": "the files of the frames with the sample"})
        try:
            return cls(**values, folder=file.parent, file=file)
        except (TypeError, ValueError) as error:
            raise FileFormatError(located(error, file, KEYS)) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest to ``path``; names of files in it are relative to that file's folder.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "scan.toml"
        >>> scan = Manifest(sample="frames.h5:/sample", steps=12, pixel_size_m=6.5e-6, angles_deg=[0.0, 90.0])
        >>> scan.write(path)
        >>> print(path.read_text(), end="")
        [scan]
        pixel_size_m = 6.5e-06
        steps = 12
        <BLANKLINE>
        [files]
        sample = "frames.h5:/sample"
        <BLANKLINE>
        [rotation]
        angles_deg = [0.0, 90.0]
        >>> Manifest.read(path) == scan
        True
        """
        defaults = {each.name: each.default for each in fields(self)}
        tables: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
        for name, (table, key, _) in KEYS.items():
            value = getattr(self, name)
            if value != defaults[name]:
                tables[table][key] = value
        text = toml({table: keys for table, keys in tables.items() if keys})
        with replaced_when_complete(path) as partial:
            partial.write_text(text, encoding="utf-8")

    # -- what it means ------------------------------------------------------------------------------------------------

    def angles(self, kind: str = "angles") -> NDArray[np.float64]:
        """Rotation angles (or ``kind="tilts"``) in radians, shape ``(views,)``; empty where the manifest tells none."""
        for unit, radians in RADIANS.items():
            value = getattr(self, f"{kind}_{unit}")
            if value is not None:
                key = f"{kind}_{unit}"
                found, stored = (
                    (spread(value, key), "") if not isinstance(value, str) else from_file(value, key, self.folder)
                )
                if stored and not stored.startswith(unit):
                    raise ValueError(message(key, f"angles in {unit}", f"a file that says {stored!r}"))
                return found * radians
        return np.empty(0)

    def frames(self) -> Frames:
        """Look for the files, and check that they fit together; frames are read when they are indexed.

        Raises
        ------
        FileNotFoundError, ValueError
            If files are missing, of unequal shape, or more or fewer than angles, steps and distances.

        Warns
        -----
        UserWarning
            If single frames are missing.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "sample.npy", np.ones((2, 5, 16, 20)))
        >>> np.save(folder / "reference.npy", np.ones((5, 16, 20)))
        >>> files = {"sample": "sample.npy", "reference": "reference.npy", "folder": folder}
        >>> found = Manifest(**files, steps=5, angles_deg=[0.0, 90.0]).frames()
        >>> found.sample.shape, found.reference.shape, len(found.geometry)
        ((2, 5, 16, 20), (5, 16, 20), 2)
        """
        if self.file is None:
            return self._frames()
        try:
            return self._frames()
        except FileNotFoundError as error:
            raise FileNotFoundError(located(error, self.file, KEYS)) from error
        except (TypeError, ValueError) as error:
            raise FileFormatError(located(error, self.file, KEYS)) from error

    def _frames(self) -> Frames:
        files = {name: getattr(self, name) for name in ("sample", "reference", "dark", "flat", "bad_pixels")}
        views = self.views or len(self.angles()) or None
        if self.geometry is not None:
            views = views or len(geometry_of_file(self.folder / self.geometry))
        found = frames_of(
            Wanted(
                folder=self.folder,
                **files,
                order=self.order,
                counts={"view": views, "distance": len(self.distances_m or ()) or None, "step": self.steps},
                numbers={axis: self._numbers(axis) for axis in AXES},
                reference_at=self.reference_at,
                refuse=self.missing == "refuse",
                saturation=self.saturation,
            )
        )
        told = found.told
        angles = self.angles() if len(self.angles()) or told.angles_rad is None else told.angles_rad
        return replace(
            found,
            geometry=self._geometry(len(found), (found.sample.shape[-2], found.sample.shape[-1]), angles),
            pixel_size_m=self.pixel_size_m or told.pixel_size_m,
            distances_m=self.distances_m or (() if told.distance_m is None else (told.distance_m,)),
            energy_kev=self.energy_kev or told.energy_kev,
            gain=self.counts_per_photon,
            title=self.title,
        )

    def _numbers(self, axis: str) -> list[int] | None:
        given = getattr(self, f"{axis}_numbers")
        return None if given is None else [int(n) for n in spread(given, f"{axis}_numbers")]

    def _geometry(self, views: int, image: tuple[int, int], angles: NDArray[np.float64]) -> Geometry:
        if self.geometry is not None:
            found = geometry_of_file(self.folder / self.geometry)
            check_shape((len(found), *found.detector_shape), "geometry", (views, *image))
            return found
        if not len(angles) and views == 1:
            angles = np.zeros(1)
        name = "angles_rad" if self.angles_rad is not None else "angles_deg"
        if len(angles) != views:
            raise ValueError(message(name, f"{views} angles, one for each view", len(angles) or "none"))
        tilts = self.angles("tilts")
        if len(tilts) not in (0, 1, views):
            name = "tilts_rad" if self.tilts_rad is not None else "tilts_deg"
            raise ValueError(message(name, f"one tilt, or {views}, one for each view", len(tilts)))
        j, k, axis = (np.array(DIRECTIONS[name]) for name in (self.rows, self.columns, self.axis))
        across = 0 if abs(j @ axis) < 0.5 else 1  # the axis of the picture that the rotation axis is perpendicular to
        offsets = [0.0, 0.0]
        if self.centre is not None:
            offsets[across] = (image[across] - 1) / 2 - self.centre
        wide, tall = image[across], image[1 - across]
        shape = self.volume_shape or tuple(tall if abs(component) > 0.5 else wide for component in axis)
        return Geometry.from_angles(
            angles,
            tilts if len(tilts) else 0.0,
            shape,
            image,
            inner_axis=axis,
            outer_axis=DIRECTIONS[self.tilt_axis],
            p_0=DIRECTIONS["along"],
            j_0=j,
            k_0=k,
            j_offset=offsets[0],
            k_offset=offsets[1],
        )
