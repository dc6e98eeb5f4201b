"""A U-Net whose features are spherical tensors: a rotated sample gives the rotated result, without having been seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, silu

from ddf_tomo._checks import message, real_array
from ddf_tomo.priors.learned.denoiser import CONDITION, SCALARS, Denoiser, UNet
from ddf_tomo.priors.learned.steerable import FEATURE_ORDERS, Multiplicities, SteerableConvolution, dimensions
from ddf_tomo.weights import architecture

COEFFICIENTS = (1, 0, 1, 1, 1, 1)
MULTIPLICITIES = ((12, 3, 5, 2, 1, 1), (24, 6, 10, 5, 2, 2), (32, 8, 12, 6, 3, 2))
FAINT, MOST = 1e-3, 256


@architecture("equivariant-denoiser")
class EquivariantDenoiser(Denoiser):
    """A 3-D residual U-Net of steerable convolutions (`Denoiser`); 120 000 parameters.

    ``D(Q x) = Q D(x)`` where ``Q`` turns voxels and coefficients: to rounding for the 48 rotations and reflections of
    the cube, to what a grid can tell for others. Features of odd order (gradients, ℓ = 1) serve inside. Features of
    higher order than the volume's are left out.

    Parameters
    ----------
    multiplicities
        How many features of each order 0, 1, 2, 4, 6, 8, at full, half and quarter resolution.

    Examples
    --------
    >>> denoiser = EquivariantDenoiser().eval()
    >>> x = torch.rand(6, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> scalar = torch.zeros(6, 6, 6, 6)
    >>> scalar[..., 0] = x[..., 0]
    >>> with torch.no_grad():
    ...     turned, found = denoiser(scalar.rot90(1, (0, 1)), 0.1), denoiser(scalar, 0.1).rot90(1, (0, 1))
    >>> torch.allclose(turned[..., 0], found[..., 0], atol=1e-5)
    True
    """

    def __init__(self, multiplicities: Sequence[Sequence[int]] = MULTIPLICITIES) -> None:
        super().__init__()
        table = real_array(multiplicities, "multiplicities", (3, len(FEATURE_ORDERS)))
        if not ((table == np.rint(table)) & (table >= 0)).all() or not (table[:, 0] > 0).all() or table.max() > MOST:
            expected = f"counts of 0 to {MOST} features of each order, and some of order 0"
            raise ValueError(message("multiplicities", expected, multiplicities))
        fine, middle, coarse = (tuple(int(n) for n in row) for row in table)
        self.network = SteerableUNet(COEFFICIENTS, (fine, middle, coarse))

    def correction(self, x: Tensor, condition: Tensor, order: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.network(x, condition, order)
        return found


class SteerableUNet(UNet):
    """Of steerable convolutions, and of units that read invariants and scale tensors.

    Examples
    --------
    >>> few = (2, 1, 1, 1, 1, 1)
    >>> SteerableUNet((1, 0, 1, 1, 1, 1), (few, few, few)).last(torch.zeros(1, 10, 3, 3, 3), 2).shape
    torch.Size([1, 6, 3, 3, 3])
    """

    scalars = (SCALARS, 0, 0, 0, 0, 0)

    def convolution(self, features: Multiplicities, results: Multiplicities) -> nn.Module:
        return SteerableConvolution(features, results)

    def activation(self, features: Multiplicities) -> nn.Module:
        return Gated(features)


class Gated(nn.Module):
    """Two layers on what does not turn, scalars and lengths of tensors: new scalars, and a factor for each tensor.

    Examples
    --------
    >>> Gated((2, 1, 1, 0, 0, 0))(torch.zeros(1, 10, 2, 2, 2), torch.zeros(1, 32), 2).shape
    torch.Size([1, 10, 2, 2, 2])
    """

    def __init__(self, features: Multiplicities) -> None:
        super().__init__()
        self.features = features
        count = sum(features)
        self.inner, self.outer = nn.Linear(count, count), nn.Linear(count, count)
        self.told = nn.Linear(CONDITION, 2 * count)

    def forward(self, x: Tensor, condition: Tensor, order: int) -> Tensor:
        """Of ``x`` of shape ``(volumes, channels, x, y, z)``, features to this ``order``, with their ``condition``."""
        parts = x.split(dimensions(self.features, order), dim=1)
        scalars, tensors = parts[0], [part for part in parts[1:] if part.shape[1]]
        counts = [n for n, ell in zip(self.features, FEATURE_ORDERS, strict=True) if n and 0 < ell <= order]
        grouped = [part.unflatten(1, (n, -1)) for part, n in zip(tensors, counts, strict=True)]
        lengths = [(part.square().mean(2) + FAINT**2).sqrt() for part in grouped]
        seen = torch.cat([scalars, *lengths], dim=1)
        n = seen.shape[1]
        scale, offset = self.told(condition)[:, :, None, None, None].chunk(2, dim=1)
        hidden = silu(_pointwise(seen, self.inner.weight[:, :n], self.inner.bias) * (1 + scale) + offset)
        found = _pointwise(hidden, self.outer.weight[:n], self.outer.bias[:n])
        new, *gates = found.split([scalars.shape[1], *counts], dim=1)
        scaled = [
            (2 * gate.sigmoid()[:, :, None] * part).flatten(1, 2) for gate, part in zip(gates, grouped, strict=True)
        ]
        return torch.cat([new, *scaled], dim=1)


def _pointwise(x: Tensor, weight: Any, bias: Any) -> Tensor:
    return conv3d(x, weight[:, :, None, None, None], bias)
