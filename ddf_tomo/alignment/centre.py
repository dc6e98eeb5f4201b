"""Where the axis of rotation meets the detector, for any scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ddf_tomo._checks import message, of_kind
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.alignment.align import Alignment, align, with_signal
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.geometry_gradient import corrected
from ddf_tomo.retrieval.rotation_axis import MINIMUM_VIEWS, find_rotation_axis
from ddf_tomo.scan import Scan


def find_centre(scan: Scan, *, signal: str = "data", **options: Any) -> Alignment:
    """The detector offset common to all views: the centre of rotation, found and refined together with the volume.

    In a scan about a single axis that lies along k it begins with `find_rotation_axis`, which looks for the most
    consistent column over half of the detector. In any scan `align` with ``drift=0`` refines it. What a translation of
    the volume explains, as a shift along a single axis, is left at zero.

    Parameters
    ----------
    scan
        Data, geometry, response.
    signal
        ``"data"`` or ``"diode"``, as in `align`.
    **options
        Of `align`: levels, iterations, smoothness, ….

    Returns
    -------
    Alignment
        With equal offsets in all views.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from ddf_tomo import IsotropicResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> truth = replace(tilt_series((16, 16, 8), views=[24], tilts_rad=[0.0]), j_offset=np.full(24, 1.7))
    >>> scan = replace(simulate(helicoidal_fibres, truth, IsotropicResponse()), geometry=replace(truth, j_offset=0.0))
    >>> round(float(find_centre(scan).offsets[0, 0]), 1)
    1.7
    """
    of_kind(Scan, scan, "scan", "a ddf_tomo.Scan")
    for name in ("drift", "rotations", "search"):
        if name in options:
            raise TypeError(message("options", "options of align without drift, rotations and search", name))
    chosen = with_signal(scan, signal)
    start = np.zeros((len(scan), 5))
    if _turns_about_k(scan.geometry):
        projections = as_numpy(chosen.data).mean(-1)  # not quite a scalar's, if the sample is anisotropic: a start
        along = scan.geometry.j
        angles = np.arctan2(along @ np.cross(scan.geometry.k[0], along[0]), along @ along[0])
        found = find_rotation_axis(projections, angles)
        start[:, 0] = found.j_offset - scan.geometry.j_offset
    begun = replace(chosen, geometry=corrected(chosen.geometry, start))
    refined = align(begun, drift=0, **options)
    return replace(refined, offsets=refined.offsets + start[:, :2])


def _turns_about_k(geometry: Geometry) -> bool:
    """Whether k and the offset are the same in enough views that look from different sides."""
    same = np.ptp(geometry.k, axis=0).max() < 1e-9 and np.ptp(geometry.j_offset) < 1e-9
    upright = (np.round(np.abs(geometry.p @ geometry.p[0]), 6)).tolist()
    return bool(same) and len(set(upright)) >= MINIMUM_VIEWS
