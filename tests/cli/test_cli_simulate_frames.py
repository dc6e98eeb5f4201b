"""``ddf-tomo simulate --frames``: the raw data of a scan, and the sample in the units of its reconstruction."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ddf_tomo import Reconstruction, Scan, cli, reconstruct
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.merits import compare
from ddf_tomo.retrieval import retrieve


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    return end.value.code


def test_frames_lead_back_to_the_sample(tmp_path, capsys):
    sizes = ("--size", 8, "--views", 24, "--tilts", "0,20,40", "--steps", 8, "--counts", 20000)
    assert (
        run(
            "simulate",
            "helicoidal",
            "--frames",
            *sizes,
            "-o",
            tmp_path / "f.h5",
            "--truth",
            tmp_path / "t.h5",
            "--json",
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["shape"] == [24, 8, 32, 32]
    assert told["pixel_size_m"] == pytest.approx(1e-5)
    frames = FrameFile.load(tmp_path / "f.h5")
    lengths = {"pixel_size_m": frames.pixel_size_m, "distance_m": frames.distance_m}
    maps = retrieve(frames.sample, frames.reference, window=1.2, smoothing=0.7, **lengths)
    scan = Scan.from_maps(maps, frames.geometry).binned(frames.pixels_per_voxel)
    assert scan.geometry.volume_shape == (8, 8, 8)
    merits = compare(reconstruct(scan, progress=False), Reconstruction.load(tmp_path / "t.h5"))
    assert merits.mean_correlation > 0.4  # of the true maps themselves: 0.83
    assert merits.nrmse_shared_orders < 0.5  # the truth is in the units of the reconstruction
    assert np.degrees(merits.direction_error_median_rad) < 20


def test_several_distances_and_what_does_not_go_together(tmp_path, capsys):
    sizes = ("--size", 4, "--views", 2, "--tilts", "0", "--steps", 3, "--pixels-per-voxel", 4)
    assert run("simulate", "shells", "--frames", *sizes, "--distances", "0.5,1", "-o", tmp_path / "f.h5") == 0
    assert FrameFile.load(tmp_path / "f.h5").distance_m == (0.5, 1.0)
    capsys.readouterr()
    assert run("simulate", "shells", "--frames", "--noise", 0.1, "-o", tmp_path / "g.h5") == 2
    assert "photons are counted" in capsys.readouterr().err
    assert run("simulate", "shells", "--frames", *sizes, "--counts", 0, "-o", tmp_path / "g.h5") == 2
    assert "counts" in capsys.readouterr().err
    assert run("simulate", "shells", "--frames", *sizes, "--distances", "far", "-o", tmp_path / "g.h5") == 2
    assert "distances" in capsys.readouterr().err
