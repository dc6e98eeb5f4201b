"""Blind deconvolution: descent, recovery of what the model made, moments beside `matching`, crossing lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, map_coordinates

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.deconvolution import deconvolve, directions_of
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution, spline_basis
from ddf_tomo.retrieval.deconvolution._motion import divergence, forward, pulled, pushed
from ddf_tomo.retrieval.deconvolution._starts import gaussian_kernels
from ddf_tomo.retrieval.deconvolution._updates import (
    Data,
    Factors,
    expected,
    objective,
    on_simplex,
    updated,
    with_means,
)
from tests.retrieval.simulation import frames

NAMES = Factors._fields


def random_factors(model: ProductConvolution, count: int, rank: int, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    taps = len(model.positions)
    knots, kernels = random(rank, model.down.shape[1], model.across.shape[1]), random(rank, taps, taps) ** 4
    kernels = kernels + kernels.flip(1, 2)  # the mean of each is zero
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    return Factors(knots / knots.sum(0), kernels, 0.7 + 0.3 * random(*model.size), 0.5 + random(count, *model.size))


def problem(rank: int = 3, reaches: tuple[float, ...] = (1.0,), steps: int = 6) -> Any:
    reach = torch.tensor(reaches, dtype=torch.float64).repeat_interleave(steps)
    model = ProductConvolution((20, 23), reach, support=5, oversampling=1, spacing=6.0)
    truth = random_factors(model, len(reach), rank, 0)
    sample, reference = expected(model, truth), model.cropped(truth.reference)
    return model, truth, Data(sample, reference, torch.ones_like(sample), torch.ones_like(sample))


@pytest.mark.parametrize("reaches", [(1.0,), (0.5, 1.0)])
@pytest.mark.parametrize("name", NAMES)
def test_every_update_descends_and_stays_feasible(name: str, reaches: tuple[float, ...]) -> None:
    model, _, data = problem(reaches=reaches)
    factors = random_factors(model, len(data.sample), 4, 1)
    values = [objective(model, data, factors)]
    for _ in range(8):
        factors = updated(model, data, factors, name)
        values.append(objective(model, data, factors))
    assert np.all(np.diff(values) <= 1e-12 * values[0])
    assert values[-1] < values[0]
    assert all(float(each.min()) >= 0 for each in factors)
    torch.testing.assert_close(factors.knots.sum(0), torch.ones_like(factors.knots[0]))
    torch.testing.assert_close(factors.kernels.sum((1, 2)), torch.ones(4, dtype=torch.float64))
    for axis in (1, 2):  # displacement is not theirs
        means = (factors.kernels.sum(axis) * model.positions).sum(1)
        torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-9, rtol=0)


def test_model_is_a_sum_of_convolutions() -> None:
    model, truth, _ = problem()
    light = (truth.transmission * truth.reference).numpy()
    weights = model.weights(truth.knots).numpy()
    by_scipy = [
        sum(
            weights[r] * model.cropped(torch.from_numpy(correlate(one, truth.kernels[r].numpy()[::-1, ::-1]))).numpy()
            for r in range(3)
        )
        for one in light
    ]
    np.testing.assert_allclose(expected(model, truth).numpy(), by_scipy, atol=1e-12)


def test_transposes() -> None:
    model, truth, data = problem(reaches=(0.4, 1.0))
    frames_ = slice(0, len(data.sample))
    generator = torch.Generator().manual_seed(2)
    light = torch.randn(len(data.sample), *model.size, generator=generator, dtype=torch.float64)
    kernels = torch.randn(truth.kernels.shape, generator=generator, dtype=torch.float64)
    spectra = model.spectra(kernels)
    terms = model.terms(light, frames_, spectra)
    other = torch.randn(terms.shape, generator=generator, dtype=torch.float64)
    product = (terms * other).sum()
    torch.testing.assert_close((model.gathered(other, frames_, spectra) * light).sum(), product)
    torch.testing.assert_close((model.at_taps(light, frames_, other) * kernels).sum(), product)


def test_shorter_distances_have_smaller_kernels() -> None:
    """A kernel of one tap moves the light of half the distance by half as much; whole pixels, so exactly."""
    model = ProductConvolution((12, 14), torch.tensor([0.5, 1.0], dtype=torch.float64), 5, 1, 5.0)
    kernel = torch.zeros(1, 5, 5, dtype=torch.float64)
    kernel[0, 4, 0] = 1  # two pixels down, two to the left
    light = torch.rand(2, *model.size, dtype=torch.float64)
    found = model.terms(light, slice(0, 2), model.spectra(kernel))[:, 0]
    moved = [light[0].roll((1, -1), (0, 1)), light[1].roll((2, -2), (0, 1))]
    torch.testing.assert_close(found, model.cropped(torch.stack(moved)))


def kernel_field(model: ProductConvolution, factors: Factors) -> torch.Tensor:
    """The kernel of each pixel: what is left when order and mixtures of kernels do not count."""
    return torch.einsum("rjk,rab->jkab", model.weights(factors.knots), factors.kernels)


def off_by(model: ProductConvolution, factors: Factors, truth: Factors) -> float:
    field = kernel_field(model, truth)
    return float((kernel_field(model, factors) - field).norm() / field.norm())


def test_weights_of_known_kernels_are_recovered() -> None:
    """To a tenth in 40 updates; knots at the edge, of which little is seen, take longest."""
    model, truth, data = problem(steps=20)
    factors = truth._replace(knots=torch.full_like(truth.knots, 1 / 3))
    before = off_by(model, factors, truth)
    for _ in range(40):
        factors = updated(model, data, factors, "knots")
    assert off_by(model, factors, truth) < 0.1 * before


def test_kernels_of_known_weights_are_recovered() -> None:
    model, truth, data = problem(steps=20)
    start = truth._replace(kernels=torch.full_like(truth.kernels, 1 / truth.kernels[0].numel()))
    factors = start
    for _ in range(60):
        factors = updated(model, data, factors, "kernels")
    assert objective(model, data, factors) < 1e-2 * objective(model, data, start)


def test_kernels_and_weights_are_recovered_together() -> None:
    """From a random start; updates of first order come near, not all the way, in this time."""
    model, truth, data = problem(steps=20)
    start = random_factors(model, len(data.sample), 3, 1)
    factors = start = start._replace(transmission=truth.transmission, reference=truth.reference)
    for _ in range(50):
        for name in ("knots", "kernels"):
            factors = updated(model, data, factors, name)
    assert objective(model, data, factors) < 0.05 * objective(model, data, start)
    assert off_by(model, factors, truth) < 0.2 < 0.6 < off_by(model, start, truth)


def test_splines_sum_to_one_and_are_mirrored() -> None:
    basis = spline_basis(14, 3.3)
    torch.testing.assert_close(basis.sum(1), torch.ones(14, dtype=torch.float64))
    torch.testing.assert_close(basis.flip(0, 1), basis)


def test_simplex_is_the_nearest_point() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 200, generator=generator, dtype=torch.float64)
    found = on_simplex(values)
    torch.testing.assert_close(found.sum(0), torch.ones(200, dtype=torch.float64))
    # Optimality: what is positive has one common multiplier, the rest lie below it.
    multiplier = (values - found).where(found > 0, torch.nan)
    highest = multiplier.nan_to_num(-torch.inf).amax(0)
    torch.testing.assert_close(highest, multiplier.nan_to_num(torch.inf).amin(0))
    assert bool(((values <= highest + 1e-12) | (found > 0)).all())


def test_kernels_of_given_means_are_the_nearest() -> None:
    """Optimality: what is positive differs from what was given by one plane, and the rest lies below it."""
    generator = torch.Generator().manual_seed(0)
    taps = torch.arange(-3, 4, dtype=torch.float64)
    places = torch.cartesian_prod(taps, taps)
    values = 0.1 * torch.randn(6, 49, generator=generator, dtype=torch.float64)
    means = torch.rand(6, 2, generator=generator, dtype=torch.float64)
    found = with_means(values, places, means)
    torch.testing.assert_close(found.sum(1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(found @ places, means, atol=1e-8, rtol=0)
    rows = torch.cat([torch.ones(49, 1, dtype=torch.float64), places], 1)
    for value, kernel in zip(values, found, strict=True):
        there = kernel > 0
        plane = torch.linalg.lstsq(rows[there], (value - kernel)[there]).solution
        torch.testing.assert_close(rows[there] @ plane, (value - kernel)[there], atol=1e-8, rtol=0)
        assert bool((value - rows @ plane <= 1e-8)[~there].all())


def test_frames_are_pulled_to_where_light_left() -> None:
    """Beside SciPy's splines; what is pulled back is pushed to where it was."""
    j, k = np.meshgrid(np.arange(60.0), np.arange(64.0), indexing="ij")
    image = np.sin(j / 5) + np.cos(k / 6 + j / 9)
    u = np.stack([1.2 * np.sin(k / 11), -1.5 * np.cos(j / 13)])
    v = forward(torch.from_numpy(u)).numpy()
    inner = np.s_[12:-12, 12:-12]  # splines forget their edges
    again = [map_coordinates(each, [j + v[0], k + v[1]], order=3) for each in u]
    np.testing.assert_allclose(v[0][inner], again[0][inner], atol=1e-4)
    reach = torch.tensor([0.5, 1.0], dtype=torch.float64)
    frames_ = torch.from_numpy(np.stack([image, image]))
    found = pulled(frames_, torch.from_numpy(v), reach)
    for d, one in zip((0.5, 1.0), found.numpy(), strict=True):
        moved = map_coordinates(image, [j + d * v[0], k + d * v[1]], order=3)
        np.testing.assert_allclose(one[inner], moved[inner], atol=1e-5)
    back = pushed(found, torch.from_numpy(v), reach)
    np.testing.assert_allclose(back.numpy()[:, 12:-12, 12:-12], frames_.numpy()[:, 12:-12, 12:-12], atol=3e-3)
    stretch = torch.stack([0.1 * torch.from_numpy(j), -0.05 * torch.from_numpy(k)])
    torch.testing.assert_close(divergence(stretch, reach)[:, 5, 5], torch.tensor([1.05 * 0.975, 1.1 * 0.95]).double())


