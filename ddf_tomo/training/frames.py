"""Random frames through a mask with known maps: what retrieval networks learn from.

Families of maps are disjoint between training, validation and tests. Frames are made by rays that start at every pixel
and carry their light to where it arrives (`ddf_tomo.operators.DirectionalBlur`, conservative): flux is conserved by
construction. The truth in a pixel is that of the light which arrives there: its amount, its mean displacement, and the
covariance around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, choice, flag, integer, number, size_tuple
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.operators.directional_blur import DirectionalBlur
from ddf_tomo.training._frame_maps import FAMILIES, Maps
from ddf_tomo.training._wave_frames import admissible, wave_optics

__all__ = ["FRAME_FAMILIES", "FRAME_SPLITS", "Crop", "random_crop"]
Array = NDArray[np.float64]
MARGIN = 16  # pixels around a crop from which light comes
LEAST_LIGHT = 0.05  # share of the beam; where less arrives nothing can be said
FRAME_FAMILIES = tuple(FAMILIES)
FRAME_SPLITS = {
    "train": ("waves", "fibres", "grains", "layers", "inclusions"),
    "validation": ("rods",),
    "test": ("swirls", "cracks"),
}
"""Families by what they may be used for; none is in two."""


class Crop(NamedTuple):
    """Frames in counts and the truth in them; made by `random_crop`.

    Attributes
    ----------
    sample, reference
        ``(step, row, column)``, float32.
    truth
        ``(6, row, column)``: u_j, u_k, C_jj, C_jk, C_kk, ln T.
    counts
        Mean of the reference.
    """

    sample: Tensor
    reference: Tensor
    truth: Tensor
    counts: float


def random_crop(
    family: str,
    shape: Sequence[int],
    *,
    steps: int = 1,
    counts: float = 2000.0,
    seed: int = 0,
    mask: str = "any",
    waves: bool = False,
) -> Crop:
    """Frames of a random sample of a family behind a random mask, with counting noise in both.

    Parameters
    ----------
    family
        One of `FRAME_FAMILIES`.
    shape
        Rows and columns.
    steps
        Mask positions.
    counts
        Quanta a pixel of the reference, on average.
    seed
        Of maps, mask and noise.
    mask
        ``"speckle"``, ``"binary"``, ``"grid"``, or ``"any"``: one of them, drawn.
    waves
        Make the frames of a speckle mask by wave optics; blurs are then weaker, at most half a square pixel.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of the kind above.

    Examples
    --------
    >>> crop = random_crop("waves", (32, 48), steps=2, seed=1)
    >>> crop.sample.shape, crop.truth.shape
    (torch.Size([2, 32, 48]), torch.Size([6, 32, 48]))
    """
    draw_maps = FAMILIES[choice(family, "family", FRAME_FAMILIES)]
    rows, columns = size_tuple(shape, "shape", 2)
    number_of_steps = integer(steps, "steps", low=1, high=1000)
    level = number(counts, "counts", low=1.0, high=1e9)
    draw = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    kinds = tuple(MASKS)
    kind = str(draw.choice(kinds, p=(0.8, 0.15, 0.05))) if choice(mask, "mask", (*kinds, "any")) == "any" else mask
    size = rows + 2 * MARGIN, columns + 2 * MARGIN
    maps = draw_maps(size, draw)
    if flag(waves, "waves"):
        maps = admissible(maps)
        sample, reference = wave_optics(maps, number_of_steps, draw)
        _, truth = arriving(reference, maps)
    else:
        reference = MASKS[kind](number_of_steps, size, draw)
        sample, truth = arriving(reference, maps)
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    noisy = [draw.poisson(level * np.clip(each[inner], 0, None)).astype(np.float32) for each in (sample, reference)]
    # A reference without a single quantum in a pixel is no reference.
    beam = np.maximum(noisy[1], 1 / number_of_steps)
    return Crop(torch.from_numpy(noisy[0]), torch.from_numpy(beam), torch.from_numpy(truth[inner]).float(), level)


def arriving(reference: Array, maps: Maps) -> tuple[Array, Array]:
    """Expected frames ``(step, row, column)``, and the truth ``(6, row, column)`` of the light that arrives."""
    rows, columns = maps.transmission.shape
    scatter = DirectionalBlur(torch.from_numpy(maps.covariance), torch.from_numpy(maps.displacement), conservative=True)
    j, k = np.arange(rows)[:, None] - rows / 2, np.arange(columns)[None] - columns / 2
    powers = np.stack(np.broadcast_arrays(1.0 + 0 * j, j, k + 0 * j, j * j, j * k, k * k))
    light = torch.from_numpy(np.concatenate([reference, powers]) * maps.transmission)
    found = scatter(light).numpy()
    frames, moments = found[: len(reference)], found[len(reference) :]
    total = np.maximum(moments[0], LEAST_LIGHT)
    mean_j, mean_k, jj, jk, kk = moments[1:] / total
    displacement = j - mean_j, k - mean_k
    covariance = jj - mean_j**2, jk - mean_j * mean_k, kk - mean_k**2
    return frames, np.stack([*displacement, *covariance, np.log(total)])


def _speckle(steps: int, size: tuple[int, int], draw: np.random.Generator) -> Array:
    """Sandpaper's or a membrane's image: grains of 2.7 to 8 pixels."""
    grain, visibility = draw.uniform(0.8, 2.4), draw.uniform(0.1, 0.5)
    seed = int(draw.integers(2**31))
    return speckle(steps, size, grain=grain, visibility=visibility, seed=seed).astype(float)


def _binary(steps: int, size: tuple[int, int], draw: np.random.Generator) -> Array:
    """Holes of random shape in a foil, seen through the detector's own blur."""
    grain, contrast, blur = draw.uniform(1.0, 2.0), draw.uniform(0.15, 0.5), draw.uniform(0.7, 1.2)
    holes = speckle(steps, size, grain=grain, visibility=0.3, seed=int(draw.integers(2**31))) > draw.uniform(0.8, 1.1)
    f_j, f_k = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    seen = np.fft.irfft2(np.fft.rfft2(holes) * np.exp(-2 * np.pi**2 * blur**2 * (f_j**2 + f_k**2)), size)
    return _of_mean_one(seen, contrast)


def _grid(steps: int, size: tuple[int, int], draw: np.random.Generator) -> Array:
    """Crossed lines at any angle with sharp crossings (two plain waves cannot tell all of C), moved step by step."""
    period, angle, contrast = draw.uniform(5, 9), draw.uniform(0, np.pi), draw.uniform(0.15, 0.5)
    j, k = np.arange(size[0])[:, None], np.arange(size[1])[None]
    phases = draw.uniform(0, 2 * np.pi, (2, steps, 1, 1))
    along, across = np.cos(angle) * j + np.sin(angle) * k, np.cos(angle) * k - np.sin(angle) * j
    lines = [np.cos(2 * np.pi * x / period + p) for x, p in zip((along, across), phases, strict=True)]
    return _of_mean_one(np.maximum(*lines), contrast)


def _of_mean_one(images: Array, contrast: float) -> Array:
    centred = images - images.mean((1, 2), keepdims=True)
    scaled: Array = np.clip(1 + contrast * centred / max(centred.std(), 1e-12), 0.02, None)
    return scaled


MASKS = {"speckle": _speckle, "binary": _binary, "grid": _grid}
