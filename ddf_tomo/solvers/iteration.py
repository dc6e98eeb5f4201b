"""What all solvers share: the loop with its history, its ways to stop, its progress bar and its checkpoints."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ddf_tomo._checks import MOST_ITERATIONS, flag, integer, message, number
from ddf_tomo._progress import progress_bar
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.misfit import Misfit, dot, overflow

Callback = Callable[[int, torch.Tensor, float], bool | None]
"""Called after each iteration with its number (from 1), the iterate and the residual; returning true stops."""


class Step(NamedTuple):
    """What an iteration tells: norm of the weighted residual, and how much it still changed (1: as at the start)."""

    residual: float
    change: float = math.inf


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

    Examples
    --------
    >>> import torch
    >>> Solution(torch.zeros(2), (3.0, 1.0), "iterations").iterations
    1
    """

    x: torch.Tensor
    residuals: tuple[float, ...]
    stopped_by: str

    @property
    def iterations(self) -> int:
        """Number of iterations done."""
        return len(self.residuals) - 1


def iterate(
    name: str,
    state: State,
    step: Callable[[State, int], Step | None],
    residual: float,
    problem: Mapping[str, Any],
    *,
    iterations: int,
    noise_level: float | None = None,
    tolerance: float = 0.0,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Solution:
    """Repeat ``step`` until a reason to stop appears.

    Parameters
    ----------
    name
        Of the algorithm, for the progress bar.
    state
        All that the algorithm remembers from one iteration to the next: tensors and numbers, among them the iterate
        ``"x"``. Nothing else may be remembered, or a checkpoint would not bring it back.
    step
        Changes the state (given with the number of the iteration, from 1) and tells; ``None`` if nothing can change.
    residual
        Before the first iteration.
    problem
        What tells this problem from another in a checkpoint (see `identity`).
    iterations, noise_level, tolerance, callback, progress, checkpoint
        As in `ddf_tomo.solvers.cgls`.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the iteration leaves the range of numbers.

    Examples
    --------
    >>> import torch
    >>> state = {"x": torch.ones(1)}
    >>> def halve(state, iteration):
    ...     state["x"] /= 2
    ...     return Step(float(state["x"]))
    >>> iterate("halving", state, halve, 1.0, {}, iterations=9, noise_level=0.3).residuals
    (1.0, 0.5, 0.25)
    """
    iterations = integer(iterations, "iterations", low=0, high=MOST_ITERATIONS)
    limit = -1.0 if noise_level is None else number(noise_level, "noise_level", low=0.0)
    tolerance = number(tolerance, "tolerance", low=0.0, high=1.0)
    progress = None if progress is None else flag(progress, "progress")
    if callback is not None and (not callable(callback) or isinstance(callback, type)):
        raise TypeError(message("callback", "a function or None", repr(callback)))
    file = checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    problem = {"algorithm": name} | dict(problem)
    residuals, stopped_by = [residual], "noise level" if residual <= limit else "iterations"
    if file is not None and (found := file.read(state, problem)) is not None:
        residuals, stopped_by = found
        file.check_length(residuals, iterations)
        if stopped_by == "noise level" and residuals[-1] > limit:
            stopped_by = "iterations"
    done = kept = len(residuals) - 1
    with progress_bar(iterations, name, progress, initial=done) as bar:
        while stopped_by == "iterations" and len(residuals) <= iterations:
            told = step(state, len(residuals))
            if told is None:
                stopped_by = "convergence"
                break
            if not math.isfinite(told.residual):
                raise ValueError(overflow(state["x"]))
            residuals.append(told.residual)
            bar.set_postfix_str(f"residual {told.residual:.4g}", refresh=False)
            bar.update()
            if callback is not None and callback(len(residuals) - 1, state["x"], told.residual):
                stopped_by = "callback"
            elif told.residual <= limit:
                stopped_by = "noise level"
            elif told.change <= tolerance:
                stopped_by = "convergence"
            if file is not None and file.due:
                file.write(state, problem, residuals, stopped_by)
                kept = len(residuals) - 1
    if file is not None and len(residuals) - 1 > kept:
        file.write(state, problem, residuals, stopped_by)
    return Solution(state["x"], tuple(residuals), stopped_by)


def identity(misfit: Misfit, **settings: Any) -> dict[str, Any]:
    """What tells one problem from another: settings, shapes, and sums over data, weights and a backprojection."""
    back = misfit.backprojected()
    # A ramp beside the norm: a permutation of the data is another problem. The cosine lies about 1, not about 0, as
    # rounding must not count.
    ramp = torch.linspace(-1, 1, back.numel(), dtype=back.dtype).to(back).reshape(back.shape)
    size = math.sqrt(dot(back, back))
    sums = [misfit.size(), size, 2.0 + dot(back, ramp) / ((size or 1.0) * math.sqrt(dot(ramp, ramp) or 1.0))]
    return {"shapes": [list(misfit.y.shape), list(back.shape)], "dtype": str(back.dtype), "sums": sums} | settings
