"""The logarithm of a blur's Fourier transform, ``−ln V(q)``, as a sum of functions of q, and frames blurred by it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ddf_tomo.retrieval._warped import REACH, frequencies, within_reach

FINEST = 0.4  # cycles a pixel, beyond which −ln V no longer rises: no mask has a pattern there
STRONGEST, WEAKEST = 12.0, -0.5  # −ln V that a frame is blurred by
SAMPLES = 500  # pixels that stand for all blurs of a tile
OUTERMOST = 60  # directions in which the two outermost of all pixels are among them
ACCURACY = 1e-9  # of a blur, relative to the strongest of its parts
PARTS = 120
COMPARED = 3  # frequencies for each part at which a pixel's own blur is met, by least squares
MEAN = 30.0  # of a frame, beside the rest of its spectrum
CHUNK = 1 << 14  # pixels
TOGETHER = 16  # parts, of which there are images of the tile at a time


@dataclass(frozen=True)
class LogVisibility:
    """``−ln V(q) = Σ_bn a_bn Λ_b(ln ν) (ν/ν_b)^p t_n(φ)``: a power law of ν through each measured frequency ν_b.

    ``q = 2πν (cos φ, sin φ)``; ``t`` = (1, cos 2φ, sin 2φ, cos 4φ, …) up to an even ``order``, and the hats ``Λ_b``,
    linear in ln ν, sum to 1. At ν_b the a_bn are the Fourier series of ``−ln V`` over the azimuth. A Gaussian blur
    ``½ qᵀCq`` is p = 2 with the orders 0 and 2, exactly and at any set of frequencies.

    Attributes
    ----------
    periods
        1/ν_b in pixels, from long to short.
    order
        Highest azimuthal order.
    exponent
        p.
    """

    periods: tuple[float, ...]
    order: int
    exponent: float

    def __len__(self) -> int:
        return len(self.periods) * (self.order + 1)

    def angular(self, azimuths: Tensor) -> Tensor:
        """``t_n``, shape ``(order + 1, *azimuths.shape)``."""
        terms = [torch.ones_like(azimuths)]
        for n in range(2, self.order + 1, 2):
            terms += [torch.cos(n * azimuths), torch.sin(n * azimuths)]
        return torch.stack(terms)

    def radial(self, frequency: Tensor) -> Tensor:
        """``Λ_b (ν/ν_b)^p``, shape ``(periods, *frequency.shape)``."""
        capped = frequency.clamp(1e-6, FINEST)
        nodes = [-math.log(period) for period in self.periods]
        place = capped.log().clamp(nodes[0], nodes[-1])
        found = []
        for b, node in enumerate(nodes):
            hat = torch.ones_like(place)
            if b:
                hat = torch.minimum(hat, (place - nodes[b - 1]) / (node - nodes[b - 1]))
            if b + 1 < len(nodes):
                hat = torch.minimum(hat, (nodes[b + 1] - place) / (nodes[b + 1] - node))
            found.append(hat.clamp(min=0) * (capped * self.periods[b]) ** self.exponent)
        return torch.stack(found)

    def at(self, f_j: Tensor, f_k: Tensor) -> Tensor:
        """All functions at frequencies in cycles a pixel, shape ``(len(self), *f.shape)``."""
        f_j, f_k = torch.broadcast_tensors(f_j, f_k)
        both = self.radial(torch.hypot(f_j, f_k))[:, None] * self.angular(torch.atan2(f_k, f_j))[None]
        return both.flatten(0, 1)

    def of_covariance(self) -> Tensor:
        """Matrix (3, len(self)) from the a_bn to (C_jj, C_jk, C_kk): from the longest period's orders 0 and 2."""
        matrix = torch.zeros(3, len(self), dtype=torch.float64)
        unit = 2 * (self.periods[0] / (2 * math.pi)) ** 2
        matrix[0, 0] = matrix[2, 0] = unit
        if self.order:
            matrix[0, 1], matrix[1, 2], matrix[2, 1] = unit, unit, -unit
        return matrix

    def of_visibility(self, azimuths: Tensor) -> Tensor:
        """Matrix (periods · azimuths, len(self)) from the a_bn to ``−ln V``, azimuths running fastest."""
        return torch.block_diag(*[self.angular(azimuths).T] * len(self.periods))

    @cached_property
    def nodes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Frequencies and area weights (cycles²) of a quadrature of even functions over the disc ν < ½; float64."""
        edges = torch.linspace(0, 0.5, 13, dtype=torch.float64)
        middle, area = (edges[1:] + edges[:-1]) / 2, math.pi * (edges[1:] ** 2 - edges[:-1] ** 2)
        count = 2 * (self.order + 2)
        azimuth = torch.arange(count, dtype=torch.float64) * math.pi / count
        f_j, f_k = middle[:, None] * azimuth.cos(), middle[:, None] * azimuth.sin()
        return f_j.flatten(), f_k.flatten(), (area / count)[:, None].expand_as(f_j).flatten()


def blurred(spectra: Tensor, law: LogVisibility, amplitudes: Tensor, smoothing: float = 0.0) -> Tensor:
    """Frames blurred from pixel to pixel by their own V: ``Σ_q V(x, q) r̂(q) e^{iqx}``.

    V as a function of pixel and frequency is of low rank: its singular vectors, from a sample of the tile's pixels,
    give a few blurs that are the same everywhere, summed with weights that are not (product-convolution: Escande &
    Weiss 2017, SIAM J. Imaging Sci. 10, 1353). The weights of a pixel meet its own V at the frequencies that tell the
    blurs apart best (Drmač & Gugercin 2016, SIAM J. Sci. Comput. 38, A631) and at some more, by least squares: through
    the former alone a blur like none of the sample's would swing between them (Peherstorfer et al. 2020, SIAM J. Sci.
    Comput. 42, A2837). In the sample are the outermost pixels in many directions, so that the others lie between them.

    Parameters
    ----------
    spectra : (n, row, column // 2 + 1)
        Real Fourier transforms of the frames.
    law
        The functions of q.
    amplitudes : (len(law), row, column)
        What they are multiplied with.
    smoothing
        Standard deviation in pixels of the Gaussian by which the frames are smoothed already.
    """
    rows, columns = amplitudes.shape[-2:]
    flat = amplitudes.flatten(1).T
    if not flat.any():
        return torch.fft.irfft2(spectra, s=(rows, columns))
    from scipy.linalg import qr

    f_j, f_k = frequencies(2 * REACH, 2 * REACH, flat.double())
    functions = law.at(f_j, f_k)
    shape, functions = functions.shape[1:], functions.flatten(1)
    # Frames have been smoothed; their mean, which is the largest number in their spectra, most of all has to remain.
    power = torch.exp(-2 * (math.pi * smoothing) ** 2 * (f_j**2 + f_k**2)).flatten()
    power[0] = MEAN

    def visibility(amplitude: Tensor, functions: Tensor) -> Tensor:
        return torch.exp(-(amplitude @ functions).clamp(WEAKEST, STRONGEST))

    generator = torch.Generator().manual_seed(0)
    sampled = visibility(_sample(flat, columns, generator).double(), functions)
    seen = sampled * power
    # Few combinations of the samples hold all there is: their singular values (Halko et al. 2011, SIAM Rev. 53, 217).
    mixed = torch.randn(len(power), PARTS + 20, dtype=torch.float64, generator=generator).to(power.device)
    few = torch.linalg.qr(seen @ mixed)[0]
    u, size, v = torch.linalg.svd(few.T @ seen, full_matrices=False)
    u = few @ u
    kept = min(int((size > ACCURACY * size[0]).sum()), PARTS)
    u, size, v = u[:, :kept], size[:kept], v[:kept]
    chosen = torch.from_numpy(qr(v.cpu().numpy(), mode="r", pivoting=True)[1][:kept]).long().to(flat.device)
    others = torch.multinomial(power.clamp(1e-6, 1).cpu(), (COMPARED - 1) * kept, generator=generator).to(flat.device)
    chosen = torch.cat([chosen, others])
    into = (power[chosen, None] * torch.linalg.pinv(v[:, chosen])).to(flat)
    blurs = ((u.T / size[:, None]) @ sampled).to(flat).reshape(kept, *shape)
    nodes = functions[:, chosen].to(flat)
    weights = torch.cat([visibility(piece, nodes) @ into for piece in flat.split(CHUNK)])
    weights = weights.T.reshape(kept, rows, columns)
    result = torch.zeros(len(spectra), rows, columns, dtype=flat.dtype, device=flat.device)
    for some, weight in zip(blurs.split(TOGETHER), weights.split(TOGETHER), strict=True):
        parts = within_reach(some, rows, columns)
        for frame, spectrum in zip(result, spectra, strict=True):
            frame += (weight * torch.fft.irfft2(parts * spectrum, s=(rows, columns))).sum(0)
    return result


def _sample(flat: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    """Amplitudes of pixels in regular distances, and of those that are outermost in some direction; and zero."""
    every = max(1, len(flat) // SAMPLES)
    while math.gcd(every, columns) > 1:  # or all samples would lie in few columns, perhaps outside the frames
        every += 1
    regular = flat[::every]
    directions = torch.randn(flat.shape[1], OUTERMOST, dtype=torch.float64, generator=generator).to(flat)
    along = flat @ (directions / flat.std(0).clamp(min=1e-9)[:, None])
    outermost = torch.cat([flat[along.argmin(0)], flat[along.argmax(0)]])
    return torch.cat([regular[regular.any(1)], outermost, torch.zeros_like(flat[:1])])
