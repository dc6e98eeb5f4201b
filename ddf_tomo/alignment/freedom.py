"""Which corrections a fit may make: one for each view, or a smooth drift; and the ones that no data can tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import integer, of_kind
from ddf_tomo.geometry import Geometry

CERTAIN = 1 - 1e-6  # cosine between a correction that is allowed and one that no data can tell
MOST_DEGREE = 20


class Freedom:
    """Corrections of all views as a linear function of parameters, without what only moves the volume.

    Moving all views by what a translation of the volume looks like, ``(t · j_v, t · k_v)``, gives the same data of a
    translated volume, and turning all of them together those of a turned one. Such corrections are taken out of the
    parameters, so far as these allow them: a constant offset across a single rotation axis is none of them (it is the
    centre of rotation), a constant offset along the axis is one.

    Parameters
    ----------
    geometry
        Of the views.
    drift
        ``None``: every view for itself. A number: polynomials of this degree over the views, in their order.
    rotations
        Whether the three rotations are free, besides the two offsets.

    Examples
    --------
    >>> geometry = Geometry.from_angles(np.linspace(0, 3, 9), 0.0, (8, 8, 8), (8, 8))
    >>> Freedom(geometry).unseen, Freedom(geometry, drift=0).unseen  # three translations; the one along the axis
    (3, 1)
    """

    def __init__(self, geometry: Geometry, drift: int | None = None, rotations: bool = False) -> None:
        of_kind(Geometry, geometry, "geometry", "a ddf_tomo.Geometry")
        views, self.kinds = len(geometry), 5 if rotations else 2
        self.basis: Tensor | None = None
        if drift is not None:
            degree = integer(drift, "drift", high=min(MOST_DEGREE, max(views - 1, 0)))
            places = np.linspace(-1, 1, views)
            self.basis = torch.from_numpy(np.linalg.qr(np.polynomial.legendre.legvander(places, degree))[0])
        self.shape = (views if self.basis is None else self.basis.shape[1], self.kinds)
        self._gauge = self._indifferent(geometry)

    @property
    def unseen(self) -> int:
        """Number of combinations of the parameters that no data can tell."""
        return self._gauge.shape[1]

    def expand(self, parameters: Tensor) -> Tensor:
        """Corrections ``(views, kinds)`` of parameters of shape ``shape``."""
        return parameters if self.basis is None else self.basis.to(parameters) @ parameters

    def collect(self, corrections: Tensor) -> Tensor:
        """The transpose of `expand`, for ``corrections`` of shape ``(views, kinds)``."""
        return corrections if self.basis is None else self.basis.to(corrections).mT @ corrections

    def without_gauge(self, parameters: Tensor) -> Tensor:
        """The ``parameters``, of shape ``shape``, less what no data can tell."""
        gauge = self._gauge.to(parameters)
        flat = parameters.flatten()
        return (flat - gauge @ (gauge.mT @ flat)).reshape(self.shape)

    def curvature(self, of_views: Tensor) -> Tensor:
        """Second derivatives in the parameters, of those ``(views, kinds, kinds)`` in each view's corrections.

        Shape ``(views, kinds, kinds)`` again, or with a drift ``(1, all, all)``: one block for all of its parameters.
        """
        if self.basis is None:
            return of_views
        basis = self.basis.to(of_views)
        size = self.shape[0] * self.kinds
        return torch.einsum("vn,vab,vm->namb", basis, of_views, basis).reshape(1, size, size)

    def _indifferent(self, geometry: Geometry) -> Tensor:
        """Orthonormal columns, in parameters, of what no data can tell."""
        moves = np.zeros((len(geometry), self.kinds, 3 if self.kinds == 2 else 6))
        moves[:, 0, :3], moves[:, 1, :3] = geometry.j, geometry.k
        if self.kinds == 5:
            for kind, axes in ((2, geometry.p), (3, geometry.j), (4, geometry.k)):
                moves[:, kind, 3:] = axes
        orthonormal = _range(moves.reshape(-1, moves.shape[2])).reshape(len(geometry), self.kinds, -1)
        inside: Any = orthonormal
        if self.basis is not None:
            inside = np.einsum("vn,vkg->nkg", self.basis.numpy(), orthonormal)
        vectors, cosines, _ = np.linalg.svd(inside.reshape(-1, inside.shape[2]), full_matrices=False)
        return torch.from_numpy(vectors[:, cosines > CERTAIN])


def _range(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    vectors, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
    return vectors[:, sizes > 1e-9 * max(sizes.max(initial=0.0), 1e-300)]
