"""The command line: each command does what the library does, and mistakes end with one line and exit code 2."""

from __future__ import annotations

import json
import sys
import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import ddf_tomo
from ddf_tomo import Geometry, cli
from ddf_tomo.doctor import Finding, Report
from ddf_tomo.operators.responses import SaxsResponse


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
    for command in ("demo", "retrieve", "reconstruct", "doctor"):
        assert f"\n  {command} " in out


@pytest.mark.parametrize("command", ["demo", "retrieve", "reconstruct", "doctor"])
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
    options = ("--ell-max", 2, "--smoothness", 0.01, "--iterations", 5, "--json")
    code, out, _ = run("reconstruct", scan_file, "-o", path, *options)  # standard error may show progress
    assert code == 0
    figures = json.loads(out)
    expected = ddf_tomo.reconstruct(ddf_tomo.Scan.read(scan_file), ell_max=2, smoothness=0.01, iterations=5)
    assert (figures["views"], figures["shape"], figures["ell_max"]) == (15, [8, 8, 8, 6], 2)
    assert (figures["smoothness"], figures["iterations"], figures["output"]) == (0.01, 5, str(path))
    assert figures["residual_share"] == pytest.approx(expected.settings["residual_share"], rel=1e-6)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["coefficients"][()], np.asarray(expected.coefficients))


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
                                    "smoothness=much", "smoothness=-1", "smoothness=nan"])  # fmt: skip
def test_reconstruct_wants_numbers_that_make_sense(complaint, scan_file, tmp_path, option):
    line = complaint("reconstruct", scan_file, "-o", tmp_path / "v.h5", f"--{option}")
    assert f"ddf-tomo: {option.partition('=')[0].replace('-', '_')}: expected " in line


def test_reconstruct_refuses_foreign_files(complaint, frames_file, tmp_path):
    complaint("reconstruct", frames_file, "-o", tmp_path / "v.h5")
    complaint("reconstruct", tmp_path / "no.h5", "-o", tmp_path / "v.h5")
    assert "--binning" in complaint("reconstruct", frames_file, "-o", tmp_path / "v.h5", "--binning", 0)


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
