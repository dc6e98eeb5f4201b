"""Simultaneous iterative reconstruction (Gilbert 1972, J. Theor. Biol. 36, 105), with ordered subsets on request.

In the form of van der Sluis & van der Vorst 1990, Linear Algebra Appl. 130, 257; subsets as in SART (Andersen & Kak
1984, Ultrason. Imaging 6, 81).
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import torch

from ddf_tomo._checks import LARGEST_SEED, integer, message, number
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.distributed import DistributedViews
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform
from ddf_tomo.priors.functional import Functional
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.fista import relative_change
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit, largest_eigenvalue
from ddf_tomo.solvers.terms import Terms


@torch.no_grad()
def sirt(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    constraint: Functional | None = None,
    relaxation: float = 1.0,
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
    """``x ← P(x + λ C Aᵀ V (y - A x))``: every voxel takes the mean of what its rays ask for.

    It minimises ``|V^(1/2) (A x - y)|²`` within the constraint. ``V`` are the weights; without any, one over the length
    of each ray in the volume (the row sums of ``A``), as in Gilbert's method. ``C`` is one over the sums of ``V``'s
    rays through each voxel (the column sums of ``Aᵀ V A``). Early stopping regularises, as in `cgls`, which takes a
    tenth of the iterations.

    Of a `TensorXRayTransform` the sums are those of its projector, the same for all coefficients of a voxel and all
    channels of a pixel, since harmonics have both signs and a rotation of the sample mixes them; the response enters
    by the norm ``ρ`` of ``V^(1/2) A C^(1/2)``, which the iteration of Lanczos finds, as ``λ = relaxation / ρ²``. (A
    projector alone has no negative entries, and ρ = 1.) Operators with negative sums get ``C = 1`` and, without
    weights, ``V = 1``.

    Parameters
    ----------
    A
        Any `LinearOperator`; one with `views` if ``subsets > 1``.
    y
        Data, of the operator's range shape; torch or numpy.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    constraint
        A constraint on the numbers of each voxel by themselves, such as `ddf_tomo.priors.NonNegativeMean`.
    relaxation
        Factor of the step, in (0, 1.9].
    subsets
        Into how many subsets the views are divided; ``x`` changes after each, in an order that is drawn anew for every
        iteration. As many times quicker at first; from noisy data it ends in a cycle near the solution, the closer the
        smaller ``relaxation``. The residual of the history takes one more projection an iteration.
    seed
        Of the orders, which depend on it and on the number of the iteration alone.
    iterations, noise_level, x0, callback, progress, checkpoint
        As in `cgls`.
    tolerance
        Stop when an iteration changes ``x`` by less than this fraction of its norm.

    Returns
    -------
    Solution
        Solution, history of the residual norm (with the given weights, not the lengths of rays), and why it stopped.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, data with positive weight are not finite, or ``A`` has no views to divide.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> from ddf_tomo.priors import NonNegativeMean
    >>> A = XRayTransform(Geometry.from_angles(torch.linspace(0, 3, 12), 0.0, (8, 8, 8), (8, 8)), channels=1)
    >>> x = torch.rand(8, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    >>> solution = sirt(A, A(x), constraint=NonNegativeMean(), iterations=50, subsets=4)
    >>> bool(solution.residuals[-1] < 0.02 * solution.residuals[0]), bool((solution.x >= 0).all())
    (True, True)
    """
    misfit = Misfit(A, y, weights)
    relaxation = number(relaxation, "relaxation", low=0.0, high=1.9, low_open=True)
    seed = integer(seed, "seed", high=LARGEST_SEED)
    x, r, residual = misfit.begin(x0)
    if constraint is not None and not isinstance(constraint, Functional):
        raise TypeError(message("constraint", "a Functional or None", type(constraint).__name__))
    if constraint is not None and (constraint.operator is not None or not constraint.is_constraint):
        raise ValueError(message("constraint", "one on the numbers of a voxel", constraint, "fista and pdhg take any"))
    terms = Terms(constraint, x)
    subsets = integer(subsets, "subsets", low=1, high=max(len(misfit.y), 1))
    places = [slice(first, None, subsets) for first in range(subsets)]
    parts = [misfit] if subsets == 1 else [misfit.subset(np.arange(len(misfit.y))[rows]) for rows in places]
    scales = [scaling(part, x) for part in parts]

    def step(state: State, iteration: int) -> Step:
        before, r = state["x"], state["r"]
        for chosen in np.random.default_rng((seed, iteration)).permutation(subsets):
            part, (V, C) = parts[chosen], scales[chosen]
            r = r if subsets == 1 else part.residual(state["x"])
            state["x"] = terms.simple_proximal(state["x"] - relaxation * C * part.A.T(V * r), 1.0)
        state["r"] = misfit.residual(state["x"])
        return Step(misfit.norm(state["r"]), relative_change(state["x"], before))

    settings = {"relaxation": relaxation, "subsets": subsets, "seed": seed}
    return iterate(
        "SIRT",
        {"x": x, "r": r},
        step,
        residual,
        identity(misfit, terms=terms.identity(misfit), **settings) if checkpoint is not None else {},
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )


class Scaling(NamedTuple):
    """``V`` on the data and ``C`` on the volume, such that ``|V^(1/2) A C^(1/2)| ≤ 1``."""

    V: torch.Tensor
    C: torch.Tensor


def scaling(misfit: Misfit, like: torch.Tensor, iterations: int = 10) -> Scaling:
    """Sums over rows and columns as `sirt` uses them; ``like`` is a volume."""
    A, weights = misfit.A, misfit.weights
    whole = A.whole if isinstance(A, DistributedViews) else A
    projector = whole.projector if isinstance(whole, TensorXRayTransform) else A
    ones = like.new_ones((*like.shape[:3], 1)) if projector is not A else torch.ones_like(like)
    lengths = projector(ones)
    summable = bool((lengths >= 0).all())
    if summable:
        V = inverse(lengths).expand_as(misfit.y) if weights is None else weights
        # One number for a pixel: the largest of its channels, if it has several of different weight.
        largest = V.amax(-1, keepdim=True) if projector is not A else V
        columns = projector.T(largest * lengths)
        C = inverse(columns)
        summable = bool((columns >= 0).all())
    if not summable:
        V = torch.ones_like(misfit.y) if weights is None else weights
        C = like.new_ones(())
    if isinstance(whole, XRayTransform):
        return Scaling(V, C)  # has no negative entries, and so the norm 1
    root = C.sqrt()
    norm = largest_eigenvalue(lambda v: root * A.T(V * A(root * v)), root * A.T(V * misfit.y), iterations)
    return Scaling(V, C / (norm or 1.0))


def inverse(sums: torch.Tensor) -> torch.Tensor:
    """``1 / sums``, and 0 where a ray misses the volume, a voxel all rays, or both all but touch."""
    seen = sums > 1e-6 * sums.max() if sums.numel() else sums > 0
    return torch.where(seen, 1 / torch.where(seen, sums, 1), 0)
