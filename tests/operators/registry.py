"""Every operator of the package, one line each: what `test_registry` demands of one it demands of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import scipy.sparse.linalg
import torch

import ddf_tomo as dt
from ddf_tomo.operators import DirectionalBlur, FreeFormBlur, SlabwiseXRayTransform
from ddf_tomo.operators.backends import BACKENDS
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.refraction import RefractionTransform
from ddf_tomo.priors import Differences
from tests.strategies import random_geometry

GEOMETRY = random_geometry(3, (4, 3, 5), (5, 4), seed=5)
SMALL = random_geometry(3, (3, 2, 3), (2, 3), seed=6)  # for what is slow and obvious
TINY = random_geometry(1, (2, 1, 2), (2, 1), seed=6)  # for what is interpreted
WIDE = random_geometry(3, (3, 2, 3), (9, 9), seed=7)  # a detector that covers the volume
AXIAL = dt.Geometry.from_angles([0.0, 0.7, 2.0], 0.0, (4, 3, 5), (4, 5), j_offset=0.3)
RESPONSES = {
    "isotropic": (dt.IsotropicResponse(), 2),
    "saxs": (dt.SaxsResponse(np.arange(4) * np.pi / 4), 4),
    "saxs at an angle": (dt.SaxsResponse(np.arange(4) * np.pi / 2, two_theta_rad=0.1), 4),
    "second moment": (dt.SecondMomentResponse(), 2),
    "directional visibility": (dt.DirectionalVisibilityResponse(np.arange(3) * np.pi / 3, exponent=1.0), 4),
    "grating": (dt.VisibilityResponse([0.0, 1.5]), 4),
    "turning grating": (dt.VisibilityResponse([[0.0, 1.5], [0.2, 1.0], [0.4, 0.9]]), 2),
    "rank two": (dt.RankTwoResponse(), 2),
    "rank two saxs": (dt.RankTwoSaxsResponse([0.1, 0.9, 2.0]), 2),
}


@dataclass(frozen=True)
class Matrix:
    """What tomosipo's operators look like: ``op(x)``, ``op.T(y)``, shapes; it reuses its output, as some do."""

    matrix: torch.Tensor
    domain_shape: tuple[int, ...]
    range_shape: tuple[int, ...]
    _output: list[torch.Tensor]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self._output[:] = [self.matrix.to(x) @ x.flatten()]
        return self._output[0].reshape(self.range_shape)

    @property
    def T(self) -> Matrix:
        return Matrix(self.matrix.T, self.range_shape, self.domain_shape, self._output)


def random_matrix(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def every_other(x: torch.Tensor) -> torch.Tensor:
    return 2 * x[::2]


def spread(y: torch.Tensor) -> torch.Tensor:
    x = y.new_zeros(5, 2)
    x[::2] = 2 * y
    return x


def is_usable(backend: str) -> bool:
    """Whether a backend is exact, and installed for the CPU: Triton's interpreter is (`tests/conftest.py`)."""
    if backend == "triton" and (find_spec("triton") is None or torch.cuda.is_available()):
        return False
    return BACKENDS[backend].adjoint_is_exact


def xray(channels: int | None = None, backend: str = "numba") -> LinearOperator:
    geometry = {"numba": GEOMETRY, "triton": TINY}.get(backend, SMALL)
    return dt.XRayTransform(geometry, backend, channels=channels)


def tensor(
    name: str = "second moment", backend: str = "numba", geometry: dt.Geometry | None = None, **options: int
) -> LinearOperator:
    geometry = geometry or (GEOMETRY if backend == "numba" else SMALL)
    return dt.TensorXRayTransform(geometry, *RESPONSES[name], backend=backend, **options)


def blur(**options) -> LinearOperator:
    field = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(8)) * torch.tensor([2.0, 0.3, 1.0])
    return DirectionalBlur(field, field[..., :2] - 0.5, **options)


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    # Foreign projectors are no transposes, and need a card: tests/operators/test_foreign_backends.py.
    **{f"xray {b}": lambda b=b: xray(backend=b) for b in BACKENDS if is_usable(b)},
    "xray axial": lambda: dt.XRayTransform(AXIAL),
    "refraction": lambda: RefractionTransform(GEOMETRY),
    "xray in slabs": lambda: SlabwiseXRayTransform(GEOMETRY, device="cpu", chunk_bytes=700),
    "xray 3 channels": lambda: xray(channels=3),
    "xray no views": lambda: xray(channels=2).views([]),
    **{f"tensor {name}": lambda name=name: tensor(name) for name in RESPONSES},
    **{f"tensor {name} reference": lambda name=name: tensor(name, "reference") for name in ("saxs", "second moment")},
    "tensor axial": lambda: dt.TensorXRayTransform(AXIAL, dt.SecondMomentResponse(), 2),
    "tensor view by view": lambda: tensor(chunk_views=1),
    "views": lambda: tensor("turning grating").views([2, 0]),
    "adjoint": lambda: xray(channels=2).T,
    "composition": lambda: xray(channels=2) @ (Differences((4, 3, 5)).T @ Differences((4, 3, 5))),
    "sum": lambda: xray() + xray(channels=2),
    "difference": lambda: tensor("rank two") - 0.5 * tensor("second moment"),
    "scaled": lambda: -2.5 * xray(channels=1),
    "stacked": lambda: dt.stack([tensor("rank two"), tensor("second moment").views([1])]),
    "normal": lambda: tensor().normal(),
    "normal fast": lambda: tensor(geometry=WIDE).normal([[[[2.0]]], [[[1.0]]], [[[0.5]]]], exact=False),
    "normal fast, any channels": lambda: dt.XRayTransform(WIDE).normal(exact=False),
    "normal fast, inverse": lambda: tensor(geometry=WIDE).normal(exact=False).inverse(0.05, laplacian=0.1),
    "weighted normal": lambda: tensor().normal(np.linspace(0, 2, 12).reshape(4, 3)),
    "differences": lambda: Differences((4, 1, 3)),
    "blur": lambda: blur(),
    "blur, conservative": lambda: blur(kernel="exponential", conservative=True),
    "blur, low rank": lambda: blur(method="low-rank", tolerance=1e-2),
    "blur, free form": lambda: FreeFormBlur(torch.full((1, 3, 5), 1 / 15), torch.ones(1, 4, 3)),
    "wrapped scipy": lambda: dt.wrap(scipy.sparse.linalg.aslinearoperator(random_matrix(6, 8).numpy()), (2, 4), (6,)),
    "wrapped tomosipo": lambda: dt.wrap(Matrix(random_matrix(6, 8), (2, 4), (3, 2), [])),
    "wrapped functions": lambda: dt.wrap((every_other, spread), (5, 2), (3, 2)),
}
WITHOUT_VIEWS = ("adjoint", "normal", "weighted normal", "differences", "wrapped", "blur")
