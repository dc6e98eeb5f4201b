"""How strong a prior? Three rules that find its weight from the data: cross-validation, discrepancy, L-curve.

Cross-validation asks for no noise level, and where the model itself is not exact (grid, orders left out) it is not led
to fit what cannot be fitted, as the discrepancy principle is; measured on phantoms it comes closest to the best weight
(docs/benchmarks.md). All rules go from strong priors to weak ones, each solution starting from the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import LARGEST_SEED, integer, message, number
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.solvers.iteration import Solution
from ddf_tomo.solvers.misfit import Misfit, dot, misfit_of

STRONGEST, WEAKEST = 0.3, 1e-6
FIRST = 0.1
RATIO = 10**-0.5
FALLBACK = 0.01
TOLERATED = 1.003
FEWEST_VIEWS = 10
REFINEMENTS = 4

Fit = Callable[[Misfit, float, torch.Tensor | None], Solution]
"""``fit(misfit, weight, x0)``: a solution with the prior at this (relative) weight, from this start."""


@dataclass(frozen=True)
class WeightChoice:
    """A weight that was chosen.

    Attributes
    ----------
    weight
        The chosen weight.
    x
        A solution for a weight near it, to start from; of the operator's domain shape. ``None`` if none was made.
    tried
        Pairs of weight and criterion (prediction error, or residual; smaller is better for the first only).

    Examples
    --------
    >>> WeightChoice(0.01, None, ()).weight
    0.01
    """

    weight: float
    x: torch.Tensor | None
    tried: tuple[tuple[float, float], ...]


def cross_validated_weight(
    fit: Fit, misfit: Misfit, *, first: float = FIRST, seed: int = 0, tolerated: float = TOLERATED
) -> WeightChoice:
    """The weight whose solution best predicts a tenth of the views, left out [Stone 1974, J. R. Stat. Soc. B 36, 111].

    Of weights that predict within ``tolerated`` of the best the strongest is taken: directions, which no view measures
    by themselves, gain from it most.

    Parameters
    ----------
    fit
        Makes a solution; see `Fit`.
    misfit
        Data, weights, and an operator with `views`.
    first
        Weight to begin with; the search goes down, or up if down is worse.
    seed
        Of the choice of views.
    tolerated
        Largest prediction error, relative to the smallest.

    Returns
    -------
    WeightChoice
        With fewer than ten views, or none left with data, the weight is 0.01.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> from ddf_tomo.solvers import Misfit, cgls
    >>> A = XRayTransform(Geometry.from_angles(torch.linspace(0, 3, 20), 0.0, (6, 6, 1), (6, 1)), channels=1)
    >>> noise = torch.randn(20, 6, 1, 1, generator=torch.Generator().manual_seed(0))
    >>> misfit = Misfit(A, A(torch.ones(6, 6, 1, 1)) + noise)
    >>> def fit(misfit, weight, x0):
    ...     return cgls(misfit.A, misfit.y, tikhonov=100 * weight, iterations=10, x0=x0)
    >>> 0 < cross_validated_weight(fit, misfit).weight < 1
    True
    """
    first = number(first, "first", low=WEAKEST, high=1e3)
    tolerated = number(tolerated, "tolerated", low=1.0)
    views = len(misfit.y)
    kept, held = views_left_out(views, integer(seed, "seed", high=LARGEST_SEED))
    if views < FEWEST_VIEWS or not (_seen(misfit, held) and _seen(misfit, kept)):
        return WeightChoice(FALLBACK, None, ())
    train, test = misfit.subset(kept), misfit.subset(held)
    errors: dict[float, float] = {}
    solutions: dict[float, torch.Tensor] = {}

    def attempt(weight: float, x0: torch.Tensor | None) -> float:
        solutions[weight] = fit(train, weight, x0).x.clone()
        errors[weight] = test.norm(test.residual(solutions[weight]))
        return errors[weight]

    weight, best = first, attempt(first, None)
    # Past the minimum the prediction becomes worse by more than what is tolerated.
    while weight * RATIO >= WEAKEST and errors[weight] <= 1.01 * best:
        x0, weight = solutions[weight], weight * RATIO
        best = min(best, attempt(weight, x0))
    weight = first
    while weight / RATIO <= STRONGEST and errors[weight] <= best:
        x0, weight = solutions[weight], weight / RATIO
        best = min(best, attempt(weight, x0))
    chosen = _strongest_within(tolerated, sorted(errors.items()))
    nearest = min(solutions, key=lambda weight: abs(math.log(weight / chosen)))
    return WeightChoice(chosen, solutions[nearest], tuple(sorted(errors.items(), reverse=True)))


def discrepant_weight(fit: Fit, misfit: Misfit, noise_level: float, *, first: float = FIRST) -> WeightChoice:
    """The weight whose residual equals the noise [Morozov 1966, Soviet Math. Dokl. 7, 414].

    Parameters
    ----------
    fit, misfit, first
        As in `cross_validated_weight`; views are not needed.
    noise_level
        Norm of the weighted noise: with inverse variances as weights, the square root of the number of data.

    Returns
    -------
    WeightChoice
        The weakest weight tried if no residual is as small as the noise.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.solvers import Misfit, cgls
    >>> misfit = Misfit(wrap((lambda x: x, lambda y: y), (9,), (9,)), torch.ones(9))
    >>> def shrink(misfit, weight, x0):  # to 1 / (1 + weight): the residual is 3 · weight / (1 + weight)
    ...     return cgls(misfit.A, misfit.y, tikhonov=weight, iterations=3)
    >>> round(discrepant_weight(shrink, misfit, noise_level=0.03).weight, 4)
    0.0101
    """
    noise_level = number(noise_level, "noise_level", low=0.0, low_open=True)
    weight, x = number(first, "first", low=WEAKEST, high=1e3), None
    residuals: dict[float, float] = {}

    def attempt(weight: float, x0: torch.Tensor | None) -> torch.Tensor:
        solution = fit(misfit, weight, x0)
        residuals[weight] = solution.residuals[-1]
        return solution.x.clone()

    x = attempt(weight, None)
    while residuals[weight] > noise_level and weight * RATIO >= WEAKEST:
        weight *= RATIO
        x = attempt(weight, x)
    while residuals[max(residuals)] <= noise_level and max(residuals) / RATIO <= STRONGEST:
        x = attempt(weight := max(residuals) / RATIO, x)
    chosen = min(residuals)
    for _ in range(REFINEMENTS):
        below = max((w for w, r in residuals.items() if 0 < r <= noise_level), default=None)
        above = min((w for w, r in residuals.items() if r > noise_level), default=None)
        if below is None or above is None:
            chosen = max((w for w, r in residuals.items() if r <= noise_level), default=chosen)
            break
        low, high = math.log(residuals[below]), math.log(residuals[above])
        chosen = below * (above / below) ** ((math.log(noise_level) - low) / (high - low))
        x = attempt(chosen, x)
        if abs(residuals[chosen] / noise_level - 1) < 0.01:
            break
    return WeightChoice(chosen, x, tuple(sorted(residuals.items(), reverse=True)))


def l_curve_weight(
    fit: Fit, misfit: Misfit, size: Callable[[torch.Tensor], float], *, first: float = FIRST, count: int = 9
) -> WeightChoice:
    """The corner of the curve of prior against residual, both logarithmic [Hansen 1992, SIAM Rev. 34, 561].

    Parameters
    ----------
    fit, misfit, first
        As in `cross_validated_weight`; views are not needed.
    size
        Of a solution, as the prior measures it.
    count
        Number of weights, at least four.

    Returns
    -------
    WeightChoice

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.solvers import Misfit, cgls
    >>> decay = 10.0 ** -torch.arange(6.0)
    >>> misfit = Misfit(wrap((lambda x: decay * x, lambda y: decay * y), (6,), (6,)), decay + 1e-3)
    >>> def fit(misfit, weight, x0):
    ...     return cgls(misfit.A, misfit.y, tikhonov=weight**2, iterations=30)
    >>> 1e-4 < l_curve_weight(fit, misfit, lambda x: float(x.norm())).weight < 1e-1
    True
    """
    if not callable(size):
        raise TypeError(message("size", "a function of the solution", type(size).__name__))
    first = number(first, "first", low=WEAKEST, high=1e3)
    weights = [first * RATIO**k for k in range(integer(count, "count", low=4, high=30))]
    x: torch.Tensor | None = None
    solutions, points = [], []
    for weight in weights:
        solution = fit(misfit, weight, x)
        solutions.append(x := solution.x.clone())
        points.append([math.log(max(value, 1e-300)) for value in (solution.residuals[-1], size(x))])
    (u, v), t = np.transpose(points), np.log(weights)
    du, dv = np.gradient(u, t), np.gradient(v, t)
    bend = (du * np.gradient(dv, t) - dv * np.gradient(du, t)) / np.maximum((du**2 + dv**2) ** 1.5, 1e-300)
    corner = int(np.argmax(bend[1:-1])) + 1
    residuals = tuple((weight, math.exp(point[0])) for weight, point in zip(weights, points, strict=True))
    return WeightChoice(weights[corner], solutions[corner], residuals)


def views_left_out(views: int, seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which views fit, and which test: a tenth, two at least.

    Examples
    --------
    >>> [len(each) for each in views_left_out(60)]
    [54, 6]
    """
    held = np.sort(np.random.default_rng(seed).permutation(views)[: max(views // 10, 2)])
    return np.setdiff1d(np.arange(views), held), held


def _seen(misfit: Misfit, views: Any) -> bool:
    weights = misfit.weights
    return weights is None or any(bool((weights[view] > 0).any()) for view in views)


def _strongest_within(tolerated: float, tried: list[tuple[float, float]]) -> float:
    """Between the weights that were tried the logarithm of the error is taken as a parabola of that of the weight."""
    if min(error for _, error in tried) <= 0:
        return max(weight for weight, error in tried if error <= 0)
    t, e = np.log(np.array(tried)).T
    i = int(np.argmin(e))
    if not 0 < i < len(t) - 1:
        return float(np.exp(t[i]))
    a, b, _ = np.polyfit(t[i - 1 : i + 2] - t[i], e[i - 1 : i + 2] - e[i], 2)
    lowest = -b / (2 * a)
    reach = lowest + math.sqrt(math.log(tolerated) / a)
    return float(np.exp(t[i] + min(reach, t[i + 1] - t[i])))


def response_scale(A: LinearOperator, weights: torch.Tensor | None = None, y: Any = None) -> tuple[float, float]:
    """What weights of priors are relative to: ``|W^(1/2) A 1|² / |1|²`` of a constant isotropic volume, and its height.

    Parameters
    ----------
    A
        Operator on ``(x, y, z, coefficient)``.
    weights
        As in `ddf_tomo.solvers.cgls`.
    y
        Data: the height is that of the constant volume that fits them best; 1 without them, or if it is not positive.

    Returns
    -------
    scale, height
        In units of weights × (data / coefficient)², and of a coefficient.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import wrap
    >>> A = wrap((lambda x: 2 * x, lambda y: 2 * y), (1, 1, 1, 1), (1, 1, 1, 1))
    >>> response_scale(A, y=torch.full((1, 1, 1, 1), 6.0))
    (4.0, 3.0)
    """
    # The first coefficient is the isotropic one of harmonics; of a tensor (xx, …) it will do as well.
    constant = torch.zeros([1 if n is None else n for n in A.domain_shape])
    constant[..., 0] = 1.0
    parts = misfit_of(A, y, weights).pieces() if isinstance(y, Streamed) else [(A, y, weights)]
    total = explained = 0.0
    for part, data, weight in parts:
        seen = part(constant)
        weighted = seen if weight is None else seen * weight
        total += dot(seen, weighted)
        explained += 0.0 if data is None else dot(weighted, data)
    height = explained / total if total else 0.0
    return total / float(constant.sum()) or 1.0, height if height > 0 else 1.0
