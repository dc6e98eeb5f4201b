"""Symmetric 3×3 tensors beside harmonics of order ℓ ≤ 2, and second-moment data beside rank-2 data.

A tensor is six numbers in upper-triangle order ``(xx, xy, xz, yy, yz, zz)``; its function on the sphere is
``f(q̂) = q̂ᵀ M q̂``.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, message, real_array
from ddf_tomo.operators.spherical_harmonics import Array, order_of, real_tensor, resize

__all__ = [
    "coefficients_from_tensor",
    "from_matrix",
    "map_covariance",
    "map_precision",
    "rank_two_from_second_moment",
    "second_moment_from_rank_two",
    "second_moment_tensor",
    "tensor_from_coefficients",
    "to_matrix",
]
ROWS, COLUMNS = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)  # of the six numbers
POSITIONS = (0, 1, 2, 1, 3, 4, 2, 4, 5)  # of the nine entries among the six numbers

_A, _B = 1 / sqrt(15), 1 / (3 * sqrt(5))
# Harmonics of order 2 are √15 (xy, yz, xz), √5/2 (3z² − 1) and √15/2 (x² − y²); rows 1, m = −2 … 2.
COEFFICIENTS_FROM_TENSOR: Final = np.array(
    [
        [1 / 3, 0, 0, 1 / 3, 0, 1 / 3],
        [0, 2 * _A, 0, 0, 0, 0],
        [0, 0, 0, 0, 2 * _A, 0],
        [-_B, 0, 0, -_B, 0, 2 * _B],
        [0, 0, 2 * _A, 0, 0, 0],
        [_A, 0, 0, -_A, 0, 0],
    ]
)
TENSOR_FROM_COEFFICIENTS: Final = np.linalg.inv(COEFFICIENTS_FROM_TENSOR)
# Mean of q̂ q̂ᵀ f: of the traceless part 2/15, of the isotropic part 1/3.
SECOND_MOMENTS: Final = np.array(
    [
        [1 / 3, 0, 0, -_B, 0, _A],
        [0, _A, 0, 0, 0, 0],
        [0, 0, 0, 0, _A, 0],
        [1 / 3, 0, 0, -_B, 0, -_A],
        [0, 0, _A, 0, 0, 0],
        [1 / 3, 0, 0, 2 * _B, 0, 0],
    ]
)
RANK_TWO_FROM_SECOND_MOMENT: Final = np.array([[1.5, 0.0, -0.5], [0.0, 2.0, 0.0], [-0.5, 0.0, 1.5]])
SECOND_MOMENT_FROM_RANK_TWO: Final = np.array([[0.75, 0.0, 0.25], [0.0, 0.5, 0.0], [0.25, 0.0, 0.75]])
for _table in (
    COEFFICIENTS_FROM_TENSOR,
    TENSOR_FROM_COEFFICIENTS,
    SECOND_MOMENTS,
    RANK_TWO_FROM_SECOND_MOMENT,
    SECOND_MOMENT_FROM_RANK_TWO,
):
    _table.setflags(write=False)


def to_matrix(tensor: Array) -> Array:
    """Six numbers ``(..., 6)`` to symmetric matrices ``(..., 3, 3)``.

    Parameters
    ----------
    tensor
        Shape ``(..., 6)``: xx, xy, xz, yy, yz, zz.

    Examples
    --------
    >>> import numpy as np
    >>> to_matrix(np.arange(6.0)).tolist()
    [[0.0, 1.0, 2.0], [1.0, 3.0, 4.0], [2.0, 4.0, 5.0]]
    """
    if not isinstance(tensor, Tensor):
        return to_matrix(torch.from_numpy(real_array(tensor, "tensor"))).numpy()
    check_shape(tensor.shape[-1:], "tensor (last axis)", (6,))
    return real_tensor(tensor, "tensor")[..., list(POSITIONS)].unflatten(-1, (3, 3))


def from_matrix(matrix: Array) -> Array:
    """Symmetric matrices ``(..., 3, 3)`` to six numbers ``(..., 6)``; of others, the symmetric part is taken.

    Parameters
    ----------
    matrix
        Shape ``(..., 3, 3)``.

    Examples
    --------
    >>> import numpy as np
    >>> from_matrix(np.eye(3)).tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    """
    if not isinstance(matrix, Tensor):
        return from_matrix(torch.from_numpy(real_array(matrix, "matrix"))).numpy()
    check_shape(matrix.shape[-2:], "matrix (last two axes)", (3, 3))
    matrix = real_tensor(matrix, "matrix")
    return ((matrix + matrix.mT) / 2)[..., list(ROWS), list(COLUMNS)]


def coefficients_from_tensor(tensor: Array) -> Array:
    """Coefficients up to ℓ = 2 of ``f(q̂) = q̂ᵀ M q̂``, exact; ``(..., 6)`` to ``(..., 6)``.

    Parameters
    ----------
    tensor
        Shape ``(..., 6)``: xx, xy, xz, yy, yz, zz.

    Examples
    --------
    >>> import numpy as np
    >>> coefficients_from_tensor(np.array([1.0, 0, 0, 1, 0, 1])).round(12)[0].item()
    1.0
    """
    return _apply(COEFFICIENTS_FROM_TENSOR, tensor, "tensor")


def tensor_from_coefficients(coefficients: Array) -> Array:
    """The tensor whose ``q̂ᵀ M q̂`` has these coefficients up to ℓ = 2; inverse of `coefficients_from_tensor`.

    Parameters
    ----------
    coefficients
        Shape ``(..., 6)``: orders 0 and 2.

    Raises
    ------
    ValueError
        If there are not exactly six coefficients: cut higher orders off on purpose (`resize`), or use
        `second_moment_tensor`.

    Examples
    --------
    >>> import numpy as np
    >>> tensor_from_coefficients(np.array([1.0, 0, 0, 0, 0, 0])).round(12).tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    """
    return _apply(TENSOR_FROM_COEFFICIENTS, coefficients, "coefficients")


def second_moment_tensor(coefficients: Array) -> Array:
    """Mean over the sphere of ``q̂ q̂ᵀ f(q̂)``, shape ``(..., K)`` to ``(..., 6)``; only orders ℓ ≤ 2 enter.

    This is the tensor whose eigenvectors and eigenvalues MUMOTT reports. It has the principal directions of the
    ℓ ≤ 2 part, but is not that part's own tensor `tensor_from_coefficients`: its traceless part
    enters with 2/15, its isotropic part with 1/3.

    Parameters
    ----------
    coefficients
        Shape ``(..., K)``.

    Examples
    --------
    >>> import numpy as np
    >>> (3 * second_moment_tensor(np.array([1.0]))).round(12).tolist()
    [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
    """
    if not isinstance(coefficients, Tensor):
        return second_moment_tensor(torch.from_numpy(real_array(coefficients, "coefficients"))).numpy()
    order_of(coefficients.shape[-1] if coefficients.ndim else 0)
    return _apply(SECOND_MOMENTS, resize(coefficients, 2), "coefficients")


def rank_two_from_second_moment(data: Array) -> Array:
    """Second-moment data Θ to rank-2 data ``2Θ − ½ tr(Θ) 1``, channels ``(jj, jk, kk)`` last.

    For ``f = q̂ᵀ M q̂`` a second-moment projection is ``½ M⊥ + ¼ tr(M⊥) 1``, with ``M⊥`` the block of M across the
    beam; the map gives ``M⊥`` back. It is the same in all views, so that it commutes with line integrals: second
    moments of functions with ℓ ≤ 2 are, after it, data of the rank-2 model. Map their noise too
    (`map_covariance`, `map_precision`).

    Parameters
    ----------
    data
        Shape ``(..., 3)``; a tensor gives a tensor, with gradients.

    Examples
    --------
    >>> import numpy as np
    >>> rank_two_from_second_moment(np.array([1.0, 0.0, 1.0])).tolist()
    [1.0, 0.0, 1.0]
    """
    return _apply(RANK_TWO_FROM_SECOND_MOMENT, data, "data")


def second_moment_from_rank_two(data: Array) -> Array:
    """Rank-2 data to second-moment data ``½ Θ + ¼ tr(Θ) 1``; inverse of `rank_two_from_second_moment`.

    Parameters
    ----------
    data
        Shape ``(..., 3)``; a tensor gives a tensor, with gradients.

    Examples
    --------
    >>> import numpy as np
    >>> second_moment_from_rank_two(np.array([1.0, 1.0, 0.0])).tolist()
    [0.75, 0.5, 0.25]
    """
    return _apply(SECOND_MOMENT_FROM_RANK_TWO, data, "data")


def map_covariance(covariance: Array, linear_map: NDArray[Any] = RANK_TWO_FROM_SECOND_MOMENT) -> Array:
    """Covariance ``A C Aᵀ`` of mapped data, ``(..., 3, 3)`` to ``(..., 3, 3)``.

    Independent errors of the three channels do not stay independent: ``jj`` and ``kk`` of the mapped data are
    correlated.

    Parameters
    ----------
    covariance
        Shape ``(..., 3, 3)``.
    linear_map
        The matrix A that maps the data, shape ``(3, 3)``.

    Examples
    --------
    >>> import numpy as np
    >>> map_covariance(np.eye(3)).tolist()
    [[2.5, 0.0, -1.5], [0.0, 4.0, 0.0], [-1.5, 0.0, 2.5]]
    """
    if not isinstance(covariance, Tensor):
        return map_covariance(torch.from_numpy(real_array(covariance, "covariance")), linear_map).numpy()
    check_shape(covariance.shape[-2:], "covariance (last two axes)", (3, 3))
    numbers = real_tensor(covariance, "covariance")
    matrix = torch.tensor(real_array(linear_map, "linear_map", (3, 3))).to(numbers.device, numbers.dtype)
    return matrix @ numbers @ matrix.T


def map_precision(precision: Array, linear_map: NDArray[Any] = RANK_TWO_FROM_SECOND_MOMENT) -> Array:
    """Inverse covariance ``A⁻ᵀ P A⁻¹`` of mapped data; a direction without information (P singular) keeps none.

    Parameters
    ----------
    precision
        Inverse covariance P, shape ``(..., 3, 3)``.
    linear_map
        The matrix A that maps the data, shape ``(3, 3)``; invertible.

    Examples
    --------
    >>> import numpy as np
    >>> map_precision(np.diag([0.0, 4.0, 0.0])).tolist()
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    matrix = real_array(linear_map, "linear_map", (3, 3))
    if not np.linalg.cond(matrix) < 1e12:
        raise ValueError(message("linear_map", "an invertible matrix", matrix.tolist()))
    return map_covariance(precision, np.linalg.inv(matrix).T)


def _apply(table: NDArray[Any], values: Array, argument: str) -> Array:
    if not isinstance(values, Tensor):
        return _apply(table, torch.from_numpy(real_array(values, argument)), argument).numpy()
    check_shape(values.shape[-1:], f"{argument} (last axis)", (table.shape[1],))
    numbers = real_tensor(values, argument)
    return numbers @ torch.tensor(table.T).to(numbers.device, numbers.dtype)
