"""Conjugate gradients for least squares (Hestenes & Stiefel 1952; Björck 1996, Numerical Methods for Least Squares)."""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from ddf_tomo._checks import message, number
from ddf_tomo.operators.base import LinearOperator, fits, shape_text
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import dot, misfit_of, overflow


@torch.no_grad()
def cgls(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    tikhonov: float = 0.0,
    penalty: LinearOperator | None = None,
    preconditioner: LinearOperator | None = None,
    iterations: int = 30,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``|W^(1/2) (A x - y)|² + tikhonov · |L x|²``.

    Early iterations fit the large structures, late ones the noise; the number of iterations regularises as much as
    ``tikhonov`` does. If the noise is known, stop there: ``noise_level`` does (discrepancy principle, Morozov 1966).

    Parameters
    ----------
    A
        Any `LinearOperator` with an exact adjoint.
    y
        Data, of the operator's range shape; torch or numpy, or on the disk (`ddf_tomo.Scan.read`).
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    tikhonov
        Weight of the penalty, in units of weights × (data / solution)².
    penalty
        The operator ``L``, for example `ddf_tomo.priors.Differences` for smoothness; by default the identity.
    preconditioner
        Symmetric positive definite ``M``, close to ``(Aᵀ W A + tikhonov LᵀL)⁻¹``: fewer iterations to the same end.
    iterations
        Largest number of iterations.
    noise_level
        Norm of the weighted residual at which to stop; with inverse variances as weights it is the square root of the
        number of data with positive weight.
    tolerance
        Stop when the gradient has fallen to this fraction of its start.
    x0
        Where to start (default zero).
    callback
        ``callback(iteration, x, residual)``; returning true stops. The next iteration overwrites ``x``.
    progress
        Whether to show a progress bar; by default one appears when the run takes longer than two seconds.
    checkpoint
        File to write the state to, now and then, and to go on from if it is there (`Checkpoint`).

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
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> A = XRayTransform(Geometry.from_angles(torch.linspace(0, 3, 12), 0.0, (8, 8, 8), (8, 8)), channels=1)
    >>> x = torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    >>> solution = cgls(A, A(x), iterations=50)
    >>> bool((A(solution.x) - A(x)).norm() < 1e-2 * A(x).norm())
    True
    """
    misfit = misfit_of(A, y, weights)
    tikhonov = number(tikhonov, "tikhonov", low=0.0)
    for name, operator in (("penalty", penalty), ("preconditioner", preconditioner)):
        if operator is not None and not isinstance(operator, LinearOperator):
            raise TypeError(message(name, "a LinearOperator or None", type(operator).__name__))

    def penalised(z: torch.Tensor) -> torch.Tensor:
        return z if penalty is None else penalty.T(penalty(z))

    def preconditioned(s: torch.Tensor) -> torch.Tensor:
        return s if preconditioner is None else preconditioner(s)

    def downhill(x: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        return -back - tikhonov * penalised(x) if tikhonov else -back

    r = misfit.nothing_explained()
    back, residual = misfit.slope(r)
    for name, operator in (("penalty", penalty), ("preconditioner", preconditioner)):
        if operator is not None and not fits(back.shape, operator.domain_shape):
            raise ValueError(message(name, f"domain ({shape_text(tuple(back.shape))})", operator.domain_shape))
    x = misfit.start(x0, like=back)
    if x0 is not None:
        r = misfit.residual(x)
        back, residual = misfit.slope(r)
    s = downhill(x, back)
    p = preconditioned(s).clone()
    gamma = dot(s, p)
    if not math.isfinite(gamma + residual):
        raise ValueError(overflow(misfit.like))

    def step(state: State, iteration: int) -> Step | None:
        x, r, p, gamma, descent = (state[name] for name in ("x", "r", "p", "gamma", "descent"))
        q = misfit.look(p)
        curvature = misfit.square(q) + (tikhonov * dot(p, penalised(p)) if tikhonov else 0.0)
        if not 0 < curvature < math.inf or gamma <= 0:
            return None
        alpha = descent / curvature  # of which gamma is the exact value; where rounding begins, they part
        x.add_(p, alpha=alpha)
        r.add_(q, alpha=alpha)
        back, residual = misfit.slope(r)
        s = downhill(x, back)
        z = preconditioned(s)
        state["gamma"] = dot(s, z)
        p *= state["gamma"] / gamma
        p += z
        state["descent"] = dot(s, p)
        if state["descent"] <= 0:
            p.copy_(z)
            state["descent"] = state["gamma"]
        return Step(residual, math.sqrt(max(state["gamma"], 0.0) / state["gamma_start"]))

    return iterate(
        "CGLS",
        {"x": x, "r": r, "p": p, "gamma": gamma, "gamma_start": gamma, "descent": gamma},
        step,
        residual,
        identity(misfit, tikhonov=tikhonov) if checkpoint is not None else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )
