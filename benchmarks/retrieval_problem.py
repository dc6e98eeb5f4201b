"""The reference problem of retrieval: frames with known truth, made by rays and not by any retrieval's model.

512² pixels, 20 steps, random speckle of 4 to 5 pixels (full width of its autocorrelation) and visibility 0.3
(standard deviation over mean); smooth random fields of displacement (curl-free, to 1.5 pixels), blur (σ along the wide
axis 0.6 to 1.5 pixels, half of that across, so that all widths lie within 0.3 to 1.5; direction turning smoothly) and
transmission (0.7 to 1); Poisson noise in sample and reference.

The speckle is realised on a grid four times finer than the pixels. From each of its points goes a ray that carries
``T(y) I(y)``, moves by ``u(y)`` and spreads into a Gaussian of covariance ``C(y)``: all that belongs to where the ray
*starts*, as in nature, and flux is conserved by construction. Gaussians (σ ≥ 0.3 pixels) are cut at 5 σ and summed with
an error of 4e-6. Everything is periodic, so that there is no edge but the one a method makes.

The truth in a pixel is that of the light which *arrives* there: the weight of all rays (the transmission, with the
convergence ``1 − ∇·u`` in it), their mean displacement and its covariance, summed with the same weights in the same
loop. It is what ``I(x) = T (G_C * I_ref)(x − u)`` means, to third order in the gradients of the fields. It differs from
the fields at the ray's start by a shift, and, in u, by the gradient of the blur, ``−∂_a C_ab``: 0.02 pixels here.

`bound` is the Cramér–Rao bound of a windowed fit, `judge` compares maps with truth and bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SIZE, STEPS, COUNTS = 512, 20, 2000.0
FINE = 4  # points of the speckle a pixel, along each axis
GRAIN, VISIBILITY = 1.35, 0.3  # pixels; the autocorrelation is 3.33 grains wide
SHIFT, WIDTHS, ASPECT, TRANSMISSION = 1.5, (0.6, 1.5), 2.0, (0.7, 1.0)
WAVELENGTH = 170.0  # of the fields, pixels, at least
SPREAD = 5.0  # standard deviations to which a ray is followed
MARGIN = 24  # pixels from the edge that are not judged
REFERENCE_NOISE = 1.8  # variance with a reference as noisy as the sample, over that with a noise-free one
NAMES = ("u_j", "u_k", "C_jj", "C_jk", "C_kk")


@dataclass(frozen=True)
class Problem:
    """Frames and what is in them.

    Attributes
    ----------
    sample, reference
        Counts, ``(step, row, column)``; expected ones or a noisy draw.
    transmission
        Truth, ``(row, column)``.
    displacement, covariance
        Truth, pixels ``(row, column, 2)`` and square pixels ``(row, column, 3)``: (jj, jk, kk).
    counts
        Expected counts of the reference, mean over its pixels.
    """

    sample: Array
    reference: Array
    transmission: Array
    displacement: Array
    covariance: Array
    counts: float = 1.0

    def at(self, counts: float, steps: int | None = None, seed: int = 1) -> Problem:
        """The first ``steps`` of the expected frames with Poisson noise at these ``counts``."""
        generator = np.random.default_rng(seed)
        scale = counts / self.counts
        drawn = (generator.poisson(scale * each[:steps]).astype(float) for each in (self.sample, self.reference))
        sample, reference = drawn
        return replace(self, sample=sample, reference=reference, counts=counts)

    def crop(self, rows: slice, columns: slice) -> Problem:
        """A part of it; the bound wants the whole."""
        parts = {name: getattr(self, name)[..., rows, columns] for name in ("sample", "reference", "transmission")}
        parts |= {name: getattr(self, name)[rows, columns] for name in ("displacement", "covariance")}
        return replace(self, **parts)


@functools.lru_cache(2)
def reference_problem(size: int = SIZE, steps: int = STEPS, seed: int = 0) -> Problem:
    """The expected frames (counts 1) of the reference problem; use `Problem.at` for noise."""
    generator = np.random.default_rng(seed)
    fine = size * FINE
    return splatted(*fields(size, generator), lambda: speckle(generator, fine), steps)


@functools.lru_cache(2)
def half_pixel_problem(size: int = SIZE, steps: int = STEPS, seed: int = 0) -> Problem:
    """The expected frames of a shift by half a pixel along both axes: two fine points, exact; no blur, T = 1."""
    generator = np.random.default_rng(seed)
    fine = [speckle(generator, size * FINE).astype(float) for _ in range(steps)]
    sample = np.stack([np.roll(pattern, FINE // 2, (0, 1))[::FINE, ::FINE] for pattern in fine])
    reference = np.stack([pattern[::FINE, ::FINE] for pattern in fine])
    flat = np.ones((size, size))
    return Problem(sample, reference, flat, 0.5 * np.ones((size, size, 2)), np.zeros((size, size, 3)))


def speckle(generator: np.random.Generator, fine: int) -> NDArray[np.float32]:
    """A positive random pattern of mean 1, ``(fine, fine)``: log-normal, of the reference problem's grain."""
    f_j, f_k = frequencies(fine)
    smooth = np.exp(-2 * np.pi**2 * (GRAIN * FINE) ** 2 * (f_j**2 + f_k**2))[:, : fine // 2 + 1]
    field = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((fine, fine))) * smooth, (fine, fine))
    deviation = math.sqrt(math.log(1 + VISIBILITY**2))
    pattern = np.exp(field * (deviation / field.std()))
    return (pattern / pattern.mean()).astype(np.float32)


