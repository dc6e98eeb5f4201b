"""Entry points of alignment and calibration, with right arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo.alignment import absorption_of, align, calibrate_blur, find_centre, register
from ddf_tomo.operators.geometry_gradient import AdjustableXRayTransform, corrected
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source, maps


def corrections(s: Source, views: int) -> Any:
    return s.as_good(0.1 * s.generator().standard_normal((views, 5)))


@entry("corrected")
def _(s: Source) -> Made:
    geometry = s.geometry()
    return corrected, {"geometry": geometry, "corrections": corrections(s, len(geometry))}


@entry("AdjustableXRayTransform", propagates=True)
def _(s: Source) -> Made:
    geometry = s.geometry()
    response = s.one_of(None, s.response(len(geometry)))

    def call(geometry: Any, response: Any, ell_max: Any, x: Any, corrections: Any, rotations: Any) -> Any:
        B = AdjustableXRayTransform(geometry, response, ell_max)
        return B(x, corrections).detach(), B.derivatives(x, corrections, rotations=rotations)

    arguments = {"geometry": geometry, "response": response, "ell_max": 2}
    x = s.noise(*geometry.volume_shape, 2 if response is None else 6)
    return call, arguments | {"x": x, "corrections": corrections(s, len(geometry)), "rotations": s.chance(0.5)}


@entry("register")
def _(s: Source) -> Made:
    shape = (*s.sizes(3), 2)
    weights = s.one_of(None, s.noise(*shape, positive=True))
    return register, {"data": s.noise(*shape), "model": s.noise(*shape), "weights": weights, "largest": 2.0}


def small_scan(s: Source) -> dt.Scan:
    return s.scan(s.one_of(2, 7), low=2, high=5)


@entry("align", 0.4)
def _(s: Source) -> Made:
    drift = s.one_of(None, None, 0, 1)
    return align, {
        "scan": small_scan(s),
        "signal": s.one_of("data", "data", "diode"),
        "ell_max": s.one_of(None, 0, 2),
        "rotations": s.chance(0.3),
        "drift": drift,
        "search": s.one_of(None, 0.0),
        "levels": s.one_of(None, 1, 2),
        "iterations": 1,
        "smoothness": 1e-3,
        "tolerance": 0.01,
        "callback": s.one_of(None, lambda *_: True),
        "progress": False,
    }


@entry("align, and what it gives", 0.2)
def _(s: Source) -> Made:
    scan = small_scan(s)

    def call(other: Any) -> Any:
        found = align(scan, levels=1, iterations=1, search=0, progress=False)
        return repr(found), found.summary(), found.apply(other)

    return call, {"other": scan}


@entry("find_centre", 0.2)
def _(s: Source) -> Made:
    options = {"levels": 1, "iterations": 1, "smoothness": 1e-3, "progress": False}
    return find_centre, {"scan": small_scan(s), "signal": "data"} | options


@entry("absorption_of")
def _(s: Source) -> Made:
    scan = small_scan(s)
    return absorption_of, {"scan": replace(scan, diode=s.noise(*scan.data.shape[:3], positive=True))}


@entry("calibrate_blur")
def _(s: Source) -> Made:
    shape = s.one_of((6, 16), (3, 6, 16))
    measured = maps(s, shape)

    def call(transmission: Any, other: Any, quantity: Any, **given: Any) -> Any:
        found = calibrate_blur(**given)
        return found.summary(), found.at_centre(quantity), found.apply(other, transmission=transmission)

    air = s.one_of("margins", np.ones((6, 16), bool), np.ones(shape, bool))
    arguments = {"maps": measured, "air": air, "order": s.one_of(0, 1), "drift": s.one_of(None, 0)}
    return call, arguments | {"other": measured, "transmission": s.chance(0.5), "quantity": "covariance"}
