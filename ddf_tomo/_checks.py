"""Checks of user input, written for the person who made the mistake.

Every message names the argument, what was expected and what came. Checks return the cleaned value, so that a
constructor reads as a list of what it accepts.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

INSTALL_LINES = {
    "mumott": 'pip install "mumott>=2.3" "matplotlib<3.9"',
    "astra": "pip install astra-toolbox",
    "tomosipo": "pip install git+https://github.com/cicwi/tomosipo",
    "deepinv": "pip install deepinv",
    "triton": 'pip install "triton>=3"',
    "matplotlib": "pip install matplotlib",
    "skimage": "pip install scikit-image",
    "tifffile": "pip install tifffile",
    "fabio": "pip install fabio",
    "xraydb": "pip install xraydb",
}

LARGEST_SEED = 2**63 - 1
MOST_ITERATIONS = 10_000  # far more than any method here needs, and an end for a slip of the keyboard

# What conversions to numbers raise; the last one is torch's.
NOT_NUMBERS = (TypeError, ValueError, OverflowError, RuntimeError)


class FileFormatError(ValueError):
    """A file that is truncated, foreign, or lacks what its layout requires."""


def message(argument: str, expected: str, found: object, hint: str = "") -> str:
    """The one form of every error message: ``argument: expected ..., got ... (hint)``."""
    text = f"{argument}: expected {expected}, got {found}"
    return f"{text}. {hint}" if hint else text


def real_array(
    value: ArrayLike,
    argument: str,
    shape: Sequence[int | None] | None = None,
    *,
    finite: bool = True,
    dtype: type = np.float64,
) -> NDArray[Any]:
    """A real, finite array of the given shape (``None`` matches any length); always a copy of the caller's data."""
    try:
        if hasattr(value, "numpy"):  # tensors: numpy's own way in warns from torch's missing keyword
            value = value.numpy()
        is_complex = np.iscomplexobj(value)
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is told below
            array: NDArray[Any] = np.array(() if is_complex else value, dtype=dtype, order="C")
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, "real numbers in a regular array", type(value).__name__)) from error
    if is_complex:
        raise TypeError(message(argument, "real numbers", "complex numbers"))
    if shape is not None:
        check_shape(array.shape, argument, shape)
    if finite and not np.isfinite(array).all():
        raise ValueError(message(argument, "finite values", f"{np.count_nonzero(~np.isfinite(array))} NaN or infinite"))
    return array


def check_shape(found: Sequence[int], argument: str, expected: Sequence[int | None]) -> None:
    """Raise ``ValueError`` unless ``found`` has the ``expected`` lengths (``None`` matches any)."""
    matches = len(found) == len(expected) and all(e is None or e == f for e, f in zip(expected, found, strict=True))
    if not matches:
        wanted = "(" + ", ".join("any" if e is None else str(e) for e in expected) + ")"
        raise ValueError(message(argument, f"shape {wanted}", tuple(found)))


def check_broadcast(first: Sequence[int], second: Sequence[int], argument: str) -> None:
    """Raise ``ValueError`` unless the shapes, the second one of the ``argument``, can be stretched to one."""
    try:
        np.broadcast_shapes(tuple(first), tuple(second))
    except ValueError as error:
        raise ValueError(message(argument, f"a shape that broadcasts against {tuple(first)}", tuple(second))) from error


def size_tuple(value: Any, argument: str, length: int) -> tuple[int, ...]:
    """A tuple of ``length`` positive integers, from integers or integral floats (as HDF5 files hold them)."""
    expected = f"{length} positive integers"
    try:
        entries = [float(entry) for entry in np.asarray(value).ravel().tolist()]
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, expected, repr(value))) from error
    if len(entries) != length or not all(math.isfinite(e) and e == int(e) and e > 0 for e in entries):
        raise ValueError(message(argument, expected, value))
    return tuple(int(e) for e in entries)


