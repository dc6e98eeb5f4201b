"""A geometry in the vectors of ASTRA and tomosipo: the one place where axes are reversed.

ASTRA indexes volumes ``(z, y, x)`` and writes vectors ``(x, y, z)``. Instead of transposing volumes, all vectors are
reversed: ASTRA's x is our z. Its u steps between columns (our k), its v between rows (our j).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo.geometry import Geometry


def detector_centres(geometry: Geometry) -> NDArray[Any]:
    """Centres of the detectors in voxels, our axis order; shape ``(views, 3)``."""
    return geometry.j_offset[:, None] * geometry.j + geometry.k_offset[:, None] * geometry.k


def parallel_vec(geometry: Geometry) -> dict[str, Any]:
    """Arguments of ``tomosipo.parallel_vec``, whose vectors have the order of its volume's axes, as ours do."""
    vectors = {"ray_dir": geometry.p, "det_pos": detector_centres(geometry), "det_v": geometry.j, "det_u": geometry.k}
    return {name: vector.copy() for name, vector in vectors.items()} | {"shape": geometry.detector_shape}


def astra_vectors(geometry: Geometry) -> NDArray[Any]:
    """Rows of ``parallel3d_vec``: ray, detector centre, u, v, each reversed; shape ``(views, 12)``."""
    parts = (geometry.p, detector_centres(geometry), geometry.k, geometry.j)
    return np.concatenate([part[:, ::-1] for part in parts], axis=1)


def astra_projection_geometry(geometry: Geometry) -> dict[str, Any]:
    """What ``astra.create_proj_geom("parallel3d_vec", ...)`` returns; its projections are ``(j, view, k)``."""
    rows, columns = geometry.detector_shape
    counts = {"DetectorRowCount": rows, "DetectorColCount": columns}
    return {"type": "parallel3d_vec", **counts, "Vectors": astra_vectors(geometry)}


def astra_volume_geometry(geometry: Geometry) -> dict[str, Any]:
    """What ``astra.create_vol_geom(y, z, x)`` returns: a volume array of shape ``(x, y, z)``, centred."""
    counts = dict(zip(("GridSliceCount", "GridRowCount", "GridColCount"), geometry.volume_shape, strict=True))
    windows: dict[str, float] = {}
    for axis, size in zip("ZYX", geometry.volume_shape, strict=True):
        windows |= {f"WindowMin{axis}": -size / 2, f"WindowMax{axis}": size / 2}
    return {**counts, "option": windows}
