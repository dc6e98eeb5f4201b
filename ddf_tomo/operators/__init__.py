"""The physics as linear operators: projectors, angular responses, and what is built from them."""

from ddf_tomo.operators.base import LinearOperator, stack
from ddf_tomo.operators.checks import check_adjoint, check_linear
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.wrap import wrap
from ddf_tomo.operators.xray import XRayTransform

__all__ = ["LinearOperator", "TensorXRayTransform", "XRayTransform", "check_adjoint", "check_linear", "stack", "wrap"]
