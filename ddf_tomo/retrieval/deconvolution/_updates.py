"""Updates of blind deconvolution: descent in one factor at a time, each along a line to its end.

``F = ½ Σ ω (I − S)² + ½ Σ ω⁰ (R − R⁰)²`` sums over pixels and frames of the sample S and of the reference as measured,
R⁰; ω are confidences over variances, which stay as they are. The light R of the reference is estimated with the rest:
kernels that only average its noise would win otherwise. The model I is linear in each of four factors (weights at their
knots, kernels, transmission, light) while the others rest, so that F is quadratic in each. An update takes a direction
along which the factor stays feasible (not negative, kernels and weights in their simplex, means of kernels unmoved) and
F falls, and goes to the lowest point of the parabola or to the end of what is feasible: F never rises. The directions:

* weights: at each knot the least of a bound of F that has no terms between knots: splines sum to one, so that
  ``(Σ B_l p_l)² ≤ Σ B_l p_l²`` (Jensen), with equality where all knots change alike. With as many unknowns as kernels,
  in a simplex, it is solved by accelerated projected gradients (Beck & Teboulle 2009, SIAM J. Imaging Sci. 2, 183);
* kernels: a projected gradient, onto kernels of the same mean: displacement is not theirs to explain (``_motion``);
* transmission and light: the same bound, taken over the pixels that light of which arrives in one (De Pierro 1995,
  IEEE Trans. Med. Imaging 14, 132).

Multiplicative updates (Richardson, Lucy) fall too, but slowly: what does not differ between kernels, most of the light,
makes their steps short.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ddf_tomo.retrieval.deconvolution._model import ProductConvolution

__all__ = ["Data", "Factors", "expected", "objective", "on_simplex", "updated", "with_means"]

TINY = 1e-20
ROUNDING = 1e-12
UNSEEN = 1e-6  # of the largest curvature
INNER = 40  # steps for the weights of a knot, or the multipliers of a kernel
HALVINGS = 12  # of one of the latter
LARGEST_CHANGE = 0.5  # relative, of transmission and light in one direction
FARTHEST = 8.0  # times a direction


class Data(NamedTuple):
    """Frames ``(frame, row, column)`` of all distances in a row, and their confidence.

    Attributes
    ----------
    sample, reference
        In units of the mean reference.
    weights
        Of the sample: confidence over variance, zero where kernels reach beyond the frame.
    seen
        Of the reference.
    """

    sample: Tensor
    reference: Tensor
    weights: Tensor
    seen: Tensor


class Factors(NamedTuple):
    """What is estimated, none of it negative.

    Attributes
    ----------
    knots : (rank, knot, knot)
        Values of the weights at their knots; over the rank they sum to one.
    kernels : (rank, tap, tap)
        Each of sum one.
    transmission : (row, column)
        In the size of the light's image, as the next.
    reference : (frame, row, column)
        Light of the reference.
    """

    knots: Tensor
    kernels: Tensor
    transmission: Tensor
    reference: Tensor


def on_simplex(values: Tensor) -> Tensor:
    """The nearest point of the simplex (``v ≥ 0``, ``Σ v = 1``) along the first axis.

    Parameters
    ----------
    values : (rank, ...)

    Examples
    --------
    >>> on_simplex(torch.tensor([0.5, 1.5, -1.0]))
    tensor([0., 1., 0.])
    """
    ordered = values.sort(0, descending=True).values
    count = torch.arange(1, len(values) + 1).to(values).reshape(-1, *[1] * (values.ndim - 1))
    surplus = (ordered.cumsum(0) - 1) / count
    last = (ordered > surplus).sum(0, keepdim=True).clamp(min=1) - 1
    return (values - surplus.gather(0, last)).clamp(min=0)


def with_means(values: Tensor, places: Tensor, means: Tensor) -> Tensor:
    """The nearest kernels ``k ≥ 0`` of sum one that have these means: ``Σ k p = m``.

    They are ``max(v − a·(1, p), 0)``; the three multipliers a of each kernel, the largest of a concave function, are
    found by Newton's steps, made shorter where that one falls.

    Parameters
    ----------
    values : (rank, tap)
    places : (tap, 2)
    means : (rank, 2)
        Within the taps.

    Examples
    --------
    >>> places = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    >>> with_means(torch.tensor([[0.5, 0.2, 0.5]]).double(), places, torch.zeros(1, 2).double())[0].round(decimals=3)
    tensor([0.4330, 0.1330, 0.4330], dtype=torch.float64)
    """
    rows = torch.cat([torch.ones_like(places[:, :1]), places], 1)
    wanted = torch.cat([torch.ones_like(means[:, :1]), means], 1)

    def value(a: Tensor) -> Tensor:
        return -((values - a @ rows.T).clamp(min=0) ** 2).sum(1) / 2 - (a * wanted).sum(1)

    a = torch.cat([((values.sum(1) - 1) / values.shape[1])[:, None], torch.zeros_like(means)], 1)
    ridge = 1e-9 * float((rows**2).sum()) * torch.eye(3).to(rows)
    for _ in range(INNER):
        active = (values - a @ rows.T).clamp(min=0)
        slope = active @ rows - wanted
        if bool((slope.abs() < 1e-12 * rows.abs().sum(0)).all()):
            break
        curvature = torch.einsum("rt,ta,tb->rab", (active > 0).to(values), rows, rows) + ridge
        step = torch.linalg.solve(curvature, slope)
        length = torch.ones_like(a[:, :1])
        here, rise = value(a), 1e-4 * (slope * step).sum(1)
        for _ in range(HALVINGS):
            short = value(a + length * step) < here + length[:, 0] * rise - 1e-14
            if not bool(short.any()):
                break
            length = torch.where(short[:, None], length / 2, length)
        a = a + length * step
    return (values - a @ rows.T).clamp(min=0)


def expected(model: ProductConvolution, factors: Factors) -> Tensor:
    """The frames ``(frame, row, column)`` that the factors predict."""
    return torch.cat([seen for _, _, _, seen in _batches(model, factors)])


def objective(model: ProductConvolution, data: Data, factors: Factors) -> float:
    """F: half the weighted squares of what sample and reference leave."""
    total = float((data.seen * (model.cropped(factors.reference) - data.reference) ** 2).double().sum())
    for frames, _, _, seen in _batches(model, factors):
        total += float((data.weights[frames] * (seen - data.sample[frames]) ** 2).double().sum())
    return total / 2


def updated(model: ProductConvolution, data: Data, factors: Factors, name: str) -> Factors:
    """Factors of which one, named as in `Factors`, is better than before, or as good."""
    find = {"knots": _of_knots, "kernels": _of_kernels, "transmission": _of_light, "reference": _of_light}[name]
    direction = find(model, data, factors, name)
    value: Tensor = getattr(factors, name)
    # F along the line: its slope and its curvature.
    slope = curvature = 0.0
    if name == "reference":
        change, off = model.cropped(direction), model.cropped(value) - data.reference
        slope += float((data.seen * off * change).double().sum())
        curvature += float((data.seen * change**2).double().sum())
    now, then = _batches(model, factors), _batches(model, factors._replace(**{name: direction}))
    for (frames, _, _, seen), (_, _, _, change) in zip(now, then, strict=True):
        weighted = data.weights[frames] * change
        slope += float((weighted * (seen - data.sample[frames])).double().sum())
        curvature += float((weighted * change).double().sum())
    if not (slope < 0 < curvature):
        return factors
    shrinks = direction < 0
    end = float((value[shrinks] / -direction[shrinks]).min()) if bool(shrinks.any()) else FARTHEST
    moved = value + min(-slope / curvature, end, FARTHEST) * direction
    moved = torch.where(moved > ROUNDING * moved.max(), moved, 0)  # else what has come to the border stays in the way
    if name == "knots":
        moved = moved / moved.sum(0)
    elif name == "kernels":
        moved = moved / moved.sum((1, 2), keepdim=True)
    return factors._replace(**{name: moved})


def _of_knots(model: ProductConvolution, data: Data, factors: Factors, name: str) -> Tensor:
    rank = len(factors.knots)
    slope, curvature = torch.zeros_like(factors.knots), factors.knots.new_zeros(rank, *factors.knots.shape)
    for frames, _, terms, seen in _batches(model, factors):
        weights = data.weights[frames]
        slope += model.at_knots(torch.einsum("mjk,mrjk->rjk", weights * (seen - data.sample[frames]), terms))
        for n in range(rank):
            curvature[n] += model.at_knots(torch.einsum("mjk,mrjk->rjk", weights * terms[:, n], terms))
    # Least of slope·d + ½ d·curvature·d at each knot, by accelerated projected gradients.
    steepest = torch.linalg.eigvalsh(curvature.flatten(2).movedim(-1, 0))[:, -1].reshape(slope.shape[1:])
    known = steepest > UNSEEN * steepest.max()  # elsewhere there are no data, and the slope is rounding
    steepest = steepest.clamp(min=TINY)
    found = ahead = factors.knots
    pace = 1.0
    for _ in range(INNER):
        gradient = slope + torch.einsum("rsjk,sjk->rjk", curvature, ahead - factors.knots)
        before, found = found, on_simplex(ahead - gradient / steepest)
        pace, last = (1 + (1 + 4 * pace**2) ** 0.5) / 2, pace
        ahead = found + (last - 1) / pace * (found - before)
    direction = found - factors.knots
    gain = (direction * (slope + torch.einsum("rsjk,sjk->rjk", curvature, direction) / 2)).sum(0)
    return torch.where(known & (gain < 0), direction, 0)


def _of_kernels(model: ProductConvolution, data: Data, factors: Factors, name: str) -> Tensor:
    weights = model.weights(factors.knots)
    slope = torch.zeros_like(factors.kernels)
    for frames, light, _, seen in _batches(model, factors):
        misfit = data.weights[frames] * (seen - data.sample[frames])
        slope += model.at_taps(light, frames, misfit[:, None] * weights)
    disc = (factors.kernels.sum(0) > 0).flatten()  # taps beyond it stay dark
    values, slopes = factors.kernels.flatten(1)[:, disc], slope.flatten(1)[:, disc]
    slopes = slopes - (slopes * values).sum(1, keepdim=True)
    # As long as moves a fifth of a kernel's light; the line ends where it should.
    length = 0.4 / (slopes.abs() * values.clamp(min=1e-3 / len(values[0]))).sum(1, keepdim=True).clamp(min=TINY)
    scaled = values - length * values.clamp(min=1e-3 / len(values[0])) * slopes
    across, down = torch.meshgrid(model.positions, model.positions, indexing="xy")
    places = torch.stack([down, across], -1).flatten(0, 1)[disc]
    exact = values.double()
    nearest = with_means(scaled.double(), places, exact @ places)
    direction = torch.zeros_like(factors.kernels).flatten(1)
    direction[:, disc] = (nearest - exact).to(values)
    return direction.reshape(slope.shape)


def _of_light(model: ProductConvolution, data: Data, factors: Factors, name: str) -> Tensor:
    spectra, weights = model.spectra(factors.kernels), model.weights(factors.knots)
    value: Tensor = getattr(factors, name)
    slope, bound = torch.zeros_like(value), torch.zeros_like(value)
    for frames, _, _, seen in _batches(model, factors, spectra, weights):
        for sums, wanted in ((slope, seen - data.sample[frames]), (bound, seen)):
            back = model.gathered((data.weights[frames] * wanted)[:, None] * weights, frames, spectra)
            if name == "transmission":
                sums += (factors.reference[frames] * back).sum(0)
            else:
                sums[frames] = factors.transmission * back
    if name == "reference":
        seen = model.embedded(data.seen)
        slope = torch.where(seen > 0, slope + seen * (value - model.embedded(data.reference)), 0)
        bound = bound + seen * value
    known = bound > 1e-3 * bound.max()
    change = (-slope / bound.clamp(min=TINY)).clamp(-LARGEST_CHANGE, LARGEST_CHANGE)
    return torch.where(known, value * change, 0)


def _batches(
    model: ProductConvolution, factors: Factors, spectra: Tensor | None = None, weights: Tensor | None = None
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Frames, their light, its terms and what is expected, batch by batch."""
    spectra = model.spectra(factors.kernels) if spectra is None else spectra
    weights = model.weights(factors.knots) if weights is None else weights
    for frames in model.batches(len(factors.reference), len(factors.kernels)):
        light = factors.transmission * factors.reference[frames]
        terms = model.terms(light, frames, spectra)
        yield frames, light, terms, torch.einsum("rjk,mrjk->mjk", weights, terms)
