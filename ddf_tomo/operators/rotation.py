"""Rotation of functions on the sphere in the space of their coefficients (Wigner matrices, real form)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddf_tomo._checks import check_shape, dense, even_order, message, real_array
from ddf_tomo.geometry import ORTHONORMAL_TOLERANCE
from ddf_tomo.operators.spherical_harmonics import Array, evaluate, order_of, real_tensor, sphere_quadrature

__all__ = ["rotate", "wigner_blocks"]


@lru_cache(maxsize=16)
def _nodes(ell_max: int) -> tuple[Tensor, Tensor]:
    """Half of a quadrature of degree ``2 ell_max`` (even functions need no more) and its weighted harmonics."""
    directions, weights = sphere_quadrature(2 * ell_max + 1)  # an even number of azimuths, so that q and −q pair up
    upper = directions[:, 2] > 1e-9
    equator = (np.abs(directions[:, 2]) <= 1e-9) & (np.arange(len(weights)) % (2 * ell_max + 2) <= ell_max)
    chosen = upper | equator
    weighted = 2 * weights[chosen, None] * evaluate(directions[chosen], ell_max)
    return torch.from_numpy(directions[chosen]), torch.from_numpy(weighted)


def wigner_blocks(rotation: ArrayLike | Tensor, ell_max: int) -> list[Tensor]:
    """One orthogonal matrix for each order ``ℓ = 0, 2, …, ell_max``, of shape ``(..., 2ℓ + 1, 2ℓ + 1)``, float64.

    ``D[i, j]`` is the mean over the sphere of ``Y_i(q) Y_j(Rᵀ q)``, by a quadrature that is exact for it, so that
    ``D @ c`` are the coefficients of ``f(Rᵀ q)``. Differentiable in the rotation.

    Parameters
    ----------
    rotation
        Orthogonal matrices, shape ``(..., 3, 3)``.
    ell_max
        Highest order; even.

    Raises
    ------
    ValueError
        If a matrix is not orthogonal to 1e-6.

    Examples
    --------
    >>> import numpy as np
    >>> [tuple(block.shape) for block in wigner_blocks(np.eye(3), 4)]
    [(1, 1), (5, 5), (9, 9)]
    """
    order = even_order(ell_max)
    if not isinstance(rotation, Tensor):
        rotation = torch.from_numpy(real_array(rotation, "rotation"))
    matrix = check_orthogonal(rotation)
    nodes, weighted = (tensor.to(matrix.device) for tensor in _nodes(order))
    turned = evaluate(nodes @ matrix, order)  # rows qᵀR are (Rᵀ q)ᵀ
    sizes = [2 * ell + 1 for ell in range(0, order + 1, 2)]
    return [left.T @ right for left, right in zip(weighted.split(sizes, -1), turned.split(sizes, -1), strict=True)]


def rotate(coefficients: Array, rotation: ArrayLike | Tensor) -> Array:
    """Coefficients of the rotated functions ``g(q) = f(Rᵀ q)``: what pointed along ``q`` points along ``R q``.

    Parameters
    ----------
    coefficients
        Shape ``(..., K)``; a tensor gives a tensor of its dtype, anything else a float64 array.
    rotation
        One orthogonal matrix ``(3, 3)``, or a batch ``(..., 3, 3)`` that is broadcast against the leading axes of the
        coefficients. A mirror image is a rotation to functions that are the same along ±q.

    Returns
    -------
    array or tensor
        Shape ``(..., K)``.

    Raises
    ------
    ValueError
        If the last axis holds no even-order array, or a matrix is not orthogonal to 1e-6.

    Examples
    --------
    >>> import numpy as np
    >>> along_z = np.array([1.0, 0, 0, 1, 0, 0])
    >>> quarter_turn_about_x = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    >>> rotate(along_z, quarter_turn_about_x)[[0, 3, 5]].round(3).tolist()  # now along y
    [1.0, -0.5, -0.866]
    """
    if not isinstance(coefficients, Tensor):
        array = torch.from_numpy(np.atleast_1d(real_array(coefficients, "coefficients")))
        matrix = dense(rotation, "rotation").detach().cpu() if isinstance(rotation, Tensor) else rotation
        return rotate(array, matrix).numpy()
    order = order_of(coefficients.shape[-1] if coefficients.ndim else 0)
    coefficients = real_tensor(coefficients, "coefficients")
    blocks = wigner_blocks(rotation, order)
    parts = coefficients.split([block.shape[-1] for block in blocks], dim=-1)
    turned = [
        (block.to(part.device, part.dtype) @ part[..., None])[..., 0] for block, part in zip(blocks, parts, strict=True)
    ]
    return torch.cat(turned, dim=-1)


def check_orthogonal(rotation: Tensor) -> Tensor:
    """Matrices ``(..., 3, 3)`` as float64, if they are orthogonal; ``ValueError`` if not.

    Examples
    --------
    >>> check_orthogonal(torch.eye(3)).dtype
    torch.float64
    """
    check_shape(rotation.shape[-2:], "rotation (last two axes)", (3, 3))
    matrix = real_tensor(rotation, "rotation").to(torch.float64)
    gram = matrix.detach() @ matrix.detach().mT
    defects = (gram - torch.eye(3, dtype=torch.float64, device=gram.device)).abs().nan_to_num(torch.inf)
    defect = float(defects.max()) if defects.numel() else 0.0
    if defect > ORTHONORMAL_TOLERANCE:
        raise ValueError(message("rotation", "orthogonal matrices", f"a departure of {defect:.2g}"))
    return matrix
