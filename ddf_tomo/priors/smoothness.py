"""Quadratic smoothness from voxel to voxel."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ddf_tomo.priors.differences import Differences
from ddf_tomo.priors.functional import Functional


class Smoothness(Functional):
    """``½ |D c|²`` with forward differences ``D``; its gradient is minus the discrete Laplacian of every coefficient.

    It smooths edges as well as noise; it does not change when the sample is rotated.

    Parameters
    ----------
    volume_shape
        Voxels along ``(x, y, z)``.

    Examples
    --------
    >>> import torch
    >>> Smoothness((3, 1, 1))(torch.tensor([0.0, 3.0, 3.0]).reshape(3, 1, 1, 1))
    4.5
    """

    def __init__(self, volume_shape: Sequence[int]) -> None:
        self.operator = Differences(volume_shape)

    @property
    def is_smooth(self) -> bool:
        return True

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return z.square().sum() / 2

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        return z / (1 + step)

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_ones(())
