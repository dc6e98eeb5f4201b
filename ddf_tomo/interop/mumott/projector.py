"""Our X-ray transform in the place of MUMOTT's projectors.

Imported on first use of a name from it (see the package), because its class derives from MUMOTT's.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_shape, message, neighbour
from ddf_tomo.geometry import Geometry
from ddf_tomo.interop.mumott.geometry import geometry_from
from ddf_tomo.interop.mumott.voxel_driven import backproject_voxel_driven
from ddf_tomo.operators.xray import XRayTransform

_base: Any = neighbour("mumott.methods.projectors.base_projector")
_hashing: Any = neighbour("mumott.core.hashing")

NAMED_PROJECTORS = ("SAXSProjector", "SAXSProjectorCUDA")
PIPELINES = (
    "mumott.pipelines.reconstruction.sigtt",
    "mumott.pipelines.reconstruction.mitra",
    "mumott.pipelines.reconstruction.sirt",
    "mumott.pipelines.reconstruction.group_lasso",
    "mumott.pipelines.filtered_back_projection",
    "mumott.pipelines.optical_flow_alignment",
)


class Projector(_base.Projector):
    """Drop-in for MUMOTT's ``SAXSProjector`` and ``SAXSProjectorCUDA``, on our exact kernel pair.

    Pass the class where MUMOTT takes one, ``run_sigtt(data_container, Projector=Projector)``, or an object to a
    residual calculator. Nothing is compiled for a geometry: changes of the geometry object (alignment, rotations,
    shapes) are followed at the next call, the smallest ones too, which MUMOTT's own test of five digits overlooks.
    The adjoint is the exact transpose, where MUMOTT's is not.

    Parameters
    ----------
    geometry
        A ``mumott.Geometry``; kept and watched, as MUMOTT's projectors do.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.interop.mumott import to_geometry
    >>> projector = Projector(to_geometry(Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5))))
    >>> projector.forward(np.ones((4, 4, 4, 6), np.float32)).shape
    (2, 4, 5, 6)
    """

    _operator: XRayTransform

    def __init__(self, geometry: Any) -> None:
        super().__init__(geometry)
        self._update(force_update=True)

    @property
    def dtype(self) -> type:
        """The dtype MUMOTT should allocate; float64 is accepted too and kept."""
        return np.float32

    @property
    def is_dirty(self) -> bool:
        """Whether the geometry has changed since the last call."""
        return self._operator.geometry != geometry_from(self._geometry)

    def _update(self, force_update: bool = False) -> None:
        current = geometry_from(self._geometry)
        if force_update or current != self._operator.geometry:
            self._operator = XRayTransform(current)
            self._geometry_hash = hash(self._geometry)
            self._calculate_basis_vectors()

    def _calculate_basis_vectors(self) -> None:
        geometry: Geometry = self._operator.geometry
        self._basis_vector_projection, self._basis_vector_j, self._basis_vector_k = geometry.p, geometry.j, geometry.k

    def _views(self, indices: ArrayLike | None) -> XRayTransform:
        self._update()
        if indices is None:
            return self._operator
        chosen = np.array(indices).ravel()
        self._check_indices_kind_is_integer(chosen)
        return self._operator.views(chosen)

    def forward(self, field: NDArray[Any], indices: ArrayLike | None = None) -> NDArray[Any]:
        """Projections, shape ``(views, J, K, channels)``, of a field ``(x, y, z, channels)``.

        Raises
        ------
        ValueError
            If the field does not have the volume's shape.
        TypeError
            If indices are not integers.
        """
        operator = self._views(indices)
        check_shape(field.shape, "field", (*operator.geometry.volume_shape, None))
        return operator(_floating(field))

    def adjoint(self, projections: NDArray[Any], indices: ArrayLike | None = None) -> NDArray[Any]:
        """Backprojection ``(x, y, z, channels)`` of projections ``(views, J, K, channels)``, the exact transpose.

        With a single index the first axis may be left out, as with MUMOTT.

        Raises
        ------
        ValueError
            If projections do not have the detector's shape or the number of indices.
        TypeError
            If indices are not integers.
        """
        operator = self._views(indices)
        stack = projections[None] if projections.ndim == 3 else projections
        check_shape(stack.shape, "projections", (len(operator.geometry), *operator.geometry.detector_shape, None))
        return self._backproject(operator, _floating(stack))

    def _backproject(self, operator: XRayTransform, projections: NDArray[Any]) -> NDArray[Any]:
        return operator.T(projections)

    @property
    def john_transform_parameters(self) -> tuple[NDArray[np.float64], ...]:
        """``(p, j, k, j_offsets, k_offsets)``, for MUMOTT's low-level kernels."""
        self._update()
        geometry = self._operator.geometry
        return geometry.p, geometry.j, geometry.k, geometry.j_offset, geometry.k_offset

    def __hash__(self) -> int:
        geometry = self._operator.geometry
        arrays = [geometry.p, geometry.j, geometry.k, self._geometry_hash, hash(self._geometry)]
        return int(_hashing.list_to_hash(arrays), 16)

    def _facts(self) -> dict[str, Any]:
        return {"is_dirty": self.is_dirty, "hash": hex(hash(self))[2:8], "backend": self._operator.backend}

    def __str__(self) -> str:
        rule = "-" * 74
        lines = (f"{name:18} : {value}" for name, value in self._facts().items())
        return "\n".join([rule, "ddf_tomo Projector".center(74), rule, *lines, rule])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in self._facts().items())
        return f'<h3>ddf_tomo Projector</h3><table border="1" class="dataframe"><tbody>{rows}</tbody></table>'


class VoxelDrivenProjector(Projector):
    """`Projector` with MUMOTT's own back-projection, which is not the transpose: to reproduce MUMOTT's numbers.

    Its projections and back-projections are those of ``SAXSProjector`` to rounding (away from the faces of the volume,
    where MUMOTT 2.3 reads wrong neighbours). For results use `Projector`: with an exact transpose the same number of
    iterations fits the data better.

    Parameters
    ----------
    geometry
        A ``mumott.Geometry``; kept and watched.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.interop.mumott import to_geometry
    >>> projector = VoxelDrivenProjector(to_geometry(Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5))))
    >>> projector.adjoint(np.ones((2, 4, 5, 6), np.float32)).shape
    (4, 4, 4, 6)
    """

    def _backproject(self, operator: XRayTransform, projections: NDArray[Any]) -> NDArray[Any]:
        return backproject_voxel_driven(operator.geometry, projections)


def _floating(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise TypeError(message("array", "real numbers", array.dtype))
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float32
    return np.ascontiguousarray(array, dtype)


@contextmanager
def substituted(projector: type[Projector] = Projector) -> Iterator[None]:
    """Within this context, MUMOTT's pipelines make our ``projector`` wherever they would make their own.

    For pipelines that do not take a projector (`run_group_lasso`, `run_discrete_directions`, optical-flow alignment);
    the others are better told by ``Projector=Projector``. Applies to the whole process while it lasts.

    Parameters
    ----------
    projector
        `Projector`, `VoxelDrivenProjector`, or a class derived from one.

    Examples
    --------
    >>> from mumott.pipelines.reconstruction import group_lasso
    >>> with substituted():
    ...     group_lasso.SAXSProjector is Projector
    True
    """
    modules = [importlib.import_module(name) for name in PIPELINES]
    places = [(module, name) for module in modules for name in NAMED_PROJECTORS if hasattr(module, name)]
    saved = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, projector)
        yield
    finally:
        for (module, name), original in zip(places, saved, strict=True):
            setattr(module, name, original)
