"""Every public name explains itself: what it is, its parameters with their shapes, and an example."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.public_names import public_names

# Modules that are being written or rewritten; this list only ever gets shorter.
NOT_YET: tuple[str, ...] = ()
ARRAYS = re.compile(r"\b(Array|ArrayLike|NDArray|Tensor)\b")
SHAPE = re.compile(r"[Ss]hape|\(\.\.\.|\([\w…]+, |\blike\b|\b[Aa]s in\b|\bnumber\b|array of")


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
