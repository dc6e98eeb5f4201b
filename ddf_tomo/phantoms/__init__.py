"""Simulated samples and scans whose truth is known.

A phantom is a definition in continuous space, sampled on any grid, with ``f ≥ 0`` in every direction. Data are never
made with the grid that reconstructs them (the "inverse crime"): `simulate` projects a finer one and bins the detector.
"""

from ddf_tomo.phantoms.samples import (
    PHANTOMS,
    crossing_fibres,
    fibre_bundles,
    helicoidal_fibres,
    mixture,
    random_field,
    shells,
)
from ddf_tomo.phantoms.simulation import simulate
from ddf_tomo.phantoms.truth import FIBRE_LEGENDRE, Truth, fibre_legendre, zonal
from ddf_tomo.phantoms.views import SCAN_TILTS_RAD, SCAN_VIEWS, tilt_series

__all__ = [
    "FIBRE_LEGENDRE",
    "PHANTOMS",
    "SCAN_TILTS_RAD",
    "SCAN_VIEWS",
    "Truth",
    "crossing_fibres",
    "fibre_bundles",
    "fibre_legendre",
    "helicoidal_fibres",
    "mixture",
    "random_field",
    "shells",
    "simulate",
    "tilt_series",
    "zonal",
]
