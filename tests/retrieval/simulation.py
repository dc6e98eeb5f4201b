"""Frames whose transmission, displacement and blur are known exactly: all of it done in the Fourier domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frames(
    steps: int,
    shape: tuple[int, int],
    *,
    transmission: float = 1.0,
    displacement: tuple[float, float] = (0.0, 0.0),
    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0),
    background: float = 0.0,
    counts: float | None = None,
    grain: float = 2.0,
    contrast: float = 0.26,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(sample, reference) of a periodic random pattern with standard deviation ``contrast``, Poisson noise if asked."""
    generator = np.random.default_rng(seed)
    f_j, f_k = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    pattern = np.fft.fft2(generator.standard_normal((steps, *shape)))
    pattern *= np.exp(-2 * np.pi**2 * grain**2 * (f_j**2 + f_k**2))
    pattern *= contrast / np.fft.ifft2(pattern).real.std()
    (u_j, u_k), (c_jj, c_jk, c_kk) = displacement, covariance
    transfer = np.exp(-2j * np.pi * (f_j * u_j + f_k * u_k))
    transfer = transfer * np.exp(-2 * np.pi**2 * (c_jj * f_j**2 + 2 * c_jk * f_j * f_k + c_kk * f_k**2))
    reference = 1 + np.fft.ifft2(pattern).real
    sample = transmission * (1 + np.fft.ifft2(pattern * transfer).real + background)
    if counts is not None:
        sample, reference = (
            generator.poisson(counts * np.maximum(each, 0)).astype(float) for each in (sample, reference)
        )
    return sample, reference
