"""One Gauss–Newton step of volume and geometry together.

Near a volume x₀ and corrections θ₀ the signals are ``A(θ₀) x + J δ``, with ``J = ∂(A(θ) x₀)/∂θ`` at θ₀: linear in the
new volume x and the steps δ. Minimising

    ½ |W^(1/2) (A x + J δ - data)|² + ½ λ |D x|² + ½ μ |δ|²

over both at once is variable projection to first order [Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413]: the volume
gives way as the views move, so that smooth drifts, which alternating between the two hardly sees, converge at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.operators.base import LinearOperator
from ddf_tomo.operators.geometry_gradient import AdjustableXRayTransform
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors import Differences
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import cgls, preconditioner

DAMPING = 1e-3  # μ relative to the mean curvature in δ


class Level:
    """The problem on one grid: data, weights, penalty, and a preconditioner that serves all geometries close by.

    Parameters
    ----------
    scan
        Data of this grid.
    ell_max
        Order of the model.
    smoothness
        λ relative to the curvature of a constant volume.

    Examples
    --------
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> from ddf_tomo import SecondMomentResponse
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8), views=[5], tilts_rad=[0.2]), SecondMomentResponse())
    >>> level = Level(scan, 2, 1e-3)
    >>> level.volume(torch.zeros(5, 5, dtype=torch.float64), iterations=3).shape
    torch.Size([8, 8, 8, 6])
    """

    def __init__(self, scan: Scan, ell_max: int, smoothness: float) -> None:
        self.scan, self.ell_max = scan, ell_max
        self.data = torch.tensor(as_numpy(scan.data), dtype=torch.float32)
        self.weights = torch.tensor(as_numpy(scan.full_weights()), dtype=torch.float32)
        self.adjustable = AdjustableXRayTransform(scan.geometry, scan.response, ell_max)
        A = self.transform(torch.zeros(len(scan), 5))
        one = torch.zeros(*scan.geometry.volume_shape, A.matrix.shape[2])
        one[..., 0] = 1
        self.penalty_weight = smoothness * float((A(one).square() * self.weights).sum()) / one[..., 0].numel()
        self.differences = Differences(scan.geometry.volume_shape)
        self.inverse = preconditioner(
            A, self.weights, tikhonov=self.penalty_weight, penalty=self.differences, padding=1.5
        )

    def transform(self, corrections: Tensor) -> TensorXRayTransform:
        """The operator of the corrected geometry."""
        return TensorXRayTransform(self.adjustable.corrected(corrections), self.scan.response, self.ell_max)

    def volume(self, corrections: Tensor, iterations: int, start: Tensor | None = None, data: Any = None) -> Tensor:
        """The volume for given ``corrections``, shape ``(views, 5)``, from ``data`` in place of the scan's."""
        return cgls(
            self.transform(corrections),
            self.data if data is None else data,
            weights=self.weights,
            tikhonov=self.penalty_weight,
            penalty=self.differences,
            preconditioner=self.inverse,
            iterations=iterations,
            x0=start,
            progress=False,
        ).x

    def square(self, signals: Tensor) -> float:
        """Weighted sum of squares."""
        return float((self.weights * signals.square()).sum(dtype=torch.float64))

    def share_left(self, signals: Tensor) -> float:
        """Norm of what these signals leave of the data, relative to that of the data."""
        return (self.square(signals - self.data) / self.square(self.data)) ** 0.5

    def linearised(self, volume: Tensor, corrections: Tensor, freedom: Freedom) -> Linearised:
        """Slopes of the signals at this ``volume`` and these ``corrections``."""
        rotations = freedom.kinds == 5
        A = self.transform(corrections)
        _, slopes = self.adjustable.derivatives(_smoothed(volume), corrections, rotations=rotations)
        of_views = torch.einsum("vjkma,vjkm,vjkmb->vab", slopes, self.weights, slopes).double()
        curvature = freedom.curvature(of_views)
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        # The mean over all parameters of a kind: a view without signal stays where it is.
        typical = diagonal.reshape(freedom.shape).mean(0).clamp_min(1e-30)
        damping = DAMPING * typical.expand(freedom.shape).reshape(diagonal.shape)
        return Linearised(self, A, A(volume), slopes, freedom, curvature, damping)


