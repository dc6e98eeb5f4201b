"""Small scans and maps that tests begin with."""

from __future__ import annotations

import numpy as np

from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import (
    SecondMomentResponse,
)
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.scan import Scan

MOMENT = SecondMomentResponse()


def some_geometry(views=4, volume=(6, 7, 5), detector=(6, 5), seed=0):
    generator = np.random.default_rng(seed)
    angles, offsets = generator.uniform(-2, 2, (2, views)), generator.normal(size=(2, views))
    return Geometry.from_angles(*angles, volume, detector, j_offset=offsets[0], k_offset=offsets[1])


def some_scan(views=4, dtype=np.float32, response=MOMENT, seed=0, **changes):
    geometry = some_geometry(views, seed=seed)
    data = np.random.default_rng(seed).normal(size=(views, 6, 5, response.channels)).astype(dtype)
    return Scan(**({"data": data, "geometry": geometry, "response": response} | changes))


def assert_same(found: Scan, expected: Scan) -> None:
    for name in ("data", "weights", "diode"):
        left, right = getattr(found, name), getattr(expected, name)
        assert (left is None) == (right is None), name
        if left is not None:
            full = np.broadcast_to(right, expected.data.shape if name == "weights" else right.shape)
            np.testing.assert_array_equal(np.broadcast_to(left, full.shape), full, err_msg=name)
    assert found.data.dtype == expected.data.dtype
    for name in ("geometry", "response", "voxel_size_m", "title", "provenance"):
        assert getattr(found, name) == getattr(expected, name), name


def some_maps(shape=(4, 6, 5), library=np.asarray, seed=0, **changes):
    generator = np.random.default_rng(seed)
    values = {
        "transmission": generator.uniform(0.5, 1, shape),
        "displacement": np.zeros((*shape, 2)),
        "covariance": generator.normal(size=(*shape, 3)),
        "background": np.zeros(shape),
        "transmission_error": np.ones(shape),
        "displacement_error": np.ones((*shape, 2)),
        "covariance_error": generator.uniform(0.1, 1, (*shape, 3)),
        "background_error": np.ones(shape),
        "residual": np.zeros(shape),
        "valid": np.ones(shape, bool),
    }
    lengths = {"pixel_size_m": 1e-5, "distance_m": 2.0}
    arrays = {name: library(array) for name, array in (values | changes).items() if name not in lengths}
    return Maps(**arrays, **{name: changes.get(name, length) for name, length in lengths.items()})
