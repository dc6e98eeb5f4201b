"""The model of `ddf_tomo.retrieval.matching` in its obvious form, and gradients through the fit (torch).

At the solution the windowed score is zero. How the solution moves with the frames follows from how the score does
(implicit function theorem) and from the normal matrix: one step of the fit, written in torch at the solution, has the
gradient of the whole. Left out is what a change of the normal matrix does to scores that are not quite zero: a per
cent or two where there are many frames, up to some five where three have to do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ddf_tomo.retrieval._filters import along
from ddf_tomo.retrieval._matching_fit import GATHERED, WIDER, Fit, prepared, taps, unknowns_of
from ddf_tomo.retrieval.method import View

RADIUS2 = 16.0
PASSES = 2  # over the model, until slopes of the maps agree with the maps


def regressors(
    reference: Tensor, alive: Tensor, theta: Tensor, slope: Tensor, reach: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """Derivatives of the blurred, moved reference by u and C, 1, and its value: ``(7, step, row, column)``.

    ``reference`` (step, row, column) is less 1; ``theta`` (row, column, 7), ``slope`` (row, column, 7, axis). The
    second result is how much of each Gaussian lies on living pixels.
    """
    _, rows, columns = reference.shape
    j, k = torch.meshgrid(*(torch.arange(n, device=theta.device) for n in (rows, columns)), indexing="ij")
    unit = torch.eye(2, dtype=theta.dtype, device=theta.device)
    turn = unit - reach * slope[..., :2, :]
    blur = reach**2 * theta[..., [2, 3, 3, 4]].reshape(rows, columns, 2, 2)
    blur_slope = reach**2 * slope[..., [2, 3, 3, 4], :].reshape(rows, columns, 2, 2, 2)
    covariance = blur + smoothing**2 * turn @ turn.mT
    centre = torch.stack([j, k], -1) - reach * theta[..., :2] + smoothing**2 * (turn @ slope[..., 6, :, None])[..., 0]
    determinant, trace = torch.linalg.det(covariance), covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    wide = (covariance[..., 0, 0] > 0) & (determinant >= 0.1 * trace)
    covariance = torch.where(wide[..., None, None], covariance, unit)
    inverse = torch.linalg.inv(covariance)
    norm = torch.linalg.det(inverse).sqrt() / (2 * math.pi)
    base = centre.round()
    half = int(math.sqrt(RADIUS2 * float(torch.linalg.eigvalsh(covariance.detach()).max()))) + 1
    mass = torch.zeros_like(norm)
    found = torch.zeros(6, *reference.shape, dtype=reference.dtype, device=reference.device)
    for a in range(-half, half + 1):
        for b in range(-half, half + 1):
            tap = base + torch.tensor([a, b], dtype=base.dtype, device=base.device)
            delta = centre - tap
            q = (inverse @ delta[..., None])[..., 0]
            square = (q * delta).sum(-1)
            row, column = tap.long().unbind(-1)
            inside = wide & (square <= RADIUS2) & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
            if not inside.any():
                continue
            change = (blur_slope * delta[..., None, None, :]).sum(-1)
            second = q[..., :, None] * q[..., None, :] - inverse
            skew = 1 - 0.5 * (change * second).sum((-2, -1))
            skew = skew + (torch.einsum("...abb->...a", blur_slope) * q).sum(-1)
            weight = torch.where(inside, norm * torch.exp(-0.5 * square), 0)
            row, column = row.clamp(0, rows - 1), column.clamp(0, columns - 1)
            mass = mass + weight * alive[row, column]
            values = weight * skew * reference[:, row, column]
            factors = (
                reach * q[..., 0],
                reach * q[..., 1],
                reach**2 * second[..., 0, 0] / 2,
                reach**2 * second[..., 0, 1],
                reach**2 * second[..., 1, 1] / 2,
                torch.ones_like(norm),
            )
            found = found + torch.stack([factor * values for factor in factors])
    return torch.cat([found[:5], torch.ones_like(found[:1]), 1 + found[5:]]), mass


def with_gradient(view: View, fit: Fit, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """T ``(row, column)`` and u, C, κ, ln T ``(row, column, 7)`` of a fit, with their gradient by the frames."""
    chosen, pixelwise = unknowns_of(view.sample.shape, options["background"])
    frames = prepared(view, options["smoothing"])
    transmission, theta, slope = (
        torch.as_tensor(each).to(frames[0]) for each in (fit.transmission, fit.theta, fit.slope)
    )
    valid = torch.as_tensor(fit.valid).to(theta.device)

    def steps(slopes: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `_steps`, of a model that takes its slopes from these maps."""
        changed = slope
        if slopes is not None:
            measured = torch.stack(torch.gradient(slopes, dim=(0, 1)), -1)
            changed = slope + measured - measured.detach()
        given = frames, view.reach.tolist(), theta, transmission, changed, fit, options["smoothing"]
        return _steps(*_normal_equations(*given), chosen, pixelwise, WIDER * options["window"], valid, before)

    # Until slopes of the maps agree with the maps; then, as the fit does, for slopes in the window and what it left.
    usual = None
    for _ in range(PASSES):
        usual, sloped = steps(usual, None)
    _, after = steps(sloped, sloped)
    return transmission * (1 + after[..., 6]), theta + after


