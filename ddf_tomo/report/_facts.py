"""What a report tells, as numbers: everything is computed here, once, and only worded elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import message
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.derived import Derived, derive
from ddf_tomo.geometry import ARRAYS, Geometry
from ddf_tomo.merits import DataShare, Merits, compare, data_share
from ddf_tomo.operators.observability import Observability, observability
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.visualization.style import data_unit

MOST_PROJECTED = 30_000  # voxels, to see whether they fall on the detector
SHARE_ITERATIONS = 40
SAME = 1e-6  # voxels and components of unit vectors
MOST_WORK = 2e9  # voxels × views × coefficients: shares of larger ones would take longer than a minute or two
HIGHEST_ORDER_ASKED = 4  # at least this far the acquisition is judged, whatever was reconstructed


@dataclass(frozen=True, eq=False)
class Fit:
    """How a reconstruction agrees with the data.

    Attributes
    ----------
    residual_share
        Norm of the weighted residual over that of the weighted data.
    per_view
        The same for each view alone; zero where a view has no weight; ``(views,)``.
    masked_share, masked_views
        Share of the data of weight zero, and number of views that have no others.
    over_noise
        Root mean square of the residuals in units of their standard deviations; None where weights do not tell these.
    free_share
        Unknowns over data: a perfect fit has ``sqrt(1 - free_share) <= over_noise <= 1``, the lower the less smoothed.
    edge_share
        Median over views of the strongest mean signal at an end of the detector's rows, over that at its strongest row.
    """

    residual_share: float
    per_view: NDArray[np.float64]
    masked_share: float
    masked_views: int
    over_noise: float | None
    free_share: float
    edge_share: float


@dataclass(frozen=True, eq=False)
class Facts:
    """A reconstruction, its scan where there is one, and what follows from them."""

    reconstruction: Reconstruction
    scan: Scan | None = None
    truth: Any = None

    @property
    def derived(self) -> Derived:
        """Mean, anisotropy, directions."""
        return self.reconstruction.derived()

    @property
    def unit(self) -> str:
        """Unit of the coefficients."""
        source = self.reconstruction.provenance if self.scan is None else self.scan.provenance
        return f"{data_unit(source)}/voxel"

    @cached_property
    def observability(self) -> Observability:
        """What the acquisition can tell."""
        order = max(self.reconstruction.ell_max, HIGHEST_ORDER_ASKED)
        return observability(self.reconstruction.geometry, self.reconstruction.response, order)

    @cached_property
    def fit(self) -> Fit | None:
        """How the reconstruction agrees with the data, if there are any."""
        return None if self.scan is None else _fit(self.reconstruction, self.scan, self.predicted)

    @cached_property
    def share(self) -> DataShare | None:
        """What of the volume came from the data; None without a scan, and where it would take too long."""
        if self.scan is None or self.reconstruction.coefficients.size * len(self.scan) > MOST_WORK:
            return None
        return data_share(self.reconstruction, self.scan, iterations=SHARE_ITERATIONS)

    @property
    def doubts(self) -> list[str]:
        """Why a learned prior may be wrong here, as `ddf_tomo.reconstruct` warned."""
        told = self.reconstruction.settings.get("doubts", [])
        return [str(line) for line in told] if isinstance(told, (list, tuple)) else []

    @cached_property
    def predicted(self) -> NDArray[Any]:
        """What the volume predicts for the data."""
        return np.asarray(self.reconstruction.predicted())

    @cached_property
    def merits(self) -> Merits | None:
        """How far the volume is from the truth, if that is known."""
        return None if self.truth is None else compare(self.reconstruction, self.truth)

    @cached_property
    def true_derived(self) -> Derived | None:
        """Mean, anisotropy and directions of the truth, if that is known."""
        if self.truth is None:
            return None
        return self.truth.derived() if hasattr(self.truth, "derived") else derive(self.truth)

    @cached_property
    def beyond_detector(self) -> NDArray[np.float64]:
        """Share of the sample's scattering that each view projects beyond the detector; ``(views,)``."""
        geometry, valid = self.reconstruction.geometry, self.derived.valid
        step = max(1, np.count_nonzero(valid) // MOST_PROJECTED)
        places = (np.argwhere(valid) + 0.5 - np.array(geometry.volume_shape) / 2)[::step]
        scattering = self.derived.mean[valid][::step].astype(np.float64)
        rows, columns = geometry.detector_shape
        beyond = np.zeros(len(geometry))
        for view in range(len(geometry) if len(places) else 0):
            along_j = np.abs(places @ geometry.j[view] - geometry.j_offset[view])
            along_k = np.abs(places @ geometry.k[view] - geometry.k_offset[view])
            beyond[view] = scattering[(along_j > rows / 2) | (along_k > columns / 2)].sum() / scattering.sum()
        return beyond

    @cached_property
    def touched_faces(self) -> list[str]:
        """Faces of the volume of which the sample fills more than a twentieth."""
        valid = self.derived.valid
        return [
            f"{sign}{name}"
            for axis, name in enumerate("xyz")
            for sign, index in (("−", 0), ("+", -1))
            if np.take(valid, index, axis).mean() > 0.05
        ]

    @cached_property
    def negative_share(self) -> float:
        """Share of the sample's voxels whose function falls below −5 % of the voxel's mean in some direction."""
        valid, derived = self.derived.valid, self.derived
        if not valid.any():
            return 0.0
        if not getattr(self.reconstruction.response, "of_harmonics", True):
            least = derived.eigenvalues[valid].min(axis=-1)
        else:
            values = evaluate(half_sphere_grid(60), self.reconstruction.ell_max)
            least = (self.reconstruction.coefficients[valid].astype(np.float32) @ values.T.astype(np.float32)).min(-1)
        return float((least < -0.05 * derived.mean[valid]).mean())


def matching_scan(reconstruction: Reconstruction, scan: Scan) -> Scan:
    """The scan as it was reconstructed: itself, or binned to the pixels of the reconstruction.

    Raises
    ------
    ValueError
        If it is not the scan that the reconstruction was made of.
    """
    for factor in range(1, min(scan.geometry.detector_shape) + 1):
        rows = scan.geometry.detector_shape[0] // factor
        if rows < reconstruction.geometry.detector_shape[0]:
            break
        binned = scan.geometry if factor == 1 else scan.geometry.binned(factor)
        if scan.response == reconstruction.response and _same(binned, reconstruction.geometry):
            return scan.binned(factor)
    expected = f"the scan of this reconstruction ({reconstruction.geometry.summary().splitlines()[0]})"
    raise ValueError(message("scan", expected, f"another one: {scan!r}"))


def _same(first: Geometry, second: Geometry) -> bool:
    """Whether two geometries are one, up to what files and binning round off."""
    if (first.volume_shape, first.detector_shape) != (second.volume_shape, second.detector_shape):
        return False
    return len(first) == len(second) and all(
        np.allclose(getattr(first, name), getattr(second, name), rtol=0, atol=SAME) for name in ARRAYS
    )


def _fit(reconstruction: Reconstruction, scan: Scan, predicted: NDArray[Any]) -> Fit:
    data = as_numpy(scan.data).astype(np.float64)
    weights = as_numpy(scan.full_weights())
    counted = weights > 0
    residual = predicted - data
    left, all_ = ((weights * values**2).sum(axis=(1, 2, 3)) for values in (residual, data))
    count = int(np.count_nonzero(counted))
    # Weights that are all alike and 1, or masks of 0 and 1, do not tell how large the noise is.
    known = scan.weights is not None and bool((weights[counted] != 1).any())
    free = np.count_nonzero(reconstruction.derived().valid) * reconstruction.coefficients.shape[-1]
    sums = (np.abs(data) * counted).sum(axis=(2, 3)) / np.maximum(counted.sum(axis=(2, 3)), 1)
    return Fit(
        residual_share=_root_ratio(left.sum(), all_.sum()),
        per_view=np.sqrt(np.divide(left, all_, out=np.zeros_like(left), where=all_ > 0)),
        masked_share=1 - count / counted.size,
        masked_views=int((~counted.any(axis=(1, 2, 3))).sum()),
        over_noise=float(np.sqrt(left.sum() / count)) if known else None,
        free_share=min(free / count, 1.0),
        edge_share=float(np.median(sums[:, [0, -1]].max(axis=1) / np.maximum(sums.max(axis=1), 1e-300))),
    )


def _root_ratio(first: float, second: float) -> float:
    return float(np.sqrt(first / second)) if second > 0 else 0.0
