"""What the compiled kernels of `ddf_tomo.retrieval.matching` do, in torch: for any device.

The functions have the names and arguments of the compiled ones, and write where those do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo.retrieval._matching_fit import bounded
from ddf_tomo.retrieval._matching_torch import (
    KAPPA,
    RESIDUAL,
    VALUE,
    confidence_in,
    determinant,
    inverse_of,
    matrix_of,
    of_pixels,
    placed,
    regressor_noise,
    regressors,
    upper_of,
)

ROUGH_RADIUS2 = 9.0  # of the ellipse of taps, for what only errors need
LEAST_PIVOT = 1e-9


def evaluate(
    sample: Tensor, reference: Tensor, alive: Tensor, weight: Tensor, reach: Tensor, factor: Tensor, slope: Tensor,
    noise: Tensor, smoothing2: float, chosen: Tensor, pixelwise: bool, active: Tensor, again: bool,
    transmission: Tensor, theta: Tensor, terms: Tensor, own: Tensor, start: int, stop: int,
) -> None:  # fmt: skip
    """As the compiled one."""
    row, column = active[start:stop].nonzero(as_tuple=True)
    at = row + start, column
    frames = sample, reference, alive, weight, reach, factor, slope, noise
    found = of_pixels(*frames, smoothing2, at, transmission, theta)
    here, t, normal = theta[at][:, chosen], transmission[at], found.normal - found.added
    good = normal[:, VALUE, VALUE] > 0
    square = torch.where(good, normal[:, VALUE, VALUE], 1)
    share, pull = normal[:, chosen, VALUE] / square[:, None], found.score[:, VALUE] / square
    matrix, score = normal[:, chosen][:, :, chosen], found.score[:, chosen]
    misfit, freedom, mine = found.misfit, found.freedom, torch.zeros_like(share)
    mean = t
    if pixelwise:
        misfit, freedom = misfit - pull * found.score[:, VALUE], freedom * (1 - 1 / found.data.clamp(min=1))
        mine = t[:, None] * share
        mean = t * (1 + pull) + (mine * here).sum(-1)
        score = score - share * found.score[:, VALUE, None]
        matrix = matrix - share[:, :, None] * normal[:, chosen, VALUE][:, None]
    right = score if again else score + (matrix @ here[..., None])[..., 0]
    values = torch.cat([upper_of(matrix), right, misfit.clamp(min=0)[:, None], freedom[:, None]], 1)
    own[at] = torch.where(good[:, None], torch.cat([mean[:, None], mine], 1), pad(t[:, None], (0, len(chosen)))).to(own)
    terms[at] = torch.where(good[:, None], values, 0).to(terms)


def scores(
    sample: Tensor, reference: Tensor, alive: Tensor, weight: Tensor, reach: Tensor, factor: Tensor, slope: Tensor,
    noise: Tensor, smoothing2: float, chosen: Tensor, pixelwise: bool, curvature: float, transmission: Tensor,
    theta: Tensor, terms: Tensor, added_out: Tensor, own: Tensor, start: int, stop: int,
) -> None:  # fmt: skip
    """As the compiled one."""
    from ddf_tomo.retrieval._matching_errors import UNINFORMATIVE

    at = tuple(torch.ones_like(transmission[start:stop]).nonzero().unbind(-1))
    at = at[0] + start, at[1]
    frames = sample, reference, alive, weight, reach, factor, slope, noise
    found = of_pixels(*frames, smoothing2, at, transmission, theta)
    here, t, part = theta[at], transmission[at], found.part
    ridge = UNINFORMATIVE * torch.diag_embed(found.normal.diagonal(dim1=1, dim2=2))
    added, normal = found.added + ridge, found.normal - found.added  # the ridge is in both
    good = normal[:, VALUE, VALUE] > 0
    square = torch.where(good, normal[:, VALUE, VALUE], 1)
    lost = 1 - 1 / found.data.clamp(min=1) if pixelwise else torch.ones_like(square)
    misfit = found.misfit - (found.score[:, VALUE].square() / square if pixelwise else 0)
    residual = (part[:, RESIDUAL, RESIDUAL] / (lost * part[:, KAPPA, KAPPA]).clamp(min=1e-30)).clamp(min=0).sqrt()
    product, alone = torch.zeros_like(normal), torch.zeros_like(square)
    signs = torch.ones_like(normal[0])
    signs[:2, :2] = -1  # what the square of the reference's noise adds to the odd ones
    for d, r in enumerate(reach):
        centre, covariance = placed(torch.stack(at, -1), here, slope[at], r, smoothing2)
        g, confidence = found.regressors, found.confidence
        if len(reach) > 1:
            g, mass = regressors(reference[d], alive[d], centre, covariance, None, r)
            confidence = confidence_in(mass)
        smoothed = covariance - r**2 * matrix_of(here[:, 2:5])
        seen, unit = (confidence > 0)[:, None, None], torch.eye(2).to(covariance)
        covariance, smoothed = (torch.where(seen, each, unit) for each in (covariance, smoothed))
        w, value, share = weight[d][at], g[:, VALUE], 1 / (t * factor[d][at])
        noisy = torch.zeros_like(g)
        for size, variance in ((share, smoothed), (1.0, covariance)):
            integral, left = _correlation(2 * variance, curvature)
            rough, _ = regressors(reference[d], alive[d], centre, covariance + left, None, r, ROUGH_RADIUS2)
            noisy = noisy + (integral * size).to(g)[:, None, None] * rough
        total, brightness = w.sum(1).double(), (w * value).sum(1).double()
        used = (confidence > 0) & (total > 0) & (brightness > 0)
        power = determinant(covariance).rsqrt() / (4 * math.pi)
        frame = share / (4 * math.pi * smoothing2) + power
        level = torch.where(used, brightness / total, 1)
        inverse = torch.where(used, confidence / (level * frame), 0).square() * noise[at]
        product = product + inverse[:, None, None] * (((w.square() * value)[:, None] * g) @ noisy.mT).double()
        alone = alone + inverse * (w.square() * value**3).sum(1) * frame
        extra = inverse * noise[at] * (w * value).square().sum(1)
        product = product + extra[:, None, None] * signs * regressor_noise(2 * covariance, r)
    product = (product + product.mT) / 2
    slopes = normal[:, chosen, VALUE] / square[:, None] * pixelwise
    with_t, of_t = product[:, chosen, VALUE], product[:, VALUE, VALUE, None]
    matrix = product[:, chosen][:, :, chosen] + slopes[:, :, None] * slopes[:, None] * of_t[..., None]
    matrix = matrix - slopes[:, :, None] * with_t[:, None] - slopes[:, None] * with_t[:, :, None]
    numbers = torch.stack([1 / square, alone, misfit, found.freedom * lost, residual], 1)
    values = torch.cat([numbers, slopes, with_t - slopes * of_t], 1)
    own[at] = torch.where(good[:, None], values, 0).to(own)
    terms[at] = torch.where(good[:, None], upper_of(matrix), 0).to(terms)
    added_out[at] = torch.where(good[:, None], upper_of(added[:, chosen][:, :, chosen]), 0).to(added_out)


def gather_down(terms: Tensor, taps: Tensor, sloped: int, out: Tensor, start: int, stop: int) -> None:
    """As the compiled one."""
    _gather(terms, taps, sloped, out, start, stop)


def gather_across(terms: Tensor, taps: Tensor, sloped: int, out: Tensor, start: int, stop: int) -> None:
    """As the compiled one."""
    _gather(terms[start:stop].transpose(0, 1), taps, sloped, out[start:stop].transpose(0, 1), 0, terms.shape[1])


def _gather(terms: Tensor, taps: Tensor, sloped: int, out: Tensor, start: int, stop: int) -> None:
    """Window sums along the first axis, and of the first ``sloped`` channels with the distance as a weight besides."""
    length, channels = len(terms), terms.shape[2]
    out[start:stop] = 0
    for lag, tap in enumerate(taps.tolist(), -(len(taps) // 2)):
        first, last = max(start, -lag), min(stop, length - lag)
        if first < last:
            part = tap * terms[first + lag : last + lag]
            out[first:last, :, :channels] += part
            out[first:last, :, channels:] += lag * part[..., :sloped]


def update(
    sums: Tensor, slope: Tensor, sloped: bool, again: bool, chosen: Tensor, pixelwise: bool, furthest: float,
    lowest: float, highest: float, own: Tensor, transmission: Tensor, theta: Tensor, change: Tensor,
    start: int, stop: int,
) -> None:  # fmt: skip
    """As the compiled one."""
    rows, count = slice(start, stop), len(chosen)
    pairs = count * (count + 1) // 2
    given, here = sums[rows].double(), theta[rows][..., chosen]
    matrix, right = matrix_of(given[..., :pairs]), given[..., pairs : pairs + count]
    if not again:
        right = right - (matrix @ here[..., None])[..., 0]
        if sloped:
            for axis, moments in enumerate(given[..., pairs + count + 2 :].split(pairs, -1)):
                right = right - (matrix_of(moments) @ slope[rows][..., chosen, axis, None])[..., 0]
    solver, _, possible = inverted(matrix, ridge=1e-6)
    step = (solver @ right[..., None])[..., 0]
    length = torch.hypot(step[..., 0], step[..., 1])
    step = torch.where(possible[..., None], step * (furthest / length.clamp(min=1e-30)).clamp(max=1)[..., None], 0)
    moved = (step * (matrix @ step[..., None])[..., 0]).sum(-1).abs()
    change[rows] = torch.where(possible, moved, -1)
    every = theta[rows].index_add(2, chosen, step)
    every[..., 2:5] = bounded(every[..., 2:5], lowest, highest)
    t = transmission[rows]
    if pixelwise:
        mean = own[rows].double()
        t = torch.minimum(torch.maximum(mean[..., 0] - (mean[..., 1:] * every[..., chosen]).sum(-1), t / 2), 2 * t)
    else:
        t = t * step[..., -1].clamp(-0.7, 0.7).exp()
    every[..., VALUE] = t.log()
    theta[rows] = torch.where(possible[..., None], every, theta[rows])
    transmission[rows] = torch.where(possible, t, transmission[rows])


def errors(
    sums: Tensor, spread: Tensor, added: Tensor, own: Tensor, transmission: Tensor, pixelwise: bool, central: float,
    out: Tensor, valid: Tensor, pull: Tensor, start: int, stop: int,
) -> None:  # fmt: skip
    """As the compiled one."""
    rows, count = slice(start, stop), (own.shape[2] - 5) // 2
    pairs = count * (count + 1) // 2
    normal, noisy, meat = (matrix_of(each[rows, :, :pairs].double()) for each in (sums, added, spread))
    scale = _scale(normal)
    # Where more than half of some combination of regressors is noise, taking it off leaves a guess.
    known = _cholesky((normal - noisy) * scale[..., :, None] * scale[..., None, :])[1]
    inverse, definite, positive = inverted(normal)
    good = known & definite & positive
    factor = inverse @ meat
    covariance = factor @ inverse
    pull[rows] = torch.where(good, factor.diagonal(dim1=-2, dim2=-1).sum(-1), 0)
    valid[rows] = good
    t = transmission[rows]
    found = torch.zeros_like(out[rows])
    if pixelwise:
        values = own[rows].double()
        unit, slopes = values[..., 0], values[..., 5 : 5 + count]
        cross = central * unit[..., None] * (inverse @ values[..., 5 + count :, None])[..., 0]
        pulled = (covariance @ slopes[..., None])[..., 0]
        found[..., 1:, 1:] = covariance
        found[..., 0, 0] = t**2 * (values[..., 1] * unit**2 + (slopes * (pulled - 2 * cross)).sum(-1))
        found[..., 0, 1:] = found[..., 1:, 0] = t[..., None] * (cross - pulled)
        none = (unit <= 0)[..., None]
        found[..., 0, :] = torch.where(none, torch.inf, found[..., 0, :])
        found[..., :, 0] = torch.where(none, torch.inf, found[..., :, 0])
    else:
        found = covariance.roll((1, 1), (-2, -1))
        found[..., 0, :] *= t[..., None]
        found[..., :, 0] *= t[..., None]
    out[rows] = torch.where(good[..., None, None], found, out[rows])


def _scale(matrix: Tensor) -> Tensor:
    """What brings the diagonal to 1, where it is positive."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return torch.where(diagonal > 0, diagonal, 1).rsqrt()


