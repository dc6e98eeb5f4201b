"""``ddf-tomo reconstruct``: a scan to a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddf_tomo.cli._app import Angles, AsJson, app, auto_or, check_folder, given, tell


@app.command(short_help="Turn a scan into a tensor volume.")
def reconstruct(
    scan: Annotated[Path, typer.Argument(metavar="SCAN.h5", help="Scan in MUMOTT's HDF5 layout.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File for the volume: .h5 keeps everything, .vti and .xdmf open in ParaView.",
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
        typer.Option(help="What to prefer among volumes: 'tv' (keeps edges), 'smoothness', 'none'; 'auto': mostly tv."),
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
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder to keep the state in: what was interrupted goes on from there.", show_default=False),
    ] = None,
    binning: Annotated[int, typer.Option(help="Average this many pixels in each direction first.", min=1)] = 1,
    angles: Angles = "auto",
    mask: Annotated[bool, typer.Option("--mask", help="Leave out NaN and infinite data instead of refusing.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write a report on the result too; see ddf-tomo report --help."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn a scan into a volume that holds a direction-resolved scattering function in every voxel.

    The file written also holds what is derived from it: mean, anisotropy and principal directions. With --report a page
    for the browser shows the result, how well it fits the data, and what to be wary of.
    """
    import ddf_tomo
    from ddf_tomo.export import format_of

    options = {
        "ell_max": auto_or("ell_max", ell_max, int, "an even number"),
        "prior": None if prior == "none" else prior,
        "weight": _number_or_text(weight),
        "positive": positive,
        **given(iterations=iterations, checkpoint=checkpoint),
    }
    check_folder("output", output)
    check_folder("report", report)
    format_of(output, format)  # an unknown suffix shall be told before the work, too
    measured = ddf_tomo.Scan.read(scan, angles=angles, nonfinite="mask" if mask else "raise")
    if binning > 1:
        measured = measured.binned(binning)
    result = ddf_tomo.reconstruct(measured, method=method, **options)
    result.save(output, format)
    figures = {"views": len(measured), "shape": list(result.coefficients.shape), "ell_max": result.ell_max}
    figures |= dict(result.settings) | {"output": str(output)}
    if report is not None:
        from ddf_tomo.report import write_report

        figures |= {"warnings": list(write_report(result, report, scan=measured)), "report": str(report)}
    tell(figures, as_json)


def _number_or_text(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
