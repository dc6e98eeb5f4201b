"""The main job, start to finish: measured images to dark-field maps, measured views to a volume, a scan to tensors."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo import Reconstruction, Scan, SecondMomentResponse, datasets, reconstruct
from ddf_tomo._checks import neighbour
from ddf_tomo._files import replaced_when_complete
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import Truth, helicoidal_fibres, simulate, tilt_series
from ddf_tomo.report import write_report
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.visualization import show_directions, show_glyphs, show_maps, show_slices

VOXELS = (32, 32, 32)
STRONG_ROD = np.s_[:, 1640:2080]  # pixels well within the strongly scattering one of the four rods
MUMOTT_SMOOTHNESS = 300.0  # weight of MUMOTT's Laplacian: the best of 30, 300 and 3000 on this scan
Figures = dict[str, Any]


def run(folder: str | os.PathLike[str] = "demo_output", say: Callable[[str], None] = print) -> Path:
    """Run all steps; write figures, volumes and ``figures_of_merit.json`` to ``folder`` and say where, last.

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
    merits: dict[str, Figures] = {}
    steps: dict[str, Callable[[], Figures]] = {
        "measured speckle images to directional dark-field maps": lambda: dark_field_maps(target),
        "measured CT views to a volume": lambda: absorption_volume(target),
        "simulated dark-field scan of fibres to a tensor volume": lambda: tensor_volume(target),
        "the same scan through a MUMOTT file and MUMOTT's own optimisation": lambda: inside_mumott(target),
    }
    for letter, (title, step) in zip("abcd", steps.items(), strict=True):
        say(f"({letter}) {title}")
        start = time.perf_counter()
        merits[title] = step() | {"seconds": round(time.perf_counter() - start, 1)}
        for name, value in merits[title].items():
            say(f"    {name}: {value}")
    with replaced_when_complete(target / "figures_of_merit.json") as partial:
        partial.write_text(json.dumps(merits, indent=2))
    say(f"figures, volumes and figures of merit are in {target.resolve()}")
    return target


def dark_field_maps(folder: Path) -> Figures:
    """Step (a): transmission, displacement and blur of four rods behind sandpaper."""
    rods = datasets.four_rods()
    maps = retrieve(rods.sample, rods.reference, pixel_size_m=rods.pixel_size_m, distance_m=rods.distance_m)
    maps.save(folder / "four_rods_maps.h5")
    show_maps(maps, folder / "four_rods_maps.png")
    direction = maps.direction()
    angle, anisotropy = (np.asarray(part)[STRONG_ROD] for part in (direction.angle_rad, direction.anisotropy))
    fibre = np.degrees(_mean_axis(angle, anisotropy)) + 90
    tilt = (fibre + 90) % 180 - 90
    return {
        "fibrous rod: fibres stand at, degrees from the vertical": round(float(tilt), 1),
        "fibrous rod: median anisotropy of the blur": round(float(np.median(anisotropy)), 2),
        "smooth rod: mean blur, square pixels": round(float(maps.covariance[:, 600:1000].mean()), 4),
    }


def absorption_volume(folder: Path) -> Figures:
    """Step (b): the attenuation of a measured sample, as the scalar case of the tensor reconstruction."""
    from ddf_tomo.retrieval.absorption import absorption_scan

    scan = absorption_scan(datasets.ct_projections())
    volume = reconstruct(scan, prior="smoothness", iterations=15)  # of the default total variation it takes minutes
    volume.save(folder / "ct_volume.h5")
    density = volume.coefficients[..., 0]
    show_slices({"attenuation": density}, folder / "ct_volume.png", quantity="attenuation")
    bright = density > 0.5 * np.percentile(density, 99.9)
    return {
        "axis, columns off the detector's centre": round(float(scan.geometry.j_offset.mean()), 2),
        "residual, share of the data": round(volume.settings["residual_share"], 3),
        "bright voxels, share of the volume": round(float(bright.mean()), 4),
    }


