"""Standard errors of corrections that were found together with a volume."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.alignment.joint import Level, Linearised

ITERATIONS = 20
FITS, FITS_OF_DRIFT = 3, 8  # to noise; a drift has few parameters to average over


@torch.no_grad()
def standard_errors(
    level: Level, volume: Tensor, corrections: Tensor, freedom: Freedom, seed: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Standard errors of all corrections, and the share of the weighted data's norm that the fit leaves.

    With the volume known, the covariance would be the inverse of ``JᵀWJ``, view by view. It is not known, and gives way
    to wrong corrections: volume and corrections are fitted together to white noise, a few times, and the errors of all
    views of a kind scaled to what comes out. The strength of the noise is that of the data's residual, beside which the
    residuals of these fits tell how much of it the parameters took up.

    Parameters
    ----------
    level
        Data and model.
    volume, corrections
        What was found, shapes ``(x, y, z, coefficient)`` and ``(views, 5)``.
    freedom
        What was free.
    seed
        Of the noise.

    Examples
    --------
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> from ddf_tomo import SecondMomentResponse
    >>> geometry = tilt_series((8, 8, 8), views=[9], tilts_rad=[0.2])
    >>> level = Level(simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.02), 2, 1e-3)
    >>> at = torch.zeros(9, 5, dtype=torch.float64)
    >>> errors, _ = standard_errors(level, level.volume(at, 5), at, Freedom(geometry))
    >>> errors.shape
    (9, 2)
    """
    generator = torch.Generator().manual_seed(seed)
    at = level.linearised(volume, corrections, freedom)
    tiny = torch.finfo(torch.float32).tiny
    roots = torch.where(level.weights > 0, level.weights.clamp_min(tiny).rsqrt(), 0)
    fits = FITS if freedom.basis is None else FITS_OF_DRIFT
    squares, left = torch.zeros(len(corrections), freedom.kinds, dtype=torch.float64), 0.0
    for _ in range(fits):
        noise = roots * torch.randn(level.data.shape, generator=generator)
        x, steps = at.step(torch.zeros_like(volume), ITERATIONS, noise)
        left += level.square(noise - at.A(x) - at.change(steps)) / fits
        squares += freedom.expand(steps).square() / fits
    variance = level.square(at.signals - level.data) / max(left, tiny)
    alone = _with_known_volume(at)
    # What stands still whatever the noise was held by hand: no data can tell it.
    ratios = (squares / alone).nan_to_num(0.0).mean(0)
    known = (ratios > 0) & torch.isfinite(alone)
    found = variance * ratios * torch.where(known, alone, 1)
    errors = torch.where(known & torch.isfinite(found), found.clamp_min(0).sqrt(), torch.inf)
    return errors.numpy(), at.residual()


def _with_known_volume(at: Linearised) -> Tensor:
    """Variances ``(views, kinds)`` of the corrections for unit noise and a known volume; infinite without signal."""
    diagonal = at.curvature.diagonal(dim1=1, dim2=2)
    known = diagonal > 1e-12 * diagonal.amax(0)
    unit = torch.diag_embed(torch.where(known, 0.0, 1.0))
    blocks = torch.where(known[:, :, None] & known[:, None, :], at.curvature, 0) + unit
    covariance = torch.linalg.pinv(blocks, hermitian=True)
    basis, (count, kinds) = at.freedom.basis, at.freedom.shape
    if basis is None:
        return torch.where(known, covariance.diagonal(dim1=1, dim2=2), torch.inf)
    full = covariance.reshape(count, kinds, count, kinds)
    variances = torch.einsum("vn,nama,vm->va", basis, full, basis)
    return torch.where(known.reshape(count, kinds).all(0), variances, torch.inf)
