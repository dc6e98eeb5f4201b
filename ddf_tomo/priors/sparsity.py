"""Sparse coefficients: few numbers (L1), or few voxels or orders with anything in them (groups)."""

from __future__ import annotations

import torch

from ddf_tomo._checks import flag, message, number
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.priors.functional import Functional


class L1(Functional):
    """Sum of the magnitudes of all coefficients [Tibshirani 1996, J. R. Stat. Soc. B 58, 267].

    It favours the axes of the coefficients and so *changes when the sample is rotated*, unless there is only one in a
    voxel; `GroupSparsity` does not.

    Parameters
    ----------
    smoothing
        Rounds ``|c|`` to ``√(c² + smoothing²) - smoothing``, in units of the coefficients, for methods that need
        gradients; 0 for none. The proximal map is that of the unrounded sum.

    Examples
    --------
    >>> import torch
    >>> L1()(torch.tensor([1.0, -2.0]))
    3.0
    >>> L1().proximal(torch.tensor([0.5, -2.0]), 1.0)
    tensor([ 0., -1.])
    """

    def __init__(self, *, smoothing: float = 0.0) -> None:
        self.smoothing = number(smoothing, "smoothing", low=0.0)

    @property
    def is_smooth(self) -> bool:
        return self.smoothing > 0

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return rounded(z.abs(), self.smoothing).sum()

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        return torch.nn.functional.softshrink(z, min(step, torch.finfo(z.dtype).max))

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        return inverse_of_rounded(z.abs(), self.smoothing)


class GroupSparsity(Functional):
    """Sum over voxels of ``|c|``, the norm of a voxel's coefficients [Yuan & Lin 2006, J. R. Stat. Soc. B 68, 49].

    A voxel is empty or pays for the length of its coefficients; since a rotation keeps the norm of every order, the
    value does not change when the sample is rotated.

    Parameters
    ----------
    per_order
        One group for each order ℓ instead of one for all: orders that are not needed vanish in a voxel.
    leave_out_mean
        Whether ℓ = 0 goes free, so that only anisotropy is sparse.
    smoothing
        Rounds the norms to ``√(|c|² + smoothing²) - smoothing``, in units of the coefficients, for methods that need
        gradients; 0 for none. The proximal map is that of the unrounded norms.

    Examples
    --------
    >>> import torch
    >>> c = torch.tensor([3.0, 0.0, 4.0, 0.0, 0.0, 0.0])
    >>> GroupSparsity()(c), GroupSparsity(per_order=True)(c), GroupSparsity(leave_out_mean=True)(c)
    (5.0, 7.0, 4.0)
    """

    def __init__(self, *, per_order: bool = False, leave_out_mean: bool = False, smoothing: float = 0.0) -> None:
        self.per_order, self.leave_out_mean = flag(per_order, "per_order"), flag(leave_out_mean, "leave_out_mean")
        self.smoothing = number(smoothing, "smoothing", low=0.0)

    @property
    def is_smooth(self) -> bool:
        return self.smoothing > 0

    def _groups(self, z: torch.Tensor) -> list[torch.Tensor]:
        """Views of the coefficients, those that go free among them (first, if at all)."""
        if not z.ndim:
            raise ValueError(message("x", "coefficients on the last axis", "a single number"))
        if self.per_order:
            return list(z.split([2 * ell + 1 for ell in range(0, order_of(z.shape[-1]) + 1, 2)], dim=-1))
        return [z[..., :1], z[..., 1:]] if self.leave_out_mean else [z]

    def value(self, z: torch.Tensor) -> torch.Tensor:
        paying = self._groups(z)[self.leave_out_mean :]
        norms = [torch.linalg.vector_norm(group, dim=-1) for group in paying]
        return sum((rounded(norm, self.smoothing).sum() for norm in norms), z.new_zeros(()))

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        def shrunk(group: torch.Tensor) -> torch.Tensor:
            norm = torch.linalg.vector_norm(group, dim=-1, keepdim=True)
            return group * (1 - step / norm.clamp(min=step or 1.0)) if step else group

        groups, free = self._groups(z), self.leave_out_mean
        return torch.cat([*groups[:free], *map(shrunk, groups[free:])], dim=-1)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        def inverse(group: torch.Tensor) -> torch.Tensor:
            norm = torch.linalg.vector_norm(group, dim=-1, keepdim=True)
            return inverse_of_rounded(norm, self.smoothing).expand_as(group)

        groups, free = self._groups(z), self.leave_out_mean
        return torch.cat([*map(torch.zeros_like, groups[:free]), *map(inverse, groups[free:])], dim=-1)


def rounded(norm: torch.Tensor, smoothing: float) -> torch.Tensor:
    """``√(norm² + smoothing²) - smoothing``."""
    return norm if not smoothing else (norm.square() + smoothing**2).sqrt() - smoothing


def inverse_of_rounded(norm: torch.Tensor, smoothing: float) -> torch.Tensor:
    """``1 / √(norm² + smoothing²)``, the factors of the quadratic above a rounded norm."""
    if not smoothing:
        raise ValueError(message("smoothing", "a positive number, as no quadratic lies above the bare norm", smoothing))
    return (norm.square() + smoothing**2).rsqrt()
