"""Denoising of coefficient volumes as a task: white noise, and what reconstructions are wrong by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import integer, number
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors.learned.samples import random_sample
from ddf_tomo.solvers._bands import Bands
from ddf_tomo.solvers.misfit import Misfit
from ddf_tomo.solvers.plug_and_play import near_data, noise_variance
from ddf_tomo.solvers.rehearsal import START_ITERATIONS, asked, error_levels, spread
from ddf_tomo.training._volume_task import VolumeTask, order_errors
from ddf_tomo.training.pairs import positive_range, random_scan, white_noise_pair

__all__ = ["Denoising"]
INNER_ITERATIONS = 6
SMALLEST = 1e-12  # mean square error of a band
JITTER = 0.2  # of the logarithm of the level: in use it is an estimate


class Data(NamedTuple):
    """Misfit, variance of the noise, and what the data tell of each order and band."""

    misfit: Misfit
    variance: float
    seen: Tensor


class Noisy(NamedTuple):
    """A volume with errors, the true one (both ``(x, y, z, K)``), and the level of the errors of each order.

    With the data where it comes from some.
    """

    noisy: Tensor
    truth: Tensor
    level: Tensor
    jitter: float = 1.0
    data: Data | None = None


@dataclass(frozen=True, kw_only=True)
class Denoising(VolumeTask):
    """Take noise and errors of reconstruction off volumes of random samples: a task for `train`.

    Reconstructions are those that plug-and-play will meet: of a random scan, from the linear one on which all orders
    agree with their strength, each time denoised by the network itself and then asked for the data again.

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
        Share of volumes that are reconstructions (`random_scan`) instead.
    rounds
        How often those are denoised, and how often they are asked for their data in between.
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
    >>> example = task.examples(step=5)[0]
    >>> example.noisy.shape, example.level.shape
    (torch.Size([8, 8, 8, 6]), torch.Size([2]))
    >>> sorted(task.validate(lambda volumes, level: volumes))
    ['input', 'input l0', 'input l2', 'l0', 'l2', 'loss']
    """

    level: tuple[float, float] = (0.01, 0.5)
    reconstructed: float = 0.8
    rounds: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "level", positive_range(self.level, "level"))
        object.__setattr__(self, "reconstructed", number(self.reconstructed, "reconstructed", low=0.0, high=1.0))
        object.__setattr__(self, "rounds", integer(self.rounds, "rounds", low=1, high=100))

    def example(self, family: str, order: int, draw: np.random.Generator, share: float) -> Noisy:
        """A volume of this ``family`` and ``order``: of the lowest ``share`` with errors of a reconstruction.

        ``draw`` gives the seeds.
        """
        seed, of_noise = int(draw.integers(2**62)), int(draw.integers(2**62))
        jitter = float(np.exp(JITTER * draw.normal()))
        if share < self.reconstructed:
            scan, truth = random_scan(family, self.shape, order, seed=seed, noise=self.projection_noise)
            truth = truth.to(self.device)
            A = TensorXRayTransform(scan.geometry, scan.response, order, device=self.device)
            misfit = Misfit(A, torch.as_tensor(scan.data).to(truth))
            zero, variance = torch.zeros_like(truth), noise_variance(misfit.y)
            strengths = spread(error_levels(zero, truth)).clamp_min(1e-6)
            noisy = near_data(misfit, zero, variance / strengths.square(), START_ITERATIONS)
            data = Data(misfit, variance, Bands(truth.shape).curvature(misfit))
            return Noisy(noisy, truth, error_levels(noisy, truth), jitter, data)
        truth = random_sample(family, self.shape, order, seed=seed, device=self.device)
        noisy, sigma = white_noise_pair(truth, level=self.level, seed=of_noise)
        return Noisy(noisy, truth, truth.new_full((order // 2 + 1,), sigma), jitter)

    def errors(self, network: Callable[..., Tensor], examples: Sequence[Noisy]) -> Tensor:
        """`order_errors` that ``network(volumes, level)`` leaves in ``examples``, shape ``(example, order)``.

        Of several rounds the geometric mean; gradients pass through each round alone.
        """
        found: list[list[Tensor]] = [[] for _ in examples]
        under_way = dict(enumerate(examples))
        for done in range(self.rounds):
            noisy, level = (
                torch.stack([getattr(each, name) for each in under_way.values()]) for name in ("noisy", "level")
            )
            jitter = torch.tensor([[each.jitter] for each in under_way.values()]).to(level)
            cleaner = network(noisy, level * jitter)
            for place, volume in zip(list(under_way), cleaner, strict=True):
                found[place].append(order_errors(volume, under_way[place].truth).log())
                before = under_way.pop(place)
                if before.data is not None and done + 1 < self.rounds:
                    under_way[place] = asked_again(before, before.data, volume.detach())
            if not under_way:
                break
        return torch.stack([torch.stack(rounds).mean(0).exp() for rounds in found])

    def input_errors(self, examples: Sequence[Noisy]) -> Tensor:
        """`order_errors` of the ``examples`` as they are."""
        return torch.stack([order_errors(each.noisy, each.truth) for each in examples])


@torch.no_grad()
def asked_again(before: Noisy, data: Data, cleaner: Tensor) -> Noisy:
    """The next reconstruction of the same ``data``, as near to the ``cleaner`` volume as is right: as `rehearsed`."""
    spectrum = Bands(cleaner.shape).strength(cleaner - before.truth).clamp_min(SMALLEST)
    x = asked(data.misfit, cleaner, data.variance / spectrum, data.seen, INNER_ITERATIONS)
    return before._replace(noisy=x, level=error_levels(x, before.truth))
