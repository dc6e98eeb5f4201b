"""Frames from maps, 512² pixels × 20 steps in float32, their tangents and gradients; wide blurs by few kernels.

SciPy's `map_coordinates` beside it does less: it moves the same frames by cubic splines, without any blur.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.ndimage
import torch
from harness import Row, difference, in_turn, require

from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.operators import DirectionalBlur, ModulatedImaging

FRAMES, TANGENTS, OF_MAPS, OF_ALL, PEER = "frames", "tangents", "gradients of maps", "gradients of all", "SciPy, moved"


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Equality, times, ratios to the frames alone."""
    size, steps, rounds = size or (64 if quick else 512), 20, 3
    reference = torch.from_numpy(speckle(steps, (size, size)))
    maps = sample(size)
    model, learned = ModulatedImaging(reference, 1.0, 1.0), ModulatedImaging(torch.nn.Parameter(reference), 1.0, 1.0)
    followed = tuple(each.clone().requires_grad_() for each in maps)
    part = [each[:40, :40] for each in maps]
    plain = ModulatedImaging(reference[:3, :40, :40].double(), 1.0, 1.0, method="plain")(*part)
    compiled = ModulatedImaging(reference[:3, :40, :40], 1.0, 1.0)(*part)
    yield require("frames: difference from plain operations in float64", difference(compiled, plain), 1e-5)

    def moved() -> np.ndarray:
        points = np.mgrid[:size, :size] - np.moveaxis(maps[1].numpy(), -1, 0)
        return np.stack(
            [scipy.ndimage.map_coordinates(each, points, order=3, mode="mirror") for each in reference.numpy()]
        )

    times = in_turn(
        {
            FRAMES: lambda: model(*maps),
            TANGENTS: lambda: torch.func.jvp(model, maps, maps),
            OF_MAPS: lambda: model(*followed).square().sum().backward(),
            OF_ALL: lambda: learned(*followed).square().sum().backward(),
            PEER: moved,
        },
        rounds,
    )
    yield from (times.row(name) for name in (FRAMES, TANGENTS, OF_MAPS, OF_ALL, PEER))
    yield Row("frames, time of a pixel", 1e6 * times.median(FRAMES) / size**2, "µs")
    yield times.ratio_row("tangents / frames", TANGENTS, FRAMES, at_most=4.0)
    yield times.ratio_row("frames and gradients of maps / frames", OF_MAPS, FRAMES, at_most=4.0)
    yield times.ratio_row("frames and gradients of maps and reference / frames", OF_ALL, FRAMES, at_most=8.0)
    yield times.ratio_row("SciPy, moved only / frames", PEER, FRAMES)

    width, half = 6.0, size // 2
    wide = width**2 * maps[2][:half, :half]
    direct, few = DirectionalBlur(wide), DirectionalBlur(wide, method="low-rank", tolerance=1e-3)
    image = reference[0, :half, :half]
    yield Row("few kernels: error said beforehand", float(few.low_rank.error.max()), at_most=1.5e-3)
    inner = slice(half // 4, -half // 4)
    error = (few(image) - direct(image))[inner, inner].std() / image.std()
    yield require("few kernels: difference from direct sums over the contrast", float(error), 2e-3)
    blurs = in_turn({"direct": lambda: direct(image), "few": lambda: few(image)}, rounds)
    yield blurs.ratio_row(f"blurs of about {width:.0f} pixels: direct / few kernels", "direct", "few")


def sample(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """T, u to 1.5 pixels and C with widths of 0.4 to 1.4 pixels, smooth."""
    noise = np.random.default_rng(1).standard_normal((6, size, size))
    fields = scipy.ndimage.gaussian_filter(noise, (0, size / 16, size / 16), mode="wrap")
    a, b, c, d, e, f = fields / np.abs(fields).max((1, 2), keepdims=True)
    jj, kk = 1.05 + 0.9 * c, 0.6 + 0.4 * d
    maps = 0.8 + 0.1 * f, 1.5 * np.stack([a, b], -1), np.stack([jj, 0.6 * e * np.sqrt(jj * kk), kk], -1)
    transmission, displacement, covariance = (torch.from_numpy(each.astype(np.float32)) for each in maps)
    return transmission, displacement, covariance
