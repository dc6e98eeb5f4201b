"""A denoiser as `ddf_tomo.reconstruct` takes priors."""

from __future__ import annotations

import math
import os
from typing import Any

import torch

from ddf_tomo._checks import message
from ddf_tomo.operators.base import Shape
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.priors.functional import Functional
from ddf_tomo.priors.learned.denoiser import Denoiser
from ddf_tomo.priors.learned.gradient_step import GradientStep
from ddf_tomo.priors.learned.samples import SPLITS, random_sample
from ddf_tomo.weights import load_network, shipped_weights

PREFERRED = ("residual-unet",)


class LearnedPrior(Functional):
    """What a denoiser knows of samples: ``reconstruct(scan, prior=LearnedPrior("weights.safetensors"))``.

    All that is known of it is its proximal map: for noise of variance 1 in the data, that of a step ``τ`` removes
    noise of the variance ``τ``. `ddf_tomo.solvers.rehearsed` does the rest in four rounds, at levels that it finds on
    random samples; or, where ``sigma`` is given or the denoiser is a `GradientStep`, `ddf_tomo.solvers.plug_and_play`.
    Times a factor, its strength.

    Parameters
    ----------
    network
        A `Denoiser`, or a `GradientStep` of one; a file of its weights, or the name of one that is shipped
        (`ddf_tomo.weights.shipped_weights`); ``"learned"`` takes the best of those.
    sigma
        First and last noise level, in units of the volume, of many iterations in which it falls; by default there is a
        rehearsal instead.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If there is no such network, or it is not one that denoises volumes.

    Examples
    --------
    >>> from ddf_tomo.priors.learned import ResidualUNet
    >>> 0.5 * LearnedPrior(ResidualUNet())
    <0.5 · LearnedPrior(ResidualUNet)>
    """

    def __init__(self, network: Any = "learned", sigma: tuple[float, float] | None = None) -> None:
        if network == "learned":
            shipped = [name for name in PREFERRED if name in shipped_weights()]
            if not shipped:
                hint = "this version ships none; train one, or give a file: LearnedPrior('weights.safetensors')"
                raise ValueError(message("prior", "a network", repr(network), hint))
            network = shipped[0]
        if isinstance(network, (str, os.PathLike)):
            network = load_network(network)
        if not isinstance(network, (Denoiser, GradientStep)):
            expected = "a Denoiser of volumes, a GradientStep of one, or a file of its weights"
            raise TypeError(message("prior", expected, type(network).__name__))
        self.denoiser, self.sigma = network, sigma

    @property
    def iterates(self) -> bool:
        """Whether it is plugged into an iteration with falling noise, not into rehearsed rounds."""
        return self.sigma is not None or isinstance(self.denoiser, GradientStep)

    def volumes(self, shape: Shape) -> list[torch.Tensor]:
        """To rehearse on: a sample of each family that networks learn from, of the shape ``(x, y, z, K)``."""
        *sizes, count = (int(n or 1) for n in shape)
        return [random_sample(name, sizes, order_of(count), seed=seed) for seed, name in enumerate(SPLITS["train"])]

    def value(self, z: torch.Tensor) -> torch.Tensor:
        """Refused: of ``z`` there is none."""
        raise TypeError(message("prior", "one that has a value", f"{self!r}, which has a proximal map only"))

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = self.denoiser(z, math.sqrt(step))
        return found

    def __repr__(self) -> str:
        return f"<{self.weight:g} · LearnedPrior({type(self.denoiser).__name__})>"
