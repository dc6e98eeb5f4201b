"""Linear operators between arrays: the one abstraction that solvers, priors and neighbours share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import LARGEST_SEED, MOST_ITERATIONS, NOT_NUMBERS, dense, integer, message, number, sequence_of
from ddf_tomo.geometry import view_indices

Shape = tuple[int | None, ...]  # None: any length, as the number of channels of an X-ray transform


class LinearOperator(ABC):
    """A linear map ``A`` from arrays of ``domain_shape`` to arrays of ``range_shape``, with its adjoint ``A.T``.

    ``A(x)`` takes torch tensors (and is differentiable to any order, forward and backward) or numpy arrays (and gives
    one back), float32 or float64, with any batch dimensions in front. A subclass implements `_apply` and
    `_apply_adjoint` on tensors; one that is not made of torch operations derives from
    `ddf_tomo.operators.autograd.OpaqueOperator` instead.

    Attributes
    ----------
    domain_shape, range_shape
        Shapes of one input and one output; ``None`` stands for a length that the input decides.
    adjoint_is_exact
        Whether ``A.T`` is the transpose up to rounding; false for foreign projectors with another backprojection.
    device
        Where inputs must be, or ``None`` if anywhere will do. Inputs elsewhere are refused, not copied in silence.
    dtypes
        Of the tensors it takes: float32 and float64, and with some backends half precision too.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> A = XRayTransform(Geometry.from_angles([0.0, 0.4], 0.0, (8, 8, 8), (8, 8)))
    >>> A(torch.ones(8, 8, 8, 3)).shape
    torch.Size([2, 8, 8, 3])
    >>> (2 * A.T @ A).shape
    ((8, 8, 8, None), (8, 8, 8, None))
    """

    domain_shape: Shape
    range_shape: Shape
    adjoint_is_exact: bool = True
    device: torch.device | None = None
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.float64)
    __array_ufunc__ = None  # numpy's arrays leave arithmetic with operators to `__rmul__` and friends

    @abstractmethod
    def _apply(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor: ...

    @overload
    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    @overload
    def __call__(self, x: NDArray[Any]) -> NDArray[Any]: ...

    def __call__(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return self._apply(self._checked(x))
        tensor = as_tensor(x)
        return self._apply(self._checked(tensor)).detach().numpy()  # weights may want gradients

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        if x.layout != torch.strided:
            raise TypeError(message("x", "a dense tensor", f"one of layout {x.layout}"))
        if x.dtype not in self.dtypes:
            known = " or ".join(str(dtype).removeprefix("torch.") for dtype in self.dtypes)
            raise TypeError(message("x", known, x.dtype, "convert it, or scale integers on purpose"))
        if not fits(x.shape[x.ndim - len(self.domain_shape) :] if x.ndim else (), self.domain_shape):
            raise ValueError(message("x", f"shape (..., {shape_text(self.domain_shape)})", tuple(x.shape)))
        if self.device is not None and x.device.type != self.device.type:
            raise ValueError(message("x", f"a tensor on {self.device}", f"one on {x.device}", "move x, or set device="))
        return x

    @property
    def T(self) -> LinearOperator:
        """The adjoint, an operator too; ``A.T.T is A``."""
        return Adjoint(self)

    @property
    def shape(self) -> tuple[Shape, Shape]:
        """The pair ``(range_shape, domain_shape)``, in the order of a matrix' rows and columns."""
        return self.range_shape, self.domain_shape

    def views(self, indices: Any) -> LinearOperator:
        """The operator of some views only (first axis of the range); see `Geometry.__getitem__` for ``indices``."""
        raise TypeError(f"{type(self).__name__} has no views to choose from")

    def normal(self, weights: Any = None) -> LinearOperator:
        """``Aᵀ W A`` with weights of the range's shape (or one that broadcasts to it), for least squares."""
        return Normal(self, weights)

    def norm(self, iterations: int = 20, seed: int = 0) -> float:
        """Largest singular value by power iteration, in float32, from a seeded start; a lower bound within about 1 %.

        A free number of channels is taken as 1.

        Parameters
        ----------
        iterations
            Number of applications of ``A`` and ``A.T``.
        seed
            Of the start.
        """
        generator = torch.Generator().manual_seed(integer(seed, "seed", high=LARGEST_SEED))
        x = torch.randn([1 if n is None else n for n in self.domain_shape], generator=generator).to(self.device)
        size = float(x.norm())
        for _ in range(integer(iterations, "iterations", low=1, high=MOST_ITERATIONS)):
            if size == 0:
                return 0.0
            x = self.T(self(x / size))
            size = float(x.norm())
        return math.sqrt(size)

    def to_scipy(self, dtype: Any = np.float32) -> Any:
        """The same map on flat arrays, as a `scipy.sparse.linalg.LinearOperator`.

        Parameters
        ----------
        dtype
            ``numpy.float32`` or ``numpy.float64``: that of the arrays it takes and gives.

        Raises
        ------
        ValueError
            If the number of channels is left free.
        """
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        try:
            known = dtype is not None and np.dtype(dtype) in (np.float32, np.float64)
        except (TypeError, ValueError):
            known = False
        if not known:
            raise TypeError(message("dtype", "numpy.float32 or numpy.float64", repr(dtype)))
        if None in self.domain_shape + self.range_shape:
            raise ValueError(message("shape", "fixed lengths", self.shape, "give the operator its number of channels"))
        domain, range_ = ([int(n or 0) for n in shape] for shape in (self.domain_shape, self.range_shape))

        def flat(operator: LinearOperator, shape: list[int]) -> Any:
            return lambda vector: operator(np.asarray(vector, dtype=dtype).reshape(shape)).ravel()

        shape = (math.prod(range_), math.prod(domain))
        return ScipyOperator(shape, matvec=flat(self, domain), rmatvec=flat(self.T, range_), dtype=np.dtype(dtype))

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        return Composition(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + (-other) if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> LinearOperator:
        return Scaled(self, -1.0)

    def __mul__(self, factor: float) -> LinearOperator:
        return Scaled(self, number(factor, "factor")) if is_number(factor) else NotImplemented

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shape_text(self.domain_shape)} -> {shape_text(self.range_shape)}>"


