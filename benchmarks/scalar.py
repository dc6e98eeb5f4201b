"""One channel, 128³ voxels × 180 views, beside the CPU projectors of others: a single axis, and tilted views.

Single axis: MUMOTT in three dimensions; ASTRA's ``linear`` projector (Joseph's model as well) and scikit-image's
``radon`` slice by slice, which compute nothing else. Tilted views: MUMOTT alone has them on a CPU. scikit-image rotates
the slice and interpolates otherwise: it is compared on a smooth object, the others on noise (with two empty voxels at
the faces, where MUMOTT 2.3 reads wrong neighbours). Back-projections other than ours are not the transpose, or, with
ASTRA, that of single slices; ours is held to the adjoint identity.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from harness import Row, difference, in_turn, quiet, require
from projector import identity, spread_views

from ddf_tomo import Geometry, SaxsResponse, XRayTransform

OURS, MUMOTT, ASTRA, SKIMAGE = "ours", "MUMOTT", "ASTRA, slice by slice", "scikit-image, slice by slice"
UPDATES = 5e8
SLOW = (MUMOTT, SKIMAGE)


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Equality, times, ratios, for both geometries."""
    size = size or (24 if quick else 128)
    views, rounds = (20, 3) if quick else (180, 5)
    angles = np.arange(views) * np.pi / views
    axial = Geometry.from_angles(angles, 0.0, (size, size, size), (size, size))
    yield from _case("single axis", axial, rounds, angles)
    yield from _case("tilted", spread_views(size, views), rounds, None)


def _case(name: str, geometry: Geometry, rounds: int, angles: np.ndarray | None) -> Iterator[Row]:
    size = geometry.volume_shape[0]
    projector = XRayTransform(geometry)
    volume = np.zeros((size, size, size, 1), np.float32)
    volume[2:-2, 2:-2, 2:-2] = np.random.default_rng(0).normal(size=(*[size - 4] * 3, 1))
    signals = projector(volume)
    yield require(f"{name}, adjoint: defect", identity(signals, volume, projector.T(signals)), 1e-5)

    forward: dict[str, Callable[[], Any]] = {OURS: lambda: projector(volume)}
    adjoint: dict[str, Callable[[], Any]] = {OURS: lambda: projector.T(signals)}
    peer = _mumott(geometry)
    yield require(f"{name}: difference of {MUMOTT}", difference(signals, peer.forward(volume.astype(float))), 1e-5)
    double, double_signals = volume.astype(float), signals.astype(float)
    forward[MUMOTT], adjoint[MUMOTT] = lambda: peer.forward(double), lambda: peer.adjoint(double_signals)
    if angles is not None:
        project, backproject = _astra(geometry)
        yield require(f"{name}: difference of {ASTRA}", difference(signals[..., 0], project(volume[..., 0])), 1e-3)
        forward[ASTRA], adjoint[ASTRA] = lambda: project(volume[..., 0]), lambda: backproject(signals[..., 0])
        odd = size - 1 + size % 2  # where scikit-image has the axis in the middle
        same = Geometry.from_angles(angles, 0.0, (odd,) * 3, (odd,) * 2)
        found, smooth = XRayTransform(same)(_blob(odd)[..., None])[..., 0], _blob(size)
        yield require(f"{name}: difference of {SKIMAGE}", difference(_radon(_blob(odd), angles), found), 1e-2)
        forward[SKIMAGE] = lambda: _radon(smooth, angles)
    for way, contestants in (("forward", forward), ("adjoint", adjoint)):
        # Minutes a call are timed once: called before, for the comparison, they have compiled.
        quick = {label: call for label, call in contestants.items() if label not in SLOW}
        timings = in_turn(quick, rounds)
        once = in_turn({label: call for label, call in contestants.items() if label not in quick}, 1, warm_up=False)
        yield from (timings.row(label, f"{name}, {way}") for label in quick)
        yield from (once.row(label, f"{name}, {way}") for label in once.seconds)
        rates = {label: timings.median(label) for label in quick if label != OURS}
        rates |= {label: once.median(label) for label in once.seconds}
        best = min(rates, key=lambda label: rates[label])
        ours = timings.median(OURS)
        yield Row(f"{name}, {way}: best peer ({best}) / ours", rates[best] / ours, "×", at_least=1.5)
        rate = volume.size * len(geometry) / ours
        yield Row(f"{name}, {way}: voxel updates a second", rate, "1/s", at_least=UPDATES)


def _mumott(geometry: Geometry) -> Any:
    with quiet():
        from mumott.methods.projectors import SAXSProjector

        from ddf_tomo.interop.mumott import to_geometry

        return SAXSProjector(to_geometry(geometry, SaxsResponse([0.0, 1.0])))


def _astra(geometry: Geometry) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Both directions for all slices ``z``; ASTRA's pictures have rows that count down ``y``, and columns ``x``."""
    import astra

    (nx, ny, nz), rows = geometry.volume_shape, geometry.detector_shape[0]
    vectors = np.zeros((len(geometry), 6))
    vectors[:, 0:2], vectors[:, 4:6] = geometry.p[:, :2], geometry.j[:, :2]
    beams = astra.create_proj_geom("parallel_vec", rows, vectors)
    one = astra.OpTomo(astra.create_projector("linear", beams, astra.create_vol_geom(ny, nx)))

    def project(volume: Any) -> Any:
        slices = [one.FP(np.ascontiguousarray(volume[:, ::-1, z].T)) for z in range(nz)]
        return np.stack(slices, axis=-1)

    def backproject(signals: Any) -> Any:
        return np.stack([one.BP(np.ascontiguousarray(signals[..., z]))[::-1].T for z in range(nz)], axis=-1)

    return project, backproject


def _radon(volume: Any, angles: Any) -> Any:
    """Views ``(view, j, k)``; scikit-image's pictures have rows that count down ``y``, and columns ``x``."""
    from skimage.transform import radon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the object ends softly, before the circle that it has to be zero outside of
        slices = [radon(volume[:, ::-1, z].T, np.degrees(angles), circle=True) for z in range(volume.shape[2])]
    return np.stack([picture.T for picture in slices], axis=-1)


def _blob(size: int) -> np.ndarray:
    axis = (np.arange(size) - (size - 1) / 2) / size
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return np.exp(-(((x - 0.1) ** 2 + (y + 0.05) ** 2 + z**2) / 0.02)).astype(np.float32)
