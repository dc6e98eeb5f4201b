"""A plain U-Net on coefficients: fast, and blind to what a rotation is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, silu

from ddf_tomo._checks import size_tuple
from ddf_tomo.operators.spherical_harmonics import coefficient_count
from ddf_tomo.priors.learned.denoiser import CONDITION, HIGHEST_ORDER, Denoiser, UNet
from ddf_tomo.weights import architecture


@architecture("residual-unet")
class ResidualUNet(Denoiser):
    """A 3-D residual U-Net in which coefficients are channels like others (`Denoiser`); 385 000 parameters.

    Coefficients that a volume lacks are zeros in front of the first layer and dropped behind the last one; neither is
    computed. Rotated samples have to be shown to it in training.

    Parameters
    ----------
    widths
        Channels at full, half and quarter resolution.

    Examples
    --------
    >>> denoiser = ResidualUNet()
    >>> noisy = torch.rand(8, 8, 8, 6)
    >>> torch.equal(denoiser(noisy, 0.0), noisy)
    True
    """

    def __init__(self, widths: Sequence[int] = (24, 36, 48)) -> None:
        super().__init__()
        fine, middle, coarse = size_tuple(widths, "widths", 3)
        self.network = PlainUNet(None, (fine, middle, coarse))

    def correction(self, x: Tensor, condition: Tensor, order: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.network(x, condition, order)
        return found


class PlainUNet(UNet):
    """Of ordinary convolutions, and of units whose scale and offset depend on the noise.

    Examples
    --------
    >>> PlainUNet(None, (4, 6, 8)).last(torch.zeros(1, 4, 3, 3, 3), 4).shape
    torch.Size([1, 15, 3, 3, 3])
    """

    def convolution(self, features: int | None, results: int | None) -> nn.Module:
        return Convolution(features, results)

    def activation(self, features: int) -> nn.Module:
        return Modulated(features)


class Convolution(nn.Module):
    """3 × 3 × 3 voxels, outside zero. ``None`` stands for coefficients, of which those are computed that there are.

    Examples
    --------
    >>> Convolution(None, 8)(torch.zeros(1, 15, 4, 4, 4), 4).shape
    torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(self, features: int | None, results: int | None) -> None:
        super().__init__()
        self.results = results
        most = coefficient_count(HIGHEST_ORDER)
        self.weight = nn.Parameter(torch.empty(results or most, features or most, 3, 3, 3))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, x: Tensor, order: int) -> Tensor:
        """From ``(volumes, features, x, y, z)`` of this ``order`` to as many results."""
        results = self.results or coefficient_count(order)
        return conv3d(x, self.weight[:results, : x.shape[1]], padding=1)


class Modulated(nn.Module):
    """``silu(scale · x + offset)``, both of them linear in what is told of the noise.

    Examples
    --------
    >>> Modulated(3)(torch.zeros(1, 3, 2, 2, 2), torch.zeros(1, 32), 2).shape
    torch.Size([1, 3, 2, 2, 2])
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.told = nn.Linear(CONDITION, 2 * features)

    def forward(self, x: Tensor, condition: Tensor, order: int) -> Tensor:
        """Of ``x`` of shape ``(volumes, features, x, y, z)`` with their ``condition``, whatever the ``order``."""
        scale, offset = self.told(condition)[:, :, None, None, None].chunk(2, dim=1)
        return silu(x * (1 + scale) + offset)
