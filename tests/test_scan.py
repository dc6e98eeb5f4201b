"""The scan value: what is accepted, refused, shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import (
    RankTwoResponse,
    SaxsResponse,
    VisibilityResponse,
)
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.scan import Scan
from tests.scans import MOMENT, assert_same, some_geometry, some_scan


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_kept_as_they_are(dtype):
    data = np.zeros((4, 6, 5, 3), dtype)
    weights = np.ones((4, 6, 5, 3), dtype)
    scan = some_scan(data=data, weights=weights)
    assert scan.data is data
    assert np.shares_memory(scan.weights, weights)
    tensor = torch.from_numpy(data).requires_grad_()
    assert some_scan(data=tensor).data is tensor


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float16, bool])
def test_other_numbers_become_float32(dtype):
    assert some_scan(data=np.ones((4, 6, 5, 3), dtype)).data.dtype == np.float32


def test_other_orders_in_memory_are_made_plain():
    data = np.arange(360, dtype=">f8").reshape(3, 5, 6, 4).T
    scan = some_scan(data=data)
    assert scan.data.flags.c_contiguous
    assert scan.data.dtype == np.float64
    assert scan.data.dtype.isnative
    np.testing.assert_array_equal(scan.data, data)
    assert some_scan(data=torch.ones(3, 5, 6, 4, dtype=torch.float16).permute(3, 2, 1, 0)).data.dtype == torch.float32
    assert (
        some_scan(data=torch.ones(4, 6, 5, 3), weights=np.ones(4), diode=np.ones((4, 6, 5))).diode.dtype
        == torch.float32
    )
    assert isinstance(some_scan(weights=torch.ones(4)).weights, np.ndarray)


@pytest.mark.parametrize("shape", [(4, 6, 5, 3), (4, 6, 5), (4,), (1, 6, 5, 1), (4, 1, 1, 3), (1, 1, 1, 1)])
def test_weights_of_any_shape_that_makes_sense(shape):
    weights = np.random.default_rng(0).uniform(size=shape)
    scan = some_scan(weights=weights)
    assert scan.weights.ndim == 4
    expected = weights.reshape(shape + (1,) * (4 - len(shape)))
    np.testing.assert_allclose(scan.full_weights(), np.broadcast_to(expected, (4, 6, 5, 3)), rtol=1e-6)
    assert scan[1:3].full_weights().shape == (2, 6, 5, 3)
    np.testing.assert_array_equal(scan[1:3].full_weights(), scan.full_weights()[1:3])


def test_no_weights_are_ones():
    assert (some_scan().full_weights() == 1).all()
    tensor = some_scan(data=torch.zeros(4, 6, 5, 3))
    assert tensor.full_weights().shape == (4, 6, 5, 3)
    assert (tensor.full_weights() == 1).all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"data": np.zeros((4, 6, 5, 2))}, ValueError, r"data: expected shape \(4, 6, 5, 3\), got \(4, 6, 5, 2\)"),
        ({"data": np.zeros((4, 6, 5))}, ValueError, "data: expected shape"),
        ({"data": np.zeros((4, 6, 5, 3), complex)}, TypeError, "data: expected real numbers"),
        ({"data": torch.zeros((4, 6, 5, 3), dtype=torch.complex64)}, TypeError, "data: expected real numbers"),
        ({"data": [["a"]]}, TypeError, "data: expected real numbers"),
        ({"data": np.full((4, 6, 5, 3), np.nan)}, ValueError, "360 NaN or infinite.*zero weight"),
        ({"geometry": None}, TypeError, "geometry: expected a ddf_tomo.Geometry, got NoneType"),
        ({"geometry": some_geometry()[:0]}, ValueError, "at least one view, got an empty scan"),
        ({"response": object()}, TypeError, "response: expected an angular response"),
        ({"response": "SecondMomentResponse()"}, TypeError, "response: expected an angular response"),
        ({"response": VisibilityResponse(np.zeros((3, 3)))}, ValueError, r"sensitivity_angles_rad: expected shape \(4"),
        ({"weights": np.zeros(4)}, ValueError, "at least one weight above zero, got zeros only"),
        ({"weights": -np.ones(4)}, ValueError, "weights: expected finite weights of zero or more"),
        ({"weights": np.full(4, np.nan)}, ValueError, "weights"),
        ({"weights": np.full(4, np.inf)}, ValueError, "weights"),
        ({"weights": np.ones(3)}, ValueError, r"weights: expected shape \(4, 6, 5, 3\), \(4, 6, 5\), \(4,\)"),
        ({"weights": np.ones((4, 6, 2, 3))}, ValueError, "weights: expected shape"),
        ({"diode": np.ones((4, 6))}, ValueError, "diode: expected shape"),
        ({"diode": np.full((4, 6, 5), np.inf)}, ValueError, "diode: expected finite"),
        ({"voxel_size_m": 25.0}, ValueError, "voxel_size_m: .* got 25.0. the unit is metres: 25 µm are 25e-6"),
        ({"voxel_size_m": 0}, ValueError, "voxel_size_m"),
        ({"voxel_size_m": "large"}, TypeError, "voxel_size_m"),
        ({"title": 3}, TypeError, "title: expected a text"),
        ({"provenance": "me"}, TypeError, "provenance: expected a mapping"),
        ({"provenance": {"array": np.zeros(3)}}, TypeError, "provenance: expected a mapping"),
    ],
)
def test_bad_arguments_are_named(changes, error, words):
    with pytest.raises(error, match=words):
        Scan(**({"data": np.zeros((4, 6, 5, 3)), "geometry": some_geometry(), "response": MOMENT} | changes))


def test_degrees_are_noticed():
    with pytest.raises(ValueError, match="degrees"):
        SaxsResponse(np.arange(8) * 22.5)


def test_tensors_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="weights: expected the data's device cpu, got meta"):
        some_scan(data=torch.zeros(4, 6, 5, 3), weights=torch.ones(4, device="meta"))


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_masked_values_may_be_anything(library):
    data = np.ones((4, 6, 5, 3))
    weights = np.ones((4, 6, 5, 1))
    diode = np.full((4, 6, 5), 0.5)
    data[1, 2, 3] = np.nan, np.inf, -np.inf
    diode[1, 2, 3] = np.nan
    weights[1, 2, 3] = 0
    scan = some_scan(data=library(data), weights=library(weights), diode=library(diode))
    assert scan.data[1, 2, 3].tolist() == [0, 0, 0]
    assert float(scan.diode[1, 2, 3]) == 0
    assert float(scan.data.sum()) == 4 * 6 * 5 * 3 - 3
    assert np.isnan(data[1, 2, 3, 0])  # the caller's array is left alone
    data[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        some_scan(data=library(data), weights=library(weights))


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("views", [slice(1, 3), [2, 0], 1, np.array([True, False, True, False]), slice(None, None, -1)])
def test_subsets(library, views):
    scan = some_scan(data=library(np.random.default_rng(0).normal(size=(4, 6, 5, 3))), diode=np.ones((4, 6, 5)))
    chosen = np.atleast_1d(np.arange(4)[views])
    part = scan[views]
    np.testing.assert_array_equal(part.data, np.asarray(scan.data)[chosen])
    assert part.geometry == scan.geometry[chosen]
    assert len(part) == len(chosen)
    assert part.diode.shape == (len(chosen), 6, 5)


def test_slices_share_memory():
    scan = some_scan()
    assert np.shares_memory(scan[1:].data, scan.data)


def test_responses_that_differ_from_view_to_view_follow():
    response = VisibilityResponse(np.arange(8).reshape(4, 2) / 10)
    scan = some_scan(response=response)
    assert scan[[2, 0]].response == VisibilityResponse([[0.4, 0.5], [0.0, 0.1]])
    assert_same(Scan.concatenate([scan[:1], scan[1:]]), scan)


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_concatenate(library):
    scan = some_scan(
        data=library(np.ones((4, 6, 5, 3))), weights=np.array([1, 2, 3, 4.0]), title="a", voxel_size_m=1e-5
    )
    assert_same(Scan.concatenate([scan[:1], scan[1:]]), scan)
    part = Scan.concatenate([scan[2:], some_scan(data=library(np.ones((4, 6, 5, 3))), voxel_size_m=1e-5)])
    assert part.weights[:, 0, 0, 0].tolist() == [3, 4, 1, 1, 1, 1]
    assert part.title == "a"
    with pytest.raises(ValueError, match="response: expected Second"):
        Scan.concatenate([some_scan(), some_scan(response=RankTwoResponse())])
    with pytest.raises(ValueError, match="voxel_size_m: expected 1e-05 in every scan"):
        Scan.concatenate([scan, some_scan()])
    with pytest.raises(ValueError, match="diode in every scan or in none"):
        Scan.concatenate([some_scan(), some_scan(diode=np.ones((4, 6, 5)))])
    with pytest.raises(ValueError, match="at least one Scan"):
        Scan.concatenate([])


def test_binning_averages_with_weights_and_adds_weights():
    data = np.arange(4 * 6 * 5 * 3, dtype=float).reshape(4, 6, 5, 3)
    weights = np.random.default_rng(1).uniform(size=data.shape)
    weights[:, :2, :2] = 0
    diode = np.random.default_rng(2).uniform(size=data.shape[:3])
    scan = some_scan(data=data, weights=weights, diode=diode, voxel_size_m=1e-6)
    binned = scan.binned(2)
    assert binned.voxel_size_m == 2e-6
    assert binned.geometry == scan.geometry.binned(2)
    block = np.s_[1, 2:4, 2:4]
    expected = (data[block] * weights[block]).sum((0, 1)) / weights[block].sum((0, 1))
    np.testing.assert_allclose(binned.data[1, 1, 1], expected)
    np.testing.assert_allclose(binned.weights[1, 1, 1], weights[block].sum((0, 1)))
    np.testing.assert_allclose(binned.diode[1, 1, 1], diode[block].mean())
    assert binned.data[0, 0, 0].tolist() == [0, 0, 0]
    assert binned.weights[0, 0, 0].tolist() == [0, 0, 0]
    plain = some_scan(data=data).binned(3)
    np.testing.assert_allclose(plain.data[0, 0, 0], data[0, :3, :3].mean((0, 1)))
    assert plain.weights is None
    assert scan.binned(1) is scan
    tensor = some_scan(data=torch.from_numpy(data), weights=weights, diode=diode).binned(2)
    np.testing.assert_allclose(tensor.data, binned.data)
    np.testing.assert_allclose(tensor.diode, binned.diode)


def test_binned_scans_see_the_same_sample():
    """Binned projections of a smooth sample are projections of the binned sample, with coefficients per new voxel."""
    geometry = Geometry.from_angles([0.2, 1.0], [0.0, 0.4], (32, 32, 32), (32, 32), j_offset=1.3)
    axes = np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij")
    field = np.exp(-((axes[0] - 2) ** 2 + (axes[1] + 1) ** 2 + axes[2] ** 2) / (2 * 6.0**2))[..., None]
    field = field * np.array([1, 0.1, 0.2, -0.3, 0.2, 0.1])
    scan = Scan(TensorXRayTransform(geometry, MOMENT, 2)(field), geometry, MOMENT).binned(2)
    coarse = field.reshape(16, 2, 16, 2, 16, 2, 6).mean((1, 3, 5)) * 2
    expected = TensorXRayTransform(scan.geometry, MOMENT, 2)(coarse)
    np.testing.assert_allclose(scan.data, expected, atol=0.02 * np.abs(expected).max())


def test_what_people_see():
    scan = some_scan(weights=np.array([0, 1, 1, 1.0]), diode=np.full((4, 6, 5), 0.5), voxel_size_m=2e-5, title="rods")
    assert repr(scan) == "<Scan: 4 views of 6 × 5 pixels, 3 channels, SecondMomentResponse, volume 6 × 7 × 5>"
    text = scan.summary()
    for words in ("title: rods", "25.0% of them masked", "20 µm", "mean 0.5", "4 views of (6, 7, 5) voxels"):
        assert words in text
    plain = some_scan(data=torch.ones(4, 6, 5, 3), provenance={"source": "simulation"}).summary()
    for words in ("weights: none", "voxel size: unknown", "diode: none", "source: simulation"):
        assert words in plain
