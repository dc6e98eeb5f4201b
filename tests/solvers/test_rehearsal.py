"""Rounds at rehearsed levels: on a problem whose answer is known, and against what a rehearsal foretells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ddf_tomo import SaxsResponse, TensorXRayTransform, wrap
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.priors.learned.samples import SPLITS, random_sample
from ddf_tomo.solvers import Checkpoint, Misfit, rehearsed
from ddf_tomo.solvers._bands import Bands
from ddf_tomo.solvers.rehearsal import EVENED, _Views, best_shares, error_levels, of_mixture, spread

SHAPE = (10, 10, 10)
GEOMETRY = tilt_series(SHAPE, tilts_rad=[0.0, 0.6], views=[8, 8])
A = TensorXRayTransform(GEOMETRY, SaxsResponse(np.arange(6) * np.pi / 6), 4)
TRUTH = random_sample("crossing", SHAPE, 4, seed=3)
KNOWN = [random_sample(name, SHAPE, 4, seed=5) for name in ("fibrous", "layered", "smooth")]
SIGMA = 0.3


def noisy():
    clean = A(TRUTH)
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


def smoother(x, levels):
    """A denoiser that anybody can write: neighbours' means, the more of them the more noise."""
    volume = x.movedim(-1, 0)[None]
    means = torch.nn.functional.avg_pool3d(volume, 3, 1, 1, count_include_pad=False)[0].movedim(0, -1)
    noise = spread(levels).square()
    return torch.lerp(x, means, noise / (noise + x.square().mean((0, 1, 2)) + 1e-9))


def solve(denoiser=smoother, data=None, **options):
    options = {"variance": SIGMA**2, "rounds": 2, "progress": False} | options
    return rehearsed(A, noisy() if data is None else data, denoiser, options.pop("volumes", KNOWN), **options)


def test_it_beats_its_start_and_foretells_its_error():
    volumes = []
    found = solve(rounds=3, callback=lambda number, x, residual: volumes.append(x.clone()) and None)
    start = found.levels[1]
    for order, (foretold, level) in enumerate(zip(found.levels[-1], error_levels(found.x, TRUTH), strict=True)):
        assert foretold < start[order]
        assert 0.5 < level / foretold < 2
    assert len(found.levels) == 3 + 3
    assert len(found.residuals) == 4


def test_levels_are_those_that_a_known_volume_meets():
    """The sample itself, rehearsed on, with the same noise: what is foretold is what happens."""
    data = _Views(Misfit(A, A(TRUTH)), SIGMA**2, 0).noisy(TRUTH, 0).y
    bright = Misfit(A, data).size() / Misfit(A, A(TRUTH)).size()
    found = solve(volumes=[TRUTH], data=data)
    np.testing.assert_allclose(found.levels[-1], error_levels(found.x, TRUTH), rtol=0.15)
    np.testing.assert_allclose(found.levels[0], bright * error_levels(0 * TRUTH, TRUTH), rtol=0.1)


def test_one_round_in_closed_form():
    """Where ``A`` is one to one and ``z`` constant, the data's share is ``1 / (1 + ρ)``, ``ρ`` of the lowest band."""
    same = wrap((lambda x: x, lambda y: y), (3, 3, 3, 6), (3, 3, 3, 6))
    data, z = torch.full((3, 3, 3, 6), 2.0), torch.zeros(3, 3, 3, 6)
    variance = 40.0
    seen = []
    options = {"variance": variance, "rounds": 2, "callback": lambda number, x, residual: seen.append(x) and None}
    found = rehearsed(same, data, lambda x, levels: z, [torch.ones(3, 3, 3, 6)], **options)
    rho = variance / (27 * torch.tensor(found.levels[0]).square())  # all power of a constant is in one of 27 modes
    np.testing.assert_allclose(seen[0], (2 / (1 + spread(rho))).expand(3, 3, 3, 6), rtol=1e-4)


