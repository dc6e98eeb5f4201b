"""Entry points of retrieval, reconstruction, figures, neighbours and files, with right arguments."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import datasets, derived, phantoms, radiographs, visualization
from ddf_tomo.cli import main
from ddf_tomo.interop import astra, tomosipo
from ddf_tomo.priors import Differences
from ddf_tomo.retrieval import Maps, absorption, retrieve
from ddf_tomo.retrieval.rotation_axis import find_rotation_axis, mirror_correlation
from ddf_tomo.solvers import cgls
from tests.fuzz.files import damaged, example
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source, maps, maps_arguments

# -- retrieval --------------------------------------------------------------------------------------------------------


def frames(s: Source, *shape: int) -> np.ndarray:
    return s.generator().poisson(s.generator().uniform(200, 2000, shape))


@entry("retrieve", 0.6)
def _(s: Source) -> Made:
    reference = frames(s, 5, 16, 17).astype(s.one_of(np.float32, np.float64, np.uint16))
    sample = s.one_of(reference // 2 + 1, frames(s, 5, 16, 17), np.stack([reference, reference + 3]))
    return retrieve, {
        "sample": s.one_of(sample, s.as_good(sample.astype(float))),
        "reference": reference,
        "method": "differential",
        "window": 2.0,
        "smoothing": s.one_of(0.0, 0.5, 1.0),
        "background": s.chance(0.5),
        "weights": s.one_of(None, s.noise(16, 17, positive=True)),
        "pixel_size_m": s.one_of(None, 1e-5),
        "distance_m": s.one_of(None, 1.0),
        "progress": None,
    }


@entry("Maps")
def _(s: Source) -> Made:
    return Maps, maps_arguments(s, s.one_of((3, 4), (2, 3, 4)))


@entry("Maps, what they give")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        made = Maps(**given)
        return made.direction(), made.scattering(), made.refraction_angle(), repr(made)

    return call, maps_arguments(s, (3, 4))


@entry("Radiographs")
def _(s: Source) -> Made:
    return dt_radiographs, radiographs_arguments(s)


def dt_radiographs(**given: Any) -> Any:
    made = radiographs.Radiographs(**given)
    return repr(made), len(made), made


def radiographs_arguments(s: Source) -> dict[str, Any]:
    return {
        "frames": s.as_good(frames(s, 7, 3, 12).astype(float)),
        "flat": s.one_of(np.full((3, 12), 2100.0), np.full((2, 3, 12), 2100.0)),
        "dark": s.one_of(None, np.full((3, 12), 3.0)),
        "angles_rad": s.as_good(np.linspace(0, 3, 7)),
        "pixel_size_m": s.one_of(None, 1e-5),
        "provenance": {"file": "x"},
    }


@entry("absorption")
def _(s: Source) -> Made:
    made = radiographs.Radiographs(**radiographs_arguments(s))
    air = s.one_of("margins", None, np.ones((3, 12), bool), np.ones((7, 3, 12), bool))
    return absorption.absorption, {"radiographs": made, "air": air, "air_order": 1, "counts_per_photon": 1.0}


@entry("absorption of damaged frames")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return absorption.absorption(radiographs.Radiographs(**given))

    return call, radiographs_arguments(s)


@entry("absorption_scan", 0.5)
def _(s: Source) -> Made:
    made = radiographs.Radiographs(**radiographs_arguments(s))
    shape = s.one_of(None, (12, 12, 3))
    options = {"air": "margins", "air_order": 0, "counts_per_photon": 2.0}
    return absorption.absorption_scan, {
        "radiographs": made,
        "column": s.one_of(None, 5.0),
        "volume_shape": shape,
    } | options


@entry("axial_geometry")
def _(s: Source) -> Made:
    arguments = {"angles_rad": s.noise(3), "detector_shape": (4, 3), "column": 1.5, "volume_shape": None}
    return absorption.axial_geometry, arguments


@entry("find_rotation_axis, mirror_correlation")
def _(s: Source) -> Made:
    data, angles = s.noise(7, 12, *s.one_of((2,), (2, 1)), positive=True), s.as_good(np.linspace(0, 3, 7))
    return s.one_of(
        (find_rotation_axis, {"projections": data, "angles_rad": angles, "search": s.one_of(None, (2.0, 9.0))}),
        (mirror_correlation, {"projections": data, "angles_rad": angles, "column": 5.0}),
    )


# -- solvers, reconstruction, derived quantities ----------------------------------------------------------------------


@entry("cgls", 1.5)
def _(s: Source) -> Made:
    operator = dt.XRayTransform(s.geometry(), channels=1)
    return cgls, {
        "A": operator,
        "y": s.noise(*operator.range_shape),
        "weights": s.one_of(None, s.noise(*operator.range_shape, positive=True)),
        "tikhonov": s.one_of(0.0, 0.1),
        "penalty": s.one_of(None, Differences(operator.geometry.volume_shape)),
        "iterations": 3,
        "noise_level": s.one_of(None, 1.0),
        "tolerance": s.one_of(0.0, 1e-3),
        "x0": s.one_of(None, s.noise(*operator.domain_shape)),
        "callback": s.one_of(None, lambda *_: False),
        "progress": False,
    }


@entry("derive, angle_between")
def _(s: Source) -> Made:
    coefficients = s.noise(*s.sizes(3), 6)
    arguments = {"coefficients": coefficients, "of_harmonics": s.chance(0.5), "threshold": 0.1}
    two = {"first": s.noise(2, 3), "second": s.noise(2, 3)}
    return s.one_of((derived.derive, arguments), (derived.derive, arguments), (derived.angle_between, two))


@entry("phantoms")
def _(s: Source) -> Made:
    series = {"volume_shape": s.sizes(3), "detector_shape": None, "tilts_rad": s.noise(2), "views": [2, 3]}
    fibres = {"shape": s.sizes(3), "ell_max": s.one_of(0, 2, 4, 6), "pitch": 1.0, "isotropic": 0.2}
    return s.one_of(
        (phantoms.tilt_series, series),
        (phantoms.zonal, {"directions": s.noise(2, 3), "legendre": [1.0, 0.5]}),
        (phantoms.helicoidal_fibres, fibres),
    )


@entry("simulate")
def _(s: Source) -> Made:
    g = s.geometry(high=3)
    sample = s.one_of(
        lambda shape: phantoms.helicoidal_fibres(shape, 2),
        lambda shape: np.ones((*shape, 6)),
        lambda shape: np.ones(shape),
        lambda shape: np.full((*shape, 6), np.nan),
    )
    options = {"oversampling": s.one_of(1, 2), "noise": s.one_of(0.0, 0.1), "seed": 1}
    return phantoms.simulate, {"sample": sample, "geometry": g, "response": s.response(len(g))} | options


# -- figures ----------------------------------------------------------------------------------------------------------


@entry("colours")
def _(s: Source) -> Made:
    return s.one_of(
        (visualization.direction_colour, {"angle_rad": s.noise(3), "strength": s.noise(3)}),
        (visualization.axis_colour, {"directions": s.noise(2, 3), "strength": s.noise(2)}),
    )


def drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
    def call(**given: Any) -> int:
        return len(draw(**given).axes)

    return call


@entry("figures", 0.1)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    volumes = {"a": s.noise(*shape)}
    coloured = {"a": (s.noise(*shape, 3), s.noise(*shape))}
    path = s.one_of(None, None, None, folder() / "figure.png")
    return s.one_of(
        (drawn(visualization.show_slices), {"volumes": volumes, "path": path, "unit": "1/m"}),
        (drawn(visualization.show_directions), {"volumes": coloured, "path": path}),
        (drawn(visualization.show_maps), {"maps": maps(s, (2, 3, 4)), "path": path, "view": 1}),
    )


# -- neighbours -------------------------------------------------------------------------------------------------------


@entry("interop.astra")
def _(s: Source) -> Made:
    g = s.geometry()
    vectors = astra.to_vectors(g)
    shapes = {"volume_shape": g.volume_shape, "detector_shape": g.detector_shape}
    pair = {
        "projection_geometry": astra.to_projection_geometry(g),
        "volume_geometry": astra.to_volume_geometry(g),
    }
    return s.one_of(
        (astra.to_vectors, {"geometry": g}),
        (astra.from_vectors, {"vectors": s.one_of(vectors, vectors.tolist())} | shapes),
        (astra.to_projection_geometry, {"geometry": g}),
        (astra.to_volume_geometry, {"geometry": g}),
        (astra.geometry_from, pair),
        (astra.geometry_from, pair),
        (astra.to_sinogram, {"projections": s.noise(2, 3, 4)}),
        (astra.from_sinogram, {"sinogram": s.noise(2, 3, 4)}),
    )


@entry("interop.tomosipo")
def _(s: Source) -> Made:
    g = s.geometry()
    vectors = tomosipo.to_parallel_vec(g, build=False)
    return s.one_of(
        (lambda geometry: tomosipo.to_parallel_vec(geometry, build=False), {"geometry": g}),
        (tomosipo.from_parallel_vec, {"parallel_vec": vectors, "volume_shape": g.volume_shape}),
    )


@entry("interop.mumott", 0.5)
def _(s: Source) -> Made:
    from ddf_tomo.interop import mumott

    scan = s.scan(s.size(1, 3))
    theirs = mumott.to_geometry(scan.geometry, scan.response if isinstance(scan.response, dt.SaxsResponse) else None)
    shapes = {"volume_shape": scan.geometry.volume_shape, "detector_shape": scan.geometry.detector_shape}
    container = _container(s.one_of(0, 1))
    frame = {"p_0": (0.0, 1.0, 0.0), "j_0": None, "k_0": None}
    return s.one_of(
        (mumott.to_geometry, {"geometry": scan.geometry, "response": scan.response} | frame),
        (mumott.geometry_from, {"mumott_geometry": theirs} | shapes),
        (mumott.response_from, {"mumott_geometry": theirs}),
        (mumott.scan_from, {"data_container": container, "response": None, "voxel_size_m": 1e-5, "title": ""}),
        (mumott.to_data_container, {"scan": scan}),
    )


@lru_cache(2)
def _container(number: int) -> Any:
    from ddf_tomo.interop import mumott

    scan = Source(random.Random(number)).scan(2)
    return mumott.to_data_container(scan)


# -- files and the command line ---------------------------------------------------------------------------------------


@entry("Scan.read", 2)
def _(s: Source) -> Made:
    arguments = {"angles": s.one_of("auto", "radians", "degrees"), "nonfinite": s.one_of("raise", "mask")}
    return partial(dt.Scan.read, damaged(folder(), "scan", s)), arguments


@entry("Maps.load", raw=True)
def _(s: Source) -> Made:
    return partial(Maps.load, damaged(folder(), "maps", s)), {}


@entry("Reconstruction.load")
def _(s: Source) -> Made:
    return partial(dt.Reconstruction.load, damaged(folder(), "reconstruction", s)), {}


@entry("read_radiographs, ct_projections")
def _(s: Source) -> Made:
    path = damaged(folder(), s.one_of("exchange", "plain"), s)
    return partial(s.one_of(radiographs.read_radiographs, datasets.ct_projections), path), {}


@entry("four_rods, data_path")
def _(s: Source) -> Made:
    if s.chance(0.3):
        return datasets.data_path, {"name": "tooth.h5"}
    return partial(datasets.four_rods, damaged(folder(), "frames", s)), {}


@entry("paths")
def _(s: Source) -> Made:
    kind, read = s.one_of(
        ("scan", dt.Scan.read),
        ("maps", Maps.load),
        ("reconstruction", dt.Reconstruction.load),
        ("exchange", radiographs.read_radiographs),
        ("frames", datasets.four_rods),
    )
    path = example(folder(), kind)
    return read, {"path": s.one_of(path, str(path), str(path) + ".not", folder(), "\0", "", folder() / "x" / "y")}


@entry("save")
def _(s: Source) -> Made:
    scan, made, volume = (_things(name) for name in ("scan", "maps", "reconstruction"))
    save = s.one_of(scan.write, made.save, volume.save)
    return save, {
        "path": s.one_of(folder() / "saved.h5", str(folder() / "saved.h5"), folder(), folder() / "x" / "y", "")
    }


@lru_cache(3)
def _things(name: str) -> Any:
    path = example(folder(), name)
    return {"scan": dt.Scan.read, "maps": Maps.load, "reconstruction": dt.Reconstruction.load}[name](path)


@entry("ddf-tomo", 0.5)
def _(s: Source) -> Made:
    out = str(folder() / "out.h5")
    kind, file = s.one_of(("retrieve", "frames"), ("reconstruct", "scan"))
    path = str(damaged(folder(), file, s))
    options = {
        "retrieve": ["--window", s.one_of("2", "nan", "-1", "x"), "--smoothing", s.one_of("0.5", "1e300", "")],
        "reconstruct": ["--ell-max", s.one_of("2", "3", "auto", "x"), "--iterations", s.one_of("2", "0", "1e9")],
    }[kind]
    words = [kind, path, "-o", s.one_of(out, out, str(folder()), "/nowhere/x.h5"), *options[: s.one_of(0, 2, 4)]]
    if s.chance(0.3):
        words[s.rng.randrange(len(words))] = s.one_of("--json", "--nothing", "", "-o", "demo2", "\0")

    def call() -> int:
        try:
            main(words)
        except SystemExit as end:
            if end.code not in (0, 2):
                raise RuntimeError(f"exit code {end.code} of ddf-tomo {words}") from end
            return int(end.code or 0)
        raise RuntimeError("main came back")

    return call, {}
