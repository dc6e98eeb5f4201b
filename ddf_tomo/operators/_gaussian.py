"""Gaussian blur of images by their spectra: exact for any width, and it keeps every count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_blur(image: Tensor, sigma_px: Sequence[float], *, periodic: bool = False) -> Tensor:
    """The image ``(..., rows, columns)`` blurred by ``(σ_j, σ_k)`` pixels, mirrored at its edges unless periodic.

    A blur of zero is exactly the identity. Narrow blurs of sharp images ring, as every band-limited one does.
    """
    for axis, sigma in zip((-2, -1), sigma_px, strict=True):
        if sigma == 0:
            continue
        length = image.shape[axis]
        whole = image if periodic else torch.cat([image, image.flip(axis)], axis)
        f = torch.fft.rfftfreq(whole.shape[axis], dtype=torch.float64, device=image.device)
        transfer = torch.exp(-2 * (math.pi * sigma * f) ** 2).to(image.dtype)
        transfer = transfer[:, None] if axis == -2 else transfer
        blurred = torch.fft.irfft(torch.fft.rfft(whole, dim=axis) * transfer, n=whole.shape[axis], dim=axis)
        image = blurred.narrow(axis, 0, length)
    return image
