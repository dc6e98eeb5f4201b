"""The loop: the same weights every time, with and without an interruption, and an end where nothing is learned."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from ddf_tomo._checks import FileFormatError
from ddf_tomo.training import CollapseError, Schedule, train


class Tiny(nn.Module):
    """Draws random numbers of its own, has a buffer of integers, a parameter that does not train, and one unused."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fixed * self.inner(x)


class Shift:
    """Subtract a vector."""

    target = torch.tensor([1.0, -2.0, 0.5])

    def loss(self, network, step):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return (network(x) - (x - self.target)).square().mean()

    def validate(self, network):
        x = torch.randn(64, 3, generator=torch.Generator().manual_seed(10**6))
        return {"loss": (network(x) - (x - self.target)).square().mean(), "input": self.target.square().mean()}


class Useless(Shift):
    def loss(self, network, step):
        return 0 * super().loss(network, step)


def tiny() -> Tiny:
    torch.manual_seed(3)
    return Tiny()


def identity() -> Tiny:
    network = tiny()
    nn.init.zeros_(network.inner[-1].weight)
    nn.init.zeros_(network.inner[-1].bias)
    return network


SCHEDULE = Schedule(steps=40, learning_rate=0.03, average=0.9, validate_every=15, seed=1)


def assert_same(a: nn.Module, b: nn.Module) -> None:
    states = a.state_dict(), b.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_it_learns():
    found = train(tiny(), Shift(), Schedule(steps=80, learning_rate=0.1, average=0.9))
    assert found.stopped == "steps"
    assert found.figures["loss"] < 0.1 * found.figures["input"]
    assert not found.network.training
    fresh = Shift().validate(found.network)
    assert float(fresh["loss"]) == pytest.approx(found.figures["loss"], rel=1e-6)
    assert torch.equal(found.network.fixed, torch.ones(3))


def test_the_same_weights_every_time_whatever_random_numbers_there_were(tmp_path):
    first = train(tiny(), Shift(), SCHEDULE)
    torch.manual_seed(99)
    second = train(tiny(), Shift(), SCHEDULE)
    assert_same(first.network, second.network)
    other = train(tiny(), Shift(), Schedule(**{**vars(SCHEDULE), "seed": 2}))
    assert not torch.equal(other.network.inner[0].weight, first.network.inner[0].weight)


def test_training_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(5)
    network = tiny()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    train(network, Shift(), SCHEDULE)
    assert torch.equal(torch.rand(2), expected)


class Interrupted(Shift):
    """Stops, as Ctrl-C does, before a step."""

    def __init__(self, step: int) -> None:
        self.last = step

    def loss(self, network, step):
        if step == self.last:
            raise KeyboardInterrupt
        return super().loss(network, step)


@pytest.mark.parametrize("step", [16, 22, 31])
def test_what_was_interrupted_ends_bit_by_bit_as_if_it_had_not_been(tmp_path, step):
    state, log, whole = tmp_path / "state.safetensors", tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    expected = train(tiny(), Shift(), SCHEDULE, log=whole)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), Interrupted(step), SCHEDULE, state=state, log=log)
    found = train(Tiny(), Shift(), SCHEDULE, state=state, log=log)
    assert_same(found.network, expected.network)
    assert {**found.figures} == {**expected.figures}
    lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (log, whole)]
    for line in lines[0] + lines[1]:
        line.pop("seconds", None)
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [15, 30, 40]


def test_a_time_limit_stops_and_the_next_call_goes_on(tmp_path):
    state = tmp_path / "state.safetensors"
    network, steps = tiny(), []
    for _ in range(100):
        found = train(network, Shift(), SCHEDULE, state=state, time_limit_s=0.0)
        steps.append(found.step)
        if found.stopped == "steps":
            break
    assert steps == list(range(1, 41))
    assert_same(found.network, train(tiny(), Shift(), SCHEDULE).network)
    again = train(tiny(), Shift(), SCHEDULE, state=state)
    assert_same(again.network, found.network)


