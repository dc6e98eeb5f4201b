"""Geometries of tomosipo, whose ``parallel_vec`` writes vectors in the order of its volume's axes, as we do.

tomosipo's axes are called (z, y, x); its volume array of shape ``(z, y, x)`` is ours of shape ``(x, y, z)`` unchanged,
its detector's v is our j and its u our k. Its projections are ``(v, angle, u)``, as ASTRA's:
see `ddf_tomo.interop.astra.to_sinogram`.
[Hendriksen et al. 2021, Opt. Express 29, 40494]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from ddf_tomo._checks import message, neighbour, of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.interop._vectors import detector_centres, geometry_from_vectors

VECTORS = ("ray_dir", "det_pos", "det_v", "det_u")


def to_parallel_vec(geometry: Geometry, *, build: bool | None = None) -> Any:
    """A ``tomosipo.parallel_vec`` geometry where tomosipo is installed, else the keyword arguments that make one.

    Parameters
    ----------
    geometry
        The geometry.
    build
        ``True`` insists on the object, ``False`` on the dictionary.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 6), k_offset=2.0)
    >>> arguments = to_parallel_vec(geometry, build=False)
    >>> arguments["shape"], arguments["det_pos"].tolist()
    ((4, 6), [[0.0, 0.0, 2.0]])
    """
    of_kind(Geometry, geometry, "geometry")
    vectors = (geometry.p, detector_centres(geometry), geometry.j, geometry.k)
    arguments: dict[str, Any] = {name: vector.copy() for name, vector in zip(VECTORS, vectors, strict=True)}
    arguments["shape"] = geometry.detector_shape
    if build is False or (build is None and importlib.util.find_spec("tomosipo") is None):
        return arguments
    return neighbour("tomosipo").parallel_vec(**arguments)


def from_parallel_vec(parallel_vec: Any, volume_shape: Sequence[int]) -> Geometry:
    """The geometry of a tomosipo ``parallel_vec`` (or of the dictionary from `to_parallel_vec`), in voxels.

    Parameters
    ----------
    parallel_vec
        Anything with ``ray_dir``, ``det_pos``, ``det_v``, ``det_u`` of shape ``(views, 3)`` and the detector's shape,
        as ``det_shape`` (tomosipo's name) or ``shape``; a mapping or an object.
    volume_shape
        Shape of the volume array.

    Raises
    ------
    TypeError
        If one of these is missing.
    ValueError
        If pixels are not squares of the voxel's edge, or a detector is not perpendicular to its beam.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.1, (4, 4, 4), (4, 6), k_offset=0.5)
    >>> from_parallel_vec(to_parallel_vec(geometry, build=False), (4, 4, 4)).p.tolist() == geometry.p.tolist()
    True
    """
    ray, centre, j, k = (_field(parallel_vec, name) for name in VECTORS)
    detector_shape = _field(parallel_vec, "det_shape", "shape")
    return geometry_from_vectors(ray, centre, j, k, volume_shape, detector_shape, "parallel_vec")


def _field(source: Any, *names: str) -> Any:
    for name in names:
        value = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
        if value is not None:
            return value
    raise TypeError(
        message("parallel_vec", f"a parallel_vec geometry with {' or '.join(names)}", type(source).__name__)
    )
