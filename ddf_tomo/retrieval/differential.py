"""Linear retrieval: displacement and blur as first-order changes of the mask's image.

With a warp that conserves photons and a blur, a sample frame S and a reference frame R of mask step m obey, to first
order,

    S_m / T − R_m = −u·∇P_m + ½ Σ_ab C_ab ∂_a ∂_b P_m + κ ⟨R⟩,

linear in the six unknowns (T, u, C) of a pixel once T, the same in all steps, is divided out (Quénot et al. 2021,
Optica 8, 1412; Pavlov et al. 2020, J. Opt. 22, 125604). Five choices make the answer and its error bars right:

* the pattern ``P_m = (S_m/T + R_m)/2`` is the midpoint of both frames. The propagator
  ``exp(−u·∇ + ½ C:∇∇)`` is then met to second order, not first (trapezoid rule), and the
  noise of P is uncorrelated with that of S/T - R where T = 1, so noise makes no dark field in air;
* T belongs to a pixel, u and C to a window: T is eliminated pixel by pixel (a Schur complement over the mask steps)
  before the window sums, so edges and phase-contrast fringes do not leak into the dark field;
* light that arrives without any pattern (glare of the scintillator, scatter wider than the window) lowers the contrast
  equally at all spatial frequencies, a Gaussian blur does not: the share κ tells the two apart. In the measured four
  rods it is 1.7 % of the air between the rods, which without κ reads as a blur of 0.03 square pixels;
* what noise adds to the normal equations (errors in variables; Fuller 1987, Measurement Error Models) is estimated
  from the derivatives of the residual itself, so neither gain nor spectrum of the noise is asked for. Only the ratio
  of the variances of S/T and R enters, 1/T for counting noise;
* standard errors come from the scatter of the single steps' influence (a sandwich clustered by step; Liang & Zeger
  1986, Biometrika 73, 13): noise of different steps is independent, noise of neighbouring pixels need not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddf_tomo._checks import flag, message, number
from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, blur_operators, erode, gaussian_taps, smooth, window_sum
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import Method, View

MINIMUM_STEPS = 4  # the scatter of fewer says nothing about an error
OPAQUE = 1e-2  # below this transmission a frame holds no pattern to compare
UNINFORMATIVE = 1e-5  # share of a regressor's square that has to differ from step to step
PASSES = 4  # over the steps
LEAST_CONTRAST = 0.25  # of the reference, as a share of the contrast of the sample's frames
SOLVE_AT_ONCE = 1 << 18  # pixels: keeps the small matrices in some tens of megabytes


class Fit(NamedTuple):
    """Outcome for one view, channels in front; the unknowns are u_j, u_k, C_jj, C_jk, C_kk and, if asked for, κ."""

    transmission: Tensor
    unknowns: Tensor
    transmission_error: Tensor
    unknowns_error: Tensor
    residual: Tensor
    valid: Tensor


def _pairs(size: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(size) for b in range(a, size)]


def _products(images: Tensor) -> Tensor:
    """Upper triangle of the outer product at each pixel."""
    return torch.stack([images[a] * images[b] for a, b in _pairs(len(images))])


def _diagonal(upper: Tensor, size: int) -> Tensor:
    return upper[[n for n, (a, b) in enumerate(_pairs(size)) if a == b]]


@dataclass(frozen=True)
class _Sums:
    """Sums over the steps of products of pattern p, regressors g and difference y, per pixel."""

    pp: Tensor
    pg: Tensor
    gg: Tensor
    py: Tensor
    gy: Tensor

    def without_transmission(self) -> tuple[Tensor, Tensor]:
        """Normal equations of the windowed unknowns, the pixel's own transmission eliminated."""
        share = self.pg / self.pp
        taken = torch.stack([share[a] * self.pg[b] for a, b in _pairs(len(self.pg))])
        return self.gg - taken, self.gy - share * self.py

    def change(self, unknowns: Tensor) -> Tensor:
        """The pixel's T, relative to the one divided out, less 1."""
        return (self.py - (self.pg * unknowns).sum(0)) / self.pp


