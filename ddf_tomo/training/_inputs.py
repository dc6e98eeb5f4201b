"""Checks of what training shares: devices, tensors, functions, families of samples, whether to show progress."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from ddf_tomo._checks import dense, flag, message, of_kind
from ddf_tomo.operators.base import known_device

__all__ = ["function", "known_device", "names_of_families", "real_volume", "shown"]


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


def names_of_families(values: Any, argument: str, families: Collection[str], kept: Collection[str]) -> tuple[str, ...]:
    """At least one name of ``families`` that is not ``kept`` for tests.

    Examples
    --------
    >>> names_of_families(["grains"], "families", ("grains", "helicoidal"), ("helicoidal",))
    ('grains',)
    """
    known = [name for name in families if name not in kept]
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError(message(argument, "a list of families", repr(values)))
    for name in values:
        if name not in known:
            found = f"{name!r}, kept for tests" if name in kept else repr(name)
            raise ValueError(message(argument, "one of " + ", ".join(map(repr, known)), found))
    return tuple(values)
