"""What the instrument adds to the maps, from where there is no sample.

In air nothing blurs, shifts or absorbs: what the maps read there is the instrument's. A mask or a source that moved
since the reference was taken shows as a displacement, one that changed its size as a covariance (widths of blurs add as
squares, so that it is subtracted), the beam's strength as a transmission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import NOT_NUMBERS, check_shape, choice, flag, integer, message, of_kind
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.retrieval.maps import Maps

QUANTITIES = ("transmission", "displacement", "covariance", "visibility")
MARGIN = 1 / 16  # of the columns at either side, for "margins"
TILES = 5  # along each side of the detector, for the jackknife: wider than what the windows of a retrieval tie together
FEWEST_TILES = 4
MOST_ORDER, MOST_DRIFT = 2, 20
DIAGONAL = (0, 6, 11, 15, 18, 20)  # of the upper triangle of the error matrix


@dataclass(frozen=True, eq=False)
class AirCalibration:
    """What the maps of each view read in air; made by `calibrate_blur`.

    Attributes
    ----------
    coefficients
        Of the polynomial over the detector, for each of ``"transmission"``, ``"displacement"``, ``"covariance"`` and,
        where the maps have one, ``"visibility"``: shape ``(views, channels, terms)``. The first term is the value at
        the centre of the detector; coordinates run from -1 to 1 across it.
    covariances
        Of their errors, shape ``(views, channels, terms, terms)``.
    drift_chi2
        Squared departure of the views from the drift over its expectation, for each quantity; empty without a drift.
    exponents
        Powers of row and column of each term.
    """

    coefficients: Mapping[str, NDArray[np.float64]]
    covariances: Mapping[str, NDArray[np.float64]]
    drift_chi2: Mapping[str, float]
    exponents: tuple[tuple[int, int], ...]

    def at_centre(self, quantity: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values of a ``quantity`` at the centre of the detector and their standard errors, ``(views, channels)``."""
        choice(quantity, "quantity", tuple(self.coefficients))
        return self.coefficients[quantity][..., 0], np.sqrt(self.covariances[quantity][..., 0, 0])

    def apply(self, maps: Maps, *, transmission: bool = True) -> Maps:
        """The maps less what air reads; their standard errors grow by those of the calibration.

        Parameters
        ----------
        maps
            Of the same views.
        transmission
            Whether to divide the transmission by that of air, too.
        """
        of_kind(Maps, maps, "maps", "Maps")
        flag(transmission, "transmission")
        views = len(self.coefficients["displacement"])
        shape = _three_axes(maps)
        check_shape(shape[:1], "maps (views)", (views,))
        changed: dict[str, Any] = {}
        added: dict[str, Any] = {}
        for name in self.coefficients:
            if name == "transmission" and not transmission:
                continue
            value, error = (as_numpy(getattr(maps, each)) for each in (name, f"{name}_error"))
            flat = value.reshape(*shape, -1).astype(np.float64)
            air, variance = self._over_detector(name, shape[1:])
            check_shape(air.shape, f"maps.{name}", flat.shape)
            if name == "transmission":
                flat, variance, scale = flat / air, (flat / air**2) ** 2 * variance, 1 / air
            else:
                flat, scale = flat - air, np.ones_like(air)
            spread = error.reshape(flat.shape) * scale
            changed[name] = _like(getattr(maps, name), flat)
            changed[f"{name}_error"] = _like(getattr(maps, f"{name}_error"), np.sqrt(spread**2 + variance))
            added[name] = (variance, scale)
        if maps.error_matrix is not None:
            changed["error_matrix"] = self._error_matrix(maps, added, shape)
        return replace(maps, **changed)

    def _over_detector(self, name: str, shape: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        terms = _terms(shape, self.exponents)
        values = np.einsum("vct,jkt->vjkc", self.coefficients[name], terms)
        return values, np.einsum("jkt,vcts,jks->vjkc", terms, self.covariances[name], terms)

    def _error_matrix(self, maps: Maps, added: Mapping[str, Any], shape: Any) -> Any:
        matrix = as_numpy(maps.error_matrix).astype(np.float64).reshape(*shape, 21)
        rows, columns = np.triu_indices(6)
        names = ("transmission", *["displacement"] * 2, *["covariance"] * 3)
        places = (0, 0, 1, 0, 1, 2)
        scale = np.ones((*shape, 6))
        for entry, (name, place) in enumerate(zip(names, places, strict=True)):
            if name in added:
                scale[..., entry] = added[name][1][..., place]
        matrix = matrix * scale[..., rows] * scale[..., columns]
        for entry, (name, place) in enumerate(zip(names, places, strict=True)):
            if name in added:
                matrix[..., DIAGONAL[entry]] += added[name][0][..., place]
        return _like(maps.error_matrix, matrix)

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"air of {len(self.coefficients['displacement'])} views, {len(self.exponents)} terms over the detector"
        ]
        for name in self.coefficients:
            value, error = self.at_centre(name)
            for channel in range(min(value.shape[1], 3)):
                column = value[:, channel]
                chi2 = f", drift's χ² {self.drift_chi2[name]:.2g}" if name in self.drift_chi2 else ""
                lines.append(
                    f"{name}[{channel}]: {column.min():.4g} … {column.max():.4g}, "
                    f"standard error {np.median(error[:, channel]):.2g}{chi2}"
                )
        return "\n".join(lines)


