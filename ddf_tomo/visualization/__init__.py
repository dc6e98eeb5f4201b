"""Figures of what was measured, how it fits, and what was found.

Every function returns a matplotlib figure, writes it whole or not at all where a ``path`` is given, and draws a
quantity in the same colours everywhere (`STYLES`). Matplotlib is imported where it draws.
"""

from ddf_tomo.visualization.colours import axis_colour, cyclic_colour, direction_colour
from ddf_tomo.visualization.convergence import show_convergence
from ddf_tomo.visualization.deblurring import show_restoration
from ddf_tomo.visualization.glyphs import show_glyphs
from ddf_tomo.visualization.maps import show_maps
from ddf_tomo.visualization.projections import misfit_of_views, show_projections
from ddf_tomo.visualization.slices import show_directions, show_slices
from ddf_tomo.visualization.sphere import show_beams, show_observability
from ddf_tomo.visualization.style import STYLES, Style

__all__ = [
    "STYLES",
    "Style",
    "axis_colour",
    "cyclic_colour",
    "direction_colour",
    "misfit_of_views",
    "show_beams",
    "show_convergence",
    "show_directions",
    "show_glyphs",
    "show_maps",
    "show_observability",
    "show_projections",
    "show_restoration",
    "show_slices",
]
