"""Shifts found by correlation, against shifts made in the continuum and by Fourier's theorem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_shift, gaussian_filter

from ddf_tomo.alignment import register


def blobs(shift=(0.0, 0.0), shape=(24, 30), channels=2):
    row, column = (np.arange(n, dtype=float) for n in shape)
    centres = np.random.default_rng(0).uniform(0.35, 0.65, (5, 2)) * shape
    strength = np.random.default_rng(1).uniform(0.2, 1, (5, channels))
    distance = (row[:, None, None] - centres[:, 0] - shift[0]) ** 2 + (column[:, None] - centres[:, 1] - shift[1]) ** 2
    return np.exp(-distance / 12) @ strength


SHIFTS = [(0.0, 0.0), (3.3, -1.6), (-7.25, 8.5), (0.5, 0.5)]


def test_fractions_of_a_pixel():
    model = np.stack([blobs()] * len(SHIFTS))
    data = np.stack([2.5 * blobs(shift) for shift in SHIFTS])
    np.testing.assert_allclose(register(data, model), SHIFTS, atol=0.06)


def test_white_structure_shifted_by_fourier():
    texture = gaussian_filter(np.random.default_rng(0).random((32, 32)), 1.5, mode="wrap")
    texture = texture - texture.mean()
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(texture), (2.4, -1.3))).real
    found = register(moved[None, :, :, None], texture[None, :, :, None], largest=6)
    np.testing.assert_allclose(found, [(2.4, -1.3)], atol=0.08)


def test_noise_and_masked_pixels():
    generator = np.random.default_rng(0)
    data = blobs((2.0, -3.0))[None] + 0.05 * generator.standard_normal((1, 24, 30, 2))
    weights = np.ones_like(data)
    data[:, 10:14, 5:20], weights[:, 10:14, 5:20] = 1e3, 0
    np.testing.assert_allclose(register(data, blobs()[None], weights), [(2.0, -3.0)], atol=0.1)


def test_no_further_than_asked_and_nothing_from_nothing():
    assert register(blobs((6.0, 0.0))[None], blobs()[None], largest=2).abs().max() <= 3
    assert not register(np.zeros((1, 4, 4, 1)), np.ones((1, 4, 4, 1))).any()
    assert register(np.ones((0, 4, 4, 1)), np.ones((0, 4, 4, 1))).shape == (0, 2)
    huge = torch.full((1, 6, 6, 1), 1e300, dtype=torch.float64)
    assert torch.isfinite(register(huge, huge)).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones((4, 4, 1)), np.ones((4, 4, 1))), "data: expected shape"),
        ((np.ones((1, 4, 4, 1)), np.ones((1, 4, 5, 1))), "model: expected shape"),
        ((np.full((1, 4, 4, 1), np.nan), np.ones((1, 4, 4, 1))), "expected finite values"),
    ],
)
def test_bad_input(arguments, text):
    with pytest.raises(ValueError, match=text):
        register(*arguments)
