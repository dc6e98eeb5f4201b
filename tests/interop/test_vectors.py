"""ASTRA's and tomosipo's vector geometries: signs proved by ASTRA itself, round trips, refusals."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo.geometry import Geometry
from ddf_tomo.interop import astra as ours
from ddf_tomo.interop import tomosipo


def random_geometry(seed: int, views: int = 3) -> Geometry:
    generator = np.random.default_rng(seed)
    j, k, p = Rotation.random(views, random_state=seed).as_matrix().swapaxes(0, 1)
    p = p * generator.choice([-1, 1], (views, 1))
    shapes = generator.integers(1, 12, 5)
    return Geometry(p, j, k, *generator.normal(0, 3, (2, views)), tuple(shapes[:3]), tuple(shapes[3:]))


def assert_close(found: Geometry, expected: Geometry) -> None:
    for name in ("p", "j", "k", "j_offset", "k_offset"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-12)
    assert (found.volume_shape, found.detector_shape) == (expected.volume_shape, expected.detector_shape)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_round_trips(seed):
    geometry = random_geometry(seed)
    shapes = geometry.volume_shape, geometry.detector_shape
    assert_close(ours.from_vectors(ours.to_vectors(geometry), *shapes), geometry)
    assert_close(ours.geometry_from(ours.to_projection_geometry(geometry), ours.to_volume_geometry(geometry)), geometry)
    arguments = tomosipo.to_parallel_vec(geometry, build=False)
    assert_close(tomosipo.from_parallel_vec(arguments, geometry.volume_shape), geometry)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_astra_projects_points_onto_our_pixels(seed):
    """Any point on the line through a pixel's centre must fall on that pixel, at integers (column, row) for ASTRA."""
    experimental = pytest.importorskip("astra.experimental")
    geometry = random_geometry(seed)
    astra_geometry = ours.to_projection_geometry(geometry)
    generator = np.random.default_rng(seed)
    for view in range(len(geometry)):
        a, b = (int(generator.integers(0, n)) for n in geometry.detector_shape)
        point = geometry.pixel_centres()[view, a, b] + generator.normal(0, 5) * geometry.p[view]
        column, row = experimental.projectPoint(astra_geometry, *point[::-1], view)
        np.testing.assert_allclose((row, column), (a, b), atol=1e-10)


def test_dictionaries_are_what_astra_makes():
    astra = pytest.importorskip("astra")
    geometry = random_geometry(5)
    x, y, z = geometry.volume_shape
    assert ours.to_volume_geometry(geometry) == astra.create_vol_geom(y, z, x)
    made = astra.create_proj_geom("parallel3d_vec", *geometry.detector_shape, ours.to_vectors(geometry))
    found = ours.to_projection_geometry(geometry)
    np.testing.assert_array_equal(made.pop("Vectors"), found.pop("Vectors"))
    assert made == found
    assert astra.functions.geom_size(ours.to_volume_geometry(geometry)) == geometry.volume_shape


def test_angles_lengths_and_places_of_astra_are_understood():
    """The same set-up, once in millimetres with a shifted volume and rotation angles, once in voxels."""
    astra = pytest.importorskip("astra")
    experimental = pytest.importorskip("astra.experimental")
    angles = np.array([0.0, 0.7, 2.0])
    volume = astra.create_vol_geom(5, 6, 4, 1.0, 2.5, -0.25, 1.0, 0.5, 1.5)  # x from 1, y from -0.25, z from 0.5: 0.25
    detector = astra.create_proj_geom("parallel3d", 0.25, 0.25, 3, 8, angles)
    geometry = ours.geometry_from(detector, volume)
    assert geometry.volume_shape == (4, 5, 6)
    assert geometry.detector_shape == (3, 8)
    for view in range(3):
        middle_of_voxel = np.array([1.0 + 0.25 * 4.5, -0.25 + 0.25 * 1.5, 0.5 + 0.25 * 2.5])
        column, row = experimental.projectPoint(detector, *middle_of_voxel, view)
        point = np.array([2, 1, 4]) + 0.5 - np.array([4, 5, 6]) / 2
        found_row = point @ geometry.j[view] - geometry.j_offset[view] + 3 / 2 - 0.5
        found_column = point @ geometry.k[view] - geometry.k_offset[view] + 8 / 2 - 0.5
        np.testing.assert_allclose((found_row, found_column), (row, column), atol=1e-10)


