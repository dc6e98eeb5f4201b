"""Filtered backprojection beside conjugate gradients at their best iteration, and error against time of all algorithms.

Three samples, 32³ voxels, 200 views, tilts to 45°, white noise of 2 % of the largest signal, data from a twice finer
grid; SAXS of 8 segments up to ℓ = 4, and second moments up to ℓ = 2. CGLS stops where its principal directions are
best, which only who knows the truth can tell; its time is that of so many iterations. Angles are medians.

Over time: each algorithm from zero with total variation at one weight (or, without a prior, by its iterations), the
default one also from filtered backprojection and from a coarser grid. The clock stands still while errors are computed,
and includes whatever an algorithm does before its first iteration. ``python benchmarks/fbp.py FILE`` draws it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import Row, in_turn

from ddf_tomo import SaxsResponse, Scan, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series
from ddf_tomo.priors import TotalVariation
from ddf_tomo.solvers import cgls, fbp, fista, lbfgs, multiresolution, nonlinear_cg, pdhg, preconditioner, sirt
from ddf_tomo.solvers.multiresolution import binned
from ddf_tomo.solvers.regularisation_weight import response_scale

SAMPLES = ("helicoidal", "crossing", "mixture")
VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
KINDS = {
    "SAXS, ℓ ≤ 4": (SaxsResponse(np.arange(8) * np.pi / 8), 4),
    "second moments, ℓ ≤ 2": (SecondMomentResponse(), 2),
}
NOISE, ITERATIONS = 0.02, 25
WEIGHT, ROUNDING, DIRECTIONAL = 4e-3, 0.03, 4.0  # of total variation, as `reconstruct` has it
Point = tuple[float, float, float]  # seconds, median angle in degrees, NRMSE


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Angles and times of each sample; then all algorithms on one of them."""
    size = size or (12 if quick else 32)
    for kind, (response, order) in KINDS.items():
        for name in SAMPLES[:1] if quick else SAMPLES:
            yield from _beside_cgls(f"{kind}, {name}", name, response, order, size, 2 if quick else 5)
    if not quick:  # the filter works on detectors, iterations on volumes: their ratio falls as the size grows
        what = f"second moments, ℓ ≤ 2, mixture, {2 * size}³"
        yield from _beside_cgls(what, "mixture", *KINDS["second moments, ℓ ≤ 2"], 2 * size, rounds=3)
    for kind, (response, order) in KINDS.items():
        scan, A, truth = _problem("mixture", response, order, size)
        for algorithm, points in traces(scan, A, truth, 6 if quick else 40).items():
            best = min(points, key=lambda point: point[1])
            note = f"{best[0]:.2f} s; NRMSE {best[2]:.3f}; within 10 % of it after {_near(points):.2f} s"
            yield Row(f"{kind}, mixture, {algorithm}: lowest median angle", best[1], "°", note=note)


