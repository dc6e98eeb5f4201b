"""Scanning SAXS, our default against MUMOTT's best pipeline with its best weight: ``reconstruct(scan, ell_max=4)``.

Three samples (helicoidal, crossing, mixture), 32³ voxels, ℓ ≤ 4, 200 views, tilts to 45°, 8 segments, white noise of
2 % of the largest signal, data from a twice finer grid. MUMOTT's pipelines run with our projector (it is faster, and
its transpose is exact, which brings them closer to the truth) as often as it takes to bracket their best weight; then
the best of them once more, at that weight, with MUMOTT's own projector. Ours chooses its weight without the truth.
Errors: NRMSE of the coefficients, and the median angle between found and true principal directions, weighted by
anisotropy, each at that contestant's best weight for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from harness import Row, quiet

from ddf_tomo import SaxsResponse, Scan, reconstruct
from ddf_tomo.merits import Merits, compare
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series

SAMPLES = ("helicoidal", "crossing", "mixture")
VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
SEGMENTS, NOISE, ELL_MAX = 8, 0.02, 4
STEP = 10**0.5
Pipeline = Callable[..., Any]


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Errors of all contestants, sample by sample."""
    size = size or (12 if quick else 32)
    os.environ["TQDM_DISABLE"] = "1"  # MUMOTT's own way to be quiet (no_tqdm) breaks its L-BFGS
    logging.disable(logging.WARNING)
    geometry = tilt_series((size, size, size), views=[3 * n // 10 for n in VIEWS] if quick else VIEWS)
    response = SaxsResponse(np.arange(SEGMENTS) * np.pi / SEGMENTS)
    scans = {name: simulate(name, geometry, response, noise=NOISE) for name in SAMPLES}
    with quiet():
        from mumott.methods.projectors import SAXSProjector
    pipelines = _pipelines(maxiter=5 if quick else 30)
    for name, scan in scans.items():
        truth = PHANTOMS[name]((size, size, size))
        start = time.perf_counter()
        result = reconstruct(scan, ell_max=ELL_MAX, progress=False)
        seconds = time.perf_counter() - start
        ours = compare(result, truth)
        best = {label: _best(pipeline, scan, truth, first) for label, (pipeline, first) in pipelines.items()}
        for what, unit in (("nrmse", ""), ("direction", "°")):
            mine = _figure(ours, what)
            note = f"weight {result.settings['weight']:.2g}, {seconds:.0f} s" if what == "nrmse" else ""
            yield Row(f"{name}, {what}: reconstruct(scan)", mine, unit, note=note)
            for label, figures in best.items():
                value, weight = figures[what]
                yield Row(f"{name}, {what}: {label}", value, unit, note=f"best weight {weight:.3g}")
            label = min(best, key=lambda label: best[label][what])
            with quiet():
                own = pipelines[label][0](scan, best[label][what][1], SAXSProjector)
            own_figure = _figure(compare(np.asarray(own, np.float32), truth), what)
            yield Row(f"{name}, {what}: {label}, with its own projector", own_figure, unit)
            standard = min(best[label][what][0], own_figure)
            yield Row(f"{name}, {what}: ours / best of MUMOTT's", mine / standard, "×", at_most=0.9)


def _pipelines(maxiter: int) -> dict[str, tuple[Pipeline, float]]:
    """Pipelines as functions of scan and weight, and the weight to begin the search with."""
    with quiet():
        from mumott.optimization.regularizers import TotalVariation
        from mumott.pipelines.reconstruction import run_group_lasso, run_mitra, run_sigtt

        from ddf_tomo.interop.mumott import Projector, substituted, to_data_container

    order = {"ell_max": ELL_MAX}

    def sigtt(scan: Scan, weight: float, projector: Any = Projector, **more: Any) -> Any:
        how = {"Projector": projector, "basis_set_kwargs": dict(order), "maxiter": maxiter}
        mask = {"preconditioner": _inside(scan)}
        return run_sigtt(
            to_data_container(scan), regularization_weight=weight, loss_function_kwargs=mask, **how, **more
        )["result"]["x"]

    def sigtt_tv(scan: Scan, weight: float, projector: Any = Projector) -> Any:
        term = {"name": "tv", "regularizer": TotalVariation(), "regularization_weight": weight}
        return sigtt(scan, weight, projector, Regularizers=[term])

    def group_lasso(scan: Scan, weight: float, projector: Any = Projector) -> Any:
        with substituted(projector):
            output = run_group_lasso(to_data_container(scan), weight, maxiter=4 * maxiter, **order)
        return output["result"]["x"]

    def mitra(scan: Scan, iterations: float, projector: Any = Projector) -> Any:
        # Gaussian kernels, the pipeline's own choice, brought to harmonics.
        how = {"use_absorbances": False, "maxiter": max(round(iterations), 2)}
        output = run_mitra(to_data_container(scan), Projector=projector, **how)
        basis, coefficients = output["basis_set"], output["result"]["x"]
        return basis.get_spherical_harmonic_coefficients(coefficients, ell_max=ELL_MAX)

    return {
        "run_sigtt": (sigtt, 100.0),
        "run_sigtt with MUMOTT's TotalVariation": (sigtt_tv, 100.0),
        "run_group_lasso": (group_lasso, 100.0),
        "run_mitra (weight: iterations)": (mitra, float(maxiter)),
    }


def _inside(scan: Scan) -> np.ndarray:
    """Without the two outermost layers of voxels, where MUMOTT's backprojection reads wrong neighbours."""
    return np.pad(np.ones([n - 4 for n in scan.geometry.volume_shape]), 2)[..., None]


def _best(pipeline: Pipeline, scan: Scan, truth: Any, first: float) -> dict[str, tuple[float, float]]:
    """The best figures and their weights, over weights that bracket both."""
    found: dict[float, Merits] = {}

    def attempt(weight: float) -> None:
        if weight not in found:
            with quiet():
                found[weight] = compare(np.asarray(pipeline(scan, weight), np.float32), truth)

    attempt(first)
    for direction in (STEP, 1 / STEP):
        for what in ("nrmse", "direction"):
            weight = first
            for _ in range(5):
                attempt(weight * direction)
                if _figure(found[weight * direction], what) > _figure(found[weight], what):
                    break
                weight *= direction
    return {
        what: min((_figure(merits, what), weight) for weight, merits in found.items())
        for what in ("nrmse", "direction")
    }


def _figure(merits: Merits, what: str) -> float:
    return merits.nrmse if what == "nrmse" else float(np.degrees(merits.direction_error_median_rad))
