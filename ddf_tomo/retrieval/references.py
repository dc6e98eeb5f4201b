"""References that belong to each view: flats that drift, masks that do not come back to the same place.

A scan takes hours, and its reference frames are of the beginning and the end. The beam drifts in between, and the
stage that steps the mask comes back to within a fraction of a pixel. Three remedies, all of which give reference frames
for `retrieve`:

* `principal_flats`: what differs among many flats is spanned by few images, whose intensities in each view follow from
  the pixels where there is air (dynamic flat-field correction; Van Nieuwenhove et al. 2015, Opt. Express 23, 27975);
* `estimate_shifts` and `shifted`: how far the mask is off at each step, by least squares on the gradient (Lucas and
  Kanade 1981, Proc. IJCAI, 674), with its standard error, and the frames moved by as much;
* `interpolated`: between sets of references, at the time of each view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import NOT_NUMBERS, check_shape, integer, message, number, real_array
from ddf_tomo.retrieval._filters import FIRST, along, gaussian_taps, smooth

__all__ = ["PrincipalFlats", "Shifts", "estimate_shifts", "interpolated", "principal_flats", "shifted"]
ROUNDS = 12  # of Gauss and Newton; each takes off all but a few per cent of the shift left
SETTLED = 1e-4  # pixels
LARGEST_SHIFT = 16.0  # pixels; of a stage that is further off, its steps have been mixed up


@dataclass(frozen=True, eq=False)
class PrincipalFlats:
    """Mean and principal components of flats; made by `principal_flats`.

    Attributes
    ----------
    mean : (..., row, column)
        Mean flat.
    components : (component, ..., row, column)
        Orthogonal images, the strongest first, of a root mean square over the flats of their own size: an intensity of
        1 is a usual one.
    explained
        Shape (component,): share of the variance among the flats, noise included.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    explained: NDArray[np.float64]

    def fit(self, frame: ArrayLike, air: ArrayLike) -> NDArray[np.float64]:
        """The flat that a frame was taken with, from its pixels in air: scale and intensities by least squares.

        Parameters
        ----------
        frame : (..., row, column)
            Counts with the sample, less the dark, of the shape of the mean.
        air : (row, column) or the shape of ``frame``, bool
            Where nothing but air is in the beam.

        Returns
        -------
        flat : (..., row, column)

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit or there are fewer pixels of air than unknowns.

        Examples
        --------
        >>> flats = 100 + np.arange(5)[:, None, None] * np.linspace(-1, 1, 8) + np.zeros((5, 6, 8))
        >>> frame = 100 + 2.5 * np.linspace(-1, 1, 8) + np.zeros((6, 8))
        >>> frame[:, 2:6] *= 0.5
        >>> air = np.zeros((6, 8), bool)
        >>> air[:, :2] = air[:, 6:] = True
        >>> flat = principal_flats(flats, 1).fit(frame, air)
        >>> bool(np.allclose(flat, 100 + 2.5 * np.linspace(-1, 1, 8)))
        True
        """
        given = real_array(frame, "frame", self.mean.shape, finite=False)
        try:
            mask = np.asarray(air)
        except NOT_NUMBERS as error:
            raise TypeError(message("air", "a boolean mask", type(air).__name__)) from error
        if mask.dtype != np.bool_:
            raise TypeError(message("air", "a boolean mask", f"an array of {mask.dtype}"))
        if mask.shape != self.mean.shape:
            check_shape(mask.shape, "air", self.mean.shape[-2:])
            mask = np.broadcast_to(mask, self.mean.shape)
        mask = mask & np.isfinite(given)
        images = np.stack([self.mean, *self.components])
        if int(mask.sum()) < len(images):
            raise ValueError(message("air", f"at least {len(images)} pixels of air", int(mask.sum())))
        basis = images[:, mask].T
        found = np.linalg.lstsq(basis, given[mask], rcond=1e-10)[0]
        flat: NDArray[np.float64] = np.tensordot(found, images, 1)
        return flat


