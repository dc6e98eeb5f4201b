"""Entry points of direct reconstruction and of coarse grids, with right arguments."""

from __future__ import annotations

import ddf_tomo as dt
from ddf_tomo import solvers
from ddf_tomo.operators.directional_symbol import directional_symbol
from ddf_tomo.operators.spherical_harmonics import half_sphere_grid
from ddf_tomo.solvers.fbp import WINDOWS
from tests.fuzz.solvers import problem
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("fbp", 2)
def _(s: Source) -> Made:
    given = {name: value for name, value in problem(s).items() if name in ("A", "y", "weights")}
    options = {"window": s.one_of(*WINDOWS), "cutoff": s.number(0.1, 1.0), "width_rad": s.one_of(None, 0.3)}
    return solvers.fbp, given | options | {"epsilon": s.one_of(None, 1e-3)}


@entry("multiresolution")
def _(s: Source) -> Made:
    A = dt.XRayTransform(s.geometry(), channels=1) if s.chance(0.3) else problem(s)["A"]
    shortest = min(*A.geometry.volume_shape, *A.geometry.detector_shape)
    arguments = {"A": A, "y": s.noise(*A.range_shape), "levels": s.size(1, shortest.bit_length())}
    weights = s.one_of(None, s.noise(*A.range_shape, positive=True))
    how = {"solver": s.one_of(solvers.cgls, solvers.nonlinear_cg, solvers.fista), "iterations": 2, "progress": False}
    return solvers.multiresolution, arguments | how | {"weights": weights}


@entry("directional_symbol", propagates=True)
def _(s: Source) -> Made:
    views, directions = s.size(), s.size()
    beams, grid = (half_sphere_grid(count)[:, ::-1] for count in (views, directions))
    arguments = {"matrix": s.noise(views, 2, 3), "beams": s.as_good(beams), "directions": s.as_good(grid)}
    return directional_symbol, arguments | {"width_rad": 0.2}
