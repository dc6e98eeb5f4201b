"""The weight of the smoothness penalty, from views left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import SecondMomentResponse, TensorXRayTransform
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import Differences
from ddf_tomo.solvers.cgls import cgls
from ddf_tomo.solvers.smoothness import CANDIDATES, FALLBACK, choose_smoothness, penalty_scale
from tests.operators.registry import xray

GEOMETRY = tilt_series((10, 10, 10), views=(10, 14, 12), tilts_rad=np.radians([0.0, 22.5, 45.0]))
A = TensorXRayTransform(GEOMETRY, SecondMomentResponse(), 2)
SCALE = penalty_scale(A, None)


def scan_data(noise: float, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=noise, seed=seed).data)


def test_scale_is_the_energy_of_a_constant():
    ones = torch.zeros(10, 10, 10, 6)
    ones[..., 0] = 1
    assert penalty_scale(A, None) == pytest.approx(float(A(ones).square().sum()) / 1000, rel=1e-5)
    weights = torch.zeros(len(GEOMETRY), 1, 1, 1)
    weights[3] = 2.0
    assert penalty_scale(A, weights) == pytest.approx(2 * float(A(ones)[3].square().sum()) / 1000, rel=1e-5)
    assert penalty_scale(A, 0 * weights) == 1.0  # of nothing: any finite number does
    assert penalty_scale(xray(), None) == pytest.approx(penalty_scale(xray(channels=1), None))


def test_noise_asks_for_more_smoothness():
    chosen = []
    for noise in (0.0, 0.02, 0.3):
        relative, start = choose_smoothness(A, scan_data(noise), None, SCALE, progress=False)
        assert relative in CANDIDATES
        assert start.shape == A.domain_shape
        chosen.append(relative)
    assert chosen[0] <= chosen[1] < chosen[2]
    assert chosen[0] <= 0.01
    assert chosen[2] >= 0.1


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05, 0.3])
def test_the_choice_is_near_the_best_there_is(noise):
    """Judged by the truth, which cross-validation does not know, over weights beyond all that it tries."""
    data, D = scan_data(noise), Differences((10, 10, 10))
    truth = torch.from_numpy(helicoidal_fibres((10, 10, 10), 2)[0])

    def error(weight):
        return float((cgls(A, data, tikhonov=weight * SCALE, penalty=D, iterations=40).x - truth).norm())

    errors = [error(weight) for weight in np.logspace(-5, 1, 13)]
    relative, _ = choose_smoothness(A, data, None, SCALE, progress=False)
    assert error(relative) < 1.15 * min(errors)
    assert max(errors) > 1.4 * min(errors)  # it could have been wrong


def test_the_seed_chooses_the_views():
    data = scan_data(0.02)
    first, again = (choose_smoothness(A, data, None, SCALE, seed=3, progress=False)[1] for _ in range(2))
    other = choose_smoothness(A, data, None, SCALE, seed=4, progress=False)[1]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("shape", [(len(GEOMETRY), 10, 10, 3), (len(GEOMETRY), 1, 1, 1), (1, 1, 1, 1), (3,), ()])
def test_uniform_weights_of_any_shape_change_nothing(shape):
    data = scan_data(0.02)
    weights = torch.full(shape, 4.0)
    expected, _ = choose_smoothness(A, data, None, SCALE, progress=False)
    found, _ = choose_smoothness(A, data, weights, penalty_scale(A, weights), progress=False)
    assert found == expected


def test_masked_data_have_no_say():
    data = scan_data(0.02)
    weights = torch.ones_like(data)
    weights[::4, 2] = 0
    expected, start = choose_smoothness(A, torch.where(weights > 0, data, 0), weights, SCALE, progress=False)
    spoilt = torch.where(weights > 0, data, torch.nan)
    found, same = choose_smoothness(A, spoilt, weights, SCALE, progress=False)
    assert found == expected
    assert torch.equal(start, same)


def test_few_views_and_blind_splits_fall_back():
    assert choose_smoothness(A.views(range(9)), scan_data(0.0)[:9], None, SCALE) == (FALLBACK, None)
    weights = torch.zeros(len(GEOMETRY), 1, 1, 1)
    weights[0] = 1
    assert choose_smoothness(A, scan_data(0.0), weights, SCALE) == (FALLBACK, None)


def test_zero_data():
    relative, start = choose_smoothness(A, torch.zeros(A.range_shape), None, SCALE, progress=False)
    assert relative == CANDIDATES[0]
    assert not start.any()
