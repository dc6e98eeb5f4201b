"""Total variation, coupled over directions of space and all coefficients (Rudin, Osher & Fatemi 1992)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import flag, message, number, real_array
from ddf_tomo._threads import in_parallel
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.spherical_harmonics import orders
from ddf_tomo.priors.channel_matrix import ChannelMatrix
from ddf_tomo.priors.differences import Differences
from ddf_tomo.priors.functional import Functional
from ddf_tomo.priors.positive_definite import OFF_DIAGONAL


class TotalVariation(Functional):
    """Sum over voxels of ``|D c|``: the norm of the differences along x, y, z in all coefficients together.

    Piecewise constant volumes are preferred: edges cost no more than ramps. One norm over all coefficients of a voxel
    makes the value independent of the sample's rotation (a rotation mixes the coefficients of an order among themselves
    and keeps the sum of their squares), which the sum of one total variation for each coefficient is not. Edges of all
    orders are encouraged to coincide [Blomgren & Chan 1998, IEEE Trans. Image Process. 7, 304].

    Parameters
    ----------
    volume_shape
        Voxels along ``(x, y, z)``.
    order_weights
        Weight of the orders ℓ = 0, 2, 4, … in the norm; by default 1 for each.
    tensor
        Whether the coefficients are those of a symmetric tensor (xx, xy, xz, yy, yz, zz). Then the norm is that of the
        matrix, in which the mixed ones stand twice.
    smoothing
        Rounds the norm to ``√(|D c|² + smoothing²) - smoothing``, in units of the coefficients, for methods that need
        gradients; 0 for none. The proximal map is that of the unrounded norm.

    Examples
    --------
    >>> import torch
    >>> ramp = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1)
    >>> edge = torch.tensor([0.0, 0.0, 3.0, 3.0]).reshape(4, 1, 1, 1)
    >>> TotalVariation((4, 1, 1))(ramp), TotalVariation((4, 1, 1))(edge)
    (3.0, 3.0)
    """

    def __init__(
        self,
        volume_shape: Sequence[int],
        *,
        order_weights: Sequence[float] | None = None,
        tensor: bool = False,
        smoothing: float = 0.0,
    ) -> None:
        self.operator: LinearOperator = Differences(volume_shape)
        self._factors: NDArray[np.float64] | None = None  # of the squares
        if order_weights is not None:
            weights = real_array(order_weights, "order_weights", (None,))
            if not len(weights) or (weights < 0).any():
                raise ValueError(message("order_weights", "at least one number, none negative", weights.tolist()))
            ell, _ = orders(2 * len(weights) - 2)
            self._factors = weights[ell // 2]
        if flag(tensor, "tensor"):
            if order_weights is not None:
                raise ValueError(message("order_weights", "None for tensors, which have no orders", order_weights))
            self._factors = np.square(OFF_DIAGONAL)
        if self._factors is not None:
            self.operator = self.operator @ ChannelMatrix(np.diag(self._factors**0.5))
        self.smoothing = number(smoothing, "smoothing", low=0.0)

    @property
    def is_smooth(self) -> bool:
        return self.smoothing > 0

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return ((magnitude(z).square() + self.smoothing**2).sqrt() - self.smoothing).sum()

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        return z * (1 - step / magnitude(z).clamp(min=step or 1.0)) if step else z

    def curvature(self, z: torch.Tensor) -> torch.Tensor:
        if not self.smoothing:
            raise ValueError(message("smoothing", "a positive number, as no quadratic lies above the bare norm", 0.0))
        return (magnitude(z).square() + self.smoothing**2).rsqrt()

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """`Functional.gradient`; on the CPU in one pass over the volume.

        Parameters
        ----------
        x
            Coefficients ``(x, y, z, coefficient)``.
        """
        if not (self.smoothing and _in_plain_memory(x)):
            return super().gradient(x)
        from ddf_tomo.priors import _coupled_kernel as kernel

        found, volume = torch.empty_like(x), x.numpy()
        rounding = volume.dtype.type(self.smoothing)
        in_parallel(len(x), 4, partial(kernel.gradient, volume, self._of_squares(x), rounding, found.numpy()))
        return found.mul_(self.weight)

    def along(self, x: torch.Tensor, d: torch.Tensor) -> Callable[[float], tuple[float, float]]:
        """`Functional.along`; all that a search needs of a voxel are three inner products of its differences.

        Parameters
        ----------
        x, d
            A point and a direction, ``(x, y, z, coefficient)``.
        """
        if not (self.smoothing and _in_plain_memory(x) and _in_plain_memory(d)):
            return super().along(x, d)
        from ddf_tomo.priors import _coupled_kernel as kernel

        found = x.new_empty((3, *x.shape[:3]))
        work = partial(kernel.products, x.numpy(), d.numpy(), self._of_squares(x), found.numpy())
        in_parallel(len(x), 4, work)
        xx, xd, dd = found.double()

        def at(alpha: float) -> tuple[float, float]:
            square = (xx + alpha * (2 * xd + alpha * dd)).clamp_(min=0)
            curvature = square.add_(self.smoothing**2).rsqrt_().mul_(self.weight)
            return float((curvature * (xd + alpha * dd)).sum()), float((curvature * dd).sum())

        return at

    def _of_squares(self, x: torch.Tensor) -> NDArray[np.floating]:
        factors = np.ones(x.shape[-1]) if self._factors is None else self._factors
        return factors.astype(x.numpy().dtype)


def _in_plain_memory(x: torch.Tensor) -> bool:
    """Whether compiled code may read ``x``: one volume, here, without gradient."""
    return x.device.type == "cpu" and x.ndim == 4 and x.is_contiguous() and not x.requires_grad


def magnitude(z: torch.Tensor) -> torch.Tensor:
    """Norm of ``(3, x, y, z, coefficient)`` over differences and coefficients, with length 1 in their place."""
    return torch.linalg.vector_norm(z, dim=(-5, -1), keepdim=True)
