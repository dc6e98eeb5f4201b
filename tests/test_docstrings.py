"""Every public name explains itself: what it is, its parameters with their shapes, and an example."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import ddf_tomo

# Modules that are being written or rewritten; this list only ever gets shorter.
NOT_YET = tuple(
    f"ddf_tomo.{name}"
    for name in (
        "_reconstruct", "derived", "export", "merits", "phantoms", "priors", "reconstruction", "report", "solvers",
        "visualization",
    )
)  # fmt: skip
NEIGHBOURS = "ddf_tomo.interop."
COMMANDS = ("ddf_tomo.cli", "ddf_tomo.demo")  # explain themselves by --help
ARRAYS = re.compile(r"\b(Array|ArrayLike|NDArray|Tensor)\b")
SHAPE = re.compile(r"[Ss]hape|\(\.\.\.|\([\w…]+, |\blike\b|\b[Aa]s in\b|\bnumber\b|array of")


def public_names() -> dict[str, Any]:
    """Every public function and class by the shortest name it has.

    A module's public names are those of its `__all__`; without one, what it defines, or nothing where it lies inside a
    package that has one.
    """
    packages = {"ddf_tomo": ddf_tomo}
    for found in pkgutil.walk_packages(ddf_tomo.__path__, "ddf_tomo."):
        if not any(part.startswith("_") for part in found.name.split(".")) and found.name not in COMMANDS:
            try:
                packages[found.name] = importlib.import_module(found.name)
            except ImportError:
                if not found.name.startswith(NEIGHBOURS):  # where the neighbour may be missing
                    raise
    names: dict[int, tuple[str, Any]] = {}
    for module_name, module in sorted(packages.items(), key=lambda item: item[0].count(".")):
        parent = packages[module_name.rpartition(".")[0] or "ddf_tomo"]
        inside = parent is not ddf_tomo and hasattr(parent, "__all__")
        own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module_name]
        for name in getattr(module, "__all__", () if inside else own):
            try:
                thing = getattr(module, name)
            except ImportError:
                if not module_name.startswith(NEIGHBOURS):
                    raise
                continue
            if not name.startswith("_") and (inspect.isroutine(thing) or inspect.isclass(thing)):
                names.setdefault(id(thing), (f"{module_name}.{name}", thing))
    return dict(names.values())


PUBLIC = public_names()


def sections(text: str) -> dict[str, str]:
    """The parts of a NumPy docstring by their titles."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(section: str) -> dict[str, str]:
    """What a section says of each name; `p, j, k` on one line are three names with the same words."""
    found = {}
    for heading, words in re.findall(r"^(\S.*)\n((?:[ \t]+.*\n?|\n)*)", section + "\n", re.MULTILINE):
        names, _, kind = heading.partition(" : ")
        found |= {name.strip(" *"): f"{kind} {words}" for name in names.split(",")}
    return found


def parameters(thing: Any) -> dict[str, inspect.Parameter]:
    try:
        found = inspect.signature(thing).parameters
    except (TypeError, ValueError):  # of built-in kind, as exceptions and warnings are
        return {}
    return {name: value for name, value in found.items() if not name.startswith("_") and name not in ("self", "cls")}


def defects(name: str, thing: Any, *, example: bool = True) -> Iterator[str]:
    """What a docstring lacks."""
    text = inspect.getdoc(thing) or ""
    if len(text) < 20:
        yield f"{name}: no docstring"
        return
    parts = sections(text)
    words = described(parts.get("Parameters", "")) | described(parts.get("Attributes", ""))
    for parameter, value in parameters(thing).items():
        if parameter not in words:
            yield f"{name}: parameter {parameter} is not described"
        elif ARRAYS.search(str(value.annotation)) and not SHAPE.search(words[parameter]):
            yield f"{name}: no shape of {parameter}"
    if example and ">>>" not in text and not re.search(r"[Mm]ade by `", text) and not is_exception(thing):
        yield f"{name}: no example"


def is_exception(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself."""
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
            yield name, member if isinstance(member, property) else getattr(cls, name)


def all_defects(name: str, thing: Any) -> list[str]:
    found = list(defects(name, thing))
    for member_name, member in members(thing) if inspect.isclass(thing) else ():
        text = inspect.getdoc(member) or ""  # that of the class it derives from, if it has none of its own
        if not text:
            found.append(f"{name}.{member_name}: no docstring")
        elif not isinstance(member, property):
            unnamed = [word for word in parameters(member) if not re.search(rf"\b{word}\b", text)]
            found += [f"{name}.{member_name}: parameter {word} is not described" for word in unnamed]
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_explains_itself(name):
    missing = all_defects(name, PUBLIC[name])
    if missing and PUBLIC[name].__module__.startswith(NOT_YET):
        pytest.skip(", ".join(missing))
    assert not missing


def test_a_defect_is_found():
    def bare(x): ...

    def poor(x: torch.Tensor, *, y: float = 0.0) -> None:
        """A function that says little.

        Parameters
        ----------
        x
            Something.
        """

    class Result:
        """What comes out; made by `poor`."""

        def method(self): ...

    assert all_defects("bare", bare) == ["bare: no docstring"]
    assert all_defects("poor", poor) == [
        "poor: no shape of x",
        "poor: parameter y is not described",
        "poor: no example",
    ]
    assert all_defects("Result", Result) == ["Result.method: no docstring"]
