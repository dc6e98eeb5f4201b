"""The projectors of the ASTRA toolbox (van Aarle et al. 2016, Opt. Express 24, 25129) behind our interface.

Tensors are linked by DLPack, without a copy, on the card or in main memory. The back-projection is voxel-driven and not
the transpose of the projection; both interpolate in texture units, that is with weights of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ddf_tomo._checks import neighbour
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends._one_channel import Call, OneChannelProjector
from ddf_tomo.operators.backends.vectors import astra_projection_geometry, astra_volume_geometry


class Projector(OneChannelProjector):
    """See `ddf_tomo.operators.backends.Backend`."""

    @contextmanager
    def _calls(self, geometry: Geometry) -> Iterator[tuple[Call, Call]]:
        astra, experimental = neighbour("astra"), neighbour("astra.experimental")
        volumes, sinograms = astra_volume_geometry(geometry), astra_projection_geometry(geometry)
        projector = astra.create_projector("cuda3d", sinograms, volumes)

        def run(composite: Callable[..., Any], volume: torch.Tensor, sinogram: torch.Tensor) -> None:
            linked = [astra.data3d.link("-vol", volumes, volume), astra.data3d.link("-sino", sinograms, sinogram)]
            try:
                # Of the ways in, this one raises when the card fails; `direct_FP` and `direct_BP` of 2.5 do not.
                composite(projector, linked[:1], linked[1:])
            finally:
                astra.data3d.delete(linked)

        try:
            yield partial(run, experimental.do_composite_FP), partial(run, experimental.do_composite_BP)
        finally:
            astra.projector3d.delete(projector)
