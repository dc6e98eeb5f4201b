"""Arrays of a scan, numpy or torch: cleaned, weighted, binned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ddf_tomo._checks import NOT_NUMBERS, dense, message, sequence_of
from ddf_tomo._mumott_file import MumottFile


def as_numpy(array: Any) -> np.ndarray:
    """A numpy array of a numpy array or tensor, sharing memory where it can."""
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array


def floats(value: ArrayLike, argument: str, like: Any = None) -> Any:
    """A contiguous float32 or float64 array or tensor; other real types become float32, or the dtype of ``like``."""
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
    if not bool((weights >= 0).all()) or bool((weights == np.inf).any()):
        raise ValueError(message("weights", "finite weights of zero or more", "negative, infinite or NaN ones"))
    if not bool((weights > 0).any()):
        raise ValueError(message("weights", "at least one weight above zero", "zeros only"))
    return weights


def finite_where_it_counts(array: Any, weights: Any, argument: str) -> Any:
    """The array with zeros for NaN and infinities of zero weight; any others raise."""
    finite = torch.isfinite(array) if isinstance(array, torch.Tensor) else np.isfinite(array)
    if bool(finite.all()):
        return array
    if weights is None or bool((~finite & (weights > 0)).any()):
        count = int((~finite if weights is None else ~finite & (weights > 0)).sum())
        hint = "give them zero weight, or read with nonfinite='mask'"
        raise ValueError(message(argument, "finite values", f"{count} NaN or infinite", hint))
    where: Any = torch.where if isinstance(array, torch.Tensor) else np.where
    return where(finite, array, array.new_zeros(()) if isinstance(array, torch.Tensor) else array.dtype.type(0))


def mask_nonfinite(found: MumottFile) -> None:
    """Give NaN and infinities of a file zero weight; the values themselves are replaced by the scan."""
    finite = np.isfinite(found.data)
    if found.weights is not None:
        finite &= np.isfinite(found.weights)
    if found.diode is not None:
        finite &= np.isfinite(found.diode)[..., None]
    if not finite.all():
        found.weights = np.where(finite, 1 if found.weights is None else found.weights, 0).astype(found.data.dtype)
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
    return np.concatenate([as_numpy(array) for array in arrays])


def block_sums(array: Any, factor: int) -> Any:
    """Sums over ``factor × factor`` pixels of an array ``(views, J, K, channels)``; incomplete blocks are dropped."""
    views, rows, columns, channels = array.shape
    rows, columns = rows // factor, columns // factor
    kept = array[:, : rows * factor, : columns * factor]
    return kept.reshape(views, rows, factor, columns, factor, channels).sum((2, 4))


def by_view(array: Any, ndim: int) -> Any:
    """The array with a first axis of views, which the map of a single view lacks."""
    return array[None] if array.ndim == ndim - 1 else array


def weights_from_errors(errors: Any, valid: Any) -> Any:
    """Inverse variances ``(views, J, K, channels)``, zero where not valid or where the error is infinite."""
    counts = valid[..., None] & (errors < np.inf)
    if bool((counts & ~(errors > 0)).any()) or bool((valid[..., None] & (errors != errors)).any()):
        raise ValueError(
            message(
                "maps.covariance_error", "positive standard errors", "zeros, negative ones or NaN", "weighted=False"
            )
        )
    where: Any = torch.where if isinstance(errors, torch.Tensor) else np.where
    one = torch.ones_like(errors) if isinstance(errors, torch.Tensor) else np.ones_like(errors)
    with np.errstate(over="ignore"):  # an error too large to be squared is as good as infinite
        return where(counts, 1 / where(counts, errors, one) ** 2, 0 * one)


def arrays_from_maps(maps: Any, unit_rad2: float, weighted: bool) -> tuple[Any, Any, Any, float | None]:
    """Scattering covariances in the unit, weights, transmissions, and the pixel size, of all views."""
    from ddf_tomo.retrieval.maps import Maps

    parts = [maps] if isinstance(maps, Maps) else sequence_of(Maps, maps, "maps")
    sizes = {part.pixel_size_m for part in parts}
    if len(sizes) > 1:
        raise ValueError(message("maps.pixel_size_m", "one pixel size in all maps", sorted(map(str, sizes))))
    scattering = [part.scattering() for part in parts]
    theta, sigma = (join([by_view(pair[i], 4) for pair in scattering]) / unit_rad2 for i in range(2))
    valid = join([by_view(part.valid, 3) for part in parts])
    weights = weights_from_errors(sigma, valid) if weighted else valid
    return theta, weights, join([by_view(part.transmission, 3) for part in parts]), parts[0].pixel_size_m
