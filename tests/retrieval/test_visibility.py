"""Visibilities from frames, against frames whose Fourier components were multiplied by known ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ddf_tomo.retrieval._log_visibility import LogVisibility, blurred
from ddf_tomo.retrieval._warped import fast_length, spline_coefficients, transfers, warped
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from ddf_tomo.retrieval.visibility import METHOD, calibrated, estimate_exponent
from tests.retrieval.simulation import frames

INNER = (slice(12, -12), slice(12, -12))
AZIMUTHS = np.arange(8) * np.pi / 8
CURVE = np.array([0.45, 0.06, -0.04, -0.03, 0.04])  # 1, cos 2φ, sin 2φ, cos 4φ, sin 4φ


def series(azimuth: Any, curve: NDArray[np.float64] = CURVE) -> Any:
    terms = (1, np.cos(2 * azimuth), np.sin(2 * azimuth), np.cos(4 * azimuth), np.sin(4 * azimuth))
    return sum(a * term for a, term in zip(curve, terms, strict=True))


def cusp(
    steps: int, size: int, *, exponent: float = 1.0, strength: float = 1.0, counts: float | None = None, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(sample, reference) with ``−ln V = strength (8ν)^exponent series(φ)``, T = 0.8 and u = (0.4, −0.7)."""
    generator = np.random.default_rng(seed)
    f_j, f_k = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]
    frequency = np.hypot(f_j, f_k)
    pattern = np.fft.fft2(generator.standard_normal((steps, size, size))) * np.exp(-2 * (1.5 * np.pi * frequency) ** 2)
    pattern *= 0.3 / np.fft.ifft2(pattern).real.std()
    loss = strength * (8 * frequency) ** exponent * series(np.arctan2(f_k, f_j))
    transfer = np.exp(-loss - 2j * np.pi * (0.4 * f_j - 0.7 * f_k))
    reference = 1 + np.fft.ifft2(pattern).real
    sample = 0.8 * (1 + np.fft.ifft2(pattern * transfer).real)
    if counts is not None:
        sample, reference = (generator.poisson(counts * each.clip(0)).astype(float) for each in (sample, reference))
    return sample, reference


def fit(sample: Any, reference: Any, counts: float | None = None, weights: Any = None, **options: Any) -> Maps:
    """The method on frames (step, row, column) or (distance, step, row, column), without the door."""
    level = float(np.mean(reference))
    sample, reference = (torch.as_tensor(np.asarray(each) / level) for each in (sample, reference))
    sample, reference = (each[None] if each.ndim == 3 else each for each in (sample, reference))
    reach = torch.tensor(options.pop("reach", [1.0]), dtype=sample.dtype)
    weights = torch.ones(1, 1, *sample.shape[-2:]) if weights is None else torch.as_tensor(weights)
    view = View(sample, reference, weights.to(sample), reach, math.nan if counts is None else counts)
    return METHOD.fit(view, METHOD.check(options, tuple(sample.shape)), int)


# -- parts ------------------------------------------------------------------------------------------------------------


def test_splines_are_those_of_scipy():
    from scipy import ndimage

    generator = np.random.default_rng(0)
    image = generator.standard_normal((2, 30, 33))
    u = generator.uniform(-3, 3, (2, 30, 33))
    found = warped(spline_coefficients(torch.from_numpy(image)), torch.from_numpy(u)).numpy()
    j, k = np.mgrid[:30, :33]
    places = (slice(7, -7), slice(7, -7))
    for one, each in zip(found, image, strict=True):
        padded = np.pad(each, 8, mode="edge")
        expected = ndimage.map_coordinates(padded, [j - u[0] + 8, k - u[1] + 8], order=3)
        np.testing.assert_allclose(one[places], expected[places], atol=2e-4)
    still = warped(spline_coefficients(torch.from_numpy(image)), torch.zeros(2, 30, 33, dtype=torch.float64))
    np.testing.assert_allclose(still.numpy(), image, atol=1e-12)
    assert [fast_length(n) for n in (7, 96, 97, 121)] == [8, 96, 100, 125]


