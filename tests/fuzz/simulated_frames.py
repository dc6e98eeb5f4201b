"""Entry points of simulated frames, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddf_tomo.acquisition import Detector
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.acquisition.frames import simulate_frames, view_maps
from ddf_tomo.acquisition.specimen import Specimen, phantom_specimen
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.geometry import Geometry
from tests.fuzz.files import MAKERS, damaged
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


def geometry(s: Source) -> Geometry:
    return Geometry.from_angles(np.linspace(0, 2, s.size(1, 2)), 0.2, (4, 4, 4), (4, 4))


def specimen(s: Source) -> Specimen:
    def flat(value: float, *axes: int) -> Any:
        return lambda shape: np.full((*shape, *axes), value)

    return Specimen(flat(1e-9, 1), s.one_of(None, flat(1e-8)), s.one_of(None, flat(100.0)))


@entry("simulate_frames", 0.5)
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        made = simulate_frames(path=folder() / "simulated.h5", **given)
        return made.sample[:], made.reference, repr(made)

    return call, {
        "specimen": specimen(s),
        "geometry": geometry(s),
        "voxel_size_m": 4e-5,
        "pixels_per_voxel": 4,
        "distance_m": s.one_of(1.0, [0.5, 1.0]),
        "steps": 3,
        "mask": s.one_of(None, 1 + 0.5 * s.noise(3, 16, 16, positive=True)),
        "counts": 1000.0,
        "kernel": s.one_of("gaussian", "exponential"),
        "detector": s.one_of(None, Detector(gain=2.0)),
        "truth": s.chance(0.3),
        "seed": 3,
        "progress": None,
    }


@entry("view_maps")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return list(view_maps(**given))

    views = s.one_of(None, [0])
    return call, {"specimen": specimen(s), "geometry": geometry(s), "voxel_size_m": 1e-5, "views": views}


@entry("phantom_specimen")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return phantom_specimen(**given).values((4, 4, 4))

    arguments = {"voxel_size_m": 4e-5, "pixel_size_m": 1e-5, "distance_m": 1.0}
    strengths = {"blur": 1.0, "shift": s.one_of(0.0, 0.5), "transmission": s.one_of(0.8, 1.0)}
    return call, {"phantom": "helicoidal", "geometry": geometry(s)} | arguments | strengths


@entry("speckle")
def _(s: Source) -> Made:
    return speckle, {"steps": 2, "shape": (12, 16), "grain": 1.3, "visibility": 0.3, "seed": 1}


def whole_file(path: Any) -> None:
    """A file of simulated frames."""
    shape = Geometry.from_angles([0.0, 1.0], 0.2, (4, 4, 4), (4, 4))
    kept = {"voxel_size_m": 4e-5, "steps": 2, "truth": True}
    simulate_frames(Specimen(lambda grid: np.full((*grid, 1), 1e-9)), shape, path, **kept)


MAKERS.setdefault("frames_of_a_scan", whole_file)


@entry("FrameFile.load of damaged files", 0.5, raw=True)
def _(s: Source) -> Made:
    path = damaged(folder(), "frames_of_a_scan", s)

    def call() -> Any:
        made = FrameFile.load(path)
        return made.sample[:], made.reference, made.truth(), repr(made)

    return call, {}
