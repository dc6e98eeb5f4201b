"""Differences between neighbouring voxels: the operator behind smoothness penalties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ddf_tomo._checks import size_tuple
from ddf_tomo.operators.base import LinearOperator


class Differences(LinearOperator):
    """Forward differences along x, y and z: ``(x, y, z, channel)`` to ``(3, x, y, z, channel)``, zero at the far faces.

    ``|D x|²`` is the energy of the discrete Laplacian with free boundaries. In a basis of harmonics of mean square 1 it
    does not change when the sample is rotated, since all coefficients of an order enter alike.

    Parameters
    ----------
    volume_shape
        Voxels along ``(x, y, z)``.

    Examples
    --------
    >>> import torch
    >>> Differences((3, 1, 1))(torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1, 1))[0].flatten()
    tensor([1., 2., 0.])
    """

    def __init__(self, volume_shape: Sequence[int]) -> None:
        self.domain_shape = (*size_tuple(volume_shape, "volume_shape", 3), None)
        self.range_shape = (3, *self.domain_shape)

    def norm(self, iterations: int = 0, seed: int = 0) -> float:
        """Largest singular value, in closed form, whatever ``iterations`` and ``seed``.

        The squares of those along an axis of n voxels are ``2 - 2 cos(π k / n)``, k < n.
        """
        return math.sqrt(sum(2 - 2 * math.cos(math.pi * (n - 1) / n) for n in self.domain_shape if n))

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        axes = (x.ndim - 4, x.ndim - 3, x.ndim - 2)
        return torch.stack([torch.diff(x, dim=axis, append=x.narrow(axis, -1, 1)) for axis in axes], dim=-5)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(y.select(-5, 0))
        for axis, difference in zip((-4, -3, -2), y.unbind(-5), strict=True):
            inner = difference.narrow(axis, 0, difference.shape[axis] - 1)
            zero = torch.zeros_like(difference.narrow(axis, 0, 1))
            total = total + torch.cat([zero, inner], axis) - torch.cat([inner, zero], axis)
        return total
