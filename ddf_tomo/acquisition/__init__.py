"""Acquisition: what is put into the beam, where it goes, and what a detector makes of it.

Masks and their materials, stepping positions, the detector, and waves through a random sample; the propagation itself
is `ddf_tomo.operators.propagation`.
"""

from ddf_tomo.acquisition.detector import Corrected, Detector, correct
from ddf_tomo.acquisition.masks import cells, grid, hadamard, random_binary, sandpaper, spiral, ura
from ddf_tomo.acquisition.materials import RefractiveIndex, refractive_index, wavelength_m
from ddf_tomo.acquisition.media import FibrousMedium, scattering_screen
from ddf_tomo.acquisition.stepping import random_steps, raster_steps, shifted, spiral_steps
from ddf_tomo.acquisition.waves import FringeBlur, fringe_blur, multislice, wave_frames

__all__ = [
    "Corrected",
    "Detector",
    "FibrousMedium",
    "FringeBlur",
    "RefractiveIndex",
    "cells",
    "correct",
    "fringe_blur",
    "grid",
    "hadamard",
    "multislice",
    "random_binary",
    "random_steps",
    "raster_steps",
    "refractive_index",
    "sandpaper",
    "scattering_screen",
    "shifted",
    "spiral",
    "spiral_steps",
    "ura",
    "wave_frames",
    "wavelength_m",
]
