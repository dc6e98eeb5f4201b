"""What one view sees of a spherical function: its values on the circle across the beam, as a Fourier series.

On the circle ``cos θ e(φ) − sin θ p``, ``e(φ) = cos φ j + sin φ k``, every harmonic up to ℓ_max is a trigonometric
polynomial of degree ≤ ℓ_max in φ: ``a₀ + Σ_m (a_m cos mφ + b_m sin mφ)``. Equal steps in φ give its coefficients
exactly, and every response that only looks across the beam is a weighting of them, the same in all views.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, even_order, message, number, real_array
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.spherical_harmonics import evaluate


def fourier_basis(angles_rad: NDArray[np.float64], ell_max: int) -> NDArray[np.float64]:
    """``(1, cos φ … cos ℓ_max φ, sin φ … sin ℓ_max φ)`` on the last axis, shape ``(..., 2 ℓ_max + 1)``.

    Examples
    --------
    >>> import numpy as np
    >>> fourier_basis(np.array([np.pi / 2]), 1).round(9).tolist()
    [[1.0, 0.0, 1.0]]
    """
    phase = angles_rad[..., None] * np.arange(1, ell_max + 1)
    return np.concatenate([np.ones((*angles_rad.shape, 1)), np.cos(phase), np.sin(phase)], axis=-1)


def circle_harmonics(geometry: Geometry, ell_max: int, two_theta_rad: float = 0.0) -> Tensor:
    """Fourier coefficients in φ of every harmonic on each view's circle of scattering.

    Parameters
    ----------
    geometry
        Views; only ``p``, ``j``, ``k`` are used.
    ell_max
        Highest order; even.
    two_theta_rad
        Scattering angle; 0 is the great circle across the beam.

    Returns
    -------
    Tensor
        float64, shape ``(views, 2 ℓ_max + 1, K)``, the second axis as in `fourier_basis`.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.1, (4, 4, 4), (4, 4))
    >>> circle_harmonics(geometry, 4).shape
    torch.Size([2, 9, 15])
    """
    order = even_order(ell_max)
    check_geometry(geometry)
    angles = 2 * np.pi * np.arange(2 * order + 2) / (2 * order + 2)
    theta = number(two_theta_rad, "two_theta_rad", low=0.0, high=np.pi) / 2
    in_plane = np.cos(angles)[:, None] * geometry.j[:, None] + np.sin(angles)[:, None] * geometry.k[:, None]
    directions = np.cos(theta) * in_plane - np.sin(theta) * geometry.p[:, None]
    analysis = fourier_basis(angles, order).T * np.where(np.arange(2 * order + 1) == 0, 1, 2)[:, None] / len(angles)
    return torch.from_numpy(analysis) @ evaluate(torch.from_numpy(directions), order)


def segment_edges(angles_rad: NDArray[np.float64], full_circle: bool) -> tuple[NDArray[np.float64], ...]:
    """Start and end of every detector segment: half-way to its neighbours, the last one followed by the first.

    Half a circle is closed by the point opposite the first angle, a full one by the first angle itself. A single
    segment covers the whole of it. The angles may run either way round and jump by 2π.

    Raises
    ------
    ValueError
        If the angles are not distinct and in order around half a circle (or a full one).

    Examples
    --------
    >>> import numpy as np
    >>> start, end = segment_edges(np.array([0.0, np.pi / 2]), full_circle=False)
    >>> (start / np.pi).tolist(), (end / np.pi).tolist()
    ([-0.25, 0.25], [0.25, 0.75])
    """
    turn = 2 * np.pi if full_circle else np.pi
    following = np.append(angles_rad[1:], angles_rad[0] + turn)
    for sign in (1, -1):
        closed = following if sign > 0 else np.append(angles_rad[1:], angles_rad[0] - turn)
        gaps = np.mod(sign * (closed - angles_rad), 2 * np.pi)
        if len(gaps) == 1:
            gaps[:] = turn
        if abs(gaps.sum() - turn) < 1e-9 and gaps.min() > 1e-9:
            return angles_rad - sign * np.roll(gaps, 1) / 2, angles_rad + sign * gaps / 2
    raise ValueError(
        message(
            "detector_angles_rad",
            f"distinct angles in order around {'a full' if full_circle else 'half a'} circle",
            np.array2string(angles_rad, precision=4, threshold=8),
            "full_circle says which",
        )
    )


def covers_full_circle(angles_rad: NDArray[np.float64]) -> bool:
    """Whether regular segments at these angles cover a full circle rather than half of one (or less).

    Examples
    --------
    >>> import numpy as np
    >>> [covers_full_circle(np.arange(8) * step) for step in (np.pi / 8, np.pi / 4)]
    [False, True]
    """
    steps = np.mod(np.diff(angles_rad) + np.pi, 2 * np.pi) - np.pi
    return bool(abs(steps.sum()) * len(angles_rad) > 1.5 * np.pi * (len(angles_rad) - 1))


def angle_tuple(value: ArrayLike, argument: str) -> tuple[float, ...]:
    """One angle or a row of angles in radians as a tuple; degrees are noticed."""
    angles = np.atleast_1d(real_array(value, argument))
    check_shape(angles.shape, argument, (None,))
    check_radians(angles, argument)
    return tuple(angles.tolist())


def check_geometry(geometry: object) -> None:
    """Raise ``TypeError`` unless ``geometry`` is a `Geometry`."""
    if not isinstance(geometry, Geometry):
        raise TypeError(message("geometry", "a Geometry", type(geometry).__name__))


def check_radians(angles: NDArray[np.float64], argument: str) -> None:
    """Raise ``ValueError`` for no angles, or for angles beyond two turns."""
    if not angles.size:
        raise ValueError(message(argument, "at least one angle", "none"))
    if np.abs(angles).max() > 4 * np.pi:
        largest = angles.flat[np.abs(angles).argmax()]
        raise ValueError(message(argument, "radians within ±4π", largest, "Are these degrees? Use numpy.radians"))
