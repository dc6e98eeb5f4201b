"""Frames of a whole scan from a sample: its maps in every view, the mask's image behind them, counts, a file.

Per view and pixel: ``T = exp(−∫ μ dl)``, ``α = −∇ ∫ δ dl`` (matter advances the phase of X-rays: they turn away from
where there is more of it), ``Θ`` the second moments of the scattering function. Frames of these maps are those of
`ddf_tomo.operators.imaging`; the detector counts photons. One view is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import (
    LARGEST_SEED,
    check_shape,
    file_path,
    flag,
    integer,
    message,
    number,
    of_kind,
    real_array,
)
from ddf_tomo._progress import progress_bar
from ddf_tomo.acquisition.detector import Detector
from ddf_tomo.acquisition.frame_file import LAYOUT, FrameFile, unfinished
from ddf_tomo.acquisition.specimen import Specimen
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.geometry import Geometry, view_indices
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.operators.responses import SecondMomentResponse
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform

ROUNDING = 1e-4  # of the largest entry: how far below zero float32 sums may leave an eigenvalue
__all__ = ["ViewMaps", "simulate_frames", "view_maps"]


class ViewMaps(NamedTuple):
    """What one view of the sample does to the beam; made by `view_maps`.

    Attributes
    ----------
    transmission
        ``(J, K)``.
    refraction
        Angles (α_j, α_k) in rad, ``(J, K, 2)``.
    scattering
        Covariance Θ (jj, jk, kk) in rad², ``(J, K, 3)``.
    """

    transmission: NDArray[np.float32]
    refraction: NDArray[np.float32]
    scattering: NDArray[np.float32]


def simulate_frames(
    specimen: Specimen,
    geometry: Geometry,
    path: str | os.PathLike[str],
    *,
    voxel_size_m: float,
    pixels_per_voxel: int = 4,
    distance_m: float | Sequence[float] = 1.0,
    steps: int = 12,
    mask: Any = None,
    counts: float = 2000.0,
    kernel: Any = "gaussian",
    detector: Detector | None = None,
    truth: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> FrameFile:
    """Frames of all views, steps and distances of a sample, written view by view.

    The sample is evaluated and projected on a grid of the frames' pixels, finer than the voxels of ``geometry``. Views
    go to ``path`` + ``.part``, which becomes ``path`` when all are there; the same call goes on where an interrupted
    one stopped, with the same result.

    Parameters
    ----------
    specimen
        The sample in physical units; `phantom_specimen` makes one of a phantom.
    geometry
        Views, and the voxels that a reconstruction shall have.
    path
        HDF5 file: ``sample``, ``reference``, ``geometry`` and, if asked for, ``truth``.
    voxel_size_m
        Edge of a voxel of ``geometry``.
    pixels_per_voxel
        Frames have as many pixels along each axis of a voxel.
    distance_m
        From the sample to the detector (over the magnification in a cone beam); a sequence gives the frames an axis.
    steps
        Mask positions.
    mask
        Expected image of the mask without the sample, of mean 1: ``(step, row, column)``, or ``(distance, step, row,
        column)`` if it changes with the distance. By default `speckle` of 4.5 pixels and visibility 0.3.
    counts
        Expected counts of the reference, a pixel and step.
    kernel
        Of the blur, as in `ddf_tomo.operators.imaging.ModulatedImaging`.
    detector
        By default one that counts photons and does nothing else. Its dark level is taken off the frames that are read.
    truth
        Keep transmission, displacement and covariance of each view too.
    seed
        Of the mask and the noise.
    progress
        Show a progress bar; by default only when it takes long.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of the kind above.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> haze = Specimen(lambda shape: np.full((*shape, 1), 1e-6))  # rad²/m, alike in all directions
    >>> geometry = Geometry.from_angles([0.0, 1.0], 0.0, (6, 6, 6), (6, 6))
    >>> path = Path(tempfile.mkdtemp()) / "frames.h5"
    >>> frames = simulate_frames(haze, geometry, path, voxel_size_m=4e-5, steps=5)
    >>> frames.sample.shape, bool(frames.sample[0].std() < 0.9 * frames.reference.std())
    ((2, 5, 24, 24), True)
    """
    of_kind(Specimen, specimen, "specimen")
    of_kind(Geometry, geometry, "geometry")
    if not len(geometry):
        raise ValueError(message("geometry", "at least one view", "an empty scan"))
    voxel = number(voxel_size_m, "voxel_size_m", low=1e-12, high=1)
    factor = integer(pixels_per_voxel, "pixels_per_voxel", low=1, high=64)
    several = np.ndim(distance_m) > 0
    distances = real_array(np.atleast_1d(np.asarray(distance_m, object)), "distance_m", (None,))
    if not len(distances) or (distances <= 0).any() or len(set(distances)) < len(distances):
        raise ValueError(message("distance_m", "positive lengths, all different", distance_m))
    steps = integer(steps, "steps", low=1, high=10_000)
    counts = number(counts, "counts", low=0, high=1e9, low_open=True)
    truth, seed = flag(truth, "truth"), integer(seed, "seed", high=LARGEST_SEED)
    camera = Detector() if detector is None else detector
    of_kind(Detector, camera, "detector")
    target = file_path(path)
    if target.is_dir() or not target.parent.is_dir():
        raise ValueError(message("path", "a file in an existing folder", str(target)))

    fine, pixel = geometry.refined(factor), voxel / factor
    beam = _mask(mask, steps, fine.detector_shape, len(distances), seed)
    frame = (len(distances), beam.shape[1], *fine.detector_shape)
    header = {
        "layout": LAYOUT,
        "pixel_size_m": pixel,
        "distances_m": distances.tolist(),
        "several_distances": several,
        "pixels_per_voxel": factor,
        "volume_shape": list(fine.volume_shape),
        "detector_shape": list(fine.detector_shape),
        "details": {
            "specimen": specimen.name,
            "counts": counts,
            "seed": seed,
            "steps": frame[1],
            "truth": truth,
            "kernel": repr(kernel),
            "detector": repr(camera),
        },
    }

    def recorded(images: NDArray[Any], *stream: int) -> NDArray[Any]:
        drawn = int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0] >> 1)
        return camera.frames(torch.from_numpy(np.array(images)), counts, seed=drawn).numpy()

    reference = recorded(np.broadcast_to(beam, frame), 0)
    reference = reference if several else reference[0]
    dark = np.broadcast_to(np.asarray(camera.dark, np.float32), fine.detector_shape)
    model = ModulatedImaging(beam if len(beam) > 1 else beam[0], pixel, distances, kernel)
    part = target.with_name(target.name + ".part")
    with unfinished(part, header, fine, {"reference": reference, "dark": dark}) as (file, first):
        if first < len(fine):
            every = view_maps(specimen, fine, pixel, range(first, len(fine)))
            bar = progress_bar(len(fine), "simulating", flag(progress, "progress") if progress is not None else None)
            with bar:
                bar.update(first)
                for view, maps in enumerate(every, first):
                    drawn = recorded(_expected(model, maps), 1, view)
                    file["sample"][view] = drawn if several else drawn[0]
                    if truth:
                        unit = distances.max() / pixel
                        file["truth/transmission"][view] = maps.transmission
                        file["truth/displacement"][view] = unit * maps.refraction
                        file["truth/covariance"][view] = unit**2 * maps.scattering
                    file.attrs["views_done"] = view + 1
                    file.flush()
                    bar.update()
    os.replace(part, target)
    return FrameFile.load(target)


def view_maps(
    specimen: Specimen, geometry: Geometry, voxel_size_m: float, views: Sequence[int] | range | None = None
) -> Iterator[ViewMaps]:
    """What each view of a sample does to the beam, one view after the other.

    Parameters
    ----------
    specimen
        The sample in physical units.
    geometry
        Views; the sample is evaluated in its voxels.
    voxel_size_m
        Edge of such a voxel, and of a pixel.
    views
        Which ones; all by default.

    Examples
    --------
    >>> slab = Specimen(lambda shape: np.full((*shape, 1), 1e-9), mu=lambda shape: np.full(shape, 1e3))
    >>> maps, = view_maps(slab, Geometry.from_angles(0.0, 0.0, (4, 8, 4), (4, 4)), 1e-5)
    >>> round(float(-np.log(maps.transmission[1, 1])), 4), float((maps.scattering[1, 1, 0] / 8e-14).round(3))
    (0.08, 1.0)
    """
    of_kind(Specimen, specimen, "specimen")
    of_kind(Geometry, geometry, "geometry")
    size = number(voxel_size_m, "voxel_size_m", low=1e-12, high=1)
    scattering, delta, mu = specimen.values(geometry.volume_shape)
    moments = TensorXRayTransform(geometry, SecondMomentResponse(), order_of(scattering.shape[-1]))
    lengths = XRayTransform(geometry)
    # Signals are of very different magnitude: each volume is projected near 1.
    scattering, unit = _near_one(scattering)
    both = [None if volume is None else _near_one(volume[..., None]) for volume in (delta, mu)]

    for view in range(len(geometry)) if views is None else view_indices(views, len(geometry)):
        integrals = [
            np.zeros(geometry.detector_shape, np.float32)
            if volume is None
            else lengths.views([view])(volume[0])[0, ..., 0] * np.float32(volume[1] * size)
            for volume in both
        ]
        theta = moments.views([view])(scattering)[0] * np.float32(unit * size)
        refraction = [
            -np.gradient(integrals[0], size, axis=axis) if n > 1 else 0 * integrals[0]
            for axis, n in enumerate(geometry.detector_shape)
        ]
        maps = np.exp(-integrals[1]), np.stack(refraction, -1), _positive(np.asarray(theta, np.float32))
        yield ViewMaps(*(np.asarray(each, np.float32) for each in maps))


def _near_one(volume: NDArray[Any]) -> tuple[NDArray[Any], float]:
    largest = float(np.abs(volume).max(initial=0.0)) or 1.0
    return np.ascontiguousarray(volume / np.float32(largest)), largest


def _mask(mask: Any, steps: int, shape: tuple[int, int], distances: int, seed: int) -> NDArray[np.float32]:
    """Expected references ``(distance or 1, step, row, column)``."""
    if mask is None:
        return speckle(steps, shape, seed=seed)[None]
    images = real_array(mask, "mask", dtype=np.float32)
    images = images[None] if images.ndim == 3 else images
    check_shape(images.shape, "mask", (None, None, *shape))
    if len(images) not in (1, distances) or not images.shape[1]:
        raise ValueError(message("mask", f"{distances} distances, or frames for all of them", images.shape))
    if images.min() < 0 or not images.max() > 0:
        raise ValueError(message("mask", "intensities that are not negative, nor all zero", "others"))
    return images


def _expected(model: ModulatedImaging, maps: ViewMaps) -> NDArray[np.float32]:
    """Expected frames ``(distance, step, row, column)`` of one view."""
    with torch.no_grad():
        transmission, refraction, scattering = (torch.from_numpy(each) for each in maps)
        frames: NDArray[np.float32] = model(transmission, refraction, scattering).numpy()
    return np.maximum(frames, 0)


def _positive(theta: NDArray[np.float32]) -> NDArray[np.float32]:
    """The covariances without what rounding made negative."""
    jj, jk, kk = np.moveaxis(theta.astype(float), -1, 0)
    lowest = (jj + kk) / 2 - np.hypot((jj - kk) / 2, jk)
    if lowest.min() < -ROUNDING * max(float(theta.max()), 0):
        found = f"a blur with a negative eigenvalue, {lowest.min():.3g} rad²"
        raise ValueError(message("specimen.scattering", "functions on the sphere that are not negative", found))
    lift = np.maximum(-lowest, 0)
    return np.stack([jj + lift, jk, kk + lift], -1).astype(np.float32)
