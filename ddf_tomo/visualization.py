"""Figures: directions as colours, and the maps of a retrieval. Matplotlib is imported where it draws."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_broadcast, check_shape, integer, message, neighbour, of_kind, real_array
from ddf_tomo._files import replaced_when_complete

if TYPE_CHECKING:
    from ddf_tomo.retrieval import Maps

TURN = 2 * math.pi


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


def show_maps(maps: Maps, path: str | os.PathLike[str] | None = None, view: int = 0) -> Any:
    """Draw transmission, displacement, blur and its direction with the standard error of the blur.

    Parameters
    ----------
    maps : Maps
        Of one view or several.
    path : optional
        PNG, PDF, ... to write; the figure is then closed.
    view : int
        Which view of several, counted over all leading axes.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from ddf_tomo.datasets import four_rods
    >>> from ddf_tomo.retrieval import retrieve
    >>> rods = four_rods()
    >>> figure = show_maps(retrieve(rods.sample[..., 1100:1200], rods.reference[..., 1100:1200]))
    >>> len(figure.axes) >= 6
    True
    """
    neighbour("matplotlib")
    from matplotlib.figure import Figure

    from ddf_tomo.retrieval import Maps

    of_kind(Maps, maps, "maps")
    view = integer(view, "view")

    def image(value: Any, channels: int = 0) -> NDArray[Any]:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        stack = array.reshape(-1, *array.shape[array.ndim - 2 - channels :])
        if not 0 <= view < len(stack):
            raise ValueError(message("view", f"an integer in [0, {len(stack) - 1}]", view))
        return stack[view]

    valid = image(maps.valid)
    direction = maps.direction()
    largest, smallest, angle = (image(part) for part in (direction.largest, direction.smallest, direction.angle_rad))
    difference = largest - smallest
    error = image(maps.covariance_error, 1)
    pixels = [
        ("transmission T", image(maps.transmission), "gray", "share"),
        ("displacement down, u_j", image(maps.displacement, 1)[..., 0], "RdBu_r", "pixels"),
        ("displacement right, u_k", image(maps.displacement, 1)[..., 1], "RdBu_r", "pixels"),
        ("blur, C_jj + C_kk", largest + smallest, "magma", "pixels²"),
        ("its standard error (bound)", np.where(valid, error[..., 0] + error[..., 2], np.nan), "magma", "pixels²"),
    ]
    rows, columns = valid.shape
    wide = columns > 2 * rows
    count = len(pixels) + 1
    grid = (count, 1) if wide else (2, count // 2)
    panel = (11.0, max(11.0 * rows / columns, 0.45) + 0.5) if wide else (4.2, 4.2 * rows / columns + 0.5)
    figure = Figure(figsize=(grid[1] * panel[0], grid[0] * panel[1]), layout="constrained")
    axes = np.ravel(np.asarray(figure.subplots(*grid)))
    for axis, (title, value, colours, unit) in zip(axes, pixels, strict=False):
        low, high = _range(value[valid & np.isfinite(value)], colours == "RdBu_r")
        drawn = axis.imshow(value, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect="equal")
        axis.set_title(title, fontsize=9)
        figure.colorbar(drawn, ax=axis, label=unit, fraction=0.05, pad=0.01)
    full = _range(difference[valid], False)[1]
    axes[-1].imshow(
        direction_colour(angle, np.where(valid, difference.clip(min=0) / full, 0) ** 0.5), interpolation="nearest"
    )
    axes[-1].set_title(
        f"direction of strongest blur (value: root of the eigenvalue difference, full at {full**0.5:.2g} pixels)",
        fontsize=9,
    )
    for axis in axes:
        axis.tick_params(labelsize=7)
    _draw_wheel(figure, axes[-1])
    _write(figure, path)
    return figure


def _range(values: NDArray[Any], symmetric: bool) -> tuple[float, float]:
    """Range that holds 98 % of the values, never empty."""
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(edge) for edge in np.percentile(values, (1, 99)))
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    return (low, high) if high > low else (low, low + 1)


def _draw_wheel(figure: Any, axis: Any, size: int = 64) -> None:
    """Key of the colours, beside the picture: the colour of an axis is drawn along that axis."""
    down, right = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(down, right)
    wheel = direction_colour(np.arctan2(right, down), radius <= 1)
    key = axis.inset_axes([1.01, 0.0, 0.1, 1.0])
    key.imshow(np.concatenate([wheel, (radius <= 1)[..., None]], axis=-1))
    key.set_axis_off()


def axis_colour(directions: ArrayLike, strength: ArrayLike) -> NDArray[np.float64]:
    """RGB in [0, 1], ``(..., 3)``, of axes in space: red along x, green along y, blue along z, black without strength.

    The direction-encoded colour of diffusion imaging [Pajevic & Pierpaoli 1999, Magn. Reson. Med. 42, 526].

    Parameters
    ----------
    directions
        Unit vectors, ``(..., 3)``; opposite ones share a colour.
    strength
        Brightness ``(...)``, clipped to [0, 1].

    Examples
    --------
    >>> axis_colour([0.0, 0.0, -1.0], 0.5).tolist()
    [0.0, 0.0, 0.5]
    """
    axes, value = np.abs(real_array(directions, "directions")), real_array(strength, "strength").clip(0, 1)
    check_shape(axes.shape, "directions", (*value.shape, 3))
    # The largest component is brought to full brightness, so that strength alone decides how bright a colour is.
    return axes / np.maximum(axes.max(axis=-1, keepdims=True), np.finfo(float).tiny) * value[..., None]


def show_slices(volumes: Mapping[str, ArrayLike], path: str | os.PathLike[str] | None = None, unit: str = "") -> Any:
    """Draw the three middle slices of each volume on a common grey scale.

    Parameters
    ----------
    volumes
        Scalar volumes ``(x, y, z)`` by their titles, one row of the figure each.
    path : optional
        PNG, PDF, ... to write.
    unit
        For the colour bar.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> len(show_slices({"ramp": np.arange(60.0).reshape(3, 4, 5)}).axes)
    4
    """
    of_kind(Mapping, volumes, "volumes", "a mapping of titles to volumes")
    values = {title: real_array(volume, title, (None, None, None)) for title, volume in volumes.items()}
    if not values:
        raise ValueError(message("volumes", "at least one volume", "none"))
    low, high = _range(np.concatenate([volume.ravel() for volume in values.values()]), False)
    return _draw_middle_slices(values, path, {"cmap": "gray", "vmin": low, "vmax": high}, unit)


def show_directions(
    volumes: Mapping[str, tuple[ArrayLike, ArrayLike]], path: str | os.PathLike[str] | None = None
) -> Any:
    """Draw the three middle slices of each volume, coloured by direction (`axis_colour`).

    Parameters
    ----------
    volumes
        By their titles: directions ``(x, y, z, 3)`` and strengths ``(x, y, z)``, for example mean times anisotropy.
        Each volume is as bright as its own 99th percentile.
    path : optional
        PNG, PDF, ... to write.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> directions = np.broadcast_to([1.0, 0.0, 0.0], (3, 4, 5, 3))
    >>> len(show_directions({"along x": (directions, np.ones((3, 4, 5)))}).axes)
    3
    """
    of_kind(Mapping, volumes, "volumes", "a mapping of titles to directions and strengths")
    pictures = {}
    for title, pair in volumes.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(message(f"volumes[{title!r}]", "a pair of directions and strengths", type(pair).__name__))
        directions, strength = pair
        value = real_array(strength, "strength", (None, None, None))
        pictures[title] = axis_colour(directions, value / _range(value[value > 0], False)[1])
    figure = _draw_middle_slices(pictures, path=None, style={}, unit=None)
    figure.suptitle("red: along x, green: along y, blue: along z; brighter: more anisotropic scattering", fontsize=9)
    _write(figure, path)
    return figure


def _draw_middle_slices(volumes: Mapping[str, Any], path: Any, style: dict[str, Any], unit: str | None) -> Any:
    neighbour("matplotlib")
    from matplotlib.figure import Figure

    if not volumes:
        raise ValueError(message("volumes", "at least one volume", "none"))
    figure = Figure(figsize=(9.0, 2.9 * len(volumes) + 0.4), layout="constrained")
    grid = figure.subplots(len(volumes), 3, squeeze=False)
    for row, (title, volume) in zip(grid, volumes.items(), strict=True):
        for axis, fixed in zip(row, (2, 1, 0), strict=True):
            across, up = (n for n in range(3) if n != fixed)
            middle = np.take(volume, volume.shape[fixed] // 2, axis=fixed)
            drawn = axis.imshow(np.swapaxes(middle, 0, 1), origin="lower", interpolation="nearest", **style)
            axis.set_xlabel(f"{'xyz'[across]} (voxels)", fontsize=8)
            axis.set_ylabel(f"{'xyz'[up]} (voxels)", fontsize=8)
            axis.set_title(f"{title}, {'xyz'[fixed]} = {volume.shape[fixed] // 2}", fontsize=9)
            axis.tick_params(labelsize=7)
        if unit is not None:
            figure.colorbar(drawn, ax=row, label=unit, fraction=0.02, pad=0.01)
    _write(figure, path)
    return figure


def _write(figure: Any, path: str | os.PathLike[str] | None) -> None:
    if path is not None:
        with replaced_when_complete(path) as partial:
            figure.savefig(partial, dpi=150, format=os.path.splitext(os.fspath(path))[1][1:] or "png")
