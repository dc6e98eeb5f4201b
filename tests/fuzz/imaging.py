"""Entry points of image formation: warps, blurs, and frames expected from maps, with right arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddf_tomo.operators import DirectionalBlur, FreeFormBlur, ModulatedImaging, TwoComponentKernel, flux_factor, warp
from ddf_tomo.operators.blur_kernels import exponential_kernel, gaussian_kernel
from ddf_tomo.operators.warping import shift
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


def covariance(s: Source, *shape: int) -> Any:
    a, b = s.generator().uniform(-1, 1, (2, *shape))
    return s.as_good(np.stack([a**2, a * b, b**2 + 0.1], -1))


def kernel(s: Source) -> Any:
    return s.one_of("gaussian", "exponential", TwoComponentKernel(0.3, 2.0), gaussian_kernel)


@entry("warp", 2, propagates=True)
def _(s: Source) -> Made:
    rows, columns = s.sizes(2, 1, 6)
    return warp, {
        "image": s.noise(*s.one_of((rows, columns), (2, rows, columns))),
        "displacement": s.noise(rows, columns, 2),
        "interpolation": s.one_of("gaussian", "bandlimited", "cubic"),
        "flux": s.chance(0.5),
        "plain": s.chance(0.2),
    }


@entry("flux_factor, shift", propagates=True)
def _(s: Source) -> Made:
    field = s.noise(*s.sizes(2, 1, 6), 2)
    if s.chance(0.5):
        return flux_factor, {"displacement": field}
    return shift, {"images": s.noise(1, *s.sizes(2, 1, 6)), "offsets": s.noise(s.size(), 2)}


@entry("DirectionalBlur", 2, propagates=True)
def _(s: Source) -> Made:
    rows, columns = s.sizes(2, 1, 6)

    def call(image: Any, **given: Any) -> Any:
        blur = DirectionalBlur(**given)
        return repr(blur), blur(image), blur.T(image)

    return call, {
        "image": s.noise(rows, columns),
        "covariance": covariance(s, rows, columns),
        "displacement": s.one_of(None, s.noise(rows, columns, 2)),
        "kernel": kernel(s),
        "conservative": s.chance(0.5),
        "method": s.one_of("auto", "auto", "plain", "low-rank"),
        "tolerance": 1e-2,
    }


@entry("kernels of blurs", propagates=True)
def _(s: Source) -> Made:
    if s.chance(0.5):
        return s.one_of(gaussian_kernel, exponential_kernel), {"covariance": covariance(s, 3)}

    def call(share: Any, ratio: Any, covariance: Any) -> Any:
        made = TwoComponentKernel(share, ratio)
        return repr(made), DirectionalBlur(covariance, kernel=made)(np.ones((3, 4)))

    share = s.one_of(0.3, np.full((3, 4), 0.5))
    return call, {"share": share, "ratio": s.number(0, 3), "covariance": covariance(s, 3, 4)}


@entry("FreeFormBlur", propagates=True)
def _(s: Source) -> Made:
    count, (rows, columns) = s.size(1, 3), s.sizes(2, 1, 6)
    kernels = s.generator().uniform(0.1, 1, (count, s.one_of(1, 3, 5), s.one_of(1, 3)))
    weights = s.generator().uniform(0.1, 1, (count, rows, columns))

    def call(image: Any, **given: Any) -> Any:
        blur = FreeFormBlur(**given)
        return repr(blur), blur(image), blur.T(image)

    return call, {
        "image": s.noise(rows, columns),
        "kernels": s.as_good(kernels / kernels.sum((1, 2), keepdims=True)),
        "weights": s.as_good(weights / weights.sum(0)),
    }


@entry("ModulatedImaging", 3, propagates=True)
def _(s: Source) -> Made:
    rows, columns = s.sizes(2, 1, 6)
    steps, distances = s.size(1, 3), s.size(1, 2)

    def call(transmission: Any, refraction_rad: Any, scattering_rad2: Any, **given: Any) -> Any:
        model = ModulatedImaging(**given)
        return repr(model), model(transmission, refraction_rad, scattering_rad2)

    shape = s.one_of((steps, rows, columns), (distances, steps, rows, columns))
    return call, {
        "reference": s.noise(*shape, positive=True),
        "pixel_size_m": 1e-6,
        "distance_m": s.one_of([1.0, 0.5][:distances], np.array([1.0, 2.0][:distances])),
        "kernel": kernel(s),
        "flux": s.chance(0.5),
        "steps_px": s.one_of(None, s.noise(steps, 2)),
        "method": s.one_of("auto", "auto", "plain"),
        "transmission": s.one_of(None, 0.5, s.noise(rows, columns, positive=True), s.noise(2, rows, columns)),
        "refraction_rad": s.one_of(None, 1e-6 * np.ones((rows, columns, 2))),
        "scattering_rad2": s.one_of(None, 1e-12 * np.asarray(covariance(s, rows, columns))),
    }


@entry("ModulatedImaging(maps)", propagates=True)
def _(s: Source) -> Made:
    rows, columns = s.sizes(2, 1, 6)
    model = ModulatedImaging(s.noise(2, rows, columns, positive=True), 1e-6, 1.0)
    return model, {
        "transmission": s.noise(*s.one_of((rows, columns), (2, rows, columns)), positive=True),
        "displacement": s.noise(rows, columns, 2),
        "covariance": covariance(s, rows, columns),
    }
