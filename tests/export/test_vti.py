"""VTK images, read by VTK; and their layout, read by hand where there is no VTK."""

from __future__ import annotations

import os
import re
import zlib
from itertools import pairwise

import numpy as np
import pytest

from ddf_tomo.export import arrays as grids
from ddf_tomo.export import write_vti
from tests.export.sample import SHAPE, arrays, as_ours, check_image


def read(path):
    reader = pytest.importorskip("vtkmodules.vtkIOXML").vtkXMLImageDataReader()
    assert reader.CanReadFile(os.fspath(path))
    reader.SetFileName(os.fspath(path))
    reader.Update()
    return reader.GetOutput()


@pytest.mark.parametrize("spacing", [1.0, 2.5e-5])
@pytest.mark.parametrize("slab", [1, 700, 2**22])  # bytes: one plane a block, some, all
def test_vtk_reads_what_was_written(tmp_path, monkeypatch, spacing, slab):
    monkeypatch.setattr("ddf_tomo.export.vti.SLAB_BYTES", slab)
    write_vti(tmp_path / "volume.vti", arrays(), spacing)
    image = read(tmp_path / "volume.vti")
    check_image(image, arrays(), spacing)
    points = image.GetPointData()
    assert as_ours(points, "int16").dtype == np.int16
    assert points.GetScalars().GetName() == "mean"
    assert points.GetVectors().GetName() == "direction"
    assert points.GetTensors().GetName() == "tensor"
    assert points.GetTensors().GetNumberOfComponents() == 9


def test_tensor_glyphs_stand_along_the_axes_of_the_tensors(tmp_path):
    """VTK's own glyph filter takes the tensors as they are: a stretched one gives a glyph stretched that way."""
    pytest.importorskip("vtk")
    from vtkmodules.vtkFiltersCore import vtkTensorGlyph
    from vtkmodules.vtkFiltersSources import vtkSphereSource

    axis = np.array([2.0, 1.0, -2.0]) / 3
    tensors = np.zeros((3, 3, 3, 3, 3), np.float32)
    tensors[1, 2, 0] = 0.4 * np.outer(axis, axis) + 0.01 * np.eye(3)
    write_vti(tmp_path / "one.vti", {"tensor": tensors, "one": np.ones((3, 3, 3))})
    glyphs = vtkTensorGlyph()
    glyphs.SetInputData(read(tmp_path / "one.vti"))
    sphere = vtkSphereSource()
    glyphs.SetSourceConnection(sphere.GetOutputPort())
    glyphs.ScalingOn()
    glyphs.ClampScalingOff()
    glyphs.Update()
    output = glyphs.GetOutput()
    places = np.array([output.GetPoint(n) for n in range(output.GetNumberOfPoints())])
    around = places - [0, 1, -1]  # the centre of voxel (1, 2, 0)
    of_it = around[np.linalg.norm(around, axis=1) < 0.3]
    far = of_it[np.argmax(np.linalg.norm(of_it, axis=1))]
    assert np.linalg.norm(far) > 0.15
    assert abs(far @ axis) / np.linalg.norm(far) > 0.99


def test_the_layout_by_hand(tmp_path, monkeypatch):
    """XML up to the underscore, then compressed blocks at the offsets it names."""
    monkeypatch.setattr("ddf_tomo.export.vti.SLAB_BYTES", 700)
    given = arrays()
    write_vti(tmp_path / "volume.vti", given, 0.5)
    head, _, data = (tmp_path / "volume.vti").read_bytes().partition(b'<AppendedData encoding="raw">\n_')
    assert b'WholeExtent="0 4 0 3 0 2" Origin="-1.0 -0.75 -0.5" Spacing="0.5 0.5 0.5"' in head
    for name, array in given.items():
        offset = int(re.search(rf'Name="{name}"[^>]*offset="(\d+)"'.encode(), head)[1])
        count, size, last = np.frombuffer(data, np.uint64, 3, offset).astype(int)
        lengths = np.frombuffer(data, np.uint64, count, offset + 24).astype(int)
        starts = offset + 24 + 8 * count + np.cumsum([0, *lengths])
        blocks = [zlib.decompress(data[a:b]) for a, b in pairwise(starts)]
        assert {len(block) for block in blocks[:-1]} <= {size}
        assert len(blocks[-1]) == (last or size)
        expected = np.asarray(array)
        dtype = np.uint8 if expected.dtype == bool else expected.dtype
        found = np.frombuffer(b"".join(blocks), dtype).reshape(*SHAPE[::-1], *expected.shape[3:])
        np.testing.assert_array_equal(np.moveaxis(found, (0, 1, 2), (2, 1, 0)), expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 1), (7, 1, 2)])
def test_flat_volumes(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape)
    write_vti(tmp_path / "flat.vti", {"values": values})
    np.testing.assert_array_equal(as_ours(read(tmp_path / "flat.vti").GetPointData(), "values", shape), values)


def test_other_orders_and_kinds_of_array(tmp_path):
    values = np.random.default_rng(0).normal(size=SHAPE)
    given = {"fortran": np.asfortranarray(values), "big": values.astype(">f4"), "list": values.tolist()}
    write_vti(tmp_path / "volume.vti", given)
    points = read(tmp_path / "volume.vti").GetPointData()
    np.testing.assert_array_equal(as_ours(points, "fortran"), values)
    np.testing.assert_array_equal(as_ours(points, "list"), values)
    np.testing.assert_array_equal(as_ours(points, "big"), values.astype(np.float32))


ONE = np.ones(SHAPE)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"arrays": {}}, ValueError, "^arrays: expected at least one array"),
        ({"arrays": [ONE]}, TypeError, "^arrays: expected a mapping"),
        ({"arrays": {"a": ONE, "b": ONE[1:]}}, ValueError, r"^arrays\['b'\] \(first three axes\): expected shape"),
        ({"arrays": {"a": ONE[0]}}, ValueError, r"^arrays\['a'\]: expected a shape \(x, y, z\)"),
        ({"arrays": {"a": ONE[:0]}}, ValueError, r"^arrays\['a'\]: expected a shape"),
        ({"arrays": {"a": np.ones((*SHAPE, 2, 3))}}, ValueError, r"^arrays\['a'\]: expected a shape"),
        ({"arrays": {"a": ONE * np.nan}}, ValueError, r"^arrays\['a'\]: expected finite values"),
        ({"arrays": {"a": 1j * ONE}}, TypeError, r"^arrays\['a'\]: expected real numbers"),
        ({"arrays": {'a"><b': ONE}}, ValueError, "^arrays: expected names of letters"),
        ({"arrays": {"../a": ONE}}, ValueError, "^arrays: expected names of letters"),
        ({"arrays": {1: ONE}}, ValueError, "^arrays: expected names of letters"),
        ({"spacing": 0}, ValueError, "^spacing: expected a finite number"),
        ({"spacing": None}, TypeError, "^spacing: expected a finite number"),
    ],
)
def test_bad_input(tmp_path, given, error, text):
    with pytest.raises(error, match=text):
        write_vti(tmp_path / "volume.vti", **{"arrays": {"a": ONE}, **given})
    assert not os.listdir(tmp_path)


def test_display_arrays_stay_in_range():
    assert np.isfinite(grids.single(np.array([1e300, -1e300]))).all()
