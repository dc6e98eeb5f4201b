"""A device that every machine has: tensors that compute on the CPU, say that they do not, and refuse to meet its own.

As a card's do, they refuse `numpy` and operations with tensors of the CPU, but for plain numbers, copies and what
`Tensor.to` does. So code that makes its constants on the wrong device fails without a card.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

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
    leaves = tree_flatten((arguments, named))[0]
    tensors = [each for each in leaves if isinstance(each, Tensor)]
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    name = function.__name__.split(".")[0]
    if there and name not in MAY_MEET and any(not isinstance(each, Elsewhere) and each.ndim for each in tensors):
        raise RuntimeError(f"{name}: tensors on two devices, {NAME} and cpu")
    wanted = named.get("device")
    goes = bool(there) if wanted is None else torch.device(wanted).type == NAME
    if name == "copy_":
        goes = isinstance(arguments[0], Elsewhere)
    if wanted is not None:
        named = {**named, "device": "cpu"}
    found = function(*tree_map(_held, arguments), **tree_map(_held, named))
    if function._schema.is_mutable and name.endswith("_"):
        return arguments[0]
    return tree_map(lambda each: Elsewhere(each) if goes and isinstance(each, Tensor) else each, found)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value
