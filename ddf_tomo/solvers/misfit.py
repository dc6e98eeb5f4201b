"""What every solver fits: weighted squared differences between data and prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import MOST_ITERATIONS, integer, message
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.base import LinearOperator, as_tensor, fits, shape_text, sum_of
from ddf_tomo.operators.distributed import DistributedViews

PIECE = 2**20


class Misfit:
    """``½ |W^(1/2) (A x - y)|²`` with checked data.

    Algorithms treat two kinds of things as tensors and look into neither: residuals ``A x - y`` (`residual`), and what
    the detector sees of a direction, ``A d`` (`look`). That leaves open what stands for them; see `StreamedMisfit`.

    Parameters
    ----------
    A
        Any `LinearOperator`.
    y
        Data, of the operator's range shape; torch or numpy, float32 or float64.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum, which may then
        be NaN.

    Attributes
    ----------
    A, y, weights
        As given, as tensors; masked data are zero.

    Raises
    ------
    TypeError, ValueError
        If they do not fit each other, or data with positive weight are not finite.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> A = wrap((lambda x: 2 * x, lambda y: 2 * y), (3,), (3,))
    >>> misfit = Misfit(A, torch.ones(3))
    >>> misfit.norm(misfit.residual(torch.ones(3)))  # |2 - 1| three times
    1.7320508075688772
    """

    def __init__(self, A: LinearOperator, y: Any, weights: Any = None) -> None:
        self.A = checked_operator(A)
        self.y, self.weights = _checked_data(A, y, weights)
        self.like = self.y[:0]

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """``A x - y``."""
        return self.A(x) - self.y

    def nothing_explained(self) -> torch.Tensor:
        """The residual of ``x = 0``."""
        return -self.y

    def look(self, d: torch.Tensor) -> torch.Tensor:
        """``A d``: how the residual changes along ``d``."""
        return self.A(d)

    def weighted(self, r: torch.Tensor) -> torch.Tensor:
        """``W r``."""
        return r if self.weights is None else self.weights * r

    def gradient(self, r: torch.Tensor) -> torch.Tensor:
        """``Aᵀ W r``: the gradient at the ``x`` of this residual."""
        return self.A.T(self.weighted(r))

    def slope(self, r: torch.Tensor) -> tuple[torch.Tensor, float]:
        """`gradient` and `norm` of a residual.

        Parameters
        ----------
        r
            From `residual`.
        """
        return self.gradient(r), self.norm(r)

    def norm(self, r: torch.Tensor) -> float:
        """``|W^(1/2) r|``, summed in double precision."""
        return math.sqrt(weighted_square(r, self.weights))

    def square(self, q: torch.Tensor) -> float:
        """``|W^(1/2) q|²`` of what the detector sees of a direction."""
        return weighted_square(q, self.weights)

    def normal(self, d: torch.Tensor) -> torch.Tensor:
        """``Aᵀ W A d``."""
        return self.A.T(self.weighted(self.A(d)))

    def backprojected(self) -> torch.Tensor:
        """``Aᵀ W y``."""
        return self.gradient(self.y)

    def size(self) -> float:
        """``|W^(1/2) y|``."""
        return self.norm(self.y)

    def count(self) -> int:
        """How many data have positive weight."""
        return self.y.numel() if self.weights is None else int((self.weights > 0).sum())

    def pieces(self) -> Iterator[tuple[LinearOperator, torch.Tensor, torch.Tensor | None]]:
        """Operators, data and weights that make up the whole."""
        yield self.A, self.y, self.weights

    def value(self, x: torch.Tensor) -> float:
        """``½ |W^(1/2) (A x - y)|²``."""
        return self.norm(self.residual(x)) ** 2 / 2

    def curvature(self, iterations: int = 10) -> float:
        """``|W^(1/2) A|²``, the Lipschitz constant of the gradient, from below in that many ``iterations`` of Lanczos.

        Algorithms that rest on it watch what they meet on their way, and raise it when it was too low. 1 if the
        operator is zero.
        """
        found = largest_eigenvalue(self.normal, self.backprojected(), iterations)
        if not math.isfinite(found):
            raise ValueError(overflow(self.like))
        return found or 1.0

    def begin(self, x0: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Where to start, by default from ``x0 = 0``: ``x``, ``A x - y`` and its norm; overflows are told."""
        back = self.backprojected()
        x = self.start(x0, like=back)
        r = self.nothing_explained() if x0 is None else self.residual(x)
        norm = self.norm(r)
        if not math.isfinite(norm + dot(back, back)):
            raise ValueError(overflow(self.like))
        return x, r, norm

    def start(self, x0: Any, like: torch.Tensor | None = None) -> torch.Tensor:
        """A copy of ``x0``, checked, or zeros of the operator's domain (of the shape of ``like``, where it is free)."""
        shape = self.A.domain_shape if like is None else tuple(like.shape)
        if x0 is None:
            if None in shape:
                shape = tuple(self.backprojected().shape)
            return self.like.new_zeros([int(n or 1) for n in shape])
        x = as_tensor(x0, "x0").to(self.like).clone(memory_format=torch.contiguous_format)
        if not fits(x.shape, shape):
            raise ValueError(message("x0", f"shape ({shape_text(shape)})", tuple(x.shape)))
        if not torch.isfinite(x).all():
            raise ValueError(message("x0", "finite values", "some NaN or infinite"))
        return x

    def subset(self, indices: Any) -> Misfit:
        """The misfit of the views with these ``indices`` only (first axis of the data)."""
        part = object.__new__(Misfit)
        part.A, part.y, part.like = self.A.views(indices), self.y[np.asarray(indices)], self.like
        part.weights = None if self.weights is None else self.weights[np.asarray(indices)]
        return part