def test_displacements_that_vary_leave_the_blur_alone() -> None:
    """A shift that changes by three pixels over the image; two kernels are enough, as none has to follow it."""
    sample, reference = frames(8, (48, 50), counts=None, grain=1.5, covariance=(1.0, 0.3, 0.6))
    j, k = np.meshgrid(np.arange(48.0), np.arange(50.0), indexing="ij")
    u = np.stack([1.5 * np.sin(2 * np.pi * k / 50), np.zeros_like(j)])  # nothing converges
    moved = [map_coordinates(each, [j - u[0], k], order=5, mode="grid-wrap") for each in sample]
    generator = np.random.default_rng(0)
    pair = [generator.poisson(20_000 * np.maximum(each, 0)).astype(np.float32) for each in (np.stack(moved), reference)]
    field = deconvolve(*pair, rank=2, support=11, iterations=3)
    inner = np.s_[12:-12, 12:-12]
    np.testing.assert_allclose(field.covariance.numpy()[inner].mean((0, 1)), (1.0, 0.3, 0.6), atol=0.06)
    assert np.abs(np.moveaxis(field.displacement.numpy(), -1, 0) - u)[:, 12:-12, 12:-12].mean() < 0.02


def test_moments_of_a_blur_beside_matching() -> None:
    """Taps of half a pixel hold this shift and blur: within 0.02 pixel and 0.06 square pixels, on average."""
    truth = {"transmission": 0.8, "displacement": (0.3, -0.4), "covariance": (1.0, 0.3, 0.6)}
    pair = frames(8, (44, 48), counts=20_000, grain=1.5, **truth)  # type: ignore[arg-type]
    field = deconvolve(*pair, rank=2, support=11, iterations=6)
    found = retrieve(*pair, "matching", window=2.2)
    inner = np.s_[10:-10, 10:-10]
    for name, within in (("displacement", 0.02), ("covariance", 0.06)):
        mean = getattr(field, name).numpy()[inner].mean((0, 1))
        np.testing.assert_allclose(mean, truth[name], atol=within)
        np.testing.assert_allclose(mean, np.asarray(getattr(found, name))[inner].mean((0, 1)), atol=within)
    assert float(field.transmission[inner].mean()) == pytest.approx(0.8, abs=0.002)


