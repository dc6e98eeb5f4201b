"""Data beside what a reconstruction predicts, view by view."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import integer, message, of_kind, real_array
from ddf_tomo._pictures import channel_names
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.visualization.style import (
    BLUE,
    GREY,
    LABEL,
    ORANGE,
    STYLES,
    TICK,
    as_array,
    colour_bar,
    colour_map,
    data_unit,
    dress,
    limits,
    new_figure,
    write_figure,
)

MOST_PANELS = 60
LARGEST = 1e140  # whose square is a number


def standardized_residual(reconstruction: Any, scan: Scan) -> tuple[NDArray[np.float64], bool]:
    """Residual over its standard deviation, ``(views, J, K, channels)``, and whether that is known.

    Parameters
    ----------
    reconstruction
        A `Reconstruction` of the same volume (of these views or others), or predicted data of the scan's shape.
    scan
        Data with weights. Weights are 1/σ²; without weights σ is the spread of the residual itself
        (1.4826 × the median of its size).

    Returns
    -------
    residual
        ``(data − predicted) / σ``, NaN where masked.
    known
        Whether σ came from weights.

    Raises
    ------
    ValueError, TypeError
        If the two do not belong together.

    Examples
    --------
    >>> from ddf_tomo import Geometry, IsotropicResponse
    >>> geometry = Geometry.from_angles(0.0, 0.0, (2, 2, 2), (2, 2))
    >>> scan = Scan(np.ones((1, 2, 2, 1)), geometry, IsotropicResponse(), weights=np.full((1, 2, 2, 1), 4.0))
    >>> standardized_residual(np.zeros((1, 2, 2, 1)), scan)[0].ravel().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    of_kind(Scan, scan, "scan")
    return _standardized(predicted_by(reconstruction, scan), scan)


def misfit_of_views(reconstruction: Any, scan: Scan) -> NDArray[np.float64]:
    """Mean square of `standardized_residual` in each view, ``(views,)``; 1 where the model fits up to the noise.

    Views that are wholly masked have 0.

    Parameters
    ----------
    reconstruction
        A `Reconstruction` of the same volume, or predicted data of the scan's shape.
    scan
        Data; weights are 1/σ².

    Examples
    --------
    >>> from ddf_tomo import Geometry, IsotropicResponse
    >>> geometry = Geometry.from_angles([0.0, 1.0], 0.0, (2, 2, 2), (2, 2))
    >>> scan = Scan(np.ones((2, 2, 2, 1)), geometry, IsotropicResponse(), weights=np.full((2, 2, 2, 1), 4.0))
    >>> misfit_of_views(np.zeros((2, 2, 2, 1)), scan).tolist()
    [4.0, 4.0]
    """
    return _misfit(standardized_residual(reconstruction, scan)[0])


def predicted_by(reconstruction: Any, scan: Scan) -> NDArray[np.float64]:
    """The data of a scan's views that a reconstruction predicts, ``(views, J, K, channels)``; arrays are only checked.

    Raises
    ------
    ValueError
        If volume or shape do not fit the scan.

    Examples
    --------
    >>> from ddf_tomo import Geometry, IsotropicResponse
    >>> geometry = Geometry.from_angles(0.0, 0.0, (2, 2, 2), (2, 2))
    >>> scan = Scan(np.ones((1, 2, 2, 1)), geometry, IsotropicResponse())
    >>> predicted_by(np.zeros((1, 2, 2, 1)), scan).shape
    (1, 2, 2, 1)
    """
    of_kind(Scan, scan, "scan")
    if isinstance(reconstruction, Reconstruction):
        volume = scan.geometry.volume_shape
        if reconstruction.coefficients.shape[:3] != volume:
            raise ValueError(message("reconstruction", f"a volume of {volume}", reconstruction.coefficients.shape[:3]))
        operator = TensorXRayTransform(scan.geometry, scan.response, reconstruction.ell_max)
        shape = tuple(operator.domain_shape)[-1]
        if reconstruction.coefficients.shape[-1] != shape:
            found = reconstruction.coefficients.shape[-1]
            raise ValueError(message("reconstruction", f"{shape} coefficients for this scan's response", found))
        return np.asarray(operator(reconstruction.coefficients), np.float64)
    return real_array(reconstruction, "reconstruction", tuple(scan.data.shape))


