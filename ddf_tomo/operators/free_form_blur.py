"""Blur by a few kernels of any shape, mixed with weights that differ from pixel to pixel (product-convolution)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, message
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.directional_blur import transposed
from ddf_tomo.operators.gaussian_sampling import mirrored
from ddf_tomo.operators.warping import floating

__all__ = ["FreeFormBlur"]
SUM_TOLERANCE = 1e-4


class FreeFormBlur(LinearOperator):
    """``F(x) = Σ_r w_r(x) (k_r * R)(x)`` for images ``(..., row, column)``, mirrored at their edges; differentiable.

    The model of blind deconvolution: kernels without negative entries whose sum is 1, and weights likewise, so that
    what is uniform stays uniform. `.T` is the exact transpose. (Escande & Weiss 2017, SIAM J. Imaging Sci. 10, 1.)

    Parameters
    ----------
    kernels : (kernel, height, width)
        Odd lengths, the origin in the middle; not negative, of sum 1.
    weights : (kernel, row, column)
        Share of each kernel in each pixel; not negative, of sum 1.

    Raises
    ------
    ValueError, TypeError
        For arrays of other shapes, NaN, negative entries and other sums.

    Examples
    --------
    >>> kernels = torch.zeros(2, 3, 3)
    >>> kernels[0, 1, 1] = 1.0  # sharp on the left,
    >>> kernels[1, 1] = 1 / 3  # smeared along the rows on the right
    >>> weights = torch.zeros(2, 6, 8)
    >>> weights[0, :, :4] = weights[1, :, 4:] = 1.0
    >>> image = torch.eye(6, 8)
    >>> FreeFormBlur(kernels, weights)(image)[5].round(decimals=2)
    tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.3300, 0.3300, 0.3300, 0.0000])
    """

    def __init__(self, kernels: Any, weights: Any) -> None:
        self.kernels, self.weights = floating(kernels, "kernels"), floating(weights, "weights")
        check_shape(self.kernels.shape, "kernels", (None, None, None))
        if 0 in self.kernels.shape or not all(n % 2 for n in self.kernels.shape[1:]):
            raise ValueError(message("kernels", "at least one, of odd height and width", tuple(self.kernels.shape)))
        check_shape(self.weights.shape, "weights", (len(self.kernels), None, None))
        if 0 in self.weights.shape:
            raise ValueError(message("weights", "at least one pixel", tuple(self.weights.shape)))
        for name, array, axes in (("kernels", self.kernels, (1, 2)), ("weights", self.weights, (0,))):
            given = array.detach().double()
            if float(given.min()) < 0 or float((given.sum(axes) - 1).abs().max()) > SUM_TOLERANCE:
                raise ValueError(message(name, "no negative entries, and sums of 1", "others", "Divide by the sums"))
        if self.weights.device != self.kernels.device:
            raise ValueError(message("weights", f"a tensor on {self.kernels.device}", str(self.weights.device)))
        self.device = self.weights.device
        self.domain_shape = self.range_shape = tuple(self.weights.shape[1:])

    def _apply(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        (j, k) = (
            mirrored(torch.arange(-(n // 2), size + n // 2, device=x.device), size)
            for n, size in zip(self.kernels.shape[1:], (rows, columns), strict=True)
        )
        wide = x.reshape(-1, 1, rows, columns)[:, :, j[:, None], k]
        # What torch calls a convolution does not turn its kernel round.
        blurred = torch.nn.functional.conv2d(wide, self.kernels.flip(1, 2)[:, None].to(x.dtype))
        return (blurred * self.weights.to(x.dtype)).sum(1).reshape(x.shape)

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        return transposed(self._apply, y)
