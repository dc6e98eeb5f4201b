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
    axes, beside = _places(*valid.shape)
    figure = axes[0].figure
    for axis, side, (title, value, quantity) in zip(axes, beside, pixels, strict=False):
        style = STYLES[quantity]
        low, high = limits(value[valid & np.isfinite(value)], style.limits)
        drawn = axis.imshow(value, cmap=colour_map(style), vmin=low, vmax=high, interpolation="nearest", aspect="equal")
        dress(axis, title)
        bar = colour_bar(figure, drawn, None, style.unit, cax=side.inset_axes([0.0, 0.0, 0.13, 1.0]))
        bar.ax.locator_params(nbins=4)
    difference = largest - smallest
    full = limits(difference[valid], "zero")[1]
    bright = np.where(valid, difference.clip(min=0) / full, 0) ** 0.5
    axes[-1].imshow(direction_colour(angle, bright), interpolation="nearest")
    dress(axes[-1], f"direction of strongest blur (brightest: {full**0.5:.2g} pixels)")
    draw_wheel(beside[-1])
    return write_figure(figure, path)


def _places(rows: int, columns: int) -> tuple[list[Any], list[Any]]:
    """Axes for six images of this shape, and beside each one for its key: below each other if they are wide."""
    across = 1 if columns > 2 * rows else 3
    width = 11.0 if across == 1 else 3.6
    height = max(width * rows / columns, 0.4)
    figure = new_figure(across * (width + 1.0), 6 / across * (min(height, 12.0) + 0.55))
    places = figure.add_gridspec(6 // across, 2 * across, width_ratios=[width, 0.7] * across)
    grid = [[figure.add_subplot(places[n // across, 2 * (n % across) + m]) for n in range(6)] for m in (0, 1)]
    for key in grid[1]:
        key.set_axis_off()
    return grid[0], grid[1]
