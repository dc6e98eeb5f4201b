"""Convolutions of a volume with a symmetric matrix kernel, by FFT: one small matrix product at each frequency."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import check_shape, flag, message, number, real_array, size_tuple
from ddf_tomo._threads import in_parallel
from ddf_tomo.operators.autograd import OpaqueOperator

SLAB_BYTES = 8 * 2**20  # what stays in the cache between the transforms along the last axis

SMALLEST_EPSILON = 1e-9  # below, float32 knows nothing of an inverse


class BlockConvolution(OpaqueOperator):
    """``crop F⁻¹ S(ξ) F pad``: convolution with an even, symmetric K × K matrix kernel; symmetric itself.

    Real transforms along z, pruned transforms along y and x (rows of zeros are not transformed), and the last axis in
    slabs that are transformed, multiplied and transformed back while they are in the cache.

    Parameters
    ----------
    symbol
        Upper triangles of the real matrices ``S(ξ)``, row by row: ``(fft_z // 2 + 1, fft_y, K (K + 1) / 2, fft_x)``.
    volume_shape, fft_shape
        Along ``(x, y, z)``; the volume is padded with zeros to ``fft_shape``, beyond which the convolution wraps round.
    channels
        Of the volume; by default K. With K = 1 it may be ``None``: any number of channels, each convolved alike.

    Raises
    ------
    ValueError
        If shapes do not fit each other.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(4, 4, 4, 2)
    >>> x[0, 0, 0, 0] = 1.0
    >>> swap = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 1, 3, 1).expand(5, 8, 3, 8)  # [[0, 1], [1, 0]] everywhere
    >>> BlockConvolution(swap, (4, 4, 4), (8, 8, 8))(x)[0, 0, 0].round(decimals=5)
    tensor([0., 1.])
    """

    def __init__(self, symbol: torch.Tensor, volume_shape: Any, fft_shape: Any, channels: int | None = 0) -> None:
        super().__init__()
        self.volume_shape = size_tuple(volume_shape, "volume_shape", 3)
        self.fft_shape = size_tuple(fft_shape, "fft_shape", 3)
        if any(n > padded for n, padded in zip(self.volume_shape, self.fft_shape, strict=True)):
            raise ValueError(message("fft_shape", f"at least {self.volume_shape}", self.fft_shape))
        x, y, z = self.fft_shape
        check_shape(symbol.shape, "symbol", (z // 2 + 1, y, None, x))
        self.symbol, self.size = symbol.contiguous(), (math.isqrt(8 * symbol.shape[2] + 1) - 1) // 2
        check_shape(symbol.shape, "symbol", (z // 2 + 1, y, self.size * (self.size + 1) // 2, x))
        self.device, self.channels = symbol.device, self.size if channels == 0 else channels
        if self.size > 1 and self.channels != self.size:
            raise ValueError(message("channels", f"{self.size}, the size of the matrices", channels))
        self.domain_shape = self.range_shape = (*self.volume_shape, self.channels)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        (_, ny, nz), (_, py, pz) = self.volume_shape, self.fft_shape
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for volume, target in zip(x, result, strict=True):
            for first in range(0, x.shape[-1], self.size):
                channels = slice(first, first + self.size)
                along_z = _transformed("rfft", volume[..., channels].permute(3, 0, 1, 2).contiguous(), pz)
                spectrum = _transformed("fft", along_z.transpose(2, 3).contiguous(), py)  # (channel, x, z, y)
                self._convolve(spectrum)
                along_z = _transformed("ifft", spectrum, py)[..., :ny].transpose(2, 3).contiguous()
                target[..., channels] = _transformed("irfft", along_z, pz)[..., :nz].permute(1, 2, 3, 0)
        return result

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return self._forward_kernel(y)

    def _convolve(self, spectrum: torch.Tensor) -> None:
        """All that is left of a volume that is transformed along z and y: ``(K, nx, frequencies z, frequencies y)``."""
        nx, px, py = self.volume_shape[0], self.fft_shape[0], self.fft_shape[1]
        step = max(1, SLAB_BYTES // (self.size * py * px * spectrum.element_size()))
        for start in range(0, spectrum.shape[2], step):
            part = spectrum[:, :, start : start + step]
            slab = _transformed("fft", part.permute(0, 2, 3, 1).contiguous(), px)
            matrix_product(slab.flatten(1, 2), self.symbol[start : start + step].flatten(0, 1))
            part.copy_(_transformed("ifft", slab, px)[..., :nx].permute(0, 3, 1, 2))

    def largest_eigenvalue(self) -> float:
        """The largest eigenvalue of all matrices ``S(ξ)``: a safe curvature for steps, without any iteration.

        That of the cropped operator is at most as large (about half of it, as the volume fills half of each length of
        the grid); `norm` comes closer by power iterations.

        Examples
        --------
        >>> BlockConvolution(torch.full((3, 4, 1, 4), 2.0), (4, 4, 4), (4, 4, 4)).largest_eigenvalue()
        2.0
        """
        # Frobenius norms, or a little more: off the diagonal each number stands for two.
        bounds = 2**0.5 * torch.stack([torch.linalg.vector_norm(plane.double(), dim=1) for plane in self.symbol])
        if not torch.isfinite(bounds).all():
            raise ValueError(message("symbol", "finite numbers", "NaN or infinite ones"))
        order, largest = bounds.flatten().argsort(descending=True), -math.inf
        for chosen in order.split(256):
            if float(bounds.flatten()[chosen[0]]) <= largest:
                break
            z, y, x = torch.unravel_index(chosen, bounds.shape)
            largest = max(largest, float(torch.linalg.eigvalsh(full(self.symbol[z, y, :, x].double())).max()))
        return largest

    def inverse(
        self, epsilon: float = 0.01, *, identity: Any = 0.0, laplacian: Any = 0.0, in_place: bool = False
    ) -> BlockConvolution:
        """``crop F⁻¹ (S(ξ) + identity + |ξ|² laplacian + ε)⁻¹ F pad``: a preconditioner, symmetric positive definite.

        Eigenvalues of ``S`` that embedding has made negative are raised to 0 wherever they matter.

        Parameters
        ----------
        epsilon
            ``ε`` relative to the largest eigenvalue of ``S``.
        identity, laplacian
            What a penalty adds: multiples of the identity and of minus the discrete Laplacian (``DᵀD``, whose symbol is
            ``Σ 2 - 2 cos ξ``); numbers, or matrices of shape ``(K, K)`` that tell coefficients apart.
        in_place
            Whether to write over the symbol of this operator, which is of no use then.

        Examples
        --------
        >>> A = BlockConvolution(torch.full((3, 4, 1, 4), 2.0), (4, 4, 4), (4, 4, 4))
        >>> A.inverse(0.25)(torch.ones(4, 4, 4, 1))[0, 0, 0]
        tensor([0.4000])
        """
        epsilon = number(epsilon, "epsilon", low=SMALLEST_EPSILON)
        top = self.largest_eigenvalue()
        if not 0 < top < math.inf:
            raise ValueError(message("symbol", "a positive eigenvalue somewhere", f"none above {top:.3g}"))
        matrices = [
            _matrix(value, name, self.size) for name, value in (("identity", identity), ("laplacian", laplacian))
        ]
        matrices[0] = matrices[0] + epsilon * top * np.eye(self.size)
        symbol = self.symbol.cpu().flatten(0, 1).numpy()
        inverse, failed = (
            symbol if flag(in_place, "in_place") else np.empty_like(symbol),
            np.zeros((len(symbol), symbol.shape[2]), bool),
        )
        stiffness = _laplacian_symbol(self.fft_shape)

        from ddf_tomo.operators import _block_kernel as kernel

        invert: Any = kernel.invert_rows
        work = partial(invert, symbol, inverse, *matrices, stiffness, epsilon * top / 2, failed)
        in_parallel(len(symbol), 1, work)
        rows, columns = np.nonzero(failed)
        if len(rows):  # few: raise the negative eigenvalues of S to 0
            values, vectors = torch.linalg.eigh(full(torch.from_numpy(symbol[rows, :, columns]).double()))
            clipped = (vectors * values.clamp(min=0)[:, None]) @ vectors.mT
            added = matrices[0] + stiffness[rows, columns][:, None, None] * matrices[1]
            a, b = np.triu_indices(self.size)
            inverse[rows, :, columns] = torch.linalg.inv(clipped + torch.from_numpy(added)).numpy()[:, a, b]
        found = torch.from_numpy(inverse).reshape(self.symbol.shape).to(self.symbol.device)
        return BlockConvolution(found, self.volume_shape, self.fft_shape, self.channels)


def matrix_product(spectrum: torch.Tensor, symbol: torch.Tensor) -> None:
    """``spectrum[:, r, f] = S(r, f) spectrum[:, r, f]`` in place, where ``symbol`` ``(rows, pairs, f)`` packs ``S``."""
    if spectrum.device.type != "cpu":
        plain_matrix_product(spectrum, symbol)
        return
    from ddf_tomo.operators import _block_kernel as kernel

    numbers, factors = torch.view_as_real(spectrum).flatten(2).numpy(), symbol.numpy()
    in_parallel(len(factors), 16, partial(kernel.multiply_rows, numbers, factors))


def plain_matrix_product(spectrum: torch.Tensor, symbol: torch.Tensor) -> None:
    """The same in torch operations, on any device: `matrix_product` as one reads it."""
    parts = torch.view_as_real(spectrum)
    parts.copy_(torch.einsum("rfab,brfi->arfi", full(symbol.transpose(1, 2)).to(parts.dtype), parts))


def _transformed(name: str, x: torch.Tensor, length: int) -> torch.Tensor:
    """A transform along the last axis; on the CPU SciPy's, which is faster, and whose bits no thread changes."""
    if x.device.type != "cpu":
        return getattr(torch.fft, name)(x, n=length)
    import scipy.fft

    return torch.from_numpy(getattr(scipy.fft, name)(x.numpy(), n=length, workers=torch.get_num_threads()))


