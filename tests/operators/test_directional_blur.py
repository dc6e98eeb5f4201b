"""Blurs that differ from pixel to pixel against blurs that do not, known Fourier transforms, and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

import ddf_tomo as dt
from ddf_tomo.operators import DirectionalBlur, FreeFormBlur, TwoComponentKernel
from ddf_tomo.operators.blur_kernels import exponential_kernel, gaussian_kernel
from ddf_tomo.operators.low_rank_blur import GRAIN, fourier_blur

SIZE = 61


def wave(period_j, period_k, size=SIZE):
    """A product of waves that the mirrors at 0 and 60 continue."""
    x = torch.arange(size, dtype=torch.float64)
    return torch.outer(torch.cos(2 * torch.pi * x / period_j), torch.cos(2 * torch.pi * x / period_k))


def uniform(*covariance, size=SIZE):
    return torch.tensor(covariance, dtype=torch.float64).expand(size, size, 3)


def smooth(*shape, width, seed=0):
    """Smooth random numbers in [0, 1]."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = scipy.ndimage.gaussian_filter(noise, (*([width] * 2), 0) if len(shape) == 3 else width, mode="wrap")
    low, high = field.min((0, 1)), field.max((0, 1))
    return torch.from_numpy((field - low) / (high - low))


def covariances(size, largest=2.0, seed=1):
    a, b, c = smooth(size, size, 3, width=size / 16, seed=seed).unbind(-1)
    return torch.stack([largest * a, (2 * b - 1) * largest * 0.7 * (a * c).sqrt(), 0.5 * largest * c], -1)


def speckle(size, width=1.5, seed=2):
    image = smooth(size, size, width=width, seed=seed)
    return (image - image.mean()) / image.std()


@pytest.mark.parametrize("width", [1.5, 2.5])
def test_one_isotropic_width_is_scipys(width):
    image = speckle(48)
    expected = scipy.ndimage.gaussian_filter(image.numpy(), width, mode="mirror", truncate=8)
    found = DirectionalBlur(uniform(width**2, 0, width**2, size=48))(image)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("variance", [0.01, 0.09, 0.3, 2.0])
def test_small_and_large_widths_of_waves(variance):
    """Sampled Gaussians are wrong below a width of 0.6 pixels; these are right to second order and beyond."""
    image = wave(6, 10)
    for covariance, exponent in (
        ((variance, 0, 0), variance / 6**2),
        ((0, 0, variance), variance / 10**2),
        ((variance, 0, 2 * variance), variance / 6**2 + 2 * variance / 10**2),
    ):
        loss = 1 - np.exp(-2 * np.pi**2 * exponent)
        found = DirectionalBlur(uniform(*covariance))(image)
        torch.testing.assert_close(found, (1 - loss) * image, rtol=0, atol=1e-3 * loss + 3e-5)


def test_a_tilted_kernel():
    """cos(a + b) is blurred by ``exp(−½ ξᵀCξ)`` with the mixed term of C, cos(a − b) without it."""
    x = 2 * np.pi * torch.arange(96, dtype=torch.float64) / 8
    covariance = uniform(1.0, 0.5, 0.8, size=96)
    for sign in (1, -1):
        image = torch.cos(x[:, None] + sign * x)
        factor = np.exp(-0.5 * (2 * np.pi / 8) ** 2 * (1.8 + 2 * sign * 0.5))
        found = DirectionalBlur(covariance)(image)[30:-30, 30:-30]
        torch.testing.assert_close(found, factor * image[30:-30, 30:-30], rtol=0, atol=1e-4)


def test_every_pixel_has_its_own_kernel():
    size, image = 40, speckle(40)
    covariance = covariances(size)
    found = DirectionalBlur(covariance)(image)
    for j, k in np.random.default_rng(3).integers(0, size, (12, 2)):
        assert found[j, k] == pytest.approx(float(fourier_blur(image, covariance[j, k])[j, k]), abs=2e-3)
        assert found[j, k] == pytest.approx(float(DirectionalBlur(covariance[j, k].expand(size, size, 3))(image)[j, k]))