def frequencies(size: int) -> tuple[Array, Array]:
    """Cycles a sample along rows' index and columns, to broadcast."""
    f = np.fft.fftfreq(size)
    return f[:, None], f[None]


def fields(size: int, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Transmission, displacement and covariance at the rays' starts, on the fine grid; periodic and smooth."""
    fine = size * FINE
    highest = max(1, round(size / WAVELENGTH))
    place = 2 * np.pi * np.arange(fine) / fine
    modes = [
        (a, b) for a in range(-highest, highest + 1) for b in range(highest + 1) if 0 < a * a + b * b <= highest**2
    ]

    def random_field(derivative: int | None = None, seed: int = 0) -> Array:
        drawn = np.random.default_rng(seed)
        total = np.zeros((fine, fine))
        for a, b in modes:
            phase, strength = drawn.uniform(0, 2 * np.pi), drawn.standard_normal() / math.hypot(a, b)
            factor = {None: 1, 0: a, 1: b}[derivative]
            phase += 0 if derivative is None else np.pi / 2
            waves = np.exp(1j * (a * place + phase))[:, None] * np.exp(1j * b * place)[None]
            total += strength * factor * waves.real
        return total

    seeds = generator.integers(2**31, size=4)
    displacement = np.stack([random_field(axis, seeds[0]) for axis in (0, 1)], -1)
    displacement *= SHIFT / np.linalg.norm(displacement, axis=-1).max()
    width = between(random_field(seed=seeds[1]), *WIDTHS)
    angle = between(random_field(seed=seeds[2]), 0, 2 * np.pi)
    transmission = between(random_field(seed=seeds[3]), *TRANSMISSION)
    return transmission, displacement, tensor(width, width / ASPECT, angle)


def between(field: Array, low: float, high: float) -> Array:
    """The field, stretched to this range."""
    return low + (high - low) * (field - field.min()) / np.ptp(field)


def tensor(along: Any, across: Any, angle: Any) -> Array:
    """Covariance (jj, jk, kk) of widths ``along`` the angle (from j towards k) and ``across`` it."""
    mean, half = (along**2 + across**2) / 2, (along**2 - across**2) / 2
    parts = mean + half * np.cos(2 * angle), half * np.sin(2 * angle), mean - half * np.cos(2 * angle)
    return np.stack(np.broadcast_arrays(*parts), -1)


def splatted(
    transmission: Array, displacement: Array, covariance: Array, pattern: Callable[[], NDArray[np.float32]], steps: int
) -> Problem:
    """Expected frames and their truth from fields on the fine grid; ``pattern()`` gives one step after the other."""
    fine = len(transmission)
    rays = np.empty((fine, fine, steps), np.float32)
    for step in range(steps):
        rays[..., step] = pattern()
    size = fine // FINE
    frames, moments = np.zeros((size, size, steps)), np.zeros((size, size, 6))
    _compiled()(rays, transmission, displacement, covariance, FINE, SPREAD, frames, moments)
    total, u, second = moments[..., 0], moments[..., 1:3], moments[..., 3:]
    u = u / total[..., None]
    squares = np.stack([u[..., 0] ** 2, u[..., 0] * u[..., 1], u[..., 1] ** 2], -1)
    reference = rays[::FINE, ::FINE].astype(float)
    sample, reference = (np.ascontiguousarray(np.moveaxis(each, -1, 0)) for each in (frames, reference))
    return Problem(sample, reference, total, u, second / total[..., None] - squares)


@functools.cache
def _compiled() -> Any:
    from numba import njit

    return njit(fastmath=True, cache=True)(_splat)


def _splat(
    rays: Any,
    transmission: Any,
    displacement: Any,
    covariance: Any,
    fine: int,
    spread: float,
    frames: Any,
    moments: Any,
) -> None:
    """Add every ray's Gaussian to the pixels, and its moments; rays are 1/fine pixels apart, edges are periodic."""
    rows, columns, steps = frames.shape
    for i in range(rays.shape[0]):
        for j in range(rays.shape[1]):
            y0, y1 = i / fine, j / fine
            u0, u1 = displacement[i, j, 0], displacement[i, j, 1]
            c0, c1, c2 = covariance[i, j, 0], covariance[i, j, 1], covariance[i, j, 2]
            determinant = c0 * c2 - c1 * c1
            a, b, c = c2 / determinant, -c1 / determinant, c0 / determinant
            unit = transmission[i, j] / (fine * fine * 2 * math.pi * math.sqrt(determinant))
            r0, r1 = spread * math.sqrt(c0), spread * math.sqrt(c2)
            for p in range(math.ceil(y0 + u0 - r0), math.floor(y0 + u0 + r0) + 1):
                d0 = p - y0 - u0
                for q in range(math.ceil(y1 + u1 - r1), math.floor(y1 + u1 + r1) + 1):
                    d1 = q - y1 - u1
                    square = a * d0 * d0 + 2 * b * d0 * d1 + c * d1 * d1
                    if square > spread * spread:
                        continue
                    weight = unit * math.exp(-0.5 * square)
                    m, n = p % rows, q % columns
                    for step in range(steps):
                        frames[m, n, step] += weight * rays[i, j, step]
                    e0, e1 = p - y0, q - y1
                    moments[m, n, 0] += weight
                    moments[m, n, 1] += weight * e0
                    moments[m, n, 2] += weight * e1
                    moments[m, n, 3] += weight * e0 * e0
                    moments[m, n, 4] += weight * e0 * e1
                    moments[m, n, 5] += weight * e1 * e1


def gaussian(sigma: float) -> Array:
    """Taps of a Gaussian window of peak 1 that ends at ⌈3σ⌉, as retrieval's window is."""
    lag = np.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1)
    return np.exp(-0.5 * (lag / sigma) ** 2)


