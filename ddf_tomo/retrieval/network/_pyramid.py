"""Estimates of the unknowns in windows of growing size, each with its standard error: what the network weighs.

At each of four resolutions, evidence is summed over two binomial windows (of about one pixel's width there), solved,
and what the window left is fitted again (Tukey 1977's twicing), so that slopes and curvatures of the maps survive.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ddf_tomo.retrieval.network._evidence import PAIRS, QUANTITIES, applied, factor, solved

LEVELS, WINDOWS = 4, 2
SMALLEST = 2**LEVELS  # rows and columns of the frames are padded to a multiple
LEAST = (10.0, 10.0, 4.0, 4.0, 4.0, 100.0)  # 1 over squares: how far a start may be off, in pixels, their squares, ln T
TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
FARTHEST = 3.0  # of these, that an estimate may be from the start
PER_WINDOW = 2 * QUANTITIES
WIDTH = WINDOWS * PER_WINDOW + 1  # channels of a level


def pyramid(terms: Tensor, start: Tensor) -> list[Tensor]:
    """Estimates in windows, ``(25, row, column)`` at each of four resolutions, from fine to coarse.

    Of each of the two windows the six estimates and the logarithms of their errors, then the logarithm of χ².
    Rows and columns are padded to multiples of eight, by nothing known.

    Parameters
    ----------
    terms
        Of `Evidence`, shape ``(29, row, column)``.
    start
        Its means ``coarse``, shape ``(6, row, column)``.

    Examples
    --------
    >>> [tuple(level.shape) for level in pyramid(torch.zeros(29, 12, 16), torch.zeros(6, 12, 16))]
    [(25, 16, 16), (25, 8, 8), (25, 4, 4), (25, 2, 2)]
    """
    rows, columns = terms.shape[-2:]
    side = SMALLEST // 2
    terms = pad(terms, (0, -columns % side, 0, -rows % side))
    start = pad(start[None], (0, -columns % side, 0, -rows % side), mode="replicate")[0]
    levels = []
    for level in range(LEVELS):
        if level:
            terms, start = 4 * avg_pool2d(terms, 2), avg_pool2d(start, 2)
        parts, summed = [], terms
        inside, mean = _windowed(torch.ones_like(terms[:1])), start
        for window in range(1, WINDOWS + 1):
            summed, mean = _windowed(summed), _windowed(mean) / inside
            parts += list(_estimate(terms, summed, mean, window))
        misfit, freedom = summed[-2], summed[-1]
        parts.append(((misfit + 1) / (freedom + 1)).clamp(1e-3, 1e6).log()[None])
        levels.append(torch.cat(parts, -3))
    return levels


def _estimate(terms: Tensor, summed: Tensor, start: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Twiced estimates and the logarithms of their errors."""
    least = torch.tensor(LEAST).to(terms)
    # Sums, not means: as many pixels as the window has.
    area = (sum(TAPS) ** 2 / sum(tap * tap for tap in TAPS)) ** 2 * window
    lower, variance = factor(area * summed[:PAIRS], least)
    found, most = start, FARTHEST / least.sqrt()[:, None, None]
    for _ in range(2):
        left = terms[PAIRS : PAIRS + QUANTITIES] - applied(terms[:PAIRS], found)
        for _ in range(window):
            left = _windowed(left)
        found = torch.maximum(torch.minimum(found + solved(lower, area * left), start + most), start - most)
    return found, 0.5 * variance.log()


def _windowed(images: Tensor) -> Tensor:
    """Binomial means over five pixels along both axes; nothing outside."""
    for axis in (-2, -1):
        widths = (2, 2, 0, 0) if axis == -1 else (0, 0, 2, 2)
        padded, length = pad(images, widths), images.shape[axis]
        images = sum(
            (tap * padded.narrow(axis, lag, length) for lag, tap in enumerate(TAPS[1:], 1)),
            TAPS[0] * padded.narrow(axis, 0, length),
        )
    return images
