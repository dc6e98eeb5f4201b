"""The X-ray transform: line integrals of every channel of a volume, in every view."""

from __future__ import annotations

from typing import Any

import torch

from ddf_tomo._checks import check_shape, choice, flag, integer, message
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.backends import BACKENDS, load
from ddf_tomo.operators.backends.choice import choose_backend, torch_device
from ddf_tomo.operators.base import LinearOperator, Normal


class XRayTransform(OpaqueOperator):
    """Line integrals along the beams of a parallel-beam geometry, all channels at once, with the exact adjoint.

    A ray samples each slice of the volume normal to the largest component of ``p`` by bilinear interpolation and
    weights the samples with the length ``1/max|p|`` between slices (Joseph 1982, IEEE Trans. Med. Imaging 1, 192; the
    model of MUMOTT and ASTRA). Outside the volume is zero. Line integrals are in units of the volume times voxels.

    Parameters
    ----------
    geometry
        Beams, detector, and volume.
    backend
        ``"numba"``: compiled CPU kernel. ``"reference"``: the same sums in plain torch operations, slow and obvious, on
        any device. ``"triton"``: compiled kernels on an NVIDIA card; takes float16 and bfloat16 too, which it sums in
        float32. ``"astra"``, ``"tomosipo"``: projectors of these packages, float32, on an NVIDIA card, with
        back-projections that are not the transpose. ``"auto"``: the quickest exact one, by `choose_backend`; the
        attribute ``why`` says why.
    device
        Where inputs live (default ``"cpu"``); inputs on another device are refused rather than copied in silence.
    channels
        Number of channels, if it is to be fixed (SciPy wants fixed shapes); otherwise the input decides.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or an input does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 4), 0.2, volume_shape=(16, 16, 8), detector_shape=(16, 8))
    >>> A = XRayTransform(geometry)
    >>> projections = A(np.ones((16, 16, 8, 6), np.float32))
    >>> projections.shape, A.T(projections).shape, A.views([0, 2]).range_shape
    ((4, 16, 8, 6), (16, 16, 8, 6), (2, 16, 8, None))
    """

    def __init__(
        self,
        geometry: Geometry,
        backend: str = "auto",
        device: torch.device | str | None = None,
        *,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(geometry, Geometry):
            raise TypeError(message("geometry", "a ddf_tomo.Geometry", type(geometry).__name__))
        self.geometry, self.requested_backend = geometry, choice(backend, "backend", ("auto", *BACKENDS))
        self.device = torch_device(device)
        self.channels = None if channels is None else integer(channels, "channels", low=1)
        self.why = f"{backend}: as asked for"
        if backend == "auto":
            backend, self.why = choose_backend(geometry, self.device, self.channels)
        described = BACKENDS[backend]
        if described.devices is not None and self.device.type not in described.devices:
            expected = f"{' or '.join(map(repr, described.devices))} with backend={backend!r}"
            raise ValueError(message("device", expected, repr(str(self.device))))
        self.backend, self.adjoint_is_exact, self.dtypes = backend, described.adjoint_is_exact, described.dtypes
        self._kernels = load(backend, geometry, self.device)
        self.domain_shape = (*geometry.volume_shape, self.channels)
        self.range_shape = (len(geometry), *geometry.detector_shape, self.channels)

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

    def views(self, indices: Any) -> XRayTransform:
        return XRayTransform(self.geometry[indices], self.requested_backend, self.device, channels=self.channels)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        projections = x.new_zeros((len(x), len(self.geometry), *self.geometry.detector_shape, x.shape[-1]))
        for volume, target in zip(x, projections, strict=True):
            self.project_into(target, volume)
        return projections

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        volumes = y.new_zeros((len(y), *self.geometry.volume_shape, y.shape[-1]))
        for projections, target in zip(y, volumes, strict=True):
            self.backproject_into(target, projections)
        return volumes

    def project_into(self, projections: torch.Tensor, volume: torch.Tensor, views: slice = slice(None)) -> None:
        """Add the projection of one contiguous ``volume`` to ``projections`` of some ``views``; no autograd."""
        chosen = self._chosen(projections, volume, views)
        if projections.numel() and volume.numel():
            self._kernels.project(projections, volume, chosen)

    def backproject_into(self, volume: torch.Tensor, projections: torch.Tensor, views: slice = slice(None)) -> None:
        """Add the backprojection of contiguous ``projections`` of some ``views`` to ``volume``; no autograd."""
        chosen = self._chosen(projections, volume, views)
        if projections.numel() and volume.numel():
            self._kernels.backproject(volume, projections, chosen)

    def _chosen(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> slice:
        start, stop, _ = views.indices(len(self.geometry))
        shape = (stop - start, *self.geometry.detector_shape, volume.shape[-1])
        check_shape(projections.shape, "projections", shape)
        return slice(start, stop)


def normal_operator(A: LinearOperator, weights: Any, exact: bool) -> LinearOperator:
    """``Aᵀ W A`` of an X-ray transform in either way."""
    if flag(exact, "exact"):
        return Normal(A, weights)
    from ddf_tomo.operators.normal import FastNormal

    return FastNormal(A, weights)
