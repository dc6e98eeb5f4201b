"""Measured frames of a tomographic scan with flat, dark and angles, and the files they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import FileFormatError, check_shape, file_path, message, number, of_kind, real_array

LARGEST_ANGLE_RAD = 50.0  # eight turns; what lies beyond was meant in degrees
ANGLE_UNITS = {"rad": 1.0, "radian": 1.0, "radians": 1.0}
ANGLE_UNITS |= dict.fromkeys(("deg", "degs", "degree", "degrees", "°"), np.pi / 180)
EXCHANGE = {"frames": "data", "flat": "data_white", "dark": "data_dark", "angles": "theta"}


@dataclass(frozen=True, eq=False, repr=False)
class Radiographs:
    """Frames of a scan about one axis that is parallel to the detector's columns (vertical in the picture).

    Rows count from the top, columns from the left, of the picture as one sees it from the source; a positive angle
    turns the sample clockwise as seen from above (``t = x cos θ + y sin θ``, the textbook sinogram). If the stage turns
    the other way, or the camera looks towards the source, negate the angles: otherwise the volume is a mirror image.

    Parameters
    ----------
    frames
        Counts, shape ``(views, rows, columns)``. Dead pixels read 0.
    flat
        Counts without sample, shape ``(rows, columns)``, or ``(n, rows, columns)`` to be averaged.
    dark
        Counts without beam, shapes as for ``flat``; default 0.
    angles_rad
        Rotation angle of each view in radians, shape ``(views,)``.
    pixel_size_m
        Edge of a pixel in the plane of the sample, in metres, if known.
    provenance
        Where the data come from: text under text keys.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, not finite, or the angles can only be degrees.

    Examples
    --------
    >>> Radiographs(np.full((3, 4, 5), 90.0), np.full((4, 5), 100.0), None, [0.0, 1.0, 2.0])
    Radiographs(3 views of 4 rows x 5 columns, angles 0 to 2 rad)
    """

    frames: NDArray[np.float32]
    flat: NDArray[np.float32]
    dark: Any
    angles_rad: NDArray[np.float64]
    pixel_size_m: float | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = real_array(self.frames, "frames", (None, None, None), dtype=np.float32)
        if not frames.size:
            raise ValueError(message("frames", "at least one view, row and column", f"shape {frames.shape}"))
        angles = real_array(self.angles_rad, "angles_rad", frames.shape[:1])
        if np.abs(angles).max() > LARGEST_ANGLE_RAD:
            raise ValueError(message("angles_rad", "radians", f"{np.abs(angles).max():g}", "are these degrees?"))
        values: dict[str, Any] = {
            "frames": frames,
            "flat": _averaged(self.flat, "flat", frames.shape[1:]),
            "dark": _averaged(np.zeros(frames.shape[1:]) if self.dark is None else self.dark, "dark", frames.shape[1:]),
            "angles_rad": angles,
        }
        if not (values["flat"] > values["dark"]).any():
            raise ValueError(message("flat", "more counts than in the dark", "no pixel that has them"))
        for array in values.values():
            array.setflags(write=False)
        if self.pixel_size_m is not None:
            values["pixel_size_m"] = number(self.pixel_size_m, "pixel_size_m", low=0, high=1e-1, low_open=True)
        of_kind(Mapping, self.provenance, "provenance", "a mapping of texts")
        values["provenance"] = MappingProxyType({str(key): str(text) for key, text in dict(self.provenance).items()})
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        views, rows, columns = self.frames.shape
        span = f"{self.angles_rad.min():.4g} to {self.angles_rad.max():.4g} rad"
        return f"Radiographs({views} views of {rows} rows x {columns} columns, angles {span})"


def read_radiographs(path: str | PathLike[str]) -> Radiographs:
    """Read a scan from HDF5: the DataExchange layout, or plain datasets at the root.

    DataExchange (De Carlo et al. 2014, J. Synchrotron Rad. 21, 1224) has ``data``, ``data_white``, ``data_dark`` and
    ``theta`` in ``/exchange``; the plain layout ``frames``, ``flat``, ``dark`` and ``angles_deg`` or ``angles_rad``.
    The dark may be missing. An attribute ``units`` of the angles decides between degrees and radians; without one
    DataExchange means degrees. Attributes of the file that are text become the provenance, a number ``pixel_size_m``
    the pixel size.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is truncated, not HDF5, in neither layout, or holds what cannot be a scan.

    Examples
    --------
    >>> from ddf_tomo.datasets import data_path
    >>> read_radiographs(data_path("tooth.h5"))
    Radiographs(181 views of 2 rows x 640 columns, angles 0 to 3.124 rad)
    """
    import h5py

    file = file_path(path)
    if not file.is_file():
        raise FileNotFoundError(message("path", "an HDF5 file", f"{str(file)!r}, which is no file"))
    try:
        with h5py.File(file) as handle:
            return _read(handle, file)
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises on truncated or damaged files
        raise FileFormatError(message("path", "a complete HDF5 file", f"{str(file)!r}: {error}")) from error
    except FileFormatError:
        raise
    except (ValueError, TypeError) as error:
        raise FileFormatError(message("path", "a scan", f"{str(file)!r}: {error}")) from error


def _read(handle: Any, file: Path) -> Radiographs:
    exchange = "exchange/data" in handle
    group = handle["exchange"] if exchange else handle
    in_radians = not exchange and "angles_rad" in handle
    names = (
        EXCHANGE if exchange else {n: n for n in EXCHANGE} | {"angles": "angles_rad" if in_radians else "angles_deg"}
    )
    found = {}
    for part, name in names.items():
        if _is_dataset(group, name):
            found[part] = group[name]
        elif part != "dark":
            layouts = "/exchange/{data, data_white, theta} or /{frames, flat, angles_deg}"
            contents = ", ".join(f"/{key}" for key in handle) or "nothing"
            expected = f"a dataset {group.name.rstrip('/')}/{name} ({layouts})"
            raise FileFormatError(message("path", expected, f"{str(file)!r} with {contents}"))
    units = _text(found["angles"].attrs.get("units", "rad" if in_radians else "deg")).strip().lower()
    if units not in ANGLE_UNITS:
        raise FileFormatError(message("path", "angles in degrees or radians", f"{str(file)!r} with units {units!r}"))
    attributes = {key: value for key, value in handle.attrs.items() if isinstance(value, (str, bytes, np.bytes_))}
    provenance = {"file": file.name} | {key: _text(value) for key, value in attributes.items()}
    dark = found["dark"][()] if "dark" in found else None
    angles = real_array(found["angles"][()], names["angles"]) * ANGLE_UNITS[units]
    pixel_size = handle.attrs.get("pixel_size_m")
    return Radiographs(found["frames"][()], found["flat"][()], dark, angles, pixel_size, provenance)


def _is_dataset(group: Any, name: str) -> bool:
    return name in group and hasattr(group[name], "dtype")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _averaged(value: ArrayLike, argument: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = real_array(value, argument)
    if array.ndim == 3 and len(array):
        array = array.mean(axis=0)
    check_shape(array.shape, argument, shape)
    return real_array(array, argument, dtype=np.float32)
