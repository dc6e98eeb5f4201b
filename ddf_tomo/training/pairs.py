"""What networks learn from: volumes with noise beside the true ones, scans beside their samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, integer, message, number, of_kind, real_array, size_tuple
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.responses import SaxsResponse, SecondMomentResponse
from ddf_tomo.phantoms import simulate
from ddf_tomo.priors.learned.samples import random_sample
from ddf_tomo.scan import Scan
from ddf_tomo.training._inputs import real_volume

__all__ = ["brightness", "random_geometry", "random_scan", "white_noise_pair"]
FEWEST_VIEWS, MOST_VIEWS = 20, 120
NOISE = 0.005, 0.08
SEGMENTS = 8


def brightness(coefficients: Any) -> float:
    """Root mean square of the mean over the sphere, over the voxels where it exceeds 10 % of its maximum.

    Parameters
    ----------
    coefficients
        Shape ``(..., x, y, z, K)``.

    Examples
    --------
    >>> volume = torch.zeros(4, 4, 4, 6)
    >>> volume[1, 1, 1, 0] = 2.0
    >>> brightness(volume)
    2.0
    """
    values = as_tensor(coefficients, "coefficients")
    if values.ndim < 4 or 0 in values.shape:
        raise ValueError(message("coefficients", "shape (..., x, y, z, K)", tuple(values.shape)))
    mean = values[..., 0]
    seen = mean[mean > 0.1 * mean.max()].double()
    return float(seen.square().mean().sqrt()) if len(seen) else 0.0


def white_noise_pair(truth: Tensor, *, level: Sequence[float] = (0.01, 0.5), seed: int = 0) -> tuple[Tensor, float]:
    """A volume with white Gaussian noise of one strength in all coefficients, and that strength.

    Parameters
    ----------
    truth
        Coefficients, shape ``(x, y, z, K)``.
    level
        Standard deviation relative to the `brightness` of the truth, lowest and highest; drawn uniformly in logarithm.
    seed
        Of level and noise.

    Returns
    -------
    (torch.Tensor, float)
        Noisy coefficients, and the standard deviation in their units.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> noisy, sigma = white_noise_pair(torch.ones(8, 8, 8, 6), level=(0.1, 0.1))
    >>> round(sigma, 6), noisy.shape
    (0.1, torch.Size([8, 8, 8, 6]))
    """
    low, high = positive_range(level, "level")
    real_volume(truth, "truth")
    draw = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    sigma = math.exp(draw.uniform(math.log(low), math.log(high))) * (brightness(truth) or 1.0)
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    return truth + sigma * torch.randn(truth.shape, generator=generator).to(truth), sigma


def random_geometry(shape: Sequence[int], *, seed: int = 0) -> Geometry:
    """Views of a random acquisition: 20 to 120 of them in random directions, in tilt series, or with a missing wedge.

    Parameters
    ----------
    shape
        Voxels along ``(x, y, z)``. The detector is as large as the longest edge.
    seed
        Of all that is drawn.

    Examples
    --------
    >>> random_geometry((8, 8, 8), seed=1).detector_shape
    (8, 8)
    """
    volume = size_tuple(shape, "shape", 3)
    draw = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    count, edge = int(draw.integers(FEWEST_VIEWS, MOST_VIEWS + 1)), max(volume)
    inner, tilts = draw.uniform(0, 2 * np.pi, count), np.zeros(count)
    kind = draw.integers(3)
    if kind == 0:  # any directions
        tilts = np.arcsin(draw.uniform(-1, 1, count))
    elif kind == 1:  # equal steps at some tilts
        highest = np.radians(draw.uniform(20, 60))
        tilts = np.resize(np.linspace(0, highest, int(draw.integers(2, 8))), count)
        inner = np.arange(count) * 2 * np.pi / count + inner[0]
    else:  # one or two tilts, and a wedge of directions that is never seen
        inner = inner[0] + np.linspace(0, np.radians(draw.uniform(100, 180)), count)
        tilts = np.resize([0.0, np.radians(draw.uniform(15, 45))], count)
    return Geometry.from_angles(inner, tilts, volume, (edge, edge))


def random_scan(
    family: str,
    shape: Sequence[int],
    ell_max: int = 4,
    *,
    seed: int = 0,
    oversampling: int = 1,
    noise: Sequence[float] = NOISE,
    geometry: Geometry | None = None,
    response: Any = None,
) -> tuple[Scan, Tensor]:
    """A noisy scan of a `random_sample`, and the sample on the grid that reconstructs it.

    Parameters
    ----------
    family, shape, ell_max
        As in `random_sample`.
    seed
        Of sample, geometry, response and noise.
    oversampling
        Voxels of the simulation per voxel, along each axis; see `ddf_tomo.phantoms.simulate`. With 1, which is quick,
        data agree exactly with a volume on the grid: good enough to learn from, and nothing to test with.
    noise
        Standard deviation relative to the largest signal, lowest and highest; drawn uniformly in logarithm.
    geometry
        By default a `random_geometry`.
    response
        By default second moments or eight SAXS segments, drawn.

    Returns
    -------
    (Scan, torch.Tensor)
        The scan and the true coefficients, ``(x, y, z, K)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> scan, truth = random_scan("grains", (8, 8, 8), 2, seed=4)
    >>> truth.shape
    torch.Size([8, 8, 8, 6])
    """
    low, high = positive_range(noise, "noise")
    draw = np.random.default_rng([integer(seed, "seed", high=LARGEST_SEED), 1])
    truth = random_sample(family, shape, ell_max, seed=seed)
    of_views, of_noise = (int(value) for value in draw.integers(2**62, size=2))
    geometry = random_geometry(shape, seed=of_views) if geometry is None else geometry
    of_kind(Geometry, geometry, "geometry")
    if response is None:
        saxs = SaxsResponse(np.arange(SEGMENTS) * np.pi / SEGMENTS)
        response = saxs if draw.random() < 0.5 else SecondMomentResponse()
    strength = math.exp(draw.uniform(math.log(low), math.log(high)))

    def sample(grid: tuple[int, ...]) -> Tensor:
        return random_sample(family, grid, ell_max, seed=seed)

    options: dict[str, Any] = {"oversampling": oversampling, "noise": strength, "seed": of_noise}
    return simulate(sample, geometry, response, **options), truth


def positive_range(values: Any, argument: str) -> tuple[float, float]:
    """A lower and an upper bound above zero.

    Examples
    --------
    >>> positive_range([0.1, 2], "level")
    (0.1, 2.0)
    """
    low, high = real_array(values, argument, (2,)).tolist()
    return number(low, argument, low=0.0, low_open=True), number(high, argument, low=low, high=1e3)
