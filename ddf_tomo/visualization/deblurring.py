"""Figure of a transmission without the instrument's blur: what was gained, and what noise it cost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ddf_tomo._checks import neighbour, of_kind
from ddf_tomo.visualization.style import BLUE, GREY, LABEL, ORANGE, dress, new_figure, write_figure

if TYPE_CHECKING:
    from ddf_tomo.retrieval.deblurring import Restored

SEEN = 0.1


def show_restoration(restored: Restored, path: str | os.PathLike[str] | None = None) -> Any:
    """Draw a restored transmission beside the modulation transfer before and after.

    Parameters
    ----------
    restored
        What `ddf_tomo.retrieval.restore_transmission` gave.
    path : optional
        PNG, PDF or SVG to write.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo.retrieval import restore_transmission
    >>> figure = show_restoration(restore_transmission(0.5 + torch.eye(24) / 3, 1.0, error=0.001))
    >>> figure.axes[1].get_xlabel()
    'frequency (cycles/pixel)'
    """
    neighbour("matplotlib")
    from ddf_tomo.retrieval.deblurring import Restored

    of_kind(Restored, restored, "restored")
    figure = new_figure(7.2, 3.0)
    image, curves = figure.subplots(1, 2)
    drawn = image.imshow(restored.transmission.numpy(), cmap="gray", interpolation="nearest")
    figure.colorbar(drawn, ax=image)
    dress(image, "restored transmission", "k (pixel)", "j (pixel)")
    frequency = restored.frequency.numpy()
    curves.plot(frequency, restored.mtf_before.numpy(), "--", color=ORANGE, label="instrument")
    curves.plot(frequency, restored.mtf_after.numpy(), "-", color=BLUE, label="restored")
    curves.axhline(SEEN, color=GREY, linewidth=1)
    curves.set_ylim(0, 1.1)
    curves.spines[["top", "right"]].set_visible(False)
    dress(curves, f"noise × {restored.noise_gain:.2f}", "frequency (cycles/pixel)", "modulation transfer")
    curves.legend(fontsize=LABEL, frameon=False)
    return write_figure(figure, path)
