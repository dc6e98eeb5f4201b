"""Entry points of learned priors: denoisers, plug-and-play, unrolled reconstruction, null-space shares."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

import ddf_tomo as dt
from ddf_tomo import merits, solvers
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.priors.learned import Denoiser, EquivariantDenoiser, GradientStep, LearnedPrior, ResidualUNet
from ddf_tomo.solvers.unrolled import Unrolled
from tests.fuzz.solvers import problem
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source

FEW = [[2, 1, 1, 1, 1, 1]] * 3


@lru_cache
def networks() -> tuple[Denoiser, ...]:
    made = ResidualUNet((3, 4, 4)), EquivariantDenoiser(FEW)
    return tuple(network.eval().requires_grad_(False) for network in made)


@entry("denoiser", 2)
def _(s: Source) -> Made:
    network = s.one_of(*networks(), GradientStep(networks()[0]))
    x = as_tensor(s.noise(s.size(1, 5), s.size(1, 5), 3, s.one_of(1, 6, 15)))
    return network.__call__, {"x": x, "sigma": s.number(0, 1)}


@entry("making denoisers", 0.5)
def _(s: Source) -> Made:
    def call(widths: Any, multiplicities: Any) -> Any:
        return ResidualUNet(widths), EquivariantDenoiser(multiplicities)

    return call, {"widths": (3, 4, 4), "multiplicities": FEW}


@entry("plug and play", 2)
def _(s: Source) -> Made:
    given = problem(s, dt.SaxsResponse([0.0, 0.8, 1.6, 2.4]))
    wishes = {"method": s.one_of("admm", "proximal-gradient"), "sigma": s.one_of(None, (0.5, 0.1)), "ramp": 2}
    wishes |= {"variance": s.number(0.1, 2), "strength": s.number(0.1, 2), "positive": s.chance(0.5)}
    return solvers.plug_and_play, given | wishes | {"denoiser": s.one_of(*networks()), "inner_iterations": 2}


@entry("rehearsed", 2)
def _(s: Source) -> Made:
    given = problem(s, dt.SaxsResponse([0.0, 0.8, 1.6, 2.4]))
    volumes = [s.noise(*given["A"].domain_shape), 1e-20 * s.noise(*given["A"].domain_shape)]
    wishes = {"volumes": volumes, "variance": s.number(0.1, 2), "strength": s.number(0.1, 2), "positive": s.chance(0.5)}
    given = {name: given[name] for name in ("A", "y", "weights")} | wishes
    return solvers.rehearsed, given | {"denoiser": s.one_of(*networks()), "rounds": 2, "inner_iterations": 2}


@entry("unrolled")
def _(s: Source) -> Made:
    given = problem(s, dt.SaxsResponse([0.0, 0.8, 1.6, 2.4]))

    def call(A: Any, y: Any, weights: Any, variance: Any, iterations: Any, options: Any) -> Any:
        network = Unrolled("residual-unet", options, iterations, 2).eval().requires_grad_(False)
        with torch.no_grad():
            return network(A, y, weights, variance)

    wishes = {"variance": s.number(0.1, 2), "iterations": 2, "options": {"widths": [3, 4, 4]}}
    return call, {name: given[name] for name in ("A", "y", "weights")} | wishes


@entry("null-space share")
def _(s: Source) -> Made:
    given = problem(s)
    volume = s.noise(*given["A"].domain_shape)
    wishes = {"threshold": s.number(0.001, 0.5), "iterations": 4}
    return merits.null_space_share, {"volume": volume, "A": given["A"], "weights": given["weights"]} | wishes


@entry("reconstruct, learned", 0.5)
def _(s: Source) -> Made:
    scan = s.scan()
    while not scan.response.of_harmonics:
        scan = s.scan()
    wishes = {"weight": s.number(0.5, 2), "positive": s.chance(0.5), "iterations": 2, "ell_max": 2, "progress": False}

    def call(scan: Any, network: Any, sigma: Any, **given: Any) -> Any:
        return dt.reconstruct(scan, prior=LearnedPrior(network, sigma), **given)

    return call, {"scan": scan, "network": s.one_of(*networks()), "sigma": s.one_of(None, (0.3, 0.1))} | wishes
