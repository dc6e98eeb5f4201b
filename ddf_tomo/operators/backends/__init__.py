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
    """

    def __init__(self, geometry: Geometry, device: torch.device) -> None: ...

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        """``projections += A volume``."""
        ...

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        """``volume += Aᵀ projections``."""
        ...


@dataclass(frozen=True)
class Description:
    """A backend before it is loaded: where its class ``Projector`` is, and what there is to know beforehand."""

    module: str
    devices: tuple[str, ...] | None = None  # of torch; None: any
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
    """The backend ``name`` for a geometry."""
    backend: Backend = import_module(BACKENDS[name].module).Projector(geometry, device)
    return backend
