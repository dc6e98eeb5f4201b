"""Flats that drift and masks that come back to another place, against truths made without this package's filters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.references import estimate_shifts, interpolated, principal_flats, shifted
from tests.retrieval.simulation import frames

SHAPE = (40, 48)


def drifting(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Flats whose illumination moves and changes, and the illumination's two modes."""
    generator = np.random.default_rng(seed)
    j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    fixed = 1 + 0.2 * ndimage.gaussian_filter(generator.standard_normal(SHAPE), 1.5) * 4
    modes = np.stack([fixed * j, fixed * (k**2 - 0.3)])
    strengths = generator.standard_normal((count, 2)) * [0.1, 0.03]
    return 2000 * (fixed + np.tensordot(strengths, modes, 1)), modes


def test_components_are_those_of_the_covariance() -> None:
    flats, modes = drifting(30)
    found = principal_flats(flats, 3)
    apart = (flats - flats.mean(0)).reshape(30, -1)
    _, singular, right = np.linalg.svd(apart, full_matrices=False)
    np.testing.assert_allclose(found.explained, (singular**2 / (singular**2).sum())[:3], atol=1e-12)
    for n in range(2):
        cosine = found.components[n].ravel() @ right[n] / np.linalg.norm(found.components[n])
        assert abs(cosine) == pytest.approx(1, abs=1e-9)
    # Two modes span everything there is.
    assert found.explained[:2].sum() == pytest.approx(1, abs=1e-12)
    basis = np.linalg.qr(found.components[:2].reshape(2, -1).T)[0]
    for mode in modes.reshape(2, -1):
        assert np.linalg.norm(mode - basis @ (basis.T @ mode)) < 1e-6 * np.linalg.norm(mode)


def test_flat_of_a_view_is_found_from_its_air() -> None:
    flats, _ = drifting(25, seed=1)
    generator = np.random.default_rng(0)
    learned = principal_flats(generator.poisson(flats[:24]), 2)
    frame = flats[24].copy()
    frame[:, 12:36] *= 0.4
    air = np.ones(SHAPE, bool)
    air[:, 10:38] = False
    found = learned.fit(generator.poisson(frame), air)
    assert np.std(flats[:24].mean(0) / flats[24]) > 0.1
    # What is left is the noise of the 24 flats and of few pixels of air.
    assert np.std(found / flats[24]) < 0.02
    # Brightness is free: a dimmer beam is found as such.
    dim = principal_flats(flats[:24], 2).fit(0.5 * frame, air)
    np.testing.assert_allclose(dim, 0.5 * flats[24], rtol=1e-9)


def test_sets_of_steps_have_components_too() -> None:
    flats, _ = drifting(12)
    sets = np.stack([flats, flats[:, ::-1]], 1)
    found = principal_flats(sets, 2)
    assert found.mean.shape == (2, *SHAPE)
    air = np.zeros(SHAPE, bool)
    air[:6] = True
    np.testing.assert_allclose(found.fit(sets[4], air), sets[4], rtol=1e-9)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.45), (-3.7, 5.2)])
def test_shifts_are_found(shift: tuple[float, float]) -> None:
    # Both are windows of one larger scene, moved by splines.
    scene = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((96, 96)), 2.0)
    moved = ndimage.shift(scene, shift, order=5)
    inner = (slice(16, -16), slice(16, -16))
    found = estimate_shifts(3 * moved[inner] + 1, scene[inner])
    np.testing.assert_allclose(found.shift, shift, atol=0.01)


def test_brightness_is_free_to_any_size() -> None:
    scene = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((64, 64)), 2.0)
    moved = ndimage.shift(scene, (2.3, -0.7), order=5)
    found, huge = estimate_shifts(moved, scene), estimate_shifts(1e300 * moved, 1e-200 * scene)
    np.testing.assert_allclose(huge.shift, found.shift, rtol=1e-9)
    np.testing.assert_allclose(huge.error, found.error, rtol=1e-6)


