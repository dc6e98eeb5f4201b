"""Figures of merit: how far a reconstructed volume is from the truth, and a prediction from the data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, message, number, of_kind, real_array
from ddf_tomo.derived import Derived, angle_between, derive
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.spherical_harmonics import order_of, orders
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.phantoms.truth import Truth
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan


@dataclass(frozen=True)
class Merits:
    """How far a volume is from the truth, over the voxels of the sample; made by `compare`.

    A figure that nothing defines is NaN: correlation with a constant, direction in an isotropic sample. Angles are
    radians, 0 … π/2.

    Attributes
    ----------
    nrmse
        ``(Σ|found - true|² / Σ|true|²)^½`` over all coefficients that either has; those that one lacks count as zero.
    nrmse_shared_orders
        The same over the orders that both have.
    nrmse_per_order
        The same for each order ℓ that either has; 1 for an order that was not reconstructed, infinite for one that
        the truth does not have.
    mean_correlation
        Pearson's correlation of the mean over the sphere.
    direction_error_median_rad, direction_error_p90_rad
        Median and 90th percentile of the angle between found and true principal directions, voxels weighted by the true
        fractional anisotropy: isotropic ones, whose direction means nothing, do not count.
    direction_error_unweighted_median_rad, direction_error_unweighted_p90_rad
        The same with equal weights.
    anisotropy_rmse
        Root mean square error of the fractional anisotropy.
    voxels
        Number of voxels that were compared.
    """

    nrmse: float
    nrmse_shared_orders: float
    nrmse_per_order: dict[int, float]
    mean_correlation: float
    direction_error_median_rad: float
    direction_error_p90_rad: float
    direction_error_unweighted_median_rad: float
    direction_error_unweighted_p90_rad: float
    anisotropy_rmse: float
    voxels: int

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values that JSON can hold: orders are texts, and what is not finite is None."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {str(key): plain(entry) for key, entry in value.items()}
            return value if math.isfinite(value) else None

        return {name: plain(value) for name, value in asdict(self).items()}

    def _lines(self) -> list[tuple[str, str]]:
        orders_ = ", ".join(f"ℓ = {ell}: {value:.3g}" for ell, value in self.nrmse_per_order.items())
        weighted = self.direction_error_median_rad, self.direction_error_p90_rad
        even = self.direction_error_unweighted_median_rad, self.direction_error_unweighted_p90_rad
        return [
            ("error of the coefficients (NRMSE)", f"{self.nrmse:.4g}"),
            ("error over the orders that both have", f"{self.nrmse_shared_orders:.4g}"),
            ("error of each order", orders_),
            ("correlation of the mean", f"{self.mean_correlation:.4f}"),
            ("direction error, median | 90th percentile", " | ".join(_degrees(angle) for angle in weighted)),
            ("direction error, all voxels alike", " | ".join(_degrees(angle) for angle in even)),
            ("error of the fractional anisotropy (RMSE)", f"{self.anisotropy_rmse:.4g}"),
            ("voxels", str(self.voxels)),
        ]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self._lines())
        return "\n".join(f"{label:{width}}  {value}" for label, value in self._lines())

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in self._lines())
        return f"<table>{''.join(rows)}</table>"


def compare(found: Any, truth: Any, threshold: float = 0.1) -> Merits:
    """Figures of merit of a volume whose truth is known.

    Principal directions and anisotropy are those of `derive`, for the truth as well as for what was found. For fibres
    of one family they are the fibres' own; where families cross, they are those of the whole function.

    Parameters
    ----------
    found
        A `Reconstruction`, a `Truth`, or harmonic coefficients ``(x, y, z, K)``.
    truth
        The same kinds. ``ell_max`` need not be the same. Rank-2 tensors (of a `Reconstruction` with such a response)
        are compared as the harmonics of ``q̂ᵀ Σ q̂``, which is exact; of a `Truth`, its `Truth.tensors` are then
        meant, as in `simulate`.
    threshold
        Voxels are compared whose true mean exceeds this share of its maximum, 0 … 1.

    Returns
    -------
    Merits

    Raises
    ------
    ValueError
        If the volumes differ in shape, are not finite, or the true mean is nowhere positive.
    TypeError
        If an argument is of none of these kinds.

    Examples
    --------
    >>> from ddf_tomo.phantoms import helicoidal_fibres
    >>> truth = helicoidal_fibres((12, 12, 12))
    >>> merits = compare(1.1 * truth.coefficients[..., :6], truth)  # 10 % too bright, and without order 4
    >>> {ell: round(value, 3) for ell, value in merits.nrmse_per_order.items()}
    {0: 0.1, 2: 0.1, 4: 1.0}
    >>> print(str(merits).splitlines()[0])
    error of the coefficients (NRMSE)          0.1443
    """
    threshold = number(threshold, "threshold", low=0.0, high=1.0)
    (coefficients, derived), (exact, true) = _volumes(found, truth)
    check_shape(coefficients.shape[:3], "found (volume)", exact.shape[:3])
    brightest = float(true.mean.max(initial=0.0))
    sample = (true.mean > threshold * brightest) & (true.mean > 0)
    if not sample.any():
        raise ValueError(message("truth", "a mean above the threshold somewhere", f"a largest mean of {brightest:.3g}"))
    nrmse, shared, per_order = _errors(coefficients[sample], exact[sample])
    angles = angle_between(derived.direction[sample], true.direction[sample])
    # A volume in float32 has anisotropies of 1e-7 where the sample has none.
    anisotropy = true.fractional_anisotropy[sample]
    weights = np.where(anisotropy > 1e-5, anisotropy, 0)
    return Merits(
        nrmse=nrmse,
        nrmse_shared_orders=shared,
        nrmse_per_order=per_order,
        mean_correlation=_correlation(derived.mean[sample], true.mean[sample]),
        direction_error_median_rad=_weighted_quantile(angles, 0.5, weights),
        direction_error_p90_rad=_weighted_quantile(angles, 0.9, weights),
        direction_error_unweighted_median_rad=float(np.quantile(angles, 0.5)),
        direction_error_unweighted_p90_rad=float(np.quantile(angles, 0.9)),
        anisotropy_rmse=_root_mean_square(derived.fractional_anisotropy[sample] - anisotropy),
        voxels=int(sample.sum()),
    )


def data_misfit(reconstruction: Reconstruction, scan: Scan) -> float:
    """Mean squared residual over the variance of the noise, ``Σ w (A c - data)² / n``: χ² per datum.

    About 1 where the volume explains the data to within their noise, less where it follows the noise, more where
    something is missing. Weights are those of the scan, taken for inverse variances; ``n`` counts the data of positive
    weight. The scan may be another one than was reconstructed, such as views that were left out.

    Parameters
    ----------
    reconstruction
        The volume.
    scan
        Data with weights, of the same volume shape and with a response to the same kind of coefficients.

    Raises
    ------
    ValueError
        If the scan has no weights (the noise is not known), or does not fit the volume.
    TypeError
        If an argument is of another kind.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse, reconstruct
    >>> from ddf_tomo.phantoms import simulate, tilt_series
    >>> scan = simulate("helicoidal", tilt_series((12, 12, 12)), SecondMomentResponse(), noise=0.02)
    >>> 0.8 < data_misfit(reconstruct(scan, progress=False), scan) < 1.2
    True
    """
    of_kind(Reconstruction, reconstruction, "reconstruction", "a ddf_tomo.Reconstruction")
    of_kind(Scan, scan, "scan", "a ddf_tomo.Scan")
    if scan.weights is None:
        raise ValueError(message("scan", "one with weights, the inverse variances of its noise", "one without"))
    check_shape(scan.geometry.volume_shape, "scan (volume)", reconstruction.geometry.volume_shape)
    if _is_rank_two(reconstruction) == getattr(scan.response, "of_harmonics", True):
        found = f"{scan.response!r} beside {reconstruction.response!r}"
        raise ValueError(message("scan", "a response to the coefficients of the reconstruction", found))
    operator = TensorXRayTransform(scan.geometry, scan.response, reconstruction.ell_max)
    predicted = np.asarray(operator(real_array(reconstruction.coefficients, "reconstruction", (None,) * 4)))
    weights = real_array(scan.full_weights(), "scan (weights)")
    residual = np.sqrt(weights) * (predicted - real_array(scan.data, "scan (data)"))
    strength = _root_mean_square(residual[weights > 0])
    if strength > 1e150:
        raise ValueError(message("scan", "residuals whose squares float64 can hold", f"{strength:.3g} times the noise"))
    return strength**2


def _volumes(found: Any, truth: Any) -> list[tuple[NDArray[Any], Derived]]:
    """Harmonic coefficients and derived quantities of both."""
    if _is_rank_two(found) or _is_rank_two(truth):
        tensors = [tensor for tensor in map(_tensors, (found, truth)) if tensor is not None]
        if len(tensors) == 2:
            return [(coefficients_from_tensor(tensor), derive(tensor, of_harmonics=False)) for tensor in tensors]
    return [_harmonics(found, "found"), _harmonics(truth, "truth")]


def _is_rank_two(value: Any) -> bool:
    return isinstance(value, Reconstruction) and not getattr(value.response, "of_harmonics", True)


def _tensors(value: Any) -> NDArray[Any] | None:
    if isinstance(value, Truth):
        return value.tensors()
    return value.coefficients if _is_rank_two(value) else None


def _harmonics(value: Any, argument: str) -> tuple[NDArray[Any], Derived]:
    if isinstance(value, Truth):
        return real_array(value.coefficients, argument), value.derived()
    values = value.coefficients if isinstance(value, Reconstruction) else value
    if _is_rank_two(value):
        values = coefficients_from_tensor(values)
    values = real_array(values, argument, (None,) * 4)
    order_of(values.shape[-1], argument)
    return values, derive(values)


def _errors(found: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float, dict[int, float]]:
    """NRMSE over all orders, over those that both have, and of each."""
    shared = min(found.shape[-1], truth.shape[-1])
    ell, _ = orders(max(order_of(found.shape[-1]), order_of(truth.shape[-1])))
    # In units of the largest number, so that no square leaves the range.
    unit = max(float(np.abs(found).max()), float(np.abs(truth).max()))
    found, truth = (np.pad(v / unit, [(0, 0), (0, len(ell) - v.shape[-1])]) for v in (found, truth))

    def error(chosen: Any) -> float:
        difference, norm = (np.linalg.norm(v[:, chosen]) for v in (found - truth, truth))
        return float(difference / norm) if norm else math.inf if difference else 0.0

    return error(np.s_[:]), error(np.s_[:shared]), {int(n): error(ell == n) for n in np.unique(ell)}


def _correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    first, second = (v.astype(np.float64) / max(float(np.abs(v).max()), 1e-300) for v in (first, second))
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else math.nan


def _weighted_quantile(values: NDArray[Any], share: float, weights: NDArray[Any]) -> float:
    """The smallest value that, with all smaller ones, has this share of the weight."""
    if not weights.any():
        return math.nan
    return float(np.quantile(values, share, weights=weights, method="inverted_cdf"))


def _root_mean_square(values: NDArray[Any]) -> float:
    largest = float(np.abs(values).max(initial=0.0))
    return largest * math.sqrt(float(((values / largest) ** 2).mean())) if largest else 0.0


def _degrees(angle_rad: float) -> str:
    return f"{math.degrees(angle_rad):.2f}°"
