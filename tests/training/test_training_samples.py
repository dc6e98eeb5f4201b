"""Samples and pairs: what they promise, checked with other means than those that make them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, half_sphere_grid, power
from ddf_tomo.phantoms import fibre_legendre
from ddf_tomo.priors.learned import samples
from ddf_tomo.priors.learned.samples import legendre_of
from ddf_tomo.training import (
    FAMILIES,
    SPLITS,
    brightness,
    random_geometry,
    random_sample,
    random_scan,
    white_noise_pair,
)

GRID = torch.tensor(half_sphere_grid(300), dtype=torch.float32)


@pytest.mark.parametrize("ell_max", [2, 4, 6, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_never_negative_and_not_empty(family, ell_max):
    for seed in range(3):
        volume = random_sample(family, (12, 11, 13), ell_max, seed=seed)
        assert volume.shape == (12, 11, 13, coefficient_count(ell_max))
        assert volume.dtype == torch.float32
        values = volume @ evaluate(GRID, ell_max).T
        assert float(values.min()) > -1e-5 * float(values.max())
        mean = volume[..., 0]
        assert 0.02 < float((mean > 0.1 * mean.max()).float().mean()) < 1
        assert 0.05 < brightness(volume) < 4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_is_the_same_sample_on_every_grid(family):
    """Every third voxel of a grid with three times as many lies where those of the coarse one lie."""
    coarse = random_sample(family, (6, 7, 8), 4, seed=5)
    fine = random_sample(family, (18, 21, 24), 4, seed=5)[1::3, 1::3, 1::3]
    # Cells have no soft borders: rounding may put single voxels on the other side.
    differing = ((coarse - fine).abs() > 1e-4).any(-1).float().mean()
    assert float(differing) <= (0.02 if family in ("grains", "layered") else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_decide(family):
    first, again, other = (random_sample(family, (8, 8, 8), 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    random_sample(family, (4, 4, 4))
    assert torch.equal(torch.rand(1), expected)


def test_families_have_seeds_of_their_own():
    """Outline and pose would be the same otherwise."""
    volumes = [random_sample(family, (8, 8, 8), 2, seed=3)[..., 0] > 0 for family in FAMILIES]
    assert len({tuple(volume.flatten().tolist()) for volume in volumes}) == len(volumes)


def test_splits_share_nothing_and_leave_nothing_out():
    names = [name for split in SPLITS.values() for name in split]
    assert sorted(names) == sorted(FAMILIES)


def test_a_sample_in_another_pose_is_the_sample_turned(monkeypatch):
    """A quarter turn of the pose permutes voxels; directions have to follow, by Wigner's matrices."""
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    monkeypatch.setattr(samples.Draw, "frame", _first_frame(np.eye(3), samples.Draw.frame))
    monkeypatch.setattr(np.random, "default_rng", _without_place(np.random.default_rng))
    straight = random_sample("smooth", (9, 9, 9), 4, seed=2)
    monkeypatch.setattr(samples.Draw, "frame", _first_frame(turn.T, samples.Draw.frame.original))
    turned = random_sample("smooth", (9, 9, 9), 4, seed=2)
    # A voxel at x goes to R x, (i, j) to (n - 1 - j, i).
    moved = torch.rot90(straight, 1, dims=(0, 1))
    expected = rotate(moved, torch.tensor(turn))
    assert torch.allclose(turned, expected.float(), atol=2e-5)


def _first_frame(pose, original):
    """The first frame that is drawn is this one; the others are those that the generator draws."""

    def frame(self):
        drawn = original(self)
        if getattr(self.generator, "posed", False):
            return drawn
        self.generator.posed = True
        return self.tensor(pose)

    frame.original = original
    return frame


def _without_place(original):
    class Generator:
        def __init__(self, seed):
            self.inner, self.placed = original(seed), False

        def uniform(self, *given):
            drawn = self.inner.uniform(*given)
            if not self.placed and np.shape(drawn) == (3,):
                self.placed = True
                return np.zeros(3)
            return drawn

        def __getattr__(self, name):
            return getattr(self.inner, name)

    return Generator


