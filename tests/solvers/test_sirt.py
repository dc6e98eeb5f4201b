"""SIRT against the formula of the papers written with dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import wrap
from ddf_tomo.priors import L1, NonNegativeMean, PositiveDefinite
from ddf_tomo.solvers import Misfit, sirt
from ddf_tomo.solvers.sirt import scaling
from tests.operators.registry import RESPONSES, tensor, xray
from tests.solvers.test_optima import dense


def matrix_of(A):
    shape = [n or 1 for n in A.domain_shape]
    return A(torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)).flatten(1).T.numpy()


def safe_inverse(sums):
    return np.divide(1, sums, out=np.zeros_like(sums), where=sums > 1e-6 * sums.max())


X = xray(channels=1)
M = matrix_of(X)
Y = (M @ np.random.default_rng(0).uniform(0, 1, M.shape[1])).reshape(X.range_shape)


@pytest.mark.parametrize("relaxation", [1.0, 1.7])
def test_gilberts_method(relaxation):
    R, C, x, y = safe_inverse(M.sum(1)), safe_inverse(M.sum(0)), np.zeros(M.shape[1]), Y.ravel()
    # Columns as SIRT has them, of the rays that count: some but touch the volume.
    C = safe_inverse(M.T @ (R * M.sum(1)))
    for _ in range(7):
        x = np.maximum(x + relaxation * C * (M.T @ (R * (y - M @ x))), 0)
    found = sirt(X, Y, constraint=NonNegativeMean(), relaxation=relaxation, iterations=7)
    np.testing.assert_allclose(found.x.numpy().ravel(), x, atol=1e-12)


@pytest.mark.parametrize("weights", [None, 2.0])
def test_subsets_in_an_order_of_their_own_for_every_iteration(weights):
    x, y, rows = np.zeros(M.shape[1]), Y.reshape(3, -1), M.reshape(3, -1, M.shape[1])
    for iteration in (1, 2, 3):
        for view in np.random.default_rng((9, iteration)).permutation(3):
            part, lengths = rows[view], rows[view].sum(1)
            V = safe_inverse(lengths) if weights is None else np.full(len(lengths), weights)
            x = x + safe_inverse(part.T @ (V * lengths)) * (part.T @ (V * (y[view] - part @ x)))
    found = sirt(X, Y, weights=weights, subsets=3, seed=9, iterations=3)
    np.testing.assert_allclose(found.x.numpy().ravel(), x, atol=1e-12)
    assert not torch.allclose(found.x, sirt(X, Y, weights=weights, subsets=3, seed=8, iterations=3).x)


def test_subsets_are_as_many_times_quicker():
    plain, subsets = sirt(X, Y, iterations=12).residuals, sirt(X, Y, iterations=4, subsets=3).residuals
    assert subsets[-1] < 0.8 * plain[4]
    assert subsets[-1] < 1.5 * plain[-1]


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("kind", [None, "scalar", "per channel"])
def test_steps_fit_the_response(name, kind):
    """``|V^(1/2) A C^(1/2)|`` is 1, so that steps up to 2 converge: harmonics of both signs included."""
    A = tensor(name)
    y = torch.from_numpy(np.random.default_rng(0).normal(size=A.range_shape))
    weights = {None: None, "scalar": 3.0, "per channel": torch.linspace(0.2, 2, A.range_shape[-1])}[kind]
    V, C = scaling(Misfit(A, y, weights), A.T(y), iterations=60)
    left, right = V.broadcast_to(A.range_shape).sqrt(), C.broadcast_to(A.domain_shape).sqrt()
    norm = np.linalg.norm(left.numpy().ravel()[:, None] * matrix_of(A) * right.numpy().ravel(), 2)
    assert norm == pytest.approx(1, abs=0.02)
    residuals = sirt(A, y, weights=weights, iterations=40, relaxation=1.5).residuals
    assert residuals[-1] < residuals[0]


def test_coefficients_turn_with_the_sample():
    """All coefficients of a voxel take the same step, so that none of the axes of harmonics is preferred."""
    A = tensor("saxs")
    V, C = scaling(Misfit(A, torch.ones(A.range_shape)), torch.ones(A.domain_shape))
    assert C.shape == (*A.domain_shape[:3], 1)
    assert torch.equal(V, V[..., :1].expand_as(V))


def test_operators_of_both_signs():
    matrix = np.random.default_rng(0).normal(size=(40, 9))
    y = np.random.default_rng(1).normal(size=40)
    A = dense(matrix, (9,))
    assert scaling(Misfit(A, y), torch.zeros(9, dtype=torch.float64)).C.shape == ()
    expected = np.linalg.lstsq(matrix, y, rcond=None)[0]
    np.testing.assert_allclose(sirt(A, y, iterations=500, tolerance=1e-13).x, expected, atol=1e-9)


def test_voxels_that_no_ray_meets_stay():
    blind = wrap((lambda x: x[:3], lambda y: torch.cat([y, 0 * y[:1]])), (4,), (3,))
    assert sirt(blind, np.ones(3), x0=np.full(4, 5.0), iterations=30).x.tolist() == pytest.approx([1, 1, 1, 5])


BAD = [
    ({"relaxation": 2.0}, ValueError, r"^relaxation: expected a finite number"),
    ({"relaxation": 0}, ValueError, r"^relaxation: expected a finite number"),
    ({"subsets": 4}, ValueError, r"^subsets: expected an integer in \[1, 3\], got 4"),
    ({"seed": -1}, ValueError, r"^seed: expected an integer"),
    ({"constraint": L1()}, ValueError, r"^constraint: expected one on the numbers of a voxel, got .*L1"),
    ({"constraint": "positive"}, TypeError, r"^constraint: expected a Functional or None, got str"),
    ({"constraint": PositiveDefinite()}, ValueError, r"^constraint: expected one on"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_input_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        sirt(X, Y, **arguments)


def test_an_operator_without_views_has_no_subsets():
    with pytest.raises(TypeError, match="has no views to choose from"):
        sirt(dense(np.eye(4), (4,)), np.ones(4), subsets=2)
