"""Our operators for programs made for tomosipo: what such programs do with an operator, written here anew.

The loops below are short forms of the published algorithms, in the way of calling that tomosipo's users have: buffers
that are made once and overwritten by ``out=``, shapes asked of the operator, comparisons of geometry by attributes.
"""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import ddf_tomo as dt
from ddf_tomo.interop import tomosipo
from ddf_tomo.interop.astra import to_sinogram
from ddf_tomo.interop.tomosipo import to_tomosipo_operator
from ddf_tomo.priors import TotalVariation
from tests.strategies import random_geometry

GEOMETRY = random_geometry(9, (6, 5, 4), (7, 8), seed=7, offset=0.2)
OURS = dt.XRayTransform(GEOMETRY, channels=1)


def volume(seed: int = 0) -> torch.Tensor:
    return torch.rand(GEOMETRY.volume_shape, generator=torch.Generator().manual_seed(seed))


def test_values_are_ours_in_their_order():
    A = to_tomosipo_operator(OURS)
    x = volume()
    assert A.domain_shape == A.T.range_shape == (6, 5, 4)
    assert A.range_shape == A.T.domain_shape == (7, 9, 8)
    y = A(x)
    assert torch.equal(y, to_sinogram(OURS(x[..., None])[..., 0]))
    assert torch.equal(A.T(y), OURS.T(OURS(x[..., None]))[..., 0])
    assert y.is_contiguous()
    assert A.T.T is A
    assert A.transpose() is A.T
    assert "TomosipoOperator" in repr(A)
    numbers = A(x.double().numpy())
    assert isinstance(numbers, np.ndarray)
    assert numbers.dtype == np.float64
    np.testing.assert_allclose(numbers, y, atol=1e-5)


@pytest.mark.parametrize("library", [torch, np])
def test_out_is_overwritten_and_returned(library):
    A = to_tomosipo_operator(OURS)
    x = volume() if library is torch else volume().numpy()
    for operator, value in ((A, x), (A.T, A(x))):
        # Neighbours of a buffer that is a part of a larger one must stay as they are.
        larger = library.full((2, *operator.range_shape, 2), 7.0, dtype=library.float32)
        assert operator(value, out=larger[1, ..., 1]) is not None
        assert (larger[1, ..., 1] == operator(value)).all()
        assert (larger[0] == 7).all()
        assert (larger[1, ..., 0] == 7).all()
        buffer = library.zeros(operator.range_shape, dtype=library.float32)
        assert operator(value, out=buffer) is buffer


def test_gradients_pass_without_out():
    A = to_tomosipo_operator(OURS)
    x = volume().requires_grad_()
    y = A(x)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * A.T(y.detach()))
    assert not A(x, out=torch.empty(A.range_shape)).requires_grad


def sirt_like(A, y, iterations):
    """``x ← x - C Aᵀ R (A x - y)`` with the sums of rows and columns, in two buffers."""
    projections, back = torch.ones(A.range_shape), torch.ones(A.domain_shape)
    columns, rows = A.T(projections), A(back)
    for sums in (columns, rows):
        sums[sums < 1e-6] = math.inf
        sums.reciprocal_()
    x = torch.zeros(A.domain_shape)
    for _ in range(iterations):
        A(x, out=projections)
        projections -= y
        projections *= rows
        A.T(projections, out=back)
        back *= columns
        x -= back
    return x


def test_a_loop_like_sirt_is_our_sirt():
    A, data = to_tomosipo_operator(OURS), OURS(volume()[..., None])
    expected = dt.solvers.sirt(OURS, data, iterations=12).x[..., 0]
    torch.testing.assert_close(sirt_like(A, A(volume()), 12), expected, rtol=1e-4, atol=1e-5)


def fista_tv_like(A, y, weight, iterations):
    """Accelerated proximal gradients (Beck & Teboulle 2009) with smoothed total variation; buffers by ``out=``."""
    estimate = torch.ones(A.domain_shape)
    for _ in range(30):
        estimate = A.T(A(estimate))
        norm = torch.linalg.norm(estimate)
        estimate /= norm
    prior = weight * TotalVariation(A.domain_shape, smoothing=0.05)
    step = 1 / (1.05 * float(norm) + 12 * weight / 0.05)
    projections, gradient = torch.empty(A.range_shape), torch.empty(A.domain_shape)
    x = ahead = torch.zeros(A.domain_shape)
    t = 1.0
    for _ in range(iterations):
        A(ahead, out=projections)
        projections -= y
        A.T(projections, out=gradient)
        z = prior.apply(ahead[..., None])
        gradient += weight * prior.apply_adjoint(prior.curvature(z) * z)[..., 0]
        before, x, t_before = x, ahead - step * gradient, t
        t = (1 + math.sqrt(1 + 4 * t * t)) / 2
        ahead = x + (t_before - 1) / t * (x - before)
    return x


