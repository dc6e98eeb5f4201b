"""The table of entry points, and how a case is made of one."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.fuzz.values import Source, spoiled

Made = tuple[Callable[..., Any], dict[str, Any]]


@dataclass(frozen=True)
class EntryPoint:
    """``make`` gives the function to call and right arguments for it.

    ``weight`` is its share of the cases; ``propagates`` and ``raw``: see `tests.fuzz.oracle.judge`.
    """

    make: Callable[[Source], Made]
    weight: float = 1.0
    propagates: bool = False
    raw: bool = False


TABLE: dict[str, EntryPoint] = {}


def entry(name: str, weight: float = 1.0, **kind: bool) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        TABLE[name] = EntryPoint(make, weight, **kind)
        return make

    return register


def case(name: str, rng: random.Random) -> Made:
    """One call: right arguments, of which none, one or several are broken."""
    source = Source(rng)
    function, arguments = TABLE[name].make(source)
    for _ in range(source.one_of(0, 1, 1, 1, 1, 2, 3)) if arguments else ():
        argument = source.one_of(*arguments)
        arguments[argument] = spoiled(arguments[argument], source)
    return function, arguments


@lru_cache(1)
def folder() -> Path:
    """A folder of this process, for files."""
    return Path(tempfile.mkdtemp(prefix="ddf_tomo_fuzz_"))
