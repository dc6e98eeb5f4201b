"""A scan out of a file in MUMOTT's layout, and into one."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ddf_tomo._checks import FileFormatError, choice, flag, message
from ddf_tomo._mumott_file import MumottFile, read_mumott_file, write_mumott_file
from ddf_tomo._resources import available_memory
from ddf_tomo._response_text import response_from_repr
from ddf_tomo._scan_arrays import as_numpy, mask_nonfinite
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators import responses

if TYPE_CHECKING:
    from ddf_tomo.scan import Scan

NONFINITE = ("raise", "mask")
LARGEST_SHARE = 1 / 6
"""Of the memory that is free, for data and weights; a solver needs about as much again three times over."""


def read_scan(
    kind: type[Scan], path: str | os.PathLike[str], angles: str, nonfinite: str, in_memory: bool | None
) -> Scan:
    """See `Scan.read`."""
    choice(nonfinite, "nonfinite", NONFINITE)
    if in_memory is None:
        largest = LARGEST_SHARE * available_memory()
    else:
        largest = math.inf if flag(in_memory, "in_memory") else 0.0
    found = read_mumott_file(path, angles, largest)
    if nonfinite == "mask":
        mask_nonfinite(found)
    extras = found.extras
    try:
        if "response" in extras:
            response = response_from_repr(extras["response"])
        else:
            response = responses.SaxsResponse(found.detector_angles_rad, two_theta_rad=found.two_theta_rad)
        provenance = extras.get("provenance", {"source": os.fspath(path)})
        return kind(
            found.data,
            found.geometry,
            response,
            weights=found.weights if extras.get("has_weights", True) else None,
            diode=found.diode if extras.get("has_diode", True) else None,
            voxel_size_m=extras.get("voxel_size_m"),
            title=str(extras.get("title", "")),
            provenance=provenance,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from error


def write_scan(scan: Scan, path: str | os.PathLike[str]) -> None:
    """See `Scan.write`."""
    try:
        stored = response_from_repr(repr(scan.response)) == scan.response
    except FileFormatError:
        stored = False
    if not stored:
        raise TypeError(message("response", "one of the package's own responses, to be stored", repr(scan.response)))
    saxs = isinstance(scan.response, responses.SaxsResponse)
    channels = scan.data.shape[-1]
    extras: dict[str, Any] = {
        "response": repr(scan.response),
        "title": scan.title,
        "provenance": scan.provenance,
        "has_weights": scan.weights is not None,
        "has_diode": scan.diode is not None,
    }
    if scan.voxel_size_m is not None:
        extras["voxel_size_m"] = scan.voxel_size_m
    contents = MumottFile(
        _to_write(scan.data),
        None if scan.weights is None else _to_write(scan.full_weights()),
        None if scan.diode is None else _to_write(scan.diode),
        scan.geometry,
        np.asarray(scan.response.detector_angles_rad) if saxs else np.arange(channels) * np.pi / channels,
        np.atleast_1d(scan.response.two_theta_rad).astype(float) if saxs else np.zeros(1),
        extras,
    )
    write_mumott_file(path, contents)


def _to_write(array: Any) -> Any:
    """What is on the disk is copied view by view."""
    return array if isinstance(array, Streamed) else as_numpy(array)
