"""Frames to maps: what a mask's image tells of the sample in front of it."""

from ddf_tomo.retrieval.frames import METHODS, retrieve
from ddf_tomo.retrieval.maps import Direction, Maps

__all__ = ["METHODS", "Direction", "Maps", "retrieve"]
