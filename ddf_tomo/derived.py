"""What one looks at in a tensor volume: mean, anisotropy, principal directions, order, power.

Where MUMOTT's ``get_output`` has the same quantity, the numbers agree: ``mean_intensity`` is `Derived.mean`,
``fractional_anisotropy`` the same, ``eigenvalue_1`` … ``3`` and ``eigenvector_1`` … ``3`` are `Derived.eigenvalues` and
`Derived.eigenvectors` in the same (ascending) order, ``second_moment_tensor`` is ``to_matrix(Derived.tensor)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_broadcast, check_shape, flag, message, number, real_array
from ddf_tomo.operators.rank_two import coefficients_from_tensor, second_moment_tensor, to_matrix
from ddf_tomo.operators.spherical_harmonics import order_of

SLAB_VOXELS = 2**18  # at 45 coefficients in double precision, 94 MB
DATA_UNIT = "data per voxel edge"


@dataclass(frozen=True, eq=False)
class Derived:
    """Quantities derived from the spherical function f of each voxel; made by `derive`.

    Arrays have the precision of the coefficients. Ratios to the mean (`relative_anisotropy`, `order_parameter`,
    `relative_standard_deviation`) are 0 outside `valid`, where they would be noise over noise.

    Attributes
    ----------
    mean
        Mean of the function over the sphere (its ℓ = 0 coefficient), in the units of the coefficients; ``(x, y, z)``.
    tensor
        The tensor ``mean of q̂ q̂ᵀ f(q̂)`` as (xx, xy, xz, yy, yz, zz), or the rank-2 tensor itself where the
        coefficients are one; ``(x, y, z, 6)``.
    eigenvalues
        Of the tensor, ascending; ``(x, y, z, 3)``.
    eigenvectors
        Unit vectors, ``eigenvectors[..., i]`` belongs to ``eigenvalues[..., i]``; ``(x, y, z, 3, 3)``.
    direction
        The principal direction: the eigenvector whose eigenvalue stands apart from the other two. That is the fibre for
        scattering across fibres (smallest eigenvalue) and along them (largest) alike. Unit vectors with ``z ≥ 0``, as
        opposite ones mean the same; ``(x, y, z, 3)``.
    fractional_anisotropy
        0 for isotropic, 1 for one direction only; ``(x, y, z)``.
    relative_anisotropy
        Standard deviation of the eigenvalues over their mean: 0 for isotropic, ``√½`` for a disc, ``√2`` for one
        direction only; ``(x, y, z)`` [Basser & Pierpaoli 1996, J. Magn. Reson. B 111, 209].
    order_parameter
        Hermans' factor of the scattering, the mean of ``P₂(q̂ · direction)`` weighted by f; ``(x, y, z)``. The sign
        says which way the scattering goes: 1 where all of it is along the direction, 0 for isotropic, −1/2 where all of
        it is across. Fibres that scatter across themselves have themselves the Hermans factor −2 × this
        (Legendre's addition theorem) [Hermans et al. 1946, Recl. Trav. Chim. Pays-Bas 65, 427;
        Lovell & Mitchell 1991, Acta Cryst. A47, 135]. It leaves −1/2 … 1 only where f is negative somewhere.
    standard_deviation
        Of f over the sphere; ``(x, y, z)``.
    amplitudes
        Root mean square over the sphere of each order's part of f, ℓ = 0, 2, …; ``(x, y, z, ℓ_max/2 + 1)``.
    valid
        Where the mean exceeds a tenth (or the threshold asked for) of its maximum; elsewhere directions and anisotropy
        describe noise; ``(x, y, z)``.
    unit
        Of the coefficients.
    """

    mean: NDArray[Any]
    tensor: NDArray[Any]
    eigenvalues: NDArray[Any]
    eigenvectors: NDArray[Any]
    direction: NDArray[Any]
    fractional_anisotropy: NDArray[Any]
    relative_anisotropy: NDArray[Any]
    order_parameter: NDArray[Any]
    standard_deviation: NDArray[Any]
    amplitudes: NDArray[Any]
    valid: NDArray[np.bool_]
    unit: str = DATA_UNIT

    @property
    def power(self) -> NDArray[np.float64]:
        """Mean square of each order's part of f, ``(x, y, z, ℓ_max/2 + 1)``; they sum to the mean square of f.

        Examples
        --------
        >>> derive(np.array([2.0, 0, 0, 1, 0, 3])[None, None, None]).power.round(9).tolist()
        [[[[4.0, 10.0]]]]
        """
        with np.errstate(over="ignore"):
            return np.square(self.amplitudes, dtype=np.float64)

    @property
    def relative_standard_deviation(self) -> NDArray[Any]:
        """Anisotropic over isotropic part: `standard_deviation` over `mean`, 0 outside `valid`; ``(x, y, z)``.

        Examples
        --------
        >>> derive(np.array([2.0, 0, 0, 3, 0, 4])[None, None, None]).relative_standard_deviation.item()
        2.5
        """
        with np.errstate(over="ignore"):
            return np.divide(self.standard_deviation, self.mean, out=np.zeros_like(self.mean), where=self.valid)

    @property
    def units(self) -> Mapping[str, str]:
        """The unit of each quantity, as a text; "1" for pure numbers.

        Examples
        --------
        >>> units = derive(np.ones((1, 1, 1, 6)), unit="1e-12 rad^2 per voxel edge").units
        >>> units["mean"], units["direction"], units["power"]
        ('1e-12 rad^2 per voxel edge', '1', '(1e-12 rad^2 per voxel edge)^2')
        """
        scaled = ("mean", "tensor", "eigenvalues", "standard_deviation", "amplitudes")
        ratios = ("relative_anisotropy", "order_parameter", "relative_standard_deviation")
        pure = ("eigenvectors", "direction", "fractional_anisotropy", *ratios, "valid")
        return dict.fromkeys(scaled, self.unit) | {"power": f"({self.unit})^2"} | dict.fromkeys(pure, "1")

    def colour(self, strength: ArrayLike | None = None) -> NDArray[np.uint8]:
        """Direction-encoded colour: red along x, green along y, blue along z; ``(x, y, z, 3)``, 0 … 255.

        The colours of `ddf_tomo.visualization.axis_colour`.

        Parameters
        ----------
        strength : (x, y, z), optional
            Brightness, clipped to [0, 1]. By default the fractional anisotropy over the 99th percentile of the valid
            voxels, and black elsewhere.

        Raises
        ------
        ValueError
            If the strength is not one number a voxel.

        Examples
        --------
        >>> from ddf_tomo.phantoms import zonal
        >>> derive(zonal(np.array([0.0, 1.0, 0.0]), [1.0, 0.5])[None, None, None]).colour().tolist()
        [[[[0, 255, 0]]]]
        """
        if strength is None:
            inside = self.fractional_anisotropy[self.valid]
            full = float(np.percentile(inside, 99)) if inside.size else 0.0
            value = self.fractional_anisotropy * self.valid / max(full, np.finfo(np.float32).tiny)
        else:
            value = real_array(strength, "strength", self.mean.shape, dtype=np.float32)
        colours = np.empty(self.direction.shape, np.uint8)
        for slab in slabs(self.mean.shape):
            axes = np.abs(self.direction[slab])
            brightness = 255 * np.clip(value[slab], 0, 1)
            colours[slab] = np.rint(axes / axes.max(axis=-1, keepdims=True, initial=0.5) * brightness[..., None])
        return colours


def derive(
    coefficients: ArrayLike, *, of_harmonics: bool = True, threshold: float = 0.1, unit: str = DATA_UNIT
) -> Derived:
    """Mean, anisotropy, principal directions and order of a volume of coefficients.

    The volume is worked through in slabs, so that temporary arrays stay small beside it.

    Parameters
    ----------
    coefficients
        Harmonic coefficients ``(x, y, z, K)``, or with ``of_harmonics=False`` tensors (xx, xy, xz, yy, yz, zz), which
        stand for ``f(q̂) = q̂ᵀ M q̂``.
    of_harmonics
        Which of the two.
    threshold
        Smallest mean of a valid voxel, relative to the largest mean.
    unit
        Of the coefficients, for `Derived.units`.

    Returns
    -------
    Derived
        In single precision for coefficients in single precision, otherwise in double.

    Raises
    ------
    TypeError, ValueError
        If the shape is not one of a volume of coefficients, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.phantoms import zonal
    >>> derived = derive(zonal(np.array([0.6, 0.0, 0.8]), [1.0, 0.5])[None, None, None])
    >>> np.allclose(derived.direction, [0.6, 0.0, 0.8])
    True
    >>> derived.order_parameter.round(6).item()  # scatters along its direction
    0.1
    """
    values = _volume(coefficients)
    of_harmonics = flag(of_harmonics, "of_harmonics")
    threshold = number(threshold, "threshold", low=0.0, high=1.0)
    if not isinstance(unit, str):
        raise TypeError(message("unit", "a text", repr(unit)))
    *shape, count = values.shape
    if not of_harmonics:
        check_shape((count,), "coefficients (last axis)", (6,))
    lengths: dict[str, tuple[int, ...]] = {
        "tensor": (6,),
        "eigenvalues": (3,),
        "eigenvectors": (3, 3),
        "direction": (3,),
        "amplitudes": (order_of(count) // 2 + 1,),
    }
    names = ("mean", "fractional_anisotropy", "relative_anisotropy", "order_parameter", "standard_deviation", *lengths)
    found = {name: np.zeros((*shape, *lengths.get(name, ())), values.dtype) for name in names}
    largest = np.finfo(values.dtype).max
    for slab in slabs(shape):
        part = _derive_slab(real_array(values[slab], "coefficients"), of_harmonics)
        for name, array in part.items():
            found[name][slab] = np.clip(array, -largest, largest)
    mean = found["mean"]
    valid = (mean > threshold * mean.max(initial=0.0)) & (mean > 0)
    for name in ("relative_anisotropy", "order_parameter"):
        found[name][~valid] = 0
    return Derived(**found, valid=valid, unit=unit)


def _derive_slab(values: NDArray[np.float64], of_harmonics: bool) -> dict[str, NDArray[np.float64]]:
    tensor = second_moment_tensor(values) if of_harmonics else values
    harmonics = values if of_harmonics else coefficients_from_tensor(values)
    mean = harmonics[..., 0]
    eigenvalues, eigenvectors = (t.numpy() for t in torch.linalg.eigh(torch.from_numpy(to_matrix(tensor))))
    low, middle, high = np.moveaxis(eigenvalues, -1, 0)
    lowest_apart = middle - low > high - middle
    apart = np.where(lowest_apart[..., None], eigenvectors[..., 0], eigenvectors[..., 2])
    direction = np.where(apart[..., 2:] < 0, -apart, apart)

    # Relative to the largest one, so that no square leaves the range of numbers.
    relative = _over(eigenvalues, np.abs(eigenvalues).max(axis=-1, keepdims=True, initial=0.0))
    spread = (np.diff(relative, axis=-1, append=relative[..., :1]) ** 2).sum(axis=-1)  # 3 Σ (λ - mean λ)²
    trace = np.clip(relative.sum(axis=-1), 0, None)
    fractional = np.sqrt(spread / np.maximum(2 * (relative**2).sum(axis=-1), 1))
    # f = q̂ᵀ M q̂ has the tensor (2 M + tr M)/15, whose share of the trace moves 2/5 as far from a third as M's own.
    cosine_square = _over(np.where(lowest_apart, relative[..., 0], relative[..., 2]), trace)
    order = (3 * cosine_square - 1) / 2 * (1.0 if of_harmonics else 0.4)

    size = np.abs(harmonics).max(axis=-1, keepdims=True, initial=0.0)
    squares = _over(harmonics, size) ** 2
    starts = [ell * (ell - 1) // 2 for ell in range(0, order_of(harmonics.shape[-1]) + 1, 2)]  # (ℓ-1)ℓ/2 before ℓ
    of_orders = np.add.reduceat(squares, starts, axis=-1)
    return {
        "mean": mean,
        "tensor": tensor,
        "eigenvalues": eigenvalues,
        "eigenvectors": eigenvectors,
        "direction": direction,
        "fractional_anisotropy": fractional,
        "relative_anisotropy": _over(np.sqrt(spread), trace),
        "order_parameter": order,
        "standard_deviation": size[..., 0] * np.sqrt(of_orders[..., 1:].sum(axis=-1)),
        "amplitudes": size * np.sqrt(of_orders),
    }


def slabs(shape: Any, voxels: int = SLAB_VOXELS) -> Iterator[slice]:
    """Slices of the first axis that hold about so many voxels each.

    Parameters
    ----------
    shape
        Of a volume, ``(x, y, z)`` first.
    voxels
        In a slice.

    Examples
    --------
    >>> list(slabs((5, 10, 10), voxels=200))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, voxels // max(1, int(np.prod(shape[1:3]))))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _volume(coefficients: Any) -> NDArray[Any]:
    """The caller's own array where slabs of it can be taken as they are, to save a copy of a large volume."""
    shape = (None, None, None, None)
    if type(coefficients) is np.ndarray and coefficients.dtype in (np.float32, np.float64):
        check_shape(coefficients.shape, "coefficients", shape)
        return coefficients
    return real_array(coefficients, "coefficients", shape)


