"""MUMOTT's HDF5 layout, read and written without MUMOTT.

What MUMOTT 2.3's ``DataContainer`` reads is read, deprecated names and missing optional entries included. Where MUMOTT
goes wrong its mistake is not repeated:

- It corrects the offsets of padded projections with the wrong sign, which moves them by the whole padding, and gives
  padded pixels full weight where a file has no weights.
- It fails on files without ``diode``, and does not write ``two_theta``.

[Nielsen et al. 2025, J. Appl. Cryst. 58, 1834]
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, choice, file_path, message
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo._mumott_frames import (
    INNER_AXIS,
    J_0,
    K_0,
    LIKELY_DEGREES_RAD,
    OUTER_AXIS,
    P_0,
    angles_from_j_to_k,
    frames_from_geometry,
    geometry_from_frames,
    stage_angles,
)
from ddf_tomo._streamed import Streamed
from ddf_tomo.geometry import Geometry, rotation_about

DEPRECATED = {
    "inner_angle": "rotations",
    "outer_angle": "tilts",
    "j_offset": "offset_j",
    "k_offset": "offset_k",
    "rotation_matrix": "rot_mat",
}
ANGLE_UNITS = ("auto", "radians", "degrees")


@dataclass
class MumottFile:
    """Contents of a file: arrays padded to one shape, or where to read them; angles from j towards k in radians."""

    data: NDArray[Any] | Streamed
    weights: NDArray[Any] | Streamed | None
    diode: NDArray[Any] | Streamed | None
    geometry: Geometry
    detector_angles_rad: NDArray[np.float64]
    two_theta_rad: NDArray[np.float64]
    extras: dict[str, Any] = field(default_factory=dict)


# -- reading ----------------------------------------------------------------------------------------------------------


def read_mumott_file(path: str | os.PathLike[str], angles: str = "auto", largest: float = math.inf) -> MumottFile:
    """Read a file in MUMOTT's layout.

    Parameters
    ----------
    path
        The file.
    angles
        Unit of all angles in the file. MUMOTT's is radians; ``"auto"`` takes angles beyond ±4π for degrees, and warns.
    largest
        Bytes of data and weights beyond which they stay in the file, as `Streamed`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is no HDF5 file, truncated, or lacks what the layout requires; the message names the missing entry.
    """
    import h5py

    choice(angles, "angles", ANGLE_UNITS)
    if not file_path(path).exists():
        raise FileNotFoundError(message("path", "an existing file", repr(os.fspath(path))))
    try:
        with h5py.File(path, "r") as file:
            return _read(file, angles, largest)
    except FileFormatError as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, MemoryError, OverflowError) as error:
        raise FileFormatError(
            message(os.fspath(path), "a complete HDF5 file in MUMOTT's layout", f"an unreadable one ({error})")
        ) from error


def _read(file: Any, angles: str, largest: float) -> MumottFile:
    projections = _projections(file)
    data, weights, diode, padding = _padded_arrays(projections, largest)
    p_0, j_0, k_0 = _directions(file, ("p_direction_0", "j_direction_0", "k_direction_0"), (P_0, J_0, K_0))
    origin, positive_90 = _directions(file, ("detector_direction_origin", "detector_direction_positive_90"), (J_0, K_0))
    segments = np.ravel(_array(file, "detector_angles"))
    two_theta = np.ravel(_array(file, "two_theta")) if "two_theta" in file else np.zeros(1)
    segments, two_theta = _in_radians([segments, two_theta], angles, "detector_angles, two_theta")
    offsets = [
        np.array([_number(p, name, 0.0) for p in projections]) + pads / 2
        for name, pads in zip(("j_offset", "k_offset"), padding.T, strict=True)
    ]
    default_shape = np.array(data.shape)[[1, 1, 2]]
    volume_shape = np.ravel(_array(file, "volume_shape")) if "volume_shape" in file else default_shape
    rotations = _rotations(file, projections, angles)
    try:
        contents: Any = (rotations, p_0, j_0, k_0, *offsets, volume_shape, data.shape[1:3])
        geometry = geometry_from_frames(*contents)
        segments = angles_from_j_to_k(segments, origin, positive_90, j_0, k_0)
    except (TypeError, ValueError) as error:
        raise FileFormatError(str(error)) from error
    if np.abs(padding).max():
        warnings.warn(
            "projections of different shapes were padded at their far ends and their offsets corrected by +padding/2; "
            "MUMOTT 2.3 corrects by -padding/2, which moves such projections by the padding",
            UserWarning,
            stacklevel=5,
        )
    return MumottFile(data, weights, diode, geometry, segments, two_theta, read_header(file))


def _projections(file: Any) -> list[Any]:
    group = file.get("projections")
    if not hasattr(group, "keys"):
        raise FileFormatError(message("projections", "a group of projections '0', '1', …", f"only {sorted(file)}"))
    if not len(group):
        raise FileFormatError(message("projections", "at least one projection", "an empty group"))
    names = [str(index) for index in range(len(group))]
    missing = next((name for name in names if not hasattr(group.get(name), "keys")), None)
    if missing is not None:
        raise FileFormatError(message(f"projections/{missing}", "a group", f"only {sorted(group)[:8]}"))
    return [group[name] for name in names]


def _padded_arrays(projections: list[Any], largest: float) -> tuple[Any, Any, Any, NDArray[np.int64]]:
    """Data, weights and diode of one shape, and how many rows and columns were added to each projection."""
    found = [_dataset(p, "data", ndim=3) for p in projections]
    shapes = np.array([data.shape for data in found])
    if (shapes[:, 2] != shapes[0, 2]).any() or not shapes.all():
        raise FileFormatError(message("data", "as many segments in every projection", sorted(map(tuple, shapes))))
    full = (len(found), *(int(n) for n in shapes.max(axis=0)))
    dtype = np.result_type(*(data.dtype for data in found))
    dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
    padding = np.array(full[1:3]) - shapes[:, :2]
    has_weights = bool(padding.any()) or any("weights" in p for p in projections)
    has_diode = ["diode" in p for p in projections]
    if any(has_diode) and not all(has_diode):
        warnings.warn(f"only {sum(has_diode)} of {len(found)} projections have a diode; ignored", stacklevel=6)
    bytes_needed = math.prod(full) * dtype.itemsize * (2 if has_weights else 1)

    def array(name: str, shape: tuple[int, ...]) -> NDArray[Any] | Streamed:
        if bytes_needed > largest:
            path = Path(projections[0].file.filename).resolve()
            offsets = [_offset(projection, name, shape[1:], dtype) for projection in projections]
            whole = None if None in offsets else np.array(offsets)
            return Streamed(shape, dtype, partial(_views_of, path, _stamp(path), whole, name, shape[1:], dtype))
        return _filled(projections, name, shape[1:], dtype)

    data = array("data", full)
    weights = array("weights", full) if has_weights else None
    return data, weights, array("diode", full[:3]) if all(has_diode) else None, padding


def _views_of(
    path: Path,
    stamp: tuple[int, int],
    offsets: NDArray[Any] | None,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    views: NDArray[np.intp],
) -> NDArray[Any]:
    """Some views of one array of a file, which must be the one that was opened; straight from it, given ``offsets``."""
    if not path.is_file() or _stamp(path) != stamp:
        raise FileFormatError(message(str(path), "the file as it was when the scan was read", "a changed one, or none"))
    if offsets is None:
        with reading_hdf5(path, "projections") as file:
            return _filled([file[f"projections/{view}"] for view in views], name, shape, dtype)
    found = np.empty((len(views), *shape), dtype)
    with open(path, "rb") as plain:
        for target, view in zip(found, views, strict=True):
            plain.seek(int(offsets[view]))
            if plain.readinto(target.data) != target.nbytes:
                raise FileFormatError(message(str(path), "a complete file", "one that ends early"))
    return found


def _offset(projection: Any, name: str, shape: tuple[int, ...], dtype: Any) -> int | None:
    """Where in the file an array lies in one piece, of this shape and kind; a hundred times as quick to read so."""
    found = projection.get(name)
    if getattr(found, "shape", None) != shape or found.dtype != dtype or found.chunks or found.external:
        return None
    if found.is_virtual:
        return None
    offset = found.id.get_offset()
    return None if offset is None else int(offset)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@np.errstate(over="ignore")  # what float32 cannot hold becomes infinite, and the scan tells of it
def _filled(projections: list[Any], name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Data, weights or diodes of these projections, with zeros where one of them is smaller than the others."""
    filled = np.zeros((len(projections), *shape), dtype)
    for target, projection in zip(filled, projections, strict=True):
        rows, columns, channels = projection["data"].shape
        corner = target[:rows, :columns]
        if name == "weights":
            corner[...] = _weights(projection, (rows, columns, channels))
        else:
            corner[...] = _array(projection, name, shape=(rows, columns, channels)[: corner.ndim])
    return filled