def misfit_of(A: LinearOperator, y: Any, weights: Any = None) -> Misfit:
    """The misfit of data in memory, of views divided among processes, or (`Streamed`) of data on the disk."""
    from ddf_tomo.solvers.divided import DividedMisfit
    from ddf_tomo.solvers.streaming import StreamedMisfit

    if isinstance(y, Streamed):
        return StreamedMisfit(A, y, weights)
    return DividedMisfit(A, y, weights) if isinstance(A, DistributedViews) else Misfit(A, y, weights)


def weighted_square(r: torch.Tensor, weights: torch.Tensor | None) -> float:
    """``|W^(1/2) r|²`` in double precision, piece by piece: no second array of the data's size is made."""
    if weights is None:
        return dot(r, r)
    rows = max(1, PIECE // max(1, r[:1].numel()))
    halves = (w.sqrt().mul_(u) for u, w in zip(r.split(rows), weights.split(rows), strict=True))
    return sum(dot(half, half) for half in halves) if r.numel() else 0.0


def dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Inner product in double precision, piece by piece: squares of small or large float32 numbers leave its range."""
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True)
    return float(sum_of(torch.dot(u.double(), v.double()) for u, v in pieces)) if a.numel() else 0.0


def largest_eigenvalue(
    apply: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, iterations: int = 10
) -> float:
    """Of a symmetric positive semidefinite map, by the iteration of Lanczos (Golub & Van Loan 2013, section 10.1).

    A lower bound; ten iterations come within about one per cent where twenty power iterations are ten below.

    Parameters
    ----------
    apply
        The map.
    start
        Backprojected data, say, which are near what is largest; ones if they are zero.

    Examples
    --------
    >>> import torch
    >>> round(largest_eigenvalue(lambda v: torch.tensor([1.0, 4.0, 2.0]) * v, torch.ones(3)), 5)
    4.0
    """
    size = math.sqrt(dot(start, start))
    v = start / size if size else torch.ones_like(start) / math.sqrt(max(start.numel(), 1))
    before, alphas, betas = torch.zeros_like(v), [], [0.0]
    for _ in range(integer(iterations, "iterations", low=1, high=MOST_ITERATIONS)):
        u = apply(v)
        alphas.append(dot(u, v))
        u = u - alphas[-1] * v - betas[-1] * before
        betas.append(math.sqrt(dot(u, u)))
        if not 1e-6 * alphas[0] < betas[-1] < math.inf:
            break
        before, v = v, u / betas[-1]
    inner = betas[1 : len(alphas)]
    tridiagonal = np.diag(alphas) + np.diag(inner, 1) + np.diag(inner, -1)
    return float(np.linalg.eigvalsh(tridiagonal).max()) if np.isfinite(tridiagonal).all() else math.inf


def overflow(r: torch.Tensor) -> str:
    """What to say when numbers leave their range."""
    return message("y, weights", f"numbers whose products fit into {r.dtype}", "an overflow", "rescale them")


def checked_operator(A: LinearOperator) -> LinearOperator:
    """``A``, if it is an operator."""
    if not isinstance(A, LinearOperator):
        raise TypeError(message("A", "a LinearOperator", type(A).__name__, "make one with wrap(...)"))
    return A


def _checked_data(A: LinearOperator, y: Any, weights: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    for name, value in (("y", y), ("weights", weights)):
        if isinstance(value, Streamed):
            hint = "cgls, nonlinear_cg, lbfgs, fista and irtt read data from the disk; numpy.asarray gets them all"
            raise TypeError(message(name, "an array in memory", value, hint))
    y = as_tensor(y, "y")
    if y.dtype not in (torch.float32, torch.float64):
        raise TypeError(message("y", "float32 or float64", y.dtype))
    if not fits(y.shape, A.range_shape):
        raise ValueError(message("y", f"shape ({shape_text(A.range_shape)})", tuple(y.shape)))
    if weights is None:
        if math.isfinite(float(y.sum())):  # then all are, and it takes a fortieth of the time to know
            return y, None
        missing = ~torch.isfinite(y)
    else:
        weights = as_tensor(weights, "weights").to(y)
        try:
            weights = weights.expand(y.shape)
        except RuntimeError as error:
            raise ValueError(
                message("weights", f"a shape that broadcasts to {tuple(y.shape)}", tuple(weights.shape))
            ) from error
        if not (torch.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError(message("weights", "finite numbers ≥ 0", "some negative, NaN or infinite"))
        if not (weights > 0).any():
            raise ValueError(message("weights", "a positive weight somewhere", "zero everywhere"))
        missing = ~torch.isfinite(y) & (weights > 0)
        y = torch.where(weights > 0, y, 0)
    if missing.any():
        raise ValueError(message("y", "finite data", f"{int(missing.sum())} NaN or infinite", "give those weight 0"))
    return y, weights
