"""The benchmark of alignment at tiny size, without its peers."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np


def test_every_kind_of_data_is_aligned(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    benchmark = importlib.import_module("alignment")
    rows = {row.what: row for row in benchmark.run(quick=True, size=12, peers=False)}
    assert 1 < rows["misaligned: median error"].value < 3
    for kind in ("second moments", "SAXS", "absorption"):
        assert rows[f"align, {kind}: median error"].value < 0.3
    lengths = np.linalg.norm(benchmark.offsets(400), axis=1)
    assert 0.5 <= lengths.min() < 0.6 < 2.9 < lengths.max() <= 3
