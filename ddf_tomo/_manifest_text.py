"""TOML of a manifest: which line a key stands on, and how values are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np


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
