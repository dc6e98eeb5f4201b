"""MUMOTT's layout of a scan, written by hand: present and older names, units, damaged files."""

from __future__ import annotations

import json
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo._checks import FileFormatError
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import (
    SaxsResponse,
)
from ddf_tomo.scan import Scan
from tests.scans import some_scan


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
