"""The ways to compute line integrals: one module a backend, loaded by name when it is first asked for.

A backend is made of a geometry and a device, and adds projections to arrays that are there already. What surrounds it
(shapes, batches, autograd, messages) is in `ddf_tomo.operators.xray`, once for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import torch

from ddf_tomo.geometry import Geometry

__all__ = ["BACKENDS", "Backend", "Description", "load"]
FLOATS, HALVES = (torch.float32, torch.float64), (torch.float16, torch.bfloat16)


class Backend(Protocol):
    """Line integrals in the views of one geometry; tensors are contiguous, detached, and on the backend's device.

    Both methods see some ``views`` of the geometry, a slice with both ends given, and add to what their first argument
    holds. Volumes are ``(x, y, z, channel)``, projections ``(view, j, k, channel)``, with a view for each of the slice.

    Parameters
    ----------
    geometry
        Of all views.
    device
        Where the tensors will be.

    Examples
    --------
    >>> backend = load("reference", Geometry.from_angles([0.0, 0.4], 0.0, (4, 4, 4), (4, 4)), torch.device("cpu"))
    >>> projections = torch.zeros(1, 4, 4, 3)
    >>> backend.project(projections, torch.ones(4, 4, 4, 3), slice(1, 2))
    >>> projections[0, 1, 1].round(decimals=3)
    tensor([4.3430, 4.3430, 4.3430])
    """

    def __init__(self, geometry: Geometry, device: torch.device) -> None: ...

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        """``projections += A volume``.

        Parameters
        ----------
        projections, volume
            As above.
        views
            Which of the geometry's views ``projections`` has.
        """
        ...

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        """``volume += Aᵀ projections``.

        Parameters
        ----------
        volume, projections, views
            As in `project`.
        """
        ...


@dataclass(frozen=True)
class Description:
    """A backend before it is loaded: where its class ``Projector`` is, and what there is to know beforehand.

    Attributes
    ----------
    module
        That is imported when the backend is first asked for.
    devices
        Kinds of torch's devices it runs on; ``None`` for any.
    adjoint_is_exact
        Whether ``backproject`` is the transpose of ``project`` up to rounding.
    dtypes
        That tensors may have.

    Examples
    --------
    >>> [name for name, told in BACKENDS.items() if not told.adjoint_is_exact]
    ['astra', 'tomosipo']
    """

    module: str
    devices: tuple[str, ...] | None = None
    adjoint_is_exact: bool = True
    dtypes: tuple[torch.dtype, ...] = FLOATS


BACKENDS = {
    "numba": Description("ddf_tomo.operators.backends.numba_cpu", ("cpu",)),
    "reference": Description("ddf_tomo.operators.backends.reference"),
    "triton": Description("ddf_tomo.operators.backends.triton_gpu", ("cuda", "cpu"), dtypes=(*FLOATS, *HALVES)),
    "astra": Description("ddf_tomo.operators.backends.astra", ("cpu", "cuda"), adjoint_is_exact=False),
    "tomosipo": Description("ddf_tomo.operators.backends.tomosipo", ("cpu", "cuda"), adjoint_is_exact=False),
}


def load(name: str, geometry: Geometry, device: torch.device) -> Backend:
    """The backend for a geometry.

    Parameters
    ----------
    name
        One of `BACKENDS`.
    geometry, device
        As in `Backend`.

    Examples
    --------
    >>> type(load("reference", Geometry.from_angles([0.0], 0.0, (4, 4, 4), (4, 4)), torch.device("cpu"))).__name__
    'Projector'
    """
    backend: Backend = import_module(BACKENDS[name].module).Projector(geometry, device)
    return backend
