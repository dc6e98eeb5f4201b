"""Blur whose width and direction differ from pixel to pixel, together with a displacement.

Two forms, each the transpose of the other (with the displacement's sign turned):

* *gather*, the model of image formation: ``F(x) = ∫ K_C(x)(x − u(x) − y) R(y) dy``: every pixel looks at a blurred
  image, at a displaced place. What is uniform stays uniform; counts are conserved to first order in the derivatives
  of u and C (for u, `ddf_tomo.operators.flux_factor` restores them);
* *scatter* (``conservative=True``): ``I(y) = ∫ K_C(x)(y − x − u(x)) f(x) dx``: every pixel sends its light to where
  it goes. Counts are conserved whatever C and u do: what would leave the frame is kept by a mirror at its edge.

Images are sums of Gaussians (`ddf_tomo.operators.warping`), kernels are mixtures of Gaussians: their convolution is
known exactly, so that blurs far below a pixel are as right as wide ones, and derivatives by C at C = 0 are ``½ ∂∂R``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, choice, flag, message, number
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.base import sum_of
from ddf_tomo.operators.blur_kernels import Component, checked_covariance, components_of, kernel_of
from ddf_tomo.operators.gaussian_sampling import sample
from ddf_tomo.operators.low_rank_blur import LowRank
from ddf_tomo.operators.warping import FARTHEST, VARIANCE, floating, prefilter

__all__ = ["DirectionalBlur"]
METHODS = ("auto", "plain", "low-rank")


class DirectionalBlur(OpaqueOperator):
    """Blur of images ``(..., row, column)`` by kernels that differ from pixel to pixel; `.T` is the exact transpose.

    Differentiable in the images (to any order), and in covariance and displacement (once). Kernels sum to one
    exactly; no blur and no displacement is the identity.

    Parameters
    ----------
    covariance : (row, column, 3)
        C_jj, C_jk, C_kk of the kernel in square pixels. Eigenvalues may be slightly negative (to -0.5), as estimates
        are: such a kernel sharpens.
    displacement : (row, column, 2), optional
        u_j, u_k in pixels.
    kernel : {"gaussian", "exponential"} or a shape
        See `ddf_tomo.operators.blur_kernels`.
    conservative
        Whether pixels send light (counts are conserved) instead of gathering it.
    method : {"auto", "plain", "low-rank"}
        The sum over all neighbours, compiled where it can be, or in plain torch operations; or a product-convolution
        of a few kernels (`ddf_tomo.operators.low_rank_blur`), whose time does not grow with the width of the blur.
    tolerance
        Of the low-rank form: root mean square error relative to the contrast of a pattern with grains of 2.4 pixels.

    Raises
    ------
    ValueError, TypeError
        For maps of other shapes, NaN, and covariances that are negative or too wide.

    Examples
    --------
    >>> covariance = torch.zeros(33, 33, 3)
    >>> covariance[:, 16:, 0] = 2.0
    >>> stripes = torch.cos(2 * torch.pi * torch.arange(33) / 8)[:, None].expand(33, 33)
    >>> DirectionalBlur(covariance)(stripes)[0, [4, 28]].round(decimals=3)  # 1, and exp(−½ · 2 (2π/8)²)
    tensor([1.0000, 0.5400])
    """

    def __init__(
        self,
        covariance: Any,
        displacement: Any = None,
        kernel: Any = "gaussian",
        *,
        conservative: bool = False,
        method: str = "auto",
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        field = checked_covariance(floating(covariance, "covariance"))
        check_shape(field.shape, "covariance", (None, None, 3))
        moved = field.new_zeros(*field.shape[:2], 2) if displacement is None else floating(displacement, "displacement")
        check_shape(moved.shape, "displacement", (*field.shape[:2], 2))
        if moved.device != field.device:
            raise ValueError(message("displacement", f"a tensor on {field.device}, as covariance", str(moved.device)))
        if float(moved.detach().abs().max()) > FARTHEST:
            raise ValueError(message("displacement", f"at most {FARTHEST:g} pixels", float(moved.detach().abs().max())))
        self.conservative = flag(conservative, "conservative")
        self.method = choice(method, "method", METHODS)
        self.displacement = -moved if self.conservative else moved
        self.components = components_of(kernel_of(kernel), field)
        self.domain_shape = self.range_shape = tuple(field.shape[:2])
        self.device = field.device
        maps = [moved, *(each for pair in self.components for each in pair if isinstance(each, Tensor))]
        self._has_derivatives = any(has_derivative(each) for each in maps)
        self.low_rank: LowRank | None = None
        tolerance = number(tolerance, "tolerance", low=1e-5, high=0.5)
        if self.method == "low-rank":
            self.low_rank = LowRank(self.components, self.displacement, tolerance)
            reached = float(self.low_rank.error.max())
            if reached > 1.5 * tolerance:
                expected = f"at least {reached:.2g}, which {len(self.low_rank.nodes)} kernels reach"
                raise ValueError(message("tolerance", expected, tolerance))

    # One node in torch's graph (and in compiled ones) unless the maps want gradients, too.
    def _apply(self, x: Tensor) -> Tensor:
        return self._blurred(x, self.conservative) if self._has_derivatives else super()._apply(x)

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        return self._blurred(y, not self.conservative) if self._has_derivatives else super()._apply_adjoint(y)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self._blurred(x, self.conservative)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self._blurred(y, not self.conservative)

    # In float64, whatever the images: coefficients of white noise are a hundred times larger than it.
    def _blurred(self, images: Tensor, scatter: bool) -> Tensor:
        flat = images.reshape(-1, *images.shape[-2:]).double()
        if self.low_rank:
            blurred = [transposed(self.low_rank, each) if scatter else self.low_rank(each) for each in flat]
            return torch.stack(blurred).reshape(images.shape).to(images.dtype) if blurred else images.clone()
        u, plain, components = self.displacement.double(), self.method == "plain", self._components()
        # Filtered one by one: products of matrices of other sizes may round otherwise.
        if scatter:
            stack = flat.movedim(0, -1)
            found = sum_of(
                sample(_shared(share, stack), u, covariance + _basis(covariance), transposed=True, plain=plain)
                for share, covariance in components
            )
            result = [prefilter(each, transposed=True) for each in found.movedim(-1, 0)]
        else:
            stack = torch.stack([prefilter(each) for each in flat], -1) if len(flat) else flat.movedim(0, -1)
            result = list(gathered(stack, u, components, plain=plain).movedim(-1, 0))
        return torch.stack(result).reshape(images.shape).to(images.dtype) if result else images.clone()

    def _components(self) -> list[Component]:
        return [(s.double() if isinstance(s, Tensor) else s, c.double()) for s, c in self.components]


def gathered(stack: Tensor, displacement: Tensor, components: list[Component], *, plain: bool = False) -> Tensor:
    """``Σ share G_C * R`` at ``x − u`` for coefficients of images on the last axis.

    Examples
    --------
    >>> C = torch.zeros(9, 9, 3)
    >>> gathered(torch.ones(9, 9, 2), torch.zeros(9, 9, 2), [(0.5, C), (0.5, C + 1)]).shape
    torch.Size([9, 9, 2])
    """
    return sum_of(
        _shared(share, sample(stack, displacement, covariance + _basis(covariance), plain=plain))
        for share, covariance in components
    )


def has_derivative(tensor: Tensor) -> bool:
    """Whether autograd or `torch.func` follows a tensor, backwards or forwards.

    Examples
    --------
    >>> has_derivative(torch.ones(2)), has_derivative(torch.ones(2, requires_grad=True))
    (False, True)
    """
    if tensor.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None


def transposed(function: Any, images: Tensor) -> Tensor:
    """The transpose of a linear function from images to images of the same shape.

    Examples
    --------
    >>> transposed(lambda x: x.cumsum(-1), torch.tensor([[1.0, 2.0]]))
    tensor([[3., 2.]])
    """
    return torch.func.vjp(partial(function), torch.zeros_like(images))[1](images)[0]


def _basis(like: Tensor) -> Tensor:
    return like.new_tensor([VARIANCE["gaussian"], 0.0, VARIANCE["gaussian"]])


def _shared(share: float | Tensor, stack: Tensor) -> Tensor:
    if isinstance(share, Tensor):
        return share[..., None] * stack
    return stack if math.isclose(share, 1.0) else share * stack