def show_projections(
    reconstruction: Any,
    scan: Scan,
    views: Sequence[int] | None = None,
    *,
    channels: Sequence[int] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw measured and predicted projections and what is left over, and how well every view is fitted.

    Below the misfit of all views (with the chosen ones marked) there is a row for each chosen view, and in it measured,
    predicted and residual/σ for each chosen channel. Signals share one colour scale (those with a sign another one) and
    so do residuals; detector axis j runs down, k to the right.

    Parameters
    ----------
    reconstruction
        A `Reconstruction` of the scan's volume, or predicted data of the scan's shape.
    scan
        What was measured; its weights are taken for 1/σ², masked pixels are grey.
    views
        Numbers of the views; by default the best fitted one, one in the middle, and the two worst.
    channels
        Numbers of the channels; by default the first three at most.
    path : optional
        PNG, PDF or SVG to write.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If reconstruction and scan do not belong together, or there is no such view or channel.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8), views=[4], tilts_rad=[0]), SecondMomentResponse())
    >>> figure = show_projections(0.9 * scan.data, scan, views=[0, 2], channels=[0])
    >>> [axis.get_title() for axis in figure.axes if "Θ" in axis.get_title()]
    ['Θ_jj measured', 'Θ_jj predicted']
    """
    of_kind(Scan, scan, "scan")
    predicted = predicted_by(reconstruction, scan)
    residual, known = _standardized(predicted, scan)
    misfit = _misfit(residual)
    order = np.argsort(misfit, kind="stable")
    usual = [order[0], order[len(order) // 2], *order[-2:]]
    rows = _numbers(dict.fromkeys(usual) if views is None else views, "views", len(scan))
    groups = _numbers(
        range(min(3, scan.data.shape[-1])) if channels is None else channels, "channels", residual.shape[-1]
    )
    if len(rows) * len(groups) > MOST_PANELS:
        raise ValueError(message("views", f"at most {MOST_PANELS} views times channels", len(rows) * len(groups)))
    names = channel_names(scan.response, scan.data.shape[-1])
    measured = np.asarray(as_array(scan.data), np.float64)
    masked = np.isnan(residual)
    deviation = STYLES["residual"].label if known else "residual / its spread"

    height, width = scan.geometry.detector_shape
    scale = min(1.5 / height, (1.5 if len(groups) > 1 else 2.2) / width)
    panel = max(scale * width, 0.9), max(scale * height, 0.35)
    columns, tall = 3 * len(groups), len(rows) * (panel[1] + 0.1) + 0.9
    figure = new_figure(max(columns * (panel[0] + 0.08) + 1.4, 5.5), tall + 1.5)
    above, below = figure.subfigures(2, 1, height_ratios=[1.5, tall])
    _draw_misfit(above.subplots(), misfit, rows, known)
    places = below.add_gridspec(len(rows) + 1, columns, height_ratios=[*[panel[1]] * len(rows), 0.09])
    # Signals of one kind share a scale, whatever their channel.
    kinds = [_kind(measured[..., channel][~masked[..., channel]]) for channel in groups]
    ranges = {
        kind: limits(
            np.where(masked, np.nan, measured)[..., [c for c, k in zip(groups, kinds, strict=True) if k == kind]],
            STYLES[kind].limits,
        )
        for kind in set(kinds)
    }
    unit, spread = data_unit(scan.provenance), limits(residual, "symmetric")
    for n, (channel, kind) in enumerate(zip(groups, kinds, strict=True)):
        for column, title, values, style, (low, high) in (
            (0, f"{names[channel]} measured", measured, STYLES[kind], ranges[kind]),
            (1, f"{names[channel]} predicted", predicted, STYLES[kind], ranges[kind]),
            (2, deviation, residual, STYLES["residual"], spread),
        ):
            for r, view in enumerate(rows):
                axis = below.add_subplot(places[r, 3 * n + column])
                shown = np.where(masked, np.nan, values)[view, ..., channel]
                drawn = axis.imshow(shown, cmap=colour_map(style), vmin=low, vmax=high, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
                if r == 0:
                    axis.set_title(title, fontsize=LABEL, parse_math=False)
                if n == column == 0:
                    text = f"view {view}\nmisfit {misfit[view]:.3g}"
                    axis.set_ylabel(text, fontsize=LABEL, rotation=0, ha="right", va="center")
            label = deviation if column == 2 else style.in_units_of(unit).titled
            bar = below.add_subplot(places[-1, 3 * n + column])
            colour_bar(below, drawn, None, label, cax=bar, orientation="horizontal")
    return write_figure(figure, path)


def _standardized(predicted: NDArray[np.float64], scan: Scan) -> tuple[NDArray[np.float64], bool]:
    residual = np.asarray(as_array(scan.data), np.float64) - predicted
    if scan.weights is None:
        # A spread of zero leaves the residual, all or mostly zeros, as it is.
        return residual / (1.4826 * float(np.median(np.abs(residual))) or 1.0), False
    weights = np.asarray(as_array(scan.full_weights()), np.float64)
    return np.where(weights > 0, residual * np.sqrt(weights), np.nan), True


def _misfit(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = residual.reshape(len(residual), -1)
    counted = np.isfinite(flat)
    square = np.where(counted, flat, 0.0).clip(-LARGEST, LARGEST) ** 2
    return square.sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def _numbers(given: Any, argument: str, count: int) -> list[int]:
    entries = [given] if isinstance(given, (int, np.integer)) else given
    try:
        entries = list(entries)
    except TypeError as error:
        raise TypeError(message(argument, f"integers in [0, {count - 1}]", type(given).__name__)) from error
    if not entries:
        raise ValueError(message(argument, "at least one", "none"))
    return [integer(entry, argument, high=count - 1) for entry in entries]


def _kind(values: NDArray[np.float64]) -> str:
    """Signals with a sign (such as Θ_jk) have colours for both signs, the others start at zero."""
    if not values.size:
        return "signal"
    low, high = np.percentile(values, (1, 99))
    return "signed_signal" if low < -0.25 * max(high, 0.0) and low < 0 else "signal"


def _draw_misfit(axis: Any, misfit: NDArray[np.float64], rows: Sequence[int], known: bool) -> None:
    axis.plot(misfit, ".", color=GREY, markersize=3)
    axis.plot(list(rows), misfit[list(rows)], "o", color=ORANGE, markersize=4, zorder=3)
    if known:
        axis.axhline(1.0, color=BLUE, linewidth=0.8)
        axis.annotate(
            "noise alone", (1, 1), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=TICK, color=BLUE,
        )  # fmt: skip
    axis.set_ylim(0, 1.15 * max(float(misfit.max()), 1.0 if known else 1e-30))
    axis.margins(x=0.01)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.get_major_locator().set_params(integer=True)
    dress(axis, STYLES["misfit"].label + " in each view (marked: shown below)", "view", "")
