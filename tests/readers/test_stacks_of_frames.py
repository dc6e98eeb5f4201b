"""Frames of every format are what another library wrote; damaged and foreign files are named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError
from ddf_tomo.readers import find_layout, open_frames

FRAMES = np.random.default_rng(0).integers(0, 60000, (5, 7, 9)).astype(np.uint16)


def tiff(path, frames, **options):
    pytest.importorskip("tifffile").imwrite(path, frames, photometric="minisblack", **options)


def edf(path, frames):
    image = pytest.importorskip("fabio").edfimage.EdfImage(data=frames[0])
    for frame in frames[1:]:
        image.append_frame(data=frame)
    image.write(str(path))


def npy(path, frames):
    np.save(path, frames)


def hdf5(path, frames):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")


@pytest.mark.parametrize(
    ("suffix", "write"), [(".tif", tiff), (".TIFF", tiff), (".edf", edf), (".npy", npy), (".h5", hdf5)]
)
def test_frames_are_read_as_they_were_written(tmp_path, suffix, write):
    path = tmp_path / f"frames{suffix}"
    write(path, FRAMES)
    stack = open_frames(path)
    assert stack.axes == (5,)
    assert (stack.frames.shape, stack.frames.dtype) == ((5, 7, 9), np.uint16)
    np.testing.assert_array_equal(stack.frames[3], FRAMES[3])
    np.testing.assert_array_equal(stack.frames[np.array([4, 0, 2])], FRAMES[[4, 0, 2]])


@pytest.mark.parametrize(("suffix", "write"), [(".tif", tiff), (".npy", npy), (".h5", hdf5)])
def test_axes_in_front_are_told(tmp_path, suffix, write):
    path = tmp_path / f"frames{suffix}"
    write(path, FRAMES[:4].reshape(2, 2, 7, 9))
    stack = open_frames(path)
    assert stack.axes == (2, 2)
    np.testing.assert_array_equal(stack.frames[3], FRAMES[3])


def test_single_images_and_floats(tmp_path):
    tiff(tmp_path / "one.tif", FRAMES[0].astype(np.float32))
    stack = open_frames(tmp_path / "one.tif")
    assert (stack.axes, stack.frames.shape, stack.frames.dtype) == ((), (1, 7, 9), np.float32)
    tiff(tmp_path / "imagej.tif", FRAMES, imagej=True)
    np.testing.assert_array_equal(np.asarray(open_frames(tmp_path / "imagej.tif").frames), FRAMES)
    tiff(tmp_path / "packed.tif", FRAMES, compression="zlib")
    np.testing.assert_array_equal(open_frames(tmp_path / "packed.tif").frames[4], FRAMES[4])


def test_colour_is_refused(tmp_path):
    pytest.importorskip("tifffile").imwrite(tmp_path / "c.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(FileFormatError, match="shades of grey"):
        open_frames(tmp_path / "c.tif")


@pytest.mark.parametrize(("suffix", "write"), [(".tif", tiff), (".edf", edf), (".npy", npy), (".h5", hdf5)])
def test_damaged_files_are_named(tmp_path, suffix, write):
    path = tmp_path / f"broken{suffix}"
    write(path, FRAMES)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileFormatError, match=f"broken{suffix}"):
        np.asarray(open_frames(path).frames)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="existing file"):
        open_frames(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(FileFormatError, match=r"a file named \.tif, .*a\.jpg"):
        open_frames(tmp_path / "a.jpg")
    npy(tmp_path / "a.npy", FRAMES)
    with pytest.raises(FileFormatError, match="only HDF5 files have names inside"):
        open_frames(tmp_path / "a.npy", "/entry")
    npy(tmp_path / "b.npy", FRAMES > 3)
    with pytest.raises(FileFormatError, match="frames of real numbers"):
        open_frames(tmp_path / "b.npy")
    with pytest.raises(ValueError, match="kind: expected one of"):
        open_frames(tmp_path / "a.npy", kind="flat")


# -- layouts of HDF5 --------------------------------------------------------------------------------------------------


def nxtomo(path, detector="entry0000/instrument/detector", entry="entry0000", key="image_key"):
    with h5py.File(path, "w") as file:
        place = file.create_group(detector)
        place["data"] = FRAMES
        place[key] = [2, 1, 0, 0, 3]
        place["x_pixel_size"] = 6.5
        place["x_pixel_size"].attrs["units"] = "um"
        place["distance"] = 700.0
        place["distance"].attrs["units"] = "mm"
        file[f"{entry}/beam/incident_energy"] = 25000.0
        file[f"{entry}/beam/incident_energy"].attrs["units"] = "eV"
        file[f"{entry}/sample/rotation_angle"] = [0, 0, 10.0, 190.0, 0]
        file[f"{entry}/sample/rotation_angle"].attrs["units"] = "degree"
    return path


@pytest.mark.parametrize(
    ("detector", "entry", "key"),
    [
        ("entry0000/instrument/detector", "entry0000", "image_key"),  # ESRF: nxtomomill, nabu
        ("entry0000/instrument/detector", "entry0000", "image_key_control"),
        ("entry1/tomo_entry/instrument/detector", "entry1/tomo_entry", "image_key"),  # Diamond
    ],
)
def test_nxtomo(tmp_path, detector, entry, key):
    path = nxtomo(tmp_path / "t.nxs", detector, entry, key)
    layout = find_layout(path)
    assert (layout.name, layout.has) == ("NXtomo", ("sample", "reference", "dark"))
    np.testing.assert_allclose(layout.angles_rad, np.radians([10.0, 190.0]))
    assert (layout.pixel_size_m, layout.distance_m, layout.energy_kev) == pytest.approx((6.5e-6, 0.7, 25.0))
    for kind, places in {"sample": [2, 3], "reference": [1], "dark": [0]}.items():
        for dataset in (None, f"/{entry}", f"/{detector}/data"):
            np.testing.assert_array_equal(np.asarray(open_frames(path, dataset, kind=kind).frames), FRAMES[places])


def test_data_exchange(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["exchange/data"], file["exchange/data_white"] = FRAMES[:3], FRAMES[3:]
        file["exchange/theta"] = [0.0, 90.0, 180.0]
    layout = find_layout(tmp_path / "x.h5")
    assert (layout.name, layout.has) == ("DataExchange", ("sample", "reference"))
    np.testing.assert_allclose(layout.angles_rad, [0, np.pi / 2, np.pi])
    np.testing.assert_array_equal(np.asarray(open_frames(tmp_path / "x.h5", kind="reference").frames), FRAMES[3:])
    with pytest.raises(FileFormatError, match="/exchange/data_dark"):
        open_frames(tmp_path / "x.h5", kind="dark")


def test_esrf_raw_data_and_nexus_defaults(tmp_path):
    with h5py.File(tmp_path / "bliss.h5", "w") as file:
        file["1.1/measurement/hrsrot"] = np.arange(5.0)
        file["1.1/measurement/pcoedge"] = FRAMES
        file["2.1/measurement/pcoedge"] = FRAMES[:2]
    layout = find_layout(tmp_path / "bliss.h5")
    assert (layout.name, layout.data) == ("BLISS", "/1.1/measurement/pcoedge")
    assert find_layout(tmp_path / "bliss.h5", "2.1").data == "/2.1/measurement/pcoedge"
    with h5py.File(tmp_path / "diamond.nxs", "w") as file:
        file["entry/data/data"], file["entry/other/data"] = FRAMES, FRAMES
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs["signal"] = "data"
    assert find_layout(tmp_path / "diamond.nxs")[:2] == ("NeXus", "/entry/data/data")


def test_any_file_with_one_stack_and_no_guess_among_several(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/inside/frames"], file["numbers"] = FRAMES, np.arange(4)
        file["link"] = file["deep/inside/frames"]
    assert find_layout(tmp_path / "a.h5").name == "HDF5"
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["more"] = FRAMES
    with pytest.raises(FileFormatError, match=r"one stack of frames, got /.*Name one"):
        find_layout(tmp_path / "a.h5")
    with pytest.raises(FileFormatError, match="'/nothing', beside /deep"):
        find_layout(tmp_path / "a.h5", "/nothing")
    with pytest.raises(FileFormatError, match="frames"):
        find_layout(tmp_path / "a.h5", "/numbers")


def test_keys_and_angles_of_a_wrong_length(tmp_path):
    path = nxtomo(tmp_path / "t.nxs")
    with h5py.File(path, "r+") as file:
        del file["entry0000/sample/rotation_angle"]
        file["entry0000/sample/rotation_angle"] = [0.0, 1.0]
    with pytest.raises(FileFormatError, match="rotation_angle: expected an angle for each of 5 frames"):
        find_layout(path)
    with h5py.File(path, "r+") as file:
        del file["entry0000/instrument/detector/image_key"]
        file["entry0000/instrument/detector/image_key"] = [0, 0]
    with pytest.raises(FileFormatError, match="image_key: expected a number for each"):
        find_layout(path)
    nxtomo(path)
    with h5py.File(path, "r+") as file:
        file["entry0000/instrument/detector/distance"].attrs["units"] = "furlong"
    with pytest.raises(FileFormatError, match="a unit of m, cm"):
        find_layout(path)
