"""``ddf-tomo reconstruct``: scans to volumes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ddf_tomo.cli._app import Angles, AsJson, app, auto_or, check_folder, given, tell
from ddf_tomo.cli._measured import Exponent, Quantity, read_measured

BRACES = "{}"


@app.command(short_help="Turn a scan into a tensor volume.")
def reconstruct(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN.h5...",
            help="Scan in MUMOTT's HDF5 layout; or several (q-bins, energies), each starting from the one before; or"
            " the maps that ddf-tomo retrieve made of a whole scan.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File for the volume: .h5 keeps everything, .vti and .xdmf open in ParaView. For several scans a name"
            " with {}, in whose place the name of the scan's file comes: volume_{}.h5.",
            show_default=False,
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="Of the volume: hdf5, vti, xdmf or mumott (as MUMOTT's pipelines write).", show_default="by the suffix"
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Algorithm: cg is the fastest; fista and pdhg can keep scattering positive; lbfgs; sirt knows no"
            " prior; irtt gives positive definite tensors."
        ),
    ] = "cg",
    ell_max: Annotated[
        str, typer.Option(help="Highest order of the spherical harmonics, even; 'auto': what the data determine.")
    ] = "auto",
    prior: Annotated[
        str,
        typer.Option(
            help="What to prefer among volumes: 'tv' (keeps edges), 'smoothness', 'none', 'learned' or a file of"
            " weights (.safetensors), 'tv+learned' or others with + between (a mixture); 'auto': mostly tv."
        ),
    ] = "auto",
    weight: Annotated[
        str,
        typer.Option(
            help="Weight of the prior, 0.001 to 0.1 mostly, or how to find it: 'cross-validation' (auto),"
            " 'discrepancy', 'l-curve'."
        ),
    ] = "auto",
    positive: Annotated[bool, typer.Option("--positive", help="Keep scattering from becoming negative.")] = False,
    iterations: Annotated[
        int | None, typer.Option(help="Largest number of iterations.", show_default="the method's own", min=1)
    ] = None,
    noise_level: Annotated[
        float | None,
        typer.Option(
            help="Norm of the weighted noise: where to stop with --prior none, what --weight discrepancy aims at.",
            show_default="from the weights",
            min=0.0,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Folder to keep the state in. What was interrupted goes on from there when the same command is given"
            " again; it is removed when the volume is written.",
            show_default="OUTPUT.checkpoint",
        ),
    ] = None,
    no_checkpoint: Annotated[bool, typer.Option("--no-checkpoint", help="Keep no state on the disk.")] = False,
    quantity: Quantity = None,
    exponent: Exponent = None,
    no_scalars: Annotated[
        bool, typer.Option("--no-scalars", help="Of maps: leave attenuation and refractive decrement out.")
    ] = False,
    binning: Annotated[int, typer.Option(help="Average this many pixels in each direction first.", min=1)] = 1,
    angles: Angles = "auto",
    mask: Annotated[bool, typer.Option("--mask", help="Leave out NaN and infinite data instead of refusing.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a report on the result too ({} as above); see ddf-tomo report --help."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a scan, or maps, into a volume that holds a direction-resolved scattering function in every voxel.

    The file written also holds what is derived from it: mean, anisotropy and principal directions. With --report a page
    for the browser shows the result, how well it fits the data, and what to be wary of. What was interrupted goes on
    when the same command is given again. Several scans at once: ddf-tomo reconstruct q1.h5 q2.h5 -o volume_{}.h5
    """
    import ddf_tomo
    from ddf_tomo.export import format_of

    options = {
        "ell_max": auto_or("ell_max", ell_max, int, "an even number"),
        "prior": None if prior == "none" else prior,
        "weight": _number_or_text(weight),
        "positive": positive,
        **given(iterations=iterations, noise_level=noise_level),
    }
    outputs = _named("output", output, scans)
    reports = [] if report is None else _named("report", report, scans)
    format_of(output, format)  # an unknown suffix shall be told before the work, too
    state = None if no_checkpoint else checkpoint or output.with_name(output.name + ".checkpoint")
    measured = [read_measured(scan, angles, mask) for scan in scans]
    if len(measured) == 1 and not isinstance(measured[0], ddf_tomo.Scan):
        chosen = quantity or ("rank-two" if method == "irtt" else "scattering")
        wishes: dict[str, Any] = {"of_maps": given(exponent=exponent), "binning": binning}
        wishes |= {"scalars": ()} if no_scalars else {}
        with _kept(state):
            results = [measured[0].reconstruct(chosen, method=method, checkpoint=state, **wishes, **options)]
            results[0].save(outputs[0], format)
        measured = [measured[0].scan(chosen, **given(exponent=exponent))]
    else:
        _refuse_for_scans(measured, quantity=quantity, exponent=exponent, no_scalars=no_scalars or None)
        measured = measured if binning == 1 else [scan.binned(binning) for scan in measured]
        with _kept(state):
            asked = measured[0] if len(measured) == 1 else measured
            found = ddf_tomo.reconstruct(asked, method=method, checkpoint=state, **options)
            results = [found] if len(measured) == 1 else found
            for result, path in zip(results, outputs, strict=True):
                result.save(path, format)
    told: list[dict[str, Any]] = []
    for place, result in enumerate(results):
        figures = {"views": len(measured[place]), "shape": list(result.coefficients.shape), "ell_max": result.ell_max}
        figures |= dict(result.settings) | ({"scalars": ", ".join(result.scalars)} if result.scalars else {})
        figures |= {"output": str(outputs[place])}
        if reports:
            from ddf_tomo.report import write_report

            remarks = write_report(result, reports[place], scan=measured[place])
            figures |= {"warnings": list(remarks), "report": str(reports[place])}
        told.append(figures if len(results) == 1 else {"scan": str(scans[place])} | figures)
    if as_json:
        tell(told[0] if len(told) == 1 else {"volumes": told}, as_json)
    else:
        for place, figures in enumerate(told):
            print(end="\n" if place else "")
            tell(figures, as_json)


