"""Directional dark-field X-ray tensor tomography.

The data's way through the package: `Geometry` and `Scan` hold what was measured, `operators` the physics, `retrieval`
turns frames into maps, `solvers` and `reconstruct` turn scans into volumes, `interop` speaks with the neighbours.
"""

from ddf_tomo._checks import FileFormatError
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators import (
    LinearOperator,
    TensorXRayTransform,
    XRayTransform,
    check_adjoint,
    check_linear,
    stack,
    wrap,
)

__version__ = "0.1.0"

__all__ = [
    "FileFormatError",
    "Geometry",
    "LinearOperator",
    "TensorXRayTransform",
    "XRayTransform",
    "check_adjoint",
    "check_linear",
    "stack",
    "wrap",
]
