"""What all figures share: the look of each quantity, units of length, fonts, and files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import choice, file_path, message, neighbour, real_array
from ddf_tomo._files import replaced_when_complete

FORMATS = ("png", "pdf", "svg")
DPI, NOTEBOOK_DPI = 150, 100
TITLE, LABEL, TICK = 9, 8, 7
"""Font sizes, in points."""
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "0.55"
"""Colours of lines and points that readers of any colour vision tell apart [Okabe & Ito 2008]."""
MISSING = "0.8"
"""Colour of what is masked or not valid."""
UNKNOWN = "data unit"
"""What stands for a unit that nobody noted."""


@dataclass(frozen=True)
class Style:
    """How a quantity is drawn.

    Attributes
    ----------
    label
        Its name in figures.
    unit
        Its unit; empty for plain numbers, ``"{data}"`` stands for the unit of the data.
    colours
        Name of a matplotlib colour map.
    limits
        Rule for the range of the colours: ``"share"`` is 0 … 1, ``"zero"`` is 0 … 99.5th percentile, ``"symmetric"`` is
        ± the 99th percentile of the size, ``"data"`` is 1st … 99th percentile.

    Examples
    --------
    >>> Style("power", "", "viridis", "zero").titled
    'power'
    >>> STYLES["blur"].titled
    'blur (pixels²)'
    """

    label: str
    unit: str
    colours: str
    limits: str

    @property
    def titled(self) -> str:
        """Label with the unit in brackets."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def in_units_of(self, data_unit: str) -> Style:
        """The style with ``data_unit``, the unit of the data, put in.

        Examples
        --------
        >>> STYLES["mean"].in_units_of("µrad²").titled
        'mean scattering (µrad²/voxel)'
        """
        plain = self.unit == "{data}" and data_unit == UNKNOWN
        return replace(self, unit="" if plain else self.unit.replace("{data}", data_unit))


STYLES: Final[Mapping[str, Style]] = MappingProxyType(
    {
        "scalar": Style("value", "", "gray", "data"),
        "attenuation": Style("attenuation", "1/voxel", "gray", "data"),
        "mean": Style("mean scattering", "{data}/voxel", "viridis", "zero"),
        "strength": Style("mean × anisotropy", "{data}/voxel", "viridis", "zero"),
        "value": Style("f(q)", "{data}/voxel", "viridis", "zero"),
        "fractional_anisotropy": Style("fractional anisotropy", "", "magma", "share"),
        "relative_anisotropy": Style("relative anisotropy", "", "magma", "zero"),
        "data_share": Style("share from the data", "", "cividis", "share"),
        "order_parameter": Style("order parameter", "", "PuOr_r", "symmetric"),
        "angle_error": Style("angle to the truth", "°", "inferno", "zero"),
        "difference": Style("difference", "{data}/voxel", "RdBu_r", "symmetric"),
        "signal": Style("signal", "{data}", "viridis", "zero"),
        "signed_signal": Style("signal", "{data}", "PuOr_r", "symmetric"),
        "residual": Style("residual / σ", "", "RdBu_r", "symmetric"),
        "misfit": Style("mean square of residual / σ", "", "inferno", "zero"),
        "view": Style("view", "", "viridis", "data"),
        "transmission": Style("transmission T", "share", "gray", "data"),
        "displacement": Style("displacement", "pixels", "RdBu_r", "symmetric"),
        "blur": Style("blur", "pixels²", "magma", "data"),
        "seeing": Style("views that see structure along ξ", "", "viridis", "zero"),
        "gap": Style("largest gap between them", "°", "magma_r", "zero"),
        "rank": Style("rank", "", "viridis", "zero"),
        "condition": Style("condition", "log₁₀", "magma_r", "zero"),
    }
)
"""The look of every quantity: the same one has the same colour map, label and unit in every figure."""


def style_of(quantity: Any) -> Style:
    """The entry of `STYLES`.

    Raises
    ------
    ValueError
        If there is no such quantity; the message names those that there are.

    Examples
    --------
    >>> style_of("residual").colours
    'RdBu_r'
    """
    return STYLES[choice(quantity, "quantity", tuple(STYLES))]


