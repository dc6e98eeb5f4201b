"""``ddf-tomo doctor``: does it all work here?"""

from __future__ import annotations

import typer

from ddf_tomo.cli._app import AsJson, app


@app.command(short_help="Say what works on this machine, and what to do.")
def doctor(as_json: AsJson = False) -> None:
    """Say which parts work on this machine, and what to do about those that do not. Exit code 0: the core works."""
    from ddf_tomo.doctor import examine, show

    report = examine()
    if as_json:
        print(report.to_json())
    else:
        show(report)
    raise typer.Exit(0 if report.works else 1)
