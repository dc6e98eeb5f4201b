"""Shapes of the blur: mixtures of Gaussians whose covariances are functions of the covariance map.

A shape is a function of the covariance ``C`` (..., 3) that gives pairs (share, covariance); the shares of a pixel sum
to 1. With C all covariances shrink to zero, and the blur to the identity. A shape of your own is such a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_broadcast, check_shape, choice, message, number
from ddf_tomo.operators.warping import floating

__all__ = ["TwoComponentKernel", "exponential_kernel", "gaussian_kernel"]
Component = tuple[float | Tensor, Tensor]
WIDEST = 1e3  # square pixels: the sum over neighbours takes as long as the blur is wide
SHARPEST = -0.5  # noise makes covariances slightly negative, which sharpens
Kernel = Callable[[Tensor], Sequence[Component]]
# Σ share · exp(−a scale) is 1/(1 + a) to 4e-4 for all a up to 60, and as 1 − a for small a: least squares.
EXPONENTIAL = (
    (0.0522418, 0.0198041),
    (0.1624493, 0.1290524),
    (0.3315372, 0.4572951),
    (0.3557768, 1.3357354),
    (0.0979949, 3.5835227),
)


def gaussian_kernel(covariance: Tensor) -> list[Component]:
    """One Gaussian: ``exp(−½ ξᵀCξ)`` in Fourier space.

    Parameters
    ----------
    covariance : (..., 3)
        C_jj, C_jk, C_kk in square pixels.

    Examples
    --------
    >>> gaussian_kernel(torch.tensor([1.0, 0.0, 0.5]))
    [(1.0, tensor([1.0000, 0.0000, 0.5000]))]
    """
    return [(1.0, _field(covariance))]


def exponential_kernel(covariance: Tensor) -> list[Component]:
    """A kernel with exponential tails and the same covariance: ``1 / (1 + ½ ξᵀCξ)`` in Fourier space, to 4e-4.

    The bivariate symmetric Laplace law (Kotz, Kozubowski & Podgórski 2001, ch. 5): Gaussians whose covariance t C has a
    t of exponential law, here of five values.

    Parameters
    ----------
    covariance : (..., 3)
        C_jj, C_jk, C_kk in square pixels.

    Examples
    --------
    >>> components = exponential_kernel(torch.tensor([1.0, 0.0, 0.5]))
    >>> sum(share * C for share, C in components)
    tensor([1.0000, 0.0000, 0.5000])
    """
    total = sum(share for share, _ in EXPONENTIAL)
    mean = sum(share * scale for share, scale in EXPONENTIAL)
    field = _field(covariance)
    return [(share / total, scale * total / mean * field) for share, scale in EXPONENTIAL]


class TwoComponentKernel:
    """Directional and isotropic blur side by side: ``(1 − share) G_C + share G_v``, v = ``ratio`` · trace C / 2.

    The isotropic part is what scatters without a preferred direction; its width goes with that of the directional
    one, so that no blur stays no blur and several distances keep one shape.

    Parameters
    ----------
    share : number or (row, column)
        Of the light in the isotropic part, in [0, 1].
    ratio : number or (row, column)
        Variance of the isotropic part over the mean variance of the directional one; not negative.

    Examples
    --------
    >>> TwoComponentKernel(0.25, 4.0)(torch.tensor([1.0, 0.0, 0.5]))
    [(0.75, tensor([1.0000, 0.0000, 0.5000])), (0.25, tensor([3., 0., 3.]))]
    """

    def __init__(self, share: Any, ratio: Any) -> None:
        self.share = _number_or_map(share, "share", 1.0)
        self.ratio = _number_or_map(ratio, "ratio", 1e4)

    def __call__(self, covariance: Tensor) -> list[Component]:
        covariance = _field(covariance)
        for name in ("share", "ratio"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                check_broadcast(covariance.shape[:-1], value.shape, name)
        mean = 0.5 * (covariance[..., 0] + covariance[..., 2])
        variance = mean * self.ratio
        isotropic = torch.stack([variance, torch.zeros_like(variance), variance], -1)
        return [(1 - self.share, covariance), (self.share, isotropic)]

    def __repr__(self) -> str:
        told = [
            value if isinstance(value, float) else f"map {tuple(value.shape)}" for value in (self.share, self.ratio)
        ]
        return f"TwoComponentKernel({told[0]}, {told[1]})"


def _field(covariance: Any) -> Tensor:
    field = floating(covariance, "covariance")
    check_shape(field.shape[max(field.ndim - 1, 0) :], "last axis of covariance", (3,))
    return field


def _number_or_map(value: Any, argument: str, high: float) -> float | Tensor:
    if isinstance(value, (int, float)) or getattr(value, "ndim", 0) == 0:
        return number(value, argument, low=0.0, high=high)
    tensor = floating(value, argument)
    if tensor.numel() and not (float(tensor.detach().min()) >= 0 and float(tensor.detach().max()) <= high):
        raise ValueError(message(argument, f"numbers in [0, {high:g}]", "others"))
    return tensor


KERNELS: dict[str, Kernel] = {"gaussian": gaussian_kernel, "exponential": exponential_kernel}


def kernel_of(value: Any) -> Kernel:
    """A shape by its name, or itself.

    Examples
    --------
    >>> kernel_of("gaussian") is gaussian_kernel
    True
    """
    if isinstance(value, str) or not callable(value) or isinstance(value, type):
        return KERNELS[choice(value, "kernel", tuple(KERNELS))]
    return value


def components_of(kernel: Kernel, covariance: Tensor) -> list[Component]:
    """What a shape makes of the covariance map, checked as far as a shape of somebody's own needs it.

    Examples
    --------
    >>> len(components_of(exponential_kernel, torch.zeros(2, 2, 3)))
    5
    """
    expected = "a function that gives pairs (share, covariance), covariances like its argument"
    found = kernel(covariance)
    if not isinstance(found, (list, tuple)) or not found:
        raise TypeError(message("kernel", expected, type(found).__name__))
    for pair in found:
        if not isinstance(pair, tuple) or len(pair) != 2 or getattr(pair[1], "shape", None) != covariance.shape:
            raise TypeError(message("kernel", expected, type(pair).__name__))
        checked_covariance(pair[1], "a covariance that kernel makes of it")
    return list(found)


def checked_covariance(field: Tensor, argument: str = "covariance") -> Tensor:
    """The map ``(..., 3)`` itself, if its eigenvalues are what a blur can have.

    Examples
    --------
    >>> checked_covariance(torch.tensor([1.0, 0.0, 1.0]))
    tensor([1., 0., 1.])
    """
    if field.ndim < 1 or field.shape[-1] != 3 or 0 in field.shape:
        raise ValueError(message(argument, "shape (..., row, column, 3)", tuple(field.shape)))
    jj, jk, kk = field.detach().double().unbind(-1)
    mean, radius = 0.5 * (jj + kk), torch.hypot(0.5 * (jj - kk), jk)
    low, high = float((mean - radius).min()), float((mean + radius).max())
    if not (low >= SHARPEST and high <= WIDEST):  # NaN is neither
        expected = f"a positive semidefinite C_jj, C_jk, C_kk, eigenvalues up to {WIDEST:g} square pixels"
        raise ValueError(message(argument, expected, f"eigenvalues from {low:.3g} to {high:.3g}"))
    return field
