"""Entry points of phantoms, simulation and figures of merit, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import merits, phantoms
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("phantoms, all kinds", 1.5)
def _(s: Source) -> Made:
    common = {"shape": s.sizes(3), "ell_max": s.one_of(0, 2, 4, 6), "isotropic": 0.2, "sharpness": s.one_of(2, 2, 3)}
    function, options = s.one_of(
        (phantoms.helicoidal_fibres, {"pitch": 1.0}),
        (phantoms.fibre_bundles, {"bundles": 3, "radius": 0.3, "seed": 1}),
        (phantoms.crossing_fibres, {"angles_rad": (0.5, 1.5), "share": 0.6}),
        (phantoms.shells, {"count": 3, "tilt_rad": 0.5}),
        (phantoms.mixture, {}),
        (phantoms.random_field, {"seed": 1, "cycles": 1.5, "modes": 3}),
    )

    def call(**given: Any) -> Any:
        truth = function(**given)
        return truth, truth.exact, truth.tensors(), truth.derived(), repr(truth)

    return call, common | options


@entry("fibre_legendre", 0.2)
def _(s: Source) -> Made:
    return phantoms.fibre_legendre, {"sharpness": s.size(1, 16)}


@entry("simulate, noise of both kinds", 1.5)
def _(s: Source) -> Made:
    g = s.geometry(high=3)
    noise = s.one_of(
        {"noise": 0.1, "noise_model": "gaussian", "counts": None},
        {"noise": 0.0, "noise_model": "poisson", "counts": s.one_of(0.5, 1e4)},
    )
    sample = s.one_of(*phantoms.PHANTOMS, *phantoms.PHANTOMS.values(), lambda shape: np.ones((*shape, 6)))
    fixed = {"sample": sample, "geometry": g, "response": s.response(len(g)), "oversampling": 1, "seed": 1}
    return phantoms.simulate, fixed | noise


@entry("compare", 1.5)
def _(s: Source) -> Made:
    geometry = s.geometry(2)

    def kind() -> Any:
        shape = geometry.volume_shape
        values = s.noise(*shape, 6, positive=True)
        response = s.one_of(dt.SecondMomentResponse(), dt.RankTwoResponse())
        return s.one_of(
            values,
            s.noise(*shape, 15, positive=True),
            phantoms.mixture(shape, s.one_of(0, 4)),
            dt.Reconstruction(np.array(values), 2, geometry, response),
        )

    def call(**given: Any) -> Any:
        # What nothing defines is NaN, and an order that the truth lacks infinitely wrong: as_dict has None for both.
        found = merits.compare(**given)
        return found.as_dict(), str(found), found._repr_html_()

    return call, {"found": kind(), "truth": kind(), "threshold": 0.1}


@entry("data_misfit")
def _(s: Source) -> Made:
    scan = s.scan(s.size(1, 3))

    def call(coefficients: Any, ell_max: Any, scan: Any) -> float:
        volume = dt.Reconstruction(coefficients, ell_max, geometry, response)
        return merits.data_misfit(volume, scan)

    geometry, response = scan.geometry, scan.response
    return call, {"coefficients": s.noise(*geometry.volume_shape, 6), "ell_max": 2, "scan": scan}
