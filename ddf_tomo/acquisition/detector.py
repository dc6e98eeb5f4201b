"""What a detector makes of an intensity, and how its frames are corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, flag, integer, message, number
from ddf_tomo.acquisition._inputs import Seed, frame_shape, generator, pair, real_map
from ddf_tomo.operators._gaussian import gaussian_blur

LARGEST_COUNT = 1e9  # photons a pixel: Poisson's law is drawn in float64 beyond what float32 counts
FULL_SCALE = 2**16 - 1


@dataclass(frozen=True, eq=False)
class Detector:
    """A counting or integrating area detector.

    A photon adds ``gain`` units to a pixel. In order: blur by the point spread, sensitivity, Poisson's law, gain, dark
    level, read noise, broken pixels, saturation, rounding to 16 bits.

    Attributes
    ----------
    psf_sigma_px
        Standard deviation of the Gaussian point spread in pixels, one number or (σ_j, σ_k).
    gain
        Detector units a photon.
    read_noise
        Standard deviation of the electronic noise, in detector units.
    dark
        Level without beam in detector units: a number or ``(rows, columns)``.
    sensitivity
        Share of the photons that each pixel counts, ``(rows, columns)``, or None for 1.
    dead, hot
        ``(rows, columns)``, True where a pixel always reads 0, or always the largest value; or None.
    saturation
        Largest value in detector units, up to 65535.

    Examples
    --------
    >>> detector = Detector(psf_sigma_px=0.7, gain=2.0, read_noise=3.0, dark=100.0)
    >>> frames = detector.frames(torch.ones(5, 32, 32), counts=2000, seed=1)
    >>> frames.dtype, bool((frames.float().mean() - 4100).abs() < 10)
    (torch.uint16, True)
    """

    psf_sigma_px: float | Sequence[float] = 0.0
    gain: float = 1.0
    read_noise: float = 0.0
    dark: float | Tensor = 0.0
    sensitivity: Tensor | None = None
    dead: Tensor | None = None
    hot: Tensor | None = None
    saturation: float = float(FULL_SCALE)

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "psf_sigma_px": pair(self.psf_sigma_px, "psf_sigma_px", low=0, high=1e4),
            "gain": number(self.gain, "gain", low=1e-6, high=1e6),
            "read_noise": number(self.read_noise, "read_noise", low=0, high=FULL_SCALE),
            "dark": _level(self.dark, "dark"),
            "saturation": number(self.saturation, "saturation", low=1, high=FULL_SCALE),
        }
        if self.sensitivity is not None:
            checked["sensitivity"] = real_map(self.sensitivity, "sensitivity")
            if (checked["sensitivity"].detach() < 0).any() or (checked["sensitivity"].detach() > 1e6).any():
                raise ValueError(message("sensitivity", "values in [0, 1e6]", "others"))
        for name in ("dead", "hot"):
            if getattr(self, name) is not None:
                checked[name] = real_map(getattr(self, name), name) != 0
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        shapes = {tuple(v.shape) for v in checked.values() if isinstance(v, Tensor) and v.ndim}
        if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
            names = "dark, sensitivity, dead, hot"
            raise ValueError(message(names, "one shape (rows, columns)", sorted(shapes)))

    def expected(self, intensity: Tensor, counts: float) -> Tensor:
        """Mean readings in detector units, without saturation and broken pixels; differentiable.

        Parameters
        ----------
        intensity
            ``(..., rows, columns)``, relative to the open beam.
        counts
            Photons a pixel of the open beam.
        """
        return self._photons(intensity, counts) * self.gain + self._dark(intensity)

    def frames(self, intensity: Tensor, counts: float, *, seed: Seed = 0, noise: bool = True) -> Tensor:
        """Frames as they are stored: ``(..., rows, columns)``, uint16.

        Parameters
        ----------
        intensity
            ``(..., rows, columns)``, relative to the open beam.
        counts
            Photons a pixel of the open beam.
        seed
            A number or a `torch.Generator` on the intensity's device.
        noise
            False rounds the expected readings.
        """
        photons = self._photons(intensity, counts).detach().clamp(min=0)
        level = self._dark(intensity)
        if not flag(noise, "noise"):
            return self._stored(photons * self.gain + level)
        random = generator(seed, photons.device)
        counted = torch.poisson(photons.double(), generator=random)
        readings = counted * self.gain + level
        if self.read_noise:
            drawn = torch.randn(readings.shape, generator=random, dtype=readings.dtype, device=readings.device)
            readings = readings + self.read_noise * drawn
        return self._stored(readings)

    def dark_frames(self, count: int, shape: Sequence[int], *, seed: Seed = 0) -> Tensor:
        """``count`` frames without beam, ``(count, rows, columns)``, uint16, for frames of this ``shape``.

        ``seed`` is a number or a `torch.Generator`.
        """
        rows, columns = frame_shape(shape)
        return self.frames(torch.zeros(integer(count, "count", low=1, high=10_000), rows, columns), 0.0, seed=seed)

    def _photons(self, intensity: Tensor, counts: float) -> Tensor:
        image = real_map(intensity, "intensity")
        photons = number(counts, "counts", low=0, high=LARGEST_COUNT)
        largest = float(image.detach().abs().max()) * photons
        if largest > LARGEST_COUNT:
            raise ValueError(message("intensity", f"up to {LARGEST_COUNT:g} photons a pixel", f"{largest:g}"))
        self._fits(image)
        blurred = gaussian_blur(image, cast("Sequence[float]", self.psf_sigma_px))  # a pair since it was checked
        return blurred * photons * (1 if self.sensitivity is None else self.sensitivity.to(image))

    def _fits(self, image: Tensor) -> None:
        for name in ("dark", "sensitivity", "dead", "hot"):
            value = getattr(self, name)
            if isinstance(value, Tensor) and value.ndim:
                check_shape(tuple(image.shape[-2:]), "intensity", tuple(value.shape))

    def _dark(self, intensity: Any) -> Any:
        return self.dark.to(intensity.device) if isinstance(self.dark, Tensor) else self.dark

    def _stored(self, readings: Tensor) -> Tensor:
        readings = readings.round().clamp(0, self.saturation)
        if self.dead is not None:
            readings = readings.masked_fill(self.dead.to(readings.device), 0)
        if self.hot is not None:
            readings = readings.masked_fill(self.hot.to(readings.device), self.saturation)
        return readings.to(torch.int32).to(torch.uint16)


class Corrected(NamedTuple):
    """Frames without what the detector put into them; made by `correct`.

    Attributes
    ----------
    intensity : (..., rows, columns)
        Relative to the open beam; 0 where not valid.
    valid : (..., rows, columns), bool
        False where the open beam gives nothing, or a frame is saturated.
    """

    intensity: Tensor
    valid: Tensor


def correct(
    frames: Tensor, dark: float | Tensor, flat: float | Tensor, *, saturation: float | None = None
) -> Corrected:
    """Intensities relative to the open beam, ``(frames − dark) / (flat − dark)``.

    Parameters
    ----------
    frames
        ``(..., rows, columns)``, as the detector stored them.
    dark
        Readings without beam: a number, ``(rows, columns)`` or a stack ``(frame, rows, columns)``, which is averaged.
    flat
        Readings of the open beam: a number, ``(rows, columns)`` or a stack ``(frame, rows, columns)``.
    saturation
        Readings of this and more are not valid; None for none.

    Returns
    -------
    Corrected
        Intensity and where it is valid.

    Examples
    --------
    >>> detector = Detector(gain=2.0, dark=100.0)
    >>> frames = detector.frames(torch.full((8, 8), 0.5), counts=1000, noise=False)
    >>> float(correct(frames, 100.0, 2100.0).intensity.mean())
    0.5
    """
    readings = real_map(frames, "frames")
    low, high = (_average(value, name, readings) for value, name in ((dark, "dark"), (flat, "flat")))
    span = high - low
    lit = span > 0
    if not bool(lit.any()):
        raise ValueError(message("flat", "readings above those of dark", "none", "are flat and dark swapped?"))
    valid = lit.expand(readings.shape)
    if saturation is not None:
        valid = valid & (readings < number(saturation, "saturation", low=0))
    intensity = (readings - low) / torch.where(lit, span, 1)
    valid = valid & torch.isfinite(intensity)
    return Corrected(torch.where(valid, intensity, 0), valid)


def _level(value: Any, argument: str) -> Any:
    """A number of detector units, or a map of them."""
    if getattr(value, "ndim", 0):
        level = real_map(value, argument)
        if (level.abs() > FULL_SCALE).any():
            raise ValueError(message(argument, f"values up to {FULL_SCALE}", float(level.abs().max())))
        return level
    return number(value, argument, low=0, high=FULL_SCALE)


def _average(value: Any, argument: str, readings: Tensor) -> Tensor:
    level = real_map(value, argument, 0).to(readings)
    if level.ndim > 3:
        raise ValueError(message(argument, "a number, (rows, columns) or (frame, rows, columns)", tuple(level.shape)))
    level = level.mean(0) if level.ndim == 3 else level
    if level.ndim:
        check_shape(tuple(level.shape), argument, tuple(readings.shape[-2:]))
    return level
