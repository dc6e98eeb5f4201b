"""Misaligned views: offsets of 0.5 to 3 pixels in random directions, found by `align` and by MUMOTT's pipelines.

Helicoidal fibres, 64³ voxels, 100 views at four tilts, data from a twice finer grid with orders up to 4, white noise of
2 % of the largest signal. The same offsets in three kinds of data: second moments (directional dark field), SAXS in 8
segments, and absorption (the diode of the SAXS scan), which is what MUMOTT's alignments use. Errors are distances
between found and true offsets, less the translation of the volume that no data can tell. ``--size 32`` and ``--quick``
are smaller.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from harness import Row, quiet

from ddf_tomo import Geometry, IsotropicResponse, SaxsResponse, Scan, SecondMomentResponse
from ddf_tomo.alignment import align
from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series

TILTS_RAD = np.radians([0.0, 15.0, 30.0, 45.0])
NOISE = 0.02
LARGEST_ABSORPTION = 1.0
SEED = 0


def run(quick: bool = False, size: int | None = None, peers: bool = True) -> Iterator[Row]:
    """Errors and times of every contestant."""
    size = size or (24 if quick else 64)
    nominal = tilt_series((size,) * 3, views=[10 if quick else 25] * 4, tilts_rad=TILTS_RAD)
    truth = offsets(len(nominal))
    moved = replace(nominal, j_offset=truth[:, 0], k_offset=truth[:, 1])
    bar = {} if quick else {"at_most": 0.1}
    yield _row("misaligned: median error", np.zeros_like(truth), truth, nominal)

    moments = simulate(helicoidal_fibres, moved, SecondMomentResponse(), noise=NOISE, seed=SEED)
    saxs = saxs_with_diode(moved)
    for name, scan, options in (
        ("second moments", moments, {}),
        ("SAXS", saxs, {}),
        ("absorption", saxs, {"signal": "diode"}),
    ):
        start = time.perf_counter()
        found = align(replace(scan, geometry=nominal), progress=False, **options)
        seconds = time.perf_counter() - start
        stated = f"; stated {np.median(np.linalg.norm(found.offset_error, axis=1)):.3f}"
        yield _row(f"align, {name}: median error", found.offsets, truth, nominal, stated, **bar)
        yield Row(f"align, {name}: time", seconds, "s")
    if peers and importlib.util.find_spec("mumott"):
        yield from _mumott(replace(saxs, geometry=nominal), truth)


def offsets(views: int) -> np.ndarray:
    """True offsets, shape ``(views, 2)``: lengths evenly from 0.5 to 3 pixels, any direction."""
    generator = np.random.default_rng(SEED)
    length, direction = generator.uniform(0.5, 3, views), generator.uniform(0, 2 * np.pi, views)
    return length[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)


def saxs_with_diode(geometry: Geometry) -> Scan:
    """SAXS data and transmission of the same sample, both with noise."""
    scan = simulate(helicoidal_fibres, geometry, SaxsResponse(np.arange(8) * np.pi / 8), noise=NOISE, seed=SEED)
    absorption = simulate(helicoidal_fibres, geometry, IsotropicResponse(), noise=NOISE, seed=SEED + 1).data[..., 0]
    absorption *= LARGEST_ABSORPTION / np.quantile(absorption, 0.999)
    return replace(scan, diode=np.exp(-absorption))


def _mumott(scan: Scan, truth: np.ndarray) -> Iterator[Row]:
    from mumott.pipelines import optical_flow_alignment as flow
    from mumott.pipelines.phase_matching_alignment import run_phase_matching_alignment

    from ddf_tomo.interop.mumott import to_data_container

    def phase_matching(container: Any, upsampling: int = 1) -> Any:
        run_phase_matching_alignment(container, use_absorbances=True, upsampling=upsampling, maxiter=20)
        return container.geometry.j_offsets_as_array, container.geometry.k_offsets_as_array

    def then_finer(container: Any) -> Any:
        """Whole pixels first: with upsampling, a step is cut at a quarter of a pixel."""
        phase_matching(container)
        return phase_matching(container, 20)

    def optical_flow(container: Any) -> Any:
        # The axis is the detector's k, which a cube does not tell; the shifts themselves are offsets along j and k.
        shifts, _, _ = flow.run_optical_flow_alignment(container, stop_max_iteration=20, main_rot_axis=1)
        return shifts.T

    contestants = {
        "phase matching, whole pixels": phase_matching,
        "phase matching, whole pixels, then twentieths": then_finer,
        "optical flow": optical_flow,
    }
    for name, contestant in contestants.items():
        start = time.perf_counter()
        with quiet():
            found = np.stack(contestant(to_data_container(scan)), axis=1)
        seconds = time.perf_counter() - start
        yield _row(f"MUMOTT, {name}, absorption: median error", found, truth, scan.geometry)
        yield Row(f"MUMOTT, {name}, absorption: time", seconds, "s")


def _row(what: str, found: np.ndarray, truth: np.ndarray, geometry: Geometry, more: str = "", **bar: float) -> Row:
    """Median distance from the truth, and the tail in the note."""
    apart = Freedom(geometry).without_gauge(torch.from_numpy(found - truth)).numpy()
    distances = np.linalg.norm(apart, axis=1)
    note = f"90 %: {np.quantile(distances, 0.9):.3f}, largest {distances.max():.3f}{more}"
    return Row(what, float(np.median(distances)), "pixel", note=note, **bar)
