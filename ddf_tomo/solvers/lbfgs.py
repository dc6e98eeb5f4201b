"""Limited-memory quasi-Newton steps (Nocedal 1980, Math. Comput. 35, 773; Nocedal & Wright 2006, algorithm 7.4)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch

from ddf_tomo._checks import integer, message
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.priors.functional import Functional
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import dot, misfit_of
from ddf_tomo.solvers.terms import Terms


@torch.no_grad()
def lbfgs(
    A: LinearOperator,
    y: Any,
    *,
    regularisers: Any = None,
    weights: Any = None,
    memory: int = 10,
    iterations: int = 100,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``½ |W^(1/2) (A x - y)|² + Σ weight_i g_i(L_i x)`` with priors that have gradients.

    One projection and one backprojection an iteration: along a line the misfit is a parabola, and the search for its
    lowest point asks the priors only.

    Parameters
    ----------
    A
        Any `LinearOperator` with an exact adjoint.
    y
        Data, of the operator's range shape; torch or numpy.
    regularisers
        One `ddf_tomo.priors.Functional` or a list of them, each with its weight and each smooth: `Smoothness`, or one
        with ``smoothing > 0``, say a hundredth of the coefficients' size.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    memory
        Number of past steps kept; each takes the memory of two volumes.
    tolerance
        Stop when the gradient has fallen to this fraction of its start.
    iterations, noise_level, x0, callback, progress, checkpoint
        As in `cgls`.

    Returns
    -------
    Solution
        Solution, history of the residual norm, and why it stopped.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, a regulariser has no gradient, or data with positive weight are not finite.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.priors import TotalVariation
    >>> same = wrap((lambda x: x, lambda y: y), (4, 1, 1, 1), (4, 1, 1, 1))
    >>> y = torch.tensor([0.0, 0.2, 3.0, 3.2]).reshape(4, 1, 1, 1)
    >>> lbfgs(same, y, regularisers=0.2 * TotalVariation((4, 1, 1), smoothing=1e-3)).x.flatten().round(decimals=2)
    tensor([0.2000, 0.2000, 3.0000, 3.0000])
    """
    misfit = misfit_of(A, y, weights)
    memory = integer(memory, "memory", low=1, high=1000)
    x, r, residual = misfit.begin(x0)
    terms = Terms(regularisers, x)
    for term in terms.all:
        if not term.is_smooth:
            raise ValueError(
                message("regularisers", "smooth ones", term, "set smoothing=, or use fista or pdhg, which need none")
            )

    def gradient(r: torch.Tensor, images: list[torch.Tensor]) -> tuple[torch.Tensor, float]:
        g, residual = misfit.slope(r)
        for term, z in zip(terms.all, images, strict=True):
            g = g + term.weight * term.apply_adjoint(slope_of(term, z))
        return g, residual

    def step(state: State, iteration: int) -> Step | None:
        x, r, g = state["x"], state["r"], state["g"]
        d = -times_inverse_hessian(state, g, memory)
        q, turned = misfit.look(d), [term.apply(d) for term in terms.all]
        here = [term.apply(x) for term in terms.all]
        slope, curvature = dot(g, d), misfit.square(q)

        def slope_at(alpha: float) -> float:
            extra = (
                term.weight * (dot(slope_of(term, z + alpha * dz), dz) - dot(slope_of(term, z), dz))
                for term, z, dz in zip(terms.all, here, turned, strict=True)
            )
            return slope + alpha * curvature + sum(extra)

        if not -math.inf < slope < 0 or not curvature < math.inf:
            return None
        first = 1.0 if state["count"] else (-slope / curvature if curvature else 1 / math.sqrt(dot(d, d)))
        alpha = lowest(slope_at, slope, first)
        state["x"] = x + alpha * d  # not in place: of terms without operator, x is the image
        r.add_(q, alpha=alpha)
        g_new, residual = gradient(r, [z + alpha * dz for z, dz in zip(here, turned, strict=True)])
        change = g_new - g
        product = alpha * dot(d, change)
        if product > 0:
            place = state["count"] % memory
            state["steps"][place], state["changes"][place] = alpha * d, change
            state["products"][place] = product
            state["count"] += 1
        state["g"] = g_new
        state["g_start"] = state["g_start"] or math.sqrt(dot(g, g))
        return Step(residual, math.sqrt(dot(g_new, g_new)) / state["g_start"])

    past = x.new_zeros((memory, *x.shape))
    start = {
        "x": x,
        "r": r,
        "g": gradient(r, [term.apply(x) for term in terms.all])[0],
        "steps": past,
        "changes": past.clone(),
    }
    numbers = {"products": torch.zeros(memory, dtype=torch.float64), "count": 0, "g_start": 0.0}
    return iterate(
        "L-BFGS",
        start | numbers,
        step,
        residual,
        identity(misfit, terms=terms.identity(misfit), memory=memory) if checkpoint is not None else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )


def slope_of(term: Functional, z: torch.Tensor) -> torch.Tensor:
    """Gradient of ``g`` at ``z``, without the weight."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(term.value(z), z)
    return slope


def times_inverse_hessian(state: State, g: torch.Tensor, memory: int) -> torch.Tensor:
    """``H g`` by the two-loop recursion over the steps and changes of the gradient in ``state``."""
    count = state["count"]
    newest_first = [place % memory for place in range(count - 1, max(count - memory, 0) - 1, -1)]
    g, factors = g.clone(), {}
    for i in newest_first:
        factors[i] = dot(state["steps"][i], g) / float(state["products"][i])
        g -= factors[i] * state["changes"][i]
    if newest_first:
        newest = newest_first[0]
        g *= float(state["products"][newest]) / dot(state["changes"][newest], state["changes"][newest])
    for i in reversed(newest_first):
        g += (factors[i] - dot(state["changes"][i], g) / float(state["products"][i])) * state["steps"][i]
    return g


def lowest(slope_at: Callable[[float], float], start: float, first: float, tries: int = 40) -> float:
    """Where a convex function along a line is about lowest: its slope is down to a tenth of the one at the start.

    Secants, kept inside the interval in which the slope changes its sign. Such a point satisfies the approximate
    conditions of Wolfe [Hager & Zhang 2005, SIAM J. Optim. 16, 170].
    """
    low, slope_low, high, slope_high, alpha = 0.0, start, math.inf, math.inf, first
    for _ in range(tries):
        slope = slope_at(alpha)
        if abs(slope) <= -0.1 * start:
            break
        if slope < 0:
            before, slope_before, low, slope_low = low, slope_low, alpha, slope
        else:
            high, slope_high = alpha, slope
        if high == math.inf:
            gain = slope_low - slope_before
            further = (low - before) * -slope_low / gain if gain > 0 else math.inf
            alpha = low + min(max(further, 0.1 * low), 9 * low)
        else:
            secant = low - slope_low * (high - low) / (slope_high - slope_low)
            margin = 0.1 * (high - low)
            alpha = min(max(secant, low + margin), high - margin)
    return alpha