def test_geometries_that_are_not_ours_are_refused():
    geometry = random_geometry(1)
    shapes = geometry.volume_shape, geometry.detector_shape
    vectors = ours.to_vectors(geometry)
    with pytest.raises(ValueError, match="detector pixels of one voxel's edge"):
        ours.from_vectors(2 * vectors, *shapes)
    tilted = vectors.copy()
    tilted[1, :3] += 0.1 * vectors[1, 6:9]
    with pytest.raises(ValueError, match=r"perpendicular to their beams.*view 1"):
        ours.from_vectors(tilted, *shapes)
    vectors[0, :3] = 0
    with pytest.raises(ValueError, match="length zero"):
        ours.from_vectors(vectors, *shapes)
    with pytest.raises(ValueError, match=r"vectors: expected shape \(any, 12\)"):
        ours.from_vectors(np.zeros((3, 11)), *shapes)
    with pytest.raises(ValueError, match="projection_geometry: expected type"):
        ours.geometry_from({"type": "cone"}, ours.to_volume_geometry(geometry))
    volume = ours.to_volume_geometry(geometry)
    volume["option"]["WindowMaxX"] += 1
    with pytest.raises(ValueError, match="voxels that are cubes"):
        ours.geometry_from(ours.to_projection_geometry(geometry), volume)
    with pytest.raises(ValueError, match="3-D volume geometry"):
        ours.geometry_from(ours.to_projection_geometry(geometry), {"GridRowCount": 3})
    with pytest.raises(ValueError, match="volume_shape: expected 3 positive integers"):
        ours.from_vectors(ours.to_vectors(geometry), (3, 4), (5, 6))


def test_rays_may_have_any_length_and_detectors_any_distance():
    geometry = random_geometry(2)
    vectors = ours.to_vectors(geometry)
    vectors[:, 3:6] += 7 * vectors[:, :3]
    vectors[:, :3] *= 3
    assert_close(ours.from_vectors(vectors, geometry.volume_shape, geometry.detector_shape), geometry)


@pytest.mark.parametrize("library", [np, torch])
def test_sinograms_are_views_of_projections(library):
    projections = library.arange(24).reshape(2, 3, 4)
    sinogram = ours.to_sinogram(projections)
    assert sinogram[1, 0, 2] == projections[0, 1, 2]
    assert ours.from_sinogram(sinogram).shape == projections.shape
    sinogram[0, 0, 0] = 99
    assert projections[0, 0, 0] == 99
    with pytest.raises(ValueError, match="sinogram: expected three axes"):
        ours.from_sinogram(projections[0])


# -- tomosipo ---------------------------------------------------------------------------------------------------------


def test_tomosipo_object_is_built_when_it_can_be(monkeypatch):
    stand_in = ModuleType("tomosipo")
    stand_in.__spec__ = SimpleNamespace()
    stand_in.parallel_vec = lambda **arguments: SimpleNamespace(**arguments)
    monkeypatch.setitem(sys.modules, "tomosipo", stand_in)
    geometry = random_geometry(8)
    built = tomosipo.to_parallel_vec(geometry)
    assert_close(tomosipo.from_parallel_vec(built, geometry.volume_shape), geometry)
    built.det_shape, built.shape = built.shape, None
    assert_close(tomosipo.from_parallel_vec(built, geometry.volume_shape), geometry)


def test_missing_tomosipo_and_missing_fields_are_named(monkeypatch):
    geometry = random_geometry(8)
    monkeypatch.setitem(sys.modules, "tomosipo", None)
    with pytest.raises(ImportError, match="pip install git"):
        tomosipo.to_parallel_vec(geometry, build=True)
    with pytest.raises(TypeError, match="with det_pos, got SimpleNamespace"):
        tomosipo.from_parallel_vec(SimpleNamespace(ray_dir=geometry.p), (4, 4, 4))


def test_tomosipo_itself():
    """Where tomosipo is installed, its own conversion to ASTRA must give the same vectors as ours."""
    pytest.importorskip("tomosipo")
    geometry = random_geometry(9)
    built = tomosipo.to_parallel_vec(geometry, build=True)
    np.testing.assert_allclose(built.to_astra()["Vectors"], ours.to_vectors(geometry), atol=1e-12)
