"""Angular responses: what each modality measures of a spherical function that was integrated along the beam.

Every modality is ``signal[v, :, :, m] = Σ_c R[v, m, c] ∫ X_c dl``; a response is the value that makes ``R`` from a
geometry. Responses that look across the beam are weights of the Fourier series on the circle (`circle`), the same in
all views; the grating and the rank-2 tensor have forms of their own.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, even_order, message, number, real_array
from ddf_tomo.geometry import Geometry, view_indices
from ddf_tomo.operators.circle import (
    angle_tuple,
    check_geometry,
    check_radians,
    circle_harmonics,
    covers_full_circle,
    fourier_basis,
    segment_edges,
)
from ddf_tomo.operators.rank_two import COLUMNS, ROWS
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, sphere_quadrature


class AngularResponse(ABC):
    """What a modality has to say about itself: its channels, and one matrix for each view.

    Attributes
    ----------
    highest_order
        Order above which the response sees nothing, whatever the views; None where there is no such order.
    of_harmonics
        Whether the coefficients are those of even-order harmonics (else the six numbers of a tensor).

    Examples
    --------
    >>> class MeanAcrossBeam(AngularResponse):  # a modality of your own
    ...     channels = 1
    ...     def matrix(self, geometry, ell_max):
    ...         return circle_harmonics(geometry, ell_max)[:, :1]
    >>> MeanAcrossBeam().matrix(Geometry.from_angles([0.0, 0.5], 0.0, (8, 8, 8), (8, 8)), ell_max=2).shape
    torch.Size([2, 1, 6])
    """

    highest_order: ClassVar[int | None] = None
    of_harmonics: ClassVar[bool] = True

    @property
    @abstractmethod
    def channels(self) -> int:
        """Numbers measured in each pixel of a view."""

    @abstractmethod
    def matrix(self, geometry: Geometry, ell_max: int) -> Tensor:
        """Response matrices, float64, shape ``(views, channels, coefficients)``.

        Parameters
        ----------
        geometry
            Views; only the directions ``p``, ``j``, ``k`` are used.
        ell_max
            Highest (even) order of the spherical function.
        """

    def views(self, indices: Any) -> AngularResponse:
        """The response of the views of these indices; the same object unless it differs from view to view."""
        return self

    def in_any_view(self) -> AngularResponse:
        """A response with the channels that occur in any view, for beams that were not measured."""
        return self


@dataclass(frozen=True)
class IsotropicResponse(AngularResponse):
    """One channel that knows no direction: the mean over the sphere, which is the coefficient of ℓ = 0.

    The response of absorption, whose line integrals are the scalar case of tensor tomography.

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (8, 8, 8), (8, 8))
    >>> IsotropicResponse().matrix(geometry, 2).tolist()
    [[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]
    """

    highest_order: ClassVar[int | None] = 0

    @property
    def channels(self) -> int:
        return 1

    def matrix(self, geometry: Geometry, ell_max: int = 0) -> Tensor:
        check_geometry(geometry)
        matrix = torch.zeros(len(geometry), 1, coefficient_count(even_order(ell_max)), dtype=torch.float64)
        matrix[..., 0] = 1
        return matrix


class _AcrossBeam(AngularResponse):
    """A response that weights the Fourier series on the great circle across the beam."""

    @abstractmethod
    def azimuthal_weights(self, ell_max: int) -> NDArray[np.float64]:
        """Weights of ``(1, cos mφ, sin mφ)`` up to ``m = ell_max``, shape ``(channels, 2 ell_max + 1)``."""

    def matrix(self, geometry: Geometry, ell_max: int) -> Tensor:
        order = even_order(ell_max)
        return torch.from_numpy(self.azimuthal_weights(order)) @ circle_harmonics(geometry, order)


@dataclass(frozen=True)
class SaxsResponse(_AcrossBeam):
    """Mean of the scattering function over the arc of each detector segment (small- and wide-angle scattering).

    Segments reach half-way to their neighbours, as in MUMOTT; the integral over an arc is exact. With a scattering
    angle 2θ the great circle becomes the small circle ``cos θ e(φ) − sin θ p``
    [Nielsen et al. 2023, Acta Cryst. A79, 515].

    Parameters
    ----------
    detector_angles_rad
        Azimuths of the segment centres, from ``j`` towards ``k``, in order around the circle; shape ``(segments,)``.
    two_theta_rad
        Scattering angle, or several, shape ``(rings,)``; the channels then run over the azimuths fast, over 2θ slowly.
    full_circle
        Whether the segments cover the full circle (as for 2θ ≠ 0) or half of it, its other half being equal by
        symmetry. By default judged from the angles.

    Raises
    ------
    ValueError
        If the angles are not distinct, not in order, look like degrees, or do not fit ``full_circle``.

    Examples
    --------
    >>> import numpy as np
    >>> response = SaxsResponse(np.arange(8) * np.pi / 8)
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 5), 0.2, (8, 8, 8), (8, 8))
    >>> response.channels, response.matrix(geometry, 4).shape
    (8, torch.Size([5, 8, 15]))
    """

    detector_angles_rad: ArrayLike
    two_theta_rad: ArrayLike = 0.0
    full_circle: bool | None = None

    def __post_init__(self) -> None:
        angles = angle_tuple(self.detector_angles_rad, "detector_angles_rad")
        two_theta = angle_tuple(self.two_theta_rad, "two_theta_rad")
        for value in two_theta:
            number(value, "two_theta_rad", low=0.0, high=np.pi)
        if self.full_circle is not None and not isinstance(self.full_circle, (bool, np.bool_)):
            raise TypeError(message("full_circle", "True, False or None", repr(self.full_circle)))
        full = covers_full_circle(np.array(angles)) if self.full_circle is None else bool(self.full_circle)
        segment_edges(np.array(angles), full)
        object.__setattr__(self, "detector_angles_rad", angles)
        object.__setattr__(self, "two_theta_rad", two_theta)
        object.__setattr__(self, "full_circle", full)

    @property
    def channels(self) -> int:
        return np.size(self.detector_angles_rad) * np.size(self.two_theta_rad)

    def azimuthal_weights(self, ell_max: int) -> NDArray[np.float64]:
        start, end = segment_edges(np.array(self.detector_angles_rad), bool(self.full_circle))
        m = np.concatenate([[0], *[np.arange(1, ell_max + 1)] * 2])
        # The mean of cos mφ over an arc of length Δ is its value at the middle times sin(mΔ/2)/(mΔ/2).
        damping = np.sinc(m * (end - start)[:, None] / (2 * np.pi))
        return damping * fourier_basis((start + end) / 2, ell_max)

    def matrix(self, geometry: Geometry, ell_max: int) -> Tensor:
        order = even_order(ell_max)
        weights = torch.from_numpy(self.azimuthal_weights(order))
        angles = np.asarray(self.two_theta_rad).tolist()
        return torch.cat([weights @ circle_harmonics(geometry, order, angle) for angle in angles], dim=1)


@dataclass(frozen=True)
class SecondMomentResponse(_AcrossBeam):
    """Covariance of the angular blur, ``(1/π) ∫ e_a e_b f(e(φ)) dφ`` for ``(a, b)`` in ``(jj, jk, kk)``.

    What directional dark-field retrieval gives after division by ``(distance/pixel)²``. An isotropic ``f = 1`` gives
    the unit matrix times the path length. Only azimuthal orders 0 and ±2 enter: orders above ℓ = 2 are determined in
    part only, see `observability` [Paganin & Morgan 2019, Sci. Rep. 9, 17537; Lautizi et al. 2024, arXiv 2406.18680].

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (8, 8, 8), (8, 8))
    >>> SecondMomentResponse().matrix(geometry, 0).round(decimals=9).tolist()
    [[[1.0], [0.0], [1.0]]]
    """

    @property
    def channels(self) -> int:
        return 3

    def azimuthal_weights(self, ell_max: int) -> NDArray[np.float64]:
        weights = np.zeros((3, 2 * ell_max + 1))
        weights[[0, 2], 0] = 1.0
        if ell_max >= 2:
            weights[[0, 2], 2] = 0.5, -0.5
            weights[1, ell_max + 2] = 0.5
        return weights


@dataclass(frozen=True)
class DirectionalVisibilityResponse(_AcrossBeam):
    """Visibility loss ``−ln V`` at several azimuths: ``∮ w(φ' − φ) f(e(φ')) dφ'`` with ``w(ψ) ∝ |cos ψ|^β``.

    ``w`` is normalised to ``∮ w dψ = 1``: an isotropic ``f = 1`` gives the path length at every azimuth, and ``β = 2``
    gives ``e(φ)ᵀ Θ e(φ)`` with the second moments Θ of `SecondMomentResponse`. The azimuthal order 2n is damped by
    ``Π_{i=1…n} (β/2 − i + 1)/(β/2 + i)``, which ends at order 2 for ``β = 2`` and lets every even order through for
    ``β < 2`` (β = 1: 1, 1/3, −1/15, 1/35, …). For a scattering law ``S(q) ∝ q⁻ⁿ``, ``β = n − 2``
    [derived from Strobl 2014, Sci. Rep. 4, 7243].

    Parameters
    ----------
    azimuths_rad
        Azimuths φ of the modulation whose visibility is measured, from ``j`` towards ``k``; shape ``(channels,)``.
    exponent
        β in (0, 2].

    Examples
    --------
    >>> import numpy as np
    >>> DirectionalVisibilityResponse(np.arange(3) * np.pi / 3, exponent=1.0).channels
    3
    """

    azimuths_rad: ArrayLike
    exponent: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "azimuths_rad", angle_tuple(self.azimuths_rad, "azimuths_rad"))
        object.__setattr__(self, "exponent", number(self.exponent, "exponent", low=0.0, high=2.0, low_open=True))

    @property
    def channels(self) -> int:
        return np.size(self.azimuths_rad)

    def azimuthal_weights(self, ell_max: int) -> NDArray[np.float64]:
        damping = np.zeros(ell_max + 1)
        damping[0] = 1.0
        for n in range(1, ell_max // 2 + 1):
            damping[2 * n] = damping[2 * n - 2] * (self.exponent / 2 - n + 1) / (self.exponent / 2 + n)
        return np.append(damping, damping[1:]) * fourier_basis(np.array(self.azimuths_rad), ell_max)


@dataclass(frozen=True)
class VisibilityResponse(AngularResponse):
    """Grating interferometer: ``−ln D = ∫dl ∫_{S²} (|p × u| ⟨u, t⟩)² η(u) du`` (anisotropic dark-field tomography).

    ``t = cos a j + sin a k`` is the direction in which the grating is sensitive. The weight is a polynomial of degree
    4: orders above ℓ = 4 cannot be seen, and asking for them warns
    [Malecki et al. 2014, EPL 105, 38002; Wieczorek et al. 2016, PRL 117, 158101].

    Parameters
    ----------
    sensitivity_angles_rad
        Angles ``a``, one for each channel, shape ``(channels,)``, or for each view as well, ``(views, channels)``.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.2, (8, 8, 8), (8, 8))
    >>> VisibilityResponse([0.0, 1.5]).matrix(geometry, 4).shape
    torch.Size([2, 2, 15])
    """

    sensitivity_angles_rad: ArrayLike
    highest_order: ClassVar[int | None] = 4

    def __post_init__(self) -> None:
        angles = np.atleast_1d(real_array(self.sensitivity_angles_rad, "sensitivity_angles_rad"))
        check_shape(angles.shape, "sensitivity_angles_rad", (None,) * min(angles.ndim, 2))
        check_radians(angles, "sensitivity_angles_rad")
        values = tuple(angles.tolist()) if angles.ndim == 1 else tuple(map(tuple, angles.tolist()))
        object.__setattr__(self, "sensitivity_angles_rad", values)

    @property
    def channels(self) -> int:
        return np.shape(self.sensitivity_angles_rad)[-1]

    def views(self, indices: Any) -> VisibilityResponse:
        angles = np.array(self.sensitivity_angles_rad)
        return self if angles.ndim == 1 else VisibilityResponse(angles[view_indices(indices, len(angles))])

    def in_any_view(self) -> VisibilityResponse:
        angles = np.array(self.sensitivity_angles_rad)
        # The weight is quadratic in t: angles π apart are one channel, and 16 span what any number of them spans.
        distinct = np.unique(np.mod(np.mod(angles, np.pi).round(6), round(np.pi, 6)))
        chosen = distinct[np.unique(np.linspace(0, len(distinct) - 1, 16, dtype=int))]
        return self if angles.ndim == 1 else VisibilityResponse(chosen)

    def matrix(self, geometry: Geometry, ell_max: int) -> Tensor:
        """As in `AngularResponse.matrix`; warns above ``ell_max = 4``, where the further columns are zero.

        Raises
        ------
        ValueError
            If there are angles for another number of views than the geometry's.
        """
        order = even_order(ell_max)
        check_geometry(geometry)
        if order > 4:
            warnings.warn(
                f"a grating's weight is a polynomial of degree 4: of the {coefficient_count(order)} coefficients up to"
                f" ell_max={order} only the first 15 (orders 0, 2, 4) can be seen, the others contribute nothing",
                UserWarning,
                stacklevel=2,
            )
        angles = np.array(self.sensitivity_angles_rad)
        if angles.ndim == 2:
            check_shape(angles.shape, "sensitivity_angles_rad", (len(geometry), angles.shape[1]))
        angles = np.broadcast_to(angles, (len(geometry), self.channels))[..., None]
        sensitivity = np.cos(angles) * geometry.j[:, None] + np.sin(angles) * geometry.k[:, None]
        directions, weights = sphere_quadrature(8)
        across = 1 - (geometry.p @ directions.T) ** 2  # |p × u|²
        weight = across[:, None] * (sensitivity @ directions.T) ** 2
        seen = 4 * np.pi * (weight * weights) @ evaluate(directions, min(order, 4))
        return torch.nn.functional.pad(torch.from_numpy(seen), (0, coefficient_count(order) - seen.shape[-1]))


class _OfTensor(AngularResponse):
    """A response to the six numbers ``(xx, xy, xz, yy, yz, zz)`` of a symmetric tensor Σ instead of to harmonics."""

    highest_order: ClassVar[int | None] = 2
    of_harmonics: ClassVar[bool] = False

    @abstractmethod
    def vector_pairs(self, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vectors ``a``, ``b`` of each channel's ``aᵀ Σ b`` in a geometry, each of shape ``(views, channels, 3)``."""

    def matrix(self, geometry: Geometry, ell_max: int | None = None) -> Tensor:
        """As in `AngularResponse.matrix` with six coefficients; ``ell_max`` must be 2, as ``q̂ᵀ Σ q̂`` has, or None."""
        if ell_max is not None and even_order(ell_max) != 2:
            raise ValueError(message("ell_max", "2 or None, a rank-2 tensor has six coefficients", ell_max))
        check_geometry(geometry)
        left, right = self.vector_pairs(geometry)
        rows, columns = np.array(ROWS), np.array(COLUMNS)
        both = left[..., rows] * right[..., columns] + left[..., columns] * right[..., rows]
        return torch.from_numpy(both / np.where(rows == columns, 2, 1))


