"""What limits projection and back-projection: counted operations and loads beside what this machine can do.

64³ voxels × 1, 6, 15, 45 channels × 60 views. A sample is where a ray crosses a slice: four voxels, and a multiply-add
for each of them and each channel, two operations. Samples are counted from the geometry, those outside the volume left
out. Three limits of the time, measured by the same threads, in turn with the projector: the arithmetic (multiply-adds
in registers); the loads (for each sample and vector of channels four voxels, four weights, four multiply-adds and, in
the back-projection, four stores, all in the first cache); the memory (volume and projections once, at the speed of a
copy). The binding one is the longest. Finding the voxels of a sample, the same for all channels, is in no limit; it is
measured beside them. Speeds are the best of the rounds, the machine's as ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from harness import Row, in_turn, spread
from numba import njit
from peaks import BACKPROJECT, BYTES_OF_LEVEL, LOAD, MULTIPLY, PROJECT, Loop
from projector import spread_views

from ddf_tomo import Geometry, XRayTransform
from ddf_tomo._threads import in_parallel
from ddf_tomo.operators.backends._numba_kernel import SLICES, STRIP, _locate
from ddf_tomo.operators.backends.numba_cpu import lanes_for
from ddf_tomo.operators.backends.table import view_table

CHANNELS = (1, 6, 15, 45)
TASKS = {"forward": PROJECT, "adjoint": BACKPROJECT}
WIDEST = 16
ARITHMETIC, COPY, LEVELS = "multiply-adds", "copy", ("first cache", "second cache", "last cache")


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Peaks, then for both directions and each number of channels: speed, intensities, share of the limit."""
    edge, views, rounds = size or (16 if quick else 64), 6 if quick else 60, 2 if quick else 9
    vectors = 1e6 if quick else 1e8
    geometry = spread_views(edge, views)
    samples = sample_count(geometry)
    yield Row("samples", samples, note=f"{samples / (edge**3 * views):.2f} of voxels × views")

    source = torch.ones((16 if quick else 256) * 2**18)
    target = torch.empty_like(source)
    matrix = torch.ones(1024, 1024)
    product = torch.empty_like(matrix)
    loops = {f"{ARITHMETIC}, {lanes} lanes": Loop(lanes, MULTIPLY, vectors) for lanes in (8, WIDEST)}
    loops |= {name: Loop(WIDEST, LOAD, vectors, size) for name, size in zip(LEVELS, BYTES_OF_LEVEL, strict=True)}
    lanes = {count: 2 if count == 1 else lanes_for(count) for count in CHANNELS}  # one channel goes by pairs of voxels
    for name, task in TASKS.items():
        loops |= {f"{name}, {width} lanes": Loop(width, task, vectors) for width in set(lanes.values())}
    locating = Locating(vectors / 4)
    projector = XRayTransform(geometry)
    cases = {}
    for count in CHANNELS:
        x = torch.randn(edge, edge, edge, count, generator=torch.Generator().manual_seed(0))
        y = projector(x)
        cases["forward", count] = (lambda x=x: projector(x)), x.nbytes + y.nbytes
        cases["adjoint", count] = (lambda y=y: projector.T(y)), x.nbytes + y.nbytes
    contestants = loops | {"locating": locating, COPY: lambda: target.copy_(source)}
    contestants |= {"matrices": lambda: torch.mm(matrix, matrix, out=product)}
    contestants |= {label(*case): call for case, (call, _) in cases.items()}
    seconds = in_turn(contestants, rounds).seconds

    # How long a vector, an operation, a byte takes.
    best = {name: min(of_rounds) for name, of_rounds in seconds.items()}
    a_vector = {name: best[name] / loops[name].vectors for name in loops}
    of_matrices = best["matrices"] / (2 * 1024**3)
    an_operation = min(a_vector[f"{ARITHMETIC}, {lanes} lanes"] / (2 * lanes) for lanes in (8, WIDEST))
    an_operation, a_byte = min(an_operation, of_matrices), best[COPY] / (2 * source.nbytes)
    yield Row(ARITHMETIC, 1e-9 / an_operation, "GFLOP/s", note="in registers")
    yield Row("product of matrices", 1e-9 / of_matrices, "GFLOP/s")
    yield Row(COPY, 1e-9 / a_byte, "GB/s", note="read and written")
    for name, level in zip(LEVELS, BYTES_OF_LEVEL, strict=True):
        yield Row(f"loads, {name}", 4e-9 * WIDEST / a_vector[name], "GB/s", note=f"arrays of {level // 2**10} KiB")
    of_thread = 1e9 * torch.get_num_threads()
    yield Row(
        "locating the voxels of a sample", of_thread * best["locating"] / locating.samples, "ns", note="of a thread"
    )

    for (direction, count), (_, memory_bytes) in cases.items():
        name, width = label(direction, count), lanes[count]
        operations = 8 * samples * count
        needed = (2 if count == 1 else 4) * samples * -(-count // width)  # vectors
        limits = {
            "arithmetic": operations * an_operation,
            "loads": needed * a_vector[f"{direction}, {width} lanes"],
            "memory": memory_bytes * a_byte,
        }
        binding = max(limits, key=lambda kind: limits[kind])
        loaded = needed * (4 * width * (2 if direction == "adjoint" else 1) + (8 if count == 1 else 4))
        speeds = tuple(1e-9 * operations / found for found in seconds[name])
        yield Row(f"{name}: speed", max(speeds), "GFLOP/s", note=spread(speeds))
        yield Row(f"{name}: updates", edge**3 * count * views / best[name], "/s", note="voxels × channels × views")
        yield Row(f"{name}: a sample", of_thread * best[name] / samples, "ns", note="of a thread")
        yield Row(f"{name}: intensity, loads", operations / loaded, "FLOP/byte")
        yield Row(f"{name}: intensity, memory", operations / memory_bytes, "FLOP/byte")
        share = limits[binding] / best[name]
        yield Row(f"{name}: share of the limit", share, note=f"bound by {binding}", at_least=0.5)
        parts = limits["loads"] + samples * best["locating"] / locating.samples
        yield Row(f"{name}: loads and locating alone", parts / best[name], note="share of the time")


class Locating:
    """A call that finds the voxels of about so many samples, as the kernel does, by all threads."""

    def __init__(self, samples: float) -> None:
        self.units = 8 * torch.get_num_threads()
        self.repeats = max(round(samples / (self.units * STRIP * SLICES)), 1)
        self.samples = self.units * self.repeats * STRIP * SLICES

    def __call__(self) -> None:
        in_parallel(self.units, 1, lambda start, stop: _find(start, stop, self.repeats))


@njit(nogil=True, error_model="numpy")
def _find(start: int, stop: int, repeats: int) -> None:
    places, weights = np.empty(STRIP * SLICES, np.int32), np.empty(4 * STRIP * SLICES, np.float32)
    for unit in range(start, stop):
        for n in range(repeats):
            for at in range(STRIP):
                u, w = 0.01 * n + 0.9 * at, 0.02 * unit + 0.3 * at
                _locate(u, 0.4, w, -0.2, 64, 64, 66 * 66 * 16, 66 * 16, 16, places, weights, at)


def label(direction: str, channels: int) -> str:
    """How a case is called in the results."""
    return f"{direction}, {channels} channel{'s' if channels > 1 else ''}"


def sample_count(geometry: Geometry) -> int:
    """How many crossings of a ray and a slice have a voxel of the volume among their four."""
    table, _ = view_table(geometry)
    rows, columns = (np.arange(n) for n in geometry.detector_shape)
    found = 0
    for view in table:
        inside = True
        for size, start, *steps in ((view[1], *view[6:10]), (view[2], *view[10:14])):
            place = start + steps[0] * rows[:, None, None] + steps[1] * columns[:, None] + steps[2] * np.arange(view[0])
            inside = inside & (place > -1) & (place < size)
        found += int(inside.sum())
    return found
