"""Frames of a scan by wave optics: no displacement, no blur, nobody's retrieval model; for `chain`.

In each view the sample is a phase: the refraction of its δ, and a random screen of unresolved grains whose slopes have
the covariance Θ(x) of the view's maps; and an absorption. The mask lets the share of a random speckle through and
touches the sample. The wave goes to the detector in one step and its intensity is averaged over pixels.

25 keV, 2 m, 10 µm pixels of 8 × 8 wave pixels, grains 5 µm wide and 20 µm long. λ d f at the speckle's frequencies is
up to a third of a grain's width: as far as the second-moment law goes. The screens' own interference is in the frames
too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from ddf_tomo import Geometry, XRayTransform
from ddf_tomo.acquisition import Detector
from ddf_tomo.acquisition.frames import view_maps
from ddf_tomo.acquisition.media import scattering_screen
from ddf_tomo.acquisition.specimen import Specimen
from ddf_tomo.acquisition.speckle import GRAIN, speckle
from ddf_tomo.acquisition.waves import wave_frames
from ddf_tomo.operators.propagation import FresnelPropagator

WAVELENGTH_M, DISTANCE_M, GRAIN_M = 5e-11, 2.0, 5e-6
BINNING = 8
BLUR = 0.5  # largest entry of C in square pixels: of more, the phase turns too far from wave pixel to wave pixel
ANISOTROPY = 0.84  # of a screen, at most: difference over sum of the eigenvalues


def wave_scan(
    specimen: Specimen, geometry: Geometry, pixel_size_m: float, steps: int, counts: float, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Counts with the sample, ``(view, step, row, column)``, and without, ``(step, row, column)``.

    ``geometry`` has voxels as large as the detector's pixels.
    """
    rows, columns = geometry.detector_shape
    fine = (rows * BINNING, columns * BINNING)
    pattern = torch.from_numpy(speckle(steps, fine, grain=GRAIN * BINNING, seed=seed))
    mask = pattern.sqrt().to(torch.complex64)
    propagator = FresnelPropagator(fine, pixel_size_m / BINNING, DISTANCE_M, WAVELENGTH_M, boundary="periodic")
    camera = Detector()
    reference = camera.frames(wave_frames(mask, None, None, propagator, binning=BINNING)[0], counts, seed=seed)
    frames = np.empty((len(geometry), steps, rows, columns), np.float32)
    for view, wave in enumerate(_samples(specimen, geometry, pixel_size_m, seed)):
        expected = wave_frames(mask, wave, None, propagator, binning=BINNING)[0]
        frames[view] = camera.frames(expected, counts, seed=1000 + seed + view)
    return frames, reference.numpy().astype(np.float32)


def _samples(specimen: Specimen, geometry: Geometry, pixel_size_m: float, seed: int) -> Iterator[Tensor]:
    """Complex transmission of the sample in each view, on the wave's grid."""
    delta = specimen.values(geometry.volume_shape)[1]
    thickness = 0 if delta is None else XRayTransform(geometry)(delta[..., None] * np.float32(1e6)) * pixel_size_m
    k = 2 * math.pi / WAVELENGTH_M
    for view, maps in enumerate(view_maps(specimen, geometry, pixel_size_m)):
        screen = scattering_screen(
            _admissible(_finer(torch.from_numpy(maps.scattering).double())),
            pixel_size_m / BINNING,
            WAVELENGTH_M,
            GRAIN_M,
            seed=seed + view,
        )
        phase = screen - (0 if delta is None else k * 1e-6 * _finer(torch.from_numpy(thickness[view]).double())[..., 0])
        amplitude = _finer(torch.from_numpy(maps.transmission).double()[..., None])[..., 0].clamp(min=0).sqrt()
        yield torch.polar(amplitude, phase).to(torch.complex64)


def _finer(maps: Tensor) -> Tensor:
    """Maps ``(row, column, channel)`` on the wave's grid, smooth in between."""
    image = maps.movedim(-1, 0)[None]
    return interpolate(image, scale_factor=BINNING, mode="bicubic")[0].movedim(0, -1).contiguous()


def _admissible(theta: Tensor) -> Tensor:
    """Θ where interpolation left it positive, and not more anisotropic than one screen."""
    jj, jk, kk = theta.unbind(-1)
    half, mixed, mean = (jj - kk) / 2, jk, ((jj + kk) / 2).clamp(min=1e-18)
    size = torch.hypot(half, mixed)
    share = (ANISOTROPY * mean / size.clamp(min=1e-30)).clamp(max=1)
    return torch.stack([mean + share * half, share * mixed, mean - share * half], -1)
