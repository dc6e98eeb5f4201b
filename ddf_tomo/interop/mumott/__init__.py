"""Everything that passes between this package and MUMOTT 2.3, in both directions.

Geometries: `geometry_from`, `to_geometry`; detector segments: `response_from`. Data: `scan_from`, `to_data_container`
(MUMOTT's *files* need no MUMOTT: `ddf_tomo.Scan.read` and `write`). Inside MUMOTT's pipelines: `Projector`, a drop-in
for ``SAXSProjector``, `substituted` for pipelines that name their projector themselves, `ResponseBasisSet` for data
other than SAXS, and `LearnedRegularizer`; what they return: `reconstruction_from`. The other way, `mumott_response`
makes a response of any of MUMOTT's basis sets.

[Nielsen et al. 2025, J. Appl. Cryst. 58, 1834]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddf_tomo.interop.mumott.geometry import MumottFaultWarning, geometry_from, response_from, to_geometry

if TYPE_CHECKING:
    from ddf_tomo.interop.mumott.basis import MumottResponse, ResponseBasisSet, mumott_response
    from ddf_tomo.interop.mumott.containers import reconstruction_from, scan_from, to_data_container
    from ddf_tomo.interop.mumott.learned import LearnedRegularizer
    from ddf_tomo.interop.mumott.projector import Projector, VoxelDrivenProjector, substituted

__all__ = [
    "LearnedRegularizer",
    "MumottFaultWarning",
    "MumottResponse",
    "Projector",
    "ResponseBasisSet",
    "VoxelDrivenProjector",
    "geometry_from",
    "mumott_response",
    "reconstruction_from",
    "response_from",
    "scan_from",
    "substituted",
    "to_data_container",
    "to_geometry",
]

# Classes that derive from MUMOTT's are made when first asked for: importing this package does not need MUMOTT.
_HOMES = {
    "LearnedRegularizer": "learned",
    "MumottResponse": "basis",
    "Projector": "projector",
    "ResponseBasisSet": "basis",
    "VoxelDrivenProjector": "projector",
    "mumott_response": "basis",
    "reconstruction_from": "containers",
    "scan_from": "containers",
    "substituted": "projector",
    "to_data_container": "containers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
