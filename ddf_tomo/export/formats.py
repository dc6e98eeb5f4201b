"""Which format a file is written in."""

from __future__ import annotations

import os
from types import MappingProxyType

from ddf_tomo._checks import choice, file_path, message

FORMATS = MappingProxyType({"hdf5": (".h5", ".hdf5", ".nxs"), "vti": (".vti",), "xdmf": (".xdmf",), "mumott": ()})
"""Suffixes that choose a format by themselves; MUMOTT's, which is HDF5 too, has to be asked for by its name."""


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format that was asked for, or the one that the suffix of the file says.

    Parameters
    ----------
    path
        Of the file.
    format : optional
        One of `FORMATS`.

    Raises
    ------
    ValueError
        If there is no format of that name or suffix.

    Examples
    --------
    >>> format_of("volume.vti"), format_of("volume.h5", "mumott")
    ('vti', 'mumott')
    """
    suffix = file_path(path).suffix.lower()
    if format is not None:
        return choice(format, "format", list(FORMATS))
    found = [name for name, suffixes in FORMATS.items() if suffix in suffixes]
    if not found:
        possible = ", ".join(end for ends in FORMATS.values() for end in ends)
        names = ", ".join(map(repr, FORMATS))
        raise ValueError(
            message("path", f"a name that ends in {possible}", repr(os.fspath(path)), f"Or format: {names}")
        )
    return found[0]
