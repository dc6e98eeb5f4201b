"""Entry points of what came from data and what from the prior, and of what is compared with a training."""

from __future__ import annotations

from typing import Any

import ddf_tomo as dt
from ddf_tomo import merits
from ddf_tomo.priors.learned import familiar
from ddf_tomo.training import Denoising, training_statistics
from tests.fuzz.solvers import problem
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("resolution")
def _(s: Source) -> Made:
    given = problem(s)
    wishes = {"strength": s.number(0.1, 10), "probes": 1, "smoothing": s.number(0, 2), "iterations": 4, "seed": 1}
    return merits.resolution, {"A": given["A"], "weights": given["weights"], "groups": None} | wishes


@entry("data share", 0.5)
def _(s: Source) -> Made:
    scan = s.scan(s.size(1, 3))
    settings = s.one_of({}, {"prior_strength": [1.0, 2.0]}, {"prior_strength": [float("nan")]})

    def call(coefficients: Any, scan: Any, strength: Any, probes: Any, seed: Any) -> Any:
        volume = dt.Reconstruction(coefficients, 2, geometry, response, settings=settings)
        return merits.data_share(volume, scan, strength=strength, probes=probes, iterations=3, seed=seed)

    geometry, response = scan.geometry, scan.response
    given = {"coefficients": s.noise(*geometry.volume_shape, 6), "scan": scan, "strength": s.one_of(None, 1.0)}
    return call, given | {"probes": 1, "seed": 1}


@entry("statistics of volumes", 0.5)
def _(s: Source) -> Made:
    def call(coefficients: Any) -> Any:
        found = familiar.volume_statistics(coefficients)
        return found, familiar.unfamiliar(found, familiar.ranges([found]))

    return call, {"coefficients": s.noise(*s.sizes(3), s.one_of(1, 6, 15), positive=s.chance(0.5))}


@entry("statistics of training", 0.2)
def _(s: Source) -> Made:
    task = Denoising(shape=(6, 6, 6), orders=(2,), batch=1, validation_volumes=1)
    return training_statistics, {"task": task, "volumes": s.size(1, 3)}
