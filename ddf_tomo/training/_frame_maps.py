"""Families of maps that a sample may have: transmission, displacement, blur, at the places where rays start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Size = tuple[int, int]
Draw = np.random.Generator
WIDEST, NARROWEST = 2.0, 0.02  # standard deviations of the blur, pixels
LARGEST_SHIFT, STEEPEST = 2.0, 0.25  # pixels; change of a displacement a pixel


class Maps(NamedTuple):
    """Transmission (row, column), displacement (row, column, 2) in pixels, covariance (row, column, 3)."""

    transmission: Array
    displacement: Array
    covariance: Array


def smooth_field(size: tuple[int, int], draw: np.random.Generator, wavelength: float) -> Array:
    """A random field with waves no shorter than this, between 0 and 1."""
    whole = [length + int(wavelength) for length in size]  # periodic, so larger than what is taken
    f = np.hypot(np.fft.fftfreq(whole[0])[:, None], np.fft.rfftfreq(whole[1])[None])
    strength = np.where((f > 0) & (f <= max(1 / wavelength, 1.01 / min(whole))), 1 / np.maximum(f, 1e-9), 0)
    waves = strength * np.exp(2j * np.pi * draw.random(f.shape)) * draw.rayleigh(size=f.shape)
    field = np.fft.irfft2(waves, whole)[: size[0], : size[1]]
    return (field - field.min()) / max(np.ptp(field), 1e-12)


def log_uniform(draw: Draw, low: float, high: float) -> float:
    """A random number whose logarithm is evenly spread."""
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def blur(along: Any, across: Any, angle: Any) -> Array:
    """Covariance (jj, jk, kk) of widths ``along`` an angle (from j towards k) and ``across`` it."""
    along, across = (np.clip(each, NARROWEST, WIDEST) for each in (along, across))
    mean, half = (along**2 + across**2) / 2, (along**2 - across**2) / 2
    return np.stack(
        np.broadcast_arrays(mean + half * np.cos(2 * angle), half * np.sin(2 * angle), mean - half * np.cos(2 * angle)),
        -1,
    )


def bent(potential: Array, draw: Draw) -> Array:
    """Displacement that is the gradient of a potential, of random size and no steeper than rays may cross."""
    u = np.stack([*np.gradient(potential)], -1)
    size, steepness = np.abs(u).max(), max(np.abs(each).max() for each in np.gradient(u, axis=(0, 1)))
    largest = min(LARGEST_SHIFT / max(size, 1e-12), STEEPEST / max(steepness, 1e-12))
    scaled: Array = u * largest * draw.random()
    return scaled


def lengths(size: Size, draw: Draw) -> float:
    """Wavelength of smooth fields, from grains of a mask to the frame."""
    return log_uniform(draw, 30, 3 * max(size))


def smooth_maps(size: Size, draw: Draw) -> Maps:
    """All that belongs to a sample without edges; families put theirs on it."""
    wavelength = lengths(size, draw)
    own = [wavelength * log_uniform(draw, 0.7, 1.4) for _ in range(5)]
    low, high = np.sort(draw.uniform(0.0, WIDEST, 2))
    along = low + (high - low) * smooth_field(size, draw, own[0])
    aspect = 1 + draw.uniform(0, 3) * (smooth_field(size, draw, own[1]) if draw.random() < 0.5 else draw.random())
    turns = draw.uniform(0, 2 * np.pi) + draw.uniform(0, 2 * np.pi) * smooth_field(size, draw, own[2])
    darkest = draw.uniform(0.3, 1)
    transmission = darkest + (1 - darkest) * smooth_field(size, draw, own[3])
    return Maps(transmission, bent(smooth_field(size, draw, own[4]), draw), blur(along, along / aspect, turns))


def waves(size: Size, draw: Draw) -> Maps:
    """Smooth everywhere."""
    return smooth_maps(size, draw)


def mixed(first: Array, second: Array, share: Array) -> Array:
    """Two maps, the second by its share in each pixel."""
    share = share if first.ndim == 2 else share[..., None]
    result: Array = first + (second - first) * share
    return result


def softly(distance: Array, width: float) -> Array:
    """A step from 0 to 1 at distance zero."""
    result: Array = 0.5 * (1 + np.tanh(distance / width))
    return result


def places(size: Size, draw: Draw) -> tuple[Array, Array]:
    """Coordinates of the pixels around a random place in the frame."""
    j, k = np.meshgrid(np.arange(size[0]) - draw.uniform(0, size[0]), np.arange(size[1]) - draw.uniform(0, size[1]),
                       indexing="ij")  # fmt: skip
    return j, k


def fibres(size: Size, draw: Draw) -> Maps:
    """Bundles that blur across themselves, with air or matrix between."""
    maps = smooth_maps(size, draw)
    j, k = places(size, draw)
    angle = draw.uniform(0, np.pi) + draw.uniform(0, 1) * (smooth_field(size, draw, max(size)) - 0.5)
    across = np.cos(angle) * j + np.sin(angle) * k
    period, edge = log_uniform(draw, 12, 80), draw.uniform(0.5, 4)
    share = softly((np.sin(2 * np.pi * across / period) - draw.uniform(-0.5, 0.5)) * period / 6, edge)
    wide = draw.uniform(0.4, WIDEST)
    bundle = blur(wide, wide / draw.uniform(1.5, 4), angle + 0.2 * (smooth_field(size, draw, 40) - 0.5))
    return maps._replace(
        covariance=mixed(draw.random() * maps.covariance, bundle, share),
        transmission=maps.transmission * (1 - draw.uniform(0, 0.3) * share),
    )


def grains(size: Size, draw: Draw) -> Maps:
    """Cells of one blur and one thickness each."""
    maps = smooth_maps(size, draw)
    count = round(log_uniform(draw, 3, 30))
    seeds = draw.uniform(0, 1, (count, 2)) * size
    j, k = np.meshgrid(*(np.arange(length) for length in size), indexing="ij")
    cell = np.argmin((j[..., None] - seeds[:, 0]) ** 2 + (k[..., None] - seeds[:, 1]) ** 2, -1)
    wide = draw.uniform(0, WIDEST, count)
    own = blur(wide, wide / draw.uniform(1, 4, count), draw.uniform(0, np.pi, count))[cell]
    own, thin = _softened(own), _softened(draw.uniform(0.8, 1, count)[cell][..., None])[..., 0]
    return maps._replace(covariance=own, transmission=maps.transmission * thin)


def layers(size: Size, draw: Draw) -> Maps:
    """Half planes and bands with other blur, displacement and thickness on either side."""
    maps = smooth_maps(size, draw)
    for _ in range(int(draw.integers(1, 4))):
        other = smooth_maps(size, draw)
        j, k = places(size, draw)
        angle = draw.uniform(0, np.pi)
        share = softly(np.cos(angle) * j + np.sin(angle) * k, log_uniform(draw, 0.5, 8))
        soft = softly(np.cos(angle) * j + np.sin(angle) * k, 12)
        maps = Maps(
            mixed(maps.transmission, other.transmission, share),
            mixed(maps.displacement, other.displacement, soft),
            mixed(maps.covariance, other.covariance, share),
        )
    return maps


def inclusions(size: Size, draw: Draw) -> Maps:
    """Ellipsoids in projection: thickness gives transmission, displacement and blur."""
    maps = smooth_maps(size, draw)
    thickness, blurred = np.zeros(size), np.zeros((*size, 3))
    for _ in range(int(draw.integers(1, 8))):
        j, k = places(size, draw)
        angle, long = draw.uniform(0, np.pi), log_uniform(draw, 8, 60)
        short = long / draw.uniform(1, 4)
        p, q = np.cos(angle) * j + np.sin(angle) * k, np.cos(angle) * k - np.sin(angle) * j
        depth = np.sqrt(np.clip(1 - (p / long) ** 2 - (q / short) ** 2, 0, None))
        thickness += short * depth
        wide = draw.uniform(0, WIDEST)
        blurred += depth[..., None] * blur(wide, wide / draw.uniform(1, 4), draw.uniform(0, np.pi))
    soft = np.fft.irfft2(np.fft.rfft2(thickness) * _low_pass(size, 4.0), size)
    return Maps(
        maps.transmission * np.exp(-draw.uniform(0, 0.5) * thickness / max(thickness.max(), 1e-12)),
        bent(soft, draw),
        _bounded(blurred + draw.random() * maps.covariance),
    )


def rods(size: Size, draw: Draw) -> Maps:
    """Cylinders that cross: blur across their axes adds up."""
    maps = smooth_maps(size, draw)
    thickness, blurred = np.zeros(size), np.zeros((*size, 3))
    for _ in range(int(draw.integers(2, 6))):
        j, k = places(size, draw)
        angle, radius = draw.uniform(0, np.pi), log_uniform(draw, 6, 50)
        depth = np.sqrt(np.clip(1 - ((np.cos(angle) * j + np.sin(angle) * k) / radius) ** 2, 0, None))
        thickness += radius * depth
        wide = draw.uniform(0.3, 1.4)
        blurred += depth[..., None] * blur(wide, wide / draw.uniform(1.5, 4), angle)
    soft = np.fft.irfft2(np.fft.rfft2(thickness) * _low_pass(size, 3.0), size)
    fall = np.exp(-draw.uniform(0, 0.6) * thickness / max(thickness.max(), 1e-12))
    return Maps(maps.transmission * fall, bent(soft, draw), _bounded(blurred))


def swirls(size: Size, draw: Draw) -> Maps:
    """Fibres around a centre, in rings of changing density."""
    maps = smooth_maps(size, draw)
    j, k = places(size, draw)
    radius, turn = np.hypot(j, k), np.arctan2(k, j)
    density = 0.5 + 0.5 * np.cos(2 * np.pi * radius / log_uniform(draw, 25, 150))
    wide = draw.uniform(0.3, 0.8) + draw.uniform(0.3, 1.2) * density
    spiral = turn + draw.uniform(-0.5, 0.5)
    near = softly(radius - 10, 4)  # a direction has no value in the middle
    whirl = mixed(blur(wide, wide, 0 * turn), blur(wide, wide / draw.uniform(1.5, 4), spiral), near)
    return maps._replace(covariance=whirl, transmission=maps.transmission * (1 - 0.3 * density))


def cracks(size: Size, draw: Draw) -> Maps:
    """A weak, smooth sample with thin lines that blur across themselves."""
    maps = smooth_maps(size, draw)
    share, covariance = np.zeros(size), 0.3 * maps.covariance
    for _ in range(int(draw.integers(2, 6))):
        j, k = places(size, draw)
        angle = draw.uniform(0, np.pi) + 1.0 * (smooth_field(size, draw, 80) - 0.5)
        line = np.exp(-0.5 * ((np.cos(angle) * j + np.sin(angle) * k) / draw.uniform(2, 6)) ** 2)
        wide = draw.uniform(0.5, WIDEST)
        covariance = mixed(covariance, blur(wide, wide / draw.uniform(1.5, 4), angle), line)
        share = np.maximum(share, line)
    return maps._replace(covariance=covariance, transmission=maps.transmission * (1 - 0.2 * share))


FAMILIES: dict[str, Callable[[Size, Draw], Maps]] = {
    "waves": waves,
    "fibres": fibres,
    "grains": grains,
    "layers": layers,
    "inclusions": inclusions,
    "rods": rods,
    "swirls": swirls,
    "cracks": cracks,
}


def _low_pass(size: Size, sigma: float) -> Array:
    f_j, f_k = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    result: Array = np.exp(-2 * np.pi**2 * sigma**2 * (f_j**2 + f_k**2))
    return result


def _softened(images: Array) -> Array:
    """Edges no sharper than a pixel, as rays from neighbouring pixels have them."""
    for axis in (0, 1):
        images = (np.roll(images, 1, axis) + 2 * images + np.roll(images, -1, axis)) / 4
    return images


def _bounded(covariance: Array) -> Array:
    """Blurs no wider than the widest; axes and ratios stay."""
    trace = covariance[..., 0] + covariance[..., 2]
    scaled: Array = covariance * np.minimum(1, WIDEST**2 / np.maximum(trace, 1e-12))[..., None]
    return scaled + np.array([NARROWEST**2, 0, NARROWEST**2])
