"""Random media that scatter: fibres too fine to be seen, as phase screens and as the scattering functions they have.

The link between the two is ``f(q̂) = (1/4π) ∫ Φ(q q̂) q³ dq`` with the power spectrum Φ of the refractive decrement, and
the second moment ``Θ_ab = ∫dl (1/π) ∮ e_a e_b f(e(φ)) dφ`` of `ddf_tomo.SecondMomentResponse`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import message, number, real_array
from ddf_tomo.acquisition._inputs import Seed, frame_shape, generator, length, real_map

AZIMUTHS = 16  # of the screens that `scattering_screen` mixes
ELONGATION = 4.0  # of their grains
FEWEST_PIXELS = 2.0  # of a correlation length, for a screen without steps of phase
STEEPEST_RAD = 0.6  # a pixel, root mean square: at three times as much the intensity leaves Nyquist's limit
CIRCLE = 720  # points of the sum over azimuths: exact to rounding for smooth f


@dataclass(frozen=True)
class FibrousMedium:
    """A medium of many elongated grains: a Gaussian random decrement δ with the autocorrelation of a fibre.

    ``B(r) = δ_rms² exp(−½ (r∥²/l² + r⊥²/w²))`` with r∥ along the fibres. Everything that follows from it is known in
    closed form, far beyond the second moment.

    Attributes
    ----------
    delta_rms
        Standard deviation of the refractive decrement.
    length_m, width_m
        Correlation lengths l along the fibres and w across.
    direction
        Of the fibres, (j, k, p) in the frame of the view, of any length; p is the beam.

    Examples
    --------
    >>> fibres = FibrousMedium(delta_rms=1e-6, length_m=6e-6, width_m=2e-6, direction=(0.0, 1.0, 0.0))
    >>> jj, jk, kk = fibres.second_moment(thickness_m=1e-3).tolist()
    >>> round(jj / kk, 6)  # across the fibres it scatters more
    9.0
    """

    delta_rms: float
    length_m: float
    width_m: float
    direction: tuple[float, float, float] = (1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta_rms", number(self.delta_rms, "delta_rms", low=0, high=0.1))
        for name in ("length_m", "width_m"):
            object.__setattr__(self, name, number(getattr(self, name), name, low=1e-10, high=1e-2))
        axis = real_array(self.direction, "direction", (3,))
        largest = abs(axis).max()
        if largest == 0:
            raise ValueError(message("direction", "a vector that is not zero", self.direction))
        axis = axis / largest
        unit = tuple(float(entry) for entry in axis / math.hypot(*axis))
        object.__setattr__(self, "direction", unit)

    def scattering(self, directions: Tensor) -> Tensor:
        """``f(q̂) = (1/4π) ∫ Φ(q q̂) q³ dq`` for unit vectors ``directions`` of shape ``(..., 3)``, (j, k, p); rad²/m."""
        unit = real_map(directions, "directions", 1, dtype=torch.float64)
        if unit.shape[-1] != 3:
            raise ValueError(message("directions", "shape (..., 3)", tuple(unit.shape)))
        along = (unit @ torch.tensor(self.direction, dtype=torch.float64)).clamp(-1, 1) ** 2
        width = along * self.length_m**2 + (1 - along) * self.width_m**2  # Φ falls as exp(−½ q² width)
        strength = self.delta_rms**2 * (2 * math.pi) ** 1.5 * self.length_m * self.width_m**2
        return strength / (2 * math.pi * width**2)

    def second_moment(self, thickness_m: float) -> Tensor:
        """Θ = (Θ_jj, Θ_jk, Θ_kk) in rad² behind ``thickness_m``, from `scattering` by a sum over azimuths; ``(3,)``."""
        azimuth = torch.arange(CIRCLE, dtype=torch.float64) * (2 * math.pi / CIRCLE)
        j, k = azimuth.cos(), azimuth.sin()
        f = self.scattering(torch.stack([j, k, torch.zeros_like(j)], -1))
        return torch.stack([j * j * f, j * k * f, k * k * f]).mean(1) * 2 * length(thickness_m, "thickness_m")

    def visibility_exponent(self, separation_m: Tensor, thickness_m: float, wavelength_m: float) -> Tensor:
        """``−ln V`` at any distance: ``k² L (P(0) − P(r))`` with the autocorrelation P projected along the beam.

        Parameters
        ----------
        separation_m
            ``r = λ d f`` for a fringe of frequency f at distance d, ``(..., 2)``, (j, k).
        thickness_m
            Of the medium, L.
        wavelength_m
            Of the wave, 2π/k.
        """
        r = real_map(separation_m, "separation_m", 1, dtype=torch.float64)
        if r.shape[-1] != 2:
            raise ValueError(message("separation_m", "shape (..., 2)", tuple(r.shape)))
        across = torch.linalg.inv(self._correlation()[:2, :2])
        shape = -torch.expm1(-0.5 * torch.einsum("...a,ab,...b->...", r, across, r))
        return self._phase_variance(thickness_m, wavelength_m) * shape

    def phase_screen(
        self,
        shape: Sequence[int],
        pixel_size_m: float,
        thickness_m: float,
        wavelength_m: float,
        *,
        seed: Seed = 0,
    ) -> Tensor:
        """Phase in rad of a wave behind the medium, ``(rows, columns)``, float64, periodic; the mean phase is left out.

        Parameters
        ----------
        shape
            ``(rows, columns)``.
        pixel_size_m
            Half of the smaller correlation length or less, and so fine that the phase turns by 0.6 rad a pixel at most
            (root mean square).
        thickness_m
            Of the medium, many times the correlation length along the beam. Thin slices of it, one after the other with
            propagation between them (`ddf_tomo.acquisition.multislice`), are screens of their own with other seeds.
        wavelength_m
            Of the wave.
        seed
            A number or a `torch.Generator`.
        """
        pixel = number(pixel_size_m, "pixel_size_m", low=1e-10, high=1)
        variance = self._phase_variance(thickness_m, wavelength_m)
        _resolved(self.second_moment(thickness_m), pixel, 2 * math.pi / wavelength_m)
        return _gaussian_field(frame_shape(shape), pixel, self._correlation()[:2, :2], generator(seed)) * variance**0.5

    def _correlation(self) -> Tensor:
        """The matrix Σ of ``B(r) = δ² exp(−½ rᵀ Σ⁻¹ r)``."""
        axis = torch.tensor(self.direction, dtype=torch.float64)
        isotropic = self.width_m**2 * torch.eye(3, dtype=torch.float64)
        return isotropic + (self.length_m**2 - self.width_m**2) * torch.outer(axis, axis)

    def _phase_variance(self, thickness_m: Any, wavelength_m: Any) -> float:
        correlation = self._correlation()
        thickness = length(thickness_m, "thickness_m")
        k = 2 * math.pi / number(wavelength_m, "wavelength_m", low=1e-13, high=1e-3)
        deep = math.sqrt(2 * math.pi * float(torch.linalg.det(correlation) / torch.linalg.det(correlation[:2, :2])))
        variance = k**2 * self.delta_rms**2 * deep * thickness
        if variance > 1e4:
            raise ValueError(message("thickness_m", "a medium that keeps some order in the wave", f"{variance:g} rad²"))
        return variance


def scattering_screen(
    second_moment_rad2: Tensor,
    pixel_size_m: float,
    wavelength_m: float,
    correlation_length_m: float,
    *,
    seed: Seed = 0,
) -> Tensor:
    """A random phase that scatters as a map says: the covariance of its gradient over k is Θ(x) everywhere.

    Screens of elongated grains along 16 azimuths, and one of round grains, are mixed with weights that give Θ exactly
    in each pixel. So a simulated volume's maps become waves, and the blur of their frames is nobody's model.

    Parameters
    ----------
    second_moment_rad2
        ``(rows, columns, 3)``, (Θ_jj, Θ_jk, Θ_kk) in rad², positive semidefinite. It varies over lengths well above the
        correlation length.
    pixel_size_m
        Of the map and of the screen; half of the correlation length or less, and so fine that the phase turns by
        0.6 rad a pixel at most (root mean square): ``k s √Θ``.
    wavelength_m
        Of the wave.
    correlation_length_m
        Across the grains; they are four times as long. ``C ∝ d²`` holds while ``λ d f`` stays below a third of it.
    seed
        A number or a `torch.Generator`.

    Returns
    -------
    Tensor
        Phase in rad, ``(rows, columns)``, float64, periodic where the map is.

    Raises
    ------
    ValueError
        Where Θ is indefinite, or more anisotropic than grains of this elongation scatter: its smaller eigenvalue must
        be at least a thirteenth of the larger one.

    Examples
    --------
    >>> theta = torch.tensor([4e-12, 1e-12, 2e-12]).expand(128, 128, 3)
    >>> phase = scattering_screen(theta, 1e-6, 5e-11, 4e-6)
    >>> slope = (phase.roll(-1, 0) - phase.roll(1, 0)) / 2e-6 * 5e-11 / (2 * torch.pi)
    >>> bool(abs(slope.var() / 4e-12 - 1) < 0.15)
    True
    """
    theta = real_map(second_moment_rad2, "second_moment_rad2", 3, dtype=torch.float64).detach()
    device, theta = theta.device, theta.cpu()  # drawn there, so that a seed means the same everywhere
    if theta.ndim != 3 or theta.shape[-1] != 3:
        raise ValueError(message("second_moment_rad2", "shape (rows, columns, 3)", tuple(theta.shape)))
    shape = frame_shape(theta.shape[:2], "second_moment_rad2")
    pixel = number(pixel_size_m, "pixel_size_m", low=1e-10, high=1)
    k = 2 * math.pi / number(wavelength_m, "wavelength_m", low=1e-13, high=1e-3)
    width = number(correlation_length_m, "correlation_length_m", low=1e-10, high=1e-2)
    random = generator(seed)
    _resolved(theta, pixel, k)
    phase = torch.zeros(shape, dtype=torch.float64)
    for share, correlation in _mixture(theta, width):
        if bool(share.any()):
            phase += share.sqrt() * _gaussian_field(shape, pixel, correlation, random)
    return (phase * (k * width)).to(device)


def _mixture(theta: Tensor, width: float) -> Any:
    """Weights ``(rows, columns)`` of screens, and these screens' correlations, whose slopes add up to Θ."""
    jj, jk, kk = theta.unbind(-1)
    trace, c, s = jj + kk, jj - kk, 2 * jk  # the anisotropic part is a vector at twice the azimuth
    slack = 1e-9 * float(trace.abs().max())
    if bool((torch.hypot(c, s) > trace + slack).any()):
        worst = float((torch.hypot(c, s) - trace).max())
        raise ValueError(
            message("second_moment_rad2", "positive semidefinite tensors", f"an eigenvalue {-worst / 2:g}")
        )
    sharp = (1 - ELONGATION**-2) / (1 + ELONGATION**-2)  # |(c, s)| over trace of one screen
    step = 2 * math.pi / AZIMUTHS  # of twice the azimuth
    place = torch.atan2(s, c).remainder(2 * math.pi) / step
    lower = place.floor()
    size = torch.hypot(c, s) / sharp
    first = size * torch.sin((lower + 1 - place) * step) / math.sin(step)
    second = size * torch.sin((place - lower) * step) / math.sin(step)
    rest = trace - first - second
    if bool((rest < -slack).any()):
        found = float((torch.hypot(c, s) / trace.clamp(min=1e-300)).max())
        limit = sharp * math.cos(step / 2)
        hint = "Of the eigenvalues, difference over sum; blur the map, or add an isotropic part"
        raise ValueError(message("second_moment_rad2", f"an anisotropy up to {limit:.3f}", f"{found:.3f}", hint))
    unit = torch.eye(2, dtype=torch.float64)
    yield rest.clamp(min=0) / 2, width**2 * unit
    for index in range(AZIMUTHS):
        share = torch.where(lower % AZIMUTHS == index, first, 0) + torch.where(
            (lower + 1) % AZIMUTHS == index, second, 0
        )
        angle = index * step / 2
        across = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        correlation = width**2 * (ELONGATION**2 * unit - (ELONGATION**2 - 1) * torch.outer(across, across))
        yield share / (1 + ELONGATION**-2), correlation


