"""Projection and back-projection, 64³ voxels × 15 channels × 60 views, beside MUMOTT's projector on the CPU.

Both get numpy arrays; MUMOTT compiles before the clock starts. MUMOTT computes in float64; ours runs in float32, its
default, and in float64. The volume is noise with two empty voxels at the faces, where MUMOTT 2.3 reads wrong
neighbours. Back-projections cannot be equal, because MUMOTT's is voxel-driven: ours is held to the adjoint identity.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from harness import Row, difference, in_turn, quiet, require

from ddf_tomo import Geometry, SaxsResponse, XRayTransform
from ddf_tomo.phantoms import tilt_series

THEIRS, OURS, OURS_DOUBLE = "MUMOTT, float64", "ours, float32", "ours, float64"
UPDATES = 3e9


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Equality, times, ratios."""
    size = size or (24 if quick else 64)
    channels, views, rounds = (6, 20, 3) if quick else (15, 60, 5)
    geometry = spread_views(size, views)
    with quiet():
        from mumott.methods.projectors import SAXSProjector

        from ddf_tomo.interop.mumott import to_geometry

        peer = SAXSProjector(to_geometry(geometry, SaxsResponse([0.0, 1.0])))
    projector = XRayTransform(geometry)
    volume = np.zeros((size, size, size, channels))
    volume[2:-2, 2:-2, 2:-2] = np.random.default_rng(0).normal(size=(*[size - 4] * 3, channels))
    volume32 = volume.astype(np.float32)

    signals, signals32, expected = projector(volume), projector(volume32), peer.forward(volume)
    yield require("forward, float32: difference from MUMOTT", difference(signals32, expected), 1e-5)
    yield require("forward, float64: difference from MUMOTT", difference(signals, expected), 1e-12)
    forward = in_turn(
        {
            THEIRS: lambda: peer.forward(volume),
            OURS: lambda: projector(volume32),
            OURS_DOUBLE: lambda: projector(volume),
        },
        rounds,
    )
    yield from (forward.row(name, "forward") for name in (THEIRS, OURS, OURS_DOUBLE))
    yield forward.ratio_row("forward, MUMOTT / ours in float32", THEIRS, OURS, at_least=30.0)
    yield forward.ratio_row("forward, MUMOTT / ours in float64", THEIRS, OURS_DOUBLE)
    updates = volume.size * views
    yield Row("forward, updates of a voxel's channel a second", updates / forward.median(OURS), "1/s", at_least=UPDATES)

    yield require("adjoint, float32: defect", identity(signals32, volume32, projector.T(signals32)), 1e-5)
    yield require("adjoint, float64: defect", identity(signals, volume, projector.T(signals)), 1e-12)
    yield Row("adjoint, MUMOTT: defect", identity(expected, volume, peer.adjoint(expected)))
    adjoint = in_turn(
        {
            THEIRS: lambda: peer.adjoint(expected),
            OURS: lambda: projector.T(signals32),
            OURS_DOUBLE: lambda: projector.T(signals),
        },
        rounds,
    )
    yield from (adjoint.row(name, "adjoint") for name in (THEIRS, OURS, OURS_DOUBLE))
    yield adjoint.ratio_row("adjoint, MUMOTT / ours in float32", THEIRS, OURS, at_least=4.0)
    yield adjoint.ratio_row("adjoint, MUMOTT / ours in float64", THEIRS, OURS_DOUBLE)
    yield Row("adjoint, updates of a voxel's channel a second", updates / adjoint.median(OURS), "1/s", at_least=UPDATES)


def spread_views(size: int, views: int) -> Geometry:
    """Views of a real tensor scan, evenly picked."""
    every = tilt_series((size, size, size))
    return every[np.linspace(0, len(every) - 1, views).round().astype(int)]


def identity(signals: np.ndarray, volume: np.ndarray, back: np.ndarray) -> float:
    """Relative defect of ⟨A x, A x⟩ = ⟨x, Aᵀ A x⟩, summed in float64."""
    squared = float((signals.astype(float) ** 2).sum())
    return abs(squared - float((volume.astype(float) * back).sum())) / squared