def tensor_volume(folder: Path) -> Figures:
    """Step (c): maps of all views of a fibrous sample, with the noise of the measured ones, to a tensor volume."""
    measured = Maps.load(folder / "four_rods_maps.h5")
    strongest = float(np.percentile(measured.covariance[STRONG_ROD], 99))
    noise = float(np.median(measured.covariance_error[STRONG_ROD]))
    scan = Scan.from_maps(simulated_maps(strongest, noise), tilt_series(VOXELS), title="simulated helicoidal fibres")
    scan.write(folder / "fibres_scan.h5")
    volume = reconstruct(scan)
    volume.save(folder / "fibres_volume.h5")
    volume.save(folder / "fibres_volume.vti")  # for ParaView
    truth = helicoidal_fibres(VOXELS)
    show_directions({"truth": truth.derived(), "reconstruction": volume}, folder / "fibres_directions.png")
    show_glyphs(volume, axis="y", path=folder / "fibres_glyphs.png")
    write_report(volume, folder / "fibres_report.html", scan=scan, title="Simulated helicoidal fibres")
    return {
        "noise of the maps, share of the strongest signal": round(noise / strongest, 4),
        **_merits(volume, truth),
    }


def simulated_maps(strongest: float, noise: float, seed: int = 0) -> Maps:
    """What a retrieval would give in every view of the helicoidal phantom: largest entry and noise of C in pixels²."""
    exact = simulate(helicoidal_fibres, tilt_series(VOXELS), SecondMomentResponse())
    covariance = exact.data * (strongest / exact.data.max())
    generator = np.random.default_rng(seed)
    covariance = covariance + noise * generator.standard_normal(covariance.shape, dtype=np.float32)
    ones = np.ones(covariance.shape[:-1], np.float32)
    zero, pair = 0 * ones, np.zeros((*ones.shape, 2), np.float32)
    errors = np.full_like(covariance, noise)
    return Maps(ones, pair, covariance, zero, ones, pair + 1, errors, ones, zero, ones > 0, 6.5e-6, 0.7)


def inside_mumott(folder: Path) -> Figures:
    """Step (d): MUMOTT reads the scan of step (c) and reconstructs it with ``run_sigtt`` and our projector."""
    try:
        neighbour("mumott")
    except ImportError as error:
        return {"left out": str(error)}
    from mumott.data_handling import DataContainer
    from mumott.pipelines.reconstruction import run_sigtt

    from ddf_tomo.interop.mumott import Projector, ResponseBasisSet

    container = DataContainer(str(folder / "fibres_scan.h5"))
    basis = {"response": SecondMomentResponse(), "geometry": container.geometry, "ell_max": 2}
    output = run_sigtt(
        container,
        Projector=Projector,
        BasisSet=ResponseBasisSet,
        basis_set_kwargs=basis,
        maxiter=30,
        ftol=1e-5,
        regularization_weight=MUMOTT_SMOOTHNESS,
    )
    coefficients = np.asarray(output["result"]["x"])
    ours = Reconstruction.load(folder / "fibres_volume.h5")
    volume = Reconstruction(coefficients, 2, ours.geometry, ours.response)
    show_directions(
        {"run_sigtt with our projector": volume, "reconstruct": ours}, folder / "fibres_directions_mumott.png"
    )
    return _merits(volume, helicoidal_fibres(VOXELS))


def _merits(volume: Reconstruction, truth: Truth) -> Figures:
    merits = compare(volume, truth)
    return {
        "ell_max": volume.ell_max,
        "direction error, degrees: median": round(math.degrees(merits.direction_error_median_rad), 2),
        "direction error, degrees: 90th percentile": round(math.degrees(merits.direction_error_p90_rad), 2),
        "correlation of the mean with the truth": round(merits.mean_correlation, 4),
    }


def _mean_axis(angle_rad: NDArray[Any], weight: NDArray[Any]) -> float:
    """Weighted mean of axes: angles that differ by π are the same."""
    return float(np.angle((weight * np.exp(2j * angle_rad)).sum()) / 2)
