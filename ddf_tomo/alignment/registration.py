"""How far each view lies from where a model has it, by weighted normalised correlation: a start for any distance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_broadcast, check_shape, message, number
from ddf_tomo.operators.base import as_tensor

LEAST_OVERLAP = 0.25  # of the model's power that a shift must leave on the weighted part of the detector


@torch.no_grad()
def register(data: Any, model: Any, weights: Any = None, *, largest: float | None = None) -> Tensor:
    """Shift of each view of ``data`` against ``model``, in pixels, to a fraction of one.

    For each shift s the model's amplitude is fitted; the shift whose fit leaves least of the data maximises
    ``(Σ w d(x) m(x - s))² / Σ w m(x - s)²``, both sums by FFT [weighted as in Padfield 2012, IEEE Trans. Image Process.
    21, 2706]. A paraboloid through the neighbours of the best whole shift gives the fraction.

    Parameters
    ----------
    data, model
        Signals, shape ``(views, J, K, channels)``; all channels of a view shift together.
    weights
        Weights that broadcast against them, shape of the data or like it; ``None`` for 1.
    largest
        Largest shift in pixels along each axis; half of the detector by default.

    Returns
    -------
    Tensor
        Shape ``(views, 2)``, float64: ``data(x) ≈ model(x - shift)``. Zero for views without signal.

    Examples
    --------
    >>> places = torch.arange(24.0)
    >>> blob = lambda j, k: torch.exp(-((places[:, None] - j) ** 2 + (places - k) ** 2) / 8)[None, :, :, None]
    >>> register(blob(13.3, 9.0), blob(12.0, 11.5)).round(decimals=1).tolist()
    [[1.3, -2.5]]
    """
    d, m = as_tensor(data, "data").double(), as_tensor(model, "model").double()
    check_shape(d.shape, "data", (None, None, None, None))
    check_shape(m.shape, "model", tuple(d.shape))
    w = torch.ones_like(d) if weights is None else as_tensor(weights, "weights").double()
    if weights is not None:
        check_broadcast(d.shape, w.shape, "weights")
        check_shape(torch.broadcast_shapes(w.shape, d.shape), "weights", tuple(d.shape))
        w = w.expand(d.shape)
    views, rows, columns, _ = d.shape
    reach = [n // 2 for n in (rows, columns)]
    if largest is not None:
        reach = [min(r, math.ceil(number(largest, "largest", low=0, low_open=True))) for r in reach]
    shifts = torch.zeros(views, 2, dtype=torch.float64)
    if not d.numel() or not min(rows, columns):
        return shifts
    if not bool(torch.isfinite(d).all() & torch.isfinite(m).all() & torch.isfinite(w).all()):
        raise ValueError(message("data, model, weights", "finite values", "NaN or infinite ones"))
    for view in range(views):
        agreement = _agreement(d[view], m[view], w[view], reach)
        if agreement is not None:
            shifts[view] = _peak(agreement) - torch.tensor(reach, dtype=torch.float64)
    return shifts


def _agreement(d: Tensor, m: Tensor, w: Tensor, reach: list[int]) -> Tensor | None:
    """Power of the data that the model explains, at shifts ``-reach … reach``; None if there is none."""
    scale = (m.abs().amax(), d.abs().amax(), w.abs().amax())
    if not all(bool(size > 0) for size in scale):
        return None
    m, d, w = m / scale[0], d / scale[1], w / scale[2]
    size = [n + r for n, r in zip(d.shape[:2], reach, strict=True)]

    def correlated(first: Tensor, second: Tensor) -> Tensor:
        spectra = (torch.fft.rfft2(part, s=size, dim=(0, 1)) for part in (first, second))
        one, other = spectra
        full = torch.fft.irfft2((one * other.conj()).sum(-1), s=size)
        return full.roll(reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]

    together, power = correlated(w * d, m), correlated(w, m * m)
    least = LEAST_OVERLAP * power.amax()
    return torch.where(power > least, together.clamp_min(0) ** 2 / power.clamp_min(least), 0)


def _peak(values: Tensor) -> Tensor:
    """Place of the largest value, to a fraction by a parabola along each axis and their cross term."""
    at = [int(n) for n in torch.unravel_index(values.argmax(), values.shape)]
    place = torch.tensor(at, dtype=torch.float64)
    if any(not 0 < a < n - 1 for a, n in zip(at, values.shape, strict=True)):
        return place
    near = values[at[0] - 1 : at[0] + 2, at[1] - 1 : at[1] + 2]
    slope = torch.stack([near[2, 1] - near[0, 1], near[1, 2] - near[1, 0]]) / 2
    jj, kk = near[2, 1] - 2 * near[1, 1] + near[0, 1], near[1, 2] - 2 * near[1, 1] + near[1, 0]
    jk = (near[2, 2] - near[2, 0] - near[0, 2] + near[0, 0]) / 4
    determinant = jj * kk - jk * jk
    if not (bool(jj < 0) and bool(determinant > 0)):
        return place
    step = -torch.stack([kk * slope[0] - jk * slope[1], jj * slope[1] - jk * slope[0]]) / determinant
    return place + step.clamp(-1, 1)
