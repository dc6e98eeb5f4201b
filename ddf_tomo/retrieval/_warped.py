"""Frames moved by a displacement that differs from pixel to pixel: cubic B-splines through the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

REACH = 32  # pixels to which filters made by `transfers` reach
EDGE = 12  # pixels until the spline forgets what lies beyond the border: 0.27 a pixel
SMOOTH_LENGTHS = sorted(2**a * 3**b * 5**c for a in range(15) for b in range(5) for c in range(4))


def fast_length(length: int) -> int:
    """The next length whose Fourier transform is quick."""
    return next((fast for fast in SMOOTH_LENGTHS if fast >= length), length)


def spline_coefficients(frames: Tensor) -> Tensor:
    """Coefficients of the cubic B-splines that pass through frames ``(n, row, column)``, `EDGE` wider on each side.

    The spline's samples are its coefficients filtered by (1, 4, 1)/6: undone in the Fourier domain
    [Unser et al. 1993, IEEE Trans. Signal Process. 41, 821].
    """
    rows, columns = (fast_length(n + 2 * EDGE) for n in frames.shape[-2:])
    below, beyond = rows - frames.shape[-2] - EDGE, columns - frames.shape[-1] - EDGE
    padded = pad(frames, (EDGE, beyond, EDGE, below), mode="replicate")
    f_j, f_k = frequencies(rows, columns, frames)
    response = (2 + torch.cos(2 * torch.pi * f_j)) * (2 + torch.cos(2 * torch.pi * f_k)) / 9
    coefficients = torch.fft.irfft2(torch.fft.rfft2(padded) / response, s=(rows, columns))
    return coefficients[:, : frames.shape[-2] + 2 * EDGE, : frames.shape[-1] + 2 * EDGE].contiguous()


def frequencies(rows: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies in cycles a pixel of a real Fourier transform, (row, 1) and (1, column)."""
    f_j = torch.fft.fftfreq(rows, dtype=like.dtype, device=like.device)[:, None]
    return f_j, torch.fft.rfftfreq(columns, dtype=like.dtype, device=like.device)[None]


def transfers(filters: Callable[[Tensor, Tensor], Tensor], rows: int, columns: int, like: Tensor) -> Tensor:
    """Filters as functions of frequency, made to end `REACH` pixels away: for `torch.fft.rfft2` of (row, column).

    Where a filter's function of frequency has a kink, or jumps from one end of the band to the other, its kernel falls
    off slowly, and a result would depend on how far away the image ends. Kernels are kept to two thirds of the reach
    and fade out in the rest; what was beyond is spread within, so that their sums remain.

    Parameters
    ----------
    filters
        Gives values ``(..., row, column)`` at frequencies (row, 1) and (1, column), in cycles a pixel.
    rows, columns
        At least twice the reach.
    """
    return within_reach(filters(*frequencies(2 * REACH, 2 * REACH, like)), rows, columns)


def within_reach(values: Tensor, rows: int, columns: int) -> Tensor:
    """`transfers` from the ``values`` of filters at the frequencies of an image twice the reach wide."""
    size = 2 * REACH
    kernels = torch.fft.irfft2(values, s=(size, size))
    away = (torch.arange(size, dtype=kernels.dtype, device=kernels.device) - REACH).abs() / REACH
    fading = torch.cos(math.pi / 2 * (3 * away - 2).clamp(0, 1)).square()
    fading = fading[:, None] * fading
    kernels = torch.fft.fftshift(kernels, dim=(-2, -1))
    wide = torch.exp(-4.5 * away.square())
    wide = fading * wide[:, None] * wide
    lost = (kernels * (1 - fading)).sum((-2, -1), keepdim=True)
    kernels = kernels * fading + lost * (wide / wide.sum())
    placed = pad(kernels, (0, columns - size, 0, rows - size))
    return torch.fft.rfft2(placed.roll((-REACH, -REACH), dims=(-2, -1)))


def _weights(offset: Tensor) -> list[Tensor]:
    """Cubic B-splines at the four neighbours of a place ``offset`` (0 … 1) beyond the second of them."""
    t, s = offset, 1 - offset
    inner = [2 / 3 - 0.5 * x * x * (2 - x) for x in (t, s)]
    return [s**3 / 6, *inner, t**3 / 6]


def warped(coefficients: Tensor, displacement: Tensor) -> Tensor:
    """``frames(x − u(x))`` from `spline_coefficients`; ``u`` (2, row, column) in pixels, clamped at the borders."""
    rows, columns = displacement.shape[-2:]
    wide = coefficients.shape[-1]
    places = []
    for u, length, shape in ((displacement[0], rows, (-1, 1)), (displacement[1], columns, (1, -1))):
        place = torch.arange(length, dtype=u.dtype, device=u.device).reshape(shape) - u + EDGE
        places.append(place.clamp(1, length + 2 * EDGE - 3))
    (row, column) = (place.floor() for place in places)
    down, across = _weights(places[0] - row), _weights(places[1] - column)
    corner = ((row - 1).long() * wide + (column - 1).long()).flatten()
    flat = coefficients.flatten(1)
    result = torch.zeros(len(flat), rows * columns, dtype=flat.dtype, device=flat.device)
    for a, left in enumerate(down):
        for b, right in enumerate(across):
            result.addcmul_(flat[:, corner + (a * wide + b)], (left * right).flatten())
    return result.reshape(-1, rows, columns)
