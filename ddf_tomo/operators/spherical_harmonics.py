"""Real spherical harmonics of even order: evaluation, quadrature, fits, products.

Convention (MUMOTT's, so that coefficient arrays are interchangeable): orders ``ℓ = 0, 2, …, ℓ_max`` and within each
``m = −ℓ … ℓ``; the mean square of every function over the sphere is 1; no Condon–Shortley phase; ``m > 0`` goes with
``cos mφ``, ``m < 0`` with ``sin |m|φ``. A coefficient array has its ``K = (ℓ_max + 1)(ℓ_max + 2)/2`` numbers last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isqrt, sqrt
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import check_broadcast, check_shape, dense, even_order, integer, message, real_array

__all__ = [
    "coefficient_count",
    "evaluate",
    "fit",
    "from_function",
    "half_sphere_grid",
    "multiply",
    "order_of",
    "orders",
    "power",
    "resize",
    "sphere_quadrature",
]
LARGEST_COUNT = 10**7

Array = TypeVar("Array", NDArray[Any], Tensor)


def coefficient_count(ell_max: int) -> int:
    """Number of even-order coefficients up to ``ell_max``.

    Parameters
    ----------
    ell_max
        Highest order; even.

    Examples
    --------
    >>> [coefficient_count(ell) for ell in (0, 2, 4, 6, 8)]
    [1, 6, 15, 28, 45]
    """
    order = even_order(ell_max)
    return (order + 1) * (order + 2) // 2


def order_of(count: int, argument: str = "coefficients") -> int:
    """The ``ell_max`` whose arrays hold ``count`` coefficients; inverse of `coefficient_count`.

    Parameters
    ----------
    count
        Length of the last axis.
    argument
        Name for the error message.

    Raises
    ------
    ValueError
        If no even order has that many.

    Examples
    --------
    >>> order_of(15)
    4
    """
    count = integer(count, argument, high=LARGEST_COUNT)
    order = (isqrt(8 * count + 1) - 3) // 2
    if order < 0 or order % 2 or (order + 1) * (order + 2) // 2 != count:
        raise ValueError(message(argument, "1, 6, 15, 28, 45, … coefficients on the last axis", count))
    return order


def orders(ell_max: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(ell, m)`` of every coefficient, each of shape ``(K,)``.

    Parameters
    ----------
    ell_max
        Highest order; even.

    Examples
    --------
    >>> ell, m = orders(2)
    >>> ell.tolist(), m.tolist()
    ([0, 2, 2, 2, 2, 2], [0, -2, -1, 0, 1, 2])
    """
    pairs = [(ell, m) for ell in range(0, even_order(ell_max) + 1, 2) for m in range(-ell, ell + 1)]
    table = np.array(pairs, np.int64)
    return table[:, 0], table[:, 1]


def evaluate(directions: Array, ell_max: int) -> Array:
    """Values of all harmonics up to ``ell_max`` in the given directions.

    The functions are polynomials in the Cartesian components (the recurrence over ℓ of the normalised associated
    Legendre functions with ``sinᵐθ`` moved into ``Re, Im (x + iy)ᵐ``), so that they are differentiable everywhere, at
    the poles too [Limpanuparb & Milthorpe 2014, arXiv 1410.1748].

    Parameters
    ----------
    directions
        Shape ``(..., 3)``; the length does not matter. A tensor gives a tensor of its dtype and device, with
        gradients; anything else gives a float64 array.
    ell_max
        Highest order; even.

    Returns
    -------
    array or tensor
        Shape ``(..., K)``.

    Raises
    ------
    ValueError
        If the last axis does not have length 3, or (arrays only, a tensor gives the mean over all directions there) a
        direction has length zero.

    Examples
    --------
    >>> import numpy as np
    >>> evaluate(np.array([0.0, 0.0, 1.0]), 2).round(6).tolist()
    [1.0, 0.0, 0.0, 2.236068, 0.0, 0.0]
    """
    order = even_order(ell_max)
    if not isinstance(directions, Tensor):
        array = real_array(directions, "directions")
        check_shape(array.shape[-1:], "directions (last axis)", (3,))
        if not np.abs(array).max(axis=-1, initial=0.0).all():
            raise ValueError(message("directions", "vectors of non-zero length", "a zero vector"))
        return evaluate(torch.from_numpy(array), order).numpy()
    check_shape(directions.shape[-1:], "directions (last axis)", (3,))
    vectors = real_tensor(directions, "directions")
    # Scaling by the largest component first keeps the squares from over- and underflowing.
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    unit = scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp_min(0.5)
    x, y, z = unit.unbind(-1)
    length_squared = (unit * unit).sum(-1).detach()  # 1, or 0 for a zero vector
    columns: dict[tuple[int, int], Tensor] = {}
    cosine, sine, sectoral = torch.ones_like(x), torch.zeros_like(x), torch.ones_like(x)
    for m in range(order + 1):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine  # Re and Im of (x + iy)^m
            sectoral = sectoral * sqrt((2 * m + 1) / (2 * m))
        below, legendre = torch.zeros_like(x), sectoral
        for ell in range(m, order + 1):
            if ell > m:
                step = sqrt((4 * ell**2 - 1) / (ell**2 - m**2))
                back = sqrt(((ell - 1) ** 2 - m**2) / (4 * (ell - 1) ** 2 - 1))
                below, legendre = legendre, step * (z * legendre - back * length_squared * below)
            if ell % 2 == 0:
                columns[ell, m] = legendre if m == 0 else sqrt(2) * legendre * cosine
                if m:
                    columns[ell, -m] = sqrt(2) * legendre * sine
    return torch.stack([columns[ell, m] for ell in range(0, order + 1, 2) for m in range(-ell, ell + 1)], -1)