def _weights(projection: Any, shape: tuple[int, ...]) -> NDArray[Any] | float:
    if "weights" not in projection:
        return 1.0
    weights = _array(projection, "weights")
    weights = weights[..., None] if weights.ndim == 2 else weights
    if weights.shape not in (shape, (*shape[:2], 1)):
        expected = f"shape {shape}, {(*shape[:2], 1)} or {shape[:2]}"
        raise FileFormatError(message(f"{projection.name}/weights", expected, weights.shape))
    return weights


def _directions(file: Any, names: tuple[str, ...], defaults: tuple[Any, ...]) -> list[NDArray[np.float64]]:
    """Directions given together or not at all; the first name decides, as MUMOTT has it."""
    if names[0] not in file:
        return [np.array(default) for default in defaults]
    return [np.ravel(_array(file, name)).astype(float) for name in names]


def _rotations(file: Any, projections: list[Any], unit: str) -> NDArray[np.float64]:
    """Rotation matrices where they are given, else from the angles of the stage, else none."""
    names = ["rotation_matrix" if "rotation_matrix" in p else "rot_mat" for p in projections]
    matrices = [_array(p, n, shape=(3, 3)) if n in p else None for p, n in zip(projections, names, strict=True)]
    chosen = [view for view, matrix in enumerate(matrices) if matrix is None]
    angles = [[_number(projections[view], name) for view in chosen] for name in ("inner_angle", "outer_angle")]
    unknown = [
        inner is None and outer is None for inner, outer in zip(*angles, strict=True)
    ]  # one angle alone means that the other is zero
    if any(unknown) and len(projections) > 1:
        warnings.warn(
            f"{sum(unknown)} of {len(projections)} projections have neither rotation_matrix nor angles: taken as not "
            "rotated",
            stacklevel=6,
        )
    inner, outer = _in_radians(
        [np.array([0.0 if angle is None else angle for angle in values]) for values in angles],
        unit,
        "inner_angle, outer_angle",
    )
    inner_axes = _axes(file, projections, "inner_axis", INNER_AXIS)
    outer_axes = _axes(file, projections, "outer_axis", OUTER_AXIS)
    for view, a, b in zip(chosen, inner, outer, strict=True):
        turns = [rotation_about(x[view], np.array([t]), n) for x, t, n in ((outer_axes, b, "o"), (inner_axes, a, "i"))]
        matrices[view] = (turns[0] @ turns[1])[0]
    return np.array(matrices, dtype=np.float64)


