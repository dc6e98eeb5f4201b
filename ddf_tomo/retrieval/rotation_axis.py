"""Where the rotation axis meets the detector, from the projections themselves.

Parallel projections of one object are not independent. Let ``g(ω, θ)`` be the Fourier transform of the projection at
angle θ along the detector coordinate s, measured from the axis. It samples the object's transform on a circle of radius
ω, so an object of radius R gives only angular harmonics of order ``|n| ≲ R ω`` (the "bow tie"; Edholm, Lewitt &
Lindholm 1986, Proc. SPIE 671, 8). Opposite views are mirror images, so that ``c_{−n} = (−1)ⁿ c̄_n``, and 2n + 1 real
numbers describe any number of views (the Helgason–Ludwig conditions in Fourier form). An axis at column c multiplies by
``exp(−iωc)`` and breaks this.
The column sought makes the data most consistent in the sense of least squares, which is the most likely one for white
noise. The views may lie anywhere and need no opposite partner. Less than half a turn will do for clean data only.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_shape, message, number, real_array

__all__ = ["RotationAxis", "find_rotation_axis", "mirror_correlation"]
FREQUENCIES = 64  # more add little: neighbouring frequencies of an object half as wide as the detector are correlated
SEARCH_STEP = 0.05  # columns, far below the width of the peak, which is at least half a column
WEDGE_RAD = math.radians(20)  # at counting noise of 3 % the error reaches half a column there
MINIMUM_VIEWS = 6  # below, even the lowest frequency has as many harmonics as data


@dataclass(frozen=True)
class RotationAxis:
    """Column of the rotation axis, and what speaks for it; made by `find_rotation_axis`.

    Attributes
    ----------
    column
        Position in columns, counted from the centre of the first one: the centre of the detector is ``(J - 1)/2``.
    standard_error
        From the curvature of the misfit and the misfit left, in columns; systematic errors come on top.
    inconsistency
        Share of the signal's power that no object turning about this axis explains: 0 for perfect data.
    columns
        Number of columns J of the detector.
    """

    column: float
    standard_error: float
    inconsistency: float
    columns: int

    @property
    def j_offset(self) -> float:
        """Offset for a `Geometry` whose volume is centred on the axis, in pixels."""
        return (self.columns - 1) / 2 - self.column


def find_rotation_axis(
    projections: ArrayLike, angles_rad: ArrayLike, *, search: tuple[float, float] | None = None
) -> RotationAxis:
    """Column of the rotation axis of parallel projections, to a small fraction of a column.

    Parameters
    ----------
    projections
        Line integrals such as ``absorption(...).data``, shape ``(views, columns, rows)`` or ``(views, columns, rows,
        1)``; zero outside the object, which must not be cut off by the detector.
    angles_rad
        Angle of each view, shape ``(views,)``; any order, any spacing.
    search
        Lowest and highest column to consider; by default the middle half of the detector.

    Returns
    -------
    RotationAxis

    Raises
    ------
    TypeError, ValueError
        If shapes or angles do not fit, there are fewer than six different angles (modulo half a turn), or the
        projections are zero everywhere.

    Warns
    -----
    UserWarning
        If the views leave out a wedge of more than 20°: noise then moves the result by more than its standard error.

    Examples
    --------
    >>> angles = np.arange(0, np.pi, np.pi / 30)
    >>> track = 20.3 + 6 * np.cos(angles) - 3 * np.sin(angles)  # of a blob that goes round
    >>> blob = np.exp(-((np.arange(48) - track[:, None]) ** 2) / 8)
    >>> round(find_rotation_axis(blob[:, :, None], angles).column, 2)
    20.3
    """
    data = real_array(projections, "projections")
    if data.ndim == 4:
        check_shape(data.shape, "projections", (None, None, None, 1))
        data = data[..., 0]
    check_shape(data.shape, "projections", (None, None, None))
    views, columns, _ = data.shape
    angles = real_array(angles_rad, "angles_rad", (views,))
    check_angles_differ(angles)
    directions = np.unique(np.mod(angles, math.pi).round(6))
    if len(directions) < MINIMUM_VIEWS:
        raise ValueError(message("angles_rad", f"at least {MINIMUM_VIEWS} different directions", len(directions)))
    wedge = float(np.diff(directions, append=directions[0] + math.pi).max())
    if wedge > max(WEDGE_RAD, 2 * math.pi / len(directions)):
        text = f"no view within a range of {math.degrees(wedge):.0f}° of directions: check the axis by the sharpness"
        warnings.warn(text, stacklevel=2)
    low, high = _search_range(search, columns)
    if not data.any():
        raise ValueError(message("projections", "an object in some view", "zero everywhere"))
    data /= np.abs(data).max()

    # |projection onto the consistent subspace|² = (A + D)/2 + (A - D)/2 cos 2ωc + B sin 2ωc, for each frequency.
    omega, basis_orders = _frequencies(columns, len(directions))
    shifts = np.exp(-1j * np.outer(omega, np.arange(columns) - (columns - 1) / 2))
    spectra = np.einsum("vjk,wj->wvk", data, shifts, optimize=True)
    mean, cosine, sine = _consistent_power(angles, basis_orders, spectra)
    total = float((np.abs(spectra) ** 2).sum())

    def consistent(c: Any, derivative: int = 0) -> Any:
        phase = 2 * np.multiply.outer(np.asarray(c) - (columns - 1) / 2, omega) + derivative * np.pi / 2
        scale = (2 * omega) ** derivative
        return (scale * (cosine * np.cos(phase) + sine * np.sin(phase))).sum(-1) + (not derivative) * mean.sum()

    grid = np.linspace(low, high, max(3, math.ceil((high - low) / SEARCH_STEP) + 1))
    best = float(grid[consistent(grid).argmax()])
    for _ in range(3):  # Newton's method on a trigonometric polynomial, from within a twentieth of a column
        curvature = float(consistent(best, 2))
        if curvature < 0:
            best = float(np.clip(best - consistent(best, 1) / curvature, low, high))
    misfit = max(total - float(consistent(best)), 0.0)
    numbers = 2 * spectra.size - int((2 * basis_orders + 1).sum()) * data.shape[2]
    curvature = -float(consistent(best, 2))
    repeats = max(1.0, 2 * math.pi / columns * len(omega) / omega[-1])  # only frequencies 2π/J apart are independent
    error = math.sqrt(2 * misfit * repeats / max(numbers, 1) / curvature) if curvature > 0 else math.inf
    return RotationAxis(best, error, min(misfit / total, 1.0) if total > 0 else 1.0, columns)


def mirror_correlation(projections: ArrayLike, angles_rad: ArrayLike, column: float) -> float:
    """Correlation of the two views closest to half a turn apart, one of them mirrored about ``column``.

    Near 1 for a well-placed axis; the shift of a fraction of a column is interpolated linearly.

    Parameters
    ----------
    projections
        As in `find_rotation_axis`.
    angles_rad
        Angle of each view, shape ``(views,)``.
    column
        Column of the axis, see `RotationAxis`.

    Examples
    --------
    >>> view = np.array([0.0, 1.0, 3.0, 2.0, 0.0])[:, None]
    >>> round(mirror_correlation([view, view[::-1]], [0.0, np.pi], 2.0), 6)
    1.0
    """
    data = real_array(projections, "projections")
    if data.ndim == 4:
        check_shape(data.shape, "projections", (None, None, None, 1))
        data = data[..., 0]
    check_shape(data.shape, "projections", (None, None, None))
    angles = real_array(angles_rad, "angles_rad", data.shape[:1])
    if len(angles) < 2:
        raise ValueError(message("projections", "at least two views", len(angles)))
    column = number(column, "column", low=0, high=data.shape[1] - 1)
    turn = np.abs(np.exp(1j * angles)[:, None] + np.exp(1j * angles))  # 0 where half a turn apart
    first, second = np.unravel_index(turn.argmin(), turn.shape)
    positions = np.arange(data.shape[1])
    mirrored = 2 * column - positions
    inside = (mirrored >= 0) & (mirrored <= positions[-1])
    other = np.stack([np.interp(mirrored[inside], positions, row) for row in data[second].T], axis=1)
    unit = max(np.abs(data[[first, second]]).max(initial=0.0), np.finfo(float).tiny)  # keeps squares in range
    one, other = data[first][inside] / unit, other / unit
    a, b = one - one.mean(), other - other.mean()
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def check_angles_differ(angles_rad: NDArray[np.float64]) -> None:
    """Raise ``ValueError`` if all of several views claim the same angle, as when the motor was not recorded."""
    if len(angles_rad) > 1 and np.ptp(angles_rad) == 0:
        found = f"{len(angles_rad)} times {angles_rad[0]:.6g}"
        raise ValueError(message("angles_rad", "angles that differ", found, "was the motor's position recorded?"))


def _search_range(search: tuple[float, float] | None, columns: int) -> tuple[float, float]:
    if search is None:
        return (columns - 1) * 0.25, (columns - 1) * 0.75
    low, high = real_array(search, "search", (2,)).tolist()
    if not 0 <= low < high <= columns - 1:
        raise ValueError(message("search", f"two increasing columns in [0, {columns - 1}]", (low, high)))
    return low, high


def _frequencies(columns: int, views: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Frequencies (radians per column) at which the views say more than the harmonics take, and their orders."""
    radius = columns / 2
    omega = np.arange(1, 2 * columns) * math.pi / (2 * columns)  # as of rows padded to twice their length, twice over
    # Bessel functions J_n(Rω) vanish beyond n = Rω within a few times (Rω)^(1/3) orders.
    orders = np.ceil(radius * omega + 2 * np.cbrt(radius * omega) + 1).astype(np.int64)
    useful = np.flatnonzero(2 * orders + 1 < 2 * views)
    useful = useful[np.linspace(0, useful.size - 1, min(FREQUENCIES, useful.size)).round().astype(int)]
    return omega[useful], orders[useful]


