"""Regularisers and constraints."""

from ddf_tomo.priors.differences import Differences
from ddf_tomo.priors.functional import Functional
from ddf_tomo.priors.smoothness import Smoothness
from ddf_tomo.priors.total_variation import OrderWeights, TotalVariation

__all__ = ["Differences", "Functional", "OrderWeights", "Smoothness", "TotalVariation"]
