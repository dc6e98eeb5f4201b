"""The X-ray transform as a function of where the detector and the sample are, with exact derivatives.

A ray meets slice ``s`` of the volume at ``u = u₀ + row u_a + column u_b + s u_s`` (and ``w`` alike), and its integral
is ``ℓ Σ_s f_s(u, w)`` with bilinear ``f_s`` (Joseph's model, see `XRayTransform`). All that the geometry of a view does
is to set these nine numbers. Their derivatives need the sums of ``∂f/∂u`` and ``s ∂f/∂u`` along the ray, and the same
in ``w``; whatever moves the view follows by the chain rule. The integrals are piecewise smooth: where a ray passes just
through a voxel's centre, the derivative is the one towards larger coordinates.

A rotation ``Q`` of a view's frame changes its angular response, too. What a turned view sees of a function ``f`` is
what the view saw of ``f(Q q)``: ``R(Q frame) = R(frame) D(Qᵀ)`` with Wigner's matrices, exactly.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddf_tomo._checks import angular_response, check_shape, dense, even_order, flag, message, of_kind, real_array
from ddf_tomo._threads import in_parallel
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends.table import view_table
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.rank_two import COEFFICIENTS_FROM_TENSOR, TENSOR_FROM_COEFFICIENTS
from ddf_tomo.operators.rotation import wigner_blocks
from ddf_tomo.operators.xray import XRayTransform

__all__ = ["CORRECTIONS", "AdjustableXRayTransform", "corrected"]
CORRECTIONS = ("j_offset", "k_offset", "about_p", "about_j", "about_k")
"""What can be changed of each view: detector offsets in pixels, and rotations about the view's own axes in radians."""
CHUNK_BYTES = 64 * 2**20
LARGEST_ANGLE_RAD = np.pi


def corrected(geometry: Geometry, corrections: ArrayLike | Tensor) -> Geometry:
    """The geometry after small changes of its views.

    Parameters
    ----------
    geometry
        Where the views are thought to be.
    corrections
        Shape ``(views, 5)``, in the order of `CORRECTIONS`: what is added to the detector offsets, in pixels, and the
        rotation vector of the frame (p, j, k), in radians along its own axes before the rotation; right-handed.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> geometry = Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4))  # p = y, j = x, k = z
    >>> turned = corrected(geometry, [[0.5, 0.0, np.pi / 2, 0.0, 0.0]])
    >>> turned.j_offset.tolist(), turned.j.round(6).tolist()  # a quarter turn about y takes x to -z
    ([0.5], [[0.0, 0.0, -1.0]])
    """
    values = checked_corrections(corrections, geometry)
    if not values[:, 2:].any():
        offsets: Any = {"j_offset": geometry.j_offset + values[:, 0], "k_offset": geometry.k_offset + values[:, 1]}
        return replace(geometry, **offsets)
    p, j, k, j_offset, k_offset, _ = (part.numpy() for part in _moved(geometry, torch.from_numpy(values)))
    return Geometry(p, j, k, j_offset, k_offset, geometry.volume_shape, geometry.detector_shape)


