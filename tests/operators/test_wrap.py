"""Foreign operators behind our interface, and ours behind SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from ddf_tomo import check_adjoint, wrap
from tests.operators.registry import Matrix, random_matrix, tensor

M = random_matrix(6, 8)


def test_scipy_operators():
    theirs = scipy.sparse.linalg.aslinearoperator(scipy.sparse.csr_array(M.numpy()))
    A = wrap(theirs)
    assert A.shape == ((6,), (8,))
    x = torch.arange(8.0, dtype=torch.float64)
    torch.testing.assert_close(A(x), M @ x)
    torch.testing.assert_close(wrap(theirs, (2, 4), np.array([3, 2]))(x.reshape(2, 4)), (M @ x).reshape(3, 2))
    assert check_adjoint(A, torch.float64) < 1e-12
    assert not A.adjoint_is_exact
    assert A.device == torch.device("cpu")


def test_objects_like_tomosipos():
    A = wrap(Matrix(M, (2, 4), (3, 2), []))
    assert A.shape == ((3, 2), (2, 4))
    x = torch.randn(5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(A(x), (x.flatten(1) @ M.T).reshape(5, 3, 2))
    assert check_adjoint(A) < 1e-5
    assert A.device is None


def test_functions_of_numpy_arrays():
    A = wrap((lambda x: M.numpy() @ x, lambda y: M.numpy().T @ y), (8,), (6,), numpy=True)
    x = torch.ones(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(A, x)
    assert A(np.ones(8, np.float32)).dtype == np.float32
    lists = wrap((lambda x: [float(x.sum())], lambda y: [float(y[0])] * 3), (3,), 1, numpy=True)
    assert lists(torch.ones(2, 3)).tolist() == [[3.0], [3.0]]
    assert lists.T(torch.ones(1)).tolist() == [1.0] * 3


def test_an_empty_batch():
    A = wrap((lambda x: x[:2], lambda y: torch.cat([y, y[:1]])), (3,), (2,))
    assert A(torch.ones(0, 3)).shape == (0, 2)
    assert A.T(torch.ones(4, 0, 2)).shape == (4, 0, 3)


def test_ours_in_scipys_hands():
    A = tensor()
    theirs = A.to_scipy(np.float64)
    truth = np.random.default_rng(0).normal(size=theirs.shape[1])
    data = theirs @ truth
    matrix = theirs @ np.eye(theirs.shape[1])
    found = scipy.sparse.linalg.lsqr(theirs, data, atol=1e-13, btol=1e-13, iter_lim=2000)[0]
    shortest = np.linalg.lstsq(matrix, data)[0]
    np.testing.assert_allclose(found, shortest, atol=1e-6)
    back = wrap(theirs, A.domain_shape, A.range_shape)
    x = torch.from_numpy(truth).reshape(A.domain_shape)
    torch.testing.assert_close(back(x), A(x))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            (3,),
            TypeError,
            r"^op: expected an object with op\(x\) and op.T\(y\), a SciPy LinearOperator, or two functions",
        ),
        ((np.eye(3),), TypeError, "^op: expected an object with"),
        (((abs,), (3,), (3,)), TypeError, "^op: expected an object with"),
        ((abs, (3,), (3,)), TypeError, "^op: expected an object with"),
        (((abs, 3), (3,), (3,)), TypeError, "^op: expected an object with"),
        (((abs, abs),), TypeError, "^domain_shape, range_shape: expected both shapes, since op does not tell them"),
        (((abs, abs), (3,)), TypeError, "^domain_shape, range_shape: expected both shapes"),
        (((abs, abs), [[1], [2, 3]], (3,)), (TypeError, ValueError), "^domain_shape: expected"),
        (((abs, abs), (3.5,), (3,)), ValueError, "^domain_shape: expected 1 positive integers"),
        (((abs, abs), (3,), (0, 2)), ValueError, "^range_shape: expected 2 positive integers"),
        (
            (scipy.sparse.linalg.aslinearoperator(np.eye(3)), (2,)),
            ValueError,
            "^domain_shape: expected a shape of 3 el",
        ),
        (
            (scipy.sparse.linalg.aslinearoperator(np.eye(3)), None, (2, 2)),
            ValueError,
            "^range_shape: expected a shape of 3 elements",
        ),
    ],
)
def test_what_cannot_be_wrapped(arguments, error, text):
    with pytest.raises(error, match=text):
        wrap(*arguments)


@pytest.mark.parametrize(
    ("result", "error", "text"),
    [
        (torch.ones(2), ValueError, r"^op\(x\): expected shape \(3,\), got \(2,\)"),
        (torch.ones(1, 3), ValueError, r"^op\(x\): expected shape \(3,\), got \(1, 3\)"),
        (None, TypeError, r"^op\(x\): expected an array of real numbers"),
        (torch.ones(3) * 1j, TypeError, r"^op\(x\): expected real numbers, got torch.complex64"),
        (np.ones(3) * 1j, TypeError, r"^op\(x\): expected an array of real numbers, got complex128"),
    ],
)
def test_results_that_do_not_fit(result, error, text):
    A = wrap((lambda x: result, lambda y: y), (3,), (3,))
    with pytest.raises(error, match=text):
        A(torch.ones(3))
    with pytest.raises(error, match=text.replace(r"op\(x\)", r"op.T\(y\)")):
        wrap((lambda x: x, lambda y: result), (3,), (3,)).T(torch.ones(3))