def test_states_of_other_trainings_are_refused(tmp_path):
    state = tmp_path / "state.safetensors"
    train(tiny(), Shift(), SCHEDULE, state=state, key="a recipe")
    with pytest.raises(
        FileFormatError, match=r"state.safetensors: expected the state of this training, got that of anoth"
    ):
        train(tiny(), Shift(), SCHEDULE, state=state, key="another recipe")
    with pytest.raises(FileFormatError, match="expected the state of a training of this network"):
        train(nn.Linear(3, 3), Shift(), SCHEDULE, state=state, key="a recipe")
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="expected a safetensors file"):
        train(tiny(), Shift(), SCHEDULE, state=state, key="a recipe")


def test_a_network_that_learns_nothing_stops_with_a_message():
    with pytest.raises(CollapseError, match=r"one below that of the network's own input.*nothing in 40 steps"):
        train(identity(), Useless(), SCHEDULE)


def test_a_loss_that_is_not_finite_stops_with_a_message():
    class Exploding(Shift):
        def loss(self, network, step):
            return super().loss(network, step) / (step < 3)

    with pytest.raises(CollapseError, match="expected a finite number, got inf at step 4"):
        train(tiny(), Exploding(), SCHEDULE)


def test_it_stops_when_validation_gets_no_better():
    class Worsening(Shift):
        figures = iter([0.5, 0.3, 0.2, 0.4, 0.21, 0.3, 0.1])

        def validate(self, network):
            self.seen = {name: value.clone() for name, value in network.state_dict().items()}
            loss = next(self.figures)
            if loss == 0.2:
                self.best = self.seen
            return {"loss": loss, "input": 1.0}

    task = Worsening()
    found = train(tiny(), task, Schedule(steps=100, validate_every=10, patience=3, average=0.9))
    assert (found.stopped, found.step, found.figures["step"], found.figures["loss"]) == ("patience", 60, 30, 0.2)
    assert torch.equal(found.network.inner[0].weight, task.best["inner.0.weight"])


def test_averages_follow_the_weights():
    """Against the recursion, with a learning rate that is known: a parameter that AdamW moves by its sign."""

    class Slope:
        def loss(self, network, step):
            return network.weight.sum() if isinstance(network, nn.Module) else network(torch.ones(1, 1)).sum()

        def validate(self, network):
            return {"loss": float(network.weight), "input": 1e9}

    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(2.0)
    schedule = Schedule(steps=6, learning_rate=0.1, warmup=0.5, weight_decay=0.0, average=0.3, validate_every=6)
    found = train(network, Slope(), schedule)
    weight = mean = 2.0
    for step in range(6):
        rate = 0.1 * (step + 1) / 3 if step < 3 else 0.05 * (1 + math.cos(math.pi * (step - 2) / 3))
        weight -= rate  # Adam's first moment over the root of its second, for a constant gradient
        decay = min(0.3, (2 + step) / (11 + step))
        mean = decay * mean + (1 - decay) * weight
    assert network.weight.item() == pytest.approx(weight, rel=1e-5)
    assert found.network.weight.item() == pytest.approx(mean, rel=1e-5)


def test_tensorboard_has_what_the_log_has(tmp_path):
    pytest.importorskip("tensorboard")
    train(tiny(), Shift(), SCHEDULE, log=tmp_path / "log.jsonl")
    assert list((tmp_path / "log.tensorboard").glob("events*"))


def test_bad_schedules_are_refused():
    with pytest.raises(ValueError, match="steps: expected an integer in"):
        Schedule(steps=0)
    with pytest.raises(ValueError, match="learning_rate: expected a finite number"):
        Schedule(steps=1, learning_rate=0)
    with pytest.raises(TypeError, match="schedule: expected a Schedule"):
        train(tiny(), Shift(), None)  # type: ignore[arg-type]
