"""A fixed number of iterations whose denoiser and settings are learned through the physics.

[Aggarwal et al. 2019, MoDL, IEEE Trans. Med. Imaging 38, 394; Adler & Öktem 2018, IEEE Trans. Med. Imaging 37, 1322]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddf_tomo._checks import flag, integer, message, number, of_kind
from ddf_tomo.operators.base import LinearOperator, as_tensor, shape_text
from ddf_tomo.priors.learned import Denoiser
from ddf_tomo.priors.learned.denoiser import heights
from ddf_tomo.solvers.misfit import Misfit, checked_operator, overflow
from ddf_tomo.solvers.plug_and_play import near_data, noise_variance
from ddf_tomo.weights import architecture, make_network

FIRST_LEVEL, LAST_LEVEL = 0.3, 0.03  # of the noise, relative to the height of the volume, before training


@architecture("unrolled")
class Unrolled(nn.Module):
    """From data to coefficients in a few iterations: denoise, then ask the data.

    The iteration is that of `ddf_tomo.solvers.plug_and_play` (proximal gradients),
    ``x ← argmin ½ |W^(1/2) (A x - y)|² + ρ/2 |x - D(x, σ)|²`` with ``ρ = strength · variance / σ²``. What is learned:
    the denoiser, the same in all iterations; and of each iteration the level ``σ`` relative to the volume's height, and
    the strength. Nothing of it belongs to one geometry, so that views, response and order of the harmonics may differ
    between training and use. The physics is the operator itself; gradients pass through it.

    Parameters
    ----------
    denoiser
        Name of its architecture (`ddf_tomo.weights.architecture_names`).
    options
        Of the denoiser's constructor.
    iterations
        How many.
    inner_iterations
        Of conjugate gradients in each, and in front of the first one.
    save_memory
        Whether training keeps the volume of each iteration only, and computes what lies between a second time.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform
    >>> geometry = Geometry.from_angles(np.linspace(0, 3, 9), 0.3, (6, 6, 6), (6, 6))
    >>> A = TensorXRayTransform(geometry, SecondMomentResponse(), ell_max=2)
    >>> network = Unrolled(options={"widths": [4, 4, 4]}, iterations=2)
    >>> network(A, A(torch.ones(6, 6, 6, 6))).shape
    torch.Size([6, 6, 6, 6])
    """

    def __init__(
        self,
        denoiser: str = "residual-unet",
        options: Mapping[str, Any] | None = None,
        iterations: int = 6,
        inner_iterations: int = 4,
        save_memory: bool = True,
    ) -> None:
        super().__init__()
        count = integer(iterations, "iterations", low=1, high=100)
        self.inner = integer(inner_iterations, "inner_iterations", low=1, high=100)
        self.save_memory = flag(save_memory, "save_memory")
        network = make_network(denoiser, options)
        of_kind(Denoiser, network, "denoiser", "the name of a denoiser's architecture")
        self.denoiser = network
        ends = math.log(FIRST_LEVEL), math.log(LAST_LEVEL)
        self.log_levels = nn.Parameter(torch.linspace(*ends, count))
        self.log_strengths = nn.Parameter(torch.zeros(count))

    def forward(self, A: LinearOperator, y: Any, weights: Any = None, variance: float | None = None) -> Tensor:
        """Coefficients of the domain's shape, with the batch of ``y`` in front.

        Parameters
        ----------
        A
            On volumes of harmonic coefficients, ``(x, y, z, K)``.
        y
            Data, ``(..., view, j, k, channel)``.
        weights
            Non-negative weights that broadcast against one set of data, usually inverse variances; zero masks a datum.
        variance
            Of a datum of weight 1; measured by default, see `ddf_tomo.solvers.plug_and_play`.

        Raises
        ------
        TypeError, ValueError
            If they do not fit each other, or data with positive weight are not finite.
        """
        shape = checked_operator(A).range_shape
        if len(A.domain_shape) != 4:
            raise ValueError(message("A", "one on volumes (x, y, z, K)", f"one on ({shape_text(A.domain_shape)})"))
        data = as_tensor(y, "y")
        if data.ndim > len(shape) and len(data):
            return torch.stack([self(A, part, weights, variance) for part in data])
        misfit = Misfit(A, data, weights)
        if variance is None:
            variance = noise_variance(misfit.y.detach(), misfit.weights)
        found = self._one(misfit, number(variance, "variance", low=0.0))
        if not torch.is_grad_enabled() and not torch.isfinite(found).all():  # training has its own ways to tell
            raise ValueError(overflow(misfit.like))
        return found

    def _one(self, misfit: Misfit, variance: float) -> Tensor:
        zero = misfit.start(None)
        x = near_data(misfit, zero, 0.0 * self.log_levels[0], self.inner)
        for log_level, log_strength in zip(self.log_levels, self.log_strengths, strict=True):
            if self.save_memory and torch.is_grad_enabled():
                x = checkpoint(self._iteration, misfit, variance, x, log_level, log_strength, use_reentrant=False)
            else:
                x = self._iteration(misfit, variance, x, log_level, log_strength)
        return x

    def _iteration(self, misfit: Misfit, variance: float, x: Tensor, log_level: Tensor, log_strength: Tensor) -> Tensor:
        sigma = log_level.exp() * heights(x[None])[0]
        z = self.denoiser(x, sigma)
        return near_data(misfit, z, log_strength.exp() * variance / sigma**2, self.inner)
