"""One matrix on the coefficients of every voxel: the operator behind constraints that look at them in other ways."""

from __future__ import annotations

from typing import Any

import torch

from ddf_tomo._checks import real_array
from ddf_tomo.operators.base import LinearOperator


class ChannelMatrix(LinearOperator):
    """``z = M c`` in every voxel: ``(x, y, z, K)`` to ``(x, y, z, N)``, whatever the size of the volume.

    Parameters
    ----------
    matrix
        ``M``, shape ``(N, K)``.

    Examples
    --------
    >>> import torch
    >>> ChannelMatrix([[1.0, 1.0], [1.0, -1.0]])(torch.tensor([3.0, 1.0]).reshape(1, 1, 1, 2)).flatten()
    tensor([4., 2.])
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = torch.from_numpy(real_array(matrix, "matrix", (None, None)))
        rows, columns = self.matrix.shape
        # Factors alone are faster, and give the same to the last bit wherever in memory the numbers lie.
        diagonal = self.matrix.diagonal()
        self.factors = diagonal if rows == columns and torch.equal(self.matrix, diagonal.diag()) else None
        self.domain_shape, self.range_shape = (None, None, None, columns), (None, None, None, rows)

    def norm(self, iterations: int = 0, seed: int = 0) -> float:
        """Largest singular value, by decomposition, whatever ``iterations`` and ``seed``."""
        return float(torch.linalg.matrix_norm(self.matrix, 2))

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix.to(x).T if self.factors is None else x * self.factors.to(x)

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return y @ self.matrix.to(y) if self.factors is None else y * self.factors.to(y)
