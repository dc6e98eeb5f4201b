"""Coarse to fine: grids about the same centre, data of the same volume, fewer iterations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from ddf_tomo import SecondMomentResponse, TensorXRayTransform, XRayTransform, reconstruct
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series
from ddf_tomo.priors import Smoothness
from ddf_tomo.solvers import cgls, multiresolution, nonlinear_cg
from ddf_tomo.solvers.multiresolution import binned, coarser, refined


@pytest.mark.parametrize("fine", [(8, 8, 8), (7, 9, 5), (1, 2, 3)])
def test_refined_is_scipys_linear_interpolation(fine):
    coarse = tuple(-(-n // 2) for n in fine)
    x = torch.randn(*coarse, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    axes = [(np.arange(n) + 0.5 - n / 2) / 2 + m / 2 - 0.5 for n, m in zip(fine, coarse, strict=True)]
    places = np.meshgrid(*axes, indexing="ij")
    expected = np.stack([map_coordinates(c, places, order=1, mode="nearest") for c in x.movedim(-1, 0).numpy()], -1)
    np.testing.assert_allclose(refined(x, fine), expected, atol=1e-12)


def test_binned_is_the_weighted_mean():
    generator = np.random.default_rng(0)
    data, weights = generator.normal(size=(2, 5, 4, 3)), generator.uniform(0, 1, (2, 5, 4, 3))
    weights[0, :2, :2] = 0
    means, total = binned(torch.from_numpy(data), torch.from_numpy(weights))
    assert means.shape == (2, 2, 2, 3)
    expected = np.average(data[1, 2:4, 2:4, 1].ravel(), weights=weights[1, 2:4, 2:4, 1].ravel())
    assert float(means[1, 1, 1, 1]) == pytest.approx(expected)
    assert float(total[1, 1, 1, 1]) == pytest.approx(weights[1, 2:4, 2:4, 1].sum())
    assert not means[0, 0, 0].any()


@pytest.mark.parametrize("shape", [(12, 12, 12), (11, 13, 10)])
def test_coarse_data_are_those_of_the_same_volume(shape):
    """A smooth volume, in closed form on both grids."""
    A = XRayTransform(tilt_series(shape), channels=1)

    def blob(n, size):
        places = np.meshgrid(*[(np.arange(m) + 0.5 - m / 2) * size for m in n], indexing="ij")
        return torch.from_numpy(np.exp(-sum((p - c) ** 2 for p, c in zip(places, (1, 0, -1), strict=True)) / 18))

    coarse = coarser(A)
    expected = coarse(blob(coarse.geometry.volume_shape, 2)[..., None])
    found = binned(A(blob(shape, 1)[..., None]))[0] / 2
    assert float((found - expected).norm() / expected.norm()) < 0.04


def problem():
    scan = simulate(
        "helicoidal",
        tilt_series((16, 16, 16), None, np.radians([0, 20, 40]), (15, 24, 20)),
        SecondMomentResponse(),
        noise=0.02,
    )
    return scan, TensorXRayTransform(scan.geometry, scan.response, 2)


def test_it_starts_nearer_and_ends_where_the_solver_ends():
    scan, A = problem()
    plain = cgls(A, scan.data, tikhonov=3.0, iterations=60, progress=False)
    both = multiresolution(cgls, A, scan.data, levels=3, tikhonov=3.0, iterations=60, progress=False)
    assert both.residuals[0] < 0.5 * plain.residuals[0]
    torch.testing.assert_close(both.x, plain.x, rtol=1e-2, atol=1e-3)


def test_one_level_is_the_solver():
    scan, A = problem()
    plain = cgls(A, scan.data, weights=scan.weights, iterations=3, progress=False)
    same = multiresolution(cgls, A, scan.data, weights=scan.weights, levels=1, iterations=3, progress=False)
    assert torch.equal(same.x, plain.x)


def test_options_of_each_grid():
    scan, A = problem()
    shapes = []

    def prior(B):
        shapes.append(B.domain_shape[:3])
        return Smoothness(B.domain_shape[:3])

    multiresolution(nonlinear_cg, A, scan.data, levels=3, iterations=1, regularisers=prior, progress=False)
    assert shapes == [(4, 4, 4), (8, 8, 8), (16, 16, 16)]


@pytest.mark.parametrize("wish", [{"levels": 2}, {"start": "fbp"}, {"levels": 2, "start": "fbp"}])
def test_reconstruct_starts_near_the_end(wish):
    scan, _ = problem()
    truth = PHANTOMS["helicoidal"]((16, 16, 16)).coefficients[..., :6]
    options = {"weight": 0.01, "ell_max": 2, "iterations": 6, "progress": False}
    plain, started = reconstruct(scan, start="zero", **options), reconstruct(scan, **{"start": "zero"} | options | wish)
    errors = [np.linalg.norm(found.coefficients - truth) for found in (plain, started)]
    assert errors[1] < 0.9 * errors[0]
    assert started.residuals[0] < 0.6 * plain.residuals[0]
    assert wish.items() <= started.settings.items()


def test_a_series_starts_from_the_scan_before_and_the_first_from_fbp():
    scan, _ = problem()
    found = reconstruct([scan, scan], weight=0.01, ell_max=2, iterations=3, start="fbp", progress=False)
    assert found[1].residuals[0] == pytest.approx(found[0].residuals[-1], rel=1e-3)


def test_direct_reconstruction_does_not_iterate():
    scan, _ = problem()
    found = reconstruct(scan, "fbp", progress=False)
    assert (found.settings["iterations"], found.settings["prior"], len(found.residuals)) == (1, "none", 2)
    for wish in ({"iterations": 3}, {"noise_level": 1.0}, {"start": "fbp"}, {"levels": 2}):
        with pytest.raises(ValueError, match=f"^{next(iter(wish))}: expected none, as method 'fbp' does not iterate"):
            reconstruct(scan, "fbp", **wish)


BAD = [
    ({"solver": 3}, TypeError, "^solver: expected a solver"),
    ({"A": np.eye(3)}, TypeError, "^A: expected a TensorXRayTransform or an XRayTransform, got ndarray"),
    ({"levels": 0}, ValueError, r"^levels: expected an integer in \[1, 5\]"),
    ({"levels": 6}, ValueError, r"^levels: expected an integer in \[1, 5\]"),
    ({"y": np.ones(3)}, ValueError, "^y: expected shape"),
    ({"x0": np.zeros(3)}, ValueError, "^x0: expected None, as the coarser grids"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_input_is_named(arguments, error, text):
    scan, A = problem()
    with pytest.raises(error, match=text):
        multiresolution(**{"solver": cgls, "A": A, "y": scan.data, "iterations": 1, "progress": False, **arguments})


@pytest.mark.parametrize(
    ("wish", "text"), [({"levels": 9}, "^levels"), ({"levels": 6}, "^levels"), ({"start": "x"}, "^start")]
)
def test_reconstruct_names_bad_wishes(wish, text):
    with pytest.raises(ValueError, match=text):
        reconstruct(problem()[0], **wish)
