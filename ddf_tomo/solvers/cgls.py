"""Conjugate gradients for least squares (Hestenes & Stiefel 1952; Björck 1996, Numerical Methods for Least Squares)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ddf_tomo._checks import MOST_ITERATIONS, flag, integer, message, number
from ddf_tomo.operators.base import LinearOperator, as_tensor, fits, shape_text, sum_of
from ddf_tomo.solvers.result import Callback, Solution, iterations_with_progress

PIECE = 2**20


@torch.no_grad()
def cgls(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    tikhonov: float = 0.0,
    penalty: LinearOperator | None = None,
    iterations: int = 30,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> Solution:
    """Minimise ``|W^(1/2) (A x - y)|² + tikhonov · |L x|²``.

    Early iterations fit the large structures, late ones the noise; the number of iterations regularises as much as
    ``tikhonov`` does. If the noise is known, stop there: ``noise_level`` does (discrepancy principle, Morozov 1966).

    Parameters
    ----------
    A
        Any `LinearOperator` with an exact adjoint.
    y
        Data, of the operator's range shape; torch or numpy.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    tikhonov
        Weight of the penalty, in units of weights × (data / solution)².
    penalty
        The operator ``L``, for example `ddf_tomo.priors.Differences` for smoothness; by default the identity.
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
    y, weights = _checked_data(A, y, weights)
    if penalty is not None and not isinstance(penalty, LinearOperator):
        raise TypeError(message("penalty", "a LinearOperator or None", type(penalty).__name__))
    if callback is not None and not callable(callback):
        raise TypeError(message("callback", "a function or None", type(callback).__name__))
    iterations = integer(iterations, "iterations", low=0, high=MOST_ITERATIONS)
    tikhonov = number(tikhonov, "tikhonov", low=0.0)
    tolerance = number(tolerance, "tolerance", low=0.0, high=1.0)
    progress = None if progress is None else flag(progress, "progress")
    limit = -1.0 if noise_level is None else number(noise_level, "noise_level", low=0.0)

    def half_weighted(data: torch.Tensor) -> torch.Tensor:
        return data if weights is None else weights.sqrt() * data

    def weighted(data: torch.Tensor) -> torch.Tensor:
        return data if weights is None else weights * data

    def penalised(z: torch.Tensor) -> torch.Tensor:
        return z if penalty is None else penalty.T(penalty(z))

    def gradient(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        back = A.T(weighted(r))
        return back - tikhonov * penalised(x) if tikhonov else back

    s = A.T(weighted(y))
    if penalty is not None and not fits(s.shape, penalty.domain_shape):
        raise ValueError(message("penalty", f"domain ({shape_text(tuple(s.shape))})", penalty.domain_shape))
    x, r = torch.zeros_like(s), y.clone()
    if x0 is not None:
        x = as_tensor(x0, "x0").to(y).clone()
        if x.shape != s.shape:
            raise ValueError(message("x0", f"shape {tuple(s.shape)}", tuple(x.shape)))
        if not torch.isfinite(x).all():
            raise ValueError(message("x0", "finite values", "some NaN or infinite"))
        r = y - A(x)
        s = gradient(x, r)
    p = s.clone()
    gamma = gamma_start = _dot(s, s)
    residuals = [math.sqrt(_dot(half_weighted(r), half_weighted(r)))]
    if not math.isfinite(gamma + residuals[0]):
        raise ValueError(message("y, weights", f"numbers whose products fit into {y.dtype}", "an overflow", "rescale"))
    stopped_by = "noise level" if residuals[-1] <= limit else "convergence" if gamma == 0 else "iterations"
    if stopped_by != "iterations":
        return Solution(x, tuple(residuals), stopped_by)

    for iteration, show in iterations_with_progress(iterations, "CGLS", progress):
        q = A(p)
        curvature = _dot(q, weighted(q)) + (tikhonov * _dot(p, penalised(p)) if tikhonov else 0.0)
        if not 0 < curvature < math.inf:
            stopped_by = "convergence"
            break
        alpha = gamma / curvature
        x += alpha * p
        r -= alpha * q
        s = gradient(x, r)
        gamma, beta = (new := _dot(s, s)), new / gamma
        p = s + beta * p
        residuals.append(math.sqrt(_dot(r, weighted(r))))
        show(residuals[-1])
        if callback is not None and callback(iteration, x, residuals[-1]):
            stopped_by = "callback"
        elif residuals[-1] <= limit:
            stopped_by = "noise level"
        elif gamma <= tolerance**2 * gamma_start:
            stopped_by = "convergence"
        if stopped_by != "iterations":
            break
    return Solution(x, tuple(residuals), stopped_by)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    # In double precision, piece by piece: squares of small or large float32 numbers leave its range.
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True)
    return float(sum_of(torch.dot(u.double(), v.double()) for u, v in pieces)) if a.numel() else 0.0


def _checked_data(A: LinearOperator, y: Any, weights: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not isinstance(A, LinearOperator):
        raise TypeError(message("A", "a LinearOperator", type(A).__name__, "make one with wrap(...)"))
    y = as_tensor(y, "y")
    if y.dtype not in (torch.float32, torch.float64):
        raise TypeError(message("y", "float32 or float64", y.dtype))
    if not fits(y.shape, A.range_shape):
        raise ValueError(message("y", f"shape ({shape_text(A.range_shape)})", tuple(y.shape)))
    if weights is None:
        missing = ~torch.isfinite(y)
    else:
        weights = as_tensor(weights, "weights").to(y)
        try:
            weights = weights.expand(y.shape)
        except RuntimeError as error:
            raise ValueError(
                message("weights", f"a shape that broadcasts to {tuple(y.shape)}", tuple(weights.shape))
            ) from error
        if not (torch.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError(message("weights", "finite numbers ≥ 0", "some negative, NaN or infinite"))
        if not (weights > 0).any():
            raise ValueError(message("weights", "a positive weight somewhere", "zero everywhere"))
        missing = ~torch.isfinite(y) & (weights > 0)
        y = torch.where(weights > 0, y, 0)
    if missing.any():
        raise ValueError(message("y", "finite data", f"{int(missing.sum())} NaN or infinite", "give those weight 0"))
    return y, weights