def test_order_of_steps_does_not_matter_to_updates() -> None:
    model, _, data = problem()
    factors = random_factors(model, len(data.sample), 3, 1)
    order = [3, 0, 5, 1, 4, 2]
    other, turned = factors._replace(reference=factors.reference[order]), Data(*(each[order] for each in data))
    for name in NAMES * 2:
        factors, other = updated(model, data, factors, name), updated(model, turned, other, name)
    torch.testing.assert_close(
        other._replace(reference=factors.reference[order]), factors._replace(reference=factors.reference[order])
    )
    torch.testing.assert_close(other.reference, factors.reference[order])


def test_order_of_steps_does_not_matter() -> None:
    """But for where the iterations of `matching`, the start, end: a hundredth of the noise and less."""
    sample, reference = frames(6, (30, 32), displacement=(0.3, 0.0), covariance=(0.5, 0.0, 0.5), counts=5000, grain=1.5)
    order = [3, 0, 5, 1, 4, 2]
    one, other = (
        deconvolve(sample[index], reference[index], rank=2, support=7, iterations=2) for index in (slice(None), order)
    )
    for name in ("kernels", "transmission", "covariance"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-3, rtol=0)


@pytest.mark.parametrize("apart", [60, 75, 90])
def test_directions_of_crossed_lines(apart: int) -> None:
    taps = torch.arange(-12, 13, dtype=torch.float64) / 2
    angles = np.deg2rad([20, 20 + apart])
    along, across = 2.0**2, 0.3**2
    mean, half = (along + across) / 2, (along - across) / 2
    rows = [[mean + half * np.cos(2 * a), half * np.sin(2 * a), mean - half * np.cos(2 * a)] for a in angles]
    kernel = gaussian_kernels(taps, torch.tensor(rows)).mean(0)
    found = directions_of(kernel, taps)
    off = np.rad2deg(np.sort(found.angle_rad.numpy() % np.pi)) - [20, 20 + apart]
    assert np.abs(off).max() < 2
    np.testing.assert_allclose(found.strength[0], found.strength[1], rtol=0.1)


