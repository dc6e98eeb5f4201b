"""Glyphs as triangles: surfaces of spherical functions and tensors, shaded, flat on a slice."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo.operators.rank_two import to_matrix
from ddf_tomo.operators.spherical_harmonics import evaluate, order_of

LIGHT = np.array([-0.45, 0.55, 0.70])
"""Where light comes from: left, above, and from the reader."""
AMBIENT = 0.35


@lru_cache(maxsize=4)
def sphere_mesh(level: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Unit vectors ``(N, 3)`` and triangles ``(20·4^level, 3)``, outward, of an icosahedron divided ``level`` times."""
    golden = (1 + 5**0.5) / 2
    edges = [(0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    points = np.array([np.roll(e, n) for n in range(3) for e in edges], float)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.abs(gaps - 2) < 1e-9
    triples = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]
    ]
    faces = np.array([t if np.linalg.det(points[list(t)]) > 0 else t[::-1] for t in triples])
    for _ in range(level):
        # Each edge gets one point in its middle, whichever of its two triangles asks.
        sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, which = np.unique(sides, axis=0, return_inverse=True)
        middle = len(points) + which.reshape(-1, 3)
        points = np.concatenate([points, points[unique].mean(axis=1)])
        a, b, c = faces.T
        ab, bc, ca = middle.T
        faces = np.concatenate([np.stack(t, -1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points.setflags(write=False)
    faces.setflags(write=False)
    return points, faces


def odf_surfaces(coefficients: NDArray[np.float64], mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points ``f(q) q`` of functions ``(G, K)`` for all q of a mesh ``(N, 3)``: ``(G, N, 3)``, 0 where f < 0."""
    values = coefficients @ evaluate(mesh, order_of(coefficients.shape[-1])).T
    return values.clip(min=0)[..., None] * mesh


def ellipsoids(tensors: NDArray[np.float64], mesh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points of the ellipsoids whose half axes are eigenvectors times eigenvalues of tensors ``(G, 6)``; ``(G, N, 3)``.

    Negative eigenvalues are drawn as zero: that ellipsoid is flat.
    """
    values, vectors = np.linalg.eigh(to_matrix(tensors))
    return ((mesh @ vectors) * values.clip(min=0)[:, None]) @ vectors.swapaxes(1, 2)


def shaded(
    surfaces: NDArray[np.float64], faces: NDArray[np.int64], frame: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """How surfaces look from the third row of ``frame``: flat points, brightness, and triangles from back to front.

    Parameters
    ----------
    surfaces
        Points ``(G, N, 3)`` of closed surfaces around their origins.
    faces
        Triangles ``(F, 3)``, outward.
    frame
        Rows: right, up, towards the reader.

    Returns
    -------
    points
        Right and up, ``(G, N, 2)``.
    brightness
        Of each point, ``(G, N)``: ambient and diffuse light.
    triangles
        Rows of ``points.reshape(-1, 2)``, ``(T, 3)``, of the sides that are turned to the reader, the farthest of each
        glyph first.
    """
    turned = surfaces @ frame.T
    corners = turned[:, faces]  # (G, F, corner, 3)
    normals = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    # Sums over the triangles at a point, weighted by area, make it smooth.
    smooth = torch.zeros(surfaces.shape, dtype=torch.float64)
    for corner in range(3):
        smooth.index_add_(1, torch.tensor(faces[:, corner]), torch.from_numpy(normals))
    normal = smooth.numpy()
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    unit = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    brightness = AMBIENT + (1 - AMBIENT) * (unit @ (LIGHT / np.linalg.norm(LIGHT))).clip(min=0)
    order = np.argsort(corners[..., 2].mean(axis=-1), axis=1)
    facing = np.take_along_axis(normals[..., 2] > 0, order, axis=1)
    glyph = np.broadcast_to(np.arange(len(surfaces))[:, None], order.shape)
    triangles = faces[order[facing]] + surfaces.shape[1] * glyph[facing][:, None]
    return turned[..., :2], brightness, triangles
