"""What the compiled kernels of `ddf_tomo.retrieval.matching` do, in torch: for any device, and for gradients.

The functions that the fit calls have the names and arguments of the compiled ones, and write where those do. Sums over
taps are batched products of matrices here: the weights of each pixel's Gaussian and of its derivatives, times the
frames at its taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo.retrieval._matching_fit import bounded

RADIUS2 = 16.0  # of the ellipse of taps, in standard deviations, squared
ROUGH_RADIUS2 = 9.0  # as RADIUS2, for what only errors need
NUMBERS = 1 << 24  # at taps of pixels, at once
KAPPA, VALUE, RESIDUAL = 5, 6, 7
LEAST_PIVOT = 1e-9
BLURS = ((0, 0), (0, 1), (1, 1))  # axes of C_jj, C_jk, C_kk,
TWICE = (0.5, 1.0, 0.5)  # and how often each is in ½ C:∇∇


def placed(place: Tensor, theta: Tensor, slope: Tensor, reach: Tensor, smoothing2: float) -> tuple[Tensor, Tensor]:
    """Place (pixel, axis) and covariance (pixel, axis, axis) of the Gaussian that makes sample of reference."""
    turn = torch.eye(2).to(theta) - reach * slope[:, :2]
    centre = place - reach * theta[:, :2] + smoothing2 * (turn @ slope[:, VALUE, :, None])[..., 0]
    return centre, reach**2 * matrix_of(theta[:, 2:5]) + smoothing2 * turn @ turn.mT


def skewness(slope: Tensor, reach: Tensor, covariance: Tensor) -> Tensor:
    """Slopes of the blur (pixel, axis, axis, along), reduced where they are too steep for first order."""
    from ddf_tomo.retrieval._matching_kernel import STEEPEST

    found = reach**2 * matrix_of(slope[:, 2:5].mT).movedim(1, -1)
    covariance = covariance.detach()
    trace, size = covariance.diagonal(dim1=1, dim2=2).sum(-1), found.detach().square().sum((1, 2, 3))
    steepness = (size * trace).clamp(min=0).sqrt() * trace / _determinant(covariance)
    return found * (STEEPEST / steepness.clamp(min=1e-30)).clamp(max=1)[:, None, None, None]


def regressors(
    reference: Tensor, alive: Tensor, centre: Tensor, covariance: Tensor, skew: Tensor | None, reach: float | Tensor,
    radius2: float = RADIUS2,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Derivatives of the blurred, moved reference by u and C, 1, and its value: ``(pixel, 7, step)``.

    ``reference`` (row, column, step) is less 1. The second result is how much of each Gaussian lies on living pixels.
    """
    from ddf_tomo.retrieval._matching_kernel import LEAST_NARROWNESS

    (rows, columns, steps), frames = reference.shape, reference.flatten(0, 1)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    wide = (diagonal > 0).all(1) & (_determinant(covariance) >= LEAST_NARROWNESS * diagonal.sum(1))
    inverse = _inverse(torch.where(wide[:, None, None], covariance, torch.eye(2).to(covariance)))
    norm = torch.where(wide, _determinant(inverse).sqrt() / (2 * math.pi), 0)
    base = centre.detach().round()
    pixels = [(centre - base).to(frames), inverse.to(frames), norm.to(frames), base.long()]
    pixels += [] if skew is None else [skew.to(frames)]

    def of(
        size: int, rest: Tensor, inverse: Tensor, norm: Tensor, base: Tensor, skew: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Of pixels whose Gaussians reach over ``size`` pixels."""
        lags = torch.arange(-size, size + 1, device=base.device)
        lags = torch.stack(torch.meshgrid(lags, lags, indexing="ij"), -1).flatten(0, 1)
        delta = rest[:, None] - lags
        q = delta @ inverse
        square = (q * delta).sum(-1)
        row, column = (base[:, None] + lags).unbind(-1)
        inside = (square <= radius2) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        weight = torch.where(inside, norm[:, None] * torch.exp(-0.5 * square), 0)
        at = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        mass = (weight * alive.flatten()[at].to(weight)).sum(-1)
        second = [q[..., a] * q[..., b] - inverse[:, a, b, None] for a, b in BLURS]
        if skew is not None:
            change = torch.einsum("pabc,ptc->abpt", skew, delta)
            weight = weight * (
                1
                - sum(share * change[a, b] * each for share, (a, b), each in zip(TWICE, BLURS, second, strict=True))
                + (torch.einsum("paba->pb", skew)[:, None] * q).sum(-1)
            )
        by_c = [share * reach**2 * each for share, each in zip(TWICE, second, strict=True)]
        kernels = torch.stack([reach * q[..., 0], reach * q[..., 1], *by_c, torch.ones_like(weight)], 1)
        found = torch.where(inside[:, None], weight[:, None] * kernels, 0) @ frames[at]
        return torch.cat([found[:, :5], torch.ones_like(found[:, :1]), 1 + found[:, 5:]], 1), mass

    # Gaussians of about one size together: a wide one costs a hundred times a narrow one.
    sizes = torch.where(wide, (radius2 * diagonal.detach().amax(1)).sqrt() + 0.5, 0).long()
    order = sizes.argsort()
    different, counts = sizes[order].unique_consecutive(return_counts=True)
    parts = [
        of(size, *(each[piece] for each in pixels))
        for size, same in zip(different.tolist(), order.split(counts.tolist()), strict=True)
        for piece in same.split(max(1, NUMBERS // ((2 * size + 1) ** 2 * (steps + 16))))
    ]
    if not parts:
        return frames.new_zeros(0, 7, steps), frames.new_zeros(0)
    back = order.argsort()
    found, mass = (torch.cat(each)[back] for each in zip(*parts, strict=True))
    return found, mass.to(covariance)


def regressor_noise(covariance: Tensor, reach: Tensor) -> Tensor:
    """Covariances (pixel, 7, 7) of the regressors under white noise of variance 1 in the reference.

    In the Fourier domain they are ``i k_a`` and ``-k_a k_b`` times ``exp(-kᵀ Σ k / 2)``: moments of a Gaussian.
    """
    inverse = _inverse(covariance)
    power = _determinant(inverse).sqrt() / (4 * math.pi)
    moment, r2 = inverse / 2, reach**2 * power
    found = covariance.new_zeros(len(covariance), 7, 7)
    found[:, :2, :2] = r2[:, None, None] * moment
    for n, (a, b) in enumerate(BLURS):
        found[:, 2 + n, VALUE] = found[:, VALUE, 2 + n] = -TWICE[n] * r2 * moment[:, a, b]
        for i, (c, d) in enumerate(BLURS):
            pairs = ((a, b, c, d), (a, c, b, d), (a, d, b, c))
            fourth = sum(moment[:, e, f] * moment[:, g, h] for e, f, g, h in pairs)
            found[:, 2 + n, 2 + i] = TWICE[n] * TWICE[i] * reach**2 * r2 * fourth
    found[:, VALUE, VALUE] = power
    return found


class Found(NamedTuple):
    """Of some pixels, all distances together; the last two rows of the last distance that counts."""

    normal: Tensor  # (pixel, 7, 7), what noise adds still in it; without a gradient
    added: Tensor  # (pixel, 7, 7): that
    score: Tensor  # (pixel, 7)
    misfit: Tensor  # squared
    freedom: Tensor
    data: Tensor  # their number
    confidence: Tensor
    part: Tensor  # (pixel, 8, 8): sums over the steps of products of the regressors and the residual
    regressors: Tensor  # (pixel, 7, step)


def of_pixels(
    sample: Tensor, reference: Tensor, alive: Tensor, weight: Tensor, reach: Tensor, factor: Tensor, slope: Tensor,
    noise: Tensor, smoothing2: float, at: tuple[Tensor, Tensor], transmission: Tensor, theta: Tensor,
) -> Found:  # fmt: skip
    """Normal matrices and scores of the pixels ``at`` (rows, columns)."""
    from ddf_tomo.retrieval._matching_kernel import STEEP

    here, t, changes, level_of_noise = theta[at], transmission[at], slope[at], noise[at]
    normal, added = (here.new_zeros(len(here), 7, 7) for _ in range(2))
    score, misfit, freedom, count = torch.zeros_like(here), *(torch.zeros_like(t) for _ in range(3))
    last: tuple[Tensor, ...] = ()
    steep = (smoothing2 * changes[:, VALUE].square().sum(-1) / STEEP).square()
    for d, r in enumerate(reach):
        centre, covariance = placed(torch.stack(at, -1), here, changes, r, smoothing2)
        g, mass = regressors(reference[d], alive[d], centre, covariance, skewness(changes, r, covariance), r)
        confidence, share, w = _confidence(mass.detach()), 1 / (t * factor[d][at]), weight[d][at]
        residual = (share.to(g)[:, None] * sample[d][at]) - g[:, VALUE] - here[:, KAPPA, None].to(g)
        both = torch.cat([g, residual[:, None]], 1)
        part = ((w[:, None] * both) @ both.mT).double()
        known = part.detach()
        of_one, of_value = known[:, KAPPA, KAPPA], known[:, KAPPA, VALUE]
        count = count + torch.where(confidence > 0, (w > 0).sum(1), 0)
        used = (confidence > 0) & (of_one > 0) & (of_value > 0)
        spread = regressor_noise(torch.where(used[:, None, None], covariance, torch.eye(2).to(here)), r).detach()
        level = torch.where(used, of_value / of_one, 1)
        # Where T changes within the smoothing, first order in its slope is not enough.
        inverse = confidence / (level * (share / (4 * math.pi * smoothing2) + spread[:, VALUE, VALUE])) / (1 + steep)
        inverse = torch.where(used, inverse, 0).detach()
        extra = level_of_noise * of_value
        score = score + inverse[:, None] * (part[:, :7, RESIDUAL] + extra[:, None] * spread[:, :, VALUE])
        normal = normal + inverse[:, None, None] * known[:, :7, :7]
        added = added + (inverse * extra)[:, None, None] * spread
        misfit = misfit + inverse * known[:, RESIDUAL, RESIDUAL]
        freedom = freedom + torch.where(used, confidence * of_one, 0)
        seen = (confidence > 0)[:, None, None]
        last = (known, g) if not last else tuple(map(torch.where, (seen, seen), (known, g), last))
    return Found(normal, added, score, misfit, freedom, count, confidence, *last)


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
            confidence = _confidence(mass)
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
        power = _determinant(covariance).rsqrt() / (4 * math.pi)
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
    solver, _, possible = _inverted(matrix, ridge=1e-6)
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
    inverse, definite, positive = _inverted(normal)
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


def _inverted(matrix: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
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


def _confidence(mass: Tensor) -> Tensor:
    from ddf_tomo.retrieval._matching_kernel import FULL_MASS, LEAST_MASS

    return ((mass - LEAST_MASS) / (FULL_MASS - LEAST_MASS)).clamp(0, 1)


def _correlation(covariance: Tensor, curvature: float) -> tuple[Tensor, Tensor]:
    """What a window leaves of a Gaussian correlation, ``exp(-curvature δ²/2)`` of it: its integral, its covariance."""
    left = _inverse(_inverse(covariance) + curvature * torch.eye(2).to(covariance))
    return (_determinant(left) / _determinant(covariance)).sqrt(), left


def _determinant(matrix: Tensor) -> Tensor:
    return matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]


def _inverse(matrix: Tensor) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    return torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / _determinant(matrix)[:, None, None]


def matrix_of(upper: Tensor) -> Tensor:
    """Symmetric matrices from upper triangles, row by row, along the last axis."""
    size = (math.isqrt(8 * upper.shape[-1] + 1) - 1) // 2
    rows, columns = torch.triu_indices(size, size, device=upper.device)
    found = upper.new_zeros(*upper.shape[:-1], size, size)
    found[..., rows, columns] = found[..., columns, rows] = upper
    return found


def upper_of(matrix: Tensor) -> Tensor:
    """Upper triangles, row by row, of the last two axes."""
    size = matrix.shape[-1]
    rows, columns = torch.triu_indices(size, size, device=matrix.device)
    return matrix[..., rows, columns]
