"""Frames of given maps by wave optics: no displacement, no blur, nobody's retrieval model.

25 keV, 2 m, pixels of 10 µm of 8 × 8 wave pixels, a random screen of unresolved grains 5 µm wide; the mask touches the
sample. The screens' own interference is in the frames too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ddf_tomo.acquisition.media import scattering_screen
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.acquisition.waves import wave_frames
from ddf_tomo.operators.propagation import FresnelPropagator
from ddf_tomo.retrieval.phases import integrate_gradient
from ddf_tomo.training._frame_maps import Maps

Array = NDArray[np.float64]
WAVELENGTH_M, DISTANCE_M, PIXEL_M, GRAIN_M = 5e-11, 2.0, 1e-5, 5e-6
BINNING = 8
BLUR = 0.5  # largest trace of C in square pixels: of more, the phase turns too far from wave pixel to wave pixel
ANISOTROPY = 0.84  # of a screen, at most: difference over sum of the eigenvalues


def admissible(maps: Maps) -> Maps:
    """The maps with blurs that a screen can make, and a displacement that a phase can."""
    jj, jk, kk = np.moveaxis(maps.covariance, -1, 0)
    half, mean = (jj - kk) / 2, (jj + kk) / 2
    shrink = np.minimum(1, ANISOTROPY * mean / np.maximum(np.hypot(half, jk), 1e-12))
    covariance = np.stack([mean + shrink * half, shrink * jk, mean - shrink * half], -1)
    covariance *= min(1.0, BLUR / max((2 * mean).max(), 1e-12))
    phase = np.asarray(integrate_gradient(maps.displacement))
    return Maps(maps.transmission, np.stack(np.gradient(phase), -1), covariance)


def wave_optics(maps: Maps, steps: int, draw: np.random.Generator) -> tuple[Array, Array]:
    """Expected sample and reference ``(step, row, column)`` of `admissible` maps behind a random mask."""
    size = maps.transmission.shape
    fine = size[0] * BINNING, size[1] * BINNING
    grain, visibility = draw.uniform(1.2, 2.2) * BINNING, draw.uniform(0.2, 0.4)
    seed = int(draw.integers(2**31))
    mask = torch.from_numpy(speckle(steps, fine, grain=grain, visibility=visibility, seed=seed)).sqrt()
    propagator = FresnelPropagator(fine, PIXEL_M / BINNING, DISTANCE_M, WAVELENGTH_M, boundary="periodic")
    theta = _finer(maps.covariance * (PIXEL_M / DISTANCE_M) ** 2)
    phase = scattering_screen(theta, PIXEL_M / BINNING, WAVELENGTH_M, GRAIN_M, seed=seed + 1)
    bent = np.asarray(integrate_gradient(maps.displacement)) * (2 * math.pi / WAVELENGTH_M * PIXEL_M**2 / DISTANCE_M)
    phase = phase + _finer(bent[..., None])[..., 0]
    amplitude = _finer(maps.transmission[..., None])[..., 0].clamp(min=0).sqrt()
    wave = torch.polar(amplitude, phase).to(torch.complex64)
    frames: list[Any] = [
        wave_frames(mask.to(torch.complex64), each, None, propagator, binning=BINNING)[0].double().numpy()
        for each in (wave, None)
    ]
    level = frames[1].mean()
    return frames[0] / level, frames[1] / level


def _finer(maps: Array) -> Tensor:
    """Maps ``(row, column, channel)`` on the wave's grid, smooth in between."""
    image = torch.from_numpy(maps).movedim(-1, 0)[None]
    fine = interpolate(image, scale_factor=BINNING, mode="bilinear")[0]
    return fine.movedim(0, -1).contiguous()
