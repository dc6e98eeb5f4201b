"""Frames to maps: what a mask's image tells of the sample in front of it."""

from ddf_tomo.retrieval.deblurring import Restored, restore_transmission
from ddf_tomo.retrieval.frames import METHODS, retrieve
from ddf_tomo.retrieval.maps import Direction, Maps
from ddf_tomo.retrieval.phases import attenuation, integrate_gradient, phase, projected_decrement
from ddf_tomo.retrieval.slanted_edge import EdgeResponse, edge_response

__all__ = [
    "METHODS",
    "Direction",
    "EdgeResponse",
    "Maps",
    "Restored",
    "attenuation",
    "edge_response",
    "integrate_gradient",
    "phase",
    "projected_decrement",
    "restore_transmission",
    "retrieve",
]
