"""Retrieval for gratings and periodic masks: visibility and phase of each harmonic, from one frame or from steps.

A periodic pattern is a sum of a few waves, ``I_m(x) = Σ_h c_h exp(i(q_h x + ψ_mh))``, h = 0 the mean; moving the mask
only turns the phases ψ. Sample and reference differ by ``ρ_h = c_h / c_h^ref = T V(q_h) exp(−i q_h u)``. The amplitudes
are those of least squares in a Gaussian window over pixels *and* steps together. One window holds both known limits:
with a single frame it has to be some periods wide, to tell the waves apart (Fourier analysis: Takeda et al. 1982,
J. Opt. Soc. Am. 72, 156); with steps that turn the phases apart by themselves it may be a pixel (phase stepping).

The waves are found in the spectrum of the reference, or given by their periods; the phases of the steps are read off
the reference, so that they need neither be even nor known. From the ρ_h follow T, u (phases, to half a period), −ln V
at the azimuth and the period of each harmonic, and C of ``−ln V = ½ qᵀCq``, weighted by their errors. A grating of one
direction tells u and C across its lines only: of both the part across is given, with infinite errors on the other axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import NOT_NUMBERS, check_shape, dense, integer, message, number, of_kind, real_array
from ddf_tomo.retrieval._filters import gaussian_taps, window_sum
from ddf_tomo.retrieval._focusing import error_of_slope, focused
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["METHOD", "find_waves"]

LONGEST, SHORTEST = 64.0, 2.2  # periods in pixels
WEAKEST = 0.02  # amplitude of a wave, relative to the strongest, that is used
ABOVE_NOISE = 30.0  # power of a peak over the median of the spectrum
SEPARATION = 3.0  # bins of the spectrum
WORST_CONDITION = 1e4
ALIKE_AZIMUTH, ALIKE_LENGTH = math.radians(2), 0.03
SURE = 5.0  # errors that an amplitude has to be above zero
WHOLE_IMAGE = 1 << 20


@dataclass(frozen=True)
class Periodic:
    """The method ``"periodic"`` of `ddf_tomo.retrieval.retrieve`, for gratings and periodic masks.

    Its options:

    * ``window``: standard deviation in pixels of the Gaussian window; by default half the longest period. Steps allow
      less; a single frame of a mask with near harmonics may want more;
    * ``waves``: frequencies ``(harmonic, 2)`` along j and k, in cycles a pixel. By default they are looked for in the
      spectrum of the reference, over the whole image;
    * ``harmonics``: how many waves to look for at most (4).

    ``visibility`` has a channel for each correlation length and azimuth that occurs; combinations that are no harmonic
    have an infinite error. Lengths are in units of λ d / pixel at the longest distance, see
    `ddf_tomo.retrieval.visibility.calibrated`.

    Examples
    --------
    >>> k = torch.arange(64.0)
    >>> def frame(visibility, shift):
    ...     return (1 + visibility * torch.cos(2 * torch.pi * (k - shift) / 8)).expand(1, 1, 64, 64)
    >>> view = View(0.5 * frame(0.2, 0.7), frame(0.4, 0.0), torch.ones(1, 1, 64, 64), torch.ones(1), 1e4)
    >>> maps = METHOD.fit(view, METHOD.check({}, (1, 1, 64, 64)), int)
    >>> print(f"{maps.displacement[32, 32, 1]:.3f}, {maps.visibility[32, 32, 0]:.3f} = ln 2")
    0.700, 0.693 = ln 2
    """

    options: ClassVar[dict[str, Any]] = {"window": None, "waves": None, "harmonics": 4}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        given = self.options | {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(set(given) - set(self.options)):
            raise ValueError(message(unknown[0], f"one of {', '.join(self.options)}", "another option"))
        if min(shape[-2:]) < 16:
            raise ValueError(message("sample", "at least 16 rows and columns", tuple(shape[-2:])))
        waves = given["waves"]
        if waves is not None:
            try:
                waves = np.atleast_2d(np.asarray(waves, float))
            except NOT_NUMBERS as error:
                raise TypeError(message("waves", "frequencies (harmonic, 2)", repr(waves))) from error
            check_shape(waves.shape, "waves", (None, 2))
            size = np.hypot(*waves.T)
            if not (len(waves) and (size >= 1 / LONGEST).all() and (size <= 1 / SHORTEST).all()):
                expected = f"frequencies of {1 / LONGEST:.3g} to {1 / SHORTEST:.3g} cycles a pixel"
                raise ValueError(message("waves", expected, waves.tolist()))
            waves = tuple(tuple(each) for each in waves.tolist())
        window = given["window"]
        return {
            "window": None if window is None else number(window, "window", low=0.5, high=max(shape[-2:])),
            "waves": waves,
            "harmonics": integer(given["harmonics"], "harmonics", low=1, high=16),
            "several": shape[-3] > 1,
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result: all, where waves or phases of steps are to be found."""
        if options["waves"] is None or options["several"]:
            return WHOLE_IMAGE
        return 2 * len(gaussian_taps(_window(options["window"], torch.tensor(options["waves"]))))

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        return 1

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view or tile; gradients do not pass."""
        with torch.no_grad():
            given = options["waves"]
            waves = find_waves(view.reference[-1], options["harmonics"]) if given is None else torch.tensor(given)
            waves = waves.to(view.sample)
            window = _window(options["window"], waves)
            parts = []
            for d in range(len(view.sample)):
                weights = view.weights[d if len(view.weights) > 1 else 0]
                parts.append(_demodulated(view.sample[d], view.reference[d], weights, view.counts, waves, window))
                for _ in view.sample[d]:
                    tick()
            return _maps(parts, view.reach, waves, window)


METHOD = Periodic()


def _window(window: float | None, waves: Tensor) -> float:
    return 0.5 / float(torch.linalg.norm(waves, dim=1).min()) if window is None else window


def find_waves(reference: Tensor, most: int = 4) -> Tensor:
    """The strongest waves of a periodic pattern.

    Peaks of the mean power spectrum of the frames under a Hann window that stand out from it, refined to the
    frequency at which the windowed sum is largest.

    Parameters
    ----------
    reference : (step, row, column)
        Frames without the sample.
    most
        How many waves at most.

    Returns
    -------
    waves : (harmonic, 2)
        Frequencies along j and k in cycles a pixel, in the half plane of positive k (or of positive j for k = 0), the
        strongest first; float64.

    Raises
    ------
    TypeError, ValueError
        If these are no frames of at least 16² pixels, or no peak stands out: the mask is not periodic, or its period is
        beyond 2.2 to 64 pixels.

    Examples
    --------
    >>> j, k = torch.meshgrid(torch.arange(48.0), torch.arange(60.0), indexing="ij")
    >>> find_waves(1 + 0.3 * torch.cos(0.6 * j + 0.7 * k)[None], 1).mul(2 * torch.pi).round(decimals=3).tolist()
    [[0.6, 0.7]]
    """
    of_kind(Tensor, reference, "reference")
    real_array(dense(reference, "reference").detach().cpu(), "reference", (None,) * 3)
    if len(reference) == 0 or min(reference.shape[-2:]) < 16:
        raise ValueError(message("reference", "frames (step, row, column) of 16 rows and columns", reference.shape))
    most = integer(most, "most", low=1, high=64)
    frames = reference.detach().double()
    frames = frames / frames.abs().amax().clamp(min=1e-300)  # so that no square leaves its range
    rows, columns = frames.shape[-2:]
    hann = torch.hann_window(rows, dtype=torch.float64, device=frames.device)[:, None]
    hann = hann * torch.hann_window(columns, dtype=torch.float64, device=frames.device)
    frames = (frames - (frames * hann).sum((1, 2), keepdim=True) / hann.sum()) * hann
    power = torch.fft.fft2(frames).abs().square().mean(0)
    f_j, f_k = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in (rows, columns)), indexing="ij")
    f_j, f_k = f_j.to(power.device), f_k.to(power.device)
    size = torch.hypot(f_j, f_k)
    wanted = (size >= 1 / LONGEST) & (size <= 1 / SHORTEST) & (torch.hypot(f_j * rows, f_k * columns) > SEPARATION)
    half = wanted & ((f_k > 0) | ((f_k == 0) & (f_j > 0)))
    floor = ABOVE_NOISE * power[wanted].median() if wanted.any() else power.max()
    left = torch.where(half, power, 0)
    waves: list[Tensor] = []
    strongest = float(left.max())
    while len(waves) < most:
        place = int(left.argmax())
        peak = float(left.flatten()[place])
        if peak <= float(floor) or peak < WEAKEST**2 * strongest or peak == 0:
            break
        near = torch.stack([f_j.flatten()[place], f_k.flatten()[place]])
        waves.append(_refined(frames, near))
        for sign in (1, -1):  # its mirror image reaches over the edge of the half plane
            # Waves beyond half a cycle a pixel come back on the other side: distances on the torus.
            apart = [(f - sign * f0 + 0.5).remainder(1) - 0.5 for f, f0 in ((f_j, near[0]), (f_k, near[1]))]
            left[torch.hypot(apart[0] * rows, apart[1] * columns) <= SEPARATION] = 0
    if not waves:
        hint = "For masks without a period there are other methods"
        raise ValueError(message("reference", "a periodic pattern, of periods from 2.2 to 64 pixels", "none", hint))
    return torch.stack(waves)


def _refined(frames: Tensor, wave: Tensor) -> Tensor:
    """The frequency near by at which ``|Σ_x I(x) exp(−iqx)|²``, summed over the frames, is largest."""
    rows, columns = frames.shape[-2:]
    j = torch.arange(rows, dtype=torch.float64, device=frames.device)
    k = torch.arange(columns, dtype=torch.float64, device=frames.device)

    def power(f: Tensor) -> float:
        over_k = frames.to(torch.complex128) @ torch.exp(-2j * math.pi * f[1] * k)
        return float((over_k @ torch.exp(-2j * math.pi * f[0] * j)).abs().square().sum())

    best = power(wave)
    step = torch.tensor([0.5 / rows, 0.5 / columns], dtype=torch.float64, device=frames.device)
    for _ in range(8):
        # A parabola along either axis, on the logarithm: the spectrum of a Hann window is near to a Gaussian's.
        for axis in (0, 1):
            move = torch.zeros_like(step)
            move[axis] = step[axis]
            low, high = power(wave - move), power(wave + move)
            curve = math.log(max(low, 1e-300)) - 2 * math.log(max(best, 1e-300)) + math.log(max(high, 1e-300))
            slope = 0.5 * (math.log(max(high, 1e-300)) - math.log(max(low, 1e-300)))
            if curve < 0:
                tried = wave + move * max(-1.0, min(1.0, -slope / curve))
                if (value := power(tried)) > best:
                    wave, best = tried, value
        step = step / 3
    return wave


class _Part(NamedTuple):
    """At one distance: T, and of each harmonic the phase of ρ and −ln V, with variances."""

    transmission: Tensor
    phase: Tensor
    curve: Tensor
    of_transmission: Tensor
    of_phase: Tensor
    of_curve: Tensor
    residual: Tensor
    chi2: Tensor
    known: Tensor  # (harmonic, row, column)


def _transform(waves: Tensor, sigma: float) -> Tensor:
    """Fourier transforms of the window and of its square at frequencies (..., 2)."""
    taps = torch.tensor(gaussian_taps(sigma, unit_sum=False), dtype=torch.float64, device=waves.device)
    lag = torch.arange(1, len(taps), dtype=torch.float64, device=waves.device)
    found = []
    for each in (taps, taps.square()):
        one = each[0] + 2 * (each[1:] * torch.cos(2 * math.pi * waves.double()[..., None] * lag)).sum(-1)
        found.append(one.prod(-1))
    return torch.stack(found)


def _demodulated(
    sample: Tensor, reference: Tensor, weights: Tensor, counts: float, waves: Tensor, window: float
) -> _Part:
    rows, columns = sample.shape[-2:]
    steps = len(sample)
    every = torch.cat([torch.zeros_like(waves[:1]), waves, -waves])
    j = torch.arange(rows, dtype=sample.dtype, device=sample.device)[:, None]
    k = torch.arange(columns, dtype=sample.dtype, device=sample.device)
    carriers = torch.exp(-2j * math.pi * (every[:, 0, None, None] * j + every[:, 1, None, None] * k))
    weights = weights.expand_as(sample)
    turned = _turns(reference, carriers, len(waves))  # (step, wave): exp(iψ)

    spatial = _transform(every[None] - every[:, None], window)
    together = turned.conj().T @ turned / steps
    normal, squared = (together.to(torch.complex128) * each for each in spatial)
    condition = float(torch.linalg.cond(normal))
    if not condition < WORST_CONDITION:
        hint = "Take a wider window, more steps, or fewer harmonics"
        found = f"waves that a window of {window:g} pixels cannot tell apart"
        raise ValueError(message("window", "one that tells the waves apart", found, hint))
    inverse = torch.linalg.inv(normal)
    spread = (inverse @ squared @ inverse).diagonal().real.clamp(min=0).to(sample)
    inverse = inverse.to(carriers.dtype)

    total = window_sum(weights.mean(0)[None], window)[0]
    full = float(_transform(torch.zeros(2, device=sample.device), window)[0])
    coverage = (total / full).clamp(min=1e-6)

    def amplitudes(frames: Tensor) -> Tensor:
        """The c_h exp(iq_h x), (1 + 2 harmonic, row, column)."""
        mixed = torch.einsum("mjk,mh->hjk", (weights * frames).to(carriers.dtype), turned.conj()) / steps * carriers
        sums = torch.complex(window_sum(mixed.real, window), window_sum(mixed.imag, window)) / coverage
        return torch.einsum("hg,gjk->hjk", inverse, sums * carriers.conj())

    s, r = amplitudes(sample), amplitudes(reference)
    bright = (r[0].real > 0) & (s[0].real > 1e-2 * r[0].real) & (coverage > 0.3)
    level = torch.where(bright, r[0].real, 1)
    transmission = torch.where(bright, s[0].real / level, 1)
    left = [
        (weights * (frames - torch.einsum("hjk,mh->mjk", found, turned).real)).square().sum(0)
        for frames, found in ((sample, s), (reference, r))
    ]
    free = max(1 - len(every) * float(spatial[1, 0, 0] / spatial[0, 0, 0] ** 2) / steps, 0.1)
    scatter = [window_sum(each[None], window)[0] / (steps * free * full * coverage) for each in left]
    if math.isfinite(counts):
        variances = [transmission * level / counts, level / counts]
    else:
        variances = [each.clamp(min=1e-12) for each in scatter]
    noise = [each[None] * spread[:, None, None] / (steps * coverage) for each in variances]

    h = slice(1, 1 + len(waves))
    power_s, power_r = s[h].abs().square(), r[h].abs().square()
    known = bright & (power_r > SURE**2 * noise[1][h]) & (power_s > noise[0][h])
    ratio = torch.where(known, s[h] / torch.where(known, r[h], 1), 1)
    relative = 0.5 * torch.where(known, noise[0][h] / power_s.clamp(min=1e-30) + noise[1][h] / power_r, 0)
    of_transmission = noise[0][0] / level.square() + transmission.square() * noise[1][0] / level.square()
    chi2 = (scatter[0] / variances[0] + scatter[1] / variances[1]) / 2
    return _Part(
        transmission,
        torch.angle(ratio),
        torch.where(known, torch.log(transmission) - torch.log(ratio.abs()), 0),
        of_transmission,
        relative,
        relative + torch.where(known, of_transmission / transmission.square(), 0),
        scatter[0].sqrt() / level,
        chi2,
        known,
    )


def _turns(reference: Tensor, carriers: Tensor, count: int) -> Tensor:
    """exp(iψ) of each step and wave, relative to the first step, from the reference under a Hann window."""
    hann = torch.hann_window(reference.shape[-2], dtype=reference.dtype, device=reference.device)[:, None]
    hann = hann * torch.hann_window(reference.shape[-1], dtype=reference.dtype, device=reference.device)
    centred = (reference - (reference * hann).sum((1, 2), keepdim=True) / hann.sum()) * hann
    sums = torch.einsum("mjk,hjk->mh", centred.to(carriers.dtype), carriers[1 : 1 + count])
    turn = sums * sums[:1].conj()
    turn = turn / turn.abs().clamp(min=1e-30)
    return torch.cat([torch.ones_like(turn[:, :1]), turn, turn.conj()], 1)


def _solved(design: Tensor, values: Tensor, variances: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares per pixel: unknowns and variances ``(unknown, row, column)``, infinite if undetermined.

    ``design`` (datum, unknown); the others (datum, row, column).
    """
    weight = torch.where(known, 1 / variances.clamp(min=1e-20), 0)
    matrix = torch.einsum("na,njk,nb->jkab", design, weight, design).double()
    right = torch.einsum("na,njk->jka", design, weight * values).double()
    size, vectors = torch.linalg.eigh(matrix)
    kept = size > 1e-6 * size[..., -1:].clamp(min=1e-300)
    inverse = torch.where(kept, 1 / torch.where(kept, size, 1), 0)
    found = vectors @ (inverse * (vectors.mT @ right[..., None])[..., 0])[..., None]
    variance = (vectors.square() * inverse[..., None, :]).sum(-1)
    # The shortest solution: it lies in what the data see, and is told of the axes that lie mostly in it.
    unseen = (vectors.square() * (~kept)[..., None, :]).sum(-1) > 0.5
    variance = torch.where(unseen, torch.inf, variance)
    found = torch.where(unseen, 0, found[..., 0])
    return found.movedim(-1, 0).to(values), variance.movedim(-1, 0).to(values)


