"""Make a linear map that torch cannot look into (compiled code, foreign projectors) differentiable in every mode.

A linear map is its own derivative and its adjoint is its gradient, so that one rule serves all operators: forward-mode
applies the map to the tangent, reverse-mode the adjoint to the cotangent, and either is such a map again.

Two fronts lead to the same kernels, because neither can do everything in torch 2.6–2.13: an `autograd.Function` has
forward-mode and `torch.func`, but `torch.compile` breaks the graph on its ``jvp``; a custom operator is one node of a
compiled graph, but has no forward-mode. Operators are handed to it by a key into a weak table, since its arguments
must be tensors, numbers or strings.
"""

from __future__ import annotations

import itertools
import weakref
from abc import abstractmethod
from typing import Any

import torch

from ddf_tomo.operators.base import LinearOperator

__all__ = ["OpaqueOperator"]
_operators: weakref.WeakValueDictionary[str, OpaqueOperator] = weakref.WeakValueDictionary()
_keys = itertools.count()


class OpaqueOperator(LinearOperator):
    """A linear operator given by two plain functions on tensors without gradient; autograd is added here.

    Subclasses call ``super().__init__()`` and implement `_forward_kernel` and `_adjoint_kernel`. Both get one
    contiguous, detached tensor whose first axis counts the batch, and return a new one of the same kind.

    Examples
    --------
    >>> class Reversal(OpaqueOperator):
    ...     def __init__(self, length):
    ...         super().__init__()
    ...         self.domain_shape = self.range_shape = (length,)
    ...     def _forward_kernel(self, x):
    ...         return torch.from_numpy(x.numpy()[:, ::-1].copy())
    ...     _adjoint_kernel = _forward_kernel
    >>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> A = Reversal(3)
    >>> A(x)[0].backward()
    >>> x.grad
    tensor([0., 0., 1.])
    """

    def __init__(self) -> None:
        self._key = f"{type(self).__name__}-{next(_keys)}"
        _operators[self._key] = self

    @abstractmethod
    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor: ...

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return _differentiable(x, self._key, False)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return _differentiable(y, self._key, True)

    def _shapes(self, x: torch.Tensor, adjoint: bool) -> tuple[torch.Size, list[int]]:
        """Batch shape of ``x`` and shape of one output; a free length is the one that ``x`` has in that place."""
        source, target = (self.range_shape, self.domain_shape) if adjoint else (self.domain_shape, self.range_shape)
        item = x.shape[x.ndim - len(source) :]
        return x.shape[: x.ndim - len(source)], [item[-1] if n is None else n for n in target]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_key"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        OpaqueOperator.__init__(self)


def _run(x: torch.Tensor, key: str, adjoint: bool) -> torch.Tensor:
    operator = _operators[key]
    batch, shape = operator._shapes(x, adjoint)
    kernel = operator._adjoint_kernel if adjoint else operator._forward_kernel
    count = batch.numel()
    items = x.detach().contiguous().reshape(count, *x.shape[len(batch) :])
    return kernel(items).reshape(*batch, *shape)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, key: str, adjoint: bool) -> torch.Tensor:
        return _run(x, key, adjoint)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        # The operator itself is kept, so that it outlives a graph that is walked back later.
        _, ctx.key, ctx.adjoint = inputs
        ctx.operator = _operators[ctx.key]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _LinearFunction.apply(gradient, ctx.key, not ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: None) -> Any:
        return _LinearFunction.apply(tangent, ctx.key, ctx.adjoint)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: torch.Tensor, key: str, adjoint: bool) -> Any:
        return _LinearFunction.apply(x.movedim(in_dims[0], 0), key, adjoint), 0


@torch.library.custom_op("ddf_tomo::apply", mutates_args=())
def _node(x: torch.Tensor, key: str, adjoint: bool) -> torch.Tensor:
    return _run(x, key, adjoint)


@_node.register_fake
def _(x: torch.Tensor, key: str, adjoint: bool) -> torch.Tensor:
    batch, shape = _operators[key]._shapes(x, adjoint)
    return x.new_empty([*batch, *shape])


def _node_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, ctx.key, ctx.adjoint = inputs


def _node_backward(ctx: Any, gradient: torch.Tensor) -> Any:
    return _node(gradient, ctx.key, not ctx.adjoint), None, None


_node.register_autograd(_node_backward, setup_context=_node_context)


def _differentiable(x: torch.Tensor, key: str, adjoint: bool) -> torch.Tensor:
    return _node(x, key, adjoint) if torch.compiler.is_compiling() else _LinearFunction.apply(x, key, adjoint)
