"""Slices through a volume: which there are, how they lie, and how long their sides are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, integer, message, number
from ddf_tomo.visualization.style import length_unit

NAMES = "xyz"


@dataclass(frozen=True)
class Plane:
    """The slice number ``index`` normal to axis ``fixed`` of a volume of the given shape.

    It is drawn with axis ``across`` to the right and ``up`` upwards, and seen from the side ``across × up`` points to.
    """

    fixed: int
    index: int
    shape: tuple[int, int, int]
    voxel_size_m: float | None = None

    @property
    def across(self) -> int:
        return 1 if self.fixed == 0 else 0

    @property
    def up(self) -> int:
        return 1 if self.fixed == 2 else 2

    @property
    def frame(self) -> NDArray[np.float64]:
        """Rows: unit vectors to the right, upwards, and towards the reader."""
        right, high = np.eye(3)[[self.across, self.up]]
        return np.stack([right, high, np.cross(right, high)])

    @property
    def sides(self) -> tuple[int, int]:
        """Voxels to the right and upwards."""
        return self.shape[self.across], self.shape[self.up]

    def _scale(self) -> tuple[float, str]:
        if self.voxel_size_m is None:
            return 1.0, "voxels"
        factor, unit = length_unit(max(self.shape) * self.voxel_size_m)
        return factor * self.voxel_size_m, unit

    def place(self, position: Any, axis: int) -> Any:
        """Position in voxels to the coordinate drawn: its index, or a length from the centre of the volume."""
        scale, _ = self._scale()
        return position if self.voxel_size_m is None else scale * (position - (self.shape[axis] - 1) / 2)

    @property
    def edge(self) -> float:
        """Edge of a voxel in the coordinates drawn."""
        return self._scale()[0]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        right, high = self.sides
        left, bottom = self.place(-0.5, self.across), self.place(-0.5, self.up)
        return left, left + self.edge * right, bottom, bottom + self.edge * high

    def labels(self) -> tuple[str, str]:
        unit = self._scale()[1]
        return f"{NAMES[self.across]} ({unit})", f"{NAMES[self.up]} ({unit})"

    def title(self) -> str:
        if self.voxel_size_m is None:
            return f"{NAMES[self.fixed]} = {self.index}"
        return f"{NAMES[self.fixed]} = {self.place(self.index, self.fixed):.3g} {self._scale()[1]}"

    def cut(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The slice as an image ``(up, across, ...)``, first row lowest."""
        return np.swapaxes(np.take(volume, self.index, axis=self.fixed), 0, 1)


def edge_of_a_voxel(voxel_size_m: Any) -> float | None:
    """The checked edge of a voxel in metres, where one is known."""
    return None if voxel_size_m is None else number(voxel_size_m, "voxel_size_m", low=0, high=1, low_open=True)


def planes(shape: Sequence[int], at: Sequence[int] | None, voxel_size_m: float | None) -> list[Plane]:
    """The slices normal to z, y and x worth a look: through ``at`` (x, y, z), or the middle; none of lines only."""
    sizes = (int(shape[0]), int(shape[1]), int(shape[2]))
    if not all(sizes):
        raise ValueError(message("volumes", "at least one voxel", sizes))
    if at is None:
        where = [n // 2 for n in sizes]
    else:
        entries = list(at) if isinstance(at, (Sequence, np.ndarray)) and not isinstance(at, str) else [at]
        check_shape((len(entries),), "at", (3,))
        where = [integer(i, f"at[{axis}]", high=n - 1) for axis, (i, n) in enumerate(zip(entries, sizes, strict=True))]
    found = [Plane(fixed, where[fixed], sizes, voxel_size_m) for fixed in (2, 1, 0)]
    return [plane for plane in found if min(plane.sides) > 1] or [max(found, key=lambda plane: plane.sides)]


def panel_sizes(rows: Sequence[Sequence[Plane]]) -> tuple[list[float], list[float]]:
    """Widths of the columns and heights of the rows in inches, all slices of a figure on much the same scale."""
    columns = max(len(row) for row in rows)
    widest = [max(row[n].sides[0] for row in rows if n < len(row)) for n in range(columns)]
    highest = [max(plane.sides[1] for plane in row) for row in rows]
    scale = min(2.6 * columns / sum(widest), 5.0 / max(highest), 3.6 / max(widest))
    return [max(scale * w, 1.5) for w in widest], [max(scale * h, 0.35) for h in highest]
