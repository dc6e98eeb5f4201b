"""Rotated coefficients against rotated evaluation and the group's own rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo.operators.rotation import rotate, wigner_blocks
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, half_sphere_grid, power

even_orders = st.integers(0, 5).map(lambda n: 2 * n)
seeds = st.integers(0, 10_000)


def random_case(ell_max: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first, second = Rotation.random(2, rng=rng).as_matrix()
    return rng.standard_normal(coefficient_count(ell_max)), first, second


@settings(deadline=None, max_examples=40)
@given(even_orders, seeds)
def test_agrees_with_rotated_evaluation(ell_max, seed):
    coefficients, matrix, _ = random_case(ell_max, seed)
    grid = half_sphere_grid(30)
    expected = evaluate(grid @ matrix, ell_max) @ coefficients  # f(Rᵀ q)
    np.testing.assert_allclose(evaluate(grid, ell_max) @ rotate(coefficients, matrix), expected, atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(even_orders, seeds)
def test_composition_inverse_identity_and_power(ell_max, seed):
    coefficients, first, second = random_case(ell_max, seed)
    turned = rotate(coefficients, first)
    np.testing.assert_allclose(rotate(turned, second), rotate(coefficients, second @ first), atol=1e-11)
    np.testing.assert_allclose(rotate(turned, first.T), coefficients, atol=1e-11)
    np.testing.assert_allclose(rotate(coefficients, np.eye(3)), coefficients, atol=1e-11)
    np.testing.assert_allclose(power(turned), power(coefficients), rtol=1e-10)


def test_what_pointed_along_q_points_along_rq():
    along_x = evaluate(np.array([1.0, 0, 0]), 8)  # a peak along x
    matrix = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(rotate(along_x, matrix), evaluate(np.array([0, 1.0, 0]), 8), atol=1e-11)


def test_turn_about_z_by_its_closed_form():
    """About z, (cos mα) and (sin mα) mix ±m and nothing else."""
    angle = 0.7
    block = wigner_blocks(Rotation.from_euler("z", angle).as_matrix(), 6)[3].numpy()
    m = np.arange(-6, 7)
    expected = np.diag(np.cos(m * angle)) + np.diag(np.sin(np.abs(m) * angle) * np.sign(-m))[:, ::-1]
    np.testing.assert_allclose(block, expected, atol=1e-12)


@pytest.mark.parametrize("ell_max", [16, 32])
def test_blocks_are_orthogonal_at_high_order(ell_max):
    for block in wigner_blocks(Rotation.random(3, rng=5).as_matrix(), ell_max):
        eye = torch.eye(block.shape[-1], dtype=torch.float64).expand_as(block)
        torch.testing.assert_close(block @ block.mT, eye, atol=1e-11, rtol=0)


def test_batches_broadcast_and_dtypes_are_kept():
    matrices = Rotation.random(4, rng=1).as_matrix()
    coefficients = np.random.default_rng(2).standard_normal((5, 1, 15))
    turned = rotate(coefficients, matrices)
    assert turned.shape == (5, 4, 15)
    np.testing.assert_allclose(turned[2, 3], rotate(coefficients[2, 0], matrices[3]), atol=1e-12)
    single = rotate(torch.from_numpy(coefficients).float(), torch.from_numpy(matrices))
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), turned, atol=1e-5)
    np.testing.assert_allclose(rotate(coefficients, torch.from_numpy(matrices)), turned)
    np.testing.assert_allclose(torch.vmap(lambda c: rotate(c, matrices))(torch.from_numpy(coefficients)), turned)


def test_mirror_images_are_rotations_of_even_functions():
    coefficients, matrix, _ = random_case(4, 9)
    np.testing.assert_allclose(rotate(coefficients, -matrix), rotate(coefficients, matrix), atol=1e-12)


def test_gradients_in_coefficients_and_angle():
    coefficients = torch.randn(15, dtype=torch.float64, requires_grad=True)
    angle = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def turned(c, a):
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        rows = [torch.stack(row) for row in ((a.cos(), -a.sin(), zero), (a.sin(), a.cos(), zero), (zero, zero, one))]
        return rotate(c, torch.stack(rows))

    assert torch.autograd.gradcheck(turned, (coefficients, angle))


@pytest.mark.parametrize(
    ("coefficients", "matrix", "text"),
    [
        (np.ones(6), 2 * np.eye(3), "rotation"),
        (np.ones(6), np.eye(2), "rotation"),
        (np.ones(6), np.stack([np.eye(3)] * 1000 + [np.eye(3) * 1.001]), "rotation"),
        (torch.ones(6), torch.full((3, 3), torch.nan), "rotation"),
        (np.ones(7), np.eye(3), "coefficients"),
        (torch.tensor(1.0), np.eye(3), "coefficients"),
    ],
)
def test_bad_input_is_named(coefficients, matrix, text):
    with pytest.raises(ValueError, match=text):
        rotate(coefficients, matrix)


def test_integers_become_floats_and_complex_numbers_are_refused():
    matrix = Rotation.random(rng=3).as_matrix()
    turned = rotate(torch.ones(6, dtype=torch.int64), matrix)
    torch.testing.assert_close(turned, rotate(torch.ones(6, dtype=torch.float64), matrix))
    with pytest.raises(TypeError, match="coefficients: expected real"):
        rotate(torch.ones(6, dtype=torch.complex64), matrix)
    with pytest.raises(TypeError, match="rotation: expected real"):
        rotate(torch.ones(6), torch.eye(3, dtype=torch.complex64))


def test_empty_batch():
    assert rotate(np.ones(6), np.empty((0, 3, 3))).shape == (0, 6)
