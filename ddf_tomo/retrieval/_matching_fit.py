"""The fit of `ddf_tomo.retrieval.matching`, one resolution after the other; the inner loops are compiled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from ddf_tomo._threads import in_parallel
from ddf_tomo.retrieval._filters import along
from ddf_tomo.retrieval.method import View

Array = NDArray[Any]
Tick = Callable[[], object]

WIDER = math.sqrt(11 / 6)  # twice a Gaussian window less its square has the noise of one narrower by this
ROUGHER = 89 / 132  # over the squared width: how quickly that window changes, for noise that is correlated
CENTRAL = 1.5  # its peak
SMOOTHED, GATHERED = 5, 3  # standard deviations to which Gaussians reach
LEAST_TRANSMISSION = 1e-2
LEAST_CONTRAST = 0.25  # of the reference, as a share of the contrast of the sample's frames
REFERENCE_REACH = 2.0  # pixels: shift and blur of the reference, for holes in single frames
LEAST_SIDE = 16  # rows and columns of a binned image
LEAST_WINDOW = 1.5  # pixels, at coarse resolutions
COARSE_ITERATIONS = 5
FINEST_SHIFT = 0.8  # pixels that are found without a coarser start
FEWEST_FRAMES = 4  # with fewer of them T is taken to be constant in the window as well
CONVERGED = 0.1  # standard errors: a pixel that moves less is not evaluated again
FURTHEST = 1.0  # pixels in one iteration
WIDEST = 25.0  # square pixels: largest eigenvalue of C
ROWS = 4  # that a thread takes at once
AT_ONCE = 1 << 16  # pixels that a device takes at once


class Fit(NamedTuple):
    """Outcome for one view; ``theta`` holds u, C, κ and ln T, ``errors`` the covariance of T, u, C and κ."""

    transmission: Array
    theta: Array
    errors: Array
    misfit: Array  # squared, over the variance of unit noise
    freedom: Array
    residual: Array
    noise: Array
    valid: Array
    slope: Array  # of theta (row, column, unknown, axis)
    factor: Array  # (distance, row, column): what focusing adds to T


class Step(Enum):
    """Kinds of iterations: until nothing moves; then for slopes in the window, and for what the window left."""

    USUAL, SLOPED, LAST = range(3)


def taps(sigma: float, reach: int, *, unit_sum: bool) -> tuple[float, ...]:
    """Sampled Gaussian for the lags 0 ... ``reach`` standard deviations; peak 1 unless ``unit_sum``."""
    values = [math.exp(-0.5 * (lag / sigma) ** 2) for lag in range(math.ceil(reach * sigma) + 1)]
    total = values[0] + 2 * sum(values[1:]) if unit_sum else 1.0
    return tuple(value / total for value in values)


def smooth(images: Tensor, sigma: float, edge: str) -> Tensor:
    """Gaussian smoothing over the last two axes, without the bias of short kernels."""
    weights = taps(sigma, SMOOTHED, unit_sum=True)
    flat = images.reshape(-1, *images.shape[-2:])
    return along(along(flat, weights, -1, edge=edge), weights, -2, edge=edge).reshape(images.shape)


def levels(largest_shift: float, shape: tuple[int, ...] = ()) -> int:
    """How often frames are binned by two to find shifts of this size, in an image large enough for that."""
    most = max(0, int(math.log2(min(shape) / LEAST_SIDE))) if shape else math.inf
    return int(min(max(0, math.ceil(math.log2(largest_shift / FINEST_SHIFT))), most))


@dataclass
class _Problem:
    """Frames of a view at one resolution, steps last, and what is known of the unknowns."""

    sample: Tensor  # (distance, row, column, step), smoothed
    reference: Tensor  # as it is, less 1
    alive: Tensor  # (distance, row, column): 1 where the reference can be used
    weight: Tensor  # (distance, row, column, step)
    reach: Tensor
    smoothing: float
    window: float
    chosen: Tensor  # which of u, C, κ, ln T are unknowns of the window
    pixelwise: bool
    counts: float
    transmission: Tensor
    theta: Tensor
    noise: Tensor  # variance of one unit of intensity
    same: Tensor  # whether sample and reference can have been taken through one mask
    factor: Tensor = field(init=False)  # (distance, row, column): what focusing adds to T
    slope: Tensor = field(init=False)  # (row, column, unknown, axis)
    own: Tensor = field(init=False)
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        unknowns = len(self.chosen)
        self.pairs = unknowns * (unknowns + 1) // 2
        self.terms = self._zeros(self.pairs + unknowns + 2)
        self.own = self._zeros(1 + unknowns)
        self.change = torch.full_like(self.transmission, torch.inf)
        self.factor = torch.ones_like(self.reach)[:, None, None] * torch.ones_like(self.transmission)
        self.slope = torch.zeros_like(self.theta)[..., None].repeat(1, 1, 1, 2)
        self._measure_slopes()

    def start(self, theta: Tensor) -> None:
        """Begin at these unknowns, C without negative eigenvalues."""
        self.theta[:] = theta
        self.theta[..., 2:5] = bounded(theta[..., 2:5])
        self.transmission[:] = theta[..., 6].exp()
        self._measure_slopes()

    def iterate(self, step: Step = Step.USUAL) -> bool:
        """One step of Gauss-Newton for all pixels; False if none of them needs it."""
        from ddf_tomo.retrieval import _matching_kernel as kernel
        from ddf_tomo.retrieval import _matching_windows as windows

        active = (self.change > CONVERGED**2) | (step is Step.LAST)
        if step is Step.USUAL and not active.any():
            return False
        sloped, again = step is Step.SLOPED, step is Step.LAST
        present = self.transmission, self.theta
        self._rows(kernel.evaluate, *self._frames(), active, again, *present, self.terms, self.own)
        self.sums = self._gather(self.terms, self.window, self.pairs if sloped else 0)
        bounds = FURTHEST, min(kernel.LEAST_SIGMA2 - self.smoothing**2, 0), WIDEST
        unknowns = sloped, again, self.chosen, self.pixelwise
        self._rows(windows.update, self.sums, self.slope, *unknowns, *bounds, self.own, *present, self.change)
        if math.isnan(self.counts):
            misfit, freedom = self.sums[..., self.pairs + len(self.chosen) :][..., :2].double().unbind(-1)
            freedom = freedom - 0.5 * len(self.chosen)  # a Gaussian's squares sum to half of what it does
            self.noise = torch.where(freedom > 0, misfit / torch.where(freedom > 0, freedom, 1), 0)
        self.change /= self.noise.clamp(min=1e-12)
        self._measure_slopes()
        return True

    def outcome(self) -> Fit:
        """Estimates and their covariance, from the last iteration's normal matrices."""
        from ddf_tomo.retrieval import _matching_errors as kernel

        unknowns = len(self.chosen)
        spread, added, own = (self._zeros(n) for n in (self.pairs, self.pairs, 5 + 2 * unknowns))
        curvature = ROUGHER / self.window**2
        present = self.transmission, self.theta
        self._rows(kernel.scores, *self._frames(), curvature, *present, spread, added, own)
        spreads = WIDER**2 * self._gather(spread, self.window / math.sqrt(2))
        noises = self._gather(added, self.window)
        size = unknowns + self.pixelwise
        valid, pull = torch.zeros_like(self.same), torch.zeros_like(self.transmission)
        errors = torch.zeros_like(pull)[..., None, None].repeat(1, 1, size, size)
        given = self.sums, spreads, noises, own, self.transmission, self.pixelwise, CENTRAL
        self._rows(kernel.errors, *given, errors, valid, pull)
        if len(self.reach) > 1:
            # T is what is left after focusing, 1 - reach ∇·u: it takes part in the noise of that slope.
            slope = curvature * (errors[..., 1, 1] + errors[..., 2, 2])
            errors[..., 0, 0] += (self.transmission * self.reach.mean()) ** 2 * slope
        seen = own[..., 0] > 0
        transmission = self.transmission
        if self.pixelwise and not seen.all():
            known = torch.stack([seen, seen * transmission], -1)
            sums = self._gather(known.to(self.terms), self.window)
            around = sums[..., 1] / sums[..., 0].clamp(min=1e-30)
            transmission = torch.where(seen | (sums[..., 0] < 1e-6), transmission, around)
        misfit, freedom, residual = own[..., 2:5].double().unbind(-1)
        # Each pixel has lost to the window's unknowns: twice what it pulls them, less what they then fit.
        area = math.pi * self.window**2
        lost = pull / self.noise.clamp(min=1e-30) * (2 * CENTRAL / WIDER**2 - 0.5) / area
        kept = (1 - lost / self._mean_freedom().clamp(min=1e-30)).clamp(0.3, 1)
        freedom, noise = kept * freedom, self.noise
        if math.isnan(self.counts):
            errors, noise = errors / kept[..., None, None], noise / kept
        # Numbers out of the range of floating point are no outcome.
        good = self.theta.isfinite().all(-1) & transmission.isfinite()
        theta, transmission = torch.where(good[..., None], self.theta, 0), torch.where(good, transmission, 1)
        slope, factor = self.slope.nan_to_num(), self.factor.nan_to_num(nan=1)
        found = transmission, theta, errors, misfit, freedom, residual, noise, valid & good & self.same, slope, factor
        return Fit(*map(_array, found))

    def _mean_freedom(self) -> Tensor:
        """Degrees of freedom a pixel, in the window."""
        weight = sum(taps(self.window, GATHERED, unit_sum=False)) * 2 - 1
        return self.sums[..., self.pairs + len(self.chosen) + 1] / weight**2

    def _zeros(self, channels: int) -> Tensor:
        return self.sample.new_zeros(*self.transmission.shape, channels)

    def _frames(self) -> tuple[Any, ...]:
        frames = self.sample, self.reference, self.alive, self.weight, self.reach, self.factor
        return *frames, self.slope, self.noise, self.smoothing**2, self.chosen, self.pixelwise

    def _rows(self, work: Callable[..., None], *arguments: Any) -> None:
        """Compiled work on a CPU; elsewhere the same of `ddf_tomo.retrieval._matching_device`, in few pieces."""
        rows, columns = self.transmission.shape
        if self.sample.is_cpu:
            arrays = [each.numpy() if isinstance(each, Tensor) else each for each in arguments]
            in_parallel(rows, ROWS, lambda start, stop: work(*arrays, start, stop))
            return
        from ddf_tomo.retrieval import _matching_device

        work = getattr(_matching_device, work.__name__)
        piece = max(1, AT_ONCE // columns)
        for start in range(0, rows, piece):
            work(*arguments, start, min(start + piece, rows))

    def _gather(self, terms: Tensor, window: float, sloped: int = 0) -> Tensor:
        """Sums over a Gaussian window; of the first ``sloped`` channels first moments, down and across, as well."""
        from ddf_tomo.retrieval import _matching_windows as windows

        rows, columns, channels = terms.shape
        one = taps(window, GATHERED, unit_sum=False)
        both = torch.tensor((*one[:0:-1], *one), dtype=terms.dtype)
        half, sums = (terms.new_empty(rows, columns, channels + n * sloped) for n in (1, 2))
        self._rows(windows.gather_down, terms, both, sloped, half)
        self._rows(windows.gather_across, half, both, sloped, sums)
        return sums

    def _measure_slopes(self) -> None:
        for axis in (0, 1):
            if self.theta.shape[axis] > 1:
                self.slope[..., axis] = torch.gradient(self.theta, dim=axis)[0]
        self.slope.clamp_(-0.5, 0.5)
        if len(self.reach) > 1:
            divergence = self.slope[..., 0, 0] + self.slope[..., 1, 1]
            self.factor = (1 - self.reach[:, None, None] * divergence).clamp(0.5, 2)


def approached(view: View, options: dict[str, Any], tick: Tick, theta: Tensor | None = None) -> _Problem:
    """The finest problem near its minimum: the way of `fit`, but for its last looks."""
    distances, steps, *shape = view.sample.shape
    coarser = None
    for level in range(levels(options["largest_shift"], tuple(shape)) if theta is None else 0, -1, -1):
        problem = _problem(view, options, level)
        if theta is not None:
            problem.start(theta)
        elif coarser is not None:
            start = _finer(coarser.theta, problem.transmission.shape)
            problem.start(start * torch.tensor([2, 2, 4, 4, 4, 1, 1]).to(start))
        more = True
        for _ in range(COARSE_ITERATIONS if level else options["iterations"]):
            more = more and problem.iterate()
            for _ in range(0 if level else distances * steps):
                tick()
        coarser = problem
    return problem


def fit(view: View, options: dict[str, Any], tick: Tick, theta: Tensor | None = None) -> Fit:
    """Fit one view, from coarse to fine; or from a start ``theta`` (row, column, 7) on."""
    problem = approached(view, options, tick, theta)
    problem.iterate(Step.SLOPED)
    problem.iterate(Step.LAST)
    return problem.outcome()


def unknowns_of(shape: tuple[int, ...], background: bool) -> tuple[list[int], bool]:
    """Which of u, C, κ and ln T the windows solve for, and whether T belongs to a pixel, for frames of this shape."""
    pixelwise = shape[0] * shape[1] >= FEWEST_FRAMES
    return [0, 1, 2, 3, 4] + [5] * background + [6] * (not pixelwise), pixelwise


def prepared(view: View, smoothing: float, bins: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Smoothed sample, reference, where that can be used ``(distance, row, column)``, and weights of the sample."""
    from ddf_tomo.retrieval._matching_kernel import FULL_MASS, LEAST_MASS

    sample, reference = view.sample, view.reference
    weights = view.weights.expand_as(sample).to(sample)
    living = (weights > 0).to(sample)
    if not living.all():
        sample, reference = (_filled(each, living) for each in (sample, reference))
    if bins > 1:
        sample, reference, weights, living = (avg_pool2d(each, bins) for each in (sample, reference, weights, living))
        weights = torch.where(living > 0.75, weights, 0)
        living = (weights > 0).to(sample)
    weights = weights * ((smooth(living, smoothing, "constant") - LEAST_MASS) / (FULL_MASS - LEAST_MASS)).clamp(0, 1)
    alive = living.amax(1)
    holes = alive[:, None] - living
    if holes.any():
        # Of single frames: where the blurred reference would look into one. Small ones are filled well enough.
        weights = weights * (1.5 - 10 * smooth(holes, REFERENCE_REACH, "constant")).clamp(0, 1)
    return smooth(sample, smoothing, "replicate"), reference, alive, weights


def _filled(frames: Tensor, living: Tensor) -> Tensor:
    """Dead pixels from their living neighbours."""
    known = smooth(living, 1.0, "constant")
    guess = smooth(frames * living, 1.0, "constant") / known.clamp(min=1e-6)
    return torch.where((living > 0) | (known < 1e-3), frames, guess)


def _problem(view: View, options: dict[str, Any], level: int) -> _Problem:
    """Frames binned, smoothed and turned to steps last; T of unmoved frames."""
    from ddf_tomo.retrieval._matching_kernel import LANES

    smoothing, bins = options["smoothing"], 2**level
    window = WIDER * options["window"]
    window = max(window / bins, LEAST_WINDOW) if level else window
    sample, reference, alive, weights = prepared(view, smoothing, bins)
    beam = smooth(reference, smoothing, "replicate")
    both, square = (smooth((beam * each * weights).sum((0, 1)), window, "constant") for each in (sample, beam))
    transmission = (both / square.clamp(min=1e-30)).clamp(min=LEAST_TRANSMISSION)
    # A blur takes contrast: a pattern that the sample's frames have and the reference's lack is another mask's.
    stacks = beam, sample / transmission
    contrasts = torch.stack([(each - each.mean(1, keepdim=True)).square().sum((0, 1)) for each in stacks])
    contrast = smooth(contrasts, window, "constant")
    transmission = transmission.double()
    theta = torch.zeros_like(transmission)[..., None].repeat(1, 1, 7)
    theta[..., 6] = transmission.log()
    chosen, pixelwise = unknowns_of(view.sample.shape, options["background"])
    counts = view.counts * bins**2

    def steps_last(images: Tensor) -> Tensor:
        return pad(images.movedim(1, -1), (0, -images.shape[1] % LANES)).contiguous()

    return _Problem(
        sample=steps_last(sample),
        reference=steps_last(reference - 1),
        alive=alive.double().contiguous(),
        weight=steps_last(weights),
        reach=view.reach.double(),
        smoothing=smoothing,
        window=window,
        chosen=torch.tensor(chosen).to(theta.device),
        pixelwise=pixelwise,
        counts=counts,
        transmission=transmission.contiguous(),
        theta=theta,
        noise=torch.full_like(transmission, 0.0 if math.isnan(counts) else 1 / counts),
        same=contrast[0] >= LEAST_CONTRAST**2 * contrast[1],
    )


def _array(tensor: Tensor) -> Array:
    return tensor.cpu().numpy()


def _finer(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Maps ``(row, column, channel)`` at twice the resolution."""
    images = interpolate(values.movedim(-1, 0)[None], scale_factor=2, mode="bilinear", align_corners=False)
    rows, columns = (size - have for size, have in zip(shape, images.shape[-2:], strict=True))
    return pad(images, (0, columns, 0, rows), mode="replicate")[0].movedim(0, -1)


def bounded(covariance: Tensor, lowest: float = 0.0, highest: float = math.inf) -> Tensor:
    """C ``(..., 3)`` with its eigenvalues brought into a range; axes stay."""
    jj, jk, kk = covariance.unbind(-1)
    mean, half = 0.5 * (jj + kk), 0.5 * (jj - kk)
    radius = torch.hypot(half, jk)
    large, small = (mean + radius).clamp(lowest, highest), (mean - radius).clamp(lowest, highest)
    kept = torch.where(radius > 0, 0.5 * (large - small) / torch.where(radius > 0, radius, 1), 0)
    mean = 0.5 * (large + small)
    return torch.stack([mean + half * kept, jk * kept, mean - half * kept], -1)
