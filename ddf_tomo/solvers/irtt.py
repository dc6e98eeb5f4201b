"""Iterative reconstruction of tensors of rank 2 (Gao et al. 2019, Acta Cryst. A75, 223)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import message
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.distributed import DistributedViews
from ddf_tomo.operators.responses import RankTwoResponse, RankTwoSaxsResponse
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors.channel_matrix import ChannelMatrix
from ddf_tomo.priors.positive_definite import OFF_DIAGONAL, PositiveDefinite
from ddf_tomo.solvers.checkpoint import Checkpoint
from ddf_tomo.solvers.fista import fista
from ddf_tomo.solvers.iteration import Callback, Solution
from ddf_tomo.solvers.misfit import checked_operator, misfit_of
from ddf_tomo.solvers.terms import as_list


def irtt(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    regularisers: Any = None,
    iterations: int = 100,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    x0: Any = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Minimise ``½ |W^(1/2) (A x - y)|² + Σ weight_i g_i(L_i x)`` over tensors without negative eigenvalues.

    The model is that of Gao et al.; their descent is accelerated here (`fista`) and projects onto positive
    semidefinite tensors in every iteration. Lengths and gradients are those of the Frobenius norm, in which the
    projection is exact and no direction of the sample is preferred.

    Parameters
    ----------
    A
        `TensorXRayTransform` of a `RankTwoResponse` (three channels a view) or `RankTwoSaxsResponse`, or any other
        `LinearOperator` on volumes ``(x, y, z, 6)`` of tensors ``(xx, xy, xz, yy, yz, zz)``.
    y
        Data, of the operator's range shape; torch or numpy. Second moments become rank-2 data by
        `ddf_tomo.operators.rank_two.rank_two_from_second_moment`.
    weights
        Non-negative weights that broadcast against ``y``, usually inverse variances; zero masks a datum.
    regularisers
        One `ddf_tomo.priors.Functional` or a list of them. They see the tensors with off-diagonal entries times √2, so
        that norms over the six numbers are Frobenius norms.
    iterations, noise_level, x0, callback, progress, checkpoint
        As in `cgls`.
    tolerance
        Stop when an iteration changes ``x`` by less than this fraction of its norm.

    Returns
    -------
    Solution
        Tensors ``(x, y, z, 6)``, history of the residual norm, and why it stopped.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, ``A`` is of harmonics, or data with positive weight are not finite.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import Geometry, RankTwoResponse, TensorXRayTransform
    >>> geometry = Geometry.from_angles(torch.linspace(0, 3, 12), torch.linspace(0, 6, 12).sin(), (4, 4, 4), (6, 6))
    >>> A = TensorXRayTransform(geometry, RankTwoResponse(), 2)
    >>> x = torch.tensor([1.0, 0.0, 0.2, 0.5, 0.0, 0.1]).expand(4, 4, 4, 6)
    >>> solution = irtt(A, A(x), iterations=200)
    >>> bool(solution.residuals[-1] < 1e-3 * solution.residuals[0])
    True
    """
    checked_operator(A)
    if len(A.domain_shape) != 4 or A.domain_shape[-1] != 6:
        raise ValueError(message("A", "an operator on (x, y, z, 6)", A.domain_shape))
    whole = A.whole if isinstance(A, DistributedViews) else A
    if isinstance(whole, TensorXRayTransform) and not isinstance(
        whole.response, (RankTwoResponse, RankTwoSaxsResponse)
    ):
        hint = "its six numbers are harmonics; second-moment data: see rank_two_from_second_moment"
        raise ValueError(message("A", "a rank-2 response", type(whole.response).__name__, hint))
    to_scaled, to_tensor = (ChannelMatrix(np.diag(np.array(OFF_DIAGONAL) ** power)) for power in (1.0, -1.0))

    def in_tensors(iteration: int, x: torch.Tensor, residual: float) -> bool | None:
        return None if callback is None else callback(iteration, to_tensor(x), residual)

    solution = fista(
        A @ to_tensor,
        y,
        regularisers=[PositiveDefinite(scaled=True), *as_list(regularisers)],
        weights=weights,
        iterations=iterations,
        noise_level=noise_level,
        tolerance=tolerance,
        x0=None if x0 is None else to_scaled(misfit_of(A, y, weights).start(x0)),
        callback=callback if isinstance(callback, type) or not callable(callback) else in_tensors,
        progress=progress,
        checkpoint=checkpoint,
    )
    return replace(solution, x=to_tensor(solution.x))