class Adjoint(LinearOperator):
    """``A.T``."""

    def __init__(self, operator: LinearOperator) -> None:
        self.operator, self.device, self.dtypes = operator, operator.device, operator.dtypes
        self.domain_shape, self.range_shape = operator.range_shape, operator.domain_shape
        self.adjoint_is_exact = operator.adjoint_is_exact

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator._apply_adjoint(x)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.operator._apply(y)

    @property
    def T(self) -> LinearOperator:
        return self.operator


class Composition(LinearOperator):
    """``A @ B``."""

    def __init__(self, left: LinearOperator, right: LinearOperator) -> None:
        if not fits(right.range_shape, left.domain_shape):
            raise ValueError(message("B in A @ B", f"range {left.domain_shape}", right.range_shape))
        self.left, self.right, self.device = left, right, common_device(left, right)
        # A length that one of them leaves free is fixed by the other.
        self.domain_shape = filled(right.domain_shape, right.range_shape, left.domain_shape)
        self.range_shape = filled(left.range_shape, left.domain_shape, right.range_shape)
        self.adjoint_is_exact = left.adjoint_is_exact and right.adjoint_is_exact

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.left._apply(self.right._apply(x))

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.right._apply_adjoint(self.left._apply_adjoint(y))

    def views(self, indices: Any) -> LinearOperator:
        return Composition(self.left.views(indices), self.right)


class Sum(LinearOperator):
    """``A + B``."""

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if not (fits(first.range_shape, second.range_shape) and fits(first.domain_shape, second.domain_shape)):
            raise ValueError(message("B in A + B", f"shapes {first.shape}", second.shape))
        self.first, self.second, self.device = first, second, common_device(first, second)
        self.domain_shape = merged(first.domain_shape, second.domain_shape)
        self.range_shape = merged(first.range_shape, second.range_shape)
        self.adjoint_is_exact = first.adjoint_is_exact and second.adjoint_is_exact

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.first._apply(x) + self.second._apply(x)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.first._apply_adjoint(y) + self.second._apply_adjoint(y)

    def views(self, indices: Any) -> LinearOperator:
        return Sum(self.first.views(indices), self.second.views(indices))


class Scaled(LinearOperator):
    """``factor · A``."""

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        self.operator, self.factor, self.device = operator, factor, operator.device
        self.domain_shape, self.range_shape = operator.domain_shape, operator.range_shape
        self.adjoint_is_exact = operator.adjoint_is_exact

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.operator._apply(x)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.factor * self.operator._apply_adjoint(y)

    def views(self, indices: Any) -> LinearOperator:
        return Scaled(self.operator.views(indices), self.factor)


class Stacked(LinearOperator):
    """Operators on the same domain, their outputs one after the other along the first axis (`stack`)."""

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        self.operators = tuple(sequence_of(LinearOperator, operators, "operators"))
        first = self.operators[0]
        self.domain_shape, rest = first.domain_shape, first.range_shape[1:]
        for operator in self.operators:
            if not (
                fits(first.domain_shape, operator.domain_shape)
                and fits(first.range_shape[1:], operator.range_shape[1:])
            ):
                raise ValueError(message("operators", f"shapes that stack on {first.shape}", operator.shape))
            if not operator.range_shape or operator.range_shape[0] is None:
                raise ValueError(message("operators", "ranges of known first length", operator.range_shape))
            self.domain_shape = merged(self.domain_shape, operator.domain_shape)
            rest = merged(rest, operator.range_shape[1:])
        self.lengths = [int(operator.range_shape[0] or 0) for operator in self.operators]
        self.range_shape = (sum(self.lengths), *rest)
        self.device = common_device(*self.operators)
        self.adjoint_is_exact = all(operator.adjoint_is_exact for operator in self.operators)

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([operator._apply(x) for operator in self.operators], dim=-len(self.range_shape))

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        parts = y.split(self.lengths, dim=-len(self.range_shape))
        return sum_of(op._apply_adjoint(part) for op, part in zip(self.operators, parts, strict=True))

    def views(self, indices: Any) -> LinearOperator:
        """Views counted through all operators; those of one operator that follow each other stay together."""
        owners = np.repeat(np.arange(len(self.lengths)), self.lengths)
        places = np.concatenate([np.arange(length) for length in self.lengths])
        chosen = view_indices(indices, len(owners))
        runs = np.split(chosen, np.flatnonzero(np.diff(owners[chosen])) + 1)
        return Stacked([self.operators[owners[run[0]] if len(run) else 0].views(places[run]) for run in runs])


