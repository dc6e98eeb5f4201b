"""Our operators, rotations, priors and denoisers inside deepinv, and deepinv's denoisers on our volumes.

deepinv's arrays are ``(batch, channel, *space)``; ours are ``(*batch, *space, channel)``. So volumes ``(x, y, z, C)``
are ``(B, C, x, y, z)`` there, and data ``(view, j, k, channel)`` are ``(B, channel, view, j, k)``. Arrays of fewer axes
(of blurs, and of wrapped projectors of one volume) have no axis of channels with us: there each channel is treated
alike. `to_deepinv` and `from_deepinv` are this map; both give views of the same memory.

What deepinv 0.5 does for images only has its replacement here: `cube_rotations` for ``Rotate``, which turns the last
two axes and no coefficients; `view_splitting` for the masks of ``SplittingLoss``, which leave out pixels, not views;
`prior` for ``TVPrior``, which knows every coefficient by itself.

[Tachella et al. 2025, J. Open Source Softw. 10(115), 8923]
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import choice, dense, flag, integer, message, number, of_kind
from ddf_tomo.operators.base import LinearOperator, fits, is_number, shape_text
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.priors.functional import Functional

__all__ = [
    "cube_rotations",
    "denoiser",
    "from_deepinv",
    "physics",
    "prior",
    "to_deepinv",
    "view_splitting",
    "volume_denoiser",
]


def to_deepinv(array: Tensor) -> Tensor:
    """``(batch, *space, channel)`` as ``(batch, channel, *space)``.

    Parameters
    ----------
    array
        Shape ``(batch, *space, channel)``; without a batch, give it one with ``array[None]``.

    Examples
    --------
    >>> to_deepinv(torch.zeros(2, 8, 9, 10, 15)).shape
    torch.Size([2, 15, 8, 9, 10])
    """
    return _moved(array, -1, 1)


def from_deepinv(array: Tensor) -> Tensor:
    """``(batch, channel, *space)`` as ``(batch, *space, channel)``.

    Parameters
    ----------
    array
        Shape ``(batch, channel, *space)``.

    Examples
    --------
    >>> from_deepinv(torch.zeros(2, 15, 8, 9, 10)).shape
    torch.Size([2, 8, 9, 10, 15])
    """
    return _moved(array, 1, -1)


def _moved(array: Tensor, source: int, target: int) -> Tensor:
    of_kind(Tensor, array, "array")
    if dense(array, "array").ndim < 3:
        raise ValueError(message("array", "a batch, channels and at least one more axis", tuple(array.shape)))
    return array.movedim(source, target)


def physics(operator: Any, noise: Any = None, *, normal: LinearOperator | None = None, **options: Any) -> Any:
    """A deepinv physics: a ``LinearPhysics`` of any linear operator, a ``Physics`` of `ModulatedImaging`.

    deepinv's steps want operators of norm near 1, which ``physics(operator * (1 / operator.norm()))`` has; its
    ``compute_norm`` gives the *square* of the norm unless told otherwise. A foreign projector joins through
    `ddf_tomo.wrap`. The physics is where its operator is: ``.to(device)`` does not move it.

    Parameters
    ----------
    operator
        A `LinearOperator`: projectors, tensor projectors, blurs, and what is made of them. Or a `ModulatedImaging`,
        whose maps are one image ``(B, 6, row, column)`` of T, u_j, u_k, C_jj, C_jk, C_kk, and whose frames are
        ``(B, distance · step, row, column)``.
    noise
        A noise model of deepinv's, or the standard deviation of Gaussian noise; by default there is none.
    normal
        What stands for ``operator.T @ operator`` in gradients and least squares: ``A.normal(exact=False)`` costs the
        same for any number of views, and is not exact, see `FastNormal`.
    **options
        Of deepinv's class, such as ``max_iter`` and ``tol`` of its least squares.

    Returns
    -------
    deepinv.physics.LinearPhysics or deepinv.physics.Physics
        With ``operator`` or ``imaging``, what was given.

    Raises
    ------
    ImportError
        If deepinv is not there, or does not import.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 6), 0.2, (8, 8, 8), (8, 8))
    >>> model = physics(TensorXRayTransform(geometry, SecondMomentResponse(), 2), noise=0.01)
    >>> model(torch.rand(2, 6, 8, 8, 8)).shape
    torch.Size([2, 3, 6, 8, 8])
    """
    if not isinstance(operator, (LinearOperator, ModulatedImaging)):
        expected = "a LinearOperator or a ModulatedImaging"
        hint = "a foreign projector becomes one by ddf_tomo.wrap(...)"
        raise TypeError(message("operator", expected, type(operator).__name__, hint))
    module = _classes()
    if is_number(noise) and not isinstance(noise, bool):
        noise = module.deepinv.physics.GaussianNoise(number(noise, "noise", low=0.0))
    if noise is not None:
        of_kind(module.deepinv.physics.NoiseModel, noise, "noise", "a number or a noise model of deepinv's")
        options["noise_model"] = noise
    if isinstance(operator, ModulatedImaging):
        if normal is not None:
            raise ValueError(message("normal", "none beside a ModulatedImaging, which is not linear", repr(normal)))
        return module.ImagingPhysics(operator, **options)
    if normal is not None:
        of_kind(LinearOperator, normal, "normal")
        shape = operator.domain_shape
        if not (fits(normal.domain_shape, shape) and fits(normal.range_shape, shape)):
            raise ValueError(message("normal", f"an operator from ({shape_text(shape)}) to itself", normal.shape))
    return module.OperatorPhysics(operator, normal, **options)


def cube_rotations(kind: str = "harmonics", n_trans: int = 1, rng: torch.Generator | None = None) -> Any:
    """A deepinv ``Transform`` that turns volumes by rotations of the cube: voxels and their coefficients, exactly.

    For ``EILoss``, ``EquivariantDenoiser`` and everything else that takes a transform. Of volumes whose axes differ in
    length, only the rotations that keep the shape are drawn. Deterministic with ``transform(x, rotation=[n])``, where n
    counts ``ddf_tomo.operators.CUBE_ROTATIONS``.

    Parameters
    ----------
    kind : {"harmonics", "tensors"}
        What the channels of ``(B, C, x, y, z)`` are: coefficients of even harmonics (of absorption: one), or the six
        numbers of a symmetric tensor.
    n_trans
        Rotations of each volume, all different, at most 24; they follow each other along the batch.
    rng
        Where they are drawn from.

    Examples
    --------
    >>> turn = cube_rotations()
    >>> volume = torch.rand(1, 15, 8, 8, 8)
    >>> parameters = turn.get_params(volume)
    >>> bool(torch.allclose(turn.inverse(turn(volume, **parameters), **parameters), volume, atol=1e-5))
    True
    """
    choice(kind, "kind", ("harmonics", "tensors"))
    count = integer(n_trans, "n_trans", low=1, high=24)
    _check_generator(rng)
    return _classes().CubeTransform(kind == "tensors", count, rng)


def view_splitting(operator: LinearOperator, kept: float = 0.5, rng: torch.Generator | None = None) -> Any:
    """A generator of masks that split data by whole views, for deepinv's ``SplittingLoss(mask_generator=...)``.

    Noise2Inverse [Hendriksen et al. 2020, IEEE Trans. Comput. Imaging 6, 1320] needs parts whose errors are
    independent. Pixels of one view are not: retrieval makes neighbours of the same frames.

    Parameters
    ----------
    operator
        That of the physics; its data are ``(view, j, k, channel)``.
    kept
        Share of the views that the reconstruction sees, drawn anew for each item and step; at least one view on
        either side.
    rng
        Where they are drawn from.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 6), 0.2, (8, 8, 8), (8, 8))
    >>> split = view_splitting(TensorXRayTransform(geometry, SecondMomentResponse(), 2))
    >>> mask = split.step(batch_size=2, seed=0)["mask"]
    >>> mask.shape, mask[:, 0, :, 0, 0].sum(1).tolist()
    (torch.Size([2, 3, 6, 8, 8]), [3.0, 3.0])
    """
    of_kind(LinearOperator, operator, "operator")
    shape = operator.range_shape
    if len(shape) != 4 or (shape[0] or 0) < 2:
        raise ValueError(message("operator", "data (view, j, k, channel) of two views at least", shape_text(shape)))
    views, rows, columns, channels = (1 if n is None else n for n in shape)
    count = round(number(kept, "kept", low=0.0, high=1.0) * views)
    _check_generator(rng)
    return _classes().ViewSplitting((channels, views, rows, columns), min(max(count, 1), views - 1), rng)


def prior(regularisers: Any, iterations: int = 50) -> Any:
    """A deepinv ``Prior`` of our functionals: couplings of all coefficients, positivity, and sums of them.

    Parameters
    ----------
    regularisers
        A `Functional` such as ``0.1 * TotalVariation(shape)``, or several in a list. deepinv's ``lambda`` multiplies
        them all.
    iterations
        Dual iterations of a proximal map that has no closed form.

    Examples
    --------
    >>> from ddf_tomo.priors import TotalVariation
    >>> coupled = prior(0.1 * TotalVariation((8, 8, 8)))
    >>> coupled.prox(torch.rand(1, 6, 8, 8, 8), gamma=1.0).shape
    torch.Size([1, 6, 8, 8, 8])
    """
    given = list(regularisers) if isinstance(regularisers, (list, tuple)) else [regularisers]
    for term in given:
        of_kind(Functional, term, "regularisers", "a Functional, or a list of them")
    return _classes().FunctionalPrior(given, integer(iterations, "iterations", low=1, high=10_000))


def denoiser(ours: Callable[..., Tensor], *, batched: bool = True) -> Any:
    """One of our denoisers as a deepinv ``Denoiser``: ``(B, C, x, y, z)``, ``sigma`` in, ``(B, C, x, y, z)`` out.

    Parameters
    ----------
    ours
        ``ours(volume, noise_level)`` with a volume ``(B, x, y, z, C)`` and levels ``(B,)`` gives such a volume.
    batched
        Whether it takes batches; else it gets one volume ``(x, y, z, C)`` after the other, each with a number.

    Examples
    --------
    >>> shrunk = denoiser(lambda volume, level: volume / (1 + level.reshape(-1, 1, 1, 1, 1) ** 2))
    >>> shrunk(torch.ones(2, 6, 8, 8, 8), 1.0).unique()
    tensor([0.5000])
    """
    if not callable(ours):
        raise TypeError(message("ours", "a function of a volume and a noise level", type(ours).__name__))
    return _classes().VolumeDenoiser(ours, flag(batched, "batched"))


def volume_denoiser(theirs: Callable[..., Tensor]) -> torch.nn.Module:
    """A denoiser of deepinv's as one of ours: ``(volume, noise_level)`` with volumes ``(..., x, y, z, C)``.

    Parameters
    ----------
    theirs
        Takes ``(B, C, x, y, z)`` and ``sigma``: deepinv's networks made for three dimensions, such as
        ``DRUNet(in_channels=C, out_channels=C, dim=3)``. They expect values in [0, 1].

    Examples
    --------
    >>> halved = volume_denoiser(lambda x, sigma: x / 2)
    >>> halved(torch.ones(8, 8, 8, 15), 0.1).shape
    torch.Size([8, 8, 8, 15])
    """
    if not callable(theirs):
        raise TypeError(message("theirs", "a denoiser of deepinv's", type(theirs).__name__))
    return _Theirs(theirs)


class _Theirs(torch.nn.Module):
    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.theirs = theirs

    def forward(self, volume: Tensor, noise_level: Any) -> Tensor:
        of_kind(Tensor, volume, "volume")
        if dense(volume, "volume").ndim < 4:
            raise ValueError(message("volume", "shape (..., x, y, z, C)", tuple(volume.shape)))
        level = noise_level.reshape(-1) if isinstance(noise_level, Tensor) and noise_level.ndim else noise_level
        batch = volume.reshape(-1, *volume.shape[-4:])
        return from_deepinv(self.theirs(to_deepinv(batch), level)).reshape(volume.shape)


def _check_generator(rng: Any) -> None:
    if rng is not None:
        of_kind(torch.Generator, rng, "rng")


def _classes() -> Any:
    return importlib.import_module("ddf_tomo.interop._deepinv")
