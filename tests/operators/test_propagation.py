"""Waves in free space, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from ddf_tomo.operators._gaussian import gaussian_blur
from ddf_tomo.operators.propagation import FresnelPropagator, aliased_share, polychromatic_intensity

WAVELENGTH, PIXEL = 5e-11, 1e-6
GENERATOR = torch.Generator().manual_seed(0)


def places(count):
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * PIXEL


def random_wave(*shape):
    return torch.randn(*shape, dtype=torch.complex128, generator=GENERATOR)


def gaussian_beam(r2, waist, distance, curvature=0.0):
    """A Gaussian beam, with a spherical phase of this curvature (1/m) at the start; from its complex width."""
    a = 1 / waist**2 - 1j * math.pi * curvature / WAVELENGTH
    spread = 1 + 1j * WAVELENGTH * distance * a / math.pi
    return torch.exp(-a / spread * r2) / spread


def smooth(shape):
    """A smooth phase and attenuation that goes to 1 at the edges."""
    j, k = places(shape[0])[:, None] / PIXEL, places(shape[1]) / PIXEL
    return torch.exp((-0.3 + 1.5j) * torch.exp(-((j - 3) ** 2 + k**2) / 60))


@pytest.mark.parametrize(("distance", "waist"), [(0.5, 6e-6), (3.0, 8e-6), (-1.0, 6e-6), (40.0, 6e-6)])
def test_a_gaussian_beam(distance, waist):
    r2 = places(128)[:, None] ** 2 + places(96) ** 2
    P = FresnelPropagator((128, 96), PIXEL, distance, WAVELENGTH, boundary="zero")
    found = P(torch.exp(-r2 / waist**2))
    expected = gaussian_beam(r2, waist, distance)
    # At 40 m the beam is wider than the frame, and only what can reach the frame is kept.
    assert (found - expected).abs().max() < (1e-9 if distance < 10 else 0.01) * expected.abs().max()


def test_a_cone_beam_is_a_parallel_beam_scaled():
    source, distance, waist = 0.5, 2.0, 10e-6
    P = FresnelPropagator((128, 128), PIXEL, distance, WAVELENGTH, boundary="zero", source_distance_m=source)
    assert P.magnification == 5
    assert P.effective_distance_m == pytest.approx(0.4)
    assert P.detector_pixel_size_m == pytest.approx(5e-6)
    r2 = places(128)[:, None] ** 2 + places(128) ** 2
    found = P.intensity(torch.exp(-r2 / waist**2))
    # The same beam with its spherical phase, on the detector's larger pixels, where the open beam has faded by M².
    expected = gaussian_beam(25 * r2, waist, distance, 1 / source).abs() ** 2 * 25
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_cone_beams_chain():
    wave = smooth((64, 64))
    options = {"boundary": "edge", "wavelength_m": WAVELENGTH}
    whole = FresnelPropagator((64, 64), PIXEL, 1.5, source_distance_m=2.0, **options)
    first = FresnelPropagator((64, 64), PIXEL, 0.5, source_distance_m=2.0, **options)
    second = FresnelPropagator((64, 64), first.detector_pixel_size_m, 1.0, source_distance_m=2.5, **options)
    assert second.detector_pixel_size_m == pytest.approx(whole.detector_pixel_size_m)
    torch.testing.assert_close(second(first(wave)), whole(wave), rtol=0, atol=1e-6)


def test_a_knife_edge():
    """Fresnel's integrals behind a half plane in a wide beam."""
    count, distance = 512, 2.0
    P = FresnelPropagator((count, 3), PIXEL, distance, WAVELENGTH)
    x = places(count)
    found = P(((x > 0) * 1.0)[:, None].expand(count, 3))[:, 1].numpy()
    s, c = scipy.special.fresnel(x.numpy() * math.sqrt(2 / (WAVELENGTH * distance)))
    expected = (1 - 1j) / 2 * ((0.5 + c) + 1j * (0.5 + s))
    near = np.abs(x.numpy()) < 25 * PIXEL  # further away the fringes are as fine as the pixels
    assert expected[near].real.max() > 1.1  # and here they are seen
    assert np.abs(found - expected)[near].max() < 0.03


