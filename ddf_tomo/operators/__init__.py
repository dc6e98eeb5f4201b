"""The physics as linear operators: projectors, angular responses, and what is built from them."""

from ddf_tomo.operators.base import LinearOperator, stack
from ddf_tomo.operators.blur_kernels import TwoComponentKernel
from ddf_tomo.operators.checks import check_adjoint, check_linear
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS, CubeRotation
from ddf_tomo.operators.directional_blur import DirectionalBlur
from ddf_tomo.operators.free_form_blur import FreeFormBlur
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.operators.normal import FastNormal
from ddf_tomo.operators.observability import Observability, automatic_ell_max, observability
from ddf_tomo.operators.responses import (
    AngularResponse,
    DirectionalVisibilityResponse,
    IsotropicResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    VisibilityResponse,
)
from ddf_tomo.operators.slabs import SlabwiseXRayTransform
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.volume_rotation import rotate_views, rotate_volume
from ddf_tomo.operators.warping import flux_factor, warp
from ddf_tomo.operators.wrap import wrap
from ddf_tomo.operators.xray import XRayTransform

__all__ = [
    "CUBE_ROTATIONS",
    "AngularResponse",
    "CubeRotation",
    "DirectionalBlur",
    "DirectionalVisibilityResponse",
    "FastNormal",
    "FreeFormBlur",
    "IsotropicResponse",
    "LinearOperator",
    "ModulatedImaging",
    "Observability",
    "RankTwoResponse",
    "RankTwoSaxsResponse",
    "SaxsResponse",
    "SecondMomentResponse",
    "SlabwiseXRayTransform",
    "TensorXRayTransform",
    "TwoComponentKernel",
    "VisibilityResponse",
    "XRayTransform",
    "automatic_ell_max",
    "check_adjoint",
    "check_linear",
    "flux_factor",
    "observability",
    "rotate_views",
    "rotate_volume",
    "stack",
    "warp",
    "wrap",
]
