"""Harmonics against SciPy, MUMOTT and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import sph_harm_y

from ddf_tomo.operators import spherical_harmonics as sh


def random_directions(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def special_directions() -> np.ndarray:
    axes = np.vstack([np.eye(3), -np.eye(3)])
    near_pole = np.array([[1e-9, -2e-9, 1.0], [1e-200, 0.0, -1.0]])
    return np.vstack([random_directions(300), axes, near_pole])


def scipy_values(directions: np.ndarray, ell_max: int) -> np.ndarray:
    """Complex harmonics of SciPy turned real, without its (−1)^m, with a mean square of 1."""
    polar = np.arctan2(np.hypot(directions[:, 0], directions[:, 1]), directions[:, 2])
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for ell, m in zip(*sh.orders(ell_max), strict=True):
        value = np.sqrt(4 * np.pi) * (-1.0) ** m * sph_harm_y(ell, abs(m), polar, azimuth)
        columns.append(value.real if m == 0 else np.sqrt(2) * (value.real if m > 0 else value.imag))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("ell_max", [0, 2, 4, 8, 16, 32])
def test_equal_to_scipy(ell_max):
    directions = special_directions()
    values = sh.evaluate(directions, ell_max)
    expected = scipy_values(directions, ell_max)
    assert values.shape == (len(directions), sh.coefficient_count(ell_max))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12 * max(1, ell_max / 16))


@pytest.mark.parametrize("ell_max", [2, 8, 16])
def test_equal_to_mumott(ell_max):
    basis_sets = pytest.importorskip("mumott.methods.basis_sets")
    from mumott import ProbedCoordinates

    directions = special_directions()
    basis = basis_sets.SphericalHarmonics(
        ell_max=ell_max, probed_coordinates=ProbedCoordinates(directions.reshape(-1, 1, 1, 3))
    )
    assert np.array_equal(basis.ell_indices, sh.orders(ell_max)[0])
    assert np.array_equal(basis.emm_indices, sh.orders(ell_max)[1])
    values = sh.evaluate(directions, ell_max)
    # MUMOTT takes Legendre functions of z, which lose half the digits at the poles (√(1 − z²)): compare away from them.
    away = np.hypot(directions[:, 0], directions[:, 1]) > 0.05
    np.testing.assert_allclose(values[away], basis.projection_matrix[away, 0], rtol=0, atol=2e-12)


def test_polynomials_of_order_two_written_out():
    x, y, z = random_directions(50).T
    a, b = np.sqrt(15), np.sqrt(5)
    expected = np.stack([x**0, a * x * y, a * y * z, b / 2 * (3 * z**2 - 1), a * x * z, a / 2 * (x**2 - y**2)], 1)
    np.testing.assert_allclose(sh.evaluate(np.stack([x, y, z], 1), 2), expected, atol=1e-14)


def test_orthonormal_in_the_mean_over_the_sphere():
    directions, weights = sh.sphere_quadrature(32)
    values = sh.evaluate(directions, 16)
    np.testing.assert_allclose(values.T @ (weights[:, None] * values), np.eye(values.shape[1]), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 4, 7, 12])
def test_quadrature_is_exact_up_to_its_degree_and_no_further(degree):
    directions, weights = sh.sphere_quadrature(degree)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    for power in range(degree + 1):
        moment = weights @ directions**power
        np.testing.assert_allclose(moment, 0 if power % 2 else 1 / (power + 1), atol=1e-14)
    even_beyond = 2 * (degree // 2) + 2
    assert abs(weights @ directions[:, 2] ** even_beyond - 1 / (even_beyond + 1)) > 1e-8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10).map(lambda n: 2 * n), st.integers(0, 1000), st.floats(1e-300, 1e300))
def test_only_the_line_of_a_direction_matters(ell_max, seed, length):
    directions = random_directions(5, seed)
    expected = sh.evaluate(directions, ell_max)
    np.testing.assert_allclose(sh.evaluate(-length * directions, ell_max), expected, atol=1e-11)


@pytest.mark.parametrize("pole", [[0.0, 0.0, 1.0], [0.0, 0.0, -2.0], [1.0, 0.0, 0.0], [0.3, -0.2, 0.9]])
def test_gradients_to_second_order_at_the_poles_too(pole):
    directions = torch.tensor([pole], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: sh.evaluate(q, 6), directions)
    assert torch.autograd.gradgradcheck(lambda q: sh.evaluate(q, 4), directions)


def test_gradient_at_the_pole_written_out():
    jacobian = torch.func.jacrev(lambda q: sh.evaluate(q, 2))(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    expected = torch.zeros(6, 3, dtype=torch.float64)
    expected[2, 1] = expected[4, 0] = np.sqrt(15)  # √15 yz and √15 xz
    torch.testing.assert_close(jacobian, expected)


def test_tensors_keep_dtype_and_batches_and_work_under_vmap_and_compile():
    directions = torch.from_numpy(random_directions(12)).reshape(3, 4, 3)
    expected = sh.evaluate(directions, 4)
    assert sh.evaluate(directions.float(), 4).dtype == torch.float32
    torch.testing.assert_close(sh.evaluate(directions.float(), 4).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.vmap(lambda q: sh.evaluate(q, 4))(directions), expected)
    assert sh.evaluate(torch.tensor([0, 0, 1]), 2).dtype == torch.float64
    compiled = torch.compile(lambda q: sh.evaluate(q, 4), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(directions), expected)


def test_a_zero_vector_is_refused_in_arrays_and_gives_the_mean_in_tensors():
    with pytest.raises(ValueError, match="non-zero length"):
        sh.evaluate(np.zeros((2, 3)), 2)
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    values = sh.evaluate(zero, 4)
    assert values.tolist() == [1.0] + [0.0] * 14
    assert torch.isfinite(torch.autograd.grad(values.sum(), zero)[0]).all()


def test_half_sphere_grid_is_even():
    grid = sh.half_sphere_grid(400)
    np.testing.assert_allclose(np.linalg.norm(grid, axis=1), 1)
    assert (grid[:, 2] > 0).all()
    spacing = np.sqrt(2 * np.pi / 400)
    neighbour = np.arccos(np.sort(grid @ grid.T, axis=1)[:, -2])
    assert neighbour.min() > 0.85 * spacing
    farthest_hole = np.arccos(np.abs(random_directions(20_000) @ grid.T).max(axis=1)).max()
    assert farthest_hole < 0.8 * spacing
    assert sh.half_sphere_grid(1).shape == (1, 3)


@pytest.mark.parametrize("count", [100, 400, 1600])
def test_mean_over_the_grid_converges_as_its_count(count):
    mean = sh.evaluate(sh.half_sphere_grid(count), 8).mean(axis=0)
    assert mean[0] == pytest.approx(1)
    assert np.abs(mean[1:]).max() < 8 / count


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4).map(lambda n: 2 * n), st.integers(0, 100))
def test_projection_and_fit_recover_coefficients(ell_max, seed):
    truth = np.random.default_rng(seed).standard_normal((2, sh.coefficient_count(ell_max)))
    projected = sh.from_function(lambda q: truth @ sh.evaluate(q, ell_max).T, ell_max)
    np.testing.assert_allclose(projected, truth, atol=1e-12)
    grid = sh.half_sphere_grid(3 * truth.shape[1])
    np.testing.assert_allclose(sh.fit(grid, truth @ sh.evaluate(grid, ell_max).T, ell_max), truth, atol=1e-9)


def test_projection_of_a_peak_against_its_closed_form():
    """The mean of exp(κ z²) Y_ℓ0, by adaptive integration over z."""
    from scipy.integrate import quad
    from scipy.special import eval_legendre

    found = sh.from_function(lambda q: np.exp(20 * q[:, 2] ** 2 - 20), 8, degree=120)
    for ell in range(0, 9, 2):
        expected = quad(lambda z, ell=ell: np.exp(20 * z**2 - 20) * eval_legendre(ell, z), 0, 1, epsabs=1e-14)[0]
        index = sh.coefficient_count(ell) - ell - 1
        assert found[index] == pytest.approx(np.sqrt(2 * ell + 1) * expected, abs=1e-13)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3).map(lambda n: 2 * n), st.integers(0, 3).map(lambda n: 2 * n), st.integers(0, 100))
def test_product_agrees_with_pointwise_product(ell_1, ell_2, seed):
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((3, 1, sh.coefficient_count(ell_1)))
    second = rng.standard_normal((2, sh.coefficient_count(ell_2)))
    product = sh.multiply(first, second)
    assert product.shape == (3, 2, sh.coefficient_count(ell_1 + ell_2))
    q = random_directions(20, seed)
    expected = (first @ sh.evaluate(q, ell_1).T) * (second @ sh.evaluate(q, ell_2).T)
    np.testing.assert_allclose(product @ sh.evaluate(q, ell_1 + ell_2).T, expected, atol=1e-10)
    np.testing.assert_allclose(sh.multiply(first, second, 2), sh.resize(product, 2), atol=1e-12)


def test_product_is_differentiable():
    first, second = (torch.randn(2, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(sh.multiply, (first, second))
    assert sh.multiply(first.float(), second.float()).dtype == torch.float32


def test_known_gaunt_coefficient():
    """Y₂₀² = 1 + (2√5/7) Y₂₀ + (6/7) Y₄₀ in this normalisation."""
    product = sh.multiply(np.eye(6)[3], np.eye(6)[3])
    expected = np.zeros(15)
    expected[[0, 3, 10]] = 1, 2 * np.sqrt(5) / 7, 6 / 7
    np.testing.assert_allclose(product, expected, atol=1e-13)


def test_power_is_the_mean_square_of_each_order():
    coefficients = np.random.default_rng(3).standard_normal((2, 15))
    directions, weights = sh.sphere_quadrature(8)
    ell = sh.orders(4)[0]
    for index, order in enumerate((0, 2, 4)):
        values = np.where(ell == order, coefficients, 0) @ sh.evaluate(directions, 4).T
        np.testing.assert_allclose(sh.power(coefficients)[:, index], values**2 @ weights)
    assert sh.power(torch.ones(3, 6)).shape == (3, 2)


def test_resize_pads_and_cuts():
    coefficients = torch.arange(6.0)
    assert torch.equal(sh.resize(sh.resize(coefficients, 6), 2), coefficients)
    assert sh.resize(np.arange(6.0), 0).tolist() == [0.0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: sh.evaluate(np.ones((4, 2)), 2), ValueError, "directions"),
        (lambda: sh.evaluate(torch.ones(2), 2), ValueError, "directions"),
        (lambda: sh.evaluate(1.0, 2), ValueError, "directions"),
        (lambda: sh.evaluate(np.full(3, np.nan), 2), ValueError, "directions"),
        (lambda: sh.evaluate(np.ones(3), 3), ValueError, "even order"),
        (lambda: sh.evaluate(np.ones(3), 34), ValueError, "ell_max"),
        (lambda: sh.evaluate(np.ones(3), 2.5), ValueError, "ell_max"),
        (lambda: sh.order_of(7), ValueError, "coefficients"),
        (lambda: sh.order_of(3), ValueError, "coefficients"),
        (lambda: sh.order_of(0), ValueError, "coefficients"),
        (lambda: sh.power(np.ones(5)), ValueError, "coefficients"),
        (lambda: sh.power(np.float64(1)), ValueError, "a scalar"),
        (lambda: sh.resize(np.ones(5), 2), ValueError, "coefficients"),
        (lambda: sh.multiply(np.ones(6), np.ones(4)), ValueError, "second"),
        (lambda: sh.half_sphere_grid(0), ValueError, "count"),
        (lambda: sh.sphere_quadrature(-1), ValueError, "degree"),
        (lambda: sh.from_function(lambda q: q, 2), ValueError, "values of function"),
        (lambda: sh.evaluate(torch.ones(3, dtype=torch.complex64), 2), TypeError, "directions: expected real"),
        (lambda: sh.power(torch.ones(6, dtype=torch.complex64)), TypeError, "coefficients: expected real"),
        (lambda: sh.multiply(torch.ones(6), 1j * torch.ones(6)), TypeError, "second: expected real"),
        (lambda: sh.fit(np.ones((4, 3)), np.ones(5), 2), ValueError, "values"),
    ],
)
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_empty_input():
    assert sh.evaluate(np.empty((0, 3)), 4).shape == (0, 15)
    assert sh.evaluate(torch.empty(0, 3), 4).shape == (0, 15)
    assert sh.power(np.empty((0, 15))).shape == (0, 3)
