"""Peak memory of reconstructions that are large, each in a process of its own, beside what was predicted.

Total variation at a given weight, two iterations: more take no more. Everything in memory: 15 coefficients from 300
views of 8 segments. From the disk: 6 coefficients from 400 views of 3 second moments, whose file is read view by view.
The peak is that of the whole process, with Python and its packages, and the pages of the file that it reads; the
prediction is `ddf_tomo.memory.predicted_memory` and what the process takes before it has a scan. Data are noise: they
cost as much memory as any.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Row

IN_MEMORY_BAR, STREAMED_BAR = 8.0, 20.0  # GB


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Two sizes, each measured and predicted; another ``size`` is the edge of the first volume, half of the second."""
    edge = size or (32 if quick else 128)
    own = not quick and size is None
    cases = (
        ("in memory", (edge, 15, 300, 8, False), IN_MEMORY_BAR),
        ("from the disk", (2 * edge, 6, 400, 3, True), STREAMED_BAR),
    )
    for name, case, bar in cases:
        measured = _in_own_process(*case)
        edge_here, coefficients, views, channels, _ = case
        what = f"{edge_here}³ × {coefficients}, {views} views of {edge_here}² × {channels}, {name}"
        yield Row(f"peak, {what}", measured["peak"] / 1e9, "GB", at_most=bar if own else None)
        ratio = measured["peak"] / (measured["before"] + measured["predicted"])
        bars = {"at_least": 1 / 1.3, "at_most": 1.3} if own else {}
        yield Row(f"measured / predicted, {name}", ratio, "×", **bars)
        yield Row(f"two iterations and what goes before, {name}", measured["seconds"], "s")


def _in_own_process(*case: object) -> dict[str, float]:
    command = [sys.executable, __file__, json.dumps(case)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(told.stderr.strip().splitlines()[-1] if told.stderr.strip() else f"code {told.returncode}")
    measured: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return measured


def _measure(edge: int, coefficients: int, views: int, channels: int, from_disk: bool) -> dict[str, float]:
    """In the process of its own: a scan made view by view, two iterations, and the peak."""
    import resource
    import time
    from dataclasses import replace

    import numpy as np

    from ddf_tomo import Geometry, SaxsResponse, Scan, SecondMomentResponse, reconstruct
    from ddf_tomo.memory import predicted_memory
    from ddf_tomo.phantoms import tilt_series

    def peak() -> int:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes here
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    tilts = tilt_series((edge,) * 3)
    chosen = tilts[np.linspace(0, len(tilts) - 1, views).round().astype(int)]
    geometry = replace(chosen, detector_shape=(edge, edge))
    ell_max = {6: 2, 15: 4}[coefficients]
    response = SecondMomentResponse() if channels == 3 else SaxsResponse(np.arange(channels) * np.pi / channels)
    small = Geometry.from_angles([0.0, 1.0], 0.1, (8, 8, 8), (8, 8))
    start = Scan(np.ones((2, 8, 8, channels), np.float32), small, response, weights=np.ones(2))
    how = {"prior": "tv", "weight": 0.01, "ell_max": ell_max}
    reconstruct(start, iterations=1, progress=False, **how)  # compiles
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        scan = _noise(geometry, channels, response, Path(folder) / "scan.h5", from_disk)
        begun = time.perf_counter()
        reconstruct(scan, iterations=2, progress=False, **how)
        seconds = time.perf_counter() - begun
        predicted = predicted_memory(scan, **how).total
    return {"before": before, "peak": peak(), "predicted": predicted, "seconds": seconds}


def _noise(geometry: Any, channels: int, response: Any, path: Any, from_disk: bool) -> Any:
    """A scan of noise with weights, in memory or in a file; never more than a piece of it is made for a file."""
    import numpy as np

    from ddf_tomo import Scan
    from ddf_tomo._streamed import Streamed

    shape = (len(geometry), *geometry.detector_shape, channels)

    def read(views: Any) -> Any:
        parts = [np.random.default_rng(int(view)).random(shape[1:], np.float32) for view in views]
        return np.stack(parts) + np.float32(0.5)

    data = Streamed(shape, np.float32, read)
    scan = Scan(data, geometry, response, weights=data)
    if not from_disk:
        return scan.in_memory()
    scan.write(path)
    return Scan.read(path, in_memory=False)


if __name__ == "__main__":
    print(json.dumps(_measure(*json.loads(sys.argv[1]))))
