"""Samples turned by any rotation: against closed forms, SciPy's interpolation, exact rotations, and projections."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

import ddf_tomo as dt
from ddf_tomo.operators import CUBE_ROTATIONS, rotate_views, rotate_volume
from ddf_tomo.operators.rank_two import coefficients_from_tensor, tensor_from_coefficients
from ddf_tomo.operators.rotation import rotate
from tests.strategies import random_geometry

LINEAR, CUBIC = (pytest.param(name, id=name) for name in ("linear", "cubic"))


def places(shape):
    return np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"), -1)


def blobs(shape, deviation, matrix=None, seed=0, ell_max=4):
    """Gaussians, each with a function on the sphere of its own; turned by the matrix, in closed form."""
    matrix = np.eye(3) if matrix is None else matrix
    rng, count = np.random.default_rng(seed), (ell_max + 1) * (ell_max + 2) // 2
    total = np.zeros((*shape, count))
    for _ in range(3):
        centre, coefficients = rng.uniform(-3, 3, 3), rng.standard_normal(count)
        distance = ((places(shape) - matrix @ centre) ** 2).sum(-1)
        total += np.exp(-distance / (2 * deviation**2))[..., None] * rotate(coefficients, matrix)
    return total


@pytest.mark.parametrize(
    ("interpolation", "deviation", "error"),
    [
        ("linear", 1.0, 0.23),
        ("linear", 1.5, 0.13),
        ("linear", 2.0, 0.08),
        ("linear", 3.0, 0.04),
        ("cubic", 1.0, 0.034),
        ("cubic", 1.5, 0.0055),
        ("cubic", 2.0, 0.0018),
        ("cubic", 3.0, 0.0004),
    ],
)
def test_the_error_of_the_grid_is_the_stated_one(interpolation, deviation, error):
    worst, shape = 0.0, (32, 32, 32)
    for seed in range(4):
        matrix = Rotation.random(random_state=seed).as_matrix()
        centre = np.random.default_rng(seed).uniform(-3, 3, 3)
        before, after = (
            np.exp(-((places(shape) - c) ** 2).sum(-1) / (2 * deviation**2))[..., None]
            for c in (centre, matrix @ centre)
        )
        worst = max(worst, abs(rotate_volume(before, matrix, "scalars", interpolation) - after).max())
    assert worst < error
    assert worst > 0.5 * error


@pytest.mark.parametrize("seed", range(3))
def test_voxels_and_directions_turn_together(seed):
    matrix = Rotation.random(random_state=seed).as_matrix()
    before, after = (blobs((27, 28, 26), 2.0, m, seed) for m in (None, matrix))
    found = rotate_volume(before, matrix)
    assert abs(found - after).max() < 0.003 * abs(after).max()
    for wrong in (rotate_volume(before, matrix, "scalars"), rotate(before, matrix), rotate_volume(before, matrix.T)):
        assert abs(wrong - after).max() > 0.1 * abs(after).max()
    six = blobs((20, 20, 20), 2.0, None, seed, ell_max=2)
    np.testing.assert_allclose(
        coefficients_from_tensor(rotate_volume(tensor_from_coefficients(six), matrix, "tensors")),
        rotate_volume(six, matrix),
        atol=1e-10,
    )


@pytest.mark.parametrize(("interpolation", "order"), [("linear", 1), ("cubic", 3)])
def test_scipy_interpolates_alike(interpolation, order):
    shape = (15, 12, 17)
    matrix = Rotation.random(random_state=5).as_matrix()
    volume = np.zeros(shape)  # an empty border: splines and what is outside are another matter there
    volume[3:-3, 3:-3, 3:-3] = np.random.default_rng(1).standard_normal((9, 6, 11))
    if order == 3:
        volume = np.pad(volume, 12)
    old = places(volume.shape) @ matrix + (np.array(volume.shape) - 1) / 2
    expected = map_coordinates(volume, np.moveaxis(old, -1, 0), order=order, mode="grid-constant")
    found = rotate_volume(volume[..., None], matrix, "scalars", interpolation)[..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", [LINEAR, CUBIC])
def test_rotations_of_the_cube_come_out_exactly(interpolation):
    volume = torch.randn(2, 5, 5, 5, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for g in CUBE_ROTATIONS[1::4]:
        found = rotate_volume(volume, g.matrix, interpolation=interpolation)
        torch.testing.assert_close(found, g.volume(volume), atol=1e-11, rtol=0)


def test_turned_views_see_of_the_turned_sample_what_they_saw_but_for_the_grid():
    matrix = Rotation.random(random_state=2).as_matrix()
    geometry = random_geometry(4, (26, 26, 26), (28, 28), seed=3, offset=0.5)
    response = dt.SaxsResponse(np.arange(4) * np.pi / 4)
    volume = torch.from_numpy(blobs((26, 26, 26), 2.0))
    expected = dt.TensorXRayTransform(geometry, response, 4)(volume)
    turned = dt.TensorXRayTransform(rotate_views(geometry, matrix), response, 4)
    found = turned(rotate_volume(volume, matrix))
    # What remains is the projector's error on either grid, which a closed form of the turned sample has as well.
    closed = turned(torch.from_numpy(blobs((26, 26, 26), 2.0, matrix)))
    assert (found - closed).abs().max() < 0.002 * expected.abs().max()
    assert (found - expected).abs().max() < 0.002 * expected.abs().max() + (closed - expected).abs().max()
    assert (closed - expected).abs().max() < 0.02 * expected.abs().max()
    assert (turned(volume) - expected).abs().max() > 0.1 * expected.abs().max()
    for g in CUBE_ROTATIONS[::5]:
        cubic = random_geometry(2, (4, 4, 4), (5, 5))
        assert rotate_views(cubic, g.matrix) == g.geometry(cubic)


@pytest.mark.parametrize("interpolation", [LINEAR, CUBIC])
def test_gradients_in_volume_and_angle(interpolation):
    volume = torch.randn(1, 4, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    angle = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def turned(v, a):
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        rows = [torch.stack(row) for row in ((a.cos(), -a.sin(), zero), (a.sin(), a.cos(), zero), (zero, zero, one))]
        return rotate_volume(v, torch.stack(rows), interpolation=interpolation)

    assert torch.autograd.gradcheck(turned, (volume.requires_grad_(), angle), fast_mode=True)


def test_dtypes_and_kinds_of_array():
    volume = torch.rand(5, 5, 5, 6)
    matrix = Rotation.random(random_state=2).as_matrix()
    assert rotate_volume(volume, matrix).dtype == torch.float32
    array = rotate_volume(volume.numpy(), matrix)
    assert isinstance(array, np.ndarray)
    np.testing.assert_allclose(array, rotate_volume(volume.double(), torch.from_numpy(matrix)), atol=1e-5)
    assert rotate_volume(np.ones((1, 1, 1, 1)), matrix).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones((4, 4, 6)), np.eye(3)), "volume: expected shape"),
        ((np.ones((4, 4, 4, 7)), np.eye(3)), "coefficients"),
        ((np.ones((4, 4, 4, 15)), np.eye(3), "tensors"), "tensor"),
        ((np.ones((4, 4, 4, 6)), 2 * np.eye(3)), "rotation: expected orthogonal"),
        ((np.ones((4, 4, 4, 6)), np.eye(3)[None]), "rotation: expected shape"),
        ((np.ones((4, 4, 4, 6)), np.eye(3), "vectors"), "kind: expected one of"),
        ((np.ones((4, 4, 4, 6)), np.eye(3), "scalars", "nearest"), "interpolation: expected one of"),
    ],
)
def test_bad_input_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        rotate_volume(*arguments)


def test_bad_views_are_named():
    with pytest.raises(TypeError, match="geometry: expected a Geometry"):
        rotate_views(3, np.eye(3))
    with pytest.raises(ValueError, match="rotation: expected orthogonal"):
        rotate_views(random_geometry(2), np.ones((3, 3)))
