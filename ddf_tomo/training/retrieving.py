"""Retrieval of maps from frames as a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import message, number
from ddf_tomo.retrieval.matching import METHOD as MATCHING
from ddf_tomo.retrieval.method import View
from ddf_tomo.retrieval.network import evidence, pyramid
from ddf_tomo.training._frame_task import CALIBRATION, FrameTask
from ddf_tomo.training.frames import random_crop

__all__ = ["Retrieving"]
QUANTITIES = ("u", "C", "T")
PARTS = (slice(0, 2), slice(2, 5), slice(5, 6))
ITERATIONS = 3  # of the start
FARTHEST = 4.0  # errors; beyond, the likelihood's square becomes a line
COVERED, WITHIN = 0.95, 1.959964
SINGLE = 0.5  # share of examples with one step


class Example(NamedTuple):
    """Levels of the pyramid, the truth ``(6, row/2, column/2)``, and where matching started."""

    levels: list[Tensor]
    truth: Tensor
    start: Tensor


@dataclass(frozen=True, kw_only=True)
class Retrieving(FrameTask):
    """Find maps and their errors in frames of random samples: a task for `train`, of `ddf_tomo.retrieval.network`.

    Parameters
    ----------
    families, validation
        Names of `FRAME_FAMILIES`: those to learn from and those to validate with. None in both, and none of those kept
        for tests (``FRAME_SPLITS["test"]``).
    size
        Rows and columns of the frames, multiples of 16.
    pool
        How many different examples there are to learn from; each is made when it is first drawn, and seen in all eight
        turns and reflections.
    batch
        Examples in a batch.
    mask_steps
        Fewest and most mask positions; half of the examples have the fewest.
    counts
        Quanta a pixel: lowest and highest.
    waves
        Share of examples whose frames are made by wave optics.
    validation_frames
        Examples of each family to validate with.
    seed
        Of everything that is drawn.
    device
        Where the network learns.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> task = Retrieving(size=(32, 32), pool=2, batch=2, validation_frames=1)
    >>> example = task.examples(step=3)[0]
    >>> example.levels[0].shape, example.truth.shape
    (torch.Size([25, 16, 16]), torch.Size([6, 16, 16]))
    """

    size: tuple[int, ...] = (128, 128)
    pool: int = 1000
    batch: int = 8
    mask_steps: tuple[int, ...] = (1, 20)
    counts: tuple[float, ...] = (200.0, 20000.0)
    waves: float = 0.05
    validation_frames: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "waves", number(self.waves, "waves", low=0.0, high=1.0))
        if any(length % 16 for length in self.size):
            raise ValueError(message("size", "multiples of 16", self.size))

    def example(self, family: str, draw: np.random.Generator, count: int | None = None) -> Example:
        """An example of a ``family``; ``draw`` gives steps, counts and seed, whatever the ``count``."""
        fewest, most = self.mask_steps
        steps = fewest if draw.random() < SINGLE else round(_log_uniform(draw, fewest, most))
        counts = _log_uniform(draw, *self.counts)
        by_waves = bool(draw.random() < self.waves)
        seed = int(draw.integers(2**31))
        crop = random_crop(family, self.size, steps=steps, counts=counts, seed=seed, waves=by_waves)
        level = float(crop.reference.mean())
        one = torch.ones(1, 1, *self.size)
        view = View(crop.sample[None] / level, crop.reference[None] / level, one, torch.ones(1), level)
        options = MATCHING.check(MATCHING.options | {"iterations": ITERATIONS}, tuple(view.sample.shape))
        with torch.no_grad():
            found = evidence(view, options)
            truth = torch.nn.functional.avg_pool2d(crop.truth[None], 2)[0]
            return Example(pyramid(found.terms, found.coarse), truth, found.coarse)

    def varied(self, example: Example, draw: np.random.Generator) -> Example:
        """An ``example`` in one of its eight turns and reflections, by ``draw``."""
        return turned(example, int(draw.integers(8)))

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Negative log-likelihood that ``network`` gives the truth of the batch of this ``step``, over all pixels."""
        levels, truth = self._together(self.examples(step))
        found = network(levels)
        pull = ((found[:, :6] - truth) * (-found[:, 6:]).exp()).abs()
        near = pull.clamp(max=FARTHEST)
        return (near * (pull - 0.5 * near) + found[:, 6:]).mean()

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Geometric means over the validation examples of root mean square errors: of all (``loss``), and of each.

        For what ``network`` gives, and (``input``) for the fit that it is given; with the median error of the
        direction in degrees, and the share of pixels within 1.96 errors.
        """
        errors: dict[str, list[float]] = {}
        with torch.no_grad():
            for each in self._validation:
                levels, truth = self._together([each])
                found, truth = network(levels)[0].cpu(), truth[0].cpu()
                for name, maps in (("", found[:6]), ("input", each.start)):
                    for quantity, part in zip(QUANTITIES, PARTS, strict=True):
                        error = float((maps[part] - truth[part]).square().mean().sqrt())
                        errors.setdefault(f"{name} {quantity}".strip(), []).append(math.log(error + 1e-6))
                    errors.setdefault(f"{name} angle".strip(), []).append(math.log(angle(maps, truth) + 1e-6))
                within = ((found[:6] - truth).abs() <= WITHIN * found[6:].exp()).float().mean((1, 2))
                for quantity, part in zip(QUANTITIES, PARTS, strict=True):
                    errors.setdefault(f"{quantity} within", []).append(float(within[part].mean()))
        figures = {
            name: float(np.mean(found) if name.endswith("within") else np.exp(np.mean(found)))
            for name, found in errors.items()
        }
        for name, prefix in (("loss", ""), ("input", "input ")):
            figures[name] = math.exp(np.mean([math.log(figures[prefix + quantity]) for quantity in QUANTITIES]))
        return figures

    def calibrate(self, network: torch.nn.Module) -> None:
        """Scale the errors of a ``network`` so that 95 % of the truth are within 1.96 of them; in place.

        One factor for each quantity (u, C, ln T), from draws of all families that are in no batch.
        """
        calibration = network.calibration
        assert isinstance(calibration, Tensor)
        pulls = []
        with torch.no_grad():
            for each in self.drawn(CALIBRATION, sorted({*self.families, *self.validation})):
                levels, truth = self._together([each])
                found = network(levels)
                pulls.append(((found[:, :6] - truth).abs() * (-found[:, 6:]).exp())[0].flatten(1))
            pull = torch.cat(pulls, 1)
            for part in PARTS:
                calibration[part] *= float(np.quantile(pull[part].cpu().numpy(), COVERED)) / WITHIN

    def _together(self, examples: Sequence[Example]) -> tuple[list[Tensor], Tensor]:
        levels = [torch.stack(each).to(self.device) for each in zip(*(e.levels for e in examples), strict=True)]
        return levels, torch.stack([each.truth for each in examples]).to(self.device)


def angle(found: Tensor, truth: Tensor) -> float:
    """Median error in degrees of the direction of strongest blur, where there is one, of maps ``(6, row, column)``."""
    angles = [0.5 * torch.atan2(2 * each[3], each[2] - each[4]) for each in (found, truth)]
    off = (angles[0] - angles[1] + math.pi / 2) % math.pi - math.pi / 2
    directed = torch.hypot(2 * truth[3], truth[2] - truth[4]) > 0.1
    return math.degrees(float(off[directed].abs().median())) if directed.any() else 0.0


def turned(example: Example, which: int) -> Example:
    """One of the eight turns and reflections of the square, of an example: 0 to 7."""
    levels = [
        torch.cat([_turned(each[n : n + 6], which, signs=n % 12 == 0) for n in range(0, len(each), 6)])
        for each in example.levels
    ]
    return Example(levels, _turned(example.truth, which), _turned(example.start, which))


def _turned(images: Tensor, which: int, signs: bool = True) -> Tensor:
    """Maps ``(6, row, column)`` reflected: 1 swaps the axes, 2 and 4 turn one round; errors have no ``signs``."""
    if which & 1:
        images = images.mT
        images = images[[1, 0, 4, 3, 2, 5]] if len(images) == 6 else images
    axes = [axis for bit, axis in ((2, -2), (4, -1)) if which & bit]
    images = images.flip(axes) if axes else images
    if signs and len(images) == 6:
        j, k = (-1.0 if which & bit else 1.0 for bit in (2, 4))
        images = images * images.new_tensor([j, k, 1, j * k, 1, 1])[:, None, None]
    return images


def _log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(draw.uniform(math.log(low), math.log(high))))
