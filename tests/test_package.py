"""The package as a whole: what importing it brings along, that every public thing explains itself, that texts run."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import h5py
import numpy as np
import pytest

import ddf_tomo
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series

ROOT = Path(__file__).parents[1]
NEIGHBOURS = {"mumott", "astra", "tomosipo", "ts_algorithms", "deepinv", "matplotlib", "skimage"}
LATE = {"numba", "h5py", "scipy", "typer", "rich"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ddf_tomo.__path__, "ddf_tomo.")
    if not any(part.startswith("_") for part in module.name.split("."))
)


# -- what importing brings along --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported():
    """Top-level packages in memory after each of these imports, one after the other, and not after ``import torch``."""
    rooms = ("mumott", "astra", "tomosipo", "deepinv")
    modules = [name for name in MODULES if not name.startswith("ddf_tomo.interop.")]
    assert len(modules) > 20
    stages = {
        "package": ["ddf_tomo"],
        "program": ["ddf_tomo.cli"],
        "modules": modules,
        "rooms": [f"ddf_tomo.interop.{room}" for room in rooms],
    }
    code = f"""
import importlib, json, sys, torch
before, found = set(sys.modules), {{}}
for stage, names in {stages!r}.items():
    for name in names:
        importlib.import_module(name)
    found[stage] = [*set(sys.modules) - before]
print(json.dumps(found))
"""
    found = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    return {stage: {name.partition(".")[0] for name in names} for stage, names in found.items()}


def test_the_package_imports_neither_neighbours_nor_what_is_slow(imported):
    assert "ddf_tomo" in imported["package"]
    assert not imported["package"] & (NEIGHBOURS | LATE)


def test_help_does_not_wait_for_what_is_slow(imported):
    assert not imported["program"] & (NEIGHBOURS | LATE - {"typer", "rich"})


def test_no_module_but_the_neighbours_own_needs_a_neighbour(imported):
    """Numba is allowed: some modules are themselves imported on first use only."""
    assert not imported["modules"] & NEIGHBOURS


def test_the_neighbours_rooms_open_without_them(imported):
    assert not imported["rooms"] & NEIGHBOURS


# -- every public thing explains itself -------------------------------------------------------------------------------


def public_things():
    """Every public module, function, class, and method, by its full name."""
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # a neighbour's room, without the neighbour
            continue
        yield name, module
        for attribute, thing in public_members(module):
            if getattr(thing, "__module__", None) == name:
                yield f"{name}.{attribute}", thing
                if inspect.isclass(thing):
                    yield from ((f"{name}.{attribute}.{key}", member) for key, member in public_members(thing))


def public_members(owner):
    return [
        (name, getattr(owner, name))
        for name, member in vars(owner).items()
        if not name.startswith("_") and (inspect.isroutine(member) or inspect.isclass(member))
    ]


def test_every_public_thing_has_a_docstring():
    bare = [name for name, thing in public_things() if len(inspect.getdoc(thing) or "") < 6]
    assert not bare


def test_every_name_of_the_front_page_has_an_example():
    assert ddf_tomo.__all__ == sorted(ddf_tomo.__all__)
    without = [name for name in ddf_tomo.__all__ if ">>>" not in (inspect.getdoc(getattr(ddf_tomo, name)) or "")]
    assert without == ["FileFormatError", "Reconstruction"]  # nobody makes these by hand


def test_the_version_is_the_same_everywhere():
    assert version("ddf_tomo") == ddf_tomo.__version__
    assert f"version: {ddf_tomo.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {ddf_tomo.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_extras_are_there():
    expected = {"mumott", "astra", "deepinv", "notebooks", "viz", "dev", "docs", "all"}
    assert expected <= set(metadata("ddf_tomo").get_all("Provides-Extra"))


# -- texts ------------------------------------------------------------------------------------------------------------


PAGES = (
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
TEXTS = [path.relative_to(ROOT) for path in PAGES]


def needs(code):
    drawn = ["matplotlib"] if re.search(r"write_report|show_", code) else []
    return [name for name in sorted(NEIGHBOURS) if re.search(rf"import {name}|interop.*{name}|\bplot\(", code)] + drawn


def a_mumott_user():
    """What the page for MUMOTT's users takes for granted: files, a data container, MUMOTT's pipeline."""
    from mumott.data_handling import DataContainer
    from mumott.pipelines import run_sigtt

    geometry = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.5], views=(8, 8))
    response = ddf_tomo.SaxsResponse(np.arange(6) * np.pi / 6)
    simulate(helicoidal_fibres, geometry, response).write("their_file.h5")
    shutil.copy("their_file.h5", "degrees.h5")
    with h5py.File("degrees.h5", "r+") as file:
        angles = []
        file.visit(lambda name: angles.append(name) if name.endswith(("_angle", "_angles")) else None)
        assert len(angles) > len(geometry)
        for name in angles:
            file[name][...] = np.degrees(file[name][()])
    return {"run_sigtt": run_sigtt, "data_container": DataContainer("their_file.h5")}


def a_reader():
    """What the front page takes for granted: a file."""
    geometry = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.5], views=(12, 24))
    simulate(helicoidal_fibres, geometry, ddf_tomo.SecondMomentResponse(), noise=0.02).write("scan.h5")
    return {}


PREPARED = {"README.md": a_reader, "docs/mumott.md": a_mumott_user}


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_the_python_in_the_texts_runs(text, tmp_path, monkeypatch):
    """All ``python`` blocks of one text run after each other, as a reader would type them."""
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / text).read_text(), re.DOTALL | re.MULTILINE))
    for name in needs(code):
        pytest.importorskip(name, exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(text), "exec"), {"__name__": "text"} | PREPARED.get(str(text), dict)())


@pytest.mark.parametrize("text", TEXTS, ids=str)
def test_the_files_that_the_texts_point_to_exist(text):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / text).read_text())
    assert not [link for link in links if not ((ROOT / text).parent / link).exists()]


def test_make_has_the_targets_that_the_texts_name():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in TEXTS:
        assert set(re.findall(r"`make ([a-z]+)", (ROOT / text).read_text())) <= targets


# -- what the repository holds ----------------------------------------------------------------------------------------


def test_measured_data_ship_with_their_notices():
    files = [file for file in (ROOT / "ddf_tomo" / "data").iterdir() if file.suffix == ".h5"]
    assert files
    for file in files:
        assert file.stat().st_size <= 3_000_000
        assert file.with_suffix(".LICENSE").stat().st_size > 500
