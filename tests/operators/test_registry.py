"""What every operator must do, whatever it is made of."""

from __future__ import annotations

import inspect
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from torch.autograd.gradcheck import gradcheck, gradgradcheck

from ddf_tomo import LinearOperator, _response_text, check_adjoint, check_linear
from ddf_tomo.operators import base, responses
from tests.operators.registry import OPERATORS, RESPONSES, WITHOUT_VIEWS, Matrix

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-12}
every_operator = pytest.mark.parametrize("name", OPERATORS)
# What is done above the backends, with values that other tests compare: the slow backends would only take longer.
every_quick_operator = pytest.mark.parametrize(
    "name", [name for name in OPERATORS if not name.endswith(("reference", "triton"))]
)


def noise(shape, seed=0, batch=(), dtype=torch.float64, channels=3):
    sizes = [*batch, *(channels if n is None else n for n in shape)]
    return torch.randn(sizes, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense(A: LinearOperator) -> torch.Tensor:
    """The matrix, column by column: a batch of unit vectors."""
    shape = [1 if n is None else n for n in A.domain_shape]
    count = int(np.prod(shape))
    return A(torch.eye(count, dtype=torch.float64).reshape(count, *shape)).flatten(1).T


@cache
def matrix_of(name: str) -> torch.Tensor:
    return dense(OPERATORS[name]())


def close(found, expected, tolerance=1e-12):
    """Equal to a tolerance relative to the largest value."""
    assert found.shape == expected.shape
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    assert not expected.numel() or float((found - expected).abs().max()) <= tolerance * max(scale, 1e-30)


def test_no_response_is_missing():
    classes = {c for _, c in inspect.getmembers(responses, inspect.isclass) if issubclass(c, responses.AngularResponse)}
    concrete = {c for c in classes if not inspect.isabstract(c) and not c.__name__.startswith("_")}
    assert concrete == {type(response) for response, _ in RESPONSES.values()}
    assert {c.__name__ for c in concrete} == set(_response_text.RESPONSES)  # a scan's file can hold it


def test_no_combination_is_missing():
    combinations = {
        c for _, c in inspect.getmembers(base, inspect.isclass) if issubclass(c, LinearOperator) and c != LinearOperator
    }
    assert combinations <= {type(make()) for make in OPERATORS.values()}


@every_operator
@pytest.mark.parametrize("dtype", DTYPES)
def test_adjoint(name, dtype):
    A = OPERATORS[name]()
    assert check_adjoint(A, dtype, DTYPES[dtype]) <= DTYPES[dtype]
    assert check_adjoint(A.T, dtype, DTYPES[dtype], seed=1) <= DTYPES[dtype]
    assert A.T.T is A or type(A) is base.Adjoint
    if dtype is torch.float64:
        close(dense(A.T), matrix_of(name).T)


@every_operator
@pytest.mark.parametrize("dtype", DTYPES)
def test_linearity(name, dtype):
    assert check_linear(OPERATORS[name](), dtype) <= DTYPES[dtype]


@every_operator
def test_shape_dtype_and_batches(name):
    A = OPERATORS[name]()
    x = noise(A.domain_shape, batch=(2, 3))
    y = A(x)
    assert y.shape == (2, 3, *(3 if n is None else n for n in A.range_shape))
    single = A(x.float())
    assert single.dtype == torch.float32
    close(single.double(), y, 1e-5)
    for index in np.ndindex(2, 3):
        close(A(x[index]), y[index])
        close(A(x[index[0]])[index[1]], y[index])
    assert A(x[:0]).shape == (0, *y.shape[1:])
    assert A.T(y).shape == x.shape


@every_operator
def test_inputs_are_left_alone(name):
    A = OPERATORS[name]()
    x, y = noise(A.domain_shape), noise(A.range_shape, 1)
    copies = x.clone(), y.clone()
    first = A(x)
    kept = first.clone()
    A(2 * x)
    A.T(y)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])
    assert torch.equal(first, kept)


@every_quick_operator
def test_gradients_to_second_order_backward_and_forward(name):
    A = OPERATORS[name]()
    for operator in (A, A.T):
        x = noise(operator.domain_shape, channels=2).requires_grad_()
        assert gradcheck(operator, x, check_forward_ad=True, fast_mode=True)
        square = lambda x, operator=operator: operator(x).square()  # noqa: E731
        assert gradgradcheck(square, x, check_fwd_over_rev=True, fast_mode=True)


