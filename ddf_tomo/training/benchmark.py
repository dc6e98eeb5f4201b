"""Scans that no network has learned from, to judge priors by: the same for everybody, and ways to leave the path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import choice, integer, number, size_tuple
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import SaxsResponse, SecondMomentResponse
from ddf_tomo.phantoms import PHANTOMS, SCAN_TILTS_RAD, SCAN_VIEWS, simulate, tilt_series
from ddf_tomo.priors.learned.samples import SPLITS, random_sample
from ddf_tomo.scan import Scan

__all__ = ["SHIFTS", "benchmark_scan"]
SHIFTS = ("none", "family", "geometry", "noise", "response")
SEEDS = 7_000_000  # of the samples, the first one
NOISIER = 4
TILT_RAD, UNSEEN = np.radians(30.0), 1 / 3  # of the half turn about a single axis
SEGMENTS = 8


def benchmark_scan(
    index: int,
    shape: Sequence[int] = (32, 32, 32),
    ell_max: int = 4,
    *,
    views: int = 60,
    noise: float = 0.02,
    response: Any = None,
    shift: str = "none",
    oversampling: int = 2,
) -> tuple[Scan, Tensor]:
    """The scan of this number, and its true coefficients; of the families that are kept for tests.

    Data come from a finer grid than the one that reconstructs them.

    Parameters
    ----------
    index
        Which one; there is no last one, and 32 make a table.
    shape, ell_max
        Voxels along ``(x, y, z)`` and order of the sample, 2, 4, 6 or 8.
    views
        Of a tilt series to 45°, as `ddf_tomo.phantoms.tilt_series`; a quarter of those of a whole scan by default.
    noise
        Standard deviation, relative to the largest signal.
    response
        Angular response; eight SAXS segments by default.
    shift
        What differs besides the families: ``"none"``; ``"family"``: the phantoms of `ddf_tomo.phantoms`;
        ``"geometry"``: a missing wedge, a third of the half turn at tilts of 0 and 30° unseen; ``"noise"``: four times
        as much; ``"response"``: second moments in place of segments, segments in place of others.
    oversampling
        Voxels of the simulation per voxel, along each axis.

    Returns
    -------
    (Scan, torch.Tensor)
        The scan, and coefficients ``(x, y, z, K)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> scan, truth = benchmark_scan(3, (8, 8, 8), 2, views=12)
    >>> len(scan), truth.shape
    (12, torch.Size([8, 8, 8, 6]))
    """
    number_of = integer(index, "index", high=2**31)
    shift = choice(shift, "shift", SHIFTS)
    volume = size_tuple(shape, "shape", 3)
    count = integer(views, "views", low=7, high=10**5)
    family = SPLITS["test"][number_of % len(SPLITS["test"])]
    phantom = tuple(PHANTOMS)[number_of % len(PHANTOMS)]

    def sample(grid: Sequence[int]) -> Any:
        if shift == "family":
            options = {"seed": number_of} if phantom in ("fibre_bundles", "random_field") else {}
            return PHANTOMS[phantom](grid, ell_max, **options)
        return random_sample(family, grid, ell_max, seed=SEEDS + number_of)

    segments = SaxsResponse(np.arange(SEGMENTS) * np.pi / SEGMENTS)
    used = segments if response is None else response
    if shift == "response":
        used = SecondMomentResponse() if isinstance(used, SaxsResponse) else segments
    level = number(noise, "noise", low=0.0) * (NOISIER if shift == "noise" else 1)
    geometry = _wedge(volume, count) if shift == "geometry" else _series(volume, count)
    scan = simulate(sample, geometry, used, oversampling=oversampling, noise=level, seed=SEEDS + number_of)
    truth = sample(volume)
    return scan, truth if isinstance(truth, Tensor) else torch.from_numpy(truth.coefficients)


def _series(volume: tuple[int, ...], views: int) -> Geometry:
    """A tilt series with its views dealt to the tilts as in a real scan."""
    shares = np.array(SCAN_VIEWS) / sum(SCAN_VIEWS)
    ends = np.round(np.cumsum(shares) * views).astype(int)
    counts = np.diff(ends, prepend=0)
    kept = counts > 0
    return tilt_series(volume, (max(volume),) * 2, SCAN_TILTS_RAD[kept], counts[kept].tolist())


def _wedge(volume: tuple[int, ...], views: int) -> Geometry:
    """One axis, at tilts of 0 and 30°, which never sees a wedge of directions."""
    inner = np.linspace(0, np.pi * (1 - UNSEEN), views)
    return Geometry.from_angles(inner, np.resize([0.0, TILT_RAD], views), volume, (max(volume),) * 2)
