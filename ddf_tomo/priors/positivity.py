"""Scattering is never negative: in the mean, or in every direction."""

from __future__ import annotations

import torch

from ddf_tomo._checks import even_order, integer, message
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, half_sphere_grid
from ddf_tomo.priors.channel_matrix import ChannelMatrix
from ddf_tomo.priors.functional import Functional

MOST_DIRECTIONS = 100_000
FINE_DIRECTIONS = 4000
VOXELS_AT_ONCE = 4096


class NonNegativeMean(Functional):
    """The mean over directions, the coefficient of ℓ = 0 and first of a voxel, is not negative.

    Examples
    --------
    >>> import torch
    >>> NonNegativeMean().proximal(torch.tensor([[-1.0, -2.0], [3.0, -4.0]]), 1.0)
    tensor([[ 0., -2.],
            [ 3., -4.]])
    """

    is_constraint = True

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(())

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        if not z.ndim:
            raise ValueError(message("z", "coefficients on the last axis", "a single number"))
        return torch.cat([z[..., :1].clamp(min=0), z[..., 1:]], dim=-1)


class NonNegativeFunction(Functional):
    """The function on the sphere is not negative, in every direction of a quasi-uniform grid on the half-sphere.

    ``L`` evaluates it there, divided by the root of the number of directions, so that ``|L c|² ≈ |c|²``: the mean of
    the square over the sphere. Between the directions it may dip below zero by a little, the less the more there are.
    Up to the spacing of the grid the set does not change when the sample is rotated.

    Parameters
    ----------
    ell_max
        Order of the coefficients; even.
    directions
        How many; by default four times the number of coefficients.

    Attributes
    ----------
    grid
        Directions, shape ``(directions, 3)``.

    Examples
    --------
    >>> import torch
    >>> prior = NonNegativeFunction(4)
    >>> prior.operator
    <ChannelMatrix channel, channel, channel, 15 -> channel, channel, channel, 60>
    """

    is_constraint = True

    def __init__(self, ell_max: int, directions: int | None = None) -> None:
        order = even_order(ell_max)
        count = 4 * coefficient_count(order)
        count = count if directions is None else integer(directions, "directions", low=1, high=MOST_DIRECTIONS)
        self.grid = half_sphere_grid(count)
        self.operator = ChannelMatrix(evaluate(self.grid, order) / count**0.5)

    def value(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(())

    def proximal(self, z: torch.Tensor, step: float) -> torch.Tensor:
        return z.clamp(min=0)


def nowhere_negative(x: torch.Tensor, ell_max: int) -> torch.Tensor:
    """The function of each voxel, mixed with its mean as far as it takes not to be negative in any of 4000 directions.

    Parameters
    ----------
    x
        Coefficients, their number on the last axis.
    ell_max
        Their order.

    Returns
    -------
    torch.Tensor
        A new volume. Zero where the mean was negative.

    Examples
    --------
    >>> nowhere_negative(torch.tensor([[-1.0, 0, 0, 5, 0, 0], [2.0, 0, 0, 0.1, 0, 0]]), 2)
    tensor([[0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
            [2.0000, 0.0000, 0.0000, 0.1000, 0.0000, 0.0000]])
    """
    harmonics = torch.as_tensor(evaluate(half_sphere_grid(FINE_DIRECTIONS), even_order(ell_max))).to(x)[:, 1:]
    voxels = x.flatten(0, -2)
    lowest = torch.cat([(part[:, 1:] @ harmonics.mT).amin(-1, keepdim=True) for part in voxels.split(VOXELS_AT_ONCE)])
    mean = voxels[:, :1].clamp(min=0)
    share = torch.where(lowest < -mean, mean / torch.where(lowest < 0, -lowest, 1), 1)
    return torch.cat([mean, share * voxels[:, 1:]], dim=-1).reshape(x.shape)
