"""The fast normal operator: ``Aᵀ W A`` as one convolution, whose cost does not depend on the number of views.

For parallel beams and weights that are constant within a view, ``Aᵀ W A`` depends on the lag between two voxels only,
up to where the rays happen to run between them. Averaged over shifts of the detector it is

    h(r) = Σ_v w_v R_vᵀ R_v  B₃(u) B₃(w) / max|p_v|

with cubic B-splines ``B₃`` (bilinear interpolation, forth and back) of the lag ``(u, w)`` within the slice, less what
the slope of the ray takes along. The response of the projector to a single voxel, which depends on where that voxel
lies between rays, is a much worse kernel. Only where rows of pixels run along rows of voxels is the shift what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, message
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import LinearOperator, as_tensor, broadcasts, shape_text
from ddf_tomo.operators.block_convolution import BlockConvolution
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform

HUGE = float(np.finfo(np.float32).max) / 2**20
SPARE = 0.05  # of the sample's half width may lie beyond the detector: a cap of 0.2 % of a ball


class FastNormal(BlockConvolution):
    """``Aᵀ W A`` of an X-ray transform, up to a few per cent, as a convolution with a K × K matrix kernel by FFT.

    It differs from the exact ``A.normal(weights)`` by 1.6–2.6 % on phantoms (ℓ ≤ 4, 240 views and more; 4–5 % at 60,
    half of it on means), and by 25–35 % on white noise, where the exact operator feels where its rays run. It is for
    what need not be exact: step sizes, preconditioners (`inverse`), first iterations. The symbol takes as much memory
    as ``2 K (K + 1)`` volumes of one channel.

    Parameters
    ----------
    A
        A `TensorXRayTransform` or an `XRayTransform`.
    weights
        Non-negative weights that broadcast against the range, constant within a view (they may differ by channel).
    support
        Where the sample is: booleans of the volume's shape. By default the ellipsoid that fits into the volume.

    Raises
    ------
    TypeError
        If ``A`` is another operator.
    ValueError
        If weights differ from pixel to pixel, or the sample reaches out of the detector in some view: then what is
        measured is no convolution. Use the exact `A.normal`, for which `ddf_tomo.solvers.preconditioner` still helps.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo import Geometry, SaxsResponse, TensorXRayTransform
    >>> geometry = Geometry.from_angles(np.linspace(0, np.pi, 40), 0.0, (12, 12, 12), (12, 12))
    >>> A = TensorXRayTransform(geometry, SaxsResponse([0.0, 0.8, 1.6, 2.4]), ell_max=2)
    >>> N = FastNormal(A)
    >>> x = np.zeros((12, 12, 12, 6), np.float32)
    >>> x[4:8, 4:8, 4:8, 0] = 1
    >>> exact = A.normal()(x)
    >>> bool(np.linalg.norm(N(x) - exact) < 0.05 * np.linalg.norm(exact))
    True
    """

    def __init__(self, A: LinearOperator, weights: Any = None, *, support: Any = None) -> None:
        gram, constant = mean_gram(A, weights)
        geometry = geometry_of(A)
        if not constant:
            hint = "A.normal(weights) is exact, and ddf_tomo.solvers.preconditioner takes the mean of each view"
            raise ValueError(message("weights", "weights that are constant within a view", "some that are not", hint))
        overhang = beyond_the_detector(geometry, support)
        if len(overhang) and overhang.max() > 0:
            view = int(overhang.argmax())
            hint = "use A.normal(weights), which is exact, or say by support= where the sample is"
            found = f"one that it reaches out of by {overhang[view]:.1f} pixels in view {view}"
            raise ValueError(message("A", "a detector that the whole sample is projected onto", found, hint))
        fft_shape = fast_sizes([2 * n - 1 for n in geometry.volume_shape])
        symbol = convolution_symbol(geometry, gram, fft_shape)
        super().__init__(symbol.to(A.device), geometry.volume_shape, fft_shape, A.domain_shape[-1])


def geometry_of(A: Any) -> Geometry:
    """Of an X-ray transform; other operators are refused."""
    if not isinstance(A, (TensorXRayTransform, XRayTransform)):
        raise TypeError(message("A", "a TensorXRayTransform or an XRayTransform", type(A).__name__))
    return A.geometry


def mean_gram(A: LinearOperator, weights: Any = None) -> tuple[NDArray[np.float64], bool]:
    """``R_vᵀ W_v R_v`` with the mean weights of each view, ``(views, K, K)``, and whether no view's weights vary.

    An `XRayTransform` treats all channels alike: K is 1.
    """
    views = len(geometry_of(A))
    matrix = A.matrix.cpu().numpy() if isinstance(A, TensorXRayTransform) else np.ones((views, 1, 1))
    if weights is None:
        return np.einsum("vma,vmb->vab", matrix, matrix), True
    given = as_tensor(weights, "weights").detach().cpu()
    given = given if given.is_floating_point() else given.double()  # torch compares no uint64
    shape = (*A.range_shape[:-1], matrix.shape[1])
    if not broadcasts(given.shape, shape):
        expected = f"a shape that broadcasts to ({shape_text(shape)})"
        raise ValueError(message("weights", expected, tuple(given.shape)))
    if not (torch.isfinite(given).all() and (given >= 0).all()):
        raise ValueError(message("weights", "finite numbers ≥ 0", "some negative, NaN or infinite"))
    given = given.reshape((1,) * (4 - given.ndim) + tuple(given.shape))
    means = given.mean((1, 2), dtype=torch.float64)
    constant = bool((given == given[:, :1, :1]).all()) if given.numel() else True
    w = means.expand(views, matrix.shape[1]).numpy()
    return np.einsum("vma,vm,vmb->vab", matrix, w, matrix), constant


def beyond_the_detector(geometry: Geometry, support: Any = None) -> NDArray[np.float64]:
    """How far the sample reaches out of the detector in each view, in pixels, ``(views,)``; 0 if (nearly) not at all.

    A twentieth of the sample's half width is let pass, which is a thin cap of a round one.
    """
    spread = []
    for axis, offset, pixels in zip(
        (geometry.j, geometry.k), (geometry.j_offset, geometry.k_offset), geometry.detector_shape, strict=True
    ):
        if support is None:
            high = np.sqrt(((axis * np.array(geometry.volume_shape) / 2) ** 2).sum(1))
            low = -high
        else:
            mask = as_tensor(support, "support").detach().cpu().numpy() != 0
            check_shape(mask.shape, "support", geometry.volume_shape)
            places = np.argwhere(mask) + 0.5 - np.array(geometry.volume_shape) / 2
            if not len(places):
                return np.zeros(len(geometry))
            corners = places[_extreme(places)]
            along = axis @ corners.T
            high, low = along.max(1) + 0.5, along.min(1) - 0.5
        out = np.maximum(high - (offset + pixels / 2), (offset - pixels / 2) - low)
        spread.append(np.where(out > SPARE * (high - low) / 2 + 1e-6, out, 0.0))
    return np.maximum(*spread)


def _extreme(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Those that are first or last along z in their column: the others lie between two of them."""
    first = np.ones(len(places), bool)
    first[1:] = (places[1:, :2] != places[:-1, :2]).any(1)
    last = np.ones(len(places), bool)
    last[:-1] = first[1:]
    return first | last


