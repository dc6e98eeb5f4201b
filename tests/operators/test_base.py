"""The algebra of operators: sums, products, stacks, and who decides a length that is left free."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import LinearOperator, XRayTransform, stack, wrap
from ddf_tomo.operators.base import as_tensor, broadcasts, fits, shape_text, sum_of
from ddf_tomo.priors import Differences
from tests.operators.registry import tensor, xray

ROWS, COLUMNS = np.arange(12.0).reshape(3, 4), np.cos(np.arange(12.0)).reshape(3, 4)


class Matrix(LinearOperator):
    """The smallest operator there is: two methods of torch operations."""

    def __init__(self, matrix):
        self.matrix = torch.as_tensor(matrix)
        self.range_shape, self.domain_shape = (len(self.matrix),), (self.matrix.shape[1],)

    def _apply(self, x):
        return x @ self.matrix.to(x).T

    def _apply_adjoint(self, y):
        return y @ self.matrix.to(y)

    def views(self, indices):
        return Matrix(self.matrix[np.atleast_1d(indices)])


A, B = Matrix(ROWS), Matrix(COLUMNS)
X = np.array([1.0, -2.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("operator", "matrix"),
    [
        (A + B, ROWS + COLUMNS),
        (A - B, ROWS - COLUMNS),
        (-A, -ROWS),
        (2 * A, 2 * ROWS),
        (A * 2, 2 * ROWS),
        (np.float64(2) * A, 2 * ROWS),
        (A * torch.tensor(2.0), 2 * ROWS),
        (A.T, ROWS.T),
        (A.T @ B, ROWS.T @ COLUMNS),
        (A.T @ B @ A.T, ROWS.T @ COLUMNS @ ROWS.T),
        ((A @ B.T).T, (ROWS @ COLUMNS.T).T),
        (stack([A, B]), np.concatenate([ROWS, COLUMNS])),
        (stack([A, B]).T, np.concatenate([ROWS, COLUMNS]).T),
        (A.normal(), ROWS.T @ ROWS),
        (A.normal([1.0, 0.0, 2.0]), ROWS.T @ np.diag([1.0, 0.0, 2.0]) @ ROWS),
        (A.normal(3.0), 3 * ROWS.T @ ROWS),
        ((A + 2 * B).views([2, 0]), (ROWS + 2 * COLUMNS)[[2, 0]]),
        (stack([A, B]).views([5, 1, 0, 4]), np.concatenate([ROWS, COLUMNS])[[5, 1, 0, 4]]),
        ((A @ A.T @ B).views([1]), (ROWS @ ROWS.T @ COLUMNS)[[1]]),
    ],
)
def test_algebra_is_that_of_matrices(operator, matrix):
    assert operator.shape == ((matrix.shape[0],), (matrix.shape[1],))
    x = np.resize(X, matrix.shape[1])
    np.testing.assert_allclose(operator(x), matrix @ x, atol=1e-12)
    np.testing.assert_allclose(operator.to_scipy(np.float64) @ x, matrix @ x, atol=1e-12)
    y = np.resize(X, matrix.shape[0])
    np.testing.assert_allclose(operator.T(y), matrix.T @ y, atol=1e-11)


@pytest.mark.parametrize(
    "combine", [lambda a: a @ 3, lambda a: a + 3, lambda a: a - 3, lambda a: a * X, lambda a: 3 + a]
)
def test_other_things_do_not_combine(combine):
    with pytest.raises(TypeError):
        combine(A)


def test_the_adjoint_of_the_adjoint_is_the_operator():
    assert A.T.T is A
    assert A.T.adjoint_is_exact


@pytest.mark.parametrize(
    ("combine", "text"),
    [
        (lambda: A @ B, r"^B in A @ B: expected range \(4,\), got \(3,\)"),
        (lambda: A + A.T, r"^B in A \+ B: expected shapes .*, got "),
        (lambda: stack([]), "^operators: expected at least one .*, got none"),
        (lambda: stack([A, A.T]), "^operators: expected shapes that stack on"),
        (lambda: stack([Free()]), "^operators: expected ranges of known first length"),
        (lambda: A * np.inf, "^factor: expected a finite number.*, got inf"),
        (lambda: A.normal([1.0, 2.0]), r"^weights: expected a shape that broadcasts to \(3\), got \(2,\)"),
        (lambda: A.normal(np.ones((2, 3))), r"^weights: expected a shape that broadcasts to \(3\), got \(2, 3\)"),
        (lambda: A.norm(0), "^iterations: expected an integer in"),
        (lambda: xray(channels=3) @ Differences((4, 3, 5)), r"^B in A @ B: expected range"),
        (lambda: xray(channels=3) + xray(channels=2), r"^B in A \+ B: expected shapes"),
    ],
)
def test_what_does_not_fit_is_named(combine, text):
    with pytest.raises(ValueError, match=text):
        combine()


class Free(Matrix):
    """A range whose only length the input decides."""

    def __init__(self):
        super().__init__(ROWS)
        self.range_shape = (None,)


def test_only_operators_are_stacked():
    for wrong in ([A, 3], [3], [3, A]):
        with pytest.raises(TypeError, match=r"^operators: expected .*LinearOperator.*, got int"):
            stack(wrong)


def test_a_foreign_part_spoils_exactness():
    foreign = wrap((lambda x: x[:3], lambda y: torch.cat([y, y[:1] * 0])), (4,), (3,))
    for operator in (foreign.T, A.T @ foreign, A + foreign, 2 * foreign, stack([A, foreign]), foreign.normal()):
        assert not operator.adjoint_is_exact
    assert (A + B).adjoint_is_exact


def test_a_known_length_fixes_a_free_one():
    smooth = Differences((4, 3, 5)).T @ Differences((4, 3, 5))
    assert smooth.shape == ((4, 3, 5, None), (4, 3, 5, None))
    known = xray(channels=2)
    for operator in (known @ smooth, xray() + known, known + xray(), 2 * known):
        assert operator.shape == ((3, 5, 4, 2), (4, 3, 5, 2))
        assert operator.to_scipy().shape == (120, 120)
        with pytest.raises(ValueError, match=r"^x: expected shape \(..., 4, 3, 5, 2\)"):
            operator(torch.ones(4, 3, 5, 3))
    assert (smooth @ known.T @ known).domain_shape == (4, 3, 5, 2)
    assert (smooth @ known.T).range_shape == (4, 3, 5, 2)
    assert stack([xray(), known]).shape == ((6, 5, 4, 2), (4, 3, 5, 2))
    assert stack([tensor(), tensor("rank two")]).range_shape == (6, 5, 4, 3)


def test_combinations_ask_for_the_device_of_their_parts():
    smooth = Differences((4, 3, 5)).T @ Differences((4, 3, 5))
    assert smooth.device is None
    assert smooth(torch.ones(4, 3, 5, 1, device="meta")).device.type == "meta"
    for operator in (xray() @ smooth, smooth + 0 * smooth + xray().normal(), stack([xray(), xray()]), -xray()):
        with pytest.raises(ValueError, match=r"^x: expected a tensor on cpu, got one on meta"):
            operator(torch.ones(4, 3, 5, 2, device="meta"))


def test_weights_of_the_normal_operator_broadcast_from_the_right():
    x = torch.ones(4, 3, 5, 2, dtype=torch.float64)
    operator, weights = xray(channels=2), torch.rand(3, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    expected = operator.T(weights.double() * operator(x))
    torch.testing.assert_close(operator.normal(weights)(x), expected)
    torch.testing.assert_close(operator.normal(weights.numpy())(x), expected)
    torch.testing.assert_close(xray().normal(weights)(x), expected)


def test_norm_of_nothing_is_zero():
    assert (0 * A).norm() == 0.0
    assert Matrix(np.zeros((2, 2))).norm() == 0.0


def test_views_through_a_stack():
    both = stack([xray(channels=1), xray(channels=1).views([2, 1])])
    x = torch.randn(4, 3, 5, 1, generator=torch.Generator().manual_seed(0))
    for chosen in ([4, 3, 0], slice(None), slice(2, 4), [True, False, False, False, True], [-1], []):
        part = both.views(chosen)
        torch.testing.assert_close(part(x), both(x)[np.arange(5)[chosen] if len(np.shape(chosen)) else chosen])
    with pytest.raises(IndexError, match=r"^views"):
        both.views([5])


@pytest.mark.parametrize(
    ("value", "kind"), [(3.0, torch.float64), ([1, 2], torch.int64), (np.float32(1), torch.float32), (True, torch.bool)]
)
def test_as_tensor_takes_what_numpy_takes(value, kind):
    assert as_tensor(value).dtype == kind


def test_as_tensor_shares_memory_where_it_can():
    array = np.ones((3, 4))
    assert as_tensor(array).numpy().base is array or np.shares_memory(as_tensor(array).numpy(), array)
    given = torch.ones(2)
    assert as_tensor(given) is given
    array.setflags(write=False)
    assert not np.shares_memory(as_tensor(array).numpy(), array)
    reversed_ = np.ones((1, 3))[::-1]
    assert torch.equal(as_tensor(reversed_), torch.ones(1, 3, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"^data: expected an array of real numbers, got complex128"):
        as_tensor(np.ones(2) * 1j, "data")


def test_what_no_operator_takes():
    with pytest.raises(TypeError, match=r"^x: expected a dense tensor"):
        A(torch.ones(4).to_sparse())
    for ragged in ([[1.0], [1.0, 2.0]], "text", [None]):
        with pytest.raises(TypeError, match=r"^x: expected an array of real numbers"):
            A(ragged)
    for dtype in (np.float16, int, "nonsense", None, object):
        with pytest.raises(TypeError, match=r"^dtype: expected numpy.float32 or numpy.float64"):
            A.to_scipy(dtype)


def test_shapes():
    assert fits((2, 3), (2, None))
    assert not fits((2, 3), (2, 4))
    assert not fits((2,), (2, 3))
    assert shape_text((2, None)) == "2, channel"
    assert broadcasts((), (2, 3))
    assert broadcasts((1, 3), (2, None))
    assert not broadcasts((2,), (2, 3))
    assert not broadcasts((1, 2, 3), (2, 3))
    assert sum_of([torch.ones(1)]).item() == 1


def test_inputs_have_the_last_word_on_channels():
    operator = XRayTransform(xray().geometry)
    assert operator(torch.ones(4, 3, 5, 7)).shape == (3, 5, 4, 7)
    assert "channel" in repr(operator)
