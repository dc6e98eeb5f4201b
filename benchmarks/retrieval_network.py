"""The direct network beside `matching`: from one mask position to twenty, intervals, and data unlike those of training.

First the middle 256² pixels of the reference problem of `retrieval` at 200, 2000 and 20,000 counts with 1, 5 and 20
steps; and the whole of it, 512², with one step at 2000 counts, where half of the error of the direction was aimed at.
Then crops of 128² pixels, one step each, of families of maps that never trained: as in training (2000 counts, speckle),
with a mask of another kind (a honeycomb of dots, period 12 pixels), noise four times as large (125 counts), and frames
made by wave optics. `matching` has its default window; beside it the best of four for the direction, by the truth,
and from four steps on its smoothness prior, which needs no truth. Intervals are of 1.96 standard errors. One set of
weights, of one training seed: the one that is shipped. Ratios below one are the network's; the numbers themselves stand
beside them, the network's first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import retrieval_problem as problems
import torch
from harness import Row

from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval._matching_fit import FEWEST_FRAMES
from ddf_tomo.training._frame_maps import FAMILIES
from ddf_tomo.training.frames import FRAME_SPLITS, MARGIN, Crop, arriving, random_crop

METHODS = ("matching", "network", "network+matching")
COUNTS, NOISIER = 2000.0, 16
CASES = {1: (200, 2000, 20_000), 5: (200, 2000, 20_000), 20: (200, 2000, 20_000)}  # steps, counts
MIDDLE = 256  # pixels of the reference problem
WINDOWS = (3.0, 4.5, 7.0, 10.0)  # pixels, of matching; its default is 7.0 with one step, 3.1 with five, 2.2 with more
CROPS, EDGE = 8, 12  # of each family; pixels that are not judged
PERIOD, DOT = 12.0, 2.0  # pixels: of the honeycomb, and of its dots' Gaussian
PARTS = {"u": slice(0, 2), "C": slice(2, 5), "ln T": slice(5, 6)}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """The reference problem, then four kinds of data."""
    torch.set_num_threads(1)
    expected = problems.reference_problem(size or (128 if quick else problems.SIZE), problems.STEPS)
    first = max(len(expected.transmission) - MIDDLE, 0) // 2
    middle = expected.crop(*2 * (slice(first, first + MIDDLE),))
    for steps, all_counts in ({1: (2000,)} if quick else CASES).items():
        for counts in all_counts:
            yield from _reference(middle.at(counts, steps), f"reference problem, {_steps(steps)}, {counts:,} counts")
    yield from _reference(expected.at(COUNTS, 1), "reference problem, whole, 1 step, 2,000 counts", at_most=0.5)
    for kind in KINDS:
        yield from _crops(kind, 1 if quick else CROPS)


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _reference(noisy: problems.Problem, case: str, at_most: float | None = None) -> Iterator[Row]:
    """All methods on one set of frames; the bar is for the direction."""
    found, seconds = {}, {}
    for method in METHODS:
        maps, seconds[method] = _timed(noisy.sample, noisy.reference, method)
        errors = np.concatenate([maps.displacement_error, maps.covariance_error], -1)
        figures = problems.judge(noisy, maps.displacement, maps.covariance, errors)
        for quantity, names in (("u", problems.NAMES[:2]), ("C", problems.NAMES[2:])):
            figures[quantity] = float(np.mean([figures[f"{name}, within 1.96 σ"] for name in names]))
        inner = np.s_[problems.MARGIN : -problems.MARGIN, problems.MARGIN : -problems.MARGIN]
        pull = np.abs(maps.transmission - noisy.transmission)[inner] / maps.transmission_error[inner]
        figures["T"] = float((pull[maps.valid[inner]] <= 1.96).mean())
        found[method] = figures
    ours, theirs = found["network"], found["matching"]
    for what, unit in (("direction, median", "°"), ("u RMSE", "pixels"), ("trace C, relative RMSE", "")):
        note = f"{ours[what]:.3g} / {theirs[what]:.3g} {unit}".strip()
        bar = at_most if what.startswith("direction") else None
        yield Row(f"{case}: {what}, network over matching", ours[what] / theirs[what], "×", at_most=bar, note=note)
    yield from _beside_its_best(noisy, case, ours["direction, median"])
    refined = found["network+matching"]["direction, median"]
    what = f"{case}: direction, median, network+matching over matching"
    yield Row(what, refined / theirs["direction, median"], "×", note=f"{refined:.3g} °")
    for quantity in ("u", "C", "T"):
        others = ", ".join(f"{method} {found[method][quantity]:.3f}" for method in METHODS if method != "network")
        yield Row(f"{case}: {quantity} of the network within 1.96 σ", ours[quantity], note=f"nominal 0.95; {others}")
    microseconds = {method: 1e6 * each / noisy.transmission.size for method, each in seconds.items()}
    note = ", ".join(f"{method} {each:.0f}" for method, each in microseconds.items() if method != "network")
    yield Row(f"{case}: processor time a pixel, network", microseconds["network"], "µs", note=note)


def _beside_its_best(noisy: problems.Problem, case: str, ours: float) -> Iterator[Row]:
    """Where maps are smooth matching does more in a wide window than in its own, which is for maps with detail."""
    what = f"{case}: direction, median, network over matching"
    best, window = min((_direction(noisy, window=each), each) for each in WINDOWS)
    note = f"{ours:.3g} / {best:.3g} °, window {window:g} pixels"
    yield Row(f"{what} at its best window", ours / best, "×", note=note)
    if len(noisy.sample) >= FEWEST_FRAMES:
        smooth = _direction(noisy, prior="smoothness")
        yield Row(f"{what} with a smoothness prior", ours / smooth, "×", note=f"{ours:.3g} / {smooth:.3g} °")


def _direction(noisy: problems.Problem, **options: Any) -> float:
    """Median error of the direction of matching, degrees; in pixels that it refuses, too."""
    try:
        maps = retrieve(noisy.sample, noisy.reference, "matching", gain=1.0, progress=False, **options)
    except ValueError:  # no information in any pixel
        return np.inf
    return problems.judge(noisy, None, maps.covariance)["direction, median"]


def _crops(kind: str, count: int) -> Iterator[Row]:
    within: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    lost = 0
    for family in FRAME_SPLITS["test"]:
        for seed in range(count):
            crop = KINDS[kind](family, seed)
            truth = crop.truth.numpy()
            frames = crop.sample.numpy(), crop.reference.numpy()
            try:
                both = {method: _timed(*frames, method)[0] for method in METHODS[:2]}
            except ValueError:  # no information in any pixel
                lost += 1
                continue
            for method, maps in both.items():
                found, error = stacked(maps)
                inner = maps.valid.copy()
                inner[:EDGE], inner[-EDGE:], inner[:, :EDGE], inner[:, -EDGE:] = 4 * (False,)
                off = np.abs(found - truth)[:, inner]
                for name, part in PARTS.items():
                    share = float((off[part] <= 1.96 * error[:, inner][part]).mean())
                    within.setdefault(f"{method}: {name}", []).append(share)
                    errors.setdefault(f"{method}: {name}", []).append(float(np.sqrt((off[part] ** 2).mean())))
    yield Row(f"{kind}, crops that a method refused", lost, note=f"of {count * len(FRAME_SPLITS['test'])}")
    for name, shares in within.items():
        bar = {"at_least": 0.92, "at_most": 0.98} if kind == "as in training" and name.startswith("network") else {}
        yield Row(f"{kind}, {name} within 1.96 σ", float(np.mean(shares)), note="nominal 0.95", **bar)
    for name in PARTS:
        logarithms = [np.log(errors[f"{method}: {name}"]) for method in METHODS[1::-1]]
        spread = logarithms[0] - logarithms[1]
        note = f"± {np.std(spread) / np.sqrt(len(spread)):.2f} of its logarithm, {len(spread)} crops"
        yield Row(f"{kind}, RMSE of {name}: network over matching", float(np.exp(spread.mean())), "×", note=note)


def stacked(maps: Maps) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(u, C, ln T) and their errors, ``(6, row, column)``."""
    transmission = np.maximum(np.asarray(maps.transmission), 1e-3)
    parts = maps.displacement, maps.covariance, np.log(transmission)[..., None]
    errors = maps.displacement_error, maps.covariance_error, (maps.transmission_error / transmission)[..., None]
    both = (np.moveaxis(np.concatenate(each, -1), -1, 0) for each in (parts, errors))
    return next(both), next(both)


