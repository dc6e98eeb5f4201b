"""Entry points of files with frames, manifests, maps of scans and phase, with right arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ddf_tomo as dt
from ddf_tomo._manifest_text import toml
from ddf_tomo.manifest import Manifest
from ddf_tomo.map_series import MapSeries
from ddf_tomo.readers import find_layout, open_frames
from ddf_tomo.retrieval import attenuation, integrate_gradient, phase, projected_decrement
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source, maps

SHAPE = (3, 12, 13)
GEOMETRY = dt.Geometry.from_angles([0.0, 0.5, 1.0], 0.0, (5, 5, 5), SHAPE[1:])


def frame_file(s: Source, kind: str) -> Path:
    """A file of frames: whole, cut, or with something else in it."""
    path = folder() / f"frames_{kind}"
    frames = s.generator().integers(0, 60000, (6, 8, 9)).astype(np.uint16)
    if kind.endswith(".npy"):
        np.save(path, frames)
    else:
        with h5py.File(path, "w") as file:
            place = file.create_group("entry/instrument/detector")
            odd = s.one_of(frames.astype(complex), frames[0], frames[:0])
            place["data"] = odd if s.chance(0.3) else frames
            keys = s.one_of([0, 1], np.full(6, np.nan), "text")
            place["image_key"] = keys if s.chance(0.3) else [1, 0, 0, 0, 0, 2]
            angles = s.one_of([np.nan], [1, 2, 3])
            file["entry/sample/rotation_angle"] = angles if s.chance(0.3) else np.arange(6.0)
            if s.chance(0.5):
                file["entry/sample/rotation_angle"].attrs["units"] = s.one_of("deg", "rad", "m", b"\xff")
            if s.chance(0.3):
                file["entry/link"] = h5py.ExternalLink("nowhere.h5", "/x")
    if s.chance(0.2):
        whole = path.read_bytes()
        path.write_bytes(whole[: s.rng.randrange(len(whole))])
    return path


@entry("open_frames", 0.7, raw=True)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        stack = open_frames(**given)
        return stack.axes, np.asarray(stack.frames)

    kind = s.one_of("nx.h5", "a.npy")
    dataset = s.one_of(None, "/entry", "/entry/instrument/detector/data") if kind == "nx.h5" else None
    return call, {"path": frame_file(s, kind), "dataset": dataset, "kind": s.one_of("sample", "reference", "dark")}


@entry("find_layout", 0.5, raw=True)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        found = find_layout(**given)
        return found.has, found.of_kind("sample")

    return call, {"path": frame_file(s, "nx.h5"), "dataset": s.one_of(None, "/entry")}


def scan_files() -> dict[str, Any]:
    """Frames of three views, made once, and a manifest of them."""
    place = folder() / "scan"
    if not place.exists():
        place.mkdir()
        generator = np.random.default_rng(0)
        np.save(place / "s.npy", generator.integers(500, 1500, (3, 4, 8, 9)))
        np.save(place / "r.npy", generator.integers(500, 1500, (4, 8, 9)))
        np.save(place / "d.npy", np.ones((8, 9)))
    return {
        "sample": "s.npy",
        "reference": "r.npy",
        "dark": "d.npy",
        "steps": 4,
        "pixel_size_m": 1e-5,
        "distances_m": 0.5,
        "angles_deg": [0.0, 60.0, 120.0],
        "folder": place,
    }


@entry("Manifest", 1.0, raw=True)  # saturated pixels read infinity
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        made = Manifest(**given)
        return made, made.angles(), np.asarray(made.frames().sample)

    extra = {
        "rows": "up",
        "columns": "left",
        "order": ["view", "step"],
        "views": 3,
        "centre": 3.5,
        "saturation": 60000,
        "tilts_rad": 0.1,
        "axis": "up",
        "volume_shape": [4, 4, 4],
        "flat": "d.npy",
        "counts_per_photon": 2.0,
    }
    chosen = {name: value for name, value in extra.items() if s.chance(0.2)}
    if "flat" in chosen:
        chosen["dark"] = None
    if "columns" not in chosen:
        chosen.pop("rows", None)
    return call, scan_files() | chosen


@entry("Manifest.read", 1.0, raw=True)
def _(s: Source) -> Made:
    """Keys and values that are changed, in a file that is TOML or is not."""
    files = scan_files()
    tables: dict[str, Any] = {
        "scan": {"steps": 4, "pixel_size_m": 1e-5, "distances_m": [0.5]},
        "files": {"sample": "s.npy", "reference": "r.npy"},
        "rotation": {"angles_deg": {"first": 0, "last": 120, "count": 3}},
    }
    values = ["", "{view}", "{", "x.h5:/{step:}", "nothing_*.npy", 0, -1, 1e300, [], [1, "a"], {}, True, [[1]], "s.npy"]
    for _ in range(s.one_of(0, 1, 1, 2)):
        table = s.one_of(*tables)
        key = s.one_of(*tables[table], "centre", "rows", "axis", "order", "tilts_deg", "view", "nonsense")
        tables[table][key] = s.one_of(*values)
    text = toml(tables)
    if s.chance(0.2):
        text = text[: s.rng.randrange(len(text))]
    path = files["folder"] / "scan.toml"
    path.write_text(text)

    def call(path: Any) -> Any:
        return np.asarray(Manifest.read(path).frames().sample)

    return call, {"path": path}


@entry("MapSeries", 0.7)
def _(s: Source) -> Made:
    def call(quantity: Any, **given: Any) -> Any:
        made = MapSeries(**given)
        return made, made.scan(quantity).data

    return call, {
        "maps": maps(s, SHAPE),
        "geometry": GEOMETRY,
        "distances_m": s.one_of((), (0.5,), (0.5, 1.0)),
        "energy_kev": s.one_of(None, 20.0),
        "title": "x",
        "provenance": {"a": 1},
        "quantity": s.one_of("scattering", "rank-two", "attenuation", "phase"),
    }


@entry("MapSeries.load", 0.5, raw=True)
def _(s: Source) -> Made:
    path = folder() / "series.h5"
    MapSeries(maps(s, SHAPE), GEOMETRY, (0.5,), 20.0).save(path)
    if s.chance(0.6):
        with h5py.File(path, "r+") as file:
            name = s.one_of("series", "geometry/p", "geometry/volume_shape", "transmission", "valid")
            del file[name]
            if s.chance(0.8):
                file[name] = s.one_of(np.bytes_("{}"), np.bytes_(json.dumps([1])), np.full(3, np.nan), "x", 3)
    return MapSeries.load, {"path": path}


@entry("Scan.from_maps, each quantity", 0.7)
def _(s: Source) -> Made:
    return dt.Scan.from_maps, {
        "maps": maps(s, SHAPE),
        "geometry": GEOMETRY,
        "quantity": s.one_of("scattering", "rank-two", "attenuation", "phase"),
        "weighted": s.chance(0.7),
        "exponent": s.one_of(None, 1.0),
        "propagation": s.chance(0.5),
        "air": s.one_of("columns", "rows", None, np.ones(SHAPE[1:], bool)),
    }


@entry("attenuation and phase", 0.7)
def _(s: Source) -> Made:
    def call(maps: Any, propagation: Any, wavelength_m: Any, **options: Any) -> Any:
        values, _ = attenuation(maps, propagation=propagation)
        return values, projected_decrement(maps, **options), phase(maps, wavelength_m, **options)

    return call, {
        "maps": maps(s, SHAPE[1:]),
        "propagation": s.chance(0.5),
        "wavelength_m": 5e-11,
        "air": s.one_of("columns", "rows", None),
        "air_order": s.one_of(0, 1, 2),
        "weighted": s.chance(0.7),
    }


@entry("integrate_gradient", 0.7)
def _(s: Source) -> Made:
    return integrate_gradient, {
        "gradient": s.as_good(s.generator().normal(size=s.one_of((8, 9, 2), (2, 5, 6, 2), (1, 4, 2)))),
        "weights": None,
    }


@entry("integrate_gradient, weighted", 0.5)
def _(s: Source) -> Made:
    weights = s.generator().uniform(0, 1, s.one_of((8, 9), (8, 9, 2)))
    return integrate_gradient, {"gradient": s.as_good(s.generator().normal(size=(8, 9, 2))), "weights": weights}
