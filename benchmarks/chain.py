"""The whole chain of a dark-field tensor scan: frames → retrieval → tensor volume, 32³ voxels, 60 views × 12 steps.

Frames of a helicoidal sample that scatters, refracts and absorbs, behind random speckle, four pixels along each voxel,
2000 counts; projected on a grid of the pixels, four times finer than the volume that is reconstructed. Then every
method of retrieval that gives blur covariances, maps to a scan with their errors as weights, and ``reconstruct(scan)``
as it is. Time is of the chain on two threads, without the simulation. Direction: angle between found and true
principal directions, weighted by the true anisotropy, so that it counts where f is anisotropic.

Then the same chain from frames that were made by waves (`wave_scan`), with no model of displacement and blur at all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row
from numpy.typing import NDArray
from wave_scan import BLUR, wave_scan
from wave_scan import DISTANCE_M as WAVES_DISTANCE_M

from ddf_tomo import Geometry, Scan, reconstruct
from ddf_tomo.acquisition.frames import simulate_frames
from ddf_tomo.acquisition.specimen import Specimen, phantom_specimen
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.retrieval import METHODS, retrieve

VIEWS, TILTS = (12, 18, 16, 14), np.radians([0.0, 15.0, 30.0, 45.0])
STEPS, COUNTS, PIXELS, VOXEL_M, DISTANCE_M = 12, 2000.0, 4, 40e-6, 1.0
UNIT_RAD2 = 1e-12  # of a scan from maps
METHODS_OF_MOMENTS = ("matching", "differential")
OPTIONS = {"window": 1.5}  # pixels: well below a voxel of four


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Chains of all methods, on the same frames."""
    size = size or (12 if quick else 32)
    views = [n // 3 for n in VIEWS] if quick else VIEWS
    geometry = tilt_series((size, size, size), views=views, tilts_rad=TILTS)
    torch.set_num_threads(2)
    chosen = [name for name in METHODS if name in METHODS_OF_MOMENTS]

    specimen = _specimen(geometry, DISTANCE_M, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        options = {"voxel_size_m": VOXEL_M, "steps": STEPS, "counts": COUNTS, "progress": False}
        frames = simulate_frames(specimen, geometry, Path(folder) / "frames.h5", distance_m=DISTANCE_M, **options)
        yield Row("simulation", time.perf_counter() - start, "s", note=f"{frames.sample.nbytes / 1e6:.0f} MB of frames")
        for method in chosen:
            yield from _chain(method, frames.sample, frames.reference, frames.geometry, DISTANCE_M, specimen, "frames")

    specimen, fine = _specimen(geometry, WAVES_DISTANCE_M, BLUR), geometry.refined(PIXELS)
    start = time.perf_counter()
    waves = wave_scan(specimen, fine, VOXEL_M / PIXELS, STEPS, COUNTS)
    yield Row("simulation by waves", time.perf_counter() - start, "s")
    for method in chosen:
        yield from _chain(method, *waves, fine, WAVES_DISTANCE_M, specimen, "waves")


def _specimen(geometry: Geometry, distance_m: float, blur: float) -> Specimen:
    lengths = {"voxel_size_m": VOXEL_M, "pixel_size_m": VOXEL_M / PIXELS, "distance_m": distance_m}
    return phantom_specimen("helicoidal", geometry, **lengths, blur=blur)


def _chain(
    method: str,
    sample: Any,
    reference: NDArray[Any],
    fine: Geometry,
    distance_m: float,
    specimen: Specimen,
    what: str,
) -> Iterator[Row]:
    judged = method == "matching"
    lengths = {"pixel_size_m": VOXEL_M / PIXELS, "distance_m": distance_m}
    start = time.perf_counter()
    maps = retrieve(sample, reference, method, progress=False, **lengths, **OPTIONS)
    between = time.perf_counter()
    scan = Scan.from_maps(maps, fine).binned(PIXELS)
    volume = reconstruct(scan, progress=False)
    stop = time.perf_counter()
    merits = compare(volume, specimen.scattering(scan.geometry.volume_shape) * (VOXEL_M / UNIT_RAD2))
    note = f"retrieval {between - start:.0f} s, reconstruction {stop - between:.0f} s"
    bar = 300.0 if judged and what == "frames" else None
    yield Row(f"{method}: {what} to volume", stop - start, "s", at_most=bar, note=note)
    angles = np.degrees([merits.direction_error_median_rad, merits.direction_error_p90_rad])
    bar = {"frames": 10.0, "waves": 15.0}[what] if judged else None
    note = f"90th percentile {angles[1]:.1f}°"
    yield Row(f"{method}, {what}: direction, median", angles[0], "°", at_most=bar, note=note)
    yield Row(f"{method}, {what}: correlation of the mean", merits.mean_correlation)
    yield Row(f"{method}, {what}: error of the coefficients up to ℓ = {volume.ell_max}", merits.nrmse_shared_orders)
