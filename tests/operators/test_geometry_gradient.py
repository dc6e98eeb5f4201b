"""Derivatives of the projector with respect to where its views are, against differences of the projector itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import ddf_tomo as dt
from ddf_tomo.operators.geometry_gradient import CORRECTIONS, AdjustableXRayTransform, corrected

RESPONSES = [
    None,
    dt.SecondMomentResponse(),
    dt.SaxsResponse(np.arange(4) * np.pi / 4, two_theta_rad=0.1, full_circle=True),
    dt.VisibilityResponse([[0.1, 1.2]] * 3),
    dt.RankTwoResponse(),
]


def geometry():
    """Beams along each of the three main axes; nothing at a kink."""
    rotations = Rotation.from_euler("zx", [[0.2, 0.1], [1.7, 0.3], [0.3, 1.4]]).as_matrix()
    return dt.Geometry.from_rotations(rotations, (7, 6, 5), (8, 7), j_offset=0.13, k_offset=-0.21)


def volume(channels, seed=0):
    return torch.rand(7, 6, 5, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_corrections(views=3, size=0.1, seed=1):
    scale = torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0]) * size
    return torch.randn(views, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def transform(of, response, ell_max):
    return dt.XRayTransform(of) if response is None else dt.TensorXRayTransform(of, response, ell_max)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_values_are_those_of_the_projector_of_the_corrected_geometry(response):
    """The response of a turned view is computed in two ways: by Wigner's matrices, and from the turned frame."""
    ell_max = 0 if response is None else 2
    x, corrections = volume(2 if response is None else 6), some_corrections()
    B = AdjustableXRayTransform(geometry(), response, ell_max)
    for change in (torch.zeros_like(corrections), corrections):
        expected = transform(B.corrected(change), response, ell_max)(x)
        for found in (B(x, change), B.derivatives(x, change)[0]):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_derivatives_are_limits_of_differences(response):
    ell_max = 0 if response is None else 2
    x, corrections, step = volume(2 if response is None else 6), some_corrections(), 1e-6
    B = AdjustableXRayTransform(geometry(), response, ell_max)
    slopes = B.derivatives(x, corrections)[1]
    for place in range(len(CORRECTIONS)):
        there, back = corrections.clone(), corrections.clone()
        there[:, place] += step
        back[:, place] -= step
        difference = sum(
            sign * transform(B.corrected(c), response, ell_max)(x) for sign, c in ((1, there), (-1, back))
        ) / (2 * step)
        torch.testing.assert_close(slopes[..., place], difference, rtol=1e-6, atol=1e-7)
    only_offsets = B.derivatives(x, corrections, rotations=False)[1]
    torch.testing.assert_close(only_offsets, slopes[..., :2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("response", [None, dt.SecondMomentResponse(), dt.RankTwoResponse()])
def test_gradients_flow_to_volume_and_corrections(response):
    x = volume(1 if response is None else 6).requires_grad_()
    corrections = some_corrections().requires_grad_()
    B = AdjustableXRayTransform(geometry(), response, 0 if response is None else 2)
    assert torch.autograd.gradcheck(B, (x, corrections), check_forward_ad=True, eps=1e-6, atol=1e-6, fast_mode=True)


def test_a_corrected_geometry():
    start, corrections = geometry(), some_corrections()
    found = corrected(start, corrections)
    for view, (dj, dk, *angles) in enumerate(corrections.numpy()):
        frame = np.stack([start.p[view], start.j[view], start.k[view]])
        turned = Rotation.from_rotvec(angles @ frame).apply(frame)
        np.testing.assert_allclose([found.p[view], found.j[view], found.k[view]], turned, atol=1e-14)
        assert (found.j_offset[view], found.k_offset[view]) == pytest.approx((0.13 + dj, -0.21 + dk))
    assert corrected(start, np.zeros((3, 5))) == start


def test_rays_that_leave_the_volume():
    """Far outside nothing is seen and nothing changes; across the border values and slopes fade in."""
    corrections = torch.zeros(3, 5, dtype=torch.float64)
    corrections[:, 0] = torch.tensor([1e30, -100.0, 5.0])
    B = AdjustableXRayTransform(geometry())
    signals, slopes = B.derivatives(volume(1), corrections)
    assert not signals[:2].any()
    assert not slopes[:2].any()
    torch.testing.assert_close(signals, dt.XRayTransform(B.corrected(corrections))(volume(1)), rtol=1e-12, atol=1e-12)


def test_float32_and_no_views():
    B = AdjustableXRayTransform(geometry())
    x, corrections = volume(3).float(), some_corrections()
    assert B.derivatives(x, corrections)[1].dtype == torch.float32
    for one, other in zip(B.derivatives(x, corrections), B.derivatives(x.double(), corrections), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)
    assert AdjustableXRayTransform(geometry()[:0])(x, torch.zeros(0, 5)).shape == (0, 8, 7, 3)


@pytest.mark.parametrize(
    ("x", "corrections", "error", "text"),
    [
        (torch.ones(7, 6, 5), np.zeros((3, 5)), ValueError, "x: expected shape"),
        (torch.ones(7, 6, 5, 1), np.zeros((3, 4)), ValueError, r"corrections: expected shape \(3, 5\)"),
        (torch.ones(7, 6, 5, 1), np.full((3, 5), 10.0), ValueError, "degrees"),
        (torch.ones(7, 6, 5, 1), np.full((3, 5), np.nan), ValueError, "corrections: expected finite"),
        (torch.ones(7, 6, 5, 1, dtype=torch.float16), np.zeros((3, 5)), TypeError, "float32 or float64"),
    ],
)
def test_bad_input(x, corrections, error, text):
    with pytest.raises(error, match=text):
        AdjustableXRayTransform(geometry())(x, corrections)
