"""The projectors of tomosipo (Hendriksen et al. 2021, Opt. Express 29, 40494), which are ASTRA's, behind our interface.

As in `ddf_tomo.operators.backends.astra`, with tomosipo's own way to hand tensors over; a failure on the card shows as
zeros, since tomosipo calls ASTRA by a function that does not raise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ddf_tomo._checks import neighbour
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends._one_channel import Call, OneChannelProjector
from ddf_tomo.operators.backends.vectors import parallel_vec


class Projector(OneChannelProjector):
    """See `ddf_tomo.operators.backends.Backend`."""

    @contextmanager
    def _calls(self, geometry: Geometry) -> Iterator[tuple[Call, Call]]:
        tomosipo = neighbour("tomosipo")
        neighbour("tomosipo.torch_support")  # makes it take tensors
        volumes, sinograms = (
            tomosipo.volume(shape=geometry.volume_shape),
            tomosipo.parallel_vec(**parallel_vec(geometry)),
        )
        A = tomosipo.operator(volumes, sinograms)
        try:
            yield lambda volume, out: A(volume, out=out), lambda out, sinogram: A.T(sinogram, out=out)
        finally:
            neighbour("astra").projector3d.delete(A.astra_projector)  # tomosipo keeps it for ever
