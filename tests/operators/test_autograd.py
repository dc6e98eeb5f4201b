"""Operators that torch cannot look into: their life in graphs, compiled code, copies."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch

from ddf_tomo import TensorXRayTransform
from ddf_tomo.operators.autograd import OpaqueOperator, _operators
from tests.operators.registry import tensor, xray


def noise(shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_graph_keeps_a_temporary_operator():
    A = xray(channels=2)
    x = noise(A.domain_shape).requires_grad_()
    value = A.views([1])(x).square().sum()
    gc.collect()
    (gradient,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(gradient, 2 * A.views([1]).normal()(x).detach())


def test_operators_are_forgotten_when_nobody_needs_them():
    A = tensor()
    before = len(_operators)
    part = A.views([0])
    gone = weakref.ref(part)
    assert len(_operators) == before + 2  # with its projector
    del part
    gc.collect()
    assert gone() is None
    assert len(_operators) == before


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_live_on_their_own(duplicate):
    A = tensor()
    again = duplicate(A)
    assert isinstance(again, TensorXRayTransform)
    assert again._key != A._key
    x = noise(A.domain_shape)
    expected = A(x)
    del A
    gc.collect()
    assert torch.equal(again(x), expected)


def test_gradients_through_a_chain_of_operators_and_functions():
    A = tensor()
    x = noise(A.domain_shape).requires_grad_()
    loss = A(torch.nn.functional.softplus(x)).tanh().square().sum()
    loss.backward()
    assert x.grad is not None
    direction = noise(A.domain_shape, 1)
    step = 1e-6

    def value(x):
        return float(A(torch.nn.functional.softplus(x)).tanh().square().sum())

    with torch.no_grad():
        numerical = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    assert float((x.grad * direction).sum()) == pytest.approx(numerical, rel=1e-6)


def test_hessian_vector_products_and_third_order():
    A = xray(channels=1)
    x = noise(A.domain_shape).requires_grad_()

    def cubic(x):
        return A(x).pow(3).sum() / 6

    hessian = torch.autograd.functional.hvp(cubic, x, noise(A.domain_shape, 1))[1]
    torch.testing.assert_close(hessian, A.T(A(x) * A(noise(A.domain_shape, 1))).detach())
    (first,) = torch.autograd.grad(cubic(x), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    ones = A(torch.ones_like(x))
    torch.testing.assert_close(third, A.T(ones * ones).detach())


def test_no_graph_without_need():
    A = xray()
    x = noise((4, 3, 5, 1)).requires_grad_()
    with torch.no_grad():
        assert not A(x).requires_grad
    assert not A(x.detach()).requires_grad
    assert A(x).requires_grad


def test_compiled_code_follows_the_shape_of_its_input():
    A = xray()
    torch.compiler.reset()
    run = torch.compile(lambda x: A(2 * x) + 1, fullgraph=True, backend="aot_eager")
    for shape in ((4, 3, 5, 1), (4, 3, 5, 3), (2, 4, 3, 5, 3), (5, 4, 3, 5, 4)):
        x = noise(shape)
        torch.testing.assert_close(run(x), A(2 * x) + 1)


def test_compiled_training_step_equals_eager():
    A = tensor()
    weights = noise((6,)).requires_grad_()
    x = noise(A.domain_shape)

    def loss(weights):
        return (A(x * weights) - 1).square().mean()

    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(loss(weights), weights)
    (found,) = torch.autograd.grad(compiled(weights), weights)
    torch.testing.assert_close(found, expected)


def test_the_node_passes_torchs_own_check():
    A = xray(channels=2)
    x = noise(A.domain_shape).requires_grad_()
    torch.library.opcheck(torch.ops.ddf_tomo.apply.default, (x, A._key, False))
    torch.library.opcheck(torch.ops.ddf_tomo.apply.default, (noise(A.range_shape).requires_grad_(), A._key, True))


def test_jacobians_of_functions_of_operators():
    A = xray(channels=1).views([0])
    x = noise(A.domain_shape)
    reverse = torch.func.jacrev(lambda x: A(x).sin())(x)
    forward = torch.func.jacfwd(lambda x: A(x).sin())(x)
    torch.testing.assert_close(reverse, forward)


class Doubling(OpaqueOperator):
    """What a user has to write."""

    def __init__(self):
        super().__init__()
        self.domain_shape, self.range_shape = (2, None), (3, None)

    def _forward_kernel(self, x):
        return torch.cat([2 * x, x[:, :1]], dim=1)

    def _adjoint_kernel(self, y):
        x = 2 * y[:, :2]
        x[:, 0] += y[:, 2]
        return x


def test_an_operator_of_ones_own():
    A = Doubling()
    x = noise((2, 4)).requires_grad_()
    assert torch.autograd.gradcheck(A, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(A, x)
    assert torch.func.vmap(A, in_dims=1)(noise((2, 5, 4))).shape == (5, 3, 4)
