"""What the first call on a new geometry costs beyond later calls: projection and back-projection, object included.

Every geometry differs from those before in its views, and ours also in its shapes and number of channels. Ours is
measured in a fresh process as well, with the compiled code on disk (a call before has seen to that): there the first
call also loads numba. MUMOTT compiles for every geometry. Retrieval is measured from an empty cache: processor time
to compile it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import Row, join, quiet, seconds_of, spread

from ddf_tomo import Geometry, SaxsResponse, XRayTransform

PROBE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[2]))
import first_call
start = time.perf_counter()
import numba
loading = time.perf_counter() - start
print(json.dumps([loading, first_call.extra_of_ours(int(sys.argv[3]), 0)]))
"""

COMPILING = """
import sys, time
import numpy as np, torch
torch.set_num_threads(1)
from ddf_tomo.retrieval import retrieve
reference = 1 + 0.3 * np.random.default_rng(0).standard_normal((4, 40, 40)).astype(np.float32)
def seconds():
    start = time.process_time()
    retrieve(0.9 * np.roll(reference, 1, -1), reference, sys.argv[1], progress=False)
    return time.process_time() - start
first = seconds()
print(first - seconds())
"""


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Differences between the first and later calls."""
    import torch

    size = size or (16 if quick else 32)
    extra_of_ours(size, 0)
    ours = tuple(extra_of_ours(size + seed, seed) for seed in range(1, 5 if quick else 11))
    yield Row(
        "ours, new geometry, median", statistics.median(ours), "s", at_most=0.3, note=spread(ours, "s", "geometries")
    )
    yield Row("ours, new geometry, worst", max(ours), "s", at_most=0.3)

    command = [sys.executable, "-c", PROBE, str(Path(__file__).parent), str(torch.get_num_threads()), str(size)]
    fresh = [json.loads(subprocess.check_output(command)) for _ in range(1 if quick else 5)]
    loading, extra = (tuple(values) for values in zip(*fresh, strict=True))
    note = join("numba imported before; its start, once a process", spread(extra, "s", "processes"))
    yield Row("ours, first call of a fresh process", statistics.median(extra), "s", at_most=0.3, note=note)
    yield Row("import of numba, fresh process", statistics.median(loading), "s", note="torch already imported")

    for method in ("differential",) if quick else ("differential", "matching"):
        yield Row(f"{method} retrieval, compilation", compilation(method), "s", note="processor time, empty cache")

    with quiet():
        theirs = tuple(extra_of_mumott(size, seed) for seed in range(1 if quick else 5))
    yield Row("MUMOTT, new geometry, median", statistics.median(theirs), "s", note=spread(theirs, "s", "geometries"))


def compilation(method: str) -> float:
    """Seconds that a first retrieval takes longer than a second one, where nothing was compiled before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", COMPILING, method]
        return float(subprocess.check_output(command, env=os.environ | {"NUMBA_CACHE_DIR": folder}))


def new_geometry(size: int, seed: int) -> Geometry:
    """Views that no other seed has, of a volume and detector that are no cube."""
    inner, outer = np.random.default_rng(seed).uniform([[0], [-0.7]], [[6.2], [0.7]], size=(2, 20 + seed))
    return Geometry.from_angles(inner, outer, (size, size + 1, size - 1), (size + 2, size))


def extra_of_ours(size: int, seed: int) -> float:
    """First call minus later ones, in seconds."""
    geometry = new_geometry(size, seed)
    volume = np.ones((*geometry.volume_shape, 3 + seed), np.float32)

    def make() -> tuple[Any, Any]:
        projector = XRayTransform(geometry)
        return projector, projector.T

    return extra(make, volume)


def extra_of_mumott(size: int, seed: int) -> float:
    """The same for MUMOTT's projector."""
    from mumott.methods.projectors import SAXSProjector

    from ddf_tomo.interop.mumott import to_geometry

    geometry = to_geometry(new_geometry(size, seed), SaxsResponse([0.0, 1.0]))

    def make() -> tuple[Any, Any]:
        projector = SAXSProjector(geometry)
        return projector.forward, projector.adjoint

    return extra(make, np.ones((*geometry.volume_shape, 6)))


def extra(make: Callable[[], tuple[Any, Any]], volume: np.ndarray) -> float:
    """Time to make the projector, project and project back, less the median of doing the latter again."""
    start = time.perf_counter()
    forward, adjoint = make()
    adjoint(forward(volume))
    first = time.perf_counter() - start
    return first - statistics.median(seconds_of(lambda: adjoint(forward(volume))) for _ in range(5))
