"""Slices show the right voxels at the right places, in the colours and units of what they are."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo import Geometry, Reconstruction, SecondMomentResponse
from ddf_tomo.derived import derive
from ddf_tomo.phantoms import helicoidal_fibres
from ddf_tomo.visualization import STYLES, axis_colour, show_directions, show_slices
from ddf_tomo.visualization.slices import scalars_of, strength_of
from ddf_tomo.visualization.style import MISSING

pytest.importorskip("matplotlib")

SHAPE = (6, 5, 4)


def reconstruction(shape=SHAPE, **options):
    coefficients = helicoidal_fibres(shape, 2)[0]
    geometry = Geometry.from_angles([0.0, 0.5], 0.2, shape, (shape[0], shape[2]))
    return Reconstruction(coefficients, 2, geometry, SecondMomentResponse(), **options)


def images(figure):
    return [axis for axis in figure.axes if axis.images and axis.get_xlabel()]


def test_a_voxel_is_where_its_coordinates_say():
    volume = np.zeros(SHAPE)
    volume[4, 1, 3] = 1
    figure = show_slices({"point": volume}, at=(4, 1, 3))
    panels = images(figure)
    assert len(panels) == 3
    for axis, (across, up) in zip(panels, ((0, 1), (0, 2), (1, 2)), strict=True):
        assert axis.get_xlabel() == f"{'xyz'[across]} (voxels)"
        assert axis.get_ylabel() == f"{'xyz'[up]} (voxels)"
        image = axis.images[0]
        row, column = np.argwhere(image.get_array() == 1)[0]
        left, right, bottom, top = image.get_extent()
        x = left + (column + 0.5) * (right - left) / image.get_array().shape[1]
        y = bottom + (row + 0.5) * (top - bottom) / image.get_array().shape[0]
        assert (x, y) == pytest.approx(((4, 1, 3)[across], (4, 1, 3)[up]))
        assert image.origin == "lower"
    assert [axis.get_title().split("\n")[-1] for axis in panels] == ["z = 3", "y = 1", "x = 4"]


def test_lengths_are_from_the_centre_of_the_volume():
    panel = images(show_slices({"a": np.zeros(SHAPE)}, at=(0, 0, 0), voxel_size_m=25e-6))[0]
    assert panel.get_xlabel() == "x (µm)"
    assert panel.images[0].get_extent() == pytest.approx([-75, 75, -62.5, 62.5])
    assert panel.get_title().endswith("z = -37.5 µm")
    millimetres = images(show_slices({"a": np.zeros((60, 2, 2))}, voxel_size_m=1e-4))[0]
    assert millimetres.get_xlabel() == "x (mm)"
    assert millimetres.images[0].get_extent()[:2] == pytest.approx([-3, 3])


@pytest.mark.parametrize(
    ("shape", "fixed"),
    [((4, 5, 1), "z"), ((1, 5, 4), "x"), ((5, 1, 4), "y"), ((1, 1, 7), "yx"), ((1, 1, 1), "zyx"), ((2, 3, 4), "zyx")],
)
def test_slices_that_are_lines_are_left_out(shape, fixed):
    found = [axis.get_title().split("\n")[-1][0] for axis in images(show_slices({"a": np.zeros(shape)}))]
    assert len(found) == (1 if min(shape) == 1 else 3)
    assert set(found) <= set(fixed)


def test_volumes_of_a_figure_share_a_scale_and_say_what_they_are():
    figure = show_slices({"a": np.zeros(SHAPE), "b": np.full(SHAPE, 2.0)}, quantity="attenuation")
    panels = images(figure)
    assert len(panels) == 6
    assert len({axis.images[0].get_clim() for axis in panels}) == 1
    assert [axis.get_title().split("\n")[0] for axis in panels[::3]] == ["a", "b"]
    (bar,) = (axis for axis in figure.axes if axis not in panels)
    assert bar.get_ylabel() == "attenuation (1/voxel)"
    unnamed = show_slices({"a": np.zeros(SHAPE)}, unit="1/m").axes[-1]
    assert unnamed.get_ylabel() == "1/m"


def test_arrays_of_a_quantity_have_its_label_and_unit():
    volume = np.ones((3, 4, 5))
    for unit, label in (("", "mean scattering (data unit/voxel)"), ("1/m", "mean scattering (1/m)")):
        figure = show_slices({"volume": volume}, unit=unit, quantity="mean")
        assert figure.axes[-1].get_ylabel() == label


def test_quantities_of_a_reconstruction_have_their_own_looks():
    made = reconstruction(voxel_size_m=1e-3, provenance={"data_unit": "1e-12 rad^2"})
    figure = show_slices(made, quantity=("mean", "fractional_anisotropy", "strength"))
    panels = images(figure)
    assert [axis.images[0].cmap.name for axis in panels[::3]] == ["viridis", "magma", "viridis"]
    assert panels[3].images[0].get_clim() == (0, 1)
    bars = [axis.get_ylabel() for axis in figure.axes if axis not in panels]
    assert bars == ["µrad²/voxel", "fractional anisotropy", "µrad²/voxel"]
    beside = images(show_slices({"truth": np.ones(SHAPE), "found": made}, quantity="mean"))
    assert {axis.images[0].cmap.name for axis in beside} == {STYLES["mean"].colours}


def test_what_describes_noise_is_grey():
    made = reconstruction()
    derived = made.derived()
    assert not derived.valid.all()
    shown = scalars_of(made, "fractional_anisotropy")
    np.testing.assert_array_equal(np.isnan(shown), ~derived.valid)
    np.testing.assert_array_equal(scalars_of(made, "mean"), derived.mean)
    np.testing.assert_array_equal(
        strength_of(derived)[derived.valid], (derived.mean * derived.fractional_anisotropy)[derived.valid]
    )
    panel = images(show_slices(made, quantity="fractional_anisotropy"))[0]
    assert panel.images[0].cmap(np.ma.masked)[:3] == pytest.approx([float(MISSING)] * 3)


def test_directions_have_their_colours_and_a_key():
    directions, strength = np.zeros((*SHAPE, 3)), np.full(SHAPE, 7.0)
    directions[..., 0] = 1
    directions[3:, :, :, :] = [0, 0, -1]
    figure = show_directions({"two": (directions, strength)})
    panels = images(figure)
    picture = panels[0].images[0].get_array()
    np.testing.assert_allclose(picture[:, :3], np.broadcast_to([1, 0, 0], (5, 3, 3)))
    np.testing.assert_allclose(picture[:, 3:], np.broadcast_to([0, 0, 1], (5, 3, 3)))
    (key,) = (axis for axis in figure.axes if axis not in panels)
    assert {"x", "y", "z"} <= {text.get_text() for text in key.texts}


def test_directions_of_a_reconstruction_are_those_of_its_derived():
    made = reconstruction((9, 8, 7))
    derived = made.derived()
    one, other, third = (
        images(show_directions(given))[0].images[0].get_array()
        for given in (made, {"a": derived}, {"a": (derived.direction, strength_of(derived))})
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, third, atol=1e-6)
    bright = strength_of(derived)[:, :, 3]
    expected = axis_colour(
        derived.direction[:, :, 3], bright / np.percentile(strength_of(derived)[derived.valid], 99.5)
    )
    np.testing.assert_allclose(one, np.swapaxes(expected, 0, 1), atol=1e-6)


def test_angles_in_the_slice_are_grey_where_there_is_nothing():
    directions = np.broadcast_to([0.0, 0.0, 1.0], (*SHAPE, 3))
    panels = images(show_directions({"z": (directions, np.ones(SHAPE))}, code="angle"))
    seen = [axis.images[0].get_array() for axis in panels]
    assert np.ptp(seen[0], axis=-1).max() < 2e-3  # out of the slice
    assert np.ptp(seen[1], axis=-1).min() > 0.5


def test_no_strength_anywhere_is_black():
    panel = images(show_directions({"a": (np.ones((*SHAPE, 3)), np.zeros(SHAPE))}))[0]
    assert not panel.images[0].get_array().any()
    isotropic = derive(np.zeros((3, 3, 3, 1)))
    assert not images(show_directions(isotropic))[0].images[0].get_array().any()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: show_slices({}), "volumes"),
        (lambda: show_slices(np.ones(SHAPE)), "volumes"),
        (lambda: show_slices({"a": np.ones((2, 2))}), "a: expected shape"),
        (lambda: show_slices({"a": np.ones((2, 0, 2))}), "volumes"),
        (lambda: show_slices({"a": np.full(SHAPE, np.nan)}), "a: expected finite"),
        (lambda: show_slices({"a": np.ones(SHAPE)}, at=(6, 0, 0)), r"at\[0\]"),
        (lambda: show_slices({"a": np.ones(SHAPE)}, at=3), "at"),
        (lambda: show_slices({"a": np.ones(SHAPE)}, voxel_size_m=-1), "voxel_size_m"),
        (lambda: show_slices({"a": np.ones(SHAPE)}, quantity="speed"), "quantity"),
        (lambda: show_slices(reconstruction(), quantity="misfit"), "quantity"),
        (lambda: show_slices(reconstruction(), quantity=()), "quantity"),
        (lambda: show_directions({}), "volumes"),
        (lambda: show_directions({"a": np.ones(SHAPE)}), r"volumes\['a'\]"),
        (lambda: show_directions({"a": (np.ones((2, 3)), np.ones(SHAPE))}), "directions"),
        (lambda: show_directions(reconstruction(), code="smell"), "code"),
    ],
)
def test_what_cannot_be_drawn_is_told(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call()
