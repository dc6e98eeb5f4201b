"""Directional dark-field X-ray tensor tomography.

The data's way through the package: `Geometry` and `Scan` hold what was measured, `operators` the physics, `retrieval`
turns frames into maps, `solvers` and `reconstruct` turn scans into volumes, `interop` speaks with the neighbours.
"""

from ddf_tomo._checks import FileFormatError
from ddf_tomo._reconstruct import reconstruct
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators import (
    DirectionalVisibilityResponse,
    IsotropicResponse,
    LinearOperator,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
    VisibilityResponse,
    XRayTransform,
    check_adjoint,
    check_linear,
    observability,
    stack,
    wrap,
)
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan

__version__ = "0.1.0"

__all__ = [
    "DirectionalVisibilityResponse",
    "FileFormatError",
    "Geometry",
    "IsotropicResponse",
    "LinearOperator",
    "RankTwoResponse",
    "RankTwoSaxsResponse",
    "Reconstruction",
    "SaxsResponse",
    "Scan",
    "SecondMomentResponse",
    "TensorXRayTransform",
    "VisibilityResponse",
    "XRayTransform",
    "check_adjoint",
    "check_linear",
    "observability",
    "reconstruct",
    "stack",
    "wrap",
]
