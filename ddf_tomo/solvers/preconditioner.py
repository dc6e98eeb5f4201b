"""Preconditioning by the fast normal operator: conjugate gradients in half the iterations, to the same end.

A preconditioner changes how a solver walks, not where it arrives: ``A``, data and priors stay exact. [Fessler & Booth
1999, IEEE Trans. Image Process. 8, 688, for the diagonal that carries pixel weights.]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import message, number, of_kind
from ddf_tomo.operators.base import Composition, LinearOperator, as_tensor
from ddf_tomo.operators.block_convolution import BlockConvolution
from ddf_tomo.operators.normal import convolution_symbol, fast_sizes, geometry_of, mean_gram
from ddf_tomo.operators.xray import XRayTransform
from ddf_tomo.priors import ChannelMatrix, Differences, Smoothness
from ddf_tomo.solvers.cgls import cgls
from ddf_tomo.solvers.iteration import Solution
from ddf_tomo.solvers.terms import as_list

TYPICAL = 0.2  # of the curvature of a rounded prior at its foot; 0.1 to 0.3 were the best for total variation
LEAST_SEEN = 0.05  # of what uniform weights would see; voxels that are seen less are taken to be seen as much


@torch.no_grad()
def preconditioner(
    A: LinearOperator,
    weights: Any = None,
    *,
    tikhonov: float = 0.0,
    penalty: LinearOperator | None = None,
    regularisers: Any = None,
    epsilon: float = 0.02,
    padding: float = 2.0,
) -> LinearOperator:
    """About ``(Aᵀ W A + priors)⁻¹``, symmetric positive definite, by FFT: for `cgls` and `nonlinear_cg`.

    The inverse of `ddf_tomo.operators.FastNormal`'s symbol at each frequency, cropped to the volume. Pixel weights
    enter by their mean in each view, and by a diagonal that tells how well each voxel is seen. Where the detector is
    too small it helps less, and changes no result either.

    Parameters
    ----------
    A
        A `ddf_tomo.TensorXRayTransform` or `ddf_tomo.XRayTransform`.
    weights
        As given to the solver.
    tikhonov, penalty
        As given to `cgls`.
    regularisers
        As given to `nonlinear_cg`. Those on voxels and on differences between them are taken into account, at a
        typical curvature where they are not quadratic.
    epsilon
        Added to the symbol, relative to its largest eigenvalue: what keeps the inverse from trusting it too far.
    padding
        Edge of the periodic grid, in edges of the volume, from 1 to 2. Memory (with 2 that of ``2 K (K + 1)`` volumes
        of one channel) and time per application grow with its cube; 1.5 takes about a tenth more iterations, which is
        the quicker choice where an iteration takes little longer than the preconditioner (few views).

    Returns
    -------
    LinearOperator

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import SaxsResponse, TensorXRayTransform
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8)), SaxsResponse(np.arange(4) * 0.8), noise=0.02)
    >>> A = TensorXRayTransform(scan.geometry, scan.response, ell_max=2)
    >>> plain = cgls(A, scan.data, iterations=4)
    >>> better = cgls(A, scan.data, iterations=4, preconditioner=preconditioner(A))
    >>> better.residuals[-1] < plain.residuals[-1]
    True
    """
    geometry = geometry_of(A)
    gram, constant = mean_gram(A, weights)
    size, tikhonov = gram.shape[-1], number(tikhonov, "tikhonov", low=0.0)
    padding = number(padding, "padding", low=1.0, high=2.0)
    identity, laplacian = np.zeros((2, size, size))
    if penalty is not None:
        of_kind(LinearOperator, penalty, "penalty", "a LinearOperator or None")
    terms = [(tikhonov, penalty)] if tikhonov else []
    for term in as_list(regularisers):
        curvature = term.curvature(term.apply(torch.zeros(*geometry.volume_shape, size)))
        share = 1.0 if isinstance(term, Smoothness) else TYPICAL
        terms.append((term.weight * share * float(curvature.max()), term.operator))
    for weight, operator in terms:
        on_differences, matrix = _understood(operator, size)
        target = laplacian if on_differences else identity
        target += weight * matrix
    fft_shape = fast_sizes([min(np.ceil(padding * n), 2 * n - 1) for n in geometry.volume_shape])
    symbol = convolution_symbol(geometry, gram, fft_shape).to(A.device)
    N = BlockConvolution(symbol, geometry.volume_shape, fft_shape, A.domain_shape[-1])
    M = N.inverse(epsilon, identity=identity, laplacian=laplacian, in_place=True)
    if constant:
        return M
    seen = Diagonal(_how_well_seen(A, weights).rsqrt(), M.domain_shape)
    return Composition(seen, Composition(M, seen))


def pcg(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    tikhonov: float = 0.0,
    penalty: LinearOperator | None = None,
    epsilon: float = 0.02,
    padding: float = 2.0,
    **options: Any,
) -> Solution:
    """`cgls` with the `preconditioner` of the same problem: the same minimum, in half the iterations or less.

    Parameters
    ----------
    A
        A `ddf_tomo.TensorXRayTransform` or `ddf_tomo.XRayTransform`.
    y, weights, tikhonov, penalty
        As in `cgls`.
    epsilon, padding
        As in `preconditioner`.
    **options
        Passed to `cgls`: iterations, start, how to stop.

    Returns
    -------
    Solution

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry
    >>> A = XRayTransform(Geometry.from_angles(np.linspace(0, 3, 24), 0.0, (8, 8, 8), (8, 8)), channels=1)
    >>> x = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    >>> pcg(A, A(x), iterations=5).residuals[-1] < cgls(A, A(x), iterations=5).residuals[-1]
    True
    """
    M = preconditioner(A, weights, tikhonov=tikhonov, penalty=penalty, epsilon=epsilon, padding=padding)
    return cgls(A, y, weights=weights, tikhonov=tikhonov, penalty=penalty, preconditioner=M, **options)


class Diagonal(LinearOperator):
    """``factors · x``, where the factors broadcast against ``x``.

    Examples
    --------
    >>> Diagonal(torch.tensor([1.0, 2.0]), (2,))(torch.tensor([3.0, 3.0]))
    tensor([3., 6.])
    """

    def __init__(self, factors: torch.Tensor, shape: Any) -> None:
        self.factors, self.device, self.domain_shape = factors, factors.device, tuple(shape)
        self.range_shape = self.domain_shape

    def _apply(self, x: torch.Tensor) -> torch.Tensor:
        return self.factors.to(x) * x

    def _apply_adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return self._apply(y)


def _understood(operator: LinearOperator | None, size: int) -> tuple[bool, np.ndarray[Any, Any]]:
    """Whether a prior's operator takes differences, and ``MᵀM`` of what it does to coefficients; zero if unknown."""
    matrix = np.eye(size)
    if isinstance(operator, Composition) and isinstance(operator.right, ChannelMatrix) and size > 1:
        found = operator.right.matrix.numpy()
        operator, matrix = operator.left, found.T @ found
    if operator is None or isinstance(operator, Differences):
        return operator is not None, matrix
    return False, np.zeros((size, size))


def _how_well_seen(A: Any, weights: Any) -> torch.Tensor:
    """Sums of pixel weights over each voxel's pixels, relative to those of the mean weights; ``(x, y, z, 1)``."""
    projector = A if isinstance(A, XRayTransform) else A.projector
    w = as_tensor(weights, "weights").detach().to(A.device, torch.float32)
    w = w.reshape((1,) * (4 - w.ndim) + tuple(w.shape)).mean(-1, keepdim=True)
    w = w.expand(*A.range_shape[:-1], 1).contiguous()
    if isinstance(A, XRayTransform) and A.channels not in (None, 1):
        projector = XRayTransform(A.geometry, A.requested_backend, A.device)
    seen, evenly = projector.T(w), projector.T(w.mean((1, 2), keepdim=True).expand_as(w).contiguous())
    if not bool((seen > 0).any()):
        raise ValueError(message("weights", "a positive weight somewhere", "zero everywhere"))
    return torch.where(evenly > 0, seen / evenly.clamp(min=1e-30), 1.0).clamp(min=LEAST_SEEN)
