"""Regularisers and constraints."""

from ddf_tomo.priors.differences import Differences

__all__ = ["Differences"]
