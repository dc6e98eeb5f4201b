"""The fast normal operator and what it does as a preconditioner: 64³ voxels, ℓ ≤ 4 (15 coefficients), SAXS.

First a gradient step, ``Aᵀ(A x)``, with 238 views and 8 segments: ours as one convolution by FFT, ours exact, and
MUMOTT's (projection, contraction with the basis set, and back), float64 as it always is. How far the convolution is
from the exact operator is stated beside, on a phantom and on white noise, at 60 and 240 views. Then iterations of
conjugate gradients until the objective is within 1 % and 0.01 % of the lowest that any of them finds, plain and
preconditioned, at 32³ with 120 views, noise of 2 %, with and without pixel weights (inverse variances of counts, and a
twentieth of the pixels masked): smoothness by `cgls` and `pcg`, and total variation, which `reconstruct` takes by
default, by `nonlinear_cg`. The minimum is the same, as the exact operator is iterated; only the way is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import Row, difference, in_turn, quiet
from projector import spread_views

from ddf_tomo import Geometry, SaxsResponse, TensorXRayTransform
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series
from ddf_tomo.priors import Differences, Smoothness, TotalVariation
from ddf_tomo.solvers import Misfit, cgls, nonlinear_cg, preconditioner
from ddf_tomo.solvers.regularisation_weight import response_scale

ELL_MAX = 4
RESPONSE = SaxsResponse(np.arange(8) * np.pi / 8)
THEIRS, OURS, EXACT = "MUMOTT, float64", "ours, fast normal operator", "ours, exact"
SMOOTHNESS, TOTAL_VARIATION, ROUNDING = 1e-3, 1e-2, 0.03


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Gradient step, accuracy, iterations."""
    size = size or (20 if quick else 64)
    yield from gradient_step(size, 60 if quick else 238, 3 if quick else 5)
    for views in (60, 240):
        yield from accuracy(min(size, 32), views)
    small, count = (12, 60) if quick else (min(size, 32), 120)
    for name in ("tilts to 30°", "tilts to 45°", "random views"):
        for pixels in (False, True):
            yield from iterations(name, small, count, pixels)


def gradient_step(size: int, views: int, rounds: int) -> Iterator[Row]:
    """Times in turn, and how far the fast one is from both exact ones."""
    geometry = spread_views(size, views)
    A = TensorXRayTransform(geometry, RESPONSE, ELL_MAX)
    exact, fast = A.normal(), A.normal(exact=False)
    x = torch.as_tensor(PHANTOMS["crossing"]((size,) * 3).coefficients).float()
    x[[0, 1, -2, -1]] = x[:, [0, 1, -2, -1]] = x[:, :, [0, 1, -2, -1]] = 0  # where MUMOTT 2.3 reads wrong neighbours
    theirs = mumott_step(geometry)
    volume = x.numpy().astype(float)
    yield Row("gradient step: fast from exact", difference(fast(x), exact(x)), at_most=0.05, note="crossing fibres")
    yield Row(
        "gradient step: MUMOTT from exact", difference(theirs(volume), exact(x)), note="its transpose is not exact"
    )
    timings = in_turn({THEIRS: lambda: theirs(volume), OURS: lambda: fast(x), EXACT: lambda: exact(x)}, rounds)
    yield from (timings.row(name, f"gradient step, {size}³, {views} views") for name in (THEIRS, OURS, EXACT))
    yield timings.ratio_row("gradient step, MUMOTT / fast normal operator", THEIRS, OURS, at_least=25.0)
    yield timings.ratio_row("gradient step, ours exact / fast normal operator", EXACT, OURS)


