"""Priors on the blur: solvers against closed forms and dense algebra, the weight against the truth, frames to maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo.retrieval import Maps, _tiles, retrieve
from ddf_tomo.retrieval._matching_prior import BLOCK, Equations, _blocks, solved
from ddf_tomo.retrieval._matching_solve import apply, nearest, smoothness, total_variation
from tests.retrieval.simulation import frames

ONE, OTHER = (1.4, 0.3, 0.5), (0.4, -0.2, 1.1)
INNER = np.s_[12:-12, 12:-12]


def matched(sample: NDArray[np.float64], reference: NDArray[np.float64], **options: object) -> Maps:
    return retrieve(sample, np.maximum(reference, 0.1), "matching", progress=False, **options)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def metrics(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Random positive definite ones, as matrices and as upper triangles; a hole where nothing is known."""
    factor = random(rows, columns, 3, 3, seed=5)
    full = factor @ factor.mT / 3 + 0.1 * torch.eye(3)
    full[2:4, 3] = 0
    return full, full[..., (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)].movedim(-1, 0)[None]


def identity(rows: int, columns: int) -> Tensor:
    return torch.tensor([1.0, 0, 0, 1, 0, 1], dtype=torch.float64)[None, :, None, None].expand(1, 6, rows, columns)


def test_smoothness_solves_its_linear_system() -> None:
    rows, columns, weight = 9, 11, 3.0
    full, upper = metrics(rows, columns)
    wanted = random(1, 3, rows, columns)

    def second(n: int) -> NDArray[np.float64]:
        matrix = np.diag(np.full(n, 2.0)) - np.eye(n, k=1) - np.eye(n, k=-1)
        matrix[0, 0] = matrix[-1, -1] = 1  # beyond the edge as at it
        return matrix

    laplacian = np.kron(second(rows), np.eye(columns)) + np.kron(np.eye(rows), second(columns))
    system = np.kron(np.eye(3), weight * laplacian @ laplacian)
    cells = rows * columns
    for a in range(3):
        for b in range(3):
            system[a * cells : (a + 1) * cells, b * cells : (b + 1) * cells] += np.diag(full[..., a, b].flatten())
    expected = np.linalg.solve(system, apply(upper, wanted).flatten().numpy())
    found, _ = smoothness(wanted, upper, weight)
    np.testing.assert_allclose(found.flatten(), expected, atol=2e-3)


