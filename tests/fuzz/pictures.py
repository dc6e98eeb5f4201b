"""Figures and what Jupyter shows, with right arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import ddf_tomo as dt
from ddf_tomo import _pictures, visualization
from ddf_tomo.visualization import colours, projections, slices, sphere, style
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source


def drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
    """The number of axes stands for a figure, which no oracle can judge."""

    def call(**given: Any) -> int:
        figure = draw(**given)
        figure.draw_without_rendering()
        return len(figure.axes)

    return call


def scalars(**given: Any) -> Any:
    return np.nan_to_num(slices.scalars_of(**given))  # NaN where not valid is what it promises


def path(s: Source) -> Any:
    return s.one_of(None, None, None, None, folder() / "figure.png", str(folder() / "figure.svg"))


def reconstruction(s: Source, **given: Any) -> dt.Reconstruction:
    geometry = s.geometry(views=2)
    response = s.one_of(dt.SecondMomentResponse(), dt.RankTwoResponse())
    sizes = {"coefficients": s.generator().standard_normal((*geometry.volume_shape, 6)), "ell_max": 2}
    return dt.Reconstruction(**({"geometry": geometry, "response": response, "voxel_size_m": 1e-5} | sizes | given))


@entry("colours, limits")
def _(s: Source) -> Made:
    axes = {"directions": s.noise(2, 3), "strength": s.noise(2)}
    frame = {"across": s.as_good(np.eye(3)[0]), "up": s.as_good(np.eye(3)[2]), "size": 5}
    return s.one_of(
        (visualization.cyclic_colour, {"angle_rad": s.noise(3), "strength": s.noise(3)}),
        (colours.slice_colour, axes | {"across": 0, "up": 2, "code": s.one_of("axes", "angle")}),
        (colours.ball, frame),
        (_pictures.equal_area, {"directions": s.noise(4, 3)}),
        (style.limits, {"values": s.noise(5), "rule": s.one_of("share", "zero", "symmetric", "data")}),
        (style.style_of, {"quantity": "mean"}),
    )


@entry("figures of slices", 0.1)
def _(s: Source) -> Made:
    shape, made = s.sizes(3), reconstruction(s)
    place = {"at": s.one_of(None, (0, 0, 0)), "voxel_size_m": s.one_of(None, 1e-5), "path": path(s)}
    volumes = s.one_of({"a": s.noise(*shape)}, {"a": s.noise(*shape), "b": made})
    pair = (s.noise(*shape, 3), s.noise(*shape))
    code = {"code": s.one_of("axes", "angle")}
    return s.one_of(
        (
            drawn(visualization.show_slices),
            {"volumes": volumes, "quantity": s.one_of(None, "mean"), "unit": ""} | place,
        ),
        (drawn(visualization.show_slices), {"volumes": made, "quantity": s.one_of(None, ("mean", "strength"))} | place),
        (drawn(visualization.show_directions), {"volumes": s.one_of(made, made.derived(), {"a": pair})} | code | place),
        (scalars, {"reconstruction": made, "quantity": "fractional_anisotropy"}),
    )


@entry("figures of glyphs", 0.1)
def _(s: Source) -> Made:
    coefficients = s.noise(*s.sizes(3), s.one_of(1, 6, 15))
    look = {"kind": s.one_of("surface", "ellipsoid", "stick"), "colour": s.one_of("direction", "point", "value")}
    place = {"axis": s.one_of(*"xyz"), "index": s.one_of(None, 0), "every": s.one_of(None, 1, 2), "path": path(s)}
    options = {"same_size": s.chance(0.5), "threshold": 0.1, "voxel_size_m": s.one_of(None, 1e-5)}
    volume = s.one_of(coefficients, reconstruction(s))
    return drawn(visualization.show_glyphs), {"volume": volume} | look | place | options


@entry("figures of the fit", 0.1)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(1, 3))
    ell_max = 2 if not scan.response.of_harmonics else s.one_of(0, 2)
    count = 6 if ell_max else 1
    coefficients = s.generator().standard_normal((*scan.geometry.volume_shape, count))
    made = dt.Reconstruction(coefficients, ell_max, scan.geometry, scan.response)
    pair = {"reconstruction": s.one_of(made, scan.data), "scan": scan}
    residuals = {"results": s.one_of({"a": s.noise(4, positive=True)}, [3.0, 2.0, 0.0]), "noise_level": 1.0}
    return s.one_of(
        (
            drawn(visualization.show_projections),
            pair | {"views": s.one_of(None, [0]), "channels": None, "path": path(s)},
        ),
        (visualization.misfit_of_views, pair),
        (projections.predicted_by, pair),
        (drawn(visualization.show_convergence), residuals | {"path": path(s)}),
    )


@entry("figures of scans with damaged data", 0.1)
def _(s: Source) -> Made:
    scan = s.scan(2)

    def call(**given: Any) -> Any:
        made = dt.Scan(geometry=scan.geometry, response=scan.response, **given)
        visualization.show_projections(np.zeros(scan.data.shape), made)
        return made._repr_html_()

    return call, {"data": scan.data, "weights": scan.weights, "diode": scan.diode, "title": "title"}


@entry("figures of beams", 0.1)
def _(s: Source) -> Made:
    geometry = s.geometry()
    report = dt.observability(geometry, dt.SecondMomentResponse(), 2, directions=20)
    values = {"values": s.one_of(None, s.noise(len(geometry))), "quantity": s.one_of(None, "misfit", "view")}
    return s.one_of(
        (drawn(visualization.show_beams), {"geometry": geometry, "path": path(s)} | values),
        (drawn(sphere.show_observability), {"report": report, "path": path(s)}),
    )


@entry("what Jupyter shows")
def _(s: Source) -> Made:
    geometry = s.geometry()

    def volume(**given: Any) -> str:
        return dt.Reconstruction(geometry=geometry, response=dt.SecondMomentResponse(), **given)._repr_html_()

    coefficients = s.noise(*geometry.volume_shape, s.one_of(1, 6))
    settings = {"method": "cg", "residual_share": 0.1}
    return s.one_of(
        (lambda p: s.geometry()._repr_html_(), {"p": None}),
        (volume, {"coefficients": coefficients, "ell_max": 2, "settings": settings, "provenance": {"title": "a"}}),
    )