def calibrate_blur(
    maps: Maps, air: str | ArrayLike = "margins", *, order: int = 0, drift: int | None = None
) -> AirCalibration:
    """Blur, displacement and transmission of the instrument in each view, from regions of air.

    In each view a polynomial over the detector is fitted to the valid pixels of air, weighted with their standard
    errors. Its own errors come from a jackknife over tiles of neighbouring pixels [Quenouille 1956, Biometrika 43,
    353], as neighbours share their windows and are not independent.

    Parameters
    ----------
    maps
        Maps of one view, shape ``(J, K)``, or of several, ``(views, J, K)``.
    air
        Where there is no sample in the beam: a boolean mask, shape ``(J, K)`` or that of the maps, or ``"margins"``,
        1/16 of the columns at either side.
    order
        Degree of the polynomial over the detector: 0 a constant, 1 a plane (a mask that turned or came closer), 2.
    drift
        ``None`` takes each view as it reads; a number fits a polynomial of this degree over the views, in their order,
        which averages the noise of air out.

    Returns
    -------
    AirCalibration
        Whose ``apply(maps)`` gives corrected maps.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or a view has too little air.

    Examples
    --------
    >>> one, three = np.ones((4, 8, 32)), np.ones((4, 8, 32, 3))
    >>> maps = Maps(one, 0.2 * three[..., :2], 0.5 * three, 0 * one, one, three[..., :2], three, one, one, one > 0)
    >>> calibration = calibrate_blur(maps)
    >>> calibration.at_centre("covariance")[0][0].round(6).tolist()
    [0.5, 0.5, 0.5]
    >>> float(calibration.apply(maps).covariance.max().round(6))
    0.0
    """
    of_kind(Maps, maps, "maps", "Maps")
    order = integer(order, "order", high=MOST_ORDER)
    shape = _three_axes(maps)
    mask = _air(air, shape) & as_numpy(maps.valid).reshape(shape)
    exponents = tuple((a, b) for total in range(order + 1) for a in range(total, -1, -1) for b in (total - a,))
    least = 2 * max(2, len(exponents))
    counts = mask.sum((1, 2))
    if (counts < least).any():
        view = int(counts.argmin())
        raise ValueError(
            message("air", f"at least {least} valid pixels in every view", f"{counts[view]} in view {view}")
        )
    degree = None if drift is None else integer(drift, "drift", high=min(MOST_DRIFT, max(shape[0] - 1, 0)))
    terms = _terms(shape[1:], exponents)
    coefficients, covariances, chi2 = {}, {}, {}
    for name in QUANTITIES:
        if getattr(maps, name) is None:
            continue
        value, error = (as_numpy(getattr(maps, n)).reshape(*shape, -1) for n in (name, f"{name}_error"))
        fits = [_fit(terms, value[v], error[v], mask[v], name) for v in range(shape[0])]
        coefficients[name], covariances[name] = np.stack([f[0] for f in fits]), np.stack([f[1] for f in fits])
        if degree is not None:
            coefficients[name], covariances[name], chi2[name] = _smooth(coefficients[name], covariances[name], degree)
    return AirCalibration(coefficients, covariances, chi2, exponents)


def _three_axes(maps: Maps) -> tuple[int, int, int]:
    shape = tuple(maps.transmission.shape)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(message("maps", "maps of shape (J, K) or (views, J, K)", shape))
    views, rows, columns = shape if len(shape) == 3 else (1, *shape)
    return views, rows, columns


