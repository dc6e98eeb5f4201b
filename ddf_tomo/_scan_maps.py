"""What maps of retrieval become in a scan: data, weights, and what the channels respond to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ddf_tomo._checks import choice, message, number, sequence_of
from ddf_tomo._scan_arrays import join
from ddf_tomo.operators import responses
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.phases import attenuation, projected_decrement

DECREMENT_UNIT = 1e-6
JJ, JK, KK = 15, 17, 20  # in the error matrix: variances of C_jj and C_kk, and between them their covariance


class Wishes(NamedTuple):
    """Options of `Scan.from_maps`, checked."""

    unit_rad2: float
    weighted: bool
    exponent: float | None
    correlation_length_m: float | None
    propagation: bool
    air: Any


class Channels(NamedTuple):
    """Data ``(..., row, column, channel)`` of one piece of the maps, with their standard errors, and what they are."""

    data: Any
    error: Any
    response: Any
    unit: str
    error_of: str


def of_maps(maps: Any, quantity: str, wishes: Wishes) -> tuple[Any, Any, Any, Any, str, float | None]:
    """Data and weights of all views, transmissions, response, the unit of the data, and the pixel size."""
    parts: list[Maps] = [maps] if isinstance(maps, Maps) else sequence_of(Maps, maps, "maps")
    sizes = {part.pixel_size_m for part in parts}
    if len(sizes) > 1:
        raise ValueError(message("maps.pixel_size_m", "one pixel size in all maps", sorted(map(str, sizes))))
    make = QUANTITIES[choice(quantity, "quantity", tuple(QUANTITIES))]
    found = [make(part, wishes) for part in parts]
    if any(each.response != found[0].response for each in found):
        raise ValueError(message("maps", "the same channels in all maps", "other azimuths in some"))
    data = join([by_view(each.data, 4) for each in found])
    error = join([by_view(each.error, 4) for each in found])
    valid = join([by_view(part.valid, 3) for part in parts])
    weights = (
        weights_from_errors(error, valid, found[0].error_of) if wishes.weighted else valid[..., None] & (error < np.inf)
    )
    transmission = join([by_view(part.transmission, 3) for part in parts])
    return data, weights, transmission, found[0].response, found[0].unit, parts[0].pixel_size_m


def _scattering(maps: Maps, wishes: Wishes) -> Channels:
    with np.errstate(over="ignore"):
        theta, sigma = (each / wishes.unit_rad2 for each in maps.scattering())
    return Channels(theta, sigma, responses.SecondMomentResponse(), f"{wishes.unit_rad2:g} rad^2", "covariance")


def _rank_two(maps: Maps, wishes: Wishes) -> Channels:
    """``2Θ − ½ tr(Θ) 1``: what second moments up to order 2 are to a tensor of rank 2, errors included."""
    theta, sigma, _, unit, _ = _scattering(maps, wishes)
    jj, jk, kk = (theta[..., i] for i in range(3))
    var_jj, var_jk, var_kk = (sigma[..., i] ** 2 for i in range(3))
    both = 0.0 * var_jj
    if maps.error_matrix is not None:
        scale = var_jj / _positive(maps.error_matrix[..., JJ])  # of square pixels to the unit
        both = maps.error_matrix[..., JK] * scale
    stack: Any = torch.stack if isinstance(theta, torch.Tensor) else np.stack
    data = stack([1.5 * jj - 0.5 * kk, 2 * jk, 1.5 * kk - 0.5 * jj], -1)
    variance = stack(
        [2.25 * var_jj + 0.25 * var_kk - 1.5 * both, 4 * var_jk, 2.25 * var_kk + 0.25 * var_jj - 1.5 * both], -1
    )
    return Channels(data, variance**0.5, responses.RankTwoResponse(), unit, "covariance")


def _visibility(maps: Maps, wishes: Wishes) -> Channels:
    """``−ln V`` at each azimuth; several correlation lengths ξ are joined by the law ``−ln V ∝ ξ^β``."""
    if maps.visibility is None or maps.azimuths_rad is None or maps.correlation_lengths_m is None:
        hint = "retrieve with method='visibility'"
        raise ValueError(message("maps.visibility", "maps that hold visibilities", "none", hint))
    exponent = number(wishes.exponent, "exponent", low=0, high=2, low_open=True)
    lengths, azimuths = np.array(maps.correlation_lengths_m), maps.azimuths_rad
    both: Any = (maps.visibility, maps.visibility_error)
    values, errors = (each.reshape(*each.shape[:-1], len(lengths), len(azimuths)) for each in both)
    chosen = wishes.correlation_length_m
    if chosen is not None:
        near = int(np.abs(lengths - number(chosen, "correlation_length_m", low=0, low_open=True)).argmin())
        if abs(lengths[near] - chosen) > 1e-3 * chosen:
            expected = "one of " + ", ".join(f"{length:g}" for length in lengths)
            raise ValueError(message("correlation_length_m", expected, chosen))
        values, errors, lengths = values[..., near : near + 1, :], errors[..., near : near + 1, :], lengths[[near]]
    longest = lengths.max()
    growth = [float((length / longest) ** exponent) for length in lengths]
    trust = [_inverse(errors[..., i, :]) ** 2 for i in range(len(lengths))]
    weight = sum(g * g * w for g, w in zip(growth, trust, strict=True))
    mean = sum(g * w * values[..., i, :] for i, (g, w) in enumerate(zip(growth, trust, strict=True)))
    unit = f"-ln V at a correlation length of {longest:g} m"
    response = responses.DirectionalVisibilityResponse(azimuths, exponent)
    return Channels(mean / _positive(weight), _inverse(weight**0.5), response, unit, "visibility")


def _attenuation(maps: Maps, wishes: Wishes) -> Channels:
    values, errors = attenuation(maps, propagation=wishes.propagation)
    return Channels(values[..., None], errors[..., None], responses.IsotropicResponse(), "attenuation", "transmission")


def _phase(maps: Maps, wishes: Wishes) -> Channels:
    """``∫ δ dl``. Integration spreads errors: a view has one, that of its refraction angles over one pixel."""
    values = projected_decrement(maps, air=wishes.air, weighted=wishes.weighted) / DECREMENT_UNIT
    error = torch.as_tensor(maps.refraction_angle()[1]).detach()
    of_pixels = ((error[..., 0] ** 2 + error[..., 1] ** 2) / 2).sqrt() / DECREMENT_UNIT
    known = torch.where(torch.as_tensor(maps.valid), of_pixels, torch.nan)
    of_views = known.flatten(-2).nanmedian(-1).values[..., None, None].expand(of_pixels.shape)
    spread: Any = of_views if isinstance(maps.displacement, torch.Tensor) else of_views.numpy()
    unit = f"{DECREMENT_UNIT:g} voxel edges"  # of ∫ δ dl: per edge that is δ itself
    return Channels(values[..., None], spread[..., None], responses.IsotropicResponse(), unit, "displacement")


QUANTITIES: dict[str, Callable[[Maps, Wishes], Channels]] = {
    "scattering": _scattering,
    "rank-two": _rank_two,
    "visibility": _visibility,
    "attenuation": _attenuation,
    "phase": _phase,
}


def by_view(array: Any, ndim: int) -> Any:
    """The array with a first axis of views, which the map of a single view lacks."""
    return array[None] if array.ndim == ndim - 1 else array


def weights_from_errors(errors: Any, valid: Any, name: str) -> Any:
    """Inverse variances ``(views, J, K, channels)``, zero where not valid or where the error is infinite."""
    counts = valid[..., None] & (errors < np.inf)
    if bool((counts & ~(errors > 0)).any()) or bool((valid[..., None] & (errors != errors)).any()):
        hint = "weighted=False ignores them"
        raise ValueError(message(f"maps.{name}_error", "positive standard errors", "zeros, negative ones or NaN", hint))
    where: Any = torch.where if isinstance(errors, torch.Tensor) else np.where
    one = torch.ones_like(errors) if isinstance(errors, torch.Tensor) else np.ones_like(errors)
    # An error too large to be squared is as good as infinite; of one too small `Scan` tells.
    with np.errstate(over="ignore", divide="ignore"):
        return where(counts, 1 / where(counts, errors, one) ** 2, 0 * one)


def _positive(values: Any) -> Any:
    """The values, with 1 for zeros: to divide by."""
    return values + (values == 0)


def _inverse(values: Any) -> Any:
    """Inverses; of zero infinity, of infinity zero."""
    if isinstance(values, torch.Tensor):
        return 1 / values
    with np.errstate(divide="ignore"):
        return 1 / values
