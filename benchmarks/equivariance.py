"""What it is worth that a network knows rotations: the equivariant denoiser beside the plain one, from few samples.

12³ voxels, ℓ ≤ 4, layered samples that all stand alike: 4, 16 or 64 of those draws whose fibres lie across z, to about
15°; white noise of 5 to 50 % of the brightness, drawn anew in each step. Both networks have about as many weights, the
same loss, optimiser, rate of learning and number of steps. A step of the equivariant one takes nearly six times as
long, so two more opponents are trained for five times as many: the plain network on the same samples as they stand, and
on the same in all 24 poses of the cube. Weights are kept where unseen samples that stand like the pool come out best.

Tests: unseen samples of the same kind, the same laid down by rotations of the cube, and others in any pose, as they are
drawn; 10 and 30 % noise. Errors are `order_errors` of ℓ ≥ 2. Ratios are geometric means over samples, levels, orders
and trainings (other samples, weights to start from and noise), with the standard error over samples as a factor; how
trainings differ stands beside it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from harness import Row
from torch import Tensor, nn

from ddf_tomo.derived import derive
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.priors.learned import EquivariantDenoiser, ResidualUNet
from ddf_tomo.training import Schedule, order_errors, random_sample, train, white_noise_pair

FAMILY = "layered"
TILTED = 0.05  # mean square of z along fibres; a third where they point anywhere
POSES = ("as they stand", "laid down", "any pose")
LAID_DOWN = tuple(rotation for rotation in CUBE_ROTATIONS if rotation.axes[2] != 2)
LEVEL, TEST_LEVELS = (0.05, 0.5), (0.1, 0.3)
BATCH, RATE, SMALL = 2, 1e-2, 0.01
TEST, VALIDATION, POOL = 10**9, 2 * 10**9, 3 * 10**9  # seeds begin there
MULTIPLICITIES = ((8, 2, 4, 2, 0, 0), (12, 4, 6, 3, 0, 0), (16, 4, 8, 4, 0, 0))


class Contestant(NamedTuple):
    """A network, how many times the steps it gets, and whether samples are turned in training."""

    network: Callable[[], nn.Module]
    times: int = 1
    turned: bool = False


def plain() -> nn.Module:
    """With about as many weights as the equivariant one."""
    return ResidualUNet((8, 12, 16))


EQUIVARIANT = "equivariant"
CONTESTANTS = {
    EQUIVARIANT: Contestant(lambda: EquivariantDenoiser(MULTIPLICITIES)),
    "plain": Contestant(plain),
    "plain, 5 × the steps": Contestant(plain, 5),
    "plain, 5 × the steps, turned": Contestant(plain, 5, True),
}


def run(
    quick: bool = False,
    size: int | None = None,
    counts: Sequence[int] = (4, 16, 64),
    steps: int = 150,
    trainings: int = 2,
    tests: int = 12,
) -> Iterator[Row]:
    """Times, error at equal data, and data for equal error."""
    edge, order = size or (6 if quick else 12), 2 if quick else 4
    if quick:
        counts, steps, trainings, tests = (1, 2), 1, 1, 2
    yield from time_rows(edge, order)
    jobs = list(product(range(trainings), counts))
    one = partial(errors_left, edge=edge, order=order, steps=steps, tests=tests)
    if quick:
        found = list(map(one, jobs))
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
            found = list(pool.map(one, jobs))
    logs = {  # (training, pose, sample)
        (name, count): torch.stack([each[name] for job, each in zip(jobs, found, strict=True) if job[1] == count])
        for name, count in product(CONTESTANTS, counts)
    }
    for place, pose in enumerate(POSES):
        for name in list(CONTESTANTS)[1:]:
            for count in counts:
                bar = 0.9 if name == "plain" and pose != "as they stand" else None
                yield ratio_row(f"{count} samples, {pose}: {EQUIVARIANT} / {name}", logs, name, count, place, bar)
        for name in list(CONTESTANTS)[1:]:
            yield needed_row(f"{pose}: samples for the error of {name} with {max(counts)}", logs, name, counts, place)


def errors_left(job: tuple[int, int], edge: int, order: int, steps: int, tests: int) -> dict[str, Tensor]:
    """`errors` of each contestant, shape ``(pose, sample)``, after this training with so many samples."""
    training, count = job
    upright = upright_samples(tests, edge, order, TEST)
    laid_down = [LAID_DOWN[n % len(LAID_DOWN)].volume(sample) for n, sample in enumerate(upright)]
    poses = (upright, laid_down, [random_sample(FAMILY, (edge,) * 3, order, seed=n) for n in range(tests)])
    unseen = upright_samples(tests // 2, edge, order, VALIDATION)
    pool = upright_samples(count, edge, order, POOL + 10**6 * training)
    found = {}
    for name, contestant in CONTESTANTS.items():
        network = trained(contestant, Denoising(pool, unseen, contestant.turned, training), steps)
        found[name] = torch.stack([errors(network, samples) for samples in poses])
    return found


def upright_samples(count: int, edge: int, order: int, first: int) -> list[Tensor]:
    """The first of the draws from this seed on whose fibres lie across z."""
    found: list[Tensor] = []
    seed = first
    while len(found) < count:
        coarse = derive(random_sample(FAMILY, (6, 6, 6), 2, seed=seed))
        if np.square(coarse.direction[coarse.valid][:, 2]).mean() < TILTED:
            found.append(random_sample(FAMILY, (edge,) * 3, order, seed=seed))
        seed += 1
    return found


def noisy_batch(samples: Sequence[Tensor], level: tuple[float, float], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples with noise, its strength as networks take it, and the samples."""
    seeds = np.random.default_rng(seed).integers(2**62, size=len(samples)).tolist()
    pairs = [white_noise_pair(x, level=level, seed=each) for x, each in zip(samples, seeds, strict=True)]
    return torch.stack([noisy for noisy, _ in pairs]), torch.tensor([[s] for _, s in pairs]), torch.stack([*samples])