@pytest.mark.parametrize("power_", [1, 2, 3, 4])
def test_profiles_are_the_polynomials_they_should_be(power_):
    assert np.allclose(legendre_of(True, power_, 2 * power_), fibre_legendre(power_), atol=1e-12)
    t = np.linspace(-1, 1, 21)
    series = sum(a * special.eval_legendre(2 * n, t) for n, a in enumerate(legendre_of(False, power_, 2 * power_)))
    assert np.allclose(series, (2 * power_ + 1) * t ** (2 * power_), atol=1e-12)


def test_a_sharper_function_has_more_power_in_high_orders():
    low, high = (power(random_sample("crossing", (8, 8, 8), ell, seed=1)).sum((0, 1, 2)) for ell in (2, 8))
    assert float(high[1] / high[0]) > 0
    assert high.shape == (5,)
    assert low.shape == (2,)


def test_noise_is_white_and_as_strong_as_it_says():
    truth = random_sample("porous", (24, 24, 24), 4, seed=1)
    noisy, sigma = white_noise_pair(truth, level=(0.2, 0.3), seed=3)
    assert 0.2 <= sigma / brightness(truth) <= 0.3
    noise = ((noisy - truth) / sigma).double().numpy()
    assert abs(noise.std() - 1) < 5 / np.sqrt(2 * noise.size)
    covariance = np.cov(noise.reshape(-1, 15).T)
    assert np.abs(covariance - np.eye(15)).max() < 5 * np.sqrt(2 / 24**3)
    spectrum = np.abs(np.fft.fftn(noise[..., 3])) ** 2
    assert abs(spectrum[:2, :2, :2].mean() / spectrum.mean() - 1) < 5 / np.sqrt(8)
    assert torch.equal(white_noise_pair(truth, seed=3)[0], white_noise_pair(truth, seed=3)[0])
    assert white_noise_pair(truth, seed=3)[1] != white_noise_pair(truth, seed=4)[1]


def test_levels_are_uniform_in_logarithm():
    truth = torch.ones(1, 1, 1, 1)
    levels = np.log([white_noise_pair(truth, level=(0.01, 1.0), seed=seed)[1] for seed in range(400)])
    assert special.kolmogorov(np.sqrt(400) * np.abs(np.sort(-levels / np.log(100)) - np.arange(400) / 400).max()) > 1e-3


def test_geometries_differ_and_repeat():
    made = [random_geometry((8, 9, 10), seed=seed) for seed in range(12)]
    assert made[3] == random_geometry((8, 9, 10), seed=3)
    assert len({len(each) for each in made}) > 6
    assert all(20 <= len(each) <= 120 for each in made)
    assert all(each.detector_shape == (10, 10) for each in made)


def test_a_scan_is_of_the_sample_on_a_finer_grid():
    """Its data agree with the projections of the truth about as well as two grids agree, and not exactly."""
    from ddf_tomo import TensorXRayTransform

    geometry = random_geometry((16, 16, 16), seed=2)
    options = {"seed": 4, "noise": (1e-7, 1e-7), "geometry": geometry}
    exact, truth = random_scan("smooth", (16, 16, 16), 4, **options)
    fine, same = random_scan("smooth", (16, 16, 16), 4, **options, oversampling=2)
    assert torch.equal(truth, same)
    expected = TensorXRayTransform(geometry, exact.response, 4)(truth)

    def error(scan):
        return float((torch.as_tensor(scan.data) - expected).norm() / expected.norm())

    assert error(exact) < 1e-5
    assert 1e-4 < error(fine) < 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"family": "wood"}, "family: expected one of 'fibrous'"),
        ({"ell_max": 0}, "ell_max: expected 2, 4, 6 or 8"),
        ({"ell_max": 10}, "ell_max: expected an integer in"),
        ({"shape": (4, 4)}, "shape: expected 3 positive integers"),
        ({"seed": -1}, "seed: expected an integer"),
    ],
)
def test_bad_wishes_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        random_sample(**{"family": "grains", "shape": (4, 4, 4), **arguments})
    with pytest.raises(ValueError, match="level: expected a finite number in"):
        white_noise_pair(torch.ones(2, 2, 2, 1), level=(0.2, 0.1))
