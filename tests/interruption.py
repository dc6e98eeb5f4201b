"""A program that reconstructs and is killed, again and again: ``python -m tests.interruption FOLDER KILLS``.

It imports everything once; each life is a fork, in which nothing has happened yet. `test_interruption` judges what it
prints as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ddf_tomo import Reconstruction, Scan, SecondMomentResponse, reconstruct
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import Checkpoint

# tqdm's own lock is shared by all forks: whoever is killed while it holds it would keep it for ever.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

GROWTH = 1.15  # of the time to live, from death to death: it must get through in the end
AT_THE_END = 2  # kills of each case when all is done but the writing of the result


def scans() -> list[Scan]:
    """The same views of one sample at two energies, say."""
    geometry = tilt_series((8, 8, 8), views=(14, 16), tilts_rad=(0.0, 0.6))
    return [simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.03, seed=seed) for seed in (0, 1)]


FIRST, SECOND = scans()
SHORT = {"ell_max": 2, "iterations": 12}
CASES: dict[str, tuple[Scan | list[Scan], dict[str, Any]]] = {
    "default": (FIRST, {"ell_max": 2, "iterations": 20}),
    "discrepancy": (FIRST, SHORT | {"prior": "smoothness", "weight": "discrepancy"}),
    "fista": (FIRST, SHORT | {"method": "fista", "positive": True, "weight": "l-curve"}),
    "pdhg": (FIRST, SHORT | {"method": "pdhg", "weight": 0.01}),
    "two scans": ([FIRST, SECOND], SHORT),
}


def work(case: str, folder: Path, checkpoint: bool = True) -> None:
    """What a user's script does."""
    scan, options = CASES[case]
    state = Checkpoint(folder / "state", every_s=0) if checkpoint else None
    made = reconstruct(scan, checkpoint=state, progress=False, **options)
    for number, result in enumerate(made if isinstance(made, list) else [made]):
        result.save(folder / f"volume{number}.h5")


def life(act: Callable[[], None], limit_s: float) -> bool:
    """Whether it came to its end before it was killed."""
    process = os.fork()
    if not process:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end, ended, status = time.monotonic() + limit_s, 0, 0
    while not ended and time.monotonic() < end:
        time.sleep(min(0.002, max(end - time.monotonic(), 0)))
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise SystemExit("a life ended in an error")
    return os.waitstatus_to_exitcode(status) == 0


def results(folder: Path) -> Iterator[Reconstruction | None]:
    """What is there under the final names, read whole."""
    for number in range(2):
        path = folder / f"volume{number}.h5"
        yield Reconstruction.load(path) if path.exists() else None


def stage(folder: Path) -> str:
    """How far it got: the newest whole file."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]
    return str(max(files, key=lambda path: path.stat().st_mtime).relative_to(folder)) if files else "nothing"


def same(first: Reconstruction | None, second: Reconstruction | None) -> bool:
    if first is None or second is None:
        return first is second
    settings = dict(first.settings) == dict(second.settings) and first.residuals == second.residuals
    return settings and np.array_equal(first.coefficients, second.coefficients)


def trial(case: str, folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Lives of one case until it was killed often enough and came to its end at least once; then of the end only."""
    (folder / "whole").mkdir(parents=True)
    start = time.monotonic()
    life(partial(work, case, folder / "whole", checkpoint=False), 600)
    typical, whole = time.monotonic() - start, list(results(folder / "whole"))
    told: dict[str, Any] = {"ends": 0, "after": [], "half": 0, "different": 0, "left": 0}

    def to_the_end(place: Path, shortest: float, longest: float) -> None:
        while not life(partial(work, case, place), rng.uniform(shortest, longest)):
            told["after"].append(stage(place))
            found = list(results(place))  # raises if one is not whole
            told["half"] += any(new is not None and not same(new, old) for new, old in zip(found, whole, strict=True))
            longest *= GROWTH
        told["ends"] += 1
        told["different"] += not all(map(same, results(place), whole))
        told["left"] += sum(path.suffix == ".part" for path in place.rglob("*"))

    while len(told["after"]) < kills or not told["ends"]:
        place = folder / f"run{told['ends']}"
        place.mkdir()
        to_the_end(place, 0.0, typical * rng.uniform(0.15, 0.4))
    start = time.monotonic()
    to_the_end(place, 600, 600)
    end = time.monotonic() - start
    for _ in range(AT_THE_END):
        for result in place.glob("volume*"):
            result.unlink()
        to_the_end(place, 0.3 * end, 0.9 * end)
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    reconstruct(FIRST, ell_max=2, weight=0.01, iterations=1, progress=False)  # compiled kernels, loaded once
    base, often = Path(sys.argv[1]), int(sys.argv[2])
    print(json.dumps({case: trial(case, base / case, often, random.Random(case)) for case in CASES}))
