"""TOML of manifests and recipes: keys with checks, which line a fault stands on, and how values are written."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ddf_tomo._checks import FileFormatError, file_path, message

Keys = Mapping[str, tuple[str, str, Callable[[Any, str], Any]]]
"""Of each field: table and key in the file, and the check of its value, which is called with value and key."""


def read_tables(
    path: str | os.PathLike[str],
    keys: Keys,
    what: str,
    *,
    free: Collection[str] = (),
    required: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Values by field; those of other keys of ``free`` tables as a mapping under the table's name.

    ``required`` says of fields that must be there what is expected.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is not TOML, or a key is unknown, missing or wrong; the message names line, table and key.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.toml"
    >>> _ = path.write_text("[scan]\\nsteps = 3\\n[more]\\na = 1")
    >>> read_tables(path, {"steps": ("scan", "steps", lambda value, key: value + 1)}, "an example", free=["more"])
    {'more': {'a': 1}, 'steps': 4}
    """
    file = file_path(path)
    if not file.is_file():
        raise FileNotFoundError(message("path", "an existing file", repr(str(file))))
    try:
        text = file.read_text(encoding="utf-8")
        contents = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(message("path", f"{what} in TOML", f"{file}: {error}")) from error

    def fault(table: str, key: str, words: str) -> FileFormatError:
        return FileFormatError(f"{place_of(file, text, table, key)} {words}")

    tables = dict.fromkeys([*(table for table, _, _ in keys.values()), *free])
    values: dict[str, Any] = {table: {} for table in free}
    fields = {(table, key): name for name, (table, key, _) in keys.items()}
    for table, entries in contents.items():
        if table not in tables or not isinstance(entries, dict):
            there = ", ".join(f"[{name}]" for name in tables)
            raise fault(table, "", message(table, f"one of the tables {there}", "another name"))
        for key, value in entries.items():
            if (table, key) in fields:
                try:
                    values[fields[table, key]] = keys[fields[table, key]][2](value, key)
                except (TypeError, ValueError) as error:
                    raise fault(table, key, str(error)) from error
            elif table in free:
                values[table][key] = value
            else:
                known = [name for other, name in fields if other == table]
                near = difflib.get_close_matches(key, known, 1)
                hint = f"Did you mean {near[0]!r}?" if near else ""
                raise fault(table, key, message(key, "one of " + ", ".join(known), "another key", hint))
    for name, expected in required.items():
        if name not in values:
            table, key, _ = keys[name]
            raise fault(table, "", message(key, expected, "nothing"))
    return values


def place_of(file: Path, text: str, table: str, key: str) -> str:
    """Where a key stands, for people.

    Examples
    --------
    >>> place_of(Path("a.toml"), "[scan]\\nsteps = 3", "scan", "steps")
    'a.toml, line 2, [scan]'
    """
    return f"{file}, line {line_of(text, table, key)}, [{table}]"


def located(error: Exception, file: Path, keys: Keys) -> str:
    """The words of an error; with file, line and table in front, if they begin with the name of a field.

    Examples
    --------
    >>> located(ValueError("steps: expected 3"), Path("nowhere.toml"), {})
    'steps: expected 3'
    """
    words = str(error)
    table, key, _ = keys.get(words.partition(":")[0], ("", "", None))
    if not table or not file.is_file():
        return words
    return f"{place_of(file, file.read_text(encoding='utf-8', errors='replace'), table, key)} {words}"


def line_of(text: str, table: str, key: str = "") -> int:
    """Line, from 1, where a key of a table stands; of the table, where there is no such key; else 1.

    Examples
    --------
    >>> line_of("[scan]\\nsteps = 3\\n[files]\\nsample = 'a.h5'", "files", "sample")
    4
    """
    inside, found = "", 1
    name = re.compile(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""") if key else None
    dotted = re.compile(rf"\s*{re.escape(table)}\s*(\.\s*{re.escape(key)}\s*)?=") if key else None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$", line)
        if header:
            inside = header[1].strip("\"' ")
            found = number if inside == table or inside == f"{table}.{key}" else found
        elif name and inside == table:
            if name.match(line):
                return number
        elif dotted and not inside and dotted.match(line):
            return number
    return found


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of texts, numbers, lists and small tables, one key a line.

    Raises
    ------
    TypeError
        If TOML cannot hold a value.

    Examples
    --------
    >>> print(toml({"scan": {"steps": 3, "angles": {"first": 0.0, "last": 3.0, "count": 4}}}), end="")
    [scan]
    steps = 3
    angles = { first = 0.0, last = 3.0, count = 4 }
    """
    parts = (f"[{name}]\n" + "".join(f"{k} = {_value(v)}\n" for k, v in keys.items()) for name, keys in tables.items())
    return "\n".join(parts)


def _value(value: Any) -> str:
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + " }"
    raise TypeError(f"value: expected texts, numbers, lists and tables of them, got {value!r}")
