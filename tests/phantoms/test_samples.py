"""Samples that are known, on any grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddf_tomo.derived import angle_between, derive
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.phantoms import (
    FIBRE_LEGENDRE,
    PHANTOMS,
    crossing_fibres,
    fibre_bundles,
    helicoidal_fibres,
    mixture,
    random_field,
    shells,
    zonal,
)

ALL = pytest.mark.parametrize("name", PHANTOMS)


def binned(array, factor):
    x, y, z, count = array.shape
    return array.reshape(x // factor, factor, y // factor, factor, z // factor, factor, count).mean((1, 3, 5))


# -- what all of them promise -----------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("isotropic", "sharpness"), [(0.2, 2), (0.0, 2), (0.2, 5)])
def test_nowhere_negative(name, isotropic, sharpness):
    order = max(4, 2 * sharpness)
    truth = PHANTOMS[name]((12, 11, 10), order, isotropic=isotropic, sharpness=sharpness)
    values = truth.coefficients.astype(float) @ evaluate(half_sphere_grid(2000), order).T
    assert values.min() > -3e-6
    assert truth.exact is truth.coefficients


@ALL
def test_shapes_types_and_masks(name):
    truth = PHANTOMS[name]((12, 11, 10))
    assert truth.coefficients.shape == (12, 11, 10, 15)
    assert truth.coefficients.dtype == np.float32
    assert truth.directions.dtype == np.float64
    assert truth.coefficients.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(truth.directions, axis=-1), 1)
    mean = truth.coefficients[..., 0]
    assert truth.mask.dtype == bool
    np.testing.assert_array_equal(truth.mask, mean > 0.1 * mean.max())
    assert 0.15 < truth.mask.mean() < 0.5
    np.testing.assert_array_equal(truth.mask, truth.derived().valid)


@ALL
def test_the_grid_does_not_matter(name):
    """A finer grid, binned, comes to the coarse one with the square of the voxel: no jumps, and no grid in it."""
    make = PHANTOMS[name]
    fine = make((64, 64, 64)).coefficients
    errors = []
    for factor in (4, 2):
        coarse = make((64 // factor,) * 3).coefficients
        errors.append(np.linalg.norm(binned(fine, factor) - coarse) / np.linalg.norm(coarse))
    assert errors[0] < 0.15
    assert errors[1] < 0.4 * errors[0]


@ALL
def test_other_proportions_are_the_same_sample_stretched(name):
    cube, box = PHANTOMS[name]((36, 36, 36)), PHANTOMS[name]((36, 18, 12))
    averaged = cube.coefficients.reshape(36, 18, 2, 12, 3, 15).mean((2, 4))
    assert np.linalg.norm(averaged - box.coefficients) < 0.1 * np.linalg.norm(averaged)


@ALL
def test_nothing_at_the_faces(name):
    """The detector sees all of the sample."""
    coefficients = PHANTOMS[name]((32, 32, 32)).coefficients
    for axis in range(3):
        assert np.abs(coefficients.take([0, -1], axis)).max() == 0


@ALL
@pytest.mark.parametrize(("ell_max", "count"), [(0, 1), (2, 6), (4, 15), (6, 28)])
def test_orders_are_cut_or_empty(name, ell_max, count):
    full = PHANTOMS[name]((6, 6, 6), 4)[0]
    found = PHANTOMS[name]((6, 6, 6), ell_max)[0]
    assert found.shape == (6, 6, 6, count)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found[..., :15], full[..., :count])
    assert not found[..., 15:].any()


@pytest.mark.parametrize("name", ["helicoidal", "shells", "random"])
def test_directions_of_one_family_are_the_principal_ones(name):
    truth = PHANTOMS[name]((16, 16, 16))
    derived = truth.derived()
    clear = truth.mask & (derived.fractional_anisotropy > 0.05)
    assert clear.sum() > 0.9 * truth.mask.sum()
    assert np.degrees(angle_between(derived.direction, truth.directions)[clear].max()) < 0.05


@ALL
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"shape": (3, 3, 0)}, "^shape: expected 3 positive integers"),
        ({"shape": (2**11, 2**11, 2**11)}, "^shape: expected at most"),
        ({"ell_max": 3}, "^ell_max: expected an even order"),
        ({"isotropic": -1}, "^isotropic: expected a finite number"),
        ({"sharpness": 0}, "^sharpness: expected an integer"),
    ],
)
def test_bad_arguments_of_all(name, arguments, text):
    with pytest.raises(ValueError, match=text):
        PHANTOMS[name](**{"shape": (4, 4, 4), **arguments})


@pytest.mark.parametrize(
    ("phantom", "arguments"),
    [
        (helicoidal_fibres, {"pitch": 0}),
        (helicoidal_fibres, {"pitch": np.nan}),
        (fibre_bundles, {"bundles": 0}),
        (fibre_bundles, {"radius": 2.0}),
        (fibre_bundles, {"seed": -1}),
        (crossing_fibres, {"angles_rad": (0.0, 90.0)}),
        (crossing_fibres, {"angles_rad": 0.3}),
        (crossing_fibres, {"share": 1.5}),
        (shells, {"count": 0}),
        (shells, {"tilt_rad": 45}),
        (random_field, {"cycles": -1}),
        (random_field, {"modes": 0}),
        (random_field, {"seed": 1.5}),
    ],
)
def test_bad_options(phantom, arguments):
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}: expected"):
        phantom((4, 4, 4), **arguments)


# -- helicoidal -------------------------------------------------------------------------------------------------------


def test_the_helicoidal_phantom_stays_what_it_is():
    """Benchmarks of earlier versions rest on it: the formula, to the last bit."""
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in (9, 8, 7)), indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.75) ** 2 + (z / 0.85) ** 2)
    density = np.clip((1.05 - radius) / 0.1, 0, 1) * (0.8 + 0.2 * x)
    turn, rise = 2 * np.pi * z / 2, math.radians(15)
    n = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.full_like(z, np.sin(rise))], -1)
    legendre = np.array(FIBRE_LEGENDRE)
    legendre[0] += 0.2
    truth = helicoidal_fibres((9, 8, 7))
    np.testing.assert_array_equal(truth.coefficients, (density[..., None] * zonal(n, legendre)).astype(np.float32))
    np.testing.assert_array_equal(truth.directions, n)
    np.testing.assert_array_equal(truth.mask, density > 0.1 * density.max())


def test_helicoidal_directions_turn():
    coefficients, directions, mask = helicoidal_fibres((12, 12, 12))
    np.testing.assert_allclose(directions[..., 2], math.sin(math.radians(15)))
    # A full turn over the height of the volume, to the right.
    turn = np.unwrap(np.arctan2(directions[6, 6, :, 1], directions[6, 6, :, 0]))
    np.testing.assert_allclose(np.diff(turn), 2 * np.pi / 12)
    half = helicoidal_fibres((12, 12, 12), pitch=2.0)[1]
    np.testing.assert_allclose(np.diff(np.unwrap(np.arctan2(half[6, 6, :, 1], half[6, 6, :, 0]))), np.pi / 12)
    assert coefficients[..., 0].max() <= 1.2 * (1 + 1e-6)
    values = coefficients @ evaluate(half_sphere_grid(2000), 4).T.astype(np.float32)
    assert values[mask].min() > 0
    bare, _, mask = helicoidal_fibres((12, 12, 12), isotropic=0.0)
    assert (bare @ evaluate(half_sphere_grid(2000), 4).T.astype(np.float32))[mask].min() < 1e-2  # along a fibre


# -- bundles ----------------------------------------------------------------------------------------------------------


def test_one_bundle_is_a_tube_along_its_fibres():
    """Following the directions from a point on the axis leads along the axis: the density stays that of the middle."""
    truth = fibre_bundles((48, 48, 48), bundles=1, radius=0.3)
    mean = truth.coefficients[..., 0]
    middle = np.argwhere(mean > 0.999 * mean.max())
    centre = middle[np.linalg.norm(middle - 23.5, axis=1).argmin()].astype(float)
    point, steps = centre.copy(), 0
    while np.linalg.norm(point - 23.5) < 17:  # inside the ball of radius 0.85, less its edge
        voxel = tuple(np.round(point).astype(int))
        assert mean[voxel] > 0.9 * mean.max()
        direction = truth.directions[voxel]
        point += 0.5 * direction
        steps += 1
    assert steps > 10
    assert np.degrees(angle_between(truth.derived().direction, truth.directions)[truth.mask].max()) < 0.05
    # It is curved: directions in it differ.
    assert np.degrees(angle_between(truth.directions[truth.mask], truth.directions[truth.mask][:1]).max()) > 5


def test_bundles_share_their_edges_only():
    truth = fibre_bundles((32, 32, 32))
    angles = angle_between(truth.derived().direction, truth.directions)[truth.mask]
    assert np.mean(np.degrees(angles) < 0.05) > 0.5
    assert truth.coefficients[..., 0].max() <= 1.2 * (1 + 1e-6)
    first, again, other = (fibre_bundles((8, 8, 8), seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(other - first).max() > 0.1
    # Bundles of a few are a part of those of many: each is drawn after the other.
    few, many = fibre_bundles((12, 12, 12), bundles=2), fibre_bundles((12, 12, 12), bundles=5)
    whole = few.coefficients[..., 0] > 1.2 - 1e-6
    np.testing.assert_allclose(many.coefficients[whole], few.coefficients[whole], atol=1e-6)


# -- crossing ---------------------------------------------------------------------------------------------------------


def test_crossing_angle_varies_with_height():
    truth = crossing_fibres((4, 4, 16), angles_rad=(0.2, 1.2))
    angles = angle_between(truth.directions, truth.second_directions)
    expected = 0.7 + 0.5 * ((np.arange(16) + 0.5) / 8 - 1)
    np.testing.assert_allclose(angles, np.broadcast_to(expected, angles.shape))


def test_crossing_functions_are_sums_of_two():
    share = 0.7
    truth = crossing_fibres((8, 8, 8), share=share, isotropic=0.1)
    legendre = np.array(FIBRE_LEGENDRE)
    legendre[0] += 0.1
    both = share * zonal(truth.directions, legendre) + (1 - share) * zonal(truth.second_directions, legendre)
    density = truth.coefficients[..., :1] / 1.1
    np.testing.assert_allclose(truth.coefficients, density * both, atol=1e-6)


def test_the_stronger_family_comes_first():
    weak, strong = crossing_fibres((4, 4, 4), share=0.3), crossing_fibres((4, 4, 4), share=0.7)
    np.testing.assert_array_equal(weak.directions, strong.second_directions)
    single = crossing_fibres((8, 8, 8), share=1.0)
    angles = angle_between(single.derived().direction, single.directions)[single.mask]
    assert np.degrees(angles.max()) < 0.05


# -- shells -----------------------------------------------------------------------------------------------------------


def test_shells_are_hollow_and_alternate():
    n = 40
    truth = shells((n, n, n), tilt_rad=0.6)
    points = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 2 / n - 1] * 3, indexing="ij"), -1)
    radius, from_axis = np.linalg.norm(points, axis=-1), np.linalg.norm(points[..., :2], axis=-1)
    assert not truth.coefficients[radius < 0.12].any()
    assert not truth.coefficients[from_axis < 0.07].any()
    assert np.abs((truth.directions * points).sum(-1)).max() < 1e-12
    # Around the equator the tilt swings to both sides as often as there are shells.
    row = truth.directions[n // 2 :, n // 2, n // 2]
    tilt = np.arcsin(row[:, 2] * np.sign(row[:, 1]))
    inside = (radius[n // 2 :, n // 2, n // 2] > 0.22) & (radius[n // 2 :, n // 2, n // 2] < 0.83)
    assert np.count_nonzero(np.diff(np.sign(tilt[inside]))) == 2
    assert 0.5 < np.abs(tilt).max() <= 0.6


# -- mixture and random -----------------------------------------------------------------------------------------------


def test_a_mixture_has_everything():
    truth = mixture((32, 32, 32))
    derived = truth.derived()
    anisotropy, mean = derived.fractional_anisotropy, derived.mean
    x = np.broadcast_to(((np.arange(32) + 0.5) / 16 - 1)[:, None, None], mean.shape)
    full = truth.mask & (mean > 1.15) & (mean < 1.25)
    assert anisotropy[full & (x < -0.4)].max() < 1e-3
    graded = anisotropy[full & (abs(x) < 0.1)]
    assert graded.min() > 0.05
    assert graded.max() < 0.35
    assert anisotropy[full & (x > 0.3)].max() == pytest.approx(0.391, abs=0.001)
    inclusion = mean > 1.75
    assert inclusion.any()
    assert anisotropy[inclusion].max() < 0.05
    assert mean[18:22, 11:13, 9:11].max() == 0  # a void
    oriented = truth.mask & (anisotropy > 0.05)
    assert np.degrees(angle_between(derived.direction, truth.directions)[oriented].max()) < 0.05


def test_random_fields_are_smooth_and_seeded():
    first, again, other = (random_field((32, 32, 32), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.coefficients, again.coefficients)
    assert np.linalg.norm(first.coefficients - other.coefficients) > 0.3 * np.linalg.norm(first.coefficients)
    # Waves of at most 1.5 periods: neighbours differ little, also where directions are undefined.
    largest = np.abs(first.coefficients).max()
    inner = first.coefficients[8:24, 8:24, 8:24]
    for axis in range(3):
        assert np.abs(np.diff(inner, axis=axis)).max() < 0.35 * largest
    rough = random_field((32, 32, 32), seed=1, cycles=4.0).coefficients[8:24, 8:24, 8:24]
    assert np.linalg.norm(np.diff(rough, axis=0)) > 1.5 * np.linalg.norm(np.diff(inner, axis=0))
    anisotropy = derive(first.coefficients).fractional_anisotropy[first.mask]
    assert anisotropy.min() < 0.15
    assert anisotropy.max() > 0.33
