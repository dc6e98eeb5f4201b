"""What commands take as a scan: a file in MUMOTT's layout, or the maps that ddf-tomo retrieve wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Quantity = Annotated[
    str | None,
    typer.Option(
        help="Of maps: scattering (second moments), rank-two (the same for tensors of rank 2), visibility.",
        show_default="scattering, or rank-two for irtt",
    ),
]
Exponent = Annotated[
    float | None, typer.Option(help="Of maps of visibility: the exponent β, above 0, at most 2.", show_default=False)
]


def read_measured(path: Path, angles: str, mask: bool) -> Any:
    """A `Scan`, or the `MapSeries` of which scans are made."""
    from ddf_tomo import Scan
    from ddf_tomo.map_series import MapSeries

    if MapSeries.is_one(path):
        return MapSeries.load(path)
    return Scan.read(path, angles=angles, nonfinite="mask" if mask else "raise")


def scan_of_maps(series: Any, reconstruction: Any) -> Any:
    """The scan that a reconstruction was made of, by its response."""
    response = reconstruction.response
    kinds = {"SecondMomentResponse": "scattering", "RankTwoResponse": "rank-two", "IsotropicResponse": "attenuation"}
    quantity = kinds.get(type(response).__name__, "visibility")
    return series.scan(quantity, exponent=getattr(response, "exponent", None))
