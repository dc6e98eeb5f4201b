"""The misfit of data that do not fit into memory: they are read again, some views at a time, whenever they are needed.

No array of the data's size is ever made. What stands for the residual ``A x - y`` is ``x`` itself, and for what the
detector sees of a direction, ``A d``, the direction ``d``: sums of residuals are residuals of sums, so that algorithms
need not know. The price is one projection more in each iteration, since nothing seen is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import message, of_kind
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.base import LinearOperator, as_tensor, fits, shape_text
from ddf_tomo.solvers.misfit import Misfit, checked_operator, weighted_square


class StreamedMisfit(Misfit):
    """``½ |W^(1/2) (A x - y)|²`` of data on the disk, with the memory of two volumes and some views.

    Residuals must only be added with factors whose sum is 1, which is what algorithms do.

    Parameters
    ----------
    A
        A `LinearOperator` with `views`.
    y
        Data on the disk, finite wherever the weight is not zero.
    weights
        On the disk too, or in memory, of a shape that broadcasts; or ``None``.

    Raises
    ------
    TypeError, ValueError
        If they do not fit each other, or data with positive weight are not finite.

    Examples
    --------
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> A = XRayTransform(Geometry.from_angles(np.linspace(0, 3, 9), 0.0, (8, 8, 8), (8, 8)), channels=1)
    >>> y = Streamed(A.range_shape, np.float32, lambda views: np.ones((len(views), 8, 8, 1), np.float32))
    >>> misfit = StreamedMisfit(A, y)
    >>> misfit.norm(torch.zeros(8, 8, 8, 1)), misfit.norm(misfit.nothing_explained())  # √(9 · 8 · 8)
    (24.0, 24.0)
    """

    y: Any  # Streamed, where the class above has tensors
    weights: Any

    def __init__(self, A: LinearOperator, y: Streamed, weights: Any = None) -> None:
        of_kind(Streamed, y, "y")
        if y.dtype not in (np.float32, np.float64) or not y.dtype.isnative:
            raise TypeError(message("y", "float32 or float64", y.dtype))
        self.A, self.y, self.weights = checked_operator(A), y, weights
        if not fits(y.shape, A.range_shape):
            raise ValueError(message("y", f"shape ({shape_text(A.range_shape)})", y.shape))
        self.like = torch.from_numpy(np.empty((0, *y.shape[1:]), y.dtype))
        if weights is not None and not isinstance(weights, Streamed):
            weights = as_tensor(weights, "weights").to(self.like)
            try:
                self.weights = weights.expand(y.shape)
            except RuntimeError as error:
                expected = f"a shape that broadcasts to {y.shape}"
                raise ValueError(message("weights", expected, tuple(weights.shape))) from error
        elif weights is not None and weights.shape != y.shape:
            raise ValueError(message("weights", f"shape {y.shape}", weights.shape))
        self._parts = [(A.views(views), views) for views in y.slices()]
        self._check()

    def _check(self) -> None:
        some = self.weights is None
        for _, y, w in self.pieces():
            if w is not None and not (torch.isfinite(w).all() and (w >= 0).all()):
                raise ValueError(message("weights", "finite numbers ≥ 0", "some negative, NaN or infinite"))
            if not torch.isfinite(y).all():
                raise ValueError(message("y", "finite data", "some NaN or infinite", "give those weight 0"))
            some = some or (w is not None and bool((w > 0).any()))
        if not some:
            raise ValueError(message("weights", "a positive weight somewhere", "zero everywhere"))

    def pieces(self) -> Iterator[tuple[LinearOperator, torch.Tensor, torch.Tensor | None]]:
        for A, views in self._parts:
            w = None if self.weights is None else torch.as_tensor(self.weights[views])
            y = torch.from_numpy(self.y[views])
            yield A, y if w is None else torch.where(w > 0, y, 0), w

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    def nothing_explained(self) -> torch.Tensor:
        return self.start(None)

    def look(self, d: torch.Tensor) -> torch.Tensor:
        return d

    def weighted(self, r: torch.Tensor) -> torch.Tensor:
        raise TypeError(message("y", "data in memory", "some on the disk"))

    def slope(self, r: torch.Tensor) -> tuple[torch.Tensor, float]:
        back, square = torch.zeros_like(r), 0.0
        for A, y, w in self.pieces():
            seen = A(r).sub_(y)
            square += weighted_square(seen, w)
            back += A.T(seen if w is None else seen.mul_(w))
        return back, math.sqrt(square)

    def gradient(self, r: torch.Tensor) -> torch.Tensor:
        return self.slope(r)[0]

    def norm(self, r: torch.Tensor) -> float:
        return math.sqrt(sum(weighted_square(A(r).sub_(y), w) for A, y, w in self.pieces()))

    def square(self, q: torch.Tensor) -> float:
        return sum(weighted_square(A(q), w) for A, w in self._weights())

    def normal(self, d: torch.Tensor) -> torch.Tensor:
        back = torch.zeros_like(d)
        for A, w in self._weights():
            seen = A(d)
            back += A.T(seen if w is None else seen.mul_(w))
        return back

    def backprojected(self) -> torch.Tensor:
        back: Any = 0
        for A, y, w in self.pieces():
            back = A.T(y if w is None else y.mul_(w)).add_(back)
        return back

    def size(self) -> float:
        return math.sqrt(sum(weighted_square(y, w) for _, y, w in self.pieces()))

    def count(self) -> int:
        if self.weights is None:
            return math.prod(self.y.shape)
        return sum(int((w > 0).sum()) for _, w in self._weights())

    def subset(self, indices: Any) -> Misfit:
        chosen = np.asarray(indices)
        part = object.__new__(StreamedMisfit)
        part.A, part.y, part.like = self.A.views(chosen), self.y.chosen(chosen), self.like
        whole = self.weights
        part.weights = whole.chosen(chosen) if isinstance(whole, Streamed) else None if whole is None else whole[chosen]
        part._parts = [(part.A.views(views), views) for views in part.y.slices()]
        return part

    def _weights(self) -> Iterator[tuple[LinearOperator, Any]]:
        for A, views in self._parts:
            yield A, None if self.weights is None else torch.as_tensor(self.weights[views])
