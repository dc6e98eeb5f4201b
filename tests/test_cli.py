"""The command line: each command does what the library does, and mistakes end with one line and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import ddf_tomo
from ddf_tomo import Geometry, cli
from ddf_tomo.doctor import Finding, Report
from ddf_tomo.merits import compare
from ddf_tomo.operators.responses import RankTwoResponse, SaxsResponse, SecondMomentResponse
from ddf_tomo.phantoms import PHANTOMS, tilt_series
from ddf_tomo.phantoms import simulate as simulate_scan

COMMANDS = ("demo", "simulate", "retrieve", "reconstruct", "report", "train", "doctor")


@pytest.fixture
def run(capsys):
    """A function that runs ``ddf-tomo`` and gives exit code, standard output and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def complaint(run):
    """A function that runs what must fail, checks the manners of the failure, and gives its one line."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("ddf-tomo: ")
        assert err.count("\n") == 1
        return err

    return call


@pytest.fixture(scope="module")
def frames_file(tmp_path_factory):
    """Frames behind a mask that moved by one pixel, with a third of the light gone."""
    generator = np.random.default_rng(0)
    reference = 3000 * (1 + 0.3 * generator.random((8, 40, 42)))
    path = tmp_path_factory.mktemp("frames") / "frames.h5"
    with h5py.File(path, "w") as file:
        file["reference"], file["sample"] = reference, reference * (2 / 3)
        file.attrs.update({"pixel_size_m": 5e-6, "distance_m": 0.5})
    return path


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    """A small SAXS scan of an anisotropic ball, in MUMOTT's layout."""
    geometry = Geometry.from_angles(np.linspace(0, np.pi, 12, endpoint=False), 0.0, (8, 8, 8), (8, 8))
    geometry = Geometry.concatenate([geometry, Geometry.from_angles([0.3, 1.2, 2.5], 0.7, (8, 8, 8), (8, 8))])
    response = SaxsResponse(np.arange(4) * np.pi / 4)
    grid = np.arange(8) - 3.5
    ball = (grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2 < 9)[..., None]
    coefficients = (ball * [3.0, 0.1, 0.2, 0.5, -0.1, 0.3]).astype(np.float32)
    data = ddf_tomo.TensorXRayTransform(geometry, response, 2)(coefficients)
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    ddf_tomo.Scan(data, geometry, response, voxel_size_m=1e-5).write(path)
    return path


# -- help and versions ------------------------------------------------------------------------------------------------


def test_without_arguments_it_explains_itself(run):
    code, out, _ = run()
    assert code == 0
    names = re.findall(r"^  ([a-z]+)  +[A-Z].*\.$", out, re.MULTILINE)  # none of the explanations is cut off
    assert tuple(names) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself(run, command, option):
    code, out, err = run(command, option)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: ddf-tomo {command}")


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"ddf-tomo {ddf_tomo.__version__}\n", "")


def test_arguments_come_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ddf-tomo", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out.startswith("ddf-tomo ")


# -- retrieve ---------------------------------------------------------------------------------------------------------


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


# -- reconstruct ------------------------------------------------------------------------------------------------------


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


# -- simulate ---------------------------------------------------------------------------------------------------------


def test_simulate_writes_what_the_library_gives(run, tmp_path):
    words = ("simulate", "helicoidal", "-o", tmp_path / "s.h5", "--size", 8, "--tilts", "0,30", "--views", 11)
    code, out, err = run(*words, "--seed", 3, "--voxel-size", 25, "--json")
    assert (code, err) == (0, "")
    figures, scan = json.loads(out), ddf_tomo.Scan.read(tmp_path / "s.h5")
    geometry = tilt_series((8, 8, 8), tilts_rad=np.radians([0, 30]), views=[4, 7])
    expected = simulate_scan("helicoidal", geometry, SecondMomentResponse(), noise=0.02, seed=3)
    np.testing.assert_allclose(scan.data, expected.data, rtol=1e-6)
    np.testing.assert_allclose(scan.weights, np.broadcast_to(expected.weights, scan.data.shape))
    np.testing.assert_allclose(scan.geometry.p, geometry.p, atol=1e-12)
    assert (scan.response, scan.voxel_size_m) == (SecondMomentResponse(), pytest.approx(25e-6))
    assert scan.title == "simulated sample: helicoidal"
    assert (figures["views"], figures["shape"], figures["seed"]) == (11, [11, 8, 8, 3], 3)
    assert figures["strongest_signal"] == pytest.approx(float(scan.data.max()))


def test_simulate_has_the_views_of_a_real_scan_by_default(run, tmp_path):
    assert run("simulate", "shells", "-o", tmp_path / "s.h5", "--size", "4,4,6")[0] == 0
    geometry = ddf_tomo.Scan.read(tmp_path / "s.h5").geometry
    np.testing.assert_allclose(geometry.p, tilt_series((4, 4, 6)).p, atol=1e-12)
    assert geometry.volume_shape == (4, 4, 6)