def _axes(file: Any, projections: list[Any], name: str, default: tuple[float, ...]) -> list[NDArray[np.float64]]:
    """Axis of each projection: its own, else the file's, else that of the first projection, else the default."""
    source = file if name in file else projections[0]
    fallback = np.ravel(_array(source, name)).astype(float) if name in source else np.array(default)
    axes = [np.ravel(_array(p, name)).astype(float) if name in p else fallback for p in projections]
    with np.errstate(over="ignore"):
        lengths = [float(np.linalg.norm(axis)) if axis.shape == (3,) else 0.0 for axis in axes]
    if not all(0 < length < np.inf for length in lengths):
        raise FileFormatError(message(name, "directions of three components", axes[int(np.argmin(lengths))].tolist()))
    if max(abs(length - 1) for length in lengths) > 1e-6:
        warnings.warn(
            f"{name} of length {max(lengths, key=lambda n: abs(n - 1)):.6g} was normalised; MUMOTT 2.3 would multiply "
            "the angles by its length",
            stacklevel=7,
        )
    return axes


def _in_radians(groups: list[NDArray[Any]], unit: str, names: str) -> list[NDArray[np.float64]]:
    """Angles that belong together, in radians."""
    largest = max((float(np.abs(group).max(initial=0.0)) for group in groups), default=0.0)
    if unit == "auto" and largest > LIKELY_DEGREES_RAD:
        warnings.warn(
            f"{names}: angles up to {largest:.4g} were taken for degrees, though MUMOTT's unit is radians; "
            "say angles='radians' or angles='degrees' to decide",
            stacklevel=7,
        )
        unit = "degrees"
    return [np.radians(group) if unit == "degrees" else np.asarray(group, float) for group in groups]


