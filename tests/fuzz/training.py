"""Entry points of training and of networks in files, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import ddf_tomo as dt
from ddf_tomo import training, weights
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source

WIDTHS = {"widths": [2, 2, 2]}


@weights.architecture("fuzz-gain")
class Gain(torch.nn.Module):
    """One number; not positive definite, not a denoiser, and quick."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(float(gain)))

    def forward(self, volume: Any, level: Any = None) -> Any:
        return self.gain * volume


def damaged(contents: bytes, s: Source) -> bytes:
    """Cut off, with some bytes changed, or with a piece twice."""
    place, other = (s.rng.randrange(len(contents)) for _ in range(2))
    return s.one_of(
        contents[:place],
        contents[:place] + bytes([s.rng.randrange(256)]) + contents[place + 1 :],
        contents[:place] + contents[min(place, other) :],
    )


@entry("random_sample", 0.5)
def _(s: Source) -> Made:
    given = {"family": s.one_of(*training.FAMILIES), "shape": s.sizes(3, 2, 6), "ell_max": s.one_of(2, 4, 6, 8)}
    return training.random_sample, given | {"seed": s.size(0, 9), "device": "cpu"}


@entry("pairs", 0.5, propagates=True)
def _(s: Source) -> Made:
    given = {"family": s.one_of(*training.FAMILIES), "shape": (4, 4, 4), "ell_max": 2, "seed": s.size(0, 9)}
    scan = {"oversampling": s.one_of(1, 2), "noise": (0.01, 0.1), "geometry": None, "response": None}
    return s.one_of(
        (training.white_noise_pair, {"truth": torch.ones(3, 3, 3, 6), "level": (0.1, 0.2), "seed": 1}),
        (training.random_geometry, {"shape": s.sizes(3), "seed": s.size(0, 9)}),
        (training.random_scan, given | scan),
        (training.brightness, {"coefficients": s.noise(*s.sizes(3), 6)}),
    )


@entry("order_errors", propagates=True)
def _(s: Source) -> Made:
    shape = (*s.sizes(3), s.one_of(1, 6, 15))
    return training.order_errors, {"found": torch.rand(shape), "truth": torch.rand(shape)}


@entry("Denoising, a batch", 0.5)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return training.Denoising(**given).examples(0)

    return call, {
        "families": ("grains", "smooth"),
        "validation": ("crossing",),
        "shape": (3, 3, 3),
        "orders": (s.one_of(2, 4, 6, 8),),
        "batch": 1,
        "level": (0.1, 0.2),
        "reconstructed": 0.0,
        "projection_noise": (0.01, 0.02),
        "validation_volumes": 1,
        "seed": s.size(0, 9),
    }


@entry("Unrolling, a batch", 0.3)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return training.Unrolling(**given).examples(0)[0].truth

    families = {"families": ("grains",), "validation": ("crossing",), "shape": (3, 3, 3), "orders": (2,)}
    return call, families | {"batch": 1, "projection_noise": (0.01, 0.02), "oversampling": s.one_of(1, 2)}


@entry("benchmark_scan", 0.3)
def _(s: Source) -> Made:
    given = {"index": s.size(0, 40), "shape": (4, 4, 4), "ell_max": 2, "views": 8, "noise": 0.02, "response": None}
    return training.benchmark_scan, given | {"shift": s.one_of(*training.SHIFTS), "oversampling": s.one_of(1, 2)}


@entry("Schedule")
def _(s: Source) -> Made:
    def call(step: Any, **given: Any) -> Any:
        return training.Schedule(**given)

    return call, {
        "step": 0,
        "steps": 10,
        "learning_rate": 0.1,
        "warmup": 0.1,
        "weight_decay": 0.0,
        "clip": 1.0,
        "average": 0.9,
        "validate_every": 3,
        "patience": 2,
        "seed": 1,
    }


@entry("run_recipe", 0.3)
def _(s: Source) -> Made:
    task = training.Denoising(shape=(3, 3, 3), orders=(2,), batch=1, reconstructed=0.0, validation_volumes=1)
    schedule = training.Schedule(steps=2, validate_every=2)
    recipe = training.Recipe(architecture="residual-unet", options=WIDTHS, task=task, schedule=schedule)
    return training.run_recipe, {
        "recipe": recipe,
        "output": folder() / "weights.safetensors",
        "resume": True,
        "device": "cpu",
        "time_limit_s": 9.0,
        "progress": False,
    }


@entry("Recipe.read", 2.0)
def _(s: Source) -> Made:
    path = folder() / "recipe.toml"
    text = (training.recipe.RECIPES / "residual-unet.toml").read_bytes()
    path.write_bytes(text if s.chance(0.3) else damaged(text, s))
    return training.Recipe.read, {"path": s.one_of(path, str(path), "residual-unet")}


@entry("networks in files", 2.0)
def _(s: Source) -> Made:
    path, card = folder() / "network.safetensors", weights.ModelCard(limits="all", metrics={"a": 1.0})
    weights.save_network(Gain(2.0), path, card)
    if s.chance(0.5):
        path.write_bytes(damaged(path.read_bytes(), s))
    return s.one_of(
        (weights.load_network, {"path": path}),
        (weights.read_card, {"path": str(path)}),
        (weights.save_network, {"network": Gain(), "path": path, "card": card, "stored_as": "float16"}),
        (weights.make_network, {"name": "fuzz-gain", "options": {"gain": 2.0}}),
        (weights.options_of, {"network": Gain()}),
        (weights.architecture, {"name": "fuzz-other"}),
        (weights.ModelCard, {"limits": "none", "metrics": {"a": 1}, "data": {"b": [1]}, "recipe": "[data]"}),
    )


@entry("learning without a truth", propagates=True)
def _(s: Source) -> Made:
    geometry = dt.Geometry.from_angles(np.linspace(0, 3, 4), 0.3, (3, 3, 3), (3, 3))
    A = dt.TensorXRayTransform(geometry, dt.SecondMomentResponse(), 2)
    turned = {"reconstruct": A.T, "A": A, "data": torch.rand(A.range_shape), "rotation": s.one_of(*CUBE_ROTATIONS)}
    counts = s.generator().integers(0, 100, s.sizes(2))
    return s.one_of(
        (training.split_counts, {"counts": counts, "shares": (0.25, 0.75), "seed": 1}),
        (training.split_views, {"views": s.size(4, 20), "parts": s.size(2, 4)}),
        (
            training.stein_risk,
            {"denoise": torch.tanh, "noisy": torch.rand(4, 5), "sigma": 0.1, "seed": 2, "step": 0.01},
        ),
        (training.equivariance_loss, turned | {"noise": s.one_of(None, torch.rand(A.range_shape))}),
    )


@entry("adapt", 0.3)
def _(s: Source) -> Made:
    angles = np.linspace(0, 3, 20)
    geometry = dt.Geometry.from_angles(angles, 0.3 * np.sin(9 * angles), (3, 3, 3), (3, 3))
    scan = dt.Scan(s.noise(20, 3, 3, 3), geometry, dt.SecondMomentResponse())
    return training.adapt, {
        "scan": scan,
        "network": Gain(),
        "ell_max": 2,
        "parts": 2,
        "steps": 2,
        "learning_rate": 0.1,
        "time_limit_s": 5.0,
        "seed": 0,
        "device": "cpu",
        "progress": False,
    }
