"""Plug and play in a few rounds, at the noise levels that a rehearsal on known volumes has met.

How wrong a reconstruction is, order by order, before and after a denoiser, depends on views, response and noise, and
nobody knows it of their own sample. Of a drawn one they do: the same operator sees it with the same noise, the same
rounds reconstruct it, and what they are wrong by there is what the denoiser is told, and how far it is trusted, where
it counts. That takes the place of a schedule (of half-quadratic splitting: Zhang et al. 2022, IEEE Trans. Pattern
Anal. Mach. Intell. 44, 6360), tells how to mix what the rounds have found (stacked regressions: Breiman 1996, Mach.
Learn. 24, 49), and foretells the error of the result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, flag, integer, message, number
from ddf_tomo._progress import progress_bar
from ddf_tomo.operators.base import LinearOperator, as_tensor
from ddf_tomo.operators.spherical_harmonics import order_of, power
from ddf_tomo.priors.positivity import nowhere_negative
from ddf_tomo.solvers._bands import Bands
from ddf_tomo.solvers.checkpoint import Checkpoint, State
from ddf_tomo.solvers.iteration import Callback, Solution, Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit
from ddf_tomo.solvers.plug_and_play import denoised, near_data, noise_variance

START_ITERATIONS = 10
INNER_ITERATIONS = 12
COMPARISONS = 2
LITTLE = 0.03  # of what a reconstruction shows of a band: less of it than that is not called signal
MOST = 10.0  # by which a band of an order is made stronger or weaker
EVENED = 0.02  # of the mean square error of the rounds: what shares are regularised with
FAINTEST = 1e-6  # error of an order relative to the volume: nothing is trusted further

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(volume, level of each order)`` to the volume without it: a `ddf_tomo.priors.learned.Denoiser`."""


@dataclass(frozen=True)
class RehearsedSolution(Solution):
    """A `Solution` with the errors that a rehearsal foretells; made by `rehearsed`.

    Attributes
    ----------
    x, residuals, stopped_by
        As of any `Solution`; ``x`` is of the operator's domain shape.
    levels
        Root mean square error of a coefficient of each order, ``(place, order)``: of an empty volume, of the start, of
        each round, and of their mixture ``x``.
    strength
        ``ρ`` of each order in the last round, in the mean over frequencies of ``1 / ρ``.
    """

    levels: tuple[tuple[float, ...], ...] = ()
    strength: tuple[float, ...] = ()