def traces(scan: Scan, A: TensorXRayTransform, truth: Any, iterations: int) -> dict[str, list[Point]]:
    """For each algorithm (time, angle, NRMSE) after each iteration."""
    data = torch.from_numpy(np.asarray(scan.data))
    A.T(A(data.new_zeros([int(n or 1) for n in A.domain_shape])))  # compiles

    def prior(B: TensorXRayTransform, smoothing: float = ROUNDING) -> Any:
        seen = data
        if B.geometry.detector_shape != A.geometry.detector_shape:
            seen = binned(data)[0] / 2
        scale, height = response_scale(B, None, seen)
        orders = [1.0, *[DIRECTIONAL] * (B.ell_max // 2)]
        # A coarse voxel stands for eight, across twice the distance; its residuals count in the same units as ours.
        unit = A.geometry.detector_shape[0] / B.geometry.detector_shape[0]
        tv = TotalVariation(B.geometry.volume_shape, order_weights=orders, smoothing=smoothing * height)
        return WEIGHT * scale * height * (unit**4 if unit > 1 else 1.0) * tv

    rounded, sharp = prior(A), prior(A, 0.0)
    common: dict[str, Any] = {"iterations": iterations, "progress": False}
    algorithms: dict[str, Callable[[Any], Any]] = {
        "CGLS, no prior": lambda note: cgls(A, data, callback=note, **common),
        "SIRT, no prior": lambda note: sirt(A, data, callback=note, **common),
        "FBP": lambda note: note(0, fbp(A, data), 0.0),
        "CG with TV": lambda note: nonlinear_cg(A, data, regularisers=rounded, callback=note, **common),
        "CG with TV, from FBP": lambda note: nonlinear_cg(
            A, data, regularisers=rounded, callback=note, x0=fbp(A, data), **common
        ),
        "CG with TV, from a coarser grid": lambda note: multiresolution(
            nonlinear_cg, A, data, regularisers=prior, callback=note, **common
        ),
        "CG with TV, from FBP, preconditioned": lambda note: nonlinear_cg(
            A,
            data,
            regularisers=rounded,
            callback=note,
            x0=fbp(A, data),
            preconditioner=preconditioner(A, regularisers=rounded),
            **common,
        ),
        "L-BFGS with TV": lambda note: lbfgs(A, data, regularisers=rounded, callback=note, **common),
        "FISTA with TV": lambda note: fista(A, data, regularisers=sharp, callback=note, **common),
        "PDHG with TV": lambda note: pdhg(A, data, regularisers=sharp, callback=note, **common),
    }
    return {name: _traced(solve, truth) for name, solve in algorithms.items()}


def draw(panels: dict[str, dict[str, list[Point]]]) -> Any:
    """Median angle and NRMSE against time, a row for each title: a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6 * len(panels) + 0.8), layout="constrained")
    rows = figure.subplots(len(panels), 2, squeeze=False)
    for pair, (title, points) in zip(rows, panels.items(), strict=True):
        for axes, column, label in zip(pair, (1, 2), ("median angle (°)", "NRMSE"), strict=True):
            for number, (name, trace) in enumerate(points.items()):
                line = {"linestyle": "-" if number < 7 else "--", "color": f"C{number}", "label": name}
                style = {"marker": "*", "markersize": 14} if len(trace) == 1 else {}
                axes.loglog([p[0] for p in trace], [p[column] for p in trace], **line, **style)
            axes.set(xlabel="time (s)", ylabel=label, title=title)
            axes.grid(which="both", alpha=0.2)
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _beside_cgls(what: str, name: str, response: Any, order: int, size: int, rounds: int) -> Iterator[Row]:
    scan, A, truth = _problem(name, response, order, size)
    angles: list[tuple[float, float]] = []

    def note(iteration: int, x: Any, residual: float) -> None:
        angles.append(_errors(x, truth))

    cgls(A, scan.data, iterations=ITERATIONS, progress=False, callback=note)
    best = int(np.argmin([angle for angle, _ in angles])) + 1
    angle, nrmse = _errors(fbp(A, scan.data), truth)
    lowest = angles[best - 1][0]
    yield Row(f"{what}: FBP, median angle", angle, "°", note=f"NRMSE {nrmse:.3f}")
    note_of_cgls = f"iteration {best}; lowest NRMSE {min(e for _, e in angles):.3f}"
    yield Row(f"{what}: CGLS at its best iteration, median angle", lowest, "°", note=note_of_cgls)
    yield Row(f"{what}: angle, FBP / CGLS", angle / lowest, "×", at_most=1.5)
    timings = in_turn(
        {
            "FBP": lambda: fbp(A, scan.data),
            "CGLS": lambda: cgls(A, scan.data, iterations=best, progress=False),
        },
        rounds,
    )
    yield timings.row("FBP", what)
    yield timings.row("CGLS", what)
    yield timings.ratio_row(f"{what}: time, FBP / CGLS", "FBP", "CGLS", at_most=0.1)


def _problem(name: str, response: Any, order: int, size: int) -> tuple[Scan, TensorXRayTransform, Any]:
    shape = (size, size, size)
    scan = simulate(name, tilt_series(shape, views=VIEWS), response, noise=NOISE)
    return scan, TensorXRayTransform(scan.geometry, response, order), PHANTOMS[name](shape)


def _errors(x: Any, truth: Any) -> tuple[float, float]:
    merits = compare(np.asarray(x), truth)
    return math.degrees(merits.direction_error_median_rad), merits.nrmse_shared_orders


def _traced(solve: Callable[[Any], Any], truth: Any) -> list[Point]:
    points: list[Point] = []
    away, shape, start = 0.0, truth.coefficients.shape[:3], time.perf_counter()

    def note(iteration: int, x: Any, residual: float) -> None:
        nonlocal away
        now = time.perf_counter()
        if tuple(x.shape[:3]) == shape:  # not on a coarser grid
            points.append((now - start - away, *_errors(x, truth)))
        away += time.perf_counter() - now

    solve(note)
    return points


def _near(points: list[Point]) -> float:
    """Seconds until the angle was within 10 % of the lowest one."""
    lowest = min(angle for _, angle, _ in points)
    return next(seconds for seconds, angle, _ in points if angle <= 1.1 * lowest)


def main() -> None:
    """Draw error against time."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", help="of the figure, such as docs/figures/algorithms_over_time.png")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=60)
    given = parser.parse_args()
    panels = {
        f"{kind}, {given.size}³ voxels": traces(*_problem("mixture", response, order, given.size), given.iterations)
        for kind, (response, order) in KINDS.items()
    }
    draw(panels).savefig(given.file, dpi=110)


if __name__ == "__main__":
    main()
