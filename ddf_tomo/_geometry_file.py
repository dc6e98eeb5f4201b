"""A geometry in a group of an HDF5 file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ddf_tomo._files import read_header, reading_hdf5
from ddf_tomo.geometry import ARRAYS, Geometry

GROUP = "geometry"
SHAPES = ("volume_shape", "detector_shape")


def write_geometry(file: Any, geometry: Geometry) -> None:
    """Into the group ``geometry`` of an open file."""
    for name in ARRAYS:
        file[f"{GROUP}/{name}"] = getattr(geometry, name)
    for name in SHAPES:
        file[f"{GROUP}/{name}"] = np.array(getattr(geometry, name))


def read_geometry(file: Any) -> Geometry:
    """Out of the group ``geometry`` of an open file; shapes may stand in its header, as with simulated frames."""
    header = read_header(file)
    shapes: list[Any] = [header[s] if s in header else file[f"{GROUP}/{s}"][()] for s in SHAPES]
    vectors: Any = (file[f"{GROUP}/{name}"][()] for name in ARRAYS)
    return Geometry(*vectors, *shapes)


def geometry_of_file(path: str | os.PathLike[str]) -> Geometry:
    """Of any file that holds one: maps of a scan, a reconstruction, what an alignment wrote."""
    with reading_hdf5(path, "a geometry") as file:
        return read_geometry(file)
