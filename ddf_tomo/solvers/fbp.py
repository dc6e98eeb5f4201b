"""Tensor filtered backprojection: the inverse of the normal operator's symbol, applied to the projections.

With ``X̂(ξ)`` the Fourier transform of the coefficients, each view measures ``ŷ_v(ξ) = R_v X̂(ξ)`` on the plane across
its beam, ``ξ = ξ_j j + ξ_k k``, and backprojection puts a detector's transform back on that plane. As ``δ(ξ · p) =
δ(ξ̂ · p) / |ξ|``,

    x = Σ_v BP_v [ |ξ| G(ξ̂)⁺ R_vᵀ ŷ_v(ξ) ],    G(ξ̂) = Σ_v δ(ξ̂ · p_v) R_vᵀ R_v

gives back the volume wherever ``G(ξ̂)`` has full rank (one axis, one channel: ``G = views / π / cos`` of the angle to
the plane of rotation, which is textbook filtered backprojection). Filtering first lets nothing be cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import choice, message, number
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.beams_across import view_spacing
from ddf_tomo.operators.directional_symbol import NARROWEST, directional_symbol
from ddf_tomo.operators.distributed import DistributedViews
from ddf_tomo.operators.rank_two import tensor_from_coefficients
from ddf_tomo.operators.spherical_harmonics import half_sphere_grid, orders
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.solvers.misfit import Misfit, misfit_of, overflow
from ddf_tomo.solvers.spectra import FALLOFF, Spectra, estimate_spectra

WINDOWS = ("wiener", "ram-lak", "shepp-logan", "cosine", "hann")
NEGLIGIBLE = 1e-2  # frequencies that pass by less than this share are left out
CHUNK_BYTES = 8 * 2**20
MOST_DIRECTIONS_BYTES = 64 * 2**20
FEWEST_SECTORS = 12
CELL = 64  # samples of the cell at frequency 0, along each axis
VIEWS_FOR_SPECTRA, FEWEST_FOR_SPECTRA = 48, 6  # enough for the mean of a power; of large views, which average more
SPECTRA_BYTES = 256 * 2**20
VIEWS_AT_ONCE = 64


@torch.no_grad()
def fbp(
    A: LinearOperator,
    y: Any,
    *,
    weights: Any = None,
    window: str = "wiener",
    cutoff: float = 1.0,
    width_rad: float | None = None,
    epsilon: float | None = None,
) -> torch.Tensor:
    """Coefficients by tensor filtered backprojection, in the time of some iterations of another solver.

    By default the filter is Wiener's: the power of noise and signal at each frequency, and that of each order, are
    estimated from the data, and what is below the noise is damped, well-determined combinations of coefficients at
    higher frequencies than others. The other windows are linear in the data and leave nothing to estimate.

    The object must lie inside the detector in every view. Directions of structure that no beam sees remain zero.

    Parameters
    ----------
    A
        A `TensorXRayTransform`, for its geometry, response and order.
    y
        Data, of the operator's range shape; torch or numpy, or on the disk.
    weights
        As in `ddf_tomo.solvers.cgls`. Each channel of a view counts with the inverse of its mean variance; single data
        of weight zero are filled in from their neighbours.
    window
        ``"wiener"``, or ``"ram-lak"`` (the bare ramp), ``"shepp-logan"``, ``"cosine"``, ``"hann"``, as in scalar
        tomography; these by ``|ξ|`` up to the ``cutoff``.
    cutoff
        Highest frequency of windows other than ``"wiener"``, relative to half a cycle per pixel.
    width_rad
        Angle over which views are taken together; by default the spacing of the views, `view_spacing`.
    epsilon
        Eigenvalues of ``G`` well below this share of the typical largest one are left out, smoothly. Coefficients are
        taken relative to the strength of their order, which ``"wiener"`` estimates. By default it follows the errors of
        ``G``: fewer views, and a larger width, let it know less (2e-4 for 600 views, 4e-4 for 200, 2e-3 for 30).

    Returns
    -------
    torch.Tensor
        Coefficients, of the operator's domain shape.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or data with positive weight are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import SaxsResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> response, geometry = SaxsResponse(np.arange(8) * np.pi / 8), tilt_series((16, 16, 16))
    >>> scan = simulate(helicoidal_fibres, geometry, response, noise=0.02)
    >>> A = TensorXRayTransform(scan.geometry, scan.response, ell_max=4)
    >>> x = fbp(A, scan.data)
    >>> truth = helicoidal_fibres((16, 16, 16)).coefficients
    >>> bool(np.linalg.norm(x.numpy() - truth) < 0.2 * np.linalg.norm(truth))
    True
    """
    if isinstance(A, DistributedViews):  # each process makes it all: it takes as long as a few iterations
        A = A.whole
    if not isinstance(A, TensorXRayTransform):
        raise TypeError(message("A", "a TensorXRayTransform", type(A).__name__))
    misfit = misfit_of(A, y, weights)
    choice(window, "window", WINDOWS)
    cutoff = number(cutoff, "cutoff", low=0.0, high=2.0, low_open=True)
    width = _width(A, width_rad)
    share = _epsilon(A, width) if epsilon is None else number(epsilon, "epsilon", low=0.0, high=1.0, low_open=True)
    data, like = _Evened(misfit), misfit.like
    basis = _basis(A, like)
    R = data.roots[:, :, None] * (A.matrix.to(like) @ basis)
    volume = like.new_zeros([int(n or 1) for n in A.domain_shape])
    if not volume.numel() or not len(R) or not bool(R.any()):
        return volume

    grid = DetectorFrequencies(A.geometry.detector_shape, width, like)
    ell = torch.from_numpy(orders(A.ell_max)[0]).to(like.device)
    apodisation, damping = torch.ones_like(grid.radius), torch.zeros_like(grid.radius)
    strengths = FALLOFF ** (ell / 2)
    if window != "wiener":
        apodisation = _window(window, grid.radius / (0.5 * cutoff))
    elif (spectra := _spectra(data, R, grid, ell)) is None:
        return volume
    else:
        # White noise on the detector, and a signal that is stationary in the volume.
        spread = math.prod(A.geometry.volume_shape) / math.prod(A.geometry.detector_shape)
        damping, strengths = (spread * spectra.noise_to_signal(grid.radius)).to(like), spectra.orders[ell // 2]
    scale = strengths.sqrt().to(like)
    R = R * scale  # of coefficients relative to the strength of their order
    eigenvalues, vectors, nearest = _eigensystems(A, R, grid, width)
    largest = eigenvalues[nearest.flatten(), -1].median()
    eigenvalues = eigenvalues.clamp_min(0) + share * largest
    inward, outward = vectors.mT, (basis * scale) @ vectors  # from coefficients to eigenvectors, and back
    passing = apodisation * largest > NEGLIGIBLE * (largest + grid.radius * damping)
    order, ramp, sectors = grid.sorted(passing)
    ramp, damping = ramp * apodisation[order], damping[order]
    size = max(1, CHUNK_BYTES // (grid.radius.numel() * volume.shape[-1] * 2 * like.element_size()))
    for views, evened in data.pieces(size):
        seen = torch.view_as_real(grid.transform(evened)[:, :, order])
        found = seen.new_empty((len(seen), volume.shape[-1], len(order), 2))
        for place, within in sectors:
            system = nearest[views, place]
            parts = inward[system] @ (R[views].mT @ seen[:, :, within].flatten(2))
            strength = eigenvalues[system][:, :, None] / ramp[within] + damping[within]
            parts.unflatten(2, (-1, 2)).div_(strength[..., None])
            found[:, :, within] = (outward[system] @ parts).unflatten(2, (-1, 2))
        A.projector.backproject_into(volume, grid.back(torch.view_as_complex(found), order), views)
    if not torch.isfinite(volume).all():
        raise ValueError(overflow(like))
    return volume


class DetectorFrequencies:
    """Frequencies of the zero-padded detector, in cycles per pixel, sorted into sectors of azimuth.

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
        ``|ξ|``, shape ``(frequencies,)``.
    azimuths
        Middle of each sector from ``k`` towards ``j``, radians, shape ``(sectors,)``; each stands for its opposite too.

    Examples
    --------
    >>> grid = DetectorFrequencies((8, 8), 0.5, torch.zeros(()))
    >>> data = torch.rand(3, 8, 8, 2)
    >>> order, ramp, sectors = grid.sorted(grid.radius >= 0)
    >>> torch.allclose(grid.back(grid.transform(data)[:, :, order], order), data, atol=1e-6)
    True
    """

    def __init__(self, detector_shape: tuple[int, int], width_rad: float, like: torch.Tensor) -> None:
        self.detector_shape = detector_shape
        self.padded = [_fast_length(2 * n) for n in detector_shape]
        along_j = torch.fft.fftfreq(self.padded[0], dtype=torch.float64)[:, None]
        along_k = torch.fft.rfftfreq(self.padded[1], dtype=torch.float64)[None]
        radius = torch.hypot(along_j, along_k).flatten()
        # Neighbouring frequencies at the edge of the band are 2 / padded apart.
        finest = math.ceil(math.pi / 2 * max(self.padded))
        sectors = min(max(math.ceil(1.5 * math.pi / width_rad), FEWEST_SECTORS), max(finest, FEWEST_SECTORS))
        self.azimuths = math.pi / sectors * torch.arange(sectors, dtype=torch.float64)
        self.sector = self._sector_of(along_j, along_k).flatten()
        # At frequency 0 a sample of the ramp would be 0: its mean over the cell there, each sector with its part of it.
        inside = (torch.arange(CELL, dtype=torch.float64) + 0.5) / CELL - 0.5
        j, k = inside[:, None] / self.padded[0], inside[None] / self.padded[1]
        parts = torch.hypot(j, k).flatten()
        self.zero = torch.zeros(sectors, dtype=torch.float64)
        self.zero.index_add_(0, self._sector_of(j, k).flatten(), parts / len(parts))
        self.zero *= sectors
        self.radius = radius.to(like)

    def _sector_of(self, along_j: torch.Tensor, along_k: torch.Tensor) -> torch.Tensor:
        turns = torch.atan2(*torch.broadcast_tensors(along_j, along_k)) * (len(self.azimuths) / math.pi)
        return turns.round().long() % len(self.azimuths)

    def transform(self, data: torch.Tensor) -> torch.Tensor:
        """Of projections ``(views, J, K, channels)``: complex, shape ``(views, channels, frequencies)``."""
        rows = torch.fft.rfft(data.permute(0, 3, 1, 2).contiguous(), self.padded[1], dim=3)
        return torch.fft.fft(rows, self.padded[0], dim=2).flatten(2)

    def sorted(self, passing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, slice]]]:
        """Some frequencies, sector by sector: their indices, the ramp, and the number of each sector with its slice.

        Frequency 0 is the first one in each sector: what the filter is there, is its mean over all sectors.
        """
        chosen = passing.nonzero().flatten().cpu()
        chosen = chosen[chosen > 0]
        by_sector = chosen[self.sector[chosen].argsort(stable=True)]
        counts = self.sector[chosen].bincount(minlength=len(self.azimuths)).tolist()
        parts = [torch.nn.functional.pad(part, (1, 0)) for part in by_sector.split(counts)]
        ends = np.cumsum([0, *map(len, parts)])
        slices = [(place, slice(int(ends[place]), int(ends[place + 1]))) for place in range(len(parts))]
        order = torch.cat(parts).to(passing.device)
        ramp = self.radius[order]
        ramp[order == 0] = self.zero.to(ramp)
        return order, ramp, slices

    def back(self, transforms: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """Projections from transforms at the frequencies ``order`` of `sorted`; shape ``(views, J, K, channels)``."""
        rows, columns = self.detector_shape
        stored = self.padded[1] // 2 + 1
        row, column = order // stored, order % stored
        used = int(column.max()) + 1  # no need to transform what is zero
        full = transforms.new_zeros((*transforms.shape[:2], self.padded[0] * used))
        full[:, :, row * used + column] = transforms
        full[:, :, 0] = transforms[:, :, order == 0].mean(2)
        half = torch.fft.ifft(full.unflatten(2, (-1, used)), dim=2)[:, :, :rows]
        pixels = torch.fft.irfft(half, self.padded[1], dim=3)[..., :columns]
        return pixels.permute(0, 2, 3, 1).contiguous()


def _spectra(data: _Evened, R: torch.Tensor, grid: DetectorFrequencies, ell: torch.Tensor) -> Spectra | None:
    """Estimated from some of the views, fewer if they are large."""
    view = grid.radius.numel() * R.shape[1] * 2 * R.element_size()
    count = min(VIEWS_FOR_SPECTRA, max(FEWEST_FOR_SPECTRA, SPECTRA_BYTES // view), len(R))
    some = np.linspace(0, len(R) - 1, count).round().astype(int)
    transforms = torch.cat([grid.transform(data[[view]]) for view in some])
    return estimate_spectra(transforms, grid.radius, R[some], ell)


def _eigensystems(
    A: TensorXRayTransform, R: torch.Tensor, grid: DetectorFrequencies, width: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of ``G`` on a grid of directions, and which of them is nearest to each ``(view, sector)``."""
    geometry = A.geometry
    j, k, azimuths = geometry.j[:, None], geometry.k[:, None], grid.azimuths.numpy()[None, :, None]
    directions = (np.sin(azimuths) * j + np.cos(azimuths) * k).reshape(-1, 3)
    nearest = np.arange(len(directions))
    alike = math.ceil(8 * math.pi / width**2)  # half the width apart
    most = MOST_DIRECTIONS_BYTES // (3 * R.shape[2] ** 2 * R.element_size())
    if min(alike, most) < len(directions):
        from scipy.spatial import cKDTree

        spread = half_sphere_grid(min(alike, most))
        nearest = cKDTree(np.concatenate([spread, -spread])).query(directions)[1] % len(spread)
        directions = spread
    symbol = directional_symbol(R, geometry.p, directions, width)
    if not torch.isfinite(symbol).all():
        raise ValueError(overflow(R))
    eigenvalues, vectors = torch.linalg.eigh(symbol)
    return eigenvalues, vectors, torch.from_numpy(nearest).to(R.device).reshape(len(geometry), -1)


