"""Positions of the mask, and its pattern there."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from ddf_tomo.acquisition import random_steps, raster_steps, shifted, spiral_steps

GENERATOR = torch.Generator().manual_seed(3)


def test_random_steps():
    steps = random_steps(4000, (10.0, 2.0), seed=1)
    assert steps.shape == (4000, 2)
    assert torch.equal(steps, random_steps(4000, (10.0, 2.0), seed=torch.Generator().manual_seed(1)))
    np.testing.assert_allclose(steps.abs().amax(0), [5, 1], rtol=0.01)
    np.testing.assert_allclose(steps.var(0), [100 / 12, 4 / 12], rtol=0.1)


def test_raster_steps():
    steps = raster_steps((3, 4), (2.0, 0.5))
    assert steps.mean(0).abs().max() < 1e-12
    moves = (steps[1:] - steps[:-1]).abs()
    assert moves.sum(1).unique().tolist() == [0.5, 2.0]  # one step at a time, never a way back
    assert len(steps.unique(dim=0)) == 12


def test_spiral_steps():
    steps = spiral_steps(400, 3.0)
    distance = torch.cdist(steps, steps) + 1e9 * torch.eye(400, dtype=torch.float64)
    nearest = distance.amin(1)
    assert float(nearest[5:].min()) > 0.9 * 3  # a hexagonal lattice has 1.07
    assert float(steps.norm(dim=1).max() ** 2 * torch.pi / 400) == pytest.approx(9, rel=0.01)  # one on 3 × 3


@pytest.mark.parametrize("shape", [(8, 9), (7, 10), (1, 6)])
def test_shifts_are_those_of_fourier(shape):
    pattern = torch.randn(shape, generator=GENERATOR, dtype=torch.float64)
    places = torch.tensor([[1.0, -2.0], [0.3, 0.7], [-2.6, 3.1]], dtype=torch.float64)
    found = shifted(pattern, places)
    assert torch.allclose(found[0], pattern.roll((1, -2), (0, 1)), atol=1e-12)
    odd = [n % 2 for n in shape]
    for image, place in zip(found, places, strict=True):
        expected = np.fft.ifftn(scipy.ndimage.fourier_shift(np.fft.fftn(pattern.numpy()), place.numpy()))
        if all(odd):  # SciPy turns Nyquist's frequency into something complex
            np.testing.assert_allclose(image, expected.real, atol=1e-12)
    both = shifted(torch.complex(pattern, 2 * pattern), places)
    assert torch.allclose(both, torch.complex(found, 2 * found), atol=1e-12)


def test_there_and_back():
    pattern = torch.randn(15, 21, generator=GENERATOR, dtype=torch.float64)
    place = torch.tensor([[0.37, -1.81]], dtype=torch.float64)
    assert torch.allclose(shifted(shifted(pattern, place)[0], -place)[0], pattern, atol=1e-12)


def test_frames_out_of_a_larger_mask():
    pattern = torch.arange(20.0)[:, None] + 100 * torch.arange(24.0)
    found = shifted(pattern, torch.tensor([[0.0, 0.0], [2.0, -3.0]]), shape=(12, 14))
    assert torch.allclose(found[0], pattern[4:16, 5:19], atol=1e-3)
    assert torch.allclose(found[1], pattern[2:14, 8:22], atol=1e-3)
    with pytest.raises(ValueError, match=r"pattern: expected \(22, 14\) pixels or more, got \(20, 24\)"):
        shifted(pattern, torch.tensor([[4.5, 0.0]]), shape=(12, 14))


def test_gradients():
    pattern = torch.randn(5, 6, generator=GENERATOR, dtype=torch.float64, requires_grad=True)
    places = torch.randn(2, 2, generator=GENERATOR, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(shifted, (pattern, places))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: random_steps(0, 1.0), "steps: expected an integer"),
        (lambda: random_steps(3, (1, 2, 3)), "extent: expected one number or two"),
        (lambda: random_steps(3, "wide"), "extent: expected one number or two"),
        (lambda: raster_steps((0, 3), 1.0), "shape: expected 2 positive integers"),
        (lambda: raster_steps((1000, 1000), 1.0), "shape: expected at most"),
        (lambda: spiral_steps(3, -1.0), "pitch: expected"),
        (lambda: shifted(torch.ones(4, 4), torch.ones(3)), "positions_px: expected"),
        (lambda: shifted(torch.ones(4, 4), torch.ones(3, 3)), "positions_px: expected shape"),
        (lambda: shifted(torch.ones(4, 4), torch.full((1, 2), 1e9)), "positions_px: expected pixels"),
        (lambda: shifted(torch.ones(2, 4, 4), torch.ones(3, 2)), "pattern: expected shape"),
    ],
)
def test_wrong_steps_are_refused(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call()
