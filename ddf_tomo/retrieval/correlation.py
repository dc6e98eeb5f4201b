"""Retrieval by windowed cross-correlation: the simple method, for comparison and as a start for large shifts.

Of all shifts within a search range the one is taken at which sample and shifted reference correlate best, in a window
and over all mask steps, each freed of its mean and normalised; a quadratic through the logarithm of the nine values at
the peak gives the rest of a pixel (X-ray speckle vector tracking: Berujon & Ziegler 2016, Phys. Rev. Appl. 5, 044014).
An isotropic blur follows from the loss of contrast: a Gaussian of variance C takes ``exp(−C q²)`` of the power at q,
so that ``C = −ln(variance ratio) / ⟨q²⟩`` with the mean square frequency of the reference's pattern, to first order.
What noise adds to both variances is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo._checks import check_shape, dense, integer, message, number, of_kind, real_array
from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, FIRST, along, gaussian_taps, window_sum
from ddf_tomo.retrieval._focusing import error_of_slope, focused
from ddf_tomo.retrieval._warped import spline_coefficients, warped
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["METHOD", "peaks"]

LEAST_CORRELATION = 0.2  # of a peak that is believed
OPAQUE = 1e-2  # below this transmission a frame holds no pattern to compare
LARGEST_SEARCH = 64
SPLINE_REACH = 12  # pixels, beyond which the coefficients of a spline feel less than 1e-6 of one
QUADRATIC = 0.015  # pixels: typical error of a quadratic through nine values of the logarithm of a peak
ROUGH = (6.0, -4.0, 1.0)  # fourth difference: what a mask has of it is little beside noise


@dataclass(frozen=True)
class Correlation:
    """The method ``"correlation"`` of `ddf_tomo.retrieval.retrieve`.

    Its options:

    * ``window``: standard deviation in pixels of the Gaussian window (3.0);
    * ``search``: largest shift along either axis, in whole pixels (3). Time grows with its square.

    The covariance of the maps is isotropic, ``(C, 0, C)``. Peaks at the border of the search range, and those below a
    correlation of 0.2, are not valid. Standard errors are those of counting noise (or of the differences of sample and
    reference at high frequencies, where the counts are not known), and of a quadratic that is not quite the shape of
    the peak, 0.015 pixel; they leave out that a blur is not quite a first-order one.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> reference = torch.nn.functional.avg_pool2d(torch.rand(8, 48, 48, generator=generator), 3, 1, 1)
    >>> view = View(0.7 * reference[None].roll(2, -1), reference[None], torch.ones(1, 1, 48, 48), torch.ones(1), 1e5)
    >>> maps = METHOD.fit(view, METHOD.check({}, (1, 8, 48, 48)), int)
    >>> maps.displacement[24, 24].round(decimals=1).abs().tolist()
    [0.0, 2.0]
    """

    options: ClassVar[dict[str, Any]] = {"window": 3.0, "search": 3}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        given = self.options | {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(set(given) - set(self.options)):
            raise ValueError(message(unknown[0], f"one of {', '.join(self.options)}", "another option"))
        smallest, largest = min(shape[-2:]), max(shape[-2:])
        least = 2 * DERIVATIVE_REACH + 1
        if smallest < least:
            raise ValueError(message("sample", f"at least {least} rows and columns", tuple(shape[-2:])))
        return {
            "window": number(given["window"], "window", low=0.5, high=largest),
            "search": integer(given["search"], "search", low=1, high=min(LARGEST_SEARCH, smallest // 2)),
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result."""
        # One window finds the shift, the next one T there, the last one the noise that is left.
        windows = 2 * len(gaussian_taps(options["window"])) + len(gaussian_taps(max(options["window"], 3.0)))
        return int(options["search"]) + windows + 3 * DERIVATIVE_REACH + SPLINE_REACH

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        return 1

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile; gradients do not pass."""
        with torch.no_grad():
            parts = []
            for d in range(len(view.sample)):
                weights = view.weights[d if len(view.weights) > 1 else 0].expand_as(view.sample[d])
                parts.append(_at_one_distance(view.sample[d], view.reference[d], weights, view.counts, options))
                for _ in view.sample[d]:
                    tick()
            return _maps(parts, view.reach, options["window"])


METHOD = Correlation()


class _Part(NamedTuple):
    """Values (T, u_j, u_k, C), their variances, and the rest, at one distance."""

    values: Tensor
    variances: Tensor
    residual: Tensor
    chi2: Tensor
    valid: Tensor


def _moved(frames: Tensor, j: int, k: int, fill: float = 0.0) -> Tensor:
    """``frames(x − (j, k))`` for whole pixels."""
    rows, columns = frames.shape[-2:]
    reach = max(abs(j), abs(k))
    wide = pad(frames, (reach,) * 4, value=fill)
    return wide[..., reach - j : reach - j + rows, reach - k : reach - k + columns]


class _Windows(NamedTuple):
    """Windowed means of both frames, variances about them, and their covariance."""

    sample: Tensor
    reference: Tensor
    sample_power: Tensor
    reference_power: Tensor
    together: Tensor


def _windows(sample: Tensor, reference: Tensor, weights: Tensor, window: float) -> _Windows:
    parts = (weights, weights * sample, weights * reference)
    squares = (parts[1] * sample, parts[2] * reference, parts[1] * reference)
    total, s, r, ss, rr, sr = window_sum(torch.stack([each.sum(0) for each in (*parts, *squares)]), window)
    total = total.clamp(min=1e-12)
    s, r = s / total, r / total
    return _Windows(s, r, ss / total - s * s, rr / total - r * r, sr / total - s * r)


def peaks(
    sample: Tensor, reference: Tensor, weights: Tensor, *, search: int, window: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Where sample and shifted reference correlate best: a start for methods that need to be near.

    Parameters
    ----------
    sample, reference, weights : (step, row, column)
        Frames with and without the sample, and the confidence in each of their pixels.
    search
        Largest shift along either axis, whole pixels.
    window
        Standard deviation in pixels of the Gaussian window.

    Returns
    -------
    displacement : (2, row, column)
        u of ``S(x) ∝ R(x − u)``, in pixels.
    correlation : (row, column)
        At the best whole shift, −1 … 1.
    inside : (row, column)
        False where that is at the border of the search range.

    Raises
    ------
    TypeError, ValueError
        If these are no tensors of one shape, or the numbers are out of range.

    Examples
    --------
    >>> frames = torch.rand(12, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> u, correlation, _ = peaks(frames.roll(2, 1), frames, torch.ones(12, 32, 32), search=3, window=3.0)
    >>> u[:, 16, 16].round().abs().tolist(), correlation[16, 16].item() > 0.9
    ([2.0, 0.0], True)
    """
    for name, each in (("sample", sample), ("reference", reference), ("weights", weights)):
        of_kind(Tensor, each, name)
        real_array(dense(each, name).detach().cpu(), name, (None,) * 3)
        check_shape(tuple(each.shape), name, tuple(sample.shape))
    if 0 in sample.shape:
        raise ValueError(message("sample", "shape (step, row, column) without empty axes", tuple(sample.shape)))
    search = integer(search, "search", low=1, high=min(LARGEST_SEARCH, *sample.shape[-2:]))
    window = number(window, "window", low=0.5, high=1e3)
    sample, reference, weights = (each if each.is_floating_point() else each.float()
                                  for each in (sample, reference, weights))  # fmt: skip
    lags = range(-search, search + 1)
    found = []
    for j in lags:
        for k in lags:
            moved = _windows(sample, _moved(reference, j, k), weights * _moved(weights, j, k), window)
            power = (moved.sample_power * moved.reference_power).clamp(min=0).sqrt()
            found.append(torch.where(power > 0, moved.together / power.clamp(min=1e-20), 0).clamp(-1, 1))
    width = len(lags)
    table = torch.stack(found)
    best, where = table.max(0)
    row, column = where // width, where % width
    inside = (row > 0) & (row < width - 1) & (column > 0) & (column < width - 1)
    row, column = row.clamp(1, width - 2), column.clamp(1, width - 2)

    def at(j: int, k: int) -> Tensor:
        value = table.gather(0, ((row + j) * width + column + k)[None])[0]
        return value.clamp(min=1e-3).log()

    near = {(j, k): at(j, k) for j in (-1, 0, 1) for k in (-1, 0, 1)}
    jj = near[1, 0] - 2 * near[0, 0] + near[-1, 0]
    kk = near[0, 1] - 2 * near[0, 0] + near[0, -1]
    jk = (near[1, 1] + near[-1, -1] - near[1, -1] - near[-1, 1]) / 4
    slope_j, slope_k = (near[1, 0] - near[-1, 0]) / 2, (near[0, 1] - near[0, -1]) / 2
    determinant = jj * kk - jk * jk
    peaked = (jj < 0) & (determinant > 0)
    safe = torch.where(peaked, determinant, 1)
    rest_j = torch.where(peaked, (jk * slope_k - kk * slope_j) / safe, 0).clamp(-1, 1)
    rest_k = torch.where(peaked, (jk * slope_j - jj * slope_k) / safe, 0).clamp(-1, 1)
    return torch.stack([row - search + rest_j, column - search + rest_k]), best, inside & peaked


