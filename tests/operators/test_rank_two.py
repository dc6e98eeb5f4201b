"""Tensors beside harmonics, second moments beside rank-2 data, against direct evaluation and integration."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo.operators import rank_two as r2
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid, sphere_quadrature

tensors = st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(np.array)


@settings(deadline=None, max_examples=50)
@given(tensors)
def test_coefficients_give_the_quadratic_form(tensor):
    grid = half_sphere_grid(25)
    values = np.einsum("na,ab,nb->n", grid, r2.to_matrix(tensor), grid)
    coefficients = r2.coefficients_from_tensor(tensor)
    np.testing.assert_allclose(evaluate(grid, 2) @ coefficients, values, atol=1e-13)
    np.testing.assert_allclose(r2.tensor_from_coefficients(coefficients), tensor, atol=1e-13)
    np.testing.assert_allclose(r2.from_matrix(r2.to_matrix(tensor)), tensor)


@pytest.mark.parametrize("ell_max", [0, 2, 6])
def test_second_moment_tensor_is_the_integral_and_mumotts(ell_max):
    basis_sets = pytest.importorskip("mumott.methods.basis_sets")
    basis = basis_sets.SphericalHarmonics(ell_max=ell_max)
    coefficients = np.random.default_rng(0).standard_normal((2, 3, 4, len(basis)))
    directions, weights = sphere_quadrature(2 + ell_max)
    values = coefficients @ evaluate(directions, ell_max).T
    integral = np.einsum("...n,n,na,nb->...ab", values, weights, directions, directions)
    ours = r2.to_matrix(r2.second_moment_tensor(coefficients))
    np.testing.assert_allclose(ours, integral, atol=1e-13)
    np.testing.assert_allclose(ours, basis._get_rank2_tensor(coefficients), atol=1e-13)
    output = basis.get_output(coefficients)
    if ell_max:
        principal = np.linalg.eigh(ours)[1][..., -1]
        np.testing.assert_allclose(np.abs(np.sum(principal * output.eigenvector_3, -1)), 1, atol=1e-10)
        of_form = np.linalg.eigh(r2.to_matrix(r2.tensor_from_coefficients(coefficients[..., :6])))[1][..., -1]
        np.testing.assert_allclose(np.abs(np.sum(principal * of_form, -1)), 1, atol=1e-10)


@settings(deadline=None, max_examples=30)
@given(tensors, st.integers(0, 1000))
def test_data_map_turns_second_moments_into_rank_two_data(tensor, seed):
    """Θ of f = q̂ᵀMq̂ by a sum over the circle, then the map, must be the block of M across the beam."""
    frame = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    axes, matrix = frame[:2], r2.to_matrix(tensor)
    phi = 2 * np.pi * np.arange(16) / 16
    e = np.stack([np.cos(phi), np.sin(phi)], 1)
    f = np.einsum("na,ab,nb->n", e @ axes, matrix, e @ axes)
    theta = np.einsum("na,nb,n->ab", e, e, f) * (2 * np.pi / 16) / np.pi
    across = axes @ matrix @ axes.T
    data, expected = theta[[0, 0, 1], [0, 1, 1]], across[[0, 0, 1], [0, 1, 1]]
    np.testing.assert_allclose(r2.rank_two_from_second_moment(data), expected, atol=1e-13)
    np.testing.assert_allclose(r2.second_moment_from_rank_two(expected), data, atol=1e-13)
    np.testing.assert_allclose(theta, across / 2 + np.trace(across) / 4 * np.eye(2), atol=1e-13)


def test_covariance_of_mapped_noise_and_its_inverse():
    rng = np.random.default_rng(1)
    root = rng.standard_normal((3, 3))
    covariance = root @ root.T
    noise = rng.standard_normal((400_000, 3)) @ root.T
    mapped = r2.map_covariance(covariance)
    np.testing.assert_allclose(np.cov(r2.rank_two_from_second_moment(noise).T), mapped, rtol=0.02, atol=0.05)
    np.testing.assert_allclose(r2.map_precision(np.linalg.inv(covariance)), np.linalg.inv(mapped), rtol=1e-9)
    back = r2.map_covariance(mapped, r2.SECOND_MOMENT_FROM_RANK_TWO)
    np.testing.assert_allclose(back, covariance, atol=1e-12)


def test_the_misfit_does_not_change_under_the_map():
    """dᵀPd is the same before and after: both forms of the data hold the same information."""
    rng = np.random.default_rng(2)
    d, root = rng.standard_normal(3), rng.standard_normal((3, 3))
    precision = root @ root.T
    mapped = r2.rank_two_from_second_moment(d)
    assert mapped @ r2.map_precision(precision) @ mapped == pytest.approx(d @ precision @ d)


def test_tensors_keep_dtype_batches_and_gradients():
    six = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    for function in (r2.to_matrix, r2.coefficients_from_tensor, r2.tensor_from_coefficients, r2.second_moment_tensor):
        assert torch.autograd.gradcheck(function, six)
        assert function(six.float()).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda m: r2.from_matrix(m), torch.randn(3, 3).double().requires_grad_())
    assert r2.map_covariance(torch.eye(3)).dtype == torch.float32
    assert r2.coefficients_from_tensor(torch.ones(6, dtype=torch.int64)).dtype == torch.float64


def test_tables_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        r2.COEFFICIENTS_FROM_TENSOR[0, 0] = 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: r2.to_matrix(np.ones(5)), "tensor"),
        (lambda: r2.from_matrix(np.ones((3, 2))), "matrix"),
        (lambda: r2.tensor_from_coefficients(np.ones(15)), "coefficients"),
        (lambda: r2.coefficients_from_tensor(np.array([1.0, 0, 0, np.inf, 0, 0])), "tensor"),
        (lambda: r2.second_moment_tensor(np.ones(5)), "coefficients"),
        (lambda: r2.second_moment_tensor(torch.tensor(1.0)), "coefficients"),
        (lambda: r2.rank_two_from_second_moment(np.ones((3, 2))), "data"),
        (lambda: r2.map_covariance(np.ones(3)), "covariance"),
        (lambda: r2.map_precision(np.eye(3), np.zeros((3, 3))), "linear_map"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()