def principal_flats(flats: ArrayLike, components: int = 2) -> PrincipalFlats:
    """Mean and strongest principal components of flats, or of reference sets, that drift.

    Parameters
    ----------
    flats : (flat, row, column) or (flat, step, row, column)
        Counts less the dark, of at least one more flat than components; better ten of each.
    components : int
        How many. Noise is shared out among all of them: take those whose ``explained`` stands out.

    Raises
    ------
    ValueError, TypeError
        If there are too few flats, or they are all the same.

    Examples
    --------
    >>> drift = np.sin(np.arange(12.0))[:, None, None]
    >>> flats = 1000 + 50 * drift * np.linspace(-1, 1, 16) + np.zeros((12, 10, 16))
    >>> found = principal_flats(flats, 1)
    >>> found.components.shape, round(float(found.explained[0]), 3)
    ((1, 10, 16), 1.0)
    """
    stack = real_array(flats, "flats")
    if stack.ndim not in (3, 4) or 0 in stack.shape:
        expected = "shape (flat, row, column) or (flat, step, row, column), nothing empty"
        raise ValueError(message("flats", expected, stack.shape))
    wanted = integer(components, "components", low=1)
    if wanted >= len(stack):
        raise ValueError(message("flats", f"more than {wanted} flats, for as many components", len(stack)))
    unit = float(np.abs(stack).max())
    if not unit > 0:
        raise ValueError(message("flats", "counts", "zero everywhere"))
    stack /= unit
    mean = stack.mean(0)
    apart = (stack - mean).reshape(len(stack), -1)
    # Of the small matrix of the flats' scalar products: images by images would not fit into memory.
    powers, shares = np.linalg.eigh(apart @ apart.T)
    powers, shares = powers[::-1].clip(min=0), shares[:, ::-1]
    if not powers[0] > len(stack) * np.finfo(float).eps ** 2 * float((mean**2).sum()):
        raise ValueError(message("flats", "flats that differ", "the same ones"))
    images = shares[:, :wanted].T @ apart / math.sqrt(len(stack))
    total = float(powers.sum())
    return PrincipalFlats(mean * unit, images.reshape(wanted, *mean.shape) * unit, powers[:wanted] / total)


@dataclass(frozen=True, eq=False)
class Shifts:
    """Where frames are, seen from others; made by `estimate_shifts`.

    Attributes
    ----------
    shift : (..., 2)
        Along j (down the rows) and k (along the columns) in pixels: ``moving(x) = fixed(x - shift)``.
    error : (..., 2)
        Standard errors, from the residual.
    """

    shift: NDArray[np.float64]
    error: NDArray[np.float64]


def estimate_shifts(
    moving: ArrayLike, fixed: ArrayLike, *, mask: ArrayLike | None = None, smoothing: float = 1.0
) -> Shifts:
    """Shift of each frame against its counterpart, to about a hundredth of a pixel, and its standard error.

    Brightness and offset of each frame are free. Shifts above a pixel begin with the peak of the correlation.

    Parameters
    ----------
    moving, fixed : (..., row, column)
        Frames of the same shape, for example two sets of references, or a view and its reference with a mask of air.
    mask : (row, column), bool, optional
        Pixels to compare.
    smoothing : float
        Standard deviation in pixels of the Gaussian that smooths both before derivatives are taken.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, frames are too small or without structure.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> fixed = smooth(torch.rand(3, 64, 64, generator=generator, dtype=torch.float64), 2.0)
    >>> found = estimate_shifts(shifted(fixed, [0.3, -0.2]), fixed)
    >>> found.shift.round(2).tolist()[0]
    [0.3, -0.2]
    """
    one = real_array(moving, "moving")
    if one.ndim < 2:
        raise ValueError(message("moving", "shape (..., row, column)", one.shape))
    other = real_array(fixed, "fixed", one.shape)
    sigma = number(smoothing, "smoothing", low=0, high=10)
    margin = math.ceil(LARGEST_SHIFT / 4) + len(gaussian_taps(sigma)) + 3
    rows, columns = one.shape[-2:]
    if min(rows, columns) < 2 * margin + 4:
        raise ValueError(message("moving", f"at least {2 * margin + 4} rows and columns", (rows, columns)))
    used = np.ones((rows, columns), bool)
    if mask is not None:
        used = real_array(mask, "mask", (rows, columns)) > 0
    used[:margin] = used[rows - margin :] = used[:, :margin] = used[:, columns - margin :] = False
    if used.sum() < 16:
        raise ValueError(message("mask", "at least 16 pixels away from the border", int(used.sum())))
    flat = (math.prod(one.shape[:-2]), rows, columns)
    found = [_shift(a, b, used, sigma) for a, b in zip(one.reshape(flat), other.reshape(flat), strict=True)]
    shift, error = (np.array(each).reshape(*one.shape[:-2], 2) for each in zip(*found, strict=True))
    return Shifts(shift, error)


