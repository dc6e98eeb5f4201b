"""Arrays on a grid of voxels, as VTK and XDMF take them: x fastest, several numbers a voxel last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_shape, message, number, of_kind, real_array
from ddf_tomo.derived import Derived
from ddf_tomo.operators.rank_two import POSITIONS

SLAB_BYTES = 2**22
KEPT = tuple(map(np.dtype, ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32")))


def display_arrays(derived: Derived, coefficients: ArrayLike | None = None) -> dict[str, NDArray[Any]]:
    """What one looks at in ParaView, in single precision, by name.

    Parameters
    ----------
    derived
        Quantities of a volume.
    coefficients : (x, y, z, K), optional
        To go with them.

    Returns
    -------
    dict
        Scalars ``(x, y, z)``, ``direction`` ``(x, y, z, 3)``, ``direction_colour`` ``(x, y, z, 3)`` in 0 … 255,
        ``power`` ``(x, y, z, ℓ_max/2 + 1)``, ``tensor`` ``(x, y, z, 3, 3)``.

    Examples
    --------
    >>> from ddf_tomo.derived import derive
    >>> display_arrays(derive(np.ones((2, 3, 4, 6))))["tensor"].shape
    (2, 3, 4, 3, 3)
    """
    of_kind(Derived, derived, "derived")
    names = ("mean", "fractional_anisotropy", "relative_anisotropy", "order_parameter", "standard_deviation")
    arrays: dict[str, Any] = {name: getattr(derived, name) for name in names}
    arrays |= {"direction": derived.direction, "power": derived.power}
    singles = {name: single(array) for name, array in arrays.items()}
    others = {"valid": derived.valid.astype(np.uint8), "direction_colour": derived.colour()}
    tensor = single(derived.tensor)[..., POSITIONS].reshape(*derived.mean.shape, 3, 3)
    volume = {}
    if coefficients is not None:
        volume["coefficients"] = single(real_array(coefficients, "coefficients", (*derived.mean.shape, None)))
    return singles | others | {"tensor": tensor} | volume


def single(array: ArrayLike) -> NDArray[np.float32]:
    """In single precision; what lies beyond its range becomes its largest number.

    Parameters
    ----------
    array
        Real numbers of any shape.

    Raises
    ------
    TypeError, ValueError
        If these are no real numbers.

    Examples
    --------
    >>> bool(np.isfinite(single(np.array([1e300]))).all())
    True
    """
    if type(array) is not np.ndarray or array.dtype not in (np.float32, np.float64):
        array = real_array(array, "array")
    largest = np.finfo(np.float32).max
    return array if array.dtype == np.float32 else np.clip(array, -largest, largest).astype(np.float32)


def on_a_grid(arrays: Any, spacing: Any) -> tuple[dict[str, NDArray[Any]], tuple[int, ...], float]:
    """The arrays checked, their common grid ``(x, y, z)``, and the spacing.

    Tensors ``(x, y, z, 3, 3)`` come back with their nine numbers last; booleans as 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If they are no arrays on one grid, or a name is not made of letters, digits and the like.
    """
    of_kind(Mapping, arrays, "arrays", "a mapping of names to arrays")
    if not arrays:
        raise ValueError(message("arrays", "at least one array", "none"))
    checked = {}
    for name, values in arrays.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w .+-]*", name):
            raise ValueError(message("arrays", "names of letters, digits, spaces, '.', '+', '-', '_'", repr(name)))
        checked[name] = _one(values, f"arrays[{name!r}]")
    shape = next(iter(checked.values())).shape[:3]
    for name, array in checked.items():
        check_shape(array.shape[:3], f"arrays[{name!r}] (first three axes)", shape)
    return checked, shape, number(spacing, "spacing", low=0, low_open=True)


def _one(values: Any, argument: str) -> NDArray[Any]:
    if type(values) is np.ndarray and values.dtype == bool:
        values = values.astype(np.uint8)
    kept = type(values) is np.ndarray and values.dtype in KEPT
    array = values if kept else real_array(values, argument)
    if kept and not np.isfinite(array).all():
        raise ValueError(message(argument, "finite values", "NaN or infinite ones"))
    if array.ndim == 5 and array.shape[3:] == (3, 3):
        array = array.reshape(*array.shape[:3], 9)
    if array.ndim not in (3, 4) or not array.size:
        raise ValueError(message(argument, "a shape (x, y, z), (x, y, z, n) or (x, y, z, 3, 3)", np.shape(values)))
    return array


def kind_of(array: NDArray[Any]) -> str:
    """What the numbers of a voxel are: "Scalar", "Vector", "Tensor", or "Several"."""
    return {1: "Scalar", 3: "Vector", 9: "Tensor"}.get(components(array), "Several")


def components(array: NDArray[Any]) -> int:
    """Numbers a voxel."""
    return 1 if array.ndim == 3 else array.shape[3]


def planes(array: NDArray[Any], step: int) -> Iterator[NDArray[Any]]:
    """Slabs of ``step`` planes, ``(z, y, x[, n])``, C-contiguous: x fastest."""
    axes = (2, 1, 0, 3)[: array.ndim]
    for start in range(0, array.shape[2], step):
        yield np.ascontiguousarray(array[:, :, start : start + step].transpose(axes))
