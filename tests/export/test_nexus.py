"""NeXus attributes: what viewers follow from the root of a file to the picture they show first."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

from ddf_tomo.export import SIGNALS, annotate
from tests.export.sample import SHAPE, reconstruction


@pytest.fixture
def saved(tmp_path):
    made = reconstruction(provenance={"title": "tendon", "ddf_tomo": "0.1", "created": "2026-01-01T00:00:00+00:00"})
    made.save(tmp_path / "volume.h5")
    return made, tmp_path / "volume.h5"


def attribute(node, name):
    """As any reader of HDF5 sees it; only texts of fixed length are right."""
    kind = node.attrs.get_id(name).get_type()
    assert kind.get_class() == h5py.h5t.STRING
    assert not kind.is_variable_str()
    value = node.attrs[name]
    return [entry.decode() for entry in value] if isinstance(value, np.ndarray) else value.decode()


def test_the_way_from_the_root_to_the_mean(saved):
    made, path = saved
    with h5py.File(path) as file:
        assert attribute(file, "NX_class") == "NXroot"
        entry = file[attribute(file, "default")]
        assert attribute(entry, "NX_class") == "NXentry"
        data = entry[attribute(entry, "default")]
        assert attribute(data, "NX_class") == "NXdata"
        signal = data[attribute(data, "signal")]
        np.testing.assert_array_equal(signal, made.derived().mean)
        assert attribute(signal, "units") == "data per voxel edge of 2.5e-05 m"
        assert attribute(data, "axes") == ["x", "y", "z"]
        for axis, n in zip("xyz", SHAPE, strict=True):
            np.testing.assert_allclose(data[axis], 2.5e-5 * (np.arange(n) - (n - 1) / 2), atol=1e-18)
            assert attribute(data[axis], "units") == "m"
        for name in attribute(data, "auxiliary_signals"):
            np.testing.assert_allclose(data[name], getattr(made.derived(), name), rtol=1e-6)
            assert data[name].shape == signal.shape
        assert signal == file["derived/mean"]  # a link: stored once


def test_what_else_there_is_to_see(saved):
    made, path = saved
    with h5py.File(path) as file:
        for name in ("direction", "coefficients"):
            data = file["entry"][name]
            assert attribute(data, "NX_class") == "NXdata"
            assert attribute(data, "axes") == ["x", "y", "z", "."]
            assert data[attribute(data, "signal")].shape[:3] == SHAPE
        process = file["entry/process"]
        assert attribute(process, "NX_class") == "NXprocess"
        assert process["program"][()] == b"ddf_tomo"
        assert process["date"][()].startswith(b"2026")
        assert json.loads(process["settings/data"][()]) == dict(made.settings)
        assert json.loads(process["provenance/data"][()]) == dict(made.provenance)
        assert file["entry/title"][()] == b"tendon"


def test_all_texts_have_a_fixed_length(saved):
    """HDF5 2.0 crashes the process on damaged ones of variable length."""
    seen = []

    def check(name, node):
        if hasattr(node, "dtype"):
            assert h5py.check_string_dtype(node.dtype) is None or h5py.check_string_dtype(node.dtype).length, name
        seen.extend(attribute(node, key) for key in node.attrs)

    with h5py.File(saved[1]) as file:
        file.visititems(check)
    assert len(seen) > 20


def test_silx_shows_the_mean_first(saved):
    nxdata = pytest.importorskip("silx.io.nxdata")
    made, path = saved
    with h5py.File(path) as file:
        found = nxdata.get_default(file)
        assert found.is_valid
        assert found.signal_name == "mean (data per voxel edge of 2.5e-05 m)"
        np.testing.assert_array_equal(found.signal[()], made.derived().mean)
        assert [axis.shape[0] for axis in found.axes] == list(SHAPE)
        assert found.axes_names == ["x (m)", "y (m)", "z (m)"]
        assert found.auxiliary_signals_dataset_names == list(SIGNALS[1:])
        assert nxdata.get_default(file["entry/direction"]).is_valid


def test_without_a_voxel_size(tmp_path):
    reconstruction(voxel_size_m=None).save(tmp_path / "volume.h5")
    with h5py.File(tmp_path / "volume.h5") as file:
        assert attribute(file["entry/volume/x"], "units") == "voxel"
        assert file["entry/volume/x"][()].tolist() == [-2, -1, 0, 1, 2]


def test_a_file_without_the_arrays(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file, pytest.raises(ValueError, match=r"^file: expected an HDF5"):
        annotate(file, {})
    assert os.listdir(tmp_path) == ["empty.h5"]
