"""The refractive decrement from refraction angles themselves, without integrating each view first.

A view's integral carries the noise of its angles over the whole image, and knows of no other view. Here both components
of all views are fitted at once, ``½ |W^(1/2) (D δ − α)|²`` with `RefractionTransform` D and weights 1/σ² of each angle,
under total variation of the weight that best predicts views which were left out. The integrated views give the start,
and with it what angles leave open: the constant that air fixes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._balanced import clipped
from ddf_tomo._plan import ROUNDING, SEARCH_ITERATIONS, conjugate_gradients
from ddf_tomo._scan_maps import DECREMENT_UNIT, weights_from_errors
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.refraction import RefractionTransform
from ddf_tomo.operators.responses import IsotropicResponse
from ddf_tomo.priors import TotalVariation
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Misfit, Solution
from ddf_tomo.solvers.regularisation_weight import cross_validated_weight

ITERATIONS = 30


def from_angles(maps: Maps, geometry: Geometry, binning: int, start: Any, weighted: bool = True) -> Any:
    """δ in units of `DECREMENT_UNIT`, ``(x, y, z)``, from where the integrated views have led, of the same unit."""
    angles, errors = (np.asarray(each) / DECREMENT_UNIT for each in maps.refraction_angle())
    known = np.asarray(maps.valid)
    weights = (
        weights_from_errors(errors, known, "displacement") if weighted else 1.0 * known[..., None] * (errors < np.inf)
    )
    parts = [
        Scan(angles[..., [axis]], geometry, IsotropicResponse(), weights=weights[..., [axis]]).binned(binning)
        for axis in (0, 1)
    ]
    x0 = torch.as_tensor(start, dtype=torch.float32)[..., None]
    data, trust = (
        torch.from_numpy(np.concatenate([np.asarray(getattr(part, name)) for part in parts], -1)).to(x0)
        for name in ("data", "weights")
    )
    trust = clipped(trust, data)
    A = RefractionTransform(parts[0].geometry)
    misfit = Misfit(A, data, trust / trust[trust > 0].mean())
    height, response = float(x0.abs().max()), misfit.norm(A(x0)) ** 2 / max(float(x0.square().sum()), 1e-30)
    if not height or not response:
        return start
    prior = height * response * TotalVariation(x0.shape[:3], smoothing=ROUNDING * height)

    def fit(part: Misfit, weight: float, x: Tensor | None, iterations: int = SEARCH_ITERATIONS) -> Solution:
        begin = x0 if x is None else x
        return conjugate_gradients(part, [weight * prior], x0=begin, iterations=iterations, progress=False)

    chosen = cross_validated_weight(fit, misfit)
    return fit(misfit, chosen.weight, chosen.x, ITERATIONS).x[..., 0].numpy()
