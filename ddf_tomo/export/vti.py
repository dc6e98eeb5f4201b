"""VTK's XML files of images (``.vti``), which ParaView, VisIt, 3D Slicer and PyVista open."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._files import replaced_when_complete
from ddf_tomo.export.arrays import SLAB_BYTES, components, kind_of, on_a_grid, planes

TYPES = {"f": "Float", "i": "Int", "u": "UInt"}
LEVEL = 1  # of compression: empty surroundings shrink at any, noise at none


def write_vti(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], spacing: float = 1.0) -> None:
    """Write arrays on a grid of voxels as a VTK image.

    The numbers stand at VTK's *points*, one at the centre of each voxel, where ParaView's glyphs look for them; the
    origin is the centre of the volume. The first array of one, three and nine numbers a voxel becomes the active
    scalars, vectors and tensors.

    Parameters
    ----------
    path
        File to write, whole or not at all.
    arrays
        By name: ``(x, y, z)``, several numbers a voxel ``(x, y, z, n)``, or tensors ``(x, y, z, 3, 3)``. Precision and
        integers are kept.
    spacing
        Edge of a voxel: in metres, or 1 for lengths in voxels.

    Raises
    ------
    TypeError, ValueError
        If these are no arrays on one grid, or values are not finite.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "ramp.vti"
    >>> write_vti(path, {"ramp": np.arange(24.0).reshape(2, 3, 4)}, spacing=1e-5)
    >>> path.read_bytes()[:21]
    b'<?xml version="1.0"?>'
    """
    checked, shape, spacing = on_a_grid(arrays, spacing)
    with replaced_when_complete(path) as partial, open(partial, "wb") as file:
        start = len(_header(checked, shape, spacing, {}))
        file.seek(start)
        offsets = {}
        for name, array in checked.items():
            offsets[name] = file.tell() - start
            _append(file, array)
        file.write(b"\n</AppendedData>\n</VTKFile>\n")
        file.seek(0)
        file.write(_header(checked, shape, spacing, offsets))


def _header(
    arrays: Mapping[str, NDArray[Any]], shape: tuple[int, ...], spacing: float, offsets: Mapping[str, int]
) -> bytes:
    """Everything before the data; always of the same length, whatever the offsets."""
    extent = " ".join(f"0 {n - 1}" for n in shape)
    origin = " ".join(repr((1 - n) / 2 * spacing) for n in shape)
    kinds = {kind: name for name, array in list(arrays.items())[::-1] if (kind := kind_of(array)) != "Several"}
    active = "".join(f' {kind}s="{name}"' for kind, name in kinds.items())
    lines = []
    for name, array in arrays.items():
        typed = f"{TYPES[array.dtype.kind]}{8 * array.dtype.itemsize}"
        offset = f'offset="{offsets.get(name, 0)}"'.ljust(32)
        count = f'NumberOfComponents="{components(array)}"'
        lines.append(f'        <DataArray type="{typed}" Name="{name}" {count} format="appended" {offset}/>')
    return "\n".join(
        [
            '<?xml version="1.0"?>',
            f'<VTKFile type="ImageData" version="1.0" byte_order="{sys.byteorder.capitalize()}Endian"'
            ' header_type="UInt64" compressor="vtkZLibDataCompressor">',
            f'  <ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing!r} {spacing!r} {spacing!r}">',
            f'    <Piece Extent="{extent}">',
            f"      <PointData{active}>",
            *lines,
            "      </PointData>",
            "      <CellData/>",
            "    </Piece>",
            "  </ImageData>",
            '  <AppendedData encoding="raw">',
            "_",
        ]
    ).encode()


def _append(file: IO[bytes], array: NDArray[Any]) -> None:
    """One array as VTK's compressed blocks: their number, their size, that of a shorter last one, and each one's
    compressed size, as unsigned 64-bit numbers; then the blocks."""
    plane = array[:, :, 0].nbytes
    step = max(1, SLAB_BYTES // plane)
    blocks, rest = divmod(array.shape[2], step)
    table = np.zeros(3 + blocks + (rest > 0), np.uint64)
    table[:3] = len(table) - 3, step * plane, rest * plane
    start = file.tell()
    file.write(table.tobytes())
    for n, slab in enumerate(planes(array, step)):
        block = zlib.compress(slab.data, LEVEL)
        table[3 + n] = len(block)
        file.write(block)
    end = file.tell()
    file.seek(start)
    file.write(table.tobytes())
    file.seek(end)
