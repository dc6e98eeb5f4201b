"""Counts to absorption: signs, weights, air, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo import Geometry, TensorXRayTransform, XRayTransform
from ddf_tomo.datasets import tooth
from ddf_tomo.operators.responses import IsotropicResponse
from ddf_tomo.radiographs import Radiographs
from ddf_tomo.retrieval.absorption import absorption, absorption_scan, axial_geometry
from ddf_tomo.retrieval.rotation_axis import find_rotation_axis
from ddf_tomo.solvers.cgls import cgls
from tests.retrieval.blobs import (
    blob_frames,
    blob_scan,
    blob_volume,
    disc,
    iradon_slice,
    reconstructed,
)


def test_every_sign_by_an_object_without_symmetry():
    angles = np.linspace(0, np.pi, 40, endpoint=False)
    result = absorption(blob_scan(angles))
    truth = blob_volume((41, 41, 20))
    scan = absorption_scan(blob_scan(angles), column=25.3, volume_shape=(41, 41, 20))
    volume = cgls(XRayTransform(scan.geometry), scan.data, iterations=15, progress=False).x.numpy()[..., 0]
    assert np.linalg.norm(volume - truth) < 0.05 * np.linalg.norm(truth)  # bilinear rays through smooth blobs
    np.testing.assert_allclose(reconstructed(result, 25.3, 41), volume, atol=0.02 * truth.max())  # other weights
    slips = {
        "rotation sign": reconstructed(result, 25.3, 41, angles=-angles),
        "rows flipped": volume[:, :, ::-1],
        "mirrored": volume[::-1],
        "axis at the other side": reconstructed(result, 47 - 25.3, 41),
        "half a pixel": reconstructed(result, 25.8, 41),
    }
    for slip, wrong in slips.items():
        assert np.linalg.norm(wrong - truth) > 0.15 * np.linalg.norm(truth), slip


def test_turn_direction_and_scale_are_those_of_skimage():
    transform = pytest.importorskip("skimage.transform")
    angles = np.linspace(0, np.pi, 60, endpoint=False)
    truth = blob_volume((41, 41, 20))[:, :, 13] * disc(41, 20)
    sinogram = transform.radon(truth.T[::-1], np.degrees(angles), circle=True)
    frames = 1e4 * np.exp(-sinogram.T[:, None])
    result = absorption(Radiographs(frames, np.full((1, 41), 1e4), None, angles), air=None)
    found = reconstructed(result, 20.0, 41)[:, :, 0]
    inside = disc(41, 19)
    assert np.linalg.norm((found - truth)[inside]) < 0.05 * np.linalg.norm(truth)
    np.testing.assert_allclose(found[inside], iradon_slice(result, 20.0, 20, 0)[inside], atol=0.08 * truth.max())


@pytest.mark.parametrize("channels", [1, 3])
def test_planes_of_an_axial_geometry_as_channels_are_the_same_transform(channels):
    angles, rng = np.linspace(0, 3, 7), np.random.default_rng(0)
    geometry = axial_geometry(angles, (16, 5), 6.4, (15, 16, 5))
    x, y = rng.normal(size=(15, 16, 5, channels)), rng.normal(size=(7, 16, 5, channels))
    fast, slow = XRayTransform(geometry), XRayTransform(geometry, backend="reference")
    np.testing.assert_allclose(fast(x), slow(x), atol=1e-12)
    np.testing.assert_allclose(fast.T(y), slow.T(y), atol=1e-12)
    offset = Geometry(geometry.p, geometry.j, geometry.k, geometry.j_offset, 0.5, (15, 16, 5), (16, 5))
    higher = axial_geometry(angles, (16, 5), 6.4, (15, 16, 6))
    downwards = Geometry(geometry.p, geometry.j, -geometry.k, geometry.j_offset, 0.0, (15, 16, 5), (16, 5))
    tilted = Geometry.from_angles(angles, 0.3, (15, 16, 5), (16, 5))
    for other in (offset, higher, downwards, tilted):  # planes mix, or come in another order
        volume = rng.normal(size=(*other.volume_shape, channels))
        fast, slow = XRayTransform(other), XRayTransform(other, backend="reference")
        np.testing.assert_allclose(fast(volume), slow(volume), atol=1e-12)
        np.testing.assert_allclose(fast.T(y), slow.T(y), atol=1e-12)


def test_a_reversed_axis_of_length_one_reaches_the_transform():
    geometry = axial_geometry([0.0, 1.0], (8, 1), 3.5)
    y = np.random.default_rng(0).normal(size=(2, 8, 1, 1))
    np.testing.assert_array_equal(XRayTransform(geometry).T(y[:, :, ::-1]), XRayTransform(geometry).T(y))


# -- counts, weights, air ----------------------------------------------------------------------------------------------


def test_line_integrals_are_exact_and_the_background_goes():
    angles = np.linspace(0, np.pi, 12, endpoint=False)
    clean, dark = blob_frames(angles, 20, 64, 30.0), np.full((3, 20, 64), 100.0)
    y, x = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 64), indexing="ij")
    drift = 0.7 + 0.05 * np.sin(angles)[:, None, None] * x
    drift = drift * np.exp(0.03 * x**2 - 0.02 * x * y)
    flat = np.stack([np.full((20, 64), c) for c in (20000.0, 20400.0, 20200.0)])  # mean 20200, less 100 dark
    radiographs = Radiographs(clean * 20100 / 20000 * drift + 100, flat, dark, angles)
    with pytest.warns(UserWarning, match=r"air reads a transmission of 0\.71\d to 0\.71\d instead of 1"):
        result = absorption(radiographs)
    truth = np.log(20000 / clean)[:, ::-1].swapaxes(1, 2)[..., None]
    np.testing.assert_allclose(result.data, truth, atol=0.006)
    assert result.data.dtype == result.weights.dtype == np.float32
    assert abs(result.air_transmission.mean() - 0.71) < 0.02
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = absorption(radiographs, air=None)
    assert raw.data[0, 0, 0, 0] > 0.2
    assert (raw.air_transmission == 1).all()


@pytest.mark.parametrize("per_view", [False, True])
def test_air_where_the_user_says(per_view):
    radiographs = blob_scan(np.linspace(0, 3, 8))
    mask = np.zeros(radiographs.frames.shape if per_view else radiographs.frames.shape[1:], bool)
    mask[..., :3] = mask[..., -3:] = True
    dimmed = Radiographs(radiographs.frames * np.float32(0.9), radiographs.flat, None, radiographs.angles_rad)
    with pytest.warns(UserWarning, match="air reads"):
        result = absorption(dimmed, air=mask, air_order=0)
    np.testing.assert_allclose(result.air_transmission, 0.9, rtol=1e-3)
    np.testing.assert_allclose(result.data, absorption(radiographs, air=mask, air_order=0).data, atol=1e-5)


def test_views_that_differ_raise_the_doubt_that_air_is_air():
    radiographs = blob_scan(np.linspace(0, 3, 8))
    dimming = np.linspace(1, 0.5, 8)[:, None, None]
    dimmed = Radiographs(radiographs.frames * dimming, radiographs.flat, None, radiographs.angles_rad)
    with pytest.warns(UserWarning, match=r"0\.5 to 1 .* sample in the margins"):
        absorption(dimmed)


def test_weights_are_inverse_variances():
    rng = np.random.default_rng(1)
    means = np.array([200.0, 1000.0, 5000.0])[None, :, None]
    photons = rng.poisson(np.broadcast_to(means, (2, 3, 20000)))
    result = absorption(
        Radiographs(4.0 * photons + 50, np.full((3, 20000), 4050.0), np.full((3, 20000), 50.0), [0.0, 1.0]),
        air=None,
        counts_per_photon=4.0,
    )
    data, weights = result.data[..., ::-1, 0], result.weights[..., ::-1, 0]
    np.testing.assert_allclose(data.var(axis=(0, 1)), 1 / weights.mean(axis=(0, 1)), rtol=0.05)
    np.testing.assert_allclose(weights.mean(axis=(0, 1)), means.ravel(), rtol=0.01)


def test_pixels_without_counts_have_no_weight_and_their_neighbours_value():
    good = blob_scan(np.linspace(0, 3, 8))
    frames, flat = good.frames.copy(), good.flat.copy()
    frames[2, 5, 20], frames[3, 6, :], flat[8, 24] = -3.0, 0.0, 0.0
    result = absorption(Radiographs(frames, flat, None, good.angles_rad))
    expected = absorption(good).data
    assert np.isfinite(result.data).all()
    assert np.argwhere(result.weights[..., 0] == 0).shape == (1 + 48 + 8, 3)
    assert result.weights[2, 20, 19 - 5, 0] == 0
    assert (result.weights[:, 24, 19 - 8, 0] == 0).all()
    others = result.weights > 0
    np.testing.assert_allclose(result.data[others], expected[others], atol=2e-3)
    assert abs(result.data[2, 20, 14, 0] - expected[2, 20, 14, 0]) < 0.02


def test_repeated_views_are_said():
    angles = np.linspace(0, 3, 8)
    angles[5] = angles[1] + 2 * np.pi
    with pytest.warns(UserWarning, match="1 of 8 views repeat the same angle: views 1 and 5") as caught:
        absorption(blob_scan(angles, seed=0))
    assert len(caught) == 1
    stuck = blob_scan(np.linspace(0, 3, 8)).frames.copy()
    stuck[2:] = stuck[1]
    with pytest.warns(UserWarning, match=r"6 of 8 views repeat the same frame: views 1 and 2, .*…"):
        absorption(Radiographs(stuck, np.full((20, 48), 2e4), None, np.linspace(0, 3, 8)))


def test_angles_that_are_all_the_same_are_refused():
    for angle in (0.0, 1.3):
        with pytest.raises(ValueError, match="angles_rad: expected angles that differ, got 8 times"):
            absorption(blob_scan(np.full(8, angle)))


def test_scan_of_absorption_is_the_scalar_case_of_the_tensor_operator():
    scan = absorption_scan(tooth(), volume_shape=(64, 64, 2))
    assert scan.provenance["rotation_axis"].startswith("found at column 295.")
    assert isinstance(scan.response, IsotropicResponse)
    assert absorption_scan(tooth(), column=296, volume_shape=(8, 8, 2)).provenance["rotation_axis"].endswith("296")
    few = scan[:3]
    x = torch.randn(64, 64, 2, 1, generator=torch.Generator().manual_seed(0))
    tensor, scalar = TensorXRayTransform(few.geometry, few.response, 0), XRayTransform(few.geometry)
    torch.testing.assert_close(tensor(x), scalar(x), rtol=1e-5, atol=1e-5)
    assert IsotropicResponse().matrix(few.geometry, 4)[:, 0].tolist() == [[1.0] + 14 * [0.0]] * 3


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"air": "top"}, ValueError, "air: expected 'margins', a boolean mask or None, got 'top'"),
        ({"air": np.ones((20, 48))}, TypeError, "air: expected .* got an array of float64"),
        ({"air": np.ones((3, 48), bool)}, ValueError, r"air: expected shape \(20, 48\)"),
        ({"air": np.ones((7, 20, 48), bool)}, ValueError, r"air: expected shape \(8\)"),
        ({"air": np.zeros((20, 48), bool)}, ValueError, "air: expected pixels of air .* none in view 0"),
        ({"air_order": 4}, ValueError, "air_order"),
        ({"counts_per_photon": 0}, ValueError, "counts_per_photon"),
    ],
)
def test_absorption_names_what_is_wrong(options, error, text):
    with pytest.raises(error, match=text):
        absorption(blob_scan(np.linspace(0, 3, 8)), **options)


def test_absorption_needs_counts_and_radiographs():
    with pytest.raises(TypeError, match="radiographs: expected Radiographs, got ndarray"):
        absorption(np.ones((3, 4, 5)))
    frames = np.arange(50.0, 53.0)[:, None, None] * np.ones((4, 16))
    frames[1] = 0
    with pytest.raises(ValueError, match="counts above the dark in every view, got none in 1 views: 1"):
        absorption(Radiographs(frames, np.full((4, 16), 100.0), None, [0.0, 1.0, 2.0]))


@settings(max_examples=40, deadline=None)
@given(
    views=st.integers(1, 8),
    rows=st.integers(1, 4),
    columns=st.integers(1, 12),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-30, 1.0, 1e4, 1e30]),
    order=st.integers(0, 3),
)
def test_finite_counts_never_become_nan(views, rows, columns, seed, scale, order):
    rng = np.random.default_rng(seed)
    frames = scale * rng.choice([0.0, -1.0, 1.0, 3.0, 1e3], size=(views, rows, columns))
    frames[:, 0, 0] = scale
    flat = scale * rng.choice([0.0, 1.0, 50.0], size=(rows, columns))
    flat[0, 0] = 2 * scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = absorption(Radiographs(frames, flat, None, np.arange(views) * 0.3), air_order=order)
        for array in (result.data, result.weights, result.air_transmission):
            assert np.isfinite(array).all()
        assert (result.weights >= 0).all()
        if views >= 6 and result.data.any():
            axis = find_rotation_axis(result.data, result.angles_rad)
            assert 0 <= axis.column <= columns - 1
