"""``ddf-tomo doctor``: does it all work here, and how fast is it?"""

from __future__ import annotations

from typing import Annotated

import typer

from ddf_tomo.cli._app import AsJson, app


@app.command(short_help="Say what works on this machine, and what to do.")
def doctor(
    as_json: AsJson = False,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure instead, for half a minute, what this machine does.")
    ] = False,
    size: Annotated[
        int | None,
        typer.Option(
            help="With --benchmark: edge of a volume in voxels, of which the time and memory of a reconstruction are"
            " predicted.",
            min=1,
            max=4096,
            show_default=False,
        ),
    ] = None,
    coefficients: Annotated[int, typer.Option(help="In each voxel of it: 6 up to order 2, 15 up to 4.", min=1)] = 15,
    views: Annotated[int, typer.Option(help="Of the scan.", min=1)] = 238,
    channels: Annotated[int, typer.Option(help="Of a pixel: segments, or 3 second moments.", min=1)] = 8,
    stream: Annotated[bool, typer.Option("--stream", help="The data stay on the disk.")] = False,
) -> None:
    """Say which parts work on this machine, and what to do about those that do not. Exit code 0: the core works.

    With --benchmark it is measured what the machine does in a second; add --size 64 --coefficients 15 --views 238, say,
    to learn what a reconstruction would cost here.
    """
    if benchmark:
        from ddf_tomo import speed
        from ddf_tomo.memory import Size

        found, cost = speed.measure(15.0), None
        if size is not None:
            rows, columns = speed.spread_views((size,) * 3, 1).detector_shape
            wanted = Size((size,) * 3, (views, rows, columns, channels), coefficients, streams=stream)
            cost = speed.predict(wanted)
        if as_json:
            print(found.to_json(cost))
        else:
            speed.show(found, cost)
        return
    from ddf_tomo.doctor import examine, show

    report = examine()
    if as_json:
        print(report.to_json())
    else:
        show(report)
    raise typer.Exit(0 if report.works else 1)
