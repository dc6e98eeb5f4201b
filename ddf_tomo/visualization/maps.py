"""Figures of a retrieval: transmission, displacement, blur and its direction."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import integer, message, neighbour, of_kind
from ddf_tomo.visualization.colours import direction_colour, draw_wheel
from ddf_tomo.visualization.style import (
    STYLES,
    as_array,
    colour_bar,
    colour_map,
    dress,
    limits,
    new_figure,
    write_figure,
)

if TYPE_CHECKING:
    from ddf_tomo.retrieval import Maps


def show_maps(maps: Maps, path: str | os.PathLike[str] | None = None, view: int = 0) -> Any:
    """Draw transmission, displacement, blur and its direction with the standard error of the blur.

    Parameters
    ----------
    maps : Maps
        Of one view or several.
    path : optional
        PNG, PDF or SVG to write.
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
    from ddf_tomo.retrieval import Maps

    of_kind(Maps, maps, "maps")
    view = integer(view, "view")

    def image(value: Any, channels: int = 0) -> NDArray[Any]:
        array = as_array(value)
        stack = array.reshape(-1, *array.shape[array.ndim - 2 - channels :])
        if not 0 <= view < len(stack):
            raise ValueError(message("view", f"an integer in [0, {len(stack) - 1}]", view))
        return stack[view]

    valid = image(maps.valid)
    direction = maps.direction()
    largest, smallest, angle = (image(part) for part in (direction.largest, direction.smallest, direction.angle_rad))
    error = image(maps.covariance_error, 1)
    pixels = [
        ("transmission T", image(maps.transmission), "transmission"),
        ("displacement down, u_j", image(maps.displacement, 1)[..., 0], "displacement"),
        ("displacement right, u_k", image(maps.displacement, 1)[..., 1], "displacement"),
        ("blur, C_jj + C_kk", largest + smallest, "blur"),
        ("its standard error (bound)", np.where(valid, error[..., 0] + error[..., 2], np.nan), "blur"),
    ]
    rows, columns = valid.shape
    wide = columns > 2 * rows
    count = len(pixels) + 1
    grid = (count, 1) if wide else (2, count // 2)
    panel = (11.0, max(11.0 * rows / columns, 0.45) + 0.5) if wide else (4.2, 4.2 * rows / columns + 0.5)
    figure = new_figure(grid[1] * panel[0], grid[0] * panel[1])
    axes = np.ravel(np.asarray(figure.subplots(*grid)))
    for axis, (title, value, quantity) in zip(axes, pixels, strict=False):
        style = STYLES[quantity]
        low, high = limits(value[valid & np.isfinite(value)], style.limits)
        drawn = axis.imshow(value, cmap=colour_map(style), vmin=low, vmax=high, interpolation="nearest", aspect="equal")
        dress(axis, title)
        colour_bar(figure, drawn, axis, style.unit, pad=0.01)
    difference = largest - smallest
    full = limits(difference[valid], "zero")[1]
    bright = np.where(valid, difference.clip(min=0) / full, 0) ** 0.5
    axes[-1].imshow(direction_colour(angle, bright), interpolation="nearest")
    title = "direction of strongest blur" + (": value is the root of the eigenvalue difference" if wide else "")
    dress(axes[-1], f"{title}, full at {full**0.5:.2g} pixels")
    draw_wheel(axes[-1].inset_axes([1.01, 0.0, 0.1, 1.0]))
    return write_figure(figure, path)
