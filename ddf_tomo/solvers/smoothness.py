"""How smooth? The weight of a smoothness penalty from what it does to the prediction of views that were left out.

Cross-validation asks for no noise level, and where the model itself is not exact (grid, orders left out) it is not led
to fit what cannot be fitted, as the discrepancy principle is. The one-percent rule picks the smoothest among solutions
that predict equally well: directions, which no view measures by themselves, gain from it most.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm.auto import tqdm

from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.priors import Differences
from ddf_tomo.solvers.cgls import cgls

CANDIDATES = tuple(10.0 ** (-power / 2) for power in range(1, 9))  # 0.3 … 1e-4, relative to `penalty_scale`
FALLBACK = 0.01
TOLERATED = 1.01
ITERATIONS = 8


def penalty_scale(A: LinearOperator, weights: torch.Tensor | None) -> float:
    """``|W^(1/2) A 1|² / |1|²`` of a constant isotropic volume: what a penalty has to be weighed against."""
    constant = torch.zeros([1 if n is None else n for n in A.domain_shape])
    # The first coefficient is the isotropic one of harmonics; of a tensor (xx, …) it will do as well.
    constant[..., 0] = 1.0
    seen = A(constant).square()
    total = float((seen if weights is None else seen * weights).sum())
    return total / float(constant.sum()) or 1.0


def choose_smoothness(
    A: LinearOperator,
    data: torch.Tensor,
    weights: torch.Tensor | None,
    scale: float,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[float, torch.Tensor | None]:
    """Relative weight of ``|D x|²``, and a solution for it to start from.

    Weights from large to small, each solution starting from the one before; a tenth of the views, chosen by ``seed``,
    judges. The search ends when the prediction has become worse.

    Parameters
    ----------
    A
        Operator with `views`, volume first.
    data, weights
        As in `cgls`.
    scale
        From `penalty_scale`.
    """
    views = len(data)
    if views < 10:
        return FALLBACK, None
    held = np.sort(np.random.default_rng(seed).permutation(views)[: max(views // 10, 2)])
    kept = np.setdiff1d(np.arange(views), held)

    def part(array: torch.Tensor | None, chosen: np.ndarray) -> torch.Tensor | None:
        return array if array is None or array.ndim < data.ndim or len(array) == 1 else array[chosen]

    train, test = A.views(kept), A.views(held)
    train_weights, test_weights = part(weights, kept), part(weights, held)
    if any(w is not None and not (w > 0).any() for w in (train_weights, test_weights)):
        return FALLBACK, None
    penalty = Differences([int(n or 1) for n in A.domain_shape[:3]])
    x: torch.Tensor | None = None
    found: list[tuple[float, float, torch.Tensor]] = []
    for relative in tqdm(CANDIDATES, "choosing smoothness", disable=progress is False, delay=2.0, leave=False):
        x = cgls(
            train,
            data[kept],
            weights=train_weights,
            tikhonov=relative * scale,
            penalty=penalty,
            iterations=ITERATIONS,
            x0=x,
            progress=False,
        ).x
        misfit = (test(x) - data[held]).square()
        if test_weights is not None:
            misfit = torch.where(test_weights > 0, misfit * test_weights, 0)
        found.append((float(misfit.double().sum()) ** 0.5, relative, x))
        best = min(error for error, _, _ in found)
        if found[-1][0] > TOLERATED * best:
            break
    _, relative, x = next(entry for entry in found if entry[0] <= TOLERATED * best)
    return relative, x