@every_operator
def test_derivatives_are_the_operator_and_its_adjoint(name):
    A = OPERATORS[name]()
    x, tangent = noise(A.domain_shape), noise(A.domain_shape, 1)
    value, derivative = torch.func.jvp(A, (x,), (tangent,))
    close(value, A(x))
    close(derivative, A(tangent))
    y, pull = torch.func.vjp(A, x)
    close(pull(y)[0], A.T(A(x)))

    def energy(x):
        return 0.5 * A(x).square().sum()

    close(torch.func.grad(energy)(x), A.T(A(x)))
    close(torch.func.jvp(torch.func.grad(energy), (x,), (tangent,))[1], A.T(A(tangent)))  # the Hessian


@every_operator
def test_vmap(name):
    A = OPERATORS[name]()
    x = noise(A.domain_shape, batch=(2,))
    y = A(x)
    close(torch.func.vmap(A)(x), y)
    close(torch.func.vmap(A, in_dims=-1, out_dims=-1)(x.movedim(0, -1)), y.movedim(0, -1))
    close(torch.func.vmap(A, in_dims=1, out_dims=1)(x.movedim(0, 1)), y.movedim(0, 1))
    close(torch.func.vmap(A.T)(y), A.T(y))
    nested = noise(A.domain_shape, batch=(2, 3))
    close(torch.func.vmap(torch.func.vmap(A, in_dims=1), in_dims=0)(nested.movedim(1, 2)), A(nested))
    gradients = torch.func.vmap(torch.func.grad(lambda x: 0.5 * A(x).square().sum()))(x)
    close(gradients, A.T(y))


@every_operator
def test_compiles_to_one_graph_with_a_gradient(name):
    A = OPERATORS[name]()
    x = noise(A.domain_shape).requires_grad_()
    torch.compiler.reset()
    energy = torch.compile(lambda x: 0.5 * A(x).square().sum(), fullgraph=True, backend="aot_eager")
    value = energy(x)
    (gradient,) = torch.autograd.grad(value, x)
    close(value.detach(), 0.5 * A(x.detach()).square().sum())
    close(gradient, A.T(A(x.detach())))


LAYOUTS = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read-only": lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "unaligned": lambda x: unaligned(x),
}


def unaligned(x):
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)[1:]
    bytes_[:] = np.frombuffer(x.tobytes(), np.uint8)
    return bytes_.view(x.dtype).reshape(x.shape)


@every_operator
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_arrays_of_any_layout(name, layout, dtype):
    A = OPERATORS[name]()
    x = noise(A.domain_shape).numpy().astype(dtype)
    expected = A(torch.from_numpy(x))
    found = A(LAYOUTS[layout](x))
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    assert torch.equal(torch.from_numpy(found), expected)


@every_operator
def test_tensors_of_any_layout(name):
    A = OPERATORS[name]()
    x = noise(A.domain_shape)
    y = A(x)
    turned = x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    assert torch.equal(A(turned), y)
    assert torch.equal(A(x[None].expand(3, *x.shape))[2], y)
    assert torch.equal(A(torch.stack([x, x], -1)[..., 0]), y)


