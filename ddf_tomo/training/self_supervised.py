"""Learning without a truth: what stands in for it, each with the expectation that makes it do so.

deepinv has losses of the same names, for physics of its own kind; these are short, know coefficients, views and counts,
and need nothing but torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, check_shape, integer, message, number, of_kind, real_array
from ddf_tomo.operators.base import LinearOperator, as_tensor
from ddf_tomo.operators.cube_rotations import CubeRotation
from ddf_tomo.training._inputs import function, real_volume

__all__ = ["equivariance_loss", "split_counts", "split_views", "stein_risk"]
MOST_PARTS = 64
SMALLEST_STEP = 1e-6  # of a finite difference; rounding is larger than what smaller ones change


def split_counts(counts: Any, shares: Sequence[float] = (0.5, 0.5), *, seed: int = 0) -> list[NDArray[np.int64]]:
    """Frames of fewer counts that add up to the ones given, with *independent* Poisson noise.

    Each photon is dealt to one of the parts. If the counts are Poisson with mean λ, part i is Poisson with mean
    ``share_i λ`` and knows nothing of the others (thinning; Kingman 1993, Poisson Processes, ch. 5): what is retrieved
    from one part can be judged, or taught, by another. It holds for counts, not for maps or line integrals, so that
    frames are what is split; counts of a detector with gain are divided by it first.

    Parameters
    ----------
    counts
        Photons: whole numbers of zero or more, an array of any shape.
    shares
        Of the parts; they add up to 1.
    seed
        Of the dealing.

    Returns
    -------
    list of NDArray
        One array of the counts' shape for each share.

    Raises
    ------
    TypeError, ValueError
        If counts are no whole numbers, or shares do not add up to 1.

    Examples
    --------
    >>> counts = np.array([[100, 0], [7, 12]])
    >>> first, second = split_counts(counts, seed=1)
    >>> bool((first + second == counts).all())
    True
    """
    left = real_array(counts, "counts")
    if (left < 0).any() or (left != np.floor(left)).any() or left.max(initial=0) > 2**53:
        hint = "divide by the gain, and split frames before anything else is done to them"
        raise ValueError(message("counts", "whole numbers of photons", "others", hint))
    parts = real_array(shares, "shares", (None,))
    if not len(parts) or (parts <= 0).any() or abs(parts.sum() - 1) > 1e-9:
        raise ValueError(message("shares", "positive numbers that add up to 1", list(parts)))
    draw = np.random.default_rng(integer(seed, "seed", high=LARGEST_SEED))
    remaining, dealt = left.astype(np.int64), []
    for place, share in enumerate(parts[:-1]):
        dealt.append(draw.binomial(remaining, min(1.0, share / parts[place:].sum())))
        remaining = remaining - dealt[-1]
    return [*dealt, remaining]


def split_views(views: int, parts: int) -> list[NDArray[np.int64]]:
    """Which views each of several reconstructions takes: every ``parts``-th, so that all of them look from everywhere.

    Noise differs from view to view: a network that is given the mean of some reconstructions and shown another one as
    its aim cannot learn noise (Noise2Inverse; Hendriksen, Pelt & Batenburg 2020, IEEE Trans. Comput. Imaging 6, 1320).

    Parameters
    ----------
    views
        How many there are.
    parts
        How many reconstructions, 2 to 64, each of at least one view.

    Raises
    ------
    ValueError
        If there are fewer views than parts.

    Examples
    --------
    >>> [part.tolist() for part in split_views(7, 3)]
    [[0, 3, 6], [1, 4], [2, 5]]
    """
    count = integer(parts, "parts", low=2, high=MOST_PARTS)
    many = integer(views, "views", low=count, high=10**9)
    return [np.arange(first, many, count) for first in range(count)]


def stein_risk(
    denoise: Callable[[Tensor], Tensor], noisy: Tensor, sigma: Any, *, seed: int = 0, step: float = 1e-2
) -> Tensor:
    """Unbiased estimate of a denoiser's mean square error, from the noisy data alone; a scalar, differentiable.

    For ``y = x + n`` with Gaussian noise of standard deviation σ, ``E |D(y) - x|² = E [|D(y) - y|² - Σ σ² + 2 Σ σ²
    ∂D/∂y]`` (Stein 1981, Ann. Statist. 9, 1135), with the divergence by one random direction and a finite difference
    (Ramani, Blu & Unser 2008, IEEE Trans. Image Process. 17, 1540).

    Parameters
    ----------
    denoise
        From an array of the shape of ``noisy`` to another.
    noisy
        Data with white noise, any shape.
    sigma
        Standard deviation of the noise: a number, or a tensor that broadcasts to the shape of ``noisy``.
    seed
        Of the direction, which has entries ±1.
    step
        Of the difference, relative to σ.

    Returns
    -------
    torch.Tensor
        Mean over all entries of the squared error; it can come out below zero.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> noisy = torch.ones(100, 100) + 0.1 * torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    >>> risk = stein_risk(lambda y: y, noisy, 0.1)  # of doing nothing: the variance of the noise
    >>> round(risk.item(), 4)
    0.01
    """
    real_volume(noisy, "noisy")
    function(denoise, "denoise")
    level = as_tensor(sigma, "sigma").to(noisy)
    try:
        level = level.expand(noisy.shape)
    except RuntimeError as error:
        raise ValueError(
            message("sigma", f"a shape that broadcasts to {tuple(noisy.shape)}", tuple(level.shape))
        ) from error
    if not bool((level > 0).all() & torch.isfinite(level).all()):
        raise ValueError(message("sigma", "finite numbers above 0", "others"))
    difference = number(step, "step", low=SMALLEST_STEP, high=1.0)
    generator = torch.Generator().manual_seed(integer(seed, "seed", high=LARGEST_SEED))
    signs = torch.randint(0, 2, noisy.shape, generator=generator).to(noisy) * 2 - 1
    clean = denoise(noisy)
    check_shape(clean.shape, "denoise(noisy)", tuple(noisy.shape))
    moved = denoise(noisy + difference * level * signs)
    # σ² ∂D/∂y along signs: the step is in units of σ, which leaves one σ.
    divergence = (level * signs * (moved - clean)).mean() / difference
    return (clean - noisy).square().mean() - level.square().mean() + 2 * divergence


def equivariance_loss(
    reconstruct: Callable[[Tensor], Tensor],
    A: LinearOperator,
    data: Tensor,
    rotation: CubeRotation,
    *,
    noise: Tensor | None = None,
) -> Tensor:
    """How far a method is from reconstructing turned samples as it reconstructs this one; a scalar, differentiable.

    ``x = f(y)`` is turned, measured by the same views, and reconstructed again: ``|f(A T_g x) - T_g x|² / |T_g x|²``.
    What no view sees of a sample, some view sees of a turned one: a method that is consistent over all rotations has to
    know that part too (equivariant imaging; Chen, Tachella & Davies 2021, ICCV). Measuring a turned sample is measuring
    the sample with views turned back, ``A (T_g x) = A_{g⁻¹} x``.

    Parameters
    ----------
    reconstruct
        From data ``(view, j, k, channel)`` to coefficients ``(x, y, z, K)``, differentiable.
    A
        The operator of the scan.
    data
        Its data, shape ``(view, j, k, channel)``.
    rotation
        One of `ddf_tomo.operators.CUBE_ROTATIONS`, drawn anew for each step; it has to leave the volume its shape.
    noise
        Added to the new data, shape of the data; as strong as that of the scan, it keeps the method from learning to
        trust data blindly.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit.

    Examples
    --------
    >>> from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform
    >>> from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
    >>> geometry = Geometry.from_angles(np.linspace(0, 3, 4), 0.3, (6, 6, 6), (6, 6))
    >>> A = TensorXRayTransform(geometry, SecondMomentResponse(), ell_max=2)
    >>> loss = equivariance_loss(A.T, A, torch.rand(A.range_shape), CUBE_ROTATIONS[5])  # far from an inverse
    >>> bool(loss > 1)
    True
    """
    of_kind(LinearOperator, A, "A")
    of_kind(CubeRotation, rotation, "rotation")
    real_volume(data, "data")
    function(reconstruct, "reconstruct")
    turned = rotation.volume(reconstruct(data))
    check_shape(turned.shape, "rotation (of the volume)", A.domain_shape)
    measured = A(turned)
    if noise is not None:
        check_shape(real_volume(noise, "noise").shape, "noise", tuple(measured.shape))
        measured = measured + noise
    off, numbers = (reconstruct(measured) - turned).square().sum(), torch.finfo(turned.dtype)
    least = (numbers.eps**2 * off.detach()).clamp_min(numbers.tiny)  # beside which the sample is no more than rounding
    return off / torch.maximum(turned.detach().square().sum(), least)