def _array(node: Any, name: str, *, ndim: int | None = None, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    return np.asarray(_dataset(node, name, ndim=ndim, shape=shape)[()])


def _dataset(node: Any, name: str, *, ndim: int | None = None, shape: tuple[int, ...] | None = None) -> Any:
    """A dataset of real numbers that has these axes, not yet read."""
    where = f"{node.name.rstrip('/')}/{name}".lstrip("/")
    if name not in node:
        raise FileFormatError(message(where, "a dataset", f"nothing of that name among {sorted(node)[:12]}"))
    found = node[name]
    if getattr(found, "shape", None) is None or found.dtype.kind not in "biuf":
        raise FileFormatError(message(where, "a dataset of real numbers", repr(found)))
    if (ndim is not None and len(found.shape) != ndim) or (shape is not None and found.shape != shape):
        raise FileFormatError(message(where, f"{ndim} axes" if shape is None else f"shape {shape}", found.shape))
    return found


def _number(projection: Any, name: str, default: float | None = None) -> Any:
    """The first entry of a dataset of any shape, under its present or its deprecated name."""
    found = next((known for known in (name, DEPRECATED[name]) if known in projection), None)
    if found is None:
        return default
    values = np.ravel(_array(projection, found))
    if not values.size or not np.isfinite(values[0]):
        raise FileFormatError(message(f"{projection.name.lstrip('/')}/{found}", "a finite number", values.tolist()))
    return float(values[0])


# -- writing ----------------------------------------------------------------------------------------------------------


def write_mumott_file(path: str | os.PathLike[str], contents: MumottFile) -> None:
    """Write a file that MUMOTT 2.3 reads; ``diode`` and ``weights`` of ones stand in where there are none.

    Each array of a view is one contiguous piece of the file, so that views can be read one by one at full speed. The
    file appears under its name when it is complete.

    Raises
    ------
    ValueError
        If frames are not of one handedness, which MUMOTT's layout cannot hold.
    """
    import h5py

    geometry = contents.geometry
    rotations, start = frames_from_geometry(geometry)
    angles = stage_angles(rotations)
    with replaced_when_complete(path) as partial, h5py.File(partial, "w") as file:
        for name, direction in zip(("p_direction_0", "j_direction_0", "k_direction_0"), start, strict=True):
            file[name] = direction
        file["detector_direction_origin"], file["detector_direction_positive_90"] = start[1:]
        file["detector_angles"], file["two_theta"] = contents.detector_angles_rad, contents.two_theta_rad
        file["volume_shape"] = np.array(geometry.volume_shape)
        file["inner_axis"], file["outer_axis"] = np.array(INNER_AXIS), np.array(OUTER_AXIS)
        write_header(file, contents.extras)  # what MUMOTT's layout has no place for; MUMOTT does not look at it
        for view in range(len(geometry)):
            data = contents.data[view]
            projection = file.create_group(f"projections/{view}")
            projection["data"] = data
            projection["diode"] = np.ones_like(data[..., 0]) if contents.diode is None else contents.diode[view]
            projection["weights"] = np.ones_like(data) if contents.weights is None else contents.weights[view]
            projection["rotation_matrix"] = rotations[view]
            projection["j_offset"], projection["k_offset"] = geometry.j_offset[view], geometry.k_offset[view]
            if angles is not None:
                projection["inner_angle"], projection["outer_angle"] = (angle[view] for angle in angles)
