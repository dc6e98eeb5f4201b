"""Plug-and-play: a denoiser in the place of a prior's proximal map, and the exact physics beside it.

[Venkatakrishnan et al. 2013, GlobalSIP, 945; Chan et al. 2017, IEEE Trans. Comput. Imaging 3, 84; proximal gradients
with gradient-step denoisers: Hurault et al. 2022, ICLR.]
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ddf_tomo._checks import choice, flag, integer, message, number, real_array
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.priors.positivity import nowhere_negative
from ddf_tomo.solvers.cgls import cgls
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit, dot

METHODS = ("admm", "proximal-gradient")
START_ITERATIONS = 10
FIRST = 4.0  # times the noise of a start: errors that are smooth do not show in differences
WELL_SEEN = 0.03  # of the largest curvature: what data tell worse than this, the last noise level leaves to the prior
LEAST_NOISE = 1e-4  # of the data, below which it is taken to be
GAUSSIAN_MEDIAN = 0.6745  # of |noise|, relative to its standard deviation

DenoisingMap = Callable[[torch.Tensor, float], torch.Tensor]
"""``(volume, standard deviation of its noise)`` to the volume without it: a `ddf_tomo.priors.learned.Denoiser`."""


@dataclass(frozen=True)
class PlugAndPlaySolution(Solution):
    """A `Solution` that tells how the iteration went; made by `plug_and_play`.

    Attributes
    ----------
    x, residuals, stopped_by
        As of any `Solution`; ``x`` is of the operator's domain shape.
    sigmas
        Noise level that the denoiser was told, in each iteration.
    changes
        Fixed-point residual of each: change of what the denoiser is given, relative to it.
    strength
        Of the pull towards what the denoiser gave, ``ρ``, in the last iteration; NaN if there was none.
    """

    sigmas: tuple[float, ...] = ()
    changes: tuple[float, ...] = ()
    strength: float = math.nan


@torch.no_grad()
def plug_and_play(
    A: LinearOperator,
    y: Any,
    denoiser: DenoisingMap,
    *,
    weights: Any = None,
    method: str = "admm",
    sigma: Any = None,
    ramp: int = 12,
    variance: float | None = None,
    strength: float = 1.0,
    positive: bool = False,
    inner_iterations: int = 8,
    preconditioner: LinearOperator | None = None,
    iterations: int = 24,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> PlugAndPlaySolution:
    """Agree with the data, and with a denoiser that finds nothing left to remove.

    Each iteration denoises, ``z = D(v, σ)``, and then asks the data,
    ``x = argmin ½ |W^(1/2) (A x - y)|² + ρ/2 |x - t|²`` with ``ρ = strength · variance / σ²``, by conjugate gradients
    on the exact operator. ``"admm"``: ``t = 2z - v``, then ``v ← v + x - z``; converges where ``D`` is firmly
    nonexpansive. ``"proximal-gradient"``: ``t = z``, ``v ← x``; with `ddf_tomo.priors.learned.GradientStep` it
    descends on the misfit and the denoiser's potential. ``σ`` falls geometrically over the first iterations and then
    stays: from there on the fixed-point residual tells whether it converges.

    Parameters
    ----------
    A, y, weights
        As in `ddf_tomo.solvers.cgls`; in memory.
    denoiser
        ``denoiser(volume, sigma)`` gives a volume of the same shape.
    method
        ``"admm"`` or ``"proximal-gradient"``.
    sigma
        First and last noise level, in units of the volume. By default the first is four times what changes from voxel
        to voxel in a reconstruction without prior (in ``x0``, if it is given), and the last what the data's noise
        becomes in structures that are seen with 3 % of the largest curvature.
    ramp
        Iterations in which ``σ`` falls.
    variance
        Of a datum of weight 1: 1 where weights are inverse variances. By default it is measured, from differences
        between neighbouring pixels (`noise_variance`).
    strength
        Of the prior: 1 where the denoiser does what it was told, and the noise is what it is said to be.
    positive
        Whether the function on the sphere is raised to be nowhere negative after each denoising, and at the end.
    inner_iterations
        Of conjugate gradients, each starting where the last one ended.
    preconditioner
        For those; `ddf_tomo.solvers.preconditioner` with ``tikhonov`` makes one by FFT.
    iterations, noise_level, x0, callback, progress, checkpoint
        As in `ddf_tomo.solvers.cgls`.
    tolerance
        Stop when the fixed-point residual has fallen below this, after the ramp.

    Returns
    -------
    PlugAndPlaySolution
        With the history of noise levels and fixed-point residuals.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the denoiser gives something else than a finite volume.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> part = lambda x: x[..., :3, :], lambda y: torch.nn.functional.pad(y, (0, 0, 0, 1))
    >>> A = wrap(part, (5, 5, 4, 6), (5, 5, 3, 6))
    >>> def towards_the_mean(x, sigma):
    ...     return x + sigma / (1 + sigma) * (x.mean((0, 1, 2)) - x)
    >>> solution = plug_and_play(A, torch.ones(5, 5, 3, 6), towards_the_mean, sigma=(1.0, 0.5), variance=0.01)
    >>> bool((solution.x - 1).abs().max() < 0.05), solution.changes[-1] < solution.changes[0]
    (True, True)
    """
    misfit = Misfit(A, y, weights)
    method = choice(method, "method", METHODS)
    strength = number(strength, "strength", low=0.0, low_open=True)
    ramp = integer(ramp, "ramp", low=0, high=10_000)
    inner = integer(inner_iterations, "inner_iterations", low=1, high=1000)
    positive = flag(positive, "positive")
    if not callable(denoiser) or isinstance(denoiser, type):
        raise TypeError(message("denoiser", "a function of a volume and its noise level", repr(denoiser)))
    given = None if sigma is None else _checked_levels(sigma)
    variance = None if variance is None else number(variance, "variance", low=0.0, low_open=True)
    x, _, residual = misfit.begin(x0)
    order = order_of(x.shape[-1], "A (coefficients)") if positive else 0

    def begin(state: State) -> None:
        state["variance"] = noise_variance(misfit.y, misfit.weights) if variance is None else variance
        if x0 is None:
            state["v"] = cgls(A, misfit.y, weights=misfit.weights, iterations=START_ITERATIONS, progress=False).x
            state["x"] = state["v"].clone()
        last = math.sqrt(state["variance"] / (WELL_SEEN * misfit.curvature()))
        back = misfit.backprojected()
        state["finest"] = (10 * torch.finfo(back.dtype).eps) ** 2 * dot(back, back)
        state["levels"] = list(given) if given else [FIRST * max(noise_of(state["v"]), last), last]

    def level(state: State, iteration: int) -> float:
        first, last = state["levels"]
        share = min((iteration - 1) / ramp, 1.0) if ramp else 1.0
        return float(first * (last / first) ** share)

    def step(state: State, iteration: int) -> Step:
        if not state["levels"]:
            begin(state)
        v, now, following = state["v"], level(state, iteration), level(state, iteration + 1)
        z = denoised(denoiser, v, now)
        z = nowhere_negative(z, order) if positive else z
        rho = strength * state["variance"] / now**2
        admm = method == "admm"
        x = near_data(misfit, 2 * z - v if admm else z, rho, inner, state["x"], preconditioner, state["finest"])
        # The multiplier ρ (v - z) is what goes on when ρ changes.
        state["v"] = x + (following / now) ** 2 * (v - z) if admm else x
        moved, size = (math.sqrt(dot(u, u)) for u in (state["v"] - v, state["v"]))
        change = moved and moved / max(size, 1e-300)
        state["x"] = nowhere_negative(x, order) if positive else x
        state["sigmas"] = [*state["sigmas"], now]
        state["changes"] = [*state["changes"], change]
        return Step(misfit.norm(misfit.residual(state["x"])), change if iteration > ramp else math.inf)

    state: State = {"x": x, "v": x.clone(), "variance": 0.0, "finest": 0.0, "levels": [], "sigmas": [], "changes": []}
    settings = {"method": method, "sigma": given, "ramp": ramp, "variance": variance, "strength": strength}
    settings |= {"positive": positive, "inner": inner}
    problem = {}
    if checkpoint is not None:
        probe = misfit.backprojected()
        probe = probe / (math.sqrt(dot(probe, probe) / max(probe.numel(), 1)) or 1.0)
        found = denoised(denoiser, probe, 0.5)
        problem = identity(misfit, denoiser=[type(denoiser).__name__, math.sqrt(dot(found, found))], **settings)
    solution = iterate(
        "plug and play",
        state,
        step,
        residual,
        problem,
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )
    sigmas, changes = tuple(state["sigmas"]), tuple(state["changes"])
    rho = strength * state["variance"] / sigmas[-1] ** 2 if sigmas else math.nan
    return PlugAndPlaySolution(solution.x, solution.residuals, solution.stopped_by, sigmas, changes, rho)


def near_data(
    misfit: Misfit,
    target: torch.Tensor,
    rho: torch.Tensor | float | Callable[[torch.Tensor], torch.Tensor],
    iterations: int,
    start: torch.Tensor | None = None,
    preconditioner: Callable[[torch.Tensor], torch.Tensor] | None = None,
    finest: float = 0.0,
) -> torch.Tensor:
    """``argmin ½ |W^(1/2) (A x - y)|² + ρ/2 |x - target|²`` by conjugate gradients; gradients pass through all of it.

    Parameters
    ----------
    misfit
        Operator, data and weights.
    target
        Volume, of the operator's domain shape.
    rho
        ``ρ``: a factor, or a linear map.
    iterations
        At most.
    start
        Where to start; of the shape of the target, which it is by default.
    preconditioner
        As in `ddf_tomo.solvers.cgls`.
    finest
        Square of the gradient below which rounding is all that is left.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> same = wrap((lambda x: x, lambda y: y), (3,), (3,))
    >>> near_data(Misfit(same, torch.ones(3)), torch.zeros(3), 1.0, 2)
    tensor([0.5000, 0.5000, 0.5000])
    """
    x = target if start is None else start

    def prior(v: torch.Tensor) -> torch.Tensor:
        return rho(v) if callable(rho) else rho * v

    s = prior(target - x) - misfit.gradient(misfit.residual(x))
    p = s if preconditioner is None else preconditioner(s)
    gamma = (s * p).sum()
    tiny = torch.finfo(s.dtype).tiny
    for _ in range(iterations):
        if finest and float(s.square().sum()) <= finest:
            break
        q = misfit.normal(p) + prior(p)
        alpha = gamma / ((p * q).sum() + tiny)
        x, s = x + alpha * p, s - alpha * q
        z = s if preconditioner is None else preconditioner(s)
        before, gamma = gamma, (s * z).sum()
        p = z + gamma / (before + tiny) * p
    return x


def noise_variance(y: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    """Variance of the noise of a datum of weight 1, from second differences along the axes of the detector.

    The median of their size: what is smooth over three pixels cancels, and edges are few [Immerkær 1996, Comput. Vis.
    Image Underst. 64, 300].

    Parameters
    ----------
    y, weights
        Data ``(view, j, k, channel)``, and weights of that shape or none, proportional to inverse variances.

    Raises
    ------
    ValueError
        If there are nowhere three neighbouring pixels, or none of positive weight.

    Examples
    --------
    >>> y = 3 * torch.randn(4, 50, 50, 2, generator=torch.Generator().manual_seed(0))
    >>> round(noise_variance(y), 1)
    9.0
    """
    axes = tuple(axis for axis in range(max(y.ndim - 3, 0), y.ndim - 1) if y.shape[axis] >= 3)
    if not axes:
        raise ValueError(message("variance", "a number, where the detector has no three pixels in a row", None))
    differences = _mixed(y, axes, (1.0, -2.0, 1.0))
    spread = torch.full_like(differences, 6.0 ** len(axes))
    if weights is not None:
        spread = _mixed(torch.where(weights > 0, 1 / weights, torch.inf), axes, (1.0, 4.0, 1.0))
    ratio = differences[torch.isfinite(spread)].abs() / spread[torch.isfinite(spread)].sqrt()
    if not len(ratio):
        raise ValueError(message("variance", "a number, where no three pixels in a row have positive weights", None))
    seen = ratio[ratio > 0]
    found = float(seen.double().median()) / GAUSSIAN_MEDIAN if len(seen) else 0.0
    heights = y if weights is None else weights.sqrt() * y
    least = LEAST_NOISE * math.sqrt(dot(heights, heights) / max(y.numel(), 1))
    return max(found, least) ** 2 or 1.0


def noise_of(x: torch.Tensor) -> float:
    """Standard deviation of what changes from voxel to voxel: the noise of a reconstruction, if it is white.

    Parameters
    ----------
    x
        Volume, shape ``(x, y, z, K)``.

    Examples
    --------
    >>> round(noise_of(2 + 0.1 * torch.randn(16, 16, 16, 6, generator=torch.Generator().manual_seed(0))), 2)
    0.1
    """
    axes = tuple(axis for axis in range(x.ndim - 4, x.ndim - 1) if x.shape[axis] >= 3)
    differences = _mixed(x, axes, (1.0, -2.0, 1.0)) / math.sqrt(6.0) ** len(axes)
    return math.sqrt(dot(differences, differences) / max(differences.numel(), 1))


def _mixed(values: torch.Tensor, axes: tuple[int, ...], taps: tuple[float, float, float]) -> torch.Tensor:
    """One filter of three taps along each of the axes, where it fits."""
    for axis in axes:
        n = values.shape[axis] - 2
        values = torch.stack([tap * values.narrow(axis, i, n) for i, tap in enumerate(taps)]).sum(0)
    return values


def denoised(denoiser: Callable[..., Any], v: torch.Tensor, sigma: Any) -> torch.Tensor:
    """What the denoiser makes of ``v`` at the level ``sigma``, if that is a finite volume of its shape.

    Examples
    --------
    >>> denoised(lambda v, sigma: v / 2, torch.ones(1), 0.1)
    tensor([0.5000])
    """
    z = denoiser(v, sigma)
    if not isinstance(z, torch.Tensor) or z.shape != v.shape:
        found = tuple(z.shape) if isinstance(z, torch.Tensor) else type(z).__name__
        raise ValueError(message("denoiser", f"one that gives a tensor of shape {tuple(v.shape)}", found))
    if not torch.isfinite(z).all():
        raise ValueError(message("denoiser", "one that gives finite numbers", "NaN or infinite ones"))
    return z.to(v)


def _checked_levels(sigma: Any) -> tuple[float, float]:
    first, last = real_array(sigma, "sigma", (2,)).tolist()
    if not first >= last > 0:
        raise ValueError(message("sigma", "a first and a last noise level, first ≥ last > 0", sigma))
    return first, last
