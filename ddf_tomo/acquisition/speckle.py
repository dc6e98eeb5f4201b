"""A random mask's image, as sandpaper and membranes give it, without the physics that made it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import LARGEST_SEED, integer, number
from ddf_tomo.acquisition._inputs import frame_shape

__all__ = ["speckle"]
GRAIN = 1.35  # pixels: an autocorrelation 4.5 pixels wide


def speckle(
    steps: int,
    shape: Sequence[int],
    *,
    grain: float = GRAIN,
    visibility: float = 0.3,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Images of a random mask without a sample: positive, log-normal, of mean 1, ``(step, row, column)``.

    Parameters
    ----------
    steps
        Independent positions of the mask.
    shape
        Rows and columns.
    grain
        Width of the Gaussian that smooths white noise, in pixels; the autocorrelation is 3.3 grains wide.
    visibility
        Standard deviation over mean.
    seed
        Of the mask.

    Examples
    --------
    >>> mask = speckle(4, (64, 64))
    >>> mask.shape, round(float(mask.std()), 2)
    ((4, 64, 64), 0.3)
    """
    number_of_steps = integer(steps, "steps", low=1, high=10_000)
    rows, columns = frame_shape(shape)
    sigma = number(grain, "grain", low=0.5, high=min(rows, columns) / 4)
    contrast = number(visibility, "visibility", low=0, high=2, low_open=True)
    generator = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    f_j, f_k = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)
    smooth = np.exp(-2 * np.pi**2 * sigma**2 * (f_j**2 + f_k**2))
    images = np.empty((number_of_steps, rows, columns), np.float32)
    deviation = math.sqrt(math.log1p(contrast**2))
    for image in images:
        field = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((rows, columns))) * smooth, (rows, columns))
        pattern = np.exp(field * (deviation / field.std()))
        image[...] = pattern / pattern.mean()
    return images
