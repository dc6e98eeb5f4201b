"""How time grows with voxels, views, channels and threads: projection and back-projection, with fitted exponents.

One size is varied at a time, by factors of two; the exponent is the slope of time against size, both logarithmic, by
least squares over the minima of all rounds. 1 is proportional; channels grow by less, as weights are computed once for
all of them. Volumes and detectors grow together, so that voxels are rays × slices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from harness import Row, Timings, in_turn
from projector import spread_views

from ddf_tomo import XRayTransform

DIRECTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "forward": lambda A, x, y: A(x),
    "adjoint": lambda A, x, y: A.T(y),
}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Exponents with their tables; ``size`` is the edge of the volume where it is not what varies."""
    edge, rounds = size or (16 if quick else 64), 2 if quick else 5
    views, channels = (8, 2) if quick else (120, 6)
    edges = [edge // 2, edge, *([] if quick else [edge * 3 // 2])]
    for direction in DIRECTIONS:
        by = _timed(direction, {n**3: (n, views, channels) for n in edges}, rounds)
        yield _exponent(f"{direction}: time ∝ voxels^", by, at_most=1.1)
        by = _timed(direction, {n: (edge, n, channels) for n in (views // 2, views, 2 * views)}, rounds)
        yield _exponent(f"{direction}: time ∝ views^", by, at_most=1.1)
        by = _timed(direction, {n: (edge, views, n) for n in ((1, 2) if quick else (1, 3, 6, 15, 28))}, rounds)
        yield _exponent(f"{direction}: time ∝ channels^", by, at_most=1.0)
        yield from _threads(direction, edge, views, channels, rounds)


def _problem(edge: int, views: int, channels: int) -> tuple[XRayTransform, torch.Tensor, torch.Tensor]:
    A = XRayTransform(spread_views(edge, views))
    x = torch.randn(edge, edge, edge, channels, generator=torch.Generator().manual_seed(0))
    return A, x, A(x)


def _timed(direction: str, problems: dict[int, tuple[int, int, int]], rounds: int) -> Timings:
    made = {str(n): _problem(*problem) for n, problem in problems.items()}
    call = DIRECTIONS[direction]
    return in_turn({n: lambda parts=parts: call(*parts) for n, parts in made.items()}, rounds)


def _exponent(what: str, timings: Timings, **bars: float) -> Row:
    sizes = [int(name) for name in timings.seconds]
    seconds = [min(found) for found in timings.seconds.values()]
    table = ", ".join(f"{n}: {s:.3g} s" for n, s in zip(sizes, seconds, strict=True))
    return Row(what, exponent(sizes, seconds), note=table, **bars)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _threads(direction: str, edge: int, views: int, channels: int, rounds: int) -> Iterator[Row]:
    """Speed-up by threads, two at least where there are two cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]
    if len(counts) < 2:
        return
    A, x, y = _problem(edge, views, channels)
    before = torch.get_num_threads()

    def with_threads(count: int) -> torch.Tensor:
        torch.set_num_threads(count)
        return DIRECTIONS[direction](A, x, y)

    try:
        timings = in_turn({str(n): lambda n=n: with_threads(n) for n in counts}, rounds)
    finally:
        torch.set_num_threads(before)
    for count in counts[1:]:
        bar = {"at_least": 1.8} if count == 2 else {}
        yield timings.ratio_row(f"{direction}: speed-up at {count} threads", "1", str(count), **bar)
