"""Mean, anisotropy and directions from coefficients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo.derived import angle_between, derive
from ddf_tomo.operators.rank_two import from_matrix
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import evaluate, sphere_quadrature
from ddf_tomo.phantoms import zonal

TURN = np.array([[0.36, 0.48, 0.8], [-0.8, 0.6, 0.0], [-0.48, -0.64, 0.6]])
vectors = st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1)


def unit(vector):
    return np.array(vector) / np.linalg.norm(vector)


@given(vectors, st.sampled_from([[1.0, -0.9], [1.0, 0.7], [2.0, -1.5, 0.4], [1.0, 0.8, 0.1]]))
def test_the_axis_of_a_zonal_function_is_its_direction(axis, legendre):
    derived = derive(zonal(unit(axis), legendre)[None, None, None])
    assert angle_between(derived.direction[0, 0, 0], axis) < 1e-7
    assert derived.direction[0, 0, 0, 2] >= 0
    assert derived.mean[0, 0, 0] == pytest.approx(legendre[0])
    np.testing.assert_allclose(np.linalg.norm(derived.eigenvectors, axis=-2), 1)


def test_quantities_by_numerical_integration():
    coefficients = np.random.default_rng(0).normal(size=(1, 1, 1, 15))
    coefficients[..., 0] = 4
    directions, weights = sphere_quadrature(12)
    values = evaluate(directions, 4) @ coefficients.ravel()
    tensor = np.einsum("n,n,na,nb->ab", weights, values, directions, directions)
    eigenvalues, eigenvectors = np.linalg.eigh(tensor)
    derived = derive(coefficients)
    np.testing.assert_allclose(derived.eigenvalues[0, 0, 0], eigenvalues, atol=1e-12)
    for i in range(3):
        assert angle_between(derived.eigenvectors[0, 0, 0, :, i], eigenvectors[:, i]) < 1e-7
    assert derived.mean.item() == pytest.approx(values @ weights)
    deviation = np.linalg.norm(eigenvalues - eigenvalues.mean())
    assert derived.fractional_anisotropy.item() == pytest.approx(
        np.sqrt(1.5) * deviation / np.linalg.norm(eigenvalues), rel=1e-12
    )


def test_everything_turns_with_the_sample():
    coefficients = np.random.default_rng(1).normal(size=(2, 3, 2, 15))
    before, after = derive(coefficients), derive(rotate(coefficients, TURN))
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-12)
    np.testing.assert_allclose(after.fractional_anisotropy, before.fractional_anisotropy, atol=1e-12)
    assert angle_between(after.direction, before.direction @ TURN.T).max() < 1e-6


@pytest.mark.parametrize(
    ("eigenvalues", "anisotropy", "axis"),
    [([0, 0, 1], 1.0, 2), ([1, 1, 1], 0.0, None), ([0, 1, 1], np.sqrt(0.5), 0), ([0, 0, 0], 0.0, None)],
)
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 1e-310])
def test_tensors(eigenvalues, anisotropy, axis, scale):
    tensor = from_matrix(TURN @ np.diag(eigenvalues) @ TURN.T)
    derived = derive(scale * tensor[None, None, None], of_harmonics=False)
    assert derived.fractional_anisotropy.item() == pytest.approx(anisotropy, abs=1e-7)
    np.testing.assert_allclose(derived.eigenvalues.ravel() / scale, eigenvalues, atol=1e-7)
    assert derived.mean.item() == pytest.approx(scale * np.mean(eigenvalues))
    if axis is not None:
        assert angle_between(derived.direction.ravel(), TURN[:, axis]) < 1e-6


def test_where_it_can_be_trusted():
    coefficients = np.zeros((5, 1, 1, 6))
    coefficients[:, 0, 0, 0] = [1.0, 0.11, 0.09, 0.0, -0.5]
    assert derive(coefficients).valid.ravel().tolist() == [True, True, False, False, False]
    assert derive(coefficients, threshold=0).valid.ravel().tolist() == [True, True, True, False, False]
    assert not derive(-np.abs(coefficients)).valid.any()


@pytest.mark.parametrize("count", [1, 6, 15, 28])
@pytest.mark.parametrize("shape", [(2, 3, 1), (0, 2, 2)])
def test_any_order_and_empty_volumes(shape, count):
    derived = derive(np.ones((*shape, count), np.float32))
    assert derived.mean.shape == derived.valid.shape == derived.fractional_anisotropy.shape == shape
    assert derived.direction.shape == (*shape, 3)
    assert np.isfinite(derived.direction).all()
    if count == 1:
        np.testing.assert_allclose(derived.fractional_anisotropy, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"coefficients": np.ones((2, 2, 6))}, ValueError, r"^coefficients: expected shape"),
        ({"coefficients": np.ones((2, 2, 2, 5))}, ValueError, "coefficients"),
        ({"coefficients": np.full((2, 2, 2, 6), np.nan)}, ValueError, "^coefficients: expected finite values"),
        ({"coefficients": "x"}, TypeError, "^coefficients: expected real numbers"),
        ({"of_harmonics": False, "coefficients": np.ones((2, 2, 2, 15))}, ValueError, r"^coefficients \(last axis\)"),
        ({"threshold": 2.0}, ValueError, "^threshold: expected a finite number"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        derive(**{"coefficients": np.ones((2, 2, 2, 6)), **arguments})


@given(vectors, st.floats(0, np.pi / 2), st.sampled_from([-3.0, 1.0, 0.2]))
def test_angles_between_axes(axis, angle, factor):
    first = unit(axis)
    across = unit(np.cross(first, [0.3, -0.5, 0.81]))
    second = factor * (np.cos(angle) * first + np.sin(angle) * across)
    assert angle_between(first, second) == pytest.approx(angle, abs=1e-7)


def test_small_angles_keep_their_digits():
    assert angle_between([1.0, 0, 0], [1.0, 1e-12, 0]) == pytest.approx(1e-12, rel=1e-6)
    with pytest.raises(ValueError, match=r"^second \(last axis\): expected shape \(3\)"):
        angle_between([1.0, 0, 0], [1.0, 0])
    with pytest.raises(ValueError, match=r"^first \(last axis\)"):
        angle_between([1.0, 0], [1.0, 0, 0])
