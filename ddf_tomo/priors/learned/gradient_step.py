"""Denoisers that are gradient steps on a potential, so that what they minimise can be said."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddf_tomo._checks import of_kind
from ddf_tomo.priors.learned.denoiser import Denoiser, checked_order


class GradientStep(nn.Module):
    """``D(x, σ) = x - ∇g(x)`` with the potential ``g(x) = ½ |x - N(x, σ)|²`` of a network ``N``.

    Proximal gradients with it are gradient descent on ``misfit + g / σ²``, whatever the network's Lipschitz constant
    [Hurault et al. 2022, Gradient step denoiser, ICLR; Cohen et al. 2021, It has potential, NeurIPS]. A call costs
    about three of the network's, and does best with a network that was trained through it.

    Parameters
    ----------
    network
        A `Denoiser`.

    Examples
    --------
    >>> from ddf_tomo.priors.learned import ResidualUNet
    >>> denoiser, volume = GradientStep(ResidualUNet()), torch.rand(4, 4, 4, 6)
    >>> denoiser(volume, 0.1).shape
    torch.Size([4, 4, 4, 6])
    """

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        of_kind(Denoiser, network, "network")
        self.network = network

    def potential(self, x: Tensor, sigma: Any) -> Tensor:
        """``g(x)``, a scalar tensor; ``x`` and ``sigma`` as a `Denoiser` takes them, several volumes are summed."""
        return (x - self.network(x, sigma)).square().sum() / 2

    def potential_and_gradient(self, x: Tensor, sigma: Any) -> tuple[Tensor, Tensor]:
        """``g(x)`` and ``∇g(x)``, of the shape of ``x``; differentiable again where gradients are wanted.

        Parameters
        ----------
        x, sigma
            As a `Denoiser` takes them.
        """
        checked_order(x)
        wanted = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if wanted and x.requires_grad else x.detach().requires_grad_()
            value = self.potential(point, sigma)
            (gradient,) = torch.autograd.grad(value, point, create_graph=wanted)
        return (value, gradient) if wanted else (value.detach(), gradient.detach())

    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        """``x - ∇g(x)``.

        Parameters
        ----------
        x, sigma
            As a `Denoiser` takes them.
        """
        return x - self.potential_and_gradient(x, sigma)[1]
