"""Where the frames lie in an HDF5 file, and what the file says of the scan.

Layouts, in the order in which they are looked for:

- DataExchange (De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224): ``/exchange/{data, data_white, data_dark, theta}``.
- NXtomo, as ESRF (nxtomomill, nabu) and Diamond write it: a detector group with ``data`` and ``image_key`` (0 sample,
  1 flat field, 2 dark, 3 invalid), angles in ``sample/rotation_angle`` of the entry around it.
- ESRF raw data (BLISS): one detector's frames in ``/1.1/measurement``.
- NeXus with a ``default`` and a ``signal``, as Diamond's detectors write ``/entry/data/data``.
- Any file with one stack of frames in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, message
from ddf_tomo._files import reading_hdf5

KEYS = {"sample": 0, "reference": 1, "dark": 2}
EXCHANGE = {"sample": "data", "reference": "data_white", "dark": "data_dark"}
UNITS = {
    "deg": dict.fromkeys(("rad", "radian", "radians"), 1.0)
    | dict.fromkeys(("deg", "degs", "degree", "degrees", "°"), np.pi / 180),
    "m": {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "nm": 1e-9},
    "kev": {"kev": 1.0, "ev": 1e-3},
}
MOST_VISITED = 20_000  # entries of a file


class Layout(NamedTuple):
    """What an HDF5 file holds; made by `find_layout`.

    Attributes
    ----------
    name : str
        "DataExchange", "NXtomo", "BLISS", "NeXus" or "HDF5".
    data : str
        Name of the dataset with the sample's frames.
    image_key
        Of NXtomo, shape ``(frames,)``: 0 sample, 1 flat field, 2 dark; anything else is left out.
    angles_rad
        Of the sample's frames, shape ``(views,)``.
    pixel_size_m, distance_m, energy_kev : float or None
        Where the file tells them.
    others : dict
        Names of the datasets with other kinds of frames.
    """

    name: str
    data: str
    image_key: NDArray[np.int64] | None = None
    angles_rad: NDArray[np.float64] | None = None
    pixel_size_m: float | None = None
    distance_m: float | None = None
    energy_kev: float | None = None
    others: Mapping[str, str] = MappingProxyType({})

    def of_kind(self, kind: str) -> tuple[str, NDArray[np.intp] | None]:
        """Dataset and places of the frames of one ``kind``: ``None`` for all.

        Raises
        ------
        FileFormatError
            If there are none.
        """
        if self.image_key is not None:
            places = np.flatnonzero(self.image_key == KEYS[kind])
            if not places.size:
                raise FileFormatError(message("image_key", f"{KEYS[kind]} ({kind}) for some frames", "none of them"))
            return self.data, places
        if self.others and kind != "sample":
            if kind not in self.others:
                raise FileFormatError(message("path", f"/exchange/{EXCHANGE[kind]}", "a file without"))
            return self.others[kind], None
        return self.data, None

    @property
    def has(self) -> tuple[str, ...]:
        """Kinds of frames that the layout keeps apart; only "sample" where it does not."""
        if self.image_key is not None:
            return tuple(kind for kind, key in KEYS.items() if (self.image_key == key).any())
        return ("sample", *self.others)


def find_layout(path: str | os.PathLike[str], dataset: str | None = None) -> Layout:
    """Look where the frames are, in a whole HDF5 file, in a group, or in a dataset.

    Parameters
    ----------
    path
        The file.
    dataset
        Name of a dataset or a group to look in; by default the whole file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is no HDF5 file, has no such name in it, or holds no stack of frames, or several and no layout.

    Examples
    --------
    >>> from ddf_tomo.datasets import data_path
    >>> layout = find_layout(data_path("tooth.h5"))
    >>> layout.name, layout.data, layout.has, len(layout.angles_rad)
    ('DataExchange', '/exchange/data', ('sample', 'reference', 'dark'), 181)
    """
    with reading_hdf5(path, "frames") as file:
        if dataset is not None and (not isinstance(dataset, str) or dataset not in file):
            there = ", ".join(f"/{name}" for name in file) or "nothing"
            raise FileFormatError(
                message("dataset", f"a name in the file {os.fspath(path)!r}", f"{dataset!r}, beside {there}")
            )
        start = file if dataset is None else file[dataset]
        if _is_frames(start):
            return _tomo(start.parent, start) or Layout("HDF5", start.name)
        if not hasattr(start, "keys"):
            raise FileFormatError(message("dataset", "frames (..., row, column) of numbers", f"{start!r}"))
        found = _exchange(start) or next(filter(None, (_tomo(group) for group in _groups(start))), None)
        found = found or _bliss(start) or _default(start) or _only(start)
        if found is None:
            names = [each.name for each in _stacks(start)]
            hint = "Name one, as in scan.h5:/entry/data"
            raise FileFormatError(message("path", "one stack of frames", ", ".join(names[:5]) or "none", hint))
        return found


# -- layouts ----------------------------------------------------------------------------------------------------------


def _exchange(file: Any) -> Layout | None:
    group: Any = file.get("exchange", file)
    if not group.name.endswith("exchange") or not hasattr(group, "keys") or not _is_frames(group.get("data")):
        return None
    others = {
        kind: group[name].name for kind, name in EXCHANGE.items() if kind != "sample" and _is_frames(group.get(name))
    }
    return Layout("DataExchange", group["data"].name, None, _quantity(group, "theta", "deg", many=True), others=others)


def _tomo(detector: Any, data: Any = None) -> Layout | None:
    """A detector with a key for each frame, in an entry that tells the angles."""
    name = next(
        (n for n in ("image_key_control", "image_key") if n in detector and hasattr(detector[n], "dtype")), None
    )
    data = detector.get("data") if data is None else data
    if name is None or not _is_frames(data):
        return None
    key = np.asarray(detector[name][()]).ravel()
    if key.shape != data.shape[:1] or key.dtype.kind not in "iuf":
        raise FileFormatError(message(detector[name].name, f"a number for each of {data.shape[:1]} frames", key.shape))
    entry = detector.parent.parent if detector.name.count("/") > 1 else detector.parent
    angles = _quantity(entry, "sample/rotation_angle", "deg", many=True)
    if angles is None:
        angles = _quantity(detector, "rotation_angle", "deg", many=True)
    if angles is not None:
        if angles.shape != key.shape:
            raise FileFormatError(message("rotation_angle", f"an angle for each of {len(key)} frames", angles.shape))
        angles = angles[key == KEYS["sample"]]
    energies = [
        _quantity(entry, place, "kev")
        for place in ("beam/incident_energy", "instrument/beam/incident_energy", "instrument/monochromator/energy")
    ]
    return Layout(
        "NXtomo",
        data.name,
        key.astype(np.int64),
        angles,
        _quantity(detector, "x_pixel_size", "m"),
        _quantity(detector, "distance", "m"),
        next((energy for energy in energies if energy is not None), None),
    )


def _bliss(file: Any) -> Layout | None:
    """The only detector of the first scan."""
    scans = sorted(
        (name for name in file if re.fullmatch(r"\d+\.1", name)), key=lambda name: int(name.partition(".")[0])
    )
    places = [file[f"{scan}/measurement"] for scan in scans if hasattr(file.get(f"{scan}/measurement"), "keys")]
    places += [file["measurement"]] if hasattr(file.get("measurement"), "keys") else []
    for place in places:
        found = [each for each in (place.get(name) for name in place) if _is_frames(each) and each.ndim > 2]
        if len(found) == 1:
            return Layout("BLISS", found[0].name)
    return None


def _default(file: Any) -> Layout | None:
    """What NeXus says is to be looked at."""
    place = file
    for _ in range(10):
        name = _text(place.attrs.get("default", ""))
        if not name or name not in place or not hasattr(place[name], "keys"):
            break
        place = place[name]
    signal = _text(place.attrs.get("signal", ""))
    found: Any = place.get(signal) if signal else None
    return Layout("NeXus", found.name) if _is_frames(found) else None


def _only(file: Any) -> Layout | None:
    """The only stack there is; links to one dataset count once."""
    found = {each.id: each.name for each in _stacks(file)}
    return Layout("HDF5", next(iter(found.values()))) if len(found) == 1 else None


# -- pieces -----------------------------------------------------------------------------------------------------------


def _is_frames(found: Any) -> bool:
    return hasattr(found, "dtype") and found.dtype.kind in "uif" and len(found.shape or ()) >= 2


def _groups(start: Any) -> Iterator[Any]:
    """The group itself and those in it, in order."""
    waiting, seen = [start], 0
    while waiting and seen < MOST_VISITED:
        group = waiting.pop(0)
        yield group
        seen += 1
        waiting += [
            entry
            for entry in (group.get(name) for name in group)
            if hasattr(entry, "keys") and entry.name.count("/") < 8
        ]


def _stacks(start: Any) -> Iterator[Any]:
    for group in _groups(start):
        yield from (each for each in (group.get(name) for name in group) if _is_frames(each) and each.ndim > 2)


def _quantity(group: Any, name: str, unit: str, *, many: bool = False) -> Any:
    """A number, or an array of them, in the package's unit; ``None`` if it is not there."""
    stored = group.get(name)
    if not hasattr(stored, "dtype") or stored.dtype.kind not in "iuf":
        return None
    given = _text(stored.attrs.get("units", unit)).strip().lower() or unit
    if given not in UNITS[unit]:
        raise FileFormatError(message(stored.name, "a unit of " + ", ".join(UNITS[unit]), repr(given)))
    values = np.asarray(stored[()], np.float64).ravel() * UNITS[unit][given]
    if not np.isfinite(values).all() or not values.size:
        raise FileFormatError(message(stored.name, "finite numbers", "others"))
    return values if many else float(values[0])


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