@dataclass(frozen=True)
class Denoising:
    """Of few samples, again and again, with new noise: a task for `train`; loss as that of the package's own."""

    pool: Sequence[Tensor]
    unseen: Sequence[Tensor]
    turned: bool
    seed: int

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Mean logarithm of errors."""
        draw = np.random.default_rng([self.seed, step])
        places, turns = draw.integers(len(self.pool), size=BATCH), draw.integers(24, size=BATCH)
        chosen = [self.pool[place] for place in places]
        if self.turned:
            chosen = [CUBE_ROTATIONS[turn].volume(sample) for turn, sample in zip(turns, chosen, strict=True)]
        noisy, strength, truth = noisy_batch(chosen, LEVEL, int(draw.integers(2**62)))
        return (order_errors(network(noisy, strength), truth) + SMALL).log().mean()

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """On samples that do not train and stand as the pool does."""
        noisy, strength, truth = noisy_batch(self.unseen, LEVEL, 0)
        results = {"loss": network(noisy, strength), "input": noisy}
        return {name: float(order_errors(result, truth).log().mean().exp()) for name, result in results.items()}


def trained(contestant: Contestant, task: Denoising, steps: int) -> nn.Module:
    """The network of the best of five validations."""
    torch.manual_seed(task.seed)
    total = steps * contestant.times
    every = max(1, total // 5)
    schedule = Schedule(steps=total, learning_rate=RATE, average=0.98, validate_every=every, seed=task.seed)
    return train(contestant.network(), task, schedule, progress=False).network


@torch.no_grad()
def errors(network: nn.Module, samples: Sequence[Tensor]) -> Tensor:
    """Mean logarithm of the errors of ℓ ≥ 2 that are left in each sample."""
    found = []
    for level in TEST_LEVELS:
        noisy, strength, truth = noisy_batch(samples, (level, level), 0)
        found.append(order_errors(network(noisy, strength), truth)[:, 1:].log().mean(1))
    return torch.stack(found).mean(0)


def time_rows(edge: int, order: int) -> Iterator[Row]:
    """Of a step of each network, the least of five, in turn."""
    x = torch.rand(BATCH, edge, edge, edge, (order + 1) * (order + 2) // 2)
    networks = {name: CONTESTANTS[name].network() for name in (EQUIVARIANT, "plain")}
    seconds = dict.fromkeys(networks, math.inf)
    for _ in range(5):
        for name, network in networks.items():
            network.zero_grad()
            start = time.process_time()
            network(x, 0.1).square().sum().backward()
            seconds[name] = min(seconds[name], time.process_time() - start)
    for name, network in networks.items():
        used = sum(int((weight.grad != 0).sum()) for weight in network.parameters() if weight.grad is not None)
        yield Row(f"time of the processor, a step, {name}", seconds[name], "s", note=f"{used} weights in use")
    yield Row(f"time, {EQUIVARIANT} / plain", seconds[EQUIVARIANT] / seconds["plain"], "×")


Logs = Mapping[tuple[str, int], Tensor]


def ratio_row(what: str, logs: Logs, name: str, count: int, pose: int, at_most: float | None) -> Row:
    """Of errors left by the equivariant network and another."""
    ours, theirs = (logs[each, count][:, pose] for each in (EQUIVARIANT, name))
    by_sample, by_training = (ours - theirs).mean(0), (ours - theirs).mean(1).exp()
    error = math.exp(float(by_sample.std()) / math.sqrt(len(by_sample)))
    note = f"{ours.mean().exp():.3f} / {theirs.mean().exp():.3f}, ×/÷ {error:.3f}; trainings "
    note += ", ".join(f"{value:.3f}" for value in by_training)
    return Row(what, float(by_sample.mean().exp()), "×", at_most=at_most, note=note)


def needed_row(what: str, logs: Logs, name: str, counts: Sequence[int], pose: int) -> Row:
    """How many samples the equivariant network needs, interpolated in logarithms."""
    aim = float(logs[name, max(counts)][:, pose].mean())
    curve = np.minimum.accumulate([float(logs[EQUIVARIANT, count][:, pose].mean()) for count in counts])
    needed = float(np.exp(np.interp(-aim, -curve, np.log(counts))))
    note = "or fewer" if aim >= curve[0] else "it does not get there" if aim < curve[-1] else ""
    return Row(what, needed, "samples", note=note)
