"""Names of files with ``{view}``, ``{distance}``, ``{step}`` in place of numbers, and what on the disk matches them."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddf_tomo._checks import FileFormatError, message

AXES = ("view", "distance", "step")
FIELD = re.compile(r"\{(\w*)(?::[^{}]*)?\}")
HDF5 = re.compile(r"(.+?\.(?:h5|hdf5|hdf|nxs|nx)):{1,2}/?(.*)", re.IGNORECASE)
Cell = tuple[int, ...]


class Pattern:
    """A name of files, and of a dataset inside them, with numbers left open.

    Parameters
    ----------
    text : str
        ``"folder/view_{view:04d}.h5:/entry/{step}/data"``; in the file's name ``*`` stands for anything, and so does
        ``{repeat}``.
    argument : str
        What errors call it.
    folder : Path
        Where relative names start.

    Examples
    --------
    >>> Pattern("v{view}_s{step:02d}.tif", "sample", Path(".")).of_file
    ('view', 'step')
    """

    def __init__(self, text: str, argument: str, folder: Path) -> None:
        found = HDF5.fullmatch(text)
        self.text, self.argument, self.folder = text, argument, folder
        self.file: str = found[1] if found else text
        self.dataset: str | None = "/" + found[2] if found else None
        for name in FIELD.findall(text):
            if name not in (*AXES, "repeat"):
                raise ValueError(message(argument, "{view}, {distance}, {step} or {repeat} in braces", f"{{{name}}}"))
        self.of_file = self._axes(self.file)
        self.of_dataset = self._axes(self.dataset or "")
        both = set(self.of_file) & set(self.of_dataset)
        if both or "{repeat" in (self.dataset or ""):
            raise ValueError(message(argument, "each placeholder in the file's name or in the dataset's", repr(text)))

    @staticmethod
    def _axes(text: str) -> tuple[str, ...]:
        return tuple(axis for axis in AXES if axis in FIELD.findall(text))

    def files(self) -> dict[Cell, list[Path]]:
        """Files on the disk by their numbers, in the order of `of_file`; several where ``*`` or ``{repeat}`` is.

        Raises
        ------
        FileNotFoundError
            If there are none.
        FileFormatError
            If several stand for the same numbers.
        """
        name = (self.folder / self.file).as_posix()
        inside = Path(self.file).as_posix()
        before = name.removesuffix(inside)  # of the folder, whose name may hold anything
        pieces = re.split(r"(\{[^{}]*\}|\*)", inside)
        wide, exact, seen = glob.escape(before), re.escape(before), set()
        for piece in pieces:
            axis = FIELD.fullmatch(piece)
            if axis is None and piece != "*":
                wide, exact = wide + glob.escape(piece), exact + re.escape(piece)
                continue
            wide += "*"
            if axis is None or axis[1] == "repeat":
                exact += "[^/]*"
            else:
                exact += f"(?P={axis[1]})" if axis[1] in seen else rf"(?P<{axis[1]}>\d+)"
                seen.add(axis[1])
        found: dict[Cell, list[Path]] = {}
        for file in sorted(glob.glob(wide), key=_natural):
            match = re.fullmatch(exact, Path(file).as_posix())
            if match and Path(file).is_file():
                found.setdefault(tuple(int(match[axis]) for axis in self.of_file), []).append(Path(file))
        if not found:
            raise FileNotFoundError(message(self.argument, "existing files", f"none like {name!r}"))
        if not self.repeats:
            twice = next((files for files in found.values() if len(files) > 1), None)
            if twice:
                names = " and ".join(file.name for file in twice[:2])
                raise FileFormatError(message(self.argument, "one file for each number", names))
        return found

    @property
    def repeats(self) -> bool:
        """Whether frames of several files are averaged."""
        return "*" in self.file or "repeat" in FIELD.findall(self.file)

    def dataset_of(self, numbers: Mapping[str, int]) -> str | None:
        """Name of the dataset for some numbers."""
        if self.dataset is None or self.dataset == "/":
            return None

        def number(field: Any) -> str:
            inside = field[0][1:-1].partition(":")[2]
            try:
                return format(numbers[field[1]], inside)
            except ValueError as error:
                raise ValueError(
                    message(self.argument, "a format of whole numbers such as {view:04d}", field[0])
                ) from error

        return FIELD.sub(number, self.dataset)


def _natural(name: str) -> list[Any]:
    """Numbers in names count as numbers: 10 comes after 9."""
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"(\d+)", name)]


def numbers_of(axis: str, found: set[int], count: int | None, given: Any, argument: str) -> list[int]:
    """Numbers along an axis: those given, else those found, if as many as there should be.

    Raises
    ------
    ValueError
        If there are more or fewer, and it is not plain which are missing.
    """
    if given is not None:
        if count not in (None, len(given)):
            raise ValueError(message(argument, f"{count} numbers of {axis}s", len(given)))
        return list(given)
    numbers = sorted(found)
    if count in (None, len(numbers)):
        return numbers
    assert count is not None
    first, last = numbers[0], numbers[-1]
    if len(numbers) < count == last - first + 1:
        return list(range(first, last + 1))
    hint = f"[numbers] {axis} says which there are"
    raise ValueError(message(argument, f"files of {count} {axis}s", f"{len(numbers)}, {first} to {last}", hint))