def _at_one_distance(
    sample: Tensor, reference: Tensor, weights: Tensor, counts: float, options: dict[str, Any]
) -> _Part:
    window = options["window"]
    shift, correlation, inside = peaks(sample, reference, weights, search=options["search"], window=window)
    # T and contrast of each pixel with the part of the reference that belongs to it.
    there = warped(spline_coefficients(reference), shift)
    moved = _windows(sample, there, weights, window)
    bright = moved.sample > OPAQUE * moved.reference
    transmission = torch.where(bright, moved.sample / moved.reference.clamp(min=1e-12), 1)
    noise = _noise(sample / transmission - there, transmission, weights, counts, window)
    if math.isfinite(counts):
        noise = noise * moved.reference
    slopes = torch.stack([along(there, FIRST, axis, odd=True).square().mean(0) for axis in (-2, -1)])
    slopes = window_sum(slopes, window) / window_sum(torch.ones_like(slopes), window)
    rough = 2 * sum(tap * tap for tap in FIRST)
    slopes = (slopes - noise * rough).clamp(min=1e-12)
    before = moved.reference_power - noise
    after = moved.sample_power / transmission.square() - noise / transmission
    known = (before > noise) & (after > 0) & bright & inside & (correlation > LEAST_CORRELATION)
    before, after = torch.where(known, before, 1), torch.where(known, after, 1)
    frequency = slopes.sum(0) / 2 / before  # mean square of q along an axis
    frequency = torch.where(known, frequency, 1)
    blur = torch.where(known, -torch.log(after / before) / (2 * frequency), 0)

    taps = torch.tensor(gaussian_taps(window, unit_sum=False), dtype=sample.dtype)
    along_one = (taps[0] + 2 * taps[1:].sum()) ** 2 / (taps[0] ** 2 + 2 * taps[1:].square().sum())
    counted = weights.mean(0).clamp(min=1e-6) * len(sample) * float(along_one) ** 2  # independent numbers in a window
    both = noise * (1 + 1 / transmission)
    of_shift = both / (counted * slopes) + QUADRATIC**2
    spread = 4 * noise / transmission / after + 4 * noise / before
    spread = spread + 2 * (noise / transmission / after) ** 2 + 2 * (noise / before) ** 2
    of_blur = spread / counted / (2 * frequency) ** 2
    of_transmission = transmission.square() * both / counted / moved.reference.square()
    residual = (moved.sample_power / transmission.square() + moved.reference_power
                - 2 * moved.together / transmission).clamp(min=0)  # fmt: skip
    chi2 = residual / both.clamp(min=1e-20)
    return _Part(
        torch.stack([transmission, *torch.where(known, shift, 0), blur]),
        torch.stack([of_transmission, *of_shift, of_blur]) * chi2.clamp(1, 4),  # what the blur leaves is no noise
        residual.sqrt() / moved.reference.clamp(min=1e-12),
        chi2,
        known,
    )