def bound(expected: Problem, counts: float, taps: Sequence[float] | Array, steps: int | None = None) -> Array:
    """Cramér–Rao bound: smallest standard deviations of (u_j, u_k, C_jj, C_jk, C_kk), ``(row, column, 5)``.

    For a fit of T, u and C in a window (the product of ``taps`` along both axes) to noise-free references. A window of
    weights w counts as ``(Σw)²/Σw²`` pixels of its mean information, which is what a least-squares fit with these
    weights attains. With a reference as noisy as the sample multiply by ``√REFERENCE_NOISE``.
    """
    sample = expected.sample[:steps] * (counts / expected.counts)
    pattern = np.fft.fft2(sample / expected.transmission)
    f_j, f_k = (2j * np.pi * f for f in frequencies(sample.shape[-1]))
    factors = [np.ones_like(f_j * f_k), -f_j, -f_k, 0.5 * f_j**2, f_j * f_k, 0.5 * f_k**2]
    # Scaled by T: the unknowns are (relative) T, u and C themselves.
    columns = np.stack([np.fft.ifft2(pattern * factor).real * expected.transmission for factor in factors])
    information = np.einsum("amrc,bmrc,mrc->rcab", columns, columns, 1 / sample, optimize=True)
    window = np.asarray(taps, float) / np.sum(taps)
    pixels = 1 / (window**2).sum() ** 2
    for axis in (0, 1):
        reach = len(window) // 2
        information = sum(tap * np.roll(information, lag - reach, axis=axis) for lag, tap in enumerate(window))
    variance = np.linalg.inv(pixels * information)
    return np.sqrt(np.diagonal(variance, axis1=-2, axis2=-1))[..., 1:]


