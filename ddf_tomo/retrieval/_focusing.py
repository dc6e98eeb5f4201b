"""Transmission of several distances, freed of what focusing adds to each."""

from __future__ import annotations

import torch
from torch import Tensor

from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, FIRST, along, erode

STRONGEST = 0.5  # ∇·u, beyond which rays are about to cross


def focused(
    transmission: Tensor, share: Tensor, displacement: Tensor, valid: Tensor, reach: Tensor
) -> tuple[Tensor, Tensor]:
    """The T of all distances, and what an error of ∇·u does to its logarithm.

    Rays that part darken a detector at a distance d by ``1 − d ∇·u``, whatever the sample absorbs.

    Parameters
    ----------
    transmission, share : (distance, row, column)
        As each distance sees it, and its part in the mean; parts sum to one.
    displacement : (2, row, column)
        At the longest distance.
    valid : (row, column)
        Where it is known; slopes near by count as zero.
    reach : (distance,)
        Distances over the longest of them.
    """
    slope = along(displacement[:1], FIRST, -2, odd=True)[0] + along(displacement[1:], FIRST, -1, odd=True)[0]
    slope = torch.where(erode(valid, DERIVATIVE_REACH), slope, 0).clamp(-STRONGEST, STRONGEST)
    reach = reach[:, None, None]
    return (share * transmission / (1 - reach * slope)).sum(0), (share * reach).sum(0)


def error_of_slope(displacement_variance: Tensor, window: float) -> Tensor:
    """Variance of ∇·u from those of u ``(2, row, column)``, an average over a Gaussian window: ``var u / 2w²``."""
    return displacement_variance.sum(0) / (2 * window**2)
