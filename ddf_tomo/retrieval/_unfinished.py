"""Maps of the views that are done, in a file that a retrieval which was interrupted goes on from.

The HDF5 file is laid out once, with room for all views in contiguous datasets, and renamed when that is complete. From
then on numbers are written to their places in it, first a view's maps, then the mark that says so: nothing of the
file's structure changes any more, so that it is never found broken, whenever the process ends.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import FileFormatError, file_path, message
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo.retrieval._tiles import Mosaic
from ddf_tomo.retrieval.maps import AXES

LAYOUT = "ddf_tomo unfinished maps 1"
MARKS = "inputs"  # the name of the dataset of marks
MARK_BYTES = 16


def mark_of(settings: Mapping[str, Any], *arrays: Any) -> bytes:
    """What tells the input of one view from any other: a hash of all its numbers and settings."""
    found = hashlib.blake2b(repr(sorted(settings.items(), key=str)).encode(), digest_size=MARK_BYTES)
    for array in arrays:
        value = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
        found.update(f"{value.dtype.str} {value.shape}".encode())
        found.update(np.ascontiguousarray(value).data)
    return found.digest()


class Unfinished:
    """The file at ``path``, or nothing for ``None``."""

    def __init__(self, path: Any, mosaic: Mosaic, device: torch.device) -> None:
        self.path: Path | None = None if path is None else file_path(path, "checkpoint")
        self.mosaic, self.device = mosaic, device
        self.places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        if self.path is None:
            return
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ValueError(message("checkpoint", "a file, or a name for one in an existing folder", str(self.path)))
        if self.path.exists():
            self._open()

    def _open(self) -> None:
        """Where everything is in the file."""
        assert self.path is not None
        with reading_hdf5(self.path, "unfinished maps") as file:
            header = read_header(file, LAYOUT)
            for name in file:
                if name == "ddf_tomo":
                    continue
                place, shape = file[name].id.get_offset(), tuple(int(n) for n in file[name].shape)
                if place is None or not shape:
                    raise FileFormatError(message("checkpoint", "contiguous datasets", f"{name!r} is none"))
                self.places[name] = place, np.dtype(file[name].dtype), shape
        if self.places.get(MARKS, (0, None, ()))[2] != (self.mosaic.size[0], MARK_BYTES):
            found = f"{self.path}, of {self.places.get(MARKS, (0, 0, (0,)))[2][0]} views"
            raise ValueError(message("checkpoint", f"a file for {self.mosaic.size[0]} views", found))
        for name, (_, _, shape) in self.places.items():
            if name != MARKS and shape[:3] != self.mosaic.size:
                raise ValueError(message("checkpoint", f"maps of shape {self.mosaic.size}", shape))
        for axis in AXES:
            value = header.get(axis)
            self.mosaic.axes[axis] = None if value is None else tuple(float(each) for each in value)

    def restore(self, view: int, mark: bytes) -> bool:
        """Fill the mosaic with a view's maps, if the file has them of this input."""
        if not self.places:
            return False
        assert self.path is not None
        with open(self.path, "rb") as file:
            if self._read(file, MARKS, view).tobytes() != mark:
                return False
            for name in self.places:
                if name != MARKS:
                    values = self._read(file, name, view)
                    found = torch.from_numpy(values.astype(bool if name == "valid" else values.dtype))
                    self.mosaic.room(name, found.shape[2:], found.dtype, self.device)[view] = found.to(self.device)
        return True

    def _read(self, file: BinaryIO, name: str, view: int) -> np.ndarray[Any, Any]:
        place, dtype, shape = self.places[name]
        count = int(np.prod(shape[1:]))
        file.seek(place + view * count * dtype.itemsize)
        found = file.read(count * dtype.itemsize)
        if len(found) < count * dtype.itemsize:
            raise FileFormatError(message("checkpoint", "a complete file", f"{self.path}, which ends early"))
        return np.frombuffer(found, dtype).reshape(shape[1:])

    def keep(self, view: int, mark: bytes) -> None:
        """Write a view's maps, and then its mark."""
        if self.path is None:
            return
        if not self.places:
            self._lay_out()
        with open(self.path, "rb+") as file:
            for name, value in self.mosaic.values.items():
                self._write(file, name, view, value[view].detach().cpu().numpy())
            file.flush()
            os.fsync(file.fileno())
            self._write(file, MARKS, view, np.frombuffer(mark, np.uint8))
            file.flush()
            os.fsync(file.fileno())

    def _write(self, file: BinaryIO, name: str, view: int, values: np.ndarray[Any, Any]) -> None:
        place, dtype, shape = self.places[name]
        file.seek(place + view * int(np.prod(shape[1:])) * dtype.itemsize)
        file.write(np.ascontiguousarray(values, dtype).tobytes())

    def _lay_out(self) -> None:
        """A file with room for all views, and no marks."""
        import h5py

        assert self.path is not None
        with replaced_when_complete(self.path) as partial, h5py.File(partial, "w") as file:
            write_header(file, {"layout": LAYOUT} | self.mosaic.axes)
            shapes = {name: (tuple(each.shape), each[:0].cpu().numpy().dtype) for name, each in self._maps().items()}
            for name, (shape, dtype) in (shapes | {MARKS: ((self.mosaic.size[0], MARK_BYTES), np.uint8)}).items():
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.CONTIGUOUS)
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # so that every place is fixed from now on
                kind = h5py.h5t.py_create(np.dtype(np.uint8) if np.dtype(dtype).kind == "b" else np.dtype(dtype))
                h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
            file[MARKS][...] = 0
        self._open()

    def _maps(self) -> dict[str, Tensor]:
        return {name: each.detach() for name, each in self.mosaic.values.items()}