def _consistent_power(angles: NDArray[Any], orders: NDArray[np.int64], spectra: NDArray[Any]) -> NDArray[np.float64]:
    """Mean, cosine and sine coefficients (in 2ωc) of the power within the consistent subspace; shape (3, frequencies).

    ``spectra`` has shape ``(frequencies, views, rows)``. As ``c_{-n} = (-1)^n conj(c_n)``, even orders are real and odd
    ones imaginary: each parity has an orthonormal basis of its own, whose beginning is the basis of a lower order.
    """
    n = np.arange(int(orders.max()) + 1)
    waves = np.stack([np.cos(np.outer(angles, n)), np.sin(np.outer(angles, n))], axis=2)
    even = np.linalg.qr(waves[:, ::2].reshape(len(angles), -1)[:, [0, *range(2, 2 * len(n[::2]))]])[0]
    odd = np.linalg.qr(waves[:, 1::2].reshape(len(angles), -1))[0]

    def within(basis: NDArray[Any], sizes: NDArray[np.int64], part: NDArray[Any]) -> NDArray[np.float64]:
        inside = np.arange(basis.shape[1]) < sizes[:, None]
        return (basis.T @ part) * inside[..., None]

    even_sizes, odd_sizes = 1 + 2 * (orders // 2), 2 * ((orders + 1) // 2)
    real, imaginary = (within(even, even_sizes, part) for part in (spectra.real, spectra.imag))
    odd_real, odd_imaginary = (within(odd, odd_sizes, part) for part in (spectra.real, spectra.imag))
    # e^{iωc} g has the real part Re g cos - Im g sin (even orders) and the imaginary part Im g cos + Re g sin (odd).
    a = (real**2).sum((1, 2)) + (odd_imaginary**2).sum((1, 2))
    d = (imaginary**2).sum((1, 2)) + (odd_real**2).sum((1, 2))
    b = (odd_imaginary * odd_real).sum((1, 2)) - (real * imaginary).sum((1, 2))
    return np.stack([(a + d) / 2, (a - d) / 2, b])
