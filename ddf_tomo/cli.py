"""The command line ``ddf-tomo``: the main jobs, each one command, and errors that fit on one line."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import typer

USER_ERRORS = (ValueError, TypeError, OSError, ImportError)
BAD_INPUT, FAULT = 2, 70  # exit codes; 70 is sysexits.h's "internal software error"

app = typer.Typer(
    name="ddf-tomo",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Directional dark-field and SAXS tensor tomography: from images to maps, and from scans to tensor volumes.",
    epilog="Begin with: ddf-tomo doctor, then ddf-tomo demo. Each command explains itself: ddf-tomo retrieve --help",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON, for programs.")]


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


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for figures and volumes.")] = Path(
        "demo_output"
    ),
) -> None:
    """Do the whole job once, on measured images and a simulated scan; takes a few minutes on a laptop.

    Measured speckle images become directional dark-field maps, measured CT views a volume, a simulated scan of a
    fibrous sample a tensor volume, once here and once inside MUMOTT. The folder with the results is printed last.
    """
    from ddf_tomo.demo import run

    run(output)


@app.command()
def retrieve(
    frames: Annotated[
        Path,
        typer.Argument(
            metavar="FRAMES.h5",
            help="HDF5 file with the datasets 'sample' and 'reference' (mask position, row, column).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file for the maps.", show_default=False)],
    method: Annotated[str, typer.Option(help="How to compare the images.")] = "differential",
    window: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation in pixels of the window over which the blur is taken as constant.",
            show_default="3",
        ),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(help="Standard deviation in pixels of the smoothing against noise.", show_default="1"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn images through a mask (sandpaper, membrane, grating) into dark-field maps.

    Gives transmission, displacement and directional blur with their standard errors in every pixel. Pixel size and
    distance (attributes 'pixel_size_m' and 'distance_m' of the file) turn displacements into angles.
    """
    from ddf_tomo.retrieval import retrieve as retrieve_maps

    images = _read_frames(frames)
    _check_folder(output)
    maps = retrieve_maps(**images, method=method, **_given(window=window, smoothing=smoothing))
    maps.save(output)
    _tell(_maps_figures(maps) | {"output": str(output)}, as_json)


@app.command()
def reconstruct(
    scan: Annotated[Path, typer.Argument(metavar="SCAN.h5", help="Scan in MUMOTT's HDF5 layout.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file for the volume.", show_default=False)],
    method: Annotated[str, typer.Option(help="Algorithm.")] = "cg",
    ell_max: Annotated[
        str, typer.Option(help="Highest order of the spherical harmonics, even; 'auto': what the data determine.")
    ] = "auto",
    smoothness: Annotated[
        str, typer.Option(help="Weight of the smoothness from voxel to voxel, 0 for none; 'auto': by cross-validation.")
    ] = "auto",
    iterations: Annotated[
        int | None, typer.Option(help="Largest number of iterations.", show_default="20", min=1)
    ] = None,
    binning: Annotated[int, typer.Option(help="Average this many pixels in each direction first.", min=1)] = 1,
    angles: Annotated[
        str, typer.Option(help="Unit of the angles in the file: 'radians', 'degrees', or 'auto'.")
    ] = "auto",
    mask: Annotated[bool, typer.Option("--mask", help="Leave out NaN and infinite data instead of refusing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a scan into a volume that holds a direction-resolved scattering function in every voxel.

    The file written also holds what is derived from it: mean, anisotropy and principal directions.
    """
    import ddf_tomo

    options = {
        "ell_max": _auto_or("ell_max", ell_max, int, "an even number"),
        "smoothness": _auto_or("smoothness", smoothness, float, "a number"),
    }
    _check_folder(output)
    measured = ddf_tomo.Scan.read(scan, angles=angles, nonfinite="mask" if mask else "raise")
    if binning > 1:
        measured = measured.binned(binning)
    result = ddf_tomo.reconstruct(measured, method=method, **options, **_given(iterations=iterations))
    result.save(output)
    figures = {"views": len(measured), "shape": list(result.coefficients.shape), "ell_max": result.ell_max}
    _tell(figures | dict(result.settings) | {"output": str(output)}, as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say which parts work on this machine, and what to do about those that do not. Exit code 0: the core works."""
    from ddf_tomo.doctor import examine, show

    report = examine()
    if as_json:
        print(report.to_json())
    else:
        show(report)
    raise typer.Exit(0 if report.works else 1)


def _read_frames(path: Path) -> dict[str, Any]:
    """Sample and reference frames, pixel size and distance from an HDF5 file, as `retrieve` takes them."""
    import h5py

    from ddf_tomo._checks import FileFormatError, message

    if not path.is_file():
        raise FileNotFoundError(message("frames", "an HDF5 file", f"{str(path)!r}, which is no file"))
    try:
        with h5py.File(path) as file:
            found: dict[str, Any] = {}
            for name in ("sample", "reference"):
                if not isinstance(file.get(name), h5py.Dataset):
                    contents = ", ".join(file) or "nothing"
                    raise FileFormatError(message("frames", f"a dataset {name!r}", f"{str(path)!r} with {contents}"))
                found[name] = file[name][()]
            found |= {name: file.attrs[name] for name in ("pixel_size_m", "distance_m") if name in file.attrs}
            return found
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises on truncated or damaged files
        raise FileFormatError(message("frames", "a complete HDF5 file", f"{str(path)!r}: {error}")) from error


def _check_folder(output: Path) -> None:
    """A wrong folder shall be told before the work, not after it."""
    from ddf_tomo._checks import message

    if output.is_dir():
        raise ValueError(message("output", "a file name", f"the folder {str(output)!r}"))
    if not output.parent.is_dir():
        raise ValueError(message("output", "a file in an existing folder", repr(str(output))))


def _auto_or(option: str, text: str, kind: type, expected: str) -> Any:
    from ddf_tomo._checks import message

    try:
        return text if text == "auto" else kind(text)
    except ValueError as error:
        raise ValueError(message(option, f"'auto' or {expected}", repr(text))) from error


def _given(**options: Any) -> dict[str, Any]:
    """Options that were given; the others keep the default of the function that is called."""
    return {name: value for name, value in options.items() if value is not None}


def _maps_figures(maps: Any) -> dict[str, Any]:
    valid = maps.valid
    return {
        "shape": list(maps.transmission.shape),
        "retrieved_share": float(valid.mean()),
        "median_transmission": float(np.median(maps.transmission[valid])),
        "median_displacement_error_pixels": float(np.median(maps.displacement_error[valid])),
        "median_blur_error_pixels2": float(np.median(maps.covariance_error[valid])),
    }


def _tell(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        text = " × ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {f'{text:.4g}' if isinstance(text, float) else text}")


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
