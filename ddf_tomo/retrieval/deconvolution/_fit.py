"""Blind deconvolution of one view: a start, then updates in turn, and the kernel field they end with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddf_tomo.retrieval._filters import smooth
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution
from ddf_tomo.retrieval.deconvolution._motion import divergence, filled, forward, pulled, pulled_weights, pushed
from ddf_tomo.retrieval.deconvolution._starts import (
    FLOOR,
    clusters,
    directional,
    features_at_knots,
    gaussian_kernels,
    memberships,
)
from ddf_tomo.retrieval.deconvolution._updates import Data, Factors, expected, objective, updated
from ddf_tomo.retrieval.deconvolution.field import KernelField
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["KERNELS", "arrived", "begun", "fitted", "halves", "inward", "mapped", "rank_of"]

KERNELS = ("clusters", "directions")
ROUND = ("knots", "reference", "knots", "transmission", "knots", "kernels")  # updates of an iteration
FIXED = ("knots", "reference", "knots", "transmission")  # while the fixed kernels rest
RANKS = (1, 2, 4, 8, 16)
TRIAL = 4  # iterations, with each of them
HELD_OUT = 4  # one of so many steps
ERRORS_OVER = 4.0  # pixels: what differs between halves is averaged over a Gaussian of this width
FARTHER = 1.4  # from their mean than the groups that kernels start from
VARIANCE_OVER, DARKEST = 1.0, 0.05  # pixels; of the mean


def begun(view: View, window: float) -> Maps:
    """Maps from `matching`, where blind deconvolution starts."""
    from ddf_tomo.retrieval.matching import METHOD

    shape = tuple(view.sample.shape)
    return METHOD.fit(view, METHOD.check(METHOD.options | {"window": window}, shape), lambda: None)


def _prepared(view: View, options: dict[str, Any], maps: Maps) -> tuple[ProductConvolution, Data]:
    """The model for the frames of all distances, and the frames, pulled back by the start's displacement.

    Of several distances the brightness by which light converges is taken off as well.
    """
    distances, steps, *image = view.sample.shape
    reach = view.reach.to(view.sample).repeat_interleave(steps)
    shape, spacing = (image[0], image[1]), options["window"] * math.sqrt(3)
    model = ProductConvolution(shape, reach, options["support"], options["oversampling"], spacing)
    sample, reference = (each.detach().flatten(0, 1) for each in (view.sample, view.reference))
    seen = view.weights.expand(view.sample.shape).flatten(0, 1)
    v = forward(arrived(maps)[0])
    sample, clear = pulled(sample, v, reach), pulled_weights(seen, v, reach)
    # Variances of counts; smoothed, as noise in them would favour what is dark by chance.
    precision = [
        1 / smooth(each, VARIANCE_OVER).clamp(min=DARKEST * max(float(each.mean()), DARKEST))
        for each in (sample, reference)
    ]
    if distances > 1:
        spread = divergence(v, reach).clamp(0.5, 2)
        sample, precision[0] = sample * spread, precision[0] / spread**2
    half = options["support"] // 2
    inside = torch.zeros(shape).to(sample)
    inside[half : shape[0] - half, half : shape[1] - half] = 1
    return model, Data(sample, reference, clear * inside * precision[0], seen * precision[1])


def arrived(maps: Maps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Displacement ``(2, row, column)``, covariance ``(3, …)``, transmission and validity; gaps of u and T filled."""
    parts = maps.displacement, maps.covariance, maps.transmission, maps.valid
    displacement, covariance, transmission, valid = (torch.as_tensor(each) for each in parts)
    transmission = torch.where(valid, transmission.clamp(min=1e-3), 1.0)
    if not bool(valid.all()) and bool(valid.any()):
        transmission = torch.where(valid, transmission, transmission[valid].mean())
    return filled(displacement, valid), covariance.movedim(-1, 0), transmission, valid


