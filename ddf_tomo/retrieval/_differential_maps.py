"""What both forms of the linear retrieval share: their constants, what they give, and the maps made of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, erode, gaussian_taps
from ddf_tomo.retrieval._focusing import focused
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

OPAQUE = 1e-2  # below this transmission a frame holds no pattern to compare
UNINFORMATIVE = 1e-5  # share of a regressor's square that has to differ from step to step
PASSES = 3  # over the frames
LEAST_CONTRAST = 0.25  # of the reference, as a share of the contrast of the sample's frames
LEAST_PIVOT = 1e-4  # share of a regressor's square that the others leave: of less, rounding decides
MOST_LEVERAGE = 0.9
SPREAD = 1.34  # times the smoothing, added to a window in squares, by which u is coarser than T
IN_MATRIX = 6  # ln T, u and C: the covariance of κ with them is not told
COARSEST = 8  # pixels between estimates of a variance; the door's tiles begin at multiples of it


class Fit(NamedTuple):
    """Outcome for one view.

    Attributes
    ----------
    transmission : (distance, row, column)
    unknowns : (5 or 6, row, column)
        u_j, u_k, C_jj, C_jk, C_kk and, if asked for, κ.
    scatter : (21 or 22, row, column)
        Sum over the frames of the outer product of their pulls on (ln T, unknowns): of each pair of `scattered`.
    misfit : (distance, row, column)
        Squared residuals of S/T - R, summed over the steps.
    counted : (distance, row, column)
        Number of frames that count.
    mean : (distance, row, column)
        Of the reference.
    valid : (row, column)
    """

    transmission: Tensor
    unknowns: Tensor
    scatter: Tensor
    misfit: Tensor
    counted: Tensor
    mean: Tensor
    valid: Tensor


def powers(background: bool) -> Tensor:
    """Of the distance with which displacement, covariance and background grow."""
    return torch.tensor([1, 1, 2, 2, 2] + [0] * background)


def scattered(background: bool) -> list[tuple[int, int]]:
    """Pairs of (ln T, unknowns) whose covariance is asked for: all but those of κ with the others."""
    upper = [(a, b) for a in range(IN_MATRIX) for b in range(a, IN_MATRIX)]
    return upper + [(IN_MATRIX, IN_MATRIX)] * background


def coarseness(window: float) -> int:
    """Pixels between estimates of a variance, below the window's width: its samples then add up evenly to 1e-8."""
    return min(COARSEST, 1 << max(0, math.floor(math.log2(window))))


def usable(weights: Tensor, bright: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Weights (distance, step, row, column) of the frames whose filters meet nothing bad; pixels that have such frames.

    Elsewhere the weights are those of the pixel itself, which serve its own transmission and no window.
    """
    clean = erode(weights > 0, len(gaussian_taps(smoothing)) - 1)
    inner = erode(clean & bright[:, None], DERIVATIVE_REACH)
    informative = inner.any(1)
    own = torch.where((weights > 0).any(1, keepdim=True), weights, 1)
    return torch.where(informative[:, None], torch.where(inner, weights, 0), own), informative


def maps_of(fit: Fit, view: View, window: float, smoothing: float, background: bool) -> Maps:
    """Maps of one view, standard errors from the scatter of the frames."""
    frames, distances = fit.counted.sum(0), (fit.counted > 0).sum(0)
    lit = frames > 0
    frames = torch.where(lit, frames, view.sample.shape[0] * view.sample.shape[1])
    spare = (frames - torch.where(lit, distances, len(fit.mean))).clamp(min=1)
    transmission = fit.transmission[0]
    if len(fit.transmission) > 1:
        transmission, diluted = _shared(fit, view.reach, window)

    # Residuals have lost a frame of each distance to T, and what they say of a window to it once more.
    lost = frames / spare
    of_t = lost.sqrt() * transmission.abs()
    units = [torch.where(fit.valid, unit, 0) for unit in (of_t * of_t, of_t * lost, lost * lost)]
    upper, diagonal, pairs = [], [], scattered(background)
    for (a, b), scatter in zip(pairs, fit.scatter, strict=True):
        entry = scatter * units[(a > 0) + (b > 0)]
        if a == b:
            entry = entry.clamp(min=0)
            if a == 0 and len(fit.transmission) > 1:
                of_u = fit.scatter[pairs.index((1, 1))] + fit.scatter[pairs.index((2, 2))]
                entry = entry + diluted * units[2] * of_u
            entry = torch.where(fit.valid, entry, torch.inf)
            diagonal.append(_root(entry))
        if b < IN_MATRIX:
            upper.append(entry)
    errors = torch.stack(diagonal).movedim(0, -1)
    relative = (fit.misfit / fit.mean.square()).sum(0) / spare
    nothing = torch.zeros_like(transmission)
    return Maps(
        transmission=transmission,
        displacement=fit.unknowns[:2].movedim(0, -1),
        covariance=fit.unknowns[2:5].movedim(0, -1),
        background=fit.unknowns[5] if background else nothing,
        transmission_error=errors[..., 0],
        displacement_error=errors[..., 1:3],
        covariance_error=errors[..., 3:6],
        background_error=errors[..., 6] if background else nothing,
        residual=_root(relative),
        valid=fit.valid,
        windows_px=(math.hypot(window, SPREAD * smoothing),),
        chi2=_chi2(fit, view.counts, smoothing, spare) if math.isfinite(view.counts) else None,
        error_matrix=torch.stack(upper).movedim(0, -1),
    )


def _root(value: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero."""
    if not value.requires_grad:
        return value.sqrt()
    some = value > 0
    return torch.where(some, torch.where(some, value, 1).sqrt(), 0)


def _shared(fit: Fit, reach: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Transmission of all distances, freed of the propagation contrast; and T² times that contrast's noise, per var u.

    An average over a Gaussian window of width w has noise whose slope has the variance ``var u / (2 w²)``.
    """
    photons = fit.counted * fit.mean
    total = photons.sum(0)
    photons = torch.where(total > 0, photons / torch.where(total > 0, total, 1), 1 / len(photons))
    found, mean_reach = focused(fit.transmission, photons, fit.unknowns[:2], fit.valid, reach)
    return found, (found * mean_reach / window).square() / 2


def _chi2(fit: Fit, counts: float, smoothing: float, spare: Tensor) -> Tensor:
    """Squared residual over that of counted quanta, whose variance smoothing lowers."""
    taps = gaussian_taps(smoothing)
    kept = (2 * sum(tap**2 for tap in taps) - taps[0] ** 2) ** 2
    transmission = torch.where(fit.valid, fit.transmission, 1).clamp(min=OPAQUE)
    expected = fit.mean * (1 + 1 / transmission) * (kept / counts)
    return torch.where(fit.valid, (fit.misfit / expected).sum(0) / spare, 0)


def options_of(options: dict[str, Any]) -> tuple[float, float, bool]:
    """Window, smoothing, background."""
    return options["window"], options["smoothing"], options["background"]