@every_operator
def test_the_number_of_threads_changes_no_bit(name):
    A = OPERATORS[name]()
    x = noise(A.domain_shape, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((A(x), A.T(A(x))))
    finally:
        torch.set_num_threads(threads)
    for forward, back in results[1:]:
        assert torch.equal(forward, results[0][0])
        assert torch.equal(back, results[0][1])


@every_operator
@pytest.mark.parametrize(
    "choose",
    [
        lambda n: [n - 1, 0],
        lambda n: slice(None, None, 2),
        lambda n: -1,
        lambda n: np.arange(n) % 2 == 0,
        lambda n: [],
        lambda n: torch.tensor([0, n - 1, 0]),
    ],
    ids=["list", "slice", "integer", "mask", "none", "tensor"],
)
def test_views_are_rows(name, choose):
    A = OPERATORS[name]()
    count = A.range_shape[0]
    if name.startswith(WITHOUT_VIEWS):
        with pytest.raises(TypeError, match="views"):
            A.views(choose(count))
        return
    if not count:
        assert A.views([]).range_shape == A.range_shape
        return
    chosen = choose(count)
    part = A.views(chosen)
    rows = np.atleast_1d(np.arange(count)[np.asarray(chosen, int) if isinstance(chosen, list) else chosen])
    x = noise(A.domain_shape)
    assert part.range_shape == (len(rows), *A.range_shape[1:])
    close(part(x), A(x)[rows])
    y = noise(part.range_shape)
    whole = torch.zeros(count, *y.shape[1:], dtype=y.dtype)
    close(part.T(y), A.T(whole.index_add(0, torch.from_numpy(rows), y)))
    assert check_adjoint(part, torch.float64) <= 1e-12


@every_operator
def test_bad_input_is_named(name):
    A = OPERATORS[name]()
    for operator in (A, A.T):
        x = noise(operator.domain_shape)
        for wrong in (x.select(-1, 0), x.repeat(*[2] * x.ndim), x[:0], torch.zeros(())):
            if wrong.shape != x.shape:
                with pytest.raises(ValueError, match=r"^x: expected shape \(\.\.\., .*\), got \("):
                    operator(wrong)
        for dtype in {torch.float16, torch.int64, torch.bool, torch.complex64}.difference(A.dtypes):
            with pytest.raises(TypeError, match=r"^x: expected float32 or float64( or .*)?, got torch"):
                operator(x.to(dtype))
        for array in (x.numpy() + 1j, np.array(["a"]), np.array([None])):
            with pytest.raises(TypeError, match=r"^x: expected an array of real numbers, got "):
                operator(array)
        with pytest.raises(TypeError, match=r"^x: expected float32 or float64"):
            operator(np.ones(2, int))
        if operator.device is not None:
            with pytest.raises(ValueError, match=r"^x: expected a tensor on cpu, got one on meta"):
                operator(x.to("meta"))


@every_operator
def test_pickles(name):
    A = OPERATORS[name]()
    again = pickle.loads(pickle.dumps(A))
    x = noise(A.domain_shape).requires_grad_()
    assert torch.equal(again(x), A(x))
    value = again(x).square().sum()
    del again  # the graph keeps what it needs
    (gradient,) = torch.autograd.grad(value, x)
    close(gradient, 2 * A.T(A(x)).detach())


@every_operator
def test_to_scipy_and_back(name):
    A = OPERATORS[name]()
    if None in A.domain_shape + A.range_shape:
        with pytest.raises(ValueError, match=r"^shape: expected fixed lengths, got .* number of channels"):
            A.to_scipy()
        return
    theirs, matrix = A.to_scipy(np.float64), matrix_of(name).numpy()
    assert theirs.shape == matrix.shape
    x, y = noise(A.domain_shape).numpy().ravel(), noise(A.range_shape).numpy().ravel()
    np.testing.assert_allclose(theirs @ x, matrix @ x, atol=1e-11)
    np.testing.assert_allclose(theirs.rmatvec(y), matrix.T @ y, atol=1e-11)
    assert (A.to_scipy() @ x.astype(np.float32)).dtype == np.float32


@every_quick_operator
def test_norm_is_the_largest_singular_value(name):
    A = OPERATORS[name]()
    matrix = matrix_of(name)
    largest = float(torch.linalg.matrix_norm(matrix, 2)) if matrix.numel() else 0.0
    assert A.norm(iterations=100) == pytest.approx(largest, rel=1e-3)
    assert 0.98 * largest <= A.norm() <= (1 + 1e-5) * largest


@every_operator
def test_repr_tells_the_shapes(name):
    A = OPERATORS[name]()
    assert type(A).__name__ in repr(A)
    assert A.shape == (A.range_shape, A.domain_shape)
    assert base.shape_text(A.domain_shape) in repr(A)


def test_the_foreign_operator_is_as_nasty_as_it_claims():
    matrix = Matrix(torch.eye(2), (2,), (2,), [])
    first = matrix(torch.ones(2))
    assert matrix._output[0] is not None
    assert first.data_ptr() == matrix._output[0].data_ptr()
