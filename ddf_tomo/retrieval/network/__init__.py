"""Direct network: maps from frames in one pass, by weights that were learned from simulated samples."""

from ddf_tomo.retrieval.network._evidence import Evidence, evidence
from ddf_tomo.retrieval.network._pyramid import pyramid
from ddf_tomo.retrieval.network.direct import DirectNetwork

__all__ = ["DirectNetwork", "Evidence", "evidence", "pyramid"]
