"""The fit of `ddf_tomo.retrieval.visibility`: Gauss-Newton passes over one distance's frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo.retrieval._filters import erode, gaussian_taps, window_sum
from ddf_tomo.retrieval._log_visibility import LogVisibility, blurred
from ddf_tomo.retrieval._warped import fast_length, frequencies, spline_coefficients, transfers, warped

MARGIN = 24  # pixels that a blur reaches
COARSE = (3.0, 2.0)  # smoothing of the first passes, which find the displacement alone
WIDE = 3.0  # pixels, the least window of the displacement's start and of the noise
OPAQUE = 1e-2  # below this transmission a frame holds no pattern to compare
UNINFORMATIVE = 1e-5  # share of a regressor's square that has to differ from step to step
LEAST_CONTRAST = 0.25  # of the reference, as a share of the contrast of the sample's frames
LARGEST_STEP = 2.0  # pixels that a pass may move


class Part(NamedTuple):
    """Outcome at one distance; channels in front."""

    transmission: Tensor
    shift: Tensor
    amplitudes: Tensor
    scatter: Tensor  # covariance of (T, u, a), upper triangle by rows
    residual: Tensor
    chi2: Tensor
    valid: Tensor


def upper_of(size: int) -> tuple[list[int], list[int]]:
    """Rows and columns of the upper triangle, row by row."""
    pairs = [(a, b) for a in range(size) for b in range(a, size)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def full_of(upper: Tensor, size: int) -> Tensor:
    """Symmetric matrices (n, size, size) from upper triangles (pairs, row, column)."""
    order = torch.zeros(size, size, dtype=torch.long, device=upper.device)
    rows, columns = upper_of(size)
    count = torch.arange(len(rows), device=upper.device)
    order[rows, columns] = order[columns, rows] = count
    return upper.flatten(1).T[:, order.flatten()].reshape(-1, size, size)


class Fit:
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

    def run(self, start: Tensor | None) -> Part:
        options = self.options
        law = LogVisibility(options["periods"], options["order"], options["exponent"])
        simple = LogVisibility(law.periods[:1], 0, 2.0)
        shift = torch.zeros(2, *self.size, dtype=self.sample.dtype, device=self.sample.device)
        if start is not None:
            shift[(slice(None), *self.inner)] = start
        blur = torch.zeros(1, *self.size, dtype=self.sample.dtype, device=self.sample.device)
        for coarse in COARSE:
            smoothing = max(coarse, options["smoothing"])
            step = Pass(self, simple, shift, blur, smoothing, max(WIDE, options["window"]))
            shift, blur = step.improved()
        scale = torch.tensor([(law.periods[0] / period) ** 2 for period in law.periods]).to(shift)
        amplitudes = torch.zeros(len(law), *self.size, dtype=shift.dtype, device=shift.device)
        amplitudes[:: law.order + 1] = scale[:, None, None] * blur.clamp(0, 1)
        for _ in range(options["passes"]):
            step = Pass(self, law, shift, amplitudes, options["smoothing"], options["window"])
            shift, amplitudes = step.improved()
        return step.judged(shift, amplitudes)


class Pass:
    """One linearisation: prediction, its derivatives, and the windowed normal equations."""

    def __init__(
        self, fit: Fit, law: LogVisibility, shift: Tensor, amplitudes: Tensor, smoothing: float, window: float
    ) -> None:
        self.fit, self.law, self.shift, self.amplitudes = fit, law, shift, amplitudes
        self.window, self.smoothing = window, smoothing
        f_j, f_k = fit.frequencies
        smooth = torch.exp(-2 * (math.pi * smoothing) ** 2 * (f_j**2 + f_k**2))
        self.moved = warped(fit.spline, shift)
        self.prediction = blurred(torch.fft.rfft2(self.moved) * smooth, law, amplitudes, smoothing)
        self.sample = torch.fft.irfft2(torch.fft.rfft2(fit.sample) * smooth, s=fit.size)
        self.transfers = transfers(self._filters, *fit.size, shift)
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

    def _filters(self, f_j: Tensor, f_k: Tensor) -> Tensor:
        slopes = torch.stack(torch.broadcast_tensors(-2j * math.pi * f_j, -2j * math.pi * f_k))
        return torch.cat([slopes, -self.law.at(f_j, f_k)])

    def _derivatives(self, frame: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(frame) * self.transfers, s=self.fit.size)

    def _gather(self, maps: Tensor) -> Tensor:
        return window_sum(maps * self.weight, self.window)

    def _solve(self, pp: Tensor) -> None:
        w, size = self.fit.weights, len(self.transfers)
        rows, columns = upper_of(size)
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
        matrix, noisy = full_of(normal, size) * both, full_of(spread, size) * both
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
        for entry, a, b in zip(upper, *upper_of(len(vector)), strict=True):
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
        rows, columns = upper_of(len(g))
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

    def judged(self, shift: Tensor, amplitudes: Tensor) -> Part:
        """What was found, with errors from the scatter of the steps."""
        w, size = self.fit.weights, len(self.found) + 1
        rows, columns = upper_of(size)
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
        return Part(
            (self.transmission * (1 - (self.share * self.found).sum(0)))[inner],
            shift[..., *inner],
            amplitudes[..., *inner],
            scatter[..., *inner],
            (misfit / counted.clamp(min=1e-12) * lost).sqrt()[inner],
            (misfit / expected.clamp(min=1e-20))[inner],
            self.valid[inner],
        )
