"""A volume whose numbers tell every axis from every other, and what VTK's readers make of a file."""

from __future__ import annotations

import numpy as np

import ddf_tomo as dt
from ddf_tomo.derived import derive
from ddf_tomo.export import display_arrays
from ddf_tomo.export.arrays import KEPT

SHAPE = (5, 4, 3)


def coefficients(ell_max=4, shape=SHAPE):
    count = (ell_max + 1) * (ell_max + 2) // 2
    found = np.random.default_rng(7).normal(size=(*shape, count)).astype(np.float32)
    found[..., 0] += 2
    return found


def reconstruction(ell_max=4, shape=SHAPE, response=None, voxel_size_m=2.5e-5, **more):
    geometry = dt.Geometry.from_angles([0.0, 0.7, 1.4], 0.1, shape, (6, 5))
    given = coefficients(ell_max, shape)
    response = response or dt.SaxsResponse([0.0, 0.8])
    return dt.Reconstruction(
        given, ell_max, geometry, response, (2.0, 1.0, 0.5), voxel_size_m, {"method": "cg"}, **more
    )


def arrays():
    """One of every kind that is written."""
    given = display_arrays(derive(coefficients()), coefficients())
    counts = np.arange(60).reshape(SHAPE)
    integers = {str(kind): (40 * counts).astype(kind) for kind in KEPT if kind.kind in "iu"}
    return given | integers | {"precise": counts / 3.0, "inside": counts > 4}


def as_ours(points, name, shape=SHAPE):
    """An array at VTK's points, x fastest, as ``(x, y, z[, n])``."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    found = vtk_to_numpy(points.GetArray(name))
    return np.moveaxis(found.reshape(*shape[::-1], *found.shape[1:]), (0, 1, 2), (2, 1, 0))


def check_image(image, given, spacing, shape=SHAPE):
    """A VTK image holds these arrays: numbers, precision, places of the points."""
    assert image.GetDimensions() == shape
    assert image.GetSpacing() == (spacing,) * 3
    np.testing.assert_allclose(image.GetCenter(), 0, atol=1e-12 * spacing)
    points = image.GetPointData()
    assert {points.GetArrayName(n) for n in range(points.GetNumberOfArrays())} == set(given)
    for name, array in given.items():
        array = np.asarray(array)
        expected = array.reshape(*shape, -1) if array.ndim > 3 else array
        found = as_ours(points, name, shape)
        np.testing.assert_array_equal(found.reshape(expected.shape), expected, err_msg=name)
        assert array.dtype.kind != "f" or found.dtype == array.dtype, name
        assert points.GetArray(name).GetNumberOfComponents() == (expected.shape[3] if expected.ndim > 3 else 1), name
    # A point's place: that of the centre of the voxel of the same indices.
    place = image.GetPoint(image.ComputePointId((3, 0, 2)))
    np.testing.assert_allclose(place, (np.array([3, 0, 2]) + 0.5 - np.array(shape) / 2) * spacing, rtol=1e-12)