class AdjustableXRayTransform:
    """Line integrals, or signals of a tensor response, of a volume *and* of where the views are.

    ``B(x, corrections)`` is `XRayTransform` (or `TensorXRayTransform`) of the corrected geometry applied to ``x``, with
    exact gradients in both, forward and backward: for training, for fits, and for the alignment of views. On the CPU.

    Parameters
    ----------
    geometry
        Where the views are when all corrections are zero.
    response
        Angular response; ``None`` for plain line integrals of any number of channels.
    ell_max
        Highest order of the harmonics, with a response.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.1, 0.7], 0.2, (8, 8, 8), (8, 8))
    >>> B = AdjustableXRayTransform(geometry)
    >>> x = torch.rand(8, 8, 8, 1, dtype=torch.float64)
    >>> corrections = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    >>> B(x, corrections).square().sum().backward()
    >>> corrections.grad.shape
    torch.Size([2, 5])
    """

    def __init__(self, geometry: Geometry, response: Any = None, ell_max: int = 0) -> None:
        of_kind(Geometry, geometry, "geometry", "a ddf_tomo.Geometry")
        self.geometry, self.response, self.ell_max = geometry, response, even_order(ell_max)
        self.matrix: Tensor | None = None
        if response is not None:
            matrix = as_tensor(angular_response(response).matrix(geometry, self.ell_max), "response.matrix(...)")
            check_shape(matrix.shape, "response.matrix(...)", (len(geometry), None, None))
            self.matrix = matrix.to(torch.float64)

    def corrected(self, corrections: ArrayLike | Tensor) -> Geometry:
        """The geometry with these ``corrections``, shape ``(views, 5)``; see `corrected`."""
        return corrected(self.geometry, corrections)

    def __call__(self, x: Any, corrections: Any) -> Tensor:
        """Line integrals or signals, shape ``(views, J, K, channels)``, differentiable in both arguments.

        Parameters
        ----------
        x
            Volume, shape ``(x, y, z, channels)``; float32 or float64.
        corrections
            Shape ``(views, 5)``, see `corrected`.
        """
        x, corrections = self._volume(x), self._corrections(corrections)
        frames = _moved(self.geometry, corrections)
        geometry = corrected(self.geometry, corrections.detach())
        numbers = _numbers(frames, geometry)
        integrals = _Projection.apply(x, numbers, geometry)
        if self.matrix is None:
            return integrals
        response = self._turned(frames[5]).to(integrals)
        return torch.einsum("vmc,vjkc->vjkm", response, integrals)

    @torch.no_grad()
    def derivatives(self, x: Any, corrections: Any, *, rotations: bool = True) -> tuple[Tensor, Tensor]:
        """Signals, and their derivatives in every correction of their own view.

        Parameters
        ----------
        x
            Volume, shape ``(x, y, z, channels)``.
        corrections
            Shape ``(views, 5)``, see `corrected`.
        rotations
            Whether to give the derivatives in the three rotations, too.

        Returns
        -------
        signals : (views, J, K, channels)
        derivatives : (views, J, K, channels, 5)
            In the order of `CORRECTIONS`; without rotations ``(…, 2)``.

        Examples
        --------
        >>> B = AdjustableXRayTransform(Geometry.from_angles(0.1, 0.2, (8, 8, 8), (8, 8)))
        >>> signals, slopes = B.derivatives(np.random.default_rng(0).random((8, 8, 8, 1)), np.zeros((1, 5)))
        >>> shifted = B(np.random.default_rng(0).random((8, 8, 8, 1)), [[1e-6, 0, 0, 0, 0]])
        >>> bool(torch.allclose((shifted - signals) / 1e-6, slopes[..., 0], atol=1e-4))
        True
        """
        x, corrections = self._volume(x), self._corrections(corrections).detach()
        geometry = corrected(self.geometry, corrections)
        count = 5 if flag(rotations, "rotations") else 2
        jacobian, turning = self._jacobian(corrections, count)
        matrix = None if self.matrix is None else self._turned(_moved(self.geometry, corrections)[5]).to(x)
        channels = x.shape[-1] if matrix is None else matrix.shape[1]
        signals = x.new_empty((len(geometry), *geometry.detector_shape, channels))
        slopes = x.new_empty((*signals.shape, count))
        for views, sums in _chunks_of_sums(geometry, x):
            integrals, change = _chain_rule(sums, _numbers_of(geometry[views]).to(x), jacobian[:, views].to(x))
            if matrix is None:
                signals[views], slopes[views] = integrals, change.permute(1, 2, 3, 4, 0)
                continue
            signals[views] = torch.einsum("vmc,vjkc->vjkm", matrix[views], integrals)
            slopes[views] = torch.einsum("vmc,ivjkc->vjkmi", matrix[views], change)
            for place, turned in enumerate(turning):
                slopes[views, ..., 2 + place] += torch.einsum("vmc,vjkc->vjkm", turned[views].to(x), integrals)
        return signals, slopes

    def _jacobian(self, corrections: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
        """Derivatives of the nine numbers ``(count, views, 9)``, and of the response in the rotations."""
        geometry = corrected(self.geometry, corrections)

        def numbers(values: Tensor) -> Tensor:
            return _numbers(_moved(self.geometry, values), geometry)

        def response(values: Tensor) -> Tensor:
            return self._turned(_moved(self.geometry, values)[5])

        directions = torch.eye(5, dtype=torch.float64)[:, None].expand(5, len(corrections), 5)
        jacobian = [torch.autograd.functional.jvp(numbers, corrections, d)[1] for d in directions[:count]]
        turning = directions[:0] if self.matrix is None else directions[2:count]
        return torch.stack(jacobian), [torch.autograd.functional.jvp(response, corrections, d)[1] for d in turning]

    def _turned(self, rotation: Tensor) -> Tensor:
        """Response matrices of frames turned by ``rotation`` (views, 3, 3)."""
        assert self.matrix is not None
        wigner = _block_diagonal(wigner_blocks(rotation.mT, self.ell_max))
        if not getattr(self.response, "of_harmonics", True):
            to, back = torch.tensor(COEFFICIENTS_FROM_TENSOR), torch.tensor(TENSOR_FROM_COEFFICIENTS)
            wigner = back @ wigner @ to
        return self.matrix @ wigner

    def _volume(self, x: Any) -> Tensor:
        x = as_tensor(x, "x")
        channels = None if self.matrix is None else self.matrix.shape[2]
        check_shape(x.shape, "x", (*self.geometry.volume_shape, channels))
        if x.dtype not in (torch.float32, torch.float64) or x.device.type != "cpu":
            raise TypeError(message("x", "float32 or float64 on the CPU", f"{x.dtype} on {x.device}"))
        return x

    def _corrections(self, corrections: Any) -> Tensor:
        checked = torch.from_numpy(checked_corrections(corrections, self.geometry))
        return corrections.to(torch.float64) if isinstance(corrections, Tensor) else checked


def checked_corrections(corrections: ArrayLike | Tensor, geometry: Geometry) -> NDArray[np.float64]:
    """Corrections of every view, float64, shape ``(views, 5)``; see `corrected`.

    Examples
    --------
    >>> checked_corrections([[0, 1, 0, 0, 0]], Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4))).dtype
    dtype('float64')
    """
    of_kind(Geometry, geometry, "geometry", "a ddf_tomo.Geometry")
    given = dense(corrections, "corrections").detach().cpu() if isinstance(corrections, Tensor) else corrections
    values = real_array(given, "corrections", (len(geometry), len(CORRECTIONS)))
    if np.abs(values[:, 2:]).max(initial=0.0) > LARGEST_ANGLE_RAD:
        found = f"{np.abs(values[:, 2:]).max():.3g}"
        raise ValueError(message("corrections", "rotations of at most π radians", found, "are these degrees?"))
    return values


def _moved(geometry: Geometry, corrections: Tensor) -> tuple[Tensor, ...]:
    """Frames p, j, k (views, 3), offsets (views,), and the rotation (views, 3, 3) that made the frames."""
    frame = torch.from_numpy(np.stack([geometry.p, geometry.j, geometry.k], axis=1))
    x, y, z = torch.einsum("vi,via->av", corrections[:, 2:], frame)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    rotation = torch.linalg.matrix_exp(cross)
    p, j, k = (frame @ rotation.mT).unbind(1)
    offsets = (torch.from_numpy(np.array(offset)) for offset in (geometry.j_offset, geometry.k_offset))
    j_offset, k_offset = (offset + corrections[:, i] for i, offset in enumerate(offsets))
    return p, j, k, j_offset, k_offset, rotation


def _numbers(moved: tuple[Tensor, ...], geometry: Geometry) -> Tensor:
    """The nine numbers of each view (`view_table` from its column 6 on), differentiable; main axes of ``geometry``."""
    p, j, k, j_offset, k_offset, _ = moved
    sizes = torch.tensor(geometry.volume_shape)
    main = torch.from_numpy(np.abs(geometry.p).argmax(axis=1))
    axes = torch.where(main == 0, 1, 0), torch.where(main == 2, 1, 2)
    rows, columns = geometry.detector_shape
    corner = (0.5 - rows / 2 + j_offset)[:, None] * j + (0.5 - columns / 2 + k_offset)[:, None] * k

    def entry(vectors: Tensor, axis: Tensor) -> Tensor:
        return vectors.gather(1, axis[:, None])[:, 0]

    numbers = []
    for axis in axes:
        slope = entry(p, axis) / entry(p, main)
        on_slice = [entry(vectors, axis) - slope * entry(vectors, main) for vectors in (corner, j, k)]
        on_slice[0] = on_slice[0] - slope * (sizes[main] - 1) / 2 + (sizes[axis] - 1) / 2
        numbers += [*on_slice, slope]
    return torch.stack([*numbers, 1 / entry(p, main).abs()], dim=-1)


def _numbers_of(geometry: Geometry) -> Tensor:
    return torch.from_numpy(view_table(geometry)[0][:, 6:])


def ray_sums(geometry: Geometry, x: Tensor) -> Tensor:
    """Sums along every ray of ``f``, ``∂f/∂u``, ``s ∂f/∂u``, ``∂f/∂w``, ``s ∂f/∂w`` over the slices ``s``.

    Parameters
    ----------
    geometry
        Views.
    x
        Volume, shape ``(x, y, z, channels)``, on the CPU.

    Returns
    -------
    Tensor
        Shape ``(views, J, K, 5, channels)``.

    Examples
    --------
    >>> ray_sums(Geometry.from_angles(0.1, 0.0, (4, 4, 4), (4, 4)), torch.ones(4, 4, 4, 2)).shape
    torch.Size([1, 4, 4, 5, 2])
    """
    from ddf_tomo.operators import _slope_kernel as kernel

    channels = x.shape[-1]
    padded = torch.nn.functional.pad(x.detach(), (0, 0, 1, 1, 1, 1, 1, 1))
    sums = x.new_zeros((len(geometry), *geometry.detector_shape, 5, channels))
    table, main = view_table(geometry)
    axes = np.stack([main, np.where(main == 0, 1, 0), np.where(main == 2, 1, 2)], axis=1)
    strides = np.array(padded.stride()[:3])[axes] if len(geometry) else np.zeros((0, 3), np.int64)
    if sums.numel() and padded.numel():
        work = partial(kernel.ray_sums, padded.numpy().reshape(-1), strides, sums.numpy(), table)
        in_parallel(len(geometry) * geometry.detector_shape[0], 8, work)
    return sums


def _chunks_of_sums(geometry: Geometry, x: Tensor) -> Any:
    """`ray_sums` of some views at a time, with the views."""
    size = max(1, CHUNK_BYTES // max(1, int(np.prod(geometry.detector_shape)) * 5 * x.shape[-1] * x.element_size()))
    for start in range(0, len(geometry), size):
        views = slice(start, min(start + size, len(geometry)))
        yield views, ray_sums(geometry[views], x)


def _chain_rule(sums: Tensor, numbers: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals ``(views, J, K, channels)``, and their derivatives ``(parameters, views, J, K, channels)``.

    ``jacobian`` holds the derivatives of the nine numbers, ``(parameters, views, 9)``.
    """
    row, column = (torch.arange(n).to(sums) for n in sums.shape[1:3])
    value, *slopes = sums.unbind(3)
    scale = numbers[:, 8, None, None, None]
    change = jacobian[:, :, 8, None, None, None] * value
    for first, (slope, slope_by_slice) in ((0, slopes[:2]), (4, slopes[2:])):
        start, by_row, by_column, by_slice = jacobian[..., first : first + 4, None, None].unbind(2)
        place = start + by_row * row[:, None] + by_column * column  # (parameters, views, J, K)
        change = change + scale * (place[..., None] * slope + by_slice[..., None] * slope_by_slice)
    return scale * value, change


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    size = sum(block.shape[-1] for block in blocks)
    rows, first = [], 0
    for block in blocks:
        rows.append(torch.nn.functional.pad(block, (first, size - first - block.shape[-1])))
        first += block.shape[-1]
    return torch.cat(rows, dim=-2)


class _Projection(torch.autograd.Function):
    """Line integrals of a volume, whose other input is the nine numbers of each view."""

    @staticmethod
    def forward(x: Tensor, numbers: Tensor, geometry: Geometry) -> Tensor:
        return XRayTransform(geometry)(x.detach())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, _, ctx.geometry = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (x,), geometry = ctx.saved_tensors, ctx.geometry
        to_x = XRayTransform(geometry).T(cotangent.contiguous()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_x, None, None
        row, column = (torch.arange(n, dtype=torch.float64) for n in geometry.detector_shape)
        to_numbers = torch.zeros(len(geometry), 9, dtype=torch.float64)
        scale = _numbers_of(geometry)[:, 8]
        for views, sums in _chunks_of_sums(geometry, x):
            value, *slopes = torch.einsum("vjkic,vjkc->ivjk", sums, cotangent[views]).double()
            to_numbers[views, 8] = value.sum((1, 2))
            for first, (slope, by_slice) in ((0, slopes[:2]), (4, slopes[2:])):
                parts = (slope, slope * row[:, None], slope * column, by_slice)
                summed = torch.stack([part.sum((1, 2)) for part in parts], dim=1)
                to_numbers[views, first : first + 4] = scale[views, None] * summed
        return to_x, to_numbers, None

    @staticmethod
    def jvp(ctx: Any, x_tangent: Tensor | None, numbers_tangent: Tensor | None, _: None) -> Tensor:
        (x,), geometry = ctx.saved_tensors, ctx.geometry
        change = x.new_zeros((len(geometry), *geometry.detector_shape, x.shape[-1]))
        if x_tangent is not None:
            change += XRayTransform(geometry)(x_tangent.contiguous())
        if numbers_tangent is not None:
            for views, sums in _chunks_of_sums(geometry, x):
                jacobian = numbers_tangent[None, views].to(x)
                change[views] += _chain_rule(sums, _numbers_of(geometry[views]).to(x), jacobian)[1][0]
        return change