def direction(covariance: Array) -> Array:
    """Angle of the strongest blur, from j towards k."""
    jj, jk, kk = np.moveaxis(np.asarray(covariance, float), -1, 0)
    return 0.5 * np.arctan2(2 * jk, jj - kk)


def judge(
    problem: Problem,
    displacement: Any = None,
    covariance: Any = None,
    errors: Any = None,
    limit: Array | None = None,
    margin: int = MARGIN,
) -> dict[str, float]:
    """Figures of merit over the pixels at least ``margin`` from the edge.

    Parameters
    ----------
    problem
        With the truth.
    displacement, covariance
        What was found, ``(row, column, 2)`` and ``(row, column, 3)``, or None; a pixel that is not finite is missing.
    errors
        Standard errors of both, ``(row, column, 5)``, if the method gives any.
    limit
        `bound` of the window that the method uses, of the same shape.
    margin
        Pixels.
    """
    inner = np.s_[margin:-margin, margin:-margin] if margin else np.s_[:, :]
    figures = {}
    for found, truth, first in ((displacement, problem.displacement, 0), (covariance, problem.covariance, 2)):
        if found is None:
            continue
        value, true = np.asarray(found, float)[inner], truth[inner]
        part = np.s_[..., first : first + true.shape[-1]]
        error = None if errors is None else np.asarray(errors, float)[inner][part]
        there = np.isfinite(value).all(-1) & (True if error is None else np.isfinite(error).all(-1))
        figures["missing"] = max(figures.get("missing", 0.0), float(1 - there.mean()))
        if not there.any():
            continue
        value, true = value[there], true[there]
        figures |= _displacement_figures(value - true) if first == 0 else _blur_figures(value, true)
        for n, name in enumerate(NAMES[first : first + true.shape[-1]]):
            off = value[:, n] - true[:, n]
            figures[f"{name}, RMSE"] = _rms(off)
            figures[f"{name}, bias"] = float(off.mean())
            if limit is not None:
                figures[f"{name}, RMSE over the bound"] = _rms(off) / _rms(limit[inner][part][there][:, n])
            if error is not None:
                pull = np.abs(off) / error[there][:, n]
                figures[f"{name}, within 1 σ"] = float((pull <= 1).mean())
                figures[f"{name}, within 1.96 σ"] = float((pull <= 1.96).mean())
                figures[f"{name}, median σ"] = float(np.median(error[there][:, n]))
    return figures


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _displacement_figures(off: Array) -> dict[str, float]:
    return {"u RMSE": _rms(off), "u, median error": float(np.median(np.linalg.norm(off, axis=-1)))}


def _blur_figures(found: Array, true: Array) -> dict[str, float]:
    off, trace = (found - true)[:, [0, 2]].sum(-1), true[:, [0, 2]].sum(-1)
    figures = {"trace C, RMSE": _rms(off)}
    if (trace > 0).all():
        turn = direction(found) - direction(true)
        angle = np.abs((turn + np.pi / 2) % np.pi - np.pi / 2)
        figures["direction, median"] = float(np.degrees(np.median(angle)))
        figures["trace C, relative RMSE"] = _rms(off / trace)
        figures["trace C, RMSE over its mean square"] = _rms(off) / _rms(trace)
    return figures
