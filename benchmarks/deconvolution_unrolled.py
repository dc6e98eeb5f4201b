"""Unrolled blind deconvolution against classical updates at equal time: errors of the blur's covariance, held out.

Crops of 64² pixels, 2000 counts in sample and reference, 10 positions of speckle, of two families of maps that neither
trained nor validated: as in training, with lines that cross at 50° to 90° in every pixel, and kinds that differ from
training by the number of positions, of distances, the mask, or the physics (wave optics). Errors are root mean squares
over the crop, as a matrix, relative to the truth; ratios of them are geometric means over crops. Pixels nearer than 12
to the edge are not judged; in the others every method gives a value.

Classical updates are given at least the processor time of the network, with `matching`, from which both start, counted
in both: the first of 1, 2, 6 iterations (rank 6) that takes as long. Beside them: the default of 6; the best of these,
of 12 kernels and of 9 directional ones, chosen for each crop by the truth; and `matching` itself, the network's start.
Weights are those that are shipped; DECONVOLUTION_MODEL names a file of others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from deconvolution import BETTER, model
from harness import Row
from retrieval_network import dots

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.deconvolution import deconvolve
from ddf_tomo.training._frame_maps import FAMILIES
from ddf_tomo.training._wave_frames import admissible, wave_optics
from ddf_tomo.training.deconvolving import crossing_lines, mixed_frames, second_moments
from ddf_tomo.training.frames import FRAME_SPLITS, MARGIN, MASKS

CROPS, SIZE, EDGE = 2, 64, 12  # of each family; pixels
COUNTS, STEPS = 2000.0, 10
DIRECTED = 0.2  # difference over sum of the eigenvalues of C, from which on it has a direction
NETWORK_STEPS = (1, 3, 10)
DEFAULT = 3
CLASSICAL: dict[str, dict[str, Any]] = {
    "1 iteration": {"iterations": 1},
    "2 iterations": {"iterations": 2},
    "6 iterations": {"iterations": 6},
    "12 kernels": {"iterations": 2, "rank": 12},
    "9 directions": {"kernels": "directions", "rank": 9},
}
TIMED = [name for name in CLASSICAL if name.endswith(("iteration", "iterations"))]
KINDS: dict[str, dict[str, Any]] = {
    "as in training": {},
    "crossing lines": {"crossing": True},
    "4 positions": {"steps": 4},
    "300 counts": {"counts": 300.0},
    "3 distances": {"reach": (0.4, 0.7, 1.0), "steps": 5},
    "another mask": {"mask": "dots"},
    "wave optics": {"waves": True},
    "crossing lines, another mask": {"crossing": True, "mask": "dots"},
}


class Frames(NamedTuple):
    """Counts ``([distance,] step, row, column)``, and the covariance ``(row, column, 3)`` in them."""

    sample: np.ndarray[Any, Any]
    reference: np.ndarray[Any, Any]
    covariance: np.ndarray[Any, Any]
    reach: tuple[float, ...]


def frames(
    family: str,
    seed: int,
    *,
    size: int = SIZE,
    steps: int = STEPS,
    counts: float = COUNTS,
    mask: str = "speckle",
    crossing: bool = False,
    waves: bool = False,
    reach: tuple[float, ...] = (1.0,),
) -> Frames:
    """A crop of a family, behind Gaussians or behind two lines in every pixel."""
    draw = np.random.default_rng([seed, 11])
    whole = size + 2 * MARGIN, size + 2 * MARGIN
    maps = FAMILIES[family](whole, draw)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    if waves:
        maps = admissible(maps)
        expected, reference = wave_optics(maps, steps, draw)
        expected = expected[None]
        _, truth = mixed_frames(reference[:1], maps.transmission, maps.displacement, [maps.covariance])
    else:
        reference = dots(steps, whole, draw) if mask == "dots" else MASKS[mask](steps, whole, draw)
        blurs = crossing_lines(maps.covariance, draw) if crossing else [maps.covariance]
        made = [
            mixed_frames(reference, maps.transmission, maps.displacement * d, [each * d**2 for each in blurs])
            for d in reach
        ]
        expected, truth = np.stack([each for each, _ in made]), made[-1][1]
    _, covariance = second_moments(torch.from_numpy(truth[inner]))
    light = np.broadcast_to(reference, expected.shape)
    pair = [draw.poisson(counts * np.clip(each[inner], 0, None)).astype(np.float32) for each in (expected, light)]
    sample, beam = (each if len(reach) > 1 else each[0] for each in pair)
    return Frames(sample, np.maximum(beam, 1 / steps), covariance.numpy(), reach)


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Each kind of frames; nothing where there are no weights."""
    torch.set_num_threads(1)
    if model() is None:
        yield Row("weights of the unrolled network", 0, note="none are shipped")
        return
    for kind, options in list(KINDS.items())[: 2 if quick else None]:
        yield from _kind(kind, options | {"size": size or SIZE}, quick)


