"""Patterns averaged over pixels: edges lie where they are, whatever the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddf_tomo.acquisition.stepping import GOLDEN_ANGLE_RAD


def covered_share(pixels: int, edge: float, count: int) -> Tensor:
    """``(pixels, cells)``: share of each pixel that lies in each of the cells, of this edge in pixels."""
    starts = torch.arange(pixels, dtype=torch.float64)[:, None]
    cell = torch.arange(count, dtype=torch.float64) * edge
    return (torch.minimum(starts + 1, cell + edge) - torch.maximum(starts, cell)).clamp(min=0)


def drawn(pattern: Tensor, size: tuple[int, int], edges: tuple[float, float]) -> Tensor:
    """The pattern of cells, repeated as often as it takes, averaged over the pixels."""
    needed = [math.ceil(n / edge - 1e-9) for n, edge in zip(size, edges, strict=True)]
    places = [torch.arange(n) % m for n, m in zip(needed, pattern.shape, strict=True)]
    whole = pattern[places[0][:, None], places[1]]
    j, k = (covered_share(n, edge, m).to(whole) for n, edge, m in zip(size, edges, needed, strict=True))
    return j @ whole @ k.T


def drawn_lines(pixels: int, period: float, duty: float) -> Tensor:
    """Share of each pixel inside ``[0, duty · period)`` of any period, from the integral of that pattern."""
    edges = torch.arange(pixels + 1, dtype=torch.float64)
    periods = torch.floor(edges / period + 1e-12)
    inside = periods * duty * period + (edges - periods * period).clamp(0, duty * period)
    return inside.diff()


def from_middle(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Places of the pixels' centres from the frame's middle, (rows, 1) and (columns,)."""
    j, k = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size)
    return j[:, None], k


def spiral_line(size: tuple[int, int], width: float, pitch: float) -> Tensor:
    """Coverage of the pixels by a line of this ``width`` along Archimedes' spiral, turns ``pitch`` apart, in pixels."""
    j, k = from_middle(size)
    turn = torch.hypot(j, k) / pitch - torch.atan2(j, k) / (2 * math.pi)
    distance = (turn - turn.round()).abs() * pitch  # from the nearest arm, along the radius
    return (width / 2 - distance + 0.5).clamp(0, 1)


def spiral_discs(size: tuple[int, int], width: float, share: float) -> Tensor:
    """Discs about ``c √(n + ½)`` at n golden angles; c makes one disc an area of ``π c²``."""
    c = width / (2 * math.sqrt(share))
    reach = math.hypot(*size) / 2 + width
    n = torch.arange(math.ceil((reach / c) ** 2) + 1, dtype=torch.float64)
    angle, radius = n * GOLDEN_ANGLE_RAD, c * (n + 0.5).sqrt()
    centre = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    centre = centre + torch.tensor([(m - 1) / 2 for m in size], dtype=torch.float64)
    half = math.ceil(width / 2 + 1)
    window = torch.arange(-half, half + 1)
    covered = torch.zeros(math.prod(size))
    for dj in window.tolist():
        for dk in window.tolist():
            place = centre.round().long() + torch.tensor([dj, dk])
            inside = (place >= 0).all(1) & (place < torch.tensor(size)).all(1)
            distance = (place[inside] - centre[inside]).norm(dim=1)
            disc = (width / 2 - distance + 0.5).clamp(0, 1).float()
            index = place[inside, 0] * size[1] + place[inside, 1]
            covered.scatter_reduce_(0, index, disc, "amax")
    return covered.reshape(size)
