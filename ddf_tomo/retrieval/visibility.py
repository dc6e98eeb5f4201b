"""Retrieval beyond the second moment: ``−ln V`` at several azimuths and correlation lengths, from a mask's frames.

A sample frame is a reference frame that was moved by u(x), lost the share 1 − T(x), and whose Fourier components lost
visibility, ``S_m(x) = T Σ_q V(x, q) R̂_m(q) exp(iq(x − u))``. Here ``−ln V`` is no quadratic form: it is a Fourier
series over the azimuth of q, to order 4 and more, at each of a few frequencies, with a power law between them
(`LogVisibility`). What two crossing families of fibres do to the visibility is in the order 4, of which the second
moments know nothing [Strobl 2014, Sci. Rep. 4, 7243: lengths ξ = λ d / period].

The series is fitted by Gauss-Newton's method in windows:

* the reference is moved and blurred by what was found so far, exactly (`blurred`). What remains is compared with its
  derivatives with respect to u and to the series, which are filters of it: the local spectra of both frames are
  regressed on each other, over all steps, weighted by the power that the mask has at each frequency;
* as prediction and sample stem from the same reference, its particular grains make no error, only noise does;
* T belongs to a pixel, and is eliminated pixel by pixel over the mask steps before the window sums;
* noise of the reference adds to the squares of the derivatives, and poses as a negative ``−ln V``: both are taken off.
  Its power is known from ``counts``, or from the differences of sample and prediction at frequencies of half a cycle a
  pixel, where no mask has a pattern;
* standard errors come from the scatter of the single steps' influence (a sandwich clustered by step; Liang & Zeger
  1986, Biometrika 73, 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo._checks import NOT_NUMBERS, even_order, integer, message, number, of_kind
from ddf_tomo.retrieval._filters import erode, gaussian_taps, window_sum
from ddf_tomo.retrieval._log_visibility import LogVisibility, blurred
from ddf_tomo.retrieval._warped import fast_length, frequencies, spline_coefficients, warped
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["METHOD", "Exponent", "calibrated", "estimate_exponent"]

MINIMUM_STEPS = 4  # the scatter of fewer says nothing about an error
MARGIN = 12  # pixels that a blur reaches
COARSE = (3.0, 2.0)  # smoothing of the first passes, which find the displacement alone
WIDE = 3.0  # pixels, the least window of the displacement's start and of the noise
OPAQUE = 1e-2  # below this transmission a frame holds no pattern to compare
UNINFORMATIVE = 1e-5  # share of a regressor's square that has to differ from step to step
LEAST_CONTRAST = 0.25  # of the reference, as a share of the contrast of the sample's frames
LARGEST_STEP = 2.0  # pixels that a pass may move
ROUGH = (6.0, -4.0, 1.0)  # fourth difference: 1e-4 of a pattern with periods above 8 pixels, 70 times white noise


@dataclass(frozen=True)
class Visibility:
    """The method ``"visibility"`` of `ddf_tomo.retrieval.retrieve`.

    Its options:

    * ``window``: standard deviation in pixels of the Gaussian window over which u and the series are constant (2.5);
    * ``smoothing``: of the Gaussian that smooths both frames (1.0): more where the mask is coarse and counts are few;
    * ``periods``: in pixels, at which ``−ln V`` is wanted, one or several (8.0). There is power to measure with where
      half a period is about the width of the mask's grains; two periods tell the exponent (`estimate_exponent`);
    * ``azimuths``: how many, evenly over half a circle from j towards k (8);
    * ``order``: highest order of the series over the azimuth, even (4);
    * ``exponent``: of the power law in frequency through each period (2.0, exact for Gaussian blur). With one period
      another exponent scales the result; with several it matters little;
    * ``passes``: of the fit at full resolution (3).

    The maps hold ``visibility`` ``(row, column, length · azimuth)`` for all distances, from short to long, and in each
    for all periods, from long to short. Lengths are λ d / period; as wavelength, distance and pixel are not the
    method's, it gives them in units of λ d / pixel at the longest distance: turn them to metres with `calibrated`.
    ``covariance`` is that of the longest period, ``2 (−ln V) / |q|²``: the Gaussian that takes the same visibility
    there. All of it is one fit, ``error_matrix`` included.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> reference = 1 + 0.2 * torch.randn(6, 1, 48, 48, generator=generator).repeat_interleave(1, 1)[:, 0]
    >>> reference = torch.nn.functional.avg_pool2d(reference, 5, 1, 2)
    >>> one = torch.ones(1, 1, 48, 48)
    >>> view = View(0.7 * reference[None].roll(1, -1), reference[None], one, torch.ones(1), math.nan)
    >>> maps = METHOD.fit(view, METHOD.check({}, (1, 6, 48, 48)), int)
    >>> maps.displacement[24, 24].round(decimals=1).tolist(), maps.visibility.shape
    ([0.0, 1.0], torch.Size([48, 48, 8]))
    """

    options: ClassVar[dict[str, Any]] = {
        "window": 2.5,
        "smoothing": 1.0,
        "periods": 8.0,
        "azimuths": 8,
        "order": 4,
        "exponent": 2.0,
        "passes": 3,
    }

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        given = self.options | {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(set(given) - set(self.options)):
            raise ValueError(message(unknown[0], f"one of {', '.join(self.options)}", "another option"))
        if shape[1] < MINIMUM_STEPS:
            hint = "Fewer leave no scatter to take errors from"
            raise ValueError(message("sample", f"at least {MINIMUM_STEPS} mask steps", shape[1], hint))
        smallest, largest = min(shape[-2:]), max(shape[-2:])
        if smallest < 16:
            raise ValueError(message("sample", "at least 16 rows and columns", tuple(shape[-2:])))
        try:
            periods = [float(each) for each in np.atleast_1d(np.asarray(given["periods"])).ravel().tolist()]
        except NOT_NUMBERS as error:
            raise TypeError(message("periods", "one number of pixels or several", repr(given["periods"]))) from error
        for period in periods:
            number(period, "periods", low=1 / 0.4, high=64.0)
        if not periods or len(periods) > 6 or any(a < 1.1 * b for a, b in pairwise(sorted(periods, reverse=True))):
            hint = "Bands of periods closer than that are one"
            raise ValueError(message("periods", "1 to 6 numbers, each 1.1 times the next", given["periods"], hint))
        order = even_order(given["order"], "order", high=8)
        azimuths = integer(given["azimuths"], "azimuths", low=1, high=64)
        if azimuths < order + 1:
            hint = "Fewer lose a part of the series"
            raise ValueError(message("azimuths", f"at least {order + 1}, for order {order}", azimuths, hint))
        return {
            "window": number(given["window"], "window", low=0.5, high=largest),
            "smoothing": number(given["smoothing"], "smoothing", low=0.0, high=10.0),
            "periods": tuple(sorted(periods, reverse=True)),
            "azimuths": azimuths,
            "order": order,
            "exponent": number(given["exponent"], "exponent", low=0.0, high=2.0, low_open=True),
            "passes": integer(given["passes"], "passes", low=1, high=20),
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result."""
        coarse = sum(len(gaussian_taps(max(each, options["smoothing"]))) for each in COARSE)
        start = len(COARSE) * len(gaussian_taps(max(WIDE, options["window"])))
        return MARGIN + (options["passes"] + 1) * len(gaussian_taps(options["window"])) + (coarse + start) // 2

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        return len(COARSE) + int(options["passes"]) + 1

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile; gradients do not pass."""
        with torch.no_grad():
            parts: list[_Part] = []
            for d in range(len(view.sample)):
                weights = view.weights[d if len(view.weights) > 1 else 0]
                fit = _Fit(view.sample[d], view.reference[d], weights, view.counts, options, tick)
                start = parts[-1].shift * (view.reach[d] / view.reach[d - 1]) if parts else None
                parts.append(fit.run(start))
            return _maps(parts, view.reach, options)


METHOD = Visibility()


class _Part(NamedTuple):
    """Outcome at one distance; channels in front."""

    transmission: Tensor
    shift: Tensor
    amplitudes: Tensor
    scatter: Tensor  # covariance of (T, u, a), upper triangle by rows
    residual: Tensor
    chi2: Tensor
    valid: Tensor


def _upper(size: int) -> tuple[list[int], list[int]]:
    pairs = [(a, b) for a in range(size) for b in range(a, size)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _full(upper: Tensor, size: int) -> Tensor:
    """Symmetric matrices (n, size, size) from upper triangles (pairs, row, column)."""
    order = torch.zeros(size, size, dtype=torch.long, device=upper.device)
    rows, columns = _upper(size)
    count = torch.arange(len(rows), device=upper.device)
    order[rows, columns] = order[columns, rows] = count
    return upper.flatten(1).T[:, order.flatten()].reshape(-1, size, size)


class _Fit:
    """Frames of one distance, and the passes over them."""

    def __init__(
        self,
        sample: Tensor,
        reference: Tensor,
        weights: Tensor,
        counts: float,
        options: dict[str, Any],
        tick: Callable[[], object],
    ) -> None:
        rows, columns = sample.shape[-2:]
        self.inner = (slice(MARGIN, MARGIN + rows), slice(MARGIN, MARGIN + columns))
        self.size = fast_length(rows + 2 * MARGIN), fast_length(columns + 2 * MARGIN)
        self.sample, reference = (self._widened(each, "replicate") for each in (sample, reference))
        smoothed = len(gaussian_taps(options["smoothing"])) - 1
        self.used = self._widened((weights > 0).any(0, keepdim=True).to(sample), "constant")[0] > 0
        good = torch.stack([erode(each > 0, smoothed) for each in weights])
        self.weights = self._widened(weights * good, "constant")
        self.options, self.counts, self.tick = options, counts, tick
        self.spline = spline_coefficients(reference)
        self.level = reference.mean(0)
        self.frequencies = frequencies(*self.size, sample)

    def _widened(self, frames: Tensor, mode: str) -> Tensor:
        rows, columns = (n - m - MARGIN for n, m in zip(self.size, frames.shape[-2:], strict=True))
        return pad(frames, (MARGIN, columns, MARGIN, rows), mode=mode)

    def run(self, start: Tensor | None) -> _Part:
        options = self.options
        law = LogVisibility(options["periods"], options["order"], options["exponent"])
        simple = LogVisibility(law.periods[:1], 0, 2.0)
        shift = torch.zeros(2, *self.size, dtype=self.sample.dtype, device=self.sample.device)
        if start is not None:
            shift[(slice(None), *self.inner)] = start
        blur = torch.zeros(1, *self.size, dtype=self.sample.dtype, device=self.sample.device)
        for coarse in COARSE:
            smoothing = max(coarse, options["smoothing"])
            step = _Pass(self, simple, shift, blur, smoothing, max(WIDE, options["window"]))
            shift, blur = step.improved()
        scale = torch.tensor([(law.periods[0] / period) ** 2 for period in law.periods]).to(shift)
        amplitudes = torch.zeros(len(law), *self.size, dtype=shift.dtype, device=shift.device)
        amplitudes[:: law.order + 1] = scale[:, None, None] * blur.clamp(0, 1)
        for _ in range(options["passes"]):
            step = _Pass(self, law, shift, amplitudes, options["smoothing"], options["window"])
            shift, amplitudes = step.improved()
        return step.judged(shift, amplitudes)


class _Pass:
    """One linearisation: prediction, its derivatives, and the windowed normal equations."""

    def __init__(
        self, fit: _Fit, law: LogVisibility, shift: Tensor, amplitudes: Tensor, smoothing: float, window: float
    ) -> None:
        self.fit, self.law, self.shift, self.amplitudes = fit, law, shift, amplitudes
        self.window, self.smoothing = window, smoothing
        f_j, f_k = fit.frequencies
        smooth = torch.exp(-2 * (math.pi * smoothing) ** 2 * (f_j**2 + f_k**2))
        self.moved = warped(fit.spline, shift)
        self.prediction = blurred(torch.fft.rfft2(self.moved) * smooth, law, amplitudes)
        self.sample = torch.fft.irfft2(torch.fft.rfft2(fit.sample) * smooth, s=fit.size)
        self.transfers = torch.cat([torch.stack(torch.broadcast_tensors(-2j * math.pi * f_j, -2j * math.pi * f_k)),
                                    -law.at(f_j, f_k)])  # fmt: skip
        self.steps = len(self.sample)
        # Where smoothing brings in what is not used (borders, gaps), T is found as well, and nothing else.
        w = fit.weights + 1e-5 * fit.used
        pp = (w * self.prediction.square()).sum(0).clamp(min=1e-12)
        ratio = (w * self.sample * self.prediction).sum(0) / pp
        self.bright = (ratio > OPAQUE) & fit.used
        self.transmission = torch.where(self.bright, ratio, 1)
        # Pixels that keep more of the pattern would pull the mean of a window towards small blurs.
        even = torch.exp(2 * amplitudes[0].clamp(0, 2))
        self.weight = torch.where(self.bright, even * self.transmission / ((1 + self.transmission) * fit.level), 0)
        self._solve(pp)

    def _derivatives(self, frame: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(frame) * self.transfers, s=self.fit.size)

    def _gather(self, maps: Tensor) -> Tensor:
        return window_sum(maps * self.weight, self.window)

    def _solve(self, pp: Tensor) -> None:
        w, size = self.fit.weights, len(self.transfers)
        rows, columns = _upper(size)
        gg = torch.zeros(len(rows), *self.fit.size).to(pp)
        pg, gy = torch.zeros(size, *self.fit.size).to(pp), torch.zeros(size, *self.fit.size).to(pp)
        for m, (s, p) in enumerate(zip(self.sample, self.prediction, strict=True)):
            g = self._derivatives(p)
            weight = w[m] if len(w) > 1 else w[0]
            y, weighted = s / self.transmission - p, weight * g
            for n, (a, b) in enumerate(zip(rows, columns, strict=True)):
                gg[n].addcmul_(weighted[a], g[b])
            pg, gy = pg + weighted * p, gy + weighted * y
            self.fit.tick()
        self.share = pg / pp
        normal = gg - torch.stack([self.share[a] * pg[b] for a, b in zip(rows, columns, strict=True)])
        self.noise = self._noise()
        spread, bias = self._noise_moments()
        # Pixels of a window were predicted with values of their own: what is wanted is one value for all of them.
        gy = gy - bias + self._times(normal - spread, torch.cat([self.shift, self.amplitudes]))
        diagonal = [n for n, (a, b) in enumerate(zip(rows, columns, strict=True)) if a == b]
        normal, right, available = self._gather(normal), self._gather(gy), self._gather(gg[diagonal])
        kept = normal[diagonal]
        informed = ((kept > UNINFORMATIVE * available) & (available > 0)).all(0)
        contrast = [
            self._gather((w * (each - each.mean(0)).square()).sum(0))
            for each in (self.prediction, self.sample / self.transmission)
        ]
        informed &= (contrast[0] > LEAST_CONTRAST**2 * contrast[1]) & self.bright
        spread = self._gather(spread)
        scale = torch.where(informed, kept, 1).rsqrt().flatten(1).T
        both = scale[:, :, None] * scale[:, None, :]
        identity = torch.eye(size, dtype=pp.dtype, device=pp.device)
        matrix, noisy = _full(normal, size) * both, _full(spread, size) * both
        # Where more than half of some combination of derivatives is noise, taking it off leaves a guess.
        definite = torch.linalg.cholesky_ex(matrix - 2 * noisy).info == 0
        valid = definite & informed.flatten()
        matrix = torch.where(valid[:, None, None], matrix - noisy, identity)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix)) * both
        self.valid = valid.reshape(self.fit.size)
        found = (self.inverse @ right.flatten(1).T[:, :, None])[..., 0].T.reshape(right.shape)
        self.found = torch.where(self.valid, found - torch.cat([self.shift, self.amplitudes]), 0)

    def _times(self, upper: Tensor, vector: Tensor) -> Tensor:
        """Symmetric matrices, given by their upper triangles, times vectors, at each pixel."""
        result = torch.zeros_like(vector)
        for entry, a, b in zip(upper, *_upper(len(vector)), strict=True):
            result[a].addcmul_(entry, vector[b])
            if a != b:
                result[b].addcmul_(entry, vector[a])
        return result

    def _noise(self) -> Tensor:
        """Variance of a pixel of the reference."""
        if math.isfinite(self.fit.counts):
            return self.fit.level / self.fit.counts
        f_j, f_k = self.fit.frequencies
        rise = 256 * (torch.sin(math.pi * f_j) * torch.sin(math.pi * f_k)) ** 4 / 70
        difference = self.fit.sample / self.transmission - self.moved
        difference = torch.fft.irfft2(torch.fft.rfft2(difference) * rise, s=self.fit.size)
        power = (self.fit.weights * (difference - difference.mean(0)).square()).sum(0)
        counted = self.fit.weights.expand(self.steps, *self.fit.size).sum(0) * (self.steps - 1) / self.steps
        wide = max(self.window, WIDE)
        sums = window_sum(torch.stack([power, counted * (1 + 1 / self.transmission)]), wide)
        return sums[0] / sums[1].clamp(min=1e-12)

    def _noise_moments(self) -> tuple[Tensor, Tensor]:
        """Sums over the steps that noise of the reference adds to the normal equations and to their right side."""
        f_j, f_k, area = (each.to(self.noise) for each in self.law.nodes)
        smooth = torch.exp(-((2 * math.pi * self.smoothing) ** 2) * (f_j**2 + f_k**2))
        functions = self.law.at(f_j, f_k)
        g = torch.cat([torch.stack([2 * math.pi * f_j, 2 * math.pi * f_k]), functions])
        rows, columns = _upper(len(g))
        products = g[rows] * g[columns]
        products[[n for n, (a, b) in enumerate(zip(rows, columns, strict=True)) if a < 2 <= b]] = 0  # odd
        products = torch.cat([products, functions, torch.ones_like(area)[None]]) * (area * smooth)
        total = torch.cat(
            [
                products @ torch.exp(-2 * (functions.T @ piece).clamp(-0.5, 12))
                for piece in self.amplitudes.flatten(1).split(1 << 15, 1)
            ],
            1,
        ).reshape(-1, *self.fit.size)
        counted = self.fit.weights.expand(self.steps, *self.fit.size).sum(0) * (self.steps - 1) / self.steps
        self.kept = total[-1]  # of the reference's variance after smoothing and blur
        total = total[:-1] * (self.noise * counted)
        bias = torch.cat([torch.zeros_like(total[:2]), total[len(rows) :]])
        return total[: len(rows)], bias

    def improved(self) -> tuple[Tensor, Tensor]:
        """Displacement and series after this pass."""
        shift = self.shift + self.found[:2].clamp(-LARGEST_STEP, LARGEST_STEP)
        return shift * self.valid, (self.amplitudes + self.found[2:]) * self.valid

    def judged(self, shift: Tensor, amplitudes: Tensor) -> _Part:
        """What was found, with errors from the scatter of the steps."""
        w, size = self.fit.weights, len(self.found) + 1
        rows, columns = _upper(size)
        squares = torch.zeros(len(rows), *self.fit.size).to(shift)
        misfit, pulls = torch.zeros_like(shift[0]), torch.zeros(size, *self.fit.size).to(shift)
        counted = w.expand(self.steps, *self.fit.size).sum(0)
        for m, (s, p) in enumerate(zip(self.sample, self.prediction, strict=True)):
            g = self._derivatives(p)
            weight = w[m] if len(w) > 1 else w[0]
            apart = g - self.share * p
            residual = s / self.transmission - p - (apart * self.found).sum(0)
            flat = self._gather(weight * apart * residual).flatten(1).T[:, :, None]
            pull = (self.inverse @ flat)[..., 0].T.reshape(g.shape)
            # A step that carries much of a window's information pulls its own residual down (Bell & McCaffrey 2002).
            lever = apart.flatten(1).T[:, :, None]
            own = (lever.mT @ (self.inverse @ lever))[:, 0, 0].reshape(self.fit.size)
            leverage = self._gather(weight * own) / len(g)
            pull = pull / (1 - leverage.clamp(0, 0.9))
            tug = weight * residual / counted.clamp(min=1e-12) / self.fit.level - (self.share * pull).sum(0)
            pull = torch.cat([(self.transmission * tug)[None], pull])
            for n, (a, b) in enumerate(zip(rows, columns, strict=True)):
                squares[n].addcmul_(pull[a], pull[b])
            misfit, pulls = misfit + weight * residual.square(), pulls + pull
            self.fit.tick()
        lost = self.steps / (self.steps - 1)  # the residual has lost one of its steps to T
        squares = lost**2 * (squares - torch.stack([pulls[a] * pulls[b] for a, b in zip(rows, columns, strict=True)])
                             / self.steps)  # fmt: skip
        # Variances change slowly over the image: their window mean scatters less than they do.
        share = self._gather(self.valid.to(shift)).clamp(min=1e-12)
        scatter = self._gather(torch.where(self.valid, squares, 0)) / share
        f_j, f_k, area = (each.to(shift) for each in self.law.nodes)
        passed = float((area * torch.exp(-((2 * math.pi * self.smoothing) ** 2) * (f_j**2 + f_k**2))).sum())
        expected = self.noise * (self.kept + passed / self.transmission) * counted * (1 - 1 / self.steps)
        inner = self.fit.inner
        return _Part(
            (self.transmission * (1 - (self.share * self.found).sum(0)))[inner],
            shift[..., *inner],
            amplitudes[..., *inner],
            scatter[..., *inner],
            (misfit / counted.clamp(min=1e-12) * lost).sqrt()[inner],
            (misfit / expected.clamp(min=1e-20))[inner],
            self.valid[inner],
        )


def _maps(parts: list[_Part], reach: Tensor, options: dict[str, Any]) -> Maps:
    """Distances put together: T, u and C are means with the inverse variances of each, at the longest distance."""
    law = LogVisibility(options["periods"], options["order"], options["exponent"])
    azimuths = torch.arange(options["azimuths"], dtype=torch.float64) * math.pi / options["azimuths"]
    channels = law.of_visibility(azimuths)
    low = torch.zeros(6, 3 + len(law), dtype=torch.float64)
    low[0, 0] = low[1, 1] = low[2, 2] = 1
    low[3:, 3:] = law.of_covariance()
    means, variances, curves, errors, valid = [], [], [], [], []
    for part, r in zip(parts, reach.tolist(), strict=True):
        scatter = _full(part.scatter, 3 + len(law))
        unit = torch.tensor([1, r, r, r * r, r * r, r * r], dtype=torch.float64)
        into = (low / unit[:, None]).to(scatter)
        found = torch.cat([part.transmission[None], part.shift, part.amplitudes])
        means.append(torch.einsum("ab,bjk->jka", into, found))
        variances.append((into @ scatter @ into.T).reshape(*found.shape[1:], 6, 6))
        out = channels.to(scatter)
        curves.append(torch.einsum("ab,bjk->jka", out, part.amplitudes))
        variance = torch.einsum("ab,nbc,ac->na", out, scatter[:, 3:, 3:], out).reshape(*found.shape[1:], -1)
        errors.append(torch.where(part.valid[..., None], variance.clamp(min=0).sqrt(), torch.inf))
        valid.append(part.valid)
    mean, variance, anywhere = _combined(means, variances, valid)
    error = torch.where(anywhere[..., None], variance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt(), torch.inf)
    rows, columns = _upper(6)
    matrix = variance[..., rows, columns]
    zero = torch.zeros_like(mean[..., 0])
    reached = [r / period for r in reach.tolist() for period in law.periods]
    steps = torch.stack(valid).sum(0).clamp(min=1)
    return Maps(
        transmission=mean[..., 0],
        displacement=mean[..., 1:3],
        covariance=mean[..., 3:],
        background=zero,
        transmission_error=error[..., 0],
        displacement_error=error[..., 1:3],
        covariance_error=error[..., 3:],
        background_error=torch.where(anywhere, zero, torch.inf),
        residual=torch.stack([part.residual for part in parts]).mean(0),
        valid=anywhere,
        chi2=torch.stack([part.chi2 * part.valid for part in parts]).sum(0) / steps,
        error_matrix=matrix,
        visibility=torch.cat(curves, -1),
        visibility_error=torch.cat(errors, -1),
        azimuths_rad=tuple(azimuths.tolist()),
        correlation_lengths_m=tuple(reached),
    )


def _combined(means: list[Tensor], variances: list[Tensor], valid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Means of (T, u, C) over the distances, each with the inverse of its own variance, and their variances."""
    anywhere = torch.stack(valid).any(0)
    if len(means) == 1:
        mean, variance = means[0], variances[0]
    else:
        shares = [
            torch.where(ok[..., None], 1 / each.diagonal(dim1=-2, dim2=-1).clamp(min=1e-20), 0)
            for each, ok in zip(variances, valid, strict=True)
        ]
        total = torch.stack(shares).sum(0).clamp(min=1e-20)
        shares = [each / total for each in shares]
        mean = torch.stack([share * each for share, each in zip(shares, means, strict=True)]).sum(0)
        spread = [
            share[..., :, None] * each * share[..., None, :] for share, each in zip(shares, variances, strict=True)
        ]
        variance = torch.stack(spread).sum(0)
    return torch.where(anywhere[..., None], mean, 0), torch.where(anywhere[..., None, None], variance, 0), anywhere