def _kind(kind: str, options: dict[str, Any], quick: bool) -> Iterator[Row]:
    found: list[dict[str, tuple[float, float, float]]] = []
    for family in FRAME_SPLITS["test"][: 1 if quick else None]:
        found += [_crop(frames(family, seed, **options), quick) for seed in range(1 if quick else CROPS)]
    ours = f"{DEFAULT} steps"
    for figure, name in enumerate(("error of C", "median error of the direction")):
        for other in ("classical, same time", "classical, default", "classical, best by the truth", "matching"):
            logs = [np.log(each[ours][figure] / each[other][figure]) for each in found]
            logs = [each for each in logs if np.isfinite(each)]
            if not logs:
                continue
            values = " / ".join(f"{_mean(found, each, figure):.3g}" for each in (ours, other))
            note = f"{values}{'°' if figure else ''}; ± {np.std(logs) / np.sqrt(len(logs)):.2f} of its logarithm"
            bar = BETTER if not figure and other.endswith("time") else None
            yield Row(
                f"{kind}: {name}, unrolled over {other}", float(np.exp(np.mean(logs))), "×", at_most=bar, note=note
            )
    for steps in NETWORK_STEPS:
        error, seconds = (_mean(found, f"{steps} steps", figure) for figure in (0, 2))
        given = _mean(found, "classical, same time", 2)
        yield Row(f"{kind}: error of C, {steps} steps", error, note=f"{seconds:.2f} s; classical had {given:.2f} s")


def _mean(found: list[dict[str, tuple[float, float, float]]], name: str, figure: int) -> float:
    values = [each[name][figure] for each in found if np.isfinite(each[name][figure])]
    return float(np.exp(np.mean(np.log(values)))) if values else np.nan


def _crop(given: Frames, quick: bool) -> dict[str, tuple[float, float, float]]:
    """Error of C, of its direction, and seconds, of each method."""
    distances = {"distance_m": given.reach} if len(given.reach) > 1 else {}
    pair = given.sample, given.reference
    judged: dict[str, tuple[float, float, float]] = {}

    def timed(name: str, call: Any) -> None:
        begin = time.process_time()
        covariance = call().covariance
        seconds = time.process_time() - begin
        judged[name] = (*judge(np.asarray(covariance), given.covariance), seconds)

    timed("matching", lambda: retrieve(*pair, "matching", window=2.2, progress=False, **distances))
    for steps in NETWORK_STEPS:
        options = {"model": model(), "steps": steps, **distances}
        timed(f"{steps} steps", lambda options=options: deconvolve(*pair, gain=1.0, **options))
    for name, options in list(CLASSICAL.items())[: 2 if quick else None]:
        timed(name, lambda options=options: deconvolve(*pair, gain=1.0, **options, **distances))
    tried = [name for name in CLASSICAL if name in judged]
    timely = [name for name in TIMED if name in judged]
    needed = judged[f"{DEFAULT} steps"][2]
    judged["classical, same time"] = judged[next((name for name in timely if judged[name][2] >= needed), timely[-1])]
    judged["classical, default"] = judged["6 iterations" if "6 iterations" in judged else timely[-1]]
    error, turned = (min(judged[name][figure] for name in tried) for figure in (0, 1))
    judged["classical, best by the truth"] = error, turned, np.nan
    return judged


def judge(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Relative error of C as a matrix, and median error of its direction in degrees where there is one."""
    inner = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    found, truth = found[inner], truth[inner]
    norm = np.array([1, 2, 1])
    error = float(np.sqrt(((found - truth) ** 2 @ norm).mean() / (truth**2 @ norm).mean()))
    both = [np.stack([C[..., 0] - C[..., 2], 2 * C[..., 1]], -1) for C in (found, truth)]
    there = np.linalg.norm(both[1], axis=-1) > DIRECTED * (truth[..., 0] + truth[..., 2])
    if not there.any():
        return error, np.nan
    one, other = (np.arctan2(each[there][:, 1], each[there][:, 0]) / 2 for each in both)
    off = np.abs((one - other + np.pi / 2) % np.pi - np.pi / 2)
    return error, float(np.rad2deg(np.median(off)))
