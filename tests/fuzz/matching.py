"""Entry points of the non-linear retrieval, with right arguments."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval import retrieve
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("retrieve, matching", 0.6)
def _(s: Source) -> Made:
    generator = s.generator()
    steps = s.one_of(1, 2, 5)
    reference = generator.poisson(generator.uniform(200, 2000, (steps, 16, 18))).astype(
        s.one_of(np.float32, np.float64)
    )
    sample = s.one_of(reference // 2 + 1, np.roll(reference, 1, -1), np.stack([reference, reference + 3]))
    return retrieve, {
        "sample": s.one_of(sample, s.as_good(sample)),
        "reference": reference,
        "method": "matching",
        "window": s.one_of(None, 2.0),
        "smoothing": s.one_of(None, 0.8),
        "background": s.chance(0.5),
        "largest_shift": s.one_of(0.5, 3.0, 20.0),
        "iterations": s.one_of(1, 4),
        "positive": s.chance(0.5),
        "prior": s.one_of(None, "smoothness", "total-variation") if steps == 5 else None,
        "weight": s.one_of("auto", 3.0),
        "weights": s.one_of(None, s.noise(16, 18, positive=True)),
        "gain": s.one_of(None, 1.0),
        "pixel_size_m": s.one_of(None, 1e-5),
        "distance_m": s.one_of(None, 1.0),
        "progress": None,
    }
