"""What priors bring to `matching`: smooth fields, fields with edges, and rough ones, 192² pixels of known truth.

Smooth: the fields of the reference problem of `retrieval`. Edges: σ along the wide axis 1.3 pixels, half of that
across; a band of 44 pixels in which the direction is turned by 69°, a disc of half the width. Rough: smooth fields of a
third of the wavelength, at 20,000 counts, where the bias of a window is larger than noise. Displacement and
transmission are those of the reference problem in all of them. The automatic weight is compared with the best of a
sweep at 200 counts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import retrieval_problem as problems
import torch
from harness import Row

from ddf_tomo.retrieval import retrieve

PRIORS = (None, "smoothness", "total-variation")
CASES = {
    "smooth": ((200, 20), (2000, 20), (200, 10), (200, 5), (2000, 5)),
    "edges": ((200, 20), (2000, 20), (200, 10), (200, 5)),
    "rough": ((20_000, 20),),
}  # counts, steps
SWEEP = {"smoothness": (8.0, 32.0, 128.0, 512.0), "total-variation": (1.4, 2.0, 2.8, 4.0)}
WITHIN_BEST = 1.1
ROUGH = 64.0  # pixels
FIGURES = {"direction, median": "°", "trace C, relative RMSE": "", "u RMSE": "pixel"}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Every field, count and prior."""
    size = size or (96 if quick else 192)
    torch.set_num_threads(1)
    for name, cases in CASES.items():
        expected = FIELDS[name](size)
        for counts, steps in cases[: 1 if quick else None]:
            noisy, case = expected.at(counts, steps), f"{name}, {counts:,} counts, {steps} steps"
            for prior in PRIORS:
                found, seconds = _figures(noisy, prior, "auto")
                label = f"{case}, {prior or 'no prior'}"
                for what, unit in FIGURES.items():
                    yield Row(f"{label}: {what}", found[what], unit)
                within = [found[f"C_{entry}, within 1 σ"] for entry in ("jj", "jk", "kk")]
                yield Row(f"{label}: C within 1 σ", float(np.mean(within)), note="nominal 0.683")
                yield Row(f"{label}: time a pixel", 1e6 * seconds / size**2, "µs")
                if prior is not None and (counts, steps) == (200, 20):
                    sweep = {each: _figures(noisy, prior, each)[0] for each in SWEEP[prior]}
                    best = min(sweep, key=lambda each, sweep=sweep: _error(sweep[each]))
                    ratio = _error(found) / _error(sweep[best])
                    note = f"best weight {best:g} of {', '.join(f'{each:g}' for each in sweep)}"
                    yield Row(f"{label}: error of C, over the best", ratio, "×", at_most=WITHIN_BEST, note=note)


def _error(figures: dict[str, float]) -> float:
    """Root mean square of the Frobenius norm."""
    jj, jk, kk = (figures[f"C_{entry}, RMSE"] for entry in ("jj", "jk", "kk"))
    return float(np.sqrt(jj**2 + 2 * jk**2 + kk**2))


def _figures(noisy: problems.Problem, prior: str | None, weight: Any) -> tuple[dict[str, float], float]:
    frames = noisy.sample.astype(np.float32), np.maximum(noisy.reference, 1e-3).astype(np.float32)
    start = time.process_time()
    maps = retrieve(*frames, "matching", prior=prior, weight=weight, gain=1.0, progress=False)
    seconds = time.process_time() - start
    errors = np.concatenate([maps.displacement_error, maps.covariance_error], -1)
    return problems.judge(noisy, maps.displacement, maps.covariance, errors), seconds


@functools.cache
def edges(size: int) -> problems.Problem:
    """Expected frames of a field of blur that is constant but for edges."""
    fine, generator = size * problems.FINE, np.random.default_rng(5)
    j, k = np.meshgrid(*2 * (np.arange(fine) / problems.FINE * (192 / size),), indexing="ij")
    band = np.abs((j - 96) * np.cos(0.5) + (k - 96) * np.sin(0.5)) < 22
    disc = (j - 55) ** 2 + (k - 140) ** 2 < 18**2
    angle, along = 0.4 + 1.2 * band, np.where(disc, 0.65, 1.3)
    transmission, displacement, _ = problems.fields(size, np.random.default_rng(3))
    covariance = problems.tensor(along, along / problems.ASPECT, angle)
    pattern = functools.partial(problems.speckle, generator, fine)
    return problems.splatted(transmission, displacement, covariance, pattern, problems.STEPS)


def rough(size: int) -> problems.Problem:
    """Expected frames of smooth fields with shorter waves."""
    with patch.object(problems, "WAVELENGTH", ROUGH):
        return problems.reference_problem.__wrapped__(size)


FIELDS = {"smooth": problems.reference_problem, "edges": edges, "rough": rough}
