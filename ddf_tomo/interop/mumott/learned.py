"""A learned prior as a regularizer of MUMOTT's; imported on first use, as its class derives from MUMOTT's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import choice, message, neighbour, number
from ddf_tomo.priors.learned import Denoiser, GradientStep

_hashing = neighbour("mumott.core.hashing")
Regularizer: Any = neighbour("mumott.optimization.regularizers.base_regularizer").Regularizer
PARTS = ("full", "coefficients", "angles")


class LearnedRegularizer(Regularizer):
    """``R(x) = ½ |x - N(x, σ)|² / σ²`` for MUMOTT's loss functions: what a denoiser would take away.

    The gradient is that of this very function (by automatic differentiation), so that MUMOTT's optimizers converge on
    it. Near 1 as a ``regularization_weight`` where MUMOTT's residuals are in units of their noise, as MUMOTT counts the
    square of a residual half.

    Parameters
    ----------
    denoiser
        A `ddf_tomo.priors.learned.Denoiser`, or a `GradientStep` of one.
    sigma
        Noise level that it is told, in units of the coefficients.

    Raises
    ------
    TypeError, ValueError
        If they are not that.

    Examples
    --------
    >>> from ddf_tomo.priors.learned import ResidualUNet
    >>> regularizer = LearnedRegularizer(ResidualUNet(), sigma=0.1)
    >>> found = regularizer.get_regularization_norm(np.ones((4, 4, 4, 6)), get_gradient=True)
    >>> found["gradient"].shape
    (4, 4, 4, 6)
    """

    def __init__(self, denoiser: Denoiser | GradientStep, sigma: float) -> None:
        super().__init__()
        if not isinstance(denoiser, (Denoiser, GradientStep)):
            raise TypeError(message("denoiser", "a Denoiser, or a GradientStep of one", type(denoiser).__name__))
        self.denoiser = denoiser if isinstance(denoiser, GradientStep) else GradientStep(denoiser)
        self.sigma = number(sigma, "sigma", low=0.0, low_open=True)

    @torch.no_grad()
    def get_regularization_norm(
        self, coefficients: NDArray[Any], get_gradient: bool = False, gradient_part: str | None = None
    ) -> dict[str, Any]:
        """Value of the function, and its gradient.

        Parameters
        ----------
        coefficients
            Shape ``(x, y, z, K)``.
        get_gradient
            Whether to compute the gradient; it costs twice as much again.
        gradient_part
            In MUMOTT's zonal workflows, ``"full"``, ``"coefficients"`` or ``"angles"``: the last two coefficients are
            then angles, which are left alone.

        Returns
        -------
        dict
            ``regularization_norm``, a number, and ``gradient``, of the shape of the coefficients, or ``None``.
        """
        if gradient_part is not None:
            choice(gradient_part, "gradient_part", PARTS)
        array = np.asarray(coefficients)
        seen = array if gradient_part is None else array[..., :-2]
        x = torch.from_numpy(np.array(seen, np.result_type(seen, np.float32), order="C"))
        factor = 1 / self.sigma**2
        if not get_gradient:
            return {"regularization_norm": factor * float(self.denoiser.potential(x, self.sigma)), "gradient": None}
        value, slope = self.denoiser.potential_and_gradient(x, self.sigma)
        gradient = np.zeros(array.shape, slope.numpy().dtype)
        if gradient_part != "angles":
            gradient[..., : seen.shape[-1]] = factor * slope.numpy()
        return {"regularization_norm": factor * float(value), "gradient": gradient}

    @property
    def _function_as_str(self) -> str:
        return f"R(x) = 0.5 * |x - D(x, {self.sigma:g})| ** 2 / {self.sigma:g} ** 2"

    @property
    def _function_as_tex(self) -> str:
        return rf"$R(\vec{{x}}) = \Vert \vec{{x}} - D(\vec{{x}}, {self.sigma:g}) \Vert^2 / (2 \cdot {self.sigma:g}^2)$"

    def __hash__(self) -> int:
        weights = [weight.detach().cpu().numpy() for weight in self.denoiser.parameters()]
        return int(_hashing.list_to_hash([self._function_as_str, *weights]), 16)
