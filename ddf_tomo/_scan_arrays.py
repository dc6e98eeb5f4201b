"""Arrays of a scan, numpy or torch: cleaned, weighted, binned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ddf_tomo._checks import NOT_NUMBERS, dense, message
from ddf_tomo._mumott_file import MumottFile
from ddf_tomo._streamed import Streamed


def as_numpy(array: Any) -> np.ndarray:
    """A numpy array of a numpy array or tensor, sharing memory where it can; what is on the disk is read."""
    if isinstance(array, Streamed):
        return np.asarray(array)
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array


def floats(value: ArrayLike, argument: str, like: Any = None) -> Any:
    """A contiguous float32 or float64 array or tensor; other real types become float32, or the dtype of ``like``."""
    if isinstance(value, Streamed):
        return value if like is None or isinstance(like, Streamed) else floats(np.asarray(value), argument, like)
    if isinstance(value, torch.Tensor) or isinstance(like, torch.Tensor):
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(floats(value, argument).copy())
        if tensor.is_complex():
            raise TypeError(message(argument, "real numbers", str(tensor.dtype)))
        if isinstance(like, torch.Tensor):
            if isinstance(value, torch.Tensor) and tensor.device != like.device:
                raise ValueError(message(argument, f"the data's device {like.device}", tensor.device))
            return dense(tensor, argument).to(like).contiguous()
        if like is not None:
            return floats(as_numpy(dense(tensor, argument).double()), argument, like)
        tensor = dense(tensor, argument)
        return (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).contiguous()
    try:
        array = np.asarray(value)
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, "real numbers in a regular array", type(value).__name__)) from error
    if array.dtype.kind not in "biuf":
        raise TypeError(message(argument, "real numbers in a regular array", f"{array.dtype} array"))
    # Byte orders other than the machine's come out of files and are no use to torch.
    dtype = (array if like is None else like).dtype.newbyteorder("=")
    dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float32)
    is_plain = array.dtype == dtype and array.flags.c_contiguous
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is told by those who ask for finite numbers
        return array if is_plain else np.ascontiguousarray(array, dtype)


def checked_weights(value: Any, data: Any) -> Any:
    """Four axes that broadcast against the data; finite, not negative, not all zero."""
    weights = floats(value, "weights", data)
    if tuple(weights.shape) == tuple(data.shape[:3]):
        weights = weights[..., None]
    elif tuple(weights.shape) == (len(data),):
        weights = weights[:, None, None, None]
    fits = weights.ndim == 4 and all(w in (1, d) for w, d in zip(weights.shape, data.shape, strict=True))
    if not fits:
        expected = f"shape {tuple(data.shape)}, {tuple(data.shape[:3])}, ({len(data)},), or one that broadcasts"
        raise ValueError(message("weights", expected, tuple(weights.shape)))
    some = False
    for _, piece in pieces_of(weights):
        if not bool((piece >= 0).all()) or bool((piece == np.inf).any()):
            raise ValueError(message("weights", "finite weights of zero or more", "negative, infinite or NaN ones"))
        some = some or bool((piece > 0).any())
    if not some:
        raise ValueError(message("weights", "at least one weight above zero", "zeros only"))
    return weights


def finite_where_it_counts(array: Any, weights: Any, argument: str) -> Any:
    """The array with zeros for NaN and infinities of zero weight; any others raise."""
    missing = counted = 0
    for views, piece in pieces_of(array):
        infinite = ~(torch.isfinite(piece) if isinstance(piece, torch.Tensor) else np.isfinite(piece))
        if bool(infinite.any()):
            missing += int(infinite.sum())
            weight = 1 if weights is None else weights[views if len(weights) > 1 else slice(None)]
            counted += int((infinite & (weight > 0)).sum())
    if counted:
        hint = "give them zero weight, or read with nonfinite='mask'"
        raise ValueError(message(argument, "finite values", f"{counted} NaN or infinite", hint))
    if not missing:
        return array
    return array.mapped(_only_finite) if isinstance(array, Streamed) else _only_finite(array)


def pieces_of(array: Any) -> Iterable[tuple[slice, Any]]:
    """What is on the disk piece by piece, what is in memory at once: which views, and their values."""
    return array.pieces() if isinstance(array, Streamed) else [(slice(None), array)]


def of_views(array: Any, views: Any) -> Any:
    """Some views of an array, still on the disk if it is there."""
    return array.chosen(views) if isinstance(array, Streamed) else array[views]


def pixels_seen(weights: Any) -> Any:
    """Which pixels have a channel with weight, shape ``(views, J, K)``."""
    if isinstance(weights, Streamed):
        return Streamed(weights.shape[:3], bool, lambda views: np.any(weights[views] > 0, axis=-1))
    return (weights > 0).any(-1)


def _only_finite(array: Any) -> Any:
    if isinstance(array, torch.Tensor):
        return torch.where(torch.isfinite(array), array, array.new_zeros(()))
    return np.where(np.isfinite(array), array, array.dtype.type(0))


def mask_nonfinite(found: MumottFile) -> None:
    """Give NaN and infinities of a file zero weight; the values themselves are replaced by the scan."""
    data, weights, diode = found.data, found.weights, found.diode

    def masked(views: Any) -> Any:
        finite = np.isfinite(data[views])
        given = np.ones((), data.dtype) if weights is None else weights[views]
        finite &= np.isfinite(given)
        if diode is not None:
            finite &= np.isfinite(diode[views])[..., None]
        return np.where(finite, given, 0).astype(data.dtype)

    if not all(bool(np.isfinite(p).all()) for a in (data, weights, diode) if a is not None for _, p in pieces_of(a)):
        streams = isinstance(data, Streamed)
        found.weights = Streamed(data.shape, data.dtype, masked) if streams else masked(slice(None))
        found.extras["has_weights"] = True


def plain(provenance: Any) -> dict[str, Any]:
    """A copy that JSON can hold."""
    expected = "a mapping of names to texts and numbers"
    try:
        copy = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(message("provenance", expected, f"{type(provenance).__name__} ({error})")) from error
    return copy


def join(arrays: Sequence[Any]) -> Any:
    """Arrays one after the other along the views; a tensor if all of them are."""
    if all(isinstance(array, torch.Tensor) for array in arrays):
        return torch.cat(list(arrays))
    if any(isinstance(array, Streamed) for array in arrays):
        places = [(array, view) for array in arrays for view in range(len(array))]
        shape, dtype = arrays[0].shape[1:], np.result_type(*(as_numpy(array[:0]).dtype for array in arrays))

        def read(views: Any) -> Any:
            found = np.empty((len(views), *shape), dtype)
            for target, place in zip(found, views, strict=True):
                array, view = places[place]
                target[...] = as_numpy(array[view])
            return found

        return Streamed((len(places), *shape), dtype, read)
    return np.concatenate([as_numpy(array) for array in arrays])


def block_sums(array: Any, factor: int) -> Any:
    """Sums over ``factor × factor`` pixels of an array ``(views, J, K, channels)``; incomplete blocks are dropped."""
    views, rows, columns, channels = array.shape
    rows, columns = rows // factor, columns // factor
    kept = array[:, : rows * factor, : columns * factor]
    return kept.reshape(views, rows, factor, columns, factor, channels).sum((2, 4))
