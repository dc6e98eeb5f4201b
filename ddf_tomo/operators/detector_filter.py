"""A filter on the detector: Fourier transforms of projections, and what is done with each of their frequencies.

On the CPU it is compiled (`ddf_tomo.operators._filter_kernel`); the same in terms of torch stands beside it, for other
devices and to compare with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._threads import in_parallel

FEWEST_SECTORS = 12
CELL = 64  # samples of the cell at frequency 0, along each axis
# Of the compiled kernel:
LANES, TOGETHER = 8, 4  # coefficients in a vector, and frequencies that are filtered together
TERMS = 4  # of a sum in a Fourier transform, at most
BLOCK = 2**15  # numbers that are transformed together: with as many results in the cache of a core
ROW_LANES = 16  # rows of a stage begin at multiples of this


@dataclass(frozen=True)
class DirectionalFilter:
    """What a filter does at each frequency: ``outward · ramp / (eigenvalues + damping) · inwardᵀ responseᵀ``.

    Attributes
    ----------
    eigenvalues, inward, outward
        For each of some directions: falling eigenvalues, shape ``(directions, K)``, and ``(directions, K, K)`` with
        eigenvectors as columns.
    nearest
        Number of the direction of each view and sector, shape ``(views, sectors)``.
    response
        Matrices of the views, shape ``(views, channels, K)``.
    ramp, damping, passing
        Of each frequency, shape ``(frequencies,)``.
    negligible
        Eigenvalues below this share of the damping may be left out.
    """

    eigenvalues: torch.Tensor
    inward: torch.Tensor
    outward: torch.Tensor
    nearest: torch.Tensor
    response: torch.Tensor
    ramp: torch.Tensor
    damping: torch.Tensor
    passing: torch.Tensor
    negligible: float = 0.0


class DetectorFrequencies:
    """Frequencies of a detector padded to twice its size, those with ``ξ_j ≥ 0``, and the sectors they lie in.

    Parameters
    ----------
    detector_shape
        Pixels ``(J, K)``.
    width_rad
        Angle within which directions are alike; sectors are two thirds as wide.
    like
        A tensor, for dtype and device.

    Attributes
    ----------
    radius
        ``|ξ|``, shape ``(frequencies,)``: first along ``k``, then along ``j``.
    azimuths
        Middle of each sector from ``k`` towards ``j``, radians, shape ``(sectors,)``; each stands for its opposite too.
    sector
        Number of the sector of each frequency, shape ``(frequencies,)``.
    zero
        Of the mean of ``|ξ|`` over the cell at frequency 0, the part of each sector times their number.

    Examples
    --------
    >>> grid = DetectorFrequencies((8, 8), 0.5, torch.zeros(()))
    >>> grid.transform(torch.rand(3, 8, 8, 2)).shape  # views, real and imaginary, 16 × 9 frequencies, channels
    torch.Size([3, 2, 144, 2])
    """

    def __init__(self, detector_shape: tuple[int, int], width_rad: float, like: torch.Tensor) -> None:
        self.detector_shape = detector_shape
        self._prepared: tuple[DirectionalFilter | None, tuple[Any, ...]] = None, ()
        self.padded = [fast_length(2 * n) for n in detector_shape]
        along_j = torch.fft.rfftfreq(self.padded[0], dtype=torch.float64)[None]
        along_k = torch.fft.fftfreq(self.padded[1], dtype=torch.float64)[:, None]
        self.shape = len(along_k), along_j.shape[1]
        # Neighbouring frequencies at the edge of the band are 2 / padded apart.
        finest = math.ceil(math.pi / 2 * max(self.padded))
        sectors = min(max(math.ceil(1.5 * math.pi / width_rad), FEWEST_SECTORS), max(finest, FEWEST_SECTORS))
        self.azimuths = math.pi / sectors * torch.arange(sectors, dtype=torch.float64)
        self.sector = self._sector_of(along_j, along_k).flatten()
        # At frequency 0 a sample of the ramp would be 0: its mean over the cell there, each sector with its part of it.
        inside = (torch.arange(CELL, dtype=torch.float64) + 0.5) / CELL - 0.5
        j, k = inside[:, None] / self.padded[0], inside[None] / self.padded[1]
        parts = torch.hypot(j, k).flatten()
        zero = torch.zeros(sectors, dtype=torch.float64)
        zero.index_add_(0, self._sector_of(j, k).flatten(), parts / len(parts))
        self.zero = (zero * sectors).to(like)
        self.radius = torch.hypot(along_j, along_k).flatten().to(like)

    def _sector_of(self, along_j: torch.Tensor, along_k: torch.Tensor) -> torch.Tensor:
        turns = torch.atan2(*torch.broadcast_tensors(along_j, along_k)) * (len(self.azimuths) / math.pi)
        return turns.round().long() % len(self.azimuths)

    def transform(self, data: torch.Tensor) -> torch.Tensor:
        """Of projections ``(views, J, K, channels)``: real and imaginary, ``(views, 2, frequencies, channels)``."""
        if data.device.type != "cpu":
            return self.transform_by_torch(data)
        from ddf_tomo.operators import _filter_kernel as kernel

        (views, rows, columns, channels), (padded_j, padded_k) = data.shape, self.padded
        spectra = data.new_empty((views, 2, *self.shape, channels))
        along_j = transform_stages(padded_j, rows, self.shape[1])
        along_k = transform_stages(padded_k, columns, padded_k)
        shapes = (rows, columns, *self.shape, channels, self._together(channels), max(self.padded))
        arguments = _flat(data), _flat(spectra), shapes, along_j.of(data), along_k.of(data)
        in_parallel(views, 1, partial(kernel.transform, *arguments))
        return spectra.flatten(2, 3)

    def _together(self, channels: int) -> int:
        """How many places along an axis are transformed together along the other."""
        longest = max(self.detector_shape[1], self.shape[1])
        blocks = -(-longest // max(1, BLOCK // (2 * max(self.padded) * channels)))
        return -(-longest // blocks)

    def transform_by_torch(self, data: torch.Tensor) -> torch.Tensor:
        """`transform`, in terms of torch."""
        columns = torch.fft.rfft(data.permute(0, 3, 2, 1).contiguous(), self.padded[0], dim=3)
        both = torch.fft.fft(columns, self.padded[1], dim=2).flatten(2)
        return torch.view_as_real(both).permute(0, 3, 2, 1).contiguous()

    def back(self, spectra: torch.Tensor, views: slice, filter_: DirectionalFilter) -> torch.Tensor:
        """Filtered projections ``(views, J, K, coefficients)`` from transforms of some views."""
        if spectra.device.type != "cpu":
            return self.back_by_torch(spectra, views, filter_)
        from ddf_tomo.operators import _filter_kernel as kernel

        if self._prepared[0] is not filter_:
            self._prepared = filter_, self._prepare(filter_)
        shapes, systems, *others = self._prepared[1]
        filtered = spectra.new_empty((len(spectra), *self.detector_shape, filter_.response.shape[2]))
        response, nearest = _flat(filter_.response[views]), _flat(filter_.nearest[views])
        arguments = _flat(spectra), _flat(filtered), shapes, response, systems, nearest, *others
        in_parallel(len(spectra), 1, partial(kernel.filter_and_return, *arguments))
        return filtered

    def _prepare(self, filter_: DirectionalFilter) -> tuple[Any, ...]:
        """What the compiled kernel is told of a filter, the same for all views."""
        (rows, columns), (padded_j, padded_k) = self.detector_shape, self.padded
        channels, size = filter_.response.shape[1:]
        pad, together = -size % LANES, self._together(size)
        parts = (filter_.eigenvalues, 1.0), (filter_.inward, 0.0), (filter_.outward.mT, 0.0)
        systems = tuple(_flat(torch.nn.functional.pad(part, (0, pad), value=fill)) for part, fill in parts)
        radius = torch.cat([self.radius, self.zero])
        ramp, damping = (
            torch.cat([part, part[:1].expand(len(self.zero))]) * radius for part in (filter_.ramp, filter_.damping)
        )
        ramp[len(self.radius) :] /= len(self.zero)
        ramp /= padded_j * padded_k
        along_k = transform_stages(padded_k, padded_k, columns, inverse=True).of(ramp)
        along_j = transform_stages(padded_j, self.shape[1], rows, inverse=True, of_half=True).of(ramp)
        shapes = (rows, columns, *self.shape, channels, size, size + pad, len(self.zero), together, max(self.padded))
        groups = *self._groups(filter_.passing, together, size), filter_.negligible
        return shapes, systems, groups, _flat(ramp), _flat(damping), along_k, along_j

    def _groups(self, passing: torch.Tensor, together: int, size: int) -> tuple[Any, ...]:
        """Frequencies that pass, `TOGETHER` of a sector at a time, and where they are in a block of the kernel."""
        index = passing.nonzero().flatten().numpy()
        index = index[index > 0]
        k, j = np.divmod(index, self.shape[1])
        block, sector = j // together, self.sector.numpy()[index]
        order = np.lexsort((self.radius.numpy()[index], sector, block))
        key = (block * len(self.zero) + sector)[order]
        _, first, many = np.unique(key, return_index=True, return_counts=True)
        groups = -(-many // TOGETHER)
        of = np.repeat(np.arange(len(first)), groups)
        place = np.arange(len(of)) - np.repeat(np.cumsum(groups) - groups, groups)
        # What is left over in the last group of a sector is its last frequency again.
        member = np.minimum(place[:, None] * TOGETHER + np.arange(TOGETHER), many[of][:, None] - 1) + first[of][:, None]
        member = order[member]
        starts = np.searchsorted(block[member[:, 0]], np.arange(-(-self.shape[1] // together) + 1))
        here = np.minimum(together, self.shape[1] - block * together) * size
        ends = k * (-(-here // ROW_LANES) * ROW_LANES) + j % together * size
        skipped = bool(len(index) + 1 < len(passing))
        return starts, sector[member[:, 0]], index[member].ravel(), ends[member].ravel(), skipped

    def back_by_torch(self, spectra: torch.Tensor, views: slice, filter_: DirectionalFilter) -> torch.Tensor:
        """`back`, in terms of torch: sector by sector, and frequency 0 with its part in each of them."""
        rows, columns = self.detector_shape
        result = spectra.new_zeros((*spectra.shape[:3], filter_.response.shape[2]))
        for place, zero in enumerate(self.zero):
            chosen = ((self.sector.to(spectra.device) == place) & filter_.passing).nonzero().flatten()
            chosen = torch.cat([chosen.new_zeros(1), chosen[chosen > 0]])
            radius = self.radius[chosen]
            radius[0] = zero
            system, ramp = filter_.nearest[views, place], filter_.ramp[chosen] * radius
            parts = spectra[:, :, chosen] @ (filter_.response[views] @ filter_.inward[system])[:, None]
            parts *= (
                ramp[:, None]
                / (filter_.eigenvalues[system][:, None] + (filter_.damping[chosen] * radius)[:, None])[:, None]
            )
            found = parts @ filter_.outward[system].mT[:, None]
            found[:, :, 0] /= len(self.zero)
            result[:, :, chosen] += found
        full = torch.view_as_complex(result.unflatten(2, self.shape).permute(0, 4, 2, 3, 1).contiguous())
        half = torch.fft.ifft(full, dim=2)[:, :, :columns]
        pixels = torch.fft.irfft(half, self.padded[0], dim=3)[..., :rows]
        return pixels.permute(0, 3, 2, 1).contiguous()


@dataclass(frozen=True)
class Stages:
    """A discrete Fourier transform as a product of sparse matrices.

    Attributes
    ----------
    starts
        First row of each stage, and the end of the last.
    kinds
        How many terms the rows of each stage have; 0 or -1 where a row stands for four, whose terms, each with a
        factor, are transformed as four numbers are, forward or back.
    sources, targets, factors
        Of each row: which numbers of the stage before are summed with which complex factors to which number; shape
        ``(rows, 4)``.
    """

    starts: NDArray[np.int64]
    kinds: NDArray[np.int64]
    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    factors: NDArray[np.complex128]

    def of(self, like: torch.Tensor) -> tuple[NDArray[Any], ...]:
        """For the kernel: factors as real and imaginary numbers of the kind of a tensor."""
        factors = [part.astype(like.numpy().dtype).ravel() for part in (self.factors.real, self.factors.imag)]
        return self.starts, self.kinds, self.sources.ravel(), self.targets.ravel(), *factors


def _flat(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.contiguous().numpy().reshape(-1)


@lru_cache(maxsize=64)
def transform_stages(length: int, given: int, wanted: int, *, inverse: bool = False, of_half: bool = False) -> Stages:
    """``X[q] = Σ_n exp(∓2πi n q / length) x[n]`` for the first ``wanted`` q, of the first ``given`` numbers n.

    After the stages with product of radices ``Q`` there are the transforms of length ``Q`` of every
    ``length / Q``-th number (Stockham's order). What comes from nothing, and what leads nowhere, is left out.

    Parameters
    ----------
    length
        Without prime factors above 3.
    inverse
        The other sign; without scale.
    of_half
        Frequencies count for their opposites, too: the real part of the result is that of a real transform.

    Examples
    --------
    >>> stages = transform_stages(16, 16, 16)
    >>> stages.kinds.tolist(), stages.sources.shape  # two, each of four times four numbers
    ([0, 0], (8, 4))
    """
    steps, done = [], 1
    for radix in _radices(length):
        q, n = np.divmod(np.arange(length), length // (done * radix))
        term = np.arange(radix)
        source = (q % done)[:, None] * (length // done) + n[:, None] + term * (length // (done * radix))
        done *= radix
        steps.append((source, np.exp((2j if inverse else -2j) * np.pi / done * q[:, None] * term)))
    steps = steps or [(np.zeros((1, 1), int), np.ones((1, 1), complex))]
    needed = [np.arange(wanted)]
    for source, _ in reversed(steps[1:]):
        needed.append(np.unique(source[needed[-1]]))
    row_of, gain = np.full(length, -1), np.ones(length)
    row_of[:given] = np.arange(given)
    if of_half:
        gain[1 : (length + 1) // 2] = 2
    stages = []
    for rows, (source, factor) in zip(reversed(needed), steps, strict=True):
        apart = length // source.shape[1]
        is_four = source.shape[1] == TERMS and bool((row_of[source[rows]] >= 0).all() and (gain == 1).all())
        chosen = np.unique(rows % apart) if is_four else rows[(row_of[source[rows]] >= 0).any(1)]
        rows = rows if is_four else chosen
        place = np.full(length, len(rows))  # where there is room for what is not wanted
        place[rows] = np.arange(len(rows))
        target = place[(chosen[:, None] + apart * np.arange(TERMS)) % length]
        from_row = row_of[source[chosen]]
        factor = np.where(from_row < 0, 0, factor[chosen] * gain[source[chosen]])
        order = np.argsort(from_row < 0, axis=1, kind="stable")  # terms from nothing last
        from_row, factor = (np.take_along_axis(part, order, 1) for part in (from_row, factor))
        kind = -inverse if is_four else int((from_row >= 0).sum(1).max())
        wide = ((0, 0), (0, TERMS - from_row.shape[1]))
        stages.append((kind, np.pad(from_row.clip(0), wide), target, np.pad(factor, wide)))
        row_of, gain = np.where(place < len(rows), place, -1), np.ones(length)
    kinds, *parts = zip(*stages, strict=True)
    starts = np.cumsum([0, *map(len, parts[0])])
    return Stages(starts, np.array(kinds), *(np.concatenate(part) for part in parts))


def fast_length(least: int) -> int:
    """The next length without prime factors above 3."""
    length = max(least, 1)
    while math.prod(_radices(length)) != length:
        length += 1
    return length


def _radices(length: int) -> list[int]:
    """4, 2 and 3, as often as they divide ``length``."""
    found = []
    for radix in (4, 2, 3):
        while length % radix == 0:
            length //= radix
            found.append(radix)
    return found
