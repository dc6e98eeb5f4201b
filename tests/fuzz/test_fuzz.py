"""Whatever comes, an entry point accepts it with finite results or refuses it in the package's own words.

A short run of hypothesis over what `tests.fuzz.run` does at length; and what the oracle itself notices.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ddf_tomo as dt
from tests.fuzz import oracle, run
from tests.fuzz.entry_points import TABLE, case
from tests.fuzz.oracle import judge

FIGURES = {name for name in TABLE if name.startswith("figures")}
SLOW = FIGURES | {
    "interop.mumott",
    "observability",
    "automatic_ell_max",
    "reconstruct",
    "reconstruct, damaged scans",
    "reconstruct, mixed priors",
}

NEIGHBOURS = dict.fromkeys(FIGURES, "matplotlib") | {"interop.mumott": "mumott"}
NEIGHBOURS |= {"interop.deepinv": "deepinv", "interop.deepinv.physics": "deepinv"}


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """What is compiled when it is first used is no call that hangs."""
    for dtype in (torch.float32, torch.float64):
        A = dt.XRayTransform(dt.Geometry.from_angles([0.0, 1.0], 0.3, (4, 4, 4), (4, 4)))
        x = torch.ones(4, 4, 4, 3, dtype=dtype)
        A.T(A(x))
        prior = dt.priors.TotalVariation((4, 4, 4), smoothing=0.1)
        prior.along(x, prior.gradient(x))
        frames = 100 + torch.arange(5 * 24 * 24, dtype=dtype).reshape(5, 24, 24) ** 2 % 17
        for method in ("differential", "matching"):
            dt.retrieval.retrieve(frames, frames, method)


@pytest.fixture(params=TABLE)
def name(request):
    """Name of an entry point whose neighbour, if it has one, is installed."""
    if request.param in NEIGHBOURS:
        pytest.importorskip(NEIGHBOURS[request.param])
    return request.param


def test_right_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of the texts that stand for a path are names of files
    entry = TABLE[name]

    @settings(
        max_examples=2 if name in SLOW else 6,  # `tests.fuzz.run` takes thousands
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],  # a case is short enough to be read, and takes long to be shrunk
    )
    @given(st.randoms(use_true_random=False))
    def check(rng):
        function, arguments = case(name, rng)
        outcome = judge(function, arguments, propagates=entry.propagates, raw=entry.raw)
        if outcome.fault.startswith("took"):  # what a first call compiles, a second one does not
            outcome = judge(function, arguments, propagates=entry.propagates, raw=entry.raw)
        assert not outcome.fault, (outcome, arguments)

    check()


def test_right_arguments_are_accepted(name, monkeypatch, tmp_path):
    monkeypatch.setattr("tests.fuzz.table.spoiled", lambda value, source: value)
    monkeypatch.chdir(tmp_path)
    assert any(run.run_one(0, name, index).kind == "accepted" for index in range(12))


def failing(error):
    def call(**_):
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "arguments", "found"),
    [
        (dt.Geometry, {}, "outside the package"),
        (failing(KeyError("x")), {}, "KeyError"),
        (lambda x: x * np.nan, {"x": 1.0}, "NaN in the result"),
        (lambda x: {"y": x * torch.inf}, {"x": torch.ones(2)}, "infinity in y"),
        (lambda x: (x, [x / 0 * 0]), {"x": np.ones(2)}, "NaN in the result"),
        (
            lambda shape: dt.Geometry.from_angles(0.0, 0.0, shape, (1, 1)).refined(1).nothing,
            {"shape": (1, 1, 1)},
            "Attr",
        ),
    ],
)
def test_the_oracle_notices(call, arguments, found):
    with np.errstate(all="ignore"):
        assert found in judge(call, arguments).fault


def test_the_oracle_tells_c_code_from_the_packages_own_words(monkeypatch):
    monkeypatch.setattr(dt.geometry, "integer", lambda value, *_, **__: value)
    geometry = dt.Geometry.from_angles(0.0, 0.0, (2, 2, 2), (2, 2))
    assert "not the package's own words" in judge(geometry.binned, {"factor": "two"}).fault
    monkeypatch.undo()
    assert judge(geometry.binned, {"factor": "two"}) == oracle.Outcome("TypeError")


def test_the_oracle_knows_what_is_documented():
    nan, huge = np.full(2, np.nan), np.full(2, 1e300)
    assert not judge(lambda x: x, {"x": nan}).fault
    assert not judge(lambda x: x * 1e300, {"x": huge}, propagates=True).fault
    assert judge(lambda x: x * 1e300, {"x": huge}).fault
    assert not judge(lambda x: {"covariance_error": x / 0}, {"x": np.ones(2)}).fault


def test_the_oracle_notices_slowness(monkeypatch):
    monkeypatch.setattr(oracle, "LIMIT_S", 0.01)
    assert "took" in judge(lambda: time.sleep(0.02), {}).fault


def test_death_and_silence_are_results_too(tmp_path, monkeypatch):
    real = subprocess.Popen
    deaths = {
        "dies": "import sys, os; open(sys.argv[1], 'a').write('[\"a\", 1]\\n'); os.abort()",
        "hangs": "import sys, time; open(sys.argv[1], 'a').write('[\"a\", 1]\\n'); time.sleep(60)",
    }
    monkeypatch.setattr(run, "SILENCE_S", 1.5)
    for how, code in deaths.items():
        monkeypatch.setattr(
            run.subprocess,
            "Popen",
            lambda command, code=code, **options: real([sys.executable, "-c", code, command[5]], **options),
        )
        ((name, index, kind, fault),) = run.run_batch(0, [("a", 1)], tmp_path)
        assert (name, index, kind) == ("a", 1, "death" if how == "dies" else "hang")
        assert ("died, code -6" if how == "dies" else "no answer") in fault


def test_batches_run_in_a_process_of_their_own(tmp_path):
    batch = [("Geometry", 0), ("Scan.read", 3)]
    results = run.run_batch(7, batch, tmp_path)
    assert [tuple(line[:2]) for line in results] == batch
    assert [line[2] for line in results] == [run.run_one(7, *each).kind for each in batch]


def test_summary_counts_everything(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "run_batch", lambda seed, batch, folder: [[*each, "accepted", ""] for each in batch])
    monkeypatch.setattr(sys, "argv", ["run", "--cases", "300", "--output", str(tmp_path / "a" / "b.md")])
    assert run.main() == 0
    text = (tmp_path / "a" / "b.md").read_text()
    assert "**Violations: 0.**" in text
    assert all(f"| {name} |" in text for name in TABLE)
    bad = run.summary([["Scan", 3, "death", "the process died"], ["Scan", 4, "accepted", ""]], 0, 1.0)
    assert "| Scan | 2 |" in bad
    assert "- Scan 3: the process died" in bad
    assert json.loads(json.dumps(run.plan(1000, {"a": 1.0, "b": 3.0}))).count(["b", 3]) == 1
