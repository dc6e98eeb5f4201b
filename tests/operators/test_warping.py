"""Warps against patterns whose values and slopes are known everywhere, SciPy's splines, and conservation of photons."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from ddf_tomo.operators import flux_factor, warp
from ddf_tomo.operators.warping import shift


def wave(period, x):
    """A wave that the mirrors at 0 and 60 continue."""
    return np.cos(2 * np.pi * x / period)


@pytest.mark.parametrize(
    ("interpolation", "period", "bound"),
    [("gaussian", 6, 1e-4), ("gaussian", 4, 1e-3), ("bandlimited", 3, 1e-3), ("cubic", 15, 1e-3)],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_values_and_slopes_of_waves(interpolation, period, bound, axis):
    x = np.arange(61)
    for offset in np.linspace(-1, 0.9, 6):
        image = np.broadcast_to(wave(period, x), (5, 61))
        u = torch.zeros(5, 61, 2, dtype=torch.float64)
        u[..., 1] = offset
        if axis == 0:
            image, u = image.T, u.transpose(0, 1).flip(-1)
        u = u.clone().requires_grad_()
        moved = warp(torch.tensor(image.copy()), u, interpolation)
        (gradient,) = torch.autograd.grad(moved.sum(), u)
        if axis == 0:
            moved, gradient = moved.T, gradient.transpose(0, 1).flip(-1)
        slope = 2 * np.pi / period * np.sin(2 * np.pi * (x - offset) / period)  # −∂R/∂x
        assert np.abs(moved.detach().numpy() - wave(period, x - offset)).max() < bound
        assert np.abs(gradient[..., 1].numpy() - slope).max() < bound * 2 * np.pi / period
        assert gradient[..., 0].abs().max() < 1e-6


def grains(places, width, j, k):
    return sum(np.exp(-((j - a) ** 2 + (k - b) ** 2) / (2 * width**2)) for a, b in places)


@pytest.mark.parametrize(("full_width", "bound"), [(3.0, 2e-3), (3.5, 1e-3)])
def test_grains(full_width, bound):
    """At places between the pixels, in a field that differs from pixel to pixel.

    Grains of 3 pixels (at half maximum) are aliased by the pixels: no interpolation has their slopes right to 1e-3.
    """
    generator = np.random.default_rng(0)
    places, width = generator.uniform(10, 38, (40, 2)), full_width / 2.3548
    j, k = np.mgrid[:48, :48].astype(float)
    u = torch.tensor(generator.uniform(-2, 2, (48, 48, 2)), requires_grad=True)
    moved = warp(torch.tensor(grains(places, width, j, k)), u)
    (gradient,) = torch.autograd.grad(moved.sum(), u)
    y_j, y_k = j - u.detach().numpy()[..., 0], k - u.detach().numpy()[..., 1]
    expected = grains(places, width, y_j, y_k)
    slope = sum(((y_j - a) / width**2) * grains([(a, b)], width, y_j, y_k) for a, b in places)
    assert np.abs(moved.detach().numpy() - expected).max() < 1e-3 * expected.max()
    assert (gradient[..., 0].numpy() - slope).std() < bound * slope.std()


def test_cubic_is_scipys():
    generator = np.random.default_rng(1)
    image, u = generator.standard_normal((30, 41)), generator.uniform(-2, 2, (30, 41, 2))
    points = np.mgrid[:30, :41] - np.moveaxis(u, -1, 0)
    expected = scipy.ndimage.map_coordinates(image, points, order=3, mode="mirror")
    np.testing.assert_allclose(warp(image, u, "cubic"), expected, atol=1e-12)


@pytest.mark.parametrize("interpolation", ["gaussian", "bandlimited", "cubic"])
def test_whole_pixels_are_exact(interpolation):
    image = torch.randn(2, 20, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for offset in ((0, 0), (2, -3)):
        u = torch.tensor(offset, dtype=torch.float64).expand(20, 17, 2)
        expected = image.roll(offset, (-2, -1))[:, 2:, :-3]
        torch.testing.assert_close(warp(image, u, interpolation)[:, 2:, :-3], expected, rtol=0, atol=1e-10)
    smooth = torch.from_numpy(scipy.ndimage.gaussian_filter(image.numpy(), (0, 1, 1))).float()
    torch.testing.assert_close(warp(smooth, torch.zeros(20, 17, 2)), smooth, rtol=0, atol=3e-6)


@pytest.mark.parametrize("interpolation", ["gaussian", "bandlimited", "cubic"])
def test_gradients(interpolation):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    u = torch.randn(4, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    checked = {"fast_mode": True, "check_forward_ad": True}
    assert torch.autograd.gradcheck(lambda *a: warp(*a, interpolation, flux=True), (image, u), **checked)


def test_flux_of_a_smooth_field():
    j, k = np.mgrid[:60, :50]
    a, b = 2 * np.pi / 30, 2 * np.pi / 25
    u = np.stack([0.8 * np.sin(a * j) * np.cos(b * k), 0.5 * np.cos(a * j + b * k)], -1)
    jj, jk = 0.8 * a * np.cos(a * j) * np.cos(b * k), -0.8 * b * np.sin(a * j) * np.sin(b * k)
    kj, kk = -0.5 * a * np.sin(a * j + b * k), -0.5 * b * np.sin(a * j + b * k)
    expected = (1 - jj) * (1 - kk) - jk * kj
    found = flux_factor(u)
    assert np.abs(found - expected)[4:-4, 4:-4].max() < 1e-6
    assert np.abs(found - expected).max() < 2e-2  # where the field has to be continued
    assert flux_factor(u[None, :2, :1]).shape == (1, 2, 1)
    for size in (2, 3, 4, 5, 9):  # linear fields are exact up to the edges, however small the frame
        linear = 0.1 * torch.arange(size, dtype=torch.float64)[:, None].expand(size, 1)
        factor = flux_factor(torch.stack([linear, 0 * linear], -1))
        torch.testing.assert_close(factor, torch.full_like(factor, 0.9))


def test_photons_are_kept():
    j, k = np.mgrid[:64, :64]
    blob = np.exp(-((j - 30) ** 2 + (k - 33) ** 2) / (2 * 5.0**2))
    u = np.stack([np.sin(j / 6) * np.cos(k / 7), 1.5 * np.cos(j / 5 + k / 9)], -1)
    assert warp(blob, u, flux=True).sum() == pytest.approx(blob.sum(), rel=1e-5)
    assert abs(warp(blob, u).sum() / blob.sum() - 1) > 1e-2


def test_shift():
    x = np.arange(61)
    image = torch.tensor(np.outer(wave(6, x), wave(10, x)))
    offsets = torch.tensor([[0.3, -0.7], [2.0, 5.4], [0.0, 0.0]], dtype=torch.float64)
    moved = shift(image, offsets)
    for part, (s_j, s_k) in zip(moved, offsets.tolist(), strict=True):
        assert np.abs(part.numpy() - np.outer(wave(6, x - s_j), wave(10, x - s_k))).max() < 1e-4
    given = (image[None, :5, :4].clone().requires_grad_(), offsets[1:].clone().requires_grad_())
    assert torch.autograd.gradcheck(shift, given, fast_mode=True)


def test_kinds_of_arrays():
    image, u = np.ones((3, 4), np.uint16), np.zeros((3, 4, 2))
    assert warp(image, u).dtype == np.float32
    assert isinstance(flux_factor(u), np.ndarray)
    assert isinstance(flux_factor(torch.zeros(3, 4, 2)), torch.Tensor)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.ones(3)}, "image: expected shape"),
        ({"image": np.full((3, 4), np.nan)}, "image: expected finite"),
        ({"image": np.ones((3, 4), complex)}, "image: expected an array of real numbers"),
        ({"displacement": np.zeros((3, 3, 2))}, "displacement: expected shape"),
        ({"displacement": np.full((3, 4, 2), 1e9)}, "displacement: expected at most"),
        ({"interpolation": "linear"}, "interpolation: expected one of"),
        ({"flux": 1.0}, "flux: expected True or False"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        warp(**{"image": np.ones((3, 4)), "displacement": np.zeros((3, 4, 2))} | change)
    if "displacement" in change and change["displacement"].shape[-2] == 3:
        with pytest.raises(ValueError, match="displacement"):
            flux_factor(np.zeros((3, 4)))


@pytest.mark.parametrize(
    ("images", "offsets", "message"),
    [
        (np.ones(4), np.zeros(2), "images: expected shape"),
        (np.ones((4, 5)), np.zeros(3), "last axis of offsets: expected shape"),
        (np.ones((2, 4, 5)), np.zeros((3, 2)), "offsets: expected a shape that broadcasts"),
        (np.ones((4, 5)), np.full(2, 1e9), "offsets: expected at least one"),
    ],
)
def test_mistakes_of_shifts(images, offsets, message):
    with pytest.raises(ValueError, match=message):
        shift(images, offsets)
