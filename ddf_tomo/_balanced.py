"""The data and weights of a scan as they are reconstructed: no weight counts too much, and their mean is 1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.scan import Scan

LARGEST_WEIGHT = 10.0
VIEWS_AT_ONCE = 16


def balanced(scan: Scan) -> tuple[Any, Any, float]:
    """Data, weights as they are used, and what these were divided by: the mean of those that are not zero.

    Weights of mean 1 keep float32 sums in range whatever the units; the minimiser does not change. Before that they are
    `clipped`. What is on the disk stays there.
    """
    data, weights = (a if a is None or isinstance(a, Streamed) else _on_cpu(a) for a in (scan.data, scan.weights))
    if weights is None:
        return data, None, 1.0
    highest, total, count = _highest(weights, data), 0.0, 0
    for _, w in _pairs(data, weights):
        kept = w[w > 0].clamp_(max=highest)
        total, count = total + float(kept.sum(dtype=torch.float64)), count + len(kept)
    unit = total / count
    if isinstance(weights, Streamed):
        return data, weights.mapped(partial(_scaled, highest=highest, unit=unit)), unit
    return data, weights.clamp(max=highest).div_(unit), unit


def clipped(weights: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Weights of at most ten times that of bright data (the mean of all, weighted by the square of the signal).

    Counting statistics call empty pixels a thousand times as sure as bright ones. So is no model: there its own errors
    (voxels, orders left out) would be fitted, at the cost of the sample, and cross-validation would see little else.
    """
    return weights.clamp(max=_highest(weights, data))


def _highest(weights: Any, data: Any) -> float:
    total = brightness = 0.0
    for y, w in _pairs(data, weights):
        squares = torch.where(w > 0, y, 0).double().square_()
        total += float(squares.sum())
        brightness += float(squares.mul_(w).sum())
    return LARGEST_WEIGHT * brightness / total if 0 < total < math.inf else math.inf


def _pairs(data: Any, weights: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Data and weights of some views at a time."""
    if isinstance(data, Streamed):
        slices = data.slices()
    else:
        slices = [slice(start, start + VIEWS_AT_ONCE) for start in range(0, len(data), VIEWS_AT_ONCE)]
    for views in slices:
        yield torch.as_tensor(data[views]), torch.as_tensor(weights[views] if len(weights) > 1 else weights)


def _scaled(weights: Any, highest: float, unit: float) -> Any:
    weights = weights.clip(max=highest)
    weights /= unit
    return weights


def _on_cpu(array: Any) -> torch.Tensor:
    return as_tensor(array).detach().cpu()