def honeycomb(family: str, seed: int) -> Crop:
    """A crop behind dots in a honeycomb, turned and moved at random."""
    draw = np.random.default_rng([seed, 5])
    size = 128 + 2 * MARGIN
    maps = FAMILIES[family]((size, size), draw)
    reference = dots(1, (size, size), draw)
    sample, truth = arriving(reference, maps)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    frames = [torch.from_numpy(draw.poisson(COUNTS * each[inner]).astype(np.float32)) for each in (sample, reference)]
    return Crop(frames[0], frames[1].clamp(min=1), torch.from_numpy(truth[inner]).float(), COUNTS)


def dots(steps: int, size: tuple[int, int], draw: np.random.Generator) -> np.ndarray[Any, Any]:
    """A honeycomb of dots at random places ``(step, row, column)``, mean 1."""
    j, k = np.meshgrid(*map(np.arange, size), indexing="ij")
    pattern = np.zeros((steps, *size))
    turn, place = draw.uniform(0, np.pi), draw.uniform(0, 2 * np.pi, (steps, 3, 1, 1))
    for n in range(3):
        angle = turn + n * np.pi / 3
        pattern += np.cos(2 * np.pi * (np.cos(angle) * j + np.sin(angle) * k) / (PERIOD * 0.866) + place[:, n])
    reference = np.exp(pattern / DOT)
    result: np.ndarray[Any, Any] = reference / reference.mean()
    return result


KINDS = {
    "as in training": lambda family, seed: random_crop(
        family, (128, 128), counts=COUNTS, seed=1000 + seed, mask="speckle"
    ),
    "another mask": honeycomb,
    "noise × 4": lambda family, seed: random_crop(
        family, (128, 128), counts=COUNTS / NOISIER, seed=1000 + seed, mask="speckle"
    ),
    "wave optics": lambda family, seed: random_crop(family, (128, 128), counts=COUNTS, seed=1000 + seed, waves=True),
}


def _timed(sample: Any, reference: Any, method: str) -> tuple[Maps, float]:
    start = time.process_time()
    maps = retrieve(sample, np.maximum(reference, 1e-3), method, gain=1.0, progress=False)
    return maps, time.process_time() - start
