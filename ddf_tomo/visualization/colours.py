"""Directions as colours, and the keys that explain them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_broadcast, check_shape, choice, integer, real_array
from ddf_tomo._pictures import axis_colour
from ddf_tomo.visualization.style import LABEL, TICK

TURN = 2 * math.pi
CODES = ("axes", "angle")


def direction_colour(angle_rad: ArrayLike, strength: ArrayLike) -> NDArray[np.float64]:
    """RGB in [0, 1], ``(..., 3)``: hue is the direction, value the strength.

    Parameters
    ----------
    angle_rad : (...)
        Direction of an axis, so that angles that differ by π share a colour; 0 is red, π/3 green, 2π/3 blue.
    strength : (...)
        Brightness, clipped to [0, 1]: 0 is black.

    Examples
    --------
    >>> direction_colour([0.0, math.pi, math.pi / 3], [1.0, 1.0, 0.5]).round(3).tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0]]
    """
    angle, value = real_array(angle_rad, "angle_rad"), real_array(strength, "strength").clip(0, 1)
    check_broadcast(angle.shape, value.shape, "strength")
    # The piecewise linear hue circle: each primary is full within 60° of its own hue and gone beyond 120°.
    hue = np.mod(2 * angle / TURN, 1)[..., None] * 6 - np.array([0, 2, 4])
    distance = np.abs(np.mod(hue + 3, 6) - 3)
    return np.clip(2 - distance, 0, 1) * value[..., None]


def cyclic_colour(angle_rad: ArrayLike, strength: ArrayLike) -> NDArray[np.float64]:
    """RGB in [0, 1], ``(..., 3)``, of an angle in a plane, for readers of any colour vision: grey without strength.

    The colours lie on a disc around middle grey in the plane of lightness and blue–yellow of the CIELAB space: its
    angle is twice the angle of the axis, its radius the strength. Red–green, which a tenth of all men do not see, tells
    nothing.

    Parameters
    ----------
    angle_rad : (...)
        Direction of an axis: 0 is yellow, π/4 light, π/2 blue, 3π/4 dark.
    strength : (...)
        Distance from grey, clipped to [0, 1].

    Examples
    --------
    >>> yellow, light, blue, dark = cyclic_colour(np.arange(4) * math.pi / 4, 1.0)
    >>> bool(yellow[2] < 0.3 < 0.8 < light.min()), bool(dark.max() < 0.25 < 0.8 < blue[2])
    (True, True)
    """
    angle, radius = real_array(angle_rad, "angle_rad"), real_array(strength, "strength").clip(0, 1)
    check_broadcast(angle.shape, radius.shape, "strength")
    turned = 2 * np.mod(angle, math.pi)
    return _from_lab(56 + 36 * radius * np.sin(turned), 52 * radius * np.cos(turned))


def _from_lab(lightness: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """sRGB of CIELAB colours with ``a* = 0``, cut to what a screen shows (CIE 15; IEC 61966-2-1; white D65)."""
    y = (lightness + 16) / 116
    scaled = np.stack(np.broadcast_arrays(y, y, y - b / 200), axis=-1)
    xyz = np.where(scaled > 6 / 29, scaled**3, 3 * (6 / 29) ** 2 * (scaled - 4 / 29)) * (0.95047, 1.0, 1.08883)
    linear = xyz @ np.linalg.inv([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    linear = linear.clip(0, 1)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear).clip(0, 1)


def slice_colour(
    directions: ArrayLike, strength: ArrayLike, across: int, up: int, code: str = "axes"
) -> NDArray[np.float64]:
    """RGB of directions as a slice shows them whose axes ``across`` and ``up`` are two of x, y, z (0, 1, 2).

    Parameters
    ----------
    directions
        Unit vectors ``(..., 3)``.
    strength
        In [0, 1], ``(...)``.
    across, up
        Axes of the slice.
    code
        ``"axes"`` is `axis_colour`, the same in all slices. ``"angle"`` is `cyclic_colour` of the angle in the slice,
        as strong as the direction lies in the slice (``strength (n_across² + n_up²)``).

    Examples
    --------
    >>> slice_colour([0.0, 1.0, 0.0], 1.0, 0, 1).tolist()
    [0.0, 1.0, 0.0]
    """
    first, second = integer(across, "across", high=2), integer(up, "up", high=2)
    if choice(code, "code", CODES) == "axes":
        return axis_colour(directions, strength)
    vectors, value = real_array(directions, "directions"), real_array(strength, "strength")
    check_shape(vectors.shape, "directions", (*value.shape, 3))
    a, b = vectors[..., first], vectors[..., second]
    return cyclic_colour(np.arctan2(b, a), value.clip(0, 1) * (a**2 + b**2).clip(0, 1))


# -- keys -------------------------------------------------------------------------------------------------------------


def ball(across: ArrayLike, up: ArrayLike, size: int = 160) -> NDArray[np.float64]:
    """RGBA picture ``(size, size, 4)`` of the unit sphere in the colours of `axis_colour`, row 0 at the bottom.

    Seen along ``-(across × up)``: pixel (row, column) shows the direction whose components along ``across`` and ``up``
    (orthogonal unit vectors) are ``column`` and ``row`` on a scale of -1 … 1; transparent outside.

    Examples
    --------
    >>> ball([1, 0, 0], [0, 1, 0], 3)[1].tolist()
    [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]]
    """
    right, high = real_array(across, "across", (3,)), real_array(up, "up", (3,))
    size = integer(size, "size", low=2, high=4096)
    b, a = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    square = a**2 + b**2
    towards = np.sqrt(np.maximum(1 - square, 0))
    directions = a[..., None] * right + b[..., None] * high + towards[..., None] * np.cross(right, high)
    inside = (square <= 1 + 1e-9).astype(float)
    return np.concatenate([axis_colour(directions, inside), inside[..., None]], axis=-1)


def draw_ball(axis: Any, across: ArrayLike, up: ArrayLike) -> None:
    """Draw the key of `axis_colour`: the sphere as seen, with x, y and z where they come out of it."""
    right, high = real_array(across, "across", (3,)), real_array(up, "up", (3,))
    towards = np.cross(right, high)
    axis.imshow(ball(right, high), origin="lower", extent=(-1, 1, -1, 1), interpolation="bilinear")
    for name, unit in zip("xyz", np.eye(3), strict=True):
        # Of each axis the end that is turned to the reader; both share a colour.
        end = unit if unit @ towards >= -1e-9 else -unit
        place = np.array([end @ right, end @ high])
        if np.hypot(*place) < 0.1:
            axis.plot(0, 0, "o", color="white", markersize=2.5)
            axis.text(-0.06, -0.06, name, ha="right", va="top", fontsize=LABEL, color="white", weight="bold")
            continue
        axis.plot(*np.transpose([0 * place, place]), color="white", linewidth=0.8, solid_capstyle="round")
        axis.text(*(1.25 * place / np.hypot(*place)), name, ha="center", va="center", fontsize=LABEL)
    _dress_key(axis, "colour of directions")


def draw_wheel(axis: Any, code: str = "hue", size: int = 160) -> None:
    """Draw the key of `cyclic_colour` (or with ``"hue"`` of `direction_colour`): an axis's colour lies along it.

    The radius is the strength. For ``"hue"`` the angle starts downward, as in detector images whose rows run down.
    """
    b, a = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(a, b)
    inside = (radius <= 1).astype(float)
    colours = (
        direction_colour(np.arctan2(a, -b), inside)
        if choice(code, "code", ("hue", "angle")) == "hue"
        else cyclic_colour(np.arctan2(b, a), radius)
    )
    axis.imshow(np.concatenate([colours, inside[..., None]], -1), origin="lower", extent=(-1, 1, -1, 1))
    _dress_key(axis, "angle in the slice" if code == "angle" else "")


def _dress_key(axis: Any, title: str) -> None:
    axis.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axis.set_axis_off()
    axis.text(0, -1.55, title, fontsize=TICK, ha="center", va="top")
