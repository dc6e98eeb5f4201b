"""Matching: displacement and blur of the full, non-linear model, by Gauss-Newton in a window around each pixel.

A frame behind the sample is ``I_m(x) = T [G_C * R_m](x − u)`` (De Marco et al. 2023, Opt. Express 31, 635, match it by
trial shifts; Smith et al. 2022, PLoS ONE 17, e0273315, add a directional blur). By the heat equation
``∂(G_C * R)/∂C_ab = ½ ∂_a ∂_b (G_C * R)``, so one Gaussian around ``x − u`` and its moments give the model and all of
its derivatives, without interpolation and without a limit to shift or blur. What makes the answer and its error bars
right:

* the sample is smoothed by a Gaussian too (``smoothing``): the kernel of the reference has then the covariance
  ``C + σ²``, is never narrower than its sampling resolves, and ``C`` may come out as zero, or below where noise says
  so. Because the sample is smoothed *after* it was moved, slopes of u and T enter that kernel, to first order;
* light starts with the blur of its own place. Kernels that arrive where C changes are therefore skewed (first order
  in ∇C, third derivatives of the reference), which would read as a displacement of some hundredths of a pixel;
* T belongs to a pixel and is eliminated there (Schur complement) before the window sums, as in ``differential``;
* every pixel is evaluated at its own unknowns, and the window solves for what they have in common, slopes taken off:
  contrast that changes over the window does not pull the answer to one side. A last step fits what the window left
  (twicing; Stuetzle & Mittal 1979): no bias by the curvature of the maps, at equal noise;
* noise of the reference adds known terms to the normal matrix and to the score (errors in variables): Gaussian
  moments, taken off exactly. Its level comes from the gain, or from the misfit in the window;
* standard errors propagate the noise of both frames, correlated by smoothing and blur, through the fit (a sandwich).

Examples
--------
>>> from ddf_tomo.retrieval import retrieve
>>> generator = torch.Generator().manual_seed(0)
>>> grains = torch.rand(8, 86, 86, generator=generator)
>>> for _ in range(3):
...     grains = torch.nn.functional.avg_pool2d(grains, 3, stride=1)
>>> maps = retrieve(500 * grains.roll((1, -2), dims=(1, 2)), 1000 * grains, "matching")
>>> maps.displacement[40, 40].round(decimals=2), bool(maps.covariance[40, 40].abs().max() < 0.02)
(tensor([ 1., -2.]), True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import choice, flag, integer, message, number
from ddf_tomo.retrieval import _matching_fit
from ddf_tomo.retrieval._fisher import ERRORS, with_fisher_errors
from ddf_tomo.retrieval._matching_fit import (
    FEWEST_FRAMES,
    GATHERED,
    LEAST_TRANSMISSION,
    LEAST_WINDOW,
    SMOOTHED,
    WIDER,
    levels,
)
from ddf_tomo.retrieval._matching_gradient import with_gradient
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import Method, View

PRIORS = ("smoothness", "total-variation")
WINDOW = 2.2  # pixels, with many frames
SPREAD = 0.4  # pixels, added to a window in squares, by which u is coarser than T
MANY_FRAMES = 10  # with fewer of them the window grows, unless it is given
TRIANGLE = np.triu_indices(6)


class _Matching:
    """The non-linear retrieval as a method of `ddf_tomo.retrieval.retrieve`.

    Options:

    * ``window``: standard deviation in pixels of a Gaussian window of equal noise and resolution; by default 2.2, and
      wider for fewer than ten frames. With fewer than four T is constant in the window, too, and one frame will do.
    * ``smoothing``: standard deviation of the Gaussian that smooths the sample's frames, and what is added to the
      blur of the reference. 1 is a few per cent less precise, and nearer to no bias at counts of a few hundred.
    * ``background``: fit the share of light without pattern as well. What a scintillator scatters far reads as
      isotropic blur otherwise; errors of the isotropic part grow by about a third.
    * ``largest_shift``: in pixels; frames are first matched at coarser resolution, for shifts up to this.
    * ``iterations``: at most; pixels that move less than a tenth of their errors rest earlier.
    * ``positive``: set negative eigenvalues of C to zero. Averages of C are then biased where it is not well above
      its error, which is why the default leaves the unbiased estimate.
    * ``prior``: ``"smoothness"`` (curvature of C costs) or ``"total-variation"`` (C is constant but for edges), solved
      jointly over the view from the frames of single pixels, C without negative eigenvalues if ``positive``. T and u
      follow. Errors of C are then those of the noise that gets through; what the prior bends is not in them.
    * ``weight``: of the prior, in units of the noise of a pixel; by default that of least estimated risk in each view.
    * ``errors``: ``"sandwich"``, noise of both frames propagated through the fit; or ``"fisher"``, what counting noise
      of the sample alone would leave.

    The gain, where known, gives the level of the noise; it is taken from the misfit in the window otherwise, and
    there is no ``chi2`` then. Compiled on the CPU, torch elsewhere. T, u, C and background are differentiable.
    """

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {
            "window": None,
            "smoothing": 0.85,
            "background": False,
            "largest_shift": 3.0,
            "iterations": 8,
            "positive": False,
            "errors": "sandwich",
            "prior": None,
            "weight": "auto",
        }

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        rows, columns = shape[-2:]
        window = options["window"]
        if window is None:
            window = WINDOW * max(1.0, MANY_FRAMES / (shape[0] * shape[1])) ** 0.5
        checked = {
            "window": number(window, "window", low=0.5, high=max(rows, columns, 1)),
            "smoothing": number(options["smoothing"], "smoothing", low=0.7, high=10),
            "background": flag(options["background"], "background"),
            "largest_shift": number(options["largest_shift"], "largest_shift", low=0.1, high=100),
            "iterations": integer(options["iterations"], "iterations", low=1, high=100),
            "positive": flag(options["positive"], "positive"),
            "errors": choice(options["errors"], "errors", ERRORS),
            "prior": options["prior"],
            "weight": options["weight"],
        }
        if checked["prior"] is not None:
            checked["prior"] = choice(checked["prior"], "prior", PRIORS)
            if shape[0] * shape[1] < FEWEST_FRAMES:
                expected = f"None for fewer than {FEWEST_FRAMES} frames"
                raise ValueError(message("prior", expected, f"{checked['prior']!r} for {shape[0] * shape[1]}"))
        if isinstance(checked["weight"], str):
            choice(checked["weight"], "weight", ("auto",))
        else:
            checked["weight"] = number(checked["weight"], "weight", low=1e-6, high=1e12)
        least = 2 * int(np.ceil(SMOOTHED * checked["smoothing"])) + 1
        if min(rows, columns) < least:
            hint = "Smoothing reaches as far"
            raise ValueError(message("sample", f"at least {least} rows and columns", (rows, columns), hint))
        return checked

    def after_tiles(self, options: dict[str, Any]) -> Callable[..., dict[str, torch.Tensor]] | None:
        """What the prior makes of a whole view; see `Method`."""
        from ddf_tomo.retrieval._matching_prior import regularised

        return None if options["prior"] is None else partial(regularised, options=options)

    def halo(self, options: dict[str, Any]) -> int:
        """Windows of the last two steps and of the coarsest start, smoothing, shift, blur."""
        windows = 2 * WIDER * options["window"] + LEAST_WINDOW * 2 ** levels(options["largest_shift"])
        return int(np.ceil(GATHERED * windows + SMOOTHED * options["smoothing"] + options["largest_shift"] + 8))

    def passes(self, options: dict[str, Any]) -> int:
        iterations: int = options["iterations"]
        return iterations

    def fit(
        self, view: View, options: dict[str, Any], tick: Callable[[], object], start: torch.Tensor | None = None
    ) -> Maps:
        with torch.no_grad():
            found = _matching_fit.fit(view, options, tick, start)
        maps = _maps(found, view, options)
        if options["errors"] == "fisher":
            _, pixelwise = _matching_fit.unknowns_of(view.sample.shape, options["background"])
            given = options["window"], options["smoothing"], options["background"]
            maps = with_fisher_errors(maps, view, *given, pixelwise=pixelwise)
        if torch.is_grad_enabled() and any(each.requires_grad for each in view[:3]):
            return _differentiable(maps, found, view, options)
        return maps


METHOD: Method = _Matching()


def _maps(fit: _matching_fit.Fit, view: View, options: dict[str, Any]) -> Maps:
    """The outcome as maps: T with the background in it, what is not valid set to zero."""
    background, kappa = options["background"], fit.theta[..., 5]
    kappa_error = np.zeros_like(kappa)
    valid = fit.valid & np.isfinite(fit.theta).all(-1) & ~np.isnan(fit.errors).any((-2, -1))
    valid &= fit.transmission > 2 * LEAST_TRANSMISSION
    errors = np.where(valid[..., None, None] & np.isfinite(fit.errors), fit.errors, 0)
    if background:
        # T as share of the intensity is T (1 + κ).
        turn = np.zeros((*kappa.shape, 6, 7)) + np.eye(6, 7)
        turn[..., 0, 0], turn[..., 0, 6] = 1 + kappa, fit.transmission
        kappa_error = errors[..., 6, 6].copy()
        errors = turn @ errors @ turn.swapaxes(-1, -2)
    lost = ~valid[..., None] | np.isinf(np.diagonal(fit.errors, axis1=-2, axis2=-1)[..., :6])
    # Nothing known: infinite variances, no correlations.
    none = np.where(np.eye(6, dtype=bool), np.inf, 0)
    errors = np.where(lost[..., None] | lost[..., None, :], none, errors[..., :6, :6])
    variances = np.diagonal(errors, axis1=-2, axis2=-1)
    deviations = np.sqrt(np.where(variances > 0, variances, np.inf))
    kappa_error = np.where(valid, np.sqrt(np.maximum(kappa_error, 0)), np.inf) if background else kappa_error
    theta = np.where(valid[..., None], fit.theta, 0)
    if options["positive"]:
        theta[..., 2:5] = _matching_fit.bounded(torch.from_numpy(theta[..., 2:5])).numpy()
    freedom = np.where(fit.freedom > 0, fit.freedom * fit.noise, 1)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, device=view.sample.device).to(view.sample.dtype)

    return Maps(
        transmission=tensor(fit.transmission * (1 + theta[..., 5])),
        displacement=tensor(theta[..., :2]),
        covariance=tensor(theta[..., 2:5]),
        background=tensor(theta[..., 5]),
        transmission_error=tensor(deviations[..., 0]),
        displacement_error=tensor(deviations[..., 1:3]),
        covariance_error=tensor(deviations[..., 3:6]),
        background_error=tensor(kappa_error),
        residual=tensor(fit.residual),
        valid=torch.as_tensor(valid, device=view.sample.device),
        chi2=None if np.isnan(view.counts) else tensor(np.where(fit.freedom > 0, fit.misfit / freedom, 0)),
        error_matrix=tensor(errors[..., *TRIANGLE]),
        windows_px=(float(np.hypot(WIDER * options["window"], SPREAD)),) * 2,
    )


def _differentiable(maps: Maps, fit: _matching_fit.Fit, view: View, options: dict[str, Any]) -> Maps:
    """The same maps, T, u, C and background with their gradient by the frames; standard errors have none."""
    transmission, theta = with_gradient(view, fit, options)
    background = theta[..., 5]
    found: dict[str, Any] = {
        "transmission": transmission * (1 + background),
        "displacement": theta[..., :2],
        "covariance": theta[..., 2:5],
        "background": background,
    }
    for name, value in found.items():
        old: torch.Tensor = getattr(maps, name)
        found[name] = old + value - value.detach()
    return replace(maps, **found)
