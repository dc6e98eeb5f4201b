"""Files for other programs: VTK and XDMF for ParaView, NeXus attributes for HDF5 viewers, MUMOTT's layout.

`ddf_tomo.Reconstruction.save` chooses among them; `write_vti` and `write_xdmf` take any arrays on a grid of voxels.
"""

from ddf_tomo.export.arrays import display_arrays, single
from ddf_tomo.export.formats import FORMATS, format_of
from ddf_tomo.export.mumott_layout import write_mumott_result
from ddf_tomo.export.nexus import SIGNALS, annotate
from ddf_tomo.export.vti import write_vti
from ddf_tomo.export.xdmf import is_our_xdmf, write_xdmf

__all__ = [
    "FORMATS",
    "SIGNALS",
    "annotate",
    "display_arrays",
    "format_of",
    "is_our_xdmf",
    "single",
    "write_mumott_result",
    "write_vti",
    "write_xdmf",
]