def test_no_blur_is_the_identity_and_its_derivatives_are_second_ones():
    image = wave(6, 10)
    covariance = uniform(0, 0, 0).clone().requires_grad_()
    u = torch.zeros(SIZE, SIZE, 2, dtype=torch.float64, requires_grad=True)
    found = DirectionalBlur(covariance, u)(image)
    torch.testing.assert_close(found.detach(), image, rtol=0, atol=1e-10)
    of_c, of_u = torch.autograd.grad(found.sum(), (covariance, u))
    a, b = 2 * np.pi / 6, 2 * np.pi / 10
    x = torch.arange(SIZE, dtype=torch.float64)
    slopes = torch.outer((a * x).sin(), (b * x).sin()) * a * b
    expected = torch.stack([-0.5 * a * a * image, slopes, -0.5 * b * b * image], -1)
    torch.testing.assert_close(of_c, expected, rtol=0, atol=1e-3 * a * a)
    expected = torch.stack(
        [a * torch.outer((a * x).sin(), (b * x).cos()), b * torch.outer((a * x).cos(), (b * x).sin())], -1
    )
    torch.testing.assert_close(of_u, expected, rtol=0, atol=1e-3 * a)


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", TwoComponentKernel(0.3, 2.0)])
@pytest.mark.parametrize("conservative", [False, True])
def test_normalised_conserving_and_exactly_transposed(kernel, conservative):
    size = 20
    u = 3 * smooth(size, size, 2, width=2, seed=4) - 1.5
    blur = DirectionalBlur(covariances(size), u, kernel, conservative=conservative)
    dt.check_adjoint(blur)
    dt.check_linear(blur)
    light = torch.rand(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ones, gather, scatter = torch.ones_like(light), *((blur.T, blur) if conservative else (blur, blur.T))
    torch.testing.assert_close(gather(ones), ones, rtol=1e-12, atol=0)
    torch.testing.assert_close(scatter(light).sum(), light.sum(), rtol=1e-12, atol=0)


def test_light_goes_where_it_is_sent():
    """One bright pixel becomes the kernel at its own place, moved by its own displacement."""
    covariance, u = covariances(41), torch.zeros(41, 41, 2, dtype=torch.float64)
    u[20, 20] = torch.tensor([3.3, -2.2])
    spot = torch.zeros(41, 41, dtype=torch.float64)
    spot[20, 20] = 7.0
    image = DirectionalBlur(covariance, u, conservative=True)(spot).numpy()
    j, k = np.mgrid[:41, :41]
    centre = [(image * axis).sum() / 7 for axis in (j, k)]
    second = [(image * a * b).sum() / 7 for a, b in ((j - centre[0], j - centre[0]), (j - centre[0], k - centre[1]))]
    np.testing.assert_allclose(centre, [23.3, 17.8], atol=1e-4)
    np.testing.assert_allclose(second, covariance[20, 20, :2], atol=1e-4)


@pytest.mark.parametrize("variance", [0.02, 1.0, 8.0])
def test_exponential_tails(variance):
    """``1 / (1 + ½ ξᵀCξ)``: to 4e-4 at all widths, and the same covariance as the Gaussian."""
    image = wave(6, 1e9)
    factor = 1 / (1 + 0.5 * variance * (2 * np.pi / 6) ** 2)
    found = DirectionalBlur(uniform(variance, 0, variance), kernel="exponential")(image)
    torch.testing.assert_close(found[:, 30], factor * image[:, 30], rtol=0, atol=5e-4)
    mean = sum(share * c for share, c in exponential_kernel(torch.tensor([1.0, 0.2, 0.5])))
    torch.testing.assert_close(mean, torch.tensor([1.0, 0.2, 0.5]))


def test_two_components_and_a_shape_of_ones_own():
    image = wave(6, 1e9)
    share = torch.full((SIZE, SIZE), 0.3, dtype=torch.float64)
    two = DirectionalBlur(uniform(1, 0, 0.5), kernel=TwoComponentKernel(share, 4.0))(image)
    a = 0.5 * (2 * np.pi / 6) ** 2
    torch.testing.assert_close(two[:, 5], (0.7 * np.exp(-a) + 0.3 * np.exp(-3 * a)) * image[:, 5], rtol=0, atol=1e-4)
    own = DirectionalBlur(uniform(1, 0, 0.5), kernel=lambda c: [(0.5, c), (0.5, 3 * c)])(image)
    torch.testing.assert_close(own[:, 5], (0.5 * np.exp(-a) + 0.5 * np.exp(-3 * a)) * image[:, 5], rtol=0, atol=1e-4)
    assert "TwoComponentKernel(0.3, map" in repr(TwoComponentKernel(0.3, share))
    assert gaussian_kernel(uniform(1, 0, 1))[0][0] == 1.0


@pytest.mark.parametrize("kernel", ["gaussian", TwoComponentKernel(0.3, 2.0)])
@pytest.mark.parametrize("conservative", [False, True])
def test_gradients_in_everything(kernel, conservative):
    image, u = speckle(5), (2 * smooth(5, 5, 2, width=1) - 1).requires_grad_()
    covariance = (covariances(5) + torch.tensor([0.1, 0, 0.1])).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, c, u: DirectionalBlur(c, u, kernel, conservative=conservative)(x),
        (image.requires_grad_(), covariance, u),
        fast_mode=True,
    )