def _normal_equations(
    frames: tuple[Tensor, ...],
    reach: list[float],
    theta: Tensor,
    transmission: Tensor,
    slope: Tensor,
    fit: Fit,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Scores (7, row, column) with their gradient, and normal matrices (7, 7, row, column) without one."""
    from ddf_tomo.retrieval._matching_kernel import FULL_MASS, LEAST_MASS, STEEP

    sample, reference, alive, weights = frames
    factor = torch.as_tensor(fit.factor).to(sample)
    score, normal = theta.new_zeros(7, *transmission.shape), theta.new_zeros(7, 7, *transmission.shape)
    for d, r in enumerate(reach):
        g, mass = regressors(reference[d] - 1, alive[d], theta, slope, r, smoothing)
        share = 1 / (transmission * factor[d])
        residual = share * sample[d] - g[6] - theta[..., 5]
        level = (weights[d] * g[6]).sum(0) / weights[d].sum(0).clamp(min=1e-30)
        blur = smoothing**2 * torch.eye(2).to(theta) + r**2 * theta[..., [2, 3, 3, 4]].unflatten(-1, (2, 2))
        noise = level * (share / smoothing**2 + torch.linalg.det(blur).clamp(min=1e-3).rsqrt()) / (4 * math.pi)
        confidence = ((mass - LEAST_MASS) / (FULL_MASS - LEAST_MASS)).clamp(0, 1)
        confidence = confidence / (1 + (smoothing**2 * slope[..., 6, :].square().sum(-1) / STEEP) ** 2)
        weight = (weights[d] * torch.where(level > 0, confidence / noise.clamp(min=1e-30), 0)).detach()
        score = score + (weight * g * residual).sum(1)
        known = g.detach()
        normal = normal + torch.einsum("mjk,amjk,bmjk->abjk", weight, known, known)
    return score, normal


def _steps(
    score: Tensor,
    normal: Tensor,
    chosen: list[int],
    pixelwise: bool,
    window: float,
    valid: Tensor,
    before: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Zeros ``(row, column, 7)`` with the gradient of u, C, κ and ln T.

    After the usual step and the one for slopes in the window, or twice after the last step, which follows ``before``.
    """
    square = torch.where(normal[6, 6] > 0, normal[6, 6], 1)
    part, matrix, share = score[chosen], normal[chosen][:, chosen], normal[chosen, 6] / square
    if pixelwise:
        part, matrix = part - share * score[6], matrix - share[:, None] * normal[chosen, 6]
    one = taps(window, GATHERED, unit_sum=False)
    far = tuple(lag * tap for lag, tap in enumerate(one))

    def gather(images: Tensor, moment: int | None = None) -> Tensor:
        found = images.reshape(-1, *images.shape[-2:])
        for axis in (-2, -1):
            found = along(found, far if axis == moment else one, axis, odd=axis == moment, edge="constant")
        return found.reshape(images.shape)

    summed = gather(matrix).permute(2, 3, 0, 1)
    solver = torch.linalg.inv(torch.where(valid[..., None, None], summed, torch.eye(len(chosen)).to(summed)))

    def solve(scores: Tensor) -> Tensor:
        return torch.einsum("jkab,bjk->ajk", solver, gather(scores))

    def zeros(step: Tensor) -> Tensor:
        moved = torch.where(valid, step - step.detach(), 0)
        every = torch.zeros_like(score)
        every = every.index_copy(0, torch.tensor(chosen, device=score.device), moved)
        if pixelwise:
            every[6] = (score[6] - score[6].detach()) / square - (share * moved).sum(0)
        return every.movedim(0, -1)

    if before is not None:
        first = before[..., chosen].movedim(-1, 0)
        last = zeros(first + solve(part - torch.einsum("abjk,bjk->ajk", matrix, first)))
        return last, last
    usual = sloped = solve(part)
    for axis, slope in zip((-2, -1), torch.gradient(usual, dim=(-2, -1)), strict=True):
        sloped = sloped - torch.einsum("jkab,bcjk,cjk->ajk", solver, gather(matrix, axis), slope)
    return zeros(usual), zeros(sloped)
