"""View patterns."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo.derived import angle_between
from ddf_tomo.phantoms import SCAN_VIEWS, tilt_series


def test_the_pattern_of_a_real_scan():
    geometry = tilt_series((12, 11, 10))
    assert len(geometry) == sum(SCAN_VIEWS) == 255
    assert geometry.detector_shape == (12, 10)
    tilts = np.degrees(np.arcsin(np.abs(geometry.p[:, 2])))
    expected = np.repeat([0, 7.5, 15, 22.5, 30, 37.5, 45], SCAN_VIEWS)
    np.testing.assert_allclose(tilts, expected, atol=1e-9)
    # No line is measured twice at tilt 0, where half a turn is all there is.
    first = geometry.p[:24]
    assert np.degrees(angle_between(first[:, None], first[None])[~np.eye(24, dtype=bool)].min()) == pytest.approx(7.5)
    assert tilt_series((12, 11, 10), np.array([7, 6])).detector_shape == (7, 6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"views": [3]}, r"^views: expected shape \(7\), got \(1,\)"),
        ({"views": 3}, r"^views: expected shape \(7\), got \(\)"),
        ({"views": [0] * 7}, "^views: expected an integer"),
        ({"tilts_rad": [[0.0]]}, "^tilts_rad: expected shape"),
        ({"volume_shape": (3, 3)}, "^volume_shape: expected 3 positive integers"),
        ({"detector_shape": (3,)}, "^detector_shape: expected 2 positive integers"),
    ],
)
def test_bad_series(arguments, text):
    with pytest.raises(ValueError, match=text):
        tilt_series(**{"volume_shape": (4, 4, 4), **arguments})
