"""Frames from waves: mask, sample and free space, with no model of displacement or blur in between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddf_tomo._checks import check_broadcast, check_shape, integer, message, of_kind, real_array
from ddf_tomo.acquisition._inputs import real_map
from ddf_tomo.operators.propagation import FresnelPropagator, complex_tensor

WEAKEST = 1e-3  # of a fringe, relative to the mean: below, its visibility is rounding
SMALLEST_MEAN = 1e-25  # of frames that can be divided by their mean


def multislice(wave: Tensor, slices: Iterable[Tensor], propagator: FresnelPropagator) -> Tensor:
    """The wave behind a thick object, cut into thin slices with free space after each of them.

    Parameters
    ----------
    wave
        ``(..., rows, columns)``, that meets the first slice.
    slices
        Complex transmissions, each ``(rows, columns)``.
    propagator
        Over the thickness of one slice.

    Returns
    -------
    Tensor
        ``(..., rows, columns)``, complex, behind the last slice's thickness.

    Examples
    --------
    >>> P = FresnelPropagator((16, 16), 1e-6, 1e-4, 5e-11, boundary="periodic")
    >>> glass = [torch.exp(torch.full((16, 16), -0.1 + 0.3j))] * 5
    >>> bool((multislice(torch.ones(16, 16), glass, P).abs() - torch.tensor(-0.5).exp()).abs().max() < 1e-5)
    True
    """
    of_kind(FresnelPropagator, propagator, "propagator")
    behind = complex_tensor(wave, "wave")
    if isinstance(slices, str | bytes) or not isinstance(slices, Iterable):
        raise TypeError(message("slices", "complex tensors, one a slice", type(slices).__name__))
    for each in slices:
        layer = complex_tensor(each, "slices")
        check_shape(tuple(layer.shape[-2:]), "slices", propagator.shape)
        check_broadcast(tuple(behind.shape), tuple(layer.shape), "slices")
        behind = propagator(behind * layer)
    return behind


def wave_frames(
    masks: Tensor,
    sample: Tensor | None,
    to_sample: FresnelPropagator | None,
    to_detector: FresnelPropagator | Sequence[FresnelPropagator],
    *,
    binning: int = 1,
) -> Tensor:
    """Intensities on detectors behind mask and sample, relative to the open beam; differentiable in both.

    Parameters
    ----------
    masks
        Complex transmission of the mask at each step, ``(..., rows, columns)``.
    sample
        Complex transmission of the sample, ``(rows, columns)`` or a stack that broadcasts against the masks; None for
        the reference. Exchange the two for a mask behind the sample.
    to_sample
        From the mask to the sample, or None where they touch.
    to_detector
        From the sample to each detector.
    binning
        Pixels of the wave in a pixel of the detector, along both axes: their intensities are averaged.

    Returns
    -------
    Tensor
        ``(distance, ..., rows / binning, columns / binning)``.

    Examples
    --------
    >>> from ddf_tomo.acquisition import RefractiveIndex, grid
    >>> silicon = RefractiveIndex(delta=7.8e-7, beta=2e-9, energy_kev=25.0)
    >>> mask = silicon.wave(grid((64, 64), 0.5e-6, 8e-6, 15e-6))
    >>> P = [FresnelPropagator((64, 64), 0.5e-6, d, silicon.wavelength_m, boundary="periodic") for d in (0.1, 0.5)]
    >>> wave_frames(mask[None], None, P[0], P, binning=2).shape
    torch.Size([2, 1, 32, 32])
    """
    wave = complex_tensor(masks, "masks")
    detectors = [to_detector] if isinstance(to_detector, FresnelPropagator) else to_detector
    if not isinstance(detectors, Sequence) or not detectors:
        raise TypeError(message("to_detector", "one FresnelPropagator or more", type(to_detector).__name__))
    for each in detectors:
        of_kind(FresnelPropagator, each, "to_detector")
    if to_sample is not None:
        of_kind(FresnelPropagator, to_sample, "to_sample")
        wave = to_sample(wave)
    if sample is not None:
        transmission = complex_tensor(sample, "sample")
        check_broadcast(tuple(wave.shape), tuple(transmission.shape), "sample")
        wave = wave * transmission
    bins = integer(binning, "binning", low=1)
    rows, columns = wave.shape[-2:]
    if rows % bins or columns % bins:
        raise ValueError(message("binning", f"a divisor of {rows} and {columns}", bins))
    images = torch.stack([P.intensity(wave) for P in detectors])
    blocks = images.reshape(*images.shape[:-2], rows // bins, bins, columns // bins, bins)
    return blocks.mean((-3, -1))


class FringeBlur(NamedTuple):
    """What a blur leaves of known fringes; made by `fringe_blur`.

    Attributes
    ----------
    exponent : (..., fringe)
        ``−ln V`` of each fringe.
    covariance : (..., 3)
        C_jj, C_jk, C_kk in square pixels: the Gaussian of the same visibilities, ``−ln V = 2π² fᵀ C f``.
    """

    exponent: Tensor
    covariance: Tensor


def fringe_blur(sample: Tensor, reference: Tensor, cycles: Sequence[Sequence[int]]) -> FringeBlur:
    """Blur of whole frames from the visibility of a periodic mask's fringes, with no window and no fit of patterns.

    Steps of the mask are combined coherently, so that the sample's own structure, which does not move along, drops out.

    Parameters
    ----------
    sample, reference
        Frames ``(..., step, rows, columns)`` with and without the sample.
    cycles
        ``(fringe, 2)``: whole cycles of each fringe over the frame's rows and columns.

    Returns
    -------
    FringeBlur
        The exponents; and the covariance by least squares, for which three fringes in different directions are needed.

    Raises
    ------
    ValueError
        If a fringe is missing from the reference, as at a distance where the mask's self-image has no contrast.

    Examples
    --------
    >>> x = torch.arange(32) / 32
    >>> fringes = torch.cos(2 * torch.pi * 4 * x)
    >>> reference = 1 + 0.3 * fringes[:, None] + 0.3 * fringes + 0.2 * fringes[:, None] * fringes
    >>> blur = fringe_blur(reference[None], reference[None], [(4, 0), (0, 4), (4, 4)])
    >>> bool(blur.covariance.abs().max() < 1e-4)
    True
    """
    images = [real_map(value, name, 3) for value, name in ((sample, "sample"), (reference, "reference"))]
    check_shape(tuple(images[0].shape), "sample", tuple(images[1].shape))
    rows, columns = images[0].shape[-2:]
    whole = real_array(cycles, "cycles", (None, 2))
    places = torch.as_tensor(whole)
    nyquist = torch.tensor([rows / 2, columns / 2], dtype=torch.float64)
    if len(places) < 3 or bool((places != places.round()).any()) or bool((places.abs() >= nyquist).any()):
        raise ValueError(message("cycles", "three fringes or more, in whole cycles below Nyquist's frequency", cycles))
    f = places / torch.tensor([rows, columns])
    design = torch.stack([f[:, 0] ** 2, 2 * f[:, 0] * f[:, 1], f[:, 1] ** 2], -1) * (2 * torch.pi**2)
    if int(torch.linalg.matrix_rank(design)) < 3:
        raise ValueError(message("cycles", "fringes in three different directions", cycles))
    index = places.long()
    means = [image.mean((-3, -2, -1), keepdim=True) for image in images]
    if any(bool((mean <= SMALLEST_MEAN).any()) for mean in means):
        lowest = min(float(mean.min()) for mean in means)
        raise ValueError(message("sample, reference", "frames of positive mean", f"{lowest:.2g}"))
    spectra = (torch.fft.fft2(image / mean) / (rows * columns) for image, mean in zip(images, means, strict=True))
    seen, known = (spectrum[..., index[:, 0], index[:, 1]] for spectrum in spectra)
    power = (known.real**2 + known.imag**2).mean(-2)
    if bool((power < WEAKEST**2).any()):
        found = f"{float(power.min()) ** 0.5:.2g} of the mean"
        hint = "choose another distance or other fringes; the mask's self-image has none here"
        raise ValueError(message("reference", f"fringes of {WEAKEST:g} of the mean or more", found, hint))
    visibility = (seen * known.conj()).mean(-2).abs() / power
    exponent = -visibility.clamp(min=1e-30).log()
    return FringeBlur(exponent, exponent @ torch.linalg.pinv(design).T.to(exponent))
