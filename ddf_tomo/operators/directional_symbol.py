"""The symbol of ``Aᵀ A``: what all views together know of structure with a given frequency.

A view ``v`` knows the Fourier transform of the volume in the plane across its beam. In the limit of many views ``Aᵀ A``
multiplies the coefficients at frequency ξ with the matrix ``G(ξ̂) / |ξ|``, where ``G(ξ̂) = Σ_v δ(ξ̂ · p_v) R_vᵀ R_v``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ddf_tomo._checks import check_shape, message, number, real_array
from ddf_tomo.operators.base import as_tensor

PAIRS_AT_ONCE = 2**22
NARROWEST = 1e-3  # radians
UNIT_TOLERANCE = 1e-3


def directional_symbol(matrix: Any, beams: ArrayLike, directions: ArrayLike, width_rad: float) -> torch.Tensor:
    """``G(ξ̂) = Σ_v δ(ξ̂ · p_v) R_vᵀ R_v`` for unit vectors ξ̂, with a δ as wide as the spacing of the views.

    The δ is ``(3/2 - s²/2w²) exp(-s²/2w²) / (w √2π)`` of the sine ``s`` between beam and plane: its integral is 1 and
    its second moment 0. Views that are a little off the plane see a little else there, so that with a mere Gaussian
    they would pretend to know of more coefficients than those in the plane do: errors of order ``w²``, which here
    cancel. As the price of that, eigenvalues of ``G`` near zero may be slightly negative.

    Parameters
    ----------
    matrix
        Response matrices ``R_v``, shape ``(views, channels, coefficients)``; with the roots of weights in them if there
        are any.
    beams
        Unit vectors ``p_v``, shape ``(views, 3)``.
    directions
        Unit vectors ξ̂, shape ``(directions, 3)``.
    width_rad
        ``w``, in radians: at least 0.001, and for ``G`` to be smooth the spacing of the views (`view_spacing`).

    Returns
    -------
    torch.Tensor
        Shape ``(directions, coefficients, coefficients)``, dtype and device of ``matrix``.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, vectors are no unit vectors, or the width is too small.

    Examples
    --------
    One axis, 90 views over half a turn: 90 / π views a radian.

    >>> import numpy as np
    >>> turn = np.arange(90) * np.pi / 90
    >>> beams = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    >>> G = directional_symbol(torch.ones(90, 1, 1), beams, [[1.0, 0.0, 0.0]], np.pi / 90)
    >>> round(float(G) * np.pi / 90, 3)
    1.0
    """
    R = as_tensor(matrix, "matrix")
    if not R.is_floating_point():
        raise TypeError(message("matrix", "floating-point numbers", R.dtype))
    check_shape(R.shape, "matrix", (None, None, None))
    views, _, coefficients = R.shape
    p, grid = _unit(beams, "beams", views).to(R), _unit(directions, "directions").to(R)
    w = number(width_rad, "width_rad", low=NARROWEST, high=math.pi)
    squares = (R.mT @ R).flatten(1)
    G = R.new_empty(len(grid), coefficients * coefficients)
    size = max(1, PAIRS_AT_ONCE // max(views, 1))
    for start in range(0, len(grid), size):
        s = (grid[start : start + size] @ p.T).square_().div_(2 * w * w)
        delta = torch.exp(-s).mul_((1.5 - s).div_(w * math.sqrt(2 * math.pi)))
        torch.mm(delta, squares, out=G[start : start + size])
    return G.unflatten(1, (coefficients, coefficients))


def _unit(vectors: ArrayLike, argument: str, count: int | None = None) -> torch.Tensor:
    array = real_array(vectors, argument, (count, 3))
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(array, axis=1)
    if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        raise ValueError(message(argument, "unit vectors", f"a length of {lengths[np.abs(lengths - 1).argmax()]:.3g}"))
    return torch.from_numpy(array)
