"""What a retrieval method is given, and what it owes: the frames of one view in, its maps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ddf_tomo.retrieval.maps import Maps


class View(NamedTuple):
    """Frames of one view, or of a tile of it, checked and in units of the mean reference.

    Attributes
    ----------
    sample, reference : (distance, step, row, column)
        Frames with and without the sample, of one floating dtype; where the weight is zero they read 1.
    weights : (distance, step, row, column)
        Non-negative confidence, at most 1; axes may be of length 1. Zero excludes.
    reach : (distance,)
        Distances over the longest of them, in (0, 1]: displacements grow with it, covariances with its square.
    counts : float
        Detected quanta in one unit of intensity, for noise models; NaN where the gain is not known.
    """

    sample: Tensor
    reference: Tensor
    weights: Tensor
    reach: Tensor
    counts: float


class Method(Protocol):
    """A retrieval method: a new one is a module of its own and a line in `ddf_tomo.retrieval.frames.METHODS`.

    A method may have one more, ``after_tiles(options)``, for what is solved over whole views: it gives None, or a
    function that is called with the maps of a view by name, ``(row, column, ...)``, its tiles, and a function from the
    rows and columns of a tile to its `View`; that returns the maps which it changes. Gradients do not pass then.

    Attributes
    ----------
    options : dict
        Names of its own options and their defaults; ``window`` and ``smoothing`` among them where it has them.
    """

    options: dict[str, Any]

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked, for frames of shape ``(distance, step, row, column)``; raises what names the argument."""
        ...

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result: tiles overlap by as much."""
        ...

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        ...

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps ``(row, column)`` of the tile, lengths left out; pixels that tell nothing are not valid."""
        ...
