"""Measured scans that come with the package, against scikit-image."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from ddf_tomo import XRayTransform
from ddf_tomo.datasets import crop_ct_projections, ct_projections, data_path, tooth
from ddf_tomo.radiographs import read_radiographs
from ddf_tomo.retrieval.absorption import absorption, axial_geometry
from ddf_tomo.retrieval.rotation_axis import find_rotation_axis, mirror_correlation
from tests.retrieval.blobs import (
    correlation,
    disc,
    iradon_slice,
    reconstructed,
)


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
