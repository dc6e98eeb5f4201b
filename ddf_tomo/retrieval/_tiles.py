"""Tiles of a detector that overlap by all that can touch a result, and maps put together from theirs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import NamedTuple

import torch
from torch import Tensor

from ddf_tomo.retrieval.maps import AXES, LENGTHS_M, Maps

ALIGNED = 16  # pixels: tiles begin at multiples, so that methods may work on coarser grids
PIXELS = 1 << 20  # of a tile with its overlap
NUMBERS = 1 << 26  # of its frames
LEAST = 64  # rows and columns that a tile is worth


class Tile(NamedTuple):
    """Rows and columns of the frames ``used``, those of them ``kept``, and the ``place`` of these in the maps."""

    used: tuple[slice, slice]
    kept: tuple[slice, slice]
    place: tuple[slice, slice]


def tiles(shape: tuple[int, int], frames: int, reach: int) -> list[Tile]:
    """Tiles of an image of this shape, of which ``frames`` frames are looked at together; one if it is small enough."""
    reach, most = -(-reach // ALIGNED) * ALIGNED, min(PIXELS, NUMBERS // frames)
    side = max(shape) if math.prod(shape) <= most else math.isqrt(most) - 2 * reach
    down, across = (_cuts(length, max(side, LEAST), reach) for length in shape)
    return [Tile(*zip(row, column, strict=True)) for row in down for column in across]


def _cuts(length: int, side: int, reach: int) -> list[tuple[slice, slice, slice]]:
    pieces = -(-length // side) if reach < length else 1  # each piece would be all of it
    step = -(-length // pieces // ALIGNED) * ALIGNED if pieces > 1 else length
    cuts = []
    for start in range(0, length, step):
        stop, first = min(start + step, length), max(start - reach, 0)
        used = slice(first, min(stop + reach, length))
        cuts.append((used, slice(start - first, stop - first), slice(start, stop)))
    return cuts


def arrays(maps: Maps) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the maps there are."""
    for field in fields(maps):
        value = getattr(maps, field.name)
        if field.name not in (*LENGTHS_M, *AXES) and value is not None:
            yield field.name, value


class Mosaic:
    """Maps of all views ``(view, row, column[, channel])``, filled tile by tile."""

    def __init__(self, views: int, shape: tuple[int, int]) -> None:
        self.size = (views, *shape)
        self.values: dict[str, Tensor] = {}
        self.axes: dict[str, tuple[float, ...] | None] = {}

    def put(self, view: int, tile: Tile, maps: Maps, device: torch.device) -> None:
        """Copy what a tile keeps to its place."""
        self.axes = {name: getattr(maps, name) for name in AXES}
        for name, found in arrays(maps):
            room = self.room(name, found.shape[2:], found.dtype, device)
            room[(view, *tile.place)] = found[tile.kept].to(device)

    def room(self, name: str, channels: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The map of this name, of all views; made when it is first asked for."""
        if name not in self.values:
            # Channel by channel in memory, as methods find them: weaving them together takes longer than a copy.
            kept = torch.zeros((*channels, *self.size), dtype=dtype, device=device)
            self.values[name] = kept.movedim((-3, -2, -1), (0, 1, 2))
        return self.values[name]
