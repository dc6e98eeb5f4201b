"""Where blind deconvolution starts: Gaussian kernels from the maps of `matching`, and their first weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddf_tomo.retrieval.deconvolution._model import ProductConvolution

__all__ = ["clusters", "directional", "gaussian_kernels", "memberships"]

LLOYD = 30  # iterations at most
NARROWEST = 0.25  # standard deviation in taps
ACROSS = 0.3  # pixels: a directional kernel across its line
LENGTHS = (0.55, 1.1)  # of directional kernels, in units of the widest blur
FLOOR = 1e-3  # share of a uniform factor: what is zero can never grow
FROBENIUS = math.sqrt(2)  # C_jk counts twice


def gaussian_kernels(positions: Tensor, covariance: Tensor) -> Tensor:
    """Gaussians about the middle of a grid of taps, each of sum one.

    Parameters
    ----------
    positions : (tap,)
        Of the taps along either axis, in pixels.
    covariance : (rank, 3)
        C_jj, C_jk and C_kk; eigenvalues below what the taps can hold are raised to it.

    Returns
    -------
    kernels : (rank, tap, tap)

    Examples
    --------
    >>> taps = torch.arange(-4, 5, dtype=torch.float64)
    >>> kernel = gaussian_kernels(taps, torch.tensor([[1.0, 0.0, 2.0]]))[0]
    >>> bool(((kernel * taps**2).sum() - 2).abs() < 0.1)
    True
    """
    jj, jk, kk = covariance.to(positions).unbind(-1)
    values, axes = torch.linalg.eigh(torch.stack([torch.stack([jj, jk], -1), torch.stack([jk, kk], -1)], -2))
    least = (NARROWEST * float(positions[1] - positions[0])) ** 2
    exponent = torch.zeros(len(values), len(positions), len(positions)).to(positions)
    for n in (0, 1):
        along = axes[:, 0, n, None, None] * positions[:, None] + axes[:, 1, n, None, None] * positions
        exponent = exponent - along**2 / (2 * values[:, n, None, None].clamp(min=least))
    kernels = torch.softmax(exponent.flatten(1), 1)
    return kernels.reshape(-1, len(positions), len(positions))


def clusters(features: Tensor, confidence: Tensor, rank: int) -> Tensor:
    """Centres of groups of alike features, by Lloyd's k-means from points as far apart as can be.

    Parameters
    ----------
    features : (point, feature)
        Such as C_jj, √2 C_jk, C_kk.
    confidence : (point,)
        Not negative.
    rank
        Number of groups.

    Returns
    -------
    centres : (at most rank, feature)
        No more than there are different points.

    Examples
    --------
    >>> points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0]])
    >>> clusters(points, torch.ones(3), 2)
    tensor([[5.0000, 5.0000],
            [0.0500, 0.0000]])
    """
    mean = (confidence[:, None] * features).sum(0) / confidence.sum()
    distance = ((features - mean) ** 2).sum(1) * (confidence > 0)
    chosen: list[Tensor] = []
    for _ in range(rank):
        if chosen and float(distance.max()) <= 1e-12:
            break
        chosen.append(features[distance.argmax()] if float(distance.max()) > 0 else mean)
        nearest = ((features[:, None] - torch.stack(chosen)) ** 2).sum(-1).amin(1)
        distance = nearest * (confidence > 0)
    centres = torch.stack(chosen)
    for _ in range(LLOYD):
        group = ((features[:, None] - centres) ** 2).sum(-1).argmin(1)
        total = torch.zeros(len(centres)).to(features).index_add(0, group, confidence)
        summed = torch.zeros_like(centres).index_add(0, group, confidence[:, None] * features)
        moved = torch.where(total[:, None] > 0, summed / total.clamp(min=1e-30)[:, None], centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def memberships(features: Tensor, centres: Tensor) -> Tensor:
    """Weights ``(rank, point)`` that sum to one: the nearer a centre, the more, in units of centres' distances."""
    square = ((features[:, None] - centres) ** 2).sum(-1)
    width = 1.0
    if len(centres) > 1:
        apart = ((centres[:, None] - centres) ** 2).sum(-1) + torch.diag(torch.full((len(centres),), torch.inf)).to(
            square
        )
        width = float(apart.amin(1).mean()) / 4
    weights = torch.softmax(-square / (2 * max(width, 1e-12)), 1).T
    return (1 - FLOOR) * weights + FLOOR / len(centres)


def directional(rank: int, widest: float, across: float = ACROSS) -> Tensor:
    """Covariances of a fixed set of ``rank`` kernels: a narrow one, and lines in all directions.

    From 13 kernels on every second line is half as long. With their kernels at rest the fit is convex.

    Examples
    --------
    >>> directional(9, 2.0).shape
    torch.Size([9, 3])
    """
    rows = [[across**2, 0.0, across**2]]
    several = 2 if rank > 12 else 1
    lengths = [max(widest * share, 2 * across) for share in LENGTHS[-several:]]
    for n in range(rank - 1):
        length, turn = lengths[n % several], math.pi * (n // several) / math.ceil((rank - 1) / several)
        mean, half = (length**2 + across**2) / 2, (length**2 - across**2) / 2
        rows.append([mean + half * math.cos(2 * turn), half * math.sin(2 * turn), mean - half * math.cos(2 * turn)])
    return torch.tensor(rows, dtype=torch.float64)


def features_at_knots(model: ProductConvolution, covariance: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Means of C ``(3, row, column)`` around each knot, ``(knot, 3)``, and how much of it is valid, ``(knot,)``.

    C_jk is multiplied by √2, so that distances do not depend on the axes.
    """
    inside = valid.to(covariance)
    total = model.at_knots(inside)
    means = model.at_knots(torch.where(valid, covariance, 0)) / total.clamp(min=1e-12)
    everywhere = torch.where(valid, covariance, 0).sum((1, 2)) / inside.sum().clamp(min=1)
    means = torch.where(total > 0.05, means, everywhere[:, None, None])
    means[1] *= FROBENIUS
    return means.flatten(1).T, torch.where(total > 0.05, total, 0).flatten()
