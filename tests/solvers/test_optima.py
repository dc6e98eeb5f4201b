"""Every solver ends where others do: closed forms, SciPy, and conditions that only the optimum satisfies."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.optimize
import torch

import ddf_tomo as dt
from ddf_tomo import phantoms
from ddf_tomo.operators.rank_two import from_matrix, to_matrix
from ddf_tomo.priors import (
    L1,
    GroupSparsity,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    Smoothness,
    TotalVariation,
)
from ddf_tomo.solvers import Misfit, fista, irtt, lbfgs, pdhg, sirt
from ddf_tomo.solvers.terms import Terms

GENERATOR = np.random.default_rng(3)
SHAPE = (2, 3, 2)
BOX = (*SHAPE, 6)
MATRIX = GENERATOR.normal(size=(100, 72))
TRUTH = np.where(np.arange(2)[:, None, None, None] == 0, [2.0, 0, 1, 0, 0, 0], [0.0, 0, 0, 0, 0, 3]) * np.ones(BOX)
Y = MATRIX @ TRUTH.ravel() + GENERATOR.normal(size=100)
W = GENERATOR.uniform(0.5, 2, 100)
ROOT = np.sqrt(W)
LONG = {"iterations": 3000, "tolerance": 1e-12, "progress": False, "weights": W}


def dense(matrix, shape):
    matrix = torch.as_tensor(matrix)
    return dt.wrap(
        (lambda x: matrix.to(x) @ x.flatten(), lambda y: (matrix.T.to(y) @ y).reshape(shape)), shape, matrix.shape[:1]
    )


A = dense(MATRIX, BOX)
PROXIMAL = {"fista": fista, "pdhg": lambda *a, **k: pdhg(*a, balance=1.0, **k)}
every_proximal = pytest.mark.parametrize("solve", PROXIMAL.values(), ids=PROXIMAL)


def objective(x, terms, y=Y, A=A, weights=W):
    x = torch.as_tensor(x)
    return Misfit(A, y, weights).value(x) + Terms(terms, x).value(x)


def gradient(x):
    return (MATRIX.T @ (W * (MATRIX @ x.numpy().ravel() - Y))).reshape(BOX)


def smoothed_bounds(terms, bounds=None, smoothing=1e-7):
    """Of the minimum: SciPy on rounded norms, which lie below those meant by at most ``smoothing`` for each voxel."""
    x, misfit = np.zeros(72), Misfit(A, Y, W)
    for each in np.geomspace(1, smoothing, 8):
        for term in terms:
            term.smoothing = each

        def both(x):
            x = torch.from_numpy(x).reshape(BOX)
            z = x.clone().requires_grad_()
            penalty = sum(term.weight * term.value(term.apply(z)) for term in terms)
            (slope,) = torch.autograd.grad(penalty, z)
            return misfit.value(x) + float(penalty.detach()), (slope.numpy() + gradient(x)).ravel()

        options = {"maxiter": 1000, "maxfun": 3000, "ftol": 1e-15, "gtol": 1e-9}
        found = scipy.optimize.minimize(both, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        x = found.x
    for term in terms:
        term.smoothing = 0.0
    above = objective(x.reshape(BOX), terms)
    return found.fun, above  # the minimum lies between


@pytest.mark.parametrize("solve", [*PROXIMAL.values(), lbfgs, sirt], ids=[*PROXIMAL, "lbfgs", "sirt"])
def test_least_squares(solve):
    expected = np.linalg.lstsq(ROOT[:, None] * MATRIX, ROOT * Y, rcond=None)[0]
    solution = solve(A, Y, x0=np.ones(BOX), **LONG)
    np.testing.assert_allclose(solution.x.numpy().ravel(), expected, atol=1e-8)


@pytest.mark.parametrize("solve", [*PROXIMAL.values(), lbfgs], ids=[*PROXIMAL, "lbfgs"])
def test_smoothness(solve):
    D = Smoothness(SHAPE)
    unit = torch.eye(72, dtype=torch.float64).reshape(72, *BOX)
    rows = np.sqrt(5) * D.apply(unit).reshape(72, -1).T.numpy()
    expected = np.linalg.lstsq(
        np.concatenate([ROOT[:, None] * MATRIX, rows]), np.concatenate([ROOT * Y, np.zeros(len(rows))]), rcond=None
    )[0]
    np.testing.assert_allclose(solve(A, Y, regularisers=5 * D, **LONG).x.numpy().ravel(), expected, atol=1e-8)


@every_proximal
def test_few_coefficients(solve):
    """The gradient is ``-λ sign(x)`` where ``x`` is not 0, and no larger than λ where it is."""
    x = solve(A, Y, regularisers=60 * L1(), **LONG).x
    slope, there = gradient(x), x.numpy() != 0
    assert 10 < there.sum() < 62
    np.testing.assert_allclose(slope[there], -60 * np.sign(x.numpy()[there]), atol=1e-7)
    assert np.abs(slope).max() < 60 + 1e-7


@every_proximal
@pytest.mark.parametrize("leave_out_mean", [False, True])
def test_few_voxels(solve, leave_out_mean):
    x = solve(A, Y, regularisers=250 * GroupSparsity(leave_out_mean=leave_out_mean), **LONG).x.numpy().reshape(12, 6)
    slope = gradient(torch.from_numpy(x)).reshape(12, 6)
    if leave_out_mean:
        np.testing.assert_allclose(slope[:, 0], 0, atol=1e-7)
        x, slope = x[:, 1:], slope[:, 1:]
    norms = np.linalg.norm(x, axis=1)
    there = norms > 0
    assert 0 < there.sum() < 12
    np.testing.assert_allclose(slope[there], -250 * x[there] / norms[there, None], atol=1e-6)
    assert np.linalg.norm(slope, axis=1).max() < 250 + 1e-6


@cache
def of_total_variation(weight):
    return smoothed_bounds([weight * TotalVariation(SHAPE)])


@every_proximal
@pytest.mark.parametrize("weight", [3.0, 60.0])
def test_total_variation_coupled_over_directions_and_coefficients(solve, weight):
    terms = [weight * TotalVariation(SHAPE)]
    below, above = of_total_variation(weight)
    assert above - below < 1e-3
    found = objective(solve(A, Y, regularisers=terms, **LONG).x, terms)
    assert below - 1e-9 <= found <= above * (1 + 1e-7)


@every_proximal
def test_total_variation_along_a_line(solve):
    """Some ``p`` with ``|p| ≤ λ`` balances the gradient, and is ±λ wherever there is an edge: SciPy finds it."""
    matrix = np.random.default_rng(1).normal(size=(30, 15))
    y = matrix @ np.repeat([1.0, 4.0, 2.0], 5) + np.random.default_rng(2).normal(size=30)
    options = LONG | {"weights": None}
    x = solve(dense(matrix, (15, 1, 1, 1)), y, regularisers=4 * TotalVariation((15, 1, 1)), **options).x.numpy().ravel()
    slope, D = matrix.T @ (matrix @ x - y), np.diff(np.eye(15), axis=0)
    p = scipy.optimize.lsq_linear(D.T, -slope, (-4 - 1e-9, 4 + 1e-9), method="bvls").x
    np.testing.assert_allclose(D.T @ p, -slope, atol=1e-7)
    edges = np.abs(D @ x) > 1e-6
    assert 2 <= edges.sum() <= 8
    np.testing.assert_allclose(p[edges], 4 * np.sign(D @ x)[edges], atol=1e-6)


@every_proximal
def test_not_negative(solve):
    line = (72, 1, 1, 1)
    expected, _ = scipy.optimize.nnls(ROOT[:, None] * MATRIX, ROOT * (Y - 3))
    assert (expected == 0).any()
    x = solve(dense(MATRIX, line), Y - 3, regularisers=NonNegativeMean(), **LONG).x
    np.testing.assert_allclose(x.ravel(), expected, atol=1e-8)


def test_not_negative_by_sirt():
    expected, _ = scipy.optimize.nnls(ROOT[:, None] * MATRIX, ROOT * (Y - 3))
    x = sirt(dense(MATRIX, (72, 1, 1, 1)), Y - 3, constraint=NonNegativeMean(), relaxation=1.8, **LONG).x
    np.testing.assert_allclose(x.ravel(), expected, atol=1e-7)


@cache
def several_terms():
    terms = [20 * TotalVariation(SHAPE), 10 * GroupSparsity(per_order=True)]
    bounds = [(0, None) if i % 6 == 0 else (None, None) for i in range(72)]
    return terms, *smoothed_bounds(terms, bounds)


@every_proximal
def test_several_terms_at_once(solve):
    """Total variation and sparsity of all coefficients, means not negative: SciPy with bounds."""
    terms, below, above = several_terms()
    x = solve(A, Y, regularisers=[*terms, NonNegativeMean()], **LONG).x
    assert (x[..., 0] >= 0).all()
    assert (x[..., 0] == 0).any()
    assert below - 1e-9 <= objective(x, terms) <= above * (1 + 1e-7)


VOXEL = GENERATOR.normal(size=(12, 6))
SIGNALS = VOXEL @ np.array([0.2, 1.0, -1.0, 0.5, 0.3, -0.7]) + 0.1 * GENERATOR.normal(size=12)


@every_proximal
def test_a_function_that_is_not_negative(solve):
    prior = NonNegativeFunction(2, directions=25)
    rows = prior.operator.matrix.numpy()
    expected = scipy.optimize.minimize(
        lambda c: np.sum((VOXEL @ c - SIGNALS) ** 2) / 2,
        np.array([1.0, 0, 0, 0, 0, 0]),
        jac=lambda c: VOXEL.T @ (VOXEL @ c - SIGNALS),
        constraints={"type": "ineq", "fun": lambda c: rows @ c, "jac": lambda c: rows},
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    ).x
    assert (rows @ expected).min() < 1e-8  # the constraint holds it back
    x = solve(dense(VOXEL, (1, 1, 1, 6)), SIGNALS, regularisers=prior, **LONG | {"weights": None}).x
    np.testing.assert_allclose(x.ravel(), expected, atol=1e-6)


TENSORS = {
    "fista": lambda A, y, **k: fista(A, y, regularisers=PositiveDefinite(), **k),
    "pdhg": lambda A, y, **k: pdhg(A, y, balance=0.3, regularisers=PositiveDefinite(), **k),
    "irtt": irtt,
}


@pytest.mark.parametrize("solve", TENSORS.values(), ids=TENSORS)
def test_positive_tensors(solve):
    """SciPy over ``M = F Fᵀ``, from many starts."""

    def misfit(factor):
        factor = torch.from_numpy(factor).reshape(3, 3).requires_grad_()
        value = (
            torch.from_numpy(VOXEL) @ from_matrix(factor @ factor.T) - torch.from_numpy(SIGNALS)
        ).square().sum() / 2
        (slope,) = torch.autograd.grad(value, factor)
        return float(value.detach()), slope.numpy().ravel()

    starts = np.random.default_rng(0).normal(size=(5, 9))
    found = [scipy.optimize.minimize(misfit, start, jac=True, options={"gtol": 1e-10}) for start in starts]
    best = min(found, key=lambda each: each.fun)
    factor = torch.from_numpy(best.x).reshape(3, 3)
    x = solve(dense(VOXEL, (1, 1, 1, 6)), SIGNALS, **LONG | {"weights": None}).x
    values = torch.linalg.eigvalsh(to_matrix(x))
    assert -1e-9 < values.min() < 1e-6  # the constraint holds it back
    torch.testing.assert_close(x.flatten(), from_matrix(factor @ factor.T), atol=1e-5, rtol=0)


def test_a_start_blind_to_the_largest_singular_value():
    """Power iterations from these data never see the 10: only what happens on the way tells."""
    values = np.array([1.0, 2.0, 3.0, 10.0])
    y = np.array([1.0, 2.0, 3.0, 0.0])
    for solve in PROXIMAL.values():
        solution = solve(dense(np.diag(values), (4, 1, 1, 1)), y, x0=np.ones((4, 1, 1, 1)), **LONG | {"weights": None})
        np.testing.assert_allclose(solution.x.ravel(), y / values, atol=1e-9)


def test_on_a_phantom_all_agree():
    """Data of a helicoidal sample: two exact methods, and a rounded one from below."""
    shape = (6, 6, 6)
    truth = torch.from_numpy(phantoms.helicoidal_fibres(shape, 2).coefficients)
    angles = np.random.default_rng(0).uniform(0, 1, (2, 24)) * [[2 * np.pi], [np.pi / 4]]
    T = dt.TensorXRayTransform(
        dt.Geometry.from_angles(*angles, shape, (9, 9)), dt.SaxsResponse(np.arange(4) * np.pi / 4), 2
    )
    y = T(truth)
    y = y + 0.1 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    terms = [0.3 * TotalVariation(shape)]
    run = {"regularisers": terms, "tolerance": 1e-7, "iterations": 300, "progress": False}
    ends = {
        "fista": fista(T, y, **run).x,
        "pdhg": pdhg(T, y, **run).x,
        "pdhg, subsets": pdhg(T, y, **run | {"iterations": 80}, subsets=4, balance=0.1).x,
        "lbfgs": lbfgs(T, y, **run | {"regularisers": [0.3 * TotalVariation(shape, smoothing=1e-5)]}).x,
    }
    values = {name: objective(x, terms, y, T, None) for name, x in ends.items()}
    best = min(values.values())
    assert values["fista"] <= best * (1 + 1e-6), values
    assert values["pdhg"] <= best * (1 + 1e-6), values
    assert values["lbfgs"] <= best * (1 + 1e-4), values
    assert values["pdhg, subsets"] <= best * (1 + 1e-3), values
    plain = fista(T, y, iterations=300, progress=False).x
    assert (ends["fista"] - truth).norm() < 0.75 * (plain - truth).norm()  # and it was worth it
