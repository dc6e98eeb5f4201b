"""Figures of what was measured, how it fits, and what was found.

Every function returns a matplotlib figure, writes it whole or not at all where a ``path`` is given, and draws a
quantity in the same colours everywhere (`STYLES`). Matplotlib is imported where it draws.
"""

from ddf_tomo.visualization.colours import axis_colour, cyclic_colour, direction_colour
from ddf_tomo.visualization.maps import show_maps
from ddf_tomo.visualization.slices import show_directions, show_slices
from ddf_tomo.visualization.style import STYLES, Style

__all__ = [
    "STYLES",
    "Style",
    "axis_colour",
    "cyclic_colour",
    "direction_colour",
    "show_directions",
    "show_maps",
    "show_slices",
]
