"""Least squares with priors that are not quadratic, by conjugate gradients on reweighted quadratic ones.

Lagged diffusivity [Vogel & Oman 1996, SIAM J. Sci. Comput. 17, 227], iteratively reweighted least squares in general
[Daubechies et al. 2010, Commun. Pure Appl. Math. 63, 1]: each quadratic lies above the prior and touches it at the
present iterate, so that the objective falls with every reweighting.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from ddf_tomo._checks import integer, message
from ddf_tomo.operators.base import LinearOperator, fits, shape_text
from ddf_tomo.priors.functional import Functional
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit, dot


@torch.no_grad()
def irls(
    A: LinearOperator,
    y: Any,
    prior: Functional,
    *,
    weights: Any = None,
    iterations: int = 36,
    reweight_every: int = 6,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``½ |W^(1/2) (A x - y)|² + prior(x)`` with as few applications of ``A`` as conjugate gradients need.

    Parameters
    ----------
    A, y, weights
        As in `ddf_tomo.solvers.cgls`.
    prior
        Smooth enough to lie under quadratics: one with `Functional.curvature`, such as `ddf_tomo.priors.TotalVariation`
        with ``smoothing > 0`` or `ddf_tomo.priors.Smoothness`.
    iterations
        Largest number of conjugate-gradient iterations, over all reweightings.
    reweight_every
        Iterations between two reweightings.
    noise_level, tolerance, x0, callback, progress, checkpoint
        As in `ddf_tomo.solvers.cgls`; ``tolerance`` is judged where a reweighting begins.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.priors import TotalVariation
    >>> A = wrap((lambda x: x, lambda y: y), (6, 1, 1, 1), (6, 1, 1, 1))
    >>> y = torch.tensor([0.1, -0.1, 0.0, 1.1, 0.9, 1.0]).reshape(6, 1, 1, 1)
    >>> found = irls(A, y, 0.15 * TotalVariation((6, 1, 1), smoothing=1e-4), iterations=60)
    >>> [round(value, 2) for value in found.x.flatten().tolist()]  # each side lost 0.15 / 3
    [0.05, 0.05, 0.05, 0.95, 0.95, 0.95]
    """
    misfit = Misfit(A, y, weights)
    if not isinstance(prior, Functional):
        raise TypeError(message("prior", "a ddf_tomo.priors.Functional", type(prior).__name__))
    reweight_every = integer(reweight_every, "reweight_every", low=1)
    back = misfit.gradient(misfit.y)
    if prior.operator is not None and not fits(back.shape, prior.operator.domain_shape):
        raise ValueError(
            message("prior", f"domain ({shape_text(tuple(back.shape))})", shape_text(prior.operator.domain_shape))
        )
    x = misfit.start(x0, like=back)
    r = misfit.y.clone() if x0 is None else misfit.y - A(x)
    curvature = prior.curvature(prior.apply(x))

    def bent(z: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
        """``weight · Lᵀ (curvature · L z)``."""
        return prior.weight * prior.apply_adjoint(curvature * prior.apply(z)) if prior.weight else 0 * z

    def step(state: State, iteration: int) -> Step | None:
        x, r, p = state["x"], state["r"], state["p"]
        begins = (iteration - 1) % reweight_every == 0
        if begins:
            state["curvature"] = prior.curvature(prior.apply(x))
            s = misfit.gradient(r) - bent(x, state["curvature"])
            p.copy_(s)
            state["gamma"] = dot(s, s)
        q, bent_p, gamma = A(p), bent(p, state["curvature"]), state["gamma"]
        height = dot(q, misfit.weighted(q)) + dot(p, bent_p)
        if not 0 < height < math.inf or gamma <= 0:
            # The end of one quadratic is the end of all only if the next one gives no other gradient.
            return None if begins else Step(state["residual"])
        alpha = gamma / height
        x += alpha * p
        r -= alpha * q
        s = misfit.gradient(r) - bent(x, state["curvature"])
        state["gamma"] = dot(s, s)
        p *= state["gamma"] / gamma
        p += s
        state["residual"] = misfit.norm(r)
        change = math.sqrt(gamma) / state["size"] if begins else math.inf
        return Step(state["residual"], change)

    residual, size = misfit.norm(r), math.sqrt(dot(back, back)) or 1.0
    if not math.isfinite(residual + size):
        raise ValueError(
            message("y, weights", f"numbers whose products fit into {r.dtype}", "an overflow", "rescale them")
        )

    def told() -> dict[str, Any]:
        probe = prior.apply(back / size * back.numel() ** 0.5)
        bends = float(prior.curvature(probe).sum())
        return {"prior": [type(prior).__name__, prior.weight, float(prior.value(probe)), bends]}

    return iterate(
        "CG",
        {"x": x, "r": r, "p": torch.zeros_like(x), "curvature": curvature, "gamma": 0.0}
        | {"residual": residual, "size": size},
        step,
        residual,
        identity(misfit, reweight_every=reweight_every, **told()) if checkpoint is not None else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )
