"""The scan value and its files: what is accepted, refused, shared, restored."""

from __future__ import annotations

import json
import warnings

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo._checks import FileFormatError
from ddf_tomo._files import replaced_when_complete
from ddf_tomo._response_text import response_from_repr
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import (
    DirectionalVisibilityResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    VisibilityResponse,
)
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.scan import Scan

MOMENT = SecondMomentResponse()


def some_geometry(views=4, volume=(6, 7, 5), detector=(6, 5), seed=0):
    generator = np.random.default_rng(seed)
    angles, offsets = generator.uniform(-2, 2, (2, views)), generator.normal(size=(2, views))
    return Geometry.from_angles(*angles, volume, detector, j_offset=offsets[0], k_offset=offsets[1])


def some_scan(views=4, dtype=np.float32, response=MOMENT, seed=0, **changes):
    geometry = some_geometry(views, seed=seed)
    data = np.random.default_rng(seed).normal(size=(views, 6, 5, response.channels)).astype(dtype)
    return Scan(**({"data": data, "geometry": geometry, "response": response} | changes))


def assert_same(found: Scan, expected: Scan) -> None:
    for name in ("data", "weights", "diode"):
        left, right = getattr(found, name), getattr(expected, name)
        assert (left is None) == (right is None), name
        if left is not None:
            full = np.broadcast_to(right, expected.data.shape if name == "weights" else right.shape)
            np.testing.assert_array_equal(np.broadcast_to(left, full.shape), full, err_msg=name)
    assert found.data.dtype == expected.data.dtype
    for name in ("geometry", "response", "voxel_size_m", "title", "provenance"):
        assert getattr(found, name) == getattr(expected, name), name


# -- what is accepted -------------------------------------------------------------------------------------------------


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


# -- what is refused --------------------------------------------------------------------------------------------------


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


# -- values derived from one ------------------------------------------------------------------------------------------


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


# -- files ------------------------------------------------------------------------------------------------------------

RESPONSES = [
    MOMENT,
    RankTwoResponse(),
    SaxsResponse(np.arange(4) * np.pi / 4),
    SaxsResponse(np.arange(8) * np.pi / 4 - 1, two_theta_rad=0.1),
    SaxsResponse([0.1, 1.1, 2.2], two_theta_rad=[0.0, 0.2], full_circle=False),
    VisibilityResponse([0.0, 1.0]),
    VisibilityResponse(np.arange(8).reshape(4, 2) / 10),
    DirectionalVisibilityResponse([0.0, 1.0, 2.0], 1.3),
    RankTwoSaxsResponse([0.0, 0.5]),
]


@pytest.mark.parametrize("response", RESPONSES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_restore_everything(tmp_path, response, dtype):
    bare = some_scan(response=response, dtype=dtype)
    full = some_scan(
        response=response,
        dtype=dtype,
        weights=np.random.default_rng(0).uniform(size=(4, 6, 5, 1)),
        diode=np.random.default_rng(1).uniform(size=(4, 6, 5)).astype(dtype),
        voxel_size_m=1 / 3e5,
        title="Ästhetik",
        provenance={"source": "test", "steps": 3, "nested": {"a": [1, 2.5]}},
    )
    for scan in (bare, full):
        scan.write(tmp_path / "scan.h5")
        assert_same(Scan.read(tmp_path / "scan.h5"), scan)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_geometry_is_restored_to_the_last_bit(tmp_path, seed, left_handed):
    frames = Rotation.random(3, random_state=seed).as_matrix()
    p, j, k = frames[:, 2] * (-1 if left_handed else 1), frames[:, 0], frames[:, 1]
    offsets = np.random.default_rng(seed).normal(size=(2, 3))
    scan = Scan(np.zeros((3, 4, 5, 3)), Geometry(p, j, k, *offsets, (3, 4, 5), (4, 5)), MOMENT)
    scan.write(tmp_path / "scan.h5")
    assert Scan.read(tmp_path / "scan.h5").geometry == scan.geometry


def test_torch_scans_are_written_as_numbers(tmp_path):
    data = torch.ones(4, 6, 5, 3, requires_grad=True)
    some_scan(data=data, weights=torch.ones(4)).write(tmp_path / "scan.h5")
    assert Scan.read(tmp_path / "scan.h5").data.sum() == 360


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    path = tmp_path / "scan.h5"
    some_scan(title="first").write(path)
    mixed = some_scan()
    flipped = Geometry(-mixed.geometry.p, mixed.geometry.j, mixed.geometry.k, 0, 0, (6, 7, 5), (6, 5))
    both = Scan.concatenate([mixed, some_scan(geometry=flipped)])
    with pytest.raises(ValueError, match="one handedness"):
        both.write(path)

    def disk_full(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.Group, "create_group", disk_full)
    with pytest.raises(OSError, match="disk full"):
        some_scan(title="second").write(path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]
    assert Scan.read(path).title == "first"


def test_responses_of_others_cannot_be_stored(tmp_path):
    class Mine:
        channels = 3

        def matrix(self, geometry, ell_max):
            raise NotImplementedError

    with pytest.raises(TypeError, match="package's own responses"):
        some_scan(response=Mine()).write(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "SaxsResponse(open('x'))",
        "Scan()",
        "SaxsResponse(",
        "3",
        "SaxsResponse([1, 1])",
        "SecondMomentResponse(1)",
        "SaxsResponse(**{})",
    ],
)
def test_only_plain_responses_are_evaluated(text):
    with pytest.raises(FileFormatError, match="response: expected"):
        response_from_repr(text)


def test_temporary_names_vanish(tmp_path):
    def fail():
        with replaced_when_complete(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


# -- MUMOTT's layout, written by hand ---------------------------------------------------------------------------------


def write_layout(path, views=3, shape=(4, 5, 6), root=None, **entries):
    """A minimal file: data only, and whatever is asked for; callables get the index of the projection."""
    with h5py.File(path, "w") as file:
        for name, value in ({"detector_angles": np.arange(shape[-1]) * np.pi / shape[-1]} | (root or {})).items():
            if value is not None:
                file[name] = value
        for view in range(views):
            group = file.create_group(f"projections/{view}")
            for name, value in ({"data": np.full(shape, view + 1.0)} | entries).items():
                found = value(view) if callable(value) else value
                if found is not None:
                    group[name] = found
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mumott.h5"


def test_data_alone_are_enough(path):
    with pytest.warns(UserWarning, match="3 of 3 projections have neither rotation_matrix nor angles"):
        scan = Scan.read(write_layout(path))
    assert scan.geometry.volume_shape == (4, 4, 5)
    assert scan.weights is None
    assert scan.diode is None
    assert scan.response == SaxsResponse(np.arange(6) * np.pi / 6)
    assert scan.provenance == {"source": str(path)}
    assert scan.geometry == Geometry.from_angles(np.zeros(3), 0, (4, 4, 5), (4, 5))
    assert scan.data[2, 0, 0, 0] == 3


def test_present_and_deprecated_names(path):
    rotation = Rotation.random(3, random_state=0).as_matrix()
    new = {"inner_angle": lambda v: 0.1 * v, "outer_angle": [0.2], "j_offset": lambda v: [[v]], "k_offset": 0.5}
    old = {"rotations": lambda v: 0.1 * v, "tilts": [0.2], "offset_j": lambda v: [[v]], "offset_k": 0.5}
    expected = Geometry.from_angles([0, 0.1, 0.2], 0.2, (4, 4, 5), (4, 5), j_offset=[0, 1, 2], k_offset=0.5)
    for entries in (new, old):
        found = Scan.read(write_layout(path, **entries)).geometry
        np.testing.assert_allclose(found.p, expected.p, atol=1e-14)
        assert found.j_offset.tolist() == [0, 1, 2]
        assert found.k_offset.tolist() == [0.5] * 3
    for name in ("rotation_matrix", "rot_mat"):
        found = Scan.read(write_layout(path, **new, **{name: lambda v: rotation[v]})).geometry
        np.testing.assert_allclose(found.p, rotation[:, 1], atol=1e-14)


def test_one_angle_alone_means_that_the_other_is_zero(path):
    inner = Scan.read(write_layout(path, inner_angle=0.3)).geometry
    outer = Scan.read(write_layout(path, tilts=0.3)).geometry
    np.testing.assert_allclose(inner.p, Geometry.from_angles([0.3] * 3, 0, (4, 4, 5), (4, 5)).p, atol=1e-14)
    np.testing.assert_allclose(outer.p, Geometry.from_angles([0] * 3, 0.3, (4, 4, 5), (4, 5)).p, atol=1e-14)


def test_axes_of_the_file_of_a_projection_and_of_the_first_one(path):
    angles = {"inner_angle": 0.3, "outer_angle": 0.2}
    x, y, z = np.eye(3)

    def expected(axes):
        return [Geometry.from_angles(0.3, 0.2, (4, 4, 5), (4, 5), inner_axis=axis).p[0] for axis in axes]

    of_file = Scan.read(write_layout(path, root={"inner_axis": y}, **angles))
    np.testing.assert_allclose(of_file.geometry.p, expected([y, y, y]), atol=1e-14)
    mixed = Scan.read(write_layout(path, root={"inner_axis": y}, inner_axis=lambda v: z if v == 1 else None, **angles))
    np.testing.assert_allclose(mixed.geometry.p, expected([y, z, y]), atol=1e-14)
    of_first = Scan.read(write_layout(path, inner_axis=lambda v: [x, y, None][v], **angles))
    np.testing.assert_allclose(of_first.geometry.p, expected([x, y, x]), atol=1e-14)
    with pytest.warns(UserWarning, match="inner_axis of length 2 was normalised; MUMOTT 2.3 would multiply"):
        long = Scan.read(write_layout(path, root={"inner_axis": 2 * y}, **angles))
    np.testing.assert_allclose(long.geometry.p, expected([y, y, y]), atol=1e-14)


@pytest.mark.parametrize("keyword", ["auto", "degrees"])
def test_degrees(path, keyword):
    root = {"detector_angles": np.arange(6) * 30.0, "two_theta": 3.0}
    write_layout(path, inner_angle=lambda v: 60.0 * v, outer_angle=5.0, root=root)
    if keyword == "auto":
        with pytest.warns(UserWarning, match="were taken for degrees") as caught:
            scan = Scan.read(path)
        texts = "\n".join(str(entry.message) for entry in caught)
        assert "inner_angle, outer_angle: angles up to 120 were taken for degrees" in texts
        assert "detector_angles, two_theta: angles up to 150 were taken for degrees" in texts
    else:
        scan = Scan.read(path, angles="degrees")
    expected = Geometry.from_angles(np.radians([0, 60, 120]), np.radians(5), (4, 4, 5), (4, 5))
    np.testing.assert_allclose(scan.geometry.p, expected.p, atol=1e-14)
    np.testing.assert_allclose(scan.response.detector_angles_rad, np.arange(6) * np.pi / 6)
    np.testing.assert_allclose(scan.response.two_theta_rad, [np.radians(3)])


def test_radians_can_be_insisted_on(path):
    write_layout(path, inner_angle=100.0)
    found = Scan.read(path, angles="radians").geometry
    np.testing.assert_allclose(found.p, Geometry.from_angles([100.0] * 3, 0, (4, 4, 5), (4, 5)).p, atol=1e-12)
    with pytest.raises(ValueError, match="angles: expected one of"):
        Scan.read(path, angles="gon")


def test_other_set_ups_and_detector_directions(path):
    root = {
        "p_direction_0": [0, 0, 1.0],
        "j_direction_0": [0, 1.0, 0],
        "k_direction_0": [1.0, 0, 0],
        "detector_direction_origin": [1.0, 0, 0],
        "detector_direction_positive_90": [0, -1.0, 0],
        "volume_shape": [7.0, 8.0, 9.0],
    }
    scan = Scan.read(write_layout(path, root=root, inner_angle=0.0))
    assert scan.geometry.volume_shape == (7, 8, 9)
    assert scan.geometry.p.tolist() == [[0, 0, 1]] * 3
    # the origin is k, that is 90°; from there MUMOTT's angles run towards -j, that is on towards 180°
    np.testing.assert_allclose(scan.response.detector_angles_rad, np.pi / 2 + np.arange(6) * np.pi / 6)
    root["detector_direction_positive_90"] = [0, 1.0, 0]
    mirrored = Scan.read(write_layout(path, root=root, inner_angle=0.0))
    np.testing.assert_allclose(mirrored.response.detector_angles_rad, np.pi / 2 - np.arange(6) * np.pi / 6)


def test_weights_of_every_shape_and_diodes(path):
    weights = np.random.default_rng(0).uniform(size=(4, 5, 6))
    for value in (weights, weights[..., :1], weights[..., 0]):
        scan = Scan.read(write_layout(path, inner_angle=0.0, weights=value, diode=np.full((4, 5), 0.5)))
        expected = value if value.ndim == 3 else value[..., None]
        np.testing.assert_array_equal(scan.full_weights()[1], np.broadcast_to(expected, (4, 5, 6)))
        assert scan.diode.shape == (3, 4, 5)
    some = Scan.read(write_layout(path, inner_angle=0.0, weights=lambda v: weights if v == 1 else None))
    assert (some.weights[[0, 2]] == 1).all()
    with pytest.warns(UserWarning, match="only 1 of 3 projections have a diode"):
        one = Scan.read(write_layout(path, inner_angle=0.0, diode=lambda v: np.ones((4, 5)) if v == 1 else None))
    assert one.diode is None


def test_projections_of_different_shapes_keep_their_place(path):
    """Padding at the far end must leave every measured pixel where it was."""
    shapes = [(4, 5, 6), (7, 3, 6), (5, 8, 6)]
    write_layout(path, data=lambda v: np.full(shapes[v], v + 1.0), inner_angle=0.1, j_offset=0.25)
    with pytest.warns(UserWarning, match=r"corrected by \+padding/2; MUMOTT 2.3"):
        scan = Scan.read(path)
    assert scan.data.shape == (3, 7, 8, 6)
    for view, (rows, columns, _) in enumerate(shapes):
        alone = Geometry.from_angles(0.1, 0, (4, 4, 4), (rows, columns), j_offset=0.25)
        found = scan.geometry.pixel_centres()[view, :rows, :columns]
        np.testing.assert_allclose(found, alone.pixel_centres()[0], atol=1e-12)
        assert (scan.data[view] != 0).sum() == rows * columns * 6
        assert (scan.weights[view] != 0).sum() == rows * columns * 6


def test_values_that_are_not_finite(path):
    data = np.ones((4, 5, 6))
    data[1, 2, 3] = np.nan
    diode, weights = np.ones((4, 5)), np.ones((4, 5))
    diode[0, 0], weights[0, 1] = np.inf, np.nan
    write_layout(path, data=data, diode=diode, weights=weights, inner_angle=0.0)
    with pytest.raises(FileFormatError, match=r"mumott.h5: weights: expected finite"):
        Scan.read(path)
    scan = Scan.read(path, nonfinite="mask")
    assert (scan.weights[0] == 0).sum() == 1 + 6 + 6
    assert np.isfinite(scan.data).all()
    assert np.isfinite(scan.diode).all()
    masked = Scan.read(write_layout(path, data=data, inner_angle=0.0), nonfinite="mask")
    assert (masked.weights == 0).sum() == 3
    write_layout(path, data=data, weights=(np.isfinite(data)).astype(float), inner_angle=0.0)
    assert Scan.read(path).data[0, 1, 2, 3] == 0
    assert Scan.read(write_layout(path, inner_angle=0.0), nonfinite="mask").weights is None
    with pytest.raises(ValueError, match="nonfinite: expected one of"):
        Scan.read(path, nonfinite="zero")


def test_masks_apply_to_our_own_files_too(tmp_path):
    scan = some_scan()
    scan.write(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5", "a") as file:
        file["projections/0/data"][0, 0, 0] = np.nan
    assert (Scan.read(tmp_path / "scan.h5", nonfinite="mask").weights == 0).sum() == 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"root": {"detector_angles": None}}, "detector_angles: expected a dataset, got nothing of that name"),
        ({"root": {"detector_angles": np.arange(5.0)}}, "data: expected shape"),
        ({"root": {"detector_angles": np.array([b"a"])}}, "detector_angles: expected a dataset of real numbers"),
        ({"data": None}, "projections/0/data: expected a dataset"),
        ({"data": np.dtype("f8")}, "projections/0/data: expected a dataset of real numbers"),
        ({"data": h5py.Empty("f8")}, "projections/0/data: expected a dataset of real numbers"),
        ({"data": np.ones((4, 5))}, "projections/0/data: expected 3 axes"),
        ({"data": lambda v: np.ones((4, 5, 6 + v))}, "data: expected as many segments"),
        ({"data": np.ones((0, 5, 6))}, "data: expected as many segments"),
        ({"weights": np.ones((4, 4))}, "weights: expected shape"),
        ({"weights": np.zeros((4, 5))}, "weights: expected at least one weight above zero"),
        ({"diode": np.ones((5, 4))}, "projections/0/diode: expected shape"),
        ({"rotation_matrix": np.eye(2)}, "projections/0/rotation_matrix: expected shape"),
        ({"rotation_matrix": 2 * np.eye(3)}, "expected orthonormal"),
        ({"inner_angle": []}, "projections/0/inner_angle: expected a finite number"),
        ({"j_offset": np.nan}, "projections/0/j_offset: expected a finite number"),
        ({"inner_axis": [0.0, 0.0]}, "inner_axis: expected directions of three components"),
        ({"inner_axis": [0.0, 0.0, 0.0]}, "inner_axis: expected directions"),
        ({"inner_axis": [1e300, 1e300, 0.0]}, "inner_axis: expected directions"),
        ({"rotation_matrix": np.full((3, 3), 1e300)}, "expected"),
        ({"root": {"p_direction_0": [0, 1.0, 0]}}, "j_direction_0: expected a dataset"),
        ({"root": {"detector_direction_origin": [0, 0, 1.0], "detector_direction_positive_90": [0, 1.0, 0]}}, "plane"),
        ({"root": {"volume_shape": [1, 2]}}, "volume_shape: expected 3 positive"),
        ({"root": {"projections/07/data": np.ones((4, 5, 6))}}, "projections/3: expected a group"),
        ({"views": 0}, "projections: expected a group"),
    ],
)
def test_what_is_missing_or_wrong_is_named(path, entries, words):
    with pytest.raises(FileFormatError, match=words) as caught:
        Scan.read(write_layout(path, **({"inner_angle": 0.0} | entries)))
    assert str(path) in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected an existing file"):
        Scan.read(tmp_path / "nothing.h5")
    text = tmp_path / "text.h5"
    text.write_text("not a file of this kind")
    with pytest.raises(FileFormatError, match="complete HDF5 file in MUMOTT's layout"):
        Scan.read(text)
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_group("projections")
    with pytest.raises(FileFormatError, match="at least one projection"):
        Scan.read(tmp_path / "empty.h5")


