"""Draws the figures of the manual: ``python docs/figures.py`` (or ``make figures``).

Every arrow, pixel and colour comes from the objects of the package, so that a figure cannot say something else than the
code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import ddf_tomo as dt
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, orders
from ddf_tomo.phantoms import simulate, tilt_series
from ddf_tomo.visualization import show_glyphs

FOLDER = Path(__file__).parent / "figures"
BEAM, J, K, INK, GREY = "#d55e00", "#0072b2", "#009e73", "0.1", "0.6"
ROWS, COLUMNS = 4, 6
ELL_MAX = 8  # up to which responses are drawn
UNROTATED = dt.Geometry.from_angles([0.0], [0.0], (6, 6, 6), (ROWS, COLUMNS))
ARROW = {"arrowstyle": "-|>", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}


# -- axes and signs ---------------------------------------------------------------------------------------------------


def view_in_space(axes, geometry: dt.Geometry) -> None:
    """The cube of voxels with its axes, and the detector of one view behind it, all from the geometry itself."""
    half = np.array(geometry.volume_shape) / 2
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    for a in corners:
        for b in corners:
            if np.count_nonzero(a != b) == 1:
                axes.plot(*np.transpose([a, b]), color=GREY, linewidth=0.8)
    for direction, name in zip(np.eye(3), "xyz", strict=True):
        axes.plot(*np.transpose([np.zeros(3), 1.5 * half * direction]), color=INK, linewidth=1)
        axes.text(*(1.7 * half * direction), name, ha="center", va="center", fontsize=12)
    p, j, k = geometry.p[0], geometry.j[0], geometry.k[0]
    plane = geometry.pixel_centres()[0] + 9 * p
    for row in range(ROWS + 1):
        ends = plane[0, 0] + (row - 0.5) * j - 0.5 * k, plane[0, -1] + (row - 0.5) * j + 0.5 * k
        axes.plot(*np.transpose(ends), color=GREY, linewidth=0.6)
    for column in range(COLUMNS + 1):
        ends = plane[0, 0] + (column - 0.5) * k - 0.5 * j, plane[-1, 0] + (column - 0.5) * k + 0.5 * j
        axes.plot(*np.transpose(ends), color=GREY, linewidth=0.6)
    axes.scatter(*plane[0, 0], color=INK, s=18)
    axes.text(*(plane[0, 0] - 1.7 * k), "pixel (0, 0)", ha="center", va="top", fontsize=9)
    axes.quiver(*(-8 * p), *(17 * p), color=BEAM, arrow_length_ratio=0.05, linewidth=1.8)
    axes.text(*(-8 * p + 0.9 * k), "p, the beam", color=BEAM, ha="left", fontsize=11)
    for direction, colour, name, length in ((j, J, "j", ROWS), (k, K, "k", COLUMNS)):
        axes.quiver(*plane[0, 0], *(length * direction), color=colour, arrow_length_ratio=0.12, linewidth=2)
        axes.text(*(plane[0, 0] + (length + 0.9) * direction), name, color=colour, ha="center", va="center", size=13)
    axes.set_box_aspect((1, 1, 1), zoom=1.55)
    middle = 2 * p  # of what is drawn
    axes.set(**{f"{name}lim": (centre - 8, centre + 8) for name, centre in zip("xyz", middle, strict=True)})
    # Seen from behind the source, the beam runs to the right.
    axes.view_init(elev=24, azim=np.degrees(np.arctan2(p[1], p[0])) - 112)
    axes.set_axis_off()
    axes.set_title("a view, in the frame of the sample", fontsize=11)


def detector(axes) -> None:
    """The detector as an array: which index is which axis, where angles start, and where they run to."""
    axes.imshow(np.add.outer(np.arange(ROWS), np.arange(COLUMNS)), cmap="Greys", vmin=-4, vmax=30)
    axes.set_xticks(range(COLUMNS))
    axes.set_yticks(range(ROWS))
    axes.xaxis.tick_top()
    axes.annotate("", (0, ROWS - 0.6), (0, 0), arrowprops={**ARROW, "color": J})
    axes.annotate("", (COLUMNS - 0.6, 0), (0, 0), arrowprops={**ARROW, "color": K})
    axes.text(0.2, ROWS - 0.75, "j, index a", color=J, ha="left", fontsize=11)
    axes.text(COLUMNS - 0.7, 0.4, "k, index b", color=K, ha="right", fontsize=11)
    origin, radius = np.array([2.5, 1.5]), 1.2
    angle = np.linspace(0, np.radians(55), 40)
    axes.plot(origin[0] + radius * np.sin(angle), origin[1] + radius * np.cos(angle), color=INK, linewidth=1)
    tip = origin + 1.9 * radius * np.array([np.sin(angle[-1]), np.cos(angle[-1])])
    axes.annotate("", tip, origin, arrowprops={**ARROW, "color": INK})
    axes.plot([origin[0]] * 2, [origin[1], origin[1] + 1.6], color=INK, linewidth=0.8, linestyle=":")
    axes.text(origin[0] + 0.55, origin[1] + 1.3, "φ", ha="center", fontsize=12)
    axes.text(tip[0] + 0.05, tip[1] + 0.3, "e(φ)", ha="left", fontsize=11)
    axes.scatter(*origin, color=INK, s=12)
    axes.text(origin[0] - 0.1, origin[1] - 0.2, "centre", fontsize=9, ha="right")
    axes.set_title("projections[v, a, b], printed as a matrix", fontsize=11)


def turning(axes) -> None:
    """Which way beam and detector turn about the resting sample when the inner angle grows, seen from +z."""
    axes.add_patch(_square(3.0))
    for name, direction in (("x", (1, 0)), ("y", (0, 1))):
        tip = 4.6 * np.array(direction)
        axes.annotate("", tip, (0, 0), arrowprops={**ARROW, "linewidth": 1, "color": INK})
        axes.text(*(1.1 * tip), name, ha="center", va="center", fontsize=12)
    for degrees, style, strength in ((0, "-", 1.0), (40, "-", 0.55)):
        view = dt.Geometry.from_angles(np.radians([degrees]), 0.0, (6, 6, 6), (ROWS, COLUMNS))
        p, j = view.p[0, :2], view.j[0, :2]
        options = {**ARROW, "alpha": strength, "linestyle": style}
        axes.annotate("", -2.6 * p, -8 * p, arrowprops={**options, "color": BEAM})
        axes.plot(*np.transpose([6.5 * p - 3 * j, 6.5 * p + 3 * j]), color=GREY, linewidth=4, alpha=strength)
        axes.annotate("", 6.5 * p + 3 * j, 6.5 * p - 3 * j, arrowprops={**options, "color": J})
        axes.text(*(-8.9 * p), f"p at {degrees}°", color=BEAM, ha="center", va="center", fontsize=10)
        axes.text(*(6.5 * p + 3.7 * j), "j", color=J, ha="center", va="center", fontsize=12)
    axes.text(0, -1.0, "sample,\nat rest", ha="center", va="center", fontsize=9)
    axes.set(xlim=(-9.5, 9.5), ylim=(-9.6, 8.4), aspect="equal")
    axes.set_axis_off()
    axes.set_title("inner angle 0° and 40°, seen from +z", fontsize=11)


def _square(half: float):
    from matplotlib.patches import Rectangle

    return Rectangle((-half, -half), 2 * half, 2 * half, facecolor="0.95", edgecolor=GREY)


def conventions() -> Figure:
    """Axes and signs."""
    figure = Figure(figsize=(13.5, 4.4), layout="constrained")
    geometry = dt.Geometry.from_angles([0.5], [0.35], (6, 6, 6), (ROWS, COLUMNS))
    view_in_space(figure.add_subplot(1, 3, 1, projection="3d"), geometry)
    detector(figure.add_subplot(1, 3, 2))
    turning(figure.add_subplot(1, 3, 3))
    return figure


# -- functions on the sphere ------------------------------------------------------------------------------------------

# The camera of all spheres: right, up, and towards the viewer, in the sample frame.
TOWARDS = np.array([0.75, -0.5, 0.43]) / np.linalg.norm([0.75, -0.5, 0.43])
RIGHT = np.cross([0.0, 0.0, 1.0], TOWARDS) / np.linalg.norm(np.cross([0.0, 0.0, 1.0], TOWARDS))
CAMERA = np.stack([RIGHT, np.cross(TOWARDS, RIGHT), TOWARDS])


def sphere(axes, coefficients: np.ndarray, arrows: dict[str, tuple[np.ndarray, str]], title: str = "") -> None:
    """An even function on the near half of the sphere, red where positive, blue where negative."""
    steps = np.linspace(-1, 1, 301)
    x, y = np.meshgrid(steps, steps)
    inside = x**2 + y**2 <= 1
    height = np.sqrt(np.maximum(1 - x[inside] ** 2 - y[inside] ** 2, 0))
    directions = np.stack([x[inside], y[inside], height], axis=-1) @ CAMERA
    values = np.full(x.shape, np.nan)
    order = next(ell for ell in range(0, 99, 2) if coefficient_count(ell) == len(coefficients))
    values[inside] = evaluate(directions, order) @ coefficients
    limit = np.nanmax(np.abs(values))
    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(-1, 1, -1, 1), origin="lower")
    circle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(circle), np.sin(circle), color=GREY, linewidth=0.8)
    for name, (direction, colour) in arrows.items():
        tip, depth = np.split(CAMERA @ direction, [2])
        length = np.linalg.norm(tip)
        # From where it leaves the sphere; behind the sphere, from where it comes into sight.
        start, end = (1.0, 1.45) if depth[0] >= 0 else (1 / length, max(1.45, 1.35 / length))
        axes.annotate("", end * tip, start * tip, arrowprops={**ARROW, "linewidth": 1.4, "color": colour})
        axes.text(*((end + 0.17 / length) * tip), name, color=colour, ha="center", va="center", fontsize=12)
    axes.set(xlim=(-1.75, 1.75), ylim=(-1.6, 1.6), aspect="equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)


def across_the_beam(axes, p: np.ndarray) -> None:
    """The near half of the great circle across the beam."""
    e = np.linalg.svd(p[None])[2][1:]
    angle = np.linspace(0, 2 * np.pi, 400)[:, None]
    seen = (np.cos(angle) * e[0] + np.sin(angle) * e[1]) @ CAMERA.T
    seen[seen[:, 2] < 0] = np.nan
    axes.plot(seen[:, 0], seen[:, 1], color=INK, linewidth=0.9, linestyle="--")


def harmonics() -> Figure:
    """The harmonics of orders 0 and 2, whose signs and order fix those of all coefficients."""
    figure = Figure(figsize=(13, 2.6), layout="constrained")
    ell, m = orders(2)
    axes_of_sample = {name: (axis, INK) for name, axis in zip("xyz", np.eye(3), strict=True)}
    for index, axes in enumerate(figure.subplots(1, 6)):
        sphere(axes, np.eye(6)[index], axes_of_sample, f"c[{index}]: ℓ = {ell[index]}, m = {m[index]}")
    return figure


def response_figure(response, channels: dict[int, str]) -> Figure:
    """What channels see, as weights on the sphere of directions: rows of the response matrix of the unrotated view."""
    figure = Figure(figsize=(2.5 * len(channels), 2.5), layout="constrained")
    order = min(ELL_MAX, 99 if response.highest_order is None else response.highest_order)
    matrix = response.matrix(UNROTATED, order)[0].numpy()
    p, j, k = UNROTATED.p[0], UNROTATED.j[0], UNROTATED.k[0]
    arrows = {"p": (p, BEAM), "j": (j, J), "k": (k, K)}
    panels = figure.subplots(1, len(channels), squeeze=False)[0]
    for axes, (channel, title) in zip(panels, channels.items(), strict=True):
        row = matrix[channel]
        if not response.of_harmonics:  # of a tensor: the weights of xy, xz, yz stand for two entries each
            row = coefficients_from_tensor(row * [1, 0.5, 0.5, 1, 0.5, 1])
        sphere(axes, row, arrows, title)
        if not isinstance(response, dt.IsotropicResponse):
            across_the_beam(axes, p)
    return figure


MOMENTS = {0: "jj", 1: "jk", 2: "kk"}
EIGHTHS, THIRDS = np.arange(8) * np.pi / 8, np.arange(3) * np.pi / 3
RESPONSES = {
    "isotropic": (dt.IsotropicResponse(), {0: ""}),
    "saxs": (dt.SaxsResponse(EIGHTHS), {0: "segment at 0°", 2: "segment at 45°"}),
    "saxs_at_an_angle": (dt.SaxsResponse(np.arange(8) * np.pi / 4, two_theta_rad=0.6), {0: "segment at 0°, 2θ = 34°"}),
    "second_moment": (dt.SecondMomentResponse(), MOMENTS),
    "directional_visibility": (dt.DirectionalVisibilityResponse(THIRDS, 1.0), {0: "φ = 0°", 1: "φ = 60°"}),
    "visibility": (dt.VisibilityResponse([0.0, np.pi / 4]), {0: "grating at 0°", 1: "grating at 45°"}),
    "rank_two": (dt.RankTwoResponse(), MOMENTS),
    "rank_two_saxs": (dt.RankTwoSaxsResponse(THIRDS), {0: "φ = 0°", 1: "φ = 60°"}),
}


# -- operators --------------------------------------------------------------------------------------------------------


def xray_transform() -> Figure:
    """Where a ray samples the voxels: on each slice across the main axis, between its neighbours."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    size, view = 6, dt.Geometry.from_angles([0.35], 0.0, (6, 6, 1), (1, 1), j_offset=0.6)
    p, origin = view.p[0, :2], view.pixel_centres()[0, 0, 0, :2]
    for line in np.arange(size + 1) - size / 2:
        axes.plot([line, line], [-3, 3], color="0.85", linewidth=0.8)
        axes.plot([-3, 3], [line, line], color="0.85", linewidth=0.8)
    centres = np.arange(size) + 0.5 - size / 2
    axes.scatter(*np.meshgrid(centres, centres), s=6, color=GREY)
    samples = origin + ((centres - origin[1]) / p[1])[:, None] * p
    for sample in samples:
        low = np.floor(sample[0] - 0.5) + 0.5
        axes.plot([low, low + 1], [sample[1]] * 2, color=K, linewidth=2)
    axes.annotate("", origin + 4.6 * p, origin - 4.6 * p, arrowprops={**ARROW, "color": BEAM})
    axes.scatter(*samples.T, s=26, color=BEAM, zorder=3)
    axes.text(*(origin - 4.6 * p + [0.35, 0.1]), "p", color=BEAM, fontsize=12)
    axes.set(xlim=(-3.4, 3.4), ylim=(-4.6, 4.7), aspect="equal")
    axes.set_axis_off()
    return figure