def _cholesky(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Factors, and where they exist."""
    found = torch.linalg.cholesky_ex(matrix)
    return found.L, (found.info == 0) & (found.L.diagonal(dim1=-2, dim2=-1).amin(-1).square() > LEAST_PIVOT)


def inverted(matrix: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse; where there is one; where the diagonal is positive. A ``ridge`` rises until there is one."""
    scale = _scale(matrix)
    positive = (matrix.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
    unit = torch.eye(matrix.shape[-1]).to(matrix)
    scaled = torch.where(positive[..., None, None], matrix * scale[..., :, None] * scale[..., None, :], unit)
    low, definite = _cholesky(scaled + ridge * unit)
    while ridge and ridge < 1e3 and not definite.all():
        ridge *= 30
        again, now = _cholesky(scaled + ridge * unit)
        low, definite = torch.where(definite[..., None, None], low, again), definite | now
    low = torch.where(definite[..., None, None], low, unit)
    return torch.cholesky_inverse(low) * scale[..., :, None] * scale[..., None, :], definite, positive


def _correlation(covariance: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
    """What a window leaves of a Gaussian correlation, ``exp(-curvature δ²/2)`` of it: its integral, its covariance."""
    left = inverse_of(inverse_of(covariance) + curvature * torch.eye(2).to(covariance))
    return (determinant(left) / determinant(covariance)).sqrt(), left
