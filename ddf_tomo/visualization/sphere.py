"""Maps over the half sphere: where beams came from, and what they can tell."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import of_kind, real_array
from ddf_tomo._pictures import equal_area
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.observability import Observability
from ddf_tomo.visualization.style import (
    GREY,
    LABEL,
    STYLES,
    TICK,
    Style,
    colour_bar,
    colour_map,
    dress,
    limits,
    new_figure,
    style_of,
    write_figure,
)


def show_beams(
    geometry: Geometry,
    *,
    values: ArrayLike | None = None,
    quantity: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw the beam of every view as a point on the half sphere, seen from +z with equal areas.

    A beam and its opposite measure the same, so each is drawn where it has ``z ≥ 0``; beams in the xy plane are drawn
    at both ends. Empty areas are the missing wedge.

    Parameters
    ----------
    geometry
        Of the scan.
    values
        A number for each view to colour it by, such as `misfit_of_views`; by default the number of the view.
    quantity
        What the values are, of `style.STYLES`: ``"misfit"`` by default where values are given.
    path : optional
        PNG, PDF or SVG to write.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If there is not one number for each view.

    Examples
    --------
    >>> from ddf_tomo.phantoms import tilt_series
    >>> figure = show_beams(tilt_series((8, 8, 8)))
    >>> figure.axes[0].get_title()
    '255 beams'
    """
    of_kind(Geometry, geometry, "geometry")
    count = len(geometry)
    style = style_of(("view" if values is None else "misfit") if quantity is None else quantity)
    shown = np.arange(count) if values is None else real_array(values, "values", (count,))
    rim = np.abs(geometry.p[:, 2]) < 1e-6
    places = np.concatenate([equal_area(geometry.p), -equal_area(geometry.p[rim])])
    figure = new_figure(4.8, 3.9)
    axis = figure.subplots()
    draw_disc(axis, "xyz", rings=True)
    low, high = (0, max(count - 1, 1)) if values is None else limits(shown, style.limits)
    size = float(np.clip(4000 / max(count, 1), 5, 30))
    points = axis.scatter(
        *places.T, c=np.concatenate([shown, shown[rim]]), s=size, cmap=colour_map(style), vmin=low, vmax=high,
        edgecolors="0.3", linewidths=0.3, zorder=3, clip_on=False,
    )  # fmt: skip
    dress(axis, f"{count} beam{'' if count == 1 else 's'}")
    bar = colour_bar(figure, points, axis, style.titled, shrink=0.8)
    bar.ax.yaxis.get_major_locator().set_params(integer=values is None)
    return write_figure(figure, path)


def show_observability(report: Observability, *, path: str | os.PathLike[str] | None = None) -> Any:
    """Draw what an acquisition tells about structure in each direction ξ̂, over the half sphere as in `show_beams`.

    Four maps: how many views see the structure, the largest gap between them, the rank, and the condition of what they
    tell about the harmonics up to the highest order looked at.

    Parameters
    ----------
    report
        Made by `ddf_tomo.observability`.
    path : optional
        PNG, PDF or SVG to write.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse, observability
    >>> from ddf_tomo.phantoms import tilt_series
    >>> figure = show_observability(observability(tilt_series((8, 8, 8)), SecondMomentResponse(), 4))
    >>> len(figure.axes)  # four maps with their colour bars
    8
    """
    of_kind(Observability, report, "report")
    # Each pixel of the disc has the value of the nearest direction looked at.
    x, y = np.meshgrid(*[np.linspace(-1, 1, 240)] * 2)
    square = x**2 + y**2
    stretch = np.sqrt(np.maximum(2 - square, 0))
    seen_at = np.stack([x * stretch, y * stretch, np.maximum(1 - square, 0)], axis=-1)
    nearest = np.abs(seen_at @ report.directions.T).argmax(axis=-1)
    finite = np.isfinite(report.condition[:, -1])
    condition = np.where(finite, np.log10(np.where(finite, report.condition[:, -1], 1)), np.nan)
    count = int(report.coefficients[-1])
    best = f"rank up to ℓ = {report.ell_max}: {int(report.ideal_rank[-1])} of {count} at best"
    panels: tuple[tuple[str, Style, NDArray[Any], float | None], ...] = (
        (STYLES["seeing"].label, STYLES["seeing"], report.seeing.astype(float), None),
        (f"{STYLES['gap'].label} (°)", STYLES["gap"], np.degrees(report.gap_rad), 180.0),
        (best, STYLES["rank"], report.rank[:, -1].astype(float), float(count)),
        ("log₁₀ of the condition (grey: infinite)", STYLES["condition"], condition, None),
    )
    figure = new_figure(13.0, 3.0)
    for axis, (title, style, values, top) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        draw_disc(axis, "xyz")
        picture = np.ma.masked_where(square > 1, values[nearest])
        high = limits(values, "zero")[1] if top is None else top
        scale = {"vmin": 0.0, "vmax": high, "cmap": colour_map(style).with_extremes(bad=(0, 0, 0, 0))}
        drawn = axis.imshow(np.ma.masked_invalid(picture), origin="lower", extent=(-1, 1, -1, 1), zorder=2, **scale)
        colour_bar(figure, drawn, axis, "", shrink=0.75)
        dress(axis, title)
    return write_figure(figure, path)


def draw_disc(axis: Any, names: str = "xyz", rings: bool = False) -> None:
    """Draw the empty disc of `equal_area` with its axes; with ``rings`` also polar angles of 30° and 60°."""
    from matplotlib.patches import Circle

    axis.add_patch(Circle((0, 0), 1.0, facecolor="0.75" if not rings else "0.97", edgecolor=GREY, zorder=1))
    halo = {"facecolor": "0.97", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    for degrees in (30, 60) if rings else ():
        radius = np.sqrt(2) * np.sin(np.radians(degrees) / 2)
        axis.add_patch(Circle((0, 0), radius, fill=False, edgecolor="0.8", linewidth=0.6, zorder=2))
        turned = radius * np.sqrt(0.5)
        axis.text(turned, -turned, f"{degrees}°", fontsize=TICK, color="0.45", ha="left", va="top", zorder=5, bbox=halo)
    if rings:
        axis.plot([-1, 1, np.nan, 0, 0], [0, 0, np.nan, -1, 1], color="0.85", linewidth=0.6, zorder=2)
        axis.text(0.03, 0.03, names[2], fontsize=LABEL, zorder=4)
    axis.text(1.07, 0, names[0], va="center", fontsize=LABEL)
    axis.text(0, 1.07, names[1], ha="center", fontsize=LABEL)
    axis.set(aspect="equal", xlim=(-1.18, 1.18), ylim=(-1.08, 1.2), xticks=[], yticks=[])
    axis.set_frame_on(False)
