"""Radiographs and their files: both layouts, units, and what is refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError
from ddf_tomo.datasets import data_path
from ddf_tomo.radiographs import Radiographs, read_radiographs


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name.replace("__", "/")] = value
    return path


PLAIN = {"frames": np.full((3, 2, 4), 50.0), "flat": np.full((2, 4), 100.0), "angles_deg": [0.0, 60.0, 120.0]}
EXCHANGE = {"exchange__data": PLAIN["frames"], "exchange__data_white": np.full((5, 2, 4), 100.0)}
EXCHANGE |= {"exchange__data_dark": np.zeros((1, 2, 4)), "exchange__theta": [0.0, 60.0, 120.0]}


def test_both_layouts_and_units_read_alike(tmp_path):
    plain = read_radiographs(write(tmp_path / "a.h5", **PLAIN))
    exchange = write(tmp_path / "b.h5", **EXCHANGE)
    turned = np.radians([0.0, 60.0, 120.0])
    in_radians = write(
        tmp_path / "c.h5", frames=PLAIN["frames"], flat=PLAIN["flat"], dark=np.zeros((2, 4)), angles_rad=turned
    )
    for scan in (plain, read_radiographs(exchange), read_radiographs(in_radians)):
        np.testing.assert_allclose(scan.angles_rad, turned)
        np.testing.assert_array_equal(scan.frames, PLAIN["frames"])
        np.testing.assert_array_equal(scan.flat, PLAIN["flat"])
        assert len(scan) == 3
        assert (scan.dark == 0).all()
    with h5py.File(exchange, "r+") as file:
        file["exchange/theta"][...] = turned
        file["exchange/theta"].attrs["units"] = np.bytes_("Radians")
        file.attrs["pixel_size_m"], file.attrs["title"] = 2e-6, b"bytes"
    scan = read_radiographs(str(exchange))
    np.testing.assert_allclose(scan.angles_rad, turned)
    assert scan.pixel_size_m == 2e-6
    assert scan.provenance == {"file": "b.h5", "title": "bytes"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flat": None}, "a dataset /flat"),
        ({"angles_deg": None}, "a dataset /angles_deg"),
        ({"frames": None}, "a dataset /frames"),
        ({"frames": np.zeros((3, 2))}, "frames: expected shape"),
        ({"frames": [[["text"]]]}, "frames: expected real numbers"),
        ({"flat": np.zeros((2, 4))}, "flat: expected more counts than in the dark"),
        ({"flat": np.ones((3, 4))}, "flat: expected shape"),
        ({"dark": np.ones((0, 2, 4))}, "dark: expected shape"),
        ({"angles_deg": [0.0, 1.0]}, "angles_rad: expected shape"),
        ({"angles_deg": [0.0, np.nan, 1.0]}, "finite"),
    ],
)
def test_files_that_are_no_scan(tmp_path, change, expected):
    contents = {name: value for name, value in (PLAIN | change).items() if value is not None}
    with pytest.raises(FileFormatError, match=expected):
        read_radiographs(write(tmp_path / "bad.h5", **contents))


def test_damaged_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: expected an HDF5 file"):
        read_radiographs(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    whole = data_path("tooth.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    for name in ("text.h5", "cut.h5"):
        with pytest.raises(FileFormatError, match=f"a complete HDF5 file, got .*{name}"):
            read_radiographs(tmp_path / name)
    with pytest.raises(FileFormatError, match="with nothing"):
        read_radiographs(write(tmp_path / "empty.h5"))
    write(tmp_path / "group.h5", frames__inside=[1.0], **{k: v for k, v in PLAIN.items() if k != "frames"})
    with pytest.raises(FileFormatError, match="a dataset /frames"):
        read_radiographs(tmp_path / "group.h5")
    gradians = write(tmp_path / "units.h5", **PLAIN)
    with h5py.File(gradians, "r+") as file:
        file["angles_deg"].attrs["units"] = "gon"
    with pytest.raises(FileFormatError, match=r"angles in degrees or radians, got .* units 'gon'"):
        read_radiographs(gradians)


def test_radiographs_are_checked_and_cannot_change():
    good = {"frames": np.ones((2, 3, 4)), "flat": np.full((3, 4), 2), "dark": None, "angles_rad": [0.0, 1.0]}
    scan = Radiographs(**good, pixel_size_m=1e-6, provenance={"made": 1})
    assert scan.provenance["made"] == "1"
    assert repr(scan) == "Radiographs(2 views of 3 rows x 4 columns, angles 0 to 1 rad)"
    with pytest.raises(ValueError, match="read-only"):
        scan.frames[0] = 0
    bad = {
        "frames": (np.ones((0, 3, 4)), np.ones((2, 3, 4)) * np.nan, np.ones((2, 3)), np.ones((2, 3, 0))),
        "flat": (np.zeros((3, 4)), np.ones((4, 3)), np.full((3, 4), np.inf)),
        "dark": (np.ones(4), np.full((3, 4), 5.0)),
        "angles_rad": ([0.0], [0.0, 90.0], [0.0, np.inf]),
        "pixel_size_m": (0.0, -1e-6, 5.0),
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match="expected"):
                Radiographs(**(good | {name: value}))
    with pytest.raises(TypeError, match="frames: expected real numbers"):
        Radiographs(**(good | {"frames": np.ones((2, 3, 4), complex)}))
