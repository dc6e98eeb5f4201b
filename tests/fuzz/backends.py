"""Entry points of backends, of operators for tomosipo's programs, and of operators divided among processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

import ddf_tomo as dt
from ddf_tomo.interop.tomosipo import to_tomosipo_operator
from ddf_tomo.operators.backends.choice import choose_backend
from ddf_tomo.operators.distributed import over_views, own_share
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("choose_backend")
def _(s: Source) -> Made:
    options = {"device": s.one_of(None, "cpu", "cuda:0", "mps"), "channels": s.one_of(None, s.size())}
    return choose_backend, {"geometry": s.geometry(s.size(0, 4))} | options


@entry("to_tomosipo_operator")
def _(s: Source) -> Made:
    def call(A: Any) -> Any:
        made = to_tomosipo_operator(A)
        return made.domain_shape, made.range_shape, repr(made), repr(made.T)

    return call, {"A": dt.XRayTransform(s.geometry(s.size(0, 4)))}


@entry("to_tomosipo_operator(A)(x)", propagates=True)
def _(s: Source) -> Made:
    A = to_tomosipo_operator(dt.XRayTransform(s.geometry(s.size(0, 4))))
    operator = s.one_of(A, A.T)
    return operator, {"x": s.noise(*operator.domain_shape), "out": s.one_of(None, s.noise(*operator.range_shape))}


@contextmanager
def a_single_process() -> Iterator[None]:
    """For as long as a call takes: other tests want to find none."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@entry("over_views", propagates=True)
def _(s: Source) -> Made:
    geometry = s.geometry(s.size(0, 4))

    def call(A: Any, x: Any, views: Any, weights: Any, group: Any) -> Any:
        with a_single_process():
            divided = over_views(A, group)
            return divided(x), divided.views(views)(x), divided.normal(weights)(x)

    weights = s.one_of(None, abs(s.noise(len(geometry), *geometry.detector_shape, 2)))
    x = s.noise(*geometry.volume_shape, 2)
    return call, {"A": dt.XRayTransform(geometry, channels=2), "x": x, "views": [], "weights": weights, "group": None}


@entry("own_share")
def _(s: Source) -> Made:
    def call(count: Any, group: Any) -> Any:
        with a_single_process():
            return own_share(count, group)

    return call, {"count": s.size(0, 9), "group": None}
