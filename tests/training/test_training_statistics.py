"""What cards say of the samples of a training, and who is warned by it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ddf_tomo import SaxsResponse, reconstruct
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors.learned import LearnedPrior, ResidualUNet
from ddf_tomo.priors.learned.familiar import ranges, unfamiliar, volume_statistics
from ddf_tomo.training import Denoising, Recipe, Schedule, Unrolling, run_recipe
from ddf_tomo.training.statistics import training_statistics
from ddf_tomo.weights import ModelCard, load_network, read_card, save_network

GEOMETRY = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.6], views=[8, 8], detector_shape=(10, 10))
SCAN = simulate(helicoidal_fibres, GEOMETRY, SaxsResponse(np.arange(6) * np.pi / 6), noise=0.02)
QUICK = {"ell_max": 2, "iterations": 2, "progress": False}


def test_numbers_of_a_volume():
    """Against sums of their own; units do not matter."""
    x = np.random.default_rng(0).normal(size=(5, 6, 7, 15))
    x[..., 0] = np.abs(x[..., 0])
    found = volume_statistics(x)
    assert found["filled"] == np.mean(x[..., 0] > 0.1 * x[..., 0].max())
    steps = np.mean([np.mean(np.sum(np.diff(x, axis=axis) ** 2, -1)) for axis in range(3)])
    assert found["roughness"] == pytest.approx(np.sqrt(steps / np.mean(np.sum(x**2, -1))))
    assert found["l4"] == pytest.approx(np.linalg.norm(x[..., 6:]) / np.linalg.norm(x[..., 0]))
    assert volume_statistics(1e-20 * x) == pytest.approx(found)
    assert volume_statistics(np.zeros((3, 3, 3, 6))) == {}
    with pytest.raises(ValueError, match="coefficients: expected shape"):
        volume_statistics(np.zeros((3, 3, 6)))


def test_a_training_draws_what_it_says():
    """Of the training families only, the same each time, and of both tasks."""
    for task in (Denoising(shape=(8, 8, 8), orders=(2, 4), seed=3), Unrolling(shape=(8, 8, 8), orders=(2, 4), seed=3)):
        found = training_statistics(task, 12)
        assert found == training_statistics(task, 12)
        assert set(found) == {"filled", "roughness", "l2", "l4", "noise"}
        assert found["noise"] == list(task.projection_noise)
        assert 0 < found["filled"][0] < found["filled"][1] <= 1


def test_outside_is_told_with_the_numbers():
    seen = ranges([{"filled": 0.2, "l2": 0.3, "noise": 0.01}, {"filled": 0.4, "l2": 0.6, "noise": 0.08}])
    assert unfamiliar({"filled": 0.3, "l2": 0.5, "l4": 9.0, "noise": 0.001}, seen) == []
    assert unfamiliar({"filled": 0.02, "l2": 0.285}, seen) == []  # little is easy, and margins are wide
    (line,) = unfamiliar({"l2": 0.05}, seen)
    assert line == "strength of order ℓ = 2 relative to the mean: 0.05, where training had 0.3 to 0.6"
    (line,) = unfamiliar({"noise": 0.3}, seen)
    assert "noise of the data" in line


def test_cards_have_them_and_results_are_compared(tmp_path):
    pytest.importorskip("safetensors")
    task = Denoising(shape=(8, 8, 8), orders=(2,), batch=2, reconstructed=0.1, rounds=1, validation_volumes=1)
    recipe = Recipe(
        architecture="residual-unet", options={"widths": [2, 2, 2]}, task=task, schedule=Schedule(steps=3, average=0.0)
    )
    path = tmp_path / "small.safetensors"
    run_recipe(recipe, path, progress=False)
    assert read_card(path).data["statistics"] == training_statistics(task, 6)
    assert load_network(path).card == read_card(path)
    narrow = {"filled": [0.001, 0.002], "noise": [0.0, 0.001]}
    torch.manual_seed(0)
    save_network(ResidualUNet((2, 2, 2)), path, ModelCard(data={"statistics": narrow}))
    with pytest.warns(UserWarning, match="learned prior may be wrong here: .*sample fills: .* had 0.001 to 0.002"):
        found = reconstruct(SCAN, prior=LearnedPrior(path, sigma=(0.2, 0.1)), **QUICK)
    assert [line.partition(":")[0][:5] for line in found.settings["doubts"]][:2] == ["share", "noise"]
    assert len(found.settings["prior_strength"]) in (1, 2)
    found.save(tmp_path / "volume.h5")


def test_data_that_speak_against_it():
    """Noise said to be a tenth of what it is: no prior explains that."""
    weights = 100 * np.asarray(SCAN.full_weights())
    torch.manual_seed(0)
    prior = LearnedPrior(ResidualUNet((2, 2, 2)).eval().requires_grad_(False), sigma=(0.2, 0.1))
    with pytest.warns(UserWarning, match="data that the result does not explain: χ²"):
        reconstruct(type(SCAN)(SCAN.data, SCAN.geometry, SCAN.response, weights=weights), prior=prior, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "doubts" not in reconstruct(SCAN, prior="tv", weight=0.01, **QUICK).settings
