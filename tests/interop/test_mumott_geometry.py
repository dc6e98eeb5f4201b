"""MUMOTT's geometry, both ways: frames and offsets against MUMOTT's own projector, its faults reported."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo._mumott_frames import angles_from_j_to_k, frames_from_geometry, stage_angles
from ddf_tomo.geometry import Geometry

mumott = pytest.importorskip("mumott")

from mumott.core.geometry import GeometryTuple  # noqa: E402
from mumott.methods.projectors import SAXSProjector  # noqa: E402

from ddf_tomo.interop.mumott import MumottFaultWarning, geometry_from, to_geometry  # noqa: E402


def random_mumott_geometry(seed: int, views: int = 3, *, default_axes: bool = False, system: int = 0, turned: int = 0):
    """Any default axes of either hand, rotations, offsets; ``system`` and ``turned`` count the extra rotations."""
    generator = np.random.default_rng(seed)
    theirs = mumott.Geometry()
    for rotation in Rotation.random(views, random_state=seed).as_matrix():
        theirs.append(GeometryTuple(rotation, *generator.normal(0, 2, 2)))
    if not default_axes:
        axes = Rotation.random(random_state=seed + 1).as_matrix() * generator.choice([-1, 1], (3, 1))
        theirs.p_direction_0, theirs.j_direction_0, theirs.k_direction_0 = axes
    theirs.volume_shape, theirs.projection_shape = (9, 8, 7), (8, 10)
    for rotation in Rotation.random(system, random_state=seed + 2).as_matrix() if system else ():
        theirs.rotate_system_vectors(rotation)
    for rotation in Rotation.random(turned, random_state=seed + 3).as_matrix() if turned else ():
        theirs.rotate_reconstruction(rotation)
    return theirs


def assert_close(found: Geometry, expected: Geometry) -> None:
    for name in ("p", "j", "k", "j_offset", "k_offset"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12)
    assert (found.volume_shape, found.detector_shape) == (expected.volume_shape, expected.detector_shape)


@given(st.integers(0, 10_000), st.integers(0, 1), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_frames_are_those_of_mumotts_projector(seed, system, turned):
    theirs = random_mumott_geometry(seed, system=system, turned=turned)
    projector = SAXSProjector(theirs)
    ours = geometry_from(theirs)
    np.testing.assert_allclose(ours.p, projector._basis_vector_projection, atol=1e-12)
    np.testing.assert_allclose(ours.j, projector._basis_vector_j, atol=1e-12)
    np.testing.assert_allclose(ours.k, projector._basis_vector_k, atol=1e-12)
    assert ours.j_offset.tolist() == theirs.j_offsets
    assert ours.k_offset.tolist() == theirs.k_offsets
    assert ours.volume_shape == (9, 8, 7)
    assert ours.detector_shape == (8, 10)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_round_trips(seed, keep_axes):
    theirs = random_mumott_geometry(seed)
    ours = geometry_from(theirs)
    axes = {"p_0": theirs.p_direction_0, "j_0": theirs.j_direction_0, "k_0": theirs.k_direction_0} if keep_axes else {}
    again = to_geometry(ours, **axes)
    assert_close(geometry_from(again), ours)
    if keep_axes:
        np.testing.assert_allclose(again.rotations_as_array, theirs.rotations_as_array, atol=1e-12)
    else:
        assert geometry_from(again) == ours  # to the last bit


def test_several_system_rotations_are_applied_in_order_to_all_directions():
    """MUMOTT 2.3 turns j in the reverse order: shown here by MUMOTT's own p and k, of which j is a known product."""
    theirs = random_mumott_geometry(3, default_axes=True, system=2)
    first, second = theirs.system_rotations
    with pytest.warns(MumottFaultWarning, match="reverse order for j_direction_0"):
        ours = geometry_from(theirs)
    expected = np.einsum("vab,a->vb", theirs.rotations_as_array, second @ first @ [1, 0, 0])
    np.testing.assert_allclose(ours.j, expected, atol=1e-12)
    np.testing.assert_allclose(np.cross(ours.k, ours.j), ours.p, atol=1e-12)
    assert abs(theirs.j_direction_0 @ theirs.k_direction_0) > 1e-3  # theirs is not even perpendicular


def test_rotations_that_commute_say_nothing():
    theirs = random_mumott_geometry(3)
    for angle in (0.3, 0.9):
        theirs.rotate_system_vectors(axis=np.array([1.0, 2.0, 3.0]), angle=angle)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geometry_from(theirs)


def test_frames_that_are_not_orthonormal_are_refused():
    theirs = random_mumott_geometry(1)
    theirs.k_direction_0 = theirs.k_direction_0 + 0.1 * theirs.j_direction_0
    with pytest.raises(ValueError, match="p, j, k: expected orthonormal"):
        geometry_from(theirs)


def test_reflections_of_the_sample_pass():
    theirs = mumott.Geometry()
    theirs.append(GeometryTuple(np.diag([1.0, 1.0, -1.0])))
    ours = geometry_from(theirs, volume_shape=(4, 4, 4), detector_shape=(4, 4))
    assert not ours.is_left_handed.any()
    assert geometry_from(to_geometry(ours)) == ours


