"""The adjoint identity ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ with y = A x on white noise, relative defect, for every operator.

MUMOTT's back-projection is voxel-driven and not the transpose; its rows have no bar. They use noise with two empty
voxels at the faces, where MUMOTT 2.3 reads wrong neighbours on top of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from harness import Row, quiet

from ddf_tomo import (
    DirectionalVisibilityResponse,
    Geometry,
    IsotropicResponse,
    LinearOperator,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
    VisibilityResponse,
    XRayTransform,
    stack,
    wrap,
)
from ddf_tomo.operators.checks import TOLERANCES, check_adjoint
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.priors import Differences

CHANNELS = 3


def run(
    quick: bool = False, size: int | None = None, views: int | None = None, compiling: bool = True
) -> Iterator[Row]:
    """Defects, in both precisions; ``compiling=False`` leaves out MUMOTT's own projector, which compiles."""
    size, views = size or (12 if quick else 32), views or (14 if quick else 60)
    geometry = scan_geometry(size, views)
    for name, operator in operators(geometry).items():
        for dtype, bar in TOLERANCES.items():
            defect = check_adjoint(operator, dtype, tolerance=1e30)
            yield Row(f"{name}, {str(dtype)[6:]}", defect, at_most=bar)
    if find_spec("mumott") is not None:
        yield from of_mumott(geometry, compiling)


def scan_geometry(size: int, views: int, seed: int = 0) -> Geometry:
    """Views from a real tensor scan, moved by random offsets, of a volume that is no cube."""
    generator = np.random.default_rng(seed)
    volume, detector = (size, size - 3, size + 2), (size + 1, size + 4)
    every = tilt_series(volume, detector)
    some = every[np.sort(generator.permutation(len(every))[:views])]
    offsets = generator.normal(size=(2, len(some)))
    return Geometry(some.p, some.j, some.k, offsets[0], offsets[1], volume, detector)


def operators(geometry: Geometry) -> dict[str, LinearOperator]:
    """Every operator and every response of the package."""
    views, segments = len(geometry), np.arange(8) * np.pi / 8
    projector = XRayTransform(geometry, channels=CHANNELS)
    gratings = VisibilityResponse(np.tile([0.0, np.pi / 2], (views, 1)))
    responses: dict[str, tuple[Any, int]] = {
        "SAXS": (SaxsResponse(segments), 6),
        "SAXS at 2θ = 8°": (SaxsResponse(segments * 2, two_theta_rad=np.radians(8), full_circle=True), 6),
        "second moments": (SecondMomentResponse(), 4),
        "directional visibility": (DirectionalVisibilityResponse(np.arange(6) * np.pi / 6, exponent=1.0), 4),
        "grating visibility": (gratings, 4),
        "isotropic": (IsotropicResponse(), 0),
        "rank-2 tensor": (RankTwoResponse(), 2),
        "rank-2 tensor, SAXS": (RankTwoSaxsResponse(segments), 2),
    }
    few = range(0, views, 5)
    tensor = TensorXRayTransform(geometry, SecondMomentResponse(), 2, chunk_views=7)
    return {
        "XRayTransform": projector,
        "XRayTransform, reference": XRayTransform(geometry[few], "reference", channels=CHANNELS),
        "XRayTransform, subset of views": projector.views(few),
        **{f"TensorXRayTransform, {name}": TensorXRayTransform(geometry, *r) for name, r in responses.items()},
        "TensorXRayTransform, chunks of 7 views": tensor,
        "its transpose": tensor.T,
        "AᵀWA": projector.normal(torch.linspace(0, 1, views)[:, None, None, None]),
        "sum of two": projector + 0.5 * projector,
        "two stacked": stack([projector.views(few), projector]),
        "composition": Differences(geometry.volume_shape) @ projector.views(few).T,
        "Differences": Differences(geometry.volume_shape),
    }


def of_mumott(geometry: Geometry, compiling: bool) -> Iterator[Row]:
    """MUMOTT's own projector, and ours in its place, through the interface of MUMOTT."""
    with quiet():
        from mumott.methods.projectors import SAXSProjector

        from ddf_tomo.interop.mumott import Projector, VoxelDrivenProjector, to_geometry

        theirs = to_geometry(geometry, SaxsResponse([0.0, 1.0]))
        contestants: dict[str, tuple[Any, torch.dtype, float | None]] = {
            "interop VoxelDrivenProjector, float64": (VoxelDrivenProjector(theirs), torch.float64, None),
            "interop Projector, float32": (Projector(theirs), torch.float32, TOLERANCES[torch.float32]),
            "interop Projector, float64": (Projector(theirs), torch.float64, TOLERANCES[torch.float64]),
        }
        if compiling:
            contestants["MUMOTT's SAXSProjector, float64"] = SAXSProjector(theirs), torch.float64, None
        defects = {name: through_border(geometry, p, dtype) for name, (p, dtype, _) in contestants.items()}
    for name, (_, _, bar) in contestants.items():
        yield Row(name, defects[name], at_most=bar)


def through_border(geometry: Geometry, projector: Any, dtype: torch.dtype) -> float:
    """Defect of a projector with MUMOTT's interface, on volumes with two empty voxels at the faces."""
    inside = np.zeros((*geometry.volume_shape, 1))
    inside[2:-2, 2:-2, 2:-2] = 1

    def masked(call: Callable[[Any], Any], before: Any, after: Any) -> Callable[[Any], Any]:
        return lambda values: call(np.ascontiguousarray(values * before, values.dtype)) * after

    forward, adjoint = masked(projector.forward, inside, 1), masked(projector.adjoint, 1, inside)
    shapes = (*geometry.volume_shape, CHANNELS), (len(geometry), *geometry.detector_shape, CHANNELS)
    return check_adjoint(wrap((forward, adjoint), *shapes, numpy=True), dtype, tolerance=1e30)
