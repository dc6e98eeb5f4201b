"""Linear retrieval: displacement and blur as first-order changes of the mask's image.

With a warp that conserves photons and a blur, a sample frame S and a reference frame R of mask step m obey, to first
order,

    S_m / T − R_m = −u·∇P_m + ½ Σ_ab C_ab ∂_a ∂_b P_m + κ ⟨R⟩,

linear in the six unknowns (T, u, C) of a pixel once T, the same in all steps, is divided out (Quénot et al. 2021,
Optica 8, 1412; Pavlov et al. 2020, J. Opt. 22, 125604). Five choices make the answer and its error bars right:

* the pattern ``P_m = (S_m/T + R_m)/2`` is the midpoint of both frames. The propagator
  ``exp(−u·∇ + ½ C:∇∇)`` is then met to second order, not first (trapezoid rule), and the
  noise of P is uncorrelated with that of S/T - R where T = 1, so noise makes no dark field in air;
* T belongs to a pixel, u and C to a window: T is eliminated pixel by pixel (a Schur complement over the mask steps)
  before the window sums, so edges and phase-contrast fringes do not leak into the dark field;
* light that arrives without any pattern (glare of the scintillator, scatter wider than the window) lowers the contrast
  equally at all spatial frequencies, a Gaussian blur does not: the share κ tells the two apart. In the measured four
  rods it is 1.7 % of the air between the rods, which without κ reads as a blur of 0.03 square pixels;
* what noise adds to the normal equations (errors in variables; Fuller 1987, Measurement Error Models) is estimated
  from the derivatives of the residual itself, so neither gain nor spectrum of the noise is asked for. Only the ratio
  of the variances of S/T and R enters, 1/T for counting noise;
* standard errors come from the scatter of the single steps' influence (a sandwich clustered by step; Liang & Zeger
  1986, Biometrika 73, 13): noise of different steps is independent, noise of neighbouring pixels need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ddf_tomo._checks import choice, flag, message, number
from ddf_tomo.retrieval import _differential_compiled, _differential_torch
from ddf_tomo.retrieval._differential_maps import PASSES, maps_of, options_of
from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, gaussian_taps
from ddf_tomo.retrieval._fisher import ERRORS, with_fisher_errors
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import Method, View

MINIMUM_FRAMES = 4  # of all distances: the scatter of fewer says nothing about an error


class _Differential:
    """The linear retrieval as a method of `ddf_tomo.retrieval.retrieve`.

    Options: ``window``, ``smoothing``, ``background``, and ``errors``: ``"sandwich"`` (the default), from the scatter
    of the steps, or ``"fisher"``, what counting noise of the sample alone would leave.
    """

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {"window": 3.0, "smoothing": 1.0, "background": True, "errors": "sandwich"}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        distances, steps, rows, columns = shape
        least = max(2, -(-MINIMUM_FRAMES // distances))
        if steps < least:
            hint = "Fewer leave no scatter to take errors from"
            raise ValueError(message("sample", f"at least {least} mask steps", steps, hint))
        smoothing = number(options["smoothing"], "smoothing", low=0, high=10)
        window = number(options["window"], "window", low=0.5, high=max(rows, columns))
        least = 2 * (len(gaussian_taps(smoothing)) - 1 + DERIVATIVE_REACH) + 1
        if min(rows, columns) < least:
            hint = f"Smoothing and derivatives reach over {least // 2} pixels to every side"
            raise ValueError(message("sample", f"at least {least} rows and columns", (rows, columns), hint))
        return {
            "window": window,
            "smoothing": smoothing,
            "background": flag(options["background"], "background"),
            "errors": choice(options["errors"], "errors", ERRORS),
        }

    def halo(self, options: dict[str, Any]) -> int:
        """Smoothing, derivatives, windows, each of them as often as one result follows from another."""
        smoothed, gathered = (len(gaussian_taps(options[name])) - 1 for name in ("smoothing", "window"))
        return 2 * smoothed + 4 * DERIVATIVE_REACH + 4 * gathered

    def passes(self, options: dict[str, Any]) -> int:
        return PASSES

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        wanted = torch.is_grad_enabled() and any(each.requires_grad for each in view[:3])
        compiled = view.sample.device.type == "cpu" and not wanted
        fit = (_differential_compiled if compiled else _differential_torch).fit(view, options, tick)
        window, smoothing, background = options_of(options)
        maps = maps_of(fit, view, window, smoothing, background)
        return with_fisher_errors(maps, view, window, smoothing, background) if options["errors"] == "fisher" else maps


METHOD: Method = _Differential()
