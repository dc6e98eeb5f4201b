"""The benchmarks of growth and memory run at tiny size and tell what they should; no times are judged."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


def test_exponents(modules):
    exponent = modules("growth").exponent
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([10, 100], [5, 5]) == pytest.approx(0)


def test_growth(modules):
    outcome = modules("run").measure("growth", quick=True, size=8)
    assert outcome.error == ""
    whats = [row.what for row in outcome.rows]
    for direction in ("forward", "adjoint"):
        for varied in ("voxels", "views", "channels"):
            assert f"{direction}: time ∝ {varied}^" in whats
    assert "64: " in outcome.rows[0].note
    assert "512: " in outcome.rows[0].note


def test_memory(modules):
    outcome = modules("run").measure("memory", quick=True, size=8)
    assert outcome.error == ""
    values = {row.what: row.value for row in outcome.rows}
    assert 0.05 < values["peak, 8³ × 15, 300 views of 8² × 8, in memory"] < 4
    assert 0.05 < values["peak, 16³ × 6, 400 views of 16² × 3, from the disk"] < 4
    assert {row.bar for row in outcome.rows} == {""}
