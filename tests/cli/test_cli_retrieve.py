"""``ddf-tomo retrieve`` does what the library does."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest


def test_retrieve_writes_what_the_library_gives(run, frames_file, tmp_path):
    from ddf_tomo.retrieval import Maps, retrieve

    code, out, err = run("retrieve", frames_file, "-o", tmp_path / "maps.h5", "--window", 4, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    with h5py.File(frames_file) as file:
        expected = retrieve(file["sample"][()], file["reference"][()], window=4)
    maps = Maps.load(tmp_path / "maps.h5")
    np.testing.assert_array_equal(maps.covariance, expected.covariance)
    assert (maps.pixel_size_m, maps.distance_m) == (5e-6, 0.5)
    assert figures["shape"] == [40, 42]
    assert figures["median_transmission"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["output"] == str(tmp_path / "maps.h5")


def test_retrieve_prints_for_people_too(run, frames_file, tmp_path):
    code, out, _ = run("retrieve", frames_file, "-o", tmp_path / "maps.h5")
    assert code == 0
    assert "shape: 40 × 42\n" in out
    assert "median transmission: 0.6667\n" in out


def write(path, **contents):
    with h5py.File(path, "w") as file:
        for name, value in contents.items():
            file[name] = value
    return path


def test_retrieve_without_a_file_or_a_place_for_the_result(complaint, frames_file, tmp_path):
    assert "frames: expected an HDF5 file" in complaint("retrieve", tmp_path / "no.h5", "-o", tmp_path / "m.h5")
    assert "existing folder" in complaint("retrieve", frames_file, "-o", tmp_path / "no" / "m.h5")
    assert "output: expected a file name" in complaint("retrieve", frames_file, "-o", tmp_path)
    assert "Missing option '-o' / '--output'" in complaint("retrieve", frames_file)
    assert "Missing argument" in complaint("retrieve")


def test_retrieve_from_foreign_and_truncated_files(complaint, frames_file, tmp_path):
    output = "-o", tmp_path / "m.h5"
    no_reference = write(tmp_path / "half.h5", sample=np.ones((8, 40, 40)))
    assert "expected a dataset 'reference', got" in complaint("retrieve", no_reference, *output)
    assert "with nothing" in complaint("retrieve", write(tmp_path / "empty.h5"), *output)
    text = tmp_path / "text.h5"
    text.write_text("not HDF5 at all")
    assert "a complete HDF5 file" in complaint("retrieve", text, *output)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(frames_file.read_bytes()[:-5000])
    assert "a complete HDF5 file" in complaint("retrieve", cut, *output)
    assert not (tmp_path / "m.h5").exists()


def test_retrieve_passes_the_librarys_complaints_on(complaint, frames_file, tmp_path):
    output = "-o", tmp_path / "m.h5"
    assert "method: expected one of" in complaint("retrieve", frames_file, *output, "--method", "magic")
    assert "window" in complaint("retrieve", frames_file, *output, "--window", "-1")
    assert "--window" in complaint("retrieve", frames_file, *output, "--window", "wide")
