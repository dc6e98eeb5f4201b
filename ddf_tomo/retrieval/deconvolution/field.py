"""What blind deconvolution finds: a kernel for every pixel, its moments, and the fibre directions in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, dense, message, of_kind

__all__ = ["Directions", "KernelField", "directions_of"]

AROUND = 4  # power of the distance from the mean by which light tells of a direction


class Directions(NamedTuple):
    """Two directions in each kernel.

    Attributes
    ----------
    angle_rad : (..., 2)
        From j towards k, in (-π/2, π/2], the stronger direction first.
    strength : (..., 2)
        Share of the moment that lies along each; what is left is alike in all directions.

    Examples
    --------
    >>> line = torch.zeros(5, 5)
    >>> line[2] = 1.0
    >>> abs(float(directions_of(line, torch.arange(-2.0, 3.0)).angle_rad[0])) > 1.57
    True
    """

    angle_rad: Tensor
    strength: Tensor


def directions_of(kernels: Tensor, positions: Tensor) -> Directions:
    """Two directions along which kernels reach out, by their angular moments of second and fourth order.

    Light at distance r and azimuth φ from the kernel's mean counts ``r⁴``. Its angular distribution has the moments
    ``c_n = Σ k r⁴ exp(2inφ)``. An isotropic part and two lines explain c₀, c₁ and c₂ exactly, in one way only: the
    Toeplitz matrix of the moments, less its smallest eigenvalue, has a null vector whose roots are the lines
    (Pisarenko 1973, Geophys. J. R. Astron. Soc. 33, 347).

    Parameters
    ----------
    kernels : (..., tap, tap)
        Not negative.
    positions : shape (tap,)
        Of the taps along either axis.

    Returns
    -------
    Directions

    Raises
    ------
    ValueError, TypeError
        For kernels that are negative, not finite, or not of the shape of the positions.

    Examples
    --------
    >>> taps = torch.arange(-3.0, 4.0)
    >>> cross = torch.zeros(7, 7)
    >>> cross[3], cross[:, 3] = 1.0, 1.0
    >>> [f"{each:.3f}" for each in sorted(directions_of(cross, taps).angle_rad.abs().tolist())]
    ['0.000', '1.571']
    """
    for name, value in (("kernels", kernels), ("positions", positions)):
        of_kind(Tensor, value, name)
        if dense(value, name).is_complex() or not bool(torch.isfinite(value).all()):
            raise ValueError(message(name, "finite real numbers", f"others, of dtype {value.dtype}"))
    check_shape(positions.shape, "positions", (None,))
    if not len(positions):
        raise ValueError(message("positions", "at least one", "none"))
    check_shape(kernels.shape[-2:], "kernels", (len(positions),) * 2)
    if bool((kernels < 0).any()):
        raise ValueError(message("kernels", "numbers of zero or more", float(kernels.min())))
    kernels, positions = kernels.double(), positions.double()
    # Angles know no scale.
    kernels = kernels / kernels.amax((-2, -1), keepdim=True).clamp(min=1e-300)
    positions = positions / positions.abs().max().clamp(min=1e-300)
    total = kernels.sum((-2, -1)).clamp(min=1e-30)[..., None, None]
    mean_j = (kernels * positions[:, None]).sum((-2, -1))[..., None, None] / total
    mean_k = (kernels * positions).sum((-2, -1))[..., None, None] / total
    off = torch.complex(*torch.broadcast_tensors(positions[:, None] - mean_j, positions - mean_k))
    reach = kernels * off.abs() ** AROUND
    turn = (off / off.abs().clamp(min=1e-12)) ** 2
    c0 = reach.sum((-2, -1))
    c1, c2 = ((reach * turn**n).sum((-2, -1)) / c0.clamp(min=1e-30) for n in (1, 2))
    one = torch.ones_like(c1)
    rows = [one, c1.conj(), c2.conj()], [c1, one, c1.conj()], [c2, c1, one]
    _, vectors = torch.linalg.eigh(torch.stack([torch.stack(row, -1) for row in rows], -2))
    # Roots on the unit circle of v₀ + v₁ z + v₂ z², v the eigenvector conjugated: they lie where the lines are.
    v0, v1, v2 = vectors[..., 0].conj().unbind(-1)
    v2 = torch.where(v2.abs() < 1e-12, 1e-12 * one, v2)
    root = (v1**2 - 4 * v0 * v2).sqrt()
    lines = torch.stack([(-v1 + root) / (2 * v2), (-v1 - root) / (2 * v2)], -1)
    lines = lines / lines.abs().clamp(min=1e-12)
    # Strengths of the two by least squares: c_n = Σ s zⁿ for n = 1, 2.
    powers = torch.stack([lines, lines**2], -1)
    right = (powers.conj() * torch.stack([c1, c2], -1)[..., None, :]).real.sum(-1)
    common = (powers[..., 0, :].conj() * powers[..., 1, :]).real.sum(-1)
    first, second = right.unbind(-1)
    determinant = (4 - common**2).clamp(min=1e-9)
    strength = torch.stack([2 * first - common * second, 2 * second - common * first], -1) / determinant[..., None]
    strength = strength.clamp(0, 1)
    order = strength.argsort(-1, descending=True)
    return Directions((lines.angle() / 2).gather(-1, order), strength.gather(-1, order))


@dataclass(frozen=True, eq=False)
class KernelField:
    """Kernels of a whole image, as few shared ones with weights of each pixel; lengths in pixels.

    Attributes
    ----------
    weights : (rank, row, column)
        Not negative; over the rank they sum to one.
    kernels : (rank, tap, tap)
        Each of sum one, at the longest distance; sorted, the one with the largest mean weight first.
    positions : shape (tap,)
        Of the taps along either axis, from the middle of the kernels, which is their mean.
    displacement : (row, column, 2)
        u_j, u_k of what arrives in a pixel: it is taken out of the kernels, whose mean is zero.
    transmission : (row, column)
        As it arrives, after the kernels of the longest distance: that of `ddf_tomo.retrieval.Maps`.
    sharp_transmission : (row, column)
        Of the object, before the kernels and at the place that light leaves. Noise grows with every iteration.
    valid : (row, column), bool
        Where frames tell of a kernel as a whole.
    objective : tuple of float
        Half the weighted squares of what is left, before the first and after every update; never rises.
    residual, chi2 : (row, column)
        As in `ddf_tomo.retrieval.Maps`; ``chi2`` is None where the counts are not known.

    Examples
    --------
    >>> from ddf_tomo.retrieval.deconvolution import deconvolve
    >>> frames = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(0)) + 1
    >>> field = deconvolve(frames, frames, rank=1, support=3, iterations=1)
    >>> field.displacement.shape, field.covariance.shape, field.directions().angle_rad.shape
    (torch.Size([12, 12, 2]), torch.Size([12, 12, 3]), torch.Size([12, 12, 2]))
    """

    weights: Tensor
    kernels: Tensor
    positions: Tensor
    displacement: Tensor
    transmission: Tensor
    sharp_transmission: Tensor
    valid: Tensor
    objective: tuple[float, ...]
    residual: Tensor
    chi2: Tensor | None = None

    @property
    def covariance(self) -> Tensor:
        """Covariance ``(row, column, 3)`` of each pixel's kernel: C_jj, C_jk, C_kk; positive semidefinite."""
        u_j, u_k = self._moment(1, 0), self._moment(0, 1)
        pairs = (self._moment(2, 0), u_j * u_j), (self._moment(1, 1), u_j * u_k), (self._moment(0, 2), u_k * u_k)
        return torch.stack([second - square for second, square in pairs], -1)

    def kernel_field(self, rows: slice | int, columns: slice | int) -> Tensor:
        """Kernels of these pixels.

        Parameters
        ----------
        rows, columns
            Indices or slices of the image.

        Returns
        -------
        kernels : (..., tap, tap)
            Each sums to one.

        Raises
        ------
        TypeError
            For indices of another kind.

        Examples
        --------
        >>> from ddf_tomo.retrieval.deconvolution import deconvolve
        >>> frames = torch.rand(4, 12, 12, generator=torch.Generator().manual_seed(0)) + 1
        >>> deconvolve(frames, frames, rank=1, support=3, iterations=1).kernel_field(6, slice(2, 4)).shape
        torch.Size([2, 5, 5])
        """
        for name, index in (("rows", rows), ("columns", columns)):
            if not isinstance(index, (slice, int)) or isinstance(index, bool):
                raise TypeError(message(name, "an integer or a slice", repr(index)))
        return torch.einsum("r...,rab->...ab", self.weights[:, rows, columns], self.kernels)

    def directions(self) -> Directions:
        """`directions_of` the kernels of all pixels: fibres that cross in a pixel; ``(row, column, 2)``."""
        found = [directions_of(self.kernel_field(row, slice(None)), self.positions) for row in range(len(self.valid))]
        return Directions(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def _moment(self, power_j: int, power_k: int) -> Tensor:
        grid = self.positions[:, None] ** power_j * self.positions**power_k
        return torch.einsum("rjk,r->jk", self.weights, (self.kernels * grid.to(self.kernels)).sum((1, 2)))
