"""How a finished volume agrees with the data that it was made of: χ² of all data and of each view."""

from __future__ import annotations

import math

import numpy as np
import torch

from ddf_tomo.reconstruction import DataFit
from ddf_tomo.solvers.misfit import Misfit
from ddf_tomo.solvers.plug_and_play import noise_variance

VIEWS_AT_ONCE = 16
SAME = 1e-6


def data_fit(misfit: Misfit, x: torch.Tensor, unit: float = 1.0) -> DataFit | None:
    """The `DataFit` of a volume, by one projection; None where nothing tells of the noise.

    Parameters
    ----------
    misfit
        Operator, data and weights.
    x
        Coefficients, of the operator's domain shape.
    unit
        What the weights of the scan were divided by.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> same = wrap((lambda x: x, lambda y: y), (2, 4, 4, 1), (2, 4, 4, 1))
    >>> data_fit(Misfit(same, torch.ones(2, 4, 4, 1), torch.full((2, 4, 4, 1), 25.0)), torch.zeros(2, 4, 4, 1))
    DataFit(per_datum=25.0, per_view=array([25., 25.]), noise=0.2, noise_from='weights')
    """
    sums, counts, measured, total, told = [], [], [], 0.0, False
    for A, y, w in misfit.pieces():
        weights = y.new_ones(()).expand(y.shape) if w is None else w.expand(y.shape)
        for r, kept in zip((A(x) - y).split(VIEWS_AT_ONCE), weights.split(VIEWS_AT_ONCE), strict=True):
            sums.append((kept * r.double().square_()).flatten(1).sum(1))
            counts.append((kept > 0).flatten(1).sum(1))
            total += float(kept.sum(dtype=torch.float64))
            # As everywhere: weights of 1, and masks of 0 and 1, say nothing of the noise.
            told = told or bool(((kept * unit - 1).abs() > SAME)[kept > 0].any())
        if not told:
            few = slice(None, None, -(-len(y) // VIEWS_AT_ONCE))
            measured.append(_variance(y[few], None if w is None else w[few]))
    squares, data = unit * torch.cat(sums).numpy(), torch.cat(counts).numpy()
    if not data.any() or not (told or np.isfinite(measured).any()):
        return None
    variance = 1.0 if told else unit * float(np.nanmedian(measured))
    per_view = np.divide(squares, data * variance, out=np.full(len(data), math.nan), where=data > 0)
    return DataFit(
        per_datum=float(squares.sum() / data.sum() / variance),
        per_view=per_view,
        noise=math.sqrt(variance * data.sum() / (unit * total)),
        noise_from="weights" if told else "neighbouring pixels",
    )


def _variance(y: torch.Tensor, w: torch.Tensor | None) -> float:
    """Of a datum of weight 1; NaN where no three pixels in a row have been measured."""
    try:
        return noise_variance(y, w)
    except ValueError:
        return math.nan
