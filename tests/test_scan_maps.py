"""Maps of a retrieval become second moments with weights; what cannot be is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo.operators.responses import (
    SecondMomentResponse,
)
from ddf_tomo.scan import Scan
from tests.scans import assert_same, some_geometry, some_maps


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_maps_become_second_moments_in_square_microradians(library):
    valid = np.ones((4, 6, 5), bool)
    valid[1, 2, 3] = False
    maps = some_maps(library=library, valid=valid)
    scan = Scan.from_maps(maps, some_geometry(), title="rods", provenance={"source": "here"})
    unit = (1e-5 / 2.0) ** 2 / 1e-12  # square pixels in µrad²
    np.testing.assert_allclose(scan.data, np.asarray(maps.covariance) * unit, rtol=1e-12)
    expected = 1 / (np.asarray(maps.covariance_error) * unit) ** 2
    expected[1, 2, 3] = 0
    np.testing.assert_allclose(scan.weights, expected, rtol=1e-12)
    np.testing.assert_array_equal(scan.diode, maps.transmission)
    assert scan.response == SecondMomentResponse()
    assert scan.voxel_size_m == 1e-5
    assert scan.provenance == {"data_unit": "1e-12 rad^2", "source": "here"}
    assert scan.title == "rods"
    assert isinstance(scan.data, type(maps.covariance))
    plain = Scan.from_maps(maps, some_geometry(), weighted=False, unit_rad2=1.0, voxel_size_m=2e-6)
    np.testing.assert_allclose(plain.data, np.asarray(maps.covariance) * 25e-12, rtol=1e-12)
    np.testing.assert_array_equal(plain.full_weights()[..., 0], valid)
    assert plain.voxel_size_m == 2e-6


def test_maps_view_by_view_or_in_batches():
    parts = [some_maps((6, 5), seed=1), some_maps((2, 6, 5), seed=2), some_maps((6, 5), seed=3)]
    scan = Scan.from_maps(parts, some_geometry())
    assert_same(scan[1:3], Scan.from_maps(parts[1], some_geometry()[1:3]))
    np.testing.assert_array_equal(scan[3].diode[0], parts[2].transmission)


def test_errors_of_infinity_have_no_weight_and_hide_anything():
    errors, covariance = np.ones((4, 6, 5, 3)), np.ones((4, 6, 5, 3))
    errors[0, 0, 0], covariance[0, 0, 0] = np.inf, np.nan
    scan = Scan.from_maps(some_maps(covariance_error=errors, covariance=covariance), some_geometry())
    assert scan.weights[0, 0, 0].tolist() == [0, 0, 0]
    assert scan.data[0, 0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("maps", "error", "words"),
    [
        ([], ValueError, "maps: expected at least one Maps"),
        ([3], TypeError, "maps: expected at least one Maps"),
        (some_maps(pixel_size_m=None), ValueError, "pixel_size_m: expected a length in metres"),
        ([some_maps((2, 6, 5)), some_maps((2, 6, 5), pixel_size_m=2e-5)], ValueError, "one pixel size in all maps"),
        (some_maps((3, 6, 5)), ValueError, "data: expected shape"),
        (some_maps(covariance_error=np.zeros((4, 6, 5, 3))), ValueError, "covariance_error: expected positive"),
        (some_maps(covariance_error=np.full((4, 6, 5, 3), np.nan)), ValueError, "covariance_error: expected positive"),
        (some_maps(valid=np.zeros((4, 6, 5), bool)), ValueError, "at least one weight above zero"),
    ],
)
def test_maps_that_make_no_scan(maps, error, words):
    with pytest.raises(error, match=words):
        Scan.from_maps(maps, some_geometry())
    with pytest.raises(ValueError, match="unit_rad2"):
        Scan.from_maps(maps, some_geometry(), unit_rad2=0)
