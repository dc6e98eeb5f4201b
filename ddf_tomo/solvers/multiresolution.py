"""Coarse to fine: a problem is solved with larger pixels and voxels first, and starts from that solution.

Large structures converge slowly on a fine grid, and cost an eighth of the voxels on one twice as coarse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isfunction, signature
from typing import Any

import torch

from ddf_tomo._checks import check_shape, integer, message, size_tuple
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform
from ddf_tomo.solvers.iteration import Solution
from ddf_tomo.solvers.misfit import Misfit

FACTOR = 2
MOST_LEVELS = 8


@torch.no_grad()
def multiresolution(
    solver: Callable[..., Solution],
    A: TensorXRayTransform | XRayTransform,
    y: Any,
    *,
    weights: Any = None,
    levels: int = 2,
    **options: Any,
) -> Solution:
    """Solve with pixels and voxels ``2^(levels - 1)`` times as large, and from there on finer and finer grids.

    On each grid but the last, data are the weighted means of 2 × 2 pixels, in line integrals of its own voxels.

    Parameters
    ----------
    solver
        A solver of this package, or a function that takes the same: ``solver(A, y, weights=…, x0=…, **options)``.
    A
        The operator on the finest grid.
    y, weights
        As in `ddf_tomo.solvers.cgls`.
    levels
        How many grids; 1 is the solver alone. Each side of volume and detector must have a voxel and a pixel on the
        coarsest.
    **options
        For the solver, on each grid: ``iterations``, say. A function of a level's operator is called, and what it gives
        is taken: ``regularisers=lambda A: 0.1 * TotalVariation(A.domain_shape[:3])``.

    Returns
    -------
    Solution
        That of the solver on the finest grid.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry
    >>> from ddf_tomo.solvers import cgls
    >>> A = XRayTransform(Geometry.from_angles(np.linspace(0, 3, 20), 0.0, (16, 16, 16), (16, 16)), channels=1)
    >>> x = torch.zeros(16, 16, 16, 1)
    >>> x[4:12, 4:12, 4:12] = 1.0
    >>> started = multiresolution(cgls, A, A(x), levels=2, iterations=3)
    >>> started.residuals[0] < 0.3 * float(A(x).norm())
    True
    """
    if not _solves(solver):
        raise TypeError(message("solver", "a solver such as ddf_tomo.solvers.cgls", repr(solver)))
    if not isinstance(A, (TensorXRayTransform, XRayTransform)):
        raise TypeError(message("A", "a TensorXRayTransform or an XRayTransform", type(A).__name__))
    most = min(*A.geometry.volume_shape, *A.geometry.detector_shape).bit_length()
    levels = integer(levels, "levels", low=1, high=min(most, MOST_LEVELS))
    misfit = Misfit(A, y, weights)
    start = options.pop("x0", None)
    if levels > 1:
        if start is not None:
            raise ValueError(message("x0", "None, as the coarser grids are where it starts", type(start).__name__))
        coarse = coarser(A)
        data, weight = binned(misfit.y, misfit.weights)
        found = multiresolution(solver, coarse, data / FACTOR, weights=weight * FACTOR**2, levels=levels - 1, **options)
        start = refined(found.x, A.geometry.volume_shape)
    chosen = {n: option(A) if n != "callback" and isfunction(option) else option for n, option in options.items()}
    return solver(A, misfit.y, weights=misfit.weights, x0=start, **chosen)


def _solves(solver: Any) -> bool:
    """Whether it takes what every solver of the package takes."""
    if not callable(solver) or isinstance(solver, type):
        return False
    try:
        parameters = signature(solver).parameters
    except (TypeError, ValueError):
        return False
    return {"weights", "x0"} <= set(parameters) or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def coarser(A: Any) -> Any:
    """The operator on twice as large pixels and voxels (`Geometry.binned`).

    Examples
    --------
    >>> from ddf_tomo import Geometry
    >>> coarser(XRayTransform(Geometry.from_angles(0.0, 0.0, (6, 6, 5), (6, 5)))).domain_shape
    (3, 3, 3, None)
    """
    geometry = A.geometry.binned(FACTOR)
    if isinstance(A, XRayTransform):
        return XRayTransform(geometry, A.requested_backend, A.device, channels=A.channels)
    return TensorXRayTransform(
        geometry,
        A.response,
        A.ell_max,
        backend=A.projector.requested_backend,
        device=A.device,
        chunk_views=A.chunk_views,
    )


def binned(data: torch.Tensor, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted means of 2 × 2 pixels of ``(views, J, K, channels)``, and the sum of their weights.

    Rows and columns that do not fill a bin are dropped; where all weights are zero, so are mean and weight.

    Examples
    --------
    >>> data = torch.arange(4.0).reshape(1, 2, 2, 1)
    >>> means, weights = binned(data, torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 2, 2, 1))
    >>> float(means), float(weights)
    (1.0, 2.0)
    """
    data = as_tensor(data, "data")
    check_shape(data.shape, "data", (None, None, None, None))
    weights = torch.ones_like(data) if weights is None else as_tensor(weights, "weights").to(data)
    check_shape(weights.shape, "weights", data.shape)
    rows, columns = (n // FACTOR * FACTOR for n in data.shape[1:3])

    def summed(values: torch.Tensor) -> torch.Tensor:
        blocks = values[:, :rows, :columns].unflatten(2, (-1, FACTOR)).unflatten(1, (-1, FACTOR))
        return blocks.sum((2, 4))

    total = summed(weights)
    return torch.where(total > 0, summed(weights * data) / torch.where(total > 0, total, 1), 0), total


def refined(x: torch.Tensor, volume_shape: Sequence[int]) -> torch.Tensor:
    """A volume of twice as large voxels about the same centre on a finer grid, by trilinear interpolation.

    Parameters
    ----------
    x
        Shape ``(x, y, z, coefficient)``.
    volume_shape
        Voxels of the finer grid.

    Examples
    --------
    >>> refined(torch.tensor([0.0, 4.0]).reshape(2, 1, 1, 1), (4, 2, 2))[:, 0, 0, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    x = as_tensor(x, "x")
    check_shape(x.shape, "x", (None, None, None, None))
    for axis, fine in enumerate(size_tuple(volume_shape, "volume_shape", 3)):
        coarse = x.shape[axis]
        places = (torch.arange(fine, dtype=torch.float64) + 0.5 - fine / 2) / FACTOR + coarse / 2 - 0.5
        distance = places.clamp(0, coarse - 1)[:, None] - torch.arange(coarse)
        shares = (1 - distance.abs()).clamp_min(0).to(x)
        x = torch.movedim(torch.tensordot(shares, x, dims=([1], [axis])), 0, axis)
    return x.contiguous()