def test_tangents_of_the_maps():
    """Forward mode, through dual numbers and through torch.func, is the transpose of the gradient."""
    image, covariance, u = speckle(8), covariances(8), smooth(8, 8, 2, width=1) - 0.5
    along = covariances(8, seed=9), smooth(8, 8, 2, width=1, seed=10)

    def blurred(c, u):
        return DirectionalBlur(c, u)(image)

    _, tangent = torch.func.jvp(blurred, (covariance, u), along)
    gradients = torch.func.vjp(blurred, covariance, u)[1](image)
    expected = sum((a * b).sum() for a, b in zip(gradients, along, strict=True))
    torch.testing.assert_close((tangent * image).sum(), expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(covariance, along[0])
        found = torch.autograd.forward_ad.unpack_dual(blurred(dual, u)).tangent
    torch.testing.assert_close(found, torch.func.jvp(lambda c: blurred(c, u), (covariance,), along[:1])[1])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_the_low_rank_form_keeps_its_word(tolerance):
    """The error said beforehand is the one found, over patterns with the grains that it was said for."""
    size, covariance = 40, covariances(40)
    blur = DirectionalBlur(covariance, method="low-rank", tolerance=tolerance)
    assert blur.low_rank.error.max() <= 1.1 * tolerance
    noise = torch.randn(60, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    patterns = fourier_blur(noise, torch.tensor([GRAIN**2, 0, GRAIN**2]))
    patterns, found, ratios = patterns / patterns.std(), blur(patterns / patterns.std()), []
    for j, k in np.random.default_rng(7).integers(8, size - 8, (25, 2)):
        difference = found[:, j, k] - fourier_blur(patterns, covariance[j, k])[:, j, k]
        ratios.append(float(difference.square().mean().sqrt() / blur.low_rank.error[j, k]))
    assert max(ratios) < 1.3  # 60 patterns tell a root mean square to 9 %
    assert 0.9 < np.mean(ratios) < 1.1
    ones = torch.ones(size, size, dtype=torch.float64)
    torch.testing.assert_close(blur(ones), ones, rtol=1e-9, atol=0)


def test_the_low_rank_form_of_other_shapes():
    image, covariance = speckle(40, width=2.0), covariances(40)
    for kernel in ("exponential", TwoComponentKernel(0.3, 2.0)):
        fast, slow = (DirectionalBlur(covariance, kernel=kernel, method=m)(image) for m in ("low-rank", "auto"))
        assert (fast - slow).std() < 1e-3


def test_the_low_rank_form_moves_and_has_gradients_and_a_transpose():
    size, covariance = 40, covariances(40)
    u, image = 2 * smooth(size, size, 2, width=5) - 1, speckle(size)
    fast, slow = (DirectionalBlur(covariance, u, method=method, tolerance=1e-4) for method in ("low-rank", "auto"))
    torch.testing.assert_close(fast(image)[8:-8, 8:-8], slow(image)[8:-8, 8:-8], rtol=0, atol=2e-3)
    dt.check_adjoint(fast)
    gradients = []
    for method in ("low-rank", "auto"):
        c = covariance.clone().requires_grad_()
        blurred = DirectionalBlur(c, u, method=method, tolerance=1e-3)(image)
        gradients += torch.autograd.grad((blurred[8:-8, 8:-8] ** 2).sum(), c)
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()


def test_few_nodes_suffice_for_many_pixels():
    blur = DirectionalBlur(covariances(96), method="low-rank", tolerance=1e-3)
    assert len(blur.low_rank.nodes) < 25
    assert blur.low_rank.error.max() <= 1.1e-3


def test_free_form_kernels():
    generator = np.random.default_rng(6)
    kernels = generator.random((2, 5, 3))
    kernels /= kernels.sum((1, 2), keepdims=True)
    share = generator.random((14, 12))
    weights = np.stack([share, 1 - share])
    image = generator.random((3, 14, 12))
    blur = FreeFormBlur(kernels, weights)
    expected = sum(
        w * np.stack([scipy.ndimage.convolve(each, k, mode="mirror") for each in image])
        for k, w in zip(kernels, weights, strict=True)
    )
    np.testing.assert_allclose(blur(image), expected, rtol=1e-12)
    np.testing.assert_allclose(blur(np.ones((14, 12))), 1, rtol=1e-12)
    dt.check_adjoint(blur)
    given = [torch.tensor(each).requires_grad_() for each in (kernels, weights, image)]
    assert torch.autograd.gradcheck(
        lambda k, w, x: FreeFormBlur(torch.softmax(k.flatten(1), 1).reshape(2, 5, 3), torch.softmax(w, 0))(x),
        given,
        fast_mode=True,
    )


FIELD = {"covariance": np.zeros((4, 5, 3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": np.zeros((4, 5, 2))}, "covariance: expected shape"),
        ({"covariance": np.full((4, 5, 3), -1.0)}, "covariance: expected a positive semidefinite"),
        ({"covariance": np.full((4, 5, 3), 1e5)}, "covariance: expected .* eigenvalues up to"),
        (
            {"covariance": np.full((4, 5, 3), [100.0, 0, 100]), "kernel": TwoComponentKernel(0.5, 1e4)},
            "a covariance that kernel makes of it: expected",
        ),
        ({"displacement": np.zeros((4, 4, 2))}, "displacement: expected shape"),
        ({"displacement": np.full((4, 5, 2), np.inf)}, "displacement: expected finite"),
        ({"kernel": "round"}, "kernel: expected one of"),
        ({"kernel": lambda c: None}, "kernel: expected a function"),
        ({"kernel": lambda c: [(1.0, c[0])]}, "kernel: expected a function"),
        ({"kernel": TwoComponentKernel(np.full((3, 3), 0.5), 1.0)}, "share: expected a shape"),
        ({"method": "fast"}, "method: expected one of"),
        ({"tolerance": 0.0}, "tolerance: expected a finite number"),
        ({"conservative": None}, "conservative: expected True or False"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DirectionalBlur(**FIELD | change)


def test_mistakes_of_shapes_and_kernels():
    with pytest.raises(ValueError, match="share: expected a finite number in"):
        TwoComponentKernel(1.5, 1.0)
    with pytest.raises(ValueError, match="ratio: expected numbers in"):
        TwoComponentKernel(0.5, np.full((2, 2), -1.0))
    with pytest.raises(ValueError, match="kernels: expected at least one, of odd"):
        FreeFormBlur(np.ones((1, 2, 1)) / 2, np.ones((1, 4, 4)))
    with pytest.raises(ValueError, match="kernels: expected no negative"):
        FreeFormBlur(np.ones((1, 3, 1)), np.ones((1, 4, 4)))
    with pytest.raises(ValueError, match="weights: expected"):
        FreeFormBlur(np.ones((1, 3, 1)) / 3, np.ones((2, 4, 4)))
