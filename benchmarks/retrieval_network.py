"""The direct network beside `matching`: one mask position above all, intervals, and data unlike those of training.

First the reference problem of `retrieval` at 2000 counts with 1, 5 and 20 steps. Then crops of 128² pixels, one step
each, of families of maps that never trained: as in training (2000 counts, speckle), with a mask of another kind (a
honeycomb of dots, period 12 pixels), noise four times as large (125 counts), and frames made by wave optics. Intervals
are of 1.96 standard errors. One set of weights, of one training seed: the one that is shipped.
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
from ddf_tomo.training._frame_maps import FAMILIES
from ddf_tomo.training.frames import FRAME_SPLITS, MARGIN, Crop, arriving, random_crop

METHODS = ("matching", "network", "network+matching")
COUNTS, NOISIER = 2000.0, 16
CROPS, EDGE = 8, 12  # of each family; pixels that are not judged
PERIOD, DOT = 12.0, 2.0  # pixels: of the honeycomb, and of its dots' Gaussian
PARTS = {"u": slice(0, 2), "C": slice(2, 5), "ln T": slice(5, 6)}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """The reference problem, then four kinds of data."""
    torch.set_num_threads(1)
    yield from _reference(size or (128 if quick else problems.SIZE), (1,) if quick else (1, 5, 20))
    for kind in KINDS:
        yield from _crops(kind, 1 if quick else CROPS)


def _reference(size: int, numbers_of_steps: tuple[int, ...]) -> Iterator[Row]:
    expected = problems.reference_problem(size, problems.STEPS)
    for steps in numbers_of_steps:
        noisy, found = expected.at(COUNTS, steps), {}
        for method in METHODS:
            label = f"reference problem, {steps} steps, {method}"
            maps, seconds = _timed(noisy.sample, noisy.reference, method)
            errors = np.concatenate([maps.displacement_error, maps.covariance_error], -1)
            found[method] = problems.judge(noisy, maps.displacement, maps.covariance, errors)
            for what, unit in (("direction, median", "°"), ("u RMSE", "pixel"), ("trace C, RMSE", "square pixels")):
                yield Row(f"{label}: {what}", found[method][what], unit)
            for quantity, names in (("u", problems.NAMES[:2]), ("C", problems.NAMES[2:])):
                within = float(np.mean([found[method][f"{name}, within 1.96 σ"] for name in names]))
                yield Row(f"{label}: {quantity} within 1.96 σ", within, note="nominal 0.95")
            yield Row(f"{label}: time a pixel", 1e6 * seconds / size**2, "µs")
        ratio = found["network"]["direction, median"] / found["matching"]["direction, median"]
        bar = {"at_most": 0.5} if steps == 1 else {}
        yield Row(f"reference problem, {steps} steps: direction, network over matching", ratio, "×", **bar)


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
    j, k = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    pattern = np.zeros((size, size))
    turn, place = draw.uniform(0, np.pi), draw.uniform(0, 2 * np.pi, 3)
    for n in range(3):
        angle = turn + n * np.pi / 3
        pattern += np.cos(2 * np.pi * (np.cos(angle) * j + np.sin(angle) * k) / (PERIOD * 0.866) + place[n])
    reference = np.exp(pattern / DOT)[None]
    reference /= reference.mean()
    sample, truth = arriving(reference, maps)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    frames = [torch.from_numpy(draw.poisson(COUNTS * each[inner]).astype(np.float32)) for each in (sample, reference)]
    return Crop(frames[0], frames[1].clamp(min=1), torch.from_numpy(truth[inner]).float(), COUNTS)


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
