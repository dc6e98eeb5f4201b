"""The fast normal operator against the exact one, dense matrices, quadrature, and the closed form of its kernel."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

import ddf_tomo as dt
from ddf_tomo.operators.block_convolution import BlockConvolution, full, matrix_product, plain_matrix_product
from ddf_tomo.operators.normal import FastNormal, convolution_symbol, cubic_spline, fast_sizes
from ddf_tomo.phantoms import PHANTOMS, tilt_series

RESPONSE = dt.SaxsResponse(np.arange(8) * np.pi / 8)


def series(size: int, views: int, **options) -> dt.Geometry:
    counts = [max(1, round(views * n / 200)) for n in (19, 35, 33, 31, 31, 27, 24)]
    return tilt_series((size,) * 3, views=counts, **options)


def relative(found, expected) -> float:
    return float((found - expected).norm() / expected.norm())


def random_symbol(size: int, fft_shape, seed: int = 0) -> torch.Tensor:
    """Positive definite matrices that are even in ξ, as those of a real symmetric kernel."""
    x, y, z = fft_shape
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(x, y, z, size, size, generator=generator)
    matrices = factors @ factors.mT + 0.1 * torch.eye(size)
    mirrored = matrices.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2))
    a, b = np.triu_indices(size)
    return ((matrices + mirrored) / 2)[:, :, : z // 2 + 1, a, b].permute(2, 1, 3, 0).contiguous()


def dense(A) -> torch.Tensor:
    count = int(np.prod(A.domain_shape))
    return A(torch.eye(count, dtype=torch.float64).reshape(count, *A.domain_shape)).flatten(1).T


@pytest.mark.parametrize("fft_shape", [(9, 8, 6), (5, 7, 4), (12, 5, 9)])
def test_a_convolution_is_what_scipy_computes(fft_shape):
    """Direct sums over the periodic kernel, which is transformed back by numpy."""
    size, shape = 3, (5, 4, 4)
    symbol = random_symbol(size, fft_shape)
    kernel = np.fft.irfftn(full(symbol.permute(3, 1, 0, 2)).numpy(), s=fft_shape, axes=(0, 1, 2))
    x = np.random.default_rng(0).normal(size=(*shape, size))
    around = np.tile(kernel, (3, 3, 3, 1, 1))[
        tuple(slice(n - m + 1, n + m) for n, m in zip(fft_shape, shape, strict=True))
    ]
    expected = sum(
        np.stack(
            [scipy.signal.convolve(x[..., b], around[..., a, b], mode="full", method="direct") for a in range(size)], -1
        )
        for b in range(size)
    )[tuple(slice(m - 1, 2 * m - 1) for m in shape)]
    np.testing.assert_allclose(BlockConvolution(symbol, shape, fft_shape)(x), expected, atol=1e-5 * abs(expected).max())


def test_the_compiled_product_is_the_obvious_one():
    symbol = random_symbol(4, (6, 5, 4))
    spectrum = torch.randn(4, 15, 6, dtype=torch.complex128)
    expected = torch.einsum("rfab,brf->arf", full(symbol.flatten(0, 1).transpose(1, 2)).to(spectrum), spectrum)
    for product in (matrix_product, plain_matrix_product):
        found = spectrum.clone()
        product(found, symbol.flatten(0, 1))
        torch.testing.assert_close(found, expected)


def test_the_inverse_is_that_of_each_matrix():
    """Where nothing is cropped, it inverts the operator."""
    shape = (5, 4, 6)
    A = BlockConvolution(random_symbol(3, shape), shape, shape)
    top = A.largest_eigenvalue()
    matrix = dense(A)
    assert top == pytest.approx(float(torch.linalg.eigvalsh(matrix).max()), rel=1e-5)
    expected = torch.linalg.inv(matrix + 0.1 * top * torch.eye(len(matrix)))
    torch.testing.assert_close(dense(A.inverse(0.1)), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    M = A.inverse(0.1, identity=np.diag([1.0, 2.0, 3.0]), laplacian=2.0)
    ring = [2 * np.eye(n) - np.roll(np.eye(n), 1, 0) - np.roll(np.eye(n), -1, 0) for n in shape]
    eyes = [np.eye(n) for n in shape]
    laplacian = sum(
        np.kron(np.kron(*[(ring if i == axis else eyes)[i] for i in (0, 1)]), (ring if axis == 2 else eyes)[2])
        for axis in range(3)
    )
    added = np.kron(2 * laplacian, np.eye(3)) + np.kron(
        np.eye(len(laplacian)), np.diag([1.1, 2.1, 3.1]) - 0.1 * np.eye(3)
    )
    expected = torch.linalg.inv(matrix + 0.1 * top * torch.eye(len(matrix)) + torch.from_numpy(added))
    torch.testing.assert_close(dense(M), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_the_inverse_is_positive_whatever_the_symbol():
    symbol = random_symbol(3, (6, 6, 6))
    symbol[1:, :, :, 2:] *= -0.3
    symbol[:, 3] *= 1e-9
    A = BlockConvolution(symbol, (4, 4, 4), (6, 6, 6))
    M = dense(A.inverse(0.02))
    values = torch.linalg.eigvalsh((M + M.T) / 2)
    top = A.largest_eigenvalue()
    assert values.min() > 0
    assert values.max() <= 2.001 / (0.02 * top)  # between ε and half of it


def test_the_spline_is_a_hat_with_itself():
    t = np.linspace(-1, 1, 4001)
    hat = 1 - abs(t)
    twice = np.convolve(hat, hat) * (t[1] - t[0])
    np.testing.assert_allclose(cubic_spline(np.linspace(-2, 2, 8001)), twice, atol=1e-6)


def test_the_kernel_is_the_mean_response_over_shifts_of_the_detector():
    """One oblique view: backprojected projections of a voxel, averaged over where the pixels lie."""
    shape = (7, 6, 5)
    base = dt.Geometry.from_angles([0.4], [0.3], shape, (16, 16))
    mean = 0
    steps = (np.arange(16) + 0.5) / 16
    for u in steps:
        for w in steps:
            moved = dt.Geometry(base.p, base.j, base.k, base.j_offset + u, base.k_offset + w, shape, (16, 16))
            x = np.zeros((*shape, 1))
            x[3, 2, 2] = 1
            mean = mean + dt.XRayTransform(moved).normal()(x) / len(steps) ** 2
    N = FastNormal(dt.XRayTransform(base))
    x = np.zeros((*shape, 1))
    x[3, 2, 2] = 1
    np.testing.assert_allclose(N(x), mean, atol=2e-3 * mean.max())


@pytest.mark.parametrize(("views", "tolerance"), [(60, 0.048), (240, 0.023)])
def test_how_far_it_is_from_the_exact_one(views, tolerance):
    A = dt.TensorXRayTransform(series(20, views), RESPONSE, 4)
    weights = np.random.default_rng(0).uniform(0.5, 2, (len(A.geometry), 1, 1, 8))
    N, exact = A.normal(weights, exact=False), A.normal(weights)
    assert isinstance(N, FastNormal)
    x = torch.as_tensor(PHANTOMS["crossing"]((20, 20, 20)).coefficients).float()
    assert relative(N(x), exact(x)) < tolerance


def test_it_falls_with_views_and_is_positive():
    x = torch.as_tensor(PHANTOMS["crossing"]((12, 12, 12)).coefficients).float()[..., :1]
    errors = []
    for views in (30, 120, 480):
        A = dt.XRayTransform(series(12, views))
        errors.append(relative(FastNormal(A)(x), A.normal()(x)))
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]
    assert errors[2] < 0.016
    small = FastNormal(dt.XRayTransform(series(6, 40), channels=1))
    values = torch.linalg.eigvalsh(dense(small))
    assert values.min() > -1e-6 * values.max()  # though its symbol is not
    assert values.max() <= small.largest_eigenvalue() <= 2.5 * values.max()


@pytest.mark.parametrize("offset", [0.0, 0.3, -0.5])
def test_planes_that_do_not_mix(offset):
    """One axis: pixel rows run along planes, which an average over shifts would blur into each other."""
    angles = np.arange(60) * np.pi / 60
    geometry = dt.Geometry.from_angles(angles, 0.0, (10, 10, 9), (18, 13), k_offset=offset)
    A = dt.XRayTransform(geometry)
    x = torch.zeros(10, 10, 9, 1)
    x[3:8, 2:7, 3:6] = 1
    assert relative(FastNormal(A)(x), A.normal()(x)) < 0.022


def test_lags_that_fall_together_are_averaged():
    """On a periodic grid of the volume's own size: the circulant matrix nearest to the operator."""
    geometry = series(5, 20)
    N = dense(FastNormal(dt.XRayTransform(geometry, channels=1)))
    circulant = BlockConvolution(
        convolution_symbol(geometry, np.ones((len(geometry), 1, 1)), (5, 5, 5)), (5,) * 3, (5,) * 3
    )
    lags = (np.indices((5, 5, 5)).reshape(3, -1)[:, :, None] - np.indices((5, 5, 5)).reshape(3, -1)[:, None]) % 5
    place = (lags * np.array([25, 5, 1])[:, None, None]).sum(0)
    means = np.bincount(place.ravel(), weights=N.numpy().ravel()) / np.bincount(place.ravel())
    np.testing.assert_allclose(dense(circulant), means[place], atol=1e-5 * means.max())


