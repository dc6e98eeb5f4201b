"""Reconstruction in a few learned iterations as a task: from data to coefficients, through the physics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import integer
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.solvers import cgls
from ddf_tomo.training._volume_task import VolumeTask, order_errors
from ddf_tomo.training.pairs import random_scan

__all__ = ["Unrolling"]
START_ITERATIONS = 8


class Measured(NamedTuple):
    """An operator, its data ``(view, j, k, channel)``, and the true coefficients ``(x, y, z, K)``."""

    A: TensorXRayTransform
    data: Tensor
    truth: Tensor


@dataclass(frozen=True, kw_only=True)
class Unrolling(VolumeTask):
    """Reconstruct random scans: a task for `train` and networks such as `ddf_tomo.solvers.Unrolled`.

    Geometries, responses and noise are drawn for each example (`random_scan`). What the network is compared with as its
    input is a reconstruction by eight iterations of conjugate gradients.

    Parameters
    ----------
    families, validation, shape, orders, batch, projection_noise, validation_volumes, seed, device
        As in `Denoising`.
    oversampling
        Voxels of the simulation per voxel; with 2, no data agree exactly with a volume on the grid.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> task = Unrolling(shape=(8, 8, 8), orders=(2,), batch=1)
    >>> A, data, truth = task.examples(step=3)[0]
    >>> data.shape == A.range_shape, truth.shape
    (True, torch.Size([8, 8, 8, 6]))
    """

    oversampling: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "oversampling", integer(self.oversampling, "oversampling", low=1, high=8))

    def example(self, family: str, order: int, draw: np.random.Generator, share: float) -> Measured:
        """A scan of a sample of this ``family`` and ``order``, of seeds from ``draw``; ``share`` means nothing."""
        seed = int(draw.integers(2**62))
        options: dict[str, Any] = {"seed": seed, "noise": self.projection_noise, "oversampling": self.oversampling}
        scan, truth = random_scan(family, self.shape, order, **options)
        A = TensorXRayTransform(scan.geometry, scan.response, order, device=self.device)
        return Measured(A, torch.as_tensor(scan.data).to(self.device), truth.to(self.device))

    def errors(self, network: Callable[..., Tensor], examples: Sequence[Measured]) -> Tensor:
        """`order_errors` that ``network(A, data)`` leaves in ``examples``, shape ``(example, order)``."""
        return torch.stack([order_errors(network(A, data), truth) for A, data, truth in examples])

    def input_errors(self, examples: Sequence[Measured]) -> Tensor:
        """The same for conjugate gradients on the ``examples``."""

        def plain(A: TensorXRayTransform, data: Tensor) -> Tensor:
            return cgls(A, data, iterations=START_ITERATIONS, progress=False).x

        return self.errors(plain, examples)
