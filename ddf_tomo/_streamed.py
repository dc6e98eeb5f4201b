"""Arrays of views that stay on the disk: what is needed of them is read when it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 64 * 2**20
"""Of an array, read at once: long enough to keep disk and kernels busy, short beside any volume."""

Read = Callable[[NDArray[np.intp]], NDArray[Any]]


class Streamed:
    """An array ``(views, …)`` whose views are read when they are asked for; nothing is kept.

    Indices choose views first, as in ``data[3]``, ``data[2:9]``, ``data[[0, 5], 1]``, and give NumPy arrays.
    ``numpy.asarray`` reads it all.

    Parameters
    ----------
    shape, dtype
        Of the whole.
    read
        ``read(indices)``: the views of these numbers, in this order, as an array ``(len(indices), …)``.

    Examples
    --------
    >>> squares = Streamed((100, 2), np.float32, lambda views: np.stack([views, views**2], 1).astype(np.float32))
    >>> squares[3], squares[[5, 7], 1]
    (array([3., 9.], dtype=float32), array([25., 49.], dtype=float32))
    >>> squares.chosen([5, 7]).mapped(np.sqrt).shape, squares.nbytes
    ((2, 2), 800)
    """

    __array_ufunc__ = None  # arithmetic would read it all without a word; numpy.asarray says so

    def __init__(self, shape: Sequence[int], dtype: Any, read: Read) -> None:
        self.shape, self.dtype, self._read = tuple(shape), np.dtype(dtype), read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """That it would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        places = np.arange(len(self))[first]
        found = self._read(np.atleast_1d(places))
        return (found if np.ndim(places) else found[0])[(slice(None),) * min(np.ndim(places), 1) + tuple(rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for views, piece in self.pieces():
            whole[views] = piece
        return whole

    def __repr__(self) -> str:
        return f"<Streamed {self.shape} {self.dtype}, on disk>"

    def chosen(self, views: Any) -> Streamed:
        """The array of these ``views`` only, still on the disk."""
        places, read = np.arange(len(self))[views], self._read
        return Streamed((len(places), *self.shape[1:]), self.dtype, lambda inner: read(places[inner]))

    def mapped(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Streamed:
        """The array whose views are changed, number by number, after they are read."""
        read = self._read
        return Streamed(self.shape, self.dtype, lambda views: change(read(views)))

    def slices(self) -> list[slice]:
        """Views to be read together, `PIECE_BYTES` at once."""
        step = max(1, PIECE_BYTES // max(1, self.nbytes // max(1, len(self))))
        return [slice(start, min(start + step, len(self))) for start in range(0, len(self), step)]

    def pieces(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """All of it, piece by piece: which views, and their values."""
        for views in self.slices():
            yield views, self[views]