def test_sizes_are_fast():
    assert fast_sizes([127, 13, 1]) == (128, 15, 1)


BOX = np.zeros((8, 8, 8), bool)
BOX[3:5, 3:5, 3:5] = True


def test_a_detector_that_is_too_small_is_told():
    geometry = dt.Geometry.from_angles(np.linspace(0, 3, 31), 0.0, (8, 8, 8), (6, 8))
    A = dt.XRayTransform(geometry)
    with pytest.raises(
        ValueError, match=r"^A: expected a detector .* by 1\.0 pixels in view 0\. use A\.normal\(weights\)"
    ):
        FastNormal(A)
    x = torch.zeros(8, 8, 8, 1)
    x[torch.from_numpy(BOX)] = 1
    assert relative(FastNormal(A, support=BOX)(x), A.normal()(x)) < 0.2
    moved = dt.Geometry.from_angles(np.linspace(0, 3, 5), 0.0, (8, 8, 8), (6, 8), k_offset=[0, 0, 4.5, 0, 0])
    with pytest.raises(ValueError, match=r"by 1.5 pixels in view 2"):
        FastNormal(dt.XRayTransform(moved), support=BOX)


def test_bad_arguments_are_named():
    A = dt.TensorXRayTransform(series(5, 12), RESPONSE, 2)
    pixels = np.random.default_rng(0).uniform(size=A.range_shape)
    for arguments, error, text in (
        ((A @ A.T,), TypeError, "^A: expected a TensorXRayTransform or an XRayTransform, got Composition"),
        ((A, pixels), ValueError, "^weights: expected weights that are constant within a view"),
        ((A, np.ones(3)), ValueError, "^weights: expected a shape that broadcasts"),
        ((A, -1.0), ValueError, "^weights: expected finite numbers ≥ 0"),
        ((dt.XRayTransform(series(5, 12)), np.ones(2)), ValueError, "^weights: expected a shape"),
    ):
        with pytest.raises(error, match=text):
            FastNormal(*arguments)
    N = FastNormal(A)
    for arguments, text in (
        ({"epsilon": 0.0}, "^epsilon"),
        ({"laplacian": -np.eye(6)}, "^laplacian: .* semidefinite"),
        ({"identity": np.eye(2)}, "^identity: expected shape"),
    ):
        with pytest.raises(ValueError, match=text):
            N.inverse(**arguments)
    with pytest.raises(ValueError, match=r"^symbol: expected a positive eigenvalue"):
        FastNormal(A, 0.0).inverse()
    with pytest.raises(ValueError, match=r"^fft_shape: expected at least"):
        BlockConvolution(torch.zeros(3, 4, 1, 4), (5, 4, 4), (4, 4, 4))
    with pytest.raises(ValueError, match=r"^channels: expected 2"):
        BlockConvolution(torch.zeros(3, 4, 3, 4), (4, 4, 4), (4, 4, 4), 3)


def test_any_number_of_channels_where_all_are_alike():
    A = dt.XRayTransform(series(6, 12))
    x = torch.randn(6, 6, 6, 3, generator=torch.Generator().manual_seed(0))
    N = A.normal(exact=False)
    torch.testing.assert_close(N(x)[..., 1:2], N(x[..., 1:2]))
    assert N.domain_shape == (6, 6, 6, None)
