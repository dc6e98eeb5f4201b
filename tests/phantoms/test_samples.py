"""Samples that are known, on any grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo import (
    Geometry,
    IsotropicResponse,
    RankTwoResponse,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
)
from ddf_tomo.derived import angle_between, derive
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.phantoms import FIBRE_LEGENDRE, SCAN_VIEWS, helicoidal_fibres, simulate, tilt_series, zonal

GEOMETRY = tilt_series((10, 9, 8), views=(4, 5), tilts_rad=(0.0, 0.4))


# -- views ------------------------------------------------------------------------------------------------------------


def test_the_pattern_of_a_real_scan():
    geometry = tilt_series((12, 11, 10))
    assert len(geometry) == sum(SCAN_VIEWS) == 255
    assert geometry.detector_shape == (12, 10)
    tilts = np.degrees(np.arcsin(np.abs(geometry.p[:, 2])))
    expected = np.repeat([0, 7.5, 15, 22.5, 30, 37.5, 45], SCAN_VIEWS)
    np.testing.assert_allclose(tilts, expected, atol=1e-9)
    # No line is measured twice at tilt 0, where half a turn is all there is.
    first = geometry.p[:24]
    assert np.degrees(angle_between(first[:, None], first[None])[~np.eye(24, dtype=bool)].min()) == pytest.approx(7.5)
    assert tilt_series((12, 11, 10), np.array([7, 6])).detector_shape == (7, 6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"views": [3]}, r"^views: expected shape \(7\), got \(1,\)"),
        ({"views": 3}, r"^views: expected shape \(7\), got \(\)"),
        ({"views": [0] * 7}, "^views: expected an integer"),
        ({"tilts_rad": [[0.0]]}, "^tilts_rad: expected shape"),
        ({"volume_shape": (3, 3)}, "^volume_shape: expected 3 positive integers"),
        ({"detector_shape": (3,)}, "^detector_shape: expected 2 positive integers"),
    ],
)
def test_bad_series(arguments, text):
    with pytest.raises(ValueError, match=text):
        tilt_series(**{"volume_shape": (4, 4, 4), **arguments})


# -- functions --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=5), st.integers(0, 1000))
def test_zonal_functions_by_legendre_polynomials(amplitudes, seed):
    generator = np.random.default_rng(seed)
    axes, q = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in generator.normal(size=(2, 6, 3)))
    coefficients = zonal(axes, amplitudes)
    found = np.einsum("qc,nc->nq", evaluate(q, 2 * len(amplitudes) - 2), coefficients)
    series = np.zeros(2 * len(amplitudes))
    series[::2] = amplitudes
    np.testing.assert_allclose(found, np.polynomial.legendre.legval(axes @ q.T, series), atol=1e-12)


def test_the_fibres_scatter_across_themselves():
    t = np.linspace(-1, 1, 101)
    found = np.polynomial.legendre.legval(t, [FIBRE_LEGENDRE[0], 0, FIBRE_LEGENDRE[1], 0, FIBRE_LEGENDRE[2]])
    np.testing.assert_allclose(found, 15 / 8 * (1 - t**2) ** 2, atol=1e-12)


@pytest.mark.parametrize("isotropic", [0.0, 0.2])
def test_phantom_is_nowhere_negative(isotropic):
    coefficients, _, mask = helicoidal_fibres((12, 11, 10), isotropic=isotropic)
    values = coefficients @ evaluate(half_sphere_grid(2000), 4).T.astype(np.float32)
    assert values.min() > -2e-6
    assert values[mask].min() > 0 if isotropic else values[mask].min() < 1e-2  # along a fibre nothing is left
    assert not coefficients[0].any()
    assert coefficients.dtype == np.float32


def test_directions_are_those_of_the_coefficients():
    coefficients, directions, mask = helicoidal_fibres((12, 12, 12))
    derived = derive(coefficients)
    assert np.degrees(angle_between(derived.direction, directions)[mask].max()) < 0.01
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1)
    np.testing.assert_allclose(directions[..., 2], math.sin(math.radians(15)))
    # A full turn over the height of the volume, to the right.
    turn = np.unwrap(np.arctan2(directions[6, 6, :, 1], directions[6, 6, :, 0]))
    np.testing.assert_allclose(np.diff(turn), 2 * np.pi / 12)
    half = helicoidal_fibres((12, 12, 12), pitch=2.0)[1]
    np.testing.assert_allclose(np.diff(np.unwrap(np.arctan2(half[6, 6, :, 1], half[6, 6, :, 0]))), np.pi / 12)
    assert coefficients[..., 0].max() <= 1.2 * (1 + 1e-6)


def test_phantom_does_not_depend_on_the_grid():
    coarse, fine = helicoidal_fibres((16, 16, 16))[0], helicoidal_fibres((64, 64, 64))[0]
    averaged = fine.reshape(16, 4, 16, 4, 16, 4, -1).mean((1, 3, 5))
    assert np.linalg.norm(averaged - coarse) < 0.1 * np.linalg.norm(coarse)
    # The more voxels, the better: it is the edge and the turn within a voxel that differ.
    finer = helicoidal_fibres((32, 32, 32))[0]
    averaged = fine.reshape(32, 2, 32, 2, 32, 2, -1).mean((1, 3, 5))
    assert np.linalg.norm(averaged - finer) < 0.04 * np.linalg.norm(finer)


@pytest.mark.parametrize(("ell_max", "count"), [(0, 1), (2, 6), (4, 15), (6, 28)])
def test_orders_are_truncated_or_empty(ell_max, count):
    full = helicoidal_fibres((6, 6, 6), 4)[0]
    found = helicoidal_fibres((6, 6, 6), ell_max)[0]
    assert found.shape == (6, 6, 6, count)
    np.testing.assert_allclose(found[..., :15], full[..., :count], atol=1e-6)
    assert not found[..., 15:].any()


@pytest.mark.parametrize(
    "arguments", [{"pitch": 0}, {"pitch": np.nan}, {"isotropic": -1}, {"ell_max": 3}, {"shape": (3, 3, 0)}]
)
def test_bad_phantoms(arguments):
    with pytest.raises(ValueError, match="^" + next(iter(arguments))):
        helicoidal_fibres(**{"shape": (4, 4, 4), **arguments})


# -- scans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", [SecondMomentResponse(), SaxsResponse(np.arange(4) * np.pi / 4)])
def test_a_finer_grid_is_no_inverse_crime(response):
    """Without oversampling the data are the operator's own, to the last digit; with it they differ by per cents."""
    truth = helicoidal_fibres(GEOMETRY.volume_shape)[0]
    own = TensorXRayTransform(GEOMETRY, response, 4)(truth)
    crime = simulate(helicoidal_fibres, GEOMETRY, response, oversampling=1)
    np.testing.assert_array_equal(crime.data, own)
    honest = simulate(helicoidal_fibres, GEOMETRY, response)
    difference = np.linalg.norm(honest.data - own) / np.linalg.norm(own)
    assert 0.01 < difference < 0.2
    finer = simulate(helicoidal_fibres, GEOMETRY, response, oversampling=4)
    assert np.linalg.norm(finer.data - honest.data) < difference * np.linalg.norm(own)
    assert honest.weights is None
    assert honest.geometry == GEOMETRY


