"""Principal directions from directional dark-field data, with nothing set: ``reconstruct(scan)``.

Helicoidal fibres, second moments, 32³ voxels, 200 views, tilts to 45°, data from a twice finer grid, white noise of 2 %
of the largest signal; several seeds of it. Beside it conjugate gradients without any regularisation, at the best of
their iterations (which only who knows the truth can pick) and at the 30th.

Angles are between found and true principal directions, all voxels of the sample alike; in this sample, whose anisotropy
is the same everywhere, weighting by it changes nothing, as the row that does shows.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator

import numpy as np
from harness import Row, spread

from ddf_tomo import SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo.merits import Merits, compare
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import cgls

VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
NOISE = 0.02
ITERATIONS = 30


def run(
    quick: bool = False, size: int | None = None, views: tuple[int, ...] | None = None, seeds: int | None = None
) -> Iterator[Row]:
    """Figures of merit of each seed; see `ddf_tomo.merits`."""
    size, seeds = size or (16 if quick else 32), seeds or (1 if quick else 5)
    views = views or VIEWS
    geometry = tilt_series((size, size, size), views=views)
    truth = helicoidal_fibres((size, size, size))
    merits: list[Merits] = []
    seconds, chosen, best, last = [], [], [], []
    for seed in range(seeds):
        scan = simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=NOISE, seed=seed)
        start = time.perf_counter()
        result = reconstruct(scan, progress=False)
        seconds.append(time.perf_counter() - start)
        merits.append(compare(result, truth))
        chosen.append(float(result.settings["weight"]))
        plain: list[float] = []
        cgls(
            TensorXRayTransform(geometry, scan.response, result.ell_max),
            scan.data,
            iterations=ITERATIONS,
            progress=False,
            callback=lambda _, x, __, plain=plain: plain.append(
                math.degrees(compare(x.numpy(), truth).direction_error_unweighted_median_rad)
            ),
        )
        best.append((min(plain), int(np.argmin(plain)) + 1))
        last.append(plain[-1])
    medians = _degrees(merits, "direction_error_unweighted_median_rad")
    yield _over_seeds("reconstruct(scan), median angle", medians, "°", at_most=3.0)
    tails = _degrees(merits, "direction_error_unweighted_p90_rad")
    yield _over_seeds("reconstruct(scan), 90th percentile", tails, "°")
    weighted = _degrees(merits, "direction_error_median_rad")
    yield _over_seeds("reconstruct(scan), median angle weighted by anisotropy", weighted, "°")
    yield _over_seeds("reconstruct(scan), NRMSE of shared orders", [each.nrmse_shared_orders for each in merits])
    yield _over_seeds("reconstruct(scan), time", seconds, "s")
    yield _over_seeds("reconstruct(scan), weight it chose", chosen)
    yield _over_seeds("plain CGLS, median angle at its best iteration", [angle for angle, _ in best], "°")
    yield _over_seeds("plain CGLS, its best iteration", [float(iteration) for _, iteration in best])
    yield _over_seeds(f"plain CGLS, median angle at iteration {ITERATIONS}", last, "°")


def _degrees(merits: list[Merits], name: str) -> list[float]:
    return [math.degrees(getattr(each, name)) for each in merits]


def _over_seeds(what: str, values: list[float], unit: str = "", **bar: float) -> Row:
    return Row(what, statistics.median(values), unit, note=spread(tuple(values), unit, "seeds"), **bar)
