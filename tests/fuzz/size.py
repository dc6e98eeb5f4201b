"""Entry points about size and speed: data on the disk, predicted memory, predicted time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import speed
from ddf_tomo._plan import METHODS
from ddf_tomo._streamed import Streamed
from ddf_tomo.memory import Size, predicted_memory
from ddf_tomo.solvers.streaming import StreamedMisfit
from tests.fuzz.files import damaged
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


def sizes(s: Source) -> dict[str, Any]:
    return {
        "volume_shape": s.sizes(3),
        "data_shape": (s.size(1, 20), *s.sizes(2), 3),
        "coefficients": s.one_of(1, 6, 15),
        "weighted": s.chance(0.5),
        "streams": s.chance(0.5),
        "itemsize": s.one_of(4, 8),
    }


@entry("Size")
def _(s: Source) -> Made:
    return Size, sizes(s)


@entry("predicted_memory")
def _(s: Source) -> Made:
    scan = s.one_of(Size(**sizes(s)), s.scan(2))
    wishes = {"prior": s.one_of("auto", None), "weight": s.one_of("auto", 0.1), "positive": s.chance(0.3)}
    return predicted_memory, {"scan": scan, "method": s.one_of(*METHODS), "ell_max": s.one_of(0, 2, 4)} | wishes


@entry("speed", 0.05)
def _(s: Source) -> Made:
    wishes = {"method": "cg", "prior": s.one_of("auto", None, "smoothness"), "weight": "auto", "iterations": None}
    size = Size((4, 4, 4), (s.size(1, 20), 4, 4, 3), 6)
    return s.one_of(
        (speed.predict, {"size": size} | wishes),
        (partial(speed.measure, 1e-3), {"edge": 4, "device": "cpu"}),
    )


@entry("Scan.read, on the disk", 0.7)
def _(s: Source) -> Made:
    path = damaged(folder(), "scan", s)

    def call(**given: Any) -> Any:
        scan = dt.Scan.read(path, **given)
        return np.asarray(scan[:1].data), scan.summary(), repr(scan)

    return call, {"in_memory": s.one_of(False, None, True), "nonfinite": s.one_of("raise", "mask")}


@entry("StreamedMisfit")
def _(s: Source) -> Made:
    geometry = s.geometry()
    A = dt.TensorXRayTransform(geometry, s.response(len(geometry)), 2)
    whole = np.asarray(s.noise(*A.range_shape))
    y = Streamed(whole.shape, whole.dtype, lambda views: whole[views])
    weights = s.one_of(None, 2.0, s.noise(*A.range_shape, positive=True))

    def call(x: Any, **given: Any) -> Any:
        misfit = StreamedMisfit(**given)
        return misfit.value(misfit.start(x)), misfit.begin(x)

    return call, {"A": A, "y": y, "weights": weights, "x": s.noise(*A.domain_shape)}