def mumott_step(geometry: Geometry) -> Callable[[np.ndarray], np.ndarray]:
    """``Aᵀ(A x)`` by MUMOTT's projector and basis set."""
    with quiet():
        from mumott.methods.basis_sets import SphericalHarmonics
        from mumott.methods.projectors import SAXSProjector

        from ddf_tomo.interop.mumott import to_geometry

        peer = to_geometry(geometry, RESPONSE)
        projector = SAXSProjector(peer)
        basis = SphericalHarmonics(probed_coordinates=peer.probed_coordinates, ell_max=ELL_MAX)

    def step(x: np.ndarray) -> np.ndarray:
        return projector.adjoint(basis.gradient(basis.forward(projector.forward(x))))

    return step


def accuracy(size: int, views: int) -> Iterator[Row]:
    """Difference of the fast operator from the exact one, relative to the latter."""
    A = TensorXRayTransform(spread_views(size, views), RESPONSE, ELL_MAX)
    exact, fast = A.normal(), A.normal(exact=False)
    noise = torch.randn(A.domain_shape, generator=torch.Generator().manual_seed(0))
    phantom = torch.as_tensor(PHANTOMS["crossing"]((size,) * 3).coefficients).float()
    for name, x in (("crossing fibres", phantom), ("white noise", noise)):
        yield Row(f"fast from exact, {views} views, {name}", difference(fast(x), exact(x)))


def iterations(name: str, size: int, views: int, pixels: bool) -> Iterator[Row]:
    """Numbers of iterations, plain and preconditioned, and their ratio."""
    shape = (size,) * 3
    scan = simulate("crossing", geometry_of(name, size, views), RESPONSE, noise=0.02)
    A, y, weights = TensorXRayTransform(scan.geometry, scan.response, ELL_MAX), torch.as_tensor(scan.data), None
    if pixels:
        weights = 1 / (0.1 * y.max() + y.clamp(min=0))
        weights[torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) < 0.05] = 0
        weights /= weights.mean()
    misfit = Misfit(A, y, weights)
    scale, height = response_scale(A, misfit.weights, misfit.y)
    smooth = SMOOTHNESS * scale * Smoothness(shape)
    orders = [1.0] + [4.0] * (ELL_MAX // 2)
    variation = TotalVariation(shape, order_weights=orders, smoothing=ROUNDING * height)
    variation = TOTAL_VARIATION * scale * height * variation
    quadratic = {"tikhonov": SMOOTHNESS * scale, "penalty": Differences(shape)}
    problems: dict[str, tuple[Callable[..., Any], Any, dict[str, Any]]] = {
        "smoothness": (cgls, smooth, quadratic),
        "total variation": (nonlinear_cg, variation, {"regularisers": variation}),
    }
    for prior, (solve, term, settings) in problems.items():
        histories = []
        for M, count in ((None, 150), (preconditioner(A, weights, **settings), 70)):
            values: list[float] = []
            solve(
                A,
                y,
                weights=weights,
                **settings,
                preconditioner=M,
                iterations=count,
                progress=False,
                callback=lambda i, x, r, values=values, term=term: values.append(r**2 / 2 + term(x)) and None,
            )
            histories.append(values)
        lowest = min(map(min, histories))
        for share in (0.01, 0.0001):
            plain, better = (next(i for i, v in enumerate(h, 1) if v <= lowest * (1 + share)) for h in histories)
            what = f"{name}{', pixel weights' if pixels else ''}, {prior}, to {100 * share:g} %"
            bar = {"at_most": 0.5} if solve is cgls else {}
            yield Row(f"{what}: preconditioned / plain", better / plain, note=f"{better} / {plain}", **bar)


def geometry_of(name: str, size: int, views: int) -> Geometry:
    """Tilts to some angle, or random views."""
    if "random" in name:
        from scipy.spatial.transform import Rotation

        rotations = Rotation.random(views, random_state=0).as_matrix()
        return Geometry.from_rotations(rotations, (size,) * 3, (size, size))
    tilts = np.radians(np.linspace(0, 30 if "30" in name else 45, 4))
    return tilt_series((size,) * 3, (size, size), tilts, [views // 4] * 4)