def test_line_integrals_are_in_voxels_of_the_scan():
    """A block of ones: its mass is the sum of the detector, whatever the grid."""

    def block(shape):
        values = np.zeros((*shape, 1))
        values[tuple(slice(n // 4, 3 * n // 4) for n in shape)] = 1
        return values

    geometry = Geometry.from_angles([0.0, 0.3], 0.1, (8, 8, 8), (12, 12), j_offset=0.4)
    for factor in (1, 2, 3):
        scan = simulate(block, geometry, IsotropicResponse(), oversampling=factor)
        mass = block(tuple(factor * n for n in (8, 8, 8))).sum() / factor**3
        np.testing.assert_allclose(scan.data.sum((1, 2, 3)), mass, rtol=0.02)


def test_noise_is_what_it_says():
    clean = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse())
    noisy = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.02, seed=5)
    sigma = 0.02 * np.abs(clean.data).max()
    difference = noisy.data - clean.data
    assert difference.std() == pytest.approx(sigma, rel=0.05)
    assert abs(difference.mean()) < 0.1 * sigma
    np.testing.assert_allclose(noisy.weights, 1 / sigma**2, rtol=1e-5)
    assert noisy.data.dtype == noisy.weights.dtype == np.float32
    again, other = (
        simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.02, seed=seed) for seed in (5, 6)
    )
    np.testing.assert_array_equal(again.data, noisy.data)
    assert np.abs(other.data - noisy.data).max() > sigma


def test_samples_may_be_tensors_arrays_or_tuples():
    def tensors(shape):
        return torch.ones(*shape, 6, dtype=torch.float64)

    def arrays(shape):
        values = np.ones((*shape, 6))
        values.setflags(write=False)
        return values, "and more"

    first, second = (simulate(sample, GEOMETRY, RankTwoResponse()) for sample in (tensors, arrays))
    np.testing.assert_array_equal(first.data, second.data)
    assert first.data.dtype == np.float64
    assert not simulate(lambda shape: np.zeros((*shape, 6)), GEOMETRY, RankTwoResponse(), noise=0.1).data.any()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"sample": 3}, TypeError, "^sample: expected a function of the volume shape"),
        ({"sample": lambda shape: np.ones((*shape, 7))}, ValueError, "^sample: expected"),
        ({"sample": lambda shape: np.ones((3, *shape[1:], 6))}, ValueError, "^sample: expected coefficients of shape"),
        ({"sample": lambda shape: np.ones((*shape, 6)) * 1j}, TypeError, "^sample: expected an array of real numbers"),
        ({"oversampling": 0}, ValueError, "^oversampling: expected an integer"),
        ({"noise": -0.1}, ValueError, "^noise: expected a finite number"),
        ({"noise": 0.1, "seed": -1}, ValueError, "^seed: expected an integer"),
    ],
)
def test_bad_simulations(arguments, error, text):
    with pytest.raises(error, match=text):
        simulate(**{"sample": helicoidal_fibres, "geometry": GEOMETRY, "response": SecondMomentResponse(), **arguments})
