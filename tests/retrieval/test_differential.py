"""The linear retrieval against simulated truth: values, error bars, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo.retrieval import METHODS, retrieve
from ddf_tomo.retrieval._differential_compiled import fit as compiled
from ddf_tomo.retrieval._differential_torch import fit as obvious
from ddf_tomo.retrieval._filters import FIRST, SECOND, along, blur_operators, erode, gaussian_taps, smooth, window_sum
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from tests.retrieval.simulation import frames

INNER = (slice(16, -16), slice(16, -16))
PARTS = ("displacement", "covariance", "background", "transmission")


def truth_of(maps: Maps, **truth: object) -> dict[str, np.ndarray]:
    """Found less true, per part, away from the border."""
    return {name: getattr(maps, name)[INNER] - np.asarray(truth.get(name, 0.0)) for name in PARTS}


@pytest.mark.parametrize("axis", [-2, -1])
def test_derivatives_are_exact_for_polynomials_of_degree_eight(axis: int) -> None:
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    step = float(x[1] - x[0])
    image = (x**8 - 3 * x**5 + x**2).expand(21, 21)
    image = (image if axis == -1 else image.T)[None].contiguous()
    inner = slice(4, -4)
    for taps, odd, expected, order in (
        (FIRST, True, 8 * x**7 - 15 * x**4 + 2 * x, 1),
        (SECOND, False, 56 * x**6 - 60 * x**3 + 2, 2),
    ):
        found = along(image, taps, axis, odd=odd)[0] / step**order
        line = found[10] if axis == -1 else found[:, 10]
        torch.testing.assert_close(line[inner], expected[inner], rtol=0, atol=1e-10)


def test_filters_agree_with_scipy() -> None:
    from scipy import ndimage

    image = torch.randn(2, 23, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = ndimage.gaussian_filter(image.numpy(), (0, 1.3, 1.3), radius=(0, 4, 4), mode="nearest")
    np.testing.assert_allclose(smooth(image, 1.3).numpy(), expected, atol=1e-13)
    assert smooth(image, 0.0) is image
    assert gaussian_taps(1e-200) == (1.0, 0.0)
    peak = np.zeros((41, 41))
    peak[20, 20] = 1
    window = ndimage.gaussian_filter(peak, 2.0, radius=6)
    expected = ndimage.convolve(image[0].numpy(), window[14:27, 14:27] / window.max(), mode="constant")
    np.testing.assert_allclose(window_sum(image[:1], 2.0)[0].numpy(), expected, atol=1e-12)
    good = torch.ones(12, 13, dtype=torch.bool)
    good[6, 7] = False
    expected = ndimage.binary_erosion(good.numpy(), np.ones((5, 5)))
    assert np.array_equal(erode(good, 2).numpy(), expected)


def test_blur_operators_are_the_derivatives_of_shift_and_blur() -> None:
    # d/du and d/dC of an exactly moved and blurred pattern, by central differences of the Fourier simulation.
    h = 1e-3
    truths = [{"displacement": (h, 0.0)}, {"displacement": (0.0, h)}]
    truths += [{"covariance": c} for c in ((h, 0.0, 0.0), (0.0, h, 0.0), (0.0, 0.0, h))]
    _, still = frames(1, (48, 48), grain=3.0)
    found = blur_operators(torch.as_tensor(still))[:, 0, 4:-4, 4:-4].numpy()
    for operator, truth in zip(found, truths, strict=True):
        opposite = {name: tuple(-x for x in value) for name, value in truth.items()}
        plus, minus = (frames(1, (48, 48), grain=3.0, **each)[0] for each in (truth, opposite))
        np.testing.assert_allclose(operator, ((plus - minus) / (2 * h))[0, 4:-4, 4:-4], atol=2e-4)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("transmission", [1.0, 0.4])
def test_small_shift_and_blur_are_found_without_noise(background: bool, transmission: float) -> None:
    u, c = (0.1, -0.2), (0.3, 0.1, 0.6)
    sample, reference = frames(13, (72, 80), transmission=transmission, displacement=u, covariance=c)
    maps = retrieve(sample, reference, background=background)
    found = truth_of(maps, transmission=transmission, displacement=u, covariance=c)
    assert abs(found["displacement"]).max() < 3e-3
    assert abs(found["covariance"]).max() < 3e-2
    assert abs(found["covariance"].mean((0, 1))).max() < 4e-3
    assert abs(found["transmission"]).max() < 2e-3 * transmission
    assert maps.valid.all()


def test_larger_shift_is_met_to_second_order() -> None:
    # Both frames enter the pattern, so the error falls with the cube of the shift, not with its square.
    worst = []
    for size in (0.4, 0.8):
        sample, reference = frames(8, (64, 64), displacement=(size, 0.0), grain=3.0)
        error = retrieve(sample, reference, background=False).displacement[INNER][..., 0] - size
        worst.append(abs(error.mean()))
    assert worst[0] < 0.004
    assert 6 < worst[1] / worst[0] < 11


def test_background_is_told_from_blur() -> None:
    sample, reference = frames(13, (72, 72), background=0.05, covariance=(0.2, 0.0, 0.1))
    maps = retrieve(sample, reference)
    assert maps.background[INNER].mean() == pytest.approx(0.05, abs=2e-3)
    assert maps.covariance[INNER].mean((0, 1)) == pytest.approx([0.2, 0.0, 0.1], abs=0.01)
    # The share is of the reference's local mean, which over 13 steps is not yet flat.
    local = smooth(torch.as_tensor(reference.mean(0))[None], 1.0)[0].numpy()
    np.testing.assert_allclose(maps.transmission[INNER], (1 + 0.05 / local)[INNER], atol=2e-3)
    # Unasked for it poses as blur: a pattern of power exp(-5 k²) that loses the share κ looks blurred by
    # 2κ <k²>/<k⁴> = 5κ in either direction.
    sample, reference = frames(13, (128, 128), background=0.02)
    without = retrieve(sample, reference, background=False)
    assert without.covariance[INNER].mean((0, 1)) == pytest.approx([0.1, 0.0, 0.1], abs=0.01)
    assert not without.background.any()
    assert not without.background_error.any()


@pytest.mark.parametrize(
    ("steps", "transmission", "covariance", "counts", "contrast"),
    [
        (13, 1.0, (0.0, 0.0, 0.0), 9300, 0.26),
        (13, 0.9, (0.0, 0.0, 0.0), 9300, 0.06),  # the measured rods
        (13, 0.6, (0.3, 0.1, 0.6), 2000, 0.26),
        (8, 0.8, (0.0, 0.0, 0.0), 1000, 0.26),
    ],
)
def test_error_bars_cover_as_they_should(
    steps: int, transmission: float, covariance: tuple[float, float, float], counts: float, contrast: float
) -> None:
    u = (0.05, -0.1)
    inside: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    twice: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    pull: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    for seed in range(4):
        truth = {"transmission": transmission, "displacement": u, "covariance": covariance}
        sample, reference = frames(steps, (96, 96), counts=counts, seed=seed, contrast=contrast, **truth)
        maps = retrieve(sample, reference)
        for name, difference in truth_of(maps, **truth).items():
            z = difference / getattr(maps, name + "_error")[INNER]
            inside[name].append(abs(z) < 1)
            twice[name].append(abs(z) < 2)
            pull[name].append(z)
    for name in PARTS:
        # 64 x 64 pixels x 4 make about 150 independent windows: 68 % to within 4 % each, more for several channels.
        assert 0.6 < np.mean(inside[name]) < 0.76, name
        assert 0.9 < np.mean(twice[name]) < 0.985, name
        assert np.abs(np.mean(pull[name], axis=(0, 1, 2))).max() < 0.4, name


def test_noise_of_the_reference_makes_no_blur_and_does_not_dilute_one() -> None:
    # Without the corrections for noise in the pattern the blur at 500 counts reads about a tenth too low.
    c = (0.5, 0.2, 0.8)
    found = []
    for seed in range(4):
        sample, reference = frames(20, (96, 96), transmission=0.6, covariance=c, counts=500, seed=seed)
        maps = retrieve(sample, reference, background=False)
        found.append(maps.covariance[INNER].mean((0, 1)))
    error = np.std(found, axis=0, ddof=1) / 2
    assert np.all(np.abs(np.mean(found, axis=0) - c) < np.maximum(4 * error, 0.02))


def test_errors_know_correlated_noise() -> None:
    # A detector's point spread correlates the noise of neighbours: the same error bars must hold.
    from scipy.ndimage import gaussian_filter

    inside = []
    for seed in range(4):
        generator = np.random.default_rng(1000 + seed)
        sample, reference = frames(13, (96, 96), seed=seed)
        noise = gaussian_filter(generator.standard_normal((2, *sample.shape)), (0, 0, 1.5, 1.5)) * 0.05
        maps = retrieve(sample + noise[0], reference + noise[1])
        inside.append(abs(maps.covariance / maps.covariance_error)[INNER] < 1)
    assert 0.58 < np.mean(inside) < 0.76


def test_gradients_flow_through_everything() -> None:
    sample, reference = (
        torch.tensor(each, requires_grad=True)
        for each in frames(6, (14, 13), displacement=(0.1, 0.0), covariance=(0.2, 0.0, 0.1), grain=1.0, counts=1e7)
    )
    weights = torch.ones(14, 13, dtype=torch.float64)

    def outcome(s: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = retrieve(s, r, smoothing=0.0, window=1.5, weights=weights)
        return maps.transmission, maps.displacement, maps.covariance

    assert torch.autograd.gradcheck(outcome, (sample, reference), eps=10.0, rtol=1e-3, atol=1e-12, fast_mode=True)
    maps = retrieve(sample, reference, smoothing=0.0)
    maps.covariance_error[maps.valid].sum().backward()
    assert torch.isfinite(sample.grad).all()
    assert sample.grad.abs().max() > 0


@settings(max_examples=15)
@given(scale=st.sampled_from([1e-6, 0.5, 1e5]), exposure=st.floats(0.3, 2.0), seed=st.integers(0, 100))
def test_units_of_the_counts_do_not_matter(scale: float, exposure: float, seed: int) -> None:
    sample, reference = frames(5, (24, 26), displacement=(0.1, 0.1), seed=seed, counts=1e4)
    one = retrieve(sample * exposure, reference)
    other = retrieve(sample * exposure * scale, reference * scale)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-7)
    np.testing.assert_allclose(one.transmission, other.transmission, rtol=1e-9)


def test_turning_the_frames_turns_the_maps() -> None:
    sample, reference = frames(6, (40, 44), displacement=(0.2, -0.1), covariance=(0.4, 0.2, 0.1), counts=5000)
    maps = retrieve(sample, reference)
    turned = retrieve(sample.transpose(0, 2, 1)[:, ::-1], reference.transpose(0, 2, 1)[:, ::-1])
    # New rows run against the old columns, new columns along the old rows.

    def back(image: np.ndarray) -> np.ndarray:
        return image[::-1].swapaxes(0, 1)

    u, c = back(turned.displacement), back(turned.covariance)
    np.testing.assert_allclose(np.stack([u[..., 1], -u[..., 0]], -1), maps.displacement, atol=1e-9)
    np.testing.assert_allclose(np.stack([c[..., 2], -c[..., 1], c[..., 0]], -1), maps.covariance, atol=1e-8)


def test_excluded_and_opaque_pixels_do_not_harm_their_neighbours() -> None:
    sample, reference = frames(10, (70, 70), displacement=(0.1, -0.1), covariance=(0.2, 0.0, 0.3))
    weights = np.ones((70, 70))
    weights[30, 30] = 0
    sample[:, 30, 30], reference[:, 30, 30] = np.nan, 0
    sample[:, 48:60, 18:30] = 0  # a lead shot
    maps = retrieve(sample, reference, weights=weights)
    for field in ("transmission", "displacement", "covariance", "background"):
        assert np.isfinite(getattr(maps, field)).all()
    assert not maps.valid[52:56, 22:26].any()
    assert np.isinf(maps.transmission_error[52:56, 22:26]).all()
    around = maps.covariance[26:35, 26:35]
    np.testing.assert_allclose(around, np.broadcast_to([0.2, 0.0, 0.3], around.shape), atol=0.03)


# -- the compiled form, several distances, weights of frames -----------------------------------------------------------


def example(distances: int, dtype: torch.dtype, uneven: bool) -> View:
    """A view of fractions of a displacement and blur, with or without frames, pixels and steps that do not count."""
    parts = []
    for n, f in enumerate((0.5, 1.0)[-distances:]):
        truth = {"displacement": (0.1 * f, -0.2 * f), "covariance": (0.2 * f**2, 0.1 * f**2, 0.5 * f**2)}
        parts.append(frames(5, (49, 113), transmission=0.7, counts=5000, seed=n, **truth))  # type: ignore[arg-type]
    sample, reference = (torch.tensor(np.stack(each)).to(dtype) / 5000 for each in zip(*parts, strict=True))
    weights = torch.ones(1, 1, 49, 113, dtype=dtype)
    if uneven:
        weights = torch.ones(distances, 5, 49, 113, dtype=dtype)
        weights[0, 1], weights[:, :, 20, 30], weights[0, 2, 33, 15] = 0, 0, 0
        weights *= torch.linspace(0.4, 1, 5, dtype=dtype)[:, None, None]
        sample, reference = (torch.where(weights > 0, each, 1) for each in (sample, reference))
    return View(sample, reference, weights, torch.tensor([0.5, 1.0][-distances:], dtype=dtype), 5000.0)


@pytest.mark.parametrize(
    ("distances", "background", "uneven", "window", "smoothing"),
    [(1, True, False, 2.5, 1.0), (2, False, True, 1.3, 0.5), (2, True, True, 4.5, 0.0)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_form_is_the_obvious_one(
    dtype: torch.dtype, distances: int, background: bool, uneven: bool, window: float, smoothing: float
) -> None:
    view = example(distances, dtype, uneven)
    options = {"window": window, "smoothing": smoothing, "background": background}
    ticks: list[None] = []
    found = compiled(view, options, lambda: ticks.append(None))
    expected = obvious(view, options, int)
    assert len(ticks) == METHODS["differential"].passes(options) * 5 * distances
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    assert torch.equal(found.valid, expected.valid)
    for name, one, other in zip(found._fields, found, expected, strict=True):
        one, other = one.double(), other.double()
        scale = float(other.abs().max())
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=tolerance * scale, rtol=0, err_msg=name)
        assert float((one - other).abs().median()) <= tolerance / 10 * float(other.abs().mean()), name


def test_threads_change_nothing() -> None:
    sample, reference = frames(5, (90, 60), displacement=(0.1, 0.0), counts=5000)
    before = torch.get_num_threads()
    try:
        one, other = [], []
        for threads, kept in ((1, one), (3, other)):
            torch.set_num_threads(threads)
            kept.append(retrieve(sample, reference, window=1.0))
        for name in (*PARTS, "covariance_error", "transmission_error", "residual"):
            np.testing.assert_allclose(getattr(one[0], name), getattr(other[0], name), rtol=1e-9, atol=1e-12)
    finally:
        torch.set_num_threads(before)


def two_distances(counts: float | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    parts = [
        frames(8, (80, 80), transmission=0.8, displacement=(0.3 * f, -0.15 * f), seed=seed + n, counts=counts,
               covariance=(0.5 * f**2, 0.2 * f**2, 0.3 * f**2), grain=2.0)
        for n, f in enumerate((1.0, 0.5))
    ]  # fmt: skip
    return tuple(np.stack(each) for each in zip(*parts, strict=True))  # type: ignore[return-value]


def test_distances_share_displacement_and_blur_of_the_longest() -> None:
    sample, reference = two_distances(None)
    maps = retrieve(sample, reference, distance_m=[0.8, 0.4], pixel_size_m=1e-6)
    assert maps.distance_m == 0.8
    found = truth_of(maps, transmission=0.8, displacement=(0.3, -0.15), covariance=(0.5, 0.2, 0.3))
    assert abs(found["displacement"]).max() < 5e-3
    assert abs(found["covariance"].mean((0, 1))).max() < 0.01
    assert abs(found["transmission"]).max() < 2e-3
    swapped = retrieve(sample[::-1], reference[::-1], distance_m=[0.4, 0.8])
    np.testing.assert_allclose(swapped.covariance, maps.covariance, atol=1e-12)


def test_errors_of_two_distances_cover() -> None:
    inside: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
    for seed in (0, 10, 20):
        maps = retrieve(*two_distances(2000, seed), distance_m=[0.8, 0.4])
        truth = {"transmission": 0.8, "displacement": (0.3, -0.15), "covariance": (0.5, 0.2, 0.3)}
        for name, difference in truth_of(maps, **truth).items():
            inside[name].append(abs(difference / getattr(maps, name + "_error")[INNER]) < 1)
    for name in PARTS:
        assert 0.58 < np.mean(inside[name]) < 0.78, name


def test_propagation_contrast_of_distances_is_no_absorption() -> None:
    # Ray tracing of a weak lens: rays at y land at y + d a sin(q y); the detector sees the density of rays there.
    rows, q, a = 128, 2 * np.pi / 64, 0.5
    sample, reference = [], []
    for n, reach in enumerate((0.5, 1.0)):
        _, pattern = frames(8, (rows, 64), grain=2.0, seed=n)
        x = np.arange(rows)
        source = x.astype(float)
        for _ in range(60):  # where the ray that arrives at x came from
            source = x - reach * a * np.sin(q * source)
        density = 1 / (1 + reach * a * q * np.cos(q * source))
        from scipy.ndimage import map_coordinates

        moved = [
            map_coordinates(each, np.meshgrid(source, np.arange(64), indexing="ij"), order=5, mode="wrap")
            for each in pattern
        ]
        sample.append(0.9 * np.array(moved) * density[:, None])
        reference.append(pattern)
    maps = retrieve(np.stack(sample), np.stack(reference), distance_m=[0.1, 0.2], window=2.0, background=False)
    far = retrieve(sample[1], reference[1], window=2.0, background=False)
    assert np.abs(far.transmission[INNER] / 0.9 - 1).max() > 0.045
    assert maps.transmission[INNER].std() < 0.2 * far.transmission[INNER].std()
    assert maps.transmission[INNER].mean() == pytest.approx(0.9, abs=2e-3)


def test_frames_of_no_weight_are_as_good_as_absent() -> None:
    sample, reference = frames(8, (60, 60), displacement=(0.1, -0.2), covariance=(0.3, 0.0, 0.2), counts=5000)
    expected = retrieve(sample[1:], reference[1:])
    sample[0], weights = np.nan, np.ones((8, 1, 1)) * np.ones((60, 60))
    weights[0] = 0
    found = retrieve(sample, reference, weights=weights)
    for name in (*PARTS, "covariance_error", "transmission_error", "residual"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-9, err_msg=name)


def test_chi_squared_is_one_where_the_gain_is_right() -> None:
    sample, reference = frames(20, (100, 100), transmission=0.6, displacement=(0.1, 0.1), counts=2000)
    # Six unknowns take 1 % of a window this large, T a little more than one of the steps; 4000 numbers scatter by 2 %.
    maps = retrieve(3 * sample, 3 * reference, gain=3.0, window=8.0)
    assert 0.93 < maps.chi2[24:-24, 24:-24].mean() < 1.03
    assert retrieve(sample, reference).chi2 is None


def test_error_matrix_belongs_to_the_errors() -> None:
    sample, reference = frames(12, (64, 64), transmission=0.8, covariance=(0.3, 0.1, 0.2), counts=2000)
    maps = retrieve(sample, reference)
    places = {(a, b): n for n, (a, b) in enumerate((a, b) for a in range(6) for b in range(a, 6))}
    matrix = np.empty((64, 64, 6, 6))
    for (a, b), n in places.items():
        matrix[..., a, b] = matrix[..., b, a] = maps.error_matrix[..., n]
    errors = np.concatenate([maps.transmission_error[..., None], maps.displacement_error, maps.covariance_error], -1)
    good = maps.valid
    np.testing.assert_allclose(np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))[good], errors[good], rtol=1e-9)
    correlation = matrix[good] / errors[good][:, :, None] / errors[good][:, None, :]
    assert np.linalg.eigvalsh(correlation).min() > -1e-6