def _groups(values: list[float], alike: Callable[[float, float], bool]) -> tuple[list[float], list[int]]:
    """Distinct values in rising order, and to which of them each belongs."""
    kept: list[float] = []
    for value in sorted(values):
        if not any(alike(value, each) for each in kept):
            kept.append(value)
    return kept, [next(n for n, each in enumerate(kept) if alike(value, each)) for value in values]


def _maps(parts: list[_Part], reach: Tensor, waves: Tensor, window: float) -> Maps:
    reaches = reach.tolist()
    q = 2 * math.pi * waves
    gradient = torch.cat([-r * q for r in reaches])
    quadratic = torch.stack([0.5 * q[:, 0] ** 2, q[:, 0] * q[:, 1], 0.5 * q[:, 1] ** 2], 1)
    quadratic = torch.cat([r * r * quadratic for r in reaches])
    known = torch.cat([each.known for each in parts])
    phase, curve = torch.cat([each.phase for each in parts]), torch.cat([each.curve for each in parts])
    of_phase, of_curve = torch.cat([each.of_phase for each in parts]), torch.cat([each.of_curve for each in parts])
    shift, of_shift = _solved(gradient, phase, of_phase, known)
    blur, of_blur = _solved(quadratic, curve, of_curve, known)
    share = torch.stack([1 / each.of_transmission.clamp(min=1e-20) for each in parts])
    seen = torch.stack([each.transmission for each in parts])
    valid, of_transmission = known.any(0), 1 / share.sum(0)
    transmission = (share * seen).sum(0) * of_transmission
    if len(parts) > 1:
        transmission, far = focused(seen, share * of_transmission, shift, valid, reach)
        noise = torch.where(torch.isfinite(of_shift), of_shift, 0)  # across a grating's lines only
        of_transmission = of_transmission + (transmission * far).square() * error_of_slope(noise, window)

    angles = torch.atan2(waves[:, 1], waves[:, 0]).remainder(math.pi).double().tolist()
    angles = [angle - math.pi if math.pi - angle < ALIKE_AZIMUTH / 2 else angle for angle in angles]
    lengths = [r * size for r in reaches for size in torch.linalg.norm(waves, dim=1).double().tolist()]
    azimuths, which = _groups(angles, lambda a, b: abs(a - b) < ALIKE_AZIMUTH)
    distinct, where = _groups(lengths, lambda a, b: abs(a - b) < ALIKE_LENGTH * max(a, b))
    shape = (*transmission.shape, len(distinct) * len(azimuths))
    weights, sums = torch.zeros(shape).to(curve), torch.zeros(shape).to(curve)
    for n, length in enumerate(where):
        channel = length * len(azimuths) + which[n % len(waves)]
        weight = torch.where(known[n], 1 / of_curve[n].clamp(min=1e-20), 0)
        weights[..., channel] += weight
        sums[..., channel] += weight * curve[n]
    seen = weights > 0
    safe = torch.where(seen, weights, 1)
    zero = torch.zeros_like(transmission)

    def error(variance: Tensor) -> Tensor:
        return torch.where(valid, variance.clamp(min=0).sqrt(), torch.inf)

    return Maps(
        transmission=transmission,
        displacement=shift.movedim(0, -1),
        covariance=blur.movedim(0, -1),
        background=zero,
        transmission_error=error(of_transmission),
        displacement_error=error(of_shift).movedim(0, -1),
        covariance_error=error(of_blur).movedim(0, -1),
        background_error=torch.where(valid, zero, torch.inf),
        residual=torch.stack([each.residual for each in parts]).mean(0),
        valid=valid,
        chi2=torch.stack([each.chi2 for each in parts]).mean(0),
        visibility=torch.where(seen, sums / safe, 0),
        visibility_error=torch.where(seen, safe.rsqrt(), torch.inf),
        azimuths_rad=tuple(azimuths),
        correlation_lengths_m=tuple(distinct),
    )
