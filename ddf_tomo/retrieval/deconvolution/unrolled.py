"""Blind deconvolution in a few learned steps: exact sums of the frames, and small convolutions between them.

The model is that of `ddf_tomo.retrieval.deconvolution`, ``I_m,d(x) = Σ_r w_r(x) [k_r,d * (T R_m,d)](x)`` after the
displacement is taken out, with a fixed set of kernels: a narrow one and lines of two lengths in all directions. What
frames say of the weights in a pixel is then a quadratic ``½ wᵀ A w − bᵀ w``, for any number of steps and distances:
``A_rs = Σ ω B_r B_s``, ``b_r = Σ ω B_r S``, with the terms ``B_r = k_r * (T R)``. The noise of the reference is in A
squared: its expectation is known and taken off. `evidence` sums both over windows of two sizes and solves them once;
`UnrolledDeconvolution` then goes a number of steps ``w ← P(w + τ₁ δ₁(w) + τ₂ δ₂(w) + n)``: ``δ`` is the exact way to a
window's minimum, P the nearest point of the simplex. Steps τ and corrections n of each pixel come from a small
convolutional network, the same in all steps, that learned what kernel fields look like. All of it is convolutional:
any frame, any number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ddf_tomo._checks import integer
from ddf_tomo.retrieval._filters import smooth
from ddf_tomo.retrieval.deconvolution._fit import arrived, inward
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution
from ddf_tomo.retrieval.deconvolution._motion import divergence, forward, pulled, pulled_weights, pushed
from ddf_tomo.retrieval.deconvolution._starts import directional, gaussian_kernels
from ddf_tomo.retrieval.deconvolution._updates import on_simplex
from ddf_tomo.retrieval.deconvolution.field import KernelField
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from ddf_tomo.weights import architecture

__all__ = ["Evidence", "UnrolledDeconvolution", "evidence", "gaussian_weights", "transfers_at", "unrolled_field"]

KERNELS = 13
WINDOWS = (1.5, 4.0)  # pixels: standard deviations
FREEDOM = 0.15  # of a weight around where it starts: what the windows' minima are regularised with
WIDE = 0.98  # quantile of the blur's width that scales the kernels
NARROW, WIDEST = 0.7, 3.0  # pixels: limits of that scale
SUPPORTED = 3.3  # widths to either side
OVERSAMPLING, ACROSS = 3, 0.2  # taps a pixel; pixels: a kernel across its line
OF_ORDER_ONE = 10  # times a change of weights
FULL_STEPS = 3  # from as many on, steps are parts of one flow: more are smaller, and go as far in all
SHORT = 7.0  # the logit of the first steps' size, taken off
FITTED = 80  # steps of the start
RINGS, SPOKES = (0.12, 0.24), 8  # frequencies, in cycles a pixel for a width of one, by which kernels are compared
MOMENTS = 10.0  # weight of second moments among them
HIGHEST = 0.4  # cycles a pixel: beyond it, along both axes, a mask's image has little but noise
SMOOTHED, DARKEST = 1.0, 0.05  # pixels, and of the mean: variances of counts


class Evidence(NamedTuple):
    """What a view's frames say of its kernels, in places of the object; made by `evidence`.

    Attributes
    ----------
    start : (kernel, row, column)
        Weights that are nearest to the Gaussians of `matching`.
    solution : (window, kernel, row, column)
        Minimum of each window, a little regularised, from weights of zero.
    response : (window, kernel, kernel, row, column)
        ``δ(w) = solution − response w``.
    covariance : (kernel, 3)
        Second moments of the kernels in square pixels: jj, jk, kk.
    width
        Scale of the kernels in pixels.
    seen : (row, column), bool
        Where frames tell of a kernel as a whole.

    Examples
    --------
    >>> Evidence._fields[0]
    'start'
    """

    start: Tensor
    solution: Tensor
    response: Tensor
    covariance: Tensor
    width: float
    seen: Tensor


class _Terms:
    """Frames at places of the object, and what each kernel makes of the light of the reference."""

    def __init__(self, view: View, maps: Maps) -> None:
        distances, steps, *image = view.sample.shape
        reach = view.reach.to(view.sample).repeat_interleave(steps)
        self.displacement, covariance, transmission, self.arrived = arrived(maps)
        self.v = forward(self.displacement)
        self.transmission, self.covariance, self.valid = inward(self.v, transmission, covariance, self.arrived)
        self.width = _width(self.covariance, self.valid)
        self.half = math.ceil(SUPPORTED * self.width)
        model = ProductConvolution((image[0], image[1]), reach, 2 * self.half + 1, OVERSAMPLING, 4.0)
        self.model, self.image = model, (image[0], image[1])
        self.kernels = gaussian_kernels(model.positions, directional(KERNELS, self.width, ACROSS).to(model.positions))
        place = model.positions
        grids = place[:, None] ** 2 + 0 * place, place[:, None] * place, place**2 + 0 * place[:, None]
        moments = [(self.kernels * grid).sum((1, 2)) for grid in grids]
        self.moments = torch.stack(moments, -1).to(view.sample)

        sample, reference = (each.flatten(0, 1) for each in (view.sample, view.reference))
        confidence = view.weights.expand(view.sample.shape).flatten(0, 1)
        noise = 1 / view.counts if not math.isnan(view.counts) else _noise_of(reference)
        sample, self.seen = pulled(sample, self.v, reach), pulled_weights(confidence, self.v, reach)
        spread = divergence(self.v, reach).clamp(0.5, 2) if distances > 1 else torch.ones_like(sample[:1])
        brightness = smooth(sample, SMOOTHED).clamp(min=DARKEST * max(float(sample.mean()), DARKEST))
        self.precision = self.seen / (noise * brightness * spread)
        self.sample = sample * spread
        self.spectra = model.spectra(self.kernels.to(sample))
        self.light = model.padded(self.transmission[None]) * model.padded(reference)
        self.noise = noise * self.transmission**2 * smooth(reference, SMOOTHED)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Frame by frame its number and its terms ``(kernel, row, column)``."""
        for frames in self.model.batches(len(self.sample), KERNELS):
            terms = self.model.terms(self.light[frames], frames, self.spectra)
            yield from zip(range(len(self.sample))[frames], terms, strict=True)

    @property
    def inside(self) -> Tensor:
        """Where frames tell of a kernel as a whole."""
        inside = torch.zeros(self.image, dtype=torch.bool, device=self.sample.device)
        margin = min(self.half, (min(self.image) - 1) // 2)
        inside[margin : self.image[0] - margin, margin : self.image[1] - margin] = True
        return inside & self.valid & (self.seen.sum(0) > 0)


@torch.no_grad()
def evidence(view: View, maps: Maps) -> Evidence:
    """The quadratic forms of a view's frames, around the displacement and the transmission of these maps.

    Parameters
    ----------
    view
        Frames; their noise is that of the counts, or, where the gain is not known, read off their highest frequencies.
    maps
        Of the same view, from `matching`.

    Returns
    -------
    Evidence

    Examples
    --------
    >>> from ddf_tomo.retrieval.matching import METHOD
    >>> reference = torch.rand(1, 4, 24, 24, generator=torch.Generator().manual_seed(0)) + 1
    >>> view = View(reference, reference, torch.ones(1, 1, 1, 1), torch.ones(1), 1000.0)
    >>> found = evidence(view, METHOD.fit(view, METHOD.check(METHOD.options, (1, 4, 24, 24)), lambda: None))
    >>> found.start.shape, found.response.shape
    (torch.Size([13, 24, 24]), torch.Size([2, 13, 13, 24, 24]))
    """
    return _evidence(_Terms(view, maps))


def _evidence(of: _Terms) -> Evidence:
    gram = _gram(of.model, of.spectra)
    A = of.sample.new_zeros(KERNELS, KERNELS, *of.image)
    b = of.sample.new_zeros(KERNELS, *of.image)
    for n, terms in of:
        weighted = of.precision[n] * terms
        # The noise of the reference is in the square of the terms; what it adds on average is known.
        A += weighted[:, None] * terms - gram[of.model.distance[n], :, :, None, None] * (of.precision[n] * of.noise[n])
        b += weighted * of.sample[n]
    solved = [_solved(_windowed(A, sigma), _windowed(b, sigma)) for sigma in WINDOWS]
    solution, response = (torch.stack(parts) for parts in zip(*solved, strict=True))
    start = gaussian_weights(of.covariance, of.moments, of.width)
    return Evidence(start, solution, response, of.moments, of.width, of.inside)


@torch.no_grad()
def unrolled_field(view: View, maps: Maps, network: UnrolledDeconvolution, steps: int, inner: int) -> KernelField:
    """The kernel field of a view by a trained network, with what it leaves of the frames.

    Parameters
    ----------
    view
        Frames.
    maps
        From `matching`.
    network
        In evaluation mode, on the device of the frames.
    steps, inner
        Of the network.

    Returns
    -------
    KernelField

    Examples
    --------
    >>> from ddf_tomo.retrieval.matching import METHOD
    >>> reference = torch.rand(1, 4, 24, 24, generator=torch.Generator().manual_seed(0)) + 1
    >>> view = View(reference, reference, torch.ones(1, 1, 1, 1), torch.ones(1), 1000.0)
    >>> maps = METHOD.fit(view, METHOD.check(METHOD.options, (1, 4, 24, 24)), lambda: None)
    >>> unrolled_field(view, maps, UnrolledDeconvolution(2).requires_grad_(False), steps=1, inner=1).weights.shape
    torch.Size([13, 24, 24])
    """
    of = _Terms(view, maps)
    found = _evidence(of)
    weights = network(*(each.float() for each in found[:3]), steps, inner).to(of.sample)
    expected = torch.stack([(weights * terms).sum(0) for _, terms in of])
    # Transmission belongs to a pixel: what is left of it is found exactly.
    factor = (of.precision * expected * of.sample).sum(0) / (of.precision * expected**2).sum(0).clamp(min=1e-12)
    factor = torch.where(of.seen.sum(0) > 0, factor, 1)
    squares = of.precision * (of.sample - factor * expected) ** 2
    # In units of the transmission, and of the noise of both frames.
    share = of.precision / of.precision.sum(0).clamp(min=1e-12)
    left = (share * (of.sample - factor * expected) ** 2).sum(0).sqrt()
    gram = _gram(of.model, of.spectra)
    whole = torch.ones(1).to(weights)
    moved = of.model.terms(of.model.padded(of.transmission[None]), slice(len(of.sample) - 1, None), of.spectra)[0]
    transmission = factor * (weights * moved).sum(0)
    of_light = torch.einsum("rjk,drs,sjk->djk", weights, gram, weights)[of.model.distance] * of.noise * factor**2
    variance = 1 / of.precision.clamp(min=1e-12) + of_light
    chi2 = (squares / of.precision.clamp(min=1e-12) / variance).sum(0) / ((of.precision > 0).sum(0) - 1).clamp(min=0.5)
    maps_ = torch.stack([transmission, left / transmission.clamp(min=1e-3), chi2])
    transmission, left, chi2 = pushed(maps_, of.v, whole.expand(3))
    valid = of.arrived & (pushed(of.inside.to(weights)[None], of.v, whole)[0] > 0.5) & (transmission > 1e-3)
    order = weights.mean((1, 2)).argsort(descending=True)
    weights = pushed(weights[order], of.v, whole.expand(len(order))).clamp(min=0)
    return KernelField(
        weights / weights.sum(0),
        of.kernels[order].to(weights),
        of.model.positions.to(weights),
        of.displacement.movedim(0, -1),
        transmission,
        of.transmission * factor,
        valid,
        (),
        torch.where(valid, left, 0).clamp(min=0),
        None if math.isnan(view.counts) else torch.where(valid, chi2, 0).clamp(min=0),
    )


def _width(covariance: Tensor, valid: Tensor) -> float:
    trace = (covariance[0] + covariance[2]).clamp(min=0)[valid]
    widest = float(torch.quantile(trace[:: max(1, len(trace) // 100_000)], WIDE).sqrt()) if len(trace) else NARROW
    return min(max(widest, NARROW), WIDEST)


def _noise_of(reference: Tensor) -> float:
    """Variance of the reference's noise, in units of its mean, from frequencies that are high along both axes."""
    rows, columns = reference.shape[-2:]
    high = [torch.fft.fftfreq(n, device=reference.device).abs() > HIGHEST for n in (rows, columns)]
    power = torch.fft.fft2(reference - reference.mean((1, 2), keepdim=True)).abs() ** 2
    corner = power[:, high[0]][:, :, high[1]]
    return max(float(corner.mean()) / (rows * columns * float(reference.mean())), 1e-9)


def _gram(model: ProductConvolution, spectra: Tensor) -> Tensor:
    """Covariance ``(distance, kernel, kernel)`` in a pixel of white noise of variance one behind each kernel."""
    double = torch.full((spectra.shape[-1],), 2.0, device=spectra.device)
    double[0] = 1
    both = torch.einsum("drab,dsab,b->drs", spectra, spectra.conj(), double.to(spectra.dtype)).real
    return both / (model.size[0] * model.size[1])


def _windowed(maps: Tensor, sigma: float) -> Tensor:
    """Sums over a Gaussian window of peak 1; beyond the edge, as if the edge went on."""
    return smooth(maps.flatten(0, -3), sigma).reshape(maps.shape) * (2 * math.pi * sigma**2)


def _solved(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``(A + ridge)⁻¹ b`` and ``(A + ridge)⁻¹ A`` in each pixel."""
    pixels = A.flatten(2).permute(2, 0, 1)
    right = torch.cat([b.flatten(1).T[..., None], pixels], -1)
    ridge = torch.eye(len(b)).to(A) / FREEDOM**2
    found = torch.linalg.solve(pixels + ridge, right)
    return found[..., 0].T.reshape(b.shape), found[..., 1:].permute(1, 2, 0).reshape(A.shape)


def transfers_at(covariance: Tensor, width: float) -> Tensor:
    """Fourier transforms of Gaussians at some frequencies within what a mask's image has.

    Parameters
    ----------
    covariance : (..., 3)
        C_jj, C_jk, C_kk.
    width
        Of the kernels, which scales the frequencies.

    Returns
    -------
    transfers : (..., frequency)

    Examples
    --------
    >>> transfers_at(torch.zeros(2, 3), 1.0).shape
    torch.Size([2, 16])
    """
    turn = math.pi * torch.arange(SPOKES).to(covariance) / SPOKES
    f_j, f_k = (torch.cat([ring / width * each for ring in RINGS]) for each in (turn.cos(), turn.sin()))
    jj, jk, kk = (each[..., None] for each in covariance.unbind(-1))
    return torch.exp(-2 * math.pi**2 * (jj * f_j**2 + 2 * jk * f_j * f_k + kk * f_k**2))


def gaussian_weights(covariance: Tensor, moments: Tensor, width: float) -> Tensor:
    """Weights of the kernels whose mixtures are nearest to Gaussians.

    Parameters
    ----------
    covariance : (3, row, column)
        Of the Gaussians.
    moments : (kernel, 3)
        Second moments of the kernels.
    width
        Their scale.

    Returns
    -------
    weights : (kernel, row, column)

    Examples
    --------
    >>> kernels = directional(13, 1.0).float()
    >>> weights = gaussian_weights(kernels[4].reshape(3, 1, 1), kernels, 1.0)
    >>> bool(weights[4] > 0.8)
    True
    """

    def features(covariances: Tensor) -> Tensor:
        return torch.cat([transfers_at(covariances, width), MOMENTS * covariances / width**2], -1)

    jj, jk, kk = covariance
    half = (jj + kk) / 2
    spread = torch.sqrt((jj - kk) ** 2 / 4 + jk**2)
    shift = (spread - half).clamp(min=0)  # no eigenvalue below zero
    rows = features(moments)
    right = features(torch.stack([jj + shift, jk, kk + shift], -1)) @ rows.T
    gram = rows @ rows.T
    step = 1 / float(torch.linalg.eigvalsh(gram)[-1])
    right = right.movedim(-1, 0)
    found = ahead = torch.full_like(right, 1 / len(rows))
    pace = 1.0
    for _ in range(FITTED):
        before = found
        found = on_simplex(ahead - step * (torch.einsum("rs,s...->r...", gram, ahead) - right))
        pace, last = (1 + (1 + 4 * pace**2) ** 0.5) / 2, pace
        ahead = found + (last - 1) / pace * (found - before)
    return found


@architecture("unrolled-deconvolution")
class UnrolledDeconvolution(nn.Module):
    """Weights of kernels from `Evidence`, by as many learned steps as asked for.

    Parameters
    ----------
    features
        Of the hidden layers.

    Examples
    --------
    >>> network = UnrolledDeconvolution(features=4)
    >>> flat = torch.full((13, 8, 9), 1 / 13)
    >>> still = torch.zeros(2, 13, 8, 9), torch.zeros(2, 13, 13, 8, 9)
    >>> torch.allclose(network(flat, *still, 3), flat)
    True
    """

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        width = integer(features, "features", low=1, high=1024)
        told = KERNELS * (1 + len(WINDOWS)) + len(WINDOWS) + 1
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(told, width, 3, padding=1, padding_mode="replicate"),
                nn.Conv2d(width, width, 3, padding=2, dilation=2, padding_mode="replicate"),
                nn.Conv2d(width, width, 3, padding=4, dilation=4, padding_mode="replicate"),
            ]
        )
        self.last = nn.Conv2d(width, KERNELS + len(WINDOWS), 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, start: Tensor, solution: Tensor, response: Tensor, steps: int, inner: int = 1) -> Tensor:
        """Weights ``(kernel, row, column)`` after some steps.

        Parameters
        ----------
        start, solution, response
            Of `Evidence`.
        steps
            How often the network corrects; 0 gives the start.
        inner
            Ways to the windows' minima in each of these steps.

        Raises
        ------
        ValueError, TypeError
            For a negative number of steps, or none in a step.
        """
        steps, inner = integer(steps, "steps"), integer(inner, "inner", low=1)
        w = start
        known = torch.einsum("nrrjk->njk", response) / KERNELS
        pace = min(1.0, FULL_STEPS / max(steps, 1))
        for step in range(steps):
            away = solution - (response * w).sum(2)
            told = torch.cat([w, away.flatten(0, 1) * OF_ORDER_ONE, known, 0 * known[:1] + step / steps])
            correction, sizes = self._learned(told)
            w = on_simplex(w + pace * (correction + (sizes[:, None] * away).sum(0)))
            for _ in range(inner - 1):
                away = solution - (response * w).sum(2)
                w = on_simplex(w + pace * (sizes[:, None] * away).sum(0))
        return w

    def _learned(self, told: Tensor) -> tuple[Tensor, Tensor]:
        """Correction of the weights, and sizes of the steps to the windows' minima, in each pixel."""
        hidden = told[None]
        for layer in self.layers:
            hidden = silu(layer(hidden))
        correction, sizes = self.last(hidden)[0].split((KERNELS, len(WINDOWS)))
        return correction / OF_ORDER_ONE, torch.sigmoid(sizes - SHORT)
