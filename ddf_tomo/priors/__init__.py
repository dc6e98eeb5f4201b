"""Regularisers and constraints."""

from ddf_tomo.priors.channel_matrix import ChannelMatrix
from ddf_tomo.priors.differences import Differences
from ddf_tomo.priors.functional import Functional
from ddf_tomo.priors.positive_definite import PositiveDefinite
from ddf_tomo.priors.positivity import NonNegativeFunction, NonNegativeMean
from ddf_tomo.priors.smoothness import Smoothness
from ddf_tomo.priors.sparsity import L1, GroupSparsity
from ddf_tomo.priors.total_variation import TotalVariation

__all__ = [
    "L1",
    "ChannelMatrix",
    "Differences",
    "Functional",
    "GroupSparsity",
    "NonNegativeFunction",
    "NonNegativeMean",
    "PositiveDefinite",
    "Smoothness",
    "TotalVariation",
]
