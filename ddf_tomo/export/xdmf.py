"""XDMF: a text that tells ParaView and VisIt how to read an HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import FileFormatError, file_path, message
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo.export.arrays import components, kind_of, on_a_grid, planes

GROUP = "display"
LAYOUT = "ddf_tomo arrays 1"
MARK = "written by ddf_tomo"
TYPES = {"f": "Float", "i": "Int", "u": "UInt"}
CHUNK = 256  # voxels along y and x


def write_xdmf(
    path: str | os.PathLike[str],
    arrays: Mapping[str, ArrayLike],
    spacing: float = 1.0,
    *,
    contents: Callable[[Any], None] | None = None,
) -> None:
    """Write arrays on a grid of voxels as a pair of files: ``.xdmf``, which is to be opened, and ``.h5`` beside it.

    XDMF's axes are (z, y, x), whose arrays are stored in the group ``display`` for that reason. As in a `write_vti`
    file, numbers stand at the centres of the voxels and the origin is the centre of the volume.

    Both files are complete before either gets its name, and an older ``.xdmf`` is gone before its ``.h5`` is replaced:
    whatever happens, an ``.xdmf`` describes the file beside it.

    Parameters
    ----------
    path
        Of the text, ending in ``.xdmf``.
    arrays, spacing
        As in `write_vti`.
    contents : optional
        Called with the open HDF5 file, to store more in it.

    Raises
    ------
    TypeError, ValueError
        If these are no arrays on one grid, values are not finite, or the ``.h5`` beside the path holds something else,
        which would be lost.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_xdmf(folder / "ramp.xdmf", {"ramp": np.arange(24.0).reshape(2, 3, 4)})
    >>> sorted(file.name for file in folder.iterdir())
    ['ramp.h5', 'ramp.xdmf']
    """
    import h5py

    target = file_path(path)
    if target.suffix.lower() != ".xdmf":
        raise ValueError(message("path", "a name that ends in .xdmf", repr(str(target))))
    heavy = target.with_suffix(".h5")
    _refuse_to_overwrite(heavy)
    checked, shape, spacing = on_a_grid(arrays, spacing)
    with replaced_when_complete(target) as light_part, replaced_when_complete(heavy) as heavy_part:
        with h5py.File(heavy_part, "w") as file:
            if contents is None:
                write_header(file, {"layout": LAYOUT})
            else:
                contents(file)
            for name, array in checked.items():
                _store(file, name, array)
        light_part.write_text(_text(heavy.name, checked, shape, spacing), encoding="utf-8")
        target.unlink(missing_ok=True)


def is_our_xdmf(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file of this name, and `write_xdmf` wrote it.

    Parameters
    ----------
    path
        Of an ``.xdmf``.

    Examples
    --------
    >>> is_our_xdmf("nowhere.xdmf")
    False
    """
    try:
        with open(file_path(path), "rb") as file:
            return MARK.encode() in file.read(200)
    except OSError:
        return False


def _refuse_to_overwrite(heavy: Path) -> None:
    """The caller named the ``.xdmf`` only: measured data of the same name must not go."""
    if not heavy.exists():
        return
    try:
        with reading_hdf5(heavy, "arrays") as file:
            layout = str(read_header(file).get("layout"))
    except FileFormatError:
        layout = ""
    if layout != LAYOUT and not layout.startswith("ddf_tomo reconstruction"):
        hint = "It would be replaced: take another name"
        raise ValueError(message("path", f"a name whose {heavy.name!r} is free", "one that holds something else", hint))


def _store(file: Any, name: str, array: NDArray[Any]) -> None:
    x, y, z, *last = array.shape
    chunks = (1, min(y, CHUNK), min(x, CHUNK), *last)
    stored = file.create_dataset(
        f"{GROUP}/{name}", (z, y, x, *last), array.dtype, chunks=chunks, shuffle=True, compression=1
    )
    for n, plane in enumerate(planes(array, 1)):
        stored[n : n + 1] = plane


def _text(heavy: str, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], spacing: float) -> str:
    grid = " ".join(str(n) for n in shape[::-1])
    origin = " ".join(repr((1 - n) / 2 * spacing) for n in shape[::-1])
    attributes = []
    for name, array in arrays.items():
        kind = kind_of(array)
        number = "UChar" if array.dtype == "uint8" else "Char" if array.dtype == "int8" else TYPES[array.dtype.kind]
        dimensions = f"{grid} {components(array)}" if array.ndim == 4 else grid
        attributes += [
            # ParaView takes any number of components of a "Vector", and draws glyphs of those with three.
            f'      <Attribute Name="{name}" AttributeType="{"Vector" if kind == "Several" else kind}" Center="Node">',
            f'        <DataItem Dimensions="{dimensions}" NumberType="{number}" Precision="{array.dtype.itemsize}"'
            f' Format="HDF">{escape(heavy)}:/{GROUP}/{name}</DataItem>',
            "      </Attribute>",
        ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            f"<!-- {MARK} -->",
            '<Xdmf Version="2.0">',
            "  <Domain>",
            '    <Grid Name="volume" GridType="Uniform">',
            f'      <Topology TopologyType="3DCoRectMesh" Dimensions="{grid}"/>',
            '      <Geometry GeometryType="Origin_DxDyDz">',
            f'        <DataItem Dimensions="3" NumberType="Float" Precision="8" Format="XML">{origin}</DataItem>',
            f'        <DataItem Dimensions="3" NumberType="Float" Precision="8" Format="XML">'
            f"{spacing!r} {spacing!r} {spacing!r}</DataItem>",
            "      </Geometry>",
            *attributes,
            "    </Grid>",
            "  </Domain>",
            "</Xdmf>",
            "",
        ]
    )
