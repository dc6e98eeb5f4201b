"""The whole chain of a dark-field tensor scan: frames → retrieval → tensor volume, 32³ voxels, 60 views × 12 steps.

Frames of a helicoidal sample that scatters, refracts and absorbs, behind random speckle, four pixels along each voxel,
2000 counts; projected on a grid of the pixels, four times finer than the volume that is reconstructed. Then every
method of retrieval that gives blur covariances, maps to a scan with their errors as weights, and ``reconstruct(scan)``
as it is. Time is of the chain on two threads, without the simulation. Direction: angle between found and true
principal directions, weighted by the true anisotropy, so that it counts where f is anisotropic.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from harness import Row

from ddf_tomo import Scan, reconstruct
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.acquisition.frames import simulate_frames
from ddf_tomo.acquisition.specimen import Specimen, phantom_specimen
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.retrieval import METHODS, Maps, retrieve

VIEWS, TILTS = (12, 18, 16, 14), np.radians([0.0, 15.0, 30.0, 45.0])
STEPS, COUNTS, PIXELS, VOXEL_M, DISTANCE_M = 12, 2000.0, 4, 40e-6, 1.0
UNIT_RAD2 = 1e-12  # of a scan from maps
METHODS_OF_MOMENTS = ("matching", "differential")
OPTIONS = {"differential": {"window": 2.0}}


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Chains of all methods, on the same frames."""
    size = size or (12 if quick else 32)
    views = [n // 3 for n in VIEWS] if quick else VIEWS
    geometry = tilt_series((size, size, size), views=views, tilts_rad=TILTS)
    lengths = {"voxel_size_m": VOXEL_M, "pixel_size_m": VOXEL_M / PIXELS, "distance_m": DISTANCE_M}
    specimen = phantom_specimen("helicoidal", geometry, **lengths)
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(2)
        start = time.perf_counter()
        options = {"voxel_size_m": VOXEL_M, "steps": STEPS, "counts": COUNTS, "progress": False}
        frames = simulate_frames(specimen, geometry, Path(folder) / "frames.h5", **options)
        yield Row("simulation", time.perf_counter() - start, "s", note=f"{frames.sample.nbytes / 1e6:.0f} MB of frames")
        for method in (name for name in METHODS_OF_MOMENTS if name in METHODS):
            yield from _chain(method, frames, specimen, size)


def _chain(method: str, frames: FrameFile, specimen: Specimen, size: int) -> Iterator[Row]:
    judged = {"matching": 1.0}.get(method)
    start = time.perf_counter()
    maps = maps_of(frames, method)
    between = time.perf_counter()
    scan = Scan.from_maps(maps, frames.geometry).binned(frames.pixels_per_voxel)
    volume = reconstruct(scan, progress=False)
    stop = time.perf_counter()
    truth = specimen.scattering((size, size, size)) * (VOXEL_M / UNIT_RAD2)
    merits = compare(volume, truth)
    note = f"retrieval {between - start:.0f} s, reconstruction {stop - between:.0f} s"
    yield Row(f"{method}: frames to volume", stop - start, "s", at_most=300.0 if judged else None, note=note)
    angles = np.degrees([merits.direction_error_median_rad, merits.direction_error_p90_rad])
    bar = 10.0 if judged else None
    yield Row(f"{method}: direction, median", angles[0], "°", at_most=bar, note=f"90th percentile {angles[1]:.1f}°")
    yield Row(f"{method}: correlation of the mean", merits.mean_correlation)
    yield Row(f"{method}: error of the coefficients up to ℓ = {volume.ell_max}", merits.nrmse_shared_orders)


def maps_of(frames: FrameFile, method: str) -> Maps:
    """Maps of all views."""
    lengths = {"pixel_size_m": frames.pixel_size_m, "distance_m": frames.distance_m}
    return retrieve(frames.sample, frames.reference, method, progress=False, **lengths, **OPTIONS.get(method, {}))
