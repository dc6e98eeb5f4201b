"""The blur of an instrument from a slanted edge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddf_tomo._checks import message
from ddf_tomo.retrieval.deblurring import CURVE, image_of

__all__ = ["EdgeResponse", "edge_response"]

SMALLEST = 16  # rows and columns
FLATTEST, STEEPEST = math.radians(1), math.radians(42)
LOOKS = 3  # at where the edge is, each closer to the line of the one before
BIN, FEWEST_BINS = 0.25, 32  # pixels across an edge, and how many of them say something
FADED = 0.25  # share of the line spread at either end that fades out
FITTED = 0.2  # lowest modulation that a width is fitted to


@dataclass(frozen=True, eq=False)
class EdgeResponse:
    """Blur measured at an edge; made by `edge_response`.

    Attributes
    ----------
    frequency, mtf : shape (point,)
        Cycles a pixel across the edge, from 0 to 0.5, and the modulation transfer there.
    sigma_px
        Standard deviation of the Gaussian that is nearest to it.
    angle_rad
        Of the edge against the nearest axis of the image.

    Examples
    --------
    >>> j, k = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    >>> edge = torch.special.ndtr((0.995 * (k - 24) + 0.1 * (j - 24)).double() / 1.5)
    >>> f"{edge_response(edge).sigma_px:.2f}"
    '1.50'
    """

    frequency: Tensor
    mtf: Tensor
    sigma_px: float
    angle_rad: float


def edge_response(image: ArrayLike | Tensor) -> EdgeResponse:
    """Modulation transfer across the one straight, slightly slanted edge of an image.

    The derivative across the edge is put together from all lines, each moved by where the edge is in it, in quarters of
    a pixel (slanted-edge method, Reichenbach et al. 1991, Opt. Eng. 30, 170; ISO 12233).

    Parameters
    ----------
    image : (row, column)
        A part of a transmission image or radiograph, with one edge through all rows, or through all columns, at 2° to
        40° against them.

    Returns
    -------
    EdgeResponse

    Raises
    ------
    ValueError, TypeError
        If the image is small, or has no such edge.

    Examples
    --------
    >>> j, k = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    >>> response = edge_response(torch.sigmoid(2 * (j - 20 + 0.15 * (k - 20))))
    >>> f"{response.mtf[0]:.1f}, {abs(response.angle_rad):.2f}"
    '1.0, 0.15'
    """
    pixels = image_of(image, "image")
    if min(pixels.shape) < SMALLEST or not bool(torch.isfinite(pixels).all()):
        raise ValueError(
            message("image", f"at least {SMALLEST} rows and columns of finite numbers", tuple(pixels.shape))
        )
    slopes = [(pixels[1:] - pixels[:-1]).mean(1).abs().sum(), (pixels[:, 1:] - pixels[:, :-1]).mean(0).abs().sum()]
    if float(slopes[0]) > float(slopes[1]):
        pixels = pixels.T
    distance, angle = _distances(pixels)
    line, place, variance = _line_spread(pixels, distance)
    frequency = torch.linspace(0, 0.5, CURVE, dtype=torch.float64)
    turned = torch.exp(-2j * math.pi * frequency[:, None] * place) @ line.to(torch.complex128)
    mtf = turned.abs() / turned[0].abs().clamp(min=1e-300) * torch.exp(2 * math.pi**2 * variance * frequency**2)
    return EdgeResponse(frequency, mtf, _gaussian_width(frequency, mtf), angle)


def _distances(pixels: Tensor) -> tuple[Tensor, float]:
    """How far every pixel is from the edge that crosses all lines ``(line, place)``, and the angle of that."""
    lines, length = pixels.shape
    step = pixels[:, 1:] - pixels[:, :-1]
    step = step * step.sum().sign()
    place = torch.arange(length - 1, dtype=torch.float64) + 0.5
    near = torch.ones_like(step)
    row = torch.arange(lines, dtype=torch.float64)
    design = torch.stack([torch.ones_like(row), row - (lines - 1) / 2], 1)
    for _ in range(LOOKS):
        share = (step * near).clamp(min=0)
        total = share.sum(1)
        if not bool((total > 0).all()):
            raise ValueError(message("image", "an edge in every line", "lines without one"))
        centre = (share * place).sum(1) / total
        fit = torch.linalg.lstsq(design, centre[:, None]).solution[:, 0]
        away = place - (design @ fit)[:, None]
        near = (away.abs() < length / 6).to(step)
    angle = math.atan(float(fit[1]))
    if not FLATTEST < abs(angle) < STEEPEST:
        raise ValueError(message("image", "an edge at 2° to 40° against an axis", f"one at {math.degrees(angle):.1f}°"))
    return (torch.arange(length, dtype=torch.float64) - (design @ fit)[:, None]) * math.cos(angle), angle


def _line_spread(pixels: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, float]:
    """Derivative across the edge, where, and the square of the width of what it is averaged over."""
    reach = min(float(distance[:, -1].min()), float(-distance[:, 0].max()))
    bins = 2 * math.floor(reach / BIN) - 1
    if bins < FEWEST_BINS:
        raise ValueError(message("image", "an edge with pixels on both sides of it", f"{reach:.1f} pixels"))
    index = (distance / BIN + bins / 2).floor().long()
    inside = (index >= 0) & (index < bins)
    parts = [torch.ones_like(distance), pixels, distance, distance**2]
    count, *sums = (torch.zeros(bins, dtype=torch.float64).index_add_(0, index[inside], x[inside]) for x in parts)
    spread, where, square = (each / count.clamp(min=1) for each in sums)
    if not bool((count > 0).all()):
        raise ValueError(message("image", "an edge that crosses columns", "one along them", "Slant it a little"))
    line = spread[1:] - spread[:-1]
    ends = torch.linspace(-1, 1, len(line), dtype=torch.float64).abs()
    line = line * torch.cos(math.pi / 2 * ((ends - 1 + FADED) / FADED).clamp(0, 1)) ** 2
    # What bins average over, and the boxes that differences are.
    share = line.abs() / line.abs().sum().clamp(min=1e-300)
    within = (square - where**2).clamp(min=0)
    boxes = (share * (where[1:] - where[:-1]) ** 2).sum() / 12
    return line, (where[1:] + where[:-1]) / 2, float((share * (within[1:] + within[:-1]) / 2).sum() + boxes)


def _gaussian_width(frequency: Tensor, mtf: Tensor) -> float:
    """Standard deviation of the Gaussian nearest to a transfer, as far as that is not small."""
    used = (torch.cumprod((mtf > FITTED).to(torch.int64), 0) > 0) & (frequency > 0)
    if not bool(used.any()):
        return 0.0
    square, fall = 2 * math.pi**2 * frequency[used] ** 2, -mtf[used].clamp(min=1e-6).log()
    return math.sqrt(max(float((square * fall).sum() / square.square().sum()), 0.0))
