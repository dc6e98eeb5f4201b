"""What every solver gives back, and how it tells about its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tqdm.auto import tqdm

Callback = Callable[[int, torch.Tensor, float], bool | None]
"""Called after each iteration with its number (from 1), the iterate and the residual; returning true stops."""


@dataclass(frozen=True)
class Solution:
    """Result of an iterative solver.

    Attributes
    ----------
    x
        The solution, of the operator's domain shape.
    residuals
        Norm of the weighted data residual, before the first iteration and after each.
    stopped_by
        ``"noise level"``, ``"convergence"``, ``"callback"`` or ``"iterations"``.
    """

    x: torch.Tensor
    residuals: tuple[float, ...]
    stopped_by: str

    @property
    def iterations(self) -> int:
        """Number of iterations done."""
        return len(self.residuals) - 1


def iterations_with_progress(count: int, name: str, show: bool | None) -> Iterator[tuple[int, Callable[[float], None]]]:
    """Iteration numbers from 1, each with a function that shows the residual beside the progress bar.

    With ``show=None`` a bar appears only when the run takes longer than two seconds.
    """
    with tqdm(total=count, desc=name, disable=show is False, delay=0.0 if show else 2.0, leave=bool(show)) as bar:
        for iteration in range(1, count + 1):
            yield iteration, lambda residual: bar.set_postfix_str(f"residual {residual:.4g}", refresh=False)
            bar.update()
