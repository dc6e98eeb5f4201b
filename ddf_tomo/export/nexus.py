"""NeXus attributes and groups, by which HDF5 viewers (silx, h5web, NeXpy) know what to show first.

Texts are of fixed length: HDF5 2.0 crashes the process on damaged ones of variable length. Nothing here is read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddf_tomo._checks import message

SIGNALS = ("mean", "fractional_anisotropy", "relative_anisotropy", "order_parameter", "standard_deviation")


def annotate(
    file: Any,
    units: Mapping[str, str],
    spacing: float = 1.0,
    *,
    unit_of_length: str = "voxel",
    title: str = "",
    settings: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Make an HDF5 file with ``coefficients`` and the group ``derived`` one that NeXus viewers open on the mean.

    The arrays stay where they are; an ``entry`` with links to them is added.

    Parameters
    ----------
    file
        Open for writing.
    units
        Of the arrays in ``derived``, by name; that of the coefficients is the mean's.
    spacing, unit_of_length
        Edge of a voxel.
    title
        Of the entry.
    settings, provenance
        How the volume was made, and from what.

    Raises
    ------
    ValueError
        If the file lacks the arrays.

    Examples
    --------
    >>> import h5py
    >>> with h5py.File("memory", "w", driver="core", backing_store=False) as file:
    ...     file["coefficients"] = np.ones((2, 3, 4, 6))
    ...     for name in (*SIGNALS, "direction"):
    ...         file[f"derived/{name}"] = np.ones((2, 3, 4, 3) if name == "direction" else (2, 3, 4))
    ...     annotate(file, {"mean": "1/m"})
    ...     file[file.attrs["default"]].attrs["default"].decode(), list(file["entry"])
    ('volume', ['coefficients', 'direction', 'process', 'title', 'volume'])
    """
    lacking = {"coefficients", *(f"derived/{name}" for name in (*SIGNALS, "direction"))} - set(_names(file))
    if lacking:
        raise ValueError(message("file", "an HDF5 file that holds " + ", ".join(sorted(lacking)), "one without"))
    origin = dict(provenance or {})
    _describe(file, NX_class="NXroot", default="entry", creator="ddf_tomo")
    entry = _group(file, "entry", "NXentry", default="volume")
    entry["title"] = text(title or "reconstructed volume")
    for name, unit in units.items():
        if name in file["derived"]:
            _describe(file["derived"][name], units=unit)
    _describe(file["coefficients"], units=units.get("mean", ""))

    coordinates = {
        axis: (np.arange(n) + 0.5 - n / 2) * spacing for axis, n in zip("xyz", file["derived/mean"].shape, strict=True)
    }
    shown = {
        "volume": [f"derived/{name}" for name in SIGNALS],
        "direction": ["derived/direction"],
        "coefficients": ["coefficients"],
    }
    for name, (signal, *others) in shown.items():
        group = _group(entry, name, "NXdata", signal=signal.rpartition("/")[2])
        for path in (signal, *others):
            group[path.rpartition("/")[2]] = file[path]  # a hard link
        for axis, values in coordinates.items():
            group[axis] = values if name == "volume" else entry[f"volume/{axis}"]
            _describe(group[axis], units=unit_of_length, long_name=f"{axis} ({unit_of_length})")
        _describe(group, axes=[*"xyz", *["."] * (file[signal].ndim - 3)])
        if others:
            _describe(group, auxiliary_signals=[path.rpartition("/")[2] for path in others])

    process = _group(entry, "process", "NXprocess")
    process["program"] = text("ddf_tomo")
    for field, key in (("version", "ddf_tomo"), ("date", "created")):
        if key in origin:
            process[field] = text(str(origin[key]))
    for name, contents in (("settings", dict(settings or {})), ("provenance", origin)):
        note = _group(process, name, "NXnote")
        note["type"] = text("application/json")
        note["data"] = text(json.dumps(contents, default=str))


def text(value: str) -> Any:
    """A text of fixed length in UTF-8.

    Examples
    --------
    >>> text("µm").dtype
    dtype('S3')
    """
    import h5py

    encoded = value.replace("\0", " ").encode("utf-8", "replace") or b" "
    return np.array(encoded, h5py.string_dtype("utf-8", len(encoded)))


def _names(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def _group(parent: Any, name: str, kind: str, **attributes: str) -> Any:
    group = parent.create_group(name)
    _describe(group, NX_class=kind, **attributes)
    return group


def _describe(node: Any, **attributes: str | Sequence[str]) -> None:
    for name, value in attributes.items():
        node.attrs[name] = text(value) if isinstance(value, str) else np.array(value, "S")
