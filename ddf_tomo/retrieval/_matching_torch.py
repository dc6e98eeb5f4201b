"""The model of `ddf_tomo.retrieval.matching` in torch: on any device, with gradients.

Sums over taps are batched products of matrices: the weights of each pixel's Gaussian and of its derivatives, times the
frames at its taps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

RADIUS2 = 16.0  # of the ellipse of taps, in standard deviations, squared
NUMBERS = 1 << 24  # at taps of pixels, at once
KAPPA, VALUE, RESIDUAL = 5, 6, 7
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
    steepness = (size * trace).clamp(min=0).sqrt() * trace / determinant(covariance)
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
    wide = (diagonal > 0).all(1) & (determinant(covariance) >= LEAST_NARROWNESS * diagonal.sum(1))
    inverse = inverse_of(torch.where(wide[:, None, None], covariance, torch.eye(2).to(covariance)))
    norm = torch.where(wide, determinant(inverse).sqrt() / (2 * math.pi), 0)
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
    inverse = inverse_of(covariance)
    power = determinant(inverse).sqrt() / (4 * math.pi)
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
        confidence, share, w = confidence_in(mass.detach()), 1 / (t * factor[d][at]), weight[d][at]
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


def confidence_in(mass: Tensor) -> Tensor:
    """How far a pixel is to be trusted of whose Gaussian a share ``mass`` lies on pixels that are seen: 0 to 1."""
    from ddf_tomo.retrieval._matching_kernel import FULL_MASS, LEAST_MASS

    return ((mass - LEAST_MASS) / (FULL_MASS - LEAST_MASS)).clamp(0, 1)


def determinant(matrix: Tensor) -> Tensor:
    """Of matrices ``(n, 2, 2)``, shape ``(n,)``."""
    return matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]


def inverse_of(matrix: Tensor) -> Tensor:
    """Of matrices ``(n, 2, 2)``, in closed form."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
    return torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / determinant(matrix)[:, None, None]


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
