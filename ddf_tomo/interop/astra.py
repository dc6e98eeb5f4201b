"""Geometries and data of the ASTRA toolbox.

ASTRA indexes volumes ``(z, y, x)`` and writes vectors ``(x, y, z)``. Instead of transposing volumes, all vectors are
reversed here: ASTRA's x is our z. A volume array therefore passes to ASTRA as it is, and detector rows run along j,
columns along k. Projections differ in the order of their axes only: ``ours[view, j, k] = astra[j, view, k]``.
The reversal mirrors space; never use ASTRA's vectors as directions on the sphere of scattering.

Geometries need no ASTRA installed (dictionaries are enough); reading a rotation-angle geometry (``parallel3d``) does.
[van Aarle et al. 2016, Opt. Express 24, 25129]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from ddf_tomo._checks import NOT_NUMBERS, message, neighbour, of_kind, real_array
from ddf_tomo.geometry import Geometry
from ddf_tomo.interop._vectors import geometry_from_vectors
from ddf_tomo.operators.backends.vectors import astra_projection_geometry, astra_vectors, astra_volume_geometry

Array = TypeVar("Array", bound=Any)


def to_vectors(geometry: Geometry) -> Float64[np.ndarray, "views 12"]:
    """ASTRA's ``parallel3d_vec`` rows: ray, detector centre, u (columns), v (rows), each reversed.

    Parameters
    ----------
    geometry
        The geometry.

    Returns
    -------
    array
        Shape ``(views, 12)``, float64.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 6), j_offset=1.0)
    >>> to_vectors(geometry)[0].tolist()
    [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    of_kind(Geometry, geometry, "geometry")
    return astra_vectors(geometry)


def from_vectors(vectors: ArrayLike, volume_shape: Sequence[int], detector_shape: Sequence[int]) -> Geometry:
    """The geometry of ``parallel3d_vec`` rows, shape ``(views, 12)``, in units of voxels.

    Parameters
    ----------
    vectors
        Rows of ray, detector centre, u, v, as ASTRA holds them; shape ``(views, 12)``.
    volume_shape
        Shape of the volume *array*, ``(slices, rows, columns)`` in ASTRA's words and ``(x, y, z)`` in ours.
    detector_shape
        ``(rows, columns)``.

    Raises
    ------
    ValueError
        If pixels are not squares of the voxel's edge, or a detector is not perpendicular to its beam.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.1, (4, 4, 4), (4, 6), k_offset=0.5)
    >>> from_vectors(to_vectors(geometry), (4, 4, 4), (4, 6)).p.tolist() == geometry.p.tolist()
    True
    """
    rows = real_array(vectors, "vectors", (None, 12)).reshape(-1, 4, 3)[..., ::-1]
    ray, centre, k, j = (rows[:, i] for i in range(4))
    return geometry_from_vectors(ray, centre, j, k, volume_shape, detector_shape, "vectors")


def to_projection_geometry(geometry: Geometry) -> dict[str, Any]:
    """The dictionary that ``astra.create_proj_geom("parallel3d_vec", ...)`` returns for this geometry.

    Parameters
    ----------
    geometry
        The geometry.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> found = to_projection_geometry(Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 6)))
    >>> found["type"], found["DetectorRowCount"], found["DetectorColCount"]
    ('parallel3d_vec', 4, 6)
    """
    of_kind(Geometry, geometry, "geometry")
    return astra_projection_geometry(geometry)


def to_volume_geometry(geometry: Geometry) -> dict[str, Any]:
    """The dictionary that ``astra.create_vol_geom(y, z, x)`` returns: a volume array of shape ``(x, y, z)``, centred.

    Parameters
    ----------
    geometry
        The geometry.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> found = to_volume_geometry(Geometry.from_angles(0.0, 0.0, (4, 5, 6), (4, 6)))
    >>> found["GridSliceCount"], found["GridRowCount"], found["GridColCount"]
    (4, 5, 6)
    """
    of_kind(Geometry, geometry, "geometry")
    return astra_volume_geometry(geometry)


def geometry_from(projection_geometry: Mapping[str, Any], volume_geometry: Mapping[str, Any]) -> Geometry:
    """The geometry of a pair of ASTRA dictionaries; lengths are rescaled to voxels and the volume is centred.

    Parameters
    ----------
    projection_geometry, volume_geometry
        Dictionaries as ``astra.create_proj_geom`` and ``astra.create_vol_geom`` return them.

    Raises
    ------
    ValueError
        If beams are not parallel, voxels are not cubes, or pixels differ from voxels.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.1, (4, 5, 6), (4, 6), k_offset=0.5)
    >>> again = geometry_from(to_projection_geometry(geometry), to_volume_geometry(geometry))
    >>> again.volume_shape, again.k_offset.round(12).tolist()
    ((4, 5, 6), [0.5, 0.5])
    """
    for name, value in (("projection_geometry", projection_geometry), ("volume_geometry", volume_geometry)):
        of_kind(Mapping, value, name, "a dictionary of ASTRA's")
    kind = projection_geometry.get("type")
    if isinstance(kind, str) and kind == "parallel3d":
        projection_geometry = _as_vectors(projection_geometry)
    elif not isinstance(kind, str) or kind != "parallel3d_vec":
        raise ValueError(message("projection_geometry", "type 'parallel3d_vec' or 'parallel3d'", repr(kind)))
    shape, centre, edge = _volume(volume_geometry)
    missing = [name for name in ("Vectors", "DetectorRowCount", "DetectorColCount") if name not in projection_geometry]
    if missing:
        raise ValueError(message("projection_geometry", f"an entry {missing[0]!r}", list(projection_geometry)))
    vectors = real_array(projection_geometry["Vectors"], "projection_geometry", (None, 12)).reshape(-1, 4, 3)
    vectors[:, 1] -= centre
    vectors /= edge
    detector_shape = projection_geometry["DetectorRowCount"], projection_geometry["DetectorColCount"]
    return from_vectors(vectors.reshape(-1, 12), shape, detector_shape)


def _as_vectors(projection_geometry: Mapping[str, Any]) -> Mapping[str, Any]:
    """A geometry of rotation angles with one row of vectors for each view, as ASTRA makes them."""
    convert = neighbour("astra.functions").geom_2vec
    try:
        return convert(dict(projection_geometry))
    except (KeyError, *NOT_NUMBERS) as error:
        raise ValueError(message("projection_geometry", "a parallel3d geometry of ASTRA", repr(error))) from error


def _volume(volume_geometry: Mapping[str, Any]) -> tuple[list[int], np.ndarray, float]:
    """Shape in our order, centre in ASTRA's order, and the edge of a voxel."""
    # Asked for the geometry of one of its objects, ASTRA calls the entry by another name than it takes.
    options = volume_geometry.get("option", volume_geometry.get("options", {}))
    try:
        shape = [int(volume_geometry[f"Grid{axis}Count"]) for axis in ("Slice", "Row", "Col")]
        windows = [[float(options[f"Window{end}{axis}"]) for end in ("Min", "Max")] for axis in "ZYX"]
    except (LookupError, *NOT_NUMBERS) as error:
        raise ValueError(message("volume_geometry", "a 3-D volume geometry of ASTRA", repr(error))) from error
    if not min(shape) > 0 or not np.isfinite(windows).all():
        raise ValueError(message("volume_geometry", "voxels, and windows of finite size", f"{shape}, {windows}"))
    edges = [(high - low) / size for (low, high), size in zip(windows, shape, strict=True)]
    if not min(edges) > 0 or max(edges) - min(edges) > 1e-9 * max(edges):
        raise ValueError(message("volume_geometry", "voxels that are cubes", f"edges {edges} along its z, y, x"))
    return shape, np.mean(windows, axis=1)[::-1], edges[0]


def to_sinogram(projections: Array) -> Array:
    """Projections ``(view, j, k)`` in ASTRA's order ``(j, view, k)``: a view of the same memory, arrays or tensors.

    ASTRA itself wants C-contiguous float32: copy with ``np.ascontiguousarray(..., np.float32)``.

    Parameters
    ----------
    projections
        Shape ``(view, j, k)``: one channel.

    Examples
    --------
    >>> import numpy as np
    >>> to_sinogram(np.zeros((5, 3, 4))).shape
    (3, 5, 4)
    """
    return _swapped(projections, "projections")


def from_sinogram(sinogram: Array) -> Array:
    """ASTRA's projections ``(j, view, k)`` in our order ``(view, j, k)``: a view of the same memory.

    Parameters
    ----------
    sinogram
        Shape ``(j, view, k)``.

    Examples
    --------
    >>> import numpy as np
    >>> from_sinogram(np.zeros((3, 5, 4))).shape
    (5, 3, 4)
    """
    return _swapped(sinogram, "sinogram")


def _swapped(stack: Array, argument: str) -> Array:
    if not hasattr(stack, "swapaxes"):
        raise TypeError(message(argument, "an array or tensor", type(stack).__name__))
    if np.ndim(stack) != 3:
        raise ValueError(message(argument, "three axes (one channel at a time)", f"{np.ndim(stack)}"))
    return stack.swapaxes(0, 1)
