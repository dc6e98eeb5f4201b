"""Refraction angles of a volume of refractive decrements: gradients of its line integrals on the detector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.xray import XRayTransform

__all__ = ["RefractionTransform"]


class RefractionTransform(LinearOperator):
    """Angles ``α = −∇ ∫ δ dl`` that rays leave a sample at, ``(view, j, k, 2)`` in rad, from δ ``(x, y, z, 1)``.

    A pixel sees the mean of its rays: the mean over it of a gradient, which is what the line integrals at its four
    corners differ by (trapezoidal rule along the edges). The detector's pixels are as large as voxels, as everywhere.
    The adjoint is exact.

    Parameters
    ----------
    geometry
        Beams, detector, and volume.
    **options
        ``backend`` and ``device`` of `ddf_tomo.XRayTransform`.

    Examples
    --------
    >>> import numpy as np
    >>> geometry = Geometry.from_angles([0.0], 0.0, (8, 8, 8), (8, 8))
    >>> ramp = np.arange(8.0)[:, None, None, None] * np.ones((8, 8, 8, 1))  # rises along x, which is j here
    >>> (RefractionTransform(geometry)(ramp)[0, 4, 4] + 0.0).tolist()  # by one in each of eight voxels that a ray meets
    [-8.0, 0.0]
    """

    def __init__(self, geometry: Geometry, **options: Any) -> None:
        of_kind(Geometry, geometry, "geometry")
        self.geometry, self.options = geometry, options
        rows, columns = geometry.detector_shape
        # Pixels of a detector that is one longer lie on the corners of this one's.
        self.corners = XRayTransform(replace(geometry, detector_shape=(rows + 1, columns + 1)), channels=1, **options)
        self.domain_shape = (*geometry.volume_shape, 1)
        self.range_shape = (len(geometry), rows, columns, 2)
        self.device, self.adjoint_is_exact = self.corners.device, self.corners.adjoint_is_exact

    def _apply(self, x: Tensor) -> Tensor:
        path = self.corners(x)[..., 0]
        down, across = path[..., 1:, :] - path[..., :-1, :], path[..., 1:] - path[..., :-1]
        return -0.5 * torch.stack([down[..., 1:] + down[..., :-1], across[..., 1:, :] + across[..., :-1, :]], -1)

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        down, across = (-0.5 * y).unbind(-1)
        rows, columns = self.geometry.detector_shape
        path = y.new_zeros((*y.shape[:-3], rows + 1, columns + 1))
        path[..., 1:, 1:] += down + across
        path[..., 1:, :-1] += down - across
        path[..., :-1, 1:] += across - down
        path[..., :-1, :-1] -= down + across
        return self.corners.T(path[..., None])

    def views(self, indices: Any) -> RefractionTransform:
        """The same of some views; see `Geometry.__getitem__` for ``indices``."""
        return RefractionTransform(self.geometry[indices], **self.options)
