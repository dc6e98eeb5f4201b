"""Denoising of coefficient volumes as a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import number
from ddf_tomo.operators.spherical_harmonics import power
from ddf_tomo.training._volume_task import VolumeTask, order_errors
from ddf_tomo.training.pairs import positive_range, reconstructed_pair, white_noise_pair
from ddf_tomo.training.samples import random_sample

__all__ = ["Denoising"]


class Noisy(NamedTuple):
    """A volume with errors, the true one (both ``(x, y, z, K)``), and the level of the errors of each order."""

    noisy: Tensor
    truth: Tensor
    level: Tensor


@dataclass(frozen=True, kw_only=True)
class Denoising(VolumeTask):
    """Take noise and errors of reconstruction off volumes of random samples: a task for `train`.

    Parameters
    ----------
    families, validation
        Names of `FAMILIES`: those to learn from and those to validate with. None in both, and none of those kept for
        tests (``SPLITS["test"]``).
    shape
        Voxels along ``(x, y, z)``.
    orders
        Orders ``ell_max`` of the volumes; a batch has one of them, drawn.
    batch
        Volumes in a batch.
    level
        White noise relative to the brightness: lowest and highest.
    reconstructed
        Share of volumes with errors of a reconstruction without prior instead (`reconstructed_pair`).
    projection_noise
        Noise of their data relative to the largest signal: lowest and highest.
    validation_volumes
        Volumes of each family and order to validate with.
    seed
        Of everything that is drawn.
    device
        Where batches are made.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> task = Denoising(shape=(8, 8, 8), orders=(2,), batch=2, validation_volumes=2)
    >>> noisy, truth, level = task.examples(step=5)[0]
    >>> noisy.shape, level.shape
    (torch.Size([8, 8, 8, 6]), torch.Size([2]))
    >>> sorted(task.validate(lambda volumes, level: volumes))
    ['input', 'input l0', 'input l2', 'l0', 'l2', 'loss']
    """

    level: tuple[float, float] = (0.01, 0.5)
    reconstructed: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", positive_range(self.level, "level"))
        object.__setattr__(self, "reconstructed", number(self.reconstructed, "reconstructed", low=0.0, high=1.0))

    def example(self, family: str, order: int, draw: np.random.Generator, share: float) -> Noisy:
        """A volume of this ``family`` and ``order``: of the lowest ``share`` with errors of a reconstruction.

        ``draw`` gives the seeds.
        """
        seed, of_noise = int(draw.integers(2**62)), int(draw.integers(2**62))
        if share < self.reconstructed:
            found, truth, _ = reconstructed_pair(family, self.shape, order, seed=seed, noise=self.projection_noise)
            noisy, truth = found.to(self.device), truth.to(self.device)
            counts = torch.arange(1, 2 * order + 2, 4, device=truth.device)
            return Noisy(noisy, truth, (power(noisy - truth).mean((0, 1, 2)) / counts).sqrt())
        truth = random_sample(family, self.shape, order, seed=seed, device=self.device)
        noisy, sigma = white_noise_pair(truth, level=self.level, seed=of_noise)
        return Noisy(noisy, truth, truth.new_full((order // 2 + 1,), sigma))

    def errors(self, network: Callable[..., Tensor], examples: Sequence[Noisy]) -> Tensor:
        """`order_errors` that ``network(volumes, level)`` leaves in ``examples``, shape ``(example, order)``."""
        noisy, truth, level = (torch.stack(parts) for parts in zip(*examples, strict=True))
        return order_errors(network(noisy, level), truth)

    def input_errors(self, examples: Sequence[Noisy]) -> Tensor:
        """`order_errors` of the ``examples`` as they are."""
        return self.errors(lambda noisy, level: noisy, examples)
