"""Who imports whom: the table of rooms in ARCHITECTURE.md is what holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
FOUNDATIONS, PROGRAMS = "foundations", "programs"
NEIGHBOURS = {"mumott", "astra", "tomosipo", "deepinv"}
SLOW = NEIGHBOURS | {"matplotlib", "skimage", "numba", "h5py", "scipy", "triton", "ts_algorithms", "tifffile", "fabio"}
# Imported on first use themselves: a compiled kernel, and classes that derive from a neighbour's.
LATE = {"operators.backends._numba_kernel": {"numba", "llvmlite"}, "interop.mumott.basis": {"mumott"}}
LATE["operators.backends._triton_kernel"] = {"triton"}
LATE["operators._block_kernel"] = LATE["priors._coupled_kernel"] = {"numba"}
LATE["operators._slope_kernel"] = {"numba"}
LATE["operators._filter_kernel"] = LATE["operators._gaussian_kernel"] = {"numba", "llvmlite"}
LATE["retrieval._differential_frames"] = {"numba"}
LATE["retrieval._lanes"] = {"numba", "llvmlite"}
for part in ("errors", "kernel", "windows"):
    LATE[f"retrieval._matching_{part}"] = {"numba"}
LATE["interop.mumott.projector"] = LATE["interop.mumott.learned"] = {"mumott"}
LATE["interop._deepinv"] = {"deepinv"}


@dataclass(frozen=True)
class Room:
    modules: tuple[str, ...]
    may_import: tuple[str, ...]


def rooms(page: str) -> dict[str, Room]:
    """The table of the section "Rooms": one row a room."""
    lines = page.partition("## Rooms")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {
        name: Room(tuple(re.findall(r"`([\w.]+)`", modules)), tuple(filter(None, re.split(r",\s*", allowed))))
        for name, modules, _, allowed in rows[1:]
    }


ROOMS = rooms(PAGE)


def room_of(module: str, table: dict[str, Room] = ROOMS) -> str | None:
    """The room of a module: that of its longest listed beginning."""
    owners = {listed: name for name, room in table.items() for listed in room.modules}
    parts = module.split(".")
    beginnings = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((owners[beginning] for beginning in beginnings if beginning in owners), None)


def modules() -> dict[str, Path]:
    """All modules by their name inside the package; a package by its own name, the front page left out."""
    package = ROOT / "ddf_tomo"
    found = {path.relative_to(package).with_suffix(""): path for path in sorted(package.rglob("*.py"))}
    names = {".".join(name.parts).removesuffix(".__init__"): path for name, path in found.items()}
    return {name: path for name, path in names.items() if name != "__init__"}


MODULES = modules()


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """What a module imports, by `import`, `from` or `neighbour(...)`, and whether that happens when it is imported."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert not child.level, "imports are absolute"
                for alias in child.names:
                    # `from ddf_tomo import scan` is an import of the module, if there is one of that name.
                    inner = f"{child.module}.{alias.name}"
                    yield (inner if inner.removeprefix("ddf_tomo.") in MODULES else str(child.module)), at_import
            elif isinstance(child, ast.Call) and getattr(child.func, "id", "") == "neighbour":
                yield from ((str(name.value), at_import) for name in child.args[:1] if isinstance(name, ast.Constant))
            yield from walk(child, at_import and not isinstance(child, (ast.FunctionDef, ast.Lambda)))

    return walk(ast.parse(source), True)


def faults(module: str, source: str, table: dict[str, Room] = ROOMS) -> list[str]:
    """What a module of this source imports and must not."""
    room = room_of(module, table)
    if room is None:
        return [f"{module} has no room in ARCHITECTURE.md"]
    allowed = {room, FOUNDATIONS, *table[room].may_import}
    found = []
    for name, at_import in imports(source):
        top = name.partition(".")[0]
        if top == "ddf_tomo":
            inner = name.removeprefix("ddf_tomo").lstrip(".")
            other = room_of(inner, table) if inner else "the front page"
            # The front page is only asked for its version, inside functions, below the programs.
            if other == "the front page" and (not at_import or room == PROGRAMS):
                continue
            if "everything" not in allowed and other not in allowed:
                found.append(f"{module} ({room}) imports {inner or 'ddf_tomo'} ({other})")
        elif top in SLOW and at_import and top not in LATE.get(module, ()):
            found.append(f"{module} imports {top} when it is imported")
        elif top in NEIGHBOURS and room not in ("backends", "neighbours", PROGRAMS):
            found.append(f"{module} ({room}) knows of {top}")
    return found


def test_the_table_reads_upwards():
    names = list(ROOMS)
    assert len(names) > 10
    assert names[0] == FOUNDATIONS
    assert not ROOMS[FOUNDATIONS].may_import
    for place, (name, room) in enumerate(ROOMS.items()):
        assert set(room.may_import) <= {*names[:place], "everything"}, f"{name} may import what stands below it"
    assert [name for name, room in ROOMS.items() if "everything" in room.may_import] == [PROGRAMS]
    assert not [name for name, room in ROOMS.items() if "neighbours" in room.may_import]


def test_every_room_is_there():
    listed = [module for room in ROOMS.values() for module in room.modules]
    assert len(listed) == len(set(listed))
    beginnings = {".".join(module.split(".")[: n + 1]) for module in MODULES for n in range(module.count(".") + 1)}
    assert not set(listed) - beginnings


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module):
    assert not faults(module, MODULES[module].read_text())


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("operators.new", "from ddf_tomo.scan import Scan", "operators.new (operators) imports scan (scan)"),
        ("solvers.new", "def f():\n    import ddf_tomo.interop.astra", "solvers.new (solvers) imports interop.astra"),
        ("solvers.new", "from ddf_tomo import Scan", "solvers.new (solvers) imports ddf_tomo (the front page)"),
        ("solvers.new", "def f():\n    from ddf_tomo import scan", "solvers.new (solvers) imports scan"),
        ("scan", "import h5py", "scan imports h5py when it is imported"),
        ("scan", "if True:\n    from scipy import fft", "scan imports scipy when it is imported"),
        ("scan", "def f():\n    return neighbour('mumott')", "scan (scan) knows of mumott"),
        ("interop.new", "import mumott", "interop.new imports mumott when it is imported"),
        ("new", "", "new has no room in ARCHITECTURE.md"),
    ],
)
def test_what_must_not_be_is_found(module, source, fault):
    assert [found for found in faults(module, source) if found.startswith(fault)]
