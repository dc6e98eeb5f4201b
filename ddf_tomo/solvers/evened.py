"""Projections without gaps, every view and channel with the same noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ddf_tomo._streamed import Streamed
from ddf_tomo.solvers.misfit import Misfit

SLICE_BYTES = 64 * 2**20


class Evened:
    """Data without gaps times the roots of one weight for each view and channel, of mean square 1."""

    def __init__(self, misfit: Misfit) -> None:
        self.y, self.weights = misfit.y, misfit.weights
        views, channels = misfit.y.shape[0], misfit.y.shape[-1]
        self.roots = misfit.like.new_ones(views, channels)
        if self.weights is None or not views:
            return
        evened = torch.zeros(views, channels, dtype=torch.float64, device=self.roots.device)
        for some in self._slices():
            weights = torch.as_tensor(self.weights[some])
            known = weights > 0
            variance = torch.where(known, 1 / torch.where(known, weights, 1), 0).double().sum((1, 2))
            evened[some] = known.sum((1, 2)) / variance.clamp_min(torch.finfo(torch.float64).tiny)
        self.roots = (evened / evened.mean()).sqrt().to(self.roots)

    def __getitem__(self, views: Any) -> torch.Tensor:
        data = torch.as_tensor(self.y[views])
        if self.weights is None:
            return data
        data = filled_in(data, torch.as_tensor(self.weights[views]) > 0)
        return data * self.roots[views, None, None, :]

    def pieces(self, size: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """At most ``size`` views at a time, from the disk as many as are read well together."""
        for some in self._slices():
            piece = self[some]
            for start in range(0, len(piece), size):
                part = piece[start : start + size]
                yield slice(some.start + start, some.start + start + len(part)), part

    def _slices(self) -> list[slice]:
        if isinstance(self.y, Streamed):
            return self.y.slices()
        size = max(1, SLICE_BYTES // max(1, self.y[:1].nbytes))
        return [slice(start, min(start + size, len(self.y))) for start in range(0, len(self.y), size)]


def filled_in(data: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Data with the mean of known neighbours where they are not known, from as near as there are any.

    Parameters
    ----------
    data
        Shape ``(views, J, K, channels)``, zero where not known.
    known
        Of the same shape, boolean. Channels of a view without any stay zero.

    Examples
    --------
    >>> data = torch.tensor([1.0, 0.0, 3.0, 0.0]).reshape(1, 1, 4, 1)
    >>> filled_in(data, data > 0).flatten().tolist()
    [1.0, 2.0, 3.0, 3.0]
    """
    if bool(known.all()):
        return data
    values, share = (t.to(data).permute(0, 3, 1, 2) for t in (torch.where(known, data, 0), known))
    found, missing, reach = values.clone(), share == 0, 1
    while bool(missing.any()) and reach < 2 * max(data.shape[1:3]):
        share_near, sum_near = (
            torch.nn.functional.avg_pool2d(part, 2 * reach + 1, stride=1, padding=reach) for part in (share, values)
        )
        near, mean = share_near > 0, sum_near / share_near.clamp_min(1e-12)
        found = torch.where(missing & near, mean, found)
        missing, reach = missing & ~near, 2 * reach
    return found.permute(0, 2, 3, 1).contiguous()
