"""The geometry value: what it accepts, what it says, and that every constructor means the same frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo.geometry import Geometry, rotation_about, view_indices

SHAPES = ((7, 6, 5), (8, 9))


def random_geometry(seed: int, views: int = 5, *, left_handed: bool = False, volume=(7, 6, 5), detector=(8, 9)):
    generator = np.random.default_rng(seed)
    frames = Rotation.random(views, random_state=seed).as_matrix()
    j, k, p = frames[:, 0], frames[:, 1], frames[:, 2] * (-1 if left_handed else 1)
    return Geometry(p, j, k, *generator.normal(0, 2, (2, views)), volume, detector)


# -- validation -------------------------------------------------------------------------------------------------------


def arguments(**changes):
    values = {
        "p": [[0, 1, 0]],
        "j": [[1, 0, 0]],
        "k": [[0, 0, 1]],
        "j_offset": 0.0,
        "k_offset": [1.5],
        "volume_shape": (4, 5, 6),
        "detector_shape": (7, 8),
    }
    return values | changes


def test_lists_numbers_and_integral_floats_are_accepted():
    geometry = Geometry(**arguments(volume_shape=np.array([4.0, 5.0, 6.0])))
    assert geometry.p.dtype == np.float64
    assert geometry.j_offset.tolist() == [0.0]
    assert geometry.volume_shape == (4, 5, 6)
    assert all(type(n) is int for n in geometry.volume_shape)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"p": [[0, 2, 0]]}, ValueError, "p, j, k: expected orthonormal"),
        ({"j": [[0, 1, 0]]}, ValueError, "orthonormal"),
        ({"k": [[0, 1e-5, 1]]}, ValueError, "orthonormal"),
        ({"p": [[1e200, -1e200, 1e200]], "j": [[1e200, 1e200, 1e200]]}, ValueError, "orthonormal"),
        ({"p": [[0, np.nan, 0]]}, ValueError, "p: expected finite"),
        ({"k_offset": [np.inf]}, ValueError, "k_offset: expected finite"),
        ({"p": [[0, 1]]}, ValueError, "p: expected shape"),
        ({"p": 3.0}, ValueError, "p: expected shape"),
        ({"p": [[0, 1, 0], [0, 1]]}, TypeError, "p: expected real numbers"),
        ({"p": [["a", "b", "c"]]}, TypeError, "p: expected real numbers"),
        ({"p": np.array([[0, 1j, 0]])}, TypeError, "p: expected real numbers, got complex"),
        ({"p": torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)}, TypeError, "p: expected real numbers"),
        ({"j": [[1, 0, 0], [1, 0, 0]]}, ValueError, r"j: expected shape \(1, 3\)"),
        ({"j_offset": [0, 0]}, ValueError, "j_offset: expected shape"),
        ({"volume_shape": (4, 5)}, ValueError, "volume_shape: expected 3 positive"),
        ({"volume_shape": (4, 5, 0)}, ValueError, "volume_shape"),
        ({"detector_shape": (4.5, 5)}, ValueError, "detector_shape"),
        ({"detector_shape": "ab"}, TypeError, "detector_shape"),
    ],
)
def test_bad_arguments_are_named(changes, error, words):
    with pytest.raises(error, match=words):
        Geometry(**arguments(**changes))


def test_frames_within_the_tolerance_are_kept_as_they_are():
    geometry = Geometry(**arguments(k=[[0, 1e-7, 1]]))
    assert geometry.k.tolist() == [[0, 1e-7, 1]]


def test_values_are_copied_and_cannot_be_changed():
    p = np.array([[0.0, 1.0, 0.0]])
    geometry = Geometry(**arguments(p=p))
    p[0, 0] = 9
    assert geometry.p.tolist() == [[0, 1, 0]]
    with pytest.raises(ValueError, match="read-only"):
        geometry.p[0, 0] = 1
    with pytest.raises(AttributeError):
        geometry.volume_shape = (1, 1, 1)


# -- value semantics --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(0, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_repr_evaluates_back_and_equal_values_hash_equal(seed, views, left_handed):
    geometry = random_geometry(seed, max(views, 1), left_handed=left_handed)[:views]
    again = eval(repr(geometry))
    assert again == geometry
    assert hash(again) == hash(geometry)


def test_equality_sees_every_field():
    geometry = random_geometry(1)
    fields = {field.name: getattr(geometry, field.name) for field in dataclasses.fields(geometry)}
    for name in ("j_offset", "k_offset", "volume_shape", "detector_shape"):
        assert Geometry(**(fields | {name: np.asarray(fields[name]) + 1})) != geometry, name
    assert Geometry(**(fields | {"p": -geometry.p})) != geometry
    assert Geometry(**(fields | {"j": geometry.k, "k": geometry.j})) != geometry
    assert geometry != "geometry"


def shapes(geometry):
    return geometry.volume_shape, geometry.detector_shape


def test_minus_zero_is_zero():
    plus, minus = Geometry(**arguments(j_offset=0.0)), Geometry(**arguments(j_offset=-0.0))
    assert plus == minus
    assert hash(plus) == hash(minus)


# -- subsets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (2, [2]),
        (-1, [4]),
        (slice(None, None, -2), [4, 2, 0]),
        ([3, 0, 3], [3, 0, 3]),
        (np.array([True, False, False, True, False]), [0, 3]),
        (torch.tensor([1, -2]), [1, 3]),
        ([], []),
        (np.zeros(5, bool), []),
        (range(2), [0, 1]),
    ],
)
def test_subsets(views, expected):
    geometry = random_geometry(3)
    subset = geometry[views]
    assert len(subset) == len(expected)
    assert np.array_equal(subset.p, geometry.p[expected])
    assert np.array_equal(subset.k_offset, geometry.k_offset[expected])
    assert shapes(subset) == shapes(geometry)


@pytest.mark.parametrize(
    ("views", "error"),
    [(5, IndexError), ([-6], IndexError), (1.5, TypeError), ("a", TypeError), ([[0]], TypeError), ([True], ValueError)],
)
def test_views_that_do_not_exist(views, error):
    with pytest.raises(error, match="views: expected"):
        random_geometry(3)[views]


def test_a_geometry_can_be_looped_over():
    geometry = random_geometry(4, 3)
    assert Geometry.concatenate(geometry) == geometry


def test_no_views_have_no_index():
    assert view_indices([], 0).tolist() == []
    with pytest.raises(IndexError):
        view_indices(0, 0)


# -- constructors against independent rotations -----------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_from_angles_is_inner_then_outer_rotation(seed):
    generator = np.random.default_rng(seed)
    inner, outer = generator.uniform(-4, 4, (2, 3))
    inner_axis, outer_axis = generator.normal(size=(2, 3))
    geometry = Geometry.from_angles(inner, outer, *SHAPES, inner_axis=inner_axis, outer_axis=outer_axis, j_offset=0.5)
    unit_inner, unit_outer = (axis / np.linalg.norm(axis) for axis in (inner_axis, outer_axis))
    for view in range(3):
        sample = Rotation.from_rotvec(outer[view] * unit_outer) * Rotation.from_rotvec(inner[view] * unit_inner)
        for found, start in ((geometry.p, [0, 1, 0]), (geometry.j, [1, 0, 0]), (geometry.k, [0, 0, 1])):
            np.testing.assert_allclose(found[view], sample.inv().apply(start), atol=1e-12)
    assert geometry.j_offset.tolist() == [0.5] * 3


def test_from_angles_agrees_with_the_worked_example_of_the_default_axes():
    """A quarter turn about -z takes the sample's +x axis to -y: the beam along +y runs along the sample's -x."""
    geometry = Geometry.from_angles(np.pi / 2, 0.0, *SHAPES)
    np.testing.assert_allclose(geometry.p, [[-1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(geometry.j, [[0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(geometry.k, [[0, 0, 1]], atol=1e-12)
    assert geometry.is_left_handed.all()


def test_angles_broadcast():
    assert len(Geometry.from_angles(np.zeros(4), 0.2, *SHAPES)) == 4
    assert len(Geometry.from_angles([], [], *SHAPES)) == 0
    with pytest.raises(ValueError, match="outer_rad: expected the shape of inner_rad"):
        Geometry.from_angles([0, 1], [0, 1, 2], *SHAPES)
    with pytest.raises(ValueError, match="inner_rad"):
        Geometry.from_angles(np.zeros((2, 2)), 0, *SHAPES)
    with pytest.raises(ValueError, match="outer_axis: expected a direction"):
        Geometry.from_angles(0, 0, *SHAPES, outer_axis=(0, 0, 0))


@pytest.mark.parametrize("sequence", ["zxz", "ZXZ", "xyz", "y"])
def test_from_euler_is_scipy(sequence):
    angles = np.random.default_rng(0).uniform(-3, 3, (4, len(sequence)))
    geometry = Geometry.from_euler(sequence, angles, *SHAPES, p_0=(0, 0, 1), j_0=(1, 0, 0), k_0=(0, 1, 0))
    for view, row in enumerate(angles):
        inverse = Rotation.from_euler(sequence, row).inv()
        np.testing.assert_allclose(geometry.p[view], inverse.apply([0, 0, 1]), atol=1e-12)
        np.testing.assert_allclose(geometry.k[view], inverse.apply([0, 1, 0]), atol=1e-12)
    assert not geometry.is_left_handed.any()


def test_from_euler_without_views_or_with_a_bad_sequence():
    assert len(Geometry.from_euler("zxz", np.empty((0, 3)), *SHAPES)) == 0
    with pytest.raises(ValueError, match="sequence: expected axis letters"):
        Geometry.from_euler("zqz", [[0, 0, 0]], *SHAPES)
    with pytest.raises(TypeError, match="sequence"):
        Geometry.from_euler("", [[]], *SHAPES)
    with pytest.raises(ValueError, match="angles_rad: expected shape"):
        Geometry.from_euler("zxz", [[0, 0]], *SHAPES)


def test_only_rotations_are_rotations():
    with pytest.raises(ValueError, match="departs from one by"):
        Geometry.from_rotations([1.01 * np.eye(3)], *SHAPES)
    with pytest.raises(ValueError, match="departs from one by"):
        Geometry.from_rotations([np.full((3, 3), 1e200)], *SHAPES)
    with pytest.raises(ValueError, match="a reflection"):
        Geometry.from_rotations([np.diag([1, 1, -1])], *SHAPES)
    with pytest.raises(ValueError, match="rotations: expected shape"):
        Geometry.from_rotations(np.eye(3), *SHAPES)


def test_axes_beyond_numbers_are_refused():
    with pytest.raises(ValueError, match="axis: expected a direction"):
        rotation_about((1e300, 1e300, 0), np.zeros(1))


def test_rotation_about_is_rodrigues():
    angles = np.linspace(-3, 3, 7)
    axis = np.array([1.0, -2.0, 0.5])
    expected = Rotation.from_rotvec(angles[:, None] * axis / np.linalg.norm(axis)).as_matrix()
    np.testing.assert_allclose(rotation_about(axis, angles), expected, atol=1e-14)


# -- concatenation, binning -------------------------------------------------------------------------------------------


def test_concatenate():
    parts = [random_geometry(seed, 2) for seed in range(3)]
    whole = Geometry.concatenate(iter(parts))
    assert whole[2:4] == parts[1]
    with pytest.raises(ValueError, match="at least one Geometry"):
        Geometry.concatenate([])
    with pytest.raises(TypeError, match="nothing else, got str"):
        Geometry.concatenate(["no"])
    with pytest.raises(ValueError, match="detector_shape"):
        Geometry.concatenate([parts[0], random_geometry(9, detector=(8, 8))])


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(8, 13), st.integers(8, 13))
@settings(max_examples=40, deadline=None)
def test_a_bin_lies_at_the_mean_of_its_pixels(seed, factor, rows, columns):
    geometry = random_geometry(seed, 2, detector=(rows, columns))
    binned = geometry.binned(factor)
    kept = geometry.pixel_centres()[:, : rows // factor * factor, : columns // factor * factor]
    blocks = kept.reshape(2, rows // factor, factor, columns // factor, factor, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(factor * binned.pixel_centres(), blocks, atol=1e-12)
    assert all(n * factor >= full for n, full in zip(binned.volume_shape, geometry.volume_shape, strict=True))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_refined_geometries_bin_back(factor):
    geometry = random_geometry(5)
    fine = geometry.refined(factor)
    np.testing.assert_allclose(fine.binned(factor).pixel_centres(), geometry.pixel_centres(), atol=1e-12)
    assert fine.binned(factor).volume_shape == geometry.volume_shape
    with pytest.raises(ValueError, match="factor"):
        geometry.refined(0)


def test_bins_larger_than_the_detector_are_refused():
    with pytest.raises(ValueError, match="factor: expected an integer in"):
        random_geometry(0).binned(9)
    with pytest.raises(TypeError, match="factor"):
        random_geometry(0).binned(True)


def test_pixel_centres_follow_the_convention_literally():
    geometry = random_geometry(7, 2)
    rows, columns = geometry.detector_shape
    for v, a, b in ((0, 0, 0), (1, 3, 8), (1, 7, 2)):
        along_j = a + 1 / 2 - rows / 2 + geometry.j_offset[v]
        along_k = b + 1 / 2 - columns / 2 + geometry.k_offset[v]
        expected = along_j * geometry.j[v] + along_k * geometry.k[v]
        np.testing.assert_allclose(geometry.pixel_centres()[v, a, b], expected, atol=1e-12)


# -- for people -------------------------------------------------------------------------------------------------------


def test_summary_says_what_a_person_asks():
    geometry = Geometry.from_angles(np.arange(20) * np.pi / 10, np.radians(30), *SHAPES, j_offset=1.25)
    text = geometry.summary()
    assert "20 views of (7, 6, 5) voxels on (8, 9) pixels" in text
    assert "largest tilt towards it 30.0°" in text
    assert "j 1.25 … 1.25" in text
    assert "20 left-handed of 20" in text
    assert geometry[:0].summary() == "0 views of (7, 6, 5) voxels on (8, 9) pixels"


def test_plot_draws_every_beam_and_its_opposite():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    geometry = random_geometry(2, 6)
    axes = geometry.plot()
    drawn = np.stack([np.asarray(axes.collections[-2]._offsets3d[i]) for i in range(3)], axis=1)
    opposite = np.stack([np.asarray(axes.collections[-1]._offsets3d[i]) for i in range(3)], axis=1)
    np.testing.assert_allclose(drawn, geometry.p)
    np.testing.assert_allclose(opposite, -geometry.p)
    assert geometry.plot(axes) is axes
    matplotlib.pyplot.close(axes.figure)
