"""Transmission sharper than the instrument: its blur undone as far as the noise allows, with what that gains and costs.

A transmission map has no mask in it, but the blur of source and detector. `restore_transmission` minimises

    ``½ Σ ((h * t − T) / σ)² + ½ s Σ (Δt)²``

with σ the standard error of each pixel (of counts: Poisson's), Δ the Laplacian over neighbours. The result is linear in
T: where the noise is even, an object's wave of frequency f comes out multiplied by ``|H|² / (|H|² + s σ² |Δ|²)``, and
noise by ``H* / (|H|² + …)``. The first is the modulation transfer after restoration (before, it is ``|H|``), the root
mean square of the second is the gain of the noise. Unless given, s is that with the least risk by Stein's unbiased
estimate (Stein 1981, Ann. Stat. 9, 1135; in Fourier space as Eldar 2009, IEEE Trans. Signal Process. 57, 471), of what
h blurs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import pad

from ddf_tomo._checks import NOT_NUMBERS, check_shape, dense, message, number, real_array
from ddf_tomo.retrieval._filters import smooth
from ddf_tomo.retrieval._warped import fast_length
from ddf_tomo.retrieval.maps import Maps

__all__ = ["Restored", "restore_transmission"]

STRENGTHS = torch.logspace(-6, 4, 61, dtype=torch.float64)  # times the mean of 1/σ²
ITERATIONS, ACCURACY = 1000, 1e-7
SUREST = 1e3  # times as sure as the median pixel counts as if it were no surer
CURVE, SPOKES = 101, 16  # frequencies of a curve, and directions that it is the mean of
BROADEST = 64.0  # pixels
SEEN = 0.1  # modulation at which a frequency is said to be resolved
GAPS = 2.0  # pixels around an invalid one that start it


@dataclass(frozen=True, eq=False)
class Restored:
    """A transmission image without the instrument's blur, and what that cost; made by `restore_transmission`.

    Attributes
    ----------
    transmission, error : (row, column)
        And its standard errors, of the noise that passes; neighbours are correlated.
    frequency : shape (point,)
        Cycles a pixel, from 0 to 0.5.
    mtf_before, mtf_after : shape (point,)
        Modulation transfer of the instrument, and with the restoration behind it, at the median error; means over all
        directions.
    noise_gain
        Standard deviation of the noise after over that before, at the median error.
    strength
        s of the smoothness.

    Examples
    --------
    >>> image = 0.5 + torch.eye(24, dtype=torch.float64) / 3
    >>> restored = restore_transmission(image, 1.0, error=0.001)
    >>> restored.limit_after > restored.limit_before, restored.noise_gain > 1
    (True, True)
    """

    transmission: Tensor
    error: Tensor
    frequency: Tensor
    mtf_before: Tensor
    mtf_after: Tensor
    noise_gain: float
    strength: float

    @property
    def limit_before(self) -> float:
        """Frequency, in cycles a pixel, to which the instrument carries a tenth of the modulation."""
        return _limit(self.frequency, self.mtf_before)

    @property
    def limit_after(self) -> float:
        """The same with the restoration."""
        return _limit(self.frequency, self.mtf_after)


def restore_transmission(
    transmission: Maps | ArrayLike | Tensor,
    psf: float | ArrayLike | Tensor,
    *,
    error: float | ArrayLike | Tensor | None = None,
    strength: float | None = None,
) -> Restored:
    """The transmission before the instrument blurred it, as far as noise allows.

    Parameters
    ----------
    transmission : Maps or (row, column)
        Of one view. Of maps, errors and validity are taken too; what is not finite or not valid is filled in.
    psf
        The blur: standard deviation of a Gaussian in pixels, such as ``edge_response(...).sigma_px``, or an image of it
        with odd numbers of rows and columns and its origin in the middle, which is scaled to a sum of one.
    error : optional
        Standard error of the transmission, one number or an image; for N quanta in sample and reference together at a
        transmission T that is ``√(T (1 + T) / N)``. Needed unless maps have it.
    strength : float, optional
        Of the smoothness, s above; by default that with the least estimated risk.

    Returns
    -------
    Restored
        Torch tensors in double precision.

    Raises
    ------
    ValueError, TypeError
        For arrays of other shapes, errors that are not positive, a blur without light, or maps of several views.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> sharp = torch.ones(40, 40, dtype=torch.float64)
    >>> sharp[:, 20:] = 0.5
    >>> noisy = smooth(sharp[None], 1.5)[0] + 0.005 * torch.randn(40, 40, generator=generator)
    >>> restored = restore_transmission(noisy, 1.5, error=0.005)
    >>> f"{restored.limit_before:.2f} to {restored.limit_after:.2f}"
    '0.23 to 0.28'
    """
    if isinstance(transmission, Maps):
        maps = transmission
        shape = tuple(torch.as_tensor(maps.transmission).shape)
        if len(shape) != 2:
            raise ValueError(message("transmission", "maps of one view, (row, column)", shape))
        image = image_of(maps.transmission, "transmission")
        error = maps.transmission_error if error is None else error
        known = torch.as_tensor(maps.valid) & torch.isfinite(image)
    else:
        image = image_of(transmission, "transmission")
        known = torch.isfinite(image)
    if 0 in image.shape or not bool(known.any()):
        raise ValueError(message("transmission", "at least one pixel with a value", tuple(image.shape)))
    if error is None:
        raise ValueError(message("error", "the standard error of the transmission", "none", "Maps have it"))
    sigma = image_of(error, "error", image.shape)
    known = known & torch.isfinite(sigma)
    if not bool(known.any()) or bool((sigma[known] <= 0).any()):
        raise ValueError(message("error", "positive numbers", float(sigma.nan_to_num(0).min())))
    kernel, width = _kernel(psf)
    unit = float(image[known].abs().mean()) or 1.0
    if not unit < 1e100:
        raise ValueError(message("transmission", "numbers whose squares are numbers", f"a mean of {unit:.3g}"))
    image, sigma = torch.where(known, image, 0) / unit, sigma / unit
    median = float(sigma[known].median())

    edge = max(4, math.ceil(4 * width) if kernel is None else max(kernel.shape))
    rows, columns = (fast_length(n + 2 * edge) for n in image.shape)
    H, lap = _transfer(kernel, width, rows, columns), _laplacian(rows, columns)
    if strength is None:
        chosen = _least_risk(_filled(image, known), median, kernel, width)
    else:
        chosen = number(strength, "strength", low=0.0, low_open=True) * unit**2
    weights = torch.zeros(rows, columns, dtype=torch.float64)
    inner = slice(edge, edge + image.shape[0]), slice(edge, edge + image.shape[1])
    weights[inner] = torch.where(known, (median / torch.where(known, sigma, median)).clamp(max=SUREST) ** 2, 0)
    data = torch.zeros_like(weights)
    data[inner] = image
    found = _solved(H, lap, weights, data, chosen * median**2)[inner]

    levels = torch.logspace(-2, 2, 33, dtype=torch.float64) * median
    gains = torch.stack([_gain(H, lap, chosen * level**2) for level in levels])
    at = torch.where(known, sigma, median).log().clamp(float(levels[0].log()), float(levels[-1].log()))
    place = (at - levels[0].log()) / (levels[1] / levels[0]).log()
    low = place.floor().long().clamp(max=len(levels) - 2)
    gain = torch.lerp(gains[low], gains[low + 1], place - low)
    frequency = torch.linspace(0, 0.5, CURVE, dtype=torch.float64)
    before, after = _curves(kernel, width, frequency, chosen * median**2)
    return Restored(
        found * unit,
        torch.where(known, gain * sigma * unit, torch.inf),
        frequency,
        before,
        after,
        float(_gain(H, lap, chosen * median**2)),
        chosen / unit**2,
    )


def image_of(value: Any, argument: str, shape: Any = (None, None)) -> Tensor:
    """A real image in double precision; one number becomes an image of a given ``shape``."""
    if isinstance(value, Tensor):
        if dense(value, argument).is_complex():
            raise TypeError(message(argument, "real numbers", f"dtype {value.dtype}"))
        value = value.detach().cpu().double().numpy()
    if shape != (None, None) and isinstance(value, (int, float)):
        return torch.full(tuple(shape), number(value, argument, low=0.0, low_open=True), dtype=torch.float64)
    return torch.from_numpy(real_array(value, argument, tuple(shape), finite=False).copy()).double()


def _kernel(psf: Any) -> tuple[Tensor | None, float]:
    """An image of the blur, or None and the width of a Gaussian."""
    try:
        scalar = torch.as_tensor(psf).ndim == 0
    except NOT_NUMBERS as wrong:
        raise TypeError(message("psf", "a width in pixels or an image", type(psf).__name__)) from wrong
    if scalar:
        return None, number(psf, "psf", low=0.0, high=BROADEST)
    kernel = image_of(psf, "psf")
    check_shape(kernel.shape, "psf", (None, None))
    if not all(n % 2 and n <= 4 * BROADEST for n in kernel.shape):
        raise ValueError(message("psf", "odd numbers of rows and columns", tuple(kernel.shape)))
    if not bool(torch.isfinite(kernel).all()) or float(kernel.min()) < 0 or float(kernel.sum()) <= 0:
        raise ValueError(message("psf", "finite numbers, none negative, of a positive sum", "others"))
    return kernel / kernel.sum(), 0.0


def _gaussian(width: float, square: Tensor) -> Tensor:
    return torch.exp(-2 * math.pi**2 * width**2 * square)


def _frequencies(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    f_j = torch.fft.fftfreq(rows, dtype=torch.float64)[:, None]
    return f_j, torch.fft.rfftfreq(columns, dtype=torch.float64)[None]


def _transfer(kernel: Tensor | None, width: float, rows: int, columns: int) -> Tensor:
    f_j, f_k = _frequencies(rows, columns)
    if kernel is None:
        return _gaussian(width, f_j**2 + f_k**2).to(torch.complex128)
    a, b = kernel.shape
    placed = pad(kernel, (0, columns - b, 0, rows - a)).roll((-(a // 2), -(b // 2)), (0, 1))
    return torch.fft.rfft2(placed)


def _laplacian(rows: int, columns: int) -> Tensor:
    """|Δ|² of the Laplacian over the four neighbours."""
    f_j, f_k = _frequencies(rows, columns)
    return (4 * torch.sin(math.pi * f_j) ** 2 + 4 * torch.sin(math.pi * f_k) ** 2) ** 2


def _gain(H: Tensor, lap: Tensor, ridge: float | Tensor) -> Tensor:
    """Root mean square of the restoring filter."""
    power = H.abs() ** 2
    square = power / (power + ridge * lap).clamp(min=1e-300) ** 2
    double = torch.full_like(square, 2.0)
    double[:, 0] = 1  # an even number of columns has one more such column: of many
    return ((double * square).sum() / double.sum()).sqrt()


def _filled(image: Tensor, known: Tensor) -> Tensor:
    if bool(known.all()):
        return image
    share = smooth(known.double()[None], GAPS)[0]
    near = smooth(torch.where(known, image, 0)[None], GAPS)[0] / share.clamp(min=1e-6)
    return torch.where(known, image, torch.where(share > 1e-3, near, image[known].mean()))


def _least_risk(image: Tensor, sigma: float, kernel: Tensor | None, width: float) -> float:
    """s with the least ``E |h * t − h * truth|²`` as Stein estimates it, for noise of this σ; mirrored at the edges."""
    whole = torch.cat([image, image.flip(0)])
    whole = torch.cat([whole, whole.flip(1)], 1)
    rows, columns = whole.shape
    if kernel is not None and (kernel.shape[0] > rows or kernel.shape[1] > columns):
        raise ValueError(message("psf", f"at most {rows} rows and {columns} columns", tuple(kernel.shape)))
    H, lap = _transfer(kernel, width, rows, columns).abs() ** 2, _laplacian(rows, columns)
    double = torch.full_like(lap, 2.0)
    double[:, 0] = 1
    if columns % 2 == 0:
        double[:, -1] = 1
    power = double * torch.fft.rfft2(whole).abs() ** 2 / (rows * columns) ** 2
    risks = []
    for s in STRENGTHS:
        kept = H / (H + s * lap).clamp(min=1e-300)
        risks.append(float(((1 - kept) ** 2 * power).sum() + 2 * sigma**2 * (double * kept).sum() / (rows * columns)))
    best = min(range(len(risks)), key=risks.__getitem__)
    return float(STRENGTHS[best]) / sigma**2


def _solved(H: Tensor, lap: Tensor, weights: Tensor, data: Tensor, strength: float) -> Tensor:
    """The minimum, by conjugate gradients with what would solve it for even errors everywhere in front."""
    size = data.shape

    def blurred(x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * H, s=size)

    def back(x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * H.conj(), s=size)

    def normal(x: Tensor) -> Tensor:
        return back(weights * blurred(x)) + torch.fft.irfft2(torch.fft.rfft2(x) * (strength * lap), s=size)

    share = float((weights > 0).double().mean())
    diagonal = share * H.abs() ** 2 + strength * lap

    def eased(x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) / diagonal.clamp(min=1e-12 * float(diagonal.max())), s=size)

    x = torch.zeros_like(data)
    left = back(weights * data)
    z = eased(left)
    p, rho = z, float((left * z).sum())
    first = rho
    for _ in range(ITERATIONS):
        if rho <= ACCURACY**2 * first:
            break
        q = normal(p)
        length = rho / float((p * q).sum())
        x, left = x + length * p, left - length * q
        z = eased(left)
        rho, before = float((left * z).sum()), rho
        p = z + (rho / before) * p
    return x


def _curves(kernel: Tensor | None, width: float, frequency: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Modulation transfer before and after, means over directions."""
    turn = math.pi * torch.arange(SPOKES, dtype=torch.float64) / SPOKES
    f_j, f_k = frequency[:, None] * turn.cos(), frequency[:, None] * turn.sin()
    if kernel is None:
        before = _gaussian(width, f_j**2 + f_k**2)
    else:
        j, k = (torch.arange(n, dtype=torch.float64) - n // 2 for n in kernel.shape)
        down, across = torch.exp(-2j * math.pi * f_j[..., None] * j), torch.exp(-2j * math.pi * f_k[..., None] * k)
        before = torch.einsum("fsj,jk,fsk->fs", down, kernel.to(torch.complex128), across).abs()
    lap = (4 * torch.sin(math.pi * f_j) ** 2 + 4 * torch.sin(math.pi * f_k) ** 2) ** 2
    after = before**2 / (before**2 + ridge * lap).clamp(min=1e-300)
    return before.mean(1), after.mean(1)


def _limit(frequency: Tensor, mtf: Tensor) -> float:
    below = (mtf < SEEN).nonzero()
    return float(frequency[below[0, 0]]) if len(below) else float(frequency[-1])
