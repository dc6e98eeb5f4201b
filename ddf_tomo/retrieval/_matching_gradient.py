"""Gradients through the fit of `ddf_tomo.retrieval.matching` (torch, any device).

At the solution the windowed score is zero. How the solution moves with the frames follows from how the score does
(implicit function theorem) and from the normal matrix: one step of the fit, written in torch at the solution, has the
gradient of the whole. Left out is what a change of the normal matrix does to scores that are not quite zero: a per
cent or two where there are many frames, up to some five where three have to do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddf_tomo.retrieval._filters import along
from ddf_tomo.retrieval._matching_fit import GATHERED, WIDER, Fit, prepared, taps, unknowns_of
from ddf_tomo.retrieval._matching_torch import of_pixels
from ddf_tomo.retrieval.method import View

PASSES = 2  # over the model, until slopes of the maps agree with the maps


def with_gradient(view: View, fit: Fit, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """T ``(row, column)`` and u, C, κ, ln T ``(row, column, 7)`` of a fit, with their gradient by the frames."""
    chosen, pixelwise = unknowns_of(view.sample.shape, options["background"])
    frames, device = prepared(view, options["smoothing"]), view.sample.device
    transmission, theta, slope, valid = (
        torch.as_tensor(each).to(device) for each in (fit.transmission, fit.theta, fit.slope, fit.valid)
    )

    def steps(slopes: Tensor | None, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `_steps`, of a model that takes its slopes from these maps."""
        changed = slope
        if slopes is not None:
            measured = torch.stack(torch.gradient(slopes, dim=(0, 1)), -1)
            changed = slope + measured - measured.detach()
        given = frames, view.reach.to(theta), theta, transmission, changed, fit, options["smoothing"]
        return _steps(*_normal_equations(*given), chosen, pixelwise, WIDER * options["window"], valid, before)

    # Until slopes of the maps agree with the maps; then, as the fit does, for slopes in the window and what it left.
    usual = None
    for _ in range(PASSES):
        usual, sloped = steps(usual, None)
    _, after = steps(sloped, sloped)
    return (transmission * (1 + after[..., 6])).to(view.sample), (theta + after).to(view.sample)


def _normal_equations(
    frames: tuple[Tensor, ...],
    reach: Tensor,
    theta: Tensor,
    transmission: Tensor,
    slope: Tensor,
    fit: Fit,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Scores (7, row, column) with their gradient, and normal matrices (7, 7, row, column) without one."""
    sample, reference, alive, weights = frames
    sample, reference, weights = (each.movedim(1, -1) for each in (sample, reference - 1, weights))
    factor, noise = (torch.as_tensor(each).to(theta) for each in (fit.factor, fit.noise))
    row, column = torch.ones_like(transmission).nonzero(as_tuple=True)
    given = sample, reference, alive, weights, reach, factor, slope, noise
    found = of_pixels(*given, smoothing**2, (row, column), transmission, theta)
    score, normal = found.score.T, (found.normal - found.added).permute(1, 2, 0)
    return score.unflatten(-1, transmission.shape), normal.unflatten(-1, transmission.shape)


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
