"""Checks of what training shares: devices, tensors, functions, whether to show progress."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ddf_tomo._checks import dense, flag, message, of_kind
from ddf_tomo.operators.base import known_device

__all__ = ["function", "known_device", "real_volume", "shown"]


def real_volume(value: Any, argument: str) -> Tensor:
    """A dense tensor of floating-point numbers."""
    of_kind(Tensor, value, argument)
    if not dense(value, argument).is_floating_point():
        raise TypeError(message(argument, "floating-point numbers", value.dtype))
    return value


def function(value: Any, argument: str) -> None:
    """Refuse what cannot be called."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(message(argument, "a function", repr(value)))


def shown(progress: Any) -> bool | None:
    """Whether to show progress, or None."""
    return None if progress is None else flag(progress, "progress")