def test_total_variation_takes_its_share_of_a_step_and_leaves_the_edge() -> None:
    rows, columns, weight = 6, 20, 0.8
    step = torch.zeros(1, 3, rows, columns, dtype=torch.float64)
    step[..., columns // 2 :] = torch.tensor([1.0, -2.0, 2.0])[:, None, None]
    found, _ = total_variation(step, identity(rows, columns), weight)
    # The edge is paid for by its length, 3, along its direction in the three channels.
    less = weight / (columns // 2) * torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64) / 3
    torch.testing.assert_close(found[0, :, 2, 3], less, atol=2e-3, rtol=0)
    torch.testing.assert_close(found[0, :, 2, -3], step[0, :, 0, -1] - less, atol=2e-3, rtol=0)


def test_total_variation_has_a_small_duality_gap() -> None:
    rows, columns, weight = 14, 12, 0.5
    full, _ = metrics(rows, columns)
    full = full + 0.2 * torch.eye(3)
    upper = full[..., (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)].movedim(-1, 0)[None]
    wanted = random(1, 3, rows, columns, seed=2)
    found, (_, down, across) = total_variation(wanted, upper, weight)
    jumps = torch.zeros(2, *found.shape, dtype=found.dtype)
    jumps[0, ..., :-1, :], jumps[1, ..., :-1] = found.diff(dim=-2), found.diff(dim=-1)
    off = found - wanted
    primal = 0.5 * (off * apply(upper, off)).sum() + weight * jumps.square().sum((0, 2)).sqrt().sum()
    assert (down.square() + across.square()).sum(1).sqrt().max() <= weight + 1e-9
    back = -down - across
    back[..., 1:, :] += down[..., :-1, :]
    back[..., 1:] += across[..., :-1]
    vector = back[0].movedim(0, -1)[..., None]
    dual = (wanted * back).sum() - 0.5 * (vector.mT @ torch.linalg.inv(full) @ vector).sum()
    assert 0 <= float(primal - dual) < 1e-3 * float(primal)


def test_without_negative_eigenvalues_solved_jointly() -> None:
    wanted = 0.5 * random(1, 3, 16, 16, seed=3)
    wanted[:, 0] += 0.4
    metric = identity(16, 16)
    free, _ = smoothness(wanted, metric, 2.0)
    found = nearest(smoothness, wanted, metric, 2.0)
    jj, jk, kk = found[0] / torch.tensor([1, math.sqrt(2), 1], dtype=torch.float64)[:, None, None]
    assert (torch.linalg.eigvalsh(torch.stack([jj, jk, jk, kk], -1).reshape(16, 16, 2, 2)) > -1e-9).all()
    # Any other such map is worse: the direction to it goes uphill.
    wave = (2 - 2 * torch.cos(math.pi * torch.arange(16, dtype=torch.float64) / 16))[:, None]
    from scipy.fft import dctn, idctn

    def cost(x: Tensor) -> float:
        bent = idctn(
            dctn(x.numpy(), axes=(-2, -1), norm="ortho") * (wave + wave.T).numpy(), axes=(-2, -1), norm="ortho"
        )
        return float((x - wanted).square().sum() + 2.0 * np.square(bent).sum()) / 2

    clipped = free.clone()
    clipped[:, [0, 2]] = clipped[:, [0, 2]].clamp(min=0)
    room = (clipped[:, 0] * clipped[:, 2] * 2).sqrt()
    clipped[:, 1] = torch.maximum(torch.minimum(clipped[:, 1], room), -room)
    for other in (clipped, torch.zeros_like(found)):
        assert cost(found + 0.01 * (other - found)) > cost(found) - 2e-4
    assert cost(free) < cost(found) < cost(clipped)


@pytest.mark.parametrize(("prior", "edges"), [("smoothness", False), ("total-variation", True)])
@pytest.mark.parametrize("level", [0.1, 0.4])
def test_the_chosen_weight_is_nearly_the_best(prior: str, edges: bool, level: float) -> None:
    from scipy.ndimage import gaussian_filter

    j, k = np.meshgrid(np.arange(64.0), np.arange(60.0), indexing="ij")
    if edges:
        truth = np.stack([1.0 * (j > 40), 0.5 * (k > 30), 1.0 * (j + k > 80)], -1)
    else:
        truth = np.stack([np.sin(j / 14), np.cos(k / 11), np.sin((j + k) / 19)], -1)
    generator = np.random.default_rng(1)
    # Correlated from pixel to pixel, as that of smoothed frames.
    draws = [gaussian_filter(generator.standard_normal((64, 60, 3)), (0.8, 0.8, 0)) for _ in range(2)]
    noise, sample = (torch.as_tensor(level / draws[0].std() * each) for each in draws)
    metric = torch.tensor([1.0, 0, 0, 1, 0, 1], dtype=torch.float64).expand(64, 60, 6) / level**2
    mandel = torch.tensor([1, math.sqrt(2), 1])
    given = Equations(torch.as_tensor(truth) * mandel + noise, sample, metric)

    def error(weight: float | str) -> float:
        return float((solved(given, prior, weight, False)[0] - torch.as_tensor(truth)).square().mean().sqrt())

    weights = (1, 2, 4, 8) if edges else (1, 10, 100, 1000)
    assert error("auto") < 1.1 * min(error(float(each)) for each in weights)
    found, spread = solved(given, prior, "auto", False)
    inside = (found - torch.as_tensor(truth)).abs() < spread[..., [0, 3, 5]].sqrt()
    assert 0.5 < inside.double().mean() < 0.85


def test_blocks_of_large_views_are_spread_over_them() -> None:
    images = torch.arange(700.0 * 900).reshape(1, 1, 700, 900)
    blocks = _blocks(images)
    assert blocks.shape[1:] == (1, BLOCK, BLOCK)
    assert 20 <= len(blocks) <= 32
    corner = int(blocks[0, 0, 0, 0])
    torch.testing.assert_close(blocks[0, 0], images[0, 0, corner // 900 :, corner % 900 :][:BLOCK, :BLOCK])
    assert _blocks(images[..., :90, :90]).shape == (1, 1, 90, 90)


def edge(steps: int, counts: float, **options: object) -> tuple[NDArray[np.float64], ...]:
    """Frames with an edge in C along the columns' index, and C."""
    parts = [
        frames(steps, (72, 80), displacement=(0.4, -0.6), covariance=each, grain=1.35, **options)
        for each in (ONE, OTHER)
    ]
    left = np.arange(80) < 44
    expected = np.where(left, parts[0][0], parts[1][0]), parts[0][1]
    generator = np.random.default_rng(7)
    sample, reference = (generator.poisson(counts * np.maximum(each, 0)).astype(float) for each in expected)
    return sample, reference, np.where(left[None, :, None], ONE, OTHER) * np.ones((72, 1, 1))


def test_edges_are_found_sharper_and_noise_is_less() -> None:
    sample, reference, truth = edge(10, 300)
    plain, kept = (matched(sample, reference, prior=each, gain=1.0) for each in (None, "total-variation"))
    errors = [np.abs(each.covariance - truth)[INNER] for each in (plain, kept)]
    assert np.median(errors[1]) < 0.6 * np.median(errors[0])
    assert errors[1].mean() < 0.7 * errors[0].mean()
    for name in ("transmission", "residual", "valid"):
        assert getattr(kept, name).shape == (72, 80)
    assert np.sqrt(((kept.displacement - (0.4, -0.6))[INNER] ** 2).mean()) < 1.02 * np.sqrt(
        ((plain.displacement - (0.4, -0.6))[INNER] ** 2).mean()
    )
    matrix = np.zeros((72, 80, 6, 6))
    matrix[..., *np.triu_indices(6)] = kept.error_matrix
    both = matrix + np.triu(matrix, 1).swapaxes(-1, -2)
    assert np.linalg.eigvalsh(both[INNER]).min() > 0
    np.testing.assert_allclose(np.sqrt(both[..., 4, 4]), kept.covariance_error[..., 1], rtol=1e-9)


def test_error_bars_are_those_of_the_noise_that_gets_through() -> None:
    off, bars = [], []
    for seed in range(3):
        sample, reference = frames(
            10, (72, 72), displacement=(0.4, -0.6), covariance=ONE, counts=300, grain=1.35, seed=seed
        )
        # The weight is given: where C does not change, the best one has no end.
        maps = matched(sample, reference, prior="smoothness", weight=50.0, gain=1.0)
        off.append((maps.covariance - ONE)[INNER])
        bars.append(maps.covariance_error[INNER])
    # On six fields of 96² they came out 1.08 to 1.13 times too short; the rest is the scatter of some 100 places.
    ratio = np.sqrt(np.mean(np.square(off), (0, 1, 2)) / np.mean(np.square(bars), (0, 1, 2)))
    assert (ratio > 0.85).all()
    assert (ratio < 1.3).all()


def test_tiles_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, reference, _ = (each[:, :, :64] if each.ndim == 3 else each for each in edge(6, 500))
    sample, reference = (np.concatenate([each] * 3, 1) for each in (sample, reference))
    options = {"prior": "total-variation", "window": 0.8, "largest_shift": 0.9, "gain": 1.0}
    whole = matched(sample, reference, **options)
    monkeypatch.setattr(_tiles, "PIXELS", 110**2)
    assert len(_tiles.tiles((216, 64), 6, 32)) > 1
    parts = matched(sample, reference, **options)
    for name in ("transmission", "displacement", "covariance", "covariance_error"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-5)


def test_distances_unknown_gain_dead_pixels_and_background() -> None:
    pairs = [edge(4, 2000, seed=n, contrast=0.25) for n in range(2)]
    sample, reference = (np.stack([each[n] for each in pairs]) for n in range(2))
    weights = np.ones((1, 1, 72, 80))
    weights[..., 30, 30], weights[..., 50:60, 20:30] = 0, 0
    given = {"weights": weights, "distance_m": (1.0, 1.0001), "prior": "smoothness", "background": True}
    maps = matched(sample, reference, positive=True, **given)
    assert np.isfinite(maps.covariance).all()
    assert (maps.covariance[~maps.valid] == 0).all()
    assert np.isinf(maps.covariance_error[~maps.valid]).all()
    assert np.isinf(maps.transmission_error[30, 30])
    assert maps.direction().smallest.min() > -1e-6
    assert np.median(np.abs(maps.covariance - pairs[0][2])[INNER]) < 0.06


def test_views_are_solved_one_by_one() -> None:
    sample, reference, _ = edge(5, 500)
    both = matched(np.stack([sample, sample[:, ::-1]]), np.stack([reference, reference[:, ::-1]]), prior="smoothness")
    alone = matched(sample, reference, prior="smoothness")
    np.testing.assert_array_equal(both.covariance[0], alone.covariance)
    np.testing.assert_array_equal(both.covariance_error[0], alone.covariance_error)


@pytest.mark.parametrize(
    "wrong",
    [{"prior": "sparse"}, {"prior": 1}, {"prior": "smoothness", "weight": -1}, {"weight": "much"}],
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    sample, reference = frames(5, (32, 32))
    with pytest.raises((ValueError, TypeError), match=list(wrong)[-1]):
        matched(sample, reference, **wrong)


def test_what_a_prior_cannot_do_is_refused() -> None:
    sample, reference = frames(3, (32, 32), counts=1000)
    with pytest.raises(ValueError, match=r"prior.*fewer than 4"):
        matched(sample, reference, prior="smoothness")
    sample, reference = (torch.as_tensor(each) for each in frames(5, (32, 32), counts=1000))
    with pytest.raises(ValueError, match=r"prior.*gradients"):
        retrieve(sample.requires_grad_(), reference, "matching", prior="smoothness", progress=False)


def test_transmission_and_displacement_follow_as_least_squares_says() -> None:
    from ddf_tomo.retrieval._matching_prior import _conditioned

    factor = random(4, 5, 6, 6, seed=8)
    error = factor @ factor.mT + 0.1 * torch.eye(6)
    first, second = torch.triu_indices(6, 6).unbind(0)
    found = random(4, 5, 6, seed=9)
    deviation = error.diagonal(dim1=-2, dim2=-1).sqrt()
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[2, 2] = False
    maps = {
        "transmission": found[..., 0],
        "displacement": found[..., 1:3],
        "covariance": found[..., 3:],
        "transmission_error": deviation[..., 0],
        "displacement_error": deviation[..., 1:3],
        "covariance_error": deviation[..., 3:],
        "error_matrix": error[..., first, second],
    }
    known = random(4, 5, 3, seed=10)
    # Nearly exact: what minimises (m - found)ᵀ P (m - found) with this C, by the precision P.
    spread = 1e-12 * torch.tensor([1.0, 0, 0, 1, 0, 1], dtype=torch.float64).expand(4, 5, 6)
    made = dict(zip(maps, _conditioned(list(maps), known, spread, valid, *maps.values()), strict=True))
    precision = torch.linalg.inv(error)
    off = precision[..., :3, 3:] @ (known - found[..., 3:])[..., None]
    expected = found[..., :3] - torch.linalg.solve(precision[..., :3, :3], off)[..., 0]
    others = torch.cat([made["transmission"][..., None], made["displacement"]], -1)
    bars = torch.cat([made["transmission_error"][..., None], made["displacement_error"]], -1)
    torch.testing.assert_close(others[valid], expected[valid])
    torch.testing.assert_close(bars[valid].square(), torch.linalg.inv(precision[valid][:, :3, :3]).diagonal(0, 1, 2))
    for name, each in made.items():
        torch.testing.assert_close(each[2, 2], maps[name][2, 2])
