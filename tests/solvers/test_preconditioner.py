"""Preconditioned solvers arrive where the others do, in half the iterations or less."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import ddf_tomo as dt
from ddf_tomo.phantoms import simulate, tilt_series
from ddf_tomo.priors import L1, ChannelMatrix, Differences, Smoothness, TotalVariation
from ddf_tomo.solvers import Misfit, cgls, nonlinear_cg, pcg, preconditioner
from ddf_tomo.solvers.regularisation_weight import response_scale

N, VIEWS = 16, 60
SHAPE = (N, N, N)


def geometry(kind: str) -> dt.Geometry:
    if kind == "random":
        rotations = Rotation.random(VIEWS, random_state=0).as_matrix()
        return dt.Geometry.from_rotations(rotations, SHAPE, (N, N))
    return tilt_series(SHAPE, (N, N), np.radians(np.linspace(0, float(kind), 4)), [VIEWS // 4] * 4)


def problem(kind: str, pixels: bool):
    """An operator, noisy data, weights, and the scale of priors."""
    scan = simulate("crossing", geometry(kind), dt.SaxsResponse(np.arange(6) * np.pi / 6), noise=0.02)
    A, y, weights = dt.TensorXRayTransform(scan.geometry, scan.response, 2), torch.as_tensor(scan.data), None
    if pixels:
        weights = 1 / (0.1 * float(y.max()) + y.clamp(min=0))
        weights[torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) < 0.05] = 0
        weights /= weights.mean()
    misfit = Misfit(A, y, weights)
    return A, y, misfit, *response_scale(A, misfit.weights, misfit.y)


def iterations(history: list[float], lowest: float, share: float) -> int:
    return next(i for i, value in enumerate(history) if value <= lowest * (1 + share))


def histories(solve, objective, start, M, counts):
    found = []
    for preconditioner_, count in zip((None, M), counts, strict=True):
        history = [objective(start)]
        solve(
            preconditioner=preconditioner_,
            iterations=count,
            progress=False,
            callback=lambda i, x, r, history=history: history.append(objective(x)),
        )
        found.append(history)
    return found


@pytest.mark.parametrize(("kind", "pixels"), [("30", False), ("random", True)])
def test_half_the_iterations_of_cgls(kind, pixels):
    A, y, misfit, scale, _ = problem(kind, pixels)
    settings = {"weights": misfit.weights, "tikhonov": 1e-3 * scale, "penalty": Differences(SHAPE)}
    smooth = 1e-3 * scale * Smoothness(SHAPE)
    plain, better = histories(
        lambda **how: cgls(A, y, **settings, **how),
        lambda x: misfit.value(x) + smooth(x),
        torch.zeros(A.domain_shape),
        preconditioner(A, **settings),
        (90, 45),
    )
    lowest = min(*plain, *better)
    for share in (1e-2, 1e-4):
        assert 2 * iterations(better, lowest, share) <= iterations(plain, lowest, share)


def test_half_the_iterations_with_total_variation():
    A, y, misfit, scale, height = problem("30", pixels=True)
    prior = TotalVariation(SHAPE, order_weights=[1.0, 4.0], smoothing=0.03 * height)
    prior = 1e-2 * scale * height * prior
    plain, better = histories(
        lambda **how: nonlinear_cg(A, y, regularisers=prior, weights=misfit.weights, **how),
        lambda x: misfit.value(x) + prior(x),
        torch.zeros(A.domain_shape),
        preconditioner(A, misfit.weights, regularisers=prior),
        (70, 40),
    )
    lowest = min(*plain, *better)
    for share in (1e-2, 1e-4):
        assert 2 * iterations(better, lowest, share) <= iterations(plain, lowest, share)


@pytest.mark.parametrize("pixels", [False, True])
def test_the_end_is_the_same_and_the_preconditioner_positive(pixels):
    generator = torch.Generator().manual_seed(0)
    A = dt.XRayTransform(geometry("random")[:20], channels=1)
    A = dt.XRayTransform(dt.Geometry(*(getattr(A.geometry, n) for n in "pjk"), 0.2, 0.0, (4, 5, 3), (4, 4)), channels=1)
    y = torch.randn(A.range_shape, generator=generator, dtype=torch.float64)
    weights = torch.rand(A.range_shape, generator=generator, dtype=torch.float64) if pixels else None
    M = preconditioner(A, weights, tikhonov=0.1, padding=1.0)
    matrix = M(torch.eye(60, dtype=torch.float64).reshape(60, 4, 5, 3, 1)).flatten(1)
    torch.testing.assert_close(matrix, matrix.T, atol=1e-9, rtol=0)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    columns = A(torch.eye(60, dtype=torch.float64).reshape(60, 4, 5, 3, 1)).flatten(1).T
    w = torch.ones(len(columns), 1, dtype=torch.float64) if weights is None else weights.flatten()[:, None]
    expected = torch.linalg.solve(columns.T @ (w * columns) + 0.1 * torch.eye(60), columns.T @ (w[:, 0] * y.flatten()))
    found = pcg(A, y, weights=weights, tikhonov=0.1, padding=1.0, iterations=60, tolerance=1e-12, progress=False)
    torch.testing.assert_close(found.x.flatten(), expected, atol=1e-8, rtol=0)


def test_priors_enter():
    """Each form that is understood, against the symbol that it should have: what one does to the other's inverse."""
    A = dt.TensorXRayTransform(geometry("45"), dt.SaxsResponse([0.0, 0.8, 1.6]), 2)
    x = torch.randn(A.domain_shape, generator=torch.Generator().manual_seed(0))
    D, matrix = Differences(SHAPE), np.diag([1.0, 2, 2, 2, 2, 2])
    plain = preconditioner(A)(x)

    def same(first, second):
        torch.testing.assert_close(preconditioner(A, **first)(x), preconditioner(A, **second)(x), atol=1e-8, rtol=1e-4)
        assert (preconditioner(A, **first)(x) - plain).norm() > 0.1 * plain.norm()

    same({"tikhonov": 500.0, "penalty": D}, {"regularisers": 500.0 * Smoothness(SHAPE)})
    tv = 40.0 * TotalVariation(SHAPE, order_weights=[1.0, 4.0], smoothing=0.01)
    same({"tikhonov": 800.0, "penalty": D @ ChannelMatrix(matrix)}, {"regularisers": [tv]})
    same({"tikhonov": 1000.0}, {"regularisers": 50.0 * L1(smoothing=0.01)})
    unknown = D.T @ D
    torch.testing.assert_close(preconditioner(A, tikhonov=1.0, penalty=unknown)(x), plain)