def test_lines_that_cross_are_found_in_frames() -> None:
    """Half of the light moves along j, half along k; no Gaussian can tell which two directions these are."""
    generator = np.random.default_rng(0)
    wide = [frames(16, (40, 40), covariance=c, grain=1.35, seed=0) for c in ((4.0, 0.0, 0.0), (0.0, 0.0, 4.0))]
    expected_ = [(wide[0][0] + wide[1][0]) / 2, wide[0][1]]
    pair = [generator.poisson(20_000 * np.maximum(each, 0)).astype(np.float32) for each in expected_]
    field = deconvolve(*pair, rank=9, kernels="directions", support=13, iterations=6)
    found = field.directions().angle_rad.numpy()[field.valid.numpy()]
    off = np.abs(np.sort(np.abs(found), -1) - [0, np.pi / 2]).max(-1)
    assert np.mean(np.rad2deg(off) < 10) > 0.9


def test_rank_is_chosen_from_the_data() -> None:
    """A uniform blur needs no more than a kernel or two."""
    pair = frames(8, (26, 26), covariance=(0.6, 0.0, 0.6), counts=5000, grain=1.5)
    assert len(deconvolve(*pair, rank="auto", support=7, iterations=1).kernels) <= 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"support": 8}, "support: expected an odd number"),
        ({"rank": 0}, "rank: expected an integer"),
        ({"kernels": "boxes"}, "kernels: expected one of"),
        ({"magic": 1}, "magic: expected one of"),
        ({"distance_m": [0.7, 0.3]}, "distance_m"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], told: str) -> None:
    sample, reference = frames(4, (30, 32))
    if "distance_m" in options:
        sample, reference = (np.stack([each, each]) for each in (sample, reference))
    with pytest.raises((ValueError, TypeError), match=told):
        deconvolve(sample, reference, **options)
