"""Figures of merit: how far a volume is from the truth, a prediction from the data, and what the data tell at all."""

from ddf_tomo.merits.errors import Merits, compare, data_misfit
from ddf_tomo.merits.shares import DataShare, NullSpaceShare, data_share, null_space_share, resolution

__all__ = [
    "DataShare",
    "Merits",
    "NullSpaceShare",
    "compare",
    "data_misfit",
    "data_share",
    "null_space_share",
    "resolution",
]
