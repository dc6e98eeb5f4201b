"""Entry points of the retrieval methods beyond the linear one, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.correlation import peaks
from ddf_tomo.retrieval.deconvolution import deconvolve, directions_of
from ddf_tomo.retrieval.periodic import find_waves
from ddf_tomo.retrieval.visibility import calibrated, estimate_exponent
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source, maps


def _pair(s: Source, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    generator = s.generator()
    reference = generator.poisson(generator.uniform(200, 2000, shape)).astype(s.one_of(np.float32, np.float64))
    return reference // 2 + 1, reference


def _arguments(s: Source, method: str, *shape: int) -> dict[str, Any]:
    sample, reference = _pair(s, *shape)
    return {
        "sample": s.one_of(sample, s.as_good(sample)),
        "reference": reference,
        "method": method,
        "weights": s.one_of(None, s.noise(*shape[-2:], positive=True)),
        "gain": s.one_of(None, 1.0),
        "pixel_size_m": s.one_of(None, 1e-5),
        "distance_m": s.one_of(None, 1.0),
        "progress": None,
    }


@entry("retrieve, visibility", 0.3)
def _(s: Source) -> Made:
    return retrieve, _arguments(s, "visibility", 4, 16, 17) | {
        "window": s.one_of(None, 2.0),
        "smoothing": s.one_of(0.0, 1.0),
        "periods": s.one_of(8.0, (8.0, 5.0)),
        "azimuths": s.one_of(6, 8),
        "order": s.one_of(2, 4),
        "exponent": s.one_of(1.0, 2.0),
        "passes": 1,
    }


@entry("retrieve, correlation", 0.3)
def _(s: Source) -> Made:
    return retrieve, _arguments(s, "correlation", 3, 16, 17) | {"window": 2.0, "search": s.one_of(1, 2)}


@entry("retrieve, periodic", 0.3)
def _(s: Source) -> Made:
    arguments = _arguments(s, "periodic", s.one_of(1, 4), 24, 26)
    wave = 1 + 0.4 * np.cos(2 * np.pi * np.arange(26) / 6.5)
    arguments |= {"sample": arguments["sample"] * wave, "reference": arguments["reference"] * wave}
    return retrieve, arguments | {
        "window": s.one_of(None, 5.0),
        "waves": s.one_of(None, [[0.0, 1 / 6.5]]),
        "harmonics": s.one_of(1, 3),
    }


@entry("retrieve, deconvolution", 0.3)
def _(s: Source) -> Made:
    return retrieve, _arguments(s, "deconvolution", 4, 16, 17) | {
        "window": s.one_of(None, 3.0),
        "rank": s.one_of(1, 3, "auto"),
        "kernels": s.one_of("clusters", "directions"),
        "support": s.one_of(3, 5),
        "oversampling": s.one_of(1, 2),
        "iterations": s.one_of(1, 2),
    }


@entry("deconvolution.deconvolve", 0.3)
def _(s: Source) -> Made:
    sample, reference = _pair(s, 4, 16, 17)
    return deconvolve, {
        "sample": s.one_of(sample, s.as_good(sample)),
        "reference": reference,
        "distance_m": s.one_of(None, 0.5),
        "weights": s.one_of(None, s.noise(16, 17, positive=True)),
        "gain": s.one_of(None, 1.0),
        "rank": 2,
        "support": 5,
        "iterations": 1,
    }


@entry("deconvolution.directions_of")
def _(s: Source) -> Made:
    taps = torch.arange(-2.0, 3.0, dtype=torch.float64)
    return directions_of, {"kernels": torch.from_numpy(s.generator().uniform(size=(3, 5, 5))), "positions": taps}


@entry("correlation.peaks")
def _(s: Source) -> Made:
    sample, reference = (torch.from_numpy(each) for each in _pair(s, 3, 12, 14))
    weights = torch.ones_like(sample)
    return peaks, {"sample": sample, "reference": reference, "weights": weights, "search": 2, "window": 2.0}


@entry("periodic.find_waves")
def _(s: Source) -> Made:
    _, reference = _pair(s, s.one_of(1, 3), 24, 20)
    wave = 1 + 0.4 * np.cos(2 * np.pi * np.arange(20) / 6.5)
    return find_waves, {"reference": torch.from_numpy(reference * wave), "most": s.one_of(1, 4)}


def _with_curves(s: Source) -> Any:
    from dataclasses import replace

    made = maps(s, (3, 4))
    curve = s.generator().uniform(0.1, 1, (3, 4, 6))
    return replace(
        made,
        pixel_size_m=1e-6,
        distance_m=0.5,
        visibility=curve,
        visibility_error=0.01 * curve,
        azimuths_rad=(0.0, 1.0, 2.0),
        correlation_lengths_m=(1e-6, 2e-6),
    )


@entry("visibility.estimate_exponent")
def _(s: Source) -> Made:
    return estimate_exponent, {"maps": _with_curves(s)}


@entry("visibility.calibrated")
def _(s: Source) -> Made:
    return calibrated, {"maps": _with_curves(s), "wavelength_m": s.one_of(5e-11, 1e-10)}
