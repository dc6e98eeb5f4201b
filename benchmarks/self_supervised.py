"""What one scan alone teaches a prior: a fresh network that has seen nothing but this scan's views.

The scans and the opponent are those of `learned_priors`: 32³ voxels, 60 views, families that no training saw, total
variation at the best weights by the truth. A fresh network of the shipped one's kind, with its default widths (412,000
numbers; the shipped one has 683,000), is trained without a truth (`ddf_tomo.training.adapt`: views are dealt out to two
reconstructions, of which it predicts one from the other, in all poses of the cube) and then takes the shipped one's
place in ``reconstruct(scan, prior=...)``. The rehearsal there draws
volumes from the families of the training, to find noise levels: that is all that the result knows of them. ``Mixed`` is
``prior="tv+…"`` with the fresh network, in shares that views left out tell. ``One pass`` is what it makes of the mean
of the reconstructions, at once (Noise2Inverse). ``Adapted`` is the shipped network after the same on this scan, or
itself where views that were kept aside did not find that better.

The share of the gain is ``log(TV / ours) / log(TV / shipped)``, of geometric means over the scans.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row
from learned_priors import FIGURES, NAMES, ORDER, Found, best_tv, figures, ratio_row

from ddf_tomo import Scan, reconstruct
from ddf_tomo.priors.learned import LearnedPrior
from ddf_tomo.training import Adapted, adapt, benchmark_scan
from ddf_tomo.training.adaptation import Halves
from ddf_tomo.weights import load_network, make_network, save_network

SHIPPED = "residual-unet"
STEPS, RATE, RATE_OF_SHIPPED = 500, 2e-3, 5e-4
SHARE = 0.6
LIMIT_S = 3600.0


def run(quick: bool = False, size: int | None = None, scans: int = 4) -> Iterator[Row]:
    """Errors relative to those of others, and the share of the supervised gain."""
    size, count, steps = size or (12 if quick else 32), 2 if quick else scans, 2 if quick else STEPS
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        found = list(pool.map(partial(one_scan, size=size, steps=steps), range(count)))
    for figure in FIGURES:
        yield from (share_row(found, figure, own) for own in ("alone", "mixed"))
        for own, opponent in (("alone", "tv"), ("mixed", "tv"), ("one pass", "tv"), ("adapted", "shipped")):
            name = {"tv": "total variation"}.get(opponent, opponent)
            yield ratio_row(f"{own} / {name}, {NAMES[figure]}", found, figure, opponent, None, own)


def share_row(found: Sequence[Found], figure: str, own: str) -> Row:
    """Of the gain over total variation that the shipped network makes, what the scan alone teaches."""
    logs = {
        name: np.array([math.log(each["tv"][figure] / each[name][figure]) for each in found])
        for name in (own, "shipped")
    }
    share = float(logs[own].mean() / logs["shipped"].mean())
    note = ", ".join(f"{math.exp(-a):.3f} | {math.exp(-b):.3f}" for a, b in zip(*logs.values(), strict=True))
    bar = SHARE if figure == "all" else None
    return Row(
        f"{own}, share of the supervised gain, {NAMES[figure]}",
        share,
        at_least=bar,
        note=f"errors over those of total variation, {own} | shipped: {note}",
    )


def one_scan(index: int, size: int, steps: int) -> Found:
    """Figures of all contestants on one scan."""
    scan, truth = benchmark_scan(index, (size,) * 3, ORDER)
    shipped = load_network(SHIPPED)
    torch.manual_seed(index)
    alone = learned_from(scan, make_network(SHIPPED), RATE, steps)
    adapted = learned_from(scan, shipped, RATE_OF_SHIPPED, steps)
    volumes = {
        name: reconstruct(scan, ell_max=ORDER, prior=LearnedPrior(network), progress=False).coefficients
        for name, network in (("alone", alone.network), ("shipped", shipped), ("adapted", adapted.network))
    }
    volumes["one pass"] = in_one_pass(scan, alone)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alone.safetensors"
        save_network(alone.network, file)
        volumes["mixed"] = reconstruct(scan, ell_max=ORDER, prior=f"tv+{file}", progress=False).coefficients
    return {name: figures(volume, truth) for name, volume in volumes.items()} | {"tv": best_tv(scan, truth)}


def learned_from(scan: Scan, network: torch.nn.Module, rate: float, steps: int) -> Adapted:
    """The network after training on this scan, or before, whichever predicts its views better."""
    return adapt(scan, network, ell_max=ORDER, steps=steps, learning_rate=rate, time_limit_s=LIMIT_S, progress=False)


def in_one_pass(scan: Scan, found: Adapted) -> torch.Tensor:
    """What the network makes of the mean of the reconstructions that it learned from."""
    task = Halves(scan, ORDER, None, 0, torch.device("cpu"))
    with torch.no_grad():
        volume: torch.Tensor = found.network(task.mean[None], task.level / math.sqrt(task.count))[0]
    return volume
