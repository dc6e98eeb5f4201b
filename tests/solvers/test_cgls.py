"""Conjugate gradients against dense least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo import LinearOperator, wrap
from ddf_tomo.priors import Differences
from ddf_tomo.solvers import cgls
from tests.operators.registry import tensor, xray
from tests.solvers import registry

GENERATOR = np.random.default_rng(0)
MATRIX, WIDE = GENERATOR.normal(size=(20, 7)), GENERATOR.normal(size=(5, 9))
Y = GENERATOR.normal(size=20)
PENALTY = np.diff(np.eye(7), axis=0)


def operator(matrix) -> LinearOperator:
    matrix = torch.as_tensor(matrix)
    return wrap((lambda x: matrix.to(x) @ x, lambda y: matrix.T.to(y) @ y), matrix.shape[1:], matrix.shape[:1])


A = operator(MATRIX)


def exact(matrix, y, weights=1.0, tikhonov=0.0, penalty=None):
    """Stacked least squares, by numpy's singular values."""
    root = np.sqrt(np.broadcast_to(weights, y.shape))
    rows = np.sqrt(tikhonov) * (np.eye(matrix.shape[1]) if penalty is None else penalty)
    return np.linalg.lstsq(
        np.concatenate([root[:, None] * matrix, rows]), np.concatenate([root * y, np.zeros(len(rows))])
    )[0]


@given(
    st.sampled_from([None, 2.5, "per datum"]),
    st.sampled_from([0.0, 0.1, 30.0]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 50),
)
def test_solution_is_that_of_dense_least_squares(weights, tikhonov, with_penalty, with_start, seed):
    generator = np.random.default_rng(seed)
    matrix, y = generator.normal(size=(20, 7)), generator.normal(size=20)
    weights = generator.uniform(0.1, 3, 20) if isinstance(weights, str) else weights
    solution = cgls(
        operator(matrix),
        y,
        weights=weights,
        tikhonov=tikhonov,
        penalty=operator(PENALTY) if with_penalty else None,
        x0=generator.normal(size=7) if with_start else None,
        iterations=30,
        tolerance=1e-14,
        progress=False,
    )
    expected = exact(matrix, y, 1 if weights is None else weights, tikhonov, PENALTY if with_penalty else None)
    np.testing.assert_allclose(solution.x.numpy(), expected, atol=1e-9)
    residual = np.linalg.norm(np.sqrt(1 if weights is None else weights) * (matrix @ expected - y))
    assert solution.residuals[-1] == pytest.approx(residual, rel=1e-9)
    assert solution.iterations == len(solution.residuals) - 1 <= 30


def test_the_shortest_of_many_solutions_as_lsqr():
    y = np.arange(5.0)
    solution = cgls(operator(WIDE), y, iterations=50, tolerance=1e-14)
    np.testing.assert_allclose(solution.x, np.linalg.lstsq(WIDE, y)[0], atol=1e-9)
    np.testing.assert_allclose(
        solution.x, scipy.sparse.linalg.lsqr(operator(WIDE).to_scipy(np.float64), y, atol=0, btol=0)[0], atol=1e-7
    )
    assert solution.stopped_by == "convergence"


