"""Glyphs have the shape of the function, lie in their voxels, and hide what lies behind."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from ddf_tomo import Geometry, RankTwoResponse, Reconstruction
from ddf_tomo.operators.spherical_harmonics import evaluate, from_function
from ddf_tomo.phantoms import helicoidal_fibres, zonal
from ddf_tomo.visualization import axis_colour, show_glyphs
from ddf_tomo.visualization._planes import Plane
from ddf_tomo.visualization._surfaces import AMBIENT, LIGHT, ellipsoids, odf_surfaces, shaded, sphere_mesh

FIBRE = np.array([0.48, 0.6, 0.64])


def across_fibre(q):
    return 0.2 + 15 / 8 * (1 - (q @ FIBRE) ** 2) ** 2


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_mesh_is_a_sphere(level):
    points, faces = sphere_mesh(level)
    assert faces.shape == (20 * 4**level, 3)
    assert len(points) - 3 * len(faces) / 2 + len(faces) == 2  # Euler
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("fi,fi->f", normals, corners.mean(axis=1)) > 0).all()  # outward
    assert len(ConvexHull(points).simplices) == len(faces)
    np.testing.assert_allclose(np.sort(points @ FIBRE), -np.sort(points @ FIBRE)[::-1], atol=1e-12)  # ±q


def test_surfaces_are_the_function():
    mesh, _ = sphere_mesh(2)
    coefficients = zonal(FIBRE[None], [1.2, -10 / 7, 3 / 7])
    surface = odf_surfaces(coefficients, mesh)[0]
    np.testing.assert_allclose(surface, across_fibre(mesh)[:, None] * mesh, atol=1e-12)
    negative = odf_surfaces(np.array([[-1.0]]), mesh)
    assert not negative.any()


def test_ellipsoids_have_their_eigenvalues_as_half_axes():
    mesh, _ = sphere_mesh(2)
    points = ellipsoids(np.array([[3.0, 0, 0, 2.0, 0, 1.0]]), mesh)[0]
    np.testing.assert_allclose(((points / [3, 2, 1]) ** 2).sum(axis=1), 1)
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(3, 3))
    matrix = matrix @ matrix.T
    turned = ellipsoids(matrix[np.triu_indices(3)][None], mesh)[0]
    np.testing.assert_allclose(np.linalg.norm(turned @ np.linalg.inv(matrix), axis=1), 1, rtol=1e-8)
    flat = ellipsoids(np.array([[3.0, 0, 0, 2.0, 0, -1.0]]), mesh)[0]
    assert not flat[:, 2].any()


@pytest.mark.parametrize("fixed", [0, 1, 2])
def test_planes_are_seen_from_where_they_say(fixed):
    right, up, towards = Plane(fixed, 0, (3, 4, 5)).frame
    np.testing.assert_array_equal(np.cross(right, up), towards)
    assert abs(towards[fixed]) == 1
    assert towards[fixed] == (-1 if fixed == 1 else 1)


def test_what_is_drawn_last_is_what_a_ray_meets_first():
    """Against a brute-force ray through every triangle, front and back."""
    mesh, faces = sphere_mesh(2)
    coefficients = from_function(lambda q: 0.1 + (q @ FIBRE) ** 2 + 2 * q[:, 0] ** 2 * q[:, 1] ** 2, 4)
    surfaces = odf_surfaces(coefficients[None], mesh)
    frame = Plane(1, 0, (1, 1, 1)).frame
    points, _, triangles = shaded(surfaces, faces, frame)
    turned = surfaces[0] @ frame.T

    def hits(rows, x):
        """Barycentric coordinates of the point in every triangle, and whether it is inside."""
        a, b, c = (turned[rows[:, n], :2] for n in range(3))
        weights = np.linalg.solve(np.stack([b - a, c - a], -1), (x - a)[..., None])[..., 0]
        weights = np.concatenate([1 - weights.sum(1, keepdims=True), weights], axis=1)
        return weights, (weights >= 0).all(axis=1)

    np.testing.assert_allclose(points[0], turned[:, :2])
    generator = np.random.default_rng(0)
    seen, wrong = 0, 0
    for x in generator.uniform(-0.6, 0.6, (300, 2)):
        weights, inside = hits(faces, x)
        if not inside.any():
            continue
        depth = (weights * turned[faces, 2]).sum(axis=1)
        nearest = faces[np.flatnonzero(inside)[depth[inside].argmax()]]
        _, drawn = hits(triangles, x)
        seen += 1
        wrong += set(triangles[np.flatnonzero(drawn)[-1]]) != set(nearest)
    assert seen > 100
    assert wrong <= 0.02 * seen  # triangles are sorted by their middles


def test_light_falls_from_the_left_above_and_the_reader():
    mesh, faces = sphere_mesh(3)
    points, brightness, triangles = shaded(mesh[None], faces, np.eye(3))
    expected = AMBIENT + (1 - AMBIENT) * (mesh @ LIGHT / np.linalg.norm(LIGHT)).clip(min=0)
    np.testing.assert_allclose(brightness[0], expected, atol=0.02)  # normals of a fine mesh
    assert len(triangles) == pytest.approx(len(faces) / 2, rel=0.1)
    assert points[0, brightness[0].argmax(), 0] < 0 < points[0, brightness[0].argmax(), 1]


def drawn(figure):
    pytest.importorskip("matplotlib")
    from matplotlib.collections import TriMesh

    (mesh,) = (found for found in figure.axes[0].collections if isinstance(found, TriMesh))
    triangulation = mesh._triangulation
    return np.stack([triangulation.x, triangulation.y], -1), triangulation.triangles, mesh.get_facecolor()


@pytest.mark.parametrize(("axis", "frame"), [("z", [0, 1]), ("y", [0, 2]), ("x", [1, 2])])
def test_a_glyph_lies_in_its_voxel_and_has_the_shape_of_the_function(axis, frame):
    pytest.importorskip("matplotlib")
    volume = np.zeros((5, 6, 7, 15))
    volume[2, 3, 4] = zonal(FIBRE, [1.2, -10 / 7, 3 / 7])
    index = (2, 3, 4)["xyz".index(axis)]
    points, _, colours = drawn(show_glyphs(volume, axis=axis, index=index, every=1))
    mesh, _ = sphere_mesh(3)
    centre = np.array([2, 3, 4])[frame]
    expected = (evaluate(mesh, 4) @ volume[2, 3, 4])[:, None] * mesh
    largest = np.linalg.norm(expected, axis=1).max()
    np.testing.assert_allclose(points - centre, expected[:, frame] * 0.475 / largest, atol=1e-9)
    colour = axis_colour(FIBRE, 1.0)
    np.testing.assert_allclose(colours[:, :3] / colours[:, :1], np.tile(colour / colour[0], (len(mesh), 1)), rtol=1e-6)


def test_glyphs_are_to_scale_or_alike_and_keep_to_their_place():
    pytest.importorskip("matplotlib")
    volume = np.zeros((8, 8, 2, 6))
    volume[..., 0] = 1
    volume[:4, ..., 0] = 0.5
    radii = {}
    for same_size in (False, True):
        points, _, _ = drawn(show_glyphs(volume, every=2, same_size=same_size, voxel_size_m=1e-3))
        glyphs = points.reshape(16, -1, 2)
        centres = glyphs.mean(axis=1)
        radii[same_size] = np.linalg.norm(glyphs - centres[:, None], axis=-1).max(axis=1)
        assert sorted(set(centres[:, 0].round(6))) == [-3.5, -1.5, 0.5, 2.5]  # mm: voxels 0, 2, 4, 6 of 8
    np.testing.assert_allclose(radii[True], 0.95, rtol=1e-3)
    np.testing.assert_allclose(np.sort(radii[False])[[0, -1]], [0.475, 0.95], rtol=1e-3)


def test_sticks_point_along_the_fibres():
    pytest.importorskip("matplotlib")
    volume, directions, mask = helicoidal_fibres((10, 10, 10))
    figure = show_glyphs(volume, kind="stick", axis="y", index=5, every=1)
    (lines,) = figure.axes[0].collections
    ends = np.array(lines.get_segments())
    colours = lines.get_color()[:, :3]
    assert len(ends) == mask[:, 5].sum()
    for segment, colour in zip(ends, colours, strict=True):
        x, z = np.rint(segment.mean(axis=0)).astype(int)
        fibre = directions[x, 5, z]
        along = segment[1] - segment[0]
        assert abs(along[0] * fibre[2] - along[1] * fibre[0]) < 1e-6
        np.testing.assert_allclose(colour, axis_colour(fibre, 1.0), atol=1e-6)
        assert np.linalg.norm(along) <= 0.95 + 1e-9


@pytest.mark.parametrize("kind", ["surface", "ellipsoid", "stick"])
@pytest.mark.parametrize("colour", ["direction", "point", "value"])
def test_every_kind_in_every_colour(kind, colour, tmp_path):
    pytest.importorskip("matplotlib")
    figure = show_glyphs(helicoidal_fibres((6, 5, 4))[0], kind=kind, colour=colour, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert any("/voxel)" in label for label in labels) == (colour == "value")


def test_tensors_are_drawn_as_the_functions_they_are():
    pytest.importorskip("matplotlib")
    tensors = np.zeros((3, 3, 3, 6))
    tensors[1, 1, 1] = [1, 0.2, 0.1, 2, 0.3, 3]
    geometry = Geometry.from_angles(0.0, 0.0, (3, 3, 3), (3, 3))
    made = Reconstruction(tensors, 2, geometry, RankTwoResponse(), voxel_size_m=1e-6)
    points, _, _ = drawn(show_glyphs(made, every=1))
    mesh, _ = sphere_mesh(3)
    matrix = np.array([[1, 0.2, 0.1], [0.2, 2, 0.3], [0.1, 0.3, 3]])
    expected = np.einsum("ni,ij,nj->n", mesh, matrix, mesh)[:, None] * mesh
    np.testing.assert_allclose(points, expected[:, :2] * 0.475 / np.linalg.norm(expected, axis=1).max(), atol=1e-9)


def test_nothing_to_draw_is_said():
    pytest.importorskip("matplotlib")
    for volume in (np.zeros((3, 3, 1, 6)), -np.ones((1, 1, 1, 1))):
        figure = show_glyphs(volume)
        assert [text.get_text() for text in figure.axes[0].texts] == ["nothing above the threshold"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"volume": np.ones((3, 3, 3))}, "volume"),
        ({"volume": np.ones((3, 3, 3, 7))}, "volume"),
        ({"volume": np.ones((3, 0, 3, 6))}, "volume"),
        ({"kind": "ball"}, "kind"),
        ({"axis": "w"}, "axis"),
        ({"index": 3}, "index"),
        ({"every": 0}, "every"),
        ({"colour": "red"}, "colour"),
        ({"same_size": 1}, "same_size"),
        ({"threshold": 2}, "threshold"),
        ({"voxel_size_m": 0}, "voxel_size_m"),
    ],
)
def test_what_cannot_be_drawn_is_told(change, text):
    with pytest.raises((ValueError, TypeError), match=text):
        show_glyphs(**({"volume": np.ones((3, 3, 3, 6))} | change))
