"""Entry points of the fast normal operator and of preconditioning, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import operators, priors, solvers
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


def transform(s: Source) -> Any:
    geometry = s.geometry()
    return s.one_of(
        lambda: dt.XRayTransform(geometry, channels=2),
        lambda: dt.TensorXRayTransform(geometry, s.response(len(geometry)), 2),
    )()


@entry("fast normal operator", 2)
def _(s: Source) -> Made:
    A = transform(s)
    weights = s.one_of(None, 2.0, np.ones((A.range_shape[0], 1, 1, 1)))
    support = np.zeros(A.domain_shape[:3], bool)

    def call(A: Any, weights: Any, support: Any, epsilon: Any, laplacian: Any) -> Any:
        N = operators.FastNormal(A, weights, support=support)
        return N.inverse(epsilon, laplacian=laplacian)

    return call, {"A": A, "weights": weights, "support": support, "epsilon": 0.1, "laplacian": s.number(0, 2)}


@entry("normal operator of a transform")
def _(s: Source) -> Made:
    A = transform(s)
    return A.normal, {"weights": s.one_of(None, 2.0, s.noise(*A.range_shape, positive=True)), "exact": True}


@entry("preconditioner", 2)
def _(s: Source) -> Made:
    A = transform(s)
    shape = A.domain_shape[:3]
    weights = s.one_of(None, 2.0, 0.1 + s.noise(*A.range_shape, positive=True))
    penalty = s.one_of(None, priors.Differences(shape))
    terms = s.one_of(None, 2.0 * priors.Smoothness(shape), [priors.TotalVariation(shape, smoothing=0.1)])
    given = {"A": A, "weights": weights, "tikhonov": s.number(0, 2), "penalty": penalty, "regularisers": terms}
    return solvers.preconditioner, given | {"epsilon": 0.02, "padding": s.number(1, 2)}