def tensor_xray_transform() -> Figure:
    """From coefficients to channels: a short fibre along z + x, its coefficients projected, and its second moments."""
    size = 16
    view = dt.Geometry.from_angles([0.0], [0.0], (size,) * 3, (size,) * 2)
    places = np.stack(np.meshgrid(*[np.arange(size) + 0.5 - size / 2] * 3, indexing="ij"), axis=-1)
    axis = np.array([1.0, 0.0, 1.0]) / np.sqrt(2)
    away = np.linalg.norm(places - (places @ axis)[..., None] * axis, axis=-1)
    density = np.exp(-((away / 1.6) ** 2)) * (np.abs(places @ axis) < 6.5)
    # Fibres scatter across themselves: f = 1 - (q·axis)².
    function = coefficients_from_tensor((np.eye(3) - np.outer(axis, axis))[np.triu_indices(3)])
    volume = density[..., None] * function
    projected = dt.XRayTransform(view)(volume)[0]
    signals = dt.TensorXRayTransform(view, dt.SecondMomentResponse(), 2)(volume)[0]
    figure = Figure(figsize=(6.4, 3.3), layout="constrained")
    chosen = {0: "∫ c[0] dl", 3: "∫ c[3] dl", 4: "∫ c[4] dl"}
    for row, (pictures, titles) in enumerate(((projected, chosen), (signals, MOMENTS))):
        for column, (index, title) in enumerate(titles.items()):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            limit = np.abs(pictures).max()
            axes.imshow(pictures[..., index].T, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
            axes.set_title(title, fontsize=10)
            axes.set(xticks=[], yticks=[])
    return figure


def fibre_bundles() -> Figure:
    """What a reconstruction looks like: scattering functions on a slice of a simulated sample."""
    geometry = tilt_series((32, 32, 32))
    scan = simulate("bundles", geometry, dt.SaxsResponse(EIGHTHS), noise=0.02)
    return show_glyphs(dt.reconstruct(scan, ell_max=4))


# -- speed, as measured ------------------------------------------------------------------------------------------------

CHANNELS = {1: "#56b4e9", 6: K, 15: J, 45: INK}
MARKERS = {"forward": "o", "adjoint": "s"}


def measured(benchmark: str) -> tuple[dict[str, float], dict[str, str]]:
    """Values by their names, and the machine, of the latest of ``benchmarks/results`` that has this benchmark."""
    found = []
    for file in (FOLDER.parents[1] / "benchmarks" / "results").glob("*.json"):
        report = json.loads(file.read_text())
        rows = [result["rows"] for result in report["results"] if result["name"] == benchmark and not result["error"]]
        # Of the same day, the report of the whole run, which has the shortest name.
        found += [(file.name[:10], -len(file.name), file.name, rows[0], report["machine"])] if rows else []
    _, _, _, rows, machine = max(found, key=lambda entry: entry[:3])
    # Times of both directions have the same name, and a note that tells which.
    tell = {"forward", "adjoint"}
    ends = [row["note"].rpartition("; ")[2] for row in rows]
    return {
        row["what"] + (f", {end}" if end in tell else ""): row["value"] for row, end in zip(rows, ends, strict=True)
    }, machine


def cases(rows: dict[str, float]):
    """Direction, channels, and how the case is called, of what `benchmarks/roofline.py` measured."""
    for direction in MARKERS:
        for count in CHANNELS:
            name = f"{direction}, {count} channel{'s' if count > 1 else ''}"
            if f"{name}: speed" in rows:
                yield direction, count, name


def machine_text(machine: dict[str, str]) -> str:
    return f"{machine['processor']}, threads: {machine['threads used']}"


def roofline() -> Figure:
    """Speeds between what is asked of caches and memory and what these give."""
    rows, machine = measured("roofline")
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    peak = rows["multiply-adds"]
    axes.set(xlim=(0.08, 200), ylim=(0.6 * min(rows[f"{name}: speed"] for *_, name in cases(rows)), 2 * peak))
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="GFLOP/s", title=machine_text(machine))
    axes.plot([0.08, 200], [peak, peak], color=INK, linewidth=1.4)
    axes.text(190, 1.06 * peak, f"multiply-adds in registers, {peak:.0f} GFLOP/s", ha="right", va="bottom", fontsize=9)
    roofs = {"loads, first cache": "-", "loads, second cache": "--", "loads, last cache": ":", "copy": "-."}
    for name, style in roofs.items():
        bytes_a_second = rows[name]
        label = f"{'memory, copying' if name == 'copy' else name}: {bytes_a_second:.0f} GB/s"
        end = peak / bytes_a_second
        axes.plot([0.01, end], [0.01 * bytes_a_second, peak], style, color=INK, linewidth=1, label=label)
    for direction, count, name in cases(rows):
        speed, share = (rows[f"{name}: {what}"] for what in ("speed", "share of the limit"))
        near, far = (rows[f"{name}: intensity, {what}"] for what in ("loads", "memory"))
        options = {"marker": MARKERS[direction], "s": 44, "edgecolor": CHANNELS[count], "linewidth": 1.4, "zorder": 3}
        axes.plot([near, near], [speed, speed / share], color=CHANNELS[count], linewidth=0.8)
        axes.scatter(near, speed / share, marker="_", s=90, color=CHANNELS[count], zorder=3)
        axes.scatter(near, speed, color=CHANNELS[count], label=name, **options)
        axes.scatter(far, speed, facecolor="white", **options)
    told = "lines: limits, each measured alone\nfilled: per byte loaded and stored\nopen: per byte of the arrays"
    legend = axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    legend.set_title(told, {"size": 8})
    axes.grid(color="0.92", which="major")
    axes.set_axisbelow(True)
    return figure


