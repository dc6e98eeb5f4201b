"""Retrieval beyond the second moment: ``−ln V`` at several azimuths and correlation lengths, from a mask's frames.

A sample frame is a reference frame that was moved by u(x), lost the share 1 − T(x), and whose Fourier components lost
visibility, ``S_m(x) = T Σ_q V(x, q) R̂_m(q) exp(iq(x − u))``. Here ``−ln V`` is no quadratic form: it is a Fourier
series over the azimuth of q, to order 4 and more, at each of a few frequencies, with a power law between them
(`LogVisibility`). What two crossing families of fibres do to the visibility is in the order 4, of which the second
moments know nothing [Strobl 2014, Sci. Rep. 4, 7243: lengths ξ = λ d / period].

The series is fitted by Gauss-Newton's method in windows:

* the reference is moved and blurred by what was found so far, exactly (`blurred`). What remains is compared with its
  derivatives with respect to u and to the series, which are filters of it: the local spectra of both frames are
  regressed on each other, over all steps, weighted by the power that the mask has at each frequency;
* as prediction and sample stem from the same reference, its particular grains make no error, only noise does;
* T belongs to a pixel, and is eliminated pixel by pixel over the mask steps before the window sums;
* noise of the reference adds to the squares of the derivatives, and poses as a negative ``−ln V``: both are taken off.
  Its power is known from ``counts``, or from the differences of sample and prediction at frequencies of half a cycle a
  pixel, where no mask has a pattern;
* standard errors come from the scatter of the single steps' influence (a sandwich clustered by step; Liang & Zeger
  1986, Biometrika 73, 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import NOT_NUMBERS, even_order, integer, message, number, of_kind
from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, gaussian_taps
from ddf_tomo.retrieval._focusing import error_of_slope, focused
from ddf_tomo.retrieval._log_visibility import LogVisibility
from ddf_tomo.retrieval._visibility_fit import COARSE, MARGIN, WIDE, Fit, Part, full_of, upper_of
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["METHOD", "Exponent", "calibrated", "estimate_exponent"]

MINIMUM_STEPS = 4  # the scatter of fewer says nothing about an error
SPREAD = 1.27  # times the smoothing, added to a window in squares, by which u is coarser than T


@dataclass(frozen=True)
class Visibility:
    """The method ``"visibility"`` of `ddf_tomo.retrieval.retrieve`.

    Its options:

    * ``window``: standard deviation in pixels of the Gaussian window over which u and the series are constant (2.5);
    * ``smoothing``: of the Gaussian that smooths both frames (1.0): more where the mask is coarse and counts are few;
    * ``periods``: in pixels, at which ``−ln V`` is wanted, one or several (8.0). There is power to measure with where
      half a period is about the width of the mask's grains; two periods tell the exponent (`estimate_exponent`);
    * ``azimuths``: how many, evenly over half a circle from j towards k (8);
    * ``order``: highest order of the series over the azimuth, even (4);
    * ``exponent``: of the power law in frequency through each period (2.0, exact for Gaussian blur). With one period
      another exponent scales the result; with several it matters little;
    * ``passes``: of the fit at full resolution (3).

    The maps hold ``visibility`` ``(row, column, length · azimuth)`` for all distances, from short to long, and in each
    for all periods, from long to short. Lengths are λ d / period; as wavelength, distance and pixel are not the
    method's, it gives them in units of λ d / pixel at the longest distance: turn them to metres with `calibrated`.
    ``covariance`` is that of the longest period, ``2 (−ln V) / |q|²``: the Gaussian that takes the same visibility
    there. All of it is one fit, ``error_matrix`` included.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> reference = 1 + 0.2 * torch.randn(6, 1, 48, 48, generator=generator).repeat_interleave(1, 1)[:, 0]
    >>> reference = torch.nn.functional.avg_pool2d(reference, 5, 1, 2)
    >>> one = torch.ones(1, 1, 48, 48)
    >>> view = View(0.7 * reference[None].roll(1, -1), reference[None], one, torch.ones(1), math.nan)
    >>> maps = METHOD.fit(view, METHOD.check({}, (1, 6, 48, 48)), int)
    >>> maps.displacement[24, 24].round(decimals=1).abs().tolist(), maps.visibility.shape
    ([0.0, 1.0], torch.Size([48, 48, 8]))
    """

    options: ClassVar[dict[str, Any]] = {
        "window": 2.5,
        "smoothing": 1.0,
        "periods": 8.0,
        "azimuths": 8,
        "order": 4,
        "exponent": 2.0,
        "passes": 3,
    }

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        given = self.options | {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(set(given) - set(self.options)):
            raise ValueError(message(unknown[0], f"one of {', '.join(self.options)}", "another option"))
        if shape[1] < MINIMUM_STEPS:
            hint = "Fewer leave no scatter to take errors from"
            raise ValueError(message("sample", f"at least {MINIMUM_STEPS} mask steps", shape[1], hint))
        smallest, largest = min(shape[-2:]), max(shape[-2:])
        if smallest < 16:
            raise ValueError(message("sample", "at least 16 rows and columns", tuple(shape[-2:])))
        try:
            periods = [float(each) for each in np.atleast_1d(np.asarray(given["periods"])).ravel().tolist()]
        except NOT_NUMBERS as error:
            raise TypeError(message("periods", "one number of pixels or several", repr(given["periods"]))) from error
        for period in periods:
            number(period, "periods", low=1 / 0.4, high=64.0)
        if not periods or len(periods) > 6 or any(a < 1.1 * b for a, b in pairwise(sorted(periods, reverse=True))):
            hint = "Bands of periods closer than that are one"
            raise ValueError(message("periods", "1 to 6 numbers, each 1.1 times the next", given["periods"], hint))
        order = even_order(given["order"], "order", high=8)
        azimuths = integer(given["azimuths"], "azimuths", low=1, high=64)
        if azimuths < order + 1:
            hint = "Fewer lose a part of the series"
            raise ValueError(message("azimuths", f"at least {order + 1}, for order {order}", azimuths, hint))
        return {
            "window": number(given["window"], "window", low=0.5, high=largest),
            "smoothing": number(given["smoothing"], "smoothing", low=0.0, high=10.0),
            "periods": tuple(sorted(periods, reverse=True)),
            "azimuths": azimuths,
            "order": order,
            "exponent": number(given["exponent"], "exponent", low=0.0, high=2.0, low_open=True),
            "passes": integer(given["passes"], "passes", low=1, high=20),
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result."""
        coarse = sum(len(gaussian_taps(max(each, options["smoothing"]))) for each in COARSE)
        start = len(COARSE) * len(gaussian_taps(max(WIDE, options["window"])))
        fit = (options["passes"] + 1) * len(gaussian_taps(options["window"]))
        return MARGIN + DERIVATIVE_REACH + fit + (coarse + start) // 2

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        return len(COARSE) + int(options["passes"]) + 1

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile; gradients do not pass."""
        with torch.no_grad():
            parts: list[Part] = []
            for d in range(len(view.sample)):
                weights = view.weights[d if len(view.weights) > 1 else 0]
                fit = Fit(view.sample[d], view.reference[d], weights, view.counts, options, tick)
                start = parts[-1].shift * (view.reach[d] / view.reach[d - 1]) if parts else None
                parts.append(fit.run(start))
            return _maps(parts, view.reach, options)


METHOD = Visibility()


def _maps(parts: list[Part], reach: Tensor, options: dict[str, Any]) -> Maps:
    """Distances put together: T, u and C are means with the inverse variances of each, at the longest distance."""
    law = LogVisibility(options["periods"], options["order"], options["exponent"])
    azimuths = torch.arange(options["azimuths"], dtype=torch.float64) * math.pi / options["azimuths"]
    channels = law.of_visibility(azimuths)
    low = torch.zeros(6, 3 + len(law), dtype=torch.float64)
    low[0, 0] = low[1, 1] = low[2, 2] = 1
    low[3:, 3:] = law.of_covariance()
    means, variances, curves, errors, valid = [], [], [], [], []
    for part, r in zip(parts, reach.tolist(), strict=True):
        scatter = full_of(part.scatter, 3 + len(law))
        unit = torch.tensor([1, r, r, r * r, r * r, r * r], dtype=torch.float64)
        into = (low / unit[:, None]).to(scatter)
        found = torch.cat([part.transmission[None], part.shift, part.amplitudes])
        means.append(torch.einsum("ab,bjk->jka", into, found))
        variances.append((into @ scatter @ into.T).reshape(*found.shape[1:], 6, 6))
        out = channels.to(scatter)
        curves.append(torch.einsum("ab,bjk->jka", out, part.amplitudes))
        variance = torch.einsum("ab,nbc,ac->na", out, scatter[:, 3:, 3:], out).reshape(*found.shape[1:], -1)
        errors.append(torch.where(part.valid[..., None], variance.clamp(min=0).sqrt(), torch.inf))
        valid.append(part.valid)
    mean, variance, anywhere = _combined(means, variances, valid)
    if len(parts) > 1:
        _focus(mean, variance, anywhere, parts, reach, options["window"])
    error = torch.where(anywhere[..., None], variance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt(), torch.inf)
    rows, columns = upper_of(6)
    matrix = variance[..., rows, columns]
    zero = torch.zeros_like(mean[..., 0])
    reached = [r / period for r in reach.tolist() for period in law.periods]
    steps = torch.stack(valid).sum(0).clamp(min=1)
    return Maps(
        transmission=mean[..., 0],
        displacement=mean[..., 1:3],
        covariance=mean[..., 3:],
        background=zero,
        transmission_error=error[..., 0],
        displacement_error=error[..., 1:3],
        covariance_error=error[..., 3:],
        background_error=torch.where(anywhere, zero, torch.inf),
        residual=torch.stack([part.residual for part in parts]).mean(0),
        valid=anywhere,
        chi2=torch.stack([part.chi2 * part.valid for part in parts]).sum(0) / steps,
        error_matrix=matrix,
        visibility=torch.cat(curves, -1),
        visibility_error=torch.cat(errors, -1),
        azimuths_rad=tuple(azimuths.tolist()),
        correlation_lengths_m=tuple(reached),
        windows_px=(math.hypot(options["window"], SPREAD * options["smoothing"]),),
    )


def _focus(mean: Tensor, variance: Tensor, anywhere: Tensor, parts: list[Part], reach: Tensor, window: float) -> None:
    """T of all distances, freed of propagation contrast, and its variance; in place."""
    valid = torch.stack([part.valid for part in parts])
    share = torch.where(valid, 1 / torch.stack([part.scatter[0] for part in parts]).clamp(min=1e-20), 0)
    share = share / share.sum(0).clamp(min=1e-20)
    seen = torch.stack([part.transmission for part in parts])
    transmission, far = focused(seen, share, mean[..., 1:3].movedim(-1, 0), anywhere, reach)
    of_shift = variance.diagonal(dim1=-2, dim2=-1)[..., 1:3].movedim(-1, 0)
    mean[..., 0] = torch.where(anywhere, transmission, mean[..., 0])
    variance[..., 0, 0] += torch.where(anywhere, (transmission * far).square() * error_of_slope(of_shift, window), 0)


def _combined(means: list[Tensor], variances: list[Tensor], valid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Means of (T, u, C) over the distances, each with the inverse of its own variance, and their variances."""
    anywhere = torch.stack(valid).any(0)
    if len(means) == 1:
        mean, variance = means[0], variances[0]
    else:
        shares = [
            torch.where(ok[..., None], 1 / each.diagonal(dim1=-2, dim2=-1).clamp(min=1e-20), 0)
            for each, ok in zip(variances, valid, strict=True)
        ]
        total = torch.stack(shares).sum(0).clamp(min=1e-20)
        shares = [each / total for each in shares]
        mean = torch.stack([share * each for share, each in zip(shares, means, strict=True)]).sum(0)
        spread = [
            share[..., :, None] * each * share[..., None, :] for share, each in zip(shares, variances, strict=True)
        ]
        variance = torch.stack(spread).sum(0)
    return torch.where(anywhere[..., None], mean, 0), torch.where(anywhere[..., None, None], variance, 0), anywhere


