"""Entry points of derived quantities and saved files, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import derived, export
from tests.fuzz.files import damaged
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source

SUFFIXES = ("h5", "nxs", "vti", "xdmf")


def coefficients(s: Source) -> Any:
    return s.noise(*s.sizes(3), s.one_of(1, 6, 15))


@entry("derive, what it gives")
def _(s: Source) -> Made:
    def call(strength: Any, **given: Any) -> Any:
        made = derived.derive(**given)
        return made, made.units, made.colour(strength), export.display_arrays(made)

    given = coefficients(s)
    options = {"threshold": s.one_of(0.0, 0.1), "unit": "rad^2", "of_harmonics": True}
    return call, {"coefficients": given, "strength": s.one_of(None, s.noise(*given.shape[:3]))} | options


@entry("Reconstruction.save", 0.6)
def _(s: Source) -> Made:
    shape, ell_max = s.sizes(3), s.one_of(0, 2, 4)
    count = (ell_max + 1) * (ell_max + 2) // 2
    geometry = s.geometry()
    geometry = dt.Geometry(geometry.p, geometry.j, geometry.k, 0.0, 0.0, shape, geometry.detector_shape)
    response = s.one_of(dt.SaxsResponse([0.0, 0.8]), dt.RankTwoResponse() if ell_max == 2 else dt.IsotropicResponse())
    name = s.one_of(*(f"volume.{suffix}" for suffix in SUFFIXES))

    def call(path: Any, format: Any, shown: Any, **given: Any) -> Any:
        made = dt.Reconstruction(geometry=geometry, response=response, ell_max=ell_max, **given)
        made.save(path, format, coefficients=shown)
        return made.derived(), made.summary()

    return call, {
        "path": s.one_of(folder() / name, str(folder() / name)),
        "format": s.one_of(None, None, "mumott"),
        "shown": s.chance(0.5),
        "coefficients": s.noise(*shape, count),
        "residuals": (2.0, 1.0),
        "voxel_size_m": s.one_of(None, 1e-5),
        "settings": {"method": "cg"},
        "provenance": {"title": "x"},
    }


@entry("write_vti, write_xdmf")
def _(s: Source) -> Made:
    shape = s.sizes(3)
    values = s.one_of(
        s.noise(*shape), s.noise(*shape, 2), s.noise(*shape, 3, 3), np.ones(shape, bool), np.ones(shape, np.uint8)
    )
    arrays = {"a": values, "b c": s.noise(*shape)}
    write, suffix = s.one_of((export.write_vti, "vti"), (export.write_xdmf, "xdmf"))
    return write, {"path": folder() / f"arrays.{suffix}", "arrays": arrays, "spacing": s.one_of(1.0, 1e-5)}


@entry("write_mumott_result", 0.6)
def _(s: Source) -> Made:
    given = {"coefficients": coefficients(s), "iterations": s.one_of(None, 3), "notes": s.one_of(None, {"a": [1, "b"]})}
    return export.write_mumott_result, {"path": folder() / "mumott.h5"} | given


@entry("formats")
def _(s: Source) -> Made:
    return s.one_of(
        (export.format_of, {"path": f"a.{s.one_of(*SUFFIXES)}", "format": s.one_of(None, "vti")}),
        (export.single, {"array": s.noise(2, 3)}),
        (export.is_our_xdmf, {"path": s.one_of(folder() / "arrays.xdmf", "nowhere.xdmf")}),
    )


@entry("Reconstruction.load beside an xdmf", 0.3, raw=True)
def _(s: Source) -> Made:
    path = damaged(folder(), "reconstruction", s)
    return dt.Reconstruction.load, {"path": path.with_suffix(s.one_of(".xdmf", path.suffix))}
