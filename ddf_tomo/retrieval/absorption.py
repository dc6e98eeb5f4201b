"""From counted photons to line integrals of the attenuation coefficient: the scalar case of tomography.

With the frame's counts N and the flat's counts N₀, both less the dark, ``-ln(N/N₀) = ∫ μ dl`` (Beer and Lambert). The
beam drifts between flat and frames, so that air does not read 0: a polynomial in row and column, fitted to each view's
air, is taken off. Photons are counted: the variance of ``-ln N`` is ``1/N``, whose inverse is the weight.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import NOT_NUMBERS, check_shape, integer, message, number, real_array, size_tuple
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import IsotropicResponse
from ddf_tomo.radiographs import Radiographs
from ddf_tomo.retrieval.rotation_axis import check_angles_differ, find_rotation_axis
from ddf_tomo.scan import Scan

__all__ = ["Absorption", "absorption", "absorption_scan", "axial_geometry"]
MARGIN = 1 / 16  # share of the columns at either side that is air to begin with
GROWTHS = 3
AIR_SIGMAS = 4.0  # how far a smoothed pixel may lie from the fit and still count as air
AIR_OFF_ONE = 0.02
AIR_DRIFT = 0.1
SAME_ANGLE_RAD = 1e-6


@dataclass(frozen=True, eq=False)
class Absorption:
    """Line integrals and their weights; made by `absorption`.

    Attributes
    ----------
    data
        ``∫ μ dl``, shape ``(views, columns, rows, 1)``, float32, k upwards: the picture's rows reversed. Pixels without
        counts hold their neighbours' interpolation.
    weights
        Inverse variances from the counts, same shape; 0 where there were no counts.
    angles_rad
        Angle of each view, shape ``(views,)``.
    air_transmission
        What air read in each view before it was set to 1, shape ``(views,)``.
    """

    data: NDArray[np.float32]
    weights: NDArray[np.float32]
    angles_rad: NDArray[np.float64]
    air_transmission: NDArray[np.float64]


def absorption(
    radiographs: Radiographs,
    *,
    air: str | ArrayLike | None = "margins",
    air_order: int = 2,
    counts_per_photon: float = 1.0,
) -> Absorption:
    """Correct frames for dark, flat and drift of the beam; give line integrals and weights.

    Parameters
    ----------
    radiographs
        Frames, flat, dark, angles.
    air
        ``"margins"``: begin with 1/16 of the columns at either side and add what lies within the noise of the fit; a
        boolean mask of shape ``(rows, columns)`` or ``(views, rows, columns)``: where there is air; ``None``: leave air
        as it reads.
    air_order
        Total degree (0 to 3) of the polynomial in row and column that describes ``-ln T`` of air in one view.
    counts_per_photon
        Gain of the camera; the weights are inverse variances if it is right, and proportional to them if not.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, all angles are equal, or a view has no air or no counts.

    Warns
    -----
    UserWarning
        If air does not read 1, or differs between views; if views repeat an angle or a frame.

    Examples
    --------
    >>> distance = np.abs(np.arange(64) - np.array([30.5, 31.5])[:, None])
    >>> frames = 1000 * np.exp(-0.1 * np.maximum(0, 15 - distance))[:, None] * np.ones((3, 1))
    >>> result = absorption(Radiographs(frames, np.full((3, 64), 1000.0), None, [0.0, 1.0]))
    >>> result.data.shape, round(float(result.data.max()), 3), round(float(result.weights[0, 0, 0, 0]))
    ((2, 64, 3, 1), 1.45, 1000)
    """
    if not isinstance(radiographs, Radiographs):
        raise TypeError(message("radiographs", "Radiographs", type(radiographs).__name__, "see read_radiographs"))
    gain = number(counts_per_photon, "counts_per_photon", low=0, low_open=True)
    order = integer(air_order, "air_order", low=0, high=3)
    check_angles_differ(radiographs.angles_rad)
    _warn_of_repeated_views(radiographs)
    counts, flat = radiographs.frames - radiographs.dark, radiographs.flat - radiographs.dark
    valid = (counts > 0) & (flat > 0)
    if not valid.any(axis=(1, 2)).all():
        views = np.flatnonzero(~valid.any(axis=(1, 2)))
        raise ValueError(message("frames", "counts above the dark in every view", f"none in {_listed(views)}"))
    integrals = np.log(np.where(flat > 0, flat, 1)) - np.log(np.where(valid, counts, 1))
    _fill(integrals, valid)
    air_transmission = np.ones(len(integrals))
    if air is not None:
        drift, air_level = _air_background(integrals, valid, air, order)
        integrals -= drift
        air_transmission = np.exp(-air_level)
        _warn_of_air(air_transmission)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # what leaves the range is told below
        weights = np.where(valid, counts / gain, 0)
    data, weights = (
        real_array(a[:, ::-1].swapaxes(1, 2)[..., None], name, dtype=np.float32)
        for a, name in ((integrals, "line integrals"), (weights, "frames / counts_per_photon"))
    )
    return Absorption(data, weights, radiographs.angles_rad, air_transmission)


def absorption_scan(
    radiographs: Radiographs, *, column: float | None = None, volume_shape: Any = None, **options: Any
) -> Scan:
    """Frames to a `Scan` of line integrals, whose volume is centred on the rotation axis.

    Data are in units of one voxel's length: divide a reconstruction by the voxel size for μ in 1/m.

    Parameters
    ----------
    radiographs
        Frames, flat, dark, angles.
    column
        Column of the axis, see `RotationAxis`; found by `find_rotation_axis` by default.
    volume_shape
        Voxels along ``(x, y, z)``, by default ``(columns, columns, rows)``.
    **options
        Passed to `absorption`.

    Examples
    --------
    >>> from ddf_tomo.datasets import tooth
    >>> absorption_scan(tooth(), volume_shape=(320, 320, 2))
    <Scan: 181 views of 640 × 2 pixels, 1 channels, IsotropicResponse, volume 320 × 320 × 2>
    """
    result = absorption(radiographs, **options)
    if column is None:
        axis = find_rotation_axis(result.data, result.angles_rad)
        column, note = axis.column, f"found at column {axis.column:.3f}"
    else:
        note = f"given as column {number(column, 'column'):g}"
    geometry = axial_geometry(result.angles_rad, (result.data.shape[1], result.data.shape[2]), column, volume_shape)
    provenance = {**radiographs.provenance, "rotation_axis": note}
    title = radiographs.provenance.get("title", "")
    size = radiographs.pixel_size_m
    return Scan(result.data, geometry, IsotropicResponse(), result.weights, None, size, title, provenance)


def axial_geometry(
    angles_rad: ArrayLike, detector_shape: tuple[int, int], column: float, volume_shape: Any = None
) -> Geometry:
    """Geometry of a turn about the vertical axis that meets the detector at ``column``, centred on that axis.

    Parameters
    ----------
    angles_rad
        Angle of each view, shape ``(views,)``; positive ones turn the sample clockwise as seen from above.
    detector_shape
        ``(J, K)``: columns and rows.
    column
        Column of the axis, see `RotationAxis`.
    volume_shape
        Voxels along ``(x, y, z)``, by default ``(J, J, K)``.

    Examples
    --------
    >>> axial_geometry([0.0, 1.5], (8, 4), column=3.0).j_offset.tolist()
    [0.5, 0.5]
    """
    columns, rows = size_tuple(detector_shape, "detector_shape", 2)
    shape = (columns, columns, rows) if volume_shape is None else volume_shape
    offset = (columns - 1) / 2 - number(column, "column")
    return Geometry.from_angles(angles_rad, 0.0, shape, (columns, rows), j_offset=offset)


def _air_background(
    integrals: NDArray[Any], valid: NDArray[np.bool_], air: Any, order: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polynomial that each view's air follows, at every pixel, and its mean over the air."""
    views, rows, columns = integrals.shape
    grow = isinstance(air, str)
    if grow and air != "margins":
        raise ValueError(message("air", "'margins', a boolean mask or None", repr(air)))
    if grow:
        width = max(1, round(MARGIN * columns))
        mask = np.zeros((rows, columns), bool)
        mask[:, :width] = mask[:, columns - width :] = True
    else:
        try:
            mask = np.asarray(air)
        except NOT_NUMBERS as error:
            raise TypeError(message("air", "'margins', a boolean mask or None", type(air).__name__)) from error
        if mask.dtype != np.bool_:
            raise TypeError(message("air", "'margins', a boolean mask or None", f"an array of {mask.dtype}"))
        check_shape(mask.shape[-2:], "air", (rows, columns))
        check_shape(mask.shape[:-2], "air", (views,) if mask.ndim > 2 else ())
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in (rows, columns)), indexing="ij")
    powers = [(a, b) for a in range(order + 1) for b in range(order + 1 - a) if a < rows and b < columns]
    basis = np.stack([y**a * x**b for a, b in powers], axis=-1)
    background, level = np.empty(integrals.shape), np.empty(views)
    for view, (p, chosen) in enumerate(zip(integrals, valid & mask, strict=True)):
        if not chosen.any():
            raise ValueError(message("air", "pixels of air with counts in every view", f"none in view {view}"))
        if grow:
            chosen = _grown(p, basis, chosen, valid[view])
        background[view] = _fit(p, basis, chosen)
        level[view] = background[view][chosen].mean()
    return background, level


