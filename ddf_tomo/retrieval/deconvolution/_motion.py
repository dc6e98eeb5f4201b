"""Displacement taken out first: frames pulled back to where light left the object, results pushed to where it arrives.

Kernels that have to follow a displacement as it varies over an image are many. Light that leaves the object at y
arrives at ``y + v(y) d/d_max``; frames read there, ``S(y + v d/d_max)``, are those of kernels that are centred, and
those kernels, shares and transmission belong to the place y of the object, whatever the distance. The frames of the
reference stay as they are, with their noise. ``v(y) = u(y + v(y))``, u being the displacement of what arrives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo.retrieval._filters import erode, smooth
from ddf_tomo.retrieval._warped import EDGE, spline_coefficients, warped

__all__ = ["divergence", "filled", "forward", "pulled", "pulled_weights", "pushed"]

ROUNDS = 8  # of v(y) = u(y + v(y)); each leaves a share |∇u| of the error
GAPS = 4.0  # pixels: what is not valid is filled from as far around
RINGING = 3  # pixels around a gap that the splines through the frames carry it to: 2 % of it is left


def filled(displacement: Tensor, valid: Tensor) -> Tensor:
    """``(2, row, column)`` of displacements ``(row, column, 2)``, what is not valid taken from around it.

    Examples
    --------
    >>> u = torch.ones(16, 16, 2)
    >>> u[8, 8] = torch.nan
    >>> bool((filled(u, torch.isfinite(u[..., 0])) - 1).abs().max() < 1e-6)
    True
    """
    u = torch.where(valid[..., None], displacement, 0).movedim(-1, 0)
    inside = valid.to(u)
    mean = u.sum((1, 2)) / inside.sum().clamp(min=1)
    near, share = smooth(u - mean[:, None, None] * inside, GAPS), smooth(inside[None], GAPS)
    return torch.where(valid, u, mean[:, None, None] + near / share.clamp(min=1e-3))


def forward(displacement: Tensor) -> Tensor:
    """v of the places that light leaves, from u ``(2, row, column)`` of those where it arrives.

    Examples
    --------
    >>> u = torch.zeros(2, 20, 30, dtype=torch.float64)
    >>> u[0] = 0.1 * torch.arange(20)[:, None]
    >>> f"{float(forward(u)[0, 9, 9]):.4f}"  # 9 + 1 arrives at 10
    '1.0000'
    """
    spline, v = spline_coefficients(displacement), displacement
    for _ in range(ROUNDS):
        v = warped(spline, -v)
    return v


def pulled(frames: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Frames ``(frame, row, column)`` read at ``y + v reach``, by cubic splines through the pixels."""
    found = torch.empty_like(frames)
    for distance in torch.unique(reach):
        of_it = reach == distance
        found[of_it] = warped(spline_coefficients(frames[of_it]), -distance * v)
    return found


def pulled_weights(weights: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """The same of confidences: never negative, zero wherever a gap or what lies outside the frame has a say."""
    rows, columns = weights.shape[-2:]
    found = torch.empty_like(weights)
    for distance in torch.unique(reach):
        of_it = reach == distance
        moved = -distance * v
        one = weights[of_it]
        clear = erode(one > 0, RINGING).to(one) if bool((one <= 0).any()) else torch.ones_like(one)
        # What is read by positive splines is positive, and one where all around is.
        wide, free = (pad(each[None], (EDGE,) * 4, mode="replicate")[0] for each in (one, clear))
        places = [torch.arange(n, device=v.device).reshape(shape) - u for n, shape, u in _axes(rows, columns, moved)]
        inside = (places[0] >= 0) & (places[0] <= rows - 1) & (places[1] >= 0) & (places[1] <= columns - 1)
        found[of_it] = warped(wide, moved).clamp(min=0) * (warped(free, moved) > 1 - 1e-4) * inside
    return found


def _axes(rows: int, columns: int, moved: Tensor) -> list[tuple[int, tuple[int, int], Tensor]]:
    return [(rows, (-1, 1), moved[0]), (columns, (1, -1), moved[1])]


def pushed(images: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Images ``(frame, row, column)`` of places of the object, at those where their light arrives.

    ``m(x − u(x))`` with ``u(x) = reach v(x − u(x))``.
    """
    found = torch.empty_like(images)
    for distance in torch.unique(reach):
        of_it = reach == distance
        u = distance * v
        spline = spline_coefficients(u)
        for _ in range(ROUNDS):
            u = warped(spline, u)
        found[of_it] = warped(spline_coefficients(images[of_it]), u)
    return found


def divergence(v: Tensor, reach: Tensor) -> Tensor:
    """By how much light is spread out on its way, ``det(1 + reach ∇v)``, as ``(frame, row, column)``."""
    jj, jk = torch.gradient(v[0], dim=(0, 1))
    kj, kk = torch.gradient(v[1], dim=(0, 1))
    reach = reach[:, None, None]
    return 1 + reach * (jj + kk) + reach**2 * (jj * kk - jk * kj)
