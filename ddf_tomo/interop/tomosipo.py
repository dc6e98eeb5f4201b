"""Geometries of tomosipo, whose ``parallel_vec`` writes vectors in the order of its volume's axes, as we do.

tomosipo's axes are called (z, y, x); its volume array of shape ``(z, y, x)`` is ours of shape ``(x, y, z)`` unchanged,
its detector's v is our j and its u our k. Its projections are ``(v, angle, u)``, as ASTRA's:
see `ddf_tomo.interop.astra.to_sinogram`. `to_tomosipo_operator` gives our projectors to programs made for tomosipo's.
[Hendriksen et al. 2021, Opt. Express 29, 40494]
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import check_shape, dense, message, neighbour, of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.interop._vectors import geometry_from_vectors
from ddf_tomo.operators.backends.vectors import parallel_vec as vectors_of
from ddf_tomo.operators.base import LinearOperator

VECTORS = ("ray_dir", "det_pos", "det_v", "det_u")


def to_parallel_vec(geometry: Geometry, *, build: bool | None = None) -> Any:
    """A ``tomosipo.parallel_vec`` geometry where tomosipo is installed, else the keyword arguments that make one.

    Parameters
    ----------
    geometry
        The geometry.
    build
        ``True`` insists on the object, ``False`` on the dictionary.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 6), k_offset=2.0)
    >>> arguments = to_parallel_vec(geometry, build=False)
    >>> arguments["shape"], arguments["det_pos"].tolist()
    ((4, 6), [[0.0, 0.0, 2.0]])
    """
    of_kind(Geometry, geometry, "geometry")
    arguments = vectors_of(geometry)
    if build is False or (build is None and importlib.util.find_spec("tomosipo") is None):
        return arguments
    return neighbour("tomosipo").parallel_vec(**arguments)


def from_parallel_vec(parallel_vec: Any, volume_shape: Sequence[int]) -> Geometry:
    """The geometry of a tomosipo ``parallel_vec`` (or of the dictionary from `to_parallel_vec`), in voxels.

    Parameters
    ----------
    parallel_vec
        Anything with ``ray_dir``, ``det_pos``, ``det_v``, ``det_u`` of shape ``(views, 3)`` and the detector's shape,
        as ``det_shape`` (tomosipo's name) or ``shape``; a mapping or an object.
    volume_shape
        Shape of the volume array.

    Raises
    ------
    TypeError
        If one of these is missing.
    ValueError
        If pixels are not squares of the voxel's edge, or a detector is not perpendicular to its beam.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> geometry = Geometry.from_angles([0.0, 0.3], 0.1, (4, 4, 4), (4, 6), k_offset=0.5)
    >>> from_parallel_vec(to_parallel_vec(geometry, build=False), (4, 4, 4)).p.tolist() == geometry.p.tolist()
    True
    """
    ray, centre, j, k = (_field(parallel_vec, name) for name in VECTORS)
    detector_shape = _field(parallel_vec, "det_shape", "shape")
    return geometry_from_vectors(ray, centre, j, k, volume_shape, detector_shape, "parallel_vec")


def _field(source: Any, *names: str) -> Any:
    for name in names:
        value = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
        if value is not None:
            return value
    raise TypeError(
        message("parallel_vec", f"a parallel_vec geometry with {' or '.join(names)}", type(source).__name__)
    )


class TomosipoOperator:
    """One of our operators as programs made for tomosipo know theirs; `to_tomosipo_operator` makes it.

    ``A(x, out=None)`` and ``A.T(y, out=None)`` take and give tensors (through which gradients pass, unless ``out`` is
    given) or numpy arrays, float32 or float64: volumes ``(z, y, x)``, which are ours as they are, and projections
    ``(v, angle, u)``, our ``(view, j, k)`` with the first two axes swapped.

    Parameters
    ----------
    operator
        Ours, forward or adjoint.
    adjoint_of
        The operator whose adjoint this one is, if it is one.

    Attributes
    ----------
    domain_shape, range_shape
        Shapes of input and output.
    T
        The adjoint; ``A.T.T is A``.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> A = to_tomosipo_operator(XRayTransform(Geometry.from_angles([0.0, 0.4], 0.0, (8, 8, 8), (8, 9))))
    >>> y = torch.empty(A.range_shape)
    >>> A(torch.ones(A.domain_shape), out=y) is y, A.T(y).shape, A.T.T is A
    (True, torch.Size([8, 8, 8]), True)
    """

    def __init__(self, operator: LinearOperator, adjoint_of: TomosipoOperator | None = None) -> None:
        self.operator = operator
        self._forward = adjoint_of is None
        (*domain, _), (*range_, _) = operator.domain_shape, operator.range_shape
        self.domain_shape = tuple(domain) if self._forward else _swapped(domain)
        self.range_shape = _swapped(range_) if self._forward else tuple(range_)
        self.T: TomosipoOperator = adjoint_of or TomosipoOperator(operator.T, self)

    def __call__(self, x: Any, out: Any = None) -> Any:
        """The value, in ``out`` if that is given.

        Parameters
        ----------
        x
            Of ``domain_shape``.
        out
            What to overwrite, of ``range_shape`` and of the kind and type of ``x``.

        Raises
        ------
        TypeError, ValueError
            If one of them does not fit.
        """
        kind = torch.Tensor if isinstance(x, torch.Tensor) else np.ndarray
        of_kind(kind, x, "x", "a tensor or an array")
        check_shape(x.shape, "x", self.domain_shape)
        y = self.operator((x if self._forward else x.swapaxes(0, 1))[..., None])[..., 0]
        y = y.swapaxes(0, 1) if self._forward else y
        if out is None:
            return y.contiguous() if isinstance(y, torch.Tensor) else np.ascontiguousarray(y)
        of_kind(kind, out, "out", "what x is, a tensor or an array")
        check_shape(out.shape, "out", self.range_shape)
        if isinstance(out, torch.Tensor):
            dense(out, "out")
        if out.dtype != y.dtype or (isinstance(out, np.ndarray) and not out.flags.writeable):
            raise TypeError(message("out", f"{y.dtype}, and memory that may be written to", out.dtype))
        out[...] = y.detach() if isinstance(y, torch.Tensor) else y
        return out

    def transpose(self) -> TomosipoOperator:
        """The adjoint, ``A.T``."""
        return self.T

    @property
    def domain(self) -> Any:
        """tomosipo's geometry of the input; needs tomosipo, and an operator with a ``geometry``."""
        if not self._forward:
            return self.T.range
        return neighbour("tomosipo").volume(shape=_geometry_of(self.operator).volume_shape)

    @property
    def range(self) -> Any:
        """tomosipo's geometry of the output."""
        return to_parallel_vec(_geometry_of(self.operator), build=True) if self._forward else self.T.domain

    @property
    def astra_compat_vg(self) -> Any:
        """tomosipo's volume geometry."""
        return self.domain if self._forward else self.range

    @property
    def astra_compat_pg(self) -> Any:
        """tomosipo's projection geometry."""
        return self.range if self._forward else self.domain

    def __repr__(self) -> str:
        return f"<TomosipoOperator {self.domain_shape} -> {self.range_shape} on {self.operator!r}>"


def to_tomosipo_operator(A: LinearOperator) -> TomosipoOperator:
    """One of our operators for programs made for tomosipo's, such as the algorithms of ts_algorithms.

    Parameters
    ----------
    A
        An operator of one channel: an `XRayTransform` on any backend and device, or another one from
        ``(x, y, z, 1)`` to ``(view, j, k, 1)``.

    Returns
    -------
    TomosipoOperator
        With the exact adjoint, if that of ``A`` is.

    Raises
    ------
    TypeError, ValueError
        If ``A`` is no operator, or one of several channels.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> geometry = Geometry.from_angles(np.linspace(0, 3, 5), 0.2, volume_shape=(8, 8, 8), detector_shape=(8, 9))
    >>> A = to_tomosipo_operator(XRayTransform(geometry))
    >>> A.domain_shape, A.range_shape, A(np.ones((8, 8, 8), np.float32)).shape
    ((8, 8, 8), (8, 5, 9), (8, 5, 9))
    """
    of_kind(LinearOperator, A, "A")
    for shape in A.shape:
        if len(shape) != 4 or shape[-1] not in (None, 1) or None in shape[:-1]:
            raise ValueError(message("A", "an operator of one channel on (x, y, z, channel)", repr(A)))
    return TomosipoOperator(A)


def _swapped(shape: Sequence[Any]) -> tuple[Any, ...]:
    return shape[1], shape[0], shape[2]


def _geometry_of(operator: LinearOperator) -> Any:
    geometry = getattr(operator, "geometry", None)
    of_kind(Geometry, geometry, "A.geometry", "an operator with a geometry, such as XRayTransform")
    return geometry
