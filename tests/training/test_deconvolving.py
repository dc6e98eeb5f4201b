"""Examples of kernel fields: the same again, true in themselves, and something that a network learns."""

from __future__ import annotations

import pytest
import torch

from ddf_tomo.retrieval import Maps
from ddf_tomo.retrieval.deconvolution.unrolled import UnrolledDeconvolution, evidence, transfers_at
from ddf_tomo.retrieval.method import View
from ddf_tomo.training import Deconvolving, Recipe
from ddf_tomo.training.deconvolving import Example, mirrored

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


def example_of(pair: torch.Tensor, tensor: torch.Tensor) -> Example:
    """Evidence of frames, sample and reference, in which nothing moves; covariances as matrices."""
    flat, vector = torch.zeros(pair.shape[-2:]), torch.zeros(*pair.shape[-2:], 2)
    C = torch.stack([tensor[..., 0, 0], tensor[..., 0, 1], tensor[..., 1, 1]], -1)
    maps = Maps(flat + 1, vector, C, flat, flat + 1, vector + 1, C + 1, flat, flat, flat > -1)
    found = evidence(View(*pair[:, None], torch.ones(1, 1, 1, 1), torch.ones(1), 1e4), maps)
    return Example(found, C, transfers_at(C, found.width), found.seen, 0.0, False)


def test_mirrored_examples_are_those_of_mirrored_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.nn.functional.avg_pool2d(torch.rand(2, 5, 24, 28, generator=generator).double() - 0.5, 3, 1, 1)
    # Alike at all edges, so that the padding, longer on one side, has no edge of its own.
    pair = 1 + torch.nn.functional.pad(pattern, (2, 2, 2, 2))
    root = torch.rand(28, 32, 2, 2, generator=generator).double()
    tensor = root @ root.mT
    example = example_of(pair, tensor)
    for down, across, swapped in ((True, False, False), (False, True, False), (True, False, True)):
        axes = [axis for axis, reverse in ((0, down), (1, across)) if reverse]
        axis_map = torch.diag(torch.tensor([-1.0 if down else 1.0, -1.0 if across else 1.0]).double())
        frames, turned = pair.flip([axis - 2 for axis in axes]), axis_map @ tensor.flip(axes) @ axis_map
        if swapped:
            frames, turned = frames.mT, turned.transpose(0, 1).flip(-1, -2)
        expected = example_of(frames, turned)
        found = mirrored(example, down, across, swapped)
        torch.testing.assert_close(found.evidence.response, expected.evidence.response, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.evidence.solution, expected.evidence.solution, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.evidence.start, expected.evidence.start, rtol=1e-4, atol=1e-6)
        assert torch.equal(found.covariance, expected.covariance)
        torch.testing.assert_close(found.transfers, expected.transfers)
        assert torch.equal(found.used, expected.used)


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
    assert set(task.validate(network)) >= {"loss", "input", "matching", "direction", "shape"}


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
