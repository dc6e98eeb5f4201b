"""How much memory a reconstruction takes, told before it starts; and a refusal instead of a killed process."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ddf_tomo._checks import flag, integer, message, size_tuple
from ddf_tomo._plan import Plan
from ddf_tomo._resources import available_memory
from ddf_tomo._streamed import PIECE_BYTES
from ddf_tomo.operators.tensor import CHUNK_BYTES
from ddf_tomo.priors import Functional
from ddf_tomo.scan import Scan

__all__ = ["Memory", "Size", "predicted_memory"]

# Volumes that are there at once, the largest number of each method: iterates, gradients, directions, differences along
# three axes (three volumes each) and what is made of them on the way. Counted in the code, and held against measured
# peaks (tests, benchmarks/memory.py).
VOLUMES = {"cg": 7, "lbfgs": 38, "fista": 10, "pdhg": 15, "sirt": 9, "irtt": 13, "fbp": 2}
OF_PRIOR = {
    ("cg", "smoothness"): 8,
    ("cg", "tv"): 2,
    ("lbfgs", "smoothness"): 33,
    ("lbfgs", "tv"): 20,
    ("fista", "smoothness"): 34,
    ("fista", "tv"): 32,
    ("pdhg", "smoothness"): 18,
    ("pdhg", "tv"): 18,
    ("irtt", "smoothness"): 34,
    ("irtt", "tv"): 32,
}
OF_POSITIVITY = 22  # values in directions, and their dual variables
OF_SEARCH = 3  # solutions of weights that were tried
# Rehearsals: their volumes, the errors of four rounds, an iteration; and numbers a voxel in the shipped network.
OF_REHEARSALS, OF_NETWORK = 21, 236
# Arrays of the data's size beside those of the scan.
DATA = {"cg": 3, "lbfgs": 2, "fista": 5, "pdhg": 6, "sirt": 6, "irtt": 5}
OF_WEIGHTS = 3
BASE = 8 * 2**20  # tables, figures, what Python needs on the way


@dataclass(frozen=True)
class Size:
    """What decides about memory and time of a reconstruction.

    Attributes
    ----------
    volume_shape
        Voxels along x, y, z.
    data_shape
        ``(views, J, K, channels)``.
    coefficients
        In each voxel.
    weighted
        Whether there are weights, of the data's shape.
    streams
        Whether the data stay on the disk.
    itemsize
        Bytes of a number: 4 or 8.

    Examples
    --------
    >>> Size((64, 64, 64), (238, 64, 91, 8), 15).volume_bytes / 2**20
    15.0
    """

    volume_shape: tuple[int, ...]
    data_shape: tuple[int, ...]
    coefficients: int
    weighted: bool = True
    streams: bool = False
    itemsize: int = 4

    def __post_init__(self) -> None:
        for name, length in (("volume_shape", 3), ("data_shape", 4)):
            object.__setattr__(self, name, size_tuple(getattr(self, name), name, length))
        object.__setattr__(self, "coefficients", integer(self.coefficients, "coefficients", low=1))
        for name in ("weighted", "streams"):
            flag(getattr(self, name), name)
        object.__setattr__(self, "itemsize", integer(self.itemsize, "itemsize"))
        if self.itemsize not in (4, 8):
            raise ValueError(message("itemsize", "4 or 8", self.itemsize))

    @classmethod
    def of(cls, scan: Scan, ell_max: int) -> Size:
        """That of a ``scan``, reconstructed up to the order ``ell_max``."""
        harmonics = getattr(scan.response, "of_harmonics", True)
        count = (ell_max + 1) * (ell_max + 2) // 2 if harmonics else 6
        itemsize = np.dtype(str(scan.data.dtype).removeprefix("torch.")).itemsize
        shape = tuple(scan.data.shape)
        return cls(scan.geometry.volume_shape, shape, count, scan.weights is not None, scan.streams, itemsize)

    @property
    def volume_bytes(self) -> int:
        """Of one volume with all coefficients."""
        return math.prod(self.volume_shape) * self.coefficients * self.itemsize

    @property
    def data_bytes(self) -> int:
        """Of the data, without weights."""
        return math.prod(self.data_shape) * self.itemsize


@dataclass(frozen=True)
class Memory:
    """Bytes that a reconstruction takes at its peak, beside Python and its packages.

    Attributes
    ----------
    scan
        Data and weights of the scan, if it is in memory.
    data
        Further arrays of the data's size: residuals, weights as they are used, what is left out for cross-validation.
    volumes
        Iterates, gradients, what the prior needs.
    buffers
        Views that are projected, or read, at once.

    Examples
    --------
    >>> Memory(scan=100, data=200, volumes=1000, buffers=50).total
    1350
    """

    scan: int
    data: int
    volumes: int
    buffers: int

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.scan + self.data + self.volumes + self.buffers

    @property
    def needed(self) -> int:
        """What has to be free when the scan has been read."""
        return self.total - self.scan


def predicted_memory(
    scan: Scan | Size,
    method: str = "cg",
    *,
    ell_max: int = 4,
    prior: str | Functional | None = "auto",
    weight: float | str = "auto",
    positive: bool = False,
) -> Memory:
    """The memory that `reconstruct` takes at its peak, within about 30 % where arrays are larger than 32 MiB.

    Of smaller ones the allocator keeps some that are no longer used: up to as much again.

    Parameters
    ----------
    scan
        The scan, or its `Size`, which need not exist.
    method, prior, weight, positive
        As in `reconstruct`.
    ell_max
        Highest order, for a scan.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> size = Size((128, 128, 128), (300, 128, 181, 8), 15)
    >>> f"{predicted_memory(size).total / 1e9:.1f} GB, {predicted_memory(size, prior=None).total / 1e9:.1f} GB"
    '3.9 GB, 2.8 GB'
    """
    if isinstance(scan, Scan):
        size = Size.of(scan, integer(ell_max, "ell_max", high=32))
    elif isinstance(scan, Size):
        size = scan
    else:
        raise TypeError(message("scan", "a ddf_tomo.Scan or a ddf_tomo.memory.Size", type(scan).__name__))
    plans = Plan.several(method, prior, weight, positive, None, None, None).values()
    return max((_memory(size, plan) for plan in plans), key=lambda memory: memory.total)


def _memory(size: Size, plan: Plan) -> Memory:
    y = size.data_bytes
    data = 0
    if not size.streams:
        data = y * (DATA.get(plan.name, 3) + (OF_WEIGHTS if size.weighted else 0))
        if plan.weight == "cross-validation":
            data += y * (2 if size.weighted else 1)
    return Memory(
        scan=0 if size.streams else y * (2 if size.weighted else 1),
        data=data,
        volumes=_volumes(plan, size.coefficients) * size.volume_bytes,
        buffers=BASE + _buffers(size),
    )


def _volumes(plan: Plan, coefficients: int) -> int:
    """How many are there at once, of so many ``coefficients`` in a voxel."""
    if plan.is_learned:
        return OF_REHEARSALS + math.ceil(OF_NETWORK / coefficients)
    count, of_search = VOLUMES.get(plan.name, 10), VOLUMES["cg"]
    if plan.prior is not None:
        kind = "tv" if isinstance(plan.prior, Functional) else plan.prior
        of_search += OF_PRIOR["cg", kind]
        count += OF_PRIOR.get((plan.name, kind), OF_PRIOR["cg", kind])
    if plan.positive and plan.name in ("fista", "pdhg"):
        count += OF_POSITIVITY
    if isinstance(plan.weight, str):  # searched by conjugate gradients
        count = max(count, of_search) + OF_SEARCH
    return count


def _buffers(size: Size) -> int:
    """Projected coefficients of a chunk of views, and what is read at once, with what is seen of it."""
    views, rows, columns, _ = size.data_shape
    a_view = rows * columns * size.coefficients * size.itemsize
    projected = min(views, max(1, CHUNK_BYTES // a_view)) * a_view
    a_view_read = size.data_bytes // views
    read = min(views, max(1, PIECE_BYTES // a_view_read)) * a_view_read
    return projected + (5 * read if size.streams else 0)


def check_memory(scan: Scan, ell_max: int, plan: Plan) -> None:
    """Raise ``MemoryError`` where a reconstruction would take more than there is, with what would help.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8)), SecondMomentResponse())
    >>> check_memory(scan, 2, Plan.checked("cg", "tv", "auto", False, None, None, None))
    """
    size, free = Size.of(scan, ell_max), available_memory()
    needed = _memory(size, plan).needed
    if needed <= free:
        return
    ways = []
    if not size.streams and plan.method.streams:
        ways.append((replace(size, streams=True), "Scan.read(..., in_memory=False)"))
    if ell_max >= 2 and getattr(scan.response, "of_harmonics", True):
        ways.append((Size.of(scan, ell_max - 2), f"ell_max={ell_max - 2}"))
    if min(scan.geometry.detector_shape) > 1:
        views, rows, columns, channels = size.data_shape
        shape = (views, rows // 2, columns // 2, channels)
        half = tuple(max(1, n // 2) for n in size.volume_shape)
        ways.append((replace(size, data_shape=shape, volume_shape=half), "scan.binned(2)"))
    told = ", ".join(f"{name}: {_gigabytes(_memory(smaller, plan).needed)}" for smaller, name in ways)
    expected = f"at most {free} bytes to be needed ({_gigabytes(free)} are free)"
    raise MemoryError(message("scan", expected, f"about {needed} bytes ({_gigabytes(needed)})", f"With {told}"))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB"
