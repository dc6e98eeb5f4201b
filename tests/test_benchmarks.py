"""The benchmarks' helpers, and benchmarks that need no neighbour, at tiny size; no times are judged."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ddf_tomo
from ddf_tomo.operators.rank_two import second_moment_tensor
from tests.strategies import random_geometry

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """Import by name from the folder of the benchmarks, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


def test_bars(modules):
    row = modules("harness").Row
    assert row("error", 2.0).verdict == ""
    assert row("error", 2.0, at_most=2.0).verdict == "pass"
    assert row("error", 2.1, at_most=2.0).verdict == "MISSED"
    assert row("speed", 9.9, at_least=10.0).passed is False
    assert row("speed", 10.0, at_least=10.0, at_most=20.0).bar == "≤ 20 and ≥ 10"
    assert row("error", math.nan, at_most=2.0).passed is False
    assert row("speed", math.inf, at_least=2.0).passed is False


def test_contestants_take_turns(modules):
    calls = []
    timings = modules("harness").in_turn({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=2)
    assert "".join(calls) == "abc" + "abc" + "cba"
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_ratios_are_taken_within_a_round(modules):
    """A machine that is ten times slower in one round changes no ratio."""
    timings = modules("harness").Timings({"peer": (3.0, 30.0, 3.3), "ours": (1.0, 10.0, 1.0)})
    assert timings.ratios("peer", "ours") == pytest.approx((3.0, 3.0, 3.3))
    row = timings.ratio_row("peer / ours", "peer", "ours", "note", at_least=2.0)
    assert (row.value, row.verdict) == (pytest.approx(3.0), "pass")
    assert row.note == "3 … 3.3 in 3 rounds; note"
    assert timings.row("peer").value == 3.3


def test_no_ratio_of_unequal_things(modules):
    harness = modules("harness")
    assert harness.difference([3.0, 4.5], [3.0, 4.0]) == pytest.approx(0.1)
    assert harness.require("signals", 1e-7, 1e-5).verdict == "pass"
    for defect in (2e-5, math.nan):
        with pytest.raises(harness.Unequal, match=r"signals: .*, allowed 1e-05; no ratio"):
            harness.require("signals", defect, 1e-5)
    with pytest.raises(harness.Unequal, match="shape"):
        harness.difference(np.ones(3), np.ones((3, 1)))


def test_what_contestants_say_is_shown_only_if_they_fail(modules, capsys):
    quiet = modules("harness").quiet
    with quiet():
        print("chatter")
    assert capsys.readouterr() == ("", "")

    @quiet()
    def fail():
        print("last words")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert "last words" in capsys.readouterr().err


def test_report(modules):
    report, row = modules("report"), modules("harness").Row
    facts = report.machine(threads=2)
    assert facts["ddf_tomo"] == ddf_tomo.__version__
    assert int(facts["cores"]) >= 1
    good = report.Outcome("one", "What it is.", (row("speed | size", 12.3456, "×", at_least=10.0, note="n"),), 2.0)
    bad = report.Outcome("two", "", (row("time", 1.0, "s"),), 3.0, "Unequal: no ratio is given")
    missed = report.Outcome("three", "", (row("error", 1.0, at_most=0.5),))
    assert [outcome.passed for outcome in (good, bad, missed)] == [True, False, False]
    text = report.markdown([good, bad], facts, "Heading")
    assert r"| speed \| size | 12.3 × | ≥ 10 | pass | n |" in text
    assert "**FAILED**: Unequal: no ratio is given" in text
    loaded = json.loads(report.to_json([good, bad], facts, "Heading"))
    assert loaded["machine"] == facts
    assert [result["passed"] for result in loaded["results"]] == [True, False]
    assert loaded["results"][0]["rows"][0]["value"] == 12.3456
    assert report.slug({"processor": "AMD (R) EPYC 9", "cores": "2"}) == "amd-r-epyc-9-2-cores"


def test_every_benchmark_can_be_imported_and_has_its_row_in_the_manual(modules):
    """None needs its peer before it runs."""
    manual = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in modules("run").NAMES:
        assert callable(modules(name).run)
        assert modules(name).__doc__
        assert f"| `{name}` |" in manual, f"{name} has no row in docs/benchmarks.md"


def test_adjoint(modules):
    outcome = modules("run").measure("adjoint", quick=True, size=8, views=6, compiling=False)
    assert outcome.error == ""
    assert outcome.passed
    text = " ".join(row.what for row in outcome.rows)
    responses = ("SAXS", "second moments", "directional visibility", "grating", "isotropic", "rank-2 tensor, SAXS")
    for name in (*responses, "float32", "float64"):
        assert name in text


def test_direction(modules):
    outcome = modules("run").measure("direction", quick=True, size=10, views=(10, 18, 16, 16, 16, 14, 12))
    assert outcome.error == ""
    values = {row.what: row.value for row in outcome.rows}
    assert values["reconstruct(scan), median angle"] < 10
    best = values["plain CGLS, median angle at its best iteration"]
    assert best <= values["plain CGLS, median angle at iteration 30"]


def test_equivariance(modules):
    equivariance = modules("equivariance")
    (sample,) = equivariance.upright_samples(1, 8, 2, 0)
    tensors = second_moment_tensor(sample.numpy())  # xx, xy, xz, yy, yz, zz
    along_z = tensors[..., 5].mean() / tensors[..., [0, 3, 5]].sum(-1).mean()
    assert abs(along_z - 1 / 3) > 0.05  # fibres that lie across z scatter more there, or less
    logs = {("equivariant", count): torch.full((1, 1, 2), -float(np.log(count))) for count in (4, 16)}
    logs["plain", 16] = torch.full((1, 1, 2), -float(np.log(8)))
    needed = equivariance.needed_row("needed", logs, "plain", (4, 16), 0)
    assert (needed.value, needed.note) == (pytest.approx(8), "")
    assert equivariance.ratio_row("ratio", logs, "plain", 16, 0, 0.9).value == pytest.approx(0.5)
    outcome = modules("run").measure("equivariance", quick=True)
    assert outcome.error == ""
    values = {row.what: row.value for row in outcome.rows}
    assert 0.5 < values["2 samples, laid down: equivariant / plain"] < 2
    assert sum(bool(row.bar) for row in outcome.rows) == 4


def test_share_of_the_supervised_gain(modules):
    figures = {"tv": 0.4, "shipped": 0.1, "alone": 0.2}
    found = [{name: {"all": factor * value} for name, value in figures.items()} for factor in (1, 3)]
    row = modules("self_supervised").share_row(found, "all", "alone")
    assert (row.value, row.at_least) == (pytest.approx(0.5), 0.6)  # one halving of two
    assert row.note.endswith("0.500 | 0.250, 0.500 | 0.250")


def test_samples_are_counted_where_rays_cross_slices(modules):
    """By the points themselves, pixel by pixel."""
    geometry = random_geometry(7, (9, 7, 8), (6, 8), seed=3)
    half, found = np.array(geometry.volume_shape) / 2, 0
    for p, centres in zip(geometry.p, geometry.pixel_centres(), strict=True):
        main = np.abs(p).argmax()
        for place in np.arange(geometry.volume_shape[main]) + 0.5 - half[main]:
            points = centres + ((place - centres[..., main]) / p[main])[..., None] * p
            found += (np.abs(np.delete(points, main, -1)) < np.delete(half + 0.5, main)).all(-1).sum()
    assert modules("roofline").sample_count(geometry) == found > 0


@pytest.mark.parametrize("lanes", [2, 16])
def test_loops_do_what_is_counted(modules, lanes):
    """No vector is left out by the compiler, and none is counted twice."""
    peaks = modules("peaks")
    for task in (peaks.LOAD, peaks.PROJECT, peaks.BACKPROJECT):
        loop = peaks.Loop(lanes, task, 1, 2048)
        size = loop.vectors // loop.units * lanes
        assert size == len(loop.arrays[0]) == 512
        array = np.arange(512, dtype=np.float32)
        loop.arrays[0][:] = array
        factors = loop.factors[0]
        factors[:] = np.arange(len(factors)) % 5
        weights = (factors[:512] if lanes == 2 else np.repeat(factors[: 512 // lanes], lanes)).copy()
        b = factors[1]
        loop._some(0, 1)
        if task == peaks.BACKPROJECT:
            np.testing.assert_array_equal(loop.arrays[0], array + weights * b)
        else:
            total = factors[: lanes * len(peaks.SUMS) * 4].reshape(-1, lanes)[: peaks._sums(task)].sum(0)
            expected = (array if task == peaks.LOAD else weights * array).reshape(-1, lanes).sum(0)
            np.testing.assert_array_equal(total, expected)


def test_roofline(modules):
    outcome = modules("run").measure("roofline", quick=True, size=8)
    assert outcome.error == ""
    values = {row.what: row.value for row in outcome.rows}
    for direction in ("forward", "adjoint"):
        assert values[f"{direction}, 15 channels: intensity, loads"] == pytest.approx(
            8 * 15 / (4 * (64 * (2 if direction == "adjoint" else 1) + 4))
        )
        assert values[f"{direction}, 1 channel: share of the limit"] > 0
    assert sum(row.passed is not None for row in outcome.rows) == 8


def test_gpu_without_a_card(modules):
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    (row,) = modules("run").measure("gpu").rows
    assert (row.value, row.passed) == (0, None)
    assert "no card" in row.note


def test_diffct_gets_our_geometry(modules):
    """Its projections of a smooth blob off the centre are ours, as far as lines through boxes can tell."""
    pytest.importorskip("diffct", exc_type=ImportError)
    geometry = random_geometry(3, (24, 22, 20), (25, 27), seed=1)
    place = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.volume_shape), indexing="ij"), -1) - (13, 10, 11)
    x = np.exp(-(place**2).sum(-1) / 30)[..., None] * np.array([1.0, 2.0])
    forward, backward = modules("gpu")._diffct(geometry)
    y = forward(torch.from_numpy(x).float())
    assert modules("harness").difference(y, ddf_tomo.XRayTransform(geometry)(x)) < 5e-3
    assert backward(y).shape == x.shape


def test_an_error_ends_a_benchmark_but_not_the_report(modules, monkeypatch):
    def run(quick):
        yield modules("harness").Row("first", 1.0)
        raise modules("harness").Unequal("they differ")

    monkeypatch.setattr(modules("direction"), "run", run)
    outcome = modules("run").measure("direction")
    assert [row.what for row in outcome.rows] == ["first"]
    assert outcome.error == "Unequal: they differ"


def test_command_line(modules, monkeypatch, tmp_path, capsys):
    run, report, row = modules("run"), modules("report"), modules("harness").Row
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    for name in run.THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")
    value = {"adjoint": 1.0}

    def measured(name, quick, threads, size):
        return report.Outcome(name, "", (row("error", value.get(name, 9.0), at_most=2.0),))

    monkeypatch.setattr(run, "_in_own_process", measured)
    assert run.main(["adjoint", "--quick"]) == 0
    assert list(tmp_path.iterdir()) == []  # small sizes leave no results behind unless asked
    assert run.main(["adjoint", "--threads", "1"]) == 0
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".md"]
    assert run.main(["sigtt", "--output", str(tmp_path / "new" / "one.md")]) == 1  # a bar is missed
    assert "| error | 9 | ≤ 2 | MISSED |" in (tmp_path / "new" / "one.md").read_text()
    assert run.main(["sigtt", "--quick"]) == 0  # bars are for the full size
    assert run.main(["sigtt", "--size", "8"]) == 0
    assert len(list(tmp_path.glob("*.md"))) == 1
    with pytest.raises(SystemExit):
        run.main(["adjoin"])
    assert "no benchmark is called adjoin" in capsys.readouterr().err
