"""Differences between neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo import check_adjoint
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.priors import Differences

SIZES = st.tuples(*[st.integers(1, 6)] * 3)


@given(SIZES, st.integers(0, 100))
def test_differences_are_numpys(shape, seed):
    x = np.random.default_rng(seed).normal(size=(*shape, 2))
    found = Differences(shape)(x)
    assert found.shape == (3, *shape, 2)
    for axis in range(3):
        inner = tuple(slice(0, n - (a == axis)) for a, n in enumerate(shape))
        np.testing.assert_array_equal(found[axis][inner], np.diff(x, axis=axis))
        assert not np.take(found[axis], -1, axis=axis).any()


@given(SIZES)
def test_adjoint_is_exact(shape):
    check_adjoint(Differences(shape), torch.float64)


@given(SIZES)
def test_constants_cost_nothing_and_nothing_else_is_free(shape):
    D = Differences(shape)
    assert not D(np.full((*shape, 1), 3.7)).any()
    count = int(np.prod(shape))
    matrix = D(np.eye(count).reshape(count, *shape, 1)).reshape(count, -1)
    assert np.linalg.matrix_rank(matrix) == count - 1


def test_the_normal_operator_is_the_laplacian_with_free_boundaries():
    from scipy.sparse.csgraph import laplacian

    shape, count = (3, 4, 2), 24
    index = np.arange(count).reshape(shape)
    neighbours = np.zeros((count, count))
    for axis in range(3):
        first = np.take(index, range(shape[axis] - 1), axis).ravel()
        second = np.take(index, range(1, shape[axis]), axis).ravel()
        neighbours[first, second] = neighbours[second, first] = 1
    found = Differences(shape).normal()(np.eye(count).reshape(count, *shape, 1)).reshape(count, count)
    np.testing.assert_allclose(found, laplacian(neighbours), atol=1e-12)


def test_the_penalty_does_not_change_when_functions_turn():
    x = torch.randn(3, 4, 5, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, np.array([[0.36, 0.48, 0.8], [-0.8, 0.6, 0.0], [-0.48, -0.64, 0.6]]))
    D = Differences((3, 4, 5))
    torch.testing.assert_close(D(turned).square().sum(), D(x).square().sum())


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 0), (3, 4, 1.5), (1, 2, 3, 4)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"^volume_shape: expected 3 positive integers"):
        Differences(shape)
