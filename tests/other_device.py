"""A device that every machine has: tensors that compute on the CPU, say that they do not, and refuse to meet its own.

As a card's do, they refuse `numpy` and operations with tensors of the CPU, but for plain numbers, copies and what
`Tensor.to` does. So code that makes its constants on the wrong device fails without a card.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "lazy"  # torch knows the name, needs no driver for it, and has no kernels that it could take instead
MAY_MEET = ("_to_copy", "copy_")  # of the CPU and of another device


class Elsewhere(Tensor):
    """A tensor on the other device."""

    held: Tensor

    @staticmethod
    def __new__(cls: Any, held: Tensor) -> Any:
        held = held.resolve_conj().resolve_neg()  # where these are done on demand, they have been passed already
        found = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=NAME
        )
        found.held = held
        return found

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, kinds: Any, arguments: Any = (), named: Any = None) -> Any:
        return _call(function, arguments, named or {})


class other_device(TorchDispatchMode):
    """Context in which ``torch.device(NAME)`` can be used."""

    def __enter__(self) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]  # of torch.tensor: made here, moved by us
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)  # type: ignore[attr-defined]
        super().__exit__(*error)

    def __torch_dispatch__(self, function: Any, kinds: Any, arguments: Any = (), named: Any = None) -> Any:
        return _call(function, arguments, named or {})


def _call(function: Callable[..., Any], arguments: Any, named: dict[str, Any]) -> Any:
    tensors: list[Tensor] = []
    held = [_held(value, tensors) for value in arguments]
    held_by_name = {key: _held(value, tensors) for key, value in named.items()}
    there = any(isinstance(each, Elsewhere) for each in tensors)
    name, in_place = _kind(function)
    if there and name not in MAY_MEET and any(not isinstance(each, Elsewhere) and each.ndim for each in tensors):
        raise RuntimeError(f"{name}: tensors on two devices, {NAME} and cpu")
    wanted = named.get("device")
    goes = there if wanted is None else torch.device(wanted).type == NAME
    if name == "copy_":
        goes = isinstance(arguments[0], Elsewhere)
    if wanted is not None:
        held_by_name["device"] = "cpu"
    found = function(*held, **held_by_name)
    if in_place:
        return arguments[0]
    return _sent(found) if goes else found


@cache
def _kind(function: Any) -> tuple[str, bool]:
    """Name, and whether it gives its first argument back."""
    name = function.__name__.split(".")[0]
    return name, function._schema.is_mutable and name.endswith("_")


# By hand: with torch.utils._pytree these two would take most of a test's time.


def _held(value: Any, tensors: list[Tensor]) -> Any:
    """What the CPU computes with in its place; the tensors in it are added to a list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.held if isinstance(value, Elsewhere) else value
    return type(value)([_held(each, tensors) for each in value]) if type(value) in (list, tuple) else value


def _sent(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Elsewhere(value)
    return [_sent(each) for each in value] if isinstance(value, (list, tuple)) else value
