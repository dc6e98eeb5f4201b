"""Make a `LinearOperator` of somebody else's projector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import NOT_NUMBERS, flag, message, size_tuple
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.base import as_tensor


class Wrapped(OpaqueOperator):
    """A foreign operator behind the interface of ours (`wrap`)."""

    def __init__(
        self,
        forward: Callable[[Any], Any],
        adjoint: Callable[[Any], Any],
        domain_shape: Sequence[int],
        range_shape: Sequence[int],
        numpy: bool,
        flat: bool,
    ) -> None:
        super().__init__()
        self._functions = forward, adjoint
        self._numpy, self._flat = numpy, flat
        self.domain_shape, self.range_shape = (
            _sizes(shape, name) for shape, name in ((domain_shape, "domain_shape"), (range_shape, "range_shape"))
        )
        self.adjoint_is_exact = False
        self.device = torch.device("cpu") if numpy else None

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return self._each(x, 0, self.range_shape)

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return self._each(y, 1, self.domain_shape)

    def _each(self, items: torch.Tensor, which: int, shape: tuple[Any, ...]) -> torch.Tensor:
        results = items.new_empty((len(items), *shape))
        for item, target in zip(items, results, strict=True):
            # Copied: projectors that reuse their output buffer would otherwise change earlier results.
            target.copy_(self._call(which, item, shape))
        return results

    def _call(self, which: int, item: torch.Tensor, shape: tuple[Any, ...]) -> torch.Tensor:
        argument = item.reshape(-1) if self._flat else item
        result = self._functions[which](argument.numpy() if self._numpy else argument)
        name = ("op(x)", "op.T(y)")[which]
        tensor = as_tensor(result, name)
        if tensor.is_complex():
            raise TypeError(message(name, "real numbers", tensor.dtype))
        if tensor.numel() != math.prod(shape) or not (self._flat or tuple(tensor.shape) == shape):
            raise ValueError(message(name, f"shape {shape}", tuple(tensor.shape)))
        return tensor.reshape(shape)


def _sizes(shape: Any, name: str) -> tuple[int, ...]:
    """A shape of any length."""
    try:
        length = int(np.size(shape))
    except NOT_NUMBERS:
        length = 1
    return size_tuple(shape, name, length)


def wrap(
    op: Any,
    domain_shape: Sequence[int] | None = None,
    range_shape: Sequence[int] | None = None,
    *,
    numpy: bool | None = None,
) -> Wrapped:
    """A differentiable `LinearOperator` from a foreign one.

    Parameters
    ----------
    op
        One of: an object with ``op(x)`` and ``op.T(y)`` (tomosipo's operators); a SciPy ``LinearOperator`` or anything
        with ``matvec`` and ``rmatvec``; a pair ``(forward, adjoint)`` of functions.
    domain_shape, range_shape
        Shapes of one input and one output. By default what ``op`` says of itself.
    numpy
        Whether ``op`` wants numpy arrays (CPU only) rather than torch tensors. By default SciPy operators do, the
        others get tensors.

    Returns
    -------
    Wrapped
        With ``adjoint_is_exact = False``: nobody has checked. `check_adjoint` does.

    Examples
    --------
    >>> import torch
    >>> A = wrap((lambda x: 3 * x[:2], lambda y: 3 * torch.cat([y, torch.zeros(1)])), (3,), (2,))
    >>> A(torch.tensor([1.0, 2.0, 3.0]))
    tensor([3., 6.])
    """
    numpy = None if numpy is None else flag(numpy, "numpy")
    matrix_like = hasattr(op, "matvec") and hasattr(op, "rmatvec")
    if isinstance(op, tuple) and len(op) == 2 and all(map(callable, op)):
        forward, adjoint = op
    elif matrix_like:
        forward, adjoint = op.matvec, op.rmatvec
    elif callable(op) and callable(getattr(op, "T", None)):
        forward, adjoint = op, op.T
    else:
        expected = "an object with op(x) and op.T(y), a SciPy LinearOperator, or two functions"
        raise TypeError(message("op", expected, type(op).__name__))
    if matrix_like:
        rows, columns = op.shape
        domain_shape = (columns,) if domain_shape is None else domain_shape
        range_shape = (rows,) if range_shape is None else range_shape
        for shape, size, name in ((domain_shape, columns, "domain_shape"), (range_shape, rows, "range_shape")):
            if math.prod(_sizes(shape, name)) != size:
                raise ValueError(message(name, f"a shape of {size} elements", shape))
    domain_shape = getattr(op, "domain_shape", None) if domain_shape is None else domain_shape
    range_shape = getattr(op, "range_shape", None) if range_shape is None else range_shape
    if domain_shape is None or range_shape is None:
        raise TypeError(message("domain_shape, range_shape", "both shapes, since op does not tell them", "None"))
    return Wrapped(forward, adjoint, domain_shape, range_shape, matrix_like if numpy is None else numpy, matrix_like)
