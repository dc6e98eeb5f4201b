"""Free-space propagation of X-ray waves by Fresnel's angular spectrum, in parallel and in cone beams.

The wave ``ψ`` leaves out the carrier ``exp(ikz)``: behind an object of projected decrement and absorption it is
``exp(−ik ∫δ dl − k ∫β dl)``, and its phase φ bends rays by ``α = ∇φ / k``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import NOT_NUMBERS, check_shape, choice, dense, integer, message, number, real_array, size_tuple
from ddf_tomo.operators._gaussian import gaussian_blur

__all__ = ["FresnelPropagator", "aliased_share", "polychromatic_intensity"]

BOUNDARIES = ("edge", "zero", "periodic")
MOST_PAD, ALWAYS_PAD = 2, 512  # frames and pixels on each side; beyond both, a larger frame is the better answer
TAPER = 0.8  # of the band that is kept, where less than all is: from here it fades, so that its end does not ring
FEWEST_FREQUENCIES = 16  # inside the band of a far field: below, the frame sees less than a period of any of them
LARGEST_VALUE = 1e15  # whose square float32 holds
LARGEST_FRAME = 2**28  # pixels, those of the padding too


class FresnelPropagator:
    """Propagates a wave over ``distance_m``; ``P(wave)`` is linear, differentiable, and takes any batch in front.

    The transfer function is ``H(f) = exp(−iπ λ d_e |f|²)`` with the effective distance ``d_e = d / M``: by the Fresnel
    scaling theorem a cone beam magnified by ``M = (R + d)/R`` gives the image of a parallel beam at ``d_e``, on pixels
    ``M`` times as large. Waves and intensities are relative to the undisturbed beam, whose spherical phase is left out.
    Hence propagators chain: the next one starts from ``source_distance_m + distance_m`` and ``detector_pixel_size_m``.

    The finest detail that the pixels hold travels ``λ d_e / (2s)`` sideways. What may come from outside the frame is
    the ``boundary``'s choice, and the padding follows from it, so that nothing that the frame shows is aliased.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the waves.
    pixel_size_m
        Where the wave starts.
    distance_m
        To propagate; negative distances go back (parallel beam only).
    wavelength_m
        See `ddf_tomo.acquisition.wavelength_m`.
    pad
        Pixels on each side of the frame while it is propagated; ``"auto"`` takes as many as are needed. With fewer,
        only frequencies that cannot bring anything wrong into the frame are kept (band-limited angular spectrum).
    boundary
        ``"edge"``: outside the frame the wave is as at its edge, as in a beam wider than the frame. ``"zero"``: there
        is nothing outside, as for a narrow beam. ``"periodic"``: the frame repeats itself; exact at every distance,
        and never padded.
    source_distance_m
        From the source to where the wave starts; None is a parallel beam.
    source_sigma_m
        Standard deviation of a Gaussian source, one number or (σ_j, σ_k). It is projected through the object onto the
        detector and blurs intensities by ``σ d / R`` there; needs ``source_distance_m``.

    Attributes
    ----------
    shape, pixel_size_m, distance_m, wavelength_m, boundary, source_distance_m
        As given.
    pad : tuple of int
        Pixels added on each side along both axes.
    magnification : float
        1 for a parallel beam.
    effective_distance_m : float
        ``distance_m / magnification``.
    detector_pixel_size_m : float
        Where the wave arrives: ``pixel_size_m · magnification``.
    blur_px : tuple of float
        Standard deviation of the projected source, in pixels.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of the kind above, and where the frame is too small for the distance: the message says
        which distance, padding or pixel would do.

    Notes
    -----
    J. W. Goodman, Introduction to Fourier Optics, chapter 4 (transfer function); D. Paganin, Coherent X-ray Optics,
    appendix B (scaling theorem); K. Matsushima and T. Shimobaba, Opt. Express 17, 19662 (2009) (band limit).

    Examples
    --------
    >>> P = FresnelPropagator((64, 64), pixel_size_m=1e-6, distance_m=0.5, wavelength_m=5e-11)
    >>> x = torch.arange(64) - 31.5
    >>> disc = torch.hypot(x[:, None], x) < 10
    >>> P.intensity(torch.exp(-0.5j * disc)).shape, P.pad
    (torch.Size([64, 64]), (13, 13))
    """

    def __init__(
        self,
        shape: Sequence[int],
        pixel_size_m: float,
        distance_m: float,
        wavelength_m: float,
        *,
        pad: int | str = "auto",
        boundary: str = "edge",
        source_distance_m: float | None = None,
        source_sigma_m: float | Sequence[float] = 0.0,
    ) -> None:
        rows, columns = size_tuple(shape, "shape", 2)
        self.shape = (rows, columns)
        self.pixel_size_m = number(pixel_size_m, "pixel_size_m", low=1e-10, high=1.0)
        self.wavelength_m = number(wavelength_m, "wavelength_m", low=1e-13, high=1e-3)
        self.boundary = choice(boundary, "boundary", BOUNDARIES)
        low = -1e4 if source_distance_m is None else 0.0
        self.distance_m = number(distance_m, "distance_m", low=low, high=1e4)
        self.source_distance_m, self.magnification = None, 1.0
        if source_distance_m is not None:
            self.source_distance_m = number(source_distance_m, "source_distance_m", low=1e-6, high=1e6)
            self.magnification = 1 + self.distance_m / self.source_distance_m
        self.effective_distance_m = self.distance_m / self.magnification
        self.detector_pixel_size_m = self.pixel_size_m * self.magnification
        self.blur_px = self._projected(source_sigma_m)
        self.pad = (self._padding(rows, pad), self._padding(columns, pad))
        padded = [n + 2 * extra for n, extra in zip(self.shape, self.pad, strict=True)]
        if math.prod(padded) > LARGEST_FRAME:
            raise ValueError(message("shape", f"at most {LARGEST_FRAME} pixels with their padding", tuple(padded)))
        self._transfers = tuple(map(self._transfer, padded, self.pad))

    def __repr__(self) -> str:
        return (
            f"<FresnelPropagator {self.shape}, {self.distance_m:g} m at {self.wavelength_m:.4g} m, "
            f"pixels of {self.pixel_size_m:g} m, magnified by {self.magnification:g}, {self.boundary}>"
        )

    def __call__(self, wave: Tensor) -> Tensor:
        """The wave after the distance, complex; ``wave`` is ``(..., rows, columns)``, real or complex."""
        return self._filtered(self._extended(self._checked(wave, "wave")), conjugate=False)

    def adjoint(self, wave: Tensor) -> Tensor:
        """The adjoint of the linear map: ``⟨P a, b⟩ = ⟨a, P.adjoint(b)⟩``; ``wave`` is ``(..., rows, columns)``."""
        wave = self._checked(wave, "wave")
        (pad_j, pad_k), (rows, columns) = self.pad, self.shape
        inside = torch.nn.functional.pad(wave, (pad_k, pad_k, pad_j, pad_j))
        whole = self._spectral(inside, conjugate=True)
        if self.boundary != "edge":
            return whole[..., pad_j : pad_j + rows, pad_k : pad_k + columns]
        places_j, places_k = self._places(wave.device)
        short = whole.new_zeros(*whole.shape[:-2], rows, whole.shape[-1]).index_add(-2, places_j, whole)
        return short.new_zeros(*short.shape[:-1], columns).index_add(-1, places_k, short)

    def intensity(self, wave: Tensor) -> Tensor:
        """``|P ψ|²`` blurred by the projected source, ``(..., rows, columns)``, relative to the undisturbed beam.

        The intensity holds details up to twice as fine as those of the ``wave`` ``(..., rows, columns)``: take pixels
        half the size of the finest detail, or look at `aliased_share`.
        """
        arrived = self(wave)
        return gaussian_blur(arrived.real**2 + arrived.imag**2, self.blur_px, periodic=self.boundary == "periodic")

    def _checked(self, wave: Any, argument: str) -> Tensor:
        tensor = complex_tensor(wave, argument)
        check_shape(tuple(tensor.shape[-2:]), argument, self.shape)
        return tensor

    def _projected(self, sigma: Any) -> tuple[float, float]:
        found = real_array(sigma, "source_sigma_m")
        if found.shape not in ((), (2,)):
            raise ValueError(message("source_sigma_m", "one number or two, (σ_j, σ_k)", found.shape))
        both = [number(found.item() if found.ndim == 0 else found[n], "source_sigma_m", low=0, high=1) for n in (0, 1)]
        if any(both) and self.source_distance_m is None:
            hint = "at a synchrotron give the distance to the source, some 30 to 150 m"
            raise ValueError(message("source_distance_m", "a distance where the source has a size", None, hint))
        scale = self.distance_m / (self.source_distance_m or math.inf) / self.detector_pixel_size_m
        return both[0] * scale, both[1] * scale

    def _padding(self, length: int, pad: Any) -> int:
        """Pixels on each side."""
        travel = abs(self.wavelength_m * self.effective_distance_m) / (2 * self.pixel_size_m**2)
        if isinstance(pad, str):
            choice(pad, "pad", ("auto",))
        else:
            given = integer(pad, "pad", high=0 if self.boundary == "periodic" else LARGEST_FRAME)
            return self._resolved(length, given)
        if self.boundary == "periodic":
            return 0
        # With nothing outside, what travels more than the frame's length has left it, and can be dropped.
        needed = math.ceil(min(travel, length) if self.boundary == "zero" else travel)
        most = max(MOST_PAD * length, ALWAYS_PAD)
        if needed > most:
            farthest = most * 2 * self.pixel_size_m**2 / self.wavelength_m
            hint = (
                f"Details of two pixels travel {travel:.3g} pixels: take a larger frame, coarser pixels, an effective "
                f"distance up to {farthest:.3g} m, boundary='periodic' for a wave that repeats, or an integer pad, "
                "which drops what is too fine"
            )
            raise ValueError(message("pad", f"at most {most} pixels on each side", needed, hint))
        return self._resolved(length, needed)

    def _resolved(self, length: int, pad: int) -> int:
        """The padding itself, if enough frequencies are left."""
        kept = 2 * self._cutoff(length + 2 * pad, pad) * (length + 2 * pad) * self.pixel_size_m
        if kept < min(FEWEST_FREQUENCIES, length):
            hint = "The frame lies in the far field: take a larger frame, more padding, or a shorter distance"
            raise ValueError(
                message("distance_m", f"a band of {FEWEST_FREQUENCIES} frequencies or more", f"{kept:.2g}", hint)
            )
        return pad

    def _cutoff(self, padded: int, pad: int) -> float:
        """Highest frequency that is kept: none that is kept travels further than it may, nor is ``H`` undersampled."""
        nyquist = 1 / (2 * self.pixel_size_m)
        farthest = {"edge": float(pad), "zero": padded / 2}.get(self.boundary, math.inf) * self.pixel_size_m
        spread = abs(self.wavelength_m * self.effective_distance_m)
        return min(nyquist, farthest / spread) if spread else nyquist

    def _transfer(self, padded: int, pad: int) -> Tensor:
        """``H`` along one axis: it separates into two factors."""
        f = torch.fft.fftfreq(padded, self.pixel_size_m, dtype=torch.float64)
        turns = 0.5 * self.wavelength_m * self.effective_distance_m * f**2
        transfer = torch.polar(torch.ones_like(f), -2 * math.pi * (turns - turns.round()))
        cutoff = self._cutoff(padded, pad)
        if cutoff * 2 * self.pixel_size_m >= 1 - 1e-12:
            return transfer
        fading = ((f.abs() / cutoff - TAPER) / (1 - TAPER)).clamp(0, 1)
        return transfer * torch.cos(0.5 * math.pi * fading) ** 2

    def _places(self, device: torch.device) -> list[Tensor]:
        """For each pixel of the padded frame the one of the frame whose value it has."""
        return [
            torch.arange(-extra, n + extra, device=device).clamp(0, n - 1)
            for n, extra in zip(self.shape, self.pad, strict=True)
        ]

    def _extended(self, wave: Tensor) -> Tensor:
        pad_j, pad_k = self.pad
        if self.boundary == "edge" and (pad_j or pad_k):
            places_j, places_k = self._places(wave.device)
            return wave[..., places_j[:, None], places_k]
        return torch.nn.functional.pad(wave, (pad_k, pad_k, pad_j, pad_j)) if pad_j or pad_k else wave

    def _spectral(self, wave: Tensor, conjugate: bool) -> Tensor:
        along_j, along_k = (each.to(wave.device, wave.dtype) for each in self._transfers)
        if conjugate:
            along_j, along_k = along_j.conj(), along_k.conj()
        return torch.fft.ifft2(torch.fft.fft2(wave) * along_j[:, None] * along_k)

    def _filtered(self, wave: Tensor, conjugate: bool) -> Tensor:
        (pad_j, pad_k), (rows, columns) = self.pad, self.shape
        return self._spectral(wave, conjugate)[..., pad_j : pad_j + rows, pad_k : pad_k + columns]


def polychromatic_intensity(
    waves: Sequence[Tensor], propagators: Sequence[FresnelPropagator], weights: Sequence[float]
) -> Tensor:
    """Intensity of a beam of several energies: ``Σ_e w_e |P_e ψ_e|²`` with weights scaled to a sum of 1.

    Parameters
    ----------
    waves
        One wave of shape ``(..., rows, columns)`` for each energy, behind the sample; `ddf_tomo.acquisition.materials`
        gives the refractive indices.
    propagators
        One for each energy.
    weights
        Of the energies in what the detector counts: spectrum times the detector's efficiency, as an array of one number
        an energy.

    Returns
    -------
    Tensor
        ``(..., rows, columns)``.

    Examples
    --------
    >>> P = [FresnelPropagator((32, 32), 1e-6, 0.5, wavelength) for wavelength in (4e-11, 5e-11)]
    >>> float(polychromatic_intensity([torch.ones(32, 32)] * 2, P, [1.0, 3.0]).mean())
    1.0
    """
    shares = real_array(weights, "weights", (None,))
    if (shares < 0).any() or not 0 < shares.sum() < math.inf:
        raise ValueError(message("weights", "numbers ≥ 0 with a sum above 0", weights))
    for name, values in (("waves", waves), ("propagators", propagators)):
        if not isinstance(values, Sequence | Tensor) or len(values) != len(shares):
            found = len(values) if hasattr(values, "__len__") else type(values).__name__
            raise ValueError(message(name, f"one for each of the {len(shares)} weights", found))
    if not all(isinstance(each, FresnelPropagator) for each in propagators):
        raise TypeError(message("propagators", "FresnelPropagator, and nothing else", "something else"))
    shares = shares / shares.sum()
    images = (w * P.intensity(wave) for wave, P, w in zip(waves, propagators, shares.tolist(), strict=True))
    return torch.stack(torch.broadcast_tensors(*images)).sum(0)


def aliased_share(wave: Tensor) -> Tensor:
    """Share of a wave's power, without its mean, at frequencies whose intensity the pixels cannot hold.

    An intensity has twice the bandwidth of its wave: what lies beyond half of Nyquist's frequency along an axis comes
    back at wrong frequencies. Sharp edges always leave a little there; some per cent mean that pixels are too coarse.

    Parameters
    ----------
    wave
        ``(..., rows, columns)``.

    Returns
    -------
    Tensor
        ``(...)``, in [0, 1].

    Examples
    --------
    >>> x = torch.arange(64)
    >>> coarse, fine = (torch.exp(1j * torch.cos(2 * torch.pi * x / period)).expand(8, 64) for period in (32, 4))
    >>> bool(aliased_share(coarse) < 1e-6), bool(aliased_share(fine) > 0.05)
    (True, True)
    """
    tensor = complex_tensor(wave, "wave")
    largest = torch.view_as_real(tensor).abs().amax((-3, -2, -1), keepdim=True)[..., 0]
    spectrum = torch.fft.fft2(tensor / torch.where(largest > 1e-30, largest, 1), norm="ortho")
    power = spectrum.real**2 + spectrum.imag**2
    f_j, f_k = (torch.fft.fftfreq(n, device=tensor.device).abs() for n in tensor.shape[-2:])
    fine = (f_j[:, None] > 0.25) | (f_k > 0.25)
    modulated = power.sum((-2, -1)) - power[..., 0, 0]
    return (power * fine).sum((-2, -1)) / torch.where(modulated > 0, modulated, 1)


def complex_tensor(wave: Any, argument: str) -> Tensor:
    """A finite complex tensor ``(..., rows, columns)`` from real or complex numbers."""
    try:
        tensor = dense(wave if isinstance(wave, Tensor) else torch.as_tensor(wave), argument)
    except NOT_NUMBERS as error:
        raise TypeError(message(argument, "a tensor of real or complex numbers", type(wave).__name__)) from error
    if tensor.ndim < 2 or not all(tensor.shape[-2:]):
        raise ValueError(message(argument, "shape (..., rows, columns)", tuple(tensor.shape)))
    if not tensor.is_complex():
        tensor = tensor.to(torch.complex128 if tensor.dtype == torch.float64 else torch.complex64)
    if tensor.dtype not in (torch.complex64, torch.complex128):
        raise TypeError(message(argument, "complex64 or complex128", tensor.dtype))
    largest = float(torch.view_as_real(tensor.resolve_conj()).detach().abs().amax()) if tensor.numel() else 0.0
    if not largest <= LARGEST_VALUE:
        found = f"{largest:g}" if math.isfinite(largest) else "NaN or infinite"
        raise ValueError(message(argument, f"finite values, up to {LARGEST_VALUE:g}", found))
    return tensor
