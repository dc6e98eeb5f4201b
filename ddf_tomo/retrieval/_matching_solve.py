"""Solvers of `ddf_tomo.retrieval._matching_prior`: least squares with a prior on images of a few channels.

``½ Σ_x (x − z)ᵀ F (x − z) + weight · prior(x)`` for images ``z`` (n, 3, row, column) and metrics ``F`` (n, 6, row,
column), upper triangles of 3 × 3 matrices of about unit size; zero where nothing is known, and the prior alone speaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddf_tomo.retrieval._matching_fit import bounded

Outcome = tuple[Tensor, Any]  # images, and what a later call may start from
Solver = Callable[[Tensor, Tensor, float, Any], Outcome]

STEP = 0.5  # of the images; the dual's is 1/8 over it
RELAXATION = 1.8
VARIATION_ITERATIONS, CONTINUED_ITERATIONS = 150, 40  # from nothing, and from what is near
SMOOTHNESS_ITERATIONS = 40
TOLERANCE, VARIATION_TOLERANCE = 1e-4, 3e-5
PENALTY, POSITIVE_ITERATIONS = 1.0, 20
MIXED = math.sqrt(2)  # of the off-diagonal component, in Mandel's notation


def apply(metric: Tensor, images: Tensor) -> Tensor:
    """The product ``F x`` in every pixel."""
    jj, jk, jl, kk, kl, ll = metric.unbind(1)
    x, y, z = images.unbind(1)
    return torch.stack([jj * x + jk * y + jl * z, jk * x + kk * y + kl * z, jl * x + kl * y + ll * z], 1)


def _inverse(metric: Tensor, more: float) -> Tensor:
    """Upper triangles of ``(F + more)⁻¹``, by cofactors."""
    jj, jk, jl, kk, kl, ll = metric.unbind(1)
    jj, kk, ll = jj + more, kk + more, ll + more
    first, second, third = kk * ll - kl * kl, jl * kl - jk * ll, jk * kl - jl * kk
    others = jj * ll - jl * jl, jk * jl - jj * kl, jj * kk - jk * jk
    return torch.stack([first, second, third, *others], 1) / (jj * first + jk * second + jl * third)[:, None]


def total_variation(wanted: Tensor, metric: Tensor, weight: float, state: Any = None) -> Outcome:
    """``Σ_x |∇x|``, one norm over both directions and all channels: edges stay, ramps become stairs.

    Primal-dual hybrid gradients (Chambolle & Pock 2011, J. Math. Imaging Vis. 40, 120) whose data term is solved
    exactly in each pixel; relaxed (Condat 2013, J. Optim. Theory Appl. 158, 460).
    """
    dual_step, inverse, data = 1 / (8 * STEP), _inverse(metric, 1 / STEP), apply(metric, wanted)
    iterations = VARIATION_ITERATIONS if state is None else CONTINUED_ITERATIONS
    images, down, across = state or (wanted, torch.zeros_like(wanted), torch.zeros_like(wanted))
    for n in range(iterations):
        pull = data + images / STEP + down + across
        pull[..., 1:, :] -= down[..., :-1, :]
        pull[..., 1:] -= across[..., :-1]
        new = apply(inverse, pull)
        ahead, new_down, new_across = 2 * new - images, down.clone(), across.clone()
        new_down[..., :-1, :] += dual_step * ahead.diff(dim=-2)
        new_across[..., :-1] += dual_step * ahead.diff(dim=-1)
        length = (new_down.square().sum(1, keepdim=True) + new_across.square().sum(1, keepdim=True)).sqrt()
        shrink = weight / length.clamp(min=weight)
        new_down *= shrink
        new_across *= shrink
        if n == iterations - 1 or (n % 10 == 9 and float((new - images).square().mean()) < VARIATION_TOLERANCE**2):
            break
        images = images + RELAXATION * (new - images)
        down, across = down + RELAXATION * (new_down - down), across + RELAXATION * (new_across - across)
    return new, (new, new_down, new_across)


def smoothness(wanted: Tensor, metric: Tensor, weight: float, state: Any = None) -> Outcome:
    """``½ Σ_x |Δx|²``: curvature costs, slopes do not (thin plates).

    Conjugate gradients, preconditioned by the same problem of one metric everywhere, which a cosine transform solves.
    """
    from scipy.fft import dctn, idctn

    rows, columns = wanted.shape[-2:]
    wave = [2 - 2 * torch.cos(math.pi * torch.arange(n, dtype=torch.float64) / n) for n in (rows, columns)]
    curvature = weight * (wave[0][:, None] + wave[1]).square().to(wanted.dtype)
    level = float(metric[:, [0, 3, 5]].mean()) or 1.0

    def filtered(images: Tensor, factor: Tensor) -> Tensor:
        spectrum = dctn(images.cpu().numpy(), axes=(-2, -1), norm="ortho") * factor.numpy()
        return torch.from_numpy(idctn(spectrum, axes=(-2, -1), norm="ortho")).to(images)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum((1, 2, 3), keepdim=True)

    data, usual = apply(metric, wanted), 1 / (level + curvature)
    start = filtered(data, usual)
    images = start if state is None else state
    rest = data - apply(metric, images) - filtered(images, curvature)
    direction = near = filtered(rest, usual)
    size, first = dot(rest, near), dot(data, start).clamp(min=1e-30)
    for _ in range(SMOOTHNESS_ITERATIONS):
        if float((size / first).max()) < TOLERANCE**2:
            break
        turned = apply(metric, direction) + filtered(direction, curvature)
        step = size / dot(direction, turned).clamp(min=1e-30)
        images, rest = images + step * direction, rest - step * turned
        near = filtered(rest, usual)
        size, before = dot(rest, near), size
        direction = near + size / before.clamp(min=1e-30) * direction
    return images, images


SOLVERS: dict[str, Solver] = {"total-variation": total_variation, "smoothness": smoothness}


def nearest(solver: Solver, wanted: Tensor, metric: Tensor, weight: float) -> Tensor:
    """The same with matrices that have no negative eigenvalue, by alternating directions of multipliers.

    Boyd, Parikh, Chu, Peleato & Eckstein 2011, Found. Trends Mach. Learn. 3, 1.
    """
    more = metric + PENALTY * metric.new_tensor([1, 0, 0, 1, 0, 1])[:, None, None]
    inverse, data, state = _inverse(metric, PENALTY), apply(metric, wanted), None
    kept, multiplier = wanted, torch.zeros_like(wanted)
    scale = wanted.new_tensor([1, MIXED, 1])
    for _ in range(POSITIVE_ITERATIONS):
        images, state = solver(apply(inverse, data + PENALTY * (kept - multiplier)), more, weight, state)
        kept = (bounded((images + multiplier).movedim(1, -1) / scale) * scale).movedim(-1, 1)
        multiplier = multiplier + images - kept
    return kept
