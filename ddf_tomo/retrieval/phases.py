"""Transmission and displacement as scalar images: attenuation, and the phase whose gradient the displacement is.

With the refractive index ``1 − δ + iβ`` and ``μ = 4πβ/λ`` a sample shows ``−ln T = ∫ μ dl`` and the phase
``φ = −(2π/λ) ∫ δ dl``; rays leave it at the angle ``α = ∇φ λ/2π = −∇ ∫ δ dl``, and meet the detector displaced by
``u = α d/s``. Of one distance, what retrieval calls transmission also holds the factor ``1 − ∇·u`` by which rays
converge.

The phase is integrated by weighted least squares over the whole image. Conjugate gradients are preconditioned by the
cosine transform, which alone would solve the unweighted problem [Ghiglia & Romero 1994, J. Opt. Soc. Am. A 11, 107].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import check_shape, dense, flag, integer, message, number, of_kind, real_array
from ddf_tomo.retrieval._filters import window_sum
from ddf_tomo.retrieval.maps import Array, Maps

__all__ = ["attenuation", "integrate_gradient", "phase", "projected_decrement"]
MARGIN = 1 / 16  # share of the rows or columns at either side that is air
FAINTEST = 1e-4  # weight relative to the median that holes are given, so that something smooth fills them
BRIGHTEST = 1e2
DIFFERENCE = 3**-0.5  # pixels: standard deviation of what a central difference averages over
TOLERANCE, ITERATIONS = 1e-7, 300


def attenuation(maps: Maps, *, propagation: bool = True) -> tuple[Array, Array]:
    """``−ln T`` and its standard error, shape ``(..., row, column)``; errors are infinite where T tells nothing.

    Parameters
    ----------
    maps
        What retrieval gave.
    propagation
        Take the factor ``1 − ∇·u`` of converging rays out of the transmission, with the error that it brings. True for
        maps of one distance; a fit of several distances has done so already. T is then brought to the resolution of u,
        which maps tell as ``windows_px``: of finer detail nothing says whether it absorbs or refracts. Errors of
        neighbouring pixels count as independent: where a window made u smooth, the error is an upper bound.

    Raises
    ------
    TypeError
        If these are no `Maps`.

    Examples
    --------
    >>> from ddf_tomo.datasets import four_rods
    >>> from ddf_tomo.retrieval import retrieve
    >>> rods = four_rods()
    >>> values, errors = attenuation(retrieve(rods.sample[..., 1690:1730], rods.reference[..., 1690:1730]))
    >>> values.shape == errors.shape, bool(np.median(values) > 0.05)
    (True, True)
    """
    of_kind(Maps, maps, "maps")
    propagation = flag(propagation, "propagation")
    transmission, error = _tensor(maps.transmission), _tensor(maps.transmission_error)
    valid = torch.as_tensor(maps.valid)
    focus, focus_variance = torch.ones_like(transmission), torch.zeros_like(transmission)
    if propagation:
        u, sigma = _tensor(maps.displacement), _tensor(maps.displacement_error)
        for axis in range(2):
            slope, variance = _derivative(u[..., axis], sigma[..., axis], valid, axis - 2)
            focus, focus_variance = focus - slope, focus_variance + variance
    known = valid & (transmission > 0) & torch.isfinite(error) & (focus > 0)
    one = torch.ones_like(transmission)
    t, f = torch.where(known, transmission, one), torch.where(known, focus, one)
    absorbed, variance = -torch.log(t), (error / t) ** 2
    windows = tuple(math.hypot(each, DIFFERENCE) for each in maps.windows_px or ()) if propagation else ()
    if windows:
        absorbed = _averaged(absorbed, known, windows)
        variance = _averaged(torch.where(known, variance, 0), known, windows[:1])
    values, errors = absorbed + torch.log(f), torch.sqrt(variance + focus_variance / f**2)
    return _like(values, maps), _like(torch.where(known, errors, torch.inf), maps)


def projected_decrement(
    maps: Maps, *, air: str | ArrayLike | None = "columns", air_order: int = 1, weighted: bool = True
) -> Array:
    """``∫ δ dl`` in pixel edges, integrated from the refraction angles, shape ``(..., row, column)``.

    In units of the pixel (and so of the voxel) a reconstruction of it is δ itself, without a unit.

    Parameters
    ----------
    maps
        What retrieval gave, with pixel size and distance.
    air
        Where there is no sample, which fixes what a gradient leaves open: ``"columns"``, the first and last sixteenth
        of the columns with valid pixels; ``"rows"``; a boolean mask ``(..., row, column)``; or ``None``, which brings
        the mean to zero.
    air_order
        Total degree (0 to 3) of the polynomial that is taken off so that air reads zero; 1 corrects a drift of the
        mask.
    weighted
        ``False`` ignores the standard errors and only masks.

    Raises
    ------
    ValueError
        If pixel size or distance are missing, or a view has no valid pixel in the air.
    TypeError
        If these are no `Maps`.

    Examples
    --------
    >>> from ddf_tomo.datasets import four_rods
    >>> from ddf_tomo.retrieval import retrieve
    >>> rods = four_rods()
    >>> maps = retrieve(rods.sample[..., 1400:1500], rods.reference[..., 1400:1500],
    ...                 pixel_size_m=rods.pixel_size_m, distance_m=rods.distance_m)
    >>> projected_decrement(maps).shape
    (30, 100)
    """
    of_kind(Maps, maps, "maps")
    order = integer(air_order, "air_order", low=0, high=3)
    angles, errors = (_tensor(each) for each in maps.refraction_angle())
    valid = torch.as_tensor(maps.valid)
    trust = valid[..., None].expand(errors.shape).to(errors)
    if flag(weighted, "weighted"):
        if bool((valid[..., None] & ~(errors > 0)).any()):
            hint = "weighted=False ignores them"
            raise ValueError(message("maps.displacement_error", "positive standard errors", "others", hint))
        # Only ratios matter: in units of the smallest error no square leaves the range.
        sigma = torch.where(trust > 0, errors.detach(), torch.inf)
        trust = (sigma.min() / sigma) ** 2
    found = -integrate_gradient(angles, trust)
    where = _air(air, valid)
    basis = torch.from_numpy(_polynomials(tuple(found.shape[-2:]), 0 if air is None else order)).to(found)
    flat, masks = found.reshape(-1, *found.shape[-2:]), where.reshape(-1, *found.shape[-2:])
    levelled = []
    for view, (image, mask) in enumerate(zip(flat, masks, strict=True)):
        if not mask.any():
            raise ValueError(message("air", "valid pixels of air in every view", f"none in view {view}"))
        fit = torch.linalg.pinv(basis[mask], rtol=1e-6) @ image[mask]
        levelled.append(image - basis @ fit)
    return _like(torch.stack(levelled).reshape(found.shape), maps)


def phase(maps: Maps, wavelength_m: float, **options: Any) -> Array:
    """Phase ``φ = −(2π/λ) ∫ δ dl`` in radians behind the sample, shape ``(..., row, column)``.

    Parameters
    ----------
    maps
        What retrieval gave, with pixel size and distance.
    wavelength_m
        Of the X-rays: 12.398e-10 m divided by the energy in keV.
    **options
        ``air`` and ``air_order`` of `projected_decrement`.

    Examples
    --------
    >>> from ddf_tomo.datasets import four_rods
    >>> from ddf_tomo.retrieval import retrieve
    >>> rods = four_rods()
    >>> maps = retrieve(rods.sample[..., 1400:1500], rods.reference[..., 1400:1500],
    ...                 pixel_size_m=rods.pixel_size_m, distance_m=rods.distance_m)
    >>> phase(maps, 12.398e-10 / rods.energy_kev).shape
    (30, 100)
    """
    wavelength = number(wavelength_m, "wavelength_m", low=1e-14, high=1e-6)
    decrement = projected_decrement(maps, **options)
    return decrement * (-2 * np.pi / wavelength * float(maps.pixel_size_m or 0))


def integrate_gradient(gradient: ArrayLike | Tensor, weights: ArrayLike | Tensor | None = None) -> Any:
    """The image whose gradient fits best, by weighted least squares; its mean is zero.

    Parameters
    ----------
    gradient
        Derivatives along rows' and columns' index at the pixels' centres, shape ``(..., row, column, 2)``.
    weights
        Non-negative, 1/σ² of the gradient, shape ``(..., row, column, 2)`` or ``(..., row, column)``; zero excludes
        pixels, which are filled smoothly.

    Returns
    -------
    array or Tensor
        Shape ``(..., row, column)``, of the kind and dtype of ``gradient``; differentiable in it.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, gradients of positive weight are not finite, or weights are negative, infinite or all
        zero.

    Examples
    --------
    >>> row, column = np.mgrid[:20, :30] / 5.0
    >>> image = np.sin(row) * np.cos(column)
    >>> slopes = np.stack([np.cos(row) * np.cos(column), -np.sin(row) * np.sin(column)], axis=-1) / 5
    >>> bool(np.abs(integrate_gradient(slopes) - (image - image.mean())).max() < 0.01)
    True
    """
    slopes = _tensor(gradient, "gradient")
    if slopes.ndim < 3 or slopes.shape[-1] != 2 or 0 in slopes.shape:
        raise ValueError(message("gradient", "shape (..., row, column, 2) without empty axes", tuple(slopes.shape)))
    shape = tuple(slopes.shape)
    trust = torch.ones(shape) if weights is None else _tensor(weights, "weights").detach()
    trust = trust[..., None].expand(*trust.shape, 2) if tuple(trust.shape) == shape[:-1] else trust
    check_shape(tuple(trust.shape), "weights", shape)
    if not bool(torch.isfinite(trust).all()) or bool((trust < 0).any()):
        raise ValueError(message("weights", "finite weights of zero or more", "negative, infinite or NaN ones"))
    if not bool((trust > 0).flatten(-3).any(-1).all()):
        raise ValueError(message("weights", "some weight above zero in every view", "zeros only"))
    if bool((~torch.isfinite(slopes) & (trust > 0)).any()):
        raise ValueError(message("gradient", "finite values where weights are positive", "NaN or infinite ones"))
    slopes = torch.where(trust > 0, slopes, 0).reshape(-1, *shape[-3:])
    trust = trust.to("cpu", torch.float64).reshape(-1, *shape[-3:])
    unit = float(slopes.detach().abs().max()) or 1.0  # sums of squares shall not leave the range
    images = [_integrated(g / unit, w) * unit for g, w in zip(slopes, trust, strict=True)]
    found = torch.stack(images).reshape(shape[:-1]).to(slopes)
    if not bool(torch.isfinite(found).all()):
        raise ValueError(message("gradient", f"sums that {slopes.dtype} can hold", f"values of {unit:.3g}"))
    return _like(found, gradient)


def _integrated(slopes: Tensor, trust: Tensor) -> Tensor:
    """One image, float64 on the CPU; torch sees the sums, and the solution through `_Solution`."""
    slopes = slopes.to("cpu", torch.float64)
    middle = trust[trust > 0].median()
    trust = (trust / middle).clamp(FAINTEST, BRIGHTEST)
    rises, weights = [], []
    for axis in range(2):
        w = trust[..., axis]
        before, behind = w.narrow(axis, 0, w.shape[axis] - 1), w.narrow(axis, 1, w.shape[axis] - 1)
        weights.append(2 * before * behind / (before + behind))
        rises.append(_rises(slopes[..., axis], w > FAINTEST, axis))
    edges = tuple(weight.numpy() for weight in weights)
    right = sum(_minus_divergence(w * rise, axis) for axis, (w, rise) in enumerate(zip(weights, rises, strict=True)))
    return _Solution.apply(right, edges)


def _rises(slope: Tensor, sound: Tensor, axis: int) -> Tensor:
    """Differences between neighbours along an axis: slopes integrated with the cubic through four pixels, or two."""
    n = slope.shape[axis]
    rise = 0.5 * (slope.narrow(axis, 0, n - 1) + slope.narrow(axis, 1, n - 1))
    if n < 4:
        return rise
    a, b, c, d = (slope.narrow(axis, start, n - 3) for start in range(4))
    outer_sound = sound.narrow(axis, 0, n - 3) & sound.narrow(axis, 3, n - 3)
    inner = torch.where(outer_sound, (13 * (b + c) - a - d) / 24, 0.5 * (b + c))
    return torch.cat([rise.narrow(axis, 0, 1), inner, rise.narrow(axis, n - 2, 1)], axis)


def _minus_divergence(flow: Any, axis: int) -> Any:
    """Transpose of the difference between neighbours along an axis; numpy or torch."""
    if isinstance(flow, Tensor):
        edge = torch.zeros_like(flow.narrow(axis, 0, 1)) if flow.shape[axis] else flow.new_zeros(_one(flow, axis))
        return torch.cat([edge, flow], axis) - torch.cat([flow, edge], axis)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    return -np.diff(np.pad(flow, pad), axis=axis)


def _one(flow: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(1 if place == axis else n for place, n in enumerate(flow.shape))


class _Solution(torch.autograd.Function):
    """``(Dᵀ W D)⁺ b`` of zero mean; symmetric, so that it is its own derivative, backwards."""

    @staticmethod
    def forward(context: Any, right: Tensor, edges: tuple[NDArray[Any], NDArray[Any]]) -> Tensor:
        context.edges = edges
        return torch.from_numpy(_solved(right.detach().numpy(), edges))

    @staticmethod
    def backward(context: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(_solved(cotangent.detach().numpy(), context.edges)), None


def _solved(right: NDArray[Any], edges: tuple[NDArray[Any], NDArray[Any]]) -> NDArray[np.float64]:
    """Conjugate gradients on ``Dᵀ W D x = b``, with the cosine transform's solution for W = 1 as preconditioner."""
    from scipy.fft import dctn, idctn

    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in right.shape)
    spectrum = rows[:, None] + columns
    spectrum[0, 0] = np.inf  # no mean

    def precondition(r: NDArray[Any]) -> NDArray[Any]:
        return idctn(dctn(r, norm="ortho") / spectrum, norm="ortho")

    def apply(x: NDArray[Any]) -> NDArray[Any]:
        return sum(_minus_divergence(w * np.diff(x, axis=axis), axis) for axis, w in enumerate(edges))

    x, r = np.zeros_like(right), right - right.mean()
    z = precondition(r)
    p, rz = z, float((r * z).sum())
    least = TOLERANCE**2 * rz
    for _ in range(ITERATIONS):
        if rz <= least or rz == 0:
            break
        q = apply(p)
        step = rz / float((p * q).sum())
        x, r = x + step * p, r - step * q
        z = precondition(r)
        rz, before = float((r * z).sum()), rz
        p = z + rz / before * p
    return x - x.mean()