@torch.no_grad()
def rehearsed(
    A: LinearOperator,
    y: Any,
    denoiser: Denoise,
    volumes: Sequence[Any],
    *,
    weights: Any = None,
    variance: float | None = None,
    rounds: int = 4,
    strength: float = 1.0,
    positive: bool = False,
    inner_iterations: int = INNER_ITERATIONS,
    seed: int = 0,
    callback: Callback | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> RehearsedSolution:
    """Denoise and ask the data in turn, at levels from a rehearsal.

    It starts from ``x = argmin ½ |W^(1/2) (A x - y)|² + Σ_ℓ ρ_ℓ/2 |x_ℓ|²``. Each round denoises, ``z = D(x, σ)``, and
    asks the data, ``x = argmin ½ |W^(1/2) (A x - y)|² + ½ |ρ^(1/2) (x - z)|²`` with ``ρ = strength · variance / τ²``,
    by conjugate gradients on the exact operator. ``σ_ℓ`` is the error that ``x`` had in this round in the rehearsal,
    of each order, and ``τ²`` the power spectrum of that of ``z``, of each order and band of spatial frequencies: what
    a denoiser gets wrong is mostly smooth, and there the data know better. Both in the geometric mean over the
    ``volumes``, each of them seen by ``A`` with as much noise as the data, and made as bright and, in each order and
    band, as strong as linear reconstructions show the sample to be.

    The result mixes ``x`` and ``z`` of all rounds. The shares of each order and band sum to one, and are those that
    came nearest to the known volumes: errors of one round are not those of another, and not every order is best in the
    last one.

    Parameters
    ----------
    A, y, weights
        As in `ddf_tomo.solvers.cgls`; in memory, on volumes of harmonic coefficients ``(x, y, z, K)``.
    denoiser
        ``denoiser(volume, levels)``, with a level for each order, gives a volume of the same shape.
    volumes
        Coefficients to rehearse on, of the operator's domain shape, in units of their own; none of them empty.
        `ddf_tomo.training.random_sample` draws some. They know nothing of the grid's coarseness: data of a sample with
        finer detail are worse than foretold.
    variance
        Of a datum of weight 1: 1 where weights are inverse variances. By default it is measured, from differences
        between neighbouring pixels.
    rounds
        How many.
    strength
        Of the denoiser against the data: 1 where the volumes are like the sample.
    positive
        Whether the function on the sphere is raised to be nowhere negative after each denoising, and at the end.
    inner_iterations
        Of conjugate gradients in each round; ten at the start.
    seed
        Of the noise of the rehearsal.
    callback, progress, checkpoint
        As in `ddf_tomo.solvers.cgls`.

    Returns
    -------
    RehearsedSolution

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the denoiser gives something else than a finite volume.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> part = lambda x: x[..., :3, :], lambda y: torch.nn.functional.pad(y, (0, 0, 0, 1))
    >>> A = wrap(part, (5, 5, 4, 6), (5, 5, 3, 6))
    >>> def towards_the_mean(x, levels):
    ...     return x + levels[0] / (0.1 + levels[0]) * (x.mean((0, 1, 2)) - x)
    >>> solution = rehearsed(A, torch.ones(5, 5, 3, 6), towards_the_mean, [torch.ones(5, 5, 4, 6)], variance=0.01)
    >>> bool((solution.x - 1).abs().max() < 0.15), len(solution.levels)
    (True, 7)
    """
    misfit = Misfit(A, y, weights)
    if not callable(denoiser) or isinstance(denoiser, type):
        raise TypeError(message("denoiser", "a function of a volume and its noise levels", repr(denoiser)))
    given = None if variance is None else number(variance, "variance", low=0.0, low_open=True)
    x, _, residual = misfit.begin(None)
    play = _Play(
        denoiser,
        order_of(x.shape[-1], "A (coefficients)"),
        integer(rounds, "rounds", low=1, high=1000),
        number(strength, "strength", low=0.0, low_open=True),
        flag(positive, "positive"),
        integer(inner_iterations, "inner_iterations", low=1, high=1000),
    )
    known, seed = _checked_volumes(volumes, x), integer(seed, "seed", high=2**62)

    def begin(state: State) -> None:
        variance = state["variance"] = noise_variance(misfit.y, misfit.weights) if given is None else given
        views, state["seen"] = _Views(misfit, variance, seed), Bands(x.shape).curvature(misfit)
        met = []
        with progress_bar(len(known), "rehearsing", progress) as bar:
            for which, volume in enumerate(views.alike(known)):
                met.append(play.rehearse(views.noisy(volume, which), volume, variance, state["seen"]))
                bar.update()
        levels, spectra, products = (torch.stack(parts) for parts in zip(*met, strict=True))
        state["shares"] = best_shares(products)
        mixed = [Bands(x.shape).overall(of_mixture(state["shares"], each)).sqrt()[None] for each in products]
        levels, state["spectra"], last = map(geometric_mean, (levels, spectra, torch.stack(mixed)))
        state["levels"] = torch.cat([levels, last])
        state["x"] = play.start(misfit, variance, state["levels"][0])
        state["mixture"] = Bands(x.shape).times(state["shares"][0], state["x"])

    def step(state: State, iteration: int) -> Step:
        if not len(state["levels"]):
            begin(state)
        z = play.cleaner(state["x"], state["levels"][iteration])
        spectrum = state["spectra"][iteration - 1]
        found = play.asked(misfit, z, state["variance"], spectrum, state["seen"])
        for share, volume in zip(state["shares"][2 * iteration - 1 :], (z, found), strict=False):
            state["mixture"] = state["mixture"] + Bands(x.shape).times(share, volume)
        if iteration == play.rounds:
            found = nowhere_negative(state["mixture"], play.order) if play.positive else state["mixture"]
        state["x"] = found
        return Step(misfit.norm(misfit.residual(found)))

    empty = x.new_zeros(0)
    state: State = {"x": x, "variance": 0.0, "levels": empty, "spectra": empty, "seen": empty, "shares": empty}
    state["mixture"] = empty
    problem = {}
    if checkpoint is not None:
        settings = {name: value for name, value in vars(play).items() if name != "denoiser"}
        sums = [float(volume.double().square().sum()) for volume in known]
        problem = identity(misfit, denoiser=type(denoiser).__name__, volumes=sums, seed=seed, **settings)
        problem["variance"] = given
    how: dict[str, Any] = {"callback": callback, "progress": progress, "checkpoint": checkpoint}
    solution = iterate("plug and play", state, step, residual, problem, iterations=play.rounds, **how)
    levels = tuple(map(tuple, state["levels"].tolist()))
    rho = tuple((play.strength * state["variance"] / Bands(x.shape).overall(state["spectra"][-1])).tolist())
    return RehearsedSolution(solution.x, solution.residuals, solution.stopped_by, levels, rho)


@dataclass(frozen=True)
class _Play:
    """What is rehearsed: the same for known volumes and for the data."""

    denoiser: Denoise
    order: int
    rounds: int
    strength: float
    positive: bool
    inner: int

    def start(self, misfit: Misfit, variance: float, levels: Tensor) -> Tensor:
        """From a linear reconstruction of a volume whose orders are so strong."""
        rho = self.strength * variance / spread(levels).square()
        shape = tuple(int(n or 1) for n in misfit.A.domain_shape)
        return near_data(misfit, levels.new_zeros(shape), rho, START_ITERATIONS)

    def cleaner(self, x: Tensor, levels: Tensor) -> Tensor:
        z = denoised(self.denoiser, x, levels)
        return nowhere_negative(z, self.order) if self.positive else z

    def asked(self, misfit: Misfit, z: Tensor, variance: float, spectrum: Tensor, seen: Tensor) -> Tensor:
        """What the data make of ``z``."""
        return asked(misfit, z, self.strength * variance / spectrum, seen, self.inner)

    def rehearse(self, misfit: Misfit, truth: Tensor, variance: float, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the truth is known: the errors of nothing, of the start and of each round, and spectra of ``z``'s.

        With the products of the errors of the start, and of ``z`` and ``x`` of each round, in each order and band.
        """
        levels, spectra = [error_levels(torch.zeros_like(truth), truth)], []
        least = FAINTEST * levels[0].max()
        levels[0] = levels[0].clamp_min(least)
        x = self.start(misfit, variance, levels[0])
        errors = [x - truth]
        for _ in range(self.rounds):
            levels.append(error_levels(x, truth).clamp_min(least))
            z = self.cleaner(x, levels[-1])
            spectra.append(Bands(x.shape).strength(z - truth).clamp_min(least**2))
            x = self.asked(misfit, z, variance, spectra[-1], seen)
            errors += [z - truth, x - truth]
        levels.append(error_levels(x, truth).clamp_min(least))
        return torch.stack(levels), torch.stack(spectra), Bands(x.shape).products(errors)


@dataclass(frozen=True)
class _Views:
    """How volumes are seen: as those behind the data were, with as much noise."""

    misfit: Misfit
    variance: float
    seed: int

    def noisy(self, volume: Tensor, which: int) -> Misfit:
        misfit = self.misfit
        generator = torch.Generator().manual_seed(self.seed + which)
        noise = (math.sqrt(self.variance) * torch.randn(misfit.y.shape, generator=generator)).to(misfit.y)
        if misfit.weights is not None:
            noise = torch.where(misfit.weights > 0, noise / misfit.weights.sqrt(), 0.0)
        return Misfit(misfit.A, misfit.A(volume) + noise, misfit.weights)

    def alike(self, volumes: Sequence[Tensor]) -> list[Tensor]:
        """The volumes, each order and band made as strong as in the data, by what linear reconstructions show of it.

        They mix orders, and show the less of one the weaker they are told it is: so it takes some rounds.
        """
        made = [self.misfit.size() / (self.misfit.norm(self.misfit.A(volume)) or 1.0) * volume for volume in volumes]
        bands = Bands(made[0].shape)
        for _ in range(COMPARISONS):
            shown = self._linear(made)
            of_noise, of_data = shown(self.noisy(torch.zeros_like(made[0]), len(made))), shown(self.misfit)
            for which, volume in enumerate(made):
                of_volume = shown(self.noisy(volume, which))
                signals = (torch.maximum(power - of_noise, LITTLE * power) for power in (of_data, of_volume))
                ratio = torch.div(*signals).sqrt()
                made[which] = bands.times(ratio.clamp(1 / MOST, MOST), volume)
        return made

    def _linear(self, volumes: Sequence[Tensor]) -> Callable[[Misfit], Tensor]:
        """Strengths of a reconstruction that takes orders to be as strong as in these volumes."""
        nothing = torch.zeros_like(volumes[0])
        strengths = geometric_mean(torch.stack([error_levels(volume, nothing) for volume in volumes]))
        rho = self.variance / spread(strengths.clamp_min(FAINTEST * float(strengths.max()))).square()
        bands = Bands(nothing.shape)
        return lambda data: bands.strength(near_data(data, nothing, rho, START_ITERATIONS))


def asked(misfit: Misfit, z: Tensor, rho: Tensor, seen: Tensor, iterations: int) -> Tensor:
    """What data make of ``z``: ``rho``, and what they tell (``seen``), of each order and band.

    Iterations start from ``z``: what they do not reach, as in a missing wedge, then stays what the denoiser made of it.
    """
    bands = Bands(z.shape)
    return near_data(misfit, z, partial(bands.times, rho), iterations, None, partial(bands.times, 1 / (rho + seen)))


def geometric_mean(values: Tensor) -> Tensor:
    """Over the first axis; in double precision, as logarithms of large numbers have few digits behind the point.

    Examples
    --------
    >>> geometric_mean(torch.tensor([1.0, 4.0]))
    tensor(2.)
    """
    return values.double().log().mean(0).exp().to(values)


def best_shares(products: Tensor) -> Tensor:
    """Shares with the least mean square error: ``(set, volume, volume, order, band)`` gives ``(volume, order, band)``.

    Of several sets of volumes each counts relative to the best volume of its own.

    Examples
    --------
    >>> independent = torch.diag(torch.tensor([1.0, 4.0]))[None, ..., None, None]
    >>> best_shares(independent).flatten()
    tensor([0.7941, 0.2059])
    """
    exact, tiny = products.double(), torch.finfo(torch.float64).tiny
    best = exact.diagonal(dim1=1, dim2=2).amin(-1)[:, None, None].clamp_min(tiny)
    matrix = (exact / best).sum(0).permute(2, 3, 0, 1)
    even = (EVENED * matrix.diagonal(dim1=-2, dim2=-1).mean(-1)).clamp_min(tiny)  # a band without frequencies
    matrix = matrix + even[..., None, None] * torch.eye(matrix.shape[-1]).to(matrix)
    shares = torch.linalg.solve(matrix, torch.ones_like(matrix[..., 0]))
    return (shares / shares.sum(-1, keepdim=True)).movedim(-1, 0).to(products)


def of_mixture(shares: Tensor, products: Tensor) -> Tensor:
    """Mean square error of a mixture in each order and band."""
    return torch.einsum("iab,ijab,jab->ab", shares, products, shares).clamp_min(torch.finfo(products.dtype).tiny)


def error_levels(found: Tensor, truth: Tensor) -> Tensor:
    """Root mean square error of a coefficient of each order: ``(x, y, z, K)`` gives ``(ell_max/2 + 1,)``.

    Examples
    --------
    >>> error_levels(torch.ones(4, 4, 4, 6), torch.zeros(4, 4, 4, 6))
    tensor([1., 1.])
    """
    powers = power(found - truth).mean((0, 1, 2))
    return (powers / torch.arange(1, 4 * len(powers), 4, device=powers.device)).sqrt()


def spread(levels: Tensor) -> Tensor:
    """One number of each order becomes one of each coefficient.

    Examples
    --------
    >>> spread(torch.tensor([1.0, 2.0]))
    tensor([1., 2., 2., 2., 2., 2.])
    """
    return levels.repeat_interleave(torch.arange(1, 4 * len(levels), 4, device=levels.device))


def _checked_volumes(volumes: Any, like: Tensor) -> list[Tensor]:
    if not isinstance(volumes, (list, tuple)) or not volumes:
        raise TypeError(message("volumes", "a list of coefficient volumes", repr(volumes)[:80]))
    known = [as_tensor(volume, "volumes").to(like) for volume in volumes]
    for volume in known:
        check_shape(volume.shape, "volumes", tuple(like.shape))
        if not torch.isfinite(volume).all() or not volume.any():
            raise ValueError(message("volumes", "finite numbers that are not all zero", "another volume"))
    return known
