"""One look for each quantity, limits by rule, units of length, and files that are whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddf_tomo.visualization import STYLES, show_convergence
from ddf_tomo.visualization.style import (
    colour_map,
    data_unit,
    length_unit,
    limits,
    new_figure,
    style_of,
    write_figure,
)

pytest.importorskip("matplotlib")

DIVERGING = {"RdBu_r", "PuOr_r"}
EVEN = {"gray", "viridis", "magma", "magma_r", "inferno", "cividis"}  # perceptually uniform


def test_diverging_colours_go_with_symmetric_limits_and_the_others_are_even():
    for name, style in STYLES.items():
        assert colour_map(style).name == style.colours
        assert (style.limits == "symmetric") == (style.colours in DIVERGING), name
        assert style.colours in DIVERGING | EVEN, name
        limits([1.0, 2.0], style.limits)


def test_the_table_cannot_be_changed_by_chance():
    with pytest.raises(TypeError):
        STYLES["mean"] = STYLES["rank"]
    with pytest.raises(ValueError, match=r"quantity: expected one of .*'mean'"):
        style_of("loudness")


@pytest.mark.parametrize("rule", ["share", "zero", "symmetric", "data"])
@pytest.mark.parametrize("values", [[], [0.0], [5.0], [-3.0], [1e300, -1e300], [np.nan], [np.inf, 1.0], [1e-300]])
def test_limits_are_never_empty_and_follow_their_rule(rule, values):
    low, high = limits(values, rule)
    assert np.isfinite([low, high]).all()
    assert low < high
    if rule == "share":
        assert (low, high) == (0, 1)
    elif rule == "symmetric":
        assert low == -high
    elif rule == "zero":
        assert low == 0


def test_limits_leave_outliers_out():
    values = np.append(np.linspace(0, 1, 10_000), 1e6)
    assert limits(values, "data") == pytest.approx((0.01, 0.99), abs=1e-3)
    assert limits(values, "zero")[1] == pytest.approx(0.995, abs=1e-3)
    assert limits(values, "symmetric")[1] == pytest.approx(0.99, abs=1e-3)


@pytest.mark.parametrize(("length", "unit"), [(5e-9, "nm"), (5e-5, "µm"), (2e-3, "mm"), (0.2, "mm")])
def test_lengths_read_well(length, unit):
    factor, name = length_unit(length)
    assert name == unit
    assert length * factor == pytest.approx(length * {"nm": 1e9, "µm": 1e6, "mm": 1e3}[unit])


def test_units_of_the_data():
    mean, signal = STYLES["mean"], STYLES["signal"]
    assert mean.in_units_of(data_unit({"data_unit": "1e-12 rad^2"})).titled == "mean scattering (µrad²/voxel)"
    assert mean.in_units_of(data_unit({})).titled == "mean scattering (data unit/voxel)"
    assert signal.in_units_of(data_unit({})).titled == "signal"
    assert signal.in_units_of(data_unit({"data_unit": "$1$"})).titled == "signal (1)"


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")]
)
def test_files_are_what_they_are_called(tmp_path: Path, name, magic):
    figure = new_figure(1, 1)
    assert write_figure(figure, tmp_path / name) is figure
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_files_that_cannot_be_leave_nothing(tmp_path: Path, monkeypatch):
    figure = new_figure(1, 1)
    with pytest.raises(ValueError, match="path: expected a file name that ends in"):
        write_figure(figure, tmp_path / "a.xyz")
    with pytest.raises(FileNotFoundError, match="path"):
        write_figure(figure, tmp_path / "none" / "a.png")
    (tmp_path / "a.png").write_text("before")

    def half(path, **_):
        Path(path).write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="space"):
        write_figure(figure, tmp_path / "a.png")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.png", "before")]


def test_no_global_state_of_matplotlib_is_touched(tmp_path: Path):
    code = """
import sys, numpy as np
from ddf_tomo.visualization import *
show_glyphs(np.ones((3, 3, 3, 6))); show_directions({"a": (np.ones((2, 2, 2, 3)), np.ones((2, 2, 2)))}, "a.png")
show_convergence([2, 1], path="b.svg")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_convergence_of_one_and_of_several():
    figure = show_convergence([5.0, 2.0, 0.0], noise_level=1.5)
    (axis,) = figure.axes
    line, level = axis.get_lines()
    assert axis.get_yscale() == "log"
    np.testing.assert_array_equal(line.get_ydata(), [5, 2, np.nan])
    assert set(level.get_ydata()) == {1.5}
    assert axis.get_legend() is None
    several = show_convergence({"a": [5.0, 1.0], "b": (3.0,)}).axes[0]
    assert [text.get_text() for text in several.get_legend().get_texts()] == ["a", "b"]
    assert len({line.get_color() for line in several.get_lines()}) == 2
    show_convergence([0.0])


@pytest.mark.parametrize("bad", [{}, [], [-1.0], [[1.0]], [np.nan], None, {"a": []}])
def test_convergence_refuses_what_are_no_residuals(bad):
    with pytest.raises((ValueError, TypeError), match="results"):
        show_convergence(bad)


def test_a_notebook_shows_figures_without_pyplot():
    code = """
import sys
from IPython.core.formatters import DisplayFormatter
from ddf_tomo.visualization import show_convergence
shown, _ = DisplayFormatter().format(show_convergence([2.0, 1.0]))
assert shown["image/png"][:4] == b"\\x89PNG", shown
assert "matplotlib.pyplot" not in sys.modules
"""
    pytest.importorskip("IPython")
    subprocess.run([sys.executable, "-c", code], check=True)
