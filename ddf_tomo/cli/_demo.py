"""``ddf-tomo demo``: everything once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddf_tomo.cli._app import app


@app.command(short_help="Try everything once, on measured and simulated data.")
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for figures and volumes.")] = Path(
        "demo_output"
    ),
    ddf: Annotated[
        bool, typer.Option("--ddf", help="The raw images of a dark-field tensor scan to a volume, instead.")
    ] = False,
) -> None:
    """Do the whole job once, on measured images and a simulated scan; takes a few minutes on a laptop.

    Measured speckle images become directional dark-field maps, measured CT views a volume, a simulated scan of a
    fibrous sample a tensor volume, once here and once inside MUMOTT. The folder with the results is printed last.

    With --ddf, one chain from its beginning: frames behind a mask are simulated view by view, photon by photon, maps
    retrieved from them, and a tensor volume reconstructed from the maps.
    """
    if ddf:
        from ddf_tomo.demo_ddf import run
    else:
        from ddf_tomo.demo import run

    run(output)
