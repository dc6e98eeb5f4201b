"""What stands in for a truth, against closed forms of small linear problems."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.training import equivariance_loss, split_counts, split_views, stein_risk


def test_thinned_counts_are_poisson_and_independent():
    """Against SciPy's Poisson distribution, for the parts; their joint distribution is the product."""
    shares, mean = np.array([0.2, 0.3, 0.5]), 6.0
    counts = np.random.default_rng(1).poisson(mean, 200_000)
    parts = split_counts(counts, shares, seed=2)
    assert np.array_equal(sum(parts), counts)
    for part, share in zip(parts, shares, strict=True):
        seen = np.bincount(part, minlength=12)[:10]
        expected = stats.poisson.pmf(np.arange(10), share * mean)
        kept = expected * len(counts) > 20
        found, wanted = np.append(seen[kept], len(counts) - seen[kept].sum()), expected[kept]
        wanted = len(counts) * np.append(wanted, 1 - wanted.sum())
        assert stats.chisquare(found, wanted).pvalue > 1e-4
    table = np.zeros((6, 6))
    np.add.at(table, (np.minimum(parts[0], 5), np.minimum(parts[2], 5)), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_split_counts_repeat_and_keep_shapes():
    counts = torch.randint(0, 50, (3, 4, 5))
    first, again, other = (split_counts(counts, seed=seed) for seed in (1, 1, 2))
    assert first[0].shape == (3, 4, 5)
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(split_counts(counts, [1.0])[0], counts.numpy())


@pytest.mark.parametrize(
    ("counts", "shares", "words"),
    [
        ([1.5], (0.5, 0.5), "counts: expected whole numbers"),
        ([-1.0], (0.5, 0.5), "counts: expected whole numbers"),
        ([1.0], (0.5, 0.4), "shares: expected positive numbers that add up to 1"),
        ([1.0], (1.5, -0.5), "shares: expected positive numbers"),
        ([1.0], (), "shares: expected positive numbers"),
    ],
)
def test_what_cannot_be_split(counts, shares, words):
    with pytest.raises(ValueError, match=words):
        split_counts(counts, shares)


def test_views_are_dealt_out():
    parts = split_views(23, 4)
    assert sorted(np.concatenate(parts).tolist()) == list(range(23))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="views: expected an integer in"):
        split_views(3, 4)


@pytest.mark.parametrize("of_each", [False, True])
def test_steins_risk_has_the_mean_of_the_error_in_closed_form(of_each):
    """For ``D = W y`` the error has the mean ``(|(W - I) x|² + tr(W S Wᵀ)) / n``."""
    generator = torch.Generator().manual_seed(0)
    n, draws = 12, 20_000
    W = torch.randn(n, n, generator=generator, dtype=torch.float64) / 4
    truth = torch.randn(n, generator=generator, dtype=torch.float64)
    sigma = torch.linspace(0.2, 0.9, n, dtype=torch.float64) if of_each else torch.tensor(0.5, dtype=torch.float64)
    noise = torch.randn(draws, n, generator=generator, dtype=torch.float64) * sigma
    eye = torch.eye(n, dtype=torch.float64)
    spread = torch.diag(sigma.expand(n) ** 2)
    expected = float((((W - eye) @ truth).square().sum() + torch.trace(W @ spread @ W.T)) / n)
    estimates = np.array(
        [stein_risk(lambda y: W @ y, truth + each, sigma, seed=s).item() for s, each in enumerate(noise[:4000])]
    )
    assert abs(estimates.mean() - expected) < 4 * estimates.std() / math.sqrt(len(estimates))
    assert estimates.std() / math.sqrt(len(estimates)) < 0.05 * expected


def test_the_weight_of_least_risk_is_the_wiener_filter():
    """Minimising the estimate over ``D = a y`` finds ``a = S² / (S² + σ²)`` without seeing the truth."""
    generator = torch.Generator().manual_seed(1)
    truth = 1.5 * torch.randn(400_000, generator=generator, dtype=torch.float64)
    noisy = truth + 0.8 * torch.randn(len(truth), generator=generator, dtype=torch.float64)
    risks = [stein_risk(lambda y, a=a: a * y, noisy, 0.8).item() for a in (0.0, 0.5, 1.0)]
    square, linear, _ = np.polyfit([0.0, 0.5, 1.0], risks, 2)
    assert -linear / (2 * square) == pytest.approx(1.5**2 / (1.5**2 + 0.8**2), abs=0.005)


