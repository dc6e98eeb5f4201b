"""Primal-dual hybrid gradients (Chambolle & Pock 2011, J. Math. Imaging Vis. 40, 120), stochastic on request.

With subsets of views: SPDHG (Chambolle, Ehrhardt, Richtárik & Schönlieb 2018, SIAM J. Optim. 28, 2783).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import LARGEST_SEED, integer, number
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.fista import relative_change
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit, dot
from ddf_tomo.solvers.terms import Terms

DATA_SHARE = 0.8  # of the bound on steps that data and the other terms share


@torch.no_grad()
def pdhg(
    A: LinearOperator,
    y: Any,
    *,
    regularisers: Any = None,
    weights: Any = None,
    balance: float = 0.05,
    subsets: int = 1,
    seed: int = 0,
    iterations: int = 100,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``½ |W^(1/2) (A x - y)|² + Σ weight_i g_i(L_i x)`` with any number of priors and constraints.

    One projection and one backprojection an iteration, and one application of each ``L``; no inner iterations. Data and
    all terms behind operators have dual variables, one term on ``x`` itself (a constraint first) enters by its
    proximal map, so that what is returned satisfies it.

    Parameters
    ----------
    A
        Any `LinearOperator` with an exact adjoint; one with `views` if ``subsets > 1``.
    y
        Data, of the operator's range shape; torch or numpy.
    regularisers
        One `ddf_tomo.priors.Functional` or a list of them, each with its weight: ``0.1 * TotalVariation(shape)``.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    balance
        Step of the data's dual variables; that of ``x`` is its inverse, in units of ``1 / |W^(1/2) A|²``. Any number
        from 1e-9 to 1e9 leads to the same end. The quickest way there is about the share of the data that the solution
        leaves unexplained: a few per cent. A start ``x0`` from ten iterations of `cgls` saves twenty here.
    subsets
        Into how many subsets the views are divided. More than one: as many subsets are drawn in an iteration, at random
        with replacement, and ``x`` changes after each. Sooner near the solution, later at it; the expected distance to
        it falls as without subsets. The residual of the history takes one more projection an iteration.
    seed
        Of the draws, which depend on it and on the number of the iteration alone.
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
        If an argument does not fit, data with positive weight are not finite, or ``A`` has no views to divide.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.priors import TotalVariation
    >>> same = wrap((lambda x: x, lambda y: y), (4, 1, 1, 1), (4, 1, 1, 1))
    >>> y = torch.tensor([0.0, 0.2, 3.0, 3.2]).reshape(4, 1, 1, 1)
    >>> pdhg(same, y, regularisers=0.2 * TotalVariation((4, 1, 1)), balance=1.0).x.flatten().round(decimals=2)
    tensor([0.2000, 0.2000, 3.0000, 3.0000])
    """
    misfit = Misfit(A, y, weights)
    balance = number(balance, "balance", low=1e-9, high=1e9)  # beyond, steps leave the range of float32
    seed = integer(seed, "seed", high=LARGEST_SEED)
    x, r, residual = misfit.begin(x0)
    terms = Terms(regularisers, x)
    subsets = integer(subsets, "subsets", low=1, high=max(len(misfit.y), 1))
    places = [slice(first, None, subsets) for first in range(subsets)]
    parts = [misfit] if subsets == 1 else [misfit.subset(np.arange(len(misfit.y))[rows]) for rows in places]
    share = DATA_SHARE if terms.composite else 1.0
    sigma = balance * subsets

    def root(part: Misfit, q: torch.Tensor) -> torch.Tensor:
        return q if part.weights is None else part.weights.sqrt() * q

    def step(state: State, iteration: int) -> Step:
        if iteration == 1:
            state["curvatures"] = torch.tensor([part.curvature() for part in parts], dtype=torch.float64)
        before = state["x"]
        for chosen in np.random.default_rng((seed, iteration)).integers(subsets, size=subsets):
            part, rows = parts[chosen], places[chosen]
            tau = share / (sigma * subsets * float(state["curvatures"].max()))
            state["x"] = x = terms.simple_proximal(state["x"] - tau * state["ahead"], tau)
            r = part.residual(x)
            # The conjugate of ½ |q|² is itself: its proximal map divides by 1 + σ.
            moved = (root(part, r) - state["q"][rows]) * (sigma / (1 + sigma))
            back = part.A.T(root(part, moved))
            met = dot(back, back) / (dot(moved, moved) or 1.0)
            if met > float(state["curvatures"][chosen]):
                state["curvatures"][chosen] = 1.02 * met
            state["q"][rows] += moved
            state["sum"] = state["sum"] + back
            state["ahead"] = state["sum"] + subsets * back
            for i, (term, norm) in enumerate(zip(terms.composite, terms.norms, strict=True)):
                step_i = (1 - share) / (tau * norm**2 * len(terms.composite))
                dual = state[f"dual{i}"]
                state[f"dual{i}"] = term.proximal_dual(dual + step_i * term.apply(x), step_i)
                back = term.apply_adjoint(state[f"dual{i}"] - dual)
                state["sum"] = state["sum"] + back
                state["ahead"] = state["ahead"] + 2 * back
        if subsets > 1:
            r = misfit.residual(state["x"])
        return Step(misfit.norm(r), relative_change(state["x"], before))

    # At the solution the data's dual variables are the weighted residual: they start from the one at x0.
    q, back = root(misfit, r).clone(), misfit.gradient(r)
    start = {"x": x, "q": q, "sum": back, "ahead": back, "curvatures": torch.zeros(subsets, dtype=torch.float64)}
    return iterate(
        "PDHG",
        start | terms.duals(x),
        step,
        residual,
        identity(misfit, terms=terms.identity(misfit), balance=balance, subsets=subsets, seed=seed)
        if checkpoint is not None
        else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )
