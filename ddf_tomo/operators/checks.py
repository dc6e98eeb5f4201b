"""Checks that users run on their own operators; the package's tests run them on every operator it has."""

from __future__ import annotations

import torch

from ddf_tomo._checks import LARGEST_SEED, integer, message, number
from ddf_tomo.operators.base import LinearOperator

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


def check_adjoint(
    operator: LinearOperator, dtype: torch.dtype = torch.float32, tolerance: float | None = None, seed: int = 0
) -> float:
    """Relative defect of ``<A x, y> = <x, Aᵀ y>`` for white noise ``x`` and ``y = A x``.

    With ``y = A x`` the inner product is ``|A x|²``, which does not vanish; and zero-mean noise shows what positive
    random numbers hide: backprojections that interpolate otherwise than the projection are off by 17 % here, and by
    2e-4 on positive noise.

    Parameters
    ----------
    operator
        Any `LinearOperator`; make one of your own projector with `wrap`.
    dtype
        ``torch.float32`` or ``torch.float64``.
    tolerance
        Defaults to 1e-5 in float32 and 1e-12 in float64.
    seed
        Of the noise.

    Returns
    -------
    float
        The relative defect.

    Raises
    ------
    AssertionError
        If the defect exceeds the tolerance.

    Examples
    --------
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> check_adjoint(XRayTransform(Geometry.from_angles([0.3], [0.1], (8, 8, 8), (8, 8)))) < 1e-5
    True
    """
    x = _noise(operator, dtype, torch.Generator().manual_seed(integer(seed, "seed", high=LARGEST_SEED)))
    y = operator(x)
    there, back = (float((a.double() * b.double()).sum()) for a, b in ((y, y), (x, operator.T(y))))
    return _judge("<A x, y> = <x, Aᵀ y>", abs(there - back) / there if there else abs(back), dtype, tolerance)


def check_linear(
    operator: LinearOperator, dtype: torch.dtype = torch.float32, tolerance: float | None = None, seed: int = 0
) -> float:
    """Relative defect of ``A(a x + b y) = a A x + b A y`` on white noise, told as `check_adjoint` tells its own.

    Parameters
    ----------
    operator
        What is to be checked.
    dtype
        ``torch.float32`` or ``torch.float64``.
    tolerance
        Largest allowed defect, by default 1e-5 for float32 and 1e-12 for float64.
    seed
        Of the noise.

    Examples
    --------
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> check_linear(XRayTransform(Geometry.from_angles([0.3], [0.1], (8, 8, 8), (8, 8)))) < 1e-5
    True
    """
    generator = torch.Generator().manual_seed(integer(seed, "seed", high=LARGEST_SEED))
    x, y = _noise(operator, dtype, generator), _noise(operator, dtype, generator)
    combined = 0.7 * operator(x) - 1.9 * operator(y)
    scale, defect = float(combined.norm()), float((operator(0.7 * x - 1.9 * y) - combined).norm())
    return _judge("A(a x + b y) = a A x + b A y", defect / scale if scale else defect, dtype, tolerance)


def _noise(operator: LinearOperator, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if not isinstance(operator, LinearOperator):
        raise TypeError(message("operator", "a LinearOperator", type(operator).__name__, "make one with wrap(...)"))
    if not isinstance(dtype, torch.dtype) or dtype not in TOLERANCES:
        raise TypeError(message("dtype", "torch.float32 or torch.float64", dtype))
    shape = [3 if n is None else n for n in operator.domain_shape]
    return torch.randn(shape, dtype=dtype, generator=generator).to(operator.device)


def _judge(identity: str, defect: float, dtype: torch.dtype, tolerance: float | None) -> float:
    allowed = TOLERANCES[dtype] if tolerance is None else number(tolerance, "tolerance", low=0.0)
    if not defect <= allowed:
        raise AssertionError(f"{identity} is violated by {defect:.3g} (relative), allowed {allowed:.3g} in {dtype}")
    return defect
