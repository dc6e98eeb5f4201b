"""Every solver with its settings, one line each: what `test_every_solver` demands of one it demands of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.priors import L1, GroupSparsity, NonNegativeMean, PositiveDefinite, Smoothness, TotalVariation
from ddf_tomo.solvers import Solution, cgls, fista, irtt, lbfgs, nonlinear_cg, pdhg, plug_and_play, sirt
from tests.operators.registry import tensor

SHAPE = (4, 3, 5)


def operator() -> LinearOperator:
    """Tensors of rank 2, so that all solvers can take part; a volume of three different lengths."""
    return tensor("rank two")


def data(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Of positive tensors with an edge, with noise."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
    tensors = (factors @ factors.mT)[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    x = torch.where(torch.arange(5)[:, None] < 2, tensors[0], tensors[1]).expand(*SHAPE, 6).contiguous()
    y = operator()(x)
    return (y + 0.05 * float(y.std()) * torch.randn(y.shape, dtype=y.dtype, generator=generator)).to(dtype)


def smooth_tv() -> TotalVariation:
    return TotalVariation(SHAPE, smoothing=0.05)


def solver(function: Callable[..., Solution], *extra: Any, **settings: Any) -> Callable[..., Solution]:
    def solve(A: Any = None, y: Any = None, **given: Any) -> Solution:
        A, y = operator() if A is None else A, data() if y is None else y
        return function(A, y, *extra, **{"progress": False, **settings, **given})

    return solve


def shrinking(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The proximal map of ``50 |x|²`` at ``σ²``, for data of variance 0.01."""
    return x / (1 + 100 * sigma**2)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "cgls": solver(cgls, tikhonov=0.1),
    "nonlinear_cg": solver(nonlinear_cg),
    "nonlinear_cg, several": solver(nonlinear_cg, regularisers=[0.1 * smooth_tv(), Smoothness(SHAPE)]),
    "sirt": solver(sirt),
    "sirt, constrained": solver(sirt, constraint=NonNegativeMean(), relaxation=1.5),
    "sirt, subsets": solver(sirt, subsets=3, seed=5),
    "lbfgs": solver(lbfgs, memory=3),
    "lbfgs, rounded": solver(lbfgs, regularisers=[0.1 * smooth_tv(), Smoothness(SHAPE), L1(smoothing=0.1)], memory=4),
    "fista": solver(fista),
    "fista, one": solver(fista, regularisers=0.1 * GroupSparsity()),
    "fista, several": solver(
        fista, regularisers=[0.2 * TotalVariation(SHAPE), PositiveDefinite(), NonNegativeMean()], inner_iterations=4
    ),
    "pdhg": solver(pdhg),
    "pdhg, several": solver(pdhg, regularisers=(0.2 * TotalVariation(SHAPE), PositiveDefinite(), NonNegativeMean())),
    "pdhg, subsets": solver(pdhg, regularisers=[0.2 * TotalVariation(SHAPE), 0.1 * L1()], subsets=3, seed=7),
    "plug_and_play": solver(plug_and_play, shrinking, variance=0.01, sigma=(0.2, 0.1), ramp=3, inner_iterations=3),
    "plug_and_play, gradient": solver(
        plug_and_play, shrinking, method="proximal-gradient", variance=0.01, sigma=(0.2, 0.1), ramp=2
    ),
    "irtt": solver(irtt, regularisers=0.1 * TotalVariation(SHAPE)),
}
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2.0, (3, 5, 4, 3))