def _refuse_for_scans(measured: list[Any], **options: Any) -> None:
    """Options of maps do not go with scans, and maps do not go with others."""
    from ddf_tomo import Scan
    from ddf_tomo._checks import message

    if not all(isinstance(each, Scan) for each in measured):
        raise ValueError(message("scans", "one file of maps, or scans", f"{len(measured)} files, some of maps"))
    for name, value in options.items():
        if value is not None:
            raise ValueError(message(name, "a file of maps, from ddf-tomo retrieve", "a scan"))


def _named(option: str, pattern: Path, scans: list[Path]) -> list[Path]:
    """A file for each scan: braces stand for the name of the scan's, without its suffix."""
    from ddf_tomo._checks import message

    if len(scans) > 1 and BRACES not in pattern.name:
        raise ValueError(message(option, f"a name with {BRACES} for {len(scans)} scans", repr(str(pattern))))
    paths = [pattern.with_name(pattern.name.replace(BRACES, scan.stem)) for scan in scans]
    for path in paths:
        check_folder(option, path)
        if any(scan.exists() and path.exists() and path.samefile(scan) for scan in scans):
            raise ValueError(message(option, "another file than the scan", repr(str(path))))
    if len(set(paths)) < len(paths):
        raise ValueError(message(option, "scans with names of their own", ", ".join(map(str, scans))))
    return paths


@contextmanager
def _kept(state: Path | None) -> Iterator[None]:
    """What the folder of the state means to a person: told when it is used, and gone when all is done."""
    from ddf_tomo._one_scan import holds_states, remove_states

    there = state is not None and holds_states(state)
    existed = state is not None and state.is_dir()
    if there:
        print(f"ddf-tomo: going on from {state}", file=sys.stderr)
    try:
        yield
    except KeyboardInterrupt:
        if state is not None and holds_states(state):
            print(f"ddf-tomo: interrupted; the same command goes on from {state}", file=sys.stderr)
        raise
    except (TypeError, ValueError, MemoryError):  # of a wish that cannot be met, nothing is left that could go on
        if state is not None and not there:
            remove_states(state)
            if existed:
                state.mkdir(exist_ok=True)
        raise
    if state is not None:
        remove_states(state)


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
