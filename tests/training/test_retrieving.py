"""Frames with known maps, and the task that learns from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo.retrieval.method import View
from ddf_tomo.retrieval.network import DirectNetwork, evidence, pyramid
from ddf_tomo.training import CollapseError, Schedule, train
from ddf_tomo.training._frame_maps import FAMILIES, Maps, blur
from ddf_tomo.training._frame_task import CALIBRATION
from ddf_tomo.training.frames import FRAME_FAMILIES, FRAME_SPLITS, arriving, random_crop
from ddf_tomo.training.retrieving import MATCHING, Example, Retrieving, turned


@pytest.fixture(scope="module")
def task() -> Retrieving:
    return Retrieving(size=(32, 32), pool=1, batch=1, validation_frames=1, mask_steps=(2, 2), waves=0.0, seed=3)


def test_the_truth_of_uniform_maps_is_theirs() -> None:
    j, k = np.arange(48)[:, None], np.arange(40)[None]
    pattern = (2 + np.cos(2 * np.pi * j / 8) + 0.5 * np.cos(2 * np.pi * k / 10))[None]
    ones = np.ones((48, 40))
    covariance = blur(1.2 * ones, 0.5 * ones, 0.4)
    sample, truth = arriving(pattern, Maps(0.7 * ones, np.stack([0.3 * ones, -0.6 * ones], -1), covariance))
    inner = (slice(None), slice(14, -14), slice(14, -14))  # light comes from beyond the edge as from a mirror
    expected = np.array([0.3, -0.6, *covariance[0, 0], np.log(0.7)])[:, None, None]
    np.testing.assert_allclose(truth[inner], np.broadcast_to(expected, truth[inner].shape), atol=1e-3)
    jj, _, kk = covariance[0, 0]
    loss_j, loss_k = np.exp(-0.5 * jj * (2 * np.pi / 8) ** 2), np.exp(-0.5 * kk * (2 * np.pi / 10) ** 2)
    moved = 2 + loss_j * np.cos(2 * np.pi * (j - 0.3) / 8) + 0.5 * loss_k * np.cos(2 * np.pi * (k + 0.6) / 10)
    np.testing.assert_allclose(sample[inner][0], 0.7 * moved[14:-14, 14:-14], atol=2e-3)


def test_families_are_apart_and_their_maps_possible() -> None:
    parts = [set(families) for families in FRAME_SPLITS.values()]
    assert sum(map(len, parts)) == len(FRAME_FAMILIES) == len(set.union(*parts))
    for name, draw_maps in FAMILIES.items():
        maps = draw_maps((40, 48), np.random.default_rng(2))
        eigenvalues = np.linalg.eigvalsh(maps.covariance[..., [0, 1, 1, 2]].reshape(40, 48, 2, 2))
        assert eigenvalues.min() > 0, name
        assert eigenvalues.max() < 4.1, name
        assert np.abs(maps.displacement).max() <= 2.001, name
        assert 0 < maps.transmission.min() <= maps.transmission.max() <= 1.001, name


@pytest.mark.parametrize("which", [1, 6])
def test_turned_examples_are_examples_of_turned_frames(which: int) -> None:
    """1 swaps the axes, 6 is half a turn; matching's start turns with the frames to some thousandths."""
    crop = random_crop("waves", (32, 48), steps=4, counts=1e5, seed=4, mask="speckle")

    def example(sample: torch.Tensor, reference: torch.Tensor) -> list[torch.Tensor]:
        level = float(reference.mean())
        shape = tuple(sample.shape[-2:])
        view = View(sample[None] / level, reference[None] / level, torch.ones(1, 1, *shape), torch.ones(1), level)
        found = evidence(view, MATCHING.check(MATCHING.options | {"iterations": 3}, (1, *sample.shape)))
        return pyramid(found.terms, found.coarse)

    frames = [each.mT if which == 1 else each.flip((-2, -1)) for each in (crop.sample, crop.reference)]
    direct = example(*(each.contiguous() for each in frames))
    later = turned(Example(example(crop.sample, crop.reference), crop.truth, crop.truth), which).levels
    for one, other in zip(direct[1:3], later[1:3], strict=True):
        assert one.shape == other.shape
        assert float((one - other)[..., 1:-1, 1:-1].abs().median()) < 5e-3
        off = (one - other)[:24].abs() > 0.05 + 0.05 * other[:24].abs()
        assert float(off.float().mean()) < 0.03


def test_a_step_has_its_own_batch(task: Retrieving) -> None:
    again = Retrieving(size=(32, 32), pool=1, batch=1, validation_frames=1, mask_steps=(2, 2), waves=0.0, seed=3)
    for one, other in zip(task.examples(5)[0].levels, again.examples(5)[0].levels, strict=True):
        assert torch.equal(one, other)


def test_it_learns_one_example_and_knows_its_errors(task: Retrieving) -> None:
    torch.manual_seed(0)
    network = DirectNetwork((8, 8, 8, 8))
    before = float(task.loss(network, 0).detach())
    found = train(network, task, Schedule(steps=19, learning_rate=1e-2, average=0.5, validate_every=19), progress=False)
    assert float(task.loss(found.network, 0)) < before - 0.3
    task.calibrate(found.network)
    task.__dict__["_validation"] = list(task.drawn(CALIBRATION, sorted({*task.families, *task.validation})))
    figures = task.validate(found.network)
    assert all(abs(figures[f"{quantity} within"] - 0.95) < 0.005 for quantity in ("u", "C", "T"))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"families: expected one of .*'rods', got 'swirls'"):
        Retrieving(families=("swirls",))
    with pytest.raises(ValueError, match="validation: expected families that do not train, got 'rods'"):
        Retrieving(families=("rods",))
    with pytest.raises(ValueError, match="size: expected multiples of 16"):
        Retrieving(size=(40, 32))
    with pytest.raises(ValueError, match="family"):
        random_crop("bubbles", (32, 32))


def test_a_network_that_learns_nothing_is_told(task: Retrieving) -> None:
    network = DirectNetwork((2, 2, 2, 2))
    with torch.no_grad():
        network.outward[0].bias.fill_(30.0)
    with pytest.raises(CollapseError):
        train(network, task, Schedule(steps=40, learning_rate=1e-9, validate_every=20), progress=False)