def test_shapes_that_are_not_set_are_named_and_can_be_given():
    theirs = mumott.Geometry()
    with pytest.raises(ValueError, match="volume_shape: expected 3 positive integers"):
        geometry_from(theirs)
    assert len(geometry_from(theirs, volume_shape=(2, 2, 2), detector_shape=(2, 2))) == 0
    assert len(to_geometry(geometry_from(theirs, volume_shape=(2, 2, 2), detector_shape=(2, 2)))) == 0


def test_offsets_as_mumotts_files_leave_them():
    theirs = mumott.Geometry()
    theirs.append(GeometryTuple(j_offset=np.array([1.5]), k_offset=np.array(2)))
    ours = geometry_from(theirs, volume_shape=(2, 2, 2), detector_shape=(2, 2))
    assert (ours.j_offset.tolist(), ours.k_offset.tolist()) == ([1.5], [2.0])


def test_frames_of_both_hands_have_no_rotation():
    one = geometry_from(random_mumott_geometry(0, default_axes=True))
    other = Geometry(-one.p, one.j, one.k, one.j_offset, one.k_offset, one.volume_shape, one.detector_shape)
    with pytest.raises(ValueError, match="3 left-handed of 6"):
        to_geometry(Geometry.concatenate([one, other]))
    with pytest.raises(ValueError, match="a right-handed frame"):
        to_geometry(other, p_0=(0, 1, 0))
    with pytest.raises(ValueError, match="orthonormal directions"):
        to_geometry(one, p_0=(0, 2, 0))
    rotations, start = frames_from_geometry(other)
    assert start[0].tolist() == [0, -1, 0]
    assert np.linalg.det(rotations).min() > 0.99


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_stage_angles_are_found_again(seed):
    inner, outer = np.random.default_rng(seed).uniform(-np.pi, np.pi, (2, 4))
    theirs = to_geometry(Geometry.from_angles(inner, outer, (4, 4, 4), (4, 4)))
    rotations = theirs.rotations_as_array
    theirs.inner_angles = theirs.inner_angles  # MUMOTT recomputes its rotations from angles and axes
    np.testing.assert_allclose(theirs.rotations_as_array, rotations, atol=1e-12)
    np.testing.assert_allclose(theirs.inner_angles, inner, atol=1e-9)
    np.testing.assert_allclose(theirs.outer_angles, outer, atol=1e-9)


def test_rotations_beyond_the_stage_have_no_angles():
    theirs = to_geometry(geometry_from(random_mumott_geometry(5)))
    assert theirs.inner_angles == [None] * 3
    assert stage_angles(np.zeros((0, 3, 3))) is not None
    assert isinstance(hash(theirs), int)
    assert "Geometry" in str(theirs)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_detector_angles_point_where_mumotts_do(seed):
    generator = np.random.default_rng(seed)
    j_0, k_0, _ = Rotation.random(random_state=seed).as_matrix()
    start, sense = generator.uniform(-np.pi, np.pi), generator.choice([-1, 1])
    origin = np.cos(start) * j_0 + np.sin(start) * k_0
    positive_90 = sense * (np.cos(start) * k_0 - np.sin(start) * j_0)
    angles = generator.uniform(-7, 7, 5)
    phi = angles_from_j_to_k(angles, origin, positive_90, j_0, k_0)[:, None]
    theirs = np.cos(angles)[:, None] * origin + np.sin(angles)[:, None] * positive_90
    np.testing.assert_allclose(np.cos(phi) * j_0 + np.sin(phi) * k_0, theirs, atol=1e-12)


def test_detector_directions_off_the_detector_are_refused():
    with pytest.raises(ValueError, match="detector_direction_origin and detector_direction_positive_90: expected perp"):
        angles_from_j_to_k([0.0], (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 0, 1))


@pytest.mark.parametrize("seed", [0, 1])
def test_signs_of_frames_and_offsets_against_mumotts_projector(seed):
    """A Gaussian blob, projected by MUMOTT, must have its centroid where our pixel formula puts the blob's centre.

    Every slip shows: a flipped axis, a rotation the other way, an offset of the other sign, half a pixel.
    """
    theirs = random_mumott_geometry(seed, views=4)
    theirs.volume_shape, theirs.projection_shape = (21, 22, 20), (32, 35)
    ours = geometry_from(theirs)
    centre = np.array([1.7, -2.2, 0.9])
    axes = np.meshgrid(*(np.arange(n) + 0.5 - n / 2 for n in ours.volume_shape), indexing="ij")
    field = np.exp(-sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) / (2 * 1.2**2))[..., None]
    image = SAXSProjector(theirs).forward(field)[..., 0]
    rows, columns = np.arange(32)[:, None], np.arange(35)
    found = np.stack([(image * grid).sum((1, 2)) / image.sum((1, 2)) for grid in (rows, columns)], axis=1)
    expected = np.stack(
        [
            ours.j @ centre - ours.j_offset + 32 / 2 - 0.5,
            ours.k @ centre - ours.k_offset + 35 / 2 - 0.5,
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, atol=5e-3)  # interpolation moves it by 2.5e-3
    assert np.abs(ours.j_offset).min() > 0.05  # the offsets of these seeds do matter