class Exponent(NamedTuple):
    """How ``−ln V`` grows with the correlation length; made by `estimate_exponent`.

    Attributes
    ----------
    value, error
        β of ``−ln V ∝ ξ^β`` and its standard error.
    chi2
        Squared deviations from the power law over their expected size, a degree of freedom; None for two lengths, which
        any power law fits.

    Examples
    --------
    >>> Exponent(1.02, 0.03, None).value
    1.02
    """

    value: float
    error: float
    chi2: float | None


def estimate_exponent(maps: Maps) -> Exponent:
    """β of ``−ln V ∝ ξ^β``, from visibilities at several correlation lengths; the exponent of
    `ddf_tomo.DirectionalVisibilityResponse`.

    At each length the visibilities of all valid pixels and azimuths are summed, in which noise averages out before the
    logarithm is taken, and a line is fitted to the logarithms. A mean over pixels and azimuths of one law is that law.

    Parameters
    ----------
    maps
        With `Maps.visibility` at two correlation lengths or more.

    Raises
    ------
    TypeError, ValueError
        If these are no maps, have fewer lengths, or no visibility above its error.

    Examples
    --------
    >>> from ddf_tomo.retrieval.maps import Maps
    >>> one = np.ones((4, 5))
    >>> two, three = np.ones((4, 5, 2)), np.ones((4, 5, 3))
    >>> curve = np.concatenate([0.1 * three, 0.1 * 2**1.5 * three], -1)
    >>> maps = Maps(one, two, three, 0 * one, one, two, three, one, one, one > 0, visibility=curve,
    ...             visibility_error=0.01 * curve, azimuths_rad=(0.0, 1.0, 2.0), correlation_lengths_m=(1e-6, 2e-6))
    >>> round(estimate_exponent(maps).value, 6)
    1.5
    """
    of_kind(Maps, maps, "maps", "ddf_tomo.retrieval.Maps")
    lengths = np.array(maps.correlation_lengths_m or ())
    if maps.visibility is None or len(np.unique(lengths)) < 2:
        hint = "Retrieve with method='visibility' and two periods, or several distances"
        raise ValueError(message("maps", "visibilities at two correlation lengths or more", len(lengths), hint))
    shape = (*maps.transmission.shape, len(lengths), len(maps.azimuths_rad or ()))
    value = np.asarray(maps.visibility, float).reshape(shape)
    error = np.asarray(maps.visibility_error, float).reshape(shape)
    used = np.asarray(maps.valid)[..., None, None] & np.isfinite(error) & np.isfinite(value)
    used = used.all(-2, keepdims=True) & used
    total = np.where(used, value, 0).reshape(-1, *shape[-2:]).sum((0, 2))
    # Neighbouring pixels and azimuths share their noise: the error of a sum is bounded by the sum of the errors.
    doubt = np.where(used, error, 0).reshape(-1, *shape[-2:]).sum((0, 2))
    if not (used.any() and (lengths > 0).all() and (total > doubt).all() and (total > 0).all()):
        raise ValueError(message("maps", "visibility losses above their errors at every length", "others"))
    x, y, sigma = np.log(lengths), np.log(total), np.maximum(doubt / total, 1e-12)
    weight = sigma**-2 / (sigma**-2).sum()
    x, y = x - weight @ x, y - weight @ y
    slope = float((weight * x) @ y / ((weight * x) @ x))
    misfit = float((((y - slope * x) / sigma) ** 2).sum()) / max(len(x) - 2, 1)
    return Exponent(slope, float(((sigma**-2 * x) @ x) ** -0.5), misfit if len(x) > 2 else None)