def test_bad_arguments_are_named():
    A = dt.XRayTransform(geometry("45"))
    for arguments, error, text in (
        ({"A": A.T}, TypeError, "^A: expected a TensorXRayTransform"),
        ({"epsilon": -1.0}, ValueError, "^epsilon"),
        ({"padding": 0.5}, ValueError, "^padding"),
        ({"tikhonov": -1.0}, ValueError, "^tikhonov"),
        ({"weights": np.zeros(A.range_shape[:-1])[..., None]}, ValueError, "expected a positive"),
        ({"regularisers": TotalVariation((3, 3, 3), smoothing=1.0)}, ValueError, "shape"),
        ({"regularisers": 3}, TypeError, "^regularisers"),
        ({"penalty": 3, "tikhonov": 1.0}, TypeError, "^penalty: expected a LinearOperator or None"),
    ):
        with pytest.raises(error, match=text):
            preconditioner(**{"A": A, **arguments})
    M = preconditioner(dt.XRayTransform(geometry("45"), channels=1))
    y = np.ones((VIEWS, N, N, 2), np.float32)
    with pytest.raises(ValueError, match=r"^preconditioner: expected domain \(16, 16, 16, 2\)"):
        nonlinear_cg(A, y, preconditioner=M)
    with pytest.raises(TypeError, match=r"^preconditioner: expected a LinearOperator or None"):
        nonlinear_cg(A, y, preconditioner=np.eye(3))
