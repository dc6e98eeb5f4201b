"""Refraction of a volume, with right arguments."""

from __future__ import annotations

from ddf_tomo.operators.refraction import RefractionTransform
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("RefractionTransform")
def _(s: Source) -> Made:
    geometry = s.geometry(s.size(1, 4))
    return RefractionTransform(geometry), {"x": s.noise(*geometry.volume_shape, 1)}
