"""Running the program: its arguments, its errors on one line, its exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from ddf_tomo.cli._app import app

USER_ERRORS = (ValueError, TypeError, OSError, ImportError, MemoryError)
BAD_INPUT, FAULT = 2, 70  # exit codes; 70 is sysexits.h's "internal software error"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``ddf-tomo`` with the given arguments (default: the command line's) and exit.

    Bad input ends with one line on standard error and exit code 2; ``--debug``, anywhere, shows the traceback.

    Examples
    --------
    >>> try:
    ...     main(["--version"])
    ... except SystemExit as end:
    ...     print("exit code", end.code)
    ddf-tomo 0.1.0
    exit code 0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    with warnings.catch_warnings():
        if not debug:
            warnings.showwarning = _show_warning
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # matter between packages, not of users
        try:
            code = app(words or ["--help"], prog_name="ddf-tomo", standalone_mode=False)
        except Exception as error:
            if debug:
                raise
            code = _explain(error)
    raise SystemExit(code or 0)


def _explain(error: Exception) -> int:
    """Print an error as one line, and give the exit code that belongs to it."""
    if hasattr(error, "format_message"):  # what typer raises on a wrong command, option or value
        text, code = f"{error.format_message()} See: ddf-tomo --help", BAD_INPUT
    elif isinstance(error, USER_ERRORS):
        text, code = str(error), BAD_INPUT
    else:
        text, code = (
            f"{type(error).__name__}: {error}. This is a fault of ddf_tomo: please report it, with --debug",
            FAULT,
        )
    print(f"ddf-tomo: {_one_line(text)}", file=sys.stderr)
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"ddf-tomo: warning: {_one_line(message)}", file=sys.stderr)
