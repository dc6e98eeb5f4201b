"""Masks that modulate the beam, as maps of their height in metres.

`RefractiveIndex.wave` makes a complex transmission of a height, `RefractiveIndex.transmission` an intensity. Edges lie
where they are, not on pixels: a pixel that is covered by half has half the height. Give a wave several pixels for each
feature, and average the intensity over the detector's pixels afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import choice, message, number
from ddf_tomo.acquisition._codes import hadamard_cells, ura_cells
from ddf_tomo.acquisition._drawing import drawn, drawn_lines, spiral_discs, spiral_line
from ddf_tomo.acquisition._inputs import Seed, frame_shape, generator, length, real_map

GRIDS = ("pillars", "holes", "checkerboard", "lines_j", "lines_k")
SPIRALS = ("dots", "holes", "line")
DENSEST_SPIRAL = 0.6  # share covered by discs on Fermat's spiral: beyond, the first ones overlap
HALF_OF_AIRY = 0.7050  # full width at half maximum of 2 J₁(x)/x, x = 2π f r, times f


def cells(
    pattern: Tensor,
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
) -> Tensor:
    """A mask of square cells, each as high as the ``pattern`` says; differentiable in the pattern.

    Parameters
    ----------
    pattern
        ``(rows, columns)`` of cells, 1 where there is material, 0 where there is none. It repeats itself.
    shape
        ``(rows, columns)`` of the map.
    pixel_size_m
        Of the map.
    feature_size_m
        Edge of a cell, a pixel or more.
    thickness_m
        Height where the pattern is 1.

    Returns
    -------
    Tensor
        ``(rows, columns)``, in metres, of the pattern's dtype.

    Examples
    --------
    >>> cells(torch.tensor([[1.0, 0.0]]), (2, 5), 1e-6, 1.5e-6, 1.0)[0].tolist()
    [1.0, 0.5, 0.0, 1.0, 0.5]
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m)
    kinds = real_map(pattern, "pattern")
    if kinds.ndim != 2:
        raise ValueError(message("pattern", "shape (rows, columns)", tuple(kinds.shape)))
    return drawn(kinds, size, (feature / pixel, feature / pixel)) * thickness


def random_binary(
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
    *,
    fill: float = 0.5,
    seed: Seed = 0,
) -> Tensor:
    """Cells with and without material at random, as a lithographic mask has them.

    The cells are stretched by at most half a cell over the frame so that whole ones fit: the mask is periodic.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map.
    pixel_size_m
        Of the map.
    feature_size_m
        Edge of a cell, a pixel or more.
    thickness_m
        Height of the material.
    fill
        Share of the cells with material, met exactly but for rounding.
    seed
        A number or a `torch.Generator`.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres.

    Examples
    --------
    >>> mask = random_binary((64, 64), 1e-6, 4e-6, 20e-6)
    >>> round(float(mask.mean()) * 1e6, 3)
    10.0
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m)
    share = number(fill, "fill", low=0, high=1)
    count = [max(1, round(n * pixel / feature)) for n in size]
    total = math.prod(count)
    pattern = torch.zeros(total)
    pattern[torch.randperm(total, generator=generator(seed))[: round(share * total)]] = 1
    edges = (size[0] / count[0], size[1] / count[1])
    return drawn(pattern.reshape(*count), size, edges) * thickness


def sandpaper(
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
    *,
    seed: Seed = 0,
) -> Tensor:
    """A random height without edges, as that of sandpaper or a membrane of grains: Gaussian, band-limited, periodic.

    Its spectrum is flat up to ``0.705 / feature_size_m`` and zero beyond, where the speckles' autocorrelation
    ``2 J₁(x)/x`` has its half width at half of the feature size.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map.
    pixel_size_m
        Of the map.
    feature_size_m
        Full width at half maximum of the height's autocorrelation, two pixels or more.
    thickness_m
        Of the highest place above the lowest one.
    seed
        A number or a `torch.Generator`.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres, from 0 to ``thickness_m``.

    Examples
    --------
    >>> height = sandpaper((64, 64), 1e-6, 8e-6, 100e-6, seed=3)
    >>> round(float(height.min()), 9), round(float(height.max()), 9)
    (0.0, 0.0001)
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m, least=2)
    noise = torch.randn(*size, generator=generator(seed), dtype=torch.float64)
    f_j, f_k = (torch.fft.fftfreq(n, pixel, dtype=torch.float64) for n in size)
    kept = torch.hypot(f_j[:, None], f_k) <= HALF_OF_AIRY / feature
    if int(kept.sum()) < 5:
        raise ValueError(message("feature_size_m", "a size well below that of the frame", feature_size_m))
    height = torch.fft.ifft2(torch.fft.fft2(noise) * kept).real
    return ((height - height.min()) / (height.max() - height.min()) * thickness).float()


