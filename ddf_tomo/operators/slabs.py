"""The X-ray transform of a volume that is larger than the memory of the device that computes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import integer, of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.xray import XRayTransform

LARGEST_CHUNK = 2**50  # bytes: more than there is, and an end for a slip of the keyboard


class SlabwiseXRayTransform(OpaqueOperator):
    """`XRayTransform` of arrays in main memory, computed on another device slab by slab.

    Slabs are cut across x. Outside of a slab is zero, as outside of a volume, so that the projections of all slabs add
    up to those of the volume, whatever the direction of the beam: the sums are the same to rounding. The device holds
    one slab and one chunk of views at a time; transfers and computation take turns.

    Parameters
    ----------
    geometry
        Beams, detector, and volume.
    backend
        As in `XRayTransform`.
    device
        Where line integrals are computed. Arrays that come and go are on the CPU.
    chunk_bytes
        Largest size of a slab, and of a chunk of views; at least one slice and one view are taken.
    channels
        As in `XRayTransform`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or an input does not fit.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.4], 0.0, (8, 8, 8), (8, 8))
    >>> A = SlabwiseXRayTransform(geometry, device="cpu", chunk_bytes=3 * 8 * 8 * 6 * 4)  # three slices, three views
    >>> x = torch.ones(8, 8, 8, 6)
    >>> torch.allclose(A(x), XRayTransform(geometry)(x), atol=1e-5)
    True
    """

    def __init__(
        self,
        geometry: Geometry,
        backend: str = "auto",
        device: torch.device | str | None = "cuda",
        *,
        chunk_bytes: int = 4 * 2**30,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        of_kind(Geometry, geometry, "geometry", "a ddf_tomo.Geometry")
        self.chunk_bytes = integer(chunk_bytes, "chunk_bytes", low=1, high=LARGEST_CHUNK)
        thinnest = XRayTransform(_slab(geometry, slice(0, 1)), backend, device, channels=channels)
        self.geometry, self.backend, self.compute_device = geometry, backend, thinnest.device
        self.channels, self.adjoint_is_exact = thinnest.channels, thinnest.adjoint_is_exact
        self.dtypes, self.device = thinnest.dtypes, torch.device("cpu")
        self.domain_shape = (*geometry.volume_shape, self.channels)
        self.range_shape = (len(geometry), *geometry.detector_shape, self.channels)

    def views(self, indices: Any) -> SlabwiseXRayTransform:
        chosen, size = self.geometry[indices], self.chunk_bytes
        return SlabwiseXRayTransform(
            chosen, self.backend, self.compute_device, chunk_bytes=size, channels=self.channels
        )

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        projections = x.new_zeros((len(x), *self._shapes(x, adjoint=False)[1]))
        for part, A in self._slabs(x):
            for volume, target in zip(x, projections, strict=True):
                slab = volume[part].to(self.compute_device)
                for views in self._chunks(target):
                    seen = target[views].to(self.compute_device)
                    A.project_into(seen, slab, views)
                    target[views] = seen
        return projections

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        volumes = y.new_empty((len(y), *self._shapes(y, adjoint=True)[1]))
        for part, A in self._slabs(volumes):
            for projections, target in zip(y, volumes, strict=True):
                slab = target[part].to(self.compute_device).zero_()
                for views in self._chunks(projections):
                    A.backproject_into(slab, projections[views].to(self.compute_device), views)
                target[part] = slab
        return volumes

    def _slabs(self, volumes: torch.Tensor) -> list[tuple[slice, XRayTransform]]:
        parts = _pieces(volumes.shape[1], math.prod(volumes.shape[2:]) * volumes.element_size(), self.chunk_bytes)
        return [(part, XRayTransform(_slab(self.geometry, part), self.backend, self.compute_device)) for part in parts]

    def _chunks(self, projections: torch.Tensor) -> list[slice]:
        line = math.prod(projections.shape[1:]) * projections.element_size()
        return _pieces(len(projections), line, self.chunk_bytes)


def _slab(geometry: Geometry, part: slice) -> Geometry:
    """The same rays through the slices ``part`` across x, whose centre is the origin then."""
    x, y, z = geometry.volume_shape
    shift = (part.start + part.stop - x) / 2
    # Rays move against the origin; along the beam that changes nothing.
    j_offset, k_offset = (geometry.j_offset - shift * geometry.j[:, 0], geometry.k_offset - shift * geometry.k[:, 0])
    return replace(geometry, volume_shape=(part.stop - part.start, y, z), j_offset=j_offset, k_offset=k_offset)


def _pieces(count: int, item_bytes: int, chunk_bytes: int) -> list[slice]:
    size = int(np.clip(chunk_bytes // max(item_bytes, 1), 1, max(count, 1)))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
