"""Entry points of the direct network and of what it learns from, with right arguments."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from ddf_tomo import training
from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.network import DirectNetwork
from ddf_tomo.weights import save_network
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


@functools.cache
def weights() -> str:
    """A file of untrained weights."""
    path = folder() / "retrieval-network.safetensors"
    torch.manual_seed(0)
    save_network(DirectNetwork((2, 2, 2, 2)), path)
    return str(path)


@entry("retrieve, network", 0.3)
def _(s: Source) -> Made:
    steps = s.one_of(1, 2, 5)
    reference = s.generator().poisson(1000 * (1 + 0.3 * s.generator().random((steps, 18, 21)))).astype(np.float32)
    arguments: dict[str, Any] = {
        "sample": reference // 2 + 1,
        "reference": reference,
        "method": s.one_of("network", "network+matching"),
        "weights": s.one_of(None, s.noise(18, 21, positive=True)),
        "gain": s.one_of(None, 1.0),
        "progress": None,
        "model": weights(),
        "smoothing": s.one_of(None, 0.9),
        "largest_shift": s.one_of(1.0, 3.0),
    }
    return retrieve, arguments


@entry("random_crop", 0.3)
def _(s: Source) -> Made:
    return training.random_crop, {
        "family": s.one_of(*training.FRAME_FAMILIES),
        "shape": (s.size(4, 20), s.size(4, 20)),
        "steps": s.one_of(1, 2),
        "counts": s.one_of(200.0, 2000),
        "seed": s.size(0, 9),
        "mask": s.one_of("any", "speckle", "binary", "grid"),
        "waves": False,
    }


@entry("Retrieving", 0.3)
def _(s: Source) -> Made:
    return training.Retrieving, {
        "families": s.one_of(("waves",), ("fibres", "grains")),
        "validation": ("rods",),
        "size": (16, 32),
        "pool": s.size(1, 3),
        "batch": s.size(1, 3),
        "mask_steps": s.one_of((1, 1), (1, 4)),
        "counts": (200.0, 20000.0),
        "waves": s.one_of(0.0, 0.1),
        "validation_frames": 1,
        "seed": s.size(0, 9),
        "device": "cpu",
    }


@entry("DirectNetwork")
def _(s: Source) -> Made:
    return DirectNetwork, {"widths": s.one_of((2, 3, 4, 5), [2, 2, 2, 2])}
