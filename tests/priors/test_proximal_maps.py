"""Proximal maps against numerical minimisation by SciPy; and what is particular to each prior."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo import check_adjoint
from ddf_tomo.operators.rank_two import from_matrix, to_matrix
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.priors import (
    L1,
    ChannelMatrix,
    Differences,
    GroupSparsity,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    TotalVariation,
)
from ddf_tomo.solvers import fista

SEEDS = st.integers(0, 500)
FEW = settings(max_examples=20)


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def lowest(prior, z, step):
    """``argmin value + |u - z|²/(2 step)``, by SciPy without derivatives, from where it is differentiable."""

    def objective(u):
        tensor = torch.from_numpy(u.reshape(z.shape))
        return float(prior.value(tensor)) + np.sum((u.reshape(z.shape) - z) ** 2) / (2 * step)

    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 3000, "maxfev": 3000, "adaptive": True}
    return scipy.optimize.minimize(objective, 0.5 * z.ravel(), method="Nelder-Mead", options=options)


NORMS = {
    "L1": (L1, 3),
    "groups": (GroupSparsity, 3),
    "groups without mean": (lambda: GroupSparsity(leave_out_mean=True), 4),
    "groups of orders": (lambda: GroupSparsity(per_order=True), 6),
}


@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=6)
@given(SEEDS, st.sampled_from([0.2, 1.0]))
def test_norms_against_scipy(name, seed, step):
    make, count = NORMS[name]
    prior, z = make(), noise(seed, count)
    u = prior.proximal(torch.from_numpy(z), step)
    found = float(prior.value(u)) + float((u - torch.from_numpy(z)).square().sum()) / (2 * step)
    other = lowest(prior, z, step)
    assert found <= other.fun + 1e-9
    if other.fun < found + 1e-10:  # where SciPy arrived, at the same point (strong convexity)
        np.testing.assert_allclose(u, other.x.reshape(z.shape), atol=1e-4)


@FEW
@given(SEEDS, st.sampled_from([0.2, 1.0]))
def test_total_variation_against_scipy(seed, step):
    """One voxel's differences: three numbers with one norm."""
    z = noise(seed, 3)
    prior = TotalVariation((1, 1, 1))
    found = prior.proximal(torch.from_numpy(z).reshape(3, 1, 1, 1, 1), step).numpy().ravel()
    norm = np.linalg.norm(z)
    length = scipy.optimize.minimize_scalar(
        lambda t: t + (t - norm) ** 2 / (2 * step), bounds=(0, norm), method="bounded", options={"xatol": 1e-12}
    ).x
    np.testing.assert_allclose(found, z * length / norm, atol=1e-6)


@FEW
@given(SEEDS)
def test_nearest_positive_tensor_against_scipy(seed):
    """Over all ``F Fᵀ``, in the Frobenius norm."""
    six = noise(seed, 6)
    matrix = to_matrix(torch.from_numpy(six))
    prior = PositiveDefinite()
    scaled = prior.proximal(prior.operator(torch.from_numpy(six).reshape(1, 1, 1, 6)), 1.0)
    found = to_matrix(scaled.flatten() / prior.operator.matrix.diagonal())

    def distance(factor):
        factor = torch.from_numpy(factor.reshape(3, 3)).requires_grad_()
        value = (factor @ factor.T - matrix).square().sum()
        (slope,) = torch.autograd.grad(value, factor)
        return float(value.detach()), slope.numpy().ravel()

    starts = noise(1, 4, 9)
    best = min(scipy.optimize.minimize(distance, start, jac=True, options={"gtol": 1e-9}).fun for start in starts)
    assert float((found - matrix).square().sum()) == pytest.approx(best, abs=1e-8)
    assert torch.linalg.eigvalsh(found).min() > -1e-12


@FEW
@given(SEEDS, st.sampled_from([1, 2, 3]))
def test_tensors_inside_are_left_as_they_are(seed, rank):
    factor = torch.from_numpy(noise(seed, 5, 1, 1, 3, rank))
    six = from_matrix(factor @ factor.mT)
    torch.testing.assert_close(
        PositiveDefinite(scaled=True).proximal(_scaled(six), 1.0), _scaled(six), atol=1e-9, rtol=0
    )


def _scaled(six):
    return PositiveDefinite().operator(six)


def test_in_six_plain_numbers_the_projection_would_be_another():
    """Eigenvalues set to zero without the √2 do not give the nearest point of the six numbers; with it they do."""
    six = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64).reshape(1, 1, 1, 6)
    prior = PositiveDefinite()
    same = ChannelMatrix(np.eye(6))
    nearest = fista(same, six, regularisers=prior, iterations=300, inner_iterations=50).x
    z = prior.operator(six)
    clipped = prior.proximal(z, 1.0) / prior.operator.matrix.diagonal()
    assert float((clipped - six).norm()) > float((nearest - six).norm()) + 1e-3
    assert torch.linalg.eigvalsh(to_matrix(nearest)).min() > -1e-8