def test_truncated_files_are_refused(tmp_path):
    some_scan().write(tmp_path / "scan.h5")
    whole = (tmp_path / "scan.h5").read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / "cut.h5").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FileFormatError, match=r"cut.h5"):
            Scan.read(tmp_path / "cut.h5")


@given(st.integers(0, 2**32), st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_never_crash(tmp_path, place, value):
    """Whatever byte is damaged: the scan is read, or the error is one of ours."""
    if not (tmp_path / "scan.h5").exists():
        some_scan(views=1).write(tmp_path / "scan.h5")
    damaged = bytearray((tmp_path / "scan.h5").read_bytes())
    damaged[place % len(damaged)] = value
    (tmp_path / "damaged.h5").write_bytes(damaged)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            scan = Scan.read(tmp_path / "damaged.h5")
    except FileFormatError:
        return
    assert np.isfinite(scan.data).all()


@pytest.mark.parametrize(
    "extras",
    [
        {"response": "os.remove('x')"},
        {"response": 3},
        {"provenance": "{"},
        {"provenance": [1]},
        {"voxel_size_m": 5.0},
        [1],
        b"{",
        b"\xff",
        3.0,
    ],
    ids=repr,
)
def test_damaged_extras_are_named(tmp_path, extras):
    some_scan().write(tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5", "a") as file:
        del file["ddf_tomo"]
        plain = isinstance(extras, (bytes, float))
        file["ddf_tomo"] = np.asarray(extras) if plain else np.bytes_(json.dumps(extras).encode())
    with pytest.raises(FileFormatError, match=r"scan.h5"):
        Scan.read(tmp_path / "scan.h5")


# -- maps of a retrieval ----------------------------------------------------------------------------------------------


def some_maps(shape=(4, 6, 5), library=np.asarray, seed=0, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "transmission": generator.uniform(0.5, 1, shape),
        "displacement": np.zeros((*shape, 2)),
        "covariance": generator.normal(size=(*shape, 3)),
        "background": np.zeros(shape),
        "transmission_error": np.ones(shape),
        "displacement_error": np.ones((*shape, 2)),
        "covariance_error": generator.uniform(0.1, 1, (*shape, 3)),
        "background_error": np.ones(shape),
        "residual": np.zeros(shape),
        "valid": np.ones(shape, bool),
    }
    lengths = {"pixel_size_m": 1e-5, "distance_m": 2.0}
    arrays = {name: library(array) for name, array in (values | changes).items() if name not in lengths}
    return Maps(**arrays, **{name: changes.get(name, length) for name, length in lengths.items()})


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_maps_become_second_moments_in_square_microradians(library):
    valid = np.ones((4, 6, 5), bool)
    valid[1, 2, 3] = False
    maps = some_maps(library=library, valid=valid)
    scan = Scan.from_maps(maps, some_geometry(), title="rods", provenance={"source": "here"})
    unit = (1e-5 / 2.0) ** 2 / 1e-12  # square pixels in µrad²
    np.testing.assert_allclose(scan.data, np.asarray(maps.covariance) * unit, rtol=1e-12)
    expected = 1 / (np.asarray(maps.covariance_error) * unit) ** 2
    expected[1, 2, 3] = 0
    np.testing.assert_allclose(scan.weights, expected, rtol=1e-12)
    np.testing.assert_array_equal(scan.diode, maps.transmission)
    assert scan.response == SecondMomentResponse()
    assert scan.voxel_size_m == 1e-5
    assert scan.provenance == {"data_unit": "1e-12 rad^2", "source": "here"}
    assert scan.title == "rods"
    assert isinstance(scan.data, type(maps.covariance))
    plain = Scan.from_maps(maps, some_geometry(), weighted=False, unit_rad2=1.0, voxel_size_m=2e-6)
    np.testing.assert_allclose(plain.data, np.asarray(maps.covariance) * 25e-12, rtol=1e-12)
    np.testing.assert_array_equal(plain.full_weights()[..., 0], valid)
    assert plain.voxel_size_m == 2e-6


def test_maps_view_by_view_or_in_batches():
    parts = [some_maps((6, 5), seed=1), some_maps((2, 6, 5), seed=2), some_maps((6, 5), seed=3)]
    scan = Scan.from_maps(parts, some_geometry())
    assert_same(scan[1:3], Scan.from_maps(parts[1], some_geometry()[1:3]))
    np.testing.assert_array_equal(scan[3].diode[0], parts[2].transmission)


def test_errors_of_infinity_have_no_weight_and_hide_anything():
    errors, covariance = np.ones((4, 6, 5, 3)), np.ones((4, 6, 5, 3))
    errors[0, 0, 0], covariance[0, 0, 0] = np.inf, np.nan
    scan = Scan.from_maps(some_maps(covariance_error=errors, covariance=covariance), some_geometry())
    assert scan.weights[0, 0, 0].tolist() == [0, 0, 0]
    assert scan.data[0, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ([], ValueError, "maps: expected at least one Maps"),
        ([3], TypeError, "maps: expected at least one Maps"),
        (some_maps(pixel_size_m=None), ValueError, "pixel_size_m: expected a length in metres"),
        ([some_maps((2, 6, 5)), some_maps((2, 6, 5), pixel_size_m=2e-5)], ValueError, "one pixel size in all maps"),
        (some_maps((3, 6, 5)), ValueError, "data: expected shape"),
        (some_maps(covariance_error=np.zeros((4, 6, 5, 3))), ValueError, "covariance_error: expected positive"),
        (some_maps(covariance_error=np.full((4, 6, 5, 3), np.nan)), ValueError, "covariance_error: expected positive"),
        (some_maps(valid=np.zeros((4, 6, 5), bool)), ValueError, "at least one weight above zero"),
    ],
)
def test_maps_that_make_no_scan(maps, error, words):
    with pytest.raises(error, match=words):
        Scan.from_maps(maps, some_geometry())
    with pytest.raises(ValueError, match="unit_rad2"):
        Scan.from_maps(maps, some_geometry(), unit_rad2=0)
