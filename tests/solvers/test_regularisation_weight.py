"""The weight of a prior, from the data: judged by the truth, which the rules do not know."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from ddf_tomo import SecondMomentResponse, TensorXRayTransform
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import Differences
from ddf_tomo.solvers import Misfit, Solution, cgls
from ddf_tomo.solvers.regularisation_weight import (
    FALLBACK,
    FIRST,
    STRONGEST,
    WEAKEST,
    cross_validated_weight,
    discrepant_weight,
    l_curve_weight,
    response_scale,
)
from tests.operators.registry import xray

GEOMETRY = tilt_series((10, 10, 10), views=(10, 14, 12), tilts_rad=np.radians([0.0, 22.5, 45.0]))
A = TensorXRayTransform(GEOMETRY, SecondMomentResponse(), 2)
SCALE, _ = response_scale(A)
D = Differences((10, 10, 10))
TRUTH = torch.from_numpy(helicoidal_fibres((10, 10, 10), 2)[0])


@cache
def clean() -> torch.Tensor:
    return torch.from_numpy(simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse()).data)


def scan_data(noise: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return clean() + noise * clean().max() * torch.randn(clean().shape, generator=generator)


def smooth(misfit: Misfit, weight: float, x0: torch.Tensor | None, iterations: int = 10) -> Solution:
    scale = response_scale(misfit.A, misfit.weights)[0]
    how = {"weights": misfit.weights, "tikhonov": weight * scale, "penalty": D, "iterations": iterations}
    return cgls(misfit.A, misfit.y, x0=x0, progress=False, **how)


def error(misfit: Misfit, weight: float) -> float:
    return float((smooth(misfit, weight, None, 40).x - TRUTH).norm())


def test_scale_is_the_energy_of_a_constant():
    ones = torch.zeros(10, 10, 10, 6)
    ones[..., 0] = 1
    assert pytest.approx(float(A(ones).square().sum()) / 1000, rel=1e-5) == SCALE
    weights = torch.zeros(len(GEOMETRY), 1, 1, 1)
    weights[3] = 2.0
    assert response_scale(A, weights)[0] == pytest.approx(2 * float(A(ones)[3].square().sum()) / 1000, rel=1e-5)
    assert response_scale(A, 0 * weights) == (1.0, 1.0)  # of nothing: any finite numbers do
    assert response_scale(xray()) == pytest.approx(response_scale(xray(channels=1)))


def test_height_is_that_of_the_best_constant():
    ones = torch.zeros(10, 10, 10, 6)
    ones[..., 0] = 1
    weights = 0.5 + torch.rand(len(GEOMETRY), 1, 1, 1, generator=torch.Generator().manual_seed(0))
    found = response_scale(A, weights, scan_data(0.1))[1]
    root, seen = weights.expand(A.range_shape).sqrt().flatten(), A(ones).flatten()
    expected = torch.linalg.lstsq((root * seen)[:, None], (root * scan_data(0.1).flatten())[:, None]).solution
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert response_scale(A, None, -clean())[1] == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.3])
def test_cross_validation_comes_near_the_best_there_is(noise):
    misfit = Misfit(A, scan_data(noise))
    errors = [error(misfit, weight) for weight in np.logspace(-5, 1, 13)]
    chosen = cross_validated_weight(smooth, misfit)
    assert error(misfit, chosen.weight) < 1.1 * min(errors)
    assert max(errors) > 1.4 * min(errors)  # it could have been wrong
    assert chosen.x.shape == A.domain_shape
    assert list(chosen.tried) == sorted(chosen.tried, reverse=True)


def test_noise_asks_for_a_stronger_prior():
    weights = [cross_validated_weight(smooth, Misfit(A, scan_data(noise))).weight for noise in (0.0, 0.02, 0.3)]
    assert weights[0] <= weights[1] < weights[2]
    assert weights[0] <= 0.01
    assert weights[2] >= 0.1


def test_where_the_search_begins_does_not_matter():
    misfit = Misfit(A, scan_data(0.05))
    found = [cross_validated_weight(smooth, misfit, first=first).weight for first in (1e-3, 1e-2, 0.3)]
    assert max(found) < 2 * min(found)


def test_the_seed_chooses_the_views():
    misfit = Misfit(A, scan_data(0.02))
    first, again, other = (cross_validated_weight(smooth, misfit, seed=seed).x for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(len(GEOMETRY), 10, 10, 3), (len(GEOMETRY), 1, 1, 1), (1, 1, 1, 1), (3,), ()])
def test_uniform_weights_of_any_shape_change_nothing(shape):
    expected = cross_validated_weight(smooth, Misfit(A, scan_data(0.02))).weight
    found = cross_validated_weight(smooth, Misfit(A, scan_data(0.02), torch.full(shape, 4.0))).weight
    assert found == pytest.approx(expected, rel=0.01)


def test_masked_data_have_no_say():
    weights = torch.ones_like(clean())
    weights[::4, 2] = 0
    misfits = [Misfit(A, torch.where(weights > 0, scan_data(0.02), filling), weights) for filling in (0, torch.nan)]
    first, second = (cross_validated_weight(smooth, misfit) for misfit in misfits)
    assert first.weight == second.weight
    assert torch.equal(first.x, second.x)


def test_few_views_and_blind_splits_fall_back():
    found = cross_validated_weight(smooth, Misfit(A.views(range(9)), clean()[:9]))
    assert (found.weight, found.x) == (FALLBACK, None)
    weights = torch.zeros(len(GEOMETRY), 1, 1, 1)
    weights[0] = 1
    found = cross_validated_weight(smooth, Misfit(A, clean(), weights))
    assert (found.weight, found.x) == (FALLBACK, None)


def test_zero_data():
    found = cross_validated_weight(smooth, Misfit(A, torch.zeros(A.range_shape)))
    assert WEAKEST <= found.weight <= STRONGEST
    assert not found.x.any()


@pytest.mark.parametrize("noise", [0.02, 0.05])
def test_discrepancy_leaves_the_noise_as_residual(noise):
    def converged(misfit: Misfit, weight: float, x0: torch.Tensor | None) -> Solution:
        return smooth(misfit, weight, x0, 40)

    data = scan_data(noise)
    misfit, level = Misfit(A, data), 1.1 * float((data - clean()).norm())
    found = discrepant_weight(converged, misfit, level)
    assert converged(misfit, found.weight, found.x).residuals[-1] == pytest.approx(level, rel=0.03)
    # From below and from above.
    again = discrepant_weight(converged, misfit, level, first=1e-4)
    assert again.weight == pytest.approx(found.weight, rel=0.3)


def test_discrepancy_out_of_reach_takes_the_ends():
    misfit = Misfit(A, scan_data(0.1))
    assert discrepant_weight(smooth, misfit, 1e-3).weight < WEAKEST / 0.3
    assert discrepant_weight(smooth, misfit, 1e3, first=FIRST).weight > STRONGEST * 0.3


def test_the_corner_of_the_l_curve_is_where_noise_begins_to_be_fitted():
    misfit = Misfit(A, scan_data(0.05))
    found = l_curve_weight(smooth, misfit, lambda x: float(D(x).square().sum()))
    errors = {weight: error(misfit, weight) for weight, _ in found.tried}
    assert errors[found.weight] < 1.5 * min(errors.values())
    assert len(found.tried) == 9


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda m: cross_validated_weight(smooth, m, first=-1), "first"),
        (lambda m: cross_validated_weight(smooth, m, seed=-1), "seed"),
        (lambda m: cross_validated_weight(smooth, m, tolerated=0.5), "tolerated"),
        (lambda m: discrepant_weight(smooth, m, 0.0), "noise_level"),
        (lambda m: l_curve_weight(smooth, m, 3.0), "size"),
        (lambda m: l_curve_weight(smooth, m, float, count=2), "count"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises((TypeError, ValueError), match=f"^{named}: expected"):
        call(Misfit(A, clean()))
