"""Principal directions from directional dark-field data, with nothing set: ``reconstruct(scan)``.

Helicoidal fibres, second moments, 32³ voxels, 200 views, tilts to 45°, data from a twice finer grid, white noise of 2 %
of the largest signal; several seeds of it. Beside it conjugate gradients without any regularisation, at the best of
their iterations (which only who knows the truth can pick) and at the 30th.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from harness import Row, spread

from ddf_tomo import SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo.derived import angle_between, derive
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import cgls

VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
NOISE = 0.02
ITERATIONS = 30


def run(
    quick: bool = False, size: int | None = None, views: tuple[int, ...] | None = None, seeds: int | None = None
) -> Iterator[Row]:
    """Angles between found and true directions, over the voxels of the sample."""
    size, seeds = size or (16 if quick else 32), seeds or (1 if quick else 5)
    views = views or VIEWS
    geometry = tilt_series((size, size, size), views=views)
    _, truth, sample = helicoidal_fibres((size, size, size))

    def angles(direction: Any) -> np.ndarray:
        return np.degrees(angle_between(direction[sample], truth[sample]))

    defaults, tails, seconds, chosen, best, last = [], [], [], [], [], []
    for seed in range(seeds):
        scan = simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=NOISE, seed=seed)
        start = time.perf_counter()
        result = reconstruct(scan, progress=False)
        seconds.append(time.perf_counter() - start)
        found = angles(result.derived().direction)
        defaults.append(float(np.median(found)))
        tails.append(float(np.percentile(found, 90)))
        chosen.append(float(result.settings["smoothness"]))
        plain: list[float] = []
        cgls(
            TensorXRayTransform(geometry, scan.response, result.ell_max),
            scan.data,
            iterations=ITERATIONS,
            progress=False,
            callback=lambda _, x, __, plain=plain: plain.append(float(np.median(angles(derive(x.numpy()).direction)))),
        )
        best.append((min(plain), int(np.argmin(plain)) + 1))
        last.append(plain[-1])
    yield _over_seeds("reconstruct(scan), median angle", defaults, "°", at_most=3.0)
    yield _over_seeds("reconstruct(scan), 90th percentile", tails, "°")
    yield _over_seeds("reconstruct(scan), time", seconds, "s")
    yield _over_seeds("reconstruct(scan), smoothness it chose", chosen)
    yield _over_seeds("plain CGLS, median angle at its best iteration", [angle for angle, _ in best], "°")
    yield _over_seeds("plain CGLS, its best iteration", [float(iteration) for _, iteration in best])
    yield _over_seeds(f"plain CGLS, median angle at iteration {ITERATIONS}", last, "°")


def _over_seeds(what: str, values: list[float], unit: str = "", **bar: float) -> Row:
    return Row(what, statistics.median(values), unit, note=spread(tuple(values), unit, "seeds"), **bar)
