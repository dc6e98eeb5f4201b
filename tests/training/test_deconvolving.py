"""Examples of kernel fields: the same again, true in themselves, and something that a network learns."""

from __future__ import annotations

import pytest
import torch

from ddf_tomo.retrieval.deconvolution.unrolled import UnrolledDeconvolution, transfers_at
from ddf_tomo.training import Deconvolving, Recipe

SMALL = {"size": (32, 32), "pool": 1, "batch": 1, "validation_frames": 1, "mask_steps": (6, 6), "counts": (2e4, 2e4)}


@pytest.fixture(scope="module")
def task() -> Deconvolving:
    return Deconvolving(**SMALL, crossing=1.0, unrolled=(2, 2))  # type: ignore[arg-type]


def test_examples_depend_on_the_seed_alone(task: Deconvolving) -> None:
    one, other = task.examples(3)[0], Deconvolving(**SMALL, crossing=1.0).examples(3)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(one.evidence.solution, other.evidence.solution, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.covariance, other.covariance)


def test_crossing_lines_are_no_gaussian(task: Deconvolving) -> None:
    """Second moments are means of those of both lines; transfers are not those of a Gaussian with these moments."""
    example = task.examples(0)[0]
    gaussian = transfers_at(example.covariance, example.evidence.width)
    assert float((example.transfers - gaussian)[example.used].min()) > -1e-3  # Jensen: a mixture falls off later
    assert float((example.transfers - gaussian)[example.used].max()) > 5e-3


def test_one_example_is_learned(task: Deconvolving) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UnrolledDeconvolution(8)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        optimiser.zero_grad()
        loss = task.loss(network, step)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < losses[0] - 0.15
    assert set(task.validate(network)) >= {"loss", "input", "matching", "shape"}


def test_the_recipe_is_read() -> None:
    recipe = Recipe.read("deconvolution-unrolled")
    assert isinstance(recipe.task, Deconvolving)
    assert isinstance(recipe.network(), UnrolledDeconvolution)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"families": ("swirls",)}, "families"),
        ({"validation": ("waves",)}, "validation"),
        ({"size": (16, 16)}, "size"),
        ({"unrolled": (3, 2)}, "unrolled"),
        ({"mask_steps": (0, 2)}, "mask_steps"),
    ],
)
def test_bad_fields_are_named(options: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Deconvolving(**options)  # type: ignore[arg-type]
