"""Entry points of `reconstruct`: all its options, damaged scans, several scans, checkpoints that are there already."""

from __future__ import annotations

import itertools
from typing import Any

import ddf_tomo as dt
from ddf_tomo import priors
from ddf_tomo._plan import METHODS, PRIORS, RULES
from ddf_tomo.solvers import Checkpoint
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source

_numbers = itertools.count()


def options(s: Source, scan: dt.Scan) -> dict[str, Any]:
    """Wishes that can be met; breaking one makes those that cannot, too."""
    harmonics = scan.response.of_harmonics
    method = s.one_of(*(name for name in METHODS if not (harmonics and METHODS[name].of_tensors)))
    shape, taken = scan.geometry.volume_shape, METHODS[method]
    own = s.one_of(
        priors.Smoothness(shape), priors.TotalVariation(shape, smoothing=0.1), 0.1 * priors.L1(smoothing=0.1)
    )
    prior = s.one_of(*PRIORS, None, own) if taken.takes_priors else s.one_of("auto", None)
    rule = s.one_of(*RULES, 0.0, 0.01, 1.0) if isinstance(prior, str) and taken.takes_priors else "auto"
    aimed = s.one_of(0.1, None) if rule == "discrepancy" or prior is None else None
    if rule == "discrepancy" and scan.weights is None:
        aimed = 0.1
    return {
        "method": method,
        "ell_max": s.one_of("auto", 0, 2) if harmonics else s.one_of("auto", 2),
        "prior": prior,
        "weight": rule,
        "positive": taken.takes_constraints and (harmonics or method != "sirt") and s.chance(0.3),
        "iterations": s.one_of(1, 3),
        "noise_level": aimed,
        "checkpoint": None,
        "progress": s.one_of(False, None),
    }


def reconstructed(**given: Any) -> Any:
    made = dt.reconstruct(**given)
    for each in made if isinstance(made, list) else [made]:
        each.derived(), each.predicted(), each.summary()
    return made


@entry("reconstruct", 2.0)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(2, 3, 12))
    return reconstructed, {"scan": scan} | options(s, scan)


@entry("reconstruct, several scans", 1.0)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(2, 3))
    others = s.one_of([scan], (scan, scan), [scan, scan[:1]], [scan, s.scan(2)])
    fixed = {"method": "cg", "prior": "auto", "weight": s.one_of(0.01, "auto"), "noise_level": None, "positive": False}
    return reconstructed, {"scan": others} | options(s, scan) | fixed | {"ell_max": "auto"}


@entry("reconstruct, mixed priors", 0.5)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(3, 12))
    fixed = {"method": "cg", "prior": "tv+smoothness", "weight": "auto", "iterations": None, "noise_level": None}
    return reconstructed, {"scan": scan} | options(s, scan) | fixed | {"positive": False}


@entry("reconstruct, checkpoints", 1.0)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(2, 12))
    wishes, place = {"scan": scan} | options(s, scan), folder() / f"state{next(_numbers)}"

    def call(**given: Any) -> Any:
        reconstructed(**{**wishes, "checkpoint": Checkpoint(place, every_s=0)})
        return reconstructed(**given)

    return call, {**wishes, "checkpoint": s.one_of(place, str(place), Checkpoint(place), Checkpoint(place, 0))}


@entry("reconstruct, damaged scans", 1.5)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(1, 2, 12))
    wishes = options(s, scan)

    def call(**given: Any) -> Any:
        made = dt.Scan(geometry=scan.geometry, response=scan.response, **given)
        return reconstructed(scan=made, **wishes)

    return call, {"data": scan.data, "weights": scan.weights, "diode": scan.diode, "voxel_size_m": scan.voxel_size_m}