def _averaged(values: Tensor, known: Tensor, windows: tuple[float, ...]) -> Tensor:
    """Images averaged as u was, over what is known: what Gaussians leave, one after the other, is left out."""
    left = values = torch.where(known, values, 0).reshape(-1, *values.shape[-2:])
    mask = known.reshape(values.shape).to(values)
    for sigma in windows:
        left = left - window_sum(mask * left, sigma) / window_sum(mask, sigma).clamp(min=1e-6)
    return (values - left).reshape(known.shape)


def _derivative(values: Tensor, errors: Tensor, valid: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Derivative along an axis and its variance: central where both neighbours are valid, else to one side, else 0."""
    n = values.shape[axis]
    index = torch.arange(n, device=values.device)
    before, behind = (index - 1).clamp(min=0), (index + 1).clamp(max=n - 1)

    def at(array: Tensor, places: Tensor, good: Tensor | None = None) -> Tensor:
        there = array.index_select(axis, places)
        return there if good is None else torch.where(good, there, array)

    has_before, has_behind = at(valid, before), at(valid, behind)
    shape = [1] * values.ndim
    shape[axis] = n
    span = torch.where(has_behind, (behind - index).reshape(shape), 0) + torch.where(
        has_before, (index - before).reshape(shape), 0
    )
    finite = torch.where(torch.isfinite(errors), errors, 0)
    rise = at(values, behind, has_behind) - at(values, before, has_before)
    variance = at(finite, behind, has_behind) ** 2 + at(finite, before, has_before) ** 2
    known, divisor = (span > 0) & valid, span.clamp(min=1)
    return torch.where(known, rise / divisor, 0), torch.where(known, variance / divisor**2, 0)


def _air(air: Any, valid: Tensor) -> Tensor:
    """Which valid pixels ``(..., row, column)`` hold no sample."""
    if air is None:
        return valid
    if isinstance(air, str):
        if air not in ("columns", "rows"):
            raise ValueError(message("air", "'columns', 'rows', a boolean mask or None", repr(air)))
        # Counted from the first row or column that tells something: methods leave a border without result.
        along = valid.any(-2 if air == "columns" else -1)
        order = torch.cumsum(along, -1)
        count = order[..., -1:]
        width = torch.clamp((MARGIN * count).round(), min=1)
        margin = along & ((order <= width) | (order > count - width))
        return valid & (margin.unsqueeze(-2) if air == "columns" else margin.unsqueeze(-1))
    given = real_array(air, "air")
    if np.asarray(air).dtype != np.bool_:
        raise TypeError(message("air", "'columns', 'rows', a boolean mask or None", "numbers"))
    if given.shape not in (tuple(valid.shape), tuple(valid.shape[-2:])):
        check_shape(given.shape, "air", tuple(valid.shape))
    return valid & torch.from_numpy(given > 0)


def _polynomials(shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """Monomials of row and column up to a total degree, shape ``(row, column, monomial)``."""
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in shape), indexing="ij")
    powers = [(a, b) for a in range(order + 1) for b in range(order + 1 - a) if a < shape[0] and b < shape[1]]
    return np.stack([y**a * x**b for a, b in powers], axis=-1)


def _tensor(value: Any, argument: str = "maps") -> Tensor:
    if isinstance(value, Tensor):
        value = dense(value, argument)
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(message(argument, "real numbers", f"dtype {value.dtype}"))
        return value if value.dtype in (torch.float32, torch.float64) else value.double()
    array = real_array(value, argument, finite=False)
    return torch.from_numpy(array if getattr(value, "dtype", None) != np.float32 else array.astype(np.float32))


def _like(found: Tensor, given: Any) -> Any:
    """Of the kind of what was given, an array or maps."""
    kind = given.transmission if isinstance(given, Maps) else given
    return found if isinstance(kind, Tensor) else found.detach().numpy()