def _noise(difference: Tensor, transmission: Tensor, weights: Tensor, counts: float, window: float) -> Tensor:
    """Variance of a pixel of the reference; of one of mean 1, where the counts are known."""
    if math.isfinite(counts):
        return torch.full_like(transmission, 1 / counts)
    rough = along(along(difference, ROUGH, -1), ROUGH, -2)
    sums = torch.stack([(weights * rough.square()).sum(0) / 70**2, (weights * (1 + 1 / transmission)).sum(0)])
    power, counted = window_sum(sums, max(window, 3.0))
    return power / counted.clamp(min=1e-12)


def _maps(parts: list[_Part], reach: Tensor, window: float) -> Maps:
    """Distances put together, each with the inverse of its variance, at the longest distance."""
    unit = torch.stack([torch.stack([r**0, r, r, r * r]) for r in reach])[:, :, None, None]
    values, variances = torch.stack([each.values for each in parts]) / unit, torch.stack(
        [each.variances for each in parts]
    ) / unit.square()  # fmt: skip
    valid = torch.stack([each.valid for each in parts])
    share = torch.where(valid[:, None], 1 / variances.clamp(min=1e-20), 0)
    total = share.sum(0)
    anywhere = valid.any(0)
    mean = (share * values).sum(0) / torch.where(anywhere, total, 1)
    variance = torch.where(anywhere, 1 / total.clamp(min=1e-20), torch.inf)
    if len(parts) > 1:
        mean[0], far = focused(values[:, 0], share[:, 0] / total[0].clamp(min=1e-20), mean[1:3], anywhere, reach)
        variance[0] += (mean[0] * far).square() * error_of_slope(variance[1:3], window)
    mean[0] = torch.where(anywhere, mean[0], values[-1, 0])
    error = variance.sqrt()
    zero, infinite = torch.zeros_like(mean[0]), torch.full_like(mean[0], torch.inf)
    blur, doubt = mean[3], error[3]
    counted = valid.sum(0).clamp(min=1)
    return Maps(
        transmission=mean[0],
        displacement=mean[1:3].movedim(0, -1),
        covariance=torch.stack([blur, zero, blur], -1),
        background=zero,
        transmission_error=error[0],
        displacement_error=error[1:3].movedim(0, -1),
        covariance_error=torch.stack([doubt, torch.where(anywhere, doubt, infinite), doubt], -1),
        background_error=torch.where(anywhere, zero, infinite),
        residual=torch.stack([each.residual for each in parts]).mean(0),
        valid=anywhere,
        chi2=torch.stack([each.chi2 * each.valid for each in parts]).sum(0) / counted,
    )
