"""Symmetric 3×3 tensors without negative eigenvalues."""

from __future__ import annotations

import math

import torch

from ddf_tomo._checks import check_shape, flag
from ddf_tomo.operators.rank_two import from_matrix, to_matrix
from ddf_tomo.priors.channel_matrix import ChannelMatrix
from ddf_tomo.priors.functional import Functional

OFF_DIAGONAL = (1.0, math.sqrt(2), math.sqrt(2), 1.0, math.sqrt(2), 1.0)
"""What the six numbers of a tensor are multiplied by, so that the sum of their squares is the Frobenius norm's."""


class PositiveDefinite(Functional):
    """The tensor ``(xx, xy, xz, yy, yz, zz)`` of every voxel has no negative eigenvalue.

    The nearest such tensor in the Frobenius norm has the same eigenvectors, and zero in place of negative eigenvalues
    [Higham 1988, Linear Algebra Appl. 103, 103]. That norm counts off-diagonal entries twice, the sum of squares of the
    six numbers counts them once: ``L`` multiplies them by √2, so that the projection is the exact one, and the
    same for every orientation of the sample.

    Parameters
    ----------
    scaled
        Whether off-diagonal entries were multiplied by √2 already, so that no ``L`` is needed.

    Examples
    --------
    >>> import torch
    >>> tensor = torch.tensor([2.0, 0.0, 0.0, -1.0, 0.0, 0.5])
    >>> PositiveDefinite(scaled=True).proximal(tensor, 1.0)
    tensor([2.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.5000])
    """

    is_constraint = True

    def __init__(self, *, scaled: bool = False) -> None:
        if not flag(scaled, "scaled"):
            self.operator = ChannelMatrix(torch.diag(torch.tensor(OFF_DIAGONAL, dtype=torch.float64)))

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(())

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        check_shape(z.shape[-1:], "z (last axis)", (6,))
        factors = z.new_tensor(OFF_DIAGONAL)
        tensor = (z / factors).reshape(-1, 6)
        xx, xy, xz, yy, yz, zz = tensor.unbind(-1)
        minor = xx * yy - xy**2
        determinant = zz * minor - xx * yz**2 - yy * xz**2 + 2 * xy * xz * yz
        # Decompositions are slow, and needed only where a leading minor is not positive.
        outside = ~((xx > 0) & (minor > 0) & (determinant > 0)) & torch.isfinite(determinant)
        result = tensor.clone()
        if outside.any():
            values, vectors = torch.linalg.eigh(to_matrix(tensor[outside]))
            result[outside] = from_matrix((vectors * values.clamp(min=0)[:, None, :]) @ vectors.mT)
        return (result * factors).reshape(z.shape)
