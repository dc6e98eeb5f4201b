"""XDMF pairs: read by VTK, and by following every reference into the HDF5 file."""

from __future__ import annotations

import os
import signal
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from ddf_tomo.export import is_our_xdmf, write_xdmf
from tests.export.sample import SHAPE, arrays, check_image

NUMBERS = {("Float", 4): "f4", ("Float", 8): "f8", ("UChar", 1): "u1", ("Char", 1): "i1"}
NUMBERS |= {("Int", n): f"i{n}" for n in (2, 4)} | {("UInt", n): f"u{n}" for n in (2, 4)}


def resolve(path):
    """Every attribute of an XDMF file, as arrays in its own (z, y, x) order, with the grid's origin and spacing."""
    grid = ElementTree.parse(path).find("Domain/Grid")
    shape = tuple(map(int, grid.find("Topology").get("Dimensions").split()))
    origin, spacing = (np.array(item.text.split(), float) for item in grid.findall("Geometry/DataItem"))
    found = {}
    for attribute in grid.findall("Attribute"):
        item = attribute.find("DataItem")
        name, _, inner = item.text.strip().partition(":")
        with h5py.File(path.parent / name) as file:
            array = file[inner][()]
        assert array.dtype == NUMBERS[item.get("NumberType"), int(item.get("Precision"))]
        assert array.shape == tuple(map(int, item.get("Dimensions").split()))
        assert array.shape[:3] == shape
        assert attribute.get("Center") == "Node"
        found[attribute.get("Name")] = attribute.get("AttributeType"), array
    return found, origin, spacing


@pytest.mark.parametrize("name", ["volume.xdmf", "my volume & co.xdmf"])
@pytest.mark.parametrize("spacing", [1.0, 2.5e-5])
def test_every_reference_leads_to_its_array(tmp_path, name, spacing):
    given = arrays()
    write_xdmf(tmp_path / name, given, spacing)
    found, origin, steps = resolve(tmp_path / name)
    assert set(found) == set(given)
    assert steps.tolist() == [spacing] * 3
    np.testing.assert_allclose(origin, (1 - np.array(SHAPE[::-1])) / 2 * spacing)  # (z, y, x), as VTK's reader has it
    for name, (_, array) in found.items():
        expected = np.asarray(given[name])
        expected = expected.reshape(*SHAPE, -1) if expected.ndim > 3 else expected
        np.testing.assert_array_equal(np.moveaxis(array, (0, 1, 2), (2, 1, 0)), expected)
    assert {name: found[name][0] for name in ("mean", "direction", "direction_colour", "tensor")} == {
        "mean": "Scalar",
        "direction": "Vector",
        "direction_colour": "Vector",
        "tensor": "Tensor",
    }


@pytest.mark.parametrize("spacing", [1.0, 2.5e-5])
def test_vtk_reads_what_was_written(tmp_path, spacing):
    vtk = pytest.importorskip("vtk")
    if not hasattr(vtk, "vtkXdmfReader"):
        pytest.skip("this VTK has no reader of XDMF")
    write_xdmf(tmp_path / "volume.xdmf", arrays(), spacing)
    reader = vtk.vtkXdmfReader()
    reader.SetFileName(os.fspath(tmp_path / "volume.xdmf"))
    reader.Update()
    check_image(reader.GetOutputDataObject(0), arrays(), spacing)


def test_measured_data_beside_it_are_not_overwritten(tmp_path):
    with h5py.File(tmp_path / "sample.h5", "w") as file:
        file["projections"] = np.ones(3)
    before = (tmp_path / "sample.h5").read_bytes()
    for contents in (before, b"not HDF5"):
        (tmp_path / "sample.h5").write_bytes(contents)
        with pytest.raises(ValueError, match=r"^path: expected a name whose 'sample.h5' is free"):
            write_xdmf(tmp_path / "sample.xdmf", arrays())
        assert (tmp_path / "sample.h5").read_bytes() == contents
    write_xdmf(tmp_path / "own.xdmf", arrays())
    write_xdmf(tmp_path / "own.xdmf", arrays())
    assert sorted(os.listdir(tmp_path)) == ["own.h5", "own.xdmf", "sample.h5"]


def killed_before(step, path):
    """Write another pair in a process that is killed before its step-th call that matters; whether it came so far."""
    child = os.fork()
    if not child:
        steps = iter(range(1, step))

        def watched(plain):
            def call(*arguments, **options):
                if next(steps, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*arguments, **options)

            return call

        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, watched(getattr(os, name)))
        write_xdmf(path, {"new": np.full((3, 2, 2), 2.0), "other": np.ones((3, 2, 2))})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_whenever_it_is_killed_the_text_describes_the_file_beside_it(tmp_path):
    """Killed before every step that changes names, in turn: the pair is the old one, the new one, or has no .xdmf."""
    path = tmp_path / "volume.xdmf"
    seen, step, killed = set(), 0, True
    while killed:
        step += 1
        write_xdmf(path, {"old": np.ones((2, 3, 4))})
        killed = killed_before(step, path)
        seen.add(tuple(sorted(resolve(path)[0])) if path.exists() else ())
        with h5py.File(path.with_suffix(".h5")) as file:
            assert set(file["display"]) in ({"old"}, {"new", "other"})
    assert step > 6
    assert seen == {("old",), (), ("new", "other")}
    write_xdmf(path, {"old": np.ones((2, 3, 4))})
    assert sorted(os.listdir(tmp_path)) == ["volume.h5", "volume.xdmf"]


def test_a_failure_leaves_the_old_pair(tmp_path):
    path = tmp_path / "volume.xdmf"
    write_xdmf(path, {"old": np.ones((2, 3, 4))})

    def fails(file):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_xdmf(path, {"new": np.ones((2, 3, 4))}, contents=fails)
    assert set(resolve(path)[0]) == {"old"}
    assert sorted(os.listdir(tmp_path)) == ["volume.h5", "volume.xdmf"]


def test_names_of_files(tmp_path):
    with pytest.raises(ValueError, match=r"^path: expected a name that ends in .xdmf"):
        write_xdmf(tmp_path / "volume.h5", arrays())
    (tmp_path / "theirs.xdmf").write_text("<Xdmf/>")
    assert not is_our_xdmf(tmp_path / "theirs.xdmf")
    assert not is_our_xdmf(tmp_path)
    write_xdmf(tmp_path / "ours.XDMF", arrays())
    assert is_our_xdmf(tmp_path / "ours.XDMF")