def test_a_grating_images_itself():
    period = 16
    grating = ((torch.arange(64) % period) < 4).to(torch.float64).expand(8, 64)
    talbot = 2 * (period * PIXEL) ** 2 / WAVELENGTH
    at = {n: FresnelPropagator((8, 64), PIXEL, n * talbot, WAVELENGTH, boundary="periodic")(grating) for n in (0.5, 1)}
    torch.testing.assert_close(at[1].abs(), grating, rtol=0, atol=1e-10)
    torch.testing.assert_close(at[0.5].abs(), grating.roll(period // 2, 1), rtol=0, atol=1e-10)
    between = FresnelPropagator((8, 64), PIXEL, talbot / 7, WAVELENGTH, boundary="periodic")(grating)
    assert (between.abs() - grating).abs().max() > 0.2


def test_photons_are_conserved():
    wave = random_wave(48, 40)
    P = FresnelPropagator((48, 40), PIXEL, 3.0, WAVELENGTH, boundary="periodic")
    assert float(P(wave).norm()) == pytest.approx(float(wave.norm()), rel=1e-12)
    blob = smooth((128, 128)) - 1
    P = FresnelPropagator((128, 128), PIXEL, 0.2, WAVELENGTH, boundary="zero")
    assert float(P(blob).norm()) == pytest.approx(float(blob.norm()), rel=1e-6)


def test_two_distances_are_their_sum():
    wave = random_wave(2, 24, 30)

    def at(distance):
        return FresnelPropagator((24, 30), PIXEL, distance, WAVELENGTH, boundary="periodic")

    torch.testing.assert_close(at(1.3)(at(0.4)(wave)), at(1.7)(wave), rtol=0, atol=1e-10)
    torch.testing.assert_close(at(-0.4)(at(0.4)(wave)), wave, rtol=0, atol=1e-10)
    assert torch.equal(FresnelPropagator((24, 30), PIXEL, 0.0, WAVELENGTH).pad and wave, wave)


@pytest.mark.parametrize("boundary", ["edge", "zero", "periodic"])
@pytest.mark.parametrize("pad", ["auto", 9])
def test_the_adjoint(boundary, pad):
    if boundary == "periodic" and pad != "auto":
        pytest.skip("nothing to pad")
    P = FresnelPropagator((20, 26), PIXEL, 0.7, WAVELENGTH, boundary=boundary, pad=pad)
    x, y = random_wave(3, 20, 26), random_wave(3, 20, 26)
    left, right = (P(x).conj() * y).sum(), (x.conj() * P.adjoint(y)).sum()
    assert abs(left - right) < 1e-12 * abs(left) + 1e-10
    assert P(x).shape == P.adjoint(y).shape == x.shape


def test_gradients():
    P = FresnelPropagator((5, 6), PIXEL, 0.1, WAVELENGTH, source_distance_m=1.0, source_sigma_m=4e-6)
    phase = torch.randn(5, 6, dtype=torch.float64, generator=GENERATOR, requires_grad=True)
    assert torch.autograd.gradcheck(lambda phase: P.intensity(torch.exp(1j * phase)), phase)


def test_a_source_of_some_size():
    """A source moved by δ tilts the beam by −δ/R and moves the image by −δ d/R: variances on the detector add."""
    sigma, source, distance = 30e-6, 2.0, 0.6
    options = {"boundary": "zero", "source_distance_m": source}
    r2 = places(96)[:, None] ** 2 + places(80) ** 2
    beam = torch.exp(-r2 / 8e-6**2)
    wide = FresnelPropagator((96, 80), PIXEL, distance, WAVELENGTH, source_sigma_m=(sigma, 0), **options)
    assert wide.blur_px == pytest.approx((sigma * distance / source / (1.3 * PIXEL), 0))
    moved = FresnelPropagator((96, 80), PIXEL, distance, WAVELENGTH, **options)
    tilt = torch.exp(-2j * math.pi / WAVELENGTH * sigma / source * places(96)[:, None])

    def moments(image):
        """Mean and variance along j and k on the detector, in metres."""
        for sums, count in ((image.sum(1), 96), (image.sum(0), 80)):
            x = places(count) * 1.3
            mean = float((sums * x).sum() / sums.sum())
            yield mean, float((sums * (x - mean) ** 2).sum() / sums.sum())

    (_, point_j), (_, point_k) = moments(moved.intensity(beam))
    (_, wide_j), (_, wide_k) = moments(wide.intensity(beam))
    assert wide_j - point_j == pytest.approx((sigma * distance / source) ** 2, rel=1e-6)
    assert wide_k == pytest.approx(point_k)
    (mean, _), _ = moments(moved.intensity(beam * tilt))
    assert mean == pytest.approx(-sigma * distance / source, rel=1e-6)


def test_single_precision():
    wave = smooth((40, 40))
    P = FresnelPropagator((40, 40), PIXEL, 1.0, WAVELENGTH)
    found = P(wave.to(torch.complex64))
    assert found.dtype == torch.complex64
    torch.testing.assert_close(found.to(torch.complex128), P(wave), rtol=0, atol=2e-6)


def test_padding_is_enough():
    """A frame cut out of a larger one shows what the larger one does, but for what came from beyond its edge."""
    wave = smooth((160, 160))
    large = FresnelPropagator((160, 160), PIXEL, 0.5, WAVELENGTH).intensity(wave)
    small = FresnelPropagator((96, 96), PIXEL, 0.5, WAVELENGTH).intensity(wave[32:128, 32:128])
    torch.testing.assert_close(small, large[32:128, 32:128], rtol=0, atol=1e-5)
    for boundary in ("edge", "zero"):
        for pad in (16, 40):  # less than is needed: the finest details go, nothing wrong comes
            P = FresnelPropagator((96, 96), PIXEL, 2.0, WAVELENGTH, boundary=boundary, pad=pad)
            full = FresnelPropagator((96, 96), PIXEL, 2.0, WAVELENGTH, boundary=boundary)
            blob = smooth((96, 96)) - (1 if boundary == "zero" else 0)
            assert P.pad == (pad, pad) != full.pad
            torch.testing.assert_close(P(blob), full(blob), rtol=0, atol=0.02)


def test_several_energies():
    wavelengths, weights = [4e-11, 5e-11, 8e-11], [1.0, 2.0, 1.0]
    P = [FresnelPropagator((32, 32), PIXEL, 0.5, each) for each in wavelengths]
    waves = [smooth((32, 32)) ** (each / 5e-11) for each in wavelengths]
    found = polychromatic_intensity(waves, P, weights)
    expected = sum(w / 4 * p.intensity(wave) for w, p, wave in zip(weights, P, waves, strict=True))
    torch.testing.assert_close(found, expected)
    assert torch.equal(polychromatic_intensity(waves[:1], P[:1], [7.0]), P[0].intensity(waves[0]))


def test_aliasing_is_told():
    x = torch.arange(128, dtype=torch.float64)

    def share(period):
        return float(aliased_share(torch.exp(1j * torch.cos(2 * math.pi * x / period)).expand(4, 128)))

    assert share(32) < 1e-6 < share(8) < 0.01 < share(4)
    assert aliased_share(torch.ones(2, 8, 8)).tolist() == [0, 0]


def test_blur():
    import scipy.ndimage

    image = torch.randn(40, 36, dtype=torch.float64, generator=GENERATOR)
    image = gaussian_blur(image, (1.0, 1.0))
    for periodic in (False, True):
        found = gaussian_blur(image, (2.0, 1.6), periodic=periodic)
        mode = "wrap" if periodic else "reflect"
        expected = scipy.ndimage.gaussian_filter(image.numpy(), (2.0, 1.6), mode=mode, truncate=8)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
        assert float(found.sum()) == pytest.approx(float(image.sum()))
    assert gaussian_blur(image, (0.0, 0.0)) is image


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"distance_m": 60.0}, "pad: expected at most 512 pixels on each side, got 1500"),
        ({"distance_m": 60.0, "pad": 20}, "distance_m: expected a band of 16 frequencies"),
        ({"distance_m": 5000.0, "boundary": "zero"}, "distance_m: expected a band of 16 frequencies"),
        ({"boundary": "periodic", "pad": 3}, "pad: expected an integer in"),
        ({"pad": "much"}, "pad: expected one of 'auto'"),
        ({"boundary": "mirror"}, "boundary: expected one of"),
        ({"distance_m": -1.0, "source_distance_m": 1.0}, "distance_m: expected a finite number in"),
        ({"source_sigma_m": 1e-6}, "source_distance_m: expected a distance where the source has a size"),
        ({"source_sigma_m": [1e-6] * 3}, "source_sigma_m: expected one number or two"),
        ({"wavelength_m": 25.0}, "wavelength_m: expected a finite number in"),
        ({"shape": (2**15, 2**14)}, "shape: expected at most"),
    ],
)
def test_what_cannot_be_sampled_is_refused(options, text):
    given = {"shape": (64, 64), "pixel_size_m": PIXEL, "distance_m": 1.0, "wavelength_m": WAVELENGTH} | options
    with pytest.raises(ValueError, match=text):
        FresnelPropagator(**given)


def test_wrong_waves_are_refused():
    P = FresnelPropagator((8, 8), PIXEL, 0.01, WAVELENGTH)
    with pytest.raises(ValueError, match="wave: expected shape"):
        P(torch.ones(8, 7))
    with pytest.raises(ValueError, match="wave: expected finite values"):
        P(torch.full((8, 8), math.nan))
    with pytest.raises(TypeError, match="wave: expected a tensor of real or complex numbers"):
        P("wave")
    with pytest.raises(ValueError, match="propagators: expected one for each of the 2 weights"):
        polychromatic_intensity([torch.ones(8, 8)] * 2, [P], [1.0, 1.0])
    with pytest.raises(ValueError, match="weights: expected numbers ≥ 0"):
        polychromatic_intensity([torch.ones(8, 8)], [P], [-1.0])
    with pytest.raises(TypeError, match="propagators: expected FresnelPropagator"):
        polychromatic_intensity([torch.ones(8, 8)], [None], [1.0])
    assert repr(P).startswith("<FresnelPropagator (8, 8), 0.01 m")
