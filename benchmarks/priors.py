"""Directional dark field (second moments): what the default gives, and what its prior and its weight are worth.

Three samples (helicoidal, crossing, mixture), 32³ voxels, 200 views, tilts to 45°, white noise of 2 % of the largest
signal, data from a twice finer grid. Angles are those between found and true principal directions, weighted by
anisotropy; NRMSE is that of the coefficients of the orders reconstructed (ℓ ≤ 2). Plain CGLS stops at the iteration
that is best for each figure, sweeps of the weight take the best, as only who knows the truth can.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from harness import Row

from ddf_tomo import Scan, SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo.merits import Merits, compare
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series
from ddf_tomo.solvers import cgls

SAMPLES = ("helicoidal", "crossing", "mixture")
VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
QUARTER = (6, 11, 10, 9, 9, 8, 7)  # 60
NOISE = 0.02
ANGLE_BARS = {"helicoidal": {"at_most": 2.5}, "crossing": {}, "mixture": {"at_most": 5.0}}
SWEEP = tuple(10 ** (-power / 4) for power in range(5, 12))  # 0.056 … 1.8e-3
PRIORS = {"tv": "total variation", "smoothness": "Laplacian"}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Figures sample by sample."""
    size = size or (12 if quick else 32)
    shape, sweep = (size, size, size), SWEEP[::3] if quick else SWEEP
    for name in SAMPLES:
        truth = PHANTOMS[name](shape)
        scan = simulate(name, tilt_series(shape, views=VIEWS), SecondMomentResponse(), noise=NOISE)
        start = time.perf_counter()
        result = reconstruct(scan, progress=False)
        note = f"weight {result.settings['weight']:.2g}, {time.perf_counter() - start:.0f} s"
        merits = compare(result, truth)
        degrees = [np.degrees(a) for a in (merits.direction_error_median_rad, merits.direction_error_p90_rad)]
        yield Row(f"{name}: reconstruct(scan), median angle", degrees[0], "°", note=note, **ANGLE_BARS[name])
        yield Row(f"{name}: reconstruct(scan), 90th percentile", degrees[1], "°")
        yield from _plain(name, scan, truth, merits)
        for prior, label in PRIORS.items():
            automatic = merits if prior == "tv" else compare(reconstruct(scan, prior=prior, progress=False), truth)
            best, weight = _best(scan, prior, sweep, truth)
            what = f"{name}, {label}: NRMSE, automatic weight / best of a sweep"
            ratio = automatic.nrmse_shared_orders / best.nrmse_shared_orders
            note = f"{automatic.nrmse_shared_orders:.4f} / {best.nrmse_shared_orders:.4f} at {weight:.2g}"
            yield Row(what, ratio, "×", at_most=1.1, note=note)
        yield from _quarter(name, shape, truth, sweep)


def _plain(name: str, scan: Scan, truth: Any, ours: Merits) -> Iterator[Row]:
    found: list[Merits] = []
    cgls(
        TensorXRayTransform(scan.geometry, scan.response, 2),
        scan.data,
        iterations=40,
        progress=False,
        callback=lambda iteration, x, residual: found.append(compare(x.numpy(), truth)),
    )
    errors = [merits.nrmse_shared_orders for merits in found]
    angles = [float(np.degrees(merits.direction_error_median_rad)) for merits in found]
    note = f"iteration {int(np.argmin(errors)) + 1}"
    yield Row(f"{name}: plain CGLS, NRMSE at its best iteration", min(errors), note=note)
    yield Row(f"{name}: reconstruct(scan), NRMSE", ours.nrmse_shared_orders)
    yield Row(f"{name}: NRMSE, total variation / plain CGLS", ours.nrmse_shared_orders / min(errors), "×", at_most=0.75)
    note = f"iteration {int(np.argmin(angles)) + 1}"
    yield Row(f"{name}: plain CGLS, median angle at its best iteration", min(angles), "°", note=note)


def _best(scan: Scan, prior: str, sweep: Sequence[float], truth: Any) -> tuple[Merits, float]:
    tried = [
        (compare(reconstruct(scan, prior=prior, weight=weight, iterations=70, progress=False), truth), weight)
        for weight in sweep
    ]
    return min(tried, key=lambda pair: pair[0].nrmse_shared_orders)


def _quarter(name: str, shape: tuple[int, int, int], truth: Any, sweep: Sequence[float]) -> Iterator[Row]:
    """A quarter of the views, both priors at their best weight, order by order: what learned priors have to beat."""
    scan = simulate(name, tilt_series(shape, views=QUARTER), SecondMomentResponse(), noise=NOISE)
    for prior, label in PRIORS.items():
        merits, weight = _best(scan, prior, sweep, truth)
        angle = np.degrees(merits.direction_error_median_rad)
        for ell in (0, 2):
            note = f"best weight {weight:.2g}, median angle {angle:.2f}°"
            yield Row(f"{name}, 60 views, {label}: NRMSE of ℓ = {ell}", merits.nrmse_per_order[ell], note=note)
