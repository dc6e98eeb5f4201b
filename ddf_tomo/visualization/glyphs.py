"""One glyph for each voxel of a slice: sticks, ellipsoids, or the surface of the scattering function itself."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import choice, flag, integer, message, neighbour, number, real_array
from ddf_tomo.derived import derive
from ddf_tomo.operators.rank_two import coefficients_from_tensor, second_moment_tensor
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.visualization._planes import NAMES, Plane, edge_of_a_voxel
from ddf_tomo.visualization._surfaces import ellipsoids, odf_surfaces, shaded, sphere_mesh
from ddf_tomo.visualization.colours import axis_colour, draw_ball
from ddf_tomo.visualization.style import (
    LABEL,
    STYLES,
    colour_bar,
    colour_map,
    data_unit,
    dress,
    limits,
    new_figure,
    write_figure,
)

KINDS = ("surface", "ellipsoid", "stick")
COLOURS = ("direction", "point", "value")
TITLES = {"surface": "f(q)", "ellipsoid": "second-moment tensors", "stick": "principal directions"}
BARS = {"surface": "f(q)", "ellipsoid": "largest eigenvalue", "stick": "mean × anisotropy"}
FINENESS = ((600, 3), (6000, 2), (np.inf, 1))
"""Up to how many glyphs are meshed how finely."""
ACROSS = 32
"""How many glyphs along the longer side of a slice, if nobody says."""
MOST_GLYPHS = 2**16


def show_glyphs(
    volume: Any,
    *,
    kind: str = "surface",
    axis: str = "z",
    index: int | None = None,
    every: int | None = None,
    colour: str = "direction",
    same_size: bool = False,
    threshold: float = 0.1,
    voxel_size_m: float | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw what is in the voxels of a slice as glyphs, seen along the axis normal to it, on the mean in grey.

    Parameters
    ----------
    volume
        A `Reconstruction`, or harmonic coefficients ``(x, y, z, K)``.
    kind
        ``"surface"``: points ``f(q) q``, the scattering function itself (negative values are drawn as zero);
        ``"ellipsoid"``: of the tensor ``mean of q̂ q̂ᵀ f(q̂)``, with its eigenvalues as half axes; ``"stick"``: along the
        principal direction, as long as mean times anisotropy, shorter where it points out of the slice.
    axis
        Normal of the slice: ``"x"``, ``"y"`` or ``"z"``.
    index
        Which slice, the middle one by default.
    every
        Only every so manieth voxel along each side has a glyph, which is that much larger; by default as many as fit
        well.
    colour
        ``"direction"``: of the principal direction, as in `show_directions`; ``"point"``: each point of the glyph by
        its own direction from the centre; ``"value"``: by f(q), for an ellipsoid or a stick by its size.
    same_size
        Draw all glyphs as large as fits, instead of to scale.
    threshold
        Voxels with a mean above this share of the volume's largest one have a glyph.
    voxel_size_m
        Edge of a voxel in metres; a reconstruction knows its own.
    path : optional
        PNG, PDF or SVG to write; the glyphs of surfaces are pixels in all of them.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If the volume is not one of coefficients, or another argument is not as above.

    Examples
    --------
    >>> from ddf_tomo.phantoms import helicoidal_fibres
    >>> figure = show_glyphs(helicoidal_fibres((12, 12, 12))[0], axis="y", every=2)
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('x (voxels)', 'z (voxels)')
    """
    choice(kind, "kind", KINDS)
    fixed = NAMES.index(choice(axis, "axis", tuple(NAMES)))
    choice(colour, "colour", COLOURS)
    same_size = flag(same_size, "same_size")
    threshold = number(threshold, "threshold", low=0.0, high=1.0)
    coefficients, size, unit = _coefficients(volume, voxel_size_m)
    shape = coefficients.shape[:3]
    plane = Plane(
        fixed, shape[fixed] // 2 if index is None else integer(index, "index", high=shape[fixed] - 1), shape, size
    )
    step = (
        max(1, -(-max(plane.sides) // ACROSS))
        if every is None
        else integer(every, "every", low=1, high=max(plane.sides))
    )
    right, high = (np.arange(min((step - 1) // 2, n // 2), n, step) for n in plane.sides)
    if len(right) * len(high) > MOST_GLYPHS:
        raise ValueError(
            message("every", f"at most {MOST_GLYPHS} glyphs", f"{len(right) * len(high)} with every={step}")
        )
    cut = plane.cut(coefficients)
    up, across = (part.ravel() for part in np.meshgrid(high, right, indexing="ij"))
    chosen, largest = cut[up, across], float(coefficients[..., 0].max())
    shown = (chosen[:, 0] > threshold * largest) & (chosen[:, 0] > 0)
    centres = np.stack([plane.place(across, plane.across), plane.place(up, plane.up)], -1)[shown]

    inches = 6.5 / max(plane.sides)  # of a voxel
    width, height = (max(inches * n, least) for n, least in zip(plane.sides, (2.2, 0.6), strict=True))
    figure = new_figure(width + 2.0, height + 0.8)
    places = figure.add_gridspec(1, 2, width_ratios=[width, 1.1])
    axes = figure.add_subplot(places[0, 0] if colour != "value" else places[0, :])
    dress(axes, f"{TITLES[kind]}, {plane.title()}", *plane.labels())
    axes.locator_params(nbins=6, integer=plane.voxel_size_m is None)
    # The mean behind the glyphs is dark enough for every colour to stand out.
    ground = {"vmin": 0.0, "vmax": 2.5 * largest if largest > 0 else 1.0, "cmap": "gray"}
    axes.imshow(cut[..., 0], origin="lower", extent=plane.extent, interpolation="nearest", **ground)
    if not shown.any():
        place = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "nothing above the threshold", color="white", fontsize=LABEL, **place)
        return write_figure(figure, path)
    room = 0.475 * step * plane.edge
    draw = _draw_sticks if kind == "stick" else partial(_draw_surfaces, kind=kind)
    values = draw(axes, chosen[shown], centres, plane, room, colour, same_size)
    if colour != "value":
        draw_ball(figure.add_subplot(places[0, 1]), *plane.frame[:2])
    else:
        colour_bar(figure, values, axes, f"{BARS[kind]} ({STYLES['value'].in_units_of(unit).unit})")
    return write_figure(figure, path)


def _coefficients(volume: Any, voxel_size_m: float | None) -> tuple[NDArray[np.float64], float | None, str]:
    """Harmonic coefficients of a volume, the edge of its voxels, and the unit of its data."""
    voxel_size_m = edge_of_a_voxel(voxel_size_m)
    if isinstance(volume, Reconstruction):
        values = np.asarray(volume.coefficients, np.float64)
        if not getattr(volume.response, "of_harmonics", True):
            values = coefficients_from_tensor(values)
        return values, volume.voxel_size_m or voxel_size_m, data_unit(volume.provenance)
    values = real_array(volume, "volume", (None, None, None, None))
    order_of(values.shape[-1], "volume")
    if not values.size:
        raise ValueError(message("volume", "at least one voxel", values.shape))
    return values, voxel_size_m, data_unit({})


def _draw_sticks(
    axes: Any,
    coefficients: NDArray[np.float64],
    centres: NDArray[np.float64],
    plane: Plane,
    room: float,
    colour: str,
    same_size: bool,
) -> Any:
    """Draw one stick at each centre, at most ``room`` long to each side; returns what a colour bar needs."""
    derived = derive(coefficients[:, None, None])
    direction, strength = derived.direction[:, 0, 0], (derived.mean * derived.fractional_anisotropy)[:, 0, 0]
    half = _sizes(strength, room, same_size)[:, None] * (direction @ plane.frame[:2].T)
    mapped, rgb = _by_value(strength)
    colours = rgb if colour == "value" else axis_colour(direction, np.ones(len(direction)))
    thickness = float(np.clip(6.5 * 72 * 0.22 * room / (plane.edge * max(plane.sides)), 0.8, 5))
    ends = np.stack([centres - half, centres + half], axis=1)
    options = {"colors": colours, "capstyle": "round", "linewidths": thickness}
    axes.add_collection(neighbour("matplotlib.collections").LineCollection(ends, **options), autolim=False)
    return mapped


def _draw_surfaces(
    axes: Any,
    coefficients: NDArray[np.float64],
    centres: NDArray[np.float64],
    plane: Plane,
    room: float,
    colour: str,
    same_size: bool,
    *,
    kind: str,
) -> Any:
    """Draw one shaded surface at each centre, none farther out than ``room``; returns what a colour bar needs."""
    mesh, faces = sphere_mesh(next(level for most, level in FINENESS if len(coefficients) <= most))
    unit = np.abs(coefficients).max()  # numbers near 1 have squares, whatever the data's unit
    relative = coefficients / unit
    surfaces = odf_surfaces(relative, mesh) if kind == "surface" else ellipsoids(second_moment_tensor(relative), mesh)
    distance = np.linalg.norm(surfaces, axis=-1)
    farthest = distance.max(axis=-1)
    scale = _sizes(farthest, room, same_size) / np.where(farthest > 0, farthest, 1)
    points, light, triangles = shaded(surfaces * scale[:, None, None], faces, plane.frame)
    mapped, rgb = _by_value((distance if kind == "surface" else farthest[:, None]) * unit)
    if colour == "point":
        rgb = axis_colour(
            np.broadcast_to(mesh, surfaces.shape) if kind == "surface" else surfaces, np.ones(light.shape)
        )
    elif colour == "direction":
        direction = derive(relative[:, None, None]).direction[:, 0]
        rgb = axis_colour(direction, np.ones(direction.shape[:-1]))
    flat = (points + centres[:, None]).reshape(-1, 2)
    drawn = neighbour("matplotlib.tri").Triangulation(*flat.T, triangles)
    collection = neighbour("matplotlib.collections").TriMesh(drawn)
    collection.set_facecolor((rgb * light[..., None]).reshape(-1, 3))
    collection.set_rasterized(True)
    axes.add_collection(collection, autolim=False)
    return mapped


def _sizes(amount: NDArray[np.float64], room: float, same_size: bool) -> NDArray[np.float64]:
    """Half lengths to scale; the largest two in a hundred are cut to the room there is."""
    if same_size:
        return np.where(amount > 0, room, 0.0)
    common = float(np.percentile(amount, 98))
    return room * (amount / common if common > 0 else amount > 0).clip(max=1.0)


def _by_value(values: NDArray[np.float64]) -> tuple[Any, NDArray[np.float64]]:
    style = STYLES["value"]
    scale = neighbour("matplotlib.colors").Normalize(*limits(values, style.limits))
    mapped = neighbour("matplotlib.cm").ScalarMappable(scale, colour_map(style))
    return mapped, mapped.to_rgba(values)[..., :3]
