"""Denoisers that were trained: priors on volumes of harmonic coefficients."""

from ddf_tomo.priors.learned.denoiser import Denoiser
from ddf_tomo.priors.learned.equivariant import EquivariantDenoiser
from ddf_tomo.priors.learned.gradient_step import GradientStep
from ddf_tomo.priors.learned.prior import LearnedPrior
from ddf_tomo.priors.learned.residual_unet import ResidualUNet

__all__ = ["Denoiser", "EquivariantDenoiser", "GradientStep", "LearnedPrior", "ResidualUNet"]