def _width(A: TensorXRayTransform, width_rad: Any) -> float:
    if width_rad is None:
        return max(view_spacing(A.geometry), NARROWEST) if len(A.geometry) else 1.0
    return number(width_rad, "width_rad", low=NARROWEST, high=math.pi / 2)


def _epsilon(A: TensorXRayTransform, width: float) -> float:
    """What the few views near a direction, and their distance from it, leave open of ``G``; tuned on phantoms."""
    seeing = max(1.0, len(A.geometry) * width * math.sqrt(math.pi / 2))  # if beams are spread evenly
    return min(0.01 / seeing + width**4 / 4, 0.1)


def _window(name: str, share: torch.Tensor) -> torch.Tensor:
    """Window at frequencies relative to the cutoff; zero beyond it."""
    inside = share.clamp_max(1)
    values = {
        "ram-lak": torch.ones_like(share),
        "shepp-logan": torch.sinc(inside / 2),
        "cosine": torch.cos(math.pi / 2 * inside),
        "hann": (1 + torch.cos(math.pi * inside)) / 2,
    }[name]
    return torch.where(share <= 1, values.clamp_min(0), 0)


def _basis(A: TensorXRayTransform, like: torch.Tensor) -> torch.Tensor:
    """What makes the operator's coefficients of harmonics: the identity, or the map to tensors."""
    identity = torch.eye(A.matrix.shape[2], dtype=like.dtype, device=like.device)
    return identity if getattr(A.response, "of_harmonics", True) else tensor_from_coefficients(identity).mT