class Exponent(NamedTuple):
    """How ``−ln V`` grows with the correlation length; made by `estimate_exponent`.

    Attributes
    ----------
    value, error
        β of ``−ln V ∝ ξ^β`` and its standard error.
    chi2
        Squared deviations from the power law over their expected size, a degree of freedom; None for two lengths, which
        any power law fits.

    Examples
    --------
    >>> Exponent(1.02, 0.03, None).value
    1.02
    """

    value: float
    error: float
    chi2: float | None


def estimate_exponent(maps: Maps) -> Exponent:
    """β of ``−ln V ∝ ξ^β``, from visibilities at several correlation lengths; the exponent of
    `ddf_tomo.DirectionalVisibilityResponse`.

    At each length the visibilities of all valid pixels and azimuths are summed, in which noise averages out before the
    logarithm is taken, and a line is fitted to the logarithms. A mean over pixels and azimuths of one law is that law.

    Between the periods the retrieval assumes an exponent itself, its option ``exponent``: where that is wrong, near
    periods pull each other, by a tenth for 1.5 instead of 1.2. Retrieve a few views, estimate, and retrieve again with
    what was found: the second estimate stays. Where ``−ln V = σ (1 − G(ξ))`` saturates, β is the mean slope over the
    lengths that there are, and ``chi2`` tells that it is no power law.

    Parameters
    ----------
    maps
        With `Maps.visibility` at two correlation lengths or more.

    Raises
    ------
    TypeError, ValueError
        If these are no maps, have fewer lengths, or no visibility above its error.

    Examples
    --------
    >>> from ddf_tomo.retrieval.maps import Maps
    >>> one = np.ones((4, 5))
    >>> two, three = np.ones((4, 5, 2)), np.ones((4, 5, 3))
    >>> curve = np.concatenate([0.1 * three, 0.1 * 2**1.5 * three], -1)
    >>> maps = Maps(one, two, three, 0 * one, one, two, three, one, one, one > 0, visibility=curve,
    ...             visibility_error=0.01 * curve, azimuths_rad=(0.0, 1.0, 2.0), correlation_lengths_m=(1e-6, 2e-6))
    >>> round(estimate_exponent(maps).value, 6)
    1.5
    """
    of_kind(Maps, maps, "maps", "ddf_tomo.retrieval.Maps")
    lengths = np.array(maps.correlation_lengths_m or ())
    if maps.visibility is None or len(np.unique(lengths)) < 2:
        hint = "Retrieve with method='visibility' and two periods, or several distances"
        raise ValueError(message("maps", "visibilities at two correlation lengths or more", len(lengths), hint))
    shape = (*maps.transmission.shape, len(lengths), len(maps.azimuths_rad or ()))
    value = np.asarray(maps.visibility, float).reshape(shape)
    error = np.asarray(maps.visibility_error, float).reshape(shape)
    used = np.asarray(maps.valid)[..., None, None] & np.isfinite(error) & np.isfinite(value)
    used = used.all(-2, keepdims=True) & used
    total = np.where(used, value, 0).reshape(-1, *shape[-2:]).sum((0, 2))
    # Neighbouring pixels and azimuths share their noise: the error of a sum is bounded by the sum of the errors.
    doubt = np.where(used, error, 0).reshape(-1, *shape[-2:]).sum((0, 2))
    if not (used.any() and (lengths > 0).all() and (total > doubt).all() and (total > 0).all()):
        raise ValueError(message("maps", "visibility losses above their errors at every length", "others"))
    x, y, sigma = np.log(lengths), np.log(total), np.maximum(doubt / total, 1e-12)
    weight = sigma**-2 / (sigma**-2).sum()
    x, y = x - weight @ x, y - weight @ y
    slope = float((weight * x) @ y / ((weight * x) @ x))
    misfit = float((((y - slope * x) / sigma) ** 2).sum()) / max(len(x) - 2, 1)
    return Exponent(slope, float(((sigma**-2 * x) @ x) ** -0.5), misfit if len(x) > 2 else None)


