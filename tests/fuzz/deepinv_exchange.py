"""Entry points of the exchange with deepinv, with right arguments."""

from __future__ import annotations

from typing import Any

import torch

import ddf_tomo as dt
from ddf_tomo.interop import deepinv
from ddf_tomo.priors import TotalVariation
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source
from tests.torchvision_operators import declare

declare()


def operator(s: Source) -> Any:
    return dt.TensorXRayTransform(s.geometry(2), dt.SecondMomentResponse(), 2)


@entry("interop.deepinv.physics", 0.5, propagates=True)
def _(s: Source) -> Made:
    A = operator(s)

    def call(operator: Any, noise: Any, normal: Any, x: Any) -> Any:
        model = deepinv.physics(operator, noise, normal=normal)
        return model.A(x), model.A_adjoint(model.A(x)), model.A_adjoint_A(x)

    shape = A.domain_shape
    x = torch.randn(s.size(1, 2), shape[-1], *shape[:3])
    return call, {"operator": A, "noise": s.one_of(None, 0.1, 0), "normal": s.one_of(None, A.normal()), "x": x}


@entry("interop.deepinv", 0.5, propagates=True)
def _(s: Source) -> Made:
    n = s.size(1, 4)
    x, terms = torch.randn(1, 6, n, n, n), 0.1 * TotalVariation((n, n, n))

    def split(**given: Any) -> Any:
        return deepinv.view_splitting(**given).step(2)["mask"]

    # What follows is called with images by deepinv, which looks at them first in words of its own.
    def turned(**given: Any) -> Any:
        return deepinv.cube_rotations(**given)(x)

    def shrunk(**given: Any) -> Any:
        return deepinv.denoiser(lambda volume, level: volume / 2, **given)(x, 0.1)

    def proximal(**given: Any) -> Any:
        return deepinv.prior(**given).prox(x)

    def theirs(volume: Any) -> Any:
        return deepinv.volume_denoiser(lambda x, sigma: x / 2)(volume, 0.1)

    return s.one_of(
        (split, {"operator": operator(s), "kept": s.one_of(0.0, 0.5, 1), "rng": s.one_of(None, torch.Generator())}),
        (turned, {"kind": s.one_of("harmonics", "tensors"), "n_trans": 2, "rng": None}),
        (shrunk, {"batched": s.one_of(True, False)}),
        (proximal, {"regularisers": s.one_of(terms, [terms]), "iterations": 3}),
        (theirs, {"volume": x.movedim(1, -1)}),
        (deepinv.to_deepinv, {"array": x}),
        (deepinv.from_deepinv, {"array": x}),
    )
