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
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import choice, message, number
from ddf_tomo._threads import in_parallel
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.beams_across import view_spacing
from ddf_tomo.operators.detector_filter import DetectorFrequencies, DirectionalFilter
from ddf_tomo.operators.directional_symbol import NARROWEST, directional_symbol
from ddf_tomo.operators.distributed import DistributedViews
from ddf_tomo.operators.rank_two import tensor_from_coefficients
from ddf_tomo.operators.spherical_harmonics import half_sphere_grid, orders
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.solvers.evened import Evened
from ddf_tomo.solvers.misfit import misfit_of, overflow
from ddf_tomo.solvers.spectra import FALLOFF, Spectra, estimate_spectra

WINDOWS = ("wiener", "ram-lak", "shepp-logan", "cosine", "hann")
NEGLIGIBLE = 1e-2  # frequencies that pass by less than this share are left out
CHUNK_BYTES = 32 * 2**20
MOST_DIRECTIONS_BYTES = 64 * 2**20
SCANS_KEPT = 3  # of which the directions are known already
REPEATED = 1e-6  # combinations of channels whose power is below this share of the strongest tell nothing new
VIEWS_FOR_SPECTRA, FEWEST_FOR_SPECTRA = 24, 6  # enough for the mean of a power; of large views, which average more
SPECTRA_BYTES = 256 * 2**20


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
    """Coefficients by tensor filtered backprojection, in the time of one or two iterations of another solver.

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
    data, like = Evened(misfit), misfit.like
    basis = _basis(A, like)
    R = data.roots[:, :, None] * (A.matrix.to(like) @ basis)
    volume = like.new_zeros([int(n or 1) for n in A.domain_shape])
    if not volume.numel() or not len(R) or not bool(R.any()):
        return volume

    together = _channels_together(R)
    R = R if together is None else together.mT @ R
    grid = DetectorFrequencies(A.geometry.detector_shape, width, like)
    ell = torch.from_numpy(orders(A.ell_max)[0]).to(like.device)
    apodisation, damping = torch.ones_like(grid.radius), torch.zeros_like(grid.radius)
    strengths = FALLOFF ** (ell / 2)
    if window != "wiener":
        apodisation = _window(window, grid.radius / (0.5 * cutoff))
    elif (spectra := _spectra(data, together, R, grid, ell)) is None:
        return volume
    else:
        # White noise on the detector, and a signal that is stationary in the volume.
        spread = math.prod(A.geometry.volume_shape) / math.prod(A.geometry.detector_shape)
        damping, strengths = (spread * spectra.noise_to_signal(grid.radius)).to(like), spectra.orders[ell // 2]
    scale = strengths.sqrt().to(like)
    # Of coefficients relative to the strength of their order.
    eigenvalues, vectors, nearest = _eigensystems(A, R, scale, grid, width)
    largest = eigenvalues[nearest.flatten(), 0].median()
    filter_ = DirectionalFilter(
        eigenvalues=eigenvalues.clamp_min(0) + share * largest,
        inward=vectors,
        outward=(basis * scale) @ vectors,
        nearest=nearest,
        response=R * scale,
        ramp=apodisation,
        damping=apodisation * damping,
        passing=apodisation * largest > NEGLIGIBLE * (largest + grid.radius * damping),
        negligible=NEGLIGIBLE,
    )
    size = max(1, CHUNK_BYTES // (grid.radius.numel() * volume.shape[-1] * 2 * like.element_size()))
    for views, evened in data.pieces(size):
        evened = evened if together is None else evened @ together
        filtered = grid.back(grid.transform(evened), views, filter_)
        A.projector.backproject_into(volume, filtered, views)
    if not math.isfinite(float(volume.sum(dtype=torch.float64))):
        raise ValueError(overflow(like))
    return volume


def _channels_together(R: torch.Tensor) -> torch.Tensor | None:
    """Orthonormal combinations of channels that tell all that any view knows, if fewer do: ``(channels, fewer)``."""
    values, vectors = torch.linalg.eigh((R @ R.mT).sum(0, dtype=torch.float64))
    telling = values > REPEATED * values[-1]
    return None if telling.all() else vectors[:, telling].flip(1).to(R)


def _spectra(
    data: Evened, together: torch.Tensor | None, R: torch.Tensor, grid: DetectorFrequencies, ell: torch.Tensor
) -> Spectra | None:
    """Estimated from some of the views, fewer if they are large."""
    view = grid.radius.numel() * R.shape[1] * 2 * R.element_size()
    count = min(VIEWS_FOR_SPECTRA, max(FEWEST_FOR_SPECTRA, SPECTRA_BYTES // view), len(R))
    some = np.linspace(0, len(R) - 1, count).round().astype(int)
    seen = torch.cat([data[[view]] for view in some])
    transforms = grid.transform(seen if together is None else seen @ together)
    return estimate_spectra(transforms, grid.radius, R[some], ell)


def _eigensystems(
    A: TensorXRayTransform, R: torch.Tensor, scale: torch.Tensor, grid: DetectorFrequencies, width: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of ``G`` on a grid of directions, and which of them is nearest to each ``(view, sector)``.

    ``G`` and the directions are kept for the next data of the same scan; only ``scale`` is of these data.
    """
    frames = tuple(part.tobytes() for part in (A.geometry.p, A.geometry.j, A.geometry.k, grid.azimuths.numpy()))
    matrices = R.cpu().numpy().tobytes(), tuple(R.shape), R.dtype
    symbol, nearest = _symbol_and_nearest(frames, matrices, width, str(R.device))
    symbol = symbol * (scale[:, None] * scale)
    if not math.isfinite(float(symbol.sum(dtype=torch.float64))):
        raise ValueError(overflow(R))
    eigenvalues, vectors = R.new_empty(symbol.shape[:2]), torch.empty_like(symbol)

    def solve(start: int, stop: int) -> None:
        eigenvalues[start:stop], vectors[start:stop] = torch.linalg.eigh(symbol[start:stop])

    in_parallel(len(symbol), 64, solve) if R.device.type == "cpu" else solve(0, len(symbol))
    return eigenvalues.flip(1), vectors.flip(2), nearest


@lru_cache(maxsize=SCANS_KEPT)
def _symbol_and_nearest(
    frames: tuple[bytes, ...], matrices: tuple[bytes, tuple[int, ...], torch.dtype], width: float, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """``G`` on a grid of directions, at most a third of `MOST_DIRECTIONS_BYTES`, and the nearest to each sector."""
    p, j, k, azimuths = (np.frombuffer(part).reshape(-1, 1, n) for part, n in zip(frames, (3, 3, 3, 1), strict=True))
    numbers, shape, dtype = matrices
    R = torch.frombuffer(bytearray(numbers), dtype=dtype).reshape(shape).to(device)
    directions = (np.sin(azimuths[:, 0]) * j + np.cos(azimuths[:, 0]) * k).reshape(-1, 3)
    nearest = np.arange(len(directions))
    alike = math.ceil(6 * math.pi / width**2)  # 0.6 of the width apart
    most = MOST_DIRECTIONS_BYTES // (3 * R.shape[2] ** 2 * R.element_size())
    if min(alike, most) < len(directions):
        from scipy.spatial import cKDTree

        spread = half_sphere_grid(min(alike, most))
        tree = cKDTree(np.concatenate([spread, -spread]))
        nearest = tree.query(directions, workers=torch.get_num_threads())[1] % len(spread)
        directions = spread
    symbol = directional_symbol(R, p[:, 0], directions, width)
    return symbol, torch.from_numpy(nearest).to(device).reshape(len(p), -1)


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
