"""What one looks at in a tensor volume: mean, anisotropy, principal directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_broadcast, check_shape, flag, number, real_array
from ddf_tomo.operators.rank_two import second_moment_tensor, to_matrix


@dataclass(frozen=True, eq=False)
class Derived:
    """Quantities derived from the spherical function of each voxel; made by `derive`.

    Attributes
    ----------
    mean
        Mean of the function over the sphere (its ℓ = 0 coefficient), in the units of the coefficients; ``(x, y, z)``.
    eigenvalues
        Of the tensor ``mean of q̂ q̂ᵀ f(q̂)``, ascending; ``(x, y, z, 3)``.
    eigenvectors
        Unit vectors, ``eigenvectors[..., i]`` belongs to ``eigenvalues[..., i]``; ``(x, y, z, 3, 3)``.
    direction
        The principal direction: the eigenvector whose eigenvalue stands apart from the other two. That is the fibre for
        scattering across fibres (smallest eigenvalue) and along them (largest) alike. Unit vectors with ``z ≥ 0``, as
        opposite ones mean the same; ``(x, y, z, 3)``.
    fractional_anisotropy
        0 for isotropic, 1 for one direction only; ``(x, y, z)``.
    valid
        Where the mean exceeds a tenth of its maximum; elsewhere directions and anisotropy describe noise.
    """

    mean: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]
    direction: NDArray[np.float64]
    fractional_anisotropy: NDArray[np.float64]
    valid: NDArray[np.bool_]


def derive(coefficients: ArrayLike, *, of_harmonics: bool = True, threshold: float = 0.1) -> Derived:
    """Mean, anisotropy and principal directions of a volume of coefficients.

    Parameters
    ----------
    coefficients
        Harmonic coefficients ``(x, y, z, K)``, or with ``of_harmonics=False`` tensors (xx, xy, xz, yy, yz, zz).
    of_harmonics
        Which of the two.
    threshold
        Smallest mean of a valid voxel, relative to the largest mean.

    Raises
    ------
    ValueError
        If the shape is not one of a volume of coefficients, or values are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.phantoms import zonal
    >>> derived = derive(zonal(np.array([0.6, 0.0, 0.8]), [1.0, 0.5])[None, None, None])
    >>> np.allclose(derived.direction, [0.6, 0.0, 0.8])
    True
    """
    values = real_array(coefficients, "coefficients", (None, None, None, None))
    of_harmonics = flag(of_harmonics, "of_harmonics")
    threshold = number(threshold, "threshold", low=0.0, high=1.0)
    if of_harmonics:
        tensor, mean = second_moment_tensor(values), values[..., 0]
    else:
        check_shape(values.shape[-1:], "coefficients (last axis)", (6,))
        tensor, mean = values, values[..., [0, 3, 5]].mean(axis=-1)
    eigenvalues, eigenvectors = (t.numpy() for t in torch.linalg.eigh(torch.from_numpy(to_matrix(tensor))))
    low, middle, high = np.moveaxis(eigenvalues, -1, 0)
    apart = np.where((middle - low > high - middle)[..., None], eigenvectors[..., 0], eigenvectors[..., 2])
    direction = np.where(apart[..., 2:] < 0, -apart, apart)
    # Relative to the largest one, so that no square leaves the range of numbers.
    largest = np.abs(eigenvalues).max(axis=-1, keepdims=True, initial=0.0)
    relative = np.divide(eigenvalues, largest, out=np.zeros_like(eigenvalues), where=largest > 0)
    spread = (np.diff(relative, axis=-1, append=relative[..., :1]) ** 2).sum(axis=-1)
    anisotropy = np.sqrt(spread / np.maximum(2 * (relative**2).sum(axis=-1), 1))
    valid = (mean > threshold * mean.max(initial=0.0)) & (mean > 0)
    return Derived(mean, eigenvalues, eigenvectors, direction, anisotropy, valid)


def angle_between(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Angle in radians between axes (opposite directions are the same), shapes ``(..., 3)``; 0 … π/2.

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
    # atan2 of |a × b| and |a · b| keeps small angles, which arccos of a rounded cosine loses.
    result: Any = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.abs((a * b).sum(axis=-1)))
    return np.asarray(result)
