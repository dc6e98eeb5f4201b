"""The checks that users run: they pass what is right and name what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import LinearOperator, check_adjoint, check_linear, wrap
from tests.operators.registry import xray


def wrapped(forward, adjoint, n=6, m=6):
    return wrap((forward, adjoint), (n,), (m,))


def test_right_operators_pass():
    assert 0 <= check_adjoint(xray()) <= 1e-5
    assert 0 <= check_adjoint(xray(), torch.float64) <= 1e-12
    assert check_linear(wrapped(lambda x: x.flip(0), lambda y: y.flip(0)), torch.float64) <= 1e-12


def test_a_voxel_driven_backprojection_is_caught():
    """The transpose but for the interpolation: off by per cents on noise."""
    A = xray(channels=1)

    class Smeared(LinearOperator):
        domain_shape, range_shape = A.domain_shape, A.range_shape

        def _apply(self, x):
            return A(x)

        def _apply_adjoint(self, y):
            return A.T((y + y.roll(1, -2)) / 2)

    with pytest.raises(AssertionError, match=r"<A x, y> = <x, Aᵀ y> is violated by .* \(relative\), allowed 1e-05"):
        check_adjoint(Smeared())
    assert check_adjoint(Smeared(), tolerance=10) > 1e-2


@pytest.mark.parametrize(
    "forward", [lambda x: x + 1, lambda x: x.abs(), lambda x: x * x, lambda x: x * torch.nan, lambda x: 0 * x + 1e-3]
)
def test_what_is_not_linear_is_caught(forward):
    with pytest.raises(AssertionError, match=r"A\(a x \+ b y\) = a A x \+ b A y is violated"):
        check_linear(wrapped(forward, lambda y: y))


def test_wrong_signs_and_factors_are_caught():
    for adjoint in (lambda y: -y, lambda y: 1.001 * y, lambda y: y.roll(1), lambda y: y * torch.nan):
        with pytest.raises(AssertionError, match="is violated by"):
            check_adjoint(wrapped(lambda x: x, adjoint))


def test_the_zero_operator_has_the_zero_adjoint():
    assert check_adjoint(wrapped(lambda x: 0 * x, lambda y: 0 * y)) == 0
    assert check_linear(wrapped(lambda x: 0 * x, lambda y: 0 * y)) == 0
    with pytest.raises(AssertionError, match="is violated by"):
        check_adjoint(wrapped(lambda x: 0 * x, lambda y: torch.ones(6)))


@pytest.mark.parametrize("check", [check_adjoint, check_linear])
def test_bad_arguments(check):
    with pytest.raises(TypeError, match=r"^operator: expected a LinearOperator, got ndarray. make one with wrap"):
        check(np.eye(3))
    with pytest.raises(TypeError, match=r"^dtype: expected torch.float32 or torch.float64, got torch.float16"):
        check(xray(), torch.float16)
    with pytest.raises(ValueError, match=r"^tolerance: expected a finite number"):
        check(xray(), tolerance=-1)
