"""Frames out of the files that beamlines write: TIFF, HDF5 and NeXus, EDF, NumPy; one frame at a time."""

from ddf_tomo.readers.frames import FORMATS, Stack, open_frames
from ddf_tomo.readers.layouts import Layout, find_layout
from ddf_tomo.readers.scans import Frames

__all__ = ["FORMATS", "Frames", "Layout", "Stack", "find_layout", "open_frames"]
