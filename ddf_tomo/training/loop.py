"""The training loop: AdamW with a cosine schedule, averaged weights, and a state from which it goes on bit by bit.

Lightning's and Accelerate's loops would replace some forty lines of this file, and bring back more: their checkpoints
are pickles, their data come from loaders whose place has to be restored (here a step number draws its own batch), and
validation of averaged weights, the check for collapse and a state that is one whole file would still be ours.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ddf_tomo._checks import FileFormatError, file_path, message, number, of_kind
from ddf_tomo._progress import progress_bar
from ddf_tomo.training._inputs import known_device, shown
from ddf_tomo.training._journal import Journal
from ddf_tomo.training.schedule import Schedule
from ddf_tomo.weights.network_files import read_tensors, write_tensors

__all__ = ["CollapseError", "Trained", "train"]
LAYOUT = "ddf_tomo training state 1"
SAVED_EVERY_S = 120.0
FEWEST_STEPS = 40  # before anybody can say that nothing is learned: fresh weights do harm at first
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class CollapseError(ValueError):
    """A network that learns nothing: after a tenth of its training it does not beat what it was given."""


class Task(Protocol):
    """What is to be learned. Batches depend on the step alone, so that a training can go on from any."""

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Loss of the batch of this step, differentiable in what the network gives."""
        ...

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Figures on data that never train; ``loss``, and ``input``: the loss of what the network was given."""
        ...


@dataclass(frozen=True)
class Trained:
    """What a training gives; made by `train`.

    Attributes
    ----------
    network
        With the averaged weights of the best validation, in evaluation mode.
    figures
        Of that validation.
    step
        How many steps were done.
    stopped
        ``"steps"``, ``"patience"`` or ``"time"``; after the last it can go on.
    seconds
        That it took, those before an interruption included.
    """

    network: Module
    figures: Mapping[str, float]
    step: int
    stopped: str
    seconds: float


def train(
    network: Module,
    task: Task,
    schedule: Schedule,
    *,
    state: str | os.PathLike[str] | None = None,
    key: str = "",
    log: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    time_limit_s: float = math.inf,
    progress: bool | None = None,
) -> Trained:
    """Train a network on a task, or go on with it.

    Parameters
    ----------
    network
        With the weights to start from; they are overwritten.
    task
        What is to be learned: an object with ``loss(network, step)``, of the batch of that step, and
        ``validate(network)``, which gives figures by name, among them ``loss`` and ``input`` (the loss of what the
        network was given); such as `Denoising`. It puts its batches on the device.
    schedule
        How long and how fast.
    state
        File to keep the state in: after each validation and every two minutes. If it is there, training goes on from
        it and ends as if it had never stopped, bit by bit on the CPU with the same number of threads.
    key
        Text that a state must carry to go on with it: what task and network are.
    log
        File for one line of JSON each validation; with ``tensorboard`` installed, a folder beside it holds the same.
    device
        To compute on.
    time_limit_s
        Seconds after which to stop, with the state written.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.

    Returns
    -------
    Trained

    Raises
    ------
    CollapseError
        If a loss is not finite, or after a tenth of the steps, and 40, the network is no better than its input.
    FileFormatError
        If the state is that of another training.

    Examples
    --------
    >>> class Halving:
    ...     def loss(self, network, step):
    ...         x = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
    ...         return (network(x) - x / 2).square().mean()
    ...     def validate(self, network):
    ...         return {"loss": float((network(torch.ones(1, 1)) - 0.5).abs()), "input": 0.5}
    >>> _ = torch.manual_seed(0)
    >>> found = train(torch.nn.Linear(1, 1), Halving(), Schedule(steps=200, learning_rate=0.05, average=0.9))
    >>> found.stopped, found.figures["loss"] < 0.05
    ('steps', True)
    """
    of_kind(Schedule, schedule, "schedule")
    of_kind(Module, network, "network")
    limit = time_limit_s if time_limit_s == math.inf else number(time_limit_s, "time_limit_s", low=0.0)
    on = known_device(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        run = _Run(network.to(on), task, schedule, json.dumps([key, asdict(schedule)]), on)
        return run.to_the_end(state, log, limit, shown(progress))


class _Run:
    """A training under way: everything that its state holds."""

    def __init__(self, network: Module, task: Task, schedule: Schedule, key: str, device: torch.device) -> None:
        self.network, self.task, self.schedule, self.key, self.device = network, task, schedule, key, device
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.best = {name: value.clone() for name, value in self.average.state_dict().items()}
        rates: dict[str, Any] = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, **rates)
        self.step, self.seconds, self.losses = 0, 0.0, 0.0
        self.lines: list[dict[str, Any]] = []

    def to_the_end(self, state: Any, log: Any, limit: float, progress: bool | None) -> Trained:
        if state is not None and file_path(state, "state").is_file():
            self._restore(file_path(state, "state"))
        began, saved, before = time.monotonic() - self.seconds, time.monotonic(), self.seconds
        journal = Journal(log, self.lines)
        stopped = self._finished()
        with closing(journal), closing(progress_bar(self.schedule.steps, "training", progress)) as bar:
            bar.update(self.step)
            while not stopped:
                self._one_step()
                bar.update(1)
                self.seconds = time.monotonic() - began
                if self._due():
                    self._validate(journal)
                    bar.set_postfix({name: f"{self.lines[-1][name]:.3g}" for name in ("loss", "input")}, refresh=False)
                stopped = self._finished() or ("time" if self.seconds - before > limit else "")
                if state is not None and (self._due() or stopped or time.monotonic() - saved > SAVED_EVERY_S):
                    self._save(state)
                    saved = time.monotonic()
            if not self.lines:  # stopped before the first validation
                self._validate(journal)
        self.average.load_state_dict(self.best)
        best = min(self.lines, key=lambda line: line["loss"])
        return Trained(self.average, best, self.step, stopped, self.seconds)

    def _due(self) -> bool:
        steps, tenth = self.schedule.steps, self._tenth()
        return self.step % self.schedule.validate_every == 0 or self.step in (tenth, steps)

    def _tenth(self) -> int:
        return max(FEWEST_STEPS, self.schedule.steps // 10)

    def _finished(self) -> str:
        if self.step >= self.schedule.steps:
            return "steps"
        losses, patience = [line["loss"] for line in self.lines], self.schedule.patience
        return "patience" if patience and losses and len(losses) - 1 - int(np.argmin(losses)) >= patience else ""

    def _one_step(self) -> None:
        torch.manual_seed(int(np.random.SeedSequence([self.schedule.seed, self.step]).generate_state(1)[0]))
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        self.network.train()
        loss = self.task.loss(self._mixed, self.step)
        found = float(loss.detach())
        self.losses += found
        if not math.isfinite(found):
            raise CollapseError(message("loss", "a finite number", f"{found} at step {self.step + 1}", "train slower"))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, self.schedule.clip)
        self.optimiser.step()
        self.step += 1
        share = 1 - min(self.schedule.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(new, share)
                else:
                    mean.copy_(new)

    def _mixed(self, *values: Any) -> Tensor:
        """The network, its products in the precision of the schedule."""
        mixed = self.schedule.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            found: Tensor = self.network(*values)
        return found.float() if mixed else found

    @torch.no_grad()
    def _validate(self, journal: Journal) -> None:
        figures = {name: float(value) for name, value in self.task.validate(self.average).items()}
        since = self.step - (self.lines[-1]["step"] if self.lines else 0)
        line = {
            "step": self.step,
            "train": self.losses / max(1, since),
            "rate": self.schedule.rate(self.step),
            **figures,
        }
        best = min((each["loss"] for each in self.lines), default=math.inf)
        if figures["loss"] < best:
            self.best = {name: value.clone() for name, value in self.average.state_dict().items()}
        self.lines.append(line)
        self.losses = 0.0
        journal.write(line | {"seconds": round(self.seconds, 1)})
        if self.step == self._tenth() and not figures["loss"] < figures["input"]:
            found = f"{figures['loss']:.4g}, where its input has {figures['input']:.4g}"
            hint = f"It has learned nothing in {self.step} steps: train slower, or look at the data"
            raise CollapseError(message("loss", "one below that of the network's own input", found, hint))

    def _save(self, state: Any) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for place, weight in enumerate(self.weights):
            if weight in self.optimiser.state:  # weights that no batch has used yet have none
                tensors |= {f"{name}.{place}": self.optimiser.state[weight][name] for name in MOMENTS}
        plain = {"step": self.step, "seconds": self.seconds, "losses": self.losses, "lines": self.lines}
        write_tensors(state, tensors, {"layout": LAYOUT, "key": self.key, "state": json.dumps(plain)})

    def _restore(self, path: Path) -> None:
        tensors, texts = read_tensors(path, LAYOUT)
        if texts.get("key") != self.key:
            hint = "Remove it to begin anew, or give the recipe that it belongs to"
            raise FileFormatError(message(str(path), "the state of this training", "that of another recipe", hint))
        try:
            plain = json.loads(texts["state"])
            parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "best": {}}
            parts |= {name: {} for name in MOMENTS}
            for name, value in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            self.network.load_state_dict(parts["network"])
            self.average.load_state_dict(parts["average"])
            self.best = {name: value.to(self.device) for name, value in parts["best"].items()}
            for place in map(int, parts["step"]):
                moments = {name: parts[name][str(place)].to(self.device) for name in MOMENTS}
                self.optimiser.state[self.weights[place]] = moments | {"step": parts["step"][str(place)]}
            self.step, self.seconds, self.losses = int(plain["step"]), float(plain["seconds"]), float(plain["losses"])
            self.lines = list(plain["lines"])
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise FileFormatError(message(str(path), "the state of a training of this network", error)) from error
