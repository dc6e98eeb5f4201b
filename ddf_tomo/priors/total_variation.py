"""Total variation, coupled over directions of space and all coefficients (Rudin, Osher & Fatemi 1992)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ddf_tomo._checks import message, number, real_array
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.spherical_harmonics import orders
from ddf_tomo.priors.differences import Differences
from ddf_tomo.priors.functional import Functional


class TotalVariation(Functional):
    """Sum over voxels of ``|D c|``: the norm of the differences along x, y, z in all coefficients together.

    Piecewise constant volumes are preferred: edges cost no more than ramps. One norm over all coefficients of a voxel
    makes the value independent of the sample's rotation (a rotation mixes the coefficients of an order among themselves
    and keeps the sum of their squares), which the sum of one total variation for each coefficient is not. Edges of all
    orders are encouraged to coincide [Blomgren & Chan 1998, IEEE Trans. Image Process. 7, 304].

    Parameters
    ----------
    volume_shape
        Voxels along ``(x, y, z)``.
    order_weights
        Weight of the orders ℓ = 0, 2, 4, … in the norm; by default 1 for each.
    smoothing
        Rounds the norm to ``√(|D c|² + smoothing²) - smoothing``, in units of the coefficients, for methods that need
        gradients; 0 for none. The proximal map is that of the unrounded norm.

    Examples
    --------
    >>> import torch
    >>> ramp = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1)
    >>> edge = torch.tensor([0.0, 0.0, 3.0, 3.0]).reshape(4, 1, 1, 1)
    >>> TotalVariation((4, 1, 1))(ramp), TotalVariation((4, 1, 1))(edge)
    (3.0, 3.0)
    """

    def __init__(
        self, volume_shape: Sequence[int], *, order_weights: Sequence[float] | None = None, smoothing: float = 0.0
    ) -> None:
        differences = Differences(volume_shape)
        self.operator = differences if order_weights is None else OrderWeights(order_weights, volume_shape, differences)
        self.smoothing = number(smoothing, "smoothing", low=0.0)

    @property
    def is_smooth(self) -> bool:
        return self.smoothing > 0

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return ((magnitude(z).square() + self.smoothing**2).sqrt() - self.smoothing).sum()

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        return z * (1 - step / magnitude(z).clamp(min=step or 1.0)) if step else z

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        if not self.smoothing:
            raise ValueError(message("smoothing", "a positive number, as no quadratic lies above the bare norm", 0.0))
        return (magnitude(z).square() + self.smoothing**2).rsqrt()


def magnitude(z: torch.Tensor) -> torch.Tensor:
    """Norm of ``(3, x, y, z, coefficient)`` over differences and coefficients, with length 1 in their place."""
    return torch.linalg.vector_norm(z, dim=(-5, -1), keepdim=True)


class OrderWeights(LinearOperator):
    """``L`` after the coefficients of order ℓ were multiplied by the square root of that order's weight.

    Parameters
    ----------
    order_weights
        Of the orders ℓ = 0, 2, 4, …; not negative.
    volume_shape
        Voxels along ``(x, y, z)``.
    operator
        ``L``, on ``(x, y, z, coefficient)``.

    Examples
    --------
    >>> import torch
    >>> D = OrderWeights([1.0, 4.0], (2, 1, 1), Differences((2, 1, 1)))
    >>> D(torch.ones(6).mul(torch.tensor([[0.0], [1.0]])).reshape(2, 1, 1, 6))[0, 0].flatten()
    tensor([1., 2., 2., 2., 2., 2.])
    """

    def __init__(self, order_weights: Any, volume_shape: Sequence[int], operator: LinearOperator) -> None:
        factors = real_array(order_weights, "order_weights", (None,))
        if (factors < 0).any() or not len(factors):
            raise ValueError("order_weights: expected at least one number ≥ 0, got " + repr(factors.tolist()))
        ell, _ = orders(2 * len(factors) - 2)
        self.factors = torch.from_numpy(factors[ell // 2] ** 0.5)
        self.operator = operator
        count = len(self.factors)
        self.domain_shape = (*operator.domain_shape[:-1], count)
        self.range_shape = (*operator.range_shape[:-1], count)

    def norm(self, iterations: int = 20, seed: int = 0) -> float:
        """At most this, and this where the operator treats all coefficients alike."""
        return self.operator.norm(iterations, seed) * float(self.factors.max())

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.operator._apply(x * self.factors.to(x))

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self.operator._apply_adjoint(y) * self.factors.to(y)
