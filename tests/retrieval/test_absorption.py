"""Transmission frames to a volume: signs, weights, air, the axis, and the measured scans that come with the package."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo import FileFormatError, Geometry, TensorXRayTransform, XRayTransform
from ddf_tomo.datasets import crop_ct_projections, ct_projections, data_path, tooth
from ddf_tomo.operators.responses import IsotropicResponse
from ddf_tomo.radiographs import Radiographs, read_radiographs
from ddf_tomo.retrieval.absorption import absorption, absorption_scan, axial_geometry
from ddf_tomo.retrieval.rotation_axis import RotationAxis, find_rotation_axis, mirror_correlation
from ddf_tomo.solvers.cgls import cgls

# Blobs without any symmetry: centre (x right, y away from the source, z up), width, strength.
BLOBS = np.array([[7.0, 2.0, 4.0, 2.5, 0.06], [-6.0, 5.0, -3.0, 2.0, 0.09], [1.0, -8.0, 1.0, 3.0, 0.04]])


def blob_frames(angles, rows, columns, axis_column, seed=None, counts=20000.0):
    """Frames of the blobs, without the package: a turn clockwise from above, seen along y, rows downwards."""
    x, y, z, width, strength = BLOBS.T
    turned = ((x + 1j * y) * np.exp(-1j * np.asarray(angles)[:, None])).real
    across = np.exp(-((np.arange(columns) - axis_column - turned[..., None]) ** 2) / (2 * width[:, None] ** 2))
    down = np.exp(-((np.arange(rows) - (rows - 1) / 2 + z[:, None]) ** 2) / (2 * width[:, None] ** 2))
    integral = np.einsum("b,vbc,br->vrc", strength * width * np.sqrt(2 * np.pi), across, down)
    frames = counts * np.exp(-integral)
    return frames if seed is None else np.random.default_rng(seed).poisson(frames).astype(float)


def blob_volume(shape):
    grids = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    return sum(
        a * np.exp(-sum((g - c) ** 2 for g, c in zip(grids, (x, y, z), strict=True)) / (2 * w**2))
        for x, y, z, w, a in BLOBS
    )


def blob_scan(angles, axis_column=25.3, rows=20, columns=48, **options):
    frames = blob_frames(angles, rows, columns, axis_column, **options)
    return Radiographs(frames, np.full((rows, columns), 20000.0), None, angles)


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def reconstructed(result, column, size, iterations=15, angles=None):
    """Slices by CGLS; shape (size, size, rows)."""
    rows = result.data.shape[2]
    angles = result.angles_rad if angles is None else angles
    geometry = axial_geometry(angles, result.data.shape[1:3], column, (size, size, rows))
    weights = result.weights / result.weights.mean()
    A = XRayTransform(geometry)
    return cgls(A, result.data, weights=weights, iterations=iterations, progress=False).x.numpy()[..., 0]


def sinogram_about(result, column, half, row):
    """What scikit-image expects: columns resampled about the axis; shape (2 half + 1, views)."""
    positions, columns = np.arange(-half, half + 1) + column, np.arange(result.data.shape[1])
    return np.stack([np.interp(positions, columns, view, 0, 0) for view in result.data[:, :, row, 0]], axis=1)


def iradon_slice(result, column, half, row):
    transform = pytest.importorskip("skimage.transform")
    picture = transform.iradon(sinogram_about(result, column, half, row), np.degrees(result.angles_rad), circle=True)
    return picture[::-1].T  # rows of the picture count downwards along y


def disc(size, radius):
    positions = np.arange(size) - (size - 1) / 2
    return np.hypot(positions[:, None], positions) < radius


# -- signs -------------------------------------------------------------------------------------------------------------


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


# -- the rotation axis -------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    column=st.floats(24.0, 40.0),
    span=st.sampled_from([np.pi, 1.2 * np.pi, 1.9 * np.pi]),
    views=st.integers(24, 60),
    jitter=st.floats(0.0, 0.9),
    seed=st.integers(0, 1000),
)
def test_axis_is_found_within_a_fifth_of_a_column(column, span, views, jitter, seed):
    rng = np.random.default_rng(seed)
    angles = (np.arange(views) + jitter * rng.uniform(size=views)) * span / views + rng.uniform(0, 6)
    frames = blob_frames(angles, 12, 64, column, seed=seed, counts=1000.0)  # noise of 3 %, signal to 50 %
    result = absorption(Radiographs(frames, np.full((12, 64), 1000.0), None, angles), air=None)
    axis = find_rotation_axis(result.data, angles)
    # Once in a few hundred samples 24 views leave a standard error of 0.09 columns, and the axis 0.22 off.
    assert abs(axis.column - column) < max(0.2, 3 * axis.standard_error)
    assert axis.columns == 64
    assert 0 <= axis.inconsistency < 0.2


def test_a_missing_wedge_is_said_and_does_no_harm_without_noise():
    angles = np.linspace(0, np.radians(140), 40)
    result = absorption(blob_scan(angles, axis_column=27.6, columns=56))
    with pytest.warns(UserWarning, match=r"no view within a range of 40° of directions"):
        axis = find_rotation_axis(result.data, angles)
    assert abs(axis.column - 27.6) < 0.05


def test_standard_error_of_the_axis_is_that_of_repetitions():
    angles = np.linspace(0, np.pi, 45, endpoint=False)
    clean = -np.log(blob_frames(angles, 6, 64, 30.4) / 20000).swapaxes(1, 2)
    rng = np.random.default_rng(3)
    found = [find_rotation_axis(clean + 0.05 * rng.normal(size=clean.shape), angles) for _ in range(60)]
    columns, errors = np.array([a.column for a in found]), np.array([a.standard_error for a in found])
    assert abs(columns.mean() - 30.4) < 4 * columns.std() / np.sqrt(60)
    assert 0.7 < columns.std() / errors.mean() < 1.4


def test_axis_search_and_offset():
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    data = absorption(blob_scan(angles, axis_column=36.7, columns=56)).data
    assert abs(find_rotation_axis(data, angles).column - 36.7) < 0.02
    limited = find_rotation_axis(data, angles, search=(20.0, 30.0))
    assert 20 <= limited.column <= 30
    assert RotationAxis(36.7, 0.0, 0.0, 56).j_offset == pytest.approx(27.5 - 36.7)
    geometry = axial_geometry(angles, (56, 4), 36.7)
    assert geometry.volume_shape == (56, 56, 4)
    centres = geometry.pixel_centres()[:, :, 0]  # the axis projects onto column 36.7 in every view
    along_j = np.einsum("vji,vi->vj", centres, geometry.j)
    np.testing.assert_allclose(along_j, np.arange(56) - 36.7 + 0 * angles[:, None], atol=1e-9)


def test_mirror_correlation_knows_the_axis():
    angles = np.array([0.2, 1.0, 0.2 + np.pi])
    data = absorption(blob_scan(angles, axis_column=25.3)).data
    assert mirror_correlation(data, angles, 25.3) > 0.999
    assert mirror_correlation(data[..., 0], angles, 27.3) < 0.95
    assert mirror_correlation(np.ones((2, 8, 3)), [0.0, np.pi], 3.0) == 0.0


# -- measured scans ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ct():
    with pytest.warns(UserWarning, match=r"air reads a transmission of 0\.69\d to 0\.\d+ instead of 1"):
        result = absorption(ct_projections())
    axis = find_rotation_axis(result.data, result.angles_rad)
    return SimpleNamespace(result=result, axis=axis, volume=reconstructed(result, axis.column, 161))


def test_ct_axis_and_mirror_image(ct):
    assert abs(ct.axis.column - 79.5 - 6.4) < 0.2
    assert ct.axis.standard_error < 0.01
    assert mirror_correlation(ct.result.data, ct.result.angles_rad, ct.axis.column) > 0.998
    assert mirror_correlation(ct.result.data, ct.result.angles_rad, 79.5) < 0.9
    halves = (slice(30), slice(30, 67))
    by_row = [find_rotation_axis(ct.result.data[:, :, rows], ct.result.angles_rad).column for rows in halves]
    assert abs(by_row[0] - by_row[1]) < 0.05  # upper and lower half agree: the axis is upright


def test_ct_is_one_compact_bright_object_in_an_empty_field(ct):
    from scipy.ndimage import label

    scale = np.percentile(ct.volume, 99.9)
    pieces, count = label(ct.volume > 0.5 * scale)
    sizes = np.bincount(pieces.ravel())[1:]
    assert count >= 1
    assert sizes.max() > 0.995 * sizes.sum()
    extent = [np.ptp(axis) + 1 for axis in np.nonzero(pieces == sizes.argmax() + 1)]
    assert extent[0] < 40
    assert extent[1] < 40
    assert 40 < extent[2] < 60  # all rows of the insert are in the crop
    outside = ~disc(161, 62) & disc(161, 78)
    assert abs(ct.volume[outside].mean()) < 0.005 * scale
    assert ct.volume[outside].std() < 0.03 * scale


def test_ct_agrees_with_iradon_in_every_slice(ct):
    inside = disc(161, 78)
    brightest = np.percentile(ct.volume, 99.9)
    for row in range(67):
        peer = iradon_slice(ct.result, ct.axis.column, 80, row)[inside]
        ours = ct.volume[:, :, row][inside]
        assert correlation(ours, peer) > 0.96, row
        assert np.sqrt(((ours - peer) ** 2).mean()) < 0.02 * brightest, row


def test_the_crop_is_what_the_package_ships(tmp_path):
    full = tmp_path / "full.h5"
    with h5py.File(full, "w") as file:
        file["frames"], file["angles_deg"] = np.arange(3 * 130 * 2, dtype=np.uint16).reshape(3, 130, 2), np.arange(3.0)
        file["flat"], file["dark"] = np.full((130, 2), 900.0, np.float32), np.zeros((130, 2), np.float32)
        file.attrs["source"] = "somewhere"
    crop_ct_projections(full, tmp_path / "crop.h5")
    crop, whole = ct_projections(tmp_path / "crop.h5"), read_radiographs(full)
    np.testing.assert_array_equal(crop.frames, whole.frames[:, 48:115])
    assert crop.provenance["crop"] == "rows 48 to 114 of 130"
    assert crop.provenance["source"] == "somewhere"
    shipped = ct_projections()
    assert shipped.frames.shape == (91, 67, 160)
    assert {"source", "license", "crop"} <= set(shipped.provenance)
    assert {"source", "license"} <= set(tooth().provenance)
    for name in ("ct_projections", "tooth"):
        assert data_path(f"{name}.h5").with_suffix(".LICENSE").stat().st_size > 1000
        assert data_path(f"{name}.h5").stat().st_size < 1.6e6


@pytest.fixture(scope="module")
def tooth_slices():
    """Pairs of columns averaged, cut to the sample's width; ``axis`` counts in full columns, ``column`` in pairs."""
    full = absorption(tooth())
    axis = find_rotation_axis(full.data, full.angles_rad)
    first, width = 2 * round((axis.column - 0.5) / 2) - 200, 402
    pairs = [a[:, first : first + width].reshape(181, width // 2, 2, 2, 1) for a in (full.data, full.weights)]
    result = SimpleNamespace(data=pairs[0].mean(2), weights=pairs[1].sum(2), angles_rad=full.angles_rad)
    column = (axis.column - first - 0.5) / 2
    volume = reconstructed(result, column, 161, iterations=12)
    return SimpleNamespace(full=full, axis=axis, result=result, column=column, volume=volume)


def test_tooth_axis(tooth_slices):
    assert abs(tooth_slices.axis.column - 295.9) < 0.2
    full = tooth_slices.full
    assert mirror_correlation(full.data, full.angles_rad, tooth_slices.axis.column) > 0.999
    rows = [find_rotation_axis(full.data[:, :, [k]], full.angles_rad).column for k in (0, 1)]
    assert abs(rows[0] - rows[1]) < 0.1


def test_tooth_has_enamel_brighter_than_dentine_brighter_than_air(tooth_slices):
    filters = pytest.importorskip("skimage.filters")
    picture = tooth_slices.volume.mean(axis=2)
    low, high = filters.threshold_multiotsu(picture, 3)
    air, dentine, enamel = picture[picture < low], picture[(picture > low) & (picture < high)], picture[picture > high]
    levels = [np.median(part) for part in (air, dentine, enamel)]
    assert abs(levels[0]) < 0.05 * levels[2]
    assert 1.25 * levels[1] < levels[2]
    for part in (dentine, enamel):
        assert part.size > 0.08 * picture.size
    assert correlation(tooth_slices.volume[..., 0], tooth_slices.volume[..., 1]) > 0.98


def test_tooth_agrees_with_iradon(tooth_slices):
    inside = disc(161, 76)
    for row in (0, 1):
        peer = iradon_slice(tooth_slices.result, tooth_slices.column, 100, row)[20:-20, 20:-20][inside]
        ours = tooth_slices.volume[:, :, row][inside]
        assert correlation(ours, peer) > 0.985
        assert np.sqrt(((ours - peer) ** 2).mean()) < 0.04 * np.ptp(peer)


def test_tooth_is_sharpest_at_its_axis(tooth_slices):
    data, inside = tooth_slices.full.data[..., :1, 0], disc(321, 157)
    frequencies = np.fft.rfftfreq(1280)
    smooth_ramp = (frequencies * np.cos(np.pi * frequencies) ** 2)[:, None]
    filtered = np.fft.irfft(np.fft.rfft(data, 1280, axis=1) * smooth_ramp, axis=1)[:, :640, None].astype(np.float32)
    values = []
    for shift in (-2.0, 0.0, 2.0):
        geometry = axial_geometry(
            tooth_slices.full.angles_rad, (640, 1), tooth_slices.axis.column + shift, (321, 321, 1)
        )
        picture = XRayTransform(geometry).T(filtered)[:, :, 0, 0]
        slope, picture = np.hypot(*np.gradient(picture))[inside], picture[inside]
        # The true axis leaves the least negative attenuation and the least absolute integral (Donath et al. 2006,
        # J. Opt. Soc. Am. A 23, 1048).
        values.append((np.percentile(slope, 98), -picture[picture < 0].sum(), np.abs(picture).sum()))
    edges, negative, absolute = np.array(values, float).T
    assert max(edges[0], edges[2]) < 0.985 * edges[1]
    assert min(negative[0], negative[2]) > 1.05 * negative[1]
    vertex = 0.5 * (absolute[0] - absolute[2]) / (absolute[0] - 2 * absolute[1] + absolute[2])
    assert absolute[1] < min(absolute[0], absolute[2])
    assert abs(2 * vertex) < 0.5  # the parabola through the three finds the same axis, in columns


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


# -- files and bad input -----------------------------------------------------------------------------------------------


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name.replace("__", "/")] = value
    return path


PLAIN = {"frames": np.full((3, 2, 4), 50.0), "flat": np.full((2, 4), 100.0), "angles_deg": [0.0, 60.0, 120.0]}
EXCHANGE = {"exchange__data": PLAIN["frames"], "exchange__data_white": np.full((5, 2, 4), 100.0)}
EXCHANGE |= {"exchange__data_dark": np.zeros((1, 2, 4)), "exchange__theta": [0.0, 60.0, 120.0]}


def test_both_layouts_and_units_read_alike(tmp_path):
    plain = read_radiographs(write(tmp_path / "a.h5", **PLAIN))
    exchange = write(tmp_path / "b.h5", **EXCHANGE)
    turned = np.radians([0.0, 60.0, 120.0])
    in_radians = write(
        tmp_path / "c.h5", frames=PLAIN["frames"], flat=PLAIN["flat"], dark=np.zeros((2, 4)), angles_rad=turned
    )
    for scan in (plain, read_radiographs(exchange), read_radiographs(in_radians)):
        np.testing.assert_allclose(scan.angles_rad, turned)
        np.testing.assert_array_equal(scan.frames, PLAIN["frames"])
        np.testing.assert_array_equal(scan.flat, PLAIN["flat"])
        assert len(scan) == 3
        assert (scan.dark == 0).all()
    with h5py.File(exchange, "r+") as file:
        file["exchange/theta"][...] = turned
        file["exchange/theta"].attrs["units"] = np.bytes_("Radians")
        file.attrs["pixel_size_m"], file.attrs["title"] = 2e-6, b"bytes"
    scan = read_radiographs(str(exchange))
    np.testing.assert_allclose(scan.angles_rad, turned)
    assert scan.pixel_size_m == 2e-6
    assert scan.provenance == {"file": "b.h5", "title": "bytes"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flat": None}, "a dataset /flat"),
        ({"angles_deg": None}, "a dataset /angles_deg"),
        ({"frames": None}, "a dataset /frames"),
        ({"frames": np.zeros((3, 2))}, "frames: expected shape"),
        ({"frames": [[["text"]]]}, "frames: expected real numbers"),
        ({"flat": np.zeros((2, 4))}, "flat: expected more counts than in the dark"),
        ({"flat": np.ones((3, 4))}, "flat: expected shape"),
        ({"dark": np.ones((0, 2, 4))}, "dark: expected shape"),
        ({"angles_deg": [0.0, 1.0]}, "angles_rad: expected shape"),
        ({"angles_deg": [0.0, np.nan, 1.0]}, "finite"),
    ],
)
def test_files_that_are_no_scan(tmp_path, change, expected):
    contents = {name: value for name, value in (PLAIN | change).items() if value is not None}
    with pytest.raises(FileFormatError, match=expected):
        read_radiographs(write(tmp_path / "bad.h5", **contents))


