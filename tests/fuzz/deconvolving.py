"""Entry points of deblurring and of unrolled deconvolution, with right arguments."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ddf_tomo import retrieval, training, visualization
from ddf_tomo.retrieval.deconvolution import deconvolve
from ddf_tomo.retrieval.deconvolution.unrolled import UnrolledDeconvolution
from ddf_tomo.weights import save_network
from tests.fuzz.pictures import drawn, path
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


@lru_cache
def weights() -> str:
    file = folder() / "unrolled.safetensors"
    save_network(UnrolledDeconvolution(4), file)
    return str(file)


def _image(s: Source, *shape: int) -> np.ndarray:
    return 0.5 + 0.1 * s.generator().standard_normal(shape)


@entry("restore_transmission")
def _(s: Source) -> Made:
    psf = np.ones((3, 5))
    return retrieval.restore_transmission, {
        "transmission": s.as_good(_image(s, 12, 14)),
        "psf": s.one_of(1.0, 0.0, psf, s.as_good(psf)),
        "error": s.one_of(0.1, np.full((12, 14), 0.1)),
        "strength": s.one_of(None, 1.0),
    }


@entry("edge_response", 0.5)
def _(s: Source) -> Made:
    j, k = np.meshgrid(np.arange(24.0), np.arange(28.0), indexing="ij")
    return retrieval.edge_response, {"image": s.as_good(1 / (1 + np.exp(-2 * (k - 14 + 0.15 * (j - 12)))))}


@entry("show_restoration", 0.2)
def _(s: Source) -> Made:
    restored = retrieval.restore_transmission(_image(s, 12, 14), 1.0, error=0.1)
    return drawn(visualization.show_restoration), {"restored": restored, "path": path(s)}


@entry("deconvolve, unrolled", 0.3)
def _(s: Source) -> Made:
    reference = s.generator().poisson(s.generator().uniform(200, 2000, (4, 24, 25))).astype(np.float32)
    return deconvolve, {
        "sample": s.as_good(reference // 2 + 1),
        "reference": reference,
        "distance_m": s.one_of(None, 0.5),
        "weights": s.one_of(None, s.noise(24, 25, positive=True)),
        "gain": s.one_of(None, 1.0),
        "model": weights(),
        "steps": s.one_of(0, 1, 3),
        "inner": s.one_of(1, 2),
    }


@entry("UnrolledDeconvolution", 0.5)
def _(s: Source) -> Made:
    def call(features: Any, steps: Any, inner: Any) -> Any:
        still = torch.zeros(2, 13, 5, 6), torch.zeros(2, 13, 13, 5, 6)
        with torch.no_grad():
            return UnrolledDeconvolution(features)(torch.full((13, 5, 6), 1 / 13), *still, steps, inner)

    return call, {"features": 2, "steps": s.one_of(0, 2), "inner": s.one_of(1, 2)}


@entry("Deconvolving, a batch", 0.2)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return training.Deconvolving(**given).examples(0)[0].covariance

    return call, {
        "families": ("waves",),
        "validation": ("rods",),
        "size": (32, 32),
        "pool": 2,
        "batch": 1,
        "mask_steps": (4, 4),
        "counts": (500.0, 1000.0),
        "crossing": s.one_of(0.0, 1.0),
        "unrolled": (1, 2),
        "validation_frames": 1,
        "seed": s.size(0, 9),
    }