def test_the_mixture_is_the_least_wrong():
    """Against a general minimiser over shares that sum to one; what it foretells is what it makes of the volumes."""
    errors = [torch.randn(7, 8, 6, 15, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    errors[2] = errors[0] + 0.3 * errors[1]
    bands = Bands(errors[0].shape)
    products = bands.products(errors)
    shares = best_shares(products[None])
    mixed = sum(bands.times(share, error) for share, error in zip(shares, errors, strict=True))
    strength = bands.means(bands.transformed(mixed).abs().square())
    np.testing.assert_allclose(of_mixture(shares, products), strength, rtol=1e-3, atol=1e-12)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    for order, band in ((0, 3), (2, 11)):
        matrix = products[:, :, order, band].double().numpy() / products[:, :, order, band].diagonal().min().item()
        even = EVENED * np.trace(matrix) / 3
        least = minimize(
            lambda w, m=matrix, even=even: w @ m @ w + even * w @ w,
            np.full(3, 1 / 3),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(shares[:, order, band], least.x, atol=1e-4)


def test_volumes_are_made_alike():
    """A hundred times as bright, an order half as strong and one twice: brightness is found, and of these the lower.

    The higher one, of which so few views tell little, at least comes no further away.
    """
    factors, missing = torch.tensor([100.0, 50.0, 200.0]), []
    for family in SPLITS["train"]:
        sample = random_sample(family, SHAPE, 4, seed=3)
        made = _Views(Misfit(A, A(spread(factors) * sample)), 1.0, 0).alike([sample])[0]
        missing.append((error_levels(made, 0 * sample) / error_levels(sample, 0 * sample) / factors).log().abs())
    overall = torch.stack(missing).mean(0)
    assert max(each[0] for each in missing) < 0.02
    assert overall[1] < np.log(2) / 2
    assert overall[2] < np.log(2)


@pytest.mark.parametrize("factor", [1.0, 2.0**40])
def test_units_do_not_matter(factor):
    expected, found = solve(), solve(data=factor * noisy(), variance=(factor * SIGMA) ** 2)
    np.testing.assert_allclose(found.x, factor * expected.x, rtol=1e-4, atol=1e-4 * factor)


def test_weights():
    """Half the variance everywhere, said by weights; masked data do not count, and get no noise in the rehearsal."""
    expected = solve()
    found = solve(weights=torch.full(A.range_shape, 0.5), variance=SIGMA**2 / 2)
    np.testing.assert_allclose(found.x, expected.x, atol=2e-4)
    weights, damaged = torch.ones(A.range_shape), noisy()
    weights[3], damaged[3] = 0, torch.nan
    assert torch.isfinite(solve(data=damaged, weights=weights, variance=None).x).all()


def test_interrupted(tmp_path):
    def interrupt(number, x, residual):
        if number == 2:
            raise KeyboardInterrupt

    whole, state = solve(positive=True), Checkpoint(tmp_path / "state.h5", every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        solve(positive=True, checkpoint=state, callback=interrupt)
    numbers = []
    again = solve(positive=True, checkpoint=state, callback=lambda number, x, residual: numbers.append(number))
    assert numbers == [2]
    assert torch.equal(again.x, whole.x)
    assert again.levels == whole.levels
    with pytest.raises(ValueError, match=r"^checkpoint: expected rounds=3, got rounds=2"):
        solve(positive=True, checkpoint=state, rounds=3)


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"volumes": []}, TypeError, "volumes: expected a list"),
        (
            {"volumes": [torch.zeros((*SHAPE, 15))]},
            ValueError,
            "volumes: expected finite numbers that are not all zero",
        ),
        ({"volumes": [torch.ones((*SHAPE, 6))]}, ValueError, "volumes: expected shape"),
        ({"denoiser": 3}, TypeError, "denoiser: expected a function"),
        ({"denoiser": lambda x, levels: x[0]}, ValueError, "denoiser: expected one that gives a tensor of shape"),
        ({"rounds": 0}, ValueError, "rounds: expected an integer"),
    ],
)
def test_what_is_refused(options, kind, text):
    with pytest.raises(kind, match=text):
        solve(**options)