def fast_sizes(least: Any) -> tuple[int, ...]:
    """The next lengths that transforms are fast for.

    Examples
    --------
    >>> fast_sizes([127, 33, 1])
    (128, 36, 1)
    """
    from scipy.fft import next_fast_len

    return tuple(next_fast_len(int(n), real=True) for n in least)


def convolution_symbol(geometry: Geometry, gram: NDArray[np.float64], fft_shape: tuple[int, ...]) -> torch.Tensor:
    """Fourier transform of the kernel ``h`` above, on a periodic grid, as `BlockConvolution` takes it; float32.

    Where the grid is shorter than all lags between two voxels (twice the volume less one), lags that fall together are
    averaged, each weighted with how many pairs of voxels have it: the best approximation in the Frobenius norm
    (T. Chan 1988, SIAM J. Sci. Stat. Comput. 9, 766).

    Parameters
    ----------
    geometry
        Of the views.
    gram
        ``w_v R_vᵀ R_v`` of each view, shape ``(views, K, K)``.
    fft_shape
        Of the grid, along ``(x, y, z)``.

    Examples
    --------
    >>> import numpy as np
    >>> along_z = Geometry([[0.0, 0, 1]], [[1.0, 0, 0]], [[0, 1.0, 0]], 0.0, 0.0, (4, 4, 4), (4, 4))
    >>> symbol = convolution_symbol(along_z, np.ones((1, 1, 1)), (8, 8, 8))
    >>> symbol.shape, round(float(symbol[0, 0, 0, 0]), 4)  # 7 lags along z, splines that sum to 1 across
    (torch.Size([5, 8, 1, 8]), 7.0)
    """
    views, size, _ = gram.shape
    check_shape(gram.shape, "gram", (len(geometry), None, size))
    cells, values, owners = _lags(geometry, fft_shape)
    x, y, z = fft_shape
    a, b = np.triu_indices(size)
    symbol = torch.empty(z // 2 + 1, y, len(a), x)
    for pair, factors in enumerate(gram[:, a, b].T):
        weighted = values * factors[owners] if views else values
        kernel = np.bincount(cells, weights=weighted, minlength=x * y * z).reshape(fft_shape)
        if not np.abs(kernel).sum() < HUGE:
            raise ValueError(message("weights", "numbers whose sums fit into float32", "an overflow", "rescale them"))
        spectrum = torch.fft.rfftn(torch.from_numpy(kernel.astype(np.float32)))
        symbol[:, :, pair] = spectrum.real.permute(2, 1, 0)
    return symbol


def _lags(geometry: Geometry, fft_shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Every lag near a beam: its place on the flat grid, its value without ``w R R``, and the view it belongs to."""
    sizes = np.array(geometry.volume_shape)
    main = np.abs(geometry.p).argmax(1) if len(geometry) else np.zeros(0, int)
    shares = [_shares(n, padded) for n, padded in zip(sizes, fft_shape, strict=True)]
    strides, phases = (fft_shape[1] * fft_shape[2], fft_shape[2], 1), _phases(geometry)
    parts = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))]
    for m in range(3):
        views = np.flatnonzero(main == m)
        if not len(views):
            continue
        p = geometry.p[views]
        along = np.arange(1 - sizes[m], sizes[m])
        flat = shares[m][along] * np.ones((len(views), 1)) / np.abs(p[:, m, None])
        place, weight = (along % fft_shape[m] * strides[m])[None, :, None, None], flat[:, :, None, None]
        inside = np.ones_like(weight, bool)
        for axis, shape in zip((i for i in range(3) if i != m), ((-1, 1), (1, -1)), strict=True):
            centre = along * (p[:, axis] / p[:, m])[:, None]
            lag = np.floor(centre).astype(np.int64)[..., None] + np.arange(-1, 3)
            spline = cubic_spline(lag - centre[..., None])
            aligned = np.isfinite(phases[views, axis])
            spline[aligned] = _row_overlap(lag[aligned], phases[views[aligned], axis, None, None])
            spline *= shares[axis][np.clip(lag, 1 - sizes[axis], sizes[axis] - 1)]
            grown = (*lag.shape[:2], *((4, 1) if shape == (-1, 1) else (1, 4)))
            place = place + (lag % fft_shape[axis] * strides[axis]).reshape(grown)
            weight = weight * spline.reshape(grown)
            inside = inside & (np.abs(lag) < sizes[axis]).reshape(grown)
        owner = np.broadcast_to(views[:, None, None, None], inside.shape)
        parts.append((place[inside], weight[inside], owner[inside]))
    cells, values, owners = (np.concatenate(each) for each in zip(*parts, strict=True))
    return cells, values, owners


def _phases(geometry: Geometry) -> NDArray[np.float64]:
    """Where pixel rows that run along the voxels' own rows lie between these; NaN for others; shape ``(views, 3)``.

    There is nothing to average over then: tomography about one axis meets every plane at the same height.
    """
    phases = np.full((len(geometry), 3), np.nan)
    for axes, offset, pixels in zip(
        (geometry.j, geometry.k), (geometry.j_offset, geometry.k_offset), geometry.detector_shape, strict=True
    ):
        view, axis = np.nonzero(np.abs(axes) > 1 - 1e-12)
        first = (0.5 - pixels / 2 + offset[view]) * np.sign(axes[view, axis])
        phases[view, axis] = (first - 0.5 + np.array(geometry.volume_shape)[axis] / 2) % 1.0
    return phases


def _row_overlap(lag: NDArray[np.int64], phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """``Σ hat(n - phase) hat(n + lag - phase)`` over integers n."""
    neighbours = np.where(np.abs(lag) == 1, phase * (1 - phase), 0.0)
    return np.where(lag == 0, (1 - phase) ** 2 + phase**2, neighbours)


def _shares(length: int, padded: int) -> NDArray[np.float64]:
    """Share of a lag among those that fall together with it; indexed by the lag, negative ones too."""
    lags = np.arange(1 - length, length)
    pairs = (length - np.abs(lags)).astype(float)
    shares = np.zeros(2 * length - 1)
    shares[lags] = pairs / np.bincount(lags % padded, weights=pairs, minlength=padded)[lags % padded]
    return shares


def cubic_spline(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The centred cubic B-spline: a hat of width 2 convolved with itself.

    Examples
    --------
    >>> import numpy as np
    >>> (6 * cubic_spline(np.array([0.0, 1.0, -1.0, 2.0]))).round(6).tolist()
    [4.0, 1.0, 1.0, 0.0]
    """
    t = np.abs(t)
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))
