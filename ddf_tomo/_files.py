"""Files that are either whole or not there, and HDF5 files that say what they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo._checks import FileFormatError, file_path, message

HEADER = "ddf_tomo"
"""Name of the entry that says what a file is."""


@contextmanager
def replaced_when_complete(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` on success and vanishes on failure.

    Raises
    ------
    TypeError, ValueError
        If this is no path of a file.
    FileNotFoundError
        If its folder does not exist.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replaced_when_complete(folder / "note.txt") as partial:
    ...     _ = partial.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    target = file_path(path)
    if target.is_dir():
        raise ValueError(message("path", "a file name", f"the folder {str(target)!r}"))
    if not target.parent.is_dir():
        raise FileNotFoundError(message("path", "a file in an existing folder", repr(str(target))))
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_header(file: Any, contents: Mapping[str, Any]) -> None:
    """Store texts and numbers in an open HDF5 file, as JSON of fixed length.

    HDF5 2.0 crashes the process on damaged texts of variable length, which attributes would be.
    """
    file[HEADER] = np.bytes_(json.dumps(dict(contents)).encode())


def read_header(file: Any, layout: str | None = None) -> dict[str, Any]:
    """What `write_header` stored, or nothing; with ``layout``, its entry of that name must be this one.

    Raises
    ------
    FileFormatError
        If the header is damaged, or that of another layout.
    """
    stored = file.get(HEADER)
    if stored is None and layout is None:
        return {}
    if getattr(stored, "shape", None) != () or stored.dtype.kind != "S":
        raise FileFormatError(message(HEADER, "a text of fixed length", repr(stored)))
    try:
        header = json.loads(stored[()])
    except ValueError as error:
        raise FileFormatError(message(HEADER, "a text in JSON", error)) from error
    if not isinstance(header, dict):
        raise FileFormatError(message(HEADER, "a JSON object", type(header).__name__))
    if layout is not None and header.get("layout") != layout:
        raise FileFormatError(message("layout", repr(layout), repr(header.get("layout"))))
    return header


@contextmanager
def reading_hdf5(path: str | os.PathLike[str], what: str) -> Iterator[Any]:
    """An HDF5 file open for reading; whatever goes wrong inside is a `FileFormatError` that names the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is no HDF5 file, or reading from it fails.
    """
    import h5py

    if not file_path(path).is_file():
        raise FileNotFoundError(message("path", "an existing file", os.fspath(path)))
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError) as error:
        raise FileFormatError(message("path", f"a complete file of {what}", f"{os.fspath(path)}: {error}")) from error
