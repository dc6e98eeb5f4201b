"""The 24 rotations of the cube on everything they act on: voxels, harmonics, tensors, views.

They move voxels onto voxels, so that nothing is interpolated: a sample that is turned, seen by views that are turned
with it, gives the same signals to rounding, ``A_g(g·x) = A(x)`` with the operator ``A_g`` of the turned geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, dense, even_order, message, of_kind, real_array
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.rank_two import COLUMNS, POSITIONS, ROWS
from ddf_tomo.operators.rotation import wigner_blocks
from ddf_tomo.operators.spherical_harmonics import Array, order_of, real_tensor

__all__ = ["CUBE_ROTATIONS", "CubeRotation"]


@dataclass(frozen=True)
class CubeRotation:
    """One rotation R that takes the cube onto itself; ``CUBE_ROTATIONS`` holds all 24, the identity first.

    What lay at x and pointed along q lies at ``R x`` and points along ``R q``. Applied to arrays it is differentiable,
    and its inverse is its adjoint. Axes of different lengths change places with their axes.

    Parameters
    ----------
    axes
        Which old axis becomes x, which y, which z; a permutation of ``(0, 1, 2)``.
    signs
        ±1 each: whether the new axis runs as the old one does, or against it.

    Raises
    ------
    ValueError
        If this is no rotation of the cube (a mirror image is none).

    Examples
    --------
    >>> quarter_turn_about_z = CubeRotation((1, 0, 2), (-1, 1, 1))
    >>> quarter_turn_about_z.matrix.tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    >>> volume = torch.rand(4, 5, 6, 15)
    >>> turned = quarter_turn_about_z.volume(volume)
    >>> turned.shape, bool(torch.allclose(quarter_turn_about_z.inverse.volume(turned), volume, atol=1e-6))
    (torch.Size([5, 4, 6, 15]), True)
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]

    def __post_init__(self) -> None:
        axes, signs = (real_array(value, name, (3,)) for value, name in ((self.axes, "axes"), (self.signs, "signs")))
        possible = sorted(axes) == [0, 1, 2] and set(signs) <= {-1, 1}
        if not possible or np.linalg.det(np.eye(3)[axes.astype(int)]) * signs.prod() < 0:
            raise ValueError(message("axes, signs", "a rotation of the cube", (self.axes, self.signs)))
        for name, value in (("axes", axes), ("signs", signs)):
            object.__setattr__(self, name, tuple(value.astype(int).tolist()))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """R, shape ``(3, 3)``: a permutation with signs."""
        matrix = np.zeros((3, 3))
        matrix[range(3), self.axes] = self.signs
        return matrix

    @property
    def inverse(self) -> CubeRotation:
        """The rotation back."""
        return _of_matrix(self.matrix.T)

    def __matmul__(self, other: CubeRotation) -> CubeRotation:
        """First ``other``, then this one."""
        return _of_matrix(self.matrix @ other.matrix) if isinstance(other, CubeRotation) else NotImplemented

    def grid(self, values: Array) -> Array:
        """Voxels moved, channels kept as they are (scalars): ``(..., x, y, z, channel)`` values.

        Takes and gives a tensor or an array; raises ``ValueError`` if the values have fewer than four axes.
        """
        if not isinstance(values, Tensor):
            return self.grid(as_tensor(values, "values")).numpy()
        if dense(values, "values").ndim < 4:
            raise ValueError(message("values", "shape (..., x, y, z, channel)", tuple(values.shape)))
        batch: int = values.ndim - 4
        order = [*range(batch), *(batch + axis for axis in self.axes), batch + 3]
        flipped = [batch + n for n, sign in enumerate(self.signs) if sign < 0]
        moved = values.permute(order)
        return moved.flip(flipped) if flipped else moved

    def volume(self, coefficients: Array) -> Array:
        """Voxels moved and their functions on the sphere turned: ``(..., x, y, z, K)`` coefficients of even harmonics.

        A tensor gives a tensor of its dtype, anything else an array; raises ``ValueError`` where K fits no ``ell_max``.
        """
        return self._turned(coefficients, "coefficients", False)

    def tensors(self, tensors: Array) -> Array:
        """Voxels moved, their symmetric ``tensors`` turned: ``(..., x, y, z, 6)``, that is xx, xy, xz, yy, yz, zz."""
        return self._turned(tensors, "tensors", True)

    def geometry(self, geometry: Geometry) -> Geometry:
        """The views turned with the sample: what they see of `volume` is what the views of ``geometry`` saw before.

        To rounding, but for beams whose two largest components are exactly the same size while the third is not zero:
        which slices their line integrals sample is then a matter of the axes' order, here as before.
        """
        of_kind(Geometry, geometry, "geometry")
        frames = (vectors @ self.matrix.T for vectors in (geometry.p, geometry.j, geometry.k))
        shape = tuple(geometry.volume_shape[axis] for axis in self.axes)
        contents: Any = (*frames, geometry.j_offset, geometry.k_offset, shape, geometry.detector_shape)
        return Geometry(*contents)

    def coefficient_matrix(self, ell_max: int) -> Tensor:
        """Wigner's matrices of all even orders up to ``ell_max`` as one block-diagonal matrix ``(K, K)``, float64.

        Computed once for all; orthogonal, and what is zero by symmetry is zero exactly.
        """
        return _wigner(self, even_order(ell_max)).clone()

    def _turned(self, values: Array, argument: str, of_tensors: bool) -> Array:
        if not isinstance(values, Tensor):
            return self._turned(as_tensor(values, argument), argument, of_tensors).numpy()
        values = real_tensor(values, argument)
        if of_tensors:
            check_shape(values.shape[-1:], f"{argument} (last axis)", (6,))
            matrix = _six_by_six(self)
        else:
            matrix = _wigner(self, order_of(values.shape[-1] if values.ndim else 0, argument))
        return self.grid(values @ matrix.T.to(values))


def _of_matrix(matrix: NDArray[np.float64]) -> CubeRotation:
    axes = np.abs(matrix).argmax(axis=1)
    contents: Any = (tuple(axes.tolist()), tuple(matrix[range(3), axes].astype(int).tolist()))
    return CubeRotation(*contents)


@lru_cache(maxsize=512)
def _wigner(rotation: CubeRotation, ell_max: int) -> Tensor:
    blocks = wigner_blocks(rotation.matrix, ell_max)
    matrix = torch.block_diag(*blocks)
    return torch.where(matrix.abs() < 1e-12, 0.0, matrix)


@lru_cache
def _six_by_six(rotation: CubeRotation) -> Tensor:
    """The map of ``M`` to ``R M Rᵀ`` on six numbers: a permutation with signs too."""
    matrix = torch.zeros(6, 6, dtype=torch.float64)
    for n, (row, column) in enumerate(zip(ROWS, COLUMNS, strict=True)):
        old = POSITIONS[3 * rotation.axes[row] + rotation.axes[column]]
        matrix[n, old] = rotation.signs[row] * rotation.signs[column]
    return matrix


CUBE_ROTATIONS: Final[tuple[CubeRotation, ...]] = tuple(
    CubeRotation((a, b, c), (x, y, z))
    for a, b, c in permutations(range(3))
    for x, y, z in product((1, -1), repeat=3)
    if np.linalg.det(np.eye(3)[[a, b, c]]) * x * y * z > 0
)
