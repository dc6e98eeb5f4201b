"""One door for all formats: a file becomes a stack of frames that are read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, choice, file_path, message, neighbour
from ddf_tomo._files import reading_hdf5
from ddf_tomo._streamed import Streamed
from ddf_tomo.readers.layouts import KEYS, find_layout

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")


class Stack(NamedTuple):
    """Frames of a file; made by `open_frames`.

    Attributes
    ----------
    frames : (frame, row, column)
        Read from the disk when they are indexed.
    axes : tuple of int
        Lengths of the axes in front of row and column in the file, whose product is the number of frames.
    """

    frames: Streamed
    axes: tuple[int, ...]


def open_frames(path: str | os.PathLike[str], dataset: str | None = None, *, kind: str = "sample") -> Stack:
    """Frames of a file, by its suffix: ``.tif``, ``.tiff``, ``.edf``, ``.npy``, or HDF5.

    Parameters
    ----------
    path
        The file.
    dataset
        In HDF5: name of a dataset ``(..., row, column)``, or of a group to look in. By default the whole file is looked
        through, see `find_layout`.
    kind
        In NXtomo and DataExchange files: ``"sample"``, ``"reference"`` (flat field: frames without the sample) or
        ``"dark"``. Elsewhere there is one kind.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it cannot be read as what its suffix says, or holds no such frames.
    ImportError
        If the package that reads the format is missing: tifffile, fabio.

    Examples
    --------
    >>> from ddf_tomo.datasets import data_path
    >>> stack = open_frames(data_path("tooth.h5"), kind="dark")
    >>> stack.axes, stack.frames[0].shape
    ((10,), (2, 640))
    """
    file = file_path(path)
    choice(kind, "kind", tuple(KEYS))
    if not file.is_file():
        raise FileNotFoundError(message("path", "an existing file", repr(str(file))))
    suffix = next((suffix for suffix in FORMATS if file.name.lower().endswith(suffix)), "")
    if not suffix:
        raise FileFormatError(message("path", "a file named " + ", ".join(FORMATS), repr(str(file))))
    if dataset is not None and suffix not in HDF5_SUFFIXES:
        raise FileFormatError(message("dataset", "none, because only HDF5 files have names inside", repr(dataset)))
    return FORMATS[suffix](file, dataset, kind)


def _hdf5(path: Path, dataset: str | None, kind: str) -> Stack:
    layout = find_layout(path, dataset)
    name, places = layout.of_kind(kind)
    with reading_hdf5(path, "frames") as file:
        found = file[name]
        axes, image, dtype = found.shape[:-2], found.shape[-2:], found.dtype
    count = math.prod(axes)
    if places is not None:
        count, axes = len(places), (len(places),)
    if not count or 0 in image:
        raise FileFormatError(message("path", f"{kind} frames", f"none in {path}:{name}"))

    def read(indices: NDArray[np.intp]) -> NDArray[Any]:
        wanted = indices if places is None else places[indices]
        frames = np.empty((len(indices), *image), dtype)
        with reading_hdf5(path, "frames") as file:
            stored = file[name]
            for target, place in zip(frames, wanted, strict=True):
                target[...] = stored[np.unravel_index(place, stored.shape[:-2])] if stored.ndim > 2 else stored[()]
        return frames

    return _stack(path, axes, image, dtype, read)


def _tiff(path: Path, dataset: str | None, kind: str) -> Stack:
    tifffile = neighbour("tifffile")

    def look() -> tuple[Any, ...]:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if series.axes.endswith("S") or len(series.shape) < 2:
                raise ValueError(f"axes {series.axes}: expected images in shades of grey")
            return series.shape[:-2], series.shape[-2:], series.dtype, len(series.pages) == math.prod(series.shape[:-2])

    axes, image, dtype, by_page = _foreign(path, look)

    def read(indices: NDArray[np.intp]) -> NDArray[Any]:
        def pages() -> NDArray[Any]:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                if by_page:
                    return np.stack([series.pages[int(index)].asarray() for index in indices])
                return series.asarray().reshape(-1, *image)[indices]

        return np.asarray(_foreign(path, pages), dtype)

    return _stack(path, axes, image, dtype, read)


def _edf(path: Path, dataset: str | None, kind: str) -> Stack:
    fabio = neighbour("fabio")

    def look() -> tuple[Any, ...]:
        with fabio.open(str(path)) as file:
            return int(file.nframes), file.data.shape, file.data.dtype

    count, image, dtype = _foreign(path, look)

    def read(indices: NDArray[np.intp]) -> NDArray[Any]:
        def frames() -> NDArray[Any]:
            with fabio.open(str(path)) as file:
                return np.stack([file.get_frame(int(index)).data for index in indices])

        return np.asarray(_foreign(path, frames), dtype)

    return _stack(path, (count,), image, dtype, read)


def _numpy(path: Path, dataset: str | None, kind: str) -> Stack:
    def look() -> NDArray[Any]:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    array = _foreign(path, look)
    if not isinstance(array, np.ndarray) or array.ndim < 2:
        raise FileFormatError(message("path", "an array (..., row, column)", repr(str(path))))
    axes, image, dtype = array.shape[:-2], array.shape[-2:], array.dtype
    return _stack(path, axes, image, dtype, lambda indices: _foreign(path, look).reshape(-1, *image)[indices])


FORMATS: dict[str, Callable[[Path, str | None, str], Stack]] = {
    ".tif": _tiff,
    ".tiff": _tiff,
    ".edf": _edf,
    ".npy": _numpy,
    **dict.fromkeys(HDF5_SUFFIXES, _hdf5),
}


def _stack(path: Path, axes: Sequence[int], image: Sequence[int], dtype: Any, read: Callable[[Any], Any]) -> Stack:
    count = math.prod(axes)
    if np.dtype(dtype).kind not in "uif" or not count or 0 in image or len(image) != 2:
        found = f"{tuple(axes)} frames of shape {tuple(image)}, {dtype}, in {path}"
        raise FileFormatError(message("path", "frames of real numbers", found))

    def whole(indices: NDArray[np.intp]) -> NDArray[Any]:
        frames = read(indices)
        if frames.shape != (len(indices), *image):
            raise FileFormatError(message(str(path), f"frames of shape {tuple(image)}", frames.shape[1:]))
        return frames

    return Stack(Streamed((count, *image), dtype, whole), tuple(axes))


def _foreign(path: Path, read: Callable[[], Any]) -> Any:
    """What another package reads; whatever it raises on damaged files becomes one error that names the file."""
    try:
        return read()
    except Exception as error:  # packages for file formats raise anything
        raise FileFormatError(message("path", f"a whole {path.suffix} file", f"{path}: {error}")) from error
