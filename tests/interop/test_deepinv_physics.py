"""Our operators as deepinv's physics: the checks that deepinv makes of its own (its tests/test_physics.py, 0.5)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import aslinearoperator

import ddf_tomo as dt
from ddf_tomo.interop import deepinv as ours
from ddf_tomo.operators import DirectionalBlur, ModulatedImaging
from tests.strategies import random_geometry

deepinv = pytest.importorskip("deepinv", exc_type=ImportError)
GEOMETRY = random_geometry(5, (4, 3, 5), (6, 7), seed=5)
MATRIX = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)


def tensor(response=None, ell_max=2):
    return dt.TensorXRayTransform(GEOMETRY, response or dt.SecondMomentResponse(), ell_max)


def projector():
    return dt.XRayTransform(GEOMETRY)


def of_one_volume():
    """What a foreign projector without channels looks like."""
    A = projector()
    return dt.wrap((lambda x: A(x[..., None])[..., 0], lambda y: A.T(y[..., None])[..., 0]), (4, 3, 5), (5, 6, 7))


def blur():
    covariance = torch.tensor([0.5, 0.2, 0.8]).expand(9, 8, 3)
    return DirectionalBlur(covariance)


def mean_of_coefficients():
    """Channels on one side only: volumes with, data without."""
    A = projector()
    forward, adjoint = lambda x: A(x.mean(-1, keepdim=True))[..., 0], lambda y: A.T(y[..., None]).expand(4, 3, 5, 2) / 2
    return dt.wrap((forward, adjoint), (4, 3, 5, 2), (5, 6, 7))


OPERATORS = {  # with the shapes of one image and one measurement
    "tensor": (tensor, (6, 4, 3, 5), (3, 5, 6, 7)),
    "saxs": (lambda: tensor(dt.SaxsResponse(np.arange(4) * np.pi / 4), 4), (15, 4, 3, 5), (4, 5, 6, 7)),
    "rank two": (lambda: tensor(dt.RankTwoResponse()), (6, 4, 3, 5), (3, 5, 6, 7)),
    "projector": (projector, (2, 4, 3, 5), (2, 5, 6, 7)),
    "projector of one volume": (of_one_volume, (2, 4, 3, 5), (2, 5, 6, 7)),
    "channels on one side": (mean_of_coefficients, (2, 4, 3, 5), (1, 5, 6, 7)),
    "blur": (blur, (3, 9, 8), (3, 9, 8)),
    "matrix": (lambda: dt.wrap(aslinearoperator(MATRIX)), (2, 8), (2, 6)),
    "composition": (lambda: tensor().normal(), (6, 4, 3, 5), (6, 4, 3, 5)),
}
ALL = pytest.mark.parametrize("name", OPERATORS)


def model_of(name, **options):
    make, shape, measured = OPERATORS[name]
    operator = make()
    return ours.physics(operator * (1 / operator.norm(100)), **options), shape, measured


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@ALL
def test_shapes_and_order(name):
    """Each item and its axes, against the operator called by hand."""
    model, shape, measured = model_of(name)
    x = noise(2, *shape)
    y = model.A(x)
    assert y.shape == (2, *measured)
    assert model.A_adjoint(y).shape == x.shape
    assert model.img_size[1:] == shape[1:]
    item = x[1]
    if name in ("projector of one volume", "blur", "matrix"):
        expected = torch.stack([model.operator(channel) for channel in item])
    else:
        expected = model.operator(item.movedim(0, -1))
        expected = expected[None] if name == "channels on one side" else expected.movedim(-1, 0)
    torch.testing.assert_close(y[1], expected)


@ALL
def test_adjointness(name):
    model, shape, _ = model_of(name)
    x = noise(1, *shape)
    assert model.adjointness_test(x, num_samples=3) < 1e-5
    assert model.adjointness_test() < 1e-5  # from its own img_size
    y = model.A(x)
    automatic = deepinv.physics.adjoint_function(model.A, x.shape, x.device, x.dtype)
    torch.testing.assert_close(automatic(y), model.A_adjoint(y), atol=1e-5, rtol=1e-4)
    y.requires_grad_()
    z = noise(1, *shape, seed=3)
    (delta,) = torch.autograd.grad((z * model.A_adjoint(y)).sum(), y)
    torch.testing.assert_close(delta, model.A(z), atol=1e-5, rtol=1e-4)


@ALL
def test_norm(name):
    """deepinv's power iteration finds 1, and its default is the square."""
    model, shape, _ = model_of(name)
    x = noise(1, *shape)
    assert abs(float(model.compute_sqnorm(x, max_iter=1000, tol=1e-6, verbose=False)) - 1) < 1e-2
    doubled = ours.physics(2.0 * model.operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert abs(float(doubled.compute_norm(x, verbose=False)) - 4) < 0.05
    assert abs(float(doubled.compute_norm(x, verbose=False, squared=False)) - 2) < 0.02


@ALL
@pytest.mark.parametrize("implicit", [True, False])
def test_pseudo_inverse(name, implicit):
    model, shape, _ = model_of(name)
    model.implicit_backward_solver = implicit
    r = model.A_adjoint(model.A(noise(1, *shape)))
    found = model.A_dagger(model.A(r), solver="lsqr", tol=1e-4, max_iter=50)
    assert (found - r).norm() < 0.05 * r.norm()


@ALL
def test_differentiability(name):
    model, shape, _ = model_of(name)
    x, y = noise(1, *shape).requires_grad_(), model.A(noise(1, *shape, seed=1))
    loss = torch.nn.functional.mse_loss(model.A(x), y)
    (found,) = torch.autograd.grad(loss, x)
    expected = 2 / y.numel() * model.A_adjoint(model.A(x) - y)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(model.A_vjp(x, y), model.A_adjoint(y))
    fidelity = deepinv.optim.L2()
    torch.testing.assert_close(
        fidelity.grad(x, y, model), torch.func.grad(lambda u: fidelity(u, y, model)[0])(x), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["tensor", "projector of one volume"])  # deepinv's clone looks at every object, slowly
def test_state_and_clone(name, tmp_path):
    model, shape, _ = model_of(name, noise=0.1)
    assert set(model.state_dict()) == {"noise_model.sigma"}
    torch.save(model.state_dict(), tmp_path / "state.pt")
    again, _, _ = model_of(name, noise=0.7)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert float(again.noise_model.sigma) == pytest.approx(0.1)
    x = noise(1, *shape)
    copied = model.clone()
    assert type(copied) is type(model)
    assert copied.operator is not model.operator
    torch.testing.assert_close(copied.A(x), model.A(x))
    copied.update(sigma=torch.tensor([2.0]))
    assert float(model.noise_model.sigma) == pytest.approx(0.1)


@ALL
def test_concatenation(name):
    model, shape, measured = model_of(name)
    x = noise(1, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masked = deepinv.physics.Inpainting(img_size=measured, mask=0.5, pixelwise=False) * model
    mask = masked.physics_list[1].mask
    torch.testing.assert_close(masked.A(x), mask * model.A(x))
    r = masked.A_adjoint(masked.A(x))
    found = masked.A_dagger(masked.A(r), solver="lsqr", tol=1e-4, max_iter=100)
    assert (found - r).norm() < 0.01 * r.norm()
    stacked = model.stack(model)
    assert stacked.adjointness_test(x) < 1e-5


def test_a_normal_operator_stands_for_forth_and_back():
    """In gradients and least squares, without a projection; shapes as everywhere."""
    A = tensor()
    exact = A.T @ A
    seen = []
    counted = dt.wrap((lambda x: (seen.append(1), A(x))[1], A.T), A.domain_shape, A.range_shape)
    model, plain = ours.physics(counted, normal=2.0 * exact), ours.physics(2.0**0.5 * A)
    x, y = noise(2, 6, 4, 3, 5), noise(2, 3, 5, 6, 7)
    torch.testing.assert_close(model.A_adjoint_A(x), plain.A_adjoint_A(x), atol=1e-4, rtol=1e-4)
    fidelity = deepinv.optim.L2()
    gradient = 2.0 * ours.to_deepinv(exact(ours.from_deepinv(x))) - model.A_adjoint(y)
    torch.testing.assert_close(fidelity.grad(x, y, model), gradient, atol=1e-4, rtol=1e-4)
    found = model.prox_l2(x, y, 0.1, solver="CG", max_iter=60, tol=1e-6)
    torch.testing.assert_close(found + 0.1 * fidelity.grad(found, y, model), x, atol=1e-3, rtol=1e-3)
    assert not seen
    blurred = blur()
    twice = ours.physics(blurred, normal=blurred.T @ blurred)
    torch.testing.assert_close(twice.A_adjoint_A(noise(1, 3, 9, 8)), twice.A_adjoint(twice.A(noise(1, 3, 9, 8))))
    with pytest.raises(ValueError, match="normal: expected an operator from"):
        ours.physics(A, normal=A)
    with pytest.raises(TypeError, match="normal: expected a LinearOperator"):
        ours.physics(A, normal=3)
    imaging = ModulatedImaging(torch.ones(2, 8, 8), 1e-5, 1.0)
    with pytest.raises(ValueError, match="normal: expected none beside a ModulatedImaging"):
        ours.physics(imaging, normal=exact)


def test_noise_models():
    A = tensor()
    x = torch.zeros(1, 6, 4, 3, 5)
    assert ours.physics(A)(x).abs().max() == 0
    assert ours.physics(A, noise=0.5)(x.expand(20, -1, -1, -1, -1)).std() == pytest.approx(0.5, rel=0.05)
    assert float(ours.physics(A, noise=np.float32(0.5)).noise_model.sigma) == 0.5
    poisson = deepinv.physics.PoissonNoise(gain=0.1)
    assert ours.physics(A, noise=poisson).noise_model is poisson
    model = ours.physics(A, max_iter=33, tol=1e-2)
    assert (model.max_iter, model.tol) == (33, 1e-2)


def test_double_precision_is_kept():
    model = ours.physics(tensor())
    x = noise(1, 6, 4, 3, 5, dtype=torch.float64)
    assert model.A(x).dtype == torch.float64
    assert model.adjointness_test(x) < 1e-12


def test_modulated_imaging_is_a_physics_whose_gradients_are_right():
    generator = torch.Generator().manual_seed(0)
    reference = 1 + 0.3 * torch.rand(2, 4, 12, 11, generator=generator, dtype=torch.float64)
    imaging = ModulatedImaging(reference, 1e-5, [0.5, 1.0])
    model = ours.physics(imaging, noise=0.01)
    maps = torch.rand(3, 6, 12, 11, generator=generator, dtype=torch.float64)
    maps[:, 1:3] *= 0.1
    maps[:, 4] *= 0.3
    frames = model.A(maps)
    assert frames.shape == (3, 8, 12, 11)
    T, u, C = maps[1, 0], maps[1, 1:3].movedim(0, -1), maps[1, 3:].movedim(0, -1)
    torch.testing.assert_close(frames[1], imaging(T, displacement=u, covariance=C).flatten(0, 1))
    assert model(maps).shape == frames.shape
    v, d = (torch.randn(frames.shape if n else maps.shape, dtype=torch.float64) for n in (1, 0))
    step = 1e-5
    difference = (model.A(maps + step * d) - model.A(maps - step * d)) / (2 * step)
    assert float((model.A_vjp(maps, v) * d).sum()) == pytest.approx(float((v * difference).sum()), rel=1e-6)
    fidelity = deepinv.optim.L2()
    start = maps.clone()
    start[:, 0] = 1.0
    x = start
    for _ in range(40):  # the transmission, found with deepinv's fidelity
        x = x - 0.05 * fidelity.grad(x, frames, model) * torch.tensor([1.0, 0, 0, 0, 0, 0])[:, None, None]
    assert (x - maps).norm() < 0.05 * (start - maps).norm()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("A",), "operator: expected a LinearOperator"),
        ((lambda x: x,), "wrap"),
        ((torch.nn.Linear(2, 2),), "operator: expected"),
    ],
)
def test_what_is_no_operator_is_refused(arguments, text):
    with pytest.raises(TypeError, match=text):
        ours.physics(*arguments)


def test_bad_noise_is_named():
    with pytest.raises(TypeError, match="noise: expected a number or a noise model"):
        ours.physics(tensor(), noise="much")
    with pytest.raises(TypeError, match="noise: expected a number or a noise model"):
        ours.physics(tensor(), noise=True)
    with pytest.raises(ValueError, match="noise: expected a finite number"):
        ours.physics(tensor(), noise=-1.0)


def test_arrays_of_the_wrong_shape_are_named():
    with pytest.raises(ValueError, match="x: expected shape"):
        ours.physics(tensor()).A(torch.zeros(1, 4, 3, 5, 6))
    with pytest.raises(ValueError, match="array: expected a batch"):
        ours.physics(tensor()).A(torch.zeros(6))
