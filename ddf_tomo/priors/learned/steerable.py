"""Convolutions that turn with the sample: features are spherical tensors, kernels are products of harmonics.

A kernel from features of order ℓ_i to such of order ℓ_o is ``K(r) = Σ w R(|r|) Σ_m G[o, i, m] Y_ℓm(r̂)``. With ``G``
the coupling of the three orders, ``K(Q r) = D_o(Q) K(r) D_i(Q)ᵀ`` for every rotation ``Q`` [Weiler et al. 2018, 3D
steerable CNNs, NeurIPS]. Features have the parity ``(-1)^ℓ`` of their harmonics; then ``ℓ_i + ℓ_o + ℓ`` is even, ``G``
is the mean of the three harmonics' product over the sphere, and no phase convention enters. On the grid this holds
exactly for rotations and reflections of the cube, and for others as far as a stencil of 3³ voxels can tell them:
filters end at ℓ = 2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv3d

from ddf_tomo.operators.spherical_harmonics import evaluate, sphere_quadrature

FEATURE_ORDERS = (0, 1, 2, 4, 6, 8)
FILTER_ORDERS = (0, 1, 2)
STENCIL = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
Multiplicities = tuple[int, ...]  # how many features of each of the orders above


def harmonics(directions: NDArray[Any], ell: int) -> NDArray[np.float64]:
    """Of one order, in the given directions; the package's own, which are even, and ``√3 (y, z, x)`` for ℓ = 1.

    Parameters
    ----------
    directions
        Unit vectors, shape ``(N, 3)``.
    ell
        Order.

    Examples
    --------
    >>> harmonics(np.eye(3), 1).round(3)[2].tolist()
    [0.0, 1.732, 0.0]
    """
    if ell == 1:
        return math.sqrt(3) * directions[:, [1, 2, 0]]
    return evaluate(directions, ell)[:, -(2 * ell + 1) :]


@lru_cache(maxsize=64)
def kernel_basis(features: int, results: int) -> Tensor:
    """All kernels on the stencil of 3³ voxels from one order to another, float64; shape ``(n, 2ℓ_o+1, 2ℓ_i+1, 27)``.

    One for each order of the filter and each distance from the centre. White noise of variance 1 gives results of
    variance 1.

    Parameters
    ----------
    features, results
        Orders ℓ_i and ℓ_o.

    Examples
    --------
    >>> kernel_basis(2, 4).shape, kernel_basis(0, 4).shape
    (torch.Size([3, 9, 5, 27]), torch.Size([0, 9, 1, 27]))
    """
    nodes, weights = sphere_quadrature(features + results + max(FILTER_ORDERS))
    squares = (STENCIL**2).sum(1)
    found = []
    for ell in FILTER_ORDERS:
        if (features + results + ell) % 2 or not abs(features - results) <= ell <= features + results:
            continue
        products = (harmonics(nodes, order) for order in (results, features, ell))
        coupling = np.einsum("n,no,ni,nm->oim", weights, *products)
        for square in range(1 if ell else 0, 4):
            here = squares == square
            kernel = np.zeros((*coupling.shape[:2], len(STENCIL)))
            kernel[..., here] = coupling @ harmonics(STENCIL[here] / max(square, 1) ** 0.5, ell).T if ell else coupling
            found.append(kernel / math.sqrt((kernel**2).sum() / (2 * results + 1)))
    shape = (2 * results + 1, 2 * features + 1, len(STENCIL))
    return torch.from_numpy(np.stack(found) if found else np.zeros((0, *shape)))


def dimensions(multiplicities: Multiplicities, order: int) -> list[int]:
    """Channels of each order of features, up to ``order``; none are kept above that of the volume.

    Examples
    --------
    >>> dimensions((4, 2, 1, 1, 0, 0), 2)
    [4, 6, 5]
    """
    return [n * (2 * ell + 1) for n, ell in zip(multiplicities, FEATURE_ORDERS, strict=True) if ell <= order]


class SteerableConvolution(nn.Module):
    """3 × 3 × 3 voxels, outside zero, from spherical tensors to spherical tensors, each order's side by side.

    The kernel is made of its basis in each call that needs gradients, and kept in those that do not.

    Parameters
    ----------
    features, results
        How many of each of the orders 0, 1, 2, 4, 6, 8.

    Examples
    --------
    >>> layer = SteerableConvolution((1, 0, 1, 0, 0, 0), (4, 2, 1, 1, 0, 0))
    >>> layer(torch.zeros(1, 6, 4, 4, 4), 2).shape
    torch.Size([1, 15, 4, 4, 4])
    """

    def __init__(self, features: Multiplicities, results: Multiplicities) -> None:
        super().__init__()
        self.features, self.results = features, results
        self.weights = nn.ParameterDict()
        for count_out, ell_out in zip(results, FEATURE_ORDERS, strict=True):
            paths = {
                ell: (count, len(kernel_basis(ell, ell_out)))
                for count, ell in zip(features, FEATURE_ORDERS, strict=True)
            }
            fan = sum(count * kernels for count, kernels in paths.values())
            for ell, (count, kernels) in paths.items():
                if count * kernels * count_out:
                    start = torch.randn(count_out, count, kernels) / math.sqrt(fan)
                    self.weights[f"{ell}_to_{ell_out}"] = nn.Parameter(start)
        self._kept: tuple[Any, Tensor] | None = None

    def forward(self, x: Tensor, order: int) -> Tensor:
        """From ``(volumes, channels, x, y, z)`` up to this ``order`` to as many results."""
        return conv3d(x, self.kernel(order), padding=1)

    def kernel(self, order: int) -> Tensor:
        """The dense kernel on volumes of this ``order``, shape ``(results, channels, 3, 3, 3)``."""
        weights = list(self.weights.values())
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            return self._expanded(order)
        now = [order, *((weight.data_ptr(), weight._version, weight.dtype) for weight in weights)]
        if self._kept is None or self._kept[0] != now:
            self._kept = now, self._expanded(order).detach()
        return self._kept[1]

    def train(self, mode: bool = True) -> SteerableConvolution:
        """As of any module, with ``mode``; forgets the kernel that was kept."""
        self._kept = None
        return super().train(mode)

    def _expanded(self, order: int) -> Tensor:
        like = next(iter(self.weights.values()))
        into, out_of = dimensions(self.results, order), dimensions(self.features, order)
        rows = []
        for height, ell_out in zip(into, FEATURE_ORDERS, strict=False):
            blocks = []
            for width, ell in zip(out_of, FEATURE_ORDERS, strict=False):
                name = f"{ell}_to_{ell_out}"
                if name in self.weights:
                    basis = kernel_basis(ell, ell_out).to(like)
                    block = torch.einsum("uvn,noik->uovik", self.weights[name], basis).reshape(height, width, -1)
                else:
                    block = like.new_zeros(height, width, len(STENCIL))
                blocks.append(block)
            rows.append(torch.cat(blocks, dim=1))
        return torch.cat(rows).unflatten(-1, (3, 3, 3))