def test_not_negative_mean():
    z = torch.tensor([[-1.0, -2.0, 3.0], [2.0, 0.0, -1.0]])
    assert NonNegativeMean().proximal(z, 1.0).tolist() == [[0.0, -2.0, 3.0], [2.0, 0.0, -1.0]]


@pytest.mark.parametrize("ell_max", [0, 2, 4, 8])
def test_values_on_the_sphere(ell_max):
    """The operator gives values over the root of their number; its norm is about 1, as that of harmonics is."""
    prior = NonNegativeFunction(ell_max)
    count = len(prior.grid)
    assert count == 4 * (ell_max + 1) * (ell_max + 2) // 2
    c = noise(0, 2, 3, 1, (ell_max + 1) * (ell_max + 2) // 2)
    values = np.einsum("qc,xyzc->xyzq", evaluate(prior.grid, ell_max), c)
    np.testing.assert_allclose(prior.operator(c) * count**0.5, values, atol=1e-12)
    singular = np.linalg.svd(prior.operator.matrix, compute_uv=False)
    assert 0.8 < singular.min() <= singular.max() < 1.2


@pytest.mark.parametrize("ell_max", [2, 4])
def test_between_the_directions_little_is_negative(ell_max):
    """The nearest admissible function of a negative one, seen on a much finer grid, and after a rotation."""
    c = torch.from_numpy(noise(3, 6, 1, 1, (ell_max + 1) * (ell_max + 2) // 2))
    same = ChannelMatrix(np.eye(c.shape[-1]))
    fine = torch.from_numpy(evaluate(half_sphere_grid(5000), ell_max))
    dips = []
    for directions in (30, 120, 480):
        prior = NonNegativeFunction(ell_max, directions)
        x = fista(same, c, regularisers=prior, iterations=2, inner_iterations=1000, progress=False).x
        assert prior.operator(x).min() > -1e-4
        dips.append(-float((x @ fine.T).min()) / float(x.norm(dim=-1).max()))
        turned = rotate(x, Rotation.random(random_state=0).as_matrix())
        assert -float((turned @ fine.T).min()) / float(x.norm(dim=-1).max()) < 1.2 * dips[-1] + 1e-3
    assert dips[0] < 0.3
    assert dips[2] < 0.02 < dips[0]


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 1), (3, 5, 2), (7, 7, 7)])
def test_the_norm_of_differences_in_closed_form(shape):
    D = Differences(shape)
    unit = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape, 1)
    assert D.norm() == pytest.approx(float(torch.linalg.matrix_norm(D(unit).flatten(1), 2)), abs=1e-12)


def test_a_matrix_in_every_voxel():
    matrix = noise(0, 4, 6)
    M = ChannelMatrix(matrix)
    check_adjoint(M @ ChannelMatrix(np.eye(6)), torch.float64)
    x = noise(1, 2, 3, 4, 6)
    np.testing.assert_allclose(M(x), x @ matrix.T)
    assert M(x.astype(np.float32)).dtype == np.float32
    assert M.norm() == pytest.approx(np.linalg.norm(matrix, 2))
    D = Differences((2, 3, 4)) @ M
    assert (D.domain_shape, D.range_shape) == ((2, 3, 4, 6), (3, 2, 3, 4, 4))
    check_adjoint(D, torch.float64)


BAD = [
    (lambda: L1(smoothing=-1), ValueError, r"^smoothing: expected"),
    (lambda: GroupSparsity(per_order="yes"), TypeError, r"^per_order: expected True or False"),
    (lambda: GroupSparsity(leave_out_mean=1), TypeError, r"^leave_out_mean: expected True or False"),
    (lambda: GroupSparsity(smoothing="x"), TypeError, r"^smoothing: expected"),
    (lambda: GroupSparsity(per_order=True)(torch.ones(1, 1, 1, 7)), ValueError, r"^coefficients: expected 1, 6, 15"),
    (lambda: NonNegativeFunction(3), ValueError, r"^ell_max: expected an even order"),
    (lambda: NonNegativeFunction(2, 0), ValueError, r"^directions: expected an integer"),
    (lambda: NonNegativeFunction(2).apply(torch.ones(1, 1, 1, 7)), ValueError, r"^x: expected shape"),
    (lambda: PositiveDefinite(scaled=2), TypeError, r"^scaled: expected True or False"),
    (lambda: PositiveDefinite(scaled=True).proximal(torch.ones(2, 5), 1.0), ValueError, r"^z \(last axis\): expected"),
    (lambda: ChannelMatrix(np.ones(3)), ValueError, r"^matrix: expected shape"),
    (lambda: ChannelMatrix([[np.nan]]), ValueError, r"^matrix: expected finite"),
]


@pytest.mark.parametrize(("make", "error", "text"), BAD)
def test_bad_input_is_named(make, error, text):
    with pytest.raises(error, match=text):
        make()
