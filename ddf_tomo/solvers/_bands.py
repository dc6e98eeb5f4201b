"""Volumes of harmonic coefficients by order and by spatial frequency, in radial bands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from ddf_tomo.solvers.misfit import Misfit

BANDS = 12  # up to half a cycle a voxel; what lies above is in the last one
LEAST = 1e-6  # of the strongest band of an order: no band is taken to be weaker
LEAST_SEEN = 1e-3  # of the largest curvature


class Bands:
    """For volumes of one shape ``(x, y, z, K)``: strengths are ``(orders, BANDS)``.

    Examples
    --------
    >>> bands = Bands((6, 6, 6, 6))
    >>> white = torch.randn(6, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> strength = bands.strength(white)
    >>> strength.shape, bool((strength[:, -1] - 1).abs().max() < 0.2)
    (torch.Size([2, 12]), True)
    >>> torch.allclose(bands.times(torch.full((2, 12), 3.0), white), 3 * white, atol=1e-5)
    True
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape, count = tuple(shape[:3]), shape[3]
        self.sizes = [2 * ell + 1 for ell in range(0, 2 * count, 2) if (ell + 1) * (ell + 2) // 2 <= count]

    @cached_property
    def places(self) -> Tensor:
        """Band of each frequency of a real transform."""
        x, y, z = self.shape
        axes = torch.fft.fftfreq(x), torch.fft.fftfreq(y), torch.fft.rfftfreq(z)
        radii = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
        return (2 * BANDS * radii).long().clamp(max=BANDS - 1)

    @cached_property
    def counts(self) -> Tensor:
        return torch.bincount(self.places.flatten(), minlength=BANDS).clamp_min(1)

    def transformed(self, x: Tensor) -> Tensor:
        return torch.fft.rfftn(x, dim=(0, 1, 2), norm="ortho")

    def means(self, values: Tensor) -> Tensor:
        """Of real numbers of each frequency and coefficient."""
        flat = self.places.flatten().to(values.device)
        sums = [
            torch.bincount(flat, part.mean(-1).flatten().double(), minlength=BANDS)
            for part in values.split(self.sizes, -1)
        ]
        return (torch.stack(sums) / self.counts.to(values.device)).to(values)

    def strength(self, x: Tensor) -> Tensor:
        """Mean square of a coefficient in each order and band: that of white noise is its variance."""
        found = self.means(self.transformed(x).abs().square())
        return torch.maximum(found, LEAST * found.amax(1, keepdim=True))

    def products(self, volumes: Sequence[Tensor]) -> Tensor:
        """Of each with each, in the mean over an order and band: ``(volume, volume, order, band)``."""
        found = torch.empty(len(volumes), len(volumes), len(self.sizes), BANDS)
        transforms = [self.transformed(volume) for volume in volumes]
        for i, one in enumerate(transforms):
            for j, other in enumerate(transforms[: i + 1]):
                found[i, j] = found[j, i] = self.means((one.conj() * other).real)
        return found.to(volumes[0])

    def overall(self, strength: Tensor) -> Tensor:
        """Mean square of a coefficient of each order, of a volume of that strength in each band."""
        counts = self.counts.to(strength)
        return (strength * counts).sum(1) / counts.sum()

    def times(self, factors: Tensor, x: Tensor) -> Tensor:
        """Each order and band times its factor."""
        spread = factors.T.repeat_interleave(torch.tensor(self.sizes, device=x.device), 1)
        found = self.transformed(x) * spread[self.places.to(x.device)]
        return torch.fft.irfftn(found, s=self.shape, dim=(0, 1, 2), norm="ortho")

    def curvature(self, misfit: Misfit) -> Tensor:
        """About what the data tell of each order and band: ``AᵀWA``, from what it makes of white noise."""
        shape = tuple(int(n or 1) for n in misfit.A.domain_shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(misfit.like)
        before, after = self.transformed(noise), self.transformed(misfit.normal(noise))
        found = self.means((before.conj() * after).real) / self.means(before.abs().square()).clamp_min(1e-30)
        return torch.maximum(found, LEAST_SEEN * found.amax())
