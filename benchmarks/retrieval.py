"""Retrieval from frames with known truth (`retrieval_problem`): our methods and the peers, same frames, same run.

512² pixels, 20 steps, 2000 counts; also 200 and 20,000 counts, 10 and 5 steps; and a half-pixel shift without blur,
where no blur must be found. Interior pixels only. Direction: median angle between found and true strongest blur.
Trace of C: RMSE of its ratio to the truth. Bound: Cramér–Rao for a Gaussian window as wide as the method's own and a
noise-free reference; a reference as noisy as the sample costs √1.8 more, which is in the figure, not in the bound.
Times are processor time of one thread, without compilation. Peers that are not installed are reported as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import retrieval_problem as problems
import torch
from harness import Row, quiet
from peers import PEERS

from ddf_tomo.retrieval import METHODS, retrieve

SKIPPED = ("periodic", "deconvolution")  # for gratings, not for speckle; has a benchmark of its own
CASES = ((2000.0, 20), (200.0, 20), (20_000.0, 20), (2000.0, 10), (2000.0, 5))  # counts, steps
BARS = {
    ("matching", 2000, 20, "direction, median"): 1.2,
    ("matching", 2000, 20, "u RMSE"): 0.025,
    ("matching", 2000, 20, "trace C, relative RMSE"): 0.12,
    ("matching", 200, 20, "direction, median"): 3.5,
}
AT_MOST_BOUND, AT_MOST_US = 1.5, {"differential": 1.0, "matching": 30.0}
UNITS = {"direction, median": "°", "u RMSE": "pixel", "trace C, RMSE": "pixel²"}
WARM_UP = 96  # pixels
COVERAGE = {"within 1 σ": 0.6827, "within 1.96 σ": 0.95}


class Answer(NamedTuple):
    displacement: Any
    covariance: Any
    errors: Any
    limit: Any
    seconds_per_pixel: float


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Every method and peer, case by case."""
    size = size or (128 if quick else problems.SIZE)
    expected = problems.reference_problem(size)
    torch.set_num_threads(1)
    speed: dict[str, float] = {}
    for counts, steps in CASES[: 1 if quick else None]:
        noisy, case = expected.at(counts, steps), f"{counts:g} counts, {steps} steps"
        for name in (name for name in METHODS if name not in SKIPPED):
            answer, problem = _attempt(lambda n=name, p=noisy, k=steps: _ours(n, p, expected, k))
            if answer is None:
                yield Row(f"{name}, {case}", float("nan"), note=problem)
                continue
            yield from _rows(name, counts, steps, noisy, answer)
            if (counts, steps) == CASES[0]:
                speed[name] = 1e6 * answer.seconds_per_pixel
                yield Row(f"{name}: time a pixel and core", speed[name], "µs", at_most=AT_MOST_US.get(name))
        if steps == problems.STEPS:
            yield from _peers(noisy, counts, steps, speed, quick)
    yield from _half_pixel(min(size, 256), quick)


def _attempt(call: Callable[[], Answer]) -> tuple[Answer | None, str]:
    """The answer, or why there is none."""
    try:
        return call(), ""
    except ImportError as problem:
        return None, f"not installed: {problem}"
    except ValueError as problem:
        return None, str(problem)


def _ours(name: str, noisy: problems.Problem, expected: problems.Problem, steps: int) -> Answer:
    frames = [each.astype(np.float32) for each in (noisy.sample, noisy.reference)]
    retrieve(*(each[:, :WARM_UP, :WARM_UP] for each in frames), name, progress=False)  # compiles, where it must
    start = time.process_time()
    maps = retrieve(*frames, name, progress=False)
    seconds = time.process_time() - start
    method = METHODS[name]
    settings = method.check(dict(method.options), (1, *noisy.sample.shape))
    limit = problems.bound(expected, noisy.counts, problems.gaussian(settings["window"]), steps)
    gone = ~np.asarray(maps.valid)
    parts = [np.where(gone[..., None], np.nan, part) for part in (maps.displacement, maps.covariance)]
    errors = np.concatenate([maps.displacement_error, maps.covariance_error], -1)
    return Answer(*parts, errors, limit, seconds / gone.size)


