"""The instrument's share of the maps, put in by hand and taken out again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo.alignment import calibrate_blur
from ddf_tomo.retrieval import Maps

SHAPE = (12, 24, 48)
NAMES = ("transmission", "displacement", "covariance")


def sample_region():
    row, column = np.mgrid[: SHAPE[1], : SHAPE[2]]
    return ((row - 12) ** 2 / 100 + (column - 24) ** 2 / 225 < 1)[None].repeat(SHAPE[0], 0)


def instrument(plane=False):
    """Values of an instrument that drifts, and with ``plane`` of a mask that turned and came closer."""
    place = np.linspace(-1, 1, SHAPE[0])[:, None, None, None]
    row = ((2 * np.arange(SHAPE[1]) + 1) / SHAPE[1] - 1)[None, :, None, None]
    column = ((2 * np.arange(SHAPE[2]) + 1) / SHAPE[2] - 1)[None, None, :, None]
    transmission = (1 + 0.05 * place + 0 * row + 0 * column)[..., 0]
    slope = 0.1 * plane
    displacement = np.concatenate([0.4 * place + slope * (row - column), -0.3 + slope * (column + row) + 0 * place], -1)
    covariance = np.array([0.5, -0.1, 0.3]) + 0.2 * place**2 + 0 * row + 0 * column
    return transmission, displacement + 0 * row, covariance


def maps(noise=0.0, plane=False, seed=0, correlated=False):
    generator = np.random.default_rng(seed)
    inside = sample_region()
    truth = (np.where(inside, 0.7, 1.0), inside[..., None] * [0.2, -0.1], inside[..., None] * [1.0, 0.2, 0.6])
    added = instrument(plane)
    read = [truth[0] * added[0], truth[1] + added[1], truth[2] + added[2]]

    def white(like):
        if not correlated:
            return noise * generator.standard_normal(like.shape)
        coarse = generator.standard_normal((SHAPE[0], SHAPE[1] // 3, SHAPE[2] // 3, *like.shape[3:]))
        return noise * coarse.repeat(3, 1).repeat(3, 2)

    read = [each + white(each) for each in read]
    errors = [np.full(each.shape, max(noise, 1e-3)) for each in read]
    zero = np.zeros(SHAPE)
    matrix = np.zeros((*SHAPE, 21))
    matrix[..., [0, 6, 11, 15, 18, 20]] = max(noise, 1e-3) ** 2
    made = Maps(*read, zero, *errors, zero + 1, zero, zero == 0, 1e-5, 1.0, error_matrix=matrix)
    return made, truth


def test_what_was_added_is_taken_out():
    measured, truth = maps()
    calibration = calibrate_blur(measured)
    cleaned = calibration.apply(measured)
    for name, value in zip(NAMES, truth, strict=True):
        np.testing.assert_allclose(getattr(cleaned, name), value, atol=1e-12)
    np.testing.assert_allclose(calibration.at_centre("covariance")[0][:, 0], instrument()[2][:, 0, 0, 0])
    kept = calibration.apply(measured, transmission=False)
    assert kept.transmission is measured.transmission
    assert "covariance[0]" in calibration.summary()


def test_a_mask_that_turned():
    measured, truth = maps(plane=True)
    air = ~sample_region()
    flat = calibrate_blur(measured, air).apply(measured).displacement - truth[1]
    plane = calibrate_blur(measured, air[0], order=1).apply(measured).displacement - truth[1]
    assert np.abs(flat).max() > 0.1
    assert np.abs(plane).max() < 1e-12


@pytest.mark.parametrize("correlated", [False, True])
def test_errors_are_those_of_the_mean(correlated):
    """Pixels that repeat their neighbours' noise tell less; the jackknife notices, the formula for white noise not."""
    pulls = []
    for seed in range(12):
        measured, _ = maps(noise=0.1, seed=seed, correlated=correlated)
        value, error = calibrate_blur(measured, ~sample_region()).at_centre("covariance")
        pulls.append((value - instrument()[2][:, 0, 0]) / error)
    assert 0.8 < np.std(pulls) < 1.3


def test_a_drift_over_the_views_averages():
    measured, _ = maps(noise=0.1)
    each, smooth = (calibrate_blur(measured, drift=drift) for drift in (None, 2))
    truth = instrument()[2][:, 0, 0]
    errors = [np.abs(c.at_centre("covariance")[0] - truth).mean() for c in (each, smooth)]
    assert errors[1] < 0.8 * errors[0]
    assert smooth.at_centre("covariance")[1].mean() < 0.8 * each.at_centre("covariance")[1].mean()
    assert 0.3 < smooth.drift_chi2["covariance"] < 2
    assert calibrate_blur(measured, drift=0).drift_chi2["displacement"] > 10, "it does drift"


def test_errors_grow_by_those_of_the_calibration():
    measured, _ = maps(noise=0.1)
    calibration = calibrate_blur(measured)
    cleaned = calibration.apply(measured)
    for name in ("displacement", "covariance"):
        expected = np.sqrt(0.1**2 + calibration.at_centre(name)[1] ** 2)
        np.testing.assert_allclose(
            getattr(cleaned, f"{name}_error"), expected[:, None, None].repeat(24, 1).repeat(48, 2)
        )
    np.testing.assert_allclose(cleaned.error_matrix[..., 15], cleaned.covariance_error[..., 0] ** 2)
    np.testing.assert_allclose(cleaned.error_matrix[..., 0], cleaned.transmission_error**2)


def test_one_view_tensors_visibility_and_masked_air():
    measured, truth = maps()
    visibility = truth[2] + 0.25
    measured = replace(
        measured,
        visibility=visibility,
        visibility_error=np.ones_like(visibility),
        azimuths_rad=(0.0, 1.0, 2.0),
        correlation_lengths_m=(1e-7,),
    )
    names = [f for f in measured.__dataclass_fields__ if isinstance(getattr(measured, f), np.ndarray)]
    one = replace(measured, **{name: torch.from_numpy(getattr(measured, name)[0]) for name in names})
    cleaned = calibrate_blur(one).apply(one)
    assert isinstance(cleaned.covariance, torch.Tensor)
    np.testing.assert_allclose(cleaned.covariance, truth[2][0], atol=1e-12)
    np.testing.assert_allclose(cleaned.visibility, truth[2][0], atol=1e-12)
    valid = np.ones(SHAPE, bool)
    valid[:, :10] = False
    broken = np.where(valid[..., None], measured.covariance, np.nan)
    found = calibrate_blur(replace(measured, covariance=broken, valid=valid)).at_centre("covariance")[0]
    np.testing.assert_allclose(found, instrument()[2][:, 0, 0])


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"air": "everywhere"}, ValueError, "air: expected 'margins' or a boolean mask"),
        ({"air": np.ones((24, 48))}, TypeError, "air: expected 'margins' or a boolean mask"),
        ({"air": np.ones((24, 47), bool)}, ValueError, "air: expected shape"),
        ({"air": np.zeros((24, 48), bool)}, ValueError, "air: expected at least 4 valid pixels in every view, got 0"),
        ({"order": 3}, ValueError, "order"),
        ({"drift": 12}, ValueError, "drift"),
    ],
)
def test_bad_input(options, error, text):
    measured, _ = maps()
    with pytest.raises(error, match=text):
        calibrate_blur(measured, **options)
    with pytest.raises(TypeError, match="maps: expected Maps"):
        calibrate_blur(measured.covariance)
    with pytest.raises(ValueError, match="quantity: expected one of"):
        calibrate_blur(measured).at_centre("colour")