def inward(v: Tensor, transmission: Tensor, covariance: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same maps at the places that light leaves."""
    whole = torch.ones(1).to(v)
    moved = pulled(torch.cat([transmission[None], covariance]), v, whole.expand(4))
    return moved[0].clamp(min=1e-3), moved[1:], pulled_weights(valid.to(v)[None], v, whole)[0] > 0


def _start(model: ProductConvolution, data: Data, maps: Maps, options: dict[str, Any]) -> Factors:
    """The first factors, none of them zero."""
    displacement, covariance, transmission, valid = arrived(maps)
    transmission, covariance, valid = inward(forward(displacement), transmission, covariance, valid)
    features, confidence = features_at_knots(model, covariance, valid)
    if float(confidence.max()) <= 0:
        confidence = torch.ones_like(confidence)
    if options["kernels"] == "clusters":
        centres = clusters(features, confidence, options["rank"])
        # Mixtures lie between their kernels: means of groups alone would leave out what is narrow, and what is wide.
        middle = (confidence[:, None] * features).sum(0) / confidence.sum()
        centres = middle + FARTHER * (centres - middle)
        c = centres * torch.tensor([1, 1 / math.sqrt(2), 1]).to(centres)
        shares = memberships(features, centres)
    else:
        blur = (features[:, 0] + features[:, 2]).clamp(min=0)
        c = directional(options["rank"], float(torch.quantile(blur, 0.95).sqrt()))
        shares = torch.full((len(c), len(features)), 1 / len(c)).to(features)
    radius = torch.hypot(model.positions[:, None], model.positions)
    disc = (radius <= float(model.positions[-1]) + 1e-6).double()
    kernels = gaussian_kernels(model.positions, c.to(model.positions)) * disc
    kernels = (1 - FLOOR) * kernels / kernels.sum((1, 2), keepdim=True).clamp(min=1e-12) + FLOOR * disc / disc.sum()
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    sizes = model.down.shape[1], model.across.shape[1]
    return Factors(
        shares.reshape(-1, *sizes).to(data.sample),
        kernels.to(data.sample),
        model.padded(transmission[None])[0].to(data.sample),
        model.padded(data.reference.clamp(min=1e-3)),
    )


def rank_of(view: View, options: dict[str, Any]) -> int:
    """The smallest number of kernels with which some steps predict the others as well as any.

    A quarter of the steps is held out of kernels and weights. Their own reference is the light as measured, so that the
    held-out sample compares ranks fairly. As well: within a standard deviation of such a sum of squares.
    """
    steps = torch.arange(view.sample.shape[1], device=view.sample.device)
    kept, held = (_part(view, steps[which]) for which in (steps % HELD_OUT > 0, steps % HELD_OUT == 0))
    maps = begun(kept, options["window"])
    found: list[float] = []
    used = 1
    for rank in RANKS:
        chosen = options | {"rank": rank}
        model, data = _prepared(kept, chosen, maps)
        factors = _start(model, data, maps, chosen)
        for _ in range(TRIAL):
            for name in ROUND:
                factors = updated(model, data, factors, name)
        other, unseen = _prepared(held, chosen, maps)
        light = other.padded(unseen.reference.clamp(min=1e-3))
        nothing = unseen._replace(seen=torch.zeros_like(unseen.seen))
        found.append(objective(other, nothing, factors._replace(reference=light)))
        used = max(1, int((unseen.weights > 0).sum()))
    limit = min(found) * (1 + math.sqrt(2 / used))
    return next(rank for rank, left in zip(RANKS, found, strict=True) if left <= limit)


def _part(view: View, steps: Tensor) -> View:
    weights = view.weights if view.weights.shape[1] == 1 else view.weights[:, steps]
    return view._replace(sample=view.sample[:, steps], reference=view.reference[:, steps], weights=weights)


def halves(view: View) -> list[View]:
    """Every second step, and the others."""
    steps = torch.arange(view.sample.shape[1], device=view.sample.device)
    return [_part(view, steps[n::2]) for n in (0, 1)]


def fitted(view: View, options: dict[str, Any], tick: Callable[[], object] = lambda: None) -> KernelField:
    """The kernel field of a view.

    Parameters
    ----------
    view
        Frames.
    options
        As `ddf_tomo.retrieval.deconvolution.METHOD` has checked them, ``rank`` a number.
    tick
        Called for each frame, ``iterations`` times.
    """
    maps = begun(view, options["window"])
    model, data = _prepared(view, options, maps)
    factors = _start(model, data, maps, options)
    history = [objective(model, data, factors)]
    for iteration in range(options["iterations"]):
        resting = options["kernels"] == "directions" and 2 * iteration < options["iterations"]
        for name in FIXED if resting else ROUND:
            factors = updated(model, data, factors, name)
            if options["record"]:
                history.append(objective(model, data, factors))
        for _ in data.sample:
            tick()
    if not options["record"]:
        history.append(objective(model, data, factors))
    return _field(model, data, factors, maps, history, view)


def _field(
    model: ProductConvolution, data: Data, factors: Factors, maps: Maps, history: list[float], view: View
) -> KernelField:
    """Of the factors, which belong to places of the object, what belongs to those where light arrives."""
    u, _, _, valid = arrived(maps)
    v = forward(u)
    steps = view.sample.shape[1]
    reach = view.reach.to(u).repeat_interleave(steps)
    whole = torch.ones(1).to(u)
    weights = model.weights(factors.knots)
    order = weights.mean((1, 2)).argsort(descending=True)
    # As it arrives at the longest distance, the last frame's.
    last = slice(len(data.sample) - 1, None)
    moved = model.terms(factors.transmission[None], last, model.spectra(factors.kernels))[0]
    transmission = pushed((weights * moved).sum(0)[None], v, whole)[0]
    weights = pushed(weights[order], v, whole.expand(len(order))).clamp(min=0)
    # Misfit and its weights where they were measured.
    spread = divergence(v, reach).clamp(0.5, 2) if len(view.reach) > 1 else 1
    sample = view.sample.flatten(0, 1)
    misfit = sample - pushed(expected(model, factors) / spread, v, reach)
    seen = view.weights.expand(view.sample.shape).flatten(0, 1)
    counted = pushed(data.weights * spread**2, v, reach).clamp(min=0) * (seen > 0)
    used = (counted > 0).sum(0)
    valid = (used > 0) & valid & (transmission > 1e-3)
    share = counted / counted.sum(0).clamp(min=1e-12)
    residual = (share * misfit**2).sum(0).sqrt() / transmission.clamp(min=1e-3)
    chi2 = None
    if not math.isnan(view.counts):
        # Of both frames; each pixel's light is fitted, and its transmission, and its share of the weights.
        of_light = data.seen * (data.reference - model.cropped(factors.reference)) ** 2
        squares = counted * misfit**2 + (counted > 0) * pushed(of_light, v, reach).clamp(min=0)
        knots = (len(weights) - 1) * factors.knots[0].numel() / transmission.numel()
        chi2 = torch.where(valid, view.counts * squares.sum(0) / (used - 1 - knots).clamp(min=0.5), 0)
    return KernelField(
        weights / weights.sum(0),
        factors.kernels[order],
        model.positions.to(weights),
        u.movedim(0, -1),
        transmission,
        model.cropped(factors.transmission),
        valid,
        tuple(history),
        torch.where(valid, residual, 0),
        chi2,
    )


def mapped(field: KernelField, parts: list[KernelField], window: float) -> Maps:
    """Maps of a field; errors are half of what those of its halves differ by, averaged over some pixels."""
    valid = field.valid & parts[0].valid & parts[1].valid

    def values(field: KernelField) -> Tensor:
        return torch.cat([field.transmission[..., None], field.displacement, field.covariance], -1)

    found = torch.where(valid[..., None], values(field), 0)
    square = torch.where(valid[..., None], ((values(parts[0]) - values(parts[1])) / 2) ** 2, 0).movedim(-1, 0)
    share = smooth(valid.to(found)[None], ERRORS_OVER).clamp(min=1e-6)
    errors = (smooth(square, ERRORS_OVER) / share).sqrt().movedim(0, -1)
    errors = torch.where(valid[..., None], errors, torch.inf)
    nothing = torch.zeros_like(field.residual)
    return Maps(
        transmission=found[..., 0],
        displacement=found[..., 1:3],
        covariance=found[..., 3:],
        background=nothing,
        transmission_error=errors[..., 0],
        displacement_error=errors[..., 1:3],
        covariance_error=errors[..., 3:],
        background_error=nothing,
        residual=torch.where(valid, field.residual, 0),
        valid=valid,
        chi2=None if field.chi2 is None else torch.where(valid, field.chi2, 0),
        windows_px=(window, window),
    )
