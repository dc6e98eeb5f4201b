"""How strong signal and noise are at each spatial frequency, estimated from the projections themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch

SHELLS = 24
NOISE_FROM = 0.6  # beyond this share of the highest frequency signals are taken to be weaker than the noise
FALLOFF = 0.1  # typical power of the coefficients of an order, relative to the order below
WEAKEST = 1e-3  # of the strongest order: no order is taken to be absent


@dataclass(frozen=True)
class Spectra:
    """Noise that is white, and a signal whose power depends on frequency and order.

    Attributes
    ----------
    noise
        Power of the noise, of each channel and frequency.
    orders
        Power of a coefficient of each order, relative to that of the strongest; shape ``(orders,)``.
    log_signal
        Logarithm of the power of the coefficients, of the strongest order, on `SHELLS` shells; shape ``(shells,)``.
    highest
        End of the last shell, in cycles per voxel.
    """

    noise: float
    orders: torch.Tensor
    log_signal: torch.Tensor
    highest: float

    def noise_to_signal(self, frequency: torch.Tensor) -> torch.Tensor:
        """Power of the noise over that of the signal at frequencies in cycles per voxel, interpolated."""
        place = (frequency * (SHELLS / self.highest) - 0.5).clamp(0, SHELLS - 1)
        below = place.floor().clamp_max(SHELLS - 2)
        share, index = place - below, below.long()
        return self.noise * torch.exp(
            -torch.lerp(self.log_signal[index], self.log_signal[index + 1], share.to(self.log_signal))
        )


def estimate_spectra(
    transforms: torch.Tensor, frequency: torch.Tensor, matrix: torch.Tensor, orders: torch.Tensor
) -> Spectra | None:
    """From the Fourier transforms of the projections; ``None`` if there is no signal.

    By the Fourier slice theorem a projection's transform is ``R_v`` times that of the volume, plus noise. Averaged over
    directions, the covariance of its channels is ``Σ_ℓ S_ℓ(|ξ|) R_ℓ R_ℓᵀ + N``: what is flat up to the highest
    frequencies is the noise ``N``, what remains on a shell of ``|ξ|`` is fitted by the power ``S_ℓ`` of each order.

    Parameters
    ----------
    transforms
        Of a few dozen views or more, shape ``(views, 2, frequencies, channels)``, real and imaginary parts; divided by
        the noise's standard deviation where that differs.
    frequency
        ``|ξ|`` in cycles per voxel, shape ``(frequencies,)``.
    matrix
        Response matrices, shape ``(views, channels, coefficients)``; divided like the transforms.
    orders
        Order of each coefficient, shape ``(coefficients,)``.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> frequency = torch.linspace(0, 0.7, 2000)
    >>> signal = torch.randn(20, 2, 2000, 1, generator=generator) * torch.exp(-15 * frequency)[:, None]
    >>> noise = 0.01 * torch.randn(20, 2, 2000, 1, generator=generator)
    >>> found = estimate_spectra(signal + noise, frequency, torch.ones(20, 1, 1), torch.zeros(1, dtype=torch.int64))
    >>> round(found.noise / 2e-4, 1)
    1.0
    """
    R, channels = matrix.double(), matrix.shape[1]
    kinds = orders.unique()
    parts = [R[:, :, orders == ell] for ell in kinds]
    model = torch.stack([(part @ part.mT).mean(0).flatten() for part in parts], dim=1)
    highest = float(frequency.max())
    shell = (frequency * (SHELLS / highest)).long().clamp_max(SHELLS - 1)
    of_frequency = transforms.flatten(0, 1).permute(1, 2, 0)
    covariance = R.new_zeros(SHELLS, channels, channels)
    covariance.index_add_(0, shell, (of_frequency @ of_frequency.mT).double())
    counts = shell.bincount(minlength=SHELLS).double()
    covariance /= (counts * len(transforms)).clamp_min(1)[:, None, None]
    power = covariance.diagonal(dim1=1, dim2=2).mean(1)
    noise = float(power[int(NOISE_FROM * SHELLS) :].median())
    excess = covariance - noise * torch.eye(channels).to(R)
    # Of fits that are as good (second moments cannot tell ℓ = 4 from ℓ = 2), the one in the lowest orders.
    falloff = FALLOFF ** torch.arange(len(kinds)).to(R)
    of_orders = falloff[:, None] * (torch.linalg.pinv(model * falloff, rtol=1e-6) @ excess.flatten(1).T)
    total = (of_orders.clamp_min(0) * counts).sum(1)
    if not float(total.max()) > 0:
        return None
    relative = (total / total.max()).clamp_min(WEAKEST)
    signal = (power - noise) / float((model @ relative).reshape(channels, channels).diagonal().mean())
    # Power falls with frequency; where noise hides it, it is below what is seen at lower frequencies.
    falling = signal.clamp_min(1e-9 * float(signal.max())).flip(0).cummax(0).values.flip(0)
    return Spectra(noise, relative, falling.log(), highest)