class Normal(LinearOperator):
    """``Aᵀ W A``; symmetric when ``A.T`` is exact."""

    def __init__(self, operator: LinearOperator, weights: Any = None) -> None:
        self.operator, self.device = operator, operator.device
        self.weights = None if weights is None else as_tensor(weights, "weights")
        if self.weights is not None and not broadcasts(self.weights.shape, operator.range_shape):
            expected = f"a shape that broadcasts to ({shape_text(operator.range_shape)})"
            raise ValueError(message("weights", expected, tuple(self.weights.shape)))
        self.domain_shape = self.range_shape = operator.domain_shape
        self.adjoint_is_exact = operator.adjoint_is_exact

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        y = self.operator._apply(x)
        return self.operator._apply_adjoint(y if self.weights is None else y * self.weights.to(y))

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._apply(y)


def stack(operators: Sequence[LinearOperator]) -> LinearOperator:
    """One operator whose output is the outputs of all ``operators``, one after the other along the first axis (views).

    Parameters
    ----------
    operators
        Operators on the same domain, whose outputs differ in the length of the first axis at most.

    Examples
    --------
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> series = [XRayTransform(Geometry.from_angles([0.0, 0.5], tilt, (4, 4, 4), (4, 4))) for tilt in (0.0, 0.3)]
    >>> stack(series).range_shape
    (4, 4, 4, None)
    """
    return Stacked(operators)


def sum_of(tensors: Any) -> torch.Tensor:
    """Sum of at least one tensor (``sum`` would start from an integer)."""
    iterator = iter(tensors)
    total = next(iterator)
    for tensor in iterator:
        total = total + tensor
    return total


def fits(found: Sequence[int | None], expected: Shape) -> bool:
    """Whether two shapes agree, ``None`` agreeing with any length."""
    return len(found) == len(expected) and all(
        f is None or e is None or f == e for f, e in zip(found, expected, strict=True)
    )


def merged(first: Shape, second: Shape) -> Shape:
    """The shape that two shapes that fit agree on: lengths that one leaves free are the other's."""
    return tuple(b if a is None else a for a, b in zip(first, second, strict=True))


def filled(shape: Shape, own: Shape, other: Shape) -> Shape:
    """``shape`` with its free lengths fixed in turn, where ``other`` fixes those that ``own`` has free."""
    fixed = iter([b for a, b in zip(own, other, strict=True) if a is None])
    return tuple(next(fixed, None) if n is None else n for n in shape)


def broadcasts(found: Sequence[int], expected: Shape) -> bool:
    """Whether an array of shape ``found`` can be stretched to the shape ``expected``."""
    tail = expected[max(len(expected) - len(found), 0) :]
    return len(found) <= len(expected) and all(f in (1, e) or e is None for f, e in zip(found, tail, strict=True))


def common_device(*operators: LinearOperator) -> torch.device | None:
    """Where operators that work together want their inputs: the device of the first one that minds."""
    return next((operator.device for operator in operators if operator.device is not None), None)


def is_number(value: Any) -> bool:
    """Whether this is a real number of any kind, of a tensor's or an array's too."""
    return isinstance(value, Real) or (isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim == 0)


def shape_text(shape: Shape) -> str:
    """A shape for a message: ``8, 8, 8, channel``."""
    return ", ".join("channel" if n is None else str(n) for n in shape)


def as_tensor(x: Any, argument: str = "x") -> torch.Tensor:
    """A tensor that shares memory with ``x`` where the layout allows (read-only and reversed arrays are copied)."""
    if isinstance(x, torch.Tensor):
        return dense(x, argument)
    try:
        array = np.asarray(x)
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, "an array of real numbers", type(x).__name__)) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(message(argument, "an array of real numbers", array.dtype))
    # Names by size: torch knows neither other byte orders, nor C's names, nor floats of more than eight bytes.
    native = np.ascontiguousarray(array, dtype=f"{array.dtype.kind}{min(array.dtype.itemsize, 8)}")
    # An axis of length 1 may keep a negative stride in an array that numpy calls contiguous; torch takes none.
    usable = native.flags.writeable and min(native.strides, default=0) >= 0
    return torch.from_numpy(native if usable else native.copy())


def known_device(device: Any) -> torch.device:
    """The device, if torch has it."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(message("device", "a device that torch can use, 'cpu' or 'cuda'", repr(device))) from error
    if found.type == "meta":
        raise ValueError(message("device", "a device that holds numbers", repr(device)))
    return found