def test_a_loop_like_fista_with_total_variation_has_our_minimum():
    A = to_tomosipo_operator(OURS)
    y = A(volume()) + 0.05 * torch.randn(A.range_shape, generator=torch.Generator().manual_seed(1))
    data = y.swapaxes(0, 1)[..., None]
    prior = 0.1 * TotalVariation(GEOMETRY.volume_shape, smoothing=0.05)
    expected = dt.solvers.lbfgs(OURS, data, regularisers=prior, iterations=200, tolerance=1e-6).x[..., 0]
    found = fista_tv_like(A, y, 0.1, 1500)
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_it_wraps_back_and_adapts_other_operators():
    A = to_tomosipo_operator(0.5 * OURS)
    again = dt.wrap(A)
    assert again.domain_shape == (6, 5, 4)
    torch.testing.assert_close(again(volume()), 0.5 * to_tomosipo_operator(OURS)(volume()))
    assert dt.check_adjoint(again, torch.float64) < 1e-12


def test_geometries_are_tomosipos(monkeypatch):
    stand_in = ModuleType("tomosipo")
    stand_in.volume = lambda **arguments: SimpleNamespace(**arguments)
    stand_in.parallel_vec = lambda **arguments: SimpleNamespace(**arguments)
    monkeypatch.setitem(sys.modules, "tomosipo", stand_in)
    A = to_tomosipo_operator(OURS)
    assert A.domain.shape == A.astra_compat_vg.shape == A.T.astra_compat_vg.shape == A.T.range.shape == (6, 5, 4)
    for projections in (A.range, A.astra_compat_pg, A.T.astra_compat_pg, A.T.domain):
        again = tomosipo.from_parallel_vec(projections, (6, 5, 4))
        np.testing.assert_allclose(again.p, GEOMETRY.p)
    with pytest.raises(TypeError, match=r"A\.geometry: expected an operator with a geometry"):
        _ = to_tomosipo_operator(2 * OURS).domain
    monkeypatch.setitem(sys.modules, "tomosipo", None)
    with pytest.raises(ImportError, match="pip install git"):
        _ = A.domain


def test_tomosipo_itself_has_the_same_shapes():
    ts = pytest.importorskip("tomosipo")
    pytest.importorskip("astra")
    A = to_tomosipo_operator(OURS)
    theirs = ts.operator(A.domain, A.range)
    assert theirs.domain_shape == A.domain_shape
    assert theirs.range_shape == A.range_shape
    assert A.range.num_angles == 9


def test_what_does_not_fit_is_named():
    A = to_tomosipo_operator(OURS)
    x = volume()
    for call, error, words in (
        (lambda: to_tomosipo_operator(3), TypeError, "A: expected a LinearOperator, got int"),
        (
            lambda: to_tomosipo_operator(dt.XRayTransform(GEOMETRY, channels=2)),
            ValueError,
            "A: expected .* one channel",
        ),
        (lambda: to_tomosipo_operator(dt.wrap(A)), ValueError, "A: expected .* one channel"),
        (lambda: A(x[..., None]), ValueError, r"x: expected shape \(6, 5, 4\), got \(6, 5, 4, 1\)"),
        (lambda: A.T(x), ValueError, r"x: expected shape \(7, 9, 8\)"),
        (lambda: A([1.0]), TypeError, "x: expected a tensor or an array, got list"),
        (lambda: A(x, out=x), ValueError, r"out: expected shape \(7, 9, 8\)"),
        (lambda: A(x, out=np.zeros(A.range_shape)), TypeError, "out: expected what x is"),
        (lambda: A(x, out=torch.zeros(A.range_shape, dtype=torch.float64)), TypeError, "out: expected torch.float32"),
        (lambda: A(x.numpy(), out=np.broadcast_to(np.float32(0), A.range_shape)), TypeError, "out: .* written to"),
        (lambda: A(x, out=torch.zeros(A.range_shape).to_sparse()), TypeError, "out: expected a dense tensor"),
        (lambda: A(x.half()), TypeError, "x: expected float32 or float64"),
    ):
        with pytest.raises(error, match=words):
            call()
