"""What the functions of this room take alike: frames' shapes, randomness, maps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, NOT_NUMBERS, dense, integer, message, number, size_tuple
from ddf_tomo.operators.propagation import LARGEST_VALUE

MOST_PIXELS = 2**28
Seed = int | torch.Generator


def frame_shape(shape: Any, argument: str = "shape") -> tuple[int, int]:
    """``(rows, columns)`` of a frame that fits into memory."""
    rows, columns = size_tuple(shape, argument, 2)
    if rows * columns > MOST_PIXELS:
        raise ValueError(message(argument, f"at most {MOST_PIXELS} pixels", (rows, columns)))
    return rows, columns


def generator(seed: Any, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator itself, or a new one with this seed, on the device."""
    if isinstance(seed, torch.Generator):
        if seed.device.type != torch.device(device).type:
            raise ValueError(message("seed", f"a generator on {device}", f"one on {seed.device}"))
        return seed
    return torch.Generator(device).manual_seed(integer(seed, "seed", high=LARGEST_SEED))


def real_map(value: Any, argument: str, dimensions: int = 2, *, dtype: torch.dtype | None = None) -> Tensor:
    """A finite real tensor with at least so many dimensions; gradients and devices stay, integers become float32."""
    expected = "a tensor or array of real numbers"
    try:
        tensor = dense(value if isinstance(value, Tensor) else torch.as_tensor(value), argument)
        wide = dtype or (tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32)
        if tensor.is_complex():
            raise TypeError(message(argument, expected, tensor.dtype))
        tensor = tensor.to(wide)
    except NOT_NUMBERS as error:
        if isinstance(error, TypeError) and str(error).startswith(argument):
            raise
        raise TypeError(message(argument, expected, type(value).__name__)) from error
    if tensor.ndim < dimensions or 0 in tensor.shape:
        axes = ", ".join(["...", "rows", "columns"][-dimensions - 1 :])
        raise ValueError(message(argument, f"a shape ({axes}) without empty axes", tuple(tensor.shape)))
    largest = float(tensor.detach().abs().amax())
    if not largest <= LARGEST_VALUE:
        found = f"{largest:g}" if math.isfinite(largest) else "NaN or infinite"
        raise ValueError(message(argument, f"finite values, up to {LARGEST_VALUE:g}", found))
    return tensor


def length(value: Any, argument: str, *, low: float = 0.0, high: float = 1.0) -> float:
    """A length in metres above ``low``."""
    return number(value, argument, low=low, high=high, low_open=True)


def pair(value: Any, argument: str, *, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """Two numbers, (j, k), from one or two."""
    try:
        entries = torch.as_tensor(value, dtype=torch.float64).reshape(-1).tolist()
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, "one number or two, (j, k)", repr(value))) from error
    if len(entries) not in (1, 2):
        raise ValueError(message(argument, "one number or two, (j, k)", value))
    both = [number(entry, argument, low=low, high=high) for entry in entries]
    return both[0], both[-1]
