"""The compiled passes of the total variation against what every functional does with torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo.priors import TotalVariation
from ddf_tomo.priors.functional import Functional

KINDS = {
    "plain": {},
    "orders": {"order_weights": [1.0, 4.0]},
    "one order": {"order_weights": [0.5]},
    "tensor": {"tensor": True},
}
CHANNELS = {"plain": 3, "orders": 6, "one order": 1, "tensor": 6}
SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


def noise(shape, dtype, seed):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@given(shape=SHAPES, seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_one_pass_gives_what_torch_does(kind, dtype, shape, seed):
    prior = 0.7 * TotalVariation(shape, smoothing=0.1, **KINDS[kind])
    x, d = (noise((*shape, CHANNELS[kind]), dtype, seed + more) for more in (0, 1))
    precise = {} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(prior.gradient(x), Functional.gradient(prior, x), **precise)
    ours, plain = prior.along(x, d), Functional.along(prior, x, d)
    for alpha in (0.0, -0.4, 3.0):
        assert ours(alpha) == pytest.approx(plain(alpha), rel=1e-4 if precise else 1e-9, abs=1e-4 if precise else 1e-9)


def test_the_gradient_is_that_of_the_value():
    prior = TotalVariation((4, 3, 5), smoothing=0.2, order_weights=[1, 2])
    x = noise((4, 3, 5, 6), torch.float64, 0).requires_grad_()
    (expected,) = torch.autograd.grad(prior.value(prior.apply(x)), x)
    torch.testing.assert_close(prior.gradient(x.detach()), expected)


def test_threads_leave_no_trace():
    prior, x = TotalVariation((23, 5, 6), smoothing=0.1), noise((23, 5, 6, 4), torch.float32, 0)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append((prior.gradient(x), prior.along(x, x)(0.5)))
    finally:
        torch.set_num_threads(threads)
    for gradient, line in found[1:]:
        assert torch.equal(gradient, found[0][0])
        assert line == found[0][1]


def test_where_no_compiled_code_can_look_torch_does_it():
    prior, x = TotalVariation((4, 3, 5), smoothing=0.2), noise((2, 4, 3, 5, 2), torch.float64, 0)
    together = prior.gradient(x)
    torch.testing.assert_close(together, torch.stack([prior.gradient(one) for one in x]))
    turned = x[0].transpose(0, 2).contiguous().transpose(0, 2)
    torch.testing.assert_close(prior.gradient(turned), prior.gradient(x[0]))
    with pytest.raises(ValueError, match=r"^smoothing: expected a positive number"):
        TotalVariation((4, 3, 5)).gradient(x[0])
