"""What a detector makes of an intensity: means, variances, limits, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from ddf_tomo.acquisition import Detector, correct

OPEN = torch.ones(40, 64, 64)


def test_counts_follow_poisson():
    counts = Detector().frames(OPEN * 0.5, 12.0, seed=2).to(torch.int64).flatten().numpy()
    values, found = np.unique(counts, return_counts=True)
    expected = scipy.stats.poisson.pmf(values, 6.0) * counts.size
    kept = expected > 20
    assert scipy.stats.chisquare(found[kept], expected[kept] * found[kept].sum() / expected[kept].sum()).pvalue > 1e-4


def test_gain_dark_and_read_noise():
    detector = Detector(gain=3.0, read_noise=12.0, dark=250.0)
    frames = detector.frames(OPEN, 400.0, seed=1).double()
    assert float(frames.mean()) == pytest.approx(250 + 1200, rel=1e-3)
    assert float(frames.var()) == pytest.approx(9 * 400 + 144 + 1 / 12, rel=0.02)
    dark = detector.dark_frames(40, (64, 64), seed=1).double()
    assert float(dark.mean()) == pytest.approx(250, abs=0.2)
    assert float(dark.var()) == pytest.approx(144 + 1 / 12, rel=0.02)
    assert torch.equal(detector.frames(OPEN, 400.0, seed=1), frames.to(torch.int32).to(torch.uint16))


def test_the_point_spread_comes_before_the_noise():
    detector = Detector(psf_sigma_px=(1.5, 0.7))
    point = torch.zeros(33, 33)
    point[16, 16] = 1000
    found = detector.expected(point, 1000.0).double()
    x = torch.arange(33, dtype=torch.float64) - 16
    for axis, sigma in ((1, 1.5), (0, 0.7)):
        assert float((found.sum(axis) * x**2).sum() / found.sum()) == pytest.approx(sigma**2, rel=1e-3)
    noisy = detector.frames(OPEN, 50.0, seed=3).double()
    neighbours = ((noisy - 50)[:, 1:] * (noisy - 50)[:, :-1]).mean()
    assert abs(float(neighbours)) < 0.5  # of 50: pixels are independent


def test_pixels_of_their_own():
    sensitivity = torch.full((64, 64), 0.5)
    dead, hot = torch.zeros(64, 64, dtype=torch.bool), torch.zeros(64, 64, dtype=torch.bool)
    dead[3, 4] = hot[5, 6] = True
    detector = Detector(sensitivity=sensitivity, dead=dead, hot=hot, dark=torch.full((64, 64), 7.0), saturation=4000)
    frames = detector.frames(OPEN, 2000.0, seed=1)
    assert frames.dtype == torch.uint16
    assert frames.to(torch.int32)[:, 3, 4].unique().tolist() == [0]
    assert frames.to(torch.int32)[:, 5, 6].unique().tolist() == [4000]
    assert float(frames.double()[:, 10:].mean()) == pytest.approx(1007, rel=1e-3)
    bright = detector.frames(OPEN, 20_000.0, seed=1).to(torch.int32)
    assert int(bright.max()) == 4000 == int(bright[0, 0, 0])


def test_expected_readings():
    detector = Detector(psf_sigma_px=0.8, gain=2.0, dark=100.0)
    image = torch.rand(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: detector.expected(x, 500.0), image)
    still = detector.frames(image.detach(), 500.0, noise=False).double()
    assert (still - detector.expected(image.detach(), 500.0)).abs().max() <= 0.5
    many = detector.frames(image.detach().expand(3000, 6, 7), 500.0, seed=0).double()
    torch.testing.assert_close(many.mean(0), detector.expected(image.detach(), 500.0), rtol=0, atol=3.5)


def test_correction_is_the_way_back():
    generator = torch.Generator().manual_seed(4)
    sensitivity = 0.8 + 0.4 * torch.rand(32, 32, generator=generator)
    sensitivity[2, 3] = 0
    dark = 100 + 20 * torch.rand(32, 32, generator=generator)
    detector = Detector(gain=0.5, sensitivity=sensitivity, dark=dark)
    image = 0.2 + torch.rand(4, 32, 32, generator=generator)
    image[0, 9, 9] = 60
    frames, flat = (detector.frames(each, 20_000.0, noise=False) for each in (image, torch.ones(3, 32, 32)))
    found = correct(frames, dark.expand(5, 32, 32), flat, saturation=65535)
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    valid[:, 2, 3] = valid[0, 9, 9] = False
    assert torch.equal(found.valid, valid)
    assert not found.intensity[~valid].any()
    torch.testing.assert_close(found.intensity[valid], image[valid], rtol=0, atol=3e-4)
    assert torch.equal(correct(frames.numpy(), dark.numpy(), flat.numpy(), saturation=65535).intensity, found.intensity)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"psf_sigma_px": -1.0}, "psf_sigma_px: expected"),
        ({"psf_sigma_px": (1.0, 1.0, 1.0)}, "psf_sigma_px: expected one number or two"),
        ({"gain": 0.0}, "gain: expected"),
        ({"dark": -5.0}, "dark: expected"),
        ({"saturation": 1e6}, "saturation: expected"),
        ({"sensitivity": -torch.ones(4, 4)}, r"sensitivity: expected values in \[0, 1e6\]"),
        ({"sensitivity": torch.ones(4, 4), "dead": torch.zeros(4, 5)}, "dark, sensitivity, dead, hot: expected one"),
        ({"hot": "all"}, "hot: expected"),
    ],
)
def test_what_no_detector_is(options, text):
    with pytest.raises((ValueError, TypeError), match=text):
        Detector(**options)


def test_wrong_frames_are_refused():
    with pytest.raises(ValueError, match="intensity: expected shape"):
        Detector(sensitivity=torch.ones(4, 4)).frames(torch.ones(5, 5), 10.0)
    with pytest.raises(ValueError, match="intensity: expected up to 1e"):
        Detector().frames(torch.full((5, 5), 1e9), 10.0)
    with pytest.raises(ValueError, match="flat: expected readings above those of dark"):
        correct(torch.ones(3, 3), 100.0, 50.0)
    with pytest.raises(ValueError, match="flat: expected shape"):
        correct(torch.ones(3, 3), 0.0, torch.ones(4, 4))
    with pytest.raises(ValueError, match="dark: expected a number"):
        correct(torch.ones(3, 3), torch.ones(2, 2, 3, 3), 50.0)
