"""What a prior or a constraint is to a solver: a convex function with a value and a proximal map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ddf_tomo._checks import message, number
from ddf_tomo.operators.base import LinearOperator, Shape, as_tensor, is_number

SAFETY = 1.02  # power iterations come from below


class Functional(ABC):
    """A convex function ``g(L x)`` of a volume, with a weight: ``0.1 * TotalVariation(shape)``.

    A subclass gives ``g`` by `value` and `proximal`, both on ``z = L x``, and where it is not the identity, ``L``.

    Attributes
    ----------
    operator
        ``L``, or ``None`` for the identity.
    weight
        Factor in front.
    is_constraint
        Whether ``g`` is 0 on a set and infinite off it, so that weights and steps mean nothing and `proximal` projects.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo.priors import Smoothness
    >>> prior = 2.0 * Smoothness((3, 1, 1))
    >>> prior(torch.tensor([0.0, 1.0, 1.0]).reshape(3, 1, 1, 1))  # 2 · ½ (1² + 0²)
    1.0
    """

    operator: LinearOperator | None = None
    weight: float = 1.0
    is_constraint: bool = False

    @property
    def is_smooth(self) -> bool:
        """Whether `value` is differentiable, so that methods which follow gradients may use it."""
        return False

    @abstractmethod
    def value(self, z: torch.Tensor) -> torch.Tensor:
        """``g(z)`` without the weight, a torch scalar; differentiable where ``g`` is. Constraints give 0."""

    @abstractmethod
    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        """``argmin_u g(u) + |u - z|² / (2 step)``, without the weight (a solver puts it into ``step``)."""

    def proximal_dual(self, p: torch.Tensor, step: float) -> torch.Tensor:
        """``argmin_u (weight · g)*(u) + |u - p|² / (2 step)``, of the convex conjugate, by Moreau's identity."""
        return p - step * self.proximal(p / step, self.weight / step)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        """Factors ``κ(z) ≥ 0`` of the quadratic ``½ Σ κ(z) u²`` that touches ``g`` at ``z`` and lies above it.

        They broadcast against ``z``; ``κ(z) z`` is the gradient of ``g``. Without the weight.

        Raises
        ------
        TypeError
            If there is no such quadratic.
        """
        raise TypeError(message("prior", "one under quadratics, as Smoothness or TotalVariation(…, smoothing=…)", self))

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """``weight · Lᵀ κ(z) z`` with ``z = L x``: the gradient of ``weight · g(L x)``, where there is one."""
        z = self.apply(x)
        return self.weight * self.apply_adjoint(self.curvature(z) * z)

    def along(self, x: torch.Tensor, d: torch.Tensor) -> Callable[[float], tuple[float, float]]:
        """The line through ``x`` in direction ``d``, for searches: a function of the ``α`` in ``x + α d``.

        It gives the slope of ``weight · g`` there, and the second derivative of the quadratic that touches it from
        above.
        """
        z, dz = self.apply(x), self.apply(d)

        def at(alpha: float) -> tuple[float, float]:
            here = z + alpha * dz
            curvature = self.curvature(here)
            slope, bend = ((curvature * u).double().mul_(dz).sum() for u in (here, dz))
            return self.weight * float(slope), self.weight * float(bend)

        return at

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """``L x``."""
        return x if self.operator is None else self.operator(x)

    def apply_adjoint(self, z: torch.Tensor) -> torch.Tensor:
        """``Lᵀ z``."""
        return z if self.operator is None else self.operator.T(z)

    def domain_shape(self, shape: Sequence[int]) -> Shape:
        """What ``x`` has to look like, given what it looks like: a shape in which ``None`` is any length."""
        return tuple(shape) if self.operator is None else self.operator.domain_shape

    def norm(self) -> float:
        """``|L|``, or a little more: what steps are measured by."""
        return 1.0 if self.operator is None else SAFETY * self.operator.norm(30)

    def __call__(self, x: Any) -> float:
        """``weight · g(L x)``."""
        x = as_tensor(x)
        if x.dtype not in (torch.float32, torch.float64):
            raise TypeError(message("x", "float32 or float64", x.dtype))
        return self.weight * float(self.value(self.apply(x)))

    def __mul__(self, factor: float) -> Functional:
        if not is_number(factor):
            return NotImplemented
        scaled = object.__new__(type(self))
        scaled.__dict__.update(self.__dict__)
        scaled.weight = self.weight * number(factor, "factor", low=0.0)
        return scaled

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"<{self.weight:g} · {type(self).__name__}>"
