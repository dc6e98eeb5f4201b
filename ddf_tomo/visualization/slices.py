"""Slices through volumes: numbers as a colour scale, directions as colours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, choice, message, of_kind, real_array, sequence_of
from ddf_tomo.derived import Derived
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.visualization._planes import Plane, edge_of_a_voxel, panel_sizes, planes
from ddf_tomo.visualization.colours import CODES, draw_ball, draw_wheel, slice_colour
from ddf_tomo.visualization.style import (
    UNKNOWN,
    Style,
    colour_bar,
    colour_map,
    data_unit,
    dress,
    limits,
    new_figure,
    style_of,
    write_figure,
)

OBLIQUE = (np.array([-1.0, 1.0, 0.0]) / np.sqrt(2), np.array([-1.0, -1.0, 2.0]) / np.sqrt(6))
"""Right and up of a picture seen from (1, 1, 1)."""
OF_DERIVED = ("mean", "fractional_anisotropy", "relative_anisotropy", "order_parameter")
WHERE_VALID = ("fractional_anisotropy", "relative_anisotropy", "order_parameter")


def show_slices(
    volumes: Any,
    path: str | os.PathLike[str] | None = None,
    unit: str = "",
    *,
    quantity: str | Sequence[str] | None = None,
    at: Sequence[int] | None = None,
    voxel_size_m: float | None = None,
) -> Any:
    """Draw slices of scalar volumes through the middle, normal to z, y and x.

    Parameters
    ----------
    volumes
        By their titles, one row of the figure each, on a common scale: arrays ``(x, y, z)`` or reconstructions. Or one
        `Reconstruction`, with one row and one scale for each quantity.
    path : optional
        PNG, PDF or SVG to write.
    unit
        For the colour bar, instead of the one of the quantity.
    quantity
        Of `style.STYLES`, which decides colour map, limits, label and unit: of a reconstruction ``"mean"``,
        ``"fractional_anisotropy"``, ``"strength"`` (mean times anisotropy), …, or several of them; of arrays whatever
        they hold, by default just a ``"scalar"``.
    at
        Voxel (x, y, z) through which to cut, the middle by default.
    voxel_size_m
        Edge of a voxel in metres; a reconstruction knows its own. Axes then carry lengths from the volume's centre.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If there is no volume, or one has not three axes, or no voxel, or numbers that are not finite.

    Examples
    --------
    >>> len(show_slices({"ramp": np.arange(60.0).reshape(3, 4, 5)}).axes)
    4
    """
    of_kind(str, unit, "unit")
    voxel_size_m = edge_of_a_voxel(voxel_size_m)
    rows: dict[str, tuple[NDArray[Any], Style, float | None]] = {}
    if isinstance(volumes, Reconstruction):
        several = ("mean", "fractional_anisotropy") if quantity is None else quantity
        names = [several] if isinstance(several, str) else sequence_of(str, several, "quantity")
        for name in names:
            style = style_of(name).in_units_of(data_unit(volumes.provenance))
            rows[style.label] = (scalars_of(volumes, name), style, volumes.voxel_size_m)
        common = False
    else:
        _check_mapping(volumes)
        fallback = "mean" if any(isinstance(v, Reconstruction) for v in volumes.values()) else "scalar"
        name = fallback if quantity is None else quantity
        style = style_of(name)
        for title, volume in volumes.items():
            if isinstance(volume, Reconstruction):
                style = style.in_units_of(data_unit(volume.provenance))
                rows[str(title)] = (scalars_of(volume, str(name)), style, volume.voxel_size_m)
            else:
                rows[str(title)] = (real_array(volume, str(title), (None, None, None)), style, voxel_size_m)
        style = style.in_units_of(UNKNOWN)  # of arrays alone
        rows = {title: (values, style, size) for title, (values, _, size) in rows.items()}
        common = True
    cuts = [planes(values.shape, at, size or voxel_size_m) for values, _, size in rows.values()]
    figure, grid, _ = _grid(cuts, 0.9)
    everything = np.concatenate([values.ravel() for values, _, _ in rows.values()]) if common else np.empty(0)
    for row, own, (title, (values, style, _)) in zip(grid, cuts, rows.items(), strict=True):
        low, high = limits(everything if common else values, style.limits)
        scale = {"cmap": colour_map(style), "vmin": low, "vmax": high}
        for axis, plane in zip(row, own, strict=False):
            drawn = _draw(axis, plane, values, title if axis is row[0] else "", scale)
        if not common:
            colour_bar(figure, drawn, list(row), style.unit or style.label, fraction=0.04)
    if common:
        label = (style.label if name != "scalar" else "", unit or style.unit)
        text = f"{label[0]} ({label[1]})" if all(label) else label[0] or label[1]
        colour_bar(figure, drawn, list(np.ravel(grid)), text, fraction=0.04)
    return write_figure(figure, path)


def scalars_of(reconstruction: Reconstruction, quantity: str) -> NDArray[Any]:
    """A scalar volume ``(x, y, z)`` of a reconstruction by its name; NaN where it would describe noise.

    Parameters
    ----------
    reconstruction
        With ``derived()``.
    quantity
        ``"mean"``, ``"fractional_anisotropy"``, ``"strength"``, ….

    Examples
    --------
    >>> from ddf_tomo import Geometry, SecondMomentResponse
    >>> geometry = Geometry.from_angles(0.0, 0.0, (3, 4, 5), (3, 5))
    >>> volume = Reconstruction(np.ones((3, 4, 5, 1)), 0, geometry, SecondMomentResponse())
    >>> float(scalars_of(volume, "mean").max())
    1.0
    """
    of_kind(Reconstruction, reconstruction, "reconstruction")
    if choice(quantity, "quantity", ("strength", *OF_DERIVED)) == "strength":
        return strength_of(reconstruction.derived())
    derived = reconstruction.derived()
    values: NDArray[Any] = getattr(derived, quantity)
    return np.where(derived.valid, values, np.nan) if quantity in WHERE_VALID else values


def strength_of(derived: Derived) -> NDArray[np.float64]:
    """Mean times fractional anisotropy, zero where not valid: how much of the scattering has a direction; (x, y, z).

    Examples
    --------
    >>> from ddf_tomo.derived import derive
    >>> float(strength_of(derive(np.ones((1, 1, 1, 1))))[0, 0, 0])
    0.0
    """
    of_kind(Derived, derived, "derived")
    return np.where(derived.valid, derived.mean * derived.fractional_anisotropy, 0.0)


def show_directions(
    volumes: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    code: str = "axes",
    at: Sequence[int] | None = None,
    voxel_size_m: float | None = None,
) -> Any:
    """Draw slices coloured by principal direction, brighter where more of the scattering is directed, with a key.

    Parameters
    ----------
    volumes
        A `Reconstruction`; or by their titles, one row each, reconstructions, their `Derived`, or pairs of directions
        ``(x, y, z, 3)`` and strengths ``(x, y, z)``, for example mean times anisotropy. Each row is as bright as its
        own 99.5th percentile.
    path : optional
        PNG, PDF or SVG to write.
    code
        ``"axes"``: red along x, green along y, blue along z (`axis_colour`); ``"angle"``: angle within each slice for
        readers of any colour vision (`cyclic_colour`).
    at, voxel_size_m
        As in `show_slices`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If there is no volume, or shapes do not fit.

    Examples
    --------
    >>> directions = np.broadcast_to([1.0, 0.0, 0.0], (3, 4, 5, 3))
    >>> len(show_directions({"along x": (directions, np.ones((3, 4, 5)))}).axes)  # three slices and the key
    4
    """
    choice(code, "code", CODES)
    voxel_size_m = edge_of_a_voxel(voxel_size_m)
    if isinstance(volumes, (Reconstruction, Derived)):
        volumes = {"principal direction": volumes}
    _check_mapping(volumes)
    rows = {str(title): _directions(str(title), volume, voxel_size_m) for title, volume in volumes.items()}
    cuts = [planes(strength.shape, at, size) for _, strength, size in rows.values()]
    figure, grid, key = _grid(cuts, 1.3, key=True)
    for row, own, (title, (directions, strength, _)) in zip(grid, cuts, rows.items(), strict=True):
        bright = strength / limits(strength[strength > 0], "zero")[1]
        for axis, plane in zip(row, own, strict=False):
            colours = slice_colour(directions, bright, plane.across, plane.up, code)
            _draw(axis, plane, colours, title if axis is row[0] else "", {})
    if code == "axes":
        draw_ball(key, *OBLIQUE)
    else:
        draw_wheel(key, "angle")
    return write_figure(figure, path)


def _directions(title: str, volume: Any, voxel_size_m: float | None) -> tuple[Any, NDArray[Any], float | None]:
    if isinstance(volume, Reconstruction):
        return *_directions(title, volume.derived(), None)[:2], volume.voxel_size_m or voxel_size_m
    if isinstance(volume, Derived):
        return volume.direction, strength_of(volume), voxel_size_m
    if not isinstance(volume, (tuple, list)) or len(volume) != 2:
        wanted = "a Reconstruction, or a pair of directions and strengths"
        raise ValueError(message(f"volumes[{title!r}]", wanted, type(volume).__name__))
    strength = real_array(volume[1], "strength", (None, None, None))
    directions = real_array(volume[0], "directions")
    check_shape(directions.shape, "directions", (*strength.shape, 3))
    return directions, strength, voxel_size_m


def _check_mapping(volumes: Any) -> None:
    if not isinstance(volumes, Mapping):
        wanted = "a Reconstruction, or a mapping of titles to volumes"
        raise TypeError(message("volumes", wanted, type(volumes).__name__))
    if not volumes:
        raise ValueError(message("volumes", "at least one volume", "none"))


def _grid(cuts: Sequence[Sequence[Plane]], side: float, key: bool = False) -> tuple[Any, NDArray[Any], Any]:
    """A figure with one row of panels for each row of planes, and on demand a place for a key beside them."""
    widths, heights = panel_sizes(cuts)
    figure = new_figure(sum(widths) + 0.55 * len(widths) + side, sum(heights) + 0.9 * len(heights))
    ratios = [*widths, 1.1] if key else widths
    places = figure.add_gridspec(len(cuts), len(ratios), width_ratios=ratios, height_ratios=heights)
    grid = np.array([[figure.add_subplot(places[r, c]) for c in range(len(widths))] for r in range(len(cuts))])
    for row, own in zip(grid, cuts, strict=True):
        for axis in row[len(own) :]:
            axis.set_axis_off()
    return figure, grid, figure.add_subplot(places[:, -1]) if key else None


def _draw(axis: Any, plane: Plane, volume: NDArray[Any], title: str, scale: dict[str, Any]) -> Any:
    dress(axis, f"{title}\n{plane.title()}" if title else plane.title(), *plane.labels())
    axis.locator_params(nbins=5, integer=plane.voxel_size_m is None)
    return axis.imshow(plane.cut(volume), origin="lower", extent=plane.extent, interpolation="nearest", **scale)
