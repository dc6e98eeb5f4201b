"""What learned priors are worth: a quarter of the views, families never trained on, beside priors at their best.

32³ voxels, ℓ ≤ 4, 60 views of a tilt series to 45°, eight SAXS segments, white noise of 2 % of the largest signal, data
from a twice finer grid (`ddf_tomo.training.benchmark_scan`). The opponents know the truth: the Laplacian takes the best
of a sweep of its weight, the total variation the best of a sweep of its weight and of that of orders ℓ ≥ 2, for each
figure anew. Beside them stands what `reconstruct` gives by default, total variation at a weight from cross-validation.
The learned prior gets the scan and nothing else: `reconstruct(scan, prior="learned")`, or mixed with total variation,
`prior="tv+learned"`, in shares that views left out tell. Ratios are geometric means over the
scans, with the standard error of that mean as a factor. One network: it says nothing of what another seed of training
would give.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from harness import Row

from ddf_tomo import Scan, SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo.merits import compare, null_space_share
from ddf_tomo.priors import TotalVariation
from ddf_tomo.solvers import nonlinear_cg
from ddf_tomo.solvers.regularisation_weight import response_scale
from ddf_tomo.training import SHIFTS, benchmark_scan

ORDER = 4
ROUNDING = 0.03  # of the total variation, as `reconstruct` has it
ITERATIONS = 100
LAPLACIAN = tuple(10 ** (power / 4) for power in range(-13, -3))
TV = tuple(10 ** (power / 4) for power in range(-12, -3))
TENSOR = (1.0, 2.0, 4.0, 8.0)  # weight of the orders ℓ ≥ 2 in the total variation
FIGURES = ("all", "tensor", "direction")
OPEN_DATA = 0.02  # noise


def run(quick: bool = False, size: int | None = None, weights: str = "learned", scans: int = 32) -> Iterator[Row]:
    """Tables by kind of scan; ``weights`` names the network: shipped weights, or a file."""
    size, count = size or (16 if quick else 32), 2 if quick else scans
    few = max(2, count // 4)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        everything = partial(one_scan, size=size, weights=weights)
        found = list(pool.map(everything, range(count)))
        bars: Mapping[str, Mapping[str, float]] = {
            "laplacian": {"all": 0.55},
            "tv": dict(zip(FIGURES, (0.75, 0.8, 0.75), strict=True)),
        }
        opponents = {"laplacian": "Laplacian", "tv": "total variation", "automatic": "reconstruct's default"}
        for ours, opponent, figure in product(OURS, opponents, FIGURES):
            what = f"60 views, {NAMES[figure]}: {OURS[ours]} / {opponents[opponent]}"
            yield ratio_row(what, found, figure, opponent, bars.get(opponent, {}).get(figure), ours)
        whole = list(pool.map(partial(all_views, size=size), range(few)))
        pairs = [{**mine, "laplacian": other} for mine, other in zip(found, whole, strict=False)]
        for ours, name in OURS.items():
            what = f"60 views {name} / 240 views Laplacian, {NAMES['tensor']}"
            yield ratio_row(what, pairs, "tensor", "laplacian", 1.0, ours)
        for shift in SHIFTS[1:]:
            bar = 0.8 if shift == "geometry" else 1.05
            found = list(pool.map(partial(everything, shift=shift), range(few)))
            for (ours, name), figure in product(OURS.items(), ("all", "tensor")):
                what = f"other {shift}, {NAMES[figure]}: {name} / total variation"
                yield ratio_row(what, found, figure, "tv", bar if figure == "all" else None, ours)
        found = list(pool.map(partial(open_part, size=size, weights=weights), range(few)))
        for (ours, name), opponent in product(OURS.items(), ("zero", "tv")):
            what = f"second moments, error in what they leave open: {name} / {opponent}"
            yield ratio_row(what, found, "open", opponent, 0.7, ours)


NAMES = {"all": "all coefficients", "tensor": "ℓ ≥ 2", "direction": "median direction", "open": "open part"}
OURS = {"learned": "learned", "mixture": "tv+learned"}
Found = Mapping[str, Mapping[str, float]]  # by method and figure


def ratio_row(
    what: str, found: Sequence[Found], figure: str, opponent: str, at_most: float | None = None, own: str = "learned"
) -> Row:
    """Geometric mean over the scans, with the two means, and the factor of one standard error."""
    ours, theirs = (np.array([each[name][figure] for each in found]) for name in (own, opponent))
    logs = np.log(ours / theirs)
    error = math.exp(logs.std(ddof=1) / math.sqrt(len(logs)))
    note = (
        f"{np.exp(np.log(ours).mean()):.4g} / {np.exp(np.log(theirs).mean()):.4g}, ×/÷ {error:.3f}, {len(logs)} scans"
    )
    return Row(what, math.exp(logs.mean()), "×", at_most=at_most, note=note)


def one_scan(index: int, size: int, weights: str, shift: str = "none") -> Found:
    """Figures of all methods on one scan."""
    scan, truth = benchmark_scan(index, (size,) * 3, ORDER, shift=shift)
    learned, mixture = (
        reconstruct(scan, ell_max=ORDER, prior=prior, progress=False) for prior in (weights, f"tv+{weights}")
    )
    return {
        "learned": figures(learned.coefficients, truth),
        "mixture": figures(mixture.coefficients, truth),
        "laplacian": best(partial(laplacian, scan), truth, LAPLACIAN),
        "tv": best_tv(scan, truth),
        "automatic": figures(reconstruct(scan, ell_max=ORDER, progress=False).coefficients, truth),
    }


def figures(found: Any, truth: Any) -> dict[str, float]:
    """Errors of all coefficients and of those of ℓ ≥ 2, relative to their norm; median angle, in radians."""
    x, true = (torch.as_tensor(volume) for volume in (found, truth))
    rest = float((x - true)[..., 1:].norm() / true[..., 1:].norm())
    angle = compare(x.numpy(), true.numpy()).direction_error_median_rad
    return {"all": float((x - true).norm() / true.norm()), "tensor": rest, "direction": angle}


def laplacian(scan: Scan, weight: float) -> Any:
    """At this relative weight."""
    return reconstruct(
        scan, ell_max=ORDER, prior="smoothness", weight=weight, iterations=ITERATIONS, progress=False
    ).coefficients


def total_variation(scan: Scan, tensor: float, weight: float) -> Any:
    """As `reconstruct` has it, with another weight of the orders ℓ ≥ 2, and converged."""
    A, data = TensorXRayTransform(scan.geometry, scan.response, ORDER), torch.as_tensor(scan.data)
    scale, height = response_scale(A, None, data)
    prior = TotalVariation(scan.geometry.volume_shape, order_weights=[1.0, tensor, tensor], smoothing=ROUNDING * height)
    return nonlinear_cg(
        A, data, regularisers=[weight * scale * height * prior], iterations=ITERATIONS, progress=False
    ).x


def best(solve: Callable[[float], Any], truth: Any, sweep: Sequence[float]) -> dict[str, float]:
    """The least of each figure over a sweep, from its middle in the direction that the error falls."""
    tried: dict[int, dict[str, float]] = {}

    def error(place: int) -> float:
        if place not in tried:
            tried[place] = figures(solve(sweep[place]), truth)
        return tried[place]["all"]

    at = len(sweep) // 2
    while True:
        near = [place for place in (at - 1, at, at + 1) if 0 <= place < len(sweep)]
        lowest = min(near, key=error)
        if lowest == at:
            return {name: min(each[name] for each in tried.values()) for name in FIGURES}
        at = lowest


def best_tv(scan: Scan, truth: Any) -> dict[str, float]:
    """The least of each figure over weights, and over weights of the orders ℓ ≥ 2."""
    found = [best(partial(total_variation, scan, tensor), truth, TV) for tensor in TENSOR]
    return {name: min(each[name] for each in found) for name in FIGURES}


def all_views(index: int, size: int) -> dict[str, float]:
    """The Laplacian at its best, with four times the views."""
    scan, truth = benchmark_scan(index, (size,) * 3, ORDER, views=240)
    return best(partial(laplacian, scan), truth, LAPLACIAN)


def open_part(index: int, size: int, weights: str) -> Found:
    """Second moments, which leave 3 of 15 coefficients open at ℓ ≤ 4: the size of the error in there."""
    scan, truth = benchmark_scan(index, (size,) * 3, ORDER, response=SecondMomentResponse(), noise=OPEN_DATA)
    A = TensorXRayTransform(scan.geometry, scan.response, ORDER)
    true = torch.as_tensor(truth)

    def left(found: Any) -> float:
        return float(np.linalg.norm(null_space_share(torch.as_tensor(found) - true, A).open))

    tv = [left(total_variation(scan, 4.0, weight)) for weight in TV[2:7]]
    found = {
        name: left(reconstruct(scan, ell_max=ORDER, prior=prior, progress=False).coefficients)
        for name, prior in (("learned", weights), ("mixture", f"tv+{weights}"))
    }
    return {name: {"open": value} for name, value in {**found, "tv": min(tv), "zero": left(0 * true)}.items()}
