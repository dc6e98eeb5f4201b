"""``ddf-tomo report``: a volume to a page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddf_tomo.cli._app import Angles, AsJson, app, check_folder, tell
from ddf_tomo.cli._measured import read_measured, scan_of_maps


@app.command(short_help="Turn a volume into a page to look at and to send.")
def report(
    volume: Annotated[
        Path, typer.Argument(metavar="VOLUME.h5", help="What ddf-tomo reconstruct wrote.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page.", show_default="beside the volume, ending in .html"),
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(
            metavar="SCAN.h5",
            help="The scan or the maps it was made of: shows how well the volume explains the data.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="TRUTH.h5", help="For simulated scans, what simulate --truth wrote: shows the errors."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading.", show_default="the title of the scan")] = None,
    angles: Angles = "auto",
    as_json: AsJson = False,
) -> None:
    """Write one HTML file that shows a volume and what to be wary of; it opens in any browser, without a network.

    Warnings come first; then what was measured, how well the data are explained, slices to leaf through, fibre
    directions to turn with the mouse, and where everything comes from. The warnings are printed here as well.
    """
    from ddf_tomo import Reconstruction, Scan
    from ddf_tomo.report import write_report

    page = volume.with_suffix(".html") if output is None else output
    check_folder("output", page)
    made = Reconstruction.load(volume)
    measured = None if scan is None else read_measured(scan, angles, mask=True)
    if measured is not None and not isinstance(measured, Scan):
        measured = scan_of_maps(measured, made)
    true = None if truth is None else Reconstruction.load(truth)
    warned = write_report(made, page, scan=measured, truth=true, title=title)
    figures: dict[str, Any] = {"warnings": list(warned)}
    if true is not None:
        from ddf_tomo.merits import compare

        merits = compare(made, true)
        if as_json:
            figures["merits"] = merits.as_dict()
        else:
            print(merits)
    tell(figures | {"output": str(page)}, as_json)
