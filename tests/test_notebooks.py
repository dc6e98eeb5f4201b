"""The tutorials: their form, and that the program which executes them in CI tells what fails."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.fixture
def program():
    for name in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("execute_notebooks", ROOT / ".ci" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(script):
    """Pairs of kind and text."""
    for cell in re.split(r"^# %%", script.read_text(), flags=re.MULTILINE)[1:]:
        first, _, body = cell.partition("\n")
        yield ("text" if "[markdown]" in first else "code"), body


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_tutorial_begins_with_its_title_and_explains_itself(script):
    kinds, texts = zip(*cells(script), strict=True)
    assert texts[0].startswith("# # ")
    assert kinds.count("text") >= 0.4 * len(kinds)
    for kind, text in zip(kinds, texts, strict=True):
        if kind == "text":
            assert all(line.startswith("#") for line in text.splitlines() if line.strip())
        else:
            ast.parse(text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_links_of_a_tutorial_lead_somewhere(script):
    text = "\n".join(text for kind, text in cells(script) if kind == "text")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    assert [target for target in targets if not (script.parent / target).exists()] == []


def test_a_failing_cell_is_told_with_its_heading(program, tmp_path, capsys):
    (tmp_path / "fails.py").write_text(
        "# %% [markdown]\n# # Title\n# %%\nx = 0\n"
        "# %% [markdown]\n# ## Where it fails\n# %%\n1 / x\n# %%\n'never reached'\n"
    )
    assert program.main(["--folder", str(tmp_path), "--to", str(tmp_path / "executed")]) == 1
    told = capsys.readouterr().out
    for part in ("fails.py: FAILED", "“Where it fails”", "    1 / x\n", "ZeroDivisionError: division by zero"):
        assert part in told
    assert "never reached" not in told
    assert (tmp_path / "executed" / "fails.ipynb").exists()


def test_the_kernel_is_this_interpreter_and_files_go_elsewhere(program, tmp_path, capsys):
    (tmp_path / "runs.py").write_text(
        "# %%\nimport sys, pathlib, ddf_tomo\n"
        f"assert sys.executable == {sys.executable!r}\n"
        f"assert pathlib.Path(ddf_tomo.__file__).is_relative_to({str(ROOT)!r})\n"
        "pathlib.Path('written').touch()\n"
    )
    assert program.main(["--folder", str(tmp_path)]) == 0, capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["runs.py"]