def test_damaged_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected an HDF5 file"):
        read_radiographs(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    whole = data_path("tooth.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    for name in ("text.h5", "cut.h5"):
        with pytest.raises(FileFormatError, match=f"a complete HDF5 file, got .*{name}"):
            read_radiographs(tmp_path / name)
    with pytest.raises(FileFormatError, match="with nothing"):
        read_radiographs(write(tmp_path / "empty.h5"))
    write(tmp_path / "group.h5", frames__inside=[1.0], **{k: v for k, v in PLAIN.items() if k != "frames"})
    with pytest.raises(FileFormatError, match="a dataset /frames"):
        read_radiographs(tmp_path / "group.h5")
    gradians = write(tmp_path / "units.h5", **PLAIN)
    with h5py.File(gradians, "r+") as file:
        file["angles_deg"].attrs["units"] = "gon"
    with pytest.raises(FileFormatError, match=r"angles in degrees or radians, got .* units 'gon'"):
        read_radiographs(gradians)


def test_radiographs_are_checked_and_cannot_change():
    good = {"frames": np.ones((2, 3, 4)), "flat": np.full((3, 4), 2), "dark": None, "angles_rad": [0.0, 1.0]}
    scan = Radiographs(**good, pixel_size_m=1e-6, provenance={"made": 1})
    assert scan.provenance["made"] == "1"
    assert repr(scan) == "Radiographs(2 views of 3 rows x 4 columns, angles 0 to 1 rad)"
    with pytest.raises(ValueError, match="read-only"):
        scan.frames[0] = 0
    bad = {
        "frames": (np.ones((0, 3, 4)), np.ones((2, 3, 4)) * np.nan, np.ones((2, 3)), np.ones((2, 3, 0))),
        "flat": (np.zeros((3, 4)), np.ones((4, 3)), np.full((3, 4), np.inf)),
        "dark": (np.ones(4), np.full((3, 4), 5.0)),
        "angles_rad": ([0.0], [0.0, 90.0], [0.0, np.inf]),
        "pixel_size_m": (0.0, -1e-6, 5.0),
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match="expected"):
                Radiographs(**(good | {name: value}))
    with pytest.raises(TypeError, match="frames: expected real numbers"):
        Radiographs(**(good | {"frames": np.ones((2, 3, 4), complex)}))


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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones((8, 9)), np.arange(8)), "projections: expected shape"),
        ((np.ones((8, 9, 2, 3)), np.arange(8)), "projections: expected shape"),
        ((np.ones((8, 9, 2)), np.arange(7)), "angles_rad: expected shape"),
        ((np.ones((8, 9, 2)), np.zeros(8)), "angles_rad: expected angles that differ, got 8 times 0"),
        ((np.ones((4, 9, 2)), np.arange(4)), "at least 6 different directions, got 4"),
        ((np.zeros((8, 9, 2)), np.linspace(0, 3, 8)), "an object in some view, got zero everywhere"),
        ((np.full((8, 9, 2), np.nan), np.arange(8)), "finite"),
    ],
)
def test_axis_names_what_is_wrong(arguments, text):
    with pytest.raises(ValueError, match=text):
        find_rotation_axis(*arguments)


def test_axis_refuses_a_search_off_the_detector_and_lone_views():
    for search in ((3.0, 2.0), (-1.0, 4.0), (2.0, 9.0)):
        with pytest.raises(ValueError, match="search: expected two increasing columns in"):
            find_rotation_axis(np.ones((8, 9, 2)), np.linspace(0, 3, 8), search=search)
    with pytest.raises(ValueError, match="at least two views"):
        mirror_correlation(np.ones((1, 9, 2)), [0.0], 4.0)
    with pytest.raises(ValueError, match="column: expected a finite number"):
        mirror_correlation(np.ones((2, 9, 2)), [0.0, 1.0], 12.0)


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