def _smoothed(x: Tensor) -> Tensor:
    """The volume (x, y, z, coefficient) convolved with (1, 2, 1)/4 along each axis."""
    for axis in range(3):
        length = x.shape[axis]
        zero = torch.zeros_like(x.narrow(axis, 0, 1))
        padded = torch.cat([zero, x, zero], axis)
        x = (padded.narrow(axis, 0, length) + padded.narrow(axis, 2, length)) / 4 + x / 2
    return x


@dataclass
class Linearised:
    """Signals and slopes at one place, and the joint step from there; made by `Level.linearised`."""

    level: Level
    A: TensorXRayTransform
    signals: Tensor
    slopes: Tensor
    freedom: Freedom
    curvature: Tensor
    damping: Tensor

    def residual(self) -> float:
        """Share of the weighted data's norm that the signals leave."""
        return self.level.share_left(self.signals)

    def change(self, parameters: Tensor) -> Tensor:
        """How the signals change with the parameters."""
        return torch.einsum("vjkma,va->vjkm", self.slopes, self.freedom.expand(parameters).to(self.slopes))

    def step(self, volume: Tensor, iterations: int, data: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The volume and the steps of all parameters that fit best together, the data or others."""
        level, joint = self.level, _Joint(self)
        start = torch.cat([volume.flatten(), volume.new_zeros(self.freedom.shape).flatten()])
        found = cgls(
            joint,
            level.data if data is None else data,
            weights=level.weights,
            tikhonov=1.0,
            penalty=_Penalty(joint, level.penalty_weight, self.damping.flatten()),
            preconditioner=_Preconditioner(joint, level.inverse, self.curvature + torch.diag_embed(self.damping)),
            iterations=iterations,
            x0=start,
            progress=False,
        ).x
        x, steps = joint.split(found)
        return x.clone(), self.freedom.without_gauge(steps.double())


class _Joint(LinearOperator):
    """``(x, δ) → A x + J δ``, with volume and parameters in one flat vector."""

    def __init__(self, at: Linearised) -> None:
        self.at, self.A, self.freedom = at, at.A, at.freedom
        self.volume_shape = (*at.A.geometry.volume_shape, at.A.matrix.shape[2])
        self.voxels = math.prod(self.volume_shape)
        self.domain_shape = (self.voxels + math.prod(self.freedom.shape),)
        self.range_shape = at.A.range_shape

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[: self.voxels].reshape(self.volume_shape), z[self.voxels :].reshape(self.freedom.shape)

    def _apply(self, z: Tensor) -> Tensor:
        x, steps = self.split(z)
        return self.A(x) + self.at.change(steps)

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        steps = self.freedom.collect(torch.einsum("vjkma,vjkm->va", self.at.slopes, y))
        return torch.cat([self.A.T(y).flatten(), steps.flatten()])


class _Penalty(LinearOperator):
    """``(x, δ) → (√λ D x, √μ δ)``."""

    def __init__(self, joint: _Joint, weight: float, damping: Tensor) -> None:
        self.joint, self.root, self.roots = joint, weight**0.5, damping.sqrt()
        self.differences = Differences(joint.volume_shape[:3])
        self.domain_shape = joint.domain_shape
        self.range_shape = (3 * joint.voxels + len(damping),)

    def _apply(self, z: Tensor) -> Tensor:
        x, steps = self.joint.split(z)
        return torch.cat([self.root * self.differences(x).flatten(), self.roots.to(z) * steps.flatten()])

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        along, steps = y.split([3 * self.joint.voxels, len(self.roots)])
        x = self.differences.T(along.reshape(3, *self.joint.volume_shape))
        return torch.cat([self.root * x.flatten(), self.roots.to(y) * steps])


class _Preconditioner(LinearOperator):
    """The volume's own preconditioner, and the inverse of the small curvatures of the parameters."""

    def __init__(self, joint: _Joint, of_volume: LinearOperator, curvature: Tensor) -> None:
        self.joint, self.of_volume = joint, of_volume
        self.inverse = torch.linalg.inv(curvature)
        self.domain_shape = self.range_shape = joint.domain_shape

    def _apply(self, z: Tensor) -> Tensor:
        x, steps = self.joint.split(z)
        blocks = steps.reshape(len(self.inverse), -1, 1)
        return torch.cat([self.of_volume(x.contiguous()).flatten(), (self.inverse.to(z) @ blocks).flatten()])

    def _apply_adjoint(self, y: Tensor) -> Tensor:
        return self._apply(y)
