"""Entry points of the report and of the commands that simulate and report, with right arguments."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from unittest.mock import patch

import numpy as np

import ddf_tomo as dt
from ddf_tomo.cli import main
from ddf_tomo.retrieval import restore_transmission
from tests.fuzz.files import damaged, example
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


def coarse_report(**given: Any) -> Any:
    """`write_report` with pictures of few pixels, which are most of its time; `pictures` fuzzes the pictures."""
    from ddf_tomo.report import _html, write_report

    with patch.object(_html, "PIXELS_PER_INCH", 20):
        return write_report(**given)


@entry("figures, report", 0.1)
def _(s: Source) -> Made:
    scan = s.scan(s.size(1, 4))
    shape = (*scan.geometry.volume_shape, 6)
    coefficients = s.one_of(s.noise(*shape), s.noise(*shape, positive=True), np.zeros(shape), np.ones(shape))
    residuals = s.one_of((), (3.0, 2.0, 1.0), (0.0, 0.0))
    made = dt.Reconstruction(coefficients, 2, scan.geometry, scan.response, residuals, s.one_of(None, 1e-5), {"a": 1})
    return coarse_report, {
        "reconstruction": made,
        "path": folder() / "report.html",
        "scan": s.one_of(None, scan),
        "truth": s.one_of(None, s.noise(*shape, positive=True), s.noise(*shape[:3], 15, positive=True)),
        "title": s.one_of(None, "a title", "<b>"),
        "restored": s.one_of(None, restore_transmission(0.5 + np.eye(16) / 3, 1.0, error=0.001)),
    }


@entry("ddf-tomo simulate", 0.5)
def _(s: Source) -> Made:
    out = str(folder() / "simulated.h5")
    options = [
        ("--size", s.one_of("4", "3,4,5", "0", "1e3", "x", "-3", "4,4", "99999999", "")),
        ("--tilts", s.one_of("0", "0,30", "90", "-45,45", "nan", "1e300", "x", "")),
        ("--views", s.one_of("5", "12", "0", "-1", "99999999999", "x")),
        ("--response", s.one_of("saxs", "isotropic", "visibility", "rank-two", "directional-visibility", "x")),
        ("--segments", s.one_of("1", "3", "0", "10000000")),
        ("--exponent", s.one_of("0.5", "2", "0", "nan")),
        ("--noise", s.one_of("0", "0.1", "-1", "nan", "1e300", "1e-300")),
        ("--counts", s.one_of("100", "1e-9", "0", "inf")),
        ("--seed", s.one_of("1", "-1", "9" * 30)),
        ("--voxel-size", s.one_of("25", "0", "1e300", "nan")),
        ("--truth", s.one_of(str(folder() / "truth.h5"), "/nowhere/t.h5", out)),
    ]
    # Small unless told otherwise: 32³ voxels take seconds.
    words = ["simulate", s.one_of("shells", "mixture", "random", "bone"), "-o", s.one_of(out, out, "/nowhere/s.h5")]
    words += ["--size", "4", "--views", "8"]
    for option in options:
        words += option if s.chance(0.25) else ()
    return called(words), {}


@entry("figures, ddf-tomo report", 0.1)
def _(s: Source) -> Made:
    page = str(folder() / "page.html")
    kind = s.one_of("reconstruction", "reconstruction", "scan")
    words = ["report", str(s.one_of(example, lambda *of: damaged(*of, s))(folder(), kind))]
    words += ["-o", s.one_of(page, page, str(folder()), "/nowhere/x.html")]
    for option, values in (
        ("--scan", (_scan(), str(damaged(folder(), "scan", s)))),
        ("--truth", (str(example(folder(), "reconstruction")), _scan())),
        ("--title", ("", "a title")),
    ):
        words += [option, s.one_of(*values)] if s.chance(0.3) else []
    return called(words), {}


@lru_cache(1)
def _scan() -> str:
    return str(example(folder(), "scan"))


def called(words: list[str]) -> Any:
    """A function that runs ``ddf-tomo``, and complains of any exit code but those of success and of bad input."""

    def call() -> int:
        try:
            main(words)
        except SystemExit as end:
            if end.code not in (0, 2):
                raise RuntimeError(f"exit code {end.code} of ddf-tomo {words}") from end
            return int(end.code or 0)
        raise RuntimeError("main came back")

    return call
