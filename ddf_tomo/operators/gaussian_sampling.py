"""Weighted means over the neighbours of displaced points, through Gaussians that differ from pixel to pixel.

``F(x) = Σ_n w(n) c(n)``, ``w(n) ∝ G_M(x − u − n)``, ``Σ_n w(n) = 1``, with a displacement u and a covariance M in each
pixel, the same for a stack of images. With ``p = M⁻¹ (x − u − n)`` the logarithmic derivatives of G are quadratic in p,

    ∂/∂u: p,   ∂/∂M_jj: ½ p_j² + const,   ∂/∂M_jk: p_j p_k + const,   ∂/∂M_kk: ½ p_k² + const

(the heat equation, ∂G/∂M = ½ ∂∂G), and those of w are the same less their mean. So a tangent is a sum with other
weights, and a gradient needs five moments of the products of image and cotangent. Outside, images go on as in a
mirror that stands on the outermost pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddf_tomo._threads import in_parallel
from ddf_tomo.operators.base import sum_of

LANES = 8  # images that compiled code takes at once
# Standard deviations after which Gaussians are cut off: what is left out is 3e-7 and 1e-14 of their sum.
REACH = {torch.float32: 5.5, torch.float64: 8.0}
AT_ONCE = 1 << 22  # numbers of a part of plain sums


class Taps(NamedTuple):
    """Some neighbours of each pixel, made by `taps`: their places in the flat image and weights, both of shape
    (neighbour, row, column), and ``p = M⁻¹ (x − u − n)``, (neighbour, row, column, 2)."""

    place: Tensor
    weight: Tensor
    p: Tensor


def mirrored(index: Tensor, size: int) -> Tensor:
    """Places outside ``[0, size)`` as a mirror on the outermost pixels shows them.

    Examples
    --------
    >>> mirrored(torch.arange(-2, 6), 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(2 * size - 2, 1)
    index = index.abs() % period
    return torch.where(index < size, index, period - index)


def inverse(matrix: Tensor) -> Tensor:
    """``(jj, jk, kk)`` of the inverses of symmetric 2 × 2 matrices ``(jj, jk, kk)`` on the last axis.

    Examples
    --------
    >>> inverse(torch.tensor([2.0, 1.0, 1.0]))
    tensor([ 1., -1.,  2.])
    """
    jj, jk, kk = matrix.unbind(-1)
    return torch.stack([kk, -jk, jj], -1) / (jj * kk - jk**2)[..., None]


def taps(displacement: Tensor, matrix: Tensor, reach: float, images: int = 1) -> Iterator[Taps]:
    """All neighbours n of the points ``x − u`` within ``reach`` standard deviations, as one reads the formula.

    They come in parts, so that memory is bounded for that many ``images``.

    Examples
    --------
    >>> found = list(taps(torch.zeros(3, 3, 2), torch.tensor([1.0, 0.0, 1.0]).expand(3, 3, 3), 6.0))
    >>> round(sum(float(part.weight[:, 0, 0].sum()) for part in found), 9)
    1.0
    """
    displacement, matrix = displacement.double(), matrix.double()
    rows, columns = displacement.shape[:2]
    grid = torch.meshgrid(*(torch.arange(n, device=matrix.device) for n in (rows, columns)), indexing="ij")
    point = torch.stack(grid, -1) - displacement
    nearest = point.round().long()
    a, b, d = inverse(matrix).unbind(-1)
    far = (math.ceil(reach * math.sqrt(float(matrix[..., axis].max())) + 0.5) for axis in (0, 2))
    lags = torch.cartesian_prod(*(torch.arange(-n, n + 1, device=matrix.device) for n in far))

    def all_taps() -> Iterator[Taps]:
        for lag in lags.split(max(1, AT_ONCE // (rows * columns * images))):
            n = nearest + lag[:, None, None]
            y_j, y_k = (point - n).unbind(-1)
            p = torch.stack([a * y_j + b * y_k, b * y_j + d * y_k], -1)
            square = p[..., 0] * y_j + p[..., 1] * y_k
            weight = torch.where(square <= reach**2, torch.exp(-0.5 * square), 0)
            yield Taps(mirrored(n[..., 0], rows) * columns + mirrored(n[..., 1], columns), weight, p)

    total = sum_of(part.weight.sum(0) for part in all_taps())
    for part in all_taps():
        yield part._replace(weight=part.weight / total)


def sample(
    images: Tensor, displacement: Tensor, matrix: Tensor, *, transposed: bool = False, plain: bool = False
) -> Tensor:
    """``Σ_n G_M(x − u − n) images[n]`` at each pixel x, or its transpose, for images on the last axis.

    Differentiable once, forwards and backwards, in all three.

    Parameters
    ----------
    images : (row, column, image)
        float32 or float64.
    displacement : (row, column, 2)
        u_j, u_k in pixels.
    matrix : (row, column, 3)
        M_jj, M_jk, M_kk in square pixels, positive definite; below about 1 the weights do not sum to 1.
    transposed
        Whether to give ``Σ_x G_M(x − u − n) images[x]`` at each pixel n instead.
    plain
        Whether to use torch operations on the CPU too, where compiled code is faster.

    Examples
    --------
    >>> ones, M = torch.ones(4, 4, 1), torch.tensor([2.0, 0.5, 1.5]).expand(4, 4, 3)
    >>> sample(ones, torch.full((4, 4, 2), 0.3), M)[..., 0].allclose(torch.ones(4, 4), atol=1e-5)
    True
    """
    return _Sample.apply(images, displacement, matrix, None, transposed, plain or images.device.type != "cpu")


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(
        images: Tensor, displacement: Tensor, matrix: Tensor, quadratic: Tensor | None, transposed: bool, plain: bool
    ) -> Tensor:
        run = _plain_sums if plain else _compiled_sums
        return run(images.detach(), displacement.detach(), matrix.detach(), quadratic, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        images, displacement, matrix, quadratic, ctx.transposed, ctx.plain = inputs
        ctx.is_first = quadratic is None
        ctx.set_materialize_grads(False)  # a sum over neighbours for a tangent of zeros would be a waste
        ctx.save_for_backward(images, displacement, matrix)
        ctx.save_for_forward(images, displacement, matrix)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if gradient is None:
            return (None,) * 6
        if not ctx.is_first:
            raise NotImplementedError("image formation is differentiable once, and its tangents are not")
        images, displacement, matrix = ctx.saved_tensors
        of_images = of_displacement = of_matrix = None
        if ctx.needs_input_grad[0]:
            of_images = _Sample.apply(gradient, displacement, matrix, None, not ctx.transposed, ctx.plain)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            pair = (gradient, images) if ctx.transposed else (images, gradient)
            found = _Moments.apply(*pair, displacement, matrix, ctx.plain)
            of_displacement, of_matrix = found[..., :2], found[..., 2:] * found.new_tensor([0.5, 1.0, 0.5])
        return of_images, of_displacement, of_matrix, None, None, None

    @staticmethod
    def jvp(ctx: Any, of_images: Tensor | None, of_u: Tensor | None, of_matrix: Tensor | None, *_: None) -> Any:
        images, displacement, matrix = ctx.saved_tensors
        total: Any = 0
        if of_images is not None:
            total = _Sample.apply(of_images, displacement, matrix, None, ctx.transposed, ctx.plain)
        if of_u is not None or of_matrix is not None:
            linear = torch.zeros_like(displacement) if of_u is None else of_u
            square = torch.zeros_like(matrix) if of_matrix is None else of_matrix * matrix.new_tensor([0.5, 1.0, 0.5])
            quadratic = torch.cat([linear.to(square), square], -1)
            total = total + _Sample.apply(images, displacement, matrix, quadratic, ctx.transposed, ctx.plain)
        return total


class _Moments(torch.autograd.Function):
    """``Σ_n w(n) (h(n) − h̄) (p_j, p_k, p_j², p_j p_k, p_k²)``, ``h(n) = gradient[x] · images[n]``, h̄ its mean."""

    @staticmethod
    def forward(images: Tensor, gradient: Tensor, displacement: Tensor, matrix: Tensor, plain: bool) -> Tensor:
        run = _plain_moments if plain else _compiled_moments
        return run(images.detach(), gradient.detach(), displacement.detach(), matrix.detach()).to(matrix.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise NotImplementedError("image formation is differentiable once: there is no gradient of its gradient")


def _quadratic(q: Tensor, p: Tensor) -> Tensor:
    a, b = p.unbind(-1)
    return a * (q[..., 0] + a * q[..., 2] + b * q[..., 3]) + b * (q[..., 1] + b * q[..., 4])


def _plain_sums(images: Tensor, u: Tensor, matrix: Tensor, quadratic: Tensor | None, transposed: bool) -> Tensor:
    flat = images.reshape(-1, images.shape[-1])
    neighbours = partial(taps, u, matrix, REACH[images.dtype], images.shape[-1])
    result = torch.zeros_like(images, memory_format=torch.contiguous_format)
    rows = result.view(flat.shape)
    q = None if quadratic is None else quadratic.detach().double()
    mean = 0 if q is None else sum_of((part.weight * _quadratic(q, part.p)).sum(0) for part in neighbours())
    for part in neighbours():
        weight = part.weight if q is None else part.weight * (_quadratic(q, part.p) - mean)
        weight, place = weight.flatten(1)[..., None].to(images.dtype), part.place.flatten(1)
        if transposed:
            rows.index_add_(0, place.flatten(), (weight * flat).flatten(0, 1))
        else:
            rows += (weight * flat[place]).sum(0)
    return result


def _plain_moments(images: Tensor, gradient: Tensor, u: Tensor, matrix: Tensor) -> Tensor:
    flat, against = (each.reshape(-1, images.shape[-1]) for each in (images, gradient))
    neighbours = partial(taps, u, matrix, REACH[images.dtype], images.shape[-1])

    def h(part: Taps) -> Tensor:
        return (flat[part.place.flatten(1)] * against).sum(-1).reshape(part.weight.shape).double()

    def powers(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([a, b, a * a, a * b, b * b], -1)

    mean = sum_of((part.weight * h(part)).sum(0) for part in neighbours())
    return sum_of(
        ((part.weight * (h(part) - mean))[..., None] * powers(*part.p.unbind(-1))).sum(0) for part in neighbours()
    )


def _compiled_sums(images: Tensor, u: Tensor, matrix: Tensor, quadratic: Tensor | None, transposed: bool) -> Tensor:
    from ddf_tomo.operators import _gaussian_kernel as kernel

    padded, common = _padded(images), _common(u, matrix, images.dtype)
    factors = torch.zeros(0, 0, 0, dtype=torch.float64) if quadratic is None else quadratic.detach()
    of_weights = (common[0], common[1], factors.double().contiguous().numpy(), *common[2:])
    result = torch.zeros_like(padded) if transposed else torch.empty_like(padded)
    sums: Any = kernel.scatter if transposed else kernel.gather
    work = partial(sums, padded.numpy(), *of_weights, result.numpy())
    in_parallel(padded.shape[-1] // LANES if transposed else len(padded), 1 if transposed else 8, work)
    return result if result.shape == images.shape else result[..., : images.shape[-1]].clone()


def _compiled_moments(images: Tensor, gradient: Tensor, u: Tensor, matrix: Tensor) -> Tensor:
    from ddf_tomo.operators import _gaussian_kernel as kernel

    common = _common(u, matrix, images.dtype)
    result = torch.empty(*u.shape[:2], 5, dtype=torch.float64)
    moments: Any = kernel.moments
    work = partial(moments, _padded(images).numpy(), _padded(gradient).numpy(), *common, result.numpy())
    in_parallel(len(images), 8, work)
    return result


def _padded(images: Tensor) -> Tensor:
    """Whole registers of images."""
    missing = -images.shape[-1] % LANES
    return (torch.nn.functional.pad(images, (0, missing)) if missing else images).contiguous()


def _common(u: Tensor, matrix: Tensor, dtype: torch.dtype) -> tuple[Any, ...]:
    """Displacement, matrix, reach, and how many taps there may be."""
    reach = REACH[dtype]
    rows, columns = (2 * reach * math.sqrt(max(float(matrix[..., axis].max()), 0.0)) + 2 for axis in (0, 2))
    arrays = (each.double().contiguous().numpy() for each in (u, matrix))
    return *arrays, reach, int(rows) * int(columns) + 8
