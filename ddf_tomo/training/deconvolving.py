"""Unrolled deconvolution as a task: Gaussian and crossing kernels in crops of frames, whose kernels are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import message, number
from ddf_tomo.retrieval.deconvolution._fit import arrived
from ddf_tomo.retrieval.deconvolution._motion import forward, pulled
from ddf_tomo.retrieval.deconvolution.unrolled import Evidence, evidence, transfers_at
from ddf_tomo.retrieval.matching import METHOD as MATCHING
from ddf_tomo.retrieval.method import View
from ddf_tomo.training._frame_maps import FAMILIES
from ddf_tomo.training._frame_maps import Maps as Truth
from ddf_tomo.training._frame_task import UNROLLED, FrameTask, fewest_and_most
from ddf_tomo.training.frames import MARGIN, MASKS, arriving

__all__ = ["Deconvolving"]
EDGE = 10  # pixels of a crop that do not count
LEAST = 0.02  # square pixels, and of a transfer: an error below is not worth more
CROSSING = np.deg2rad([50.0, 90.0])  # between the lines
PARTS = 1.0, 1.0, 0.25  # of the loss: second moments, their part with a direction, transfers
INNER = 2  # most ways to the windows' minima in a step


class Example(NamedTuple):
    """Evidence, true second moments ``(row, column, 3)`` and transfers of the kernels, error of the start.

    And whether lines cross in every pixel.
    """

    evidence: Evidence
    covariance: Tensor
    transfers: Tensor
    used: Tensor
    started: float
    crossed: bool


@dataclass(frozen=True, kw_only=True)
class Deconvolving(FrameTask):
    """Find kernel fields in frames of random samples: a task for `train` and `UnrolledDeconvolution`.

    Frames are those of the families of `ddf_tomo.training.random_crop`, and, for a share of them, of two families of
    lines that cross in every pixel. What the network is compared with as its input are the weights that it starts from.

    Parameters
    ----------
    families, validation
        Names of `FRAME_FAMILIES`: those to learn from and those to validate with.
    size
        Rows and columns of the frames.
    pool
        How many different examples there are to learn from; each is made when it is first drawn, and kept (6 MB each).
    batch
        Examples in a batch.
    mask_steps
        Fewest and most mask positions.
    counts
        Quanta a pixel: lowest and highest.
    crossing
        Share of examples with crossing lines.
    unrolled
        Fewest and most steps of the network.
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
    >>> task = Deconvolving(size=(32, 32), pool=1, batch=1, validation_frames=1, mask_steps=(4, 4))
    >>> task.examples(step=3)[0].covariance.shape
    torch.Size([32, 32, 3])
    """

    size: tuple[int, ...] = (64, 64)
    pool: int = 300
    batch: int = 2
    mask_steps: tuple[int, ...] = (5, 20)
    counts: tuple[float, ...] = (300.0, 20000.0)
    crossing: float = 0.3
    unrolled: tuple[int, ...] = (2, 5)
    validation_frames: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "crossing", number(self.crossing, "crossing", low=0.0, high=1.0))
        object.__setattr__(self, "unrolled", fewest_and_most(self.unrolled, "unrolled", 100))
        if min(self.size) < 3 * EDGE:
            raise ValueError(message("size", f"at least {3 * EDGE} rows and columns", self.size))

    def example(self, family: str, draw: np.random.Generator, count: int | None = None) -> Example:
        """An example of a ``family``; ``draw`` gives all that is random.

        To validate, lines cross in every third ``count``.
        """
        crossed = bool(draw.random() < self.crossing) if count is None else count % 3 == 2
        steps = int(draw.integers(self.mask_steps[0], self.mask_steps[1] + 1))
        counts = float(np.exp(draw.uniform(*np.log(self.counts))))
        size = self.size[0] + 2 * MARGIN, self.size[1] + 2 * MARGIN
        maps = FAMILIES[family](size, draw)
        blurs = [maps.covariance]
        if crossed:
            blurs = crossing_lines(maps.covariance, draw)
        reference = MASKS[str(draw.choice(tuple(MASKS), p=(0.8, 0.1, 0.1)))](steps, size, draw)
        frames, arrived_by = mixed_frames(reference, maps.transmission, maps.displacement, blurs)
        inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        pair = [draw.poisson(counts * np.clip(each[inner], 0, None)) / counts for each in (frames, reference)]
        sample, light = (torch.from_numpy(each).float()[None] for each in pair)
        view = View(sample, light.clamp(min=1 / counts), torch.ones(1, 1, 1, 1), torch.ones(1), counts)
        started = MATCHING.fit(view, MATCHING.check(MATCHING.options, tuple(view.sample.shape)), lambda: None)
        found = evidence(view, started)
        # What is true of the places of the object, as far as the displacement found tells where they are.
        v = forward(arrived(started)[0])
        truth = torch.from_numpy(arrived_by[inner]).float()
        truth = pulled(truth.flatten(0, 1), v, torch.ones(truth.shape[:2].numel())).view_as(truth)
        share, covariance = second_moments(truth)
        of_width = (share * transfers_at(truth[:, 2:5].movedim(1, -1), found.width)).sum(0)
        inside = torch.zeros_like(found.seen)
        inside[EDGE:-EDGE, EDGE:-EDGE] = True
        # Where hardly anything is seen the rest of the crop has to do: an example always says something.
        used = inside & found.seen if bool((inside & found.seen).any()) else inside
        off = torch.as_tensor(started.covariance).movedim(-1, 0)
        of_start = pulled(off, v, torch.ones(3)).movedim(0, -1)
        return Example(found, covariance, of_width, used, float(_relative(of_start, covariance, used)), crossed)

    def varied(self, example: Example, draw: np.random.Generator) -> Example:
        """An ``example`` mirrored and turned by right angles, by ``draw``; kernels turn into one another."""
        return mirrored(example, *(bool(each) for each in draw.integers(2, size=3)))

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Mean logarithm, by ``PARTS``, of the errors that ``network`` leaves in the batch of this ``step``.

        Errors are those of second moments, of their part that has a direction, and of the kernels' transfers.
        """
        draw = np.random.default_rng([self.seed, UNROLLED, step])
        steps, inner = int(draw.integers(self.unrolled[0], self.unrolled[1] + 1)), int(draw.integers(1, INNER + 1))
        errors = [self._errors(network, each, steps, inner) for each in self.examples(step)]
        logs = [part * (error + LEAST).log() for each in errors for part, error in zip(PARTS, each, strict=True)]
        return torch.stack(logs).sum() / (sum(PARTS) * len(errors))

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Geometric means of relative errors of second moments: of the network (``loss``), of its start (``input``).

        Beside them those of ``matching``; ``crossing`` are the same of lines that cross in every pixel, ``direction``
        and ``shape`` errors by the ``network`` of the part that has a direction, and of the kernels' transfers.
        """
        found: dict[str, list[float]] = {}
        for each in self._validation:
            second, direction, shape = (error.item() for error in self._errors(network, each, max(self.unrolled), 1))
            given = self._errors(lambda start, *others: start, each, 0, 1)[0].item()
            errors = {"loss": second, "input": given, "matching": each.started, "direction": direction, "shape": shape}
            if each.crossed:
                errors |= {"crossing": second, "crossing matching": each.started}
            for name, value in errors.items():
                found.setdefault(name, []).append(value)
        return {name: float(np.exp(np.mean(np.log(values)))) for name, values in found.items()}

    def _errors(self, network: Callable[..., Tensor], each: Example, steps: int, inner: int) -> tuple[Tensor, ...]:
        given = each.evidence
        on = torch.device(self.device)
        start, solution, response, moments = (x.to(on) for x in given[:4])
        weights = network(start, solution, response, steps, inner).movedim(0, -1)
        used = each.used.to(on)
        found, truth = weights @ moments, each.covariance.to(on)
        second = _relative(found, truth, used)
        one, other = (torch.stack([C[..., 0] - C[..., 2], 2 * C[..., 1]], -1) for C in (found, truth))
        direction = _relative(one, other, used)
        shape = _relative(weights @ transfers_at(moments, given.width), each.transfers.to(on), used, centred=True)
        return second, direction, shape


def mirrored(example: Example, down: bool, across: bool, swapped: bool) -> Example:
    """An example with its rows in reverse, its columns in reverse, and both axes swapped."""
    given = example.evidence
    axes = [axis for axis, reverse in ((-2, down), (-1, across)) if reverse]

    def placed(image: Tensor) -> Tensor:
        image = image.flip(axes)
        return image.mT if swapped else image

    def turned(covariance: Tensor) -> Tensor:
        jj, jk, kk = covariance.unbind(-1)
        jk = jk if down == across else -jk
        return torch.stack([kk, jk, jj] if swapped else [jj, jk, kk], -1)

    def order(now: Tensor, before: Tensor) -> Tensor:
        return (now[:, None] - before).abs().sum(-1).argmin(1)

    kernels = order(given.covariance, turned(given.covariance))
    probe = given.width**2 * torch.tensor([1.0, 0.1, 0.4])  # its transfers all differ
    frequencies = order(transfers_at(turned(probe), given.width)[:, None], transfers_at(probe, given.width)[:, None])
    evidence = given._replace(
        start=placed(given.start)[kernels],
        solution=placed(given.solution)[:, kernels],
        response=placed(given.response)[:, kernels][:, :, kernels],
        seen=placed(given.seen),
    )
    return example._replace(
        evidence=evidence,
        covariance=turned(placed(example.covariance.movedim(-1, 0)).movedim(0, -1)),
        transfers=placed(example.transfers.movedim(-1, 0)).movedim(0, -1)[..., frequencies],
        used=placed(example.used),
    )


def _relative(found: Tensor, truth: Tensor, used: Tensor, centred: bool = False) -> Tensor:
    """Root mean square of an error over that of the truth, or, if ``centred``, of one less the truth."""
    scale = (1 - truth if centred else truth)[used].square().mean()
    return ((found - truth)[used].square().mean() / scale.clamp(min=1e-4) + 1e-8).sqrt()


def second_moments(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the light of some parts ``(part, row, column, 1)``, and the covariance of all ``(row, column, 3)``."""
    u, part, log_light = truth.movedim(1, -1).split((2, 3, 1), -1)
    share = log_light.softmax(0)
    j, k = (u - (share * u).sum(0)).unbind(-1)
    return share, (share * (part + torch.stack([j * j, j * k, k * k], -1))).sum(0)


