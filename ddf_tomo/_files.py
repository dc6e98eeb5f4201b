"""Files that are either whole or not there, and HDF5 files that say what they are."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import sys
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo._checks import FileFormatError, file_path, message

HEADER = "ddf_tomo"
"""Name of the entry that says what a file is."""


_writing: set[Path] = set()  # partial files of this process
_writing_lock = threading.Lock()


@contextmanager
def replaced_when_complete(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` on success and vanishes on failure.

    The contents reach the disk before the name changes, so that a power cut leaves the old file or the whole new one.
    What a killed process left behind is removed by the next one that writes to the same path.

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
    target = target.parent.resolve() / target.name
    place = target.parent
    with _writing_lock:
        remove_leftovers(target)
        names = (f".{target.name}.{_machine()}.{os.getpid()}.{n}.part" for n in range(sys.maxsize))
        partial = next(place / name for name in names if place / name not in _writing)
        _writing.add(partial)
    try:
        yield partial
        _flush(partial)
        os.replace(partial, target)
        _flush_folder(place)
    finally:
        partial.unlink(missing_ok=True)
        _writing.discard(partial)


def _machine() -> str:
    """Where process numbers are comparable: this machine and, in containers, its space of process numbers."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


def remove_leftovers(path: Path) -> None:
    """Remove partial files of this path whose process, on this machine, is no longer there."""
    pattern = re.compile(re.escape(f".{path.name}.{_machine()}.") + r"(\d{1,9})\.\d+\.part")
    with suppress(OSError):  # a folder that may not be listed, a file that may not be removed
        for found in filter(None, map(pattern.fullmatch, os.listdir(path.parent))):
            process, leftover = int(found[1]), path.parent.resolve() / found[0]
            if leftover not in _writing if process == os.getpid() else not _alive(process):
                leftover.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether there is a process of this number; in doubt, there is."""
    if sys.platform == "win32":  # where signal 0 would be Ctrl+C
        import ctypes

        kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = kernel.OpenProcess(0x1000, False, process)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return ctypes.get_last_error() != 87  # ERROR_INVALID_PARAMETER: no such process
        code = ctypes.c_ulong()
        running = not kernel.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value == 259  # STILL_ACTIVE
        kernel.CloseHandle(handle)
        return bool(running)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until a file is on the disk, where its file system can tell."""
    with open(path, "rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def _flush_folder(folder: Path) -> None:
    """Wait until a folder's new names are on the disk; Windows opens no folders, and does so by itself."""
    if sys.platform == "win32":
        return
    with suppress(OSError):  # not every file system can; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_header(file: Any, contents: Mapping[str, Any]) -> None:
    """Store texts and numbers in an open HDF5 file, as JSON of fixed length.

    HDF5 2.0 crashes the process on damaged texts of variable length, which attributes would be.

    Raises
    ------
    TypeError
        If JSON cannot hold something of it.
    """
    try:
        text = json.dumps(dict(contents))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(message(HEADER, "texts, numbers, lists and mappings, as JSON holds them", error)) from error
    file[HEADER] = np.bytes_(text.encode())


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