def full(packed: torch.Tensor) -> torch.Tensor:
    """Symmetric matrices ``(..., K, K)`` of upper triangles ``(..., K (K + 1) / 2)``, row by row.

    Examples
    --------
    >>> full(torch.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 2.],
            [2., 3.]])
    """
    size = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2
    place = torch.zeros(size, size, dtype=torch.long, device=packed.device)
    a, b = torch.triu_indices(size, size, device=packed.device)
    place[a, b] = place[b, a] = torch.arange(packed.shape[-1], device=packed.device)
    return packed[..., place]


def _laplacian_symbol(fft_shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of ``DᵀD`` with differences ``D`` to the next voxel; shape ``(frequencies z · y, x)``."""
    x, y, z = (2 - 2 * np.cos(2 * np.pi * np.arange(n) / n) for n in fft_shape)
    return (z[: len(z) // 2 + 1, None, None] + y[:, None] + x).reshape(-1, len(x))


def _matrix(value: Any, argument: str, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = real_array(value, argument)
    if array.ndim == 0:
        array = array * np.eye(size)
    check_shape(array.shape, argument, (size, size))
    if np.linalg.eigvalsh((array + array.T) / 2).min() < -1e-6 * max(abs(array).max(), 1e-300):
        raise ValueError(message(argument, "a positive semidefinite matrix", array.tolist()))
    return (array + array.T) / 2
