"""Entry points of solvers and priors, with right arguments."""

from __future__ import annotations

from typing import Any

import ddf_tomo as dt
from ddf_tomo import priors, solvers
from ddf_tomo.priors import Functional
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


def prior_for(s: Source, shape: tuple[int, ...], smooth: bool = False) -> Functional:
    smoothing = 0.1 if smooth else s.one_of(0.0, 0.1)
    made = s.one_of(
        lambda: priors.TotalVariation(shape, smoothing=smoothing),
        lambda: priors.Smoothness(shape),
        lambda: priors.L1(smoothing=smoothing),
        lambda: priors.GroupSparsity(per_order=s.chance(0.5), leave_out_mean=s.chance(0.5), smoothing=smoothing),
        *([] if smooth else [priors.NonNegativeMean, priors.PositiveDefinite, lambda: priors.NonNegativeFunction(2)]),
    )()
    return s.number(0.0, 2.0) * made


def problem(s: Source, response: Any = None) -> dict[str, Any]:
    """An operator, data and what all solvers take."""
    geometry = s.geometry()
    A = dt.TensorXRayTransform(geometry, s.response(len(geometry)) if response is None else response, 2)
    weights = s.one_of(None, 2.0, s.noise(*A.range_shape, positive=True))
    start = s.one_of(None, s.noise(*A.domain_shape))
    options = {"noise_level": s.one_of(None, 0.5), "tolerance": s.one_of(0.0, 1e-3), "progress": False}
    return {"A": A, "y": s.noise(*A.range_shape), "weights": weights, "x0": start, "iterations": 3} | options


@entry("sirt", 2)
def _(s: Source) -> Made:
    given = problem(s)
    constraint = s.one_of(None, priors.NonNegativeMean())
    subsets = s.size(1, len(given["A"].geometry))
    return solvers.sirt, given | {"constraint": constraint, "relaxation": 1.2, "subsets": subsets, "seed": 3}


@entry("fista", 2)
def _(s: Source) -> Made:
    given = problem(s)
    shape = given["A"].domain_shape[:3]
    terms = s.one_of(None, prior_for(s, shape), [prior_for(s, shape), prior_for(s, shape)])
    return solvers.fista, given | {"regularisers": terms, "inner_iterations": 3}


@entry("pdhg", 2)
def _(s: Source) -> Made:
    given = problem(s)
    shape = given["A"].domain_shape[:3]
    terms = s.one_of(None, prior_for(s, shape), (prior_for(s, shape), prior_for(s, shape)))
    subsets = s.size(1, len(given["A"].geometry))
    return solvers.pdhg, given | {"regularisers": terms, "balance": 0.2, "subsets": subsets, "seed": 3}


@entry("lbfgs", 2)
def _(s: Source) -> Made:
    given = problem(s)
    terms = s.one_of(None, prior_for(s, given["A"].domain_shape[:3], smooth=True))
    return solvers.lbfgs, given | {"regularisers": terms, "memory": 2}


@entry("irtt", 2)
def _(s: Source) -> Made:
    given = problem(s, s.one_of(dt.RankTwoResponse(), dt.RankTwoSaxsResponse([0.1, 0.9])))
    return solvers.irtt, given | {"regularisers": s.one_of(None, prior_for(s, given["A"].domain_shape[:3]))}


@entry("checkpoint of a solver", 0.5)
def _(s: Source) -> Made:
    given = problem(s)
    solve = s.one_of(solvers.cgls, solvers.fista, solvers.pdhg, solvers.lbfgs, solvers.sirt)
    path = folder() / "state.h5"
    path.unlink(missing_ok=True)

    def call(path: Any, every_s: Any, **given: Any) -> Any:
        solve(**given, checkpoint=solvers.Checkpoint(path, every_s))
        return solve(**given, checkpoint=path)

    return call, given | {"path": path, "every_s": 0.0}


@entry("priors", 2)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    return s.one_of(
        (
            priors.TotalVariation,
            {"volume_shape": shape, "order_weights": s.one_of(None, [1.0, 2.0]), "tensor": False, "smoothing": 0.1},
        ),
        (priors.Smoothness, {"volume_shape": shape}),
        (priors.L1, {"smoothing": 0.1}),
        (priors.GroupSparsity, {"per_order": True, "leave_out_mean": False, "smoothing": 0.0}),
        (priors.NonNegativeFunction, {"ell_max": s.one_of(0, 2, 4), "directions": s.one_of(None, 7)}),
        (priors.PositiveDefinite, {"scaled": s.chance(0.5)}),
        (priors.ChannelMatrix, {"matrix": s.noise(2, 3)}),
        (priors.L1().__mul__, {"factor": s.number(0, 3)}),
    )


@entry("priors of a volume", 2, propagates=True)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    prior = prior_for(s, shape)
    x = s.noise(*shape, 6)
    return lambda x: prior(x), {"x": x}


@entry("misfit")
def _(s: Source) -> Made:
    given = problem(s)

    def call(x: Any, iterations: Any, **given: Any) -> Any:
        misfit = solvers.Misfit(**given)
        return misfit.value(misfit.start(x)), misfit.curvature(iterations), misfit.begin(x)

    x = s.noise(*given["A"].domain_shape)
    return call, {name: given[name] for name in ("A", "y", "weights")} | {"x": x, "iterations": 3}
