"""The section of a report that shows a transmission without the instrument's blur."""

from __future__ import annotations

from ddf_tomo import visualization
from ddf_tomo.report._html import Section, key_figures, paragraph, picture
from ddf_tomo.retrieval import Restored

HINT = (
    "Modulation transfer of the instrument, and with the restoration behind it. What the instrument has taken away"
    " below the noise does not come back; what was raised, was raised with its noise."
)


def sharpened(restored: Restored) -> Section:
    """What restoring the transmission gained, and what noise it cost."""
    figures = {
        "resolved before, cycles/pixel": restored.limit_before,
        "resolved after, cycles/pixel": restored.limit_after,
        "noise, times": restored.noise_gain,
    }
    figure = visualization.show_restoration(restored)
    drawn = picture(figure, "restored transmission and modulation transfer", "A tenth of the modulation: resolved.")
    return Section(
        "restored", "Transmission without the instrument's blur", key_figures(figures) + paragraph(HINT) + drawn
    )
