"""Where the mask goes from step to step, and its pattern there.

Positions are ``(step, 2)``, (j, k), in any unit of length; `shifted` wants pixels of the pattern it moves. A positive
position moves the pattern towards larger indices: down and to the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import integer, message, number, size_tuple
from ddf_tomo.acquisition._inputs import Seed, frame_shape, generator, pair, real_map
from ddf_tomo.operators.propagation import complex_tensor

GOLDEN_ANGLE_RAD = math.pi * (3 - math.sqrt(5))
MOST_STEPS = 100_000


def random_steps(steps: int, extent: float | Sequence[float], *, seed: Seed = 0) -> Tensor:
    """Positions drawn evenly from a rectangle about zero.

    Parameters
    ----------
    steps
        Number of positions.
    extent
        Edge of the rectangle, or its two edges (j, k).
    seed
        A number or a `torch.Generator`.

    Returns
    -------
    Tensor
        ``(steps, 2)``, float64, in the unit of ``extent``.

    Examples
    --------
    >>> random_steps(20, 50.0).abs().max() <= 25
    tensor(True)
    """
    count = integer(steps, "steps", low=1, high=MOST_STEPS)
    edges = torch.tensor(pair(extent, "extent", low=0, high=1e9), dtype=torch.float64)
    return (torch.rand(count, 2, generator=generator(seed), dtype=torch.float64) - 0.5) * edges


def raster_steps(shape: Sequence[int], pitch: float | Sequence[float]) -> Tensor:
    """Positions on a rectangular raster about zero, row by row, every other row backwards.

    Parameters
    ----------
    shape
        Number of positions along j and k.
    pitch
        Distance of neighbours, one number or (j, k).

    Returns
    -------
    Tensor
        ``(steps, 2)``, float64, in the unit of ``pitch``.

    Examples
    --------
    >>> raster_steps((2, 2), 1.0).tolist()
    [[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]]
    """
    rows, columns = size_tuple(shape, "shape", 2)
    if rows * columns > MOST_STEPS:
        raise ValueError(message("shape", f"at most {MOST_STEPS} positions", (rows, columns)))
    pitch_j, pitch_k = pair(pitch, "pitch", low=0, high=1e9)
    j = (torch.arange(rows, dtype=torch.float64) - (rows - 1) / 2) * pitch_j
    k = (torch.arange(columns, dtype=torch.float64) - (columns - 1) / 2) * pitch_k
    grid = torch.stack(torch.meshgrid(j, k, indexing="ij"), -1)
    grid[1::2] = grid[1::2].flip(1)
    return grid.reshape(-1, 2)


def spiral_steps(steps: int, pitch: float) -> Tensor:
    """Positions on Fermat's spiral, turned by the golden angle from each to the next: even, and without any period.

    Parameters
    ----------
    steps
        Number of positions; the first one is zero.
    pitch
        There is one position on each square of this edge.

    Returns
    -------
    Tensor
        ``(steps, 2)``, float64, in the unit of ``pitch``.

    Examples
    --------
    >>> spiral_steps(3, 1.0).norm(dim=1)
    tensor([0.0000, 0.5642, 0.7979], dtype=torch.float64)
    """
    n = torch.arange(integer(steps, "steps", low=1, high=MOST_STEPS), dtype=torch.float64)
    radius = number(pitch, "pitch", low=0, high=1e9) * (n / math.pi).sqrt()
    return torch.stack([radius * (n * GOLDEN_ANGLE_RAD).cos(), radius * (n * GOLDEN_ANGLE_RAD).sin()], -1)


def shifted(pattern: Tensor, positions_px: Tensor, *, shape: Sequence[int] | None = None) -> Tensor:
    """The pattern at each position, moved by its Fourier transform: exact for band-limited periodic patterns.

    Differentiable in the pattern and in the positions. What leaves the frame on one side comes back on the other; give
    a pattern larger than the frame and ``shape`` where it must not. Edges of binary masks ring as they move by parts of
    a pixel: move the intensity on the detector, or step by whole pixels.

    Parameters
    ----------
    pattern
        ``(rows, columns)``, real or complex.
    positions_px
        ``(step, 2)``, (j, k) in pixels: ``out(x) = pattern(x − position)``.
    shape
        Of the frames, cut from the pattern's middle; the pattern must be larger by the farthest position on each side.
        None keeps all.

    Returns
    -------
    Tensor
        ``(step, rows, columns)``.

    Examples
    --------
    >>> pattern = torch.zeros(8, 8)
    >>> pattern[2, 3] = 1
    >>> bool(shifted(pattern, torch.tensor([[1.0, -2.0]]))[0, 3, 1] > 0.999)
    True
    """
    real = not (torch.is_complex(pattern) if isinstance(pattern, Tensor) else False)
    image = real_map(pattern, "pattern") if real else complex_tensor(pattern, "pattern")
    places = real_map(positions_px, "positions_px", dtype=image.real.dtype).to(image.device)
    if image.ndim != 2:
        raise ValueError(message("pattern", "shape (rows, columns)", tuple(image.shape)))
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(message("positions_px", "shape (step, 2)", tuple(places.shape)))
    if float(places.detach().abs().max()) > 1e6:
        raise ValueError(message("positions_px", "pixels, up to a million", float(places.detach().abs().max())))
    rows, columns = image.shape
    along_j, along_k = _phases(rows, places[:, 0]), _phases(columns, places[:, 1])
    if real:  # rfft's half of the spectrum
        spectrum = torch.fft.rfft2(image) * along_j[:, :, None] * along_k[:, None, : columns // 2 + 1]
        moved = torch.fft.irfft2(spectrum, s=(rows, columns))
    else:
        moved = torch.fft.ifft2(torch.fft.fft2(image) * along_j[:, :, None] * along_k[:, None])
    return moved if shape is None else _middle(moved, shape, places.detach())


def _phases(length: int, positions: Tensor) -> Tensor:
    """Fourier factors ``(step, frequency)`` of shifts; that of Nyquist's frequency is real, as a real image's is."""
    f = torch.fft.fftfreq(length, dtype=positions.dtype, device=positions.device)
    turns = f * positions[:, None]
    phases = torch.exp(-2j * math.pi * turns)
    at_nyquist = (f == -0.5).to(phases.dtype)
    return phases * (1 - at_nyquist) + phases.real * at_nyquist


def _middle(frames: Tensor, shape: Any, places: Tensor) -> Tensor:
    size = frame_shape(shape)
    margins = [(n - m) / 2 for n, m in zip(frames.shape[-2:], size, strict=True)]
    needed = places.abs().amax(0).tolist()
    if any(margin < need for margin, need in zip(margins, needed, strict=True)):
        hint = "A frame's edge would show what left the pattern on the other side"
        least = tuple(m + 2 * math.ceil(need) for m, need in zip(size, needed, strict=True))
        raise ValueError(message("pattern", f"{least} pixels or more", tuple(frames.shape[-2:]), hint))
    j, k = (int(margin) for margin in margins)
    return frames[..., j : j + size[0], k : k + size[1]]