def half_sphere_grid(count: int) -> NDArray[np.float64]:
    """``count`` nearly evenly spread directions with ``z > 0`` (Fibonacci spiral), shape ``(count, 3)``.

    Each stands for its opposite too; all stand for the same area [Swinbank & Purser 2006, Q. J. R. Meteorol. Soc.].

    Parameters
    ----------
    count
        How many directions, at least 1.

    Examples
    --------
    >>> half_sphere_grid(500).shape
    (500, 3)
    """
    n = np.arange(integer(count, "count", low=1, high=LARGEST_COUNT))
    z = (n + 0.5) / len(n)
    azimuth = np.pi * (3 - sqrt(5)) * n
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=-1)


def sphere_quadrature(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions ``(N, 3)`` and weights ``(N,)`` that give the *mean* of polynomials up to ``degree`` exactly.

    Gauss–Legendre nodes in ``z`` times equal steps in azimuth; the weights are positive and sum to 1.

    Parameters
    ----------
    degree
        Highest degree that is exact, 0 … 512.

    Examples
    --------
    >>> directions, weights = sphere_quadrature(4)
    >>> round(float(weights @ directions[:, 0] ** 4), 12)
    0.2
    """
    degree = integer(degree, "degree", low=0, high=512)
    z, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    azimuth = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    radius = np.sqrt(1 - z**2)[:, None]
    grid = np.broadcast_arrays(radius * np.cos(azimuth), radius * np.sin(azimuth), z[:, None])
    return np.stack(grid, axis=-1).reshape(-1, 3), np.repeat(weights / (2 * (degree + 1)), degree + 1)


def from_function(
    function: Callable[[NDArray[np.float64]], ArrayLike], ell_max: int, *, degree: int | None = None
) -> NDArray[np.float64]:
    """Coefficients of the projection of a function onto the harmonics up to ``ell_max``.

    Parameters
    ----------
    function
        Takes directions ``(N, 3)`` and returns values ``(..., N)``.
    ell_max
        Highest order; even.
    degree
        Degree of the quadrature, ``2 ell_max + 32`` by default: exact where ``function`` is a polynomial up to degree
        ``degree − ell_max``; raise it for sharply peaked functions.

    Returns
    -------
    array
        Shape ``(..., K)``.

    Examples
    --------
    >>> from_function(lambda q: q[:, 2] ** 2, 2)[[0, 3]].round(6).tolist()
    [0.333333, 0.298142]
    """
    order = even_order(ell_max)
    degree = 2 * order + 32 if degree is None else integer(degree, "degree", low=2 * order, high=512)
    directions, weights = sphere_quadrature(degree)
    if not callable(function):
        raise TypeError(message("function", "a function of directions", type(function).__name__))
    values = real_array(function(directions), "values of function")
    check_shape(values.shape[-1:], "values of function (last axis)", (len(weights),))
    return (values * weights) @ evaluate(directions, order)


def fit(directions: ArrayLike, values: ArrayLike, ell_max: int) -> NDArray[np.float64]:
    """Least-squares coefficients ``(..., K)`` of samples ``(..., N)`` in the directions ``(N, 3)``.

    Where the samples do not determine all coefficients, the solution of least norm is returned.

    Parameters
    ----------
    directions
        Shape ``(N, 3)``; the length does not matter.
    values
        Samples, shape ``(..., N)``.
    ell_max
        Highest order; even.

    Examples
    --------
    >>> grid = half_sphere_grid(40)
    >>> fit(grid, 3 + grid[:, 2] ** 2, 2).round(6)[0].item()
    3.333333
    """
    points = real_array(directions, "directions", (None, 3))
    samples = real_array(values, "values")
    check_shape(samples.shape[-1:], "values (last axis)", (len(points),))
    return samples @ np.linalg.pinv(evaluate(points, ell_max)).T


@lru_cache(maxsize=32)
def _product_rule(first: int, second: int, ell_max: int) -> tuple[Tensor, Tensor, Tensor]:
    directions, weights = sphere_quadrature(first + second + ell_max)
    values = [torch.from_numpy(evaluate(directions, order)) for order in (first, second, ell_max)]
    return values[0], values[1], values[2] * torch.from_numpy(weights)[:, None]


def multiply(first: Array, second: Array, ell_max: int | None = None) -> Array:
    """Coefficients of the product of two functions (the contraction with Gaunt's coefficients, by exact quadrature).

    Parameters
    ----------
    first, second
        Coefficients ``(..., K₁)`` and ``(..., K₂)``, broadcast against each other; both arrays or both tensors.
    ell_max
        Order at which the product is cut; the sum of both orders, which loses nothing, by default.

    Returns
    -------
    array or tensor
        Shape ``(..., K)``.

    Examples
    --------
    >>> import numpy as np
    >>> multiply(np.array([2.0]), np.array([3.0]))
    array([6.])
    """
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        arrays = [torch.from_numpy(real_array(a, name)) for a, name in ((first, "first"), (second, "second"))]
        return multiply(arrays[0], arrays[1], ell_max).numpy()
    first, second = real_tensor(first, "first"), real_tensor(second, "second")
    check_broadcast(first.shape[:-1], second.shape[:-1], "second")
    order_1, order_2 = order_of(_last(first, "first"), "first"), order_of(_last(second, "second"), "second")
    order = even_order(order_1 + order_2 if ell_max is None else ell_max)
    dtype = torch.promote_types(first.dtype, second.dtype)
    values_1, values_2, weighted = (m.to(first.device, dtype) for m in _product_rule(order_1, order_2, order))
    return ((first.to(dtype) @ values_1.T) * (second.to(dtype) @ values_2.T)) @ weighted


def power(coefficients: Array) -> Array:
    """Mean square of each order's part of the function: shape ``(..., K)`` gives ``(..., ℓ_max/2 + 1)``.

    Parameters
    ----------
    coefficients
        Shape ``(..., K)``; a tensor gives a tensor.

    Examples
    --------
    >>> import numpy as np
    >>> power(np.array([2.0, 0, 0, 1, 0, 3])).tolist()
    [4.0, 10.0]
    """
    if not isinstance(coefficients, Tensor):
        return power(torch.from_numpy(real_array(coefficients, "coefficients"))).numpy()
    order = order_of(_last(coefficients, "coefficients"))
    blocks = (
        real_tensor(coefficients, "coefficients")
        .square()
        .split([2 * ell + 1 for ell in range(0, order + 1, 2)], dim=-1)
    )
    return torch.stack([block.sum(-1) for block in blocks], dim=-1)


def resize(coefficients: Array, ell_max: int) -> Array:
    """The same function cut to, or padded with zeros up to, another ``ell_max``.

    Parameters
    ----------
    coefficients
        Shape ``(..., K)``; a tensor gives a tensor.
    ell_max
        Highest order of the result; even.

    Examples
    --------
    >>> import numpy as np
    >>> resize(np.array([2.0]), 2).tolist()
    [2.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    if not isinstance(coefficients, Tensor):
        return resize(torch.from_numpy(real_array(coefficients, "coefficients")), ell_max).numpy()
    found = _last(coefficients, "coefficients")
    order_of(found)
    return torch.nn.functional.pad(real_tensor(coefficients, "coefficients"), (0, coefficient_count(ell_max) - found))


def real_tensor(tensor: Tensor, argument: str) -> Tensor:
    """The tensor itself if it holds floating-point numbers, float64 if integers; complex numbers are refused.

    Examples
    --------
    >>> real_tensor(torch.tensor([1, 2]), "values").dtype
    torch.float64
    """
    if dense(tensor, argument).is_complex():
        raise TypeError(message(argument, "real numbers", "complex numbers"))
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)


def _last(tensor: Tensor, argument: str) -> int:
    if tensor.ndim == 0:
        raise ValueError(message(argument, "coefficients on the last axis", "a scalar"))
    return tensor.shape[-1]
