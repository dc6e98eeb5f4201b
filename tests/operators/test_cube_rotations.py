"""The 24 rotations: against rotated evaluation, as a group, and through the physics."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import ddf_tomo as dt
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS, CubeRotation
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, half_sphere_grid
from tests.operators.registry import RESPONSES
from tests.strategies import random_geometry

ALL = pytest.mark.parametrize("g", CUBE_ROTATIONS, ids=lambda g: f"{g.axes}{g.signs}".replace(" ", ""))
SHAPE = (5, 3, 4)


def noise(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_they_are_the_octahedral_group_of_scipy():
    ours = {tuple(g.matrix.astype(int).ravel()) for g in CUBE_ROTATIONS}
    theirs = {tuple(m.round().astype(int).ravel()) for m in Rotation.create_group("O").as_matrix()}
    assert ours == theirs
    assert np.array_equal(CUBE_ROTATIONS[0].matrix, np.eye(3))
    assert all(eval(repr(g)) == g for g in CUBE_ROTATIONS)


@ALL
def test_a_function_in_space_and_direction_is_turned(g):
    """``f(Rᵀ x, Rᵀ q)`` evaluated, for a function that is neither even in x nor a sum of two."""
    order, grid = 8, half_sphere_grid(40)
    volume = noise(*SHAPE, coefficient_count(order))
    turned = g.volume(volume).numpy()
    assert turned.shape[:3] == tuple(SHAPE[axis] for axis in g.axes)
    places = np.stack(np.indices(turned.shape[:3]), -1) - (np.array(turned.shape[:3]) - 1) / 2
    old = np.rint(places @ g.matrix + (np.array(SHAPE) - 1) / 2).astype(int)  # rows xᵀ R are (Rᵀ x)ᵀ
    expected = volume.numpy()[tuple(np.moveaxis(old, -1, 0))] @ evaluate(grid @ g.matrix, order).T
    np.testing.assert_allclose(turned @ evaluate(grid, order).T, expected, atol=1e-11)


@ALL
def test_wigner_matrices_are_orthogonal_blocks(g):
    matrix = g.coefficient_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(45, dtype=torch.float64), atol=1e-13, rtol=0)
    coefficients = noise(45)
    torch.testing.assert_close(matrix @ coefficients, rotate(coefficients, g.matrix), atol=1e-13, rtol=0)
    degrees = np.repeat([0, 2, 4, 6, 8], [1, 5, 9, 13, 17])
    assert not matrix.numpy()[degrees[:, None] != degrees].any()


@ALL
def test_tensors_turn_as_their_harmonics(g):
    tensors = noise(*SHAPE, 6)
    expected = g.volume(coefficients_from_tensor(tensors))
    torch.testing.assert_close(coefficients_from_tensor(g.tensors(tensors)), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("name", ["saxs", "saxs at an angle", "second moment", "grating", "rank two"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@ALL
def test_turned_views_see_of_the_turned_sample_what_they_saw(g, name, dtype, tolerance):
    response, ell_max = RESPONSES[name]
    geometry = random_geometry(3, SHAPE, (6, 7), seed=4)
    volume = noise(*SHAPE, coefficient_count(ell_max), dtype=dtype)
    expected = dt.TensorXRayTransform(geometry, response, ell_max)(volume)
    turn = g.volume if response.of_harmonics else g.tensors
    found = dt.TensorXRayTransform(g.geometry(geometry), response, ell_max)(turn(volume))
    assert found.shape == expected.shape
    assert (found - expected).norm() <= tolerance * expected.norm()
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@ALL
def test_turned_views_alone_differ(g):
    """The test above can fail: neither turning nothing nor turning only voxels will do."""
    if g == CUBE_ROTATIONS[0]:
        return
    geometry = random_geometry(2, (4, 4, 4), (6, 6), seed=4)
    volume, response = noise(4, 4, 4, 15), dt.SecondMomentResponse()
    expected = dt.TensorXRayTransform(geometry, response, 4)(volume)
    turned = dt.TensorXRayTransform(g.geometry(geometry), response, 4)
    wrong = [volume, g.grid(volume), rotate(volume, g.matrix)]
    for other in wrong if g.inverse == g else [*wrong, g.inverse.volume(volume)]:
        assert (turned(other) - expected).norm() > 0.05 * expected.norm()


@pytest.mark.parametrize(("beam", "same"), [((1, 1, 0), True), ((1, 0.5, 0.5), True), ((1, 1, 0.3), False)])
def test_beams_between_two_axes(beam, same):
    """Slices across either axis are as good and, where the third component is not zero, not the same."""
    p = np.array(beam) / np.linalg.norm(beam)
    j = np.cross(p, [0.3, 0.5, -0.2]) / np.linalg.norm(np.cross(p, [0.3, 0.5, -0.2]))
    geometry = dt.Geometry(p[None], j[None], np.cross(p, j)[None], 0.1, 0.2, SHAPE, (9, 9))
    volume = noise(*SHAPE, 1)
    expected = dt.XRayTransform(geometry)(volume)
    found = [dt.XRayTransform(g.geometry(geometry))(g.volume(volume)) for g in CUBE_ROTATIONS]
    worst = max(float((y - expected).norm() / expected.norm()) for y in found)
    assert worst < 1e-12 if same else worst > 1e-3


@ALL
def test_inverse_is_the_way_back_and_the_adjoint(g):
    x = noise(2, *SHAPE, 15)
    assert g @ g.inverse == CUBE_ROTATIONS[0]
    torch.testing.assert_close(g.inverse.volume(g.volume(x)), x, atol=1e-13, rtol=0)
    y = noise(*g.volume(x).shape, seed=1)
    left, right = (g.volume(x) * y).sum(), (x * g.inverse.volume(y)).sum()
    assert abs(left - right) < 1e-12 * x.norm() * y.norm()
    geometry = random_geometry(2, SHAPE, (6, 7), seed=3)
    assert g.inverse.geometry(g.geometry(geometry)) == geometry
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(g.volume(x), x, y)
    torch.testing.assert_close(gradient, g.inverse.volume(y), atol=1e-13, rtol=0)


def test_turns_follow_each_other():
    x = noise(*SHAPE, 15)
    for g in CUBE_ROTATIONS[3::5]:
        for h in CUBE_ROTATIONS[2::7]:
            torch.testing.assert_close((g @ h).volume(x), g.volume(h.volume(x)), atol=1e-13, rtol=0)
            geometry = random_geometry(2, SHAPE, (6, 7), seed=3)
            assert (g @ h).geometry(geometry) == g.geometry(h.geometry(geometry))


def test_batches_arrays_and_kinds_of_numbers():
    g = CUBE_ROTATIONS[7]
    x = noise(2, 3, *SHAPE, 6)
    torch.testing.assert_close(g.volume(x)[1, 2], g.volume(x[1, 2]))
    assert g.volume(x.float()).dtype == torch.float32
    array = g.volume(x.numpy())
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, g.volume(x).numpy())
    torch.testing.assert_close(torch.vmap(g.tensors)(x), g.tensors(x))
    assert g.volume(noise(4, 4, 4, 1)).shape == (4, 4, 4, 1)
    matrix = g.coefficient_matrix(2)
    matrix.zero_()
    assert g.coefficient_matrix(2).any()


@pytest.mark.parametrize(
    ("axes", "signs"), [((0, 1, 2), (1, 1, -1)), ((1, 0, 2), (1, 1, 1)), ((0, 0, 2), (1, 1, 1)), ((0, 1, 2), (2, 1, 1))]
)
def test_what_is_no_rotation_is_refused(axes, signs):
    with pytest.raises(ValueError, match="rotation of the cube"):
        CubeRotation(axes, signs)


def test_bad_input_is_named():
    g = CUBE_ROTATIONS[5]
    with pytest.raises(ValueError, match="coefficients: expected"):
        g.volume(noise(4, 4, 4, 7))
    with pytest.raises(ValueError, match=r"tensors .last axis.: expected"):
        g.tensors(noise(4, 4, 4, 15))
    with pytest.raises(ValueError, match=r"values: expected shape \(\.\.\., x, y, z, channel\)"):
        g.volume(noise(4, 4, 6))
    with pytest.raises(TypeError, match="geometry: expected a Geometry"):
        g.geometry(np.eye(3))
    with pytest.raises(TypeError, match="axes: expected real numbers"):
        CubeRotation("abc", (1, 1, 1))