def test_errors_of_shifts_cover() -> None:
    z = []
    for seed in range(12):
        sample, reference = frames(
            6, (48, 48), displacement=(0.2, -0.1), counts=400, contrast=0.1, seed=seed, transmission=0.7
        )
        found = estimate_shifts(sample, reference)
        z.append((found.shift - [0.2, -0.1]) / found.error)
    assert np.mean(np.abs(z) < 1) == pytest.approx(0.68, abs=0.09)  # 144 numbers
    assert np.mean(np.abs(z) < 2) > 0.9


def test_moving_as_splines_do() -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((40, 44)), 2.0)
    found = shifted(image, [1.25, -0.6])
    expected = ndimage.shift(image, (1.25, -0.6), order=5, mode="mirror")
    inner = (slice(10, -10), slice(10, -10))  # borders are mirrored about the pixels' edges and centres
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-4 * np.abs(image).max())
    each = shifted(np.stack([image, image]), [[0.0, 0.0], [1.25, -0.6]])
    np.testing.assert_allclose(each, [image, found], atol=1e-12)


def test_a_corrected_mask_makes_no_displacement() -> None:
    sample, reference = frames(8, (64, 64), displacement=(0.3, 0.2), grain=2.5)
    found = estimate_shifts(sample, reference)
    maps = retrieve(sample, shifted(reference, found.shift), background=False)
    assert np.abs(maps.displacement[16:-16, 16:-16]).max() < 0.005


def test_interpolation_in_time_is_linear_and_constant_beyond() -> None:
    generator = np.random.default_rng(0)
    sets, at = generator.uniform(1, 2, (3, 2, 4, 5)), np.array([-1.0, 0.0, 1.5, 4.0, 7.0, 9.0])
    times = np.array([4.0, 0.0, 7.0])
    found = interpolated(sets, times, at)
    order = np.argsort(times)
    for index in np.ndindex(2, 4, 5):
        expected = np.interp(at, times[order], sets[(order, *index)])
        np.testing.assert_allclose(found[(slice(None), *index)], expected)
    assert np.array_equal(interpolated(sets[:1], [3.0], at), np.repeat(sets[:1], 6, 0))


FLATS = drifting(5)[0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: principal_flats(FLATS, 5), ValueError, "flats: expected more than 5"),
        (lambda: principal_flats(FLATS[0], 1), ValueError, "flats: expected shape"),
        (lambda: principal_flats(FLATS[:1].repeat(4, 0), 1), ValueError, "flats that differ"),
        (lambda: principal_flats(FLATS * 0, 1), ValueError, "flats: expected counts"),
        (lambda: principal_flats(FLATS, 1).fit(FLATS[0, 1:], np.ones(SHAPE, bool)), ValueError, "frame"),
        (lambda: principal_flats(FLATS, 1).fit(FLATS[0], np.ones(SHAPE)), TypeError, "air: expected a boolean"),
        (lambda: principal_flats(FLATS, 1).fit(FLATS[0], np.zeros(SHAPE, bool)), ValueError, "pixels of air"),
        (lambda: estimate_shifts(FLATS, FLATS[0]), ValueError, "fixed: expected shape"),
        (lambda: estimate_shifts(FLATS[:, :8], FLATS[:, :8]), ValueError, "rows and columns"),
        (lambda: estimate_shifts(FLATS, FLATS * 0 + 1), ValueError, "structure"),
        (lambda: estimate_shifts(FLATS, FLATS, mask=np.zeros(SHAPE)), ValueError, "mask"),
        (lambda: shifted(FLATS, [1.0]), ValueError, "shift"),
        (lambda: shifted(FLATS, [30.0, 0.0]), ValueError, "at most 10 pixels"),
        (lambda: interpolated(FLATS, [0, 0, 1, 2, 3], [1.0]), ValueError, "all different"),
        (lambda: interpolated(FLATS, [0, 1], [1.0]), ValueError, "times"),
    ],
)
def test_bad_input_is_named(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