@dataclass(frozen=True)
class RankTwoResponse(_OfTensor):
    """Block of a symmetric tensor across the beam: ``e_aᵀ Σ e_b`` for ``(a, b)`` in ``(jj, jk, kk)``.

    Its coefficients are the tensor's ``(xx, xy, xz, yy, yz, zz)``. Second-moment data of functions with ℓ ≤ 2 become
    data of this model by `rank_two_from_second_moment` [Gao et al. 2019, Acta Cryst. A75, 223].

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (8, 8, 8), (8, 8))  # j along x, k along z
    >>> RankTwoResponse().matrix(geometry, 2)[0, 1].tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """

    @property
    def channels(self) -> int:
        return 3

    def vector_pairs(self, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        j, k = geometry.j, geometry.k
        return np.stack([j, j, k], axis=1), np.stack([j, k, k], axis=1)


@dataclass(frozen=True)
class RankTwoSaxsResponse(_OfTensor):
    """Scattering of a rank-2 tensor at detector azimuths: ``e(φ)ᵀ Σ e(φ)`` [Gao et al. 2019, Acta Cryst. A75, 223].

    Parameters
    ----------
    detector_angles_rad
        Azimuths φ from ``j`` towards ``k``; shape ``(channels,)``.

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (8, 8, 8), (8, 8))
    >>> RankTwoSaxsResponse([0.0]).matrix(geometry, 2).tolist()
    [[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]]
    """

    detector_angles_rad: ArrayLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "detector_angles_rad", angle_tuple(self.detector_angles_rad, "detector_angles_rad"))

    @property
    def channels(self) -> int:
        return np.size(self.detector_angles_rad)

    def vector_pairs(self, geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        angles = np.array(self.detector_angles_rad)[:, None]
        e = np.cos(angles) * geometry.j[:, None] + np.sin(angles) * geometry.k[:, None]
        return e, e
