"""Standard errors from the Fisher matrix of the imaging model, whatever the method that found the maps.

Counts of a frame with the mean ``I_m = T [G_C * R_m](x − u)`` tell of the unknowns ``F = Σ ∂I ∂Iᵀ / I`` (Kay 1993,
Fundamentals of Statistical Signal Processing, 3.4); no unbiased estimate has a covariance below ``F⁻¹``. Unknowns of a
window of standard deviation w add over its ``4π w²`` pixels, which is what an average over a Gaussian is worth.

Pixels do not resolve the derivatives of narrow Gaussians. Frames that are smoothed a little carry ``F₁``, and ``F₂`` if
their kernel is smoothed twice: ``F⁻¹`` is ``F₁⁻¹ F₂ F₁⁻¹`` to first order in the logarithm of what smoothing takes, and
is what least squares of smoothed frames attain. For grains of four pixels that is 2 % (u) to 7 % (C) above where C = 0.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ddf_tomo._checks import message
from ddf_tomo.retrieval._filters import window_sum
from ddf_tomo.retrieval._matching_device import inverted
from ddf_tomo.retrieval._matching_fit import bounded
from ddf_tomo.retrieval._matching_torch import (
    KAPPA,
    VALUE,
    confidence_in,
    matrix_of,
    regressor_noise,
    regressors,
    upper_of,
)
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

ERRORS = ("sandwich", "fisher")
SMOOTHED = 0.5  # square pixels
LEAST = 0.05  # of the brightness of a frame
AT_ONCE = 1 << 16  # pixels


def with_fisher_errors(
    maps: Maps, view: View, window: float, smoothing: float, background: bool, *, pixelwise: bool = True
) -> Maps:
    """The same maps, with the errors that counting noise of the sample's frames alone would leave.

    ``window`` is that of equal noise; ``background``: κ is unknown as well; ``pixelwise``: T is of each pixel alone, or
    rather of those that ``smoothing`` puts together. Raises ``ValueError`` where the counts are not known.
    """
    if math.isnan(view.counts):
        hint = "The Fisher matrix is that of known counts"
        raise ValueError(message("gain", "counts per quantum for errors='fisher'", None, hint))
    with torch.no_grad():
        chosen = [0, 1, 2, 3, 4] + [5] * background + [6] * (not pixelwise)
        sums = []
        for smoothed in (2 * SMOOTHED, SMOOTHED):
            matrix = _information(maps, view, smoothed)
            own = matrix[..., VALUE, VALUE].clamp(min=1e-30)
            share = matrix[..., chosen, VALUE] / own[..., None] * pixelwise
            shared = matrix[..., chosen, :][..., chosen] - share[..., :, None] * matrix[..., None, VALUE, chosen]
            sums.append(matrix_of(2 * window_sum(upper_of(shared).movedim(-1, 0), window).movedim(0, -1)))
        inverse, good, _ = inverted(sums[1])
        found = inverse @ sums[0] @ inverse
        every = found.new_zeros(*found.shape[:-2], 7, 7)  # in the order u, C, κ, ln T
        index = torch.tensor(chosen, device=found.device)
        every[..., index[:, None], index] = found
        if pixelwise:
            crossed = -(found @ share[..., None])[..., 0]
            every[..., index, VALUE] = every[..., VALUE, index] = crossed
            every[..., VALUE, VALUE] = 1 / (own * max(1.0, 4 * math.pi * smoothing**2)) - (crossed * share).sum(-1)
        good = good & torch.as_tensor(maps.valid) & (matrix[..., VALUE, VALUE] > 0)
        return _written(maps, every, good, background)


def _information(maps: Maps, view: View, smoothed: float) -> Tensor:
    """Fisher matrices (row, column, 7, 7) of u, C, κ and ln T, of each pixel alone, from Gaussians wider by so much."""
    reference, weights = (each.movedim(1, -1) for each in (view.reference - 1, view.weights.expand_as(view.sample)))
    transmission, kappa, u, c = (
        torch.as_tensor(each).double()
        for each in (maps.transmission, maps.background, maps.displacement, maps.covariance)
    )
    rows, columns = transmission.shape
    parts = []
    for rows_of_piece in torch.arange(rows, device=u.device).split(max(1, AT_ONCE // columns)):
        at = torch.cartesian_prod(rows_of_piece, torch.arange(columns, device=u.device)).unbind(-1)
        k, total = kappa[at][:, None], u.new_zeros(len(at[0]), 7, 7)
        share = view.counts * (transmission[at] / (1 + kappa[at])).clamp(min=0)
        for d, reach in enumerate(view.reach.double()):
            covariance = matrix_of(bounded(reach**2 * c[at])) + smoothed * torch.eye(2).to(c)
            centre, alive = torch.stack(at, -1) - reach * u[at], (weights[d] > 0).any(-1)
            g, mass = regressors(reference[d], alive, centre, covariance, None, reach)
            w = weights[d][at] * confidence_in(mass).to(g)[:, None]
            g = torch.cat([g[:, :VALUE], g[:, VALUE:] + k[..., None].to(g)], 1)
            part = ((w / g[:, VALUE].clamp(min=LEAST))[:, None] * g @ g.mT).double()
            # Noise of a reference exposed as long would pass for its pattern; half of what there is, at most.
            noise = w.sum(1).double()[:, None, None] * regressor_noise(covariance, reach) / view.counts
            there, passed = (each.diagonal(dim1=1, dim2=2)[:, :KAPPA] for each in (part, noise))
            noise = noise * (0.5 * there / passed.clamp(min=1e-30)).amin(1).clamp(max=1)[:, None, None]
            total = total + share[:, None, None] * (part - noise)
        parts.append(total)
    return torch.cat(parts).reshape(rows, columns, 7, 7)


def _written(maps: Maps, matrix: Tensor, good: Tensor, background: bool) -> Maps:
    """Maps with these covariances of u, C, κ and ln T; T is the share of the light, κ included."""
    turn = matrix.new_zeros(*good.shape, 7, 7)  # to T, u, C, κ
    transmission = torch.as_tensor(maps.transmission)
    turn[..., 0, VALUE] = transmission.double()
    turn[..., 0, KAPPA] = transmission.double() / (1 + torch.as_tensor(maps.background).double())
    for n in range(6):
        turn[..., 1 + n, n] = 1
    matrix = turn @ matrix @ turn.mT
    variance = torch.where(good[..., None], matrix.diagonal(dim1=-2, dim2=-1).clamp(min=0), torch.inf)
    matrix = torch.where(good[..., None, None], matrix, torch.diag_embed(torch.full_like(variance, torch.inf)))
    error = variance.sqrt().to(transmission)
    return replace(
        maps,
        transmission_error=error[..., 0],
        displacement_error=error[..., 1:3],
        covariance_error=error[..., 3:6],
        background_error=error[..., 6] if background else maps.background_error,
        error_matrix=upper_of(matrix[..., :6, :6]).to(transmission),
    )
