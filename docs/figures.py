"""Draws the figures of the manual: ``python docs/figures.py`` (or ``make figures``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ddf_tomo import Geometry

FOLDER = Path(__file__).parent / "figures"
BEAM, J, K, GREY = "#d55e00", "#0072b2", "#009e73", "0.6"
ROWS, COLUMNS = 4, 6


def view_in_space(axes, geometry: Geometry) -> None:
    """The cube of voxels with its axes, and the detector of one view behind it, all from the geometry itself."""
    half = np.array(geometry.volume_shape) / 2
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    for a in corners:
        for b in corners:
            if np.count_nonzero(a != b) == 1:
                axes.plot(*np.transpose([a, b]), color=GREY, linewidth=0.8)
    for direction, name in zip(np.eye(3), "xyz", strict=True):
        axes.plot(*np.transpose([np.zeros(3), 1.5 * half * direction]), color="black", linewidth=1)
        axes.text(*(1.65 * half * direction), name, ha="center", va="center")
    p, j, k = geometry.p[0], geometry.j[0], geometry.k[0]
    plane = geometry.pixel_centres()[0] + 8 * p
    for row in range(ROWS + 1):
        ends = plane[0, 0] + (row - 0.5) * j - 0.5 * k, plane[0, -1] + (row - 0.5) * j + 0.5 * k
        axes.plot(*np.transpose(ends), color=GREY, linewidth=0.6)
    for column in range(COLUMNS + 1):
        ends = plane[0, 0] + (column - 0.5) * k - 0.5 * j, plane[-1, 0] + (column - 0.5) * k + 0.5 * j
        axes.plot(*np.transpose(ends), color=GREY, linewidth=0.6)
    axes.scatter(*plane[0, 0], color="black", s=18)
    axes.text(*(plane[0, 0] - 0.9 * j - 0.9 * k), "pixel (0, 0)", ha="center", fontsize=8)
    axes.quiver(*(-7 * p), *(14.6 * p), color=BEAM, arrow_length_ratio=0.06, linewidth=1.6)
    axes.text(*(-7 * p + 0.9 * k), "p, the beam", color=BEAM, ha="center")
    for direction, colour, name, length in ((j, J, "j", ROWS), (k, K, "k", COLUMNS)):
        axes.quiver(*plane[0, 0], *(length * direction), color=colour, arrow_length_ratio=0.12, linewidth=1.8)
        axes.text(*(plane[0, 0] + (length + 0.9) * direction), name, color=colour, ha="center", va="center")
    axes.set_box_aspect((1, 1, 1), zoom=1.6)
    axes.set(xlim=(-8, 8), ylim=(-8, 8), zlim=(-8, 8))
    axes.view_init(
        elev=24, azim=np.degrees(np.arctan2(p[1], p[0])) - 130
    )  # seen from behind the source, the beam runs to the right
    axes.set_axis_off()
    axes.set_title("a view, in the frame of the sample", fontsize=10)


def detector(axes) -> None:
    """The detector as an array: which index is which axis, where angles start, and where they run to."""
    axes.imshow(np.add.outer(np.arange(ROWS), np.arange(COLUMNS)), cmap=colormaps["Greys"], vmin=-4, vmax=30)
    axes.set_xticks(range(COLUMNS))
    axes.set_yticks(range(ROWS))
    axes.xaxis.tick_top()
    arrow = {"arrowstyle": "-|>", "linewidth": 1.8}
    axes.annotate("", (0, ROWS - 0.6), (0, 0), arrowprops={**arrow, "color": J})
    axes.annotate("", (COLUMNS - 0.6, 0), (0, 0), arrowprops={**arrow, "color": K})
    axes.text(0.25, ROWS - 0.75, "j, index a", color=J, ha="left")
    axes.text(COLUMNS - 0.7, 0.45, "k, index b", color=K, ha="right")
    origin, radius = np.array([2.5, 1.5]), 1.2
    angle = np.linspace(0, np.radians(55), 40)
    axes.plot(origin[0] + radius * np.sin(angle), origin[1] + radius * np.cos(angle), color="black", linewidth=1)
    tip = origin + 1.9 * radius * np.array([np.sin(angle[-1]), np.cos(angle[-1])])
    axes.annotate("", tip, origin, arrowprops={**arrow, "color": "black"})
    axes.plot([origin[0]] * 2, [origin[1], origin[1] + 1.6], color="black", linewidth=0.8, linestyle=":")
    axes.text(origin[0] + 0.55, origin[1] + 1.3, "φ", ha="center")
    axes.text(tip[0] + 0.1, tip[1] + 0.2, "e(φ)", ha="left")
    axes.scatter(*origin, color="black", s=12)
    axes.text(origin[0] - 0.1, origin[1] - 0.2, "centre", fontsize=8, ha="right")
    axes.set_title("projections[v, a, b], printed as a matrix", fontsize=10)


def sphere_of_beams(axes) -> None:
    """Beams of tilt series, as `Geometry.plot` draws them."""
    tilts = np.radians([0, 15, 30, 45])
    series = [
        Geometry.from_angles(np.linspace(0, 2 * np.pi if tilt else np.pi, 24, endpoint=False), tilt, (8, 8, 8), (8, 8))
        for tilt in tilts
    ]
    Geometry.concatenate(series).plot(axes)
    axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
    axes.set_title("beams of tilt series to 45°", fontsize=10)


def conventions() -> Figure:
    """The figure of the page on conventions."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    geometry = Geometry.from_angles([0.5], [0.35], (6, 6, 6), (ROWS, COLUMNS))
    view_in_space(figure.add_subplot(1, 3, 1, projection="3d"), geometry)
    detector(figure.add_subplot(1, 3, 2))
    sphere_of_beams(figure.add_subplot(1, 3, 3, projection="3d"))
    return figure


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for drawing in (conventions,):
        path = FOLDER / f"{drawing.__name__}.png"
        drawing().savefig(path)
        print(path)
