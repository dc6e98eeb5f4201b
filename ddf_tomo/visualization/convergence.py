"""How the residual fell from iteration to iteration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, message, number, real_array
from ddf_tomo.visualization.style import (
    BLUE,
    GREEN,
    GREY,
    LABEL,
    ORANGE,
    PURPLE,
    TICK,
    dress,
    new_figure,
    write_figure,
)

LINES = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"))


def show_convergence(
    results: Any, *, noise_level: float | None = None, path: str | os.PathLike[str] | None = None
) -> Any:
    """Draw the norm of the weighted residual per iteration on a logarithmic axis.

    Parameters
    ----------
    results
        A `Reconstruction`, a solver's `Solution`, or the residuals themselves; or several of these by their labels.
    noise_level
        Norm of the residual that noise alone would leave: with weights 1/σ² the square root of the number of
        measured values. Drawn as a line; what lies below it fits noise.
    path : optional
        PNG, PDF or SVG to write.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, TypeError
        If there are no residuals, or they are negative or not finite.

    Examples
    --------
    >>> figure = show_convergence({"plain": [5.0, 2.0, 1.0], "preconditioned": [5.0, 1.0]}, noise_level=0.9)
    >>> figure.axes[0].get_yscale()
    'log'
    """
    given = results if isinstance(results, Mapping) else {"": results}
    curves = {str(label): _residuals(str(label), result) for label, result in given.items()}
    if not curves:
        raise ValueError(message("results", "at least one result", "none"))
    level = None if noise_level is None else number(noise_level, "noise_level", low=0.0, low_open=True)
    figure = new_figure(5.2, 3.2)
    axis = figure.subplots()
    for n, (label, curve) in enumerate(curves.items()):
        colour, line = LINES[n % len(LINES)]
        shown = np.where(curve > 0, curve, np.nan)  # a logarithmic axis has no place for zero
        mark = "o" if len(curve) <= 40 else ""
        axis.plot(
            np.arange(len(curve)), shown, line, color=colour, marker=mark, markersize=3, label=label or "residual"
        )
    if level is not None:
        axis.axhline(level, color=GREY, linewidth=1)
        axis.annotate(
            "noise", (1, level), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            va="bottom", fontsize=TICK, color="0.35",
        )  # fmt: skip
    positive = np.concatenate([curve[curve > 0] for curve in curves.values()] or [np.empty(0)])
    if positive.size:
        axis.set_yscale("log")
        low, high = min(positive.min(), level or np.inf), max(positive.max(), level or 0.0)
        if high < 20 * low:
            _plain_ticks(axis)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(visible=True, which="major", color="0.9", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    dress(axis, "", "iteration", "norm of the weighted residual")
    if len(curves) > 1:
        axis.legend(fontsize=LABEL, frameon=False)
    return write_figure(figure, path)


def _residuals(label: str, result: Any) -> NDArray[np.float64]:
    name = f"results[{label!r}]" if label else "results"
    curve = real_array(getattr(result, "residuals", result), name)
    check_shape(curve.shape, name, (None,))
    if not curve.size or (curve < 0).any():
        raise ValueError(message(name, "norms of residuals, at least one", "none" if not curve.size else "negative"))
    return curve


def _plain_ticks(axis: Any) -> None:
    """Numbers such as 200, 300, 500 on a logarithmic axis that spans about a decade, where powers of ten are rare."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