def _air(air: Any, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    if isinstance(air, str):
        if air != "margins":
            raise ValueError(message("air", "'margins' or a boolean mask", repr(air)))
        width = max(1, round(MARGIN * shape[2]))
        mask[..., :width] = mask[..., shape[2] - width :] = True
        return mask
    try:
        given = np.asarray(air.detach().cpu() if isinstance(air, Tensor) else air)
    except NOT_NUMBERS as error:
        raise TypeError(message("air", "'margins' or a boolean mask", type(air).__name__)) from error
    if given.dtype != bool:
        raise TypeError(message("air", "'margins' or a boolean mask", f"{given.dtype} values"))
    check_shape(given.shape, "air", shape if given.ndim == 3 else shape[1:])
    mask[...] = given
    return mask


def _terms(shape: Any, exponents: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """Monomials of row and column, each from -1 to 1; shape ``(J, K, terms)``."""
    row, column = ((2 * np.arange(n) + 1) / n - 1 for n in shape)
    return np.stack([row[:, None] ** a * column**b for a, b in exponents], axis=-1)


def _fit(
    terms: NDArray[Any], value: NDArray[Any], error: NDArray[Any], mask: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients ``(channels, terms)`` in one view, and their covariance by a jackknife over tiles."""
    phi, q, sigma = terms[mask], value[mask].astype(np.float64), error[mask].astype(np.float64)
    usable = np.isfinite(q) & np.isfinite(sigma) & (sigma > 0)
    if not np.isfinite(q).all():
        raise ValueError(message(f"maps.{name}", "finite values in valid pixels of air", "NaN or infinite ones"))
    # Without errors (as of exact maps) all pixels count alike.
    typical = np.median(sigma[usable]) if usable.any() else 1.0
    weights = np.where(usable, (typical / np.where(usable, sigma, 1)) ** 2, 0 if usable.any() else 1)
    parts = _tiles(mask)
    normal = np.stack([np.einsum("nt,nc,ns->cts", phi[b], weights[b], phi[b]) for b in parts])
    right = np.stack([np.einsum("nt,nc,nc->ct", phi[b], weights[b], q[b]) for b in parts])

    def solved(matrix: Any, vector: Any) -> Any:
        return np.einsum("...ts,...s->...t", np.linalg.pinv(matrix, hermitian=True), vector)

    found = solved(normal.sum(0), right.sum(0))
    without = solved(normal.sum(0) - normal, right.sum(0) - right)
    apart = without - without.mean(0)
    count = len(parts)
    return found, (count - 1) / count * np.einsum("bct,bcs->cts", apart, apart)


def _tiles(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Which of the pixels in a mask lie in the same tile of the detector."""
    row, column = (np.arange(n) * TILES // n for n in mask.shape)
    tile = (row[:, None] * TILES + column)[mask]
    order = np.argsort(tile, kind="stable")
    ends = np.flatnonzero(np.diff(tile[order])) + 1
    if len(ends) + 1 >= FEWEST_TILES:
        return np.split(order, ends)
    return np.array_split(np.arange(len(tile)), min(TILES**2, len(tile)))


def _smooth(values: NDArray[Any], covariances: NDArray[Any], degree: int) -> tuple[Any, Any, float]:
    """Polynomials over the views through every coefficient; their covariances (between terms left out), and χ²."""
    views = len(values)
    basis = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, views), degree))[0]
    variances = np.einsum("vctt->vct", covariances)
    typical = np.median(variances, axis=0)
    weights = 1 / np.maximum(variances, 1e-6 * typical + 1e-300)
    normal = np.einsum("vn,vct,vm->ctnm", basis, weights, basis)
    inverse = np.linalg.pinv(normal, hermitian=True)
    fitted = np.einsum("vn,ctnm,wm,wct,wct->vct", basis, inverse, basis, weights, values, optimize=True)
    free = max(views - degree - 1, 1)
    chi2 = ((values - fitted) ** 2 * weights).sum(0) / free
    spread = np.einsum("vn,ctnm,vm->vct", basis, inverse, basis) * np.maximum(chi2, 1)
    return fitted, spread[..., None] * np.eye(values.shape[2]), float(chi2.mean())


def _like(original: Any, array: NDArray[Any]) -> Any:
    """In the shape, kind and precision of the original."""
    if isinstance(original, Tensor):
        return original.new_tensor(array.reshape(tuple(original.shape)))
    return array.reshape(original.shape).astype(original.dtype if original.dtype.kind == "f" else np.float64)
