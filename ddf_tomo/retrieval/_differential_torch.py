"""The linear retrieval in plain torch: differentiable, on any device, and what the compiled form is compared with.

Axes are ``(distance, row, column)`` of a pixel's own quantities and ``(unknown, row, column)`` of what a window shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddf_tomo.retrieval._differential_maps import (
    LEAST_CONTRAST,
    LEAST_PIVOT,
    MOST_LEVERAGE,
    OPAQUE,
    UNINFORMATIVE,
    Fit,
    coarseness,
    powers,
    scattered,
    usable,
)
from ddf_tomo.retrieval._filters import blur_operators, smooth, window_sum
from ddf_tomo.retrieval.method import View

SOLVE_AT_ONCE = 1 << 18  # pixels: keeps the small matrices in some tens of megabytes


def pairs(size: int) -> list[tuple[int, int]]:
    """Upper triangle, row by row."""
    return [(a, b) for a in range(size) for b in range(a, size)]


def products(images: Tensor, others: Tensor | None = None) -> Tensor:
    """Upper triangle of the outer product at each pixel."""
    others = images if others is None else others
    return torch.stack([images[a] * others[b] for a, b in pairs(len(images))])


def _diagonal(upper: Tensor, size: int) -> Tensor:
    return upper[[n for n, (a, b) in enumerate(pairs(size)) if a == b]]


def _over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio, 0 where there is nothing to divide by."""
    some = denominator > 0
    return torch.where(some, numerator / torch.where(some, denominator, 1), 0)


class _Step(NamedTuple):
    """One frame and its weights, and what the model makes of it."""

    pattern: Tensor
    regressors: Tensor
    difference: Tensor
    weight: Tensor


class _Sums(NamedTuple):
    """Sums over the steps of one distance of products of pattern p, regressors g and difference y, per pixel."""

    pp: Tensor
    pg: Tensor
    gg: Tensor
    py: Tensor
    gy: Tensor

    @property
    def share(self) -> Tensor:
        """What of the pattern is in each regressor."""
        return _over(self.pg, self.pp)

    def without_transmission(self) -> tuple[Tensor, Tensor]:
        """Normal equations of the windowed unknowns, the pixel's own transmission eliminated."""
        return self.gg - products(self.share, self.pg), self.gy - self.share * self.py

    def change(self, unknowns: Tensor) -> Tensor:
        """The pixel's T, relative to the one divided out, less 1."""
        return _over(self.py - (self.pg * unknowns).sum(0), self.pp)


class _Frames:
    """The smoothed frames of one view, taken step by step so that memory does not grow with their derivatives."""

    def __init__(self, view: View, smoothing: float, background: bool) -> None:
        shape = view.sample.shape
        self.sample, self.reference = (
            smooth(each.flatten(0, 1), smoothing).reshape(shape) for each in (view.sample, view.reference)
        )
        weights = view.weights.expand(shape)
        total = weights.sum(1)
        lit = total > 0
        self.mean = torch.where(lit, _over((weights * self.reference).sum(1), total), 1)
        ratio = _over((weights * self.sample * self.reference).sum(1), (weights * self.reference.square()).sum(1))
        self.ratio = torch.where(lit, ratio, 1)
        self.bright = self.ratio > OPAQUE
        used, self.informative = usable(view.weights, self.bright, smoothing)
        self.weights = used.expand(shape)
        self.powers = view.reach[:, None] ** powers(background).to(view.reach)
        self.background = background

    def step(self, d: int, s: int, transmission: Tensor) -> _Step:
        scaled, reference = self.sample[d, s] / transmission[d], self.reference[d, s]
        pattern = 0.5 * (scaled + reference)
        return _Step(pattern, self.regressors(pattern, d), scaled - reference, self.weights[d, s])

    def regressors(self, pattern: Tensor, d: int, of_noise: bool = False) -> Tensor:
        blur = blur_operators(pattern[None])[:, 0]
        flat = torch.zeros_like(pattern) if of_noise else self.mean[d]
        return (torch.cat([blur, flat[None]]) if self.background else blur) * self.powers[d, :, None, None]

    def places(self) -> Iterator[tuple[int, int]]:
        """Distance and step of each frame."""
        distances, steps = self.sample.shape[:2]
        return ((d, s) for d in range(distances) for s in range(steps))

    def contrast(self, frames: Tensor) -> Tensor:
        """Weighted sum over the steps of the squares of what differs from their mean."""
        mean = _over((self.weights * frames).sum(1), self.weights.sum(1))
        return (self.weights * (frames - mean[:, None]).square()).sum(1)


def _added(total: list[Tensor], terms: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(total, terms, strict=True)] if total else terms


def _sums(frames: _Frames, transmission: Tensor, tick: Callable[[], object]) -> list[_Sums]:
    """Sums of each distance."""
    totals: list[list[Tensor]] = [[] for _ in frames.sample]
    for d, s in frames.places():
        p, g, y, weight = frames.step(d, s, transmission)
        pw, gw = p * weight, g * weight
        totals[d] = _added(totals[d], [p * pw, pw * g, products(g, gw), pw * y, gw * y])
        tick()
    return [_Sums(*each) for each in totals]


def _noise(frames: _Frames, transmission: Tensor, change: Tensor, unknowns: Tensor) -> list[list[Tensor]]:
    """Sums of each distance: of the noise's slopes times each other, and times the noise."""
    excess = _excess(transmission)
    totals: list[list[Tensor]] = [[] for _ in frames.sample]
    for d, s in frames.places():
        p, g, y, weight = frames.step(d, s, transmission)
        noise = y - (g * unknowns).sum(0) - change[d] * p
        # The residual of a blurred pattern is noise blurred: undo it to first order.
        noise = noise + excess[d] * (frames.regressors(noise, d, of_noise=True) * unknowns).sum(0)
        slopes = frames.regressors(noise, d, of_noise=True)
        totals[d] = _added(totals[d], [products(slopes, slopes * weight), slopes * weight * noise])
    return totals


def _excess(transmission: Tensor) -> Tensor:
    """Share of the difference's noise that the pattern carries too: ½ (var S/T - var R) / (var S/T + var R)."""
    return 0.5 * (1 - transmission) / (1 + transmission)


