"""Refraction angles of a volume, against those of a Gaussian ball in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo import Geometry
from ddf_tomo.operators.refraction import RefractionTransform


def test_angles_of_a_ball():
    width, size = 6.0, 52
    geometry = Geometry.from_angles([0.0, 0.5, 1.2], 0.4, (size,) * 3, (size, size), j_offset=0.3)
    place = np.mgrid[:size, :size, :size] - (size - 1) / 2
    ball = np.exp(-(place**2).sum(0) / (2 * width**2))
    found = RefractionTransform(geometry)(ball[..., None])
    a, b = np.meshgrid(np.arange(size) - (size - 1) / 2 + 0.3, np.arange(size) - (size - 1) / 2, indexing="ij")
    path = np.sqrt(2 * np.pi) * width * np.exp(-(a**2 + b**2) / (2 * width**2))
    expected = np.stack([a, b], -1) * path[..., None] / width**2  # away from where there is more of it
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_what_is_no_geometry_is_named():
    with pytest.raises(TypeError, match="geometry"):
        RefractionTransform(3)
