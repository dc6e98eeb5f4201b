"""Classes that derive from deepinv's; made by the functions of `ddf_tomo.interop.deepinv`, on their first call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, neighbour, of_kind
from ddf_tomo.interop.deepinv import from_deepinv, to_deepinv
from ddf_tomo.operators.base import LinearOperator, Shape
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.solvers.terms import Terms

deepinv: Any = neighbour("deepinv")
MAPS = (1, 2, 3)  # channels of an image of maps: T, u, C


class OperatorPhysics(deepinv.physics.LinearPhysics):
    """A `LinearOperator` as deepinv's physics."""

    def __init__(self, operator: LinearOperator, normal: LinearOperator | None, **options: Any) -> None:
        self._has_channels = [len(shape) >= 4 for shape in (operator.domain_shape, operator.range_shape)]
        self._mixed = self._has_channels[0] != self._has_channels[1]
        super().__init__(img_size=self._shape(operator.domain_shape, 0), device=operator.device or "cpu", **options)
        self.operator, self.normal = operator, normal

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Measurements without noise."""
        return self._theirs(self.operator(self._ours(x, 0)), 1)

    def A_adjoint(self, y: Tensor, **_: Any) -> Tensor:
        """The transpose."""
        return self._theirs(self.operator.T(self._ours(y, 1)), 0)

    def A_adjoint_A(self, x: Tensor, **options: Any) -> Tensor:
        """Both, or what stands for them: gradients and least squares of deepinv's call this."""
        if self.normal is None:
            return super().A_adjoint_A(x, **options)
        return self._theirs(self.normal(self._ours(x, 0)), 0)

    def _shape(self, shape: Shape, side: int) -> tuple[int, ...]:
        """Without the batch; a free number of channels is taken as 1."""
        sizes = tuple(1 if n is None else n for n in shape)
        return (sizes[-1], *sizes[:-1]) if self._has_channels[side] else (1, *sizes)

    def _ours(self, array: Tensor, side: int) -> Tensor:
        if self._has_channels[side]:
            return from_deepinv(array)
        return array.squeeze(1) if self._mixed else array

    def _theirs(self, array: Tensor, side: int) -> Tensor:
        if self._has_channels[side]:
            return to_deepinv(array)
        return array.unsqueeze(1) if self._mixed else array


class ImagingPhysics(deepinv.physics.Physics):
    """`ModulatedImaging` as deepinv's physics: maps ``(B, 6, row, column)`` to frames ``(B, frame, row, column)``."""

    def __init__(self, imaging: ModulatedImaging, **options: Any) -> None:
        super().__init__(**options)
        self.imaging = imaging

    def A(self, x: Tensor, **_: Any) -> Tensor:
        """Frames without noise."""
        transmission, displacement, covariance = x.split(MAPS, 1)
        maps = {"displacement": displacement.movedim(1, -1), "covariance": covariance.movedim(1, -1)}
        frames = self.imaging(transmission[:, 0], **maps)
        return frames.reshape(len(x), -1, *x.shape[2:])


class CubeTransform(deepinv.transform.Transform):
    """Random rotations of the cube; the parameter ``rotation`` holds indices into ``CUBE_ROTATIONS``."""

    def __init__(self, of_tensors: bool, n_trans: int, rng: torch.Generator | None) -> None:
        super().__init__(n_trans=n_trans, rng=rng, flatten_video_input=False)
        self.of_tensors = of_tensors

    def _get_params(self, x: Tensor) -> dict[str, Any]:
        lengths = tuple(x.shape[2:])
        same = [n for n, g in enumerate(CUBE_ROTATIONS) if tuple(lengths[axis] for axis in g.axes) == lengths]
        chosen = torch.randperm(len(same), generator=self.rng, device=self.rng.device)[: self.n_trans]
        indices = torch.tensor(same)[chosen.cpu()]
        return {"rotation": deepinv.transform.base.TransformParam(indices, neg=_inverses)}

    def _transform(self, x: Tensor, rotation: Any = (), **_: Any) -> Tensor:
        volume, turned = from_deepinv(x), []
        for index in rotation:
            g = CUBE_ROTATIONS[int(index)]
            turned.append(to_deepinv((g.tensors if self.of_tensors else g.volume)(volume)))
        return torch.cat(turned)


def _inverses(indices: Tensor) -> Tensor:
    return torch.tensor([CUBE_ROTATIONS.index(CUBE_ROTATIONS[int(n)].inverse) for n in indices.flatten()])


class ViewSplitting(deepinv.physics.generator.PhysicsGenerator):
    """Masks ``(B, channel, view, j, k)`` that keep whole views."""

    def __init__(self, shape: tuple[int, ...], kept: int, rng: torch.Generator | None) -> None:
        super().__init__(rng=rng)
        self.shape, self.kept = shape, kept

    def step(self, batch_size: int = 1, seed: int | None = None, **_: Any) -> dict[str, Tensor]:
        """One mask for each item of the batch."""
        self.rng_manual_seed(seed)
        mask = torch.zeros(batch_size, 1, self.shape[1], 1, 1)
        for item in mask:
            item[0, torch.randperm(self.shape[1], generator=self.rng)[: self.kept]] = 1.0
        return {"mask": mask.expand(batch_size, *self.shape)}


class FunctionalPrior(deepinv.optim.Prior):
    """Our functionals, as one of deepinv's priors."""

    def __init__(self, regularisers: Any, iterations: int) -> None:
        super().__init__()
        self.regularisers, self.iterations, self.explicit_prior = regularisers, iterations, True

    def _terms(self, item: Tensor) -> Terms:
        return Terms(self.regularisers, item)

    def fn(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """One number for each item of the batch."""
        return x.new_tensor([self._terms(item).value(item.detach()) for item in from_deepinv(x)])

    def grad(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Sum of the terms' gradients; terms that have none say so."""
        items = from_deepinv(x)
        found = [sum((term.gradient(item) for term in self._terms(item).all), 0 * item) for item in items]
        return to_deepinv(torch.stack(found))

    def prox(self, x: Tensor, *_: Any, gamma: Any = 1.0, **__: Any) -> Tensor:
        """By dual iterations where terms have an operator."""
        found = []
        for item in from_deepinv(x):
            terms = self._terms(item)
            found.append(terms.proximal(item, float(gamma), terms.duals(item), self.iterations))
        return to_deepinv(torch.stack(found))


class VolumeDenoiser(deepinv.models.base.Denoiser):
    """A denoiser of volumes ``(..., x, y, z, C)`` as one of deepinv's."""

    def __init__(self, denoiser: Any, batched: bool) -> None:
        super().__init__()
        self.denoiser, self.batched = denoiser, batched

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        """Denoised ``(B, C, x, y, z)``."""
        volumes = from_deepinv(x)
        levels = self._handle_sigma(sigma, batch_size=len(x), device=x.device, dtype=x.dtype)
        if self.batched:
            return to_deepinv(self._like(volumes, self.denoiser(volumes, levels)))
        pairs = zip(volumes, levels, strict=True)
        return to_deepinv(torch.stack([self._like(volume, self.denoiser(volume, level)) for volume, level in pairs]))

    @staticmethod
    def _like(volume: Tensor, found: Any) -> Tensor:
        of_kind(Tensor, found, "ours(volume, noise_level)")
        check_shape(found.shape, "ours(volume, noise_level)", volume.shape)
        return found