def grid(
    shape: Sequence[int],
    pixel_size_m: float,
    period_m: float,
    thickness_m: float,
    *,
    kind: str = "holes",
    fill: float = 0.5,
) -> Tensor:
    """A regular grid, its period stretched over the frame so that whole periods fit.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map.
    pixel_size_m
        Of the map.
    period_m
        Distance of neighbours, two pixels or more.
    thickness_m
        Height of the material.
    kind
        ``"pillars"``: squares of material. ``"holes"``: squares without. ``"checkerboard"``: two of each a period.
        ``"lines_j"``, ``"lines_k"``: lines that run along j (down) or k (to the right).
    fill
        Share of the area with material; a checkerboard's is one half.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres.

    Examples
    --------
    >>> grid((2, 8), 1e-6, 4e-6, 1.0, kind="lines_j")[0].tolist()
    [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    size, pixel, period, thickness = _checked(
        shape, pixel_size_m, period_m, thickness_m, name="period_m", least=2, along=_runs(kind)
    )
    share = number(fill, "fill", low=0, high=1)
    duty = {"pillars": math.sqrt(share), "holes": math.sqrt(1 - share), "checkerboard": 0.5}.get(kind, share)
    if kind == "checkerboard" and share != 0.5:
        raise ValueError(message("fill", "0.5, as kind is 'checkerboard'", fill))
    count = [max(1, round(n * pixel / period)) for n in size]
    j, k = (drawn_lines(n, n / periods, duty) for n, periods in zip(size, count, strict=True))
    square = j[:, None] * k
    height = {
        "pillars": square,
        "holes": 1 - square,
        "checkerboard": 2 * square + 1 - j[:, None] - k,
        "lines_j": k.expand(size),
        "lines_k": j[:, None].expand(size),
    }[kind]
    return (height * thickness).float()


def ura(
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
    *,
    order: int = 11,
) -> Tensor:
    """A uniformly redundant array of ``order × (order + 2)`` cells: all shifts by whole cells overlap equally.

    Its periodic autocorrelation is one peak on a flat floor, so that every spatial frequency of the pattern is equally
    strong. It repeats itself over the frame; one cell more than half of them has material.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map. It is periodic if it holds whole arrays.
    pixel_size_m
        Of the map.
    feature_size_m
        Edge of a cell, a pixel or more.
    thickness_m
        Height of the material.
    order
        The smaller one of a pair of primes: 3, 5, 11, 17, 29, 41, 59, 71, 101, …

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres.

    Notes
    -----
    E. E. Fenimore and T. M. Cannon, Appl. Opt. 17, 337 (1978).

    Examples
    --------
    >>> mask = ura((5, 3), 1e-6, 1e-6, 1.0, order=3).double()
    >>> torch.fft.ifft2(torch.fft.fft2(mask).abs() ** 2).real.round().unique().tolist()
    [4.0, 8.0]
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m)
    return drawn(ura_cells(order), size, (feature / pixel,) * 2) * thickness