RESPONSES = {
    "second-moment": (SecondMomentResponse(), 3),
    "rank-two": (RankTwoResponse(), 3),
    "saxs": (SaxsResponse(np.arange(5) * np.pi / 5), 5),
    "rank-two-saxs": (ddf_tomo.RankTwoSaxsResponse(np.arange(5) * np.pi / 5), 5),
    "visibility": (ddf_tomo.VisibilityResponse(np.arange(5) * np.pi / 5), 5),
    "directional-visibility": (ddf_tomo.DirectionalVisibilityResponse(np.arange(5) * np.pi / 5, 1.0), 5),
    "isotropic": (ddf_tomo.IsotropicResponse(), 1),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_simulate_for_every_response(run, tmp_path, name):
    """And the truth that is kept predicts the data, up to the finer grid that they were made on."""
    response, channels = RESPONSES[name]
    words = ("simulate", "shells", "-o", tmp_path / "s.h5", "--truth", tmp_path / "t.h5", "--size", 12)
    code, _, err = run(*words, "--views", 8, "--response", name, "--segments", 5, "--noise", 0)
    assert (code, err) == (0, "")
    scan, truth = ddf_tomo.Scan.read(tmp_path / "s.h5"), ddf_tomo.Reconstruction.load(tmp_path / "t.h5")
    assert (scan.response, scan.data.shape, scan.weights) == (response, (8, 12, 12, channels), None)
    assert (truth.response, truth.geometry) == (scan.response, scan.geometry)
    assert np.linalg.norm(truth.predicted() - scan.data) < 0.1 * np.linalg.norm(scan.data)
    expected = PHANTOMS["shells"]((12, 12, 12))
    exact = expected.tensors() if name.startswith("rank-two") else expected.coefficients
    np.testing.assert_array_equal(truth.coefficients, exact)


def test_simulate_counts(run, complaint, tmp_path):
    words = ("simulate", "bundles", "-o", tmp_path / "s.h5", "--size", 8, "--views", 8, "--response", "saxs")
    code, out, _ = run(*words, "--counts", 100)
    assert code == 0
    assert "noise model: poisson\ncounts: 100\n" in out
    scan = ddf_tomo.Scan.read(tmp_path / "s.h5")
    counted = scan.data * 100 / float(scan.provenance["counts"])
    assert len(np.unique(np.round(counted / counted[counted > 0].min(), 3))) < 200  # multiples of one count
    assert "either --noise or --counts" in complaint(*words, "--counts", 100, "--noise", 0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0"], "size: expected an integer in [1"),
        (["--size", "8,8"], "size: expected one number of voxels"),
        (["--size", "1e9"], "size: expected"),
        (["--size", "100000"], "size: expected"),
        (["--tilts", "0,x"], "tilts: expected angles in degrees"),
        (["--tilts", "0,nan"], "tilts: expected a finite number"),
        (["--tilts", "100"], "tilts: expected"),
        (["--views", "3"], "views: expected an integer in [7"),
        (["--views", "0"], "--views"),
        (["--noise", "-1"], "noise: expected"),
        (["--counts", "0", "--response", "saxs"], "counts: expected"),
        (["--response", "magic"], "response: expected one of"),
        (["--response", "saxs", "--segments", "0"], "--segments"),
        (["--response", "directional-visibility", "--exponent", "3"], "exponent: expected"),
        (["--voxel-size", "0"], "voxel_size: expected"),
        (["--truth", "/nowhere/t.h5"], "truth: expected a file in an existing folder"),
        (["-o", "/nowhere/s.h5"], "output: expected a file in an existing folder"),
    ],
)
def test_simulate_wants_what_makes_sense(complaint, tmp_path, options, words):
    small = () if "--size" in options else ("--size", 4)
    assert words in complaint("simulate", "mixture", "-o", tmp_path / "s.h5", *small, *options)
    assert list(tmp_path.iterdir()) == []


def test_simulate_knows_its_phantoms(complaint, run, tmp_path):
    line = complaint("simulate", "bone", "-o", tmp_path / "s.h5")
    assert "phantom: expected one of 'helicoidal'" in line
    told = re.sub(r"\s+", " ", run("simulate", "--help")[1])
    assert all(name in told for name in (*PHANTOMS, *RESPONSES))


@pytest.mark.parametrize("tilts", [[0.0], [0.0, 30.0], [10.0, 45.0, 90.0], [0.0, -45.0, 45.0]])
@pytest.mark.parametrize("views", [3, 10, 101])
def test_views_are_shared_by_the_lengths_of_the_circles(tilts, views):
    from ddf_tomo.cli._simulate import shared_views

    counts = shared_views(np.radians(tilts), views)
    assert sum(counts) == views
    assert min(counts) >= 1
    length = [0.5 if tilt == 0 else np.cos(np.radians(tilt)) for tilt in tilts]
    expected = 1 + (views - len(tilts)) * np.array(length) / sum(length)
    np.testing.assert_allclose(counts, expected, atol=1)


# -- report -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with a scan, its truth, and a volume."""
    folder = tmp_path_factory.mktemp("simulated")
    words = ["simulate", "helicoidal", "-o", folder / "s.h5", "--truth", folder / "t.h5", "--size", "8"]
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in (*words, "--views", "20")])
    scan = ddf_tomo.Scan.read(folder / "s.h5")
    A = ddf_tomo.TensorXRayTransform(scan.geometry, scan.response, 2)
    volume = ddf_tomo.Reconstruction(0.01 * A.T(scan.data), 2, scan.geometry, scan.response)
    volume.save(folder / "v.h5")
    return folder


