"""The command line as a program: help, versions, the doctor, the demo, and how it fails."""

from __future__ import annotations

import json
import re
import sys
import warnings
from types import SimpleNamespace

import pytest

import ddf_tomo
from ddf_tomo import cli
from ddf_tomo.doctor import Finding, Report

COMMANDS = ("demo", "simulate", "retrieve", "reconstruct", "report", "train", "doctor")


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