def _shift(
    moving: NDArray[np.float64], fixed: NDArray[np.float64], used: NDArray[np.bool_], sigma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss and Newton on ``moving(x) = a + b fixed(x − s)``, from the peak of the correlation on."""
    moving, fixed = (each / (float(np.abs(each[used]).max()) or 1.0) for each in (moving, fixed))  # brightness is free
    still = smooth(torch.from_numpy(fixed)[None], sigma)
    if float(still[0][torch.from_numpy(used)].std()) < 1e-9:
        raise ValueError(message("fixed", "frames with a structure", "a flat one"))
    shift = _coarse(moving * used, fixed * used)
    normal, residual, basis = np.eye(4), np.zeros(1), np.zeros((1, 4))
    target = smooth(torch.from_numpy(moving)[None], sigma)[0].numpy()[used]
    for _ in range(ROUNDS):
        there = _moved(still, shift)
        slopes = [along(there, FIRST, axis, odd=True)[0].numpy()[used] for axis in (-2, -1)]
        here = there[0].numpy()[used]
        apart = here - here.mean()
        power = float(apart @ apart)
        gain = float(apart @ target) / power if power > 0 else 0.0
        offset = float(target.mean()) - gain * float(here.mean())
        basis = np.stack([-gain * slopes[0], -gain * slopes[1], here, np.ones_like(here)], 1)
        residual = target - offset - gain * here
        normal = basis.T @ basis
        if gain <= 0 or not np.isfinite(normal).all() or np.linalg.cond(normal) > 1e13:
            raise ValueError(message("moving", "the structure of its counterpart", "another one, or none"))
        step = np.linalg.solve(normal, basis.T @ residual)[:2]
        shift = (shift + step).clip(-LARGEST_SHIFT, LARGEST_SHIFT)
        if np.abs(step).max() < SETTLED:
            break
    # White noise that was smoothed meets the slopes as white noise meets slopes smoothed once more.
    images = torch.zeros(4, *used.shape, dtype=torch.float64)
    images[:, torch.from_numpy(used)] = torch.from_numpy(basis.T)
    spread = smooth(images, sigma).flatten(1).numpy()
    taps = gaussian_taps(sigma)
    white = (
        float((residual**2).sum()) / max(len(residual) - 4, 1) / (2 * sum(tap**2 for tap in taps) - taps[0] ** 2) ** 2
    )
    inverse = np.linalg.inv(normal)
    return shift, np.sqrt(white * np.diag(inverse @ spread @ spread.T @ inverse)[:2])


def _coarse(moving: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole pixels: where the correlation of both has its peak."""
    rows, columns = fixed.shape
    spectra = [np.fft.rfft2(each - each.mean(), (2 * rows, 2 * columns)) for each in (moving, fixed)]
    correlation = np.fft.irfft2(spectra[0] * spectra[1].conj(), (2 * rows, 2 * columns))
    reach = int(min(LARGEST_SHIFT, rows // 4, columns // 4))
    lags = np.arange(-reach, reach + 1)
    j, k = np.unravel_index(correlation[np.ix_(lags, lags)].argmax(), (len(lags), len(lags)))
    return np.array([lags[j], lags[k]], float)


def _moved(frames: torch.Tensor, shift: NDArray[np.float64]) -> torch.Tensor:
    """``frames(x − shift)`` by Fourier interpolation, of frames mirrored at their borders so that none appears."""
    rows, columns = frames.shape[-2:]
    mirrored = torch.cat([frames, frames.flip(-2)], -2)
    mirrored = torch.cat([mirrored, mirrored.flip(-1)], -1)
    whole = np.round(shift)
    part = shift - whole
    mirrored = mirrored.roll((int(whole[0]), int(whole[1])), (-2, -1))
    spectrum = torch.fft.rfft2(mirrored)
    f_j = torch.fft.fftfreq(2 * rows, dtype=frames.dtype)[:, None]
    f_k = torch.fft.rfftfreq(2 * columns, dtype=frames.dtype)
    turned = spectrum * torch.exp(-2j * math.pi * (f_j * part[0] + f_k * part[1]))
    return torch.fft.irfft2(turned, s=(2 * rows, 2 * columns))[..., :rows, :columns]


def shifted(frames: ArrayLike, shift: ArrayLike) -> NDArray[np.float64]:
    """Frames moved: ``frames(x − shift)``, band-limited, mirrored at the borders.

    Parameters
    ----------
    frames : (..., row, column)
        Reference frames.
    shift : (2,) or (..., 2)
        Along j and k in pixels, of all frames or of each.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit, or a shift exceeds a quarter of the frame.

    Examples
    --------
    >>> (shifted(np.eye(8), [1.0, 0.0])[1].round(6) + 0).tolist()
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    images = real_array(frames, "frames")
    if images.ndim < 2 or 0 in images.shape:
        raise ValueError(message("frames", "shape (..., row, column) without empty axes", images.shape))
    moves = real_array(shift, "shift")
    check_shape(moves.shape, "shift", (2,) if moves.ndim < 2 else (*images.shape[:-2], 2))
    limit = max(1.0, min(images.shape[-2:]) / 4)
    if np.abs(moves).max() > limit:
        raise ValueError(message("shift", f"at most {limit:g} pixels", f"{np.abs(moves).max():g}"))
    flat = torch.from_numpy(images.reshape(-1, *images.shape[-2:]))
    each = np.broadcast_to(moves, (*images.shape[:-2], 2)).reshape(-1, 2)
    result: NDArray[np.float64] = np.concatenate(
        [_moved(image[None], move).numpy() for image, move in zip(flat, each, strict=True)]
    ).reshape(images.shape)
    return result


def interpolated(references: ArrayLike, times: ArrayLike, at: ArrayLike) -> NDArray[np.float64]:
    """Reference frames at the times of the views, linear between the sets measured before and after, constant beyond.

    Parameters
    ----------
    references : (set, ..., row, column)
        Reference frames of several sets.
    times
        Shape (set,): when they were taken, in any unit and order, all different.
    at
        Shape (view,): when the views were taken.

    Returns
    -------
    references : (view, ..., row, column)

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit or times repeat.

    Examples
    --------
    >>> interpolated([[[100.0]], [[110.0]]], times=[0.0, 10.0], at=[2.0, 20.0]).ravel().tolist()
    [102.0, 110.0]
    """
    sets: Any = real_array(references, "references")
    if sets.ndim < 3 or 0 in sets.shape:
        raise ValueError(message("references", "shape (set, ..., row, column) without empty axes", sets.shape))
    when = real_array(times, "times", (len(sets),))
    if len(np.unique(when)) < len(when):
        raise ValueError(message("times", "times that are all different", when.tolist()))
    wanted = real_array(at, "at", (None,))
    order = np.argsort(when)
    when, sets = when[order], sets[order]
    after = np.searchsorted(when, wanted).clip(1, max(len(when) - 1, 1))
    if len(when) == 1:
        return np.repeat(sets, len(wanted), 0)
    share = ((wanted - when[after - 1]) / (when[after] - when[after - 1])).clip(0, 1)
    share = share.reshape(-1, *(1,) * (sets.ndim - 1))
    result: NDArray[np.float64] = (1 - share) * sets[after - 1] + share * sets[after]
    return result