def test_report_writes_what_the_library_gives(run, simulated, tmp_path):
    pytest.importorskip("matplotlib")
    files = ("--scan", simulated / "s.h5", "--truth", simulated / "t.h5")
    code, out, err = run("report", simulated / "v.h5", "-o", tmp_path / "r.html", *files, "--title", "mine", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["output"] == str(tmp_path / "r.html")
    assert any("not described to within their noise" in line for line in figures["warnings"])
    load = ddf_tomo.Reconstruction.load
    expected = compare(load(simulated / "v.h5"), load(simulated / "t.h5"))
    assert figures["merits"]["nrmse"] == pytest.approx(expected.nrmse)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>mine</h1>" in page
    assert all(f'<section id="{name}"' in page for name in ("residuals", "merits"))


def test_report_prints_for_people_too(run, simulated, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "ddf_tomo.report.write_report", lambda volume, path, **given: calls.append((path, given)) or ("look here",)
    )
    code, out, _ = run("report", simulated / "v.h5", "--truth", simulated / "t.h5")
    page = simulated / "v.html"
    assert code == 0
    assert calls[0][0] == page
    assert (calls[0][1]["scan"], calls[0][1]["title"]) == (None, None)
    assert out.startswith("error of the coefficients (NRMSE)")
    assert "°\n" in out
    assert out.endswith(f"warning: look here\noutput: {page}\n")


def test_report_refuses_what_does_not_belong_together(complaint, simulated, scan_file, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("report", simulated / "v.h5", "-o", tmp_path / "r.html")
    assert "scan: expected the scan of this reconstruction" in complaint(*words, "--scan", scan_file)
    complaint(*words, "--scan", simulated / "v.h5")
    complaint(*words, "--truth", simulated / "s.h5")
    complaint("report", simulated / "s.h5", "-o", tmp_path / "r.html")
    complaint("report", tmp_path / "no.h5")
    assert "output: expected a file in an existing folder" in complaint(*words[:3], tmp_path / "no" / "r.html")
    assert list(tmp_path.iterdir()) == []


# -- doctor and demo --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("works", "code"), [(True, 0), (False, 1)])
def test_the_doctors_exit_code_is_its_verdict(run, monkeypatch, works, code):
    report = Report({}, {}, (Finding("numba", works, "as told"),), (), ())
    monkeypatch.setattr("ddf_tomo.doctor.examine", lambda: report)
    assert run("doctor")[0] == code
    found, out, _ = run("doctor", "--json")
    assert (found, json.loads(out)["works"]) == (code, works)


def test_demo_gets_its_folder(run, monkeypatch, tmp_path):
    folders = []
    # A stand-in: the real one takes minutes, and `make demo` runs it.
    monkeypatch.setitem(sys.modules, "ddf_tomo.demo", SimpleNamespace(run=folders.append))
    assert run("demo", "-o", tmp_path)[0] == 0
    assert folders == [tmp_path]


# -- errors -----------------------------------------------------------------------------------------------------------


def test_unknown_commands_and_options(complaint):
    assert "No such command 'simulat'" in complaint("simulat")
    assert "No such option: --fast" in complaint("doctor", "--fast")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(frames_file, tmp_path, place):
    words = ["retrieve", str(frames_file), "-o", str(tmp_path)]
    words.insert(place, "--debug")
    with pytest.raises(ValueError, match="output: expected a file name"):
        cli.main(words)


def fail_with(monkeypatch, error):
    def examine():
        raise error

    monkeypatch.setattr("ddf_tomo.doctor.examine", examine)


def test_our_own_faults_are_told_from_the_users(run, monkeypatch):
    fail_with(monkeypatch, AssertionError("x\nis not y"))
    code, out, err = run("doctor")
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert err.startswith("ddf-tomo: AssertionError: x is not y. This is a fault of ddf_tomo")


def test_errors_of_many_lines_become_one(complaint, monkeypatch):
    fail_with(monkeypatch, ImportError("this needs mumott\n  pip install mumott"))
    assert complaint("doctor") == "ddf-tomo: this needs mumott pip install mumott\n"


def test_interruption_is_no_fault(run, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run("doctor") == (130, "", "")


def test_warnings_are_lines_on_standard_error(run, monkeypatch):
    report = Report({}, {}, (), (), ())

    def examine():
        warnings.warn("air reads\n0.7", stacklevel=1)
        return report

    monkeypatch.setattr("ddf_tomo.doctor.examine", examine)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = warnings.showwarning
        code, _, err = run("doctor", "--json")
        assert warnings.showwarning is shown
    assert (code, err) == (0, "ddf-tomo: warning: air reads 0.7\n")
