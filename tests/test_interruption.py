"""Killed at any moment, `reconstruct` leaves no partial result, and goes on to the same end."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError, RankTwoResponse, reconstruct
from ddf_tomo.operators.rank_two import rank_two_from_second_moment
from ddf_tomo.solvers import Checkpoint
from tests.interruption import CASES, FIRST, SECOND, same

KILLS = 10  # of each case, at least
MEMORY = "/dev/shm"  # a disk that other tests keep busy would only make it slower


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """What happened to each case."""
    if not sys.platform.startswith("linux"):
        pytest.skip("forks and kills")
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.interruption", folder, str(KILLS)],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed(record, case):
    told = record[case]
    assert len(told["after"]) >= KILLS
    assert told["ends"] >= 1
    assert not told["half"], "what stood under the final name was not the result"
    assert not told["different"], "the result is not that of an uninterrupted run"
    assert not told["left"], "partial files were left behind"


def test_the_kills_hit_every_stage(record):
    """Before the first file, in the search, in the final iterations, and with several scans between them."""
    after = " ".join(moment for told in record.values() for moment in told["after"])
    assert sum(len(told["after"]) for told in record.values()) >= 50
    for stage in ("plan.h5", "search/some-views", "search/all-views", "final.h5", "state/1/"):
        assert stage in after, after


# -- in one process ---------------------------------------------------------------------------------------------------

QUICK = {"ell_max": 2, "iterations": 4, "progress": False}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_was_complete_is_there_at_once(tmp_path, monkeypatch):
    first = reconstruct(FIRST, checkpoint=tmp_path / "state", **QUICK)
    assert files(tmp_path) == ["state", "state/final.h5", "state/plan.h5", "state/weight.h5"]
    for name in ("cross_validated_weight", "conjugate_gradients"):  # no search, no fit
        monkeypatch.setattr(f"ddf_tomo._one_scan.{name}", None)
    assert same(reconstruct(FIRST, checkpoint=tmp_path / "state", **QUICK), first)


@pytest.mark.parametrize("method", ["cg", "fista", "irtt"])
def test_more_iterations_go_on_and_fewer_are_refused(method, tmp_path, tensors):
    scan, options = (tensors, {}) if method == "irtt" else (FIRST, {"ell_max": 2})
    options |= {"method": method, "weight": 0.01, "progress": False}
    reconstruct(scan, iterations=3, checkpoint=tmp_path / "state", **options)
    longer = reconstruct(scan, iterations=7, checkpoint=tmp_path / "state", **options)
    assert longer.settings["iterations"] == 7
    assert same(longer, reconstruct(scan, iterations=7, **options))
    with pytest.raises(
        ValueError, match=r"^checkpoint: expected at most iterations=3, got 7 in .*final\.h5.* remove it"
    ):
        reconstruct(scan, iterations=3, checkpoint=tmp_path / "state", **options)


@pytest.fixture(scope="module")
def tensors():
    return dataclasses.replace(
        FIRST, data=rank_two_from_second_moment(FIRST.data), weights=None, response=RankTwoResponse()
    )


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"method": "fista"}, "method='fista', got method='cg' in .*plan"),
        ({"prior": "smoothness"}, "prior=\"'smoothness'\", got prior=\"'tv'\""),
        ({"weight": "auto"}, "weight='cross-validation', got weight=0.01"),
        ({"weight": 0.02}, "weight=0.02, got weight=0.01"),
        ({"ell_max": 0}, "ell_max=0, got ell_max=2"),
        ({"scan": SECOND}, "these data, weights and operator, got other data, weights and operator"),
        ({"scan": FIRST[1:]}, "these data, weights and operator, got other"),
    ],
)
def test_the_folder_of_something_else_is_refused(other, text, tmp_path):
    wishes = {"scan": FIRST, "weight": 0.01, "checkpoint": tmp_path / "state", **QUICK}
    reconstruct(**wishes)
    with pytest.raises(ValueError, match=f"^checkpoint: expected {text}.* remove the folder .*state, or name another"):
        reconstruct(**wishes | other)


class Stop(Exception):
    """As Ctrl-C, which pytest would take for itself."""


@pytest.fixture(scope="module")
def whole():
    return reconstruct(FIRST, **QUICK)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("name", "writing"), [("plan", 1), ("some-views-0.1", 2), ("weight", 1), ("final", 1), ("final", 4)]
)
def test_an_exception_leaves_no_partial_files_and_goes_on(name, writing, before, whole, tmp_path, monkeypatch):
    """At a writing of a file, before or after it becomes complete."""
    replace, count = os.replace, iter(range(1, 1000))

    def counted(source, target):
        now = target.name == f"{name}.h5" and next(count) == writing
        if not (now and before):
            replace(source, target)
        if now:
            raise Stop

    monkeypatch.setattr(os, "replace", counted)
    often = Checkpoint(tmp_path / "state", every_s=0)
    with pytest.raises(Stop):
        reconstruct(FIRST, checkpoint=often, **QUICK)
    assert not [name for name in files(tmp_path) if name.endswith(".part")]
    monkeypatch.undo()
    assert same(reconstruct(FIRST, checkpoint=often, **QUICK), whole)
    assert files(tmp_path) == ["state", "state/final.h5", "state/plan.h5", "state/weight.h5"]


def test_what_a_killed_process_left_behind_is_removed_when_its_place_is_read(tmp_path):
    """The last state of a stage is written once: no later writing would come by and remove what is left there."""
    whole = reconstruct(FIRST, checkpoint=tmp_path / "state", weight=0.01, **QUICK)
    gone = os.fork()
    if not gone:
        from ddf_tomo._files import replaced_when_complete

        with replaced_when_complete(tmp_path / "state" / "final.h5") as partial:
            partial.write_bytes(b"half")
            os._exit(0)
    os.waitpid(gone, 0)
    assert [name for name in files(tmp_path) if name.endswith(".part")]
    assert same(reconstruct(FIRST, checkpoint=tmp_path / "state", weight=0.01, **QUICK), whole)
    assert not [name for name in files(tmp_path) if name.endswith(".part")]


def test_a_state_is_written_once(tmp_path, monkeypatch):
    written, write = [], Checkpoint.write

    def counted(self, state, problem, residuals, stopped_by):
        written.append((self.path.name, len(residuals)))
        write(self, state, problem, residuals, stopped_by)

    monkeypatch.setattr(Checkpoint, "write", counted)
    reconstruct(FIRST, checkpoint=Checkpoint(tmp_path / "state", every_s=0), weight=0.01, **QUICK)
    assert written == [("plan.h5", 0), *(("final.h5", count) for count in range(2, 6))]


def test_a_damaged_state_is_named(tmp_path):
    reconstruct(FIRST, checkpoint=tmp_path / "state", weight=0.01, **QUICK)
    path = tmp_path / "state" / "final.h5"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FileFormatError, match=r"^path: expected a complete file of a checkpoint, got .*final\.h5"):
        reconstruct(FIRST, checkpoint=tmp_path / "state", weight=0.01, **QUICK)


def test_a_search_that_changes_its_mind_about_nothing(tmp_path):
    """The weight is that of the file, even where another number of threads would now round it otherwise."""
    first = reconstruct(FIRST, checkpoint=tmp_path / "state", **QUICK)
    (tmp_path / "state" / "final.h5").unlink()
    with h5py.File(tmp_path / "state" / "weight.h5", "r+") as file:
        header = file["ddf_tomo"][()]
        del file["ddf_tomo"]
        weight = json.loads(header)["numbers"]["weight"]
        file["ddf_tomo"] = np.bytes_(header.replace(repr(weight).encode(), repr(weight * 1.001).encode()))
    again = reconstruct(FIRST, checkpoint=tmp_path / "state", **QUICK)
    assert again.settings["weight"] == pytest.approx(first.settings["weight"] * 1.001, rel=1e-12)
    assert again.settings["weight_from"] == "cross-validation"
