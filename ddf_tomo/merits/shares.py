"""Which part of a volume the data tell, and which they leave to the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._balanced import balanced
from ddf_tomo._checks import LARGEST_SEED, check_shape, integer, message, number, of_kind, real_array
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.operators.base import LinearOperator, as_tensor, shape_text
from ddf_tomo.operators.spherical_harmonics import order_of, orders, power
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Misfit, cgls
from ddf_tomo.solvers.plug_and_play import noise_variance
from ddf_tomo.solvers.preconditioner import Diagonal

PROBED = 2**16  # voxels times probes, if nothing else is asked for
MOST_PROBES = 4
CONVERGED = 3e-3
FAINTEST = 1e-2  # no order is taken to be weaker than this, relative to the strongest


@dataclass(frozen=True)
class NullSpaceShare:
    """A volume, or an error, divided into what data tell of it and what they leave open; made by `null_space_share`.

    Attributes
    ----------
    seen, open
        The two parts, arrays of the volume's shape; their sum is the volume.
    share
        ``|open| / |volume|``, 0 … 1.
    share_per_order
        The same of each order ℓ; 0 where the volume has none of it.
    """

    seen: NDArray[Any]
    open: NDArray[Any]
    share: float
    share_per_order: dict[int, float]


def null_space_share(
    volume: Any, A: LinearOperator, weights: Any = None, *, threshold: float = 0.01, iterations: int = 50
) -> NullSpaceShare:
    """How much of a volume lies where the data say nothing: what came from the prior, and not from them.

    Given an error, it tells how much of it better data alone could have mended. Directions in the space of volumes
    count as open by ``ε / (λ + ε)``, with ``λ`` the curvature ``AᵀWA`` along them and ``ε = threshold · λ_max``: that
    is 1 in the null space, and no more than the threshold where data tell the most.

    Parameters
    ----------
    volume
        Of the operator's domain shape: coefficients ``(x, y, z, K)``, or their error.
    A
        The operator of the scan, such as `ddf_tomo.TensorXRayTransform`.
    weights
        Of the data, as in `ddf_tomo.solvers.cgls`.
    threshold
        Curvature, relative to the largest, at which a direction counts as half open.
    iterations
        Of conjugate gradients, at most.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, or an argument is out of range.

    Examples
    --------
    Tomography over half the angles that it takes does not see structures across the others.

    >>> from ddf_tomo import Geometry, XRayTransform
    >>> beams = Geometry.from_angles(np.linspace(-0.8, 0.8, 16), 0.0, (16, 16, 16), (16, 16))  # about z, near p = -y
    >>> A = XRayTransform(beams, channels=1)
    >>> waves = np.broadcast_to(np.cos(np.arange(16) * np.pi / 2), (16, 16, 16))[..., None]
    >>> [round(null_space_share(waves.swapaxes(axis, 2).copy(), A).share, 1) for axis in (0, 1)]
    [0.1, 1.0]
    """
    of_kind(LinearOperator, A, "A", "a LinearOperator")
    x = as_tensor(volume, "volume").detach()
    x = x if x.dtype in (torch.float32, torch.float64) else x.double()
    if not torch.isfinite(x).all():
        raise ValueError(message("volume", "finite values", "NaN or infinite ones"))
    if x.ndim != len(A.domain_shape):
        raise ValueError(message("volume", f"shape ({shape_text(A.domain_shape)})", tuple(x.shape)))
    misfit = Misfit(A, A(x), weights)
    level = number(threshold, "threshold", low=0.0, high=1.0, low_open=True) * misfit.curvature()
    found = cgls(A, misfit.y, weights=weights, tikhonov=level, iterations=iterations, tolerance=1e-4, progress=False)
    seen, total = found.x.numpy(), x.numpy()
    rest = total - seen
    count, per_order = x.shape[-1], {}
    if count in (1, 6, 15, 28, 45):
        ell = orders(order_of(count))[0]
        per_order = {int(n): _size_ratio(rest[..., ell == n], total[..., ell == n]) for n in np.unique(ell)}
    return NullSpaceShare(seen, rest, _size_ratio(rest, total), per_order)


def _size_ratio(part: NDArray[Any], whole: NDArray[Any]) -> float:
    size = np.linalg.norm(whole.astype(np.float64))
    return float(np.linalg.norm(part.astype(np.float64)) / size) if size else 0.0


@dataclass(frozen=True, eq=False)
class DataShare:
    """How much of each order of a volume data determine, voxel by voxel; made by `data_share`.

    Attributes
    ----------
    share
        1 where the data alone determine the coefficients of an order, 0 where all of it is the prior's; in between the
        share by which a change of the true coefficient would show. Shape ``(x, y, z, order)``, orders 0, 2, …; of
        rank-2 tensors one, for all six numbers.
    per_order
        Mean over the voxels of the sample, by order.
    strength
        What the data are weighed against, ``ρ`` of each order, in units of weights × data² per squared coefficient.
    strength_from
        ``"the learned prior"``: as strong as it was in the last iteration; ``"the powers of the volume"``: the variance
        of noise over that of the coefficients, as of a prior that knows no more than how strong each order is;
        ``"given"``.
    """

    share: NDArray[np.float32]
    per_order: dict[int, float]
    strength: tuple[float, ...]
    strength_from: str


def data_share(
    reconstruction: Reconstruction,
    scan: Scan,
    *,
    strength: Any = None,
    probes: int | None = None,
    iterations: int = 100,
    seed: int = 0,
) -> DataShare:
    """Which share of each order came from the data, and which from the prior, in every voxel.

    The `resolution` of the scan against the strength of the prior. It says where the result depends on what samples
    are believed to look like; not whether that belief is right.

    Parameters
    ----------
    reconstruction
        The volume.
    scan
        What it was made of.
    strength
        ``ρ`` to weigh the data against, a number or one for each order; by default that of the learned prior of the
        reconstruction, and where there was none, noise over power: the least that a prior could say.
    probes, iterations, seed
        As in `resolution`.

    Raises
    ------
    ValueError
        If the scan does not fit the volume.
    TypeError
        If an argument is of another kind.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse, reconstruct
    >>> from ddf_tomo.phantoms import simulate, tilt_series
    >>> geometry = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.7], views=[12, 12])
    >>> scan = simulate("helicoidal", geometry, SecondMomentResponse(), noise=0.02)
    >>> found = data_share(reconstruct(scan, prior=None, progress=False), scan)
    >>> found.share.shape, found.per_order[0] > 0.7
    ((8, 8, 8, 2), True)
    """
    of_kind(Reconstruction, reconstruction, "reconstruction", "a ddf_tomo.Reconstruction")
    of_kind(Scan, scan, "scan", "a ddf_tomo.Scan")
    check_shape(scan.geometry.volume_shape, "scan (volume)", reconstruction.geometry.volume_shape)
    harmonics = getattr(reconstruction.response, "of_harmonics", True)
    if harmonics != getattr(scan.response, "of_harmonics", True):
        found = f"{scan.response!r} beside {reconstruction.response!r}"
        raise ValueError(message("scan", "a response to the coefficients of the reconstruction", found))
    A = TensorXRayTransform(scan.geometry, scan.response, reconstruction.ell_max)
    check_shape(reconstruction.coefficients.shape, "reconstruction (coefficients)", A.domain_shape)
    data, weights, unit = balanced(scan)
    data, weights = (
        torch.from_numpy(as_numpy(data)),
        weights if weights is None else torch.from_numpy(as_numpy(weights)),
    )
    told, kept = "given", reconstruction.settings.get("prior_strength")
    if strength is None and kept is not None and np.isfinite(kept).all():
        strength, told = kept, "the learned prior"
    elif strength is None:
        strength, told = _noise_over_power(reconstruction, data, weights, unit), "the powers of the volume"
    groups = orders(reconstruction.ell_max)[0] // 2 if harmonics else np.zeros(6, int)
    rho = _numbers(strength, int(groups.max()) + 1)
    share = resolution(A, rho[groups] / unit, weights, groups=groups, probes=probes, iterations=iterations, seed=seed)
    sample = reconstruction.derived().valid
    means = share[sample if sample.any() else np.ones_like(sample)].mean(0)
    names = range(0, 2 * len(means), 2) if harmonics else [2]
    per_order = {int(n): float(mean) for n, mean in zip(names, means, strict=True)}
    return DataShare(share, per_order, tuple(rho.tolist()), told)


def resolution(
    A: LinearOperator,
    strength: Any,
    weights: Any = None,
    *,
    groups: Any = None,
    probes: int | None = None,
    smoothing: float = 2.0,
    iterations: int = 100,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Diagonal of ``(AᵀWA + ρ)⁻¹ AᵀWA``: what share of a coefficient is found where the truth has it, in each voxel.

    Random probes of ±1 and conjugate gradients [Hutchinson 1990, Commun. Stat. Simul. Comput. 19, 433; the diagonal:
    Bekas et al. 2007, Appl. Numer. Math. 57, 1214], averaged over neighbours and over coefficients of a group: of ``n``
    independent numbers the error is at most ``1/(2 √n)``, 0.02 for order 0 by default and less for others.

    Parameters
    ----------
    A
        The operator of the scan, on volumes ``(x, y, z, K)``, such as `ddf_tomo.TensorXRayTransform`.
    strength
        ``ρ > 0``: a number, or one of each coefficient, ``(K,)``.
    weights
        Of the data, as in `ddf_tomo.solvers.cgls`.
    groups
        Number, from 0, of the group of each coefficient; by default that of its order, where ``K`` is a number of
        harmonics, or each its own.
    probes
        How many; by default as many as make 65 000 voxels, 1 to 4.
    smoothing
        Standard deviation of the average over neighbours, in voxels.
    iterations
        Of conjugate gradients, at most; where these were too few, the share comes out too low.
    seed
        Of the probes.

    Returns
    -------
    numpy.ndarray
        Shape ``(x, y, z, group)``, 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> twice = wrap((lambda x: 2 * x, lambda y: 2 * y), (4, 4, 4, 1), (4, 4, 4, 1))
    >>> round(float(resolution(twice, 1.0)[1, 2, 3, 0]), 3)  # 4 / (4 + 1)
    0.8
    """
    of_kind(LinearOperator, A, "A", "a LinearOperator")
    shape = tuple(int(n or 1) for n in A.domain_shape)
    if len(shape) != 4:
        raise ValueError(message("A", "an operator on volumes (x, y, z, K)", f"one on ({shape_text(A.domain_shape)})"))
    count, voxels = shape[3], math.prod(shape[:3])
    rho = _numbers(strength, count)
    if not (rho > 0).all():
        raise ValueError(message("strength", "numbers above 0", strength))
    of_harmonics = count in (1, 6, 15, 28, 45)
    default = orders(order_of(count))[0] // 2 if of_harmonics else np.arange(count)
    given = real_array(default if groups is None else groups, "groups")
    if given.shape != (count,) or not np.array_equal(names := np.unique(given), np.arange(len(names))):
        raise ValueError(message("groups", f"{count} numbers from 0, none left out", groups))
    members = given.astype(np.int64)
    if probes is None:
        probes = min(max(1, round(PROBED / voxels)), MOST_PROBES)
    probes = integer(probes, "probes", low=1, high=10_000)
    width = number(smoothing, "smoothing", low=0.0, high=1e3)
    generator = torch.Generator().manual_seed(integer(seed, "seed", high=LARGEST_SEED))
    penalty = Diagonal(torch.from_numpy(np.sqrt(rho / rho.max())).float(), shape)
    how: dict[str, Any] = {"weights": weights, "tikhonov": float(rho.max()), "penalty": penalty}
    sums = np.eye(members.max() + 1)[members] / np.bincount(members)
    share = np.zeros((*shape[:3], sums.shape[1]))
    for _ in range(probes):
        probe = 2.0 * torch.randint(2, shape, generator=generator) - 1
        found = cgls(A, A(probe), iterations=iterations, tolerance=CONVERGED, progress=False, **how).x
        share += (probe * found).numpy() @ sums / probes
    return np.clip(_smoothed(share, width), 0, 1).astype(np.float32)


