"""What a phantom knows about itself, and the functions on the sphere that it is made of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import integer, real_array
from ddf_tomo.derived import Derived, derive
from ddf_tomo.operators.rank_two import second_moment_tensor
from ddf_tomo.operators.spherical_harmonics import evaluate, orders

# 15/8 (1 - t²)², t = q·n: what fibres along n scatter, brightest in the plane across them; of degree 4, mean 1.
FIBRE_LEGENDRE = (1.0, -10 / 7, 3 / 7)


class _Parts(NamedTuple):
    coefficients: NDArray[np.float32]
    directions: NDArray[np.float64]
    mask: NDArray[np.bool_]


class Truth(_Parts):
    """A phantom on a grid: a tuple ``(coefficients, directions, mask)`` that knows its derived quantities.

    Attributes
    ----------
    coefficients
        Harmonic coefficients up to the order that was asked for (`exact` has all), float32, ``(x, y, z, coefficient)``.
    directions
        Fibre directions (of the stronger family, where there are two), unit vectors, shape ``(x, y, z, 3)``, float64.
        Defined everywhere, also where there is no sample or no fibre in it.
    mask
        Where the mean exceeds 10 % of its largest value; shape ``(x, y, z)``.
    exact
        Coefficients of the function as it is defined, of any order that it needs, shape ``(x, y, z, coefficient)``,
        float32; those above by default.
    second_directions
        Fibre directions of the weaker family, ``(x, y, z, 3)``; None where there is only one.

    Examples
    --------
    >>> from ddf_tomo.phantoms import helicoidal_fibres
    >>> coefficients, directions, mask = helicoidal_fibres((12, 12, 12))
    >>> helicoidal_fibres((12, 12, 12), ell_max=0).derived().direction.shape  # of the function, not of its mean alone
    (12, 12, 12, 3)
    """

    second_directions: NDArray[np.float64] | None = None
    _exact: NDArray[np.float32] | None = None
    _derived: Derived | None = None

    def __new__(
        cls,
        coefficients: NDArray[np.float32],
        directions: NDArray[np.float64],
        mask: NDArray[np.bool_],
        exact: NDArray[np.float32] | None = None,
        second_directions: NDArray[np.float64] | None = None,
    ) -> Truth:
        made = super().__new__(cls, coefficients, directions, mask)
        made._exact, made.second_directions = exact, second_directions
        return made

    @property
    def exact(self) -> NDArray[np.float32]:
        """Coefficients of the function as it is defined, whatever order was asked for; ``(x, y, z, coefficient)``."""
        return self.coefficients if self._exact is None else self._exact

    def derived(self) -> Derived:
        """Mean, anisotropy, principal directions (`ddf_tomo.derived.derive`) of the exact function; computed once."""
        if self._derived is None:
            self._derived = derive(self.exact)
        return self._derived

    def tensors(self) -> NDArray[np.float32]:
        """Rank-2 tensors ``3 ⟨q̂ q̂ᵀ f⟩`` of the exact function, shape ``(x, y, z, 6)``: the sample of a rank-2 scan.

        They are positive semidefinite, as ``f ≥ 0``, and have its mean, its principal directions and its fractional
        anisotropy. The tensor ``M`` whose ``q̂ᵀ M q̂`` is the ℓ ≤ 2 part of ``f`` (`tensor_from_coefficients`) is
        another one, and not positive for fibres.
        """
        return np.asarray(3 * second_moment_tensor(self.exact), np.float32)

    def __repr__(self) -> str:
        x, y, z, count = self.coefficients.shape
        return f"<Truth: {x} × {y} × {z} voxels, {count} coefficients, sample in {self.mask.mean():.1%} of them>"


def zonal(directions: NDArray[np.float64], legendre: ArrayLike) -> NDArray[np.float64]:
    """Coefficients of functions symmetric about ``directions``: ``f(q) = Σ_l legendre[l/2] P_l(q · n)``, even l.

    By the addition theorem ``c_lm = legendre[l/2] Y_lm(n) / (2l + 1)`` for harmonics of mean square 1.

    Parameters
    ----------
    directions
        Unit vectors ``n``, shape ``(..., 3)``.
    legendre
        Legendre coefficients for l = 0, 2, 4, …, shape ``(ell_max/2 + 1,)``.

    Returns
    -------
    NDArray
        Coefficients, shape ``(..., K)``.

    Examples
    --------
    >>> import numpy as np
    >>> zonal(np.array([0.0, 0.0, 1.0]), [1.0, 1.0]).round(4).tolist()  # 1 + P2(q_z) = 1/2 + 3/2 q_z²
    [1.0, 0.0, 0.0, 0.4472, 0.0, 0.0]
    """
    amplitudes = real_array(legendre, "legendre", (None,))
    ell, _ = orders(2 * len(amplitudes) - 2)
    factors: NDArray[np.float64] = amplitudes[ell // 2] / (2 * ell + 1)
    return evaluate(real_array(directions, "directions"), 2 * len(amplitudes) - 2) * factors


def fibre_legendre(sharpness: Any = 2) -> tuple[float, ...]:
    """Legendre coefficients, l = 0, 2, …, of fibres ``f ∝ (1 - (q·n)²)^sharpness`` with mean 1; degree 2 sharpness.

    Parameters
    ----------
    sharpness
        Integer 1 … 16; the larger, the closer the scattering stays to the plane across the fibre. 2 is exact at
        ``ell_max=4``.

    Examples
    --------
    >>> fibre_legendre(2) == FIBRE_LEGENDRE
    True
    >>> [round(value, 4) for value in fibre_legendre(3)]
    [1.0, -1.6667, 0.8182, -0.1515]
    """
    n = integer(sharpness, "sharpness", low=1, high=16)
    if n == 2:
        return FIBRE_LEGENDRE
    # f = Σ a_l P_l with a_l = (2l + 1) ⟨f P_l⟩; ratios of neighbouring l follow from the Beta integral (Rodrigues):
    # a_{l+2} / a_l = -(2l + 5)/(2l + 1) · (l + 1)(n - l/2) / ((l + 2)(n + l/2 + 3/2)).
    values = [1.0]
    for l in range(0, 2 * n, 2):
        ratio = (2 * l + 5) / (2 * l + 1) * (l + 1) * (n - l / 2) / ((l + 2) * (n + l / 2 + 1.5))
        values.append(-values[-1] * ratio)
    return tuple(values)
