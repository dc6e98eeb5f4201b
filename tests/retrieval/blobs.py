"""Radiographs of an object without any symmetry, made without the package."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo import XRayTransform
from ddf_tomo.radiographs import Radiographs
from ddf_tomo.retrieval.absorption import axial_geometry
from ddf_tomo.solvers.cgls import cgls

BLOBS = np.array([[7.0, 2.0, 4.0, 2.5, 0.06], [-6.0, 5.0, -3.0, 2.0, 0.09], [1.0, -8.0, 1.0, 3.0, 0.04]])


def blob_frames(angles, rows, columns, axis_column, seed=None, counts=20000.0):
    """Frames of the blobs, without the package: a turn clockwise from above, seen along y, rows downwards."""
    x, y, z, width, strength = BLOBS.T
    turned = ((x + 1j * y) * np.exp(-1j * np.asarray(angles)[:, None])).real
    across = np.exp(-((np.arange(columns) - axis_column - turned[..., None]) ** 2) / (2 * width[:, None] ** 2))
    down = np.exp(-((np.arange(rows) - (rows - 1) / 2 + z[:, None]) ** 2) / (2 * width[:, None] ** 2))
    integral = np.einsum("b,vbc,br->vrc", strength * width * np.sqrt(2 * np.pi), across, down)
    frames = counts * np.exp(-integral)
    return frames if seed is None else np.random.default_rng(seed).poisson(frames).astype(float)


def blob_volume(shape):
    grids = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    return sum(
        a * np.exp(-sum((g - c) ** 2 for g, c in zip(grids, (x, y, z), strict=True)) / (2 * w**2))
        for x, y, z, w, a in BLOBS
    )


def blob_scan(angles, axis_column=25.3, rows=20, columns=48, **options):
    frames = blob_frames(angles, rows, columns, axis_column, **options)
    return Radiographs(frames, np.full((rows, columns), 20000.0), None, angles)


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def reconstructed(result, column, size, iterations=15, angles=None):
    """Slices by CGLS; shape (size, size, rows)."""
    rows = result.data.shape[2]
    angles = result.angles_rad if angles is None else angles
    geometry = axial_geometry(angles, result.data.shape[1:3], column, (size, size, rows))
    weights = result.weights / result.weights.mean()
    A = XRayTransform(geometry)
    return cgls(A, result.data, weights=weights, iterations=iterations, progress=False).x.numpy()[..., 0]


def sinogram_about(result, column, half, row):
    """What scikit-image expects: columns resampled about the axis; shape (2 half + 1, views)."""
    positions, columns = np.arange(-half, half + 1) + column, np.arange(result.data.shape[1])
    return np.stack([np.interp(positions, columns, view, 0, 0) for view in result.data[:, :, row, 0]], axis=1)


def iradon_slice(result, column, half, row):
    transform = pytest.importorskip("skimage.transform")
    picture = transform.iradon(sinogram_about(result, column, half, row), np.degrees(result.angles_rad), circle=True)
    return picture[::-1].T  # rows of the picture count downwards along y


def disc(size, radius):
    positions = np.arange(size) - (size - 1) / 2
    return np.hypot(positions[:, None], positions) < radius
