"""Transmission without the instrument's blur: modulation transfer beside closed forms, gain of noise, least risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from ddf_tomo.retrieval import Maps, edge_response, restore_transmission
from tests.retrieval.test_slanted_edge import slanted


def test_edge_is_sharper_by_the_transfer_that_is_told() -> None:
    """Measured at the restored edge itself: the instrument's transfer before, the told one after."""
    width = 1.5
    restored = restore_transmission(slanted(96, width), width, error=1e-3, strength=1e3)
    before, after = edge_response(slanted(96, width)), edge_response(restored.transmission[8:-8, 8:-8])
    low = restored.frequency.numpy() < 0.3
    np.testing.assert_allclose(before.mtf.numpy()[low], restored.mtf_before.numpy()[low], atol=1e-3)
    # The one told is a mean over directions.
    np.testing.assert_allclose(after.mtf.numpy()[low], restored.mtf_after.numpy()[low], atol=0.03)
    assert restored.limit_after > 1.1 * restored.limit_before


def test_noise_grows_by_the_gain_that_is_told() -> None:
    generator = np.random.default_rng(0)
    noise = 0.01 * generator.standard_normal((100, 100))
    restored = restore_transmission(1 + noise, 1.2, error=0.01, strength=30.0)
    assert restored.noise_gain > 1.2
    inner = restored.transmission[12:-12, 12:-12]
    assert float(inner.std()) == pytest.approx(0.01 * restored.noise_gain, rel=0.03)
    assert float(restored.error.median()) == pytest.approx(0.01 * restored.noise_gain, rel=0.01)


def test_result_is_the_minimum_of_its_sum() -> None:
    """Beside dense least squares of the same sum, with errors that differ and a pixel that is missing."""
    generator = np.random.default_rng(1)
    image = slanted(16, 1.0) + 0.01 * generator.standard_normal((16, 16))
    error = 0.01 * generator.uniform(0.5, 2, (16, 16))
    image[5, 7] = np.nan
    psf = generator.uniform(size=(3, 5))
    found = restore_transmission(image, psf, error=error, strength=50.0).transmission.numpy()
    edge, whole = 5, 27  # as it is padded: 16 + 2 * 5, to the next quick length
    blur, smooth = [], []
    for pixel in np.eye(whole**2):
        one = pixel.reshape(whole, whole)
        blur.append(convolve(one, psf / psf.sum(), mode="wrap")[edge : edge + 16, edge : edge + 16].ravel())
        smooth.append(convolve(one, [[0, 1, 0], [1, -4, 1], [0, 1, 0]], mode="wrap").ravel())
    known = np.isfinite(image).ravel()
    H = (np.array(blur).T / error.ravel()[:, None])[known]
    rows = np.concatenate([H, np.sqrt(50.0) * np.array(smooth).T])
    right = np.concatenate([(image / error).ravel()[known], np.zeros(whole**2)])
    expected = np.linalg.lstsq(rows, right)[0].reshape(whole, whole)[edge : edge + 16, edge : edge + 16]
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_strength_is_near_the_best(noise: float) -> None:
    generator = np.random.default_rng(2)
    image, truth = slanted(54, 1.2) + noise * generator.standard_normal((54, 54)), slanted(54, 0.3)

    def error(strength: float | None) -> float:
        found = restore_transmission(image, 1.2, error=noise, strength=strength).transmission.numpy()
        return float(np.sqrt(np.mean((found - truth)[8:-8, 8:-8] ** 2)))

    best = min(error(s / noise**2) for s in np.logspace(-3, -0.5, 6))
    assert error(None) < 1.1 * best < 0.9 * np.sqrt(np.mean((image - truth)[8:-8, 8:-8] ** 2))


def test_scale_and_kind_of_the_image_do_not_matter() -> None:
    image = slanted(32, 1.0) + 0.005 * np.random.default_rng(3).standard_normal((32, 32))
    taps = np.arange(-6, 7)
    gaussian = np.exp(-(taps**2) / 2)
    one, other, third = (
        restore_transmission(image, 1.0, error=0.005),
        restore_transmission(torch.from_numpy(7 * image), 1.0, error=0.035),
        restore_transmission(image, np.outer(gaussian, gaussian), error=0.005 * np.ones((32, 32))),
    )
    torch.testing.assert_close(7 * one.transmission, other.transmission, rtol=1e-6, atol=1e-6)
    inner = slice(6, -6)  # what lies beyond the edge is padded by what the blur reaches
    torch.testing.assert_close(one.transmission[inner, inner], third.transmission[inner, inner], atol=1e-3, rtol=0)
    torch.testing.assert_close(one.mtf_before, third.mtf_before, atol=1e-2, rtol=0)  # sampled, not band-limited


def test_maps_bring_their_errors_and_gaps() -> None:
    shape = (24, 26)
    flat, vector, matrix = np.zeros(shape), np.zeros((*shape, 2)), np.zeros((*shape, 3))
    valid = np.ones(shape, dtype=bool)
    valid[4, 5] = False
    transmission = np.where(valid, 0.8, 0.0)
    maps = Maps(transmission, vector, matrix, flat, flat + 0.01, vector + 1, matrix + 1, flat, flat, valid)
    restored = restore_transmission(maps, 1.0)
    np.testing.assert_allclose(restored.transmission.numpy(), 0.8, atol=1e-4)
    assert not np.isfinite(float(restored.error[4, 5]))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"psf": -1.0}, "psf: expected"),
        ({"psf": np.ones((2, 3))}, "psf: expected odd"),
        ({"error": None}, "error: expected the standard error"),
        ({"error": 0.0}, "error: expected"),
        ({"strength": 0.0}, "strength: expected"),
        ({"transmission": np.full((8, 8), np.nan)}, "transmission: expected at least one"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], told: str) -> None:
    good = {"transmission": np.ones((16, 16)), "psf": 1.0, "error": 0.01}
    with pytest.raises(ValueError, match=told):
        restore_transmission(**(good | arguments))


def test_a_transmission_whose_square_is_no_number_is_refused() -> None:
    huge = np.full((16, 16), 1e200)
    with pytest.raises(ValueError, match="transmission: expected"):
        restore_transmission(huge, 1.0, error=0.01 * huge, strength=1e-3)
