"""Every prior and constraint, one line each: what `test_every_prior` demands of one it demands of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddf_tomo.priors import (
    L1,
    Functional,
    GroupSparsity,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    Smoothness,
    TotalVariation,
)

SHAPE = (3, 2, 2)


@dataclass(frozen=True)
class Prior:
    """``coefficients`` of a voxel; ``turns``: of what kind they are, if the prior does not see a rotation of them."""

    make: Callable[[], Functional]
    coefficients: int = 6
    turns: str = ""


PRIORS = {
    "smoothness": Prior(lambda: Smoothness(SHAPE), 6, "harmonics"),
    "total variation": Prior(lambda: TotalVariation(SHAPE), 6, "harmonics"),
    "weighted total variation": Prior(lambda: TotalVariation(SHAPE, order_weights=[2.0, 0.5]), 6, "harmonics"),
    "rounded total variation": Prior(lambda: TotalVariation(SHAPE, smoothing=0.3), 6, "harmonics"),
    "L1": Prior(L1),
    "rounded L1": Prior(lambda: L1(smoothing=0.3)),
    "groups": Prior(GroupSparsity, 15, "harmonics"),
    "groups of orders": Prior(lambda: GroupSparsity(per_order=True), 15, "harmonics"),
    "groups without mean": Prior(lambda: GroupSparsity(leave_out_mean=True), 15, "harmonics"),
    "groups of orders without mean": Prior(lambda: GroupSparsity(per_order=True, leave_out_mean=True), 6, "harmonics"),
    "rounded groups": Prior(lambda: GroupSparsity(leave_out_mean=True, smoothing=0.3), 6, "harmonics"),
    "non-negative mean": Prior(NonNegativeMean, 6, "harmonics"),
    "non-negative function": Prior(lambda: NonNegativeFunction(2), 6),
    "positive definite": Prior(PositiveDefinite, 6, "tensor"),
    "positive definite, scaled": Prior(lambda: PositiveDefinite(scaled=True), 6),
}