def _over(values: NDArray[np.float64], divisor: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quotient, and zero where the divisor is not positive."""
    return np.divide(values, divisor, out=np.zeros_like(values), where=divisor > 0)


def angle_between(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Angle in radians between axes (opposite directions are the same); 0 … π/2, shape ``(...)``.

    Parameters
    ----------
    first, second : (..., 3)
        Vectors of any length; their leading axes broadcast.

    Raises
    ------
    TypeError, ValueError
        If these are no vectors.

    Examples
    --------
    >>> import numpy as np
    >>> np.degrees(angle_between([1.0, 0, 0], [-1.0, 1.0, 0])).round(6).tolist()
    45.0
    """
    a, b = real_array(first, "first"), real_array(second, "second")
    check_shape(a.shape[-1:], "first (last axis)", (3,))
    check_shape(b.shape[-1:], "second (last axis)", (3,))
    check_broadcast(a.shape, b.shape, "second")
    # Lengths do not matter, and squares of large or small ones leave their range.
    a, b = (v / np.where((size := np.abs(v).max(axis=-1, keepdims=True, initial=0)) > 0, size, 1) for v in (a, b))
    # atan2 of |a × b| and |a · b| keeps small angles, which arccos of a rounded cosine loses.
    result: Any = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.abs((a * b).sum(axis=-1)))
    return np.asarray(result)