def number(
    value: Any,
    argument: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
) -> float:
    """A finite real number in ``[low, high]`` (``(low, high]`` with ``low_open``)."""
    bracket = f"a finite number in {'(' if low_open else '['}{low}, {high}]"
    try:
        result = float(_scalar(value))
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, bracket, repr(value))) from error
    if not math.isfinite(result) or result > high or result < low or (low_open and result == low):
        raise ValueError(message(argument, bracket, value))
    return result


def integer(value: Any, argument: str, *, low: int = 0, high: int | None = None) -> int:
    """An integer in ``[low, high]``; integral floats and numpy integers are accepted, booleans are not."""
    expected = f"an integer in [{low}, {'∞' if high is None else high}]"
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(message(argument, expected, repr(value)))
    try:
        entry = _scalar(value)
        whole = int(entry)
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, expected, repr(value))) from error
    if whole != entry or whole < low or (high is not None and whole > high):
        raise ValueError(message(argument, expected, value))
    return whole


def even_order(value: Any, argument: str = "ell_max", *, high: int = 32) -> int:
    """An even spherical-harmonic order; odd ones vanish for a scattering function that is the same along ±q."""
    order = integer(value, argument, low=0, high=high)
    if order % 2:
        raise ValueError(message(argument, "an even order", order, "f(q) = f(-q) has even orders only"))
    return order


def choice(value: Any, argument: str, options: Sequence[str]) -> str:
    """One of the named options."""
    if not isinstance(value, str) or value not in options:  # comparing an array with a text gives an array
        raise ValueError(message(argument, "one of " + ", ".join(map(repr, options)), repr(value)))
    return str(value)


def flag(value: Any, argument: str) -> bool:
    """True or False; arrays and texts, which Python would take for either, are refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(message(argument, "True or False", repr(value)))
    return bool(value)


def angular_response(value: Any, argument: str = "response") -> Any:
    """The value itself, if it is an object (not a class) with ``matrix(geometry, ell_max)``."""
    if isinstance(value, type) or not callable(getattr(value, "matrix", None)):
        raise TypeError(message(argument, "an angular response such as SaxsResponse(...)", repr(value)))
    return value


def dense(tensor: Any, argument: str) -> Any:
    """The tensor itself, if it holds one number for each entry: sparse and "meta" ones do not."""
    if tensor.is_meta or str(tensor.layout) != "torch.strided":
        found = "one on the device 'meta'" if tensor.is_meta else f"one of layout {tensor.layout}"
        raise TypeError(message(argument, "a dense tensor that holds numbers", found))
    return tensor


def file_path(value: Any, argument: str = "path") -> Path:
    """The path of a file, from a text or a path."""
    expected = "the path of a file"
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(message(argument, expected, repr(value)))
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(message(argument, expected, repr(text)))
    return Path(text)


def sequence_of(kind: type, values: Any, argument: str) -> list[Any]:
    """A list of at least one object, all of one kind."""
    expected = f"at least one {kind.__name__}, and nothing else"
    try:
        entries = list(values)
    except TypeError as error:
        raise TypeError(message(argument, expected, type(values).__name__)) from error
    if not entries:
        raise ValueError(message(argument, expected, "none"))
    for entry in entries:
        of_kind(kind, entry, argument, expected)
    return entries


def of_kind(kind: type, value: Any, argument: str, expected: str = "") -> None:
    """Raise ``TypeError`` unless ``value`` is of the kind."""
    if not isinstance(value, kind):
        raise TypeError(message(argument, expected or f"a {kind.__name__}", type(value).__name__))


def neighbour(module: str) -> ModuleType:
    """Import an optional neighbour, or say which line installs it."""
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # the latter of a torchvision that was built for another torch
        line = INSTALL_LINES[module.partition(".")[0]]
        raise ImportError(
            f"this needs {module.partition('.')[0]}, which is not usable here: {error}\n  {line}"
        ) from error


def _scalar(value: Any) -> Any:
    """Python's own number: its conversions refuse complex numbers, numpy's drop the imaginary part."""
    return value.item() if hasattr(value, "item") else value
