"""The X-ray transform written so that one can check it by reading: slow, in torch operations, on any device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ddf_tomo.geometry import Geometry


def _samples(geometry: Geometry, view: int, like: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each slice and each corner of the interpolation: flat voxel index and weight, for all pixels of a view."""
    p = geometry.p[view]
    main = int(abs(p).argmax())
    across = [axis for axis in range(3) if axis != main]
    with np.errstate(over="ignore"):  # an offset may be so far out that its coordinates are infinite
        origin = torch.tensor(geometry[view].pixel_centres()[0].reshape(-1, 3), device=like.device)
    sizes = geometry.volume_shape
    strides = (sizes[1] * sizes[2], sizes[2], 1)
    for slice_ in range(sizes[main]):
        distance = (slice_ - (sizes[main] - 1) / 2 - origin[:, main]) / p[main]
        # Voxel coordinates of the place where each ray meets this slice.
        u, w = (origin[:, axis] + distance * p[axis] + (sizes[axis] - 1) / 2 for axis in across)
        for near_u, weight_u in ((u.floor(), 1 - (u - u.floor())), (u.floor() + 1, u - u.floor())):
            for near_w, weight_w in ((w.floor(), 1 - (w - w.floor())), (w.floor() + 1, w - w.floor())):
                inside = (near_u >= 0) & (near_u < sizes[across[0]]) & (near_w >= 0) & (near_w < sizes[across[1]])
                index = slice_ * strides[main] + near_u * strides[across[0]] + near_w * strides[across[1]]
                weight = torch.where(inside, weight_u * weight_w / abs(p[main]), 0)
                yield torch.where(inside, index, 0).long(), weight.to(like.dtype)[:, None]


class Projector:
    """See `ddf_tomo.operators.backends.Backend`."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self.geometry = geometry

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        """Gather the corners of all pixels, one corner of one slice at a time."""
        flat, geometry = volume.flatten(0, 2), self.geometry[views]
        for view in range(len(geometry)):
            pixels = projections[view].flatten(0, 1)
            for index, weight in _samples(geometry, view, volume):
                pixels += weight * flat[index]

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        """The same corners and weights, added to."""
        flat, geometry = volume.flatten(0, 2), self.geometry[views]
        for view in range(len(geometry)):
            pixels = projections[view].flatten(0, 1)
            for index, weight in _samples(geometry, view, projections):
                flat.index_add_(0, index, weight * pixels)
