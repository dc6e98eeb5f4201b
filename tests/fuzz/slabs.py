"""What is computed slab by slab."""

from __future__ import annotations

from typing import Any

from ddf_tomo.operators import SlabwiseXRayTransform
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("SlabwiseXRayTransform", 2)
def _(s: Source) -> Made:
    def call(views: Any, **given: Any) -> Any:
        operator = SlabwiseXRayTransform(**given)
        return operator, repr(operator), operator.T.shape, operator.views(views)

    options = {
        "backend": s.one_of("auto", "numba"),
        "device": "cpu",
        "chunk_bytes": s.one_of(1, 1000),
        "channels": None,
    }
    return call, {"geometry": s.geometry(), "views": [0], "channels": None} | options


@entry("SlabwiseXRayTransform(x)", 2, propagates=True)
def _(s: Source) -> Made:
    operator = SlabwiseXRayTransform(s.geometry(s.size(0, 4)), device="cpu", chunk_bytes=s.one_of(1, 1000))
    operator = s.one_of(operator, operator.T)
    return operator, {"x": s.noise(*(n or s.size(0, 2) for n in operator.domain_shape))}
