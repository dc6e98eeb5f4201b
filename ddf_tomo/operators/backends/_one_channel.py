"""What backends share whose projectors take one float32 volume at a time and run on NVIDIA cards only: ASTRA's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from ddf_tomo._checks import neighbour
from ddf_tomo.geometry import Geometry

Call = Callable[[torch.Tensor, torch.Tensor], Any]
"""``call(volume, sinogram)`` with contiguous float32 tensors ``(x, y, z)`` and ``(j, view, k)``; fills one of them."""


class OneChannelProjector(ABC):
    """A backend (see `ddf_tomo.operators.backends.Backend`) on projectors of single volumes."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self.geometry = geometry
        require_a_card()

    @abstractmethod
    def _calls(self, geometry: Geometry) -> AbstractContextManager[tuple[Call, Call]]:
        """Projection and backprojection for these views, as long as the context lasts."""

    def project(self, projections: torch.Tensor, volume: torch.Tensor, views: slice) -> None:
        sinogram = self._empty_sinogram(projections)
        with self._running(views, volume) as (forward, _):
            for channel in range(volume.shape[-1]):
                fill(forward, single(volume[..., channel]), sinogram, target=sinogram)
                projections[..., channel] += sinogram.swapaxes(0, 1)

    def backproject(self, volume: torch.Tensor, projections: torch.Tensor, views: slice) -> None:
        back = volume.new_empty(volume.shape[:3], dtype=torch.float32)
        with self._running(views, volume) as (_, backward):
            for channel in range(volume.shape[-1]):
                fill(backward, back, single(projections[..., channel].swapaxes(0, 1)), target=back)
                volume[..., channel] += back

    def _empty_sinogram(self, projections: torch.Tensor) -> torch.Tensor:
        views, rows, columns, _ = projections.shape
        return projections.new_empty((rows, views, columns), dtype=torch.float32)

    @contextmanager
    def _running(self, views: slice, like: torch.Tensor) -> Iterator[tuple[Call, Call]]:
        require_a_card()  # again: an operator may have been pickled to another machine
        on_the_card = torch.cuda.device(like.device) if like.is_cuda else nullcontext()
        with on_the_card, self._calls(self.geometry[views]) as calls:
            yield calls


def single(channel: torch.Tensor) -> torch.Tensor:
    """One channel as ASTRA wants it; the same memory where it is so already."""
    return channel.to(torch.float32).contiguous()


def fill(call: Call, volume: torch.Tensor, sinogram: torch.Tensor, target: torch.Tensor) -> None:
    """One call, between two waits: ASTRA's stream is not torch's, and neither waits for the other."""
    target.zero_()  # a failure that ASTRA keeps to itself leaves zeros, and not what was in memory
    if target.is_cuda:
        torch.cuda.current_stream(target.device).synchronize()
    call(volume, sinogram)
    if target.is_cuda:
        torch.cuda.synchronize(target.device)


def require_a_card() -> None:
    """Raise ``RuntimeError`` where ASTRA's 3-D projectors would end the process: without a card, or its driver."""
    if not neighbour("astra").use_cuda():
        raise RuntimeError(
            "ASTRA's 3-D projectors need an NVIDIA card and its driver, and astra.use_cuda() finds none; without them "
            "they would end this process. Use backend='auto', or a machine where nvidia-smi lists a card and an ASTRA "
            "with CUDA (pip install astra-toolbox)"
        )
