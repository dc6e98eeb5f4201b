"""Our angular responses as a basis set of MUMOTT's, and MUMOTT's basis sets as our responses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import message, neighbour
from ddf_tomo.geometry import Geometry
from ddf_tomo.interop.mumott.geometry import geometry_from, to_geometry
from ddf_tomo.operators.responses import AngularResponse, SaxsResponse

_basis_sets: Any = neighbour("mumott.methods.basis_sets")


class ResponseBasisSet(_basis_sets.SphericalHarmonics):
    """MUMOTT's spherical harmonics, seen through any of our responses instead of SAXS segments.

    With it MUMOTT's pipelines reconstruct directional dark-field data: ``run_sigtt(data_container,
    BasisSet=ResponseBasisSet, basis_set_kwargs={"response": SecondMomentResponse(), "geometry":
    data_container.geometry, "ell_max": 2})`` with ``data_container = to_data_container(scan)``.

    Parameters
    ----------
    response
        What the channels respond to.
    geometry
        The ``mumott.Geometry`` of the data, kept and followed.
    ell_max
        Highest even order.
    **options
        Passed to MUMOTT's `SphericalHarmonics`.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.operators.responses import SecondMomentResponse
    >>> theirs = to_geometry(Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5)), SecondMomentResponse())
    >>> ResponseBasisSet(SecondMomentResponse(), theirs, ell_max=2).projection_matrix.shape
    (2, 3, 6)
    """

    def __init__(self, response: Any, geometry: Any, ell_max: int = 2, **options: Any) -> None:
        self._response, self._mumott_geometry = response, geometry
        super().__init__(geometry.probed_coordinates, ell_max=ell_max, **options)

    def _get_integrated_projection_matrix(self, probed_coordinates: Any = None) -> NDArray[np.float64]:
        matrix = self._response.matrix(geometry_from(self._mumott_geometry), self._ell_max)
        return np.ascontiguousarray(torch.as_tensor(matrix).numpy(), np.float64)


@dataclass(frozen=True, eq=False)
class MumottResponse(AngularResponse):
    """The response of SAXS segments in a basis set of MUMOTT's; made by `mumott_response`.

    Attributes
    ----------
    basis_set
        An object of ``mumott.methods.basis_sets``.
    segments
        The detector segments.
    """

    basis_set: Any
    segments: SaxsResponse

    @property
    def channels(self) -> int:
        """Number of channels a view."""
        return self.segments.channels

    def matrix(self, geometry: Geometry, ell_max: int | None = None) -> torch.Tensor:
        """MUMOTT's projection matrix for a geometry, float64, ``(views, channels, len(basis_set))``.

        ``ell_max`` is for the sake of other responses: the basis set decides, and another order raises ``ValueError``.
        """
        own = getattr(self.basis_set, "ell_max", None)
        if own is not None and ell_max is not None and own != ell_max:
            raise ValueError(message("ell_max", f"{own}, that of the basis set", ell_max))
        # MUMOTT's basis sets recompute their matrix when they notice new coordinates.
        basis_set = _copied(self.basis_set)
        basis_set.probed_coordinates = to_geometry(geometry, self.segments).probed_coordinates
        return torch.from_numpy(np.array(basis_set.projection_matrix, np.float64))


def mumott_response(
    basis_set: Any, detector_angles_rad: Sequence[float], two_theta_rad: float = 0.0, full_circle: bool | None = None
) -> MumottResponse:
    """A response with the coefficients of any of MUMOTT's basis sets: Gaussian kernels, nearest neighbour, …

    Parameters
    ----------
    basis_set
        An object of ``mumott.methods.basis_sets``; a copy is kept.
    detector_angles_rad, two_theta_rad, full_circle
        The segments, as in `SaxsResponse`.

    Raises
    ------
    TypeError
        If it is no basis set that has a matrix for each view.

    Examples
    --------
    >>> from mumott.methods.basis_sets import GaussianKernels
    >>> response = mumott_response(GaussianKernels(grid_scale=2), [0.0, 0.8, 1.6, 2.4])
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5))
    >>> response.matrix(geometry).shape[:2]
    torch.Size([2, 4])
    """
    if not hasattr(basis_set, "probed_coordinates") or not hasattr(basis_set, "projection_matrix"):
        raise TypeError(message("basis_set", "one of MUMOTT's basis sets", type(basis_set).__name__))
    segments = SaxsResponse(detector_angles_rad, two_theta_rad=two_theta_rad, full_circle=full_circle)
    return MumottResponse(_copied(basis_set), segments)


def _copied(basis_set: Any) -> Any:
    """A copy; MUMOTT 2.3 declares ``__dict__`` a method of its basis sets, on which the copy module fails."""
    twin = object.__new__(type(basis_set))
    for name, value in basis_set.__reduce_ex__(2)[2].items():
        setattr(twin, name, copy.deepcopy(value))
    return twin