def _grown(
    p: NDArray[Any], basis: NDArray[Any], margins: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """The margins, and all pixels that continue them within the noise."""
    from scipy.ndimage import uniform_filter

    chosen = margins
    for _ in range(GROWTHS):
        misfit = np.abs(uniform_filter(p - _fit(p, basis, chosen), 3, mode="nearest"))
        noise = 1.4826 * float(np.median(misfit[margins]))
        chosen = margins | (valid & (misfit <= AIR_SIGMAS * noise))
    return chosen


def _fit(p: NDArray[Any], basis: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    return basis @ np.linalg.lstsq(basis[chosen], p[chosen], rcond=1e-6)[0]


def _upright(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """``(views, rows, columns)`` with rows downwards to ``(views, J, K, 1)`` with k upwards."""
    return np.array(pictures[:, ::-1].swapaxes(1, 2)[..., None], np.float32, order="C")


def _fill(integrals: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Replace pixels without counts by interpolation along their row, or by the view's median if the row has none."""
    for view, row in np.argwhere(~valid.all(axis=2)):
        good = np.flatnonzero(valid[view, row])
        if good.size:
            bad = np.flatnonzero(~valid[view, row])
            integrals[view, row, bad] = np.interp(bad, good, integrals[view, row, good])
        else:
            integrals[view, row] = np.median(integrals[view][valid[view]])


def _warn_of_air(transmission: NDArray[np.float64]) -> None:
    low, high = float(transmission.min()), float(transmission.max())
    if max(abs(low - 1), abs(high - 1)) > AIR_OFF_ONE:
        text = f"air reads a transmission of {low:.3g} to {high:.3g} instead of 1; each view was normalised in its air"
        doubt = "; that views differ so much may mean sample in the margins" if high > low * (1 + AIR_DRIFT) else ""
        warnings.warn(text + doubt, stacklevel=3)


def _warn_of_repeated_views(radiographs: Radiographs) -> None:
    turned = np.mod(radiographs.angles_rad + SAME_ANGLE_RAD / 2, 2 * math.pi)
    kinds = {
        "the same angle": (turned / SAME_ANGLE_RAD).astype(np.int64).tolist(),
        "the same frame": [frame.tobytes() for frame in radiographs.frames],
    }
    for what, keys in kinds.items():
        first: dict[Any, int] = {}
        pairs = [(first[key], view) for view, key in enumerate(keys) if first.setdefault(key, view) != view]
        if pairs:
            text = ", ".join(f"{a} and {b}" for a, b in pairs[:5]) + (", …" if len(pairs) > 5 else "")
            warnings.warn(f"{len(pairs)} of {len(keys)} views repeat {what}: views {text}", stacklevel=3)


def _listed(views: NDArray[Any]) -> str:
    return f"{len(views)} views: " + ", ".join(map(str, views[:5])) + (", …" if len(views) > 5 else "")
