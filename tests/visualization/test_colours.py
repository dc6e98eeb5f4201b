"""Colours of directions: known ones, those of any colour vision, and the keys that explain them."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo._pictures import equal_area
from ddf_tomo.visualization import axis_colour, cyclic_colour
from ddf_tomo.visualization.colours import ball, draw_ball, draw_wheel, slice_colour
from ddf_tomo.visualization.slices import OBLIQUE
from ddf_tomo.visualization.style import new_figure

# What a reader without one kind of cone sees, on linear RGB [Machado et al. 2009, IEEE TVCG 15, 1291].
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def test_known_axes():
    np.testing.assert_array_equal(axis_colour(np.eye(3), np.ones(3)), np.eye(3))
    np.testing.assert_array_equal(axis_colour(-np.eye(3), np.ones(3)), np.eye(3))
    np.testing.assert_allclose(axis_colour([1.0, 1.0, 0.0], 0.5), [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(axis_colour([0.0, 0.0, 0.0], 1.0), [0, 0, 0])


def test_cyclic_colours_are_what_cielab_says():
    colour = pytest.importorskip("skimage.color")
    angle, strength = np.meshgrid(np.linspace(0, np.pi, 13), np.linspace(0, 1, 5))
    lab = colour.rgb2lab(cyclic_colour(angle, strength))
    np.testing.assert_allclose(lab[..., 0], 56 + 36 * strength * np.sin(2 * angle), atol=2.5)
    np.testing.assert_allclose(lab[..., 2], 52 * strength * np.cos(2 * angle), atol=8)  # the bluest is off the screen
    found = cyclic_colour(angle, strength)
    inside = (found > 1e-6).all(-1) & (found < 1 - 1e-6).all(-1)
    assert inside.mean() > 0.8
    assert np.abs(lab[..., 1][inside]).max() < 0.5


@pytest.mark.parametrize("kind", [None, *BLIND])
def test_cyclic_colours_stay_apart_for_every_reader(kind):
    colour = pytest.importorskip("skimage.color")
    seen = cyclic_colour(np.arange(8) * np.pi / 8, 1.0)
    if kind:
        linear = np.where(seen > 0.04045, ((seen + 0.055) / 1.055) ** 2.4, seen / 12.92)
        blind = (linear @ np.transpose(BLIND[kind])).clip(0, 1)
        seen = np.where(blind > 0.0031308, 1.055 * blind ** (1 / 2.4) - 0.055, 12.92 * blind)
    lab = colour.rgb2lab(seen)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[~np.eye(8, dtype=bool)]
    assert apart.min() > 15  # a difference of 2 is just noticed


def test_cyclic_colours_close():
    np.testing.assert_allclose(cyclic_colour(0.3, 0.7), cyclic_colour(0.3 + np.pi, 0.7), atol=1e-12)
    np.testing.assert_allclose(cyclic_colour(-1e-9, 1.0), cyclic_colour(np.pi, 1.0), atol=1e-6)
    np.testing.assert_allclose(np.ptp(cyclic_colour([0.1, 2.0], 0.0), axis=-1), 0, atol=2e-3)  # grey


def test_colours_of_a_slice():
    direction = np.array([0.6, 0.0, 0.8])
    np.testing.assert_array_equal(slice_colour(direction, 0.7, 0, 1), axis_colour(direction, 0.7))
    # In the plane of x and z it lies wholly, in that of x and y with 0.6² = 0.36 of it.
    expected = cyclic_colour(np.arctan2(0.8, 0.6), 0.7)
    np.testing.assert_allclose(slice_colour(direction, 0.7, 0, 2, "angle"), expected)
    np.testing.assert_allclose(slice_colour(direction, 0.7, 0, 1, "angle"), cyclic_colour(0.0, 0.7 * 0.36))
    with pytest.raises(ValueError, match="code"):
        slice_colour(direction, 0.7, 0, 1, "smell")


def test_the_ball_shows_each_direction_where_it_is():
    right, up = OBLIQUE
    towards = np.cross(right, up)
    np.testing.assert_allclose(towards, np.ones(3) / np.sqrt(3))
    size = 401
    picture = ball(right, up, size)
    generator = np.random.default_rng(0)
    for direction in generator.normal(size=(50, 3)):
        direction /= np.linalg.norm(direction)
        direction *= np.sign(direction @ towards)
        if direction @ towards < 0.2:  # at the rim a pixel is many directions
            continue
        row, column = (round((size - 1) / 2 * (1 + direction @ axis)) for axis in (up, right))
        np.testing.assert_allclose(picture[row, column, :3], axis_colour(direction, 1.0), atol=0.06)
    assert picture[0, 0, 3] == 0
    assert picture[..., 3].mean() == pytest.approx(np.pi / 4, abs=0.01)


@pytest.mark.parametrize("frame", [OBLIQUE, (np.eye(3)[0], np.eye(3)[1]), (np.eye(3)[0], np.eye(3)[2])])
def test_keys_name_the_axes_apart_from_each_other(frame):
    pytest.importorskip("matplotlib")
    axis = new_figure(2, 2).subplots()
    draw_ball(axis, *frame)
    places = {text.get_text(): np.array(text.get_position()) for text in axis.texts}
    assert {"x", "y", "z"} <= set(places)
    for a, b in ("xy", "yz", "zx"):
        assert np.linalg.norm(places[a] - places[b]) > 0.5
    for name, unit in zip("xyz", np.eye(3), strict=True):
        along = np.array([unit @ frame[0], unit @ frame[1]])
        if np.linalg.norm(along) > 0.5:  # its name stands outside the ball, on its side
            assert abs(places[name] @ along) > 0.99 * np.linalg.norm(along)


@pytest.mark.parametrize(("code", "place", "angle"), [("hue", (0, -0.8), 0.0), ("angle", (0.8, 0), 0.0)])
def test_wheels_lie_along_their_axes(code, place, angle):
    pytest.importorskip("matplotlib")
    from ddf_tomo.visualization import direction_colour

    axis = new_figure(2, 2).subplots()
    draw_wheel(axis, code, size=201)
    picture = axis.images[0].get_array()
    row, column = (round(100 * (1 + c)) for c in place[::-1])
    expected = direction_colour(angle, 1.0) if code == "hue" else cyclic_colour(angle, 0.8)
    np.testing.assert_allclose(picture[row, column, :3], expected, atol=0.02)


def test_equal_areas():
    polar = np.linspace(0, np.pi / 2, 20)
    places = equal_area(np.stack([np.sin(polar), 0 * polar, np.cos(polar)], -1))
    np.testing.assert_allclose(places[:, 0], np.sqrt(2) * np.sin(polar / 2), atol=1e-12)
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(20_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = equal_area(directions)
    np.testing.assert_array_equal(places, equal_area(-directions))
    # Evenly spread directions are evenly spread points: as many in each ring of equal area.
    counts, _ = np.histogram((places**2).sum(1), bins=10, range=(0, 1))
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
