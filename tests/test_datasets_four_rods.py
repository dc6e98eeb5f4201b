"""The shipped crop of the measured rods."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError
from ddf_tomo.datasets import FOUR_RODS_ROWS, crop_four_rods, data_path, four_rods


def test_crop_has_its_size_notice_and_source() -> None:
    rods = four_rods()
    rows = FOUR_RODS_ROWS[1] - FOUR_RODS_ROWS[0]
    assert rods.sample.shape == rods.reference.shape == (13, rows, 2220)
    assert rods.flat.shape == (rows, 2220)
    assert {each.dtype for each in rods[:3]} == {np.dtype(np.uint16)}
    assert (rods.pixel_size_m, rods.distance_m, rods.energy_kev) == (6.5e-6, 0.7, 25.0)
    path = data_path("four_rods.h5")
    assert path.stat().st_size <= 3e6
    assert "MIT License" in path.with_suffix(".LICENSE").read_text()
    with h5py.File(path) as file:
        assert "github.com/samanthaalloo" in file.attrs["source"]
        assert "rows 112 to 141 of 256" in file.attrs["crop"]
    # Contrast of the mask: scatter over its positions. (0.26 over the full image is mostly the beam's profile.)
    contrast = (rods.reference.std(0) / rods.reference.mean(0)).mean()
    assert contrast == pytest.approx(0.058, abs=0.003)


def test_crop_keeps_counts_and_attributes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with h5py.File(tmp_path / "full.h5", "w") as file:
        file.attrs.update({"pixel_size_m": 1e-6, "distance_m": 1.0, "energy_kev": 20.0, "licence": "MIT"})
        for name, shape in {"sample": (3, 200, 7), "reference": (3, 200, 7), "flat": (200, 7)}.items():
            file[name] = generator.integers(0, 9000, shape, dtype=np.uint16)
            file[name].attrs["axes"] = name
    crop_four_rods(tmp_path / "full.h5", tmp_path / "crop.h5")
    full, crop = four_rods(tmp_path / "full.h5"), four_rods(tmp_path / "crop.h5")
    for whole, cut in zip(full[:3], crop[:3], strict=True):
        assert np.array_equal(whole[..., slice(*FOUR_RODS_ROWS), :], cut)
    with h5py.File(tmp_path / "crop.h5") as file:
        assert file.attrs["licence"] == "MIT"
        assert file["flat"].attrs["axes"] == "flat"


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name: expected one of .*'four_rods\.h5'"):
        data_path("five_rods.h5")
    with pytest.raises(FileNotFoundError, match="path"):
        four_rods(tmp_path / "none.h5")
    for content in (b"", data_path("four_rods.h5").read_bytes()[:100_000]):
        (tmp_path / "broken.h5").write_bytes(content)
        with pytest.raises(FileFormatError, match="path"):
            four_rods(tmp_path / "broken.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["sample"] = 1
    with pytest.raises(FileFormatError, match="four rods"):
        four_rods(tmp_path / "foreign.h5")
