"""`"network"` and `"network+matching"` as methods of `ddf_tomo.retrieval.retrieve`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddf_tomo.retrieval import matching
from ddf_tomo.retrieval._matching_fit import LEAST_TRANSMISSION
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import Method, View
from ddf_tomo.retrieval.network._evidence import BINS, PAIRS, QUANTITIES, Evidence, applied, binned, evidence
from ddf_tomo.retrieval.network._pyramid import LEVELS, PER_WINDOW, pyramid
from ddf_tomo.retrieval.network.direct import DirectNetwork
from ddf_tomo.weights.network_files import network_for

MATCHING = matching._Matching()
ITERATIONS = 3  # of the start, as in training
# Pixels of the frames, beyond matching's own: 320 can touch a result, those farther than this do by less than 1e-5 of
# the largest (measured frames, cut at growing distances).
REACH = 192
# Pixels, less than what is assumed beforehand: of a window whose displacement is less certain nothing is told.
UNKNOWN = 0.25
PREFERRED = "retrieval-network"


class _Network:
    """Maps by a learned network in one pass; for few mask positions, one above all.

    Options:

    * ``model``: file of weights, or the name of one that is shipped.
    * ``smoothing``, ``largest_shift``: of the start, as of `ddf_tomo.retrieval.matching`.

    The start and the linear model of the frames around it are those of matching; the network weighs what windows of
    2 to 22 pixels say, and adds what it learned of maps. So u and C belong to no fixed window, C is positive, and
    errors are those that were met on simulated samples held out from training. Give the gain: the network knows counts
    by it, otherwise they are taken from the misfit. T is constant over some pixels for fewer than four frames, and of
    each pixel for more. Differentiable.
    """

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {"model": PREFERRED, "smoothing": 0.85, "largest_shift": 3.0}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises what names the argument."""
        own = {name: options[name] for name in ("smoothing", "largest_shift")}
        checked = MATCHING.check(MATCHING.options | own | {"iterations": ITERATIONS}, shape)
        network_for(DirectNetwork, options["model"])
        return checked | {"model": os.fspath(options["model"])}

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result."""
        return MATCHING.halo(options) + REACH

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        iterations: int = options["iterations"]
        return iterations

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile."""
        found = evidence(view, options, tick)
        network = network_for(DirectNetwork, options["model"])
        return _maps(found, *_estimated(found, network), without_gain=math.isnan(view.counts))


class _Refined(_Network):
    """The exact fit of `ddf_tomo.retrieval.matching`, from where the network arrived.

    Options: ``model``, and those of matching. Gradients are those of matching.
    """

    def __init__(self) -> None:
        self.options = {"model": PREFERRED} | MATCHING.options

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises what names the argument."""
        own = {name: value for name, value in options.items() if name != "model"}
        return MATCHING.check(own, shape) | {"model": super().check(options, shape)["model"]}

    def after_tiles(self, options: dict[str, Any]) -> Callable[..., dict[str, Tensor]] | None:
        """As of matching."""
        return MATCHING.after_tiles(options)

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile."""
        with torch.no_grad():
            found = evidence(view, options | {"iterations": ITERATIONS})
            theta, *_ = _estimated(found, network_for(DirectNetwork, options["model"]))
            background = torch.zeros_like(theta[:1])
            start = torch.cat([theta[:5], background, theta[5:]]).movedim(0, -1).double()
        return MATCHING.fit(view, options, tick, start=start)


METHOD: Method = _Network()
REFINED: Method = _Refined()


def _estimated(found: Evidence, network: DirectNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """u, C, ln T ``(6, row, column)``, logarithms of their errors, and that of u in a window, all of single pixels."""
    levels = [each[None].float() for each in pyramid(found.terms, found.coarse)]
    output = network.to(levels[0].device)(levels)[0].to(found.terms)
    theta, log_error = on_pixels(output, found.same.shape).split(QUANTITIES)
    if found.single is not None:
        own, right = found.single[:QUANTITIES].detach(), found.single[QUANTITIES]
        known = own[5].clamp(min=1e-6)
        # T of a pixel is linear in its frames once u and C are known.
        change = (right - (own[:5] * theta[:5]).sum(0)) / known - found.start[5]
        told = own[5] > 1
        log_t = torch.where(told, found.start[5] + change.clamp(min=LEAST_TRANSMISSION - 1).log1p(), theta[5])
        noise = torch.where(told, 0.5 * torch.logaddexp(2 * log_error[5], -known.log()), log_error[5])
        theta, log_error = torch.cat([theta[:5], log_t[None]]), torch.cat([log_error[:5], noise[None]])
    certain = levels[LEVELS - 2][0, PER_WINDOW - QUANTITIES : PER_WINDOW - QUANTITIES + 2].detach().amax(0)
    side = BINS * 2 ** (LEVELS - 2)
    rows, columns = found.same.shape
    return theta, log_error, certain.repeat_interleave(side, 0).repeat_interleave(side, 1)[:rows, :columns]


def on_pixels(maps: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Maps of the evidence ``(channel, row/2, column/2)`` on the pixels of frames of this shape."""
    rows, columns = shape
    fine = interpolate(maps[None], scale_factor=BINS, mode="bilinear", align_corners=False)[0]
    return fine[:, :rows, :columns]


def _maps(found: Evidence, theta: Tensor, log_error: Tensor, certain: Tensor, *, without_gain: bool) -> Maps:
    with torch.no_grad():
        misfit, freedom = _misfit(found, theta)
        freedom = freedom * found.noise  # counts that were divided with the terms
    valid = found.same & (certain < math.log(UNKNOWN)) & theta.isfinite().all(0) & log_error.isfinite().all(0)
    error = torch.where(valid, log_error.clamp(max=20).exp(), torch.inf).detach()
    theta = torch.where(valid, theta, torch.zeros_like(theta))
    transmission = theta[5].exp()
    zero = torch.zeros_like(transmission)
    chi2 = torch.where(freedom > 0, misfit / freedom.clamp(min=1e-12), 0)
    return Maps(
        transmission=transmission,
        displacement=theta[:2].movedim(0, -1),
        covariance=theta[2:5].movedim(0, -1),
        background=zero,
        transmission_error=transmission.detach() * error[5],
        displacement_error=error[:2].movedim(0, -1),
        covariance_error=error[2:5].movedim(0, -1),
        background_error=torch.where(valid, zero, torch.inf),
        residual=(chi2 * found.noise).sqrt(),
        valid=valid,
        chi2=None if without_gain else chi2,
    )


def _misfit(found: Evidence, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Squared misfit of the maps in units of the noise and its degrees of freedom, means over 2 × 2 pixels."""
    rows, columns = theta.shape[-2:]
    here, start = binned(theta, mean=True), found.coarse
    terms, change = found.terms, here - start
    score = terms[PAIRS : PAIRS + QUANTITIES] - applied(terms[:PAIRS], start)
    misfit = terms[-2] - (change * (2 * score - applied(terms[:PAIRS], change))).sum(0)
    both = torch.stack([misfit.clamp(min=0), terms[-1]]) / BINS**2
    misfit, freedom = both.repeat_interleave(BINS, 1).repeat_interleave(BINS, 2)[:, :rows, :columns]
    return misfit, freedom
