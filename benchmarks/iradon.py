"""Scalar tomography of measured projections (91 views), slice by slice beside scikit-image's filtered back-projection.

The same line integrals, axis and pixel grid for both; ours is weighted conjugate gradients on `XRayTransform`, which
are not filtered back-projection: results agree as far as the data say, and times are given without a bar.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
from harness import Row, in_turn, spread

from ddf_tomo import XRayTransform
from ddf_tomo.datasets import ct_projections
from ddf_tomo.retrieval.absorption import absorption, axial_geometry
from ddf_tomo.retrieval.rotation_axis import find_rotation_axis
from ddf_tomo.solvers import cgls

ITERATIONS = 40
OBJECT = 0.1  # slices whose strongest signal exceeds this share of the strongest of all hold the object


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Correlation of the slices, and agreement of both with the measurement; ``size`` is the number of slices."""
    from skimage.transform import iradon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that air does not read 1 is what these data are for
        measured = absorption(ct_projections())
    angles = measured.angles_rad
    column = find_rotation_axis(measured.data, angles).column
    rows = _rows_of_the_object(measured.data, size or (4 if quick else measured.data.shape[2]))
    data, weights = (np.ascontiguousarray(a[:, :, rows]) for a in (measured.data, measured.weights))
    # An odd number of columns, for which both have a voxel on the axis.
    width = data.shape[1] - 1 + data.shape[1] % 2
    projector = XRayTransform(axial_geometry(angles, data.shape[1:3], column, (width, width, len(rows))))
    positions = column + np.arange(width) - width // 2
    columns = np.arange(data.shape[1])
    sinograms = np.array(
        [[np.interp(positions, columns, line, 0, 0) for line in view] for view in data[..., 0].swapaxes(1, 2)]
    )

    def filtered() -> np.ndarray:
        found = [iradon(s.T, np.degrees(angles), circle=True, filter_name="ramp") for s in sinograms.swapaxes(0, 1)]
        return np.stack([picture[::-1].T for picture in found], axis=-1)  # rows count down, y counts up

    def iterative() -> np.ndarray:
        found = cgls(projector, data, weights=weights / weights.mean(), iterations=ITERATIONS, progress=False)
        return found.x[..., 0].numpy()

    ours, theirs = iterative(), filtered()
    x, y = np.meshgrid(*[np.arange(width) - width // 2] * 2, indexing="ij")
    circle = x**2 + y**2 < (width // 2 - 1) ** 2
    pairs = [(ours[circle, k], theirs[circle, k]) for k in range(len(rows))]
    correlations = tuple(float(np.corrcoef(a, b)[0, 1]) for a, b in pairs)
    mirrored = [float(np.corrcoef(ours[::-1][circle, k], theirs[circle, k])[0, 1]) for k in range(len(rows))]
    slopes = [float(b @ a / (a @ a)) for a, b in pairs]
    note = spread(correlations, of="slices")
    yield Row("correlation of slices, median", float(np.median(correlations)), note=note)
    yield Row("the same with ours mirrored", float(np.median(mirrored)), note="what a wrong sign would give")
    yield Row("scale, iradon against ours", float(np.median(slopes)))
    for name, volume in (("ours", ours), ("iradon", theirs)):
        volume = np.ascontiguousarray(volume[..., None], np.float32)
        misfit = float((weights * (projector(volume) - data) ** 2).sum() / (weights * data**2).sum())
        yield Row(f"weighted misfit to the data, {name}", misfit**0.5)
    timings = in_turn({"ours": iterative, "iradon": filtered}, 1 if quick else 3, warm_up=False)
    yield from (timings.row(name, f"{len(rows)} slices") for name in ("ours", "iradon"))


def _rows_of_the_object(data: np.ndarray, count: int) -> np.ndarray:
    strongest = data.max(axis=(0, 1, 3))
    rows = np.flatnonzero(strongest > OBJECT * strongest.max())
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
