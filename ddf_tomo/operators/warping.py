"""Images at displaced points: prefiltered interpolation with exact derivatives, and the flux factor of a warp.

An image is taken to be ``R(x) = Σ_n c(n) β(x − n)`` with coefficients c such that R agrees with the pixels at all n
(Unser 1999, IEEE Signal Process. Mag. 16(6), 22). Two basis functions β are offered, both the same along j and k:

* ``"gaussian"``: a Gaussian of 0.9 square pixels. A Gaussian blur of such an image is the same sum with a wider
  Gaussian, exactly, and so are its derivatives: `DirectionalBlur` and `ModulatedImaging` see images this way;
* ``"bandlimited"``: a Gaussian of 1.25 square pixels, whose coefficients need float64;
* ``"cubic"``: the cubic B-spline, which has four neighbours an axis instead of some ten.

The largest error for waves of 3, 4, 6 pixels, of value and of gradient, over all displacements (an alias of relative
size ``exp(−2π² v (1 − 2f))`` for variance v and f cycles a pixel, ``(f / (1 − f))⁴`` for the spline):

===========  ==========  ==========  ==========
waves of     3 pixels    4 pixels    6 pixels
===========  ==========  ==========  ==========
gaussian     5e-3, 8e-3  3e-4, 6e-4  1e-5, 4e-5
bandlimited  5e-4, 8e-4  9e-6, 2e-5  1e-7, 4e-7
cubic        1e-1, 2e-1  2e-2, 5e-2  4e-3, 1e-2
===========  ==========  ==========  ==========

Beyond its edges an image goes on as in a mirror that stands on the outermost pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import check_broadcast, check_shape, choice, flag, message
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.gaussian_sampling import REACH, mirrored, sample

__all__ = ["flux_factor", "shift", "warp"]
VARIANCE = {"gaussian": 0.9, "bandlimited": 1.25}  # of the basis functions, in square pixels
INTERPOLATIONS = (*VARIANCE, "cubic")
BLOCK = 64  # pixels of a line that are filtered by one matrix
# Central differences exact for polynomials of degree 8 (Fornberg 1988, Math. Comp. 51, 699), for the lags 1 ... 4.
DIFFERENCES = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
FARTHEST = 1e6  # pixels; a displacement beyond is a mistake of units


def warp(
    image: Any, displacement: Any, interpolation: str = "gaussian", *, flux: bool = False, plain: bool = False
) -> Any:
    """Images at ``x − u(x)``, differentiable in image and displacement.

    Parameters
    ----------
    image : (..., row, column)
        One image or several that are displaced alike; float32 or float64 (integers become float32).
    displacement : (row, column, 2)
        u_j, u_k in pixels.
    interpolation : {"gaussian", "bandlimited", "cubic"}
        The second is exact to 1e-3 for waves of 3 pixels and more, the first for 4 pixels and more; the third is for
        images that are smoother still. See `ddf_tomo.operators.warping`.
    flux
        Whether to multiply by `flux_factor`, so that a warp moves photons instead of making them.
    plain
        Whether to use torch operations on the CPU too, instead of compiled code.

    Returns
    -------
    tensor or array
        Of the shape and kind (numpy or torch) of ``image``.

    Raises
    ------
    ValueError, TypeError
        For arrays of other shapes, or that hold NaN.

    Examples
    --------
    >>> def wave(x):
    ...     return torch.cos(2 * torch.pi * x / 6).expand(25, 25)
    >>> moved = warp(wave(torch.arange(25)), torch.full((25, 25, 2), 0.5))
    >>> torch.allclose(moved, wave(torch.arange(25) - 0.5), atol=1e-4)
    True
    """
    given, field = pair_of(image, displacement)
    choice(interpolation, "interpolation", INTERPOLATIONS)
    flux, plain = flag(flux, "flux"), flag(plain, "plain")
    wide = given.double() if interpolation == "bandlimited" else given
    coefficients = prefilter(wide, interpolation).movedim((-2, -1), (0, 1))
    stack = coefficients.reshape(*coefficients.shape[:2], -1)
    if interpolation == "cubic":
        found = _cubic(stack, field)
    else:
        variance = VARIANCE[interpolation]
        matrix = field.new_tensor([variance, 0.0, variance]).expand(*field.shape[:2], 3)
        found = sample(stack, field, matrix, plain=plain).to(given.dtype)
    if flux:
        found = found * flux_factor(field)[..., None]
    result = found.reshape(coefficients.shape).movedim((0, 1), (-2, -1))
    return result if isinstance(image, Tensor) else result.detach().numpy()


def shift(images: Any, offsets: Any) -> Any:
    """Images at ``x − s``, each with an offset of its own; differentiable in both, as `warp` with Gaussians is.

    Parameters
    ----------
    images : (..., row, column)
        float32 or float64.
    offsets : (..., 2)
        s_j, s_k in pixels; the axes in front are those of ``images``, or stretch to them.

    Raises
    ------
    ValueError, TypeError
        For arrays of other shapes, or that hold NaN.

    Examples
    --------
    >>> image = torch.rand(1, 20, 20)
    >>> moved = shift(image, torch.tensor([[3.0, 0.0], [0.0, -2.0]]))
    >>> moved.shape, bool(torch.allclose(moved[0, 3:], image[0, :-3], atol=1e-4))
    (torch.Size([2, 20, 20]), True)
    """
    given, moves = floating(images, "images"), floating(offsets, "offsets")
    if given.ndim < 2 or 0 in given.shape:
        raise ValueError(message("images", "shape (..., row, column) without empty axes", tuple(given.shape)))
    check_shape(moves.shape[max(moves.ndim - 1, 0) :], "last axis of offsets", (2,))
    check_broadcast(given.shape[:-2], moves.shape[:-1], "offsets")
    if not moves.numel() or float(moves.detach().abs().max()) > FARTHEST:
        raise ValueError(message("offsets", f"at least one, at most {FARTHEST:g} pixels", tuple(moves.shape)))
    if given.device != moves.device:
        raise ValueError(message("offsets", f"a tensor on {given.device}, as images", str(moves.device)))
    result, variance = prefilter(given), VARIANCE["gaussian"]
    reach = math.ceil(REACH[given.dtype] * math.sqrt(variance))
    for axis, size in ((-2, given.shape[-2]), (-1, given.shape[-1])):
        offset = moves[..., axis].to(given)
        base = torch.floor(-offset.detach())
        shape = torch.broadcast_shapes(result.shape[:-2], offset.shape)
        result = result.expand(*shape, *result.shape[-2:]).movedim(axis, -1)
        place = torch.arange(size, device=given.device) + base[..., None].long()
        lags = torch.arange(-reach, reach + 2, device=given.device)
        weights = torch.softmax(-((-offset - base)[..., None] - lags).square() / (2 * variance), -1)
        total: Any = 0
        for n, lag in enumerate(lags.tolist()):
            index = mirrored(place + lag, size)[..., None, :].expand(result.shape)
            total = total + weights[..., n, None, None] * result.gather(-1, index)
        result = total.movedim(-1, axis)
    return result if isinstance(images, Tensor) else result.detach().numpy()


def flux_factor(displacement: Any) -> Any:
    """What a warp to ``x − u(x)`` does to the intensity: ``|det ∂(x − u)/∂x|``, to first order ``1 − ∇·u``.

    Derivatives are central differences that are exact for polynomials of degree 8; beyond the edges u goes on as its
    point reflection, so that a uniform strain is exact up to there.

    Parameters
    ----------
    displacement : (..., row, column, 2)
        u_j, u_k in pixels.

    Returns
    -------
    tensor or array
        Shape ``(..., row, column)``, of the kind of ``displacement``.

    Examples
    --------
    >>> stretched = 0.02 * torch.arange(10.0)[:, None].expand(10, 8)
    >>> flux_factor(torch.stack([stretched, torch.zeros(10, 8)], -1))[3, 3]
    tensor(0.9800)
    """
    u = floating(displacement, "displacement")
    check_shape(u.shape[-1:], "last axis of displacement", (2,))
    if u.ndim < 3 or 0 in u.shape[-3:]:
        raise ValueError(message("displacement", "shape (..., row, column, 2)", tuple(u.shape)))
    (jj, jk), (kj, kk) = ((_derivative(u[..., a], -2), _derivative(u[..., a], -1)) for a in range(2))
    result = ((1 - jj) * (1 - kk) - jk * kj).abs()
    return result if isinstance(displacement, Tensor) else result.detach().numpy()


def _derivative(field: Tensor, axis: int) -> Tensor:
    size = field.shape[axis]
    reach = min(len(DIFFERENCES), size - 1)
    if reach == 0:
        return torch.zeros_like(field)
    weights = DIFFERENCES if reach == 4 else {1: (1 / 2,), 2: (2 / 3, -1 / 12), 3: (3 / 4, -3 / 20, 1 / 60)}[reach]
    field = field.movedim(axis, -1)
    before = 2 * field[..., :1] - field[..., 1 : reach + 1].flip(-1)
    after = 2 * field[..., -1:] - field[..., -reach - 1 : -1].flip(-1)
    wide = torch.cat([before, field, after], -1)
    total: Any = 0
    for lag, weight in enumerate(weights, 1):
        total = total + weight * (wide[..., reach + lag :][..., :size] - wide[..., reach - lag :][..., :size])
    return total.movedim(-1, axis)


def prefilter(images: Tensor, interpolation: str = "gaussian", *, transposed: bool = False) -> Tensor:
    """Coefficients c of ``(..., row, column)`` images, or the transpose of this linear map.

    Examples
    --------
    >>> prefilter(torch.full((5, 6), 3.0))[2, 2].round(decimals=4)
    tensor(3.)
    """
    for axis in (-2, -1):
        lines, size = images.movedim(axis, -1), images.shape[axis]
        matrix = torch.from_numpy(_filter(interpolation, images.dtype)).to(images)
        first = torch.arange(0, size, BLOCK, device=images.device)
        within = torch.arange(len(matrix), device=images.device) - (len(matrix) - BLOCK) // 2
        windows = mirrored(first[:, None] + within, size)
        if transposed:
            blocks = torch.nn.functional.pad(lines, (0, -size % BLOCK)).reshape(-1, BLOCK)
            parts = (blocks @ matrix.T).reshape(*lines.shape[:-1], -1)
            lines = torch.zeros_like(lines).index_add(-1, windows.flatten(), parts)
        else:
            blocks = lines[..., windows].reshape(-1, len(matrix)) @ matrix
            lines = blocks.reshape(*lines.shape[:-1], -1)[..., :size]
        images = lines.movedim(-1, axis)
    return images


@lru_cache
def _filter(interpolation: str, dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """The inverse of the sampled basis function along a line, as a matrix from a window to the block inside it."""
    lags = np.arange(-12, 13)
    if interpolation == "cubic":
        values = np.where(lags == 0, 2 / 3, np.where(abs(lags) == 1, 1 / 6, 0.0))
    else:
        values = np.exp(-(lags**2) / (2 * VARIANCE[interpolation]))
    values = values / values.sum()
    waves = np.cos(2 * np.pi * np.arange(512)[:, None] * lags / 512)
    taps = np.fft.ifft(1 / (waves @ values)).real[:256]
    reach = int(np.flatnonzero(abs(taps) > max(torch.finfo(dtype).eps / 20, 1e-15) * taps[0]).max())
    lag = abs(np.arange(BLOCK + 2 * reach)[:, None] - reach - np.arange(BLOCK))
    return np.where(lag <= reach, taps[np.minimum(lag, 255)], 0.0)


def _cubic(coefficients: Tensor, displacement: Tensor) -> Tensor:
    rows, columns = displacement.shape[:2]
    grid = torch.meshgrid(*(torch.arange(n, device=displacement.device) for n in (rows, columns)), indexing="ij")
    below = torch.floor(-displacement.detach())
    far = -displacement - below
    weights = torch.stack([(1 - far) ** 3, 4 - 6 * far**2 + 3 * far**3, 1 + 3 * (far + far**2 - far**3), far**3]) / 6
    flat = coefficients.reshape(rows * columns, -1)
    places = [
        [mirrored(grid[a] + below[..., a].long() + lag, n) for lag in range(-1, 3)]
        for a, n in ((0, rows), (1, columns))
    ]
    total: Any = 0
    for weight_j, place_j in zip(weights[..., 0], places[0], strict=True):
        for weight_k, place_k in zip(weights[..., 1], places[1], strict=True):
            total = total + (weight_j * weight_k)[..., None] * flat[place_j * columns + place_k]
    return total


def floating(value: Any, argument: str) -> Tensor:
    """A finite tensor of float32 or float64; integers and other floats become float32.

    Examples
    --------
    >>> floating([[1, 2]], "image")
    tensor([[1., 2.]])
    """
    tensor = as_tensor(value, argument)
    if tensor.is_complex():
        raise TypeError(message(argument, "real numbers", "complex numbers"))
    tensor = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)
    if not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise ValueError(message(argument, "finite values", f"{count} NaN or infinite"))
    return tensor


def pair_of(image: Any, displacement: Any) -> tuple[Tensor, Tensor]:
    """Images and the displacement of their pixels, checked, of one dtype and device.

    Examples
    --------
    >>> [each.dtype for each in pair_of(torch.ones(3, 4, dtype=torch.float64), torch.zeros(3, 4, 2))]
    [torch.float64, torch.float64]
    """
    given, field = floating(image, "image"), floating(displacement, "displacement")
    if given.ndim < 2 or 0 in given.shape:
        raise ValueError(message("image", "shape (..., row, column) without empty axes", tuple(given.shape)))
    check_shape(field.shape, "displacement", (*given.shape[-2:], 2))
    if given.device != field.device:
        raise ValueError(message("displacement", f"a tensor on {given.device}, as image", str(field.device)))
    if float(field.detach().abs().max()) > FARTHEST:
        raise ValueError(message("displacement", f"at most {FARTHEST:g} pixels", float(field.detach().abs().max())))
    return given, field.to(given.dtype)
