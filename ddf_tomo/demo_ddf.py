"""A directional dark-field tensor scan from its raw images: simulated frames, maps of every view, a volume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo import Scan, reconstruct
from ddf_tomo._files import replaced_when_complete
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.acquisition.frames import simulate_frames
from ddf_tomo.acquisition.specimen import Specimen, phantom_specimen
from ddf_tomo.derived import derive
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.report import write_report
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.visualization import show_directions, show_glyphs, show_maps, show_slices

VOXELS = (24, 24, 24)
VIEWS, TILTS_RAD = (10, 14, 12, 12), np.radians([0.0, 15.0, 30.0, 45.0])
SIZES = {"voxel_size_m": 40e-6, "pixel_size_m": 10e-6, "distance_m": 1.0}
STEPS, COUNTS = 12, 2000.0
METHOD, WINDOW = "matching", 1.5  # pixels: well below a voxel of four
MICRORADIANS = 1e-12  # square ones in rad²: the unit of scans from maps
Figures = dict[str, Any]


def run(folder: str | os.PathLike[str] = "demo_output", say: Callable[[str], None] = print) -> Path:
    """Run all steps; write frames, maps, volume, figures and ``figures_of_merit_ddf.json`` to ``folder``.

    Parameters
    ----------
    folder
        Made if it is not there.
    say
        Takes the lines that tell what happens.

    Returns
    -------
    Path
        The folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    geometry = tilt_series(VOXELS, tilts_rad=TILTS_RAD, views=VIEWS)
    specimen = phantom_specimen("helicoidal", geometry, **SIZES)
    merits: dict[str, Figures] = {}
    steps: dict[str, Callable[[], Figures]] = {
        "a fibrous sample behind a mask: frames of all views": lambda: frames(specimen, geometry, target),
        "frames to maps of transmission, refraction and directional blur": lambda: maps_of_frames(target),
        "maps to a tensor volume": lambda: volume_of_maps(specimen, target),
    }
    for letter, (title, step) in zip("abc", steps.items(), strict=True):
        say(f"({letter}) {title}")
        start = time.perf_counter()
        merits[title] = step() | {"seconds": round(time.perf_counter() - start, 1)}
        for name, value in merits[title].items():
            say(f"    {name}: {value}")
    with replaced_when_complete(target / "figures_of_merit_ddf.json") as partial:
        partial.write_text(json.dumps(merits, indent=2))
    say(f"frames, maps, volume, figures and figures of merit are in {target.resolve()}")
    return target


def frames(specimen: Specimen, geometry: Any, folder: Path) -> Figures:
    """Step (a): photons behind the sample and a random mask, in every view and at every position of the mask."""
    options: dict[str, Any] = {"voxel_size_m": SIZES["voxel_size_m"], "distance_m": SIZES["distance_m"]}
    made = simulate_frames(
        specimen, geometry, folder / "ddf_frames.h5", steps=STEPS, counts=COUNTS, truth=True, progress=False, **options
    )
    truth = made.truth()
    return {
        "frames": " × ".join(map(str, made.sample.shape)),
        "strongest blur, square pixels": round(float(truth["covariance"].max()), 2),
        "largest displacement, pixels": round(float(np.linalg.norm(truth["displacement"], axis=-1).max()), 2),
        "lowest transmission": round(float(truth["transmission"].min()), 3),
    }


def maps_of_frames(folder: Path) -> Figures:
    """Step (b): what the frames of each view tell, and how far it is from what went into them."""
    made = FrameFile.load(folder / "ddf_frames.h5")
    lengths: dict[str, Any] = {"pixel_size_m": made.pixel_size_m, "distance_m": made.distance_m}
    maps = retrieve(made.sample, made.reference, METHOD, window=WINDOW, progress=False, **lengths)
    maps.save(folder / "ddf_maps.h5")
    show_maps(maps, folder / "ddf_maps.png", view=len(made.geometry) // 2)
    truth = made.truth()
    seen = np.asarray(maps.valid)
    return {
        "pixels that tell something, share": round(float(seen.mean()), 4),
        "blur, error (RMS), square pixels": round(_rms((maps.covariance - truth["covariance"])[seen]), 4),
        "displacement, error (RMS), pixels": round(_rms((maps.displacement - truth["displacement"])[seen]), 4),
    }


def volume_of_maps(specimen: Specimen, folder: Path) -> Figures:
    """Step (c): maps with their standard errors to a scan, pixels binned to voxels, to a volume of directions."""
    made, maps = FrameFile.load(folder / "ddf_frames.h5"), Maps.load(folder / "ddf_maps.h5")
    scan = Scan.from_maps(maps, made.geometry, title="simulated helicoidal fibres, from frames")
    scan = scan.binned(made.pixels_per_voxel)
    scan.write(folder / "ddf_scan.h5")
    volume = reconstruct(scan, progress=False)
    volume.save(folder / "ddf_volume.h5")
    truth = specimen.scattering(VOXELS) * (SIZES["voxel_size_m"] / MICRORADIANS)  # in the volume's unit
    show_slices({"truth": truth[..., 0], "found": volume.coefficients[..., 0]}, folder / "ddf_mean.png")
    show_directions({"truth": derive(truth), "found": volume}, folder / "ddf_directions.png")
    show_glyphs(volume, axis="y", path=folder / "ddf_glyphs.png")
    write_report(volume, folder / "ddf_report.html", scan=scan, truth=truth, title="A dark-field tensor scan")
    merits = compare(volume, truth)
    return {
        "ell_max": volume.ell_max,
        "direction error, degrees: median": round(math.degrees(merits.direction_error_median_rad), 2),
        "direction error, degrees: 90th percentile": round(math.degrees(merits.direction_error_p90_rad), 2),
        "correlation of the mean with the truth": round(merits.mean_correlation, 4),
    }


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
