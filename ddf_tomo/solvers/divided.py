"""The misfit of views that are divided among processes: each keeps residuals of its own, and what travels are sums.

`ddf_tomo.operators.distributed.over_views` gives operators that can be used anywhere. Algorithms that ask their
`Misfit` for everything get more: no projection leaves its process, and residuals are as small as its share.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ddf_tomo.operators.distributed import DistributedViews, summed
from ddf_tomo.solvers.misfit import Misfit


class DividedMisfit(Misfit):
    """``½ |W^(1/2) (A x - y)|²`` with the views of ``A`` divided among processes.

    Residuals, and what the detector sees of a direction, are those of this process' views; volumes and numbers are
    those of all.

    Parameters
    ----------
    A
        From `over_views`.
    y, weights
        Of all views, as in `Misfit`; the same in all processes.

    Attributes
    ----------
    own
        The misfit of this process' views, a part of the same memory.
    """

    A: DistributedViews

    def __init__(self, A: DistributedViews, y: Any, weights: Any = None) -> None:
        super().__init__(A, y, weights)
        self._divide()

    def _divide(self) -> None:
        self.own = own = object.__new__(Misfit)
        share = self.A.share
        own.A, own.y, own.like = self.A.part, self.y[share], self.like
        own.weights = None if self.weights is None else self.weights[share]

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.own.residual(x)

    def nothing_explained(self) -> torch.Tensor:
        return self.own.nothing_explained()

    def look(self, d: torch.Tensor) -> torch.Tensor:
        return self.own.look(d)

    def weighted(self, r: torch.Tensor) -> torch.Tensor:
        return self.own.weighted(r)

    def gradient(self, r: torch.Tensor) -> torch.Tensor:
        return summed(self.own.gradient(r), self.A.group)

    def slope(self, r: torch.Tensor) -> tuple[torch.Tensor, float]:
        return self.gradient(r), self.norm(r)

    def norm(self, r: torch.Tensor) -> float:
        return math.sqrt(self.square(r))

    def square(self, q: torch.Tensor) -> float:
        own = torch.tensor(self.own.square(q), dtype=torch.float64, device=q.device)
        return float(summed(own, self.A.group))

    def normal(self, d: torch.Tensor) -> torch.Tensor:
        return summed(self.own.normal(d), self.A.group)

    def backprojected(self) -> torch.Tensor:
        return self.gradient(self.own.y)

    def size(self) -> float:
        return self.norm(self.own.y)

    def subset(self, indices: Any) -> DividedMisfit:
        whole = super().subset(indices)
        part = object.__new__(DividedMisfit)
        part.__dict__.update(whole.__dict__)
        part._divide()
        return part