def _resolved(theta: Tensor, pixel: float, k: float) -> None:
    """Refuse slopes that leave too few pixels for a turn of the phase."""
    jj, jk, kk = theta.unbind(-1)
    steepest = float((0.5 * (jj + kk) + torch.hypot(0.5 * (jj - kk), jk)).max().clamp(min=0)) ** 0.5 * k
    if steepest * pixel > STEEPEST_RAD:
        hint = "The phase would turn too far from pixel to pixel: finer pixels, or weaker scattering"
        raise ValueError(message("pixel_size_m", f"at most {STEEPEST_RAD / steepest:.3g} m", pixel, hint))


def _gaussian_field(shape: tuple[int, int], pixel: float, correlation: Tensor, random: torch.Generator) -> Tensor:
    """A periodic Gaussian random field of variance 1 with the autocorrelation ``exp(−½ rᵀ Σ⁻¹ r)``."""
    narrowest = math.sqrt(float(torch.linalg.eigvalsh(correlation)[0]))
    widest = math.sqrt(float(torch.linalg.eigvalsh(correlation)[1]))
    if narrowest < FEWEST_PIXELS * pixel * (1 - 1e-9):
        expected = f"half of the shortest correlation length or less, {narrowest / FEWEST_PIXELS:g} m"
        raise ValueError(message("pixel_size_m", expected, pixel))
    if 4 * widest > pixel * min(shape):
        raise ValueError(
            message("shape", f"four correlation lengths or more, {4 * widest:g} m", f"{pixel:g} m × {shape}")
        )
    q_j, q_k = (2 * math.pi * torch.fft.fftfreq(n, pixel, dtype=torch.float64) for n in shape)
    (jj, jk), (_, kk) = correlation.tolist()
    exponent = jj * q_j[:, None] ** 2 + 2 * jk * q_j[:, None] * q_k + kk * q_k**2
    power = 2 * math.pi * math.sqrt(jj * kk - jk**2) * torch.exp(-0.5 * exponent) / pixel**2
    power[0, 0] = 0  # a phase that all share changes nothing
    noise = torch.randn(shape, generator=random, dtype=torch.float64)
    return torch.fft.ifft2(torch.fft.fft2(noise) * power.sqrt()).real
