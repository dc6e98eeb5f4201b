"""``ddf-tomo reconstruct`` does what the library does, and goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest

import ddf_tomo


def test_reconstruct_writes_what_the_library_gives(run, scan_file, tmp_path):
    path = tmp_path / "volume.h5"
    options = ("--ell-max", 2, "--prior", "smoothness", "--weight", 0.01, "--iterations", 5, "--json")
    code, out, _ = run("reconstruct", scan_file, "-o", path, *options)  # standard error may show progress
    assert code == 0
    figures = json.loads(out)
    scan = ddf_tomo.Scan.read(scan_file)
    expected = ddf_tomo.reconstruct(scan, ell_max=2, prior="smoothness", weight=0.01, iterations=5)
    assert (figures["views"], figures["shape"], figures["ell_max"]) == (15, [8, 8, 8, 6], 2)
    assert (figures["prior"], figures["weight"], figures["output"]) == ("smoothness", 0.01, str(path))
    assert (figures["iterations"], figures["positive"]) == (5, False)
    assert figures["residual_share"] == pytest.approx(expected.settings["residual_share"], rel=1e-6)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["coefficients"][()], np.asarray(expected.coefficients))


def test_reconstruct_passes_all_options_on(run, scan_file, tmp_path, monkeypatch):
    given = []

    def reconstruct(scan, **options):
        given.append(options)
        raise ValueError("enough: expected nothing more")

    monkeypatch.setattr("ddf_tomo.reconstruct", reconstruct)
    words = ("reconstruct", scan_file, "-o", tmp_path / "v.h5")
    run(*words)
    run(*words, "--method", "pdhg", "--prior", "none", "--weight", "l-curve", "--positive", "--checkpoint", tmp_path)
    run(*words, "--weight", "discrepancy", "--noise-level", 3.5, "--no-checkpoint")
    assert tmp_path.is_dir(), "a folder that was there, it leaves"
    common = {"ell_max": "auto", "prior": "auto", "positive": False}
    assert given == [
        common | {"method": "cg", "weight": "auto", "checkpoint": tmp_path / "v.h5.checkpoint"},
        common | {"method": "pdhg", "prior": None, "weight": "l-curve", "positive": True, "checkpoint": tmp_path},
        common | {"method": "cg", "weight": "discrepancy", "noise_level": 3.5, "checkpoint": None},
    ]


QUICK = ("--ell-max", 2, "--weight", 0.01, "--iterations", 5)


def test_reconstruct_goes_on_where_it_was_interrupted(run, scan_file, tmp_path, monkeypatch):
    """As by Ctrl-C at the end of the iterations: the same command finds the state, and leaves none when it is done."""
    words = ("reconstruct", scan_file, *QUICK, "-o")
    assert run(*words, tmp_path / "whole.h5")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["whole.h5"]
    with monkeypatch.context() as patch:
        patch.setattr(ddf_tomo.Reconstruction, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, err = run(*words, tmp_path / "volume.h5")
    state = tmp_path / "volume.h5.checkpoint"
    assert code == 130
    assert f"ddf-tomo: interrupted; the same command goes on from {state}\n" in err
    assert (state / "final.h5").exists()
    code, _, err = run("reconstruct", scan_file, *QUICK[:-1], 4, "-o", tmp_path / "volume.h5")
    assert (code, state.exists()) == (2, True), "other wishes: refused, and nothing lost"
    assert "checkpoint: expected at most iterations=4, got 5" in err
    code, _, err = run(*words, tmp_path / "volume.h5")
    assert code == 0
    assert f"ddf-tomo: going on from {state}\n" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["volume.h5", "whole.h5"]
    first, second = (ddf_tomo.Reconstruction.load(tmp_path / f"{name}.h5") for name in ("whole", "volume"))
    np.testing.assert_array_equal(first.coefficients, second.coefficients)


def test_reconstruct_leaves_no_state_of_what_cannot_be(complaint, run, scan_file, tmp_path):
    complaint("reconstruct", scan_file, "-o", tmp_path / "v.h5", "--method", "irtt")
    huge = dataclasses.replace(ddf_tomo.Scan.read(scan_file), data=np.full((15, 8, 8, 4), 1e38, np.float32))
    huge.write(tmp_path / "huge.h5")
    assert "overflow" in complaint("reconstruct", tmp_path / "huge.h5", *QUICK, "-o", tmp_path / "v.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["huge.h5"]
    (tmp_path / "mine" / "search").mkdir(parents=True)
    (tmp_path / "mine" / "search" / "notes.txt").write_text("kept")
    assert run("reconstruct", scan_file, *QUICK, "--checkpoint", tmp_path / "mine", "-o", tmp_path / "v.h5")[0] == 0
    assert sorted(path.name for path in (tmp_path / "mine").rglob("*")) == ["notes.txt", "search"]
    assert run("reconstruct", scan_file, *QUICK, "--no-checkpoint", "-o", tmp_path / "v.h5")[0] == 0


def test_reconstruct_several_scans(run, complaint, scan_file, tmp_path):
    """Braces stand for the name of the scan; the second one starts from the first."""
    scan = ddf_tomo.Scan.read(scan_file)
    scans = [scan, dataclasses.replace(scan, data=2 * scan.data)]
    files = [tmp_path / "q1.h5", tmp_path / "q2.h5"]
    for each, path in zip(scans, files, strict=True):
        each.write(path)
    code, out, _ = run("reconstruct", *files, *QUICK, "-o", tmp_path / "volume_{}.h5", "--json")
    assert code == 0
    volumes = json.loads(out)["volumes"]
    assert [each["scan"] for each in volumes] == [str(path) for path in files]
    assert [each["output"] for each in volumes] == [str(tmp_path / f"volume_q{n}.h5") for n in (1, 2)]
    expected = ddf_tomo.reconstruct(scans, ell_max=2, weight=0.01, iterations=5)
    for number, volume in enumerate(expected, 1):
        found = ddf_tomo.Reconstruction.load(tmp_path / f"volume_q{number}.h5")
        np.testing.assert_array_equal(found.coefficients, volume.coefficients)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q1.h5", "q2.h5", "volume_q1.h5", "volume_q2.h5"]
    out = run("reconstruct", *files, *QUICK, "-o", tmp_path / "v_{}.vti")[1]
    assert f"scan: {files[0]}\n" in out
    assert f"\n\nscan: {files[1]}\n" in out
    words = ("reconstruct", *files, "-o")
    assert "output: expected a name with {} for 2 scans" in complaint(*words, tmp_path / "volume.h5")
    assert "output: expected another file than the scan" in complaint(*words, tmp_path / "{}.h5")
    assert "report: expected a name with {}" in complaint(*words, tmp_path / "v_{}.h5", "--report", tmp_path / "r.html")
    twice = ("reconstruct", files[0], files[0], "-o", tmp_path / "v_{}.h5")
    assert "output: expected scans with names of their own" in complaint(*twice)


def test_reconstruct_never_writes_over_its_scan(complaint, scan_file):
    before = scan_file.read_bytes()
    assert "output: expected another file than the scan" in complaint("reconstruct", scan_file, "-o", scan_file)
    assert scan_file.read_bytes() == before


def test_reconstruct_bins_first_if_asked(run, scan_file, tmp_path):
    code, out, _ = run(
        "reconstruct", scan_file, "-o", tmp_path / "v.h5", "--binning", 2, "--ell-max", 0, "--iterations", 2
    )
    assert code == 0
    assert "shape: 4 × 4 × 4 × 1\n" in out


def test_reconstruct_masks_nan_only_if_asked(run, complaint, scan_file, tmp_path):
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(scan_file.read_bytes())
    with h5py.File(damaged, "r+") as file:
        data = file["projections/3/data"][()]
        data[2, 2, 1] = np.nan
        file["projections/3/data"][...] = data
    arguments = ("reconstruct", damaged, "-o", tmp_path / "v.h5", "--ell-max", 0, "--iterations", 2)
    assert "finite" in complaint(*arguments)
    assert run(*arguments, "--mask")[0] == 0


@pytest.mark.parametrize("option", ["ell-max=3", "ell-max=-2", "ell-max=two", "ell-max=2.5", "ell-max=",
                                    "weight=much", "weight=-1", "weight=nan", "prior=vague",
                                    "method=magic"])  # fmt: skip
def test_reconstruct_wants_numbers_that_make_sense(complaint, scan_file, tmp_path, option):
    line = complaint("reconstruct", scan_file, "-o", tmp_path / "v.h5", f"--{option}")
    assert f"ddf-tomo: {option.partition('=')[0].replace('-', '_')}: expected " in line


def test_reconstruct_refuses_foreign_files(complaint, frames_file, tmp_path):
    complaint("reconstruct", frames_file, "-o", tmp_path / "v.h5")
    complaint("reconstruct", tmp_path / "no.h5", "-o", tmp_path / "v.h5")
    assert "--binning" in complaint("reconstruct", frames_file, "-o", tmp_path / "v.h5", "--binning", 0)


def test_reconstruct_writes_for_paraview_by_the_suffix(run, complaint, scan_file, tmp_path):
    words = ("reconstruct", scan_file, "--ell-max", 0, "--iterations", 2, "-o")
    assert run(*words, tmp_path / "volume.vti")[0] == 0
    assert (tmp_path / "volume.vti").read_bytes().startswith(b"<?xml")
    assert "expected a name that ends in .h5, " in complaint(*words, tmp_path / "volume.docx")
    assert run(*words, tmp_path / "theirs.h5", "--format", "mumott")[0] == 0
    with pytest.raises(ddf_tomo.FileFormatError):
        ddf_tomo.Reconstruction.load(tmp_path / "theirs.h5")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["theirs.h5", "volume.vti"]


def test_reconstruct_with_a_report(run, complaint, scan_file, tmp_path, monkeypatch):
    calls = []

    def write_report(volume, path, scan):
        calls.append((volume.ell_max, path, scan.geometry.detector_shape))
        return ("first thing", "second thing")

    monkeypatch.setattr("ddf_tomo.report.write_report", write_report)
    words = ("reconstruct", scan_file, "-o", tmp_path / "v.h5", "--ell-max", 0, "--iterations", 2, "--binning", 2)
    code, out, _ = run(*words, "--report", tmp_path / "r.html")
    assert code == 0
    assert calls == [(0, tmp_path / "r.html", (4, 4))]
    assert "warning: first thing\nwarning: second thing\n" in out
    figures = json.loads(run(*words, "--report", tmp_path / "r.html", "--json")[1])
    assert (figures["warnings"], figures["report"]) == (["first thing", "second thing"], str(tmp_path / "r.html"))
    assert "report: expected a file in an existing folder" in complaint(*words, "--report", tmp_path / "no" / "r.html")