def test_a_real_problem_as_lsqr():
    """Iterates of the two are the same in exact arithmetic: compared after 12, with damping."""
    T = tensor()
    y = T(torch.randn(T.domain_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    found = cgls(T, y, tikhonov=0.3, iterations=12)
    expected = scipy.sparse.linalg.lsqr(
        T.to_scipy(np.float64), y.numpy().ravel(), damp=np.sqrt(0.3), iter_lim=12, atol=0, btol=0, conlim=0
    )[0]
    np.testing.assert_allclose(found.x.numpy().ravel(), expected, atol=1e-8)
    assert found.iterations == 12
    assert found.stopped_by == "iterations"


def test_masked_data_may_be_anything():
    y, weights = Y.copy(), np.ones(20)
    y[[3, 8, 11]], weights[[3, 8, 11]] = [np.nan, np.inf, 1e300], 0
    solution = cgls(A, y, weights=weights, iterations=30, tolerance=1e-14)
    np.testing.assert_allclose(solution.x, exact(np.delete(MATRIX, [3, 8, 11], 0), np.delete(Y, [3, 8, 11])), atol=1e-9)


@pytest.mark.parametrize("start", [None, np.ones(7)])
def test_history(start):
    seen = []
    solution = cgls(A, Y, x0=start, iterations=6, callback=lambda i, x, r: seen.append((i, x.clone(), r)))
    assert [i for i, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert solution.residuals[0] == pytest.approx(np.linalg.norm(Y - (0 if start is None else MATRIX @ start)))
    for (_, x, residual), noted in zip(seen, solution.residuals[1:], strict=True):
        assert residual == noted == pytest.approx(np.linalg.norm(MATRIX @ x.numpy() - Y), rel=1e-9)
    assert all(np.diff(solution.residuals) < 0)  # never up, as conjugate gradients promise
    torch.testing.assert_close(solution.x, seen[-1][1])


def test_it_stops_at_the_noise_level():
    level = 0.5 * (np.linalg.norm(Y) + np.linalg.norm(MATRIX @ exact(MATRIX, Y) - Y))
    solution = cgls(A, Y, noise_level=level)
    assert solution.stopped_by == "noise level"
    assert solution.residuals[-1] <= level < solution.residuals[-2]
    already = cgls(A, Y, noise_level=100.0)
    assert (already.stopped_by, already.iterations) == ("noise level", 0)
    assert not already.x.any()
    kept = cgls(A, Y, noise_level=100.0, x0=np.ones(7))
    assert kept.x.tolist() == [1.0] * 7


def test_the_noise_level_is_weighted():
    weights = np.full(20, 4.0)
    free = cgls(A, Y, weights=weights, iterations=3)
    assert free.residuals[0] == pytest.approx(2 * np.linalg.norm(Y))
    assert cgls(A, Y, weights=weights, noise_level=free.residuals[2]).iterations == 2


def test_it_stops_when_told():
    solution = cgls(A, Y, callback=lambda i, x, r: i == 2)
    assert (solution.stopped_by, solution.iterations) == ("callback", 2)


def test_it_stops_when_converged():
    loose, tight = (cgls(A, Y, tolerance=tolerance, iterations=100) for tolerance in (1e-1, 1e-12))
    assert loose.stopped_by == tight.stopped_by == "convergence"
    assert loose.iterations < tight.iterations <= 10
    gradient = MATRIX.T @ (MATRIX @ tight.x.numpy() - Y)
    assert np.linalg.norm(gradient) < 1e-11 * np.linalg.norm(MATRIX.T @ Y)


def test_nothing_to_do():
    assert cgls(A, 0 * Y).stopped_by == "convergence"
    assert not cgls(A, 0 * Y).x.any()
    unseen = cgls(operator(np.zeros((3, 2))), np.ones(3))
    assert (unseen.stopped_by, unseen.x.tolist()) == ("convergence", [0.0, 0.0])
    assert cgls(A, Y, iterations=0).stopped_by == "iterations"
    started = cgls(operator(np.zeros((3, 2))), np.ones(3), x0=np.ones(2))
    assert started.x.tolist() == [1.0, 1.0]


class Rejected(LinearOperator):
    """An operator whose adjoint is none: it answers, but nothing it answers is seen again."""

    domain_shape, range_shape = (2,), (2,)

    def _apply(self, x):
        return 0 * x

    def _apply_adjoint(self, y):
        return y


def test_without_curvature_it_stays_where_it_is():
    solution = cgls(Rejected(), np.ones(2))
    assert (solution.stopped_by, solution.iterations) == ("convergence", 0)
    assert torch.isfinite(solution.x).all()


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1.0, 1e12, 1e18])
def test_units_do_not_matter_in_float32(scale):
    """Squares of 1e-25 and of 1e25 are no float32 numbers; data in rad² are small."""
    solution = cgls(A, (scale * Y).astype(np.float32), iterations=20, tolerance=1e-5)
    np.testing.assert_allclose(solution.x.double() / scale, exact(MATRIX, Y), atol=1e-4)


def test_what_overflows_is_told():
    with pytest.raises(ValueError, match=r"^y, weights: expected numbers whose products fit into torch.float32"):
        cgls(A, np.full(20, 1e30, np.float32), weights=np.full(20, 1e30, np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_inputs_are_kept(dtype):
    y, x0, weights = torch.from_numpy(Y).to(dtype), torch.ones(7), np.ones(20)
    copies = y.clone(), x0.clone()
    assert cgls(A, y, x0=x0, weights=weights, iterations=3).x.dtype == dtype
    assert torch.equal(y, copies[0])
    assert torch.equal(x0, copies[1])


def test_no_graph_grows_behind_a_solution():
    y, x0 = torch.from_numpy(Y).requires_grad_(), torch.ones(7, requires_grad=True)
    assert not cgls(A, y, x0=x0, weights=torch.ones(20, requires_grad=True), iterations=2).x.requires_grad


def test_weights_of_views_and_smoothness():
    T = xray(channels=2)
    y = torch.randn(T.range_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 0.0, 2.0]).reshape(3, 1, 1, 1)
    D = Differences((4, 3, 5))
    found = cgls(T, y, weights=weights, tikhonov=0.5, penalty=D, iterations=400, tolerance=1e-13).x
    gradient = T.T(weights * (T(found) - y)) + 0.5 * D.T(D(found))
    assert float(gradient.norm()) < 1e-10 * float(T.T(weights * y).norm())


BAD = [
    ({"A": MATRIX}, TypeError, r"^A: expected a LinearOperator, got ndarray. make one with wrap"),
    ({"y": Y[:5]}, ValueError, r"^y: expected shape \(20\), got \(5,\)"),
    ({"y": np.ones((2, 20))}, ValueError, r"^y: expected shape \(20\), got \(2, 20\)"),
    ({"y": np.ones(20, int)}, TypeError, r"^y: expected float32 or float64, got torch.int64"),
    ({"y": Y + 1j}, TypeError, r"^y: expected an array of real numbers"),
    ({"y": np.where(Y > 1, np.nan, Y)}, ValueError, r"^y: expected finite data, got .*give those weight 0"),
    ({"y": np.where(Y > 1, np.inf, Y), "weights": np.ones(20)}, ValueError, "^y: expected finite data"),
    ({"weights": np.ones(3)}, ValueError, r"^weights: expected a shape that broadcasts to \(20,\), got \(3,\)"),
    ({"weights": np.ones((2, 20))}, ValueError, "^weights: expected a shape that broadcasts"),
    ({"weights": -np.ones(20)}, ValueError, "^weights: expected finite numbers ≥ 0"),
    ({"weights": np.full(20, np.nan)}, ValueError, "^weights: expected finite numbers ≥ 0"),
    ({"weights": np.full(20, np.inf)}, ValueError, "^weights: expected finite numbers ≥ 0"),
    ({"weights": np.zeros(20)}, ValueError, "^weights: expected a positive weight somewhere, got zero everywhere"),
    ({"x0": np.ones(6)}, ValueError, r"^x0: expected shape \(7\), got \(6,\)"),
    ({"x0": np.ones((2, 7))}, ValueError, r"^x0: expected shape \(7\), got \(2, 7\)"),
    ({"x0": np.full(7, np.nan)}, ValueError, "^x0: expected finite values"),
    ({"tikhonov": -1}, ValueError, "^tikhonov: expected a finite number"),
    ({"tikhonov": "much"}, TypeError, "^tikhonov: expected a finite number"),
    ({"penalty": PENALTY}, TypeError, "^penalty: expected a LinearOperator or None, got ndarray"),
    ({"penalty": operator(np.eye(3)), "tikhonov": 1}, ValueError, r"^penalty: expected domain \(7\), got \(3,\)"),
    ({"callback": 3}, TypeError, "^callback: expected a function or None"),
    ({"iterations": -1}, ValueError, "^iterations: expected an integer"),
    ({"iterations": 2.5}, ValueError, "^iterations: expected an integer"),
    ({"noise_level": np.nan}, ValueError, "^noise_level: expected a finite number"),
    ({"tolerance": 2}, ValueError, "^tolerance: expected a finite number"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_input_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        cgls(**{"A": A, "y": Y, **arguments})


def test_preconditioned_iterations_end_at_the_same_solution_sooner():
    scale = torch.logspace(0, 2, 7, dtype=torch.float64)
    stretched = wrap((lambda x: A(x * scale), lambda y: A.T(y) * scale), (7,), A.range_shape)
    undo = wrap((lambda x: x / scale**2, lambda x: x / scale**2), (7,), (7,))
    plain = cgls(stretched, Y, iterations=200, tolerance=1e-13)
    helped = cgls(stretched, Y, preconditioner=undo, iterations=200, tolerance=1e-13)
    assert helped.iterations < plain.iterations
    exact = np.linalg.lstsq(stretched(torch.eye(7, dtype=torch.float64)).numpy().T, np.asarray(Y), rcond=None)[0]
    np.testing.assert_allclose(helped.x.numpy(), exact, rtol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_iterations_beyond_rounding_do_no_harm(dtype: torch.dtype, tolerance: float) -> None:
    A, y = registry.operator(), registry.data(dtype)
    unit = torch.eye(math.prod(A.domain_shape), dtype=torch.float64).reshape(-1, *A.domain_shape)
    dense = torch.stack([A(each).flatten() for each in unit], 1)
    expected = torch.linalg.solve(dense.T @ dense + 2 * torch.eye(len(unit)).double(), dense.T @ y.double().flatten())
    found = cgls(A, y, tikhonov=2.0, iterations=600, progress=False).x.double().flatten()
    assert (found - expected).norm() < tolerance * expected.norm()