def hadamard(
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
    *,
    order: int = 3,
) -> Tensor:
    """A cyclic Hadamard array of ``(2ⁿ − 1) × (2ⁿ + 1)`` cells with n = ``order``: a maximal sequence, folded.

    Its shifts by whole cells are the rows of a Hadamard matrix, with −1 as no material; its autocorrelation is as flat
    as that of `ura`. It repeats itself over the frame.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map. It is periodic if it holds whole arrays.
    pixel_size_m
        Of the map.
    feature_size_m
        Edge of a cell, a pixel or more.
    thickness_m
        Height of the material.
    order
        2 to 8: 3 × 5, 7 × 9, 15 × 17, 31 × 33, 63 × 65, 127 × 129, 255 × 257 cells.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres.

    Notes
    -----
    F. J. MacWilliams and N. J. A. Sloane, Proc. IEEE 64, 1715 (1976).

    Examples
    --------
    >>> mask = hadamard((7, 9), 1e-6, 1e-6, 1.0, order=3).double()
    >>> torch.fft.ifft2(torch.fft.fft2(mask).abs() ** 2).real.round().unique().tolist()
    [16.0, 32.0]
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m)
    return drawn(hadamard_cells(order), size, (feature / pixel,) * 2) * thickness


def spiral(
    shape: Sequence[int],
    pixel_size_m: float,
    feature_size_m: float,
    thickness_m: float,
    *,
    kind: str = "holes",
    fill: float = 0.4,
) -> Tensor:
    """Round features along a spiral about the middle: as even as a grid, without its period and directions.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the map.
    pixel_size_m
        Of the map.
    feature_size_m
        Diameter of a dot or hole, or width of the line; two pixels or more.
    thickness_m
        Height of the material.
    kind
        ``"dots"`` and ``"holes"``: discs of material, or without it, on Fermat's spiral, turned by the golden angle
        from each to the next. ``"line"``: one line of material on Archimedes' spiral.
    fill
        Share of the area that dots, holes or the line take; up to 0.6 for dots and holes, which would overlap.

    Returns
    -------
    Tensor
        ``(rows, columns)``, float32, in metres. It is not periodic: make it larger than the frame, and cut frames out
        of it with `ddf_tomo.acquisition.shifted`.

    Examples
    --------
    >>> mask = spiral((128, 128), 1e-6, 8e-6, 1.0, kind="dots")
    >>> round(float(mask.mean()), 1)
    0.4
    """
    size, pixel, feature, thickness = _checked(shape, pixel_size_m, feature_size_m, thickness_m, least=2)
    form = choice(kind, "kind", SPIRALS)
    share = number(fill, "fill", low=0.01, high=0.99 if form == "line" else DENSEST_SPIRAL)
    width = feature / pixel
    covered = spiral_line(size, width, width / share) if form == "line" else spiral_discs(size, width, share)
    return (1 - covered if form == "holes" else covered) * thickness


def _runs(kind: Any) -> tuple[int, ...]:
    """Axes along which a grid has periods."""
    return {"lines_j": (1,), "lines_k": (0,)}.get(choice(kind, "kind", GRIDS), (0, 1))


def _checked(
    shape: Any,
    pixel_size_m: Any,
    feature_m: Any,
    thickness_m: Any,
    *,
    name: str = "feature_size_m",
    least: float = 1,
    along: Sequence[int] = (0, 1),
) -> tuple[tuple[int, int], float, float, float]:
    size = frame_shape(shape)
    pixel = number(pixel_size_m, "pixel_size_m", low=1e-10, high=1)
    feature = length(feature_m, name)
    if feature < least * pixel * (1 - 1e-9):
        raise ValueError(message(name, f"at least {least:g} pixels, {least * pixel:g} m", feature_m))
    if feature > pixel * min(size[axis] for axis in along) * (1 + 1e-9):
        raise ValueError(message(name, f"at most the frame's {pixel * min(size):g} m", feature_m))
    return size, pixel, feature, length(thickness_m, "thickness_m")