def test_gaussian_blur_is_one_of_the_series_at_any_frequency():
    covariance = torch.tensor([0.7, 0.2, 0.4], dtype=torch.float64)
    law = LogVisibility((12.0, 7.0, 5.0), 4, 2.0)
    azimuths = torch.arange(16, dtype=torch.float64) * math.pi / 16

    def gaussian(f_j: torch.Tensor, f_k: torch.Tensor) -> torch.Tensor:
        return 2 * math.pi**2 * (covariance[0] * f_j**2 + 2 * covariance[1] * f_j * f_k + covariance[2] * f_k**2)

    curve = torch.cat([gaussian(azimuths.cos() / p, azimuths.sin() / p) for p in law.periods])
    amplitudes = torch.linalg.lstsq(law.of_visibility(azimuths), curve[:, None]).solution[:, 0]
    torch.testing.assert_close(law.of_covariance() @ amplitudes, covariance)
    f_j, f_k = (torch.rand(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.5
    torch.testing.assert_close(amplitudes @ law.at(f_j, f_k), gaussian(f_j, f_k))


def test_frames_blurred_from_pixel_to_pixel_are_sums_over_all_frequencies():
    size = 64
    generator = torch.Generator().manual_seed(0)
    f_j, f_k = torch.meshgrid(*[torch.fft.fftfreq(size, dtype=torch.float64)] * 2, indexing="ij")
    frame = torch.randn(2, size, size, dtype=torch.float64, generator=generator)
    frame = torch.fft.ifft2(torch.fft.fft2(frame) * torch.exp(-20 * (f_j**2 + f_k**2))).real
    frame /= frame.std()
    law = LogVisibility((8.0,), 4, 1.0)
    j, k = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    amplitudes = torch.from_numpy(CURVE)[:, None, None] * (1 + 0.5 * torch.sin(j / 4) * torch.cos(k / 5))
    found = blurred(torch.fft.rfft2(frame), law, amplitudes)
    spectrum = torch.fft.fft2(frame) / size**2
    functions = law.at(f_j, f_k)
    for place in ((0, 0), (5, 47), (63, 31)):
        loss = (amplitudes[:, place[0], place[1], None, None] * functions).sum(0)
        wave = torch.exp(2j * math.pi * (f_j * place[0] + f_k * place[1]) - loss)
        expected = (spectrum * wave).sum((1, 2)).real
        torch.testing.assert_close(found[:, *place], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(blurred(torch.fft.rfft2(frame), law, 0 * amplitudes), frame)


# -- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("displacement", [(0.0, 0.0), (1.3, -0.8)])
def test_gaussian_blur_is_found_without_noise(displacement: tuple[float, float]):
    c = (0.9, 0.3, 0.5)
    sample, reference = frames(10, (56, 56), displacement=displacement, covariance=c, transmission=0.8)
    maps = fit(sample, reference)
    q = 2 * math.pi / 8
    cos, sin = np.cos(AZIMUTHS), np.sin(AZIMUTHS)
    expected = 0.5 * q * q * (c[0] * cos**2 + 2 * c[1] * cos * sin + c[2] * sin**2)
    assert maps.azimuths_rad == pytest.approx(AZIMUTHS)
    assert maps.correlation_lengths_m == (1 / 8,)
    assert np.abs(np.asarray(maps.visibility[INNER]) - expected).max() < 6e-3
    assert np.abs(np.asarray(maps.visibility[INNER]) - expected).mean() < 1.5e-3
    np.testing.assert_allclose(maps.covariance[INNER].mean((0, 1)), c, atol=4e-3)
    np.testing.assert_allclose(maps.displacement[INNER].mean((0, 1)), displacement, atol=1e-3)
    np.testing.assert_allclose(maps.transmission[INNER], 0.8, atol=1e-3)
    assert maps.valid.all()


def test_a_cusp_is_found_with_its_order_four():
    maps = fit(*cusp(12, 64), exponent=1.0)
    found = np.asarray(maps.visibility[INNER])
    assert np.abs(found - series(AZIMUTHS)).max() < 0.013
    assert np.abs(found - series(AZIMUTHS)).mean() < 3e-3
    # Second moments see the orders 0 and 2 of it, and call that a Gaussian.
    a = np.asarray(maps.covariance[INNER]).mean((0, 1)) * (2 * np.pi / 8) ** 2 / 4
    np.testing.assert_allclose([a[0] + a[2], a[0] - a[2], 2 * a[1]], CURVE[:3], atol=2e-3)


def test_exponent_is_read_off_the_periods():
    # The fit is told 1, the frames say 1.5.
    maps = fit(*cusp(14, 56, exponent=1.5, counts=20_000), 20_000, periods=(16, 8, 5), exponent=1.0)
    assert maps.correlation_lengths_m == pytest.approx((1 / 16, 1 / 8, 1 / 5))
    assert estimate_exponent(maps).value == pytest.approx(1.5, abs=0.12)


def test_distances_give_lengths_of_their_own():
    reach = [0.5, 1.0]
    both = [cusp(10, 40, strength=r, seed=1) for r in reach]
    sample, reference = (np.stack([pair[n] for pair in both]) for n in (0, 1))
    maps = fit(sample, reference, exponent=1.0, reach=[0.5, 1.0])
    assert maps.correlation_lengths_m == (0.0625, 0.125)
    near, far = np.asarray(maps.visibility[INNER]).mean((0, 1)).reshape(2, 8)
    np.testing.assert_allclose(near, 0.5 * series(AZIMUTHS), atol=4e-3)
    np.testing.assert_allclose(far, series(AZIMUTHS), atol=4e-3)
    assert estimate_exponent(maps).value == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("known", "counts"), [(True, 2000.0), (False, 20_000.0)])
def test_error_bars_cover_as_they_should(known: bool, counts: float):
    pulls: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("visibility", "covariance", "displacement")}
    c, u, q = (0.6, 0.2, 0.3), (0.1, -0.2), 2 * math.pi / 8
    cos, sin = np.cos(AZIMUTHS), np.sin(AZIMUTHS)
    expected = 0.5 * q * q * (c[0] * cos**2 + 2 * c[1] * cos * sin + c[2] * sin**2)
    truth = {"visibility": expected, "covariance": c, "displacement": u}
    for seed in range(3):
        drawn = frames(
            12, (72, 72), displacement=u, covariance=c, transmission=0.8, counts=counts, contrast=0.3, seed=seed
        )
        maps = fit(*drawn, counts if known else None)
        for name, value in truth.items():
            error = np.asarray(getattr(maps, name + "_error")[INNER])
            pulls[name].append((np.asarray(getattr(maps, name)[INNER]) - value) / error)
        assert float(maps.chi2[INNER].mean()) == pytest.approx(0.9, abs=0.2)  # the windows' unknowns take their share
    for name, pull in pulls.items():
        # 48 x 48 pixels x 3 make about 90 windows, of 2 to 5 independent numbers each.
        assert 0.6 < np.mean(np.abs(pull) < 1) < 0.77, name
        assert 0.9 < np.mean(np.abs(pull) < 2) < 0.98, name
        assert np.abs(np.mean(pull, axis=(0, 1, 2))).max() < 0.45, name


def test_noise_of_the_reference_is_no_negative_blur():
    # Without the correction −ln V reads −0.01 here, twice the error of its mean ...
    found = []
    for seed in range(3):
        maps = fit(*frames(8, (56, 56), counts=500, contrast=0.3, seed=seed), 500.0)
        found.append(np.asarray(maps.visibility)[INNER].mean())
    assert abs(np.mean(found)) < 0.006


def test_dead_pixels_and_missing_frames_do_not_matter():
    sample, reference = cusp(10, 64, seed=3)
    weights = np.ones((1, 10, 64, 64))
    weights[0, :, 30, 20:24] = 0
    weights[0, 4] = 0
    broken = sample.copy()
    broken[weights[0] == 0] = reference.mean()
    maps = fit(broken, reference, weights=weights, exponent=1.0)
    assert np.array_equal(maps.valid, weights[0].any(0))
    assert np.abs(np.asarray(maps.visibility) - series(AZIMUTHS))[weights[0].any(0)][12 * 64 : -12 * 64].mean() < 0.01
    whole = fit(sample[np.arange(10) != 4], reference[np.arange(10) != 4], exponent=1.0)
    above = (slice(12, 22), slice(12, -12))  # where what the dead pixels show of the pattern is out of reach
    off, expected = (np.asarray(each.visibility)[above] - series(AZIMUTHS) for each in (maps, whole))
    assert np.abs(off).mean() < 1.1 * np.abs(expected).mean()
    assert np.abs(off).mean() < 3e-3  # as of an unbroken scan of such a blur, above


def test_parts_of_an_image_give_the_same():
    sample, reference = cusp(6, 144, counts=20_000)
    options = METHOD.check({"window": 2.0, "passes": 2}, (1, 6, 144, 144))
    reach = METHOD.halo(options)
    whole = fit(sample.astype(np.float32), reference.astype(np.float32), window=2.0, passes=2)
    level = reference[:, :110].mean() / reference.mean()
    part = fit(sample[:, :110] * level, reference[:, :110], window=2.0, passes=2)
    assert reach < 90
    kept = slice(10, 110 - reach)
    apart = np.asarray(part.visibility)[kept, INNER[1]] - np.asarray(whole.visibility)[kept, INNER[1]]
    largest = np.abs(np.asarray(whole.visibility)[kept, INNER[1]]).max()
    assert math.sqrt((apart**2).mean()) < 1e-5 * largest
    assert np.abs(apart).max() < 1e-4 * largest  # where a pixel is like none that blurs were put together from


def test_every_pixel_is_blurred_by_its_own_visibility():
    """Against the filter of one pixel, applied to the whole frame; also of pixels that are like no other."""
    rows, columns, law = 64, 72, LogVisibility((8.0,), 4, 2.0)
    generator = torch.Generator().manual_seed(0)
    smoothing = 1.0
    amplitudes = torch.rand(5, rows, columns, generator=generator, dtype=torch.float64).numpy() - [[[0.5]]]
    amplitudes = torch.from_numpy(
        gaussian_filter(amplitudes, (0, 3, 3)) * 0.3 + np.array([0.1, 0, 0, 0, 0])[:, None, None]
    )
    amplitudes[:, 17, 31] = torch.tensor([0.3, -0.1, 0.1, 0.0, 0.1])
    frame = gaussian_filter(
        torch.rand(rows, columns, generator=generator, dtype=torch.float64).numpy(), 1.0, mode="wrap"
    )
    spectrum = torch.fft.rfft2(torch.from_numpy(1 + frame - frame.mean()))
    found = blurred(spectrum[None], law, amplitudes, smoothing)[0]
    for j, k in ((17, 31), (0, 0), (40, 5), (63, 71)):
        own = transfers(
            lambda f_j, f_k, a=amplitudes[:, j, k]: torch.exp(-torch.einsum("n,njk->jk", a, law.at(f_j, f_k))),
            rows, columns, found,
        )  # fmt: skip
        assert abs(float(torch.fft.irfft2(own * spectrum)[j, k] - found[j, k])) < 1e-5 * frame.std()


def test_a_mask_without_pattern_is_not_valid():
    flat = np.full((6, 40, 40), 1000.0)
    maps = fit(flat + np.random.default_rng(0).normal(0, 30, flat.shape), flat)
    assert not maps.valid.any()
    assert torch.isinf(maps.visibility_error).all()
    assert torch.isinf(maps.displacement_error).all()


@pytest.mark.parametrize(
    ("options", "shape", "says"),
    [
        ({"periods": 1.0}, (1, 8, 40, 40), "periods: expected"),
        ({"periods": (8.0, 8.1)}, (1, 8, 40, 40), "periods: expected 1 to 6 numbers"),
        ({"periods": "many"}, (1, 8, 40, 40), "periods: expected"),
        ({"azimuths": 3}, (1, 8, 40, 40), "azimuths: expected at least 5"),
        ({"order": 3}, (1, 8, 40, 40), "order: expected an even order"),
        ({"exponent": 3.0}, (1, 8, 40, 40), "exponent: expected"),
        ({"focus": 3.0}, (1, 8, 40, 40), "focus: expected one of"),
        ({}, (1, 3, 40, 40), "sample: expected at least 4 mask steps"),
        ({}, (1, 8, 10, 40), "sample: expected at least 16 rows and columns"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], shape: tuple[int, ...], says: str):
    with pytest.raises((ValueError, TypeError), match=says):
        METHOD.check(options, shape)


def test_lengths_in_metres_need_pixel_and_distance():
    maps = fit(*cusp(6, 40), passes=1)
    with pytest.raises(ValueError, match="pixel_size_m"):
        calibrated(maps, 5e-11)
    with pytest.raises(ValueError, match="two correlation lengths"):
        estimate_exponent(maps)
    with pytest.raises(TypeError, match="maps"):
        estimate_exponent(None)  # type: ignore[arg-type]


# -- where C ∝ d² saturates -------------------------------------------------------------------------------------------

REACHES = (1 / 3, 2 / 3, 1.0)


def several_distances(law: Any, steps: int = 8, size: int = 64) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(sample, reference) with ``−ln V = law(d/period, azimuth)`` at each distance, in the Fourier domain."""
    generator = np.random.default_rng(0)
    f_j, f_k = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None]
    frequency, azimuth = np.hypot(f_j, f_k), np.arctan2(f_k, f_j)
    sample, reference = [], []
    for reach in REACHES:
        pattern = np.fft.fft2(generator.standard_normal((steps, size, size)))
        pattern *= np.exp(-2 * (1.5 * np.pi * frequency) ** 2)
        pattern *= 0.3 / np.fft.ifft2(pattern).real.std()
        transfer = np.exp(-law(reach * frequency, azimuth) - 2j * np.pi * reach * (0.4 * f_j - 0.7 * f_k))
        reference.append(1 + np.fft.ifft2(pattern).real)
        sample.append(0.8 * (1 + np.fft.ifft2(pattern * transfer).real))
    return np.stack(sample), np.stack(reference)


@pytest.mark.parametrize(
    ("law", "tolerance"),
    [
        (lambda length, azimuth: (8 * length) ** 1.2 * series(azimuth), 0.01),
        (lambda length, azimuth: 1.2 * series(azimuth) * (1 - np.exp(-8 * length)), 0.07),  # σ (1 − G): no power law
    ],
)
def test_lengths_of_several_distances_are_right_once_the_exponent_is_theirs(law: Any, tolerance: float):
    """Blurs that do not grow with the square of the distance: retrieved, β estimated, retrieved again with it."""
    sample, reference = several_distances(law)
    exponent = 1.0
    for _ in range(2):
        maps = fit(sample, reference, reach=REACHES, periods=[12.0, 8.0], exponent=exponent, passes=2)
        found = estimate_exponent(maps)
        before, exponent = exponent, found.value
    lengths = np.array(maps.correlation_lengths_m)
    truth = np.array([law(length, AZIMUTHS) for length in lengths])
    np.testing.assert_allclose(lengths, [reach / period for reach in REACHES for period in (12, 8)])
    curve = np.asarray(maps.visibility)[INNER].reshape(-1, 6, 8).mean(0)
    np.testing.assert_allclose(curve.mean(1), truth.mean(1), rtol=tolerance)
    assert np.sqrt(np.mean((curve - truth) ** 2)) < tolerance * truth.max()
    slope = np.polyfit(np.log(lengths), np.log(truth.mean(1)), 1)[0]
    assert abs(exponent - slope) < 2 * found.error
    assert abs(exponent - before) < 0.15
    ends = truth.mean(1)[-1] / truth.mean(1)[0]
    assert ends < 0.8 * (lengths[-1] / lengths[0]) ** 2  # far from the law of second moments
