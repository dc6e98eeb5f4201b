"""The non-linear retrieval against simulated truth: values, error bars, and the formulas it is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval._matching_fit import bounded, levels
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.matching import METHOD
from ddf_tomo.retrieval.method import View
from tests.retrieval.simulation import frames

INNER = np.s_[14:-14, 14:-14]
SHIFT, BLUR = (0.5, -1.2), (1.2, 0.4, 0.5)
TRUTH = {"displacement": SHIFT, "covariance": BLUR}


def matched(sample: NDArray[np.float64], reference: NDArray[np.float64], **options: object) -> Maps:
    return retrieve(sample, reference, "matching", progress=False, **options)


def off(maps: Maps, **truth: object) -> dict[str, NDArray[np.float64]]:
    return {name: np.asarray(getattr(maps, name)[INNER] - np.asarray(value)) for name, value in truth.items()}


@pytest.mark.parametrize("options", [{}, {"background": True}, {"smoothing": 0.8, "window": 1.5}, {"iterations": 20}])
def test_shift_and_blur_are_exact_without_noise(options: dict[str, object]) -> None:
    share = 0.04 if options.get("background") else 0.0
    sample, reference = frames(8, (64, 70), transmission=0.7, background=share, grain=1.6, **TRUTH)
    maps = matched(sample, reference, **options)
    found = off(maps, background=share, **TRUTH)
    assert maps.valid.all()
    assert abs(found["displacement"]).max() < 1e-3
    assert abs(found["covariance"]).max() < 6e-3
    assert abs(found["background"]).max() < 2e-3
    assert abs(maps.transmission[INNER] / (0.7 * (1 + share)) - 1).max() < 2e-3 + share / 10


@pytest.mark.parametrize("size", [0.4, 2.0, 5.0])
def test_shifts_of_several_pixels_are_found_from_coarse_to_fine(size: float) -> None:
    shift = (-size, 0.7 * size)
    sample, reference = frames(8, (128, 128), displacement=shift, covariance=BLUR, grain=1.6, counts=5000)
    maps = matched(sample, reference, largest_shift=1.3 * size)
    inner = np.s_[24:-24, 24:-24]
    assert abs(maps.displacement[inner] - shift).max() < 0.1
    assert maps.valid[inner].all()


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.5, 0.0), (0.25, -0.75)])
def test_no_blur_is_found_as_none_at_any_shift(shift: tuple[float, float]) -> None:
    sample, reference = frames(10, (64, 64), displacement=shift, grain=1.6, counts=2000)
    maps = matched(sample, reference, gain=1.0)
    pull = (maps.covariance / maps.covariance_error)[INNER].reshape(-1, 3)
    # Some 25 independent windows.
    assert abs(pull.mean(0)).max() < 0.7
    assert 0.6 < np.sqrt((pull**2).mean()) < 1.35
    # Without noise there is nothing to hide behind.
    sample, reference = frames(6, (64, 64), displacement=shift, grain=1.6)
    found = matched(sample, reference).covariance[INNER]
    assert abs(found).max() < 2e-3


@pytest.mark.parametrize("counts", [200, 2000, 20000])
@pytest.mark.parametrize("blur", [(0.0, 0.0, 0.0), BLUR])
@pytest.mark.parametrize("known", [True, False])
def test_error_bars_cover_as_they_should(counts: float, blur: tuple[float, float, float], known: bool) -> None:
    truth = {"displacement": SHIFT, "covariance": blur, "transmission": 0.8}
    pulls: dict[str, list[NDArray[np.float64]]] = {name: [] for name in truth}
    for seed in range(3):
        sample, reference = frames(12, (80, 80), counts=counts, grain=1.35, contrast=0.28, seed=seed, **truth)
        maps = matched(sample.astype(np.float32), np.maximum(reference, 1), gain=1.0 if known else None)
        assert (maps.chi2 is None) != known
        for name, difference in off(maps, **truth).items():
            pulls[name].append(difference / getattr(maps, name + "_error")[INNER])
    # 68 and 95 % within 4 %, give or take the scatter of some 100 independent windows (T: of thousands of pixels).
    for name, pull in pulls.items():
        margin = 0.015 if name == "transmission" else 0.04
        assert abs(np.mean(np.abs(pull) < 1) - 0.683) < 0.04 + margin, name
        assert abs(np.mean(np.abs(pull) < 1.96) - 0.95) < 0.04, name
        assert np.abs(np.mean(pull, axis=(0, 1, 2))).max() < 0.35, name


def test_noise_of_the_reference_does_not_dilute_a_blur() -> None:
    blur = (0.5, 0.2, 0.8)
    found = []
    for seed in range(4):
        sample, reference = frames(12, (80, 80), covariance=blur, counts=150, grain=1.6, seed=seed)
        maps = matched(sample, np.maximum(reference, 1), gain=1.0, window=3.0)
        found.append(maps.covariance[INNER].mean((0, 1)))
    # Left in, the noise of the reference's derivatives takes 0.1 off.
    assert np.mean(found, 0) == pytest.approx(blur, abs=0.025)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_work_through_the_window(steps: int) -> None:
    sample, reference = frames(
        steps, (112, 112), counts=5000, grain=1.35, contrast=0.25, seed=steps, transmission=0.8, **TRUTH
    )
    maps = matched(sample, np.maximum(reference, 1), gain=1.0)
    inner = np.s_[24:-24, 24:-24]
    assert maps.valid[inner].all()
    for name in ("displacement", "covariance", "transmission"):
        difference = (getattr(maps, name) - np.asarray(TRUTH.get(name, 0.8)))[inner]
        assert np.abs(difference / getattr(maps, name + "_error")[inner]).max() < 6, name
    assert np.sqrt(((maps.displacement - SHIFT)[inner] ** 2).mean()) < 0.03


def test_distances_are_fitted_together() -> None:
    sizes = (0.4, 0.7, 1.0)
    pairs = [
        frames(
            5, (72, 72), displacement=tuple(s * x for x in SHIFT), covariance=tuple(s * s * x for x in BLUR),
            transmission=0.7, counts=4000, grain=1.6, seed=n,
        )
        for n, s in enumerate(sizes)
    ]  # fmt: skip
    sample, reference = (np.stack(each) for each in zip(*pairs, strict=True))
    maps = matched(sample, np.maximum(reference, 1), distance_m=sizes, pixel_size_m=1e-6, gain=1.0, window=2.0)
    alone = matched(sample[-1], np.maximum(reference[-1], 1), gain=1.0, window=2.0)
    found = off(maps, transmission=0.7, **TRUTH)
    for name, difference in found.items():
        assert abs(difference / getattr(maps, name + "_error")[INNER]).mean() < 1.0, name
    assert np.median(maps.displacement_error[INNER]) < 0.9 * np.median(alone.displacement_error[INNER])
    assert np.mean(maps.chi2[INNER]) == pytest.approx(1, abs=0.15)


def varied(shape: tuple[int, int], steps: int, seed: int = 0) -> tuple[NDArray[np.float64], ...]:
    """Rays from a pattern three times finer: each carries T, moves by u and spreads with the blur of its own place."""
    fine, generator = 3, np.random.default_rng(seed)
    from scipy.ndimage import gaussian_filter

    rows, columns = (fine * n for n in shape)
    y_j, y_k = (x / fine for x in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    phase_j, phase_k = (2 * np.pi * y / n for y, n in zip((y_j, y_k), shape, strict=True))
    u = np.stack([1.2 * np.sin(phase_j), 1.0 * np.cos(phase_k)])
    t = 0.8 + 0.15 * np.cos(phase_j + phase_k)
    along, across, angle = 1.2 + 0.3 * np.cos(phase_j), 0.6 + 0.1 * np.sin(phase_k), phase_k
    c_jj = along**2 * np.cos(angle) ** 2 + across**2 * np.sin(angle) ** 2
    c_kk = along**2 * np.sin(angle) ** 2 + across**2 * np.cos(angle) ** 2
    c_jk = (along**2 - across**2) * np.sin(angle) * np.cos(angle)
    pattern = gaussian_filter(
        generator.standard_normal((steps, rows, columns)), (0, 1.4 * fine, 1.4 * fine), mode="wrap"
    )
    pattern = np.exp(0.3 * pattern / pattern.std())
    sample, moments = np.zeros((steps, *shape)), np.zeros((6, *shape))
    determinant = c_jj * c_kk - c_jk**2
    base_j, base_k = np.round(y_j + u[0]).astype(int), np.round(y_k + u[1]).astype(int)
    for n_j in range(-7, 8):
        for n_k in range(-7, 8):
            d_j, d_k = base_j + n_j - y_j - u[0], base_k + n_k - y_k - u[1]
            square = (c_kk * d_j**2 - 2 * c_jk * d_j * d_k + c_jj * d_k**2) / determinant
            weight = t * np.exp(-0.5 * square) / (2 * np.pi * np.sqrt(determinant) * fine**2)
            place = ((base_j + n_j) % shape[0]) * shape[1] + (base_k + n_k) % shape[1]
            e_j, e_k = base_j + n_j - y_j, base_k + n_k - y_k
            for out, values in [*zip(sample, pattern, strict=True), *zip(
                moments, (np.ones_like(e_j), e_j, e_k, e_j**2, e_j * e_k, e_k**2), strict=True
            )]:  # fmt: skip
                out += np.bincount(place.ravel(), (weight * values).ravel(), shape[0] * shape[1]).reshape(shape)
    total, mean = moments[0], moments[1:3] / moments[0]
    second = moments[3:] / total - np.stack([mean[0] ** 2, mean[0] * mean[1], mean[1] ** 2])
    return sample, pattern[:, ::fine, ::fine], total, np.moveaxis(mean, 0, -1), np.moveaxis(second, 0, -1)


def test_maps_that_vary_are_followed() -> None:
    sample, reference, transmission, displacement, covariance = varied((96, 96), 10)
    maps = matched(sample, reference)
    u, c = (maps.displacement - displacement)[INNER], (maps.covariance - covariance)[INNER]
    # Slopes left out, u would be off by 0.03 and C by 0.15.
    assert np.sqrt((u**2).mean()) < 0.008
    assert np.sqrt((c**2).mean()) < 0.03
    assert abs(maps.transmission - transmission)[INNER].max() < 0.01


def test_a_tile_with_its_halo_gives_what_the_whole_image_gives() -> None:
    sample, reference = frames(6, (160, 48), grain=1.35, counts=1000, **TRUTH)
    images = [torch.as_tensor(each[None] / 1000) for each in (sample, reference)]
    ones = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    options = METHOD.check(METHOD.options, (1, 6, 160, 48))
    halo = -(-METHOD.halo(options) // 16) * 16
    whole = METHOD.fit(View(*images, ones, torch.ones(1), 1000.0), options, int)
    part = METHOD.fit(View(*(each[:, :, 96 - halo :] for each in images), ones, torch.ones(1), 1000.0), options, int)
    for name in ("transmission", "displacement", "covariance", "covariance_error", "chi2"):
        torch.testing.assert_close(getattr(part, name)[halo:], getattr(whole, name)[96:], rtol=1e-5, atol=1e-5)


def test_dead_pixels_and_missing_frames_do_no_harm() -> None:
    sample, reference = frames(10, (72, 72), grain=1.6, **TRUTH)
    weights = np.ones((10, 72, 72))
    weights[:, 30, 30], weights[3], weights[5, 20:24] = 0, 0, 0
    sample[:, 30, 30], reference[:, 30, 30] = np.nan, 0
    sample[3], sample[5, 20:24] = 77, 0
    sample[:, 50:58, 18:26] = 0  # a lead shot
    maps = matched(sample, reference, weights=weights)
    for name in ("transmission", "displacement", "covariance"):
        assert np.isfinite(getattr(maps, name)).all()
    assert not maps.valid[52:56, 20:24].any()
    assert np.isinf(maps.transmission_error[30, 30])
    around = np.s_[14:40, 14:58]
    assert abs(maps.displacement[around] - SHIFT).max() < 0.01
    assert abs(maps.covariance[around] - BLUR).max() < 0.03
    assert abs(maps.transmission[around] - 1).max() < 0.01


@pytest.mark.parametrize("kind", ["equal", "flat", "another mask"])
def test_frames_that_tell_nothing_are_refused(kind: str) -> None:
    sample, reference = frames(8, (64, 64), counts=1000, seed=1)
    if kind == "equal":
        sample, reference = (np.repeat(np.maximum(each[:1], 1), 8, 0) for each in (sample, reference))
    elif kind == "flat":
        generator = np.random.default_rng(0)
        sample, reference = (generator.poisson(1000, sample.shape).astype(float) for _ in range(2))
    else:
        sample, _ = frames(8, (64, 64), counts=1000, seed=2)
    with pytest.raises(ValueError, match="no information"):
        matched(sample, reference)


def test_turning_the_frames_turns_the_maps() -> None:
    sample, reference = frames(6, (48, 64), grain=1.5, counts=5000, **TRUTH)
    maps = matched(sample, reference)
    turned = matched(sample.transpose(0, 2, 1)[:, ::-1], reference.transpose(0, 2, 1)[:, ::-1])
    u, c = (each[::-1].swapaxes(0, 1) for each in (turned.displacement, turned.covariance))
    np.testing.assert_allclose(np.stack([u[..., 1], -u[..., 0]], -1), maps.displacement, atol=1e-6)
    np.testing.assert_allclose(np.stack([c[..., 2], -c[..., 1], c[..., 0]], -1), maps.covariance, atol=1e-6)


def test_positive_sets_negative_eigenvalues_to_zero_and_keeps_the_axes() -> None:
    generator = np.random.default_rng(3)
    given = generator.standard_normal((50, 3))
    matrices = np.stack([given[:, [0, 1]], given[:, [1, 2]]], 1)
    values, vectors = np.linalg.eigh(matrices)
    expected = vectors @ (np.maximum(values, 0)[..., None] * vectors.swapaxes(1, 2))
    np.testing.assert_allclose(bounded(torch.tensor(given)), expected[:, [0, 0, 1], [0, 1, 1]], atol=1e-12)
    sample, reference = frames(8, (48, 48), counts=500)
    free, limited = (matched(sample, reference, positive=choice) for choice in (False, True))
    assert (free.direction().smallest[INNER] < 0).any()
    assert limited.direction().smallest.min() > -1e-6
    np.testing.assert_allclose(limited.covariance, bounded(torch.tensor(free.covariance)), atol=1e-9)


def test_error_matrix_holds_the_standard_errors() -> None:
    sample, reference = frames(8, (48, 48), counts=2000, **TRUTH)
    maps = matched(sample, reference, gain=1.0, background=True)
    matrix = np.zeros((48, 48, 6, 6))
    matrix[..., *np.triu_indices(6)] = maps.error_matrix
    errors = [maps.transmission_error[..., None], maps.displacement_error, maps.covariance_error]
    diagonal = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))[INNER]
    np.testing.assert_allclose(diagonal, np.concatenate(errors, -1)[INNER], rtol=1e-6)
    both = matrix + np.triu(matrix, 1).swapaxes(-1, -2)
    assert np.linalg.eigvalsh(both[INNER]).min() > 0


@pytest.mark.parametrize(("shift", "shape", "expected"), [(0.5, (), 0), (3, (), 2), (6.4, (), 3), (3, (40, 99), 1)])
def test_resolutions_to_start_at(shift: float, shape: tuple[int, ...], expected: int) -> None:
    assert levels(shift, shape) == expected


@pytest.mark.parametrize(
    "wrong",
    [{"window": 0.1}, {"smoothing": 0.3}, {"largest_shift": 0}, {"iterations": 0}, {"positive": 1}, {"background": 2}],
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    sample, reference = frames(5, (32, 32))
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        matched(sample, reference, **wrong)


def test_noise_of_regressors_is_what_sums_over_taps_give() -> None:
    from ddf_tomo.retrieval._matching_kernel import regressor_noise

    jj, jk, kk, reach = 3.1, 0.6, 2.4, 0.7
    x = np.arange(-24, 25)
    d_j, d_k = np.meshgrid(x - 0.3, x + 0.2, indexing="ij")
    p = np.linalg.inv([[jj, jk], [jk, kk]])
    q_j, q_k = p[0, 0] * d_j + p[0, 1] * d_k, p[1, 0] * d_j + p[1, 1] * d_k
    weight = np.exp(-0.5 * (d_j * q_j + d_k * q_k)) * np.sqrt(np.linalg.det(p)) / (2 * np.pi)
    # Derivatives of the kernel by u and C, and the kernel.
    columns = [reach * q_j, reach * q_k, reach**2 * (q_j**2 - p[0, 0]) / 2, reach**2 * (q_j * q_k - p[0, 1])]
    columns += [reach**2 * (q_k**2 - p[1, 1]) / 2, np.zeros_like(q_j), np.ones_like(q_j)]
    flat = np.stack([weight * each for each in columns]).reshape(7, -1)
    found = np.empty((7, 7))
    regressor_noise(jj, jk, kk, reach, found)
    np.testing.assert_allclose(found, flat @ flat.T, atol=1e-8)


def test_compiled_model_is_the_obvious_one() -> None:
    from ddf_tomo.retrieval import _matching_kernel as kernel
    from ddf_tomo.retrieval import _matching_torch as obvious

    generator = np.random.default_rng(5)
    reference, alive = generator.standard_normal((18, 21, 2 * kernel.LANES)), np.ones((18, 21))
    alive[4:6, 9] = 0
    theta = np.zeros((18, 21, 7)) + [0.4, -1.3, 1.1, 0.3, 0.7, 0, 0] + 0.1 * generator.standard_normal((18, 21, 7))
    slope = 0.03 * generator.standard_normal((18, 21, 7, 2))
    reach, smoothing = 0.8, 1.1
    places = ((9, 10), (3, 8), (0, 20), (17, 2))
    at, r = torch.tensor(places), torch.tensor(reach, dtype=torch.float64)
    here, steep = (torch.as_tensor(each)[tuple(at.T)] for each in (theta, slope))
    centre, covariance = obvious.placed(at, here, steep, r, smoothing**2)
    skewed = obvious.skewness(steep, r, covariance)
    expected, mass = obvious.regressors(*map(torch.as_tensor, (reference, alive)), centre, covariance, skewed, r)
    moments, found, skew = np.empty((6, 16)), np.empty((8, 16)), np.empty(6)
    for n, (j, k) in enumerate(places):
        *place, jj, jk, kk = kernel.placed(j, k, theta[j, k], slope[j, k], reach, smoothing**2)
        kernel.skewness(slope[j, k], reach, jj, jk, kk, skew)
        given = reference, alive, *place, jj, jk, kk, skew, kernel.RADIUS2
        assert kernel.moments_around(*given, moments) == pytest.approx(float(mass[n]), abs=1e-12)
        kernel.regressors_of(moments, jj, jk, kk, reach, found)
        np.testing.assert_allclose(found[:7], expected[n], atol=1e-10)


@pytest.mark.parametrize(("steps", "share"), [(8, 0.02), (3, 0.06)])
def test_gradients_are_those_of_the_fit(steps: int, share: float) -> None:
    frame = frames(steps, (36, 36), displacement=(0.4, -0.6), covariance=(0.8, 0.2, 0.4), counts=1e6, grain=1.4)
    sample, reference = (torch.tensor(each, requires_grad=True) for each in frame)
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(36, 36, 6, dtype=torch.float64)
    weight[10:26, 10:26] = torch.randn(16, 16, 6, generator=generator, dtype=torch.float64)

    def outcome(s: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        maps = retrieve(s, r, "matching", gain=1.0, iterations=20, progress=False, window=2.0, largest_shift=1.5)
        return (torch.cat([maps.transmission[..., None], maps.displacement, maps.covariance], -1) * weight).sum((0, 1))

    found = outcome(sample, reference)
    ways = [1e3 * torch.randn(sample.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    with torch.no_grad():
        sides = [outcome(sample + sign * ways[0], reference + sign * ways[1]) for sign in (1, -1)]
    expected = (sides[0] - sides[1]) / 2
    for n in range(6):
        slopes = torch.autograd.grad(found[n], (sample, reference), retain_graph=True)
        along = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways, strict=True))
        scale = sum(float((slope * way).square().sum()) for slope, way in zip(slopes, ways, strict=True)) ** 0.5
        assert along == pytest.approx(float(expected[n]), abs=share * (scale + abs(float(expected[n]))))