@dataclass(frozen=True)
class _Frames:
    """The smoothed frames of one view, taken step by step so that memory does not grow with the steps."""

    sample: Tensor  # (step, row, column)
    reference: Tensor
    mean: Tensor  # of the reference over the steps
    background: bool
    tick: Callable[[], object]

    def steps(self, transmission: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(pattern p, its regressors g, difference y) of each step."""
        for sample, reference in zip(self.sample, self.reference, strict=True):
            scaled = sample / transmission
            pattern = 0.5 * (scaled + reference)
            yield pattern, self.regressors(pattern, self.mean), scaled - reference
            self.tick()

    def regressors(self, pattern: Tensor, flat: Tensor) -> Tensor:
        blur = blur_operators(pattern[None])[:, 0]
        return torch.cat([blur, flat[None]]) if self.background else blur

    def sums(self, transmission: Tensor) -> _Sums:
        total: list[Tensor] = []
        for p, g, y in self.steps(transmission):
            terms = [p * p, p * g, _products(g), p * y, g * y]
            total = [a + b for a, b in zip(total, terms, strict=True)] if total else terms
        return _Sums(*total)

    def noise(self, transmission: Tensor, sums: _Sums, unknowns: Tensor, excess: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the steps of the residual's regressors times each other, and times the residual."""
        spread, cross = torch.zeros_like(sums.gg), torch.zeros_like(sums.gy)
        for _, _, residual in self.residuals(transmission, sums, unknowns):
            # The residual of a blurred pattern is noise blurred: undo it to first order.
            nothing = torch.zeros_like(residual)
            noise = residual + excess * (self.regressors(residual, nothing) * unknowns).sum(0)
            slopes = self.regressors(noise, nothing)
            spread, cross = spread + _products(slopes), cross + slopes * noise
        return spread, cross

    def residuals(self, transmission: Tensor, sums: _Sums, unknowns: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(pattern p, regressors g, residual) of each step."""
        change = sums.change(unknowns)
        for p, g, y in self.steps(transmission):
            yield p, g, y - change * p - (g * unknowns).sum(0)


def _invert(upper: Tensor, scale: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses (n, n, row, column) of symmetric matrices, and where they are wanted and positive definite.

    ``scale`` (n, row, column) brings the diagonal near 1; elsewhere the inverse is that of the scales alone.
    """
    size, shape = len(scale), upper.shape[1:]
    order = torch.zeros(size, size, dtype=torch.long, device=upper.device)
    for n, (a, b) in enumerate(_pairs(size)):
        order[a, b] = order[b, a] = n
    identity = torch.eye(size, dtype=upper.dtype, device=upper.device)
    inverses, definites = [], []
    for start in range(0, wanted.numel(), SOLVE_AT_ONCE):
        part = slice(start, start + SOLVE_AT_ONCE)
        root = scale.flatten(1)[:, part].T
        both = root[:, :, None] * root[:, None, :]
        matrix = upper.flatten(1)[:, part].T[:, order.flatten()].reshape(-1, size, size) * both
        definite = (torch.linalg.cholesky_ex(matrix.detach()).info == 0) & wanted.flatten()[part]
        safe = torch.where(definite[:, None, None], matrix, identity)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(safe).L)
        inverses.append((inverse * both).permute(1, 2, 0))
        definites.append(definite)
    return torch.cat(inverses, -1).reshape(size, size, *shape), torch.cat(definites).reshape(shape)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector).sum(1)


