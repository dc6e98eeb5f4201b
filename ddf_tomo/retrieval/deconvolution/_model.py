"""The product-convolution model of blind deconvolution, with the sums its updates need.

A frame behind the sample is ``I_m,d(x) = Σ_r w_r(x) [k_r,d * (T R_m,d)](x)``: few kernels, of which each pixel has its
own mixture (Nagy & O'Leary 1998, SIAM J. Sci. Comput. 19, 1063; Escande & Weiss 2017, SIAM J. Imaging Sci. 10, 2109).
Taps of a kernel lie on a grid that may be finer than the pixels, and shift the light by their position times d/d_max:
in Fourier space that is exact at any distance and adds no blur of its own. Weights are cubic B-splines of values at
knots; the splines sum to one, so that weights do if the values at each knot do.

Frames are padded, to odd lengths: the spectrum has then no Nyquist frequency, whose shift by part of a pixel is not
defined. Frames go through in batches that keep within a bound of memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["ProductConvolution", "spline_basis"]

MARGIN = 4  # pixels beyond the kernels' reach: what an edge of the padding rings stays outside
NUMBERS = 1 << 25  # of a batch
FACTORS = (3, 5, 7)  # of lengths whose transforms are quick


def spline_basis(length: int, spacing: float) -> Tensor:
    """Cubic B-splines at the pixels of one axis: non-negative, each row sums to one.

    Knots lie evenly, as many before the middle of the axis as behind it, so that a mirrored axis has mirrored splines.

    Parameters
    ----------
    length
        Pixels.
    spacing
        Of the knots in pixels; the standard deviation of a spline is ``spacing / √3``.

    Returns
    -------
    basis : (length, knot)
        float64.

    Examples
    --------
    >>> basis = spline_basis(9, 3.0)
    >>> basis.shape, bool((basis.sum(1) - 1).abs().max() < 1e-12)
    (torch.Size([9, 5]), True)
    """
    half = math.ceil((length - 1) / 2 / spacing)
    knots = spacing * torch.arange(-half, half + 1, dtype=torch.float64)
    pixels = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    lag = ((pixels[:, None] - knots) / spacing).abs()
    near, far = 2 / 3 - lag**2 + lag**3 / 2, (2 - lag).clamp(min=0) ** 3 / 6
    basis = torch.where(lag < 1, near, far)
    return basis / basis.sum(1, keepdim=True)


def _quick_length(least: int) -> int:
    """The smallest product of 3, 5 and 7 that is long enough."""
    while True:
        rest = least
        for factor in FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return least
        least += 1


class ProductConvolution:
    """Sums of kernels and frames, for images of one shape and frames at given distances.

    Parameters
    ----------
    shape
        Rows and columns of the frames.
    reach : (frame,)
        Distance of each frame over the longest.
    support
        Width and height of a kernel in pixels at the longest distance, odd.
    oversampling
        Taps a pixel, along each axis.
    spacing
        Of the weights' knots, in pixels.

    Attributes
    ----------
    positions : (tap,)
        Of the taps along either axis, in pixels.
    edge
        By how many pixels the light's image is larger than the frames, before its first row and column.
    size
        Rows and columns of the light's image.

    Examples
    --------
    A kernel of one tap moves the light.

    >>> model = ProductConvolution((8, 9), torch.ones(1), support=5, oversampling=1, spacing=3.0)
    >>> light = torch.rand(1, *model.size, generator=torch.Generator().manual_seed(0))
    >>> kernel = torch.zeros(1, 5, 5)
    >>> kernel[0, 3, 2] = 1
    >>> moved = model.terms(light, slice(0, 1), model.spectra(kernel))
    >>> torch.allclose(moved[0, 0], model.cropped(light.roll(1, dims=1))[0], atol=1e-6)
    True
    """

    def __init__(self, shape: tuple[int, int], reach: Tensor, support: int, oversampling: int, spacing: float) -> None:
        self.shape = shape
        half = support // 2
        self.edge = half + MARGIN
        self.size = (_quick_length(shape[0] + 2 * self.edge), _quick_length(shape[1] + 2 * self.edge))
        taps = oversampling * half
        self.positions = torch.arange(-taps, taps + 1, dtype=torch.float64, device=reach.device) / oversampling
        self.across, self.down = (spline_basis(n, spacing).to(reach) for n in (shape[1], shape[0]))
        distances, self.distance = torch.unique(reach, return_inverse=True)
        self._shifts = [
            torch.exp(
                -2j
                * math.pi
                * distances.double()[:, None, None]
                * frequencies.to(reach.device)[:, None]
                * self.positions
            ).to(torch.complex64 if reach.dtype == torch.float32 else torch.complex128)
            for frequencies in (
                torch.fft.fftfreq(self.size[0], dtype=torch.float64),
                torch.fft.rfftfreq(self.size[1], dtype=torch.float64),
            )
        ]

    def batches(self, frames: int, rank: int) -> Iterator[slice]:
        """Slices of the frames that are looked at together."""
        step = max(1, NUMBERS // (rank * self.size[0] * self.size[1]))
        yield from (slice(start, min(start + step, frames)) for start in range(0, frames, step))

    def weights(self, knots: Tensor) -> Tensor:
        """Weights ``(rank, row, column)`` from their values at the knots."""
        return self.down @ knots @ self.across.T

    def at_knots(self, image: Tensor) -> Tensor:
        """The transpose of `weights`: ``(..., row, column)`` summed around each knot."""
        return self.down.T @ image @ self.across

    def spectra(self, kernels: Tensor) -> Tensor:
        """Transforms ``(distance, rank, row, frequency)`` of kernels ``(rank, tap, tap)``, dilated with distance."""
        down, across = self._shifts
        return down[:, None] @ kernels.to(down.dtype) @ across[:, None].mT

    def padded(self, images: Tensor) -> Tensor:
        """Frames in the size of the light's image, their edges repeated."""
        after = [n - length - self.edge for n, length in zip(self.size, self.shape, strict=True)]
        return pad(images[None], (self.edge, after[1], self.edge, after[0]), mode="replicate")[0]

    def embedded(self, images: Tensor) -> Tensor:
        """Frames in the size of the light's image, zero around them."""
        after = [n - length - self.edge for n, length in zip(self.size, self.shape, strict=True)]
        return pad(images, (self.edge, after[1], self.edge, after[0]))

    def cropped(self, images: Tensor) -> Tensor:
        """What the frames see of images of the light."""
        rows, columns = self.shape
        return images[..., self.edge : self.edge + rows, self.edge : self.edge + columns]

    def terms(self, light: Tensor, frames: slice, spectra: Tensor) -> Tensor:
        """Light ``(frame, ...)`` of some frames through each kernel: ``(frame, rank, row, column)``."""
        moved = torch.fft.rfft2(light)[:, None] * spectra[self.distance[frames]]
        return self.cropped(torch.fft.irfft2(moved, s=self.size))

    def gathered(self, terms: Tensor, frames: slice, spectra: Tensor) -> Tensor:
        """The transpose of `terms`, summed over kernels: where the light ``(frame, ...)`` came from."""
        back = torch.fft.rfft2(self.embedded(terms)) * spectra[self.distance[frames]].conj()
        return torch.fft.irfft2(back.sum(1), s=self.size)

    def at_taps(self, light: Tensor, frames: slice, terms: Tensor) -> Tensor:
        """``Σ_m Σ_x terms_m,r(x) light_m(x − d y)`` at each tap y: ``(rank, tap, tap)``."""
        product = torch.fft.rfft2(self.embedded(terms)) * torch.fft.rfft2(light)[:, None].conj()
        product[..., 1:] *= 2  # the frequencies that a real transform leaves out
        down, across = self._shifts
        of_distance = [product[self.distance[frames] == d].sum(0) for d in range(len(down))]
        total = sum((a.mH @ one @ b.conj()).real for a, one, b in zip(down, of_distance, across, strict=True))
        return torch.as_tensor(total) / (self.size[0] * self.size[1])