def _rows(name: str, counts: float, steps: int, noisy: problems.Problem, answer: Answer) -> Iterator[Row]:
    figures = problems.judge(noisy, answer.displacement, answer.covariance, answer.errors, answer.limit)
    case = f"{name}, {counts:g} counts, {steps} steps"
    for what in ("direction, median", "u RMSE", "trace C, relative RMSE", "missing"):
        if what in figures:
            bar = BARS.get((name, counts, steps, what))
            yield Row(f"{case}: {what}", figures[what], UNITS.get(what, ""), at_most=bar)
    for key in problems.NAMES:
        what = f"{key}, RMSE over the bound"
        if what not in figures:
            continue
        judged = name == "matching" and (counts, steps) == CASES[0]
        note = f"bias {figures[f'{key}, bias']:.2g} of RMSE {figures[f'{key}, RMSE']:.2g}"
        yield Row(f"{case}: {what}", figures[what], "×", at_most=AT_MOST_BOUND if judged else None, note=note)
        for within, nominal in COVERAGE.items():
            bars = {"at_least": nominal - 0.04, "at_most": nominal + 0.04} if judged else {}
            yield Row(f"{case}: {key}, {within}", figures[f"{key}, {within}"], note=f"nominal {nominal}", **bars)


def _peers(noisy: problems.Problem, counts: float, steps: int, speed: dict[str, float], quick: bool) -> Iterator[Row]:
    """On a cut of 128² (64² if quick), as one of them takes 50 ms a pixel."""
    half = (32 if quick else 64) + problems.MARGIN
    middle = slice(len(noisy.transmission) // 2 - half, len(noisy.transmission) // 2 + half)
    cut = noisy.crop(middle, middle)
    for name, peer in PEERS.items():
        answer, problem = _attempt(lambda p=peer: _theirs(p, cut))
        if answer is None:
            yield Row(f"{name}, {counts:g} counts", float("nan"), note=problem)
            continue
        yield from _rows(name, counts, steps, cut, answer)
        microseconds = 1e6 * answer.seconds_per_pixel
        if (counts, steps) == CASES[0]:
            yield Row(f"{name}: time a pixel and core", microseconds, "µs")
            if name.startswith("UMPA") and "matching" in speed:
                yield Row(f"matching: times faster than {name}", microseconds / speed["matching"], "×", at_least=1000)


def _theirs(peer: Callable[[Any, Any], Any], cut: problems.Problem) -> Answer:
    start = time.process_time()
    with quiet():
        found = peer(cut.sample, cut.reference)
    seconds = time.process_time() - start
    return Answer(found.displacement, found.covariance, None, None, seconds / found.pixels)


def _half_pixel(size: int, quick: bool) -> Iterator[Row]:
    """Mean of the blur that is found where there is none, beside its error bar."""
    noisy = problems.half_pixel_problem(size).at(CASES[0][0])
    for name in (name for name in METHODS if name not in SKIPPED):
        answer, problem = _attempt(lambda n=name: _ours(n, noisy, problems.half_pixel_problem(size), problems.STEPS))
        if answer is None:
            yield Row(f"{name}, half a pixel, no blur", float("nan"), note=problem)
            continue
        figures = problems.judge(noisy, answer.displacement, answer.covariance, answer.errors)
        for key in ("C_jj", "C_kk"):
            mean, error = figures[f"{key}, bias"], figures[f"{key}, median σ"]
            bar = {"at_most": 1.0} if name == "matching" else {}
            note = f"mean {mean:.2g} pixel², error bar of a pixel {error:.2g}"
            yield Row(
                f"{name}, half a pixel, no blur: mean {key} over its error bar", abs(mean) / error, note=note, **bar
            )
        yield Row(f"{name}, half a pixel, no blur: u RMSE", figures["u RMSE"], "pixel")