def _smoothed(values: NDArray[Any], width: float) -> NDArray[Any]:
    """Gaussian mean over the first three axes; at the faces over what there is."""
    from scipy.ndimage import gaussian_filter

    if not width:
        return values
    widths = (width, width, width, 0.0)
    inside = gaussian_filter(np.ones((*values.shape[:3], 1)), widths, mode="constant")
    found: NDArray[Any] = gaussian_filter(values, widths, mode="constant") / inside
    return found


def _numbers(strength: Any, count: int) -> NDArray[np.float64]:
    """One number of each, from these or from one for all."""
    values = real_array(strength, "strength")
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(message("strength", f"a number, or {count} of them", strength))
    return np.broadcast_to(values, (count,)).astype(np.float64)


def _noise_over_power(
    made: Reconstruction, data: torch.Tensor, weights: torch.Tensor | None, unit: float
) -> NDArray[np.float64]:
    """Variance of a datum of weight 1 over that of the coefficients of each order, in the voxels of the sample."""
    fit = made.fit
    if fit is not None and fit.noise_from == "weights":
        variance = 1.0
    else:
        try:
            variance = unit * noise_variance(data, weights)
        except ValueError:
            variance = 1.0
    sample = made.derived().valid
    values = made.coefficients[sample] if sample.any() else made.coefficients.reshape(-1, made.coefficients.shape[-1])
    if getattr(made.response, "of_harmonics", True):
        powers = np.asarray(power(values.astype(np.float64))).mean(0) / np.arange(1, 2 * made.ell_max + 2, 4)
    else:
        powers = np.array([np.square(values.astype(np.float64)).mean()])
    strongest = float(powers.max(initial=0.0)) or 1.0
    return variance / np.maximum(powers, FAINTEST**2 * strongest)
