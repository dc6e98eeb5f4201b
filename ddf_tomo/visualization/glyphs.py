"""One glyph for each voxel of a slice: sticks, ellipsoids, or the surface of the scattering function itself."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import choice, flag, integer, message, neighbour, number, real_array
from ddf_tomo.derived import derive
from ddf_tomo.operators.rank_two import coefficients_from_tensor, second_moment_tensor
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.visualization._planes import NAMES, Plane
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
    step = max(1, -(-max(plane.sides) // ACROSS)) if every is None else integer(every, "every", low=1)
    right, high = (np.arange(min((step - 1) // 2, n // 2), n, step) for n in plane.sides)
    if len(right) * len(high) > MOST_GLYPHS:
        raise ValueError(
            message("every", f"at most {MOST_GLYPHS} glyphs", f"{len(right) * len(high)} with every={step}")
        )
    cut = plane.cut(coefficients)
    largest = float(coefficients[..., 0].max())
    up, across = (part.ravel() for part in np.meshgrid(high, right, indexing="ij"))
    chosen = cut[up, across]
    shown = (chosen[:, 0] > threshold * largest) & (chosen[:, 0] > 0)
    centres = np.stack([plane.place(across, plane.across), plane.place(up, plane.up)], -1)[shown]

    wide, tall = plane.sides
    scale = min(6.5 / wide, 6.5 / tall)
    figure = new_figure(max(scale * wide, 2.2) + 2.0, max(scale * tall, 0.6) + 0.8)
    places = figure.add_gridspec(1, 2, width_ratios=[max(scale * wide, 2.2), 1.1])
    axes = figure.add_subplot(places[0, 0])
    _draw_ground(axes, cut[..., 0], largest, plane)
    named = {"surface": "f(q)", "ellipsoid": "second-moment tensors", "stick": "principal directions"}[kind]
    dress(axes, f"{named}, {plane.title()}", *plane.labels())
    values = None
    if shown.any():
        values = _draw_glyphs(axes, chosen[shown], centres, plane, kind, colour, 0.475 * step * plane.edge, same_size)
    else:
        axes.text(
            0.5,
            0.5,
            "nothing above the threshold",
            transform=axes.transAxes,
            color="white",
            ha="center",
            fontsize=LABEL,
        )
    key = figure.add_subplot(places[0, 1])
    if colour == "value":
        key.set_axis_off()
        style = STYLES["value" if kind == "surface" else "strength"].in_units_of(unit)
        if values is not None:
            colour_bar(
                figure,
                values,
                key,
                style.titled if kind != "ellipsoid" else f"largest eigenvalue ({style.unit})",
                fraction=0.3,
            )
    else:
        draw_ball(key, *plane.frame[:2])
    return write_figure(figure, path)


def _coefficients(volume: Any, voxel_size_m: float | None) -> tuple[NDArray[np.float64], float | None, str]:
    """Harmonic coefficients of a volume, the edge of its voxels, and the unit of its data."""
    if voxel_size_m is not None:
        voxel_size_m = number(voxel_size_m, "voxel_size_m", low=0, high=1, low_open=True)
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


def _draw_ground(axes: Any, mean: NDArray[np.float64], largest: float, plane: Plane) -> None:
    """The mean behind the glyphs, dark enough for every colour to stand out."""
    scale = {"vmin": 0.0, "vmax": 2.5 * (largest if largest > 0 else 1.0), "cmap": "gray"}
    axes.imshow(mean, origin="lower", extent=plane.extent, interpolation="nearest", **scale)
    axes.locator_params(nbins=6)


def _draw_glyphs(
    axes: Any, coefficients: NDArray[np.float64], centres: NDArray[np.float64], plane: Plane, kind: str, colour: str,
    radius: float, same_size: bool,
) -> Any:  # fmt: skip
    """Draw one glyph at each centre, none larger than ``radius``; returns what a colour bar of values needs."""
    tensors = second_moment_tensor(coefficients)
    derived = derive(coefficients[:, None, None])
    direction, strength = derived.direction[:, 0, 0], (derived.mean * derived.fractional_anisotropy)[:, 0, 0]
    if kind == "stick":
        amount = strength
    else:
        mesh, faces = sphere_mesh(3 if len(coefficients) <= 600 else 2 if len(coefficients) <= 6000 else 1)
        surfaces = odf_surfaces(coefficients, mesh) if kind == "surface" else ellipsoids(tensors, mesh)
        distance = np.linalg.norm(surfaces, axis=-1)
        amount = distance.max(axis=-1)
    # One size for all but the largest two in a hundred, which just fill their place.
    common = np.percentile(amount, 98) if not same_size else 0.0
    scale = radius / np.maximum(np.maximum(amount, common), np.finfo(float).tiny)
    style = STYLES["value" if kind == "surface" else "strength"]
    low, high = limits(distance if kind == "surface" else amount, style.limits)
    mapped = neighbour("matplotlib.cm").ScalarMappable(
        neighbour("matplotlib.colors").Normalize(low, high), colour_map(style)
    )
    if kind == "stick":
        half = (scale * amount)[:, None] * (direction @ plane.frame[:2].T)
        colours = mapped.to_rgba(amount) if colour == "value" else axis_colour(direction, np.ones(len(direction)))
        lines = neighbour("matplotlib.collections").LineCollection(
            np.stack([centres - half, centres + half], axis=1), colors=colours, capstyle="round", linewidths=1.6
        )
        axes.add_collection(lines, autolim=False)
        return mapped
    points, light, triangles = shaded(surfaces * scale[:, None, None], faces, plane.frame)
    if colour == "value":
        colours = mapped.to_rgba(distance if kind == "surface" else np.broadcast_to(amount[:, None], distance.shape))[
            ..., :3
        ]
    elif colour == "point":
        colours = axis_colour(
            np.broadcast_to(mesh, surfaces.shape) if kind == "surface" else surfaces, np.ones(light.shape)
        )
    else:
        colours = np.broadcast_to(axis_colour(direction, np.ones(len(direction)))[:, None], surfaces.shape)
    flat = (points + centres[:, None]).reshape(-1, 2)
    mesh_of_all = neighbour("matplotlib.tri").Triangulation(*flat.T, triangles)
    collection = neighbour("matplotlib.collections").TriMesh(mesh_of_all)
    collection.set_facecolor((colours * light[..., None]).reshape(-1, 3))
    collection.set_rasterized(True)
    axes.add_collection(collection, autolim=False)
    return mapped