def _invert(upper: Tensor, scale: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses (n, n, row, column) of symmetric matrices, and where they are wanted and clearly positive definite.

    ``scale`` (n, row, column) brings the diagonal near 1; elsewhere the inverse is that of the scales alone.
    """
    size, shape = len(scale), upper.shape[1:]
    order = torch.zeros(size, size, dtype=torch.long, device=upper.device)
    for n, (a, b) in enumerate(pairs(size)):
        order[a, b] = order[b, a] = n
    identity = torch.eye(size, dtype=upper.dtype, device=upper.device)
    inverses, definites = [], []
    for start in range(0, wanted.numel(), SOLVE_AT_ONCE):
        part = slice(start, start + SOLVE_AT_ONCE)
        root = scale.flatten(1)[:, part].T
        both = root[:, :, None] * root[:, None, :]
        matrix = upper.flatten(1)[:, part].T[:, order.flatten()].reshape(-1, size, size) * both
        factor = torch.linalg.cholesky_ex(matrix.detach())
        definite = (factor.info == 0) & (factor.L.diagonal(dim1=1, dim2=2).amin(1) > LEAST_PIVOT**0.5)
        definite = definite & wanted.flatten()[part]
        safe = torch.where(definite[:, None, None], matrix, identity)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(safe).L)
        inverses.append((inverse * both).permute(1, 2, 0))
        definites.append(definite)
    return torch.cat(inverses, -1).reshape(size, size, *shape), torch.cat(definites).reshape(shape)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector).sum(1)


def fit(view: View, options: dict[str, Any], tick: Callable[[], object]) -> Fit:
    """Fit one view; ``tick()`` is called `ddf_tomo.retrieval._differential_maps.PASSES` times for every frame."""
    window, background = options["window"], options["background"]
    frames = _Frames(view, options["smoothing"], background)
    distances = range(len(frames.sample))
    transmission = torch.where(frames.bright, frames.ratio, 1)
    # Inverse variance of S/T - R under counting noise, up to the gain.
    precision = torch.where(frames.informative, transmission / ((1 + transmission) * frames.mean), 0)

    def gather(of_distances: list[Tensor]) -> Tensor:
        weighted = (precision[d] * each for d, each in enumerate(of_distances))
        total = sum(weighted, torch.zeros_like(of_distances[0]))
        return window_sum(total.reshape(-1, *total.shape[-2:]), window).reshape(total.shape)

    sums = _sums(frames, transmission, tick)
    normal, right = (gather(list(part)) for part in zip(*(each.without_transmission() for each in sums), strict=True))
    size = len(right)
    kept, available = _diagonal(normal, size), gather([_diagonal(each.gg, size) for each in sums])
    informed = ((kept > UNINFORMATIVE * available) & (available > 0)).all(0)
    # A blur takes contrast: a pattern that the sample's frames have and the reference's lack is another mask's.
    stacks = frames.reference, frames.sample / transmission[:, None]
    contrasts = [gather(list(frames.contrast(each)[:, None])) for each in stacks]
    informed = informed & (contrasts[0] > LEAST_CONTRAST**2 * contrasts[1])[0]
    scale = torch.where(informed, kept, 1).detach().rsqrt()
    inverse, valid = _invert(normal, scale, informed)
    unknowns = torch.where(valid, _apply(inverse, right), 0)

    # Second pass: T freed of the share of displacement and blur, normal equations of the share of noise.
    change = torch.stack([each.change(unknowns) for each in sums])
    transmission = transmission * torch.where(frames.bright & valid, 1 + change, 1).clamp(0.5, 2)
    sums = _sums(frames, transmission, tick)
    change = torch.stack([each.change(unknowns) for each in sums])
    spreads, crosses = zip(*_noise(frames, transmission, change, unknowns), strict=True)
    normal, right = (gather(list(part)) for part in zip(*(each.without_transmission() for each in sums), strict=True))
    excess = _excess(transmission)
    spread, cross = 0.25 * gather(list(spreads)), gather([excess[d] * crosses[d] for d in distances])
    # Where more than half of some combination of derivatives is noise, taking it off leaves a guess.
    valid = _invert((normal - 2 * spread).detach(), scale, valid)[1]
    inverse, valid = _invert(normal - spread, scale, valid)
    unknowns = torch.where(valid, _apply(inverse, right - cross), 0)
    change = torch.stack([each.change(unknowns) for each in sums])

    # Third pass: how far each single step pulls the result, on a coarser grid: it changes with the window.
    coarse = coarseness(window)
    grid = torch.zeros_like(valid)
    grid[::coarse, ::coarse] = True
    counted = (frames.weights > 0).sum(1).to(change.dtype)
    photons = counted * frames.mean
    photons = torch.where(photons.sum(0) > 0, _over(photons, photons.sum(0)), 1 / len(distances))
    share = torch.stack([photons[d] * sums[d].share for d in distances]).sum(0)
    number = torch.where(counted.sum(0) > 0, counted.sum(0), len(list(frames.places())))
    misfits = [torch.zeros_like(share[0]) for _ in distances]
    pull = torch.zeros_like(torch.cat([transmission[:1], unknowns]))
    pull2 = products(pull)
    for d, s in frames.places():
        p, g, y, weight = frames.step(d, s, transmission)
        residual = y - change[d] * p - (g * unknowns).sum(0)
        apart = g - sums[d].share * p
        # A step that carries much of a window's information pulls its own residual down (Bell & McCaffrey 2002).
        heaviness = weight * precision[d] * (_apply(inverse, apart) * apart).sum(0) / size * coarse**2
        leverage = window_sum(torch.where(grid, heaviness, 0)[None], window)[0]
        influence = _apply(inverse, window_sum(apart * residual * weight * precision[d], window))
        influence = influence / (1 - leverage.clamp(max=MOST_LEVERAGE))
        tug = photons[d] * _over(p * residual * weight, sums[d].pp) - (share * influence).sum(0)
        if background:
            tug = tug + influence[-1]
        both = torch.cat([tug[None], influence])
        pull, pull2 = pull + both, pull2 + products(both)
        misfits[d] = misfits[d] + residual.square() * (weight > 0)
        tick()
    # Variances change slowly over the image: their window mean scatters less than they do.
    usable = valid & grid
    wanted = [pairs(len(pull)).index(pair) for pair in scattered(background)]
    scatter = (pull2 - products(pull) / number)[wanted]
    smoothed = window_sum(torch.where(usable, scatter, 0), window)
    around = window_sum(usable.to(scatter.dtype)[None], window)
    scatter = _over(smoothed, around)
    total = 1 + change + (unknowns[-1] if background else 0)
    return Fit(
        torch.where(frames.bright, transmission * torch.where(valid, total, 1), frames.ratio),
        unknowns,
        scatter,
        torch.stack(misfits),
        counted,
        frames.mean,
        valid & frames.bright.any(0) & (around[0] > 0),
    )
