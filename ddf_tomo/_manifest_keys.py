"""The keys of a manifest: where each stands in the file, and what may be its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import NOT_NUMBERS, FileFormatError, choice, integer, message, number, real_array, size_tuple
from ddf_tomo._files import reading_hdf5

AXES = ("view", "distance", "step")
DIRECTIONS = {
    "right": (1.0, 0.0, 0.0),
    "left": (-1.0, 0.0, 0.0),
    "along": (0.0, 1.0, 0.0),
    "against": (0.0, -1.0, 0.0),
    "up": (0.0, 0.0, 1.0),
    "down": (0.0, 0.0, -1.0),
}
"""As one sees them who stands at the source and looks along the beam, in the sample's x, y, z before it is turned."""
LARGEST_COUNT = 1_000_000
SERIES = "a list of numbers, { first, last, count }, { first, step, count }, or the name of a file"


def text(value: Any, key: str) -> str:
    """A text without NUL, which no file name can hold."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(message(key, "a text", repr(value)))
    return value


def name(value: Any, key: str) -> str:
    """A name that is not empty."""
    if not text(value, key).strip():
        raise ValueError(message(key, "the name of a file", "an empty text"))
    return value


def length(value: Any, key: str) -> float:
    """A length in metres, below one."""
    try:
        return number(value, key, low=0, high=1, low_open=True)
    except ValueError as error:
        raise ValueError(f"{error}. The unit is metres: 6.5 µm are 6.5e-6") from error


def distances(value: Any, key: str) -> tuple[float, ...]:
    """Distances in metres: one, or several different ones."""
    is_array = isinstance(value, np.ndarray) and value.ndim > 0
    several = value if is_array or isinstance(value, (list, tuple)) else [value]
    found = tuple(number(each, key, low=0, high=1e6, low_open=True) for each in several)
    if not found or len(set(found)) < len(found):
        raise ValueError(message(key, "one distance or several different ones, in metres", list(found)))
    return found


def order(value: Any, key: str) -> tuple[str, ...]:
    """Axes of the frames, the slowest first."""
    found = tuple(value) if isinstance(value, (list, tuple)) else ()
    if not found or len(set(found)) < len(found) or not set(found) <= set(AXES):
        raise ValueError(message(key, "some of 'view', 'distance', 'step', the slowest first", repr(value)))
    return found


def count(value: Any, key: str) -> int:
    """How many there are."""
    return integer(value, key, low=1, high=LARGEST_COUNT)


def shape(value: Any, key: str) -> tuple[int, ...]:
    """Voxels along x, y, z."""
    return size_tuple(value, key, 3)


def positive(value: Any, key: str) -> float:
    """A number above zero."""
    return number(value, key, low=0, low_open=True)


def plain_number(value: Any, key: str) -> float:
    """Any finite number."""
    return number(value, key)


def direction(value: Any, key: str) -> str:
    """A direction as one sees it from the source; see `DIRECTIONS`."""
    return choice(value, key, tuple(DIRECTIONS))


def in_picture(value: Any, key: str) -> str:
    """A direction across the beam."""
    return choice(value, key, ("right", "left", "up", "down"))


def series(value: Any, key: str) -> Any:
    """A list of numbers, a table that stands for one, or the name of a file; as it was given."""
    if isinstance(value, str):
        return name(value, key)
    return value if isinstance(value, Mapping) and len(spread(value, key)) else spread(value, key).tolist()


def spread(value: Any, key: str) -> NDArray[np.float64]:
    """The numbers that a list or a table stands for."""
    if isinstance(value, Mapping):
        given = dict(value)
        if set(given) not in ({"first", "last", "count"}, {"first", "step", "count"}):
            raise ValueError(message(key, SERIES, f"a table of {', '.join(map(repr, given)) or 'nothing'}"))
        first, many = number(given["first"], f"{key}.first"), count(given["count"], f"{key}.count")
        if "last" in given:
            last = number(given["last"], f"{key}.last")
            stepping = (last - first) / max(many - 1, 1)
        else:
            stepping = number(given["step"], f"{key}.step")
        return np.array([first + stepping * n for n in range(many)], np.float64)
    try:
        several = value if np.ndim(value) else [value]
    except NOT_NUMBERS as error:
        raise TypeError(message(key, SERIES, type(value).__name__)) from error
    found: NDArray[np.float64] = real_array(several, key, (None,))
    if not 0 < len(found) <= LARGEST_COUNT:
        raise ValueError(message(key, SERIES, "an empty list"))
    return found


def times(value: Any, key: str) -> list[float]:
    """Places among the views, one after the other."""
    found = spread(value, key)
    if (np.diff(found) <= 0).any():
        raise ValueError(message(key, "ascending numbers of views", value))
    return found.tolist()


def numbers(value: Any, key: str) -> Any:
    """Whole numbers, as they stand in names of files."""
    if isinstance(value, str):
        raise TypeError(message(key, "a list of whole numbers, or a table { first, last, count }", repr(value)))
    found = spread(value, key)
    if (found != np.floor(found)).any() or (found < 0).any() or len(np.unique(found)) < len(found):
        raise ValueError(message(key, "different whole numbers of zero or more", value))
    return series(value, key)


def from_file(value: Any, key: str, folder: Path) -> tuple[NDArray[np.float64], str]:
    """The numbers of a series, and the unit that a file gives them, if it does."""
    if not isinstance(value, str):
        return spread(value, key), ""
    file, _, dataset = value.partition(":/")
    path = folder / file
    if not path.is_file():
        raise FileNotFoundError(message(key, "an existing file, or numbers", repr(str(path))))
    if dataset:
        with reading_hdf5(path, "numbers") as opened:
            stored = opened["/" + dataset.lstrip("/")]
            unit = stored.attrs.get("units", "")
            found = np.asarray(stored[()], np.float64).ravel()
        unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    else:
        try:
            found, unit = np.loadtxt(path, ndmin=1), ""
        except (ValueError, OSError, UnicodeDecodeError) as error:
            raise FileFormatError(message(key, "a text file of numbers", f"{path}: {error}")) from error
    return real_array(found, key, (None,)), unit.strip().lower()


# Field of `Manifest`: table and key in the file, and the check of its value.
KEYS: dict[str, tuple[str, str, Callable[[Any, str], Any]]] = {
    "title": ("scan", "title", text),
    "pixel_size_m": ("scan", "pixel_size_m", length),
    "distances_m": ("scan", "distances_m", distances),
    "energy_kev": ("scan", "energy_kev", positive),
    "steps": ("scan", "steps", count),
    "views": ("scan", "views", count),
    "volume_shape": ("scan", "volume_shape", shape),
    "sample": ("files", "sample", name),
    "reference": ("files", "reference", name),
    "reference_at": ("files", "reference_at", times),
    "dark": ("files", "dark", name),
    "flat": ("files", "flat", name),
    "bad_pixels": ("files", "bad_pixels", name),
    "order": ("files", "order", order),
    "missing": ("files", "missing", lambda value, key: choice(value, key, ("mask", "refuse"))),
    "view_numbers": ("numbers", "view", numbers),
    "distance_numbers": ("numbers", "distance", numbers),
    "step_numbers": ("numbers", "step", numbers),
    "rows": ("detector", "rows", in_picture),
    "columns": ("detector", "columns", in_picture),
    "counts_per_photon": ("detector", "counts_per_photon", positive),
    "saturation": ("detector", "saturation", positive),
    "angles_deg": ("rotation", "angles_deg", series),
    "angles_rad": ("rotation", "angles_rad", series),
    "tilts_deg": ("rotation", "tilts_deg", series),
    "tilts_rad": ("rotation", "tilts_rad", series),
    "axis": ("rotation", "axis", direction),
    "tilt_axis": ("rotation", "tilt_axis", direction),
    "centre": ("rotation", "centre", plain_number),
    "geometry": ("rotation", "geometry", name),
}
