"""The manual: what must be in it, and the pages that are made of something else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.operators.registry import RESPONSES
from tests.public_names import public_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def program(name):
    """One of the Python files in ``docs``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_response_has_its_row_with_a_picture():
    rows = [line for line in (DOCS / "operators.md").read_text().splitlines() if "](figures/response_" in line]
    for response, _ in RESPONSES.values():
        assert [row for row in rows if f"| `{type(response).__name__}` |" in row], response


def test_every_response_is_drawn():
    pytest.importorskip("matplotlib", exc_type=ImportError)
    figures = program("figures")
    assert {type(r) for r, _ in figures.RESPONSES.values()} == {type(r) for r, _ in RESPONSES.values()}
    for name in figures.RESPONSES:
        assert (DOCS / "figures" / f"response_{name}.png").exists()


def test_figures_of_speed_draw_the_latest_results(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", exc_type=ImportError)
    figures = program("figures")
    for name in ("roofline", "throughput"):
        assert getattr(figures, name)().axes
        assert (DOCS / "figures" / f"{name}.png").exists()
    rows, machine = figures.measured("roofline")
    assert {(direction, count) for direction, count, _ in figures.cases(rows)} == {
        (direction, count) for direction in ("forward", "adjoint") for count in (1, 6, 15, 45)
    }
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "docs" / "figures")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    row = {"what": "time", "value": 1.0, "note": "0.9 … 1.1 s; forward"}
    for file, value in {"2026-01-02-a": 2.0, "2026-01-02-a-part": 3.0, "2026-01-01-a": 1.0}.items():
        result = {"name": "projector", "error": "", "rows": [row | {"value": value}]}
        text = json.dumps({"machine": machine, "results": [result]})
        (tmp_path / "benchmarks" / "results" / f"{file}.json").write_text(text)
    assert figures.measured("projector") == ({"time, forward": 2.0}, machine)


@pytest.fixture(scope="module")
def pages():
    return program("pages")


def test_every_public_name_is_documented_once(pages):
    text = "\n".join(pages.api().values())
    documented = [line.split(":: ")[1] for line in text.splitlines() if line.startswith((".. autoc", ".. autof"))]
    assert sorted(documented) == sorted(public_names())


def test_a_script_becomes_a_page(pages):
    text = "# ---\n# jupyter: x\n# ---\n\n# %% [markdown]\n# # Title\n#\n# Some *text*.\n\n"
    script = text + '# %%\nx = 1\n\n\n# %% tags=["a"]\nprint(x)\n'
    cells = ["# Title\n\nSome *text*.", "```python\nx = 1\n```", "```python\nprint(x)\n```"]
    assert list(pages.page_of_cells(script)) == cells


def test_a_page_shows_what_the_cells_gave(pages, tmp_path):
    picture = {"output_type": "display_data", "data": {"image/png": "iVBO\nRw0=\n", "text/plain": "<Figure>"}}
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["3\n"]},
        {"output_type": "stream", "name": "stderr", "text": "a warning"},
        {"output_type": "execute_result", "data": {"text/html": "<table>\n\n</table>", "text/plain": "x"}},
        {"output_type": "execute_result", "data": {"text/markdown": ["| a |\n", "|---|"], "text/plain": "x"}},
        {"output_type": "execute_result", "data": {"text/plain": "7"}},
        picture,
    ]
    cells = [
        {"cell_type": "markdown", "source": "# Title"},
        {"cell_type": "code", "source": ["x = 1\n", "x"], "outputs": outputs},
        {"cell_type": "code", "source": "changed = 0", "outputs": [outputs[0]]},
    ]
    (tmp_path / "_executed").mkdir()
    (tmp_path / "_executed" / "one.ipynb").write_text(json.dumps({"cells": cells}))
    script = tmp_path / "one.py"
    made = list(pages.page_of_cells("# %%\nx = 1\nx\n\n# %%\nchanged = 1\n", pages.outputs_of(script)))
    image = '<img alt="" src="data:image/png;base64,iVBORw0=">'
    shown = ["```text\n3\n```", "<table>\n</table>", "| a |\n|---|", "```text\n7\n```", image]
    assert made == ["```python\nx = 1\nx\n```", "\n\n".join(shown), "```python\nchanged = 1\n```"]
    assert not pages.outputs_of(tmp_path / "never_run.py")


def test_scripts_become_a_gallery(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert not pages.notebooks()
    assert pages.page_list({}) == "There are none yet."
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first.py").write_text("# %% [markdown]\n# # One\n# Text.\n# %%\n1 + 1\n")
    made = pages.notebooks()
    assert list(made) == ["notebooks/01_first.md"]
    assert made["notebooks/01_first.md"].startswith("# One\n")
    titles = {page: pages.title_of(text) for page, text in made.items()}
    assert pages.page_list(titles).startswith("- [One](/_generated/notebooks/01_first.md)\n")


@pytest.mark.parametrize(
    ("link", "made"),
    [
        ("[a](conventions.md#arrays)", "[a](/conventions.md#arrays)"),
        ("![a](figures/conventions.png)", "![a](/figures/conventions.png)"),
        ("[a](../ARCHITECTURE.md)", "[a](/_generated/architecture.md)"),
        ("[`a`](../benchmarks/results)", "`a`"),
        ("[a](../benchmarks/results/x.md)", "[a](/_generated/benchmarks/x.md)"),
        ("[a](../notebooks/01_a.py)", "[a](/_generated/notebooks/01_a.md)"),
        ("[a](https://example.org/b.md)", "[a](https://example.org/b.md)"),
        ("`x[0](1)`", "`x[0](1)`"),
    ],
)
def test_links_lead_to_pages(pages, link, made):
    assert pages.with_links(f"See {link}.", DOCS) == f"See {made}."


def test_the_front_page_is_the_navigation(pages):
    listed = pages.navigation((DOCS / "index.md").read_text())
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f"\n/{page.name}\n" in listed
    assert "\n/_generated/architecture.md\n" in listed
    assert ":caption: Begin\n" in listed