def limits(values: ArrayLike, rule: str) -> tuple[float, float]:
    """Lowest and highest value of a colour scale by one of the rules of `Style`; NaN do not count, never empty.

    Examples
    --------
    >>> limits([-1.0, 3.0, float("nan")], "symmetric")
    (-2.98, 2.98)
    >>> limits([], "zero")
    (0.0, 1.0)
    """
    choice(rule, "rule", ("share", "zero", "symmetric", "data"))
    finite = real_array(values, "values", finite=False)
    finite = finite[np.isfinite(finite)]
    if rule == "share" or not finite.size:
        return (-1.0, 1.0) if rule == "symmetric" else (0.0, 1.0)
    if rule == "data":
        low, high = (float(edge) for edge in np.percentile(finite, (1, 99)))
        return (low, high) if high > low else (low, low + max(1.0, 1e-3 * abs(low)))
    if rule == "zero":
        high = float(np.percentile(finite, 99.5))
        return 0.0, high if high > 0 else 1.0
    high = float(np.percentile(np.abs(finite), 99)) or 1.0
    return -high, high


def colour_map(style: Style) -> Any:
    """The matplotlib colour map of a style, grey where a value is missing.

    Examples
    --------
    >>> colour_map(STYLES["mean"]).name
    'viridis'
    """
    return neighbour("matplotlib").colormaps[style.colours].with_extremes(bad=MISSING)


def length_unit(length_m: float) -> tuple[float, str]:
    """Factor from metres, and name, of the unit in which a length reads well.

    Examples
    --------
    >>> length_unit(3.2e-4), length_unit(0.02)
    ((1000000.0, 'µm'), (1000.0, 'mm'))
    """
    return (1e9, "nm") if length_m < 1e-6 else (1e6, "µm") if length_m < 1e-3 else (1e3, "mm")


def data_unit(provenance: Mapping[str, Any]) -> str:
    """Unit of the data as figures write it, from the ``data_unit`` of a provenance.

    Examples
    --------
    >>> data_unit({"data_unit": "1e-12 rad^2"}), data_unit({})
    ('µrad²', 'data unit')
    """
    noted = str(provenance.get("data_unit", UNKNOWN))
    return {"1e-12 rad^2": "µrad²", "1 rad^2": "rad²"}.get(noted, noted)[:40].replace("$", "")


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, which no window or global state knows of; sizes in inches.

    Raises
    ------
    ImportError
        If matplotlib is missing; the message says how to install it.
    """
    figure = neighbour("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    # Jupyter shows figures by itself only once pyplot was imported.
    figure._repr_png_ = partial(_png, figure)
    return figure


def _png(figure: Any) -> bytes:
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=NOTEBOOK_DPI)
    return drawn.getvalue()


def dress(axis: Any, title: str = "", across: str = "", up: str = "") -> None:
    """Title, labels and ticks in the fonts that all figures share."""
    axis.set_title(title, fontsize=TITLE, parse_math=False)
    axis.set_xlabel(across, fontsize=LABEL)
    axis.set_ylabel(up, fontsize=LABEL)
    axis.tick_params(labelsize=TICK)


def colour_bar(figure: Any, drawn: Any, axes: Any, label: str, **place: Any) -> Any:
    """A colour bar in the fonts that all figures share, beside the axes or where ``place`` says."""
    where = place if axes is None else {"ax": axes, "fraction": 0.05, "pad": 0.02} | place
    bar = figure.colorbar(drawn, **where)
    bar.set_label(label, fontsize=LABEL)
    bar.ax.tick_params(labelsize=TICK)
    bar.formatter.set_powerlimits((-3, 4))
    for side in (bar.ax.xaxis, bar.ax.yaxis):
        side.get_offset_text().set_fontsize(TICK)
    return bar


def write_figure(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """Write PNG, PDF or SVG by the ending of ``path`` (PNG without one), whole or not at all; returns the figure.

    Raises
    ------
    TypeError, ValueError
        If this is no path of a file, or has another ending.
    FileNotFoundError
        If its folder does not exist.
    """
    if path is not None:
        ending = file_path(path).suffix[1:].lower() or "png"
        if ending not in FORMATS:
            raise ValueError(message("path", "a file name that ends in .png, .pdf or .svg", repr(os.fspath(path))))
        with replaced_when_complete(path) as partial:
            figure.savefig(partial, dpi=DPI, format=ending)
    return figure


def as_array(value: Any) -> NDArray[Any]:
    """NumPy's view of an array or tensor, wherever it is."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