def crossing_lines(covariance: np.ndarray, draw: np.random.Generator) -> list[np.ndarray]:
    """Two lines in every pixel: as wide as the blur, thin, the second one turned."""
    jj, jk, kk = np.moveaxis(covariance, -1, 0)
    angle = 0.5 * np.arctan2(2 * jk, jj - kk)
    length = np.clip(np.sqrt(jj + kk) * draw.uniform(1.0, 1.6), 0.6, 2.2)
    across = min(0.3, 1.0) * np.ones_like(length)
    apart = draw.uniform(*CROSSING)
    made = []
    for turned in (angle, angle + apart):
        mean, half = (length**2 + across**2) / 2, (length**2 - across**2) / 2
        parts = mean + half * np.cos(2 * turned), half * np.sin(2 * turned), mean - half * np.cos(2 * turned)
        made.append(np.stack(parts, -1))
    return made


def mixed_frames(reference: Any, transmission: Any, displacement: Any, blurs: list[Any]) -> tuple[Any, Any]:
    """Frames behind equal parts of some blurs, and what arrives behind each: u, C, ln T ``(part, 6, row, column)``."""
    found = [arriving(reference, Truth(transmission, displacement, each)) for each in blurs]
    return sum(each for each, _ in found) / len(found), np.stack([each for _, each in found])