def fit_view(
    sample: Tensor,
    reference: Tensor,
    weights: Tensor,
    *,
    window: float,
    smoothing: float,
    background: bool,
    tick: Callable[[], object] = int,
) -> Fit:
    """Fit one view: frames ``(step, row, column)`` and ``weights`` ``(row, column)`` of one floating dtype.

    ``tick()`` is called `PASSES` times for every step.
    """
    count = len(sample)
    smoothed = smooth(reference, smoothing)
    frames = _Frames(smooth(sample, smoothing), smoothed, smoothed.mean(0), background, tick)

    ratio = (frames.sample * smoothed).sum(0) / smoothed.square().sum(0)
    bright = ratio > OPAQUE
    transmission = torch.where(bright, ratio, 1)
    inner = erode(erode(weights > 0, len(gaussian_taps(smoothing)) - 1) & bright, DERIVATIVE_REACH)
    # Inverse variance of S/T - R under counting noise, up to the gain.
    weight = torch.where(inner, weights * transmission / ((1 + transmission) * frames.mean), 0)

    def gather(maps: Tensor) -> Tensor:
        return window_sum(maps * weight, window)

    sums = frames.sums(transmission)
    normal, right = (gather(part) for part in sums.without_transmission())
    size = len(right)
    kept, available = _diagonal(normal, size), gather(_diagonal(sums.gg, size))
    informed = ((kept > UNINFORMATIVE * available) & (available > 0)).all(0)
    # A blur takes contrast: a pattern that the sample's frames have and the reference's lack is another mask's.
    contrasts = [gather((each - each.mean(0)).square().sum(0)) for each in (smoothed, frames.sample / transmission)]
    informed = informed & (contrasts[0] > LEAST_CONTRAST**2 * contrasts[1])
    scale = torch.where(informed, kept, 1).detach().rsqrt()
    inverse, valid = _invert(normal, scale, informed)
    unknowns = torch.where(valid, _apply(inverse, right), 0)

    # Second pass: T freed of the share of displacement and blur, normal equations of the share of noise.
    transmission = transmission * torch.where(bright & valid, 1 + sums.change(unknowns), 1).clamp(0.5, 2)
    sums = frames.sums(transmission)
    normal, right = (gather(part) for part in sums.without_transmission())
    # Share of the difference's noise that the pattern carries too: ½ (var S/T - var R) / (var S/T + var R).
    excess = 0.5 * (1 - transmission) / (1 + transmission)
    spread, cross = frames.noise(transmission, sums, unknowns, excess)
    spread, cross = 0.25 * gather(spread), gather(excess * cross)
    # Where more than half of some combination of derivatives is noise, taking it off leaves a guess.
    valid = _invert((normal - 2 * spread).detach(), scale, valid)[1]
    inverse, valid = _invert(normal - spread, scale, valid)
    unknowns = torch.where(valid, _apply(inverse, right - cross), 0)

    # Third pass: how far each single step pulls the result.
    share = sums.pg / sums.pp
    pull, pull2 = torch.zeros_like(unknowns), torch.zeros_like(unknowns)
    tug2, misfit = torch.zeros_like(transmission), torch.zeros_like(transmission)
    for p, g, residual in frames.residuals(transmission, sums, unknowns):
        apart = g - share * p
        # A step that carries much of a window's information pulls its own residual down (Bell & McCaffrey 2002).
        leverage = gather((_apply(inverse, apart) * apart).sum(0)) / size
        influence = _apply(inverse, gather(apart * residual)) / (1 - leverage.clamp(max=0.9))
        tug = p * residual / sums.pp - (share * influence).sum(0)
        if background:
            tug = tug + influence[-1]
        pull, pull2 = pull + influence, pull2 + influence.square()
        tug2, misfit = tug2 + tug.square(), misfit + residual.square()

    counted = gather(valid.to(weight.dtype))

    def error(squares: Tensor, where: Tensor, unit: Tensor) -> Tensor:
        # Variances change slowly over the image: their window mean scatters less than they do.
        variance = lost * gather(torch.where(valid, squares, 0)) / counted.clamp(min=1e-30)
        positive = where & (variance > 0)
        return torch.where(where, unit * torch.where(positive, variance, 1).sqrt() * positive, torch.inf)

    lost = count / (count - 1)  # the residual has lost one of its steps to T
    found = valid & bright & (counted > 0)
    total = 1 + sums.change(unknowns) + (unknowns[-1] if background else 0)
    return Fit(
        torch.where(bright, transmission * torch.where(valid, total, 1), ratio),
        unknowns,
        error(tug2, found, transmission),
        error((pull2 - pull.square() / count).clamp(min=0), found, torch.full_like(transmission, lost**0.5)),
        torch.where(misfit > 0, misfit / (count - 1), 1).sqrt() * (misfit > 0) / frames.mean,
        found,
    )


class _Differential:
    """The linear retrieval as a method of `ddf_tomo.retrieval.retrieve`."""

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {"window": 3.0, "smoothing": 1.0, "background": True}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        steps, rows, columns = shape[1:]
        if steps < MINIMUM_STEPS:
            hint = "Fewer leave no scatter to take errors from"
            raise ValueError(message("sample", f"at least {MINIMUM_STEPS} mask steps", steps, hint))
        smoothing = number(options["smoothing"], "smoothing", low=0, high=10)
        window = number(options["window"], "window", low=0.5, high=max(rows, columns))
        least = 2 * (len(gaussian_taps(smoothing)) - 1 + DERIVATIVE_REACH) + 1
        if min(rows, columns) < least:
            hint = f"Smoothing and derivatives reach over {least // 2} pixels to every side"
            raise ValueError(message("sample", f"at least {least} rows and columns", (rows, columns), hint))
        return {"window": window, "smoothing": smoothing, "background": flag(options["background"], "background")}

    def halo(self, options: dict[str, Any]) -> int:
        """Smoothing, derivatives twice, four windows."""
        smoothed, gathered = (len(gaussian_taps(options[name])) - 1 for name in ("smoothing", "window"))
        return 2 * smoothed + 3 * DERIVATIVE_REACH + 4 * gathered

    def passes(self, options: dict[str, Any]) -> int:
        return PASSES

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        fit = fit_view(view.sample[0], view.reference[0], view.weights[0].amin(0), tick=tick, **options)
        nothing = torch.zeros_like(fit.transmission)
        u, c = slice(0, 2), slice(2, 5)
        return Maps(
            transmission=fit.transmission,
            displacement=fit.unknowns[u].movedim(0, -1),
            covariance=fit.unknowns[c].movedim(0, -1),
            background=fit.unknowns[5] if options["background"] else nothing,
            transmission_error=fit.transmission_error,
            displacement_error=fit.unknowns_error[u].movedim(0, -1),
            covariance_error=fit.unknowns_error[c].movedim(0, -1),
            background_error=fit.unknowns_error[5] if options["background"] else nothing,
            residual=fit.residual,
            valid=fit.valid,
        )


METHOD: Method = _Differential()
