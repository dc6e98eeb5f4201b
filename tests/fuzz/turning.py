"""Entry points that turn samples, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddf_tomo.geometry import rotation_about
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS, CubeRotation
from ddf_tomo.operators.volume_rotation import rotate_views, rotate_volume
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


@entry("CubeRotation", propagates=True)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    g = s.one_of(*CUBE_ROTATIONS)

    def made(axes: Any, signs: Any) -> Any:
        return CubeRotation(axes, signs).volume(s.noise(*shape, 6))

    return s.one_of(
        (made, {"axes": g.axes, "signs": g.signs}),
        (g.volume, {"coefficients": s.noise(*shape, s.one_of(1, 6, 15))}),
        (g.tensors, {"tensors": s.noise(2, *shape, 6)}),
        (g.grid, {"values": s.noise(*shape, 2)}),
        (g.geometry, {"geometry": s.geometry()}),
        (g.coefficient_matrix, {"ell_max": s.one_of(0, 2, 8)}),
    )


@entry("rotate_volume", propagates=True)
def _(s: Source) -> Made:
    turn = s.as_good(rotation_about((0.0, 0.6, 0.8), np.array([s.one_of(0.0, 0.3, 2.0)]))[0])
    options = {"kind": s.one_of("harmonics", "tensors", "scalars"), "interpolation": s.one_of("cubic", "linear")}
    return s.one_of(
        (rotate_volume, {"volume": s.noise(*s.sizes(3), 6), "rotation": turn} | options),
        (rotate_views, {"geometry": s.geometry(), "rotation": turn}),
    )
