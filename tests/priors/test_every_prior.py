"""What every prior must do: be convex, have the proximal map of its value, and say what steps it takes."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo import priors
from ddf_tomo.operators.rank_two import from_matrix, to_matrix
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.priors import Functional
from tests.priors.registry import PRIORS, SHAPE

every_prior = pytest.mark.parametrize("name", PRIORS)
SEEDS = st.integers(0, 1000)
STEPS = st.sampled_from([1e-3, 0.3, 2.0, 50.0])
FEW = settings(max_examples=15)


def drawn(name, seed, scale=1.0):
    """A prior, and white noise ``x`` for it, some voxels of which are exactly zero."""
    generator = np.random.default_rng(seed)
    x = generator.normal(scale=scale, size=(*SHAPE, PRIORS[name].coefficients))
    x[generator.random(SHAPE) < 0.2] = 0
    return PRIORS[name].make(), torch.from_numpy(x)


def feasible(prior, z):
    return prior.proximal(z, 1.0) if prior.is_constraint else z


def inner(a, b):
    return float((a * b).sum())


def test_none_is_missing():
    classes = {c for _, c in inspect.getmembers(priors, inspect.isclass) if issubclass(c, Functional)} - {Functional}
    assert classes == {type(prior.make()) for prior in PRIORS.values()}


@every_prior
@FEW
@given(SEEDS, st.floats(0, 1))
def test_values_are_convex_and_not_negative(name, seed, t):
    prior, a = drawn(name, seed)
    b = drawn(name, seed + 1)[1]
    assert prior(t * a + (1 - t) * b) <= t * prior(a) + (1 - t) * prior(b) + 1e-9
    assert prior(a) >= 0 == prior(0 * a)


@every_prior
@FEW
@given(SEEDS, STEPS)
def test_the_proximal_map_is_the_lowest_point(name, seed, step):
    """Exactly there ``(z - u)/step`` is a subgradient: the value lies above a plane with that slope through ``u``."""
    prior, x = drawn(name, seed)
    if name.startswith("rounded"):
        prior.smoothing = 0.0  # the map is documented as that of the unrounded value
    z = prior.apply(x)
    u = prior.proximal(z, step)
    assert inner(feasible(prior, u) - u, feasible(prior, u) - u) < 1e-20
    slope = (z - u) if prior.is_constraint else (z - u) / step
    for other in range(5):
        noise = torch.from_numpy(np.random.default_rng(other).normal(size=z.shape))
        for v in (feasible(prior, u + 0.01 * noise), feasible(prior, u + noise), feasible(prior, 2 * u), 0 * z):
            assert float(prior.value(v) - prior.value(u)) >= inner(slope, v - u) - 1e-9 * max(1, inner(z, z))


@every_prior
@FEW
@given(SEEDS, STEPS)
def test_the_proximal_map_brings_points_together(name, seed, step):
    """Firmly nonexpansive, as the map of every convex function."""
    prior, a = drawn(name, seed)
    a, b = prior.apply(a), prior.apply(drawn(name, seed + 1)[1])
    moved = prior.proximal(a, step) - prior.proximal(b, step)
    assert inner(moved, moved) <= inner(moved, a - b) * (1 + 1e-12) + 1e-12


@every_prior
@FEW
@given(SEEDS, st.sampled_from([0.1, 1.0, 7.0]), st.sampled_from([0.2, 3.0]))
def test_the_dual_map_gives_a_subgradient(name, seed, step, weight):
    """``u = prox of step · (weight g)*`` at ``p`` is one of ``weight · g`` at ``(p - u)/step``."""
    prior, x = drawn(name, seed)
    if name.startswith("rounded"):
        prior.smoothing = 0.0
    prior = weight * prior
    p = prior.apply(x)
    u = prior.proximal_dual(p, step)
    at = (p - u) / step
    for other in range(5):
        v = feasible(prior, at + torch.from_numpy(np.random.default_rng(other).normal(size=p.shape)))
        assert weight * float(prior.value(v) - prior.value(at)) >= inner(u, v - at) - 1e-9
    assert weight * float(prior.value(0 * at) - prior.value(at)) >= inner(u, -at) - 1e-9


@every_prior
def test_weights(name):
    prior, x = drawn(name, 0)
    assert (3 * prior).weight == (prior * 3.0).weight == 3
    assert (2 * (3 * prior))(x) == pytest.approx(6 * prior(x))
    assert (0 * prior)(x) == 0
    assert prior.weight == 1
    assert repr(3 * prior) == f"<3 · {type(prior).__name__}>"
    z = prior.apply(x)
    if prior.is_constraint:
        assert prior(x) == 0
        assert torch.equal(prior.proximal(z, 1e-9), prior.proximal(z, 1e9))
    else:
        assert torch.equal(prior.proximal(z, 0.0), z)
        assert not (0 * prior).proximal_dual(z, 2.0).any()
    with pytest.raises(ValueError, match=r"^factor: expected a finite number"):
        -1 * prior
    with pytest.raises(TypeError):
        prior * "much"


@every_prior
def test_all_but_smoothness_scale_with_the_unit(name):
    prior, x = drawn(name, 3)
    if name == "smoothness":
        assert prior(5 * x) == pytest.approx(25 * prior(x))
        return
    z, t = prior.apply(x), 1e-7
    torch.testing.assert_close(prior.proximal(t * z, t * 0.4), t * prior.proximal(z, 0.4), rtol=1e-9, atol=1e-18)
    if not name.startswith("rounded"):
        assert prior(t * x) == pytest.approx(t * prior(x))


@every_prior
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_nothing_is_changed(name, dtype):
    prior, x = drawn(name, 4)
    z = prior.apply(x.to(dtype))
    copy = z.clone()
    found = prior.proximal(z, 0.7)
    assert found.dtype == prior.value(z).dtype == prior.proximal_dual(z, 0.7).dtype == dtype
    assert found.shape == z.shape
    assert torch.equal(z, copy)
    torch.testing.assert_close(found.double(), prior.proximal(prior.apply(x), 0.7), atol=1e-5, rtol=1e-5)


@every_prior
def test_the_norm_is_that_of_the_operator_or_a_little_more(name):
    prior, x = drawn(name, 0)
    unit = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    exact = float(torch.linalg.matrix_norm(prior.apply(unit).flatten(1), 2))
    assert exact * (1 - 1e-12) <= prior.norm() <= 1.03 * exact


@every_prior
@FEW
@given(SEEDS)
def test_a_quadratic_lies_above_what_is_smooth(name, seed):
    prior, x = drawn(name, seed)
    if not prior.is_smooth:
        with pytest.raises((TypeError, ValueError), match=r"^(prior|smoothing): expected"):
            prior.curvature(prior.apply(x))
        return
    z = prior.apply(x).requires_grad_()
    (slope,) = torch.autograd.grad(prior.value(z), z)
    z = z.detach()
    factors = prior.curvature(z)
    torch.testing.assert_close(factors * z, slope, rtol=1e-9, atol=1e-12)
    for scale in (0.1, 1.0, 5.0):
        u = z + scale * torch.from_numpy(np.random.default_rng(seed).normal(size=z.shape))
        assert float(prior.value(u) - prior.value(z)) <= float((factors * (u**2 - z**2)).sum()) / 2 + 1e-9


def turned(z, kind, rotation):
    if kind == "harmonics":
        return rotate(z, rotation)
    matrix = torch.from_numpy(rotation)
    return from_matrix(matrix @ to_matrix(z) @ matrix.T)


@every_prior
def test_a_rotation_of_the_functions_changes_nothing(name):
    kind = PRIORS[name].turns
    if not kind:
        pytest.skip("not claimed")
    prior, x = drawn(name, 5)
    rotation = Rotation.random(random_state=1).as_matrix()
    assert prior(turned(x, kind, rotation)) == pytest.approx(prior(x), rel=1e-12)
    after, before = (
        prior.apply_adjoint(prior.proximal(prior.apply(each), 0.4)) for each in (turned(x, kind, rotation), x)
    )
    if kind == "tensor":  # L and its adjoint count off-diagonal entries twice
        twice = torch.tensor([1.0, 2.0, 2.0, 1.0, 2.0, 1.0], dtype=torch.float64)
        after, before = after / twice, before / twice
    torch.testing.assert_close(after, turned(before, kind, rotation), rtol=1e-9, atol=1e-9)