class _Evened:
    """Data without gaps times the roots of one weight for each view and channel, of mean square 1."""

    def __init__(self, misfit: Misfit) -> None:
        self.y, self.weights = misfit.y, misfit.weights
        views, channels = misfit.y.shape[0], misfit.y.shape[-1]
        self.roots = misfit.like.new_ones(views, channels)
        if self.weights is None or not views:
            return
        evened = torch.zeros(views, channels, dtype=torch.float64, device=self.roots.device)
        for some in self._slices():
            weights = torch.as_tensor(self.weights[some])
            known = weights > 0
            variance = torch.where(known, 1 / torch.where(known, weights, 1), 0).double().sum((1, 2))
            evened[some] = known.sum((1, 2)) / variance.clamp_min(torch.finfo(torch.float64).tiny)
        self.roots = (evened / evened.mean()).sqrt().to(self.roots)

    def __getitem__(self, views: Any) -> torch.Tensor:
        data = torch.as_tensor(self.y[views])
        if self.weights is not None:
            data = filled_in(data, torch.as_tensor(self.weights[views]) > 0)
        return data * self.roots[views, None, None, :]

    def pieces(self, size: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """At most ``size`` views at a time, from the disk as many as are read well together."""
        for some in self._slices():
            piece = self[some]
            for start in range(0, len(piece), size):
                part = piece[start : start + size]
                yield slice(some.start + start, some.start + start + len(part)), part

    def _slices(self) -> list[slice]:
        if isinstance(self.y, Streamed):
            return self.y.slices()
        return [slice(start, min(start + VIEWS_AT_ONCE, len(self.y))) for start in range(0, len(self.y), VIEWS_AT_ONCE)]


def filled_in(data: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Data with the mean of known neighbours where they are not known, from as near as there are any.

    Parameters
    ----------
    data
        Shape ``(views, J, K, channels)``, zero where not known.
    known
        Of the same shape, boolean. Channels of a view without any stay zero.

    Examples
    --------
    >>> data = torch.tensor([1.0, 0.0, 3.0, 0.0]).reshape(1, 1, 4, 1)
    >>> filled_in(data, data > 0).flatten().tolist()
    [1.0, 2.0, 3.0, 3.0]
    """
    if bool(known.all()):
        return data
    values, share = (t.to(data).permute(0, 3, 1, 2) for t in (torch.where(known, data, 0), known))
    found, missing, reach = values.clone(), share == 0, 1
    while bool(missing.any()) and reach < 2 * max(data.shape[1:3]):
        share_near, sum_near = (
            torch.nn.functional.avg_pool2d(part, 2 * reach + 1, stride=1, padding=reach) for part in (share, values)
        )
        near, mean = share_near > 0, sum_near / share_near.clamp_min(1e-12)
        found = torch.where(missing & near, mean, found)
        missing, reach = missing & ~near, 2 * reach
    return found.permute(0, 2, 3, 1).contiguous()


def _fast_length(least: int) -> int:
    """The next length without prime factors above 5."""
    length = least
    while _rest(length) != 1:
        length += 1
    return length


def _rest(length: int) -> int:
    for prime in (2, 3, 5):
        while length % prime == 0:
            length //= prime
    return length
