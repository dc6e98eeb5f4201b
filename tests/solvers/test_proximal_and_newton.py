"""What is particular to `fista`, `pdhg`, `lbfgs` and `irtt`; that they end at the optimum, `test_optima` shows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo import Geometry, SaxsResponse, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.operators.rank_two import to_matrix
from ddf_tomo.phantoms import helicoidal_fibres
from ddf_tomo.priors import (
    L1,
    GroupSparsity,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    Smoothness,
    TotalVariation,
)
from ddf_tomo.solvers import Misfit, cgls, fista, irtt, lbfgs, pdhg
from ddf_tomo.solvers.lbfgs import lowest
from ddf_tomo.solvers.terms import Terms
from tests.operators.registry import GEOMETRY, tensor
from tests.solvers import test_optima as optima
from tests.solvers.registry import SHAPE, WEIGHTS, data, operator
from tests.solvers.test_optima import dense

MATRIX = np.random.default_rng(0).normal(size=(30, 12)) * np.logspace(0, -0.5, 12)
Y = np.random.default_rng(1).normal(size=30)


def counting(A):
    """The operator, and how often it was applied, and its adjoint."""
    calls = [0, 0]

    class Counted(type(A)):
        def _forward_kernel(self, x):
            calls[0] += 1
            return super()._forward_kernel(x)

        def _adjoint_kernel(self, y):
            calls[1] += 1
            return super()._adjoint_kernel(y)

    A.__class__ = Counted
    return A, calls


@pytest.mark.parametrize("solve", [fista, pdhg, lbfgs])
def test_one_projection_and_one_backprojection_an_iteration(solve):
    counts = []
    for iterations in (20, 30):
        A, calls = counting(operator())
        terms = Smoothness(SHAPE) if solve is lbfgs else [0.1 * TotalVariation(SHAPE), NonNegativeMean()]
        solve(A, data(), regularisers=terms, weights=WEIGHTS, iterations=iterations, progress=False)
        counts.append(list(calls))
    assert np.subtract(*counts[::-1]).tolist() == [10, 10]


def test_the_misfits_curvature_is_the_square_of_the_norm():
    A = operator()
    rows = A(torch.eye(360, dtype=torch.float64).reshape(360, *A.domain_shape)).reshape(360, -1)
    exact = float(torch.linalg.matrix_norm(rows * torch.from_numpy(WEIGHTS).sqrt().ravel(), 2)) ** 2
    assert 0.99 * exact < Misfit(A, data(), WEIGHTS).curvature() <= exact * (1 + 1e-12)
    assert Misfit(A, data(), WEIGHTS).curvature(60) == pytest.approx(exact, rel=1e-9)
    assert Misfit(A, 0 * data(), WEIGHTS).curvature() > 0.5 * exact


def test_restarts_keep_momentum_from_circling():
    """Strong convexity without being told of it: a linear rate, where momentum alone would circle."""
    expected = np.linalg.lstsq(MATRIX, Y, rcond=None)[0]
    found = fista(dense(MATRIX, (12,)), Y, iterations=300, progress=False)
    np.testing.assert_allclose(found.x, expected, atol=1e-9)


def test_the_warm_dual_makes_few_inner_iterations_exact():
    """Two dual iterations for each proximal map end where fifty do."""
    terms = [20 * TotalVariation(optima.SHAPE), PositiveDefinite()]
    few, many = (
        fista(optima.A, optima.Y, regularisers=terms, inner_iterations=inner, iterations=outer, progress=False).x
        for inner, outer in ((2, 400), (50, 60))
    )
    torch.testing.assert_close(few, many, atol=1e-5, rtol=0)
    assert torch.linalg.eigvalsh(to_matrix(few)).min() > -1e-5


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.05, 1.0, 30.0]))
def test_a_proximal_map_of_several_terms(seed, step):
    """Its result ``x`` minimises ``step Σ g + ½ |x - v|²``: no small change makes that less."""
    generator = np.random.default_rng(seed)
    v = torch.from_numpy(generator.normal(size=(2, 2, 1, 6)))
    terms = Terms([0.3 * TotalVariation((2, 2, 1)), 0.2 * GroupSparsity(), NonNegativeMean()], v)
    state = terms.duals(v)
    x = terms.proximal(v, step, state, 200)

    def value(x):
        return step * terms.value(x) + float((x - v).square().sum()) / 2

    for size in (1e-1, 1e-3):
        other = x + size * torch.from_numpy(generator.normal(size=x.shape))
        other[..., 0].clamp_(min=0)
        assert value(x) <= value(other) + 1e-9
    assert (x[..., 0] >= 0).all()


def test_terms_are_told_apart():
    x = torch.zeros(*SHAPE, 6)
    several = [0 * TotalVariation(SHAPE), L1(), 2 * Smoothness(SHAPE), NonNegativeMean(), 0 * PositiveDefinite()]
    terms = Terms(several, x)
    assert [type(term) for term in terms.all] == [L1, Smoothness, NonNegativeMean, PositiveDefinite]
    assert terms.simple is several[3]  # what is returned satisfies the constraint
    assert [type(term) for term in terms.composite] == [L1, Smoothness, PositiveDefinite]
    assert terms.duals(x)["dual1"].shape == (3, *SHAPE, 6)
    assert Terms(None, x).all == Terms([], x).all == []
    once = L1()
    assert Terms([once, once], x).composite == [once]  # twice the same is twice the weight


@pytest.mark.parametrize("solve", [fista, pdhg, lbfgs])
def test_a_single_voxel_has_no_differences(solve):
    A = dense(np.eye(6), (1, 1, 1, 6))
    terms = Smoothness((1, 1, 1)) if solve is lbfgs else TotalVariation((1, 1, 1))
    found = solve(A, np.arange(6.0), regularisers=terms, iterations=300, progress=False)
    np.testing.assert_allclose(found.x.ravel(), np.arange(6.0), atol=1e-9)


@pytest.mark.parametrize("balance", [0.02, 0.3, 3.0])
def test_any_balance_ends_at_the_same_place(balance):
    expected = np.linalg.lstsq(MATRIX, Y, rcond=None)[0]
    found = pdhg(dense(MATRIX, (12,)), Y, balance=balance, iterations=4000, tolerance=1e-13, progress=False)
    np.testing.assert_allclose(found.x, expected, atol=1e-7)


def test_subsets_drawn_with_the_same_seed_give_the_same():
    run = {"regularisers": 0.1 * TotalVariation(SHAPE), "iterations": 3, "subsets": 3}
    first, same, other = (pdhg(operator(), data(), **run, seed=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


def test_subsets_come_to_the_same_end():
    terms = [0.5 * TotalVariation(SHAPE)]
    whole = pdhg(operator(), data(), regularisers=terms, balance=0.3, iterations=600, progress=False)
    parts = pdhg(operator(), data(), regularisers=terms, balance=0.1, iterations=300, subsets=3, progress=False)

    def objective(x):
        return Misfit(operator(), data()).value(x) + terms[0](x)

    assert objective(parts.x) == pytest.approx(objective(whole.x), rel=1e-4)


def test_newton_and_conjugate_gradients():
    """On a quadratic, quasi-Newton steps with an unlimited memory are about those of conjugate gradients."""
    D = Smoothness(SHAPE)
    newton = lbfgs(operator(), data(), regularisers=0.3 * D, iterations=25, memory=25, progress=False)
    conjugate = cgls(operator(), data(), tikhonov=0.3, penalty=D.operator, iterations=25, progress=False)
    assert newton.residuals[-1] == pytest.approx(conjugate.residuals[-1], rel=1e-2)


@given(st.floats(0.01, 100), st.floats(-3, 3), st.sampled_from([1e-4, 1.0, 1e4]), st.floats(0, 2))
def test_the_lowest_point_along_a_line(curvature, place, first, bend):
    """Convex functions that bend sharply somewhere: the slope ends at a tenth or less."""

    def slope(t):
        return curvature * (t - 10 ** abs(place)) + bend * math.tanh(1e3 * (t - 1))

    start = slope(0)
    asked = []

    def counted(t):
        asked.append(t)
        return slope(t)

    found = lowest(counted, start, first)
    assert abs(slope(found)) <= 0.1 * abs(start) or len(asked) == 40
    assert found > 0
    assert len(asked) < 40 or bend > 1e-3 * curvature


def test_newton_needs_gradients():
    for rough in (TotalVariation(SHAPE), L1(), GroupSparsity(), NonNegativeMean()):
        with pytest.raises(
            ValueError, match=r"^regularisers: expected smooth ones, got .*set smoothing=, or use fista"
        ):
            lbfgs(operator(), data(), regularisers=[Smoothness(SHAPE), rough])


def test_tensors_are_positive_in_every_voxel_and_iteration():
    seen = []
    solution = irtt(operator(), data(), iterations=8, callback=lambda i, x, r: seen.append(x.clone()), progress=False)
    for x in [*seen, solution.x]:
        assert torch.linalg.eigvalsh(to_matrix(x)).min() > -1e-12
    assert torch.equal(seen[-1], solution.x)
    assert torch.linalg.eigvalsh(to_matrix(cgls(operator(), data(), iterations=30).x)).min() < -0.1


def test_tensors_from_arcs():
    A = tensor("rank two saxs")
    truth = torch.tensor([1.0, 0.2, 0.1, 0.5, 0.0, 0.3], dtype=torch.float64).expand(A.domain_shape)
    assert irtt(A, A(truth), iterations=300, progress=False).residuals[-1] < 1e-3 * float(A(truth).norm())


BAD_OPERATORS = [
    (
        TensorXRayTransform(GEOMETRY, SecondMomentResponse(), 2),
        r"^A: expected a rank-2 response, got SecondMoment.*harm",
    ),
    (tensor("saxs"), r"^A: expected an operator on \(x, y, z, 6\), got \(4, 3, 5, 15\)"),
    (dense(np.eye(6), (6,)), r"^A: expected an operator on \(x, y, z, 6\), got \(6,\)"),
]


@pytest.mark.parametrize(("A", "text"), BAD_OPERATORS)
def test_irtt_is_for_tensors(A, text):
    with pytest.raises(ValueError, match=text):
        irtt(A, torch.ones([n or 1 for n in A.range_shape]))


@pytest.mark.parametrize(
    ("solve", "argument", "value"),
    [
        (fista, "inner_iterations", 0),
        (pdhg, "balance", 0.0),
        (pdhg, "subsets", 0),
        (pdhg, "subsets", 4),
        (pdhg, "seed", -1),
        (lbfgs, "memory", 0),
    ],
)
def test_bad_settings_are_named(solve, argument, value):
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        solve(operator(), data(), **{argument: value})


def test_too_few_inner_iterations_are_noticed():
    """Momentum on maps that are far from exact runs away from iteration 30 on, if nobody looks at the objective."""
    shape = (6, 6, 6)
    angles = np.random.default_rng(0).uniform(0, 1, (2, 20)) * [[2 * np.pi], [np.pi / 4]]
    geometry = Geometry.from_angles(*angles, shape, (9, 9))
    T = TensorXRayTransform(geometry, SaxsResponse(np.arange(8) * np.pi / 8), 4)
    y = T(torch.from_numpy(helicoidal_fibres(shape, 4).coefficients))
    y = y + 0.05 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    terms = [0.1 * TotalVariation(shape), NonNegativeFunction(4)]
    few, many = (
        fista(T, y, regularisers=terms, inner_iterations=inner, iterations=80, progress=False).residuals
        for inner in (1, 60)
    )
    assert max(few[40:]) <= few[30]
    assert few[-1] < 1.1 * many[-1]
