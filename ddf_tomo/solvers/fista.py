"""Accelerated proximal gradients: FISTA (Beck & Teboulle 2009, SIAM J. Imaging Sci. 2, 183) with restarts.

Restarts by the gradient scheme of O'Donoghue & Candès 2015, Found. Comput. Math. 15, 715.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from ddf_tomo._checks import integer
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import dot, misfit_of
from ddf_tomo.solvers.terms import Terms

MOST_INNER = 1000


@torch.no_grad()
def fista(
    A: LinearOperator,
    y: Any,
    *,
    regularisers: Any = None,
    weights: Any = None,
    inner_iterations: int = 10,
    iterations: int = 100,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``½ |W^(1/2) (A x - y)|² + Σ weight_i g_i(L_i x)``.

    One projection and one backprojection an iteration. A regulariser or constraint on ``x`` itself (`L1`,
    `GroupSparsity`, `NonNegativeMean`) enters by its proximal map; one behind an operator (`TotalVariation`,
    `NonNegativeFunction`), and any further ones, by an inner iteration on dual variables that goes on where the last
    one ended. The step is the inverse of the gradient's Lipschitz constant, which the iteration of Lanczos estimates,
    and which is raised where a larger one is met.

    Parameters
    ----------
    A
        Any `LinearOperator` with an exact adjoint.
    y
        Data, of the operator's range shape; torch or numpy.
    regularisers
        One `ddf_tomo.priors.Functional` or a list of them, each with its weight: ``0.1 * TotalVariation(shape)``.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    inner_iterations
        Dual iterations for each proximal map that has no closed form; twice as many from where they turn out too few.
    iterations, noise_level, x0, callback, progress, checkpoint
        As in `cgls`.
    tolerance
        Stop when an iteration changes ``x`` by less than this fraction of its norm.

    Returns
    -------
    Solution
        Solution, history of the residual norm, and why it stopped.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or data with positive weight are not finite.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.priors import TotalVariation
    >>> same = wrap((lambda x: x, lambda y: y), (4, 1, 1, 1), (4, 1, 1, 1))
    >>> y = torch.tensor([0.0, 0.2, 3.0, 3.2]).reshape(4, 1, 1, 1)
    >>> fista(same, y, regularisers=0.2 * TotalVariation((4, 1, 1)), iterations=50).x.flatten().round(decimals=2)
    tensor([0.2000, 0.2000, 3.0000, 3.0000])
    """
    misfit = misfit_of(A, y, weights)
    inner_iterations = integer(inner_iterations, "inner_iterations", low=1, high=MOST_INNER)
    x, r, residual = misfit.begin(x0)
    terms = Terms(regularisers, x)
    # What rounding leaves of a difference of two predictions tells nothing about the operator.
    smallest = 1e3 * torch.finfo(x.dtype).eps * misfit.size()

    def step(state: State, iteration: int) -> Step:
        x, r, t = state["x"], state["r"], state["t"]
        state["lipschitz"] = state["lipschitz"] or misfit.curvature()
        state["t"] = (1 + math.sqrt(1 + 4 * t**2)) / 2
        momentum = (t - 1) / state["t"]
        v = x + momentum * (x - state["x_before"])
        r_v = r + momentum * (r - state["r_before"])
        gradient = misfit.gradient(r_v)
        while True:
            lipschitz = state["lipschitz"]
            x_new = terms.proximal(v - gradient / lipschitz, 1 / lipschitz, state, state["inner"])
            r_new = misfit.residual(x_new)
            moved, seen = x_new - v, math.sqrt(misfit.square(r_new - r_v))
            if seen <= smallest or seen**2 <= lipschitz * dot(moved, moved) * (1 + 1e-6):
                break
            state["lipschitz"] = 1.2 * lipschitz
        residual = misfit.norm(r_new)
        value, before = residual**2 / 2 + terms.value(x_new), state["value"]
        rises = before is not None and value > before * (1 + 1e-6)
        if rises or dot(moved, x_new - x) < 0:
            state["t"] = 1.0
        if rises and momentum == 0 and terms.composite:
            # Exact proximal maps without momentum go downhill.
            state["inner"] = min(2 * state["inner"], MOST_INNER)
        state |= {"x": x_new, "r": r_new, "x_before": x, "r_before": r, "value": value}
        return Step(residual, relative_change(x_new, x))

    start = {"x": x, "r": r, "x_before": x, "r_before": r, "t": 1.0}
    numbers = {"lipschitz": 0.0, "value": None, "inner": inner_iterations}
    return iterate(
        "FISTA",
        start | numbers | terms.duals(x),
        step,
        residual,
        identity(misfit, terms=terms.identity(misfit), inner=inner_iterations) if checkpoint is not None else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )


def relative_change(x: torch.Tensor, before: torch.Tensor) -> float:
    """``|x - before| / |x|``; 0 where nothing changed."""
    change = x - before
    moved = math.sqrt(dot(change, change))
    return moved and moved / max(math.sqrt(dot(x, x)), 1e-300)