def test_aims_from_other_views_teach_what_the_truth_would():
    """Noise2Inverse on two linear reconstructions: the best factor is that of the mean square error to the truth."""
    generator = np.random.default_rng(3)
    n, views, sigma = 6, 40, 1.0
    A = generator.normal(size=(views, n))
    parts = split_views(views, 2)
    inverses = [np.linalg.pinv(A[part]) for part in parts]
    truth = generator.normal(size=(30_000, n))
    data = truth @ A.T + sigma * generator.normal(size=(30_000, views))
    given, aim = (data[:, part] @ inverse.T for part, inverse in zip(parts, inverses, strict=True))
    found = (given * aim).sum() / (given**2).sum()
    expected = n / (n + sigma**2 * np.trace(inverses[0] @ inverses[0].T))
    assert found == pytest.approx(expected, abs=0.01)
    of_itself = (given * given).sum() / (given**2).sum()
    assert of_itself - expected > 0.05


def small_operator(edge: int = 4, views: int = 7) -> TensorXRayTransform:
    angles = np.random.default_rng(0).uniform(0, 3, (2, views))
    return TensorXRayTransform(
        Geometry.from_angles(angles[0], angles[1], (edge,) * 3, (edge, edge)), SecondMomentResponse(), ell_max=2
    )


@pytest.mark.parametrize("place", [0, 7, 16])
def test_the_loss_of_equivariance_in_matrices(place):
    """For a linear method B: ``|B A T B y - T B y|² / |T B y|²``, with the rotation as a matrix from unit vectors."""
    A, rotation = small_operator(), CUBE_ROTATIONS[place]
    shape, count = A.domain_shape, math.prod(A.domain_shape)
    eye = torch.eye(count, dtype=torch.float64)
    matrix = A(eye.reshape(-1, *shape)).reshape(count, -1).T
    turning = torch.stack([rotation.volume(unit.reshape(shape)).flatten() for unit in eye], 1)
    B = torch.linalg.pinv(matrix, rtol=1e-2)
    data = torch.randn(A.range_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = 0.1 * torch.randn(A.range_shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    turned = turning @ B @ data.flatten()
    again = B @ (matrix @ turned + noise.flatten())
    expected = float((again - turned).square().sum() / turned.square().sum())
    found = equivariance_loss(lambda y: (B @ y.flatten()).reshape(shape), A, data, rotation, noise=noise)
    assert found.item() == pytest.approx(expected, rel=1e-8)


def test_measuring_a_turned_sample_is_measuring_with_views_turned_back():
    A = small_operator()
    x = torch.randn(A.domain_shape, dtype=torch.float64)
    for rotation in CUBE_ROTATIONS[::5]:
        back = TensorXRayTransform(rotation.inverse.geometry(A.geometry), A.response, 2)
        assert torch.allclose(A(rotation.volume(x)), back(x), atol=1e-10)


def test_the_loss_is_zero_for_an_exact_method_and_grows_with_what_it_cannot_see():
    A = small_operator(2, 40)
    shape, count = A.domain_shape, math.prod(A.domain_shape)
    matrix = A(torch.eye(count, dtype=torch.float64).reshape(-1, *shape)).reshape(count, -1).T
    assert torch.linalg.matrix_rank(matrix) == count
    data = matrix @ torch.randn(count, dtype=torch.float64)
    factor = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    B = torch.linalg.pinv(matrix)
    loss = equivariance_loss(
        lambda y: factor * (B @ y.flatten()).reshape(shape), A, data.reshape(A.range_shape), CUBE_ROTATIONS[4]
    )
    assert loss.item() < 1e-18
    one_view = A.views([0])
    few = matrix.reshape(40, -1, count)[0]
    B = torch.linalg.pinv(few, rtol=1e-6)
    loss = equivariance_loss(
        lambda y: factor * (B @ y.flatten()).reshape(shape),
        one_view,
        data.reshape(A.range_shape)[:1],
        CUBE_ROTATIONS[4],
    )
    loss.backward()
    assert loss.item() > 0.05
    assert factor.grad is not None
    assert torch.isfinite(factor.grad)


def test_shapes_that_do_not_fit_are_refused():
    A = small_operator()
    data = torch.zeros(A.range_shape)
    with pytest.raises(ValueError, match="noise: expected shape"):
        equivariance_loss(A.T, A, data, CUBE_ROTATIONS[3], noise=torch.zeros(2))
    geometry = Geometry.from_angles([0.0], 0.0, (4, 5, 6), (4, 4))
    flat = TensorXRayTransform(geometry, SecondMomentResponse(), 2)
    with pytest.raises(ValueError, match=r"rotation \(of the volume\): expected shape"):
        equivariance_loss(flat.T, flat, torch.zeros(flat.range_shape), CUBE_ROTATIONS[-1])
    with pytest.raises(ValueError, match="sigma: expected a shape that broadcasts"):
        stein_risk(lambda y: y, torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="sigma: expected finite numbers above 0"):
        stein_risk(lambda y: y, torch.ones(3), 0.0)
    with pytest.raises(ValueError, match=r"^step: expected a finite number in \[1e-06"):
        stein_risk(lambda y: y, torch.ones(3), 0.1, step=5e-324)
