"""What all learned denoisers share: what goes in and out, amplitudes, noise levels, and the network's shape."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, silu

from ddf_tomo._checks import dense, message
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.spherical_harmonics import order_of, power

HIGHEST_ORDER = 8
ORDERS = tuple(range(0, HIGHEST_ORDER + 1, 2))
NOISE_NUMBERS = 2 * len(ORDERS)  # level of each order, and whether the volume has it
CONDITION = 32
LITTLE_NOISE = 0.02  # relative to the volume; in front of less, corrections shrink with it
STEPS = (1, 2, 4, 1)  # voxels to the neighbours over which volumes are smoothed in turn
EMBEDDING = 4  # numbers of a voxel that tell whether another one is alike
SCALARS = len(STEPS) * EMBEDDING + len(ORDERS) * (len(STEPS) + 1)
STRONGEST = 12.0  # |G|
LEAST_SIGNAL = 1e-2  # relative to the noise
LARGEST = 1e18  # of a coefficient: its square is one of single precision
FAINTEST = 1e-3  # noise, relative to the volume; below, the network is told no less


class Denoiser(nn.Module, ABC):
    """A network ``D(x, σ) = Σ_i w_i x_i + r s · F`` on volumes of harmonic coefficients of order 2, 4, 6 or 8.

    It sees ``x / r`` and ``σ / r``, where ``r`` is the height of the volume, ``(Σ p² / Σ p)^½`` with the power
    ``p = Σ c²`` of each voxel: it does not depend on how much of the volume is empty, and it makes the denoiser exactly
    equivariant in amplitude, ``D(a x, a σ) = a D(x, σ)``. ``x_0 = x``, and each further ``x_i`` is the one before it
    smoothed over neighbours 1, 2, 4 and 1 voxels away, where the network's embeddings of both voxels are alike
    (`smoothed`): all coefficients go that way, none of them through the few features of a layer. The weights ``w_i``
    of each voxel and order are 1, ``s e^G_i``, and ``n e^G`` for nothing at all, over their sum; ``n`` is the power of
    the noise over that of the signal in bright voxels, so that without neighbours and with ``G = 0`` it is Wiener's
    filter. The network gives ``G``, the embeddings, and what else it knows: ``F``. With ``s = σ / (σ + r/50)`` nothing
    happens without noise, ``D(x, 0) = x``. One set of weights serves all orders: the network is told which there are. A
    subclass gives ``F`` and the scalars by `correction`.

    [Edge-stopping weights: Tomasi & Manduchi 1998, ICCV, 839; learned ones: Bako et al. 2017, ACM Trans. Graph. 36, 97]

    Examples
    --------
    >>> from ddf_tomo.priors.learned import ResidualUNet
    >>> denoiser = ResidualUNet()
    >>> volume = torch.ones(7, 8, 9, 15)
    >>> denoiser(volume, 0.1).shape
    torch.Size([7, 8, 9, 15])
    """

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def correction(self, x: Tensor, condition: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """``F`` and `SCALARS` scalars for harmonics to ``order``, from ``x`` of shape ``(volumes, K, x, y, z)``.

        With the ``condition`` of the volumes; shapes ``(volumes, K, x, y, z)`` and ``(volumes, SCALARS, x, y, z)``.
        """

    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        """The volume without the noise.

        Parameters
        ----------
        x
            Coefficients, shape ``(..., x, y, z, K)``, float32 or float64; computed in the precision of the weights.
        sigma
            Standard deviation of the noise of a coefficient: a number, or a tensor that broadcasts to
            ``(..., ell_max / 2 + 1)``, one number for each order of each volume.

        Raises
        ------
        ValueError
            If there is no such number of coefficients, some are above 1e18, or the noise is negative.
        """
        order = checked_order(x)
        if bool((x.detach().abs() > LARGEST).any()):
            raise ValueError(message("x", f"numbers up to {LARGEST:g}", f"{float(x.detach().abs().max()):g}"))
        levels = as_tensor(sigma, "sigma").to(x)
        count = order // 2 + 1
        try:
            levels = levels.expand(*x.shape[:-4], count)
        except RuntimeError as error:
            expected = f"a number, or a shape that broadcasts to {(*x.shape[:-4], count)}"
            raise ValueError(message("sigma", expected, tuple(levels.shape))) from error
        if not bool((levels >= 0).all() & torch.isfinite(levels).all()):
            raise ValueError(message("sigma", "finite numbers ≥ 0", "some negative, NaN or infinite"))
        own = next(self.parameters())
        volumes, levels = x.reshape(-1, *x.shape[-4:]).to(own), levels.reshape(-1, count).to(own)
        height = heights(volumes)
        condition = levels.new_zeros(len(levels), NOISE_NUMBERS)
        relative = (levels / height[:, None]).clamp(max=1 / FAINTEST)
        condition[:, :count] = relative.clamp_min(FAINTEST).log() / math.log(1 / FAINTEST)
        condition[:, len(ORDERS) : len(ORDERS) + count] = 1.0
        channels, unit = volumes.movedim(-1, 1), height[:, None, None, None, None]
        found, scalars = self.correction(channels / unit, condition, order)
        amplitudes, share = relative / (relative + LITTLE_NOISE), noise_share(volumes, levels)
        made = mixed(channels, scalars.to(own), amplitudes, share, unit * found.to(own))
        return made.movedim(1, -1).reshape(x.shape).to(x)


def mixed(x: Tensor, scalars: Tensor, amplitudes: Tensor, share: Tensor, found: Tensor) -> Tensor:
    """``Σ_i w_i x_i + r s F`` of a `Denoiser`.

    Parameters
    ----------
    x, found
        Volumes and ``r F``, shape ``(volumes, K, x, y, z)``.
    scalars
        Embeddings for each of the `STEPS`, and ``G`` for each order; shape ``(volumes, SCALARS, x, y, z)``.
    amplitudes, share
        ``s`` and ``n`` of each order, shape ``(volumes, orders)``.

    Examples
    --------
    >>> x, scalars = torch.ones(1, 6, 4, 4, 4), torch.zeros(1, SCALARS, 4, 4, 4)
    >>> quiet = torch.zeros(1, 2)
    >>> torch.equal(mixed(x, scalars, quiet, quiet, x), x)
    True
    """
    count = amplitudes.shape[1]
    sizes = [2 * ell + 1 for ell in ORDERS[:count]]
    embeddings = scalars[:, : len(STEPS) * EMBEDDING].chunk(len(STEPS), 1)
    logits = scalars[:, len(STEPS) * EMBEDDING :].unflatten(1, (len(ORDERS), len(STEPS) + 1))[:, :count]
    factors = logits.clamp(-STRONGEST, STRONGEST).exp()

    def of_volumes(values: Tensor) -> Tensor:
        return values[:, :, None, None, None]

    smoother = [x]
    for step, embedding in zip(STEPS, embeddings, strict=True):
        smoother.append(smoothed(smoother[-1], embedding, step))
    weights = of_volumes(amplitudes)[:, :, None] * factors[:, :, 1:]
    total = 1 + of_volumes(share) * factors[:, :, 0] + weights.sum(2)
    results = []
    for place, parts in enumerate(zip(*(volume.split(sizes, 1) for volume in (*smoother, found)), strict=True)):
        kept, *smooth, added = parts
        for number, part in enumerate(smooth):
            kept = kept + weights[:, place, number, None] * part
        results.append(kept / total[:, place, None] + of_volumes(amplitudes[:, place, None]) * added)
    return torch.cat(results, 1)


def smoothed(x: Tensor, embedding: Tensor, step: int) -> Tensor:
    """Means over each voxel and its six neighbours ``step`` voxels away, with weights ``exp(-|e - e'|²)``.

    The weights know the embedding only, which does not turn with the sample: neither does what they do.

    Examples
    --------
    >>> x = torch.tensor([1.0, 0.0, 0.0, 7.0]).reshape(1, 1, 4, 1, 1)
    >>> smoothed(x, torch.tensor([0.0, 0.0, 0.0, 99.0]).reshape(1, 1, 4, 1, 1), 1).flatten()
    tensor([0.5000, 0.3333, 0.0000, 7.0000])
    """
    total, weight = x, torch.ones_like(x[:, :1])
    for axis in (-3, -2, -1):
        n = x.shape[axis] - step
        if n <= 0:
            continue
        alike = (-(embedding.narrow(axis, 0, n) - embedding.narrow(axis, step, n)).square().sum(1, keepdim=True)).exp()
        before, behind = [0] * 6, [0] * 6
        before[2 * (-1 - axis)], behind[2 * (-1 - axis) + 1] = step, step
        total = total + pad(alike * x.narrow(axis, step, n), behind) + pad(alike * x.narrow(axis, 0, n), before)
        weight = weight + pad(alike, behind) + pad(alike, before)
    return total / weight


def checked_order(x: Any) -> int:
    """Order of a volume of coefficients that denoisers take.

    Examples
    --------
    >>> checked_order(torch.zeros(2, 2, 2, 6))
    2
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(message("x", "a float32 or float64 tensor", found))
    if dense(x, "x").ndim < 4 or 0 in x.shape:
        raise ValueError(message("x", "shape (..., x, y, z, K)", tuple(x.shape)))
    order = order_of(x.shape[-1], "x")
    if order not in ORDERS:
        raise ValueError(message("x", f"harmonics up to ℓ = {HIGHEST_ORDER} at most", f"up to {order}"))
    return order


def heights(volumes: Tensor) -> Tensor:
    """``(Σ p² / Σ p)^½`` with the power ``p`` of each voxel; of an empty volume 1.

    Parameters
    ----------
    volumes
        Shape ``(volumes, x, y, z, K)``.

    Examples
    --------
    >>> volume = torch.zeros(1, 4, 4, 4, 6)
    >>> volume[0, 1, 1, 1, 0] = 3.0
    >>> heights(volume)
    tensor([3.])
    """
    largest = volumes.detach().abs().flatten(1).amax(1)
    largest = torch.where(largest > 0, largest, 1.0)
    power = (volumes / largest[:, None, None, None, None]).square().sum(-1).flatten(1)
    total = power.sum(1)
    some = total > 0
    ratio = power.square().sum(1) / torch.where(some, total, 1.0)
    return largest * torch.where(some, ratio, 1.0).sqrt()


def noise_share(volumes: Tensor, levels: Tensor) -> Tensor:
    """Power of the noise over that of the signal, of each order, in the mean over voxels weighted with their power.

    Parameters
    ----------
    volumes
        Shape ``(volumes, x, y, z, K)``.
    levels
        Standard deviation of the noise of a coefficient, shape ``(volumes, orders)``.

    Examples
    --------
    >>> volume = torch.zeros(1, 4, 4, 4, 6)
    >>> volume[0, 1, 1, 1, 0] = 3.0
    >>> noise_share(volume, torch.tensor([[1.0, 0.0]]))
    tensor([[0.1250, 0.0000]])
    """
    largest = volumes.detach().abs().flatten(1).amax(1)[:, None]
    largest = torch.where(largest > 0, largest, 1.0)
    powers = power(volumes / largest[:, :, None, None, None]).flatten(1, 3)
    counts = torch.arange(1, 4 * powers.shape[-1], 4, device=powers.device)
    weights = powers.sum(-1, keepdim=True)
    seen = (weights * powers).sum(1) / weights.sum(1).clamp_min(torch.finfo(powers.dtype).tiny) / counts
    noise = (levels / largest).clamp(max=1 / FAINTEST).square()  # far above the signal in any case, and finite
    return noise / torch.maximum(seen - noise, LEAST_SIGNAL * noise).clamp_min(torch.finfo(powers.dtype).tiny)


def pyramid(x: Tensor) -> tuple[int, ...]:
    """Lengths of the volume at half the resolution.

    Examples
    --------
    >>> pyramid(torch.zeros(1, 1, 4, 5, 1))
    (2, 3, 1)
    """
    return tuple((n + 1) // 2 for n in x.shape[-3:])


def resampled(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The same volume with other voxels, by linear interpolation that no reflection or change of axes can tell.

    Halving an even length takes the mean of neighbours; any length will do, so that nothing needs to be padded.

    Examples
    --------
    >>> resampled(torch.tensor([0.0, 2.0, 4.0, 8.0]).reshape(1, 1, 4, 1, 1), (2, 1, 1)).flatten()
    tensor([1., 6.])
    """
    return interpolate(x, size=lengths, mode="trilinear", align_corners=False)


class UNet(nn.Module, ABC):
    """Encoder and decoder of three resolutions with shortcuts, of layers that a subclass chooses.

    Two convolutions at each resolution on the way down, one and the change of width on the way up; shortcuts are added.

    Parameters
    ----------
    ends, widths
        Features of the input and the output, and of the three resolutions, as the subclass's layers take them.

    Examples
    --------
    >>> from ddf_tomo.priors.learned.residual_unet import PlainUNet
    >>> network = PlainUNet(None, (4, 6, 8))
    >>> added, scalars = network(torch.zeros(1, 15, 5, 6, 7), torch.zeros(1, 10), 4)
    >>> added.shape, scalars.shape
    (torch.Size([1, 15, 5, 6, 7]), torch.Size([1, 41, 5, 6, 7]))
    """

    scalars: Any = SCALARS  # what the subclass's layers take for so many

    def __init__(self, ends: Any, widths: tuple[Any, Any, Any]) -> None:
        super().__init__()
        a, b, c = widths
        steps = [(ends, a), (a, a), (a, b), (b, b), (b, c), (c, c), (c, b), (b, b), (b, a), (a, a)]
        self.told = nn.Sequential(nn.Linear(NOISE_NUMBERS, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION))
        self.convolutions = nn.ModuleList(self.convolution(*step) for step in steps)
        self.activations = nn.ModuleList(self.activation(step[1]) for step in steps)
        self.last, self.guide = self.convolution(a, ends), self.convolution(a, self.scalars)
        with torch.no_grad():
            for weight in (*self.last.parameters(), *self.guide.parameters()):
                weight.mul_(0.1)  # begins with little more than a mean over neighbours

    @abstractmethod
    def convolution(self, features: Any, results: Any) -> nn.Module:
        """A layer that mixes 3 × 3 × 3 voxels, from ``features`` to ``results``."""

    @abstractmethod
    def activation(self, features: Any) -> nn.Module:
        """A nonlinear layer within each voxel on these ``features``, which is told of the noise."""

    def forward(self, x: Tensor, condition: Tensor, order: int) -> tuple[Tensor, Tensor]:
        """As `Denoiser.correction`: from ``x`` with its ``condition`` and ``order``."""
        told = silu(self.told(condition))

        def layer(number: int, x: Tensor) -> Tensor:
            return self.activations[number](self.convolutions[number](x, order), told, order)

        fine = layer(1, layer(0, x))
        middle = layer(3, layer(2, resampled(fine, pyramid(fine))))
        coarse = layer(5, layer(4, resampled(middle, pyramid(middle))))
        for below, first in ((middle, 6), (fine, 8)):
            up = resampled(self.convolutions[first](coarse, order), tuple(below.shape[-3:]))
            coarse = layer(first + 1, self.activations[first](up + below, told, order))
        return self.last(coarse, order), self.guide(coarse, order)
