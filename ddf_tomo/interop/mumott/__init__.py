"""Everything that passes between this package and MUMOTT 2.3, in both directions.

Geometries: `geometry_from`, `to_geometry`; detector segments: `response_from`. Data: `scan_from`, `to_data_container`
(MUMOTT's *files* need no MUMOTT: `ddf_tomo.Scan.read` and `write`). Inside MUMOTT's pipelines: `Projector`, a drop-in
for ``SAXSProjector``, `substituted` for pipelines that name their projector themselves, and `ResponseBasisSet` for data
other than SAXS. The other way, `mumott_response` makes a response of any of MUMOTT's basis sets.

[Nielsen et al. 2025, J. Appl. Cryst. 58, 1834]
"""

from ddf_tomo.interop.mumott.geometry import MumottFaultWarning, geometry_from, response_from, to_geometry

__all__ = [
    "MumottFaultWarning",
    "geometry_from",
    "response_from",
    "to_geometry",
]