def calibrated(maps: Maps, wavelength_m: float) -> Maps:
    """The maps with correlation lengths ``λ d / period`` in metres, from a retrieval that knew no wavelength.

    Parameters
    ----------
    maps
        As `ddf_tomo.retrieval.retrieve` gives them with ``method="visibility"`` or ``"periodic"``, pixel size and
        distance.
    wavelength_m
        λ: 1.24e-9 m over the energy in keV.

    Raises
    ------
    TypeError, ValueError
        If these are no maps, or lack visibilities, pixel size or distance.

    Examples
    --------
    >>> one = np.ones((4, 5))
    >>> two, three = np.ones((4, 5, 2)), np.ones((4, 5, 3))
    >>> maps = Maps(one, two, three, 0 * one, one, two, three, one, one, one > 0, 1e-6, 0.5, visibility=two,
    ...             visibility_error=two, azimuths_rad=(0.0, 1.0), correlation_lengths_m=(1 / 8,))
    >>> calibrated(maps, 5e-11).correlation_lengths_m  # 5e-11 m · 0.5 m / (8 · 1e-6 m)
    (3.125e-06,)
    """
    of_kind(Maps, maps, "maps", "ddf_tomo.retrieval.Maps")
    wavelength = number(wavelength_m, "wavelength_m", low=1e-13, high=1e-6)
    for name in ("correlation_lengths_m", "pixel_size_m", "distance_m"):
        if getattr(maps, name) is None:
            raise ValueError(message("maps", f"maps with {name}", None))
    unit = wavelength * float(maps.distance_m or 0) / float(maps.pixel_size_m or 1)
    return replace(maps, correlation_lengths_m=tuple(unit * each for each in maps.correlation_lengths_m or ()))
