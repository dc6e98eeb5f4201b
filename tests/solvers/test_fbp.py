"""Filtered backprojection against closed forms, scikit-image, and the truth of phantoms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ddf_tomo import (
    Geometry,
    IsotropicResponse,
    RankTwoResponse,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
    XRayTransform,
)
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series
from ddf_tomo.solvers import cgls, fbp
from ddf_tomo.solvers.evened import filled_in
from ddf_tomo.solvers.fbp import _symbol_and_nearest

N = 24
SHAPE = (N, N, N)
CENTRE, SIGMA = np.array([2.0, -3.0, 1.0]), 2.5
EIGHT = np.arange(8) * np.pi / 8
VIEWS = (19, 35, 33, 31, 31, 27, 24)


def one_axis(views=60):
    return Geometry.from_angles(np.arange(views) * np.pi / views, 0.0, SHAPE, (N, N))


def random_beams(views=150):
    return Geometry.from_rotations(Rotation.random(views, random_state=0).as_matrix(), SHAPE, (N, N))


GEOMETRIES = {"one axis": one_axis(), "random": random_beams(), "tilts": tilt_series(SHAPE)}


def blob() -> np.ndarray:
    """A Gaussian, on the voxels."""
    places = np.stack(np.meshgrid(*[np.arange(N) + 0.5 - N / 2] * 3, indexing="ij"), axis=-1)
    return np.exp(-((places - CENTRE) ** 2).sum(-1) / (2 * SIGMA**2))


def line_integrals(geometry: Geometry) -> np.ndarray:
    """Of the Gaussian, in closed form: ``σ √2π`` times a Gaussian of the distance between ray and centre."""
    offset = geometry.pixel_centres() - CENTRE
    along = np.einsum("vjki,vi->vjk", offset, geometry.p)
    squared = (offset**2).sum(-1) - along**2
    return SIGMA * math.sqrt(2 * math.pi) * np.exp(-squared / (2 * SIGMA**2))


def error(found, truth) -> float:
    found, truth = np.asarray(found), np.asarray(truth)
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("window", ["wiener", "ram-lak"])
def test_a_gaussian_comes_back_at_its_height(name, window):
    """Of projections in closed form; what remains is that pixels and voxels interpolate (σ is 2.5 of them)."""
    A = TensorXRayTransform(GEOMETRIES[name], IsotropicResponse(), 0)
    x = fbp(A, line_integrals(A.geometry)[..., None], window=window)[..., 0].numpy()
    assert error(x, blob()) < 0.07
    assert (x * blob()).sum() == pytest.approx((blob() ** 2).sum(), rel=0.05)


def test_one_axis_as_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    width, views = 33, 60
    angles = np.arange(views) * np.pi / views
    geometry = Geometry.from_angles(angles, 0.0, (width, width, 4), (width, 4))
    generator = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.arange(width) - width // 2] * 2, indexing="ij")
    disc = (np.hypot(x - 3, y + 5) < 5) + 0.5 * (np.hypot(x + 6, y - 2) < 7) + 0.1 * generator.normal(size=x.shape)
    disc = disc * (np.hypot(x, y) < 14)
    A = TensorXRayTransform(geometry, IsotropicResponse(), 0)
    y_data = A(np.repeat(disc[:, :, None, None], 4, axis=2).astype(np.float64))
    ours = fbp(A, y_data, window="ram-lak")[:, :, 1, 0].numpy()
    picture = transform.iradon(y_data[:, :, 1, 0].T, np.degrees(angles), circle=True, filter_name="ramp")
    theirs = picture[::-1].T  # rows count down, y counts up
    inside = np.hypot(x, y) < 14
    assert error(ours[inside], theirs[inside]) < 0.08
    assert float(ours[inside] @ theirs[inside]) == pytest.approx(float(theirs[inside] @ theirs[inside]), rel=0.02)


@pytest.mark.parametrize(("kind", "order"), [("saxs", 4), ("second moments", 2), ("second moments", 4)])
def test_directions_are_as_good_as_those_of_conjugate_gradients_at_their_best(kind, order):
    """The last case has coefficients that no data determine (rank 12 of 15): they are left out."""
    shape = (16, 16, 16)
    response = SaxsResponse(EIGHT) if kind == "saxs" else SecondMomentResponse()
    scan = simulate("helicoidal", tilt_series(shape, views=VIEWS), response, noise=0.02)
    A, truth = TensorXRayTransform(scan.geometry, response, order), PHANTOMS["helicoidal"](shape)
    angles: list[float] = []

    def note(iteration, x, residual):
        angles.append(compare(x.numpy(), truth).direction_error_median_rad)

    cgls(A, scan.data, iterations=12, callback=note, progress=False)
    found = compare(fbp(A, scan.data).numpy(), truth)
    assert found.direction_error_median_rad < 1.5 * min(angles)
    assert found.nrmse_shared_orders < 0.2


def test_data_that_are_exact_to_the_highest_order():
    """A volume of low frequencies, without noise: all of its coefficients."""
    geometry = random_beams(400)
    A = TensorXRayTransform(geometry, SaxsResponse(EIGHT), 2)
    amplitudes = torch.from_numpy(np.random.default_rng(1).normal(size=6))
    volume = torch.from_numpy(blob())[..., None] * amplitudes
    found = fbp(A, A(volume))
    assert found.dtype == torch.float64
    assert error(found, volume) < 0.12


def test_tensors_as_conjugate_gradients_find_them():
    """Rank-2 tensors, six numbers of equal rank, are filtered as the harmonics that they are."""
    scan = simulate("helicoidal", tilt_series((16, 16, 16), views=VIEWS), RankTwoResponse(), noise=0.02)
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    truth, errors = PHANTOMS["helicoidal"]((16, 16, 16)).tensors(), []
    cgls(A, scan.data, iterations=12, callback=lambda i, x, r: errors.append(error(x, truth)) and False, progress=False)
    assert error(fbp(A, scan.data), truth) < 1.2 * min(errors)


def saxs_scan():
    return simulate("helicoidal", tilt_series((12, 12, 12), views=VIEWS), SaxsResponse(EIGHT), noise=0.02)


def test_gaps_are_filled_in_and_lost_channels_left_out():
    scan = saxs_scan()
    A = TensorXRayTransform(scan.geometry, scan.response, 4)
    whole = fbp(A, scan.data, weights=scan.weights)
    data, weights = scan.data.copy(), scan.weights.copy()
    gaps = np.random.default_rng(0).random(data.shape) < 0.02
    gaps[3], gaps[7, :, :, 2] = True, True
    data[gaps], weights[gaps] = np.nan, 0
    assert error(fbp(A, data, weights=weights), whole) < 0.06
    torch.testing.assert_close(whole, fbp(A, scan.data), rtol=1e-3, atol=1e-4)


def test_views_of_little_weight_count_little():
    scan = saxs_scan()
    A = TensorXRayTransform(scan.geometry, scan.response, 4)
    data, weights = scan.data.copy(), np.ones(scan.data.shape)
    data[::2] += 5 * np.random.default_rng(0).normal(size=data[::2].shape) * data.std()
    weights[::2] = 1 / 100
    clean = fbp(A, scan.data)
    assert error(fbp(A, data, weights=weights), clean) < 0.5 * error(fbp(A, data), clean)


@pytest.mark.parametrize("window", ["ram-lak", "shepp-logan", "cosine", "hann"])
def test_windows_are_linear_and_damp(window):
    A = TensorXRayTransform(GEOMETRIES["tilts"], IsotropicResponse(), 0)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, *A.range_shape, dtype=torch.float64, generator=generator)
    both = fbp(A, first - 2 * second, window=window)
    torch.testing.assert_close(both, fbp(A, first, window=window) - 2 * fbp(A, second, window=window))
    half = float(fbp(A, first, window=window, cutoff=0.5).norm())
    assert (
        half < 0.6 * float(fbp(A, first, window=window).norm()) <= 0.6 * float(fbp(A, first, window="ram-lak").norm())
    )


def test_units_do_not_matter():
    scan = saxs_scan()
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    small, plain = fbp(A, scan.data * np.float32(1e-12)), fbp(A, scan.data)
    torch.testing.assert_close(small * 1e12, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("window", ["wiener", "hann"])
def test_nothing_seen_is_nothing_found(window):
    A = TensorXRayTransform(one_axis(3), SecondMomentResponse(), 2)
    assert not fbp(A, np.zeros(A.range_shape), window=window).any()
    assert torch.isfinite(fbp(A.views([0]), np.ones((1, *A.range_shape[1:])), window=window)).all()


def test_gaps_are_filled_from_the_nearest():
    known = torch.zeros(1, 9, 9, 1, dtype=torch.bool)
    known[0, 0, 0, 0] = True
    assert filled_in(3.0 * known, known).eq(3).all()
    assert not filled_in(torch.zeros(1, 4, 4, 1), torch.zeros(1, 4, 4, 1, dtype=torch.bool)).any()


BAD = [
    ({"A": XRayTransform(one_axis(3), channels=1)}, TypeError, "^A: expected a TensorXRayTransform, got XRayTransform"),
    ({"y": np.ones((1, 2))}, ValueError, "^y: expected shape"),
    ({"y": np.full((3, N, N, 3), np.nan)}, ValueError, "^y: expected finite data"),
    ({"weights": -1.0}, ValueError, "^weights: expected finite numbers ≥ 0"),
    ({"window": "ramp"}, ValueError, "^window: expected one of 'wiener', 'ram-lak'"),
    ({"cutoff": 0.0}, ValueError, "^cutoff: expected a finite number"),
    ({"width_rad": 4.0}, ValueError, "^width_rad: expected a finite number"),
    ({"epsilon": "small"}, TypeError, "^epsilon: expected a finite number"),
]


@pytest.mark.parametrize(("arguments", "error_kind", "text"), BAD)
def test_bad_input_is_named(arguments, error_kind, text):
    A = TensorXRayTransform(one_axis(3), SecondMomentResponse(), 2)
    with pytest.raises(error_kind, match=text):
        fbp(**{"A": A, "y": np.ones(A.range_shape), **arguments})


def test_what_is_kept_of_a_scan_is_not_taken_for_another():
    """Other views, other weights, other data: each as if it came first; and what was given out is not changed."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for views, weight in ((7, None), (8, None), (8, 2.0)):
        A = TensorXRayTransform(tilt_series((8, 8, 8), views=(views, *[2] * 6)), SecondMomentResponse(), 2)
        weights = None if weight is None else weight ** torch.linspace(0, 1, views + 12)[:, None, None, None]
        for _ in range(2):
            y = torch.rand(A.range_shape, generator=generator)
            cases.append((A, y, weights, fbp(A, y, weights=weights)))
    for A, y, weights, found in cases[::-1]:
        _symbol_and_nearest.cache_clear()
        assert torch.equal(fbp(A, y, weights=weights), found)