def throughput() -> Figure:
    """Voxels × channels × views a second; MUMOTT's where it has been measured."""
    rows, machine = measured("roofline")
    bars = [(name, rows[f"{name}: updates"], CHANNELS[count]) for _, count, name in cases(rows)]
    peer, its_machine = measured("projector")
    for direction in MARKERS if machine_text(its_machine) == machine_text(machine) else ():
        updates = 64**3 * 15 * 60 / peer[f"time, MUMOTT, float64, {direction}"]
        bars += [(f"{direction}, 15 channels, MUMOTT", updates, GREY)]
    figure = Figure(figsize=(8, 0.6 + 0.3 * len(bars)), layout="constrained")
    axes = figure.subplots()
    names, values, colours = zip(*bars, strict=True)
    axes.barh(names, values, color=colours)
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.2g}", va="center", fontsize=9)
    axes.set(xlabel="voxels × channels × views a second", title=machine_text(machine))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def drawings() -> dict[str, Figure]:
    """All figures by the names of their files."""
    plain = (conventions, harmonics, xray_transform, tensor_xray_transform, fibre_bundles, roofline, throughput)
    named = {drawing.__name__: drawing() for drawing in plain}
    return named | {f"response_{name}": response_figure(*content) for name, content in RESPONSES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    for name, figure in drawings().items():
        if not wanted or name in wanted:
            figure.savefig(FOLDER / f"{name}.png", dpi=110)
            print(FOLDER.name + f"/{name}.png")
