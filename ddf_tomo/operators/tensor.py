"""From coefficients of a spherical function in every voxel to what the detector sees."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch

from ddf_tomo._checks import angular_response, check_shape, integer, message
from ddf_tomo.geometry import Geometry, view_indices
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.base import LinearOperator, as_tensor
from ddf_tomo.operators.xray import XRayTransform, normal_operator

CHUNK_BYTES = 128 * 2**20


class Response(Protocol):
    """What a modality has to say about itself: one matrix ``(channels, coefficients)`` for each view."""

    def matrix(self, geometry: Geometry, ell_max: int) -> torch.Tensor:
        """Response matrices, float64, shape ``(views, channels, coefficients)``."""
        ...


class TensorXRayTransform(OpaqueOperator):
    """Signals ``s[v, j, k, m] = Σ_c R[v, m, c] ∫ X_c dl`` of a field of spherical functions, with the exact adjoint.

    All coefficients are projected and then contracted with the response on the detector, in chunks of views.
    Contracting the volume first passes over it once per view, which was five to ten times slower for 15 coefficients
    and 8 channels, 15 and 3, and 6 and 3; on the detector the contraction is 3 to 7 % of the whole, so that fusing it
    with the projection would gain no more.

    Parameters
    ----------
    geometry
        Beams, detector and volume.
    response
        Angular response: `SaxsResponse`, `SecondMomentResponse`, … or anything with ``.matrix(geometry, ell_max)``.
    ell_max
        Highest (even) order of the harmonics.
    backend, device
        As in `XRayTransform`.
    chunk_views
        Views projected at once. The memory needed beyond input and output is that of the projected coefficients of one
        chunk; the default keeps it at 128 MiB, on a GPU at the size of the volume.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import SecondMomentResponse
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 4), 0.2, volume_shape=(8, 8, 8), detector_shape=(8, 8))
    >>> A = TensorXRayTransform(geometry, SecondMomentResponse(), ell_max=2)
    >>> A.domain_shape, A.range_shape
    ((8, 8, 8, 6), (4, 8, 8, 3))
    """

    def __init__(
        self,
        geometry: Geometry,
        response: Response,
        ell_max: int,
        *,
        backend: str = "auto",
        device: torch.device | str | None = None,
        chunk_views: int | None = None,
    ) -> None:
        super().__init__()
        projector = XRayTransform(geometry, backend, device)
        angular_response(response)
        self._set(projector, as_tensor(response.matrix(geometry, ell_max), "response.matrix(...)"), chunk_views)
        self.geometry, self.response, self.ell_max = geometry, response, ell_max

    def _set(self, projector: XRayTransform, matrix: torch.Tensor, chunk_views: int | None) -> None:
        check_shape(matrix.shape, "response.matrix(...)", (len(projector.geometry), None, None))
        views, channels, coefficients = matrix.shape
        if not torch.isfinite(matrix).all():
            raise ValueError(message("response.matrix(...)", "finite values", "NaN or infinite ones"))
        self.device, self.projector = projector.device, projector
        self.chunk_views = None if chunk_views is None else integer(chunk_views, "chunk_views", low=1)
        self.matrix = matrix.to(projector.device, torch.float64)
        self.domain_shape = (*projector.geometry.volume_shape, coefficients)
        self.range_shape = (views, *projector.geometry.detector_shape, channels)

    def normal(self, weights: Any = None, *, exact: bool = True) -> LinearOperator:
        """``Aᵀ W A``; with ``exact=False`` as a `FastNormal`, whose cost does not depend on the number of views.

        Parameters
        ----------
        weights
            Of the range's shape, or of one that broadcasts to it; a `FastNormal` wants them constant within each view.
        exact
            Whether to project and back-project, or to convolve: 1 to 3 % different where volumes are smooth.
        """
        return normal_operator(self, weights, exact)

    def views(self, indices: Any) -> TensorXRayTransform:
        chosen = view_indices(indices, len(self.geometry))
        subset = object.__new__(TensorXRayTransform)
        OpaqueOperator.__init__(subset)
        subset._set(self.projector.views(chosen), self.matrix[chosen], self.chunk_views)
        subset.geometry, subset.ell_max = self.geometry[chosen], self.ell_max
        # A response that differs from view to view has to follow.
        of_views = getattr(self.response, "views", None)
        subset.response = of_views(chosen) if of_views and len(chosen) else self.response
        return subset

    def _chunks(self, like: torch.Tensor) -> tuple[list[slice], torch.Tensor]:
        """Slices of views, and a buffer for the projected coefficients of one of them."""
        views, _, coefficients = self.matrix.shape
        rows, columns = self.projector.geometry.detector_shape
        numbers = CHUNK_BYTES // like.element_size()
        if like.device.type != "cpu":
            numbers = max(numbers, math.prod(self.projector.geometry.volume_shape) * coefficients)
        fitting = numbers // (rows * columns * coefficients)
        size = max(1, min(views, fitting if self.chunk_views is None else self.chunk_views))
        buffer = like.new_empty((size, rows, columns, coefficients))
        return [slice(start, min(start + size, views)) for start in range(0, views, size)], buffer

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        signals = x.new_empty((len(x), *self._shapes(x, adjoint=False)[1]))
        chunks, buffer = self._chunks(x)
        response = self.matrix.to(x.dtype).mT
        for views in chunks:
            projected = buffer[: views.stop - views.start]
            for volume, target in zip(x, signals, strict=True):
                self.projector.project_into(projected.zero_(), volume, views)
                torch.bmm(projected.flatten(1, 2), response[views], out=target[views].flatten(1, 2))
        return signals

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        volumes = y.new_zeros((len(y), *self._shapes(y, adjoint=True)[1]))
        chunks, buffer = self._chunks(y)
        response = self.matrix.to(y.dtype)
        for views in chunks:
            spread = buffer[: views.stop - views.start]
            for signals, target in zip(y, volumes, strict=True):
                torch.bmm(signals[views].flatten(1, 2), response[views], out=spread.flatten(1, 2))
                self.projector.backproject_into(target, spread, views)
        return volumes
