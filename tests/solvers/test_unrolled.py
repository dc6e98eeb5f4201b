"""Unrolled reconstruction: it learns through the physics, and does not care which geometry it was trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import Geometry, SaxsResponse, SecondMomentResponse, TensorXRayTransform, wrap
from ddf_tomo.phantoms import helicoidal_fibres
from ddf_tomo.solvers import Misfit, cgls
from ddf_tomo.solvers.plug_and_play import near_data
from ddf_tomo.solvers.unrolled import Unrolled
from ddf_tomo.weights import load_network, save_network
from tests.solvers.registry import WEIGHTS, data, operator

SMALL = {"options": {"widths": [4, 5, 6]}, "iterations": 2, "inner_iterations": 2}


def problem(response=None, views=9, shape=(6, 6, 6), seed=0):
    geometry = Geometry.from_angles(np.linspace(0, 3, views), np.linspace(0, 0.7, views), shape, (8, 8))
    A = TensorXRayTransform(geometry, response or SecondMomentResponse(), 2)
    truth = torch.as_tensor(helicoidal_fibres(shape, 2).coefficients, dtype=torch.float32)
    y = A(truth)
    return A, y + 0.05 * y.std() * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)), truth


def network(**options):
    torch.manual_seed(0)
    return Unrolled(**(SMALL | options))


def test_conjugate_gradients_near_a_target():
    target = torch.randn(operator().domain_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    misfit = Misfit(operator(), data(), WEIGHTS)
    shifted = cgls(operator(), misfit.y - operator()(target), weights=WEIGHTS, tikhonov=0.7, iterations=40)
    for start in (None, 0.5 * target):
        found = near_data(misfit, target, 0.7, 40, start)
        torch.testing.assert_close(found, target + shifted.x, atol=1e-7, rtol=0)


def test_gradients_pass_through_the_conjugate_gradients():
    misfit = Misfit(operator(), data(), WEIGHTS)
    target = torch.randn(operator().domain_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rho = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = near_data(misfit, target, rho, 40)
    (slope,) = torch.autograd.grad(found.square().sum(), rho)
    ends = [float(near_data(misfit, target, 0.7 + h, 40).square().sum()) for h in (1e-4, -1e-4)]
    assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4)


def test_every_part_learns_through_the_physics():
    A, y, truth = problem()
    unrolled = network()
    (unrolled(A, y) - truth).square().sum().backward()
    assert all(float(p.grad.abs().min()) > 0 for p in (unrolled.log_levels, unrolled.log_strengths))
    assert all(float(p.grad.abs().max()) > 0 for p in unrolled.denoiser.network.convolutions.parameters())


def test_saved_memory_changes_no_gradient():
    A, y, truth = problem()

    def gradients(save_memory):
        unrolled = network(save_memory=save_memory)
        (unrolled(A, y) - truth).square().sum().backward()
        return [p.grad for p in unrolled.parameters() if p.grad is not None]

    for saved, kept in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(saved, kept, rtol=1e-4, atol=1e-6)


def test_training_helps_on_another_geometry_too():
    """A few steps on one sample; other views, noise and response afterwards."""
    A, y, truth = problem()
    other = problem(SaxsResponse([0.0, 0.8, 1.6, 2.4]), views=7, seed=3)
    unrolled = network()

    def errors():
        with torch.no_grad():
            return [float((unrolled(A, y) - truth).norm()) for A, y, truth in ((A, y, truth), other)]

    before = errors()
    optimizer = torch.optim.Adam(unrolled.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        (unrolled(A, y) - truth).square().sum().backward()
        optimizer.step()
    after = errors()
    assert after[0] < 0.9 * before[0]
    assert after[1] < before[1]


@torch.no_grad()
def test_amplitudes_weights_and_batches():
    A, y, _ = problem()
    unrolled = network().double().eval()
    y = y.double()
    expected = unrolled(A, y)
    torch.testing.assert_close(unrolled(A, 1e3 * y), 1e3 * expected, rtol=1e-6, atol=1e-6)
    # What weights are relative to does not matter, if the variance is that of weight 1.
    torch.testing.assert_close(unrolled(A, y, weights=torch.tensor(7.0)), expected, rtol=1e-6, atol=1e-6)
    both = unrolled(A, torch.stack([y, 2 * y]))
    torch.testing.assert_close(both[1], 2 * both[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(both[0], expected)
    masked, weights = y.clone(), torch.ones_like(y)
    masked[0, :2], weights[0, :2] = torch.nan, 0.0
    assert torch.isfinite(unrolled(A, masked, weights)).all()


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same(tmp_path):
    pytest.importorskip("safetensors")
    A, y, _ = problem()
    unrolled = network().eval()
    save_network(unrolled, tmp_path / "unrolled.safetensors")
    loaded = load_network(tmp_path / "unrolled.safetensors")
    assert torch.equal(loaded(A, y), unrolled(A, y))


def test_what_is_refused():
    A, y, _ = problem()
    flat = wrap((lambda x: x, lambda y: y), (4, 4), (4, 4))
    unrolled = network()
    for given, kind, text in (
        ((None, y), TypeError, r"^A: expected a LinearOperator"),
        ((flat, torch.ones(4, 4)), ValueError, r"^A: expected one on volumes"),
        ((A, y[:1]), ValueError, r"^y: expected shape"),
        ((A, y.half()), TypeError, r"^y: expected float32"),
        ((A, y * torch.nan), ValueError, r"^y: expected finite data"),
        ((A, y, None, -1.0), ValueError, r"^variance: expected"),
    ):
        with pytest.raises(kind, match=text):
            unrolled(*given)
    with torch.no_grad(), pytest.raises(ValueError, match=r"^y, weights: expected numbers whose products fit"):
        unrolled(A, 1e36 * y)
    with pytest.raises(ValueError, match=r"^iterations"):
        Unrolled(iterations=0)
    with pytest.raises(TypeError, match=r"^denoiser: expected the name of a denoiser"):
        Unrolled("unrolled", SMALL)
