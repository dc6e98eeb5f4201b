"""What `test_distributed` runs: alone in its own process, and in two that divide the views.

``python -m tests.operators.distributed_program RANK SIZE FOLDER`` is one of the processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import ddf_tomo as dt
from ddf_tomo import _one_scan
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators import TensorXRayTransform
from ddf_tomo.operators.distributed import over_views, own_share
from ddf_tomo.phantoms import helicoidal_fibres, simulate
from ddf_tomo.priors import NonNegativeMean, TotalVariation
from ddf_tomo.solvers.misfit import misfit_of
from tests.strategies import random_geometry

GEOMETRY = random_geometry(11, (5, 6, 4), (7, 6), seed=2, offset=0.3)  # 11 views: shares of 5 and 6
SHAPE = GEOMETRY.volume_shape
Results = dict[str, Any]


def noise(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def operators(divided: Callable[[Any], Any]) -> Results:
    """Values, derivatives, subsets, normal operator."""
    A = divided(dt.TensorXRayTransform(GEOMETRY, dt.SecondMomentResponse(), 2))
    x, y = noise(2, *A.domain_shape, seed=0, dtype=torch.float64), noise(*A.range_shape, seed=1, dtype=torch.float64)
    weights = y.abs()
    leaf = x[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad((A(leaf) - y).square().sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad((gradient * x[1]).sum(), leaf)
    of_single_view = divided(dt.XRayTransform(GEOMETRY[:1]))
    return {
        "forward": A(x),
        "adjoint": A.T(y),
        "gradient": gradient.detach(),
        "second derivative": second,
        "forward derivative": torch.func.jvp(A, (x[0],), (x[1],))[1],
        "some views": A.views([7, 0, 3])(x),
        "adjoint of some views": A.views([7, 0, 3]).T(y[:3]),
        "no views": A.views([]).T(y[:0]),
        "normal of a single view": of_single_view.normal()(x[..., :1]),
        "single view": of_single_view.T(of_single_view(x[..., :1])),
        "normal": A.normal(weights)(x),
        "normal, view by view": A.normal(weights.mean((1, 2, 3), keepdim=True)).T(x[0]),
        "normal, pixel by pixel": A.normal(weights[0])(x[0]),
        "normal without weights": A.normal()(x[0]),
        "norm": A.norm(),
    }


def solutions(divided: Callable[[Any], Any]) -> Results:
    """Every kind of solver, unchanged."""
    A = divided(dt.TensorXRayTransform(GEOMETRY, dt.SecondMomentResponse(), 2))
    truth = noise(*A.domain_shape, seed=2).abs()
    y = A(truth) + 0.1 * noise(*A.range_shape, seed=3)
    weights = noise(*A.range_shape, seed=4).square()
    variation, rounded = 0.3 * TotalVariation(SHAPE), 0.3 * TotalVariation(SHAPE, smoothing=0.1)
    s = dt.solvers
    calls: dict[str, Callable[[], dt.solvers.Solution]] = {
        "cgls": lambda: s.cgls(A, y, weights=weights, tikhonov=0.1, iterations=8),
        "nonlinear_cg": lambda: s.nonlinear_cg(A, y, weights=weights, regularisers=rounded, iterations=8),
        "lbfgs": lambda: s.lbfgs(A, y, regularisers=rounded, iterations=8),
        "fista": lambda: s.fista(A, y, regularisers=variation, iterations=8),
        "pdhg": lambda: s.pdhg(A, y, regularisers=variation, subsets=2, iterations=5),
        "sirt": lambda: s.sirt(A, y, weights=weights, constraint=NonNegativeMean(), iterations=8),
        "sirt in subsets": lambda: s.sirt(A, y, subsets=3, iterations=4),
    }
    B = divided(dt.TensorXRayTransform(GEOMETRY, dt.RankTwoResponse(), 2))
    calls["irtt"] = lambda: s.irtt(B, B(noise(*B.domain_shape, seed=5).abs()), iterations=5)
    found: Results = {}
    for name, call in calls.items():
        solution = call()
        found |= {name: solution.x, f"{name}, residuals": torch.tensor(solution.residuals)}
    return found


def reconstruction(divided: Callable[[Any], Any]) -> Results:
    """`reconstruct` itself, its search for a weight included, on divided operators."""
    scan = simulate(helicoidal_fibres, dt.phantoms.tilt_series((5, 5, 5)), dt.SecondMomentResponse(), noise=0.02)
    whole = _one_scan.TensorXRayTransform
    _one_scan.TensorXRayTransform = lambda *arguments: divided(TensorXRayTransform(*arguments))  # type: ignore[misc, assignment]
    try:
        found = dt.reconstruct(scan, method="cg", iterations=6, progress=False)
    finally:
        _one_scan.TensorXRayTransform = whole  # type: ignore[misc]
    return {"reconstruct": torch.from_numpy(found.coefficients), "weight": found.settings["weight"]}


def streamed(divided: Callable[[Any], Any]) -> Results:
    """Data on the disk, or what looks so."""
    A = divided(dt.XRayTransform(GEOMETRY, channels=2))
    y = noise(*A.range_shape, seed=6).numpy()
    on_disk = Streamed(y.shape, y.dtype, lambda views: y[views])
    return {"streamed": dt.solvers.cgls(A, on_disk, iterations=6).x}


def everything(divided: Callable[[Any], Any]) -> Results:
    return operators(divided) | solutions(divided) | streamed(divided) | reconstruction(divided)


def groups(rank: int) -> Results:
    """A group of the second process alone."""
    group = dist.new_group([1])
    A = dt.XRayTransform(GEOMETRY)
    divided = over_views(A)
    misfit = misfit_of(divided, torch.ones(11, 7, 6, 2))
    residuals = [len(m.residual(torch.ones(*SHAPE, 2))) for m in (misfit, misfit.subset([3, 4, 5]))]
    shares: Results = {"own share": own_share(5), "own residuals": residuals}
    if rank == 1:
        x = noise(*SHAPE, 1, seed=5)
        alone = over_views(A, group)
        return shares | {"alone": bool(torch.equal(alone.T(alone(x)), A.T(A(x)))), "group share": own_share(5, group)}
    try:
        over_views(A, group)
    except RuntimeError as error:
        return shares | {"refused": str(error)}
    return shares


if __name__ == "__main__":
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    torch.save(everything(over_views) | groups(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
