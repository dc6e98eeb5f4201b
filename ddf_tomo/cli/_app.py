"""The program and what its commands share: options, checks, and how figures are printed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="ddf-tomo",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Directional dark-field and SAXS tensor tomography: images to maps, scans to volumes, volumes to reports.",
    epilog="Begin with: ddf-tomo doctor, then ddf-tomo demo. Each command explains itself: ddf-tomo retrieve --help",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON, for programs.")]
Angles = Annotated[str, typer.Option(help="Unit of the angles in the file: 'radians', 'degrees', or 'auto'.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        import ddf_tomo

        print(f"ddf-tomo {ddf_tomo.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error arose; goes anywhere.")] = False,
) -> None:
    # Both are dealt with elsewhere (the callback, and main); they stand here for --help.
    return


def check_folder(option: str, path: Path | None) -> None:
    """A wrong folder shall be told before the work, not after it."""
    from ddf_tomo._checks import message

    if path is None:
        return
    if path.is_dir():
        raise ValueError(message(option, "a file name", f"the folder {str(path)!r}"))
    if not path.parent.is_dir():
        raise ValueError(message(option, "a file in an existing folder", repr(str(path))))


def auto_or(option: str, text: str, kind: type, expected: str) -> Any:
    """'auto', or a number of this kind."""
    from ddf_tomo._checks import message

    try:
        return text if text == "auto" else kind(text)
    except ValueError as error:
        raise ValueError(message(option, f"'auto' or {expected}", repr(text))) from error


def numbers(option: str, text: str, kind: type, expected: str) -> list[Any]:
    """Numbers of this kind between commas."""
    from ddf_tomo._checks import message

    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(message(option, expected, repr(text))) from error


def given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others keep the default of the function that is called."""
    return {name: value for name, value in options.items() if value is not None}


def tell(figures: dict[str, Any], as_json: bool) -> None:
    """Print figures, one a line, or as JSON that every program reads (what is not finite is null)."""
    if as_json:
        print(json.dumps(_plain(figures), indent=2, allow_nan=False, default=str))
        return
    for name, value in figures.items():
        if name == "warnings":
            print("".join(f"warning: {line}\n" for line in value), end="")
            continue
        text = " × ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{name.replace('_', ' ')}: {f'{text:.4g}' if isinstance(text, float) else text}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
