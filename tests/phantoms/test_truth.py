"""What phantoms are made of, and what they know of themselves."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo.derived import angle_between, derive
from ddf_tomo.operators.rank_two import to_matrix
from ddf_tomo.operators.spherical_harmonics import evaluate, sphere_quadrature
from ddf_tomo.phantoms import FIBRE_LEGENDRE, crossing_fibres, fibre_legendre, helicoidal_fibres, zonal


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


@pytest.mark.parametrize("sharpness", [1, 2, 3, 7, 16])
def test_fibres_of_any_sharpness(sharpness):
    """Against the polynomial itself, converted by NumPy."""
    power = np.polynomial.polynomial.polypow([1, 0, -1], sharpness)
    expected = np.polynomial.legendre.poly2leg(power)[::2]
    np.testing.assert_allclose(fibre_legendre(sharpness), expected / expected[0], rtol=1e-9)


@pytest.mark.parametrize("sharpness", [0, 2.5, 17, np.nan])
def test_bad_sharpness(sharpness):
    with pytest.raises((ValueError, TypeError), match=r"^sharpness: expected an integer in \[1, 16\]"):
        fibre_legendre(sharpness)


# -- the truth --------------------------------------------------------------------------------------------------------


def test_a_truth_is_a_tuple_of_three():
    truth = helicoidal_fibres((6, 5, 4))
    coefficients, directions, mask = truth
    assert truth[0] is truth.coefficients is truth.exact is coefficients
    assert truth[1] is directions
    assert truth[2] is mask
    assert truth.derived() is truth.derived()
    assert truth.second_directions is None
    assert repr(truth).startswith("<Truth: 6 × 5 × 4 voxels, 15 coefficients, sample in ")


def test_copies_keep_everything():
    truth = crossing_fibres((6, 5, 4), 2)
    again = pickle.loads(pickle.dumps(truth))
    np.testing.assert_array_equal(again.exact, truth.exact)
    np.testing.assert_array_equal(again.second_directions, truth.second_directions)
    changed = truth._replace(coefficients=2 * truth.coefficients)
    np.testing.assert_array_equal(changed.exact, 2 * truth.coefficients)


@pytest.mark.parametrize("ell_max", [0, 2, 4, 6])
def test_derived_quantities_are_those_of_the_whole_function(ell_max):
    expected, found = helicoidal_fibres((6, 6, 6)).derived(), helicoidal_fibres((6, 6, 6), ell_max).derived()
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.fractional_anisotropy, expected.fractional_anisotropy)


def test_tensors_are_positive_with_the_same_directions_and_anisotropy():
    truth = crossing_fibres((8, 8, 8))
    tensors = truth.tensors()
    directions, weights = sphere_quadrature(6)
    values = truth.exact @ evaluate(directions, 4).T
    expected = 3 * np.einsum("xyzn,n,na,nb->xyzab", values, weights, directions, directions)
    np.testing.assert_allclose(to_matrix(tensors), expected, atol=1e-6)
    assert np.linalg.eigvalsh(to_matrix(tensors)).min() > -1e-6
    found, own = derive(tensors, of_harmonics=False), truth.derived()
    np.testing.assert_allclose(found.mean, own.mean, atol=1e-6)
    np.testing.assert_allclose(found.fractional_anisotropy, own.fractional_anisotropy, atol=1e-6)
    assert angle_between(found.direction, own.direction)[truth.mask].max() < 1e-4