def calibrated(maps: Maps, wavelength_m: float) -> Maps:
    """The maps with correlation lengths ``λ d / period`` in metres, from a retrieval that knew no wavelength.

    Parameters
    ----------
    maps
        As `ddf_tomo.retrieval.retrieve` gives them with ``method="visibility"`` or ``"periodic"``, pixel size and
        distance.
    wavelength_m
        λ: 1.24e-9 m over the energy in keV.

    Raises
    ------
    TypeError, ValueError
        If these are no maps, or lack visibilities, pixel size or distance.

    Examples
    --------
    >>> one = np.ones((4, 5))
    >>> two, three = np.ones((4, 5, 2)), np.ones((4, 5, 3))
    >>> maps = Maps(one, two, three, 0 * one, one, two, three, one, one, one > 0, 1e-6, 0.5, visibility=two,
    ...             visibility_error=two, azimuths_rad=(0.0, 1.0), correlation_lengths_m=(1 / 8,))
    >>> calibrated(maps, 5e-11).correlation_lengths_m  # 5e-11 m · 0.5 m / (8 · 1e-6 m)
    (3.125e-06,)
    """
    of_kind(Maps, maps, "maps", "ddf_tomo.retrieval.Maps")
    wavelength = number(wavelength_m, "wavelength_m", low=1e-13, high=1e-6)
    for name in ("correlation_lengths_m", "pixel_size_m", "distance_m"):
        if getattr(maps, name) is None:
            raise ValueError(message("maps", f"maps with {name}", None))
    unit = wavelength * float(maps.distance_m or 0) / float(maps.pixel_size_m or 1)
    return replace(maps, correlation_lengths_m=tuple(unit * each for each in maps.correlation_lengths_m or ()))
