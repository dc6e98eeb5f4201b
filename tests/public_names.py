"""What is public: the names that the manual documents and `test_docstrings` looks at."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import ddf_tomo

NEIGHBOURS = "ddf_tomo.interop."  # rooms that may stay closed where the neighbour is missing
COMMANDS = ("ddf_tomo.cli", "ddf_tomo.demo", "ddf_tomo.demo_ddf")  # explain themselves by --help


def public_modules() -> dict[str, ModuleType]:
    """Every module without an underscore in its name, packages before what lies in them."""
    modules: dict[str, ModuleType] = {"ddf_tomo": ddf_tomo}
    for found in pkgutil.walk_packages(ddf_tomo.__path__, "ddf_tomo."):
        if not any(part.startswith("_") for part in found.name.split(".")) and found.name not in COMMANDS:
            try:
                modules[found.name] = importlib.import_module(found.name)
            except ImportError:
                if not found.name.startswith(NEIGHBOURS):
                    raise
    return dict(sorted(modules.items(), key=lambda item: (item[0].count("."), item[0])))


def names_of(module: ModuleType, modules: dict[str, ModuleType]) -> dict[str, Any]:
    """Public functions and classes of one module: those of its `__all__`.

    Without one, all that it defines; or nothing, where it lies inside a package that has one.
    """
    parent = modules[module.__name__.rpartition(".")[0] or "ddf_tomo"]
    inside = parent is not ddf_tomo and hasattr(parent, "__all__")
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    found = {}
    for name in getattr(module, "__all__", () if inside else own):
        try:
            thing = getattr(module, name)
        except ImportError:
            if not module.__name__.startswith(NEIGHBOURS):
                raise
            continue
        if not name.startswith("_") and (inspect.isroutine(thing) or inspect.isclass(thing)):
            found[name] = thing
    return found


def public_names() -> dict[str, Any]:
    """Every public function and class by the shortest name it has."""
    names: dict[int, tuple[str, Any]] = {}
    modules = public_modules()
    for module_name, module in modules.items():
        for name, thing in names_of(module, modules).items():
            names.setdefault(id(thing), (f"{module_name}.{name}", thing))
    return dict(names.values())
