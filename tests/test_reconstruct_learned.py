"""Learned priors through the door of all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import RankTwoResponse, SaxsResponse, TensorXRayTransform, reconstruct
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors.learned import EquivariantDenoiser, GradientStep, LearnedPrior, ResidualUNet
from ddf_tomo.priors.learned.samples import SPLITS, random_sample
from ddf_tomo.solvers import plug_and_play, rehearsed
from ddf_tomo.training import benchmark_scan
from ddf_tomo.weights import architecture, save_network

GEOMETRY = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.6], views=[8, 8], detector_shape=(10, 10))
SCAN = simulate(helicoidal_fibres, GEOMETRY, SaxsResponse(np.arange(6) * np.pi / 6), noise=0.05)
OPTIONS = {"ell_max": 2, "progress": False, "iterations": 3}


def network(kind=ResidualUNet):
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@pytest.mark.parametrize(
    "made", [lambda: {"network": network(), "sigma": (0.3, 0.1)}, lambda: {"network": GradientStep(network())}]
)
def test_it_is_plug_and_play(made):
    prior = LearnedPrior(**made())
    found = reconstruct(SCAN, prior=prior, weight=2.0, **OPTIONS)
    A = TensorXRayTransform(SCAN.geometry, SCAN.response, 2)
    how = {"strength": 2.0, "iterations": 3, "sigma": prior.sigma, "progress": False}
    expected = plug_and_play(A, SCAN.data, prior.denoiser, **how)
    np.testing.assert_allclose(found.coefficients, expected.x, atol=1e-4 * float(expected.x.abs().max()))
    assert found.settings["prior"] == f"<1 · LearnedPrior({type(prior.denoiser).__name__})>"


@pytest.mark.parametrize("kind", [ResidualUNet, EquivariantDenoiser])
def test_it_rehearses(kind):
    prior = LearnedPrior(network(kind))
    found = reconstruct(SCAN, prior=prior, weight=2.0, **(OPTIONS | {"iterations": 1}))
    A = TensorXRayTransform(SCAN.geometry, SCAN.response, 2)
    volumes = [random_sample(name, (8, 8, 8), 2, seed=seed) for seed, name in enumerate(SPLITS["train"])]
    expected = rehearsed(A, SCAN.data, network(kind), volumes, strength=2.0, rounds=1, progress=False)
    np.testing.assert_allclose(found.coefficients, expected.x, atol=1e-3 * float(expected.x.abs().max()))


def test_units_do_not_matter():
    """Powers of two (of four: weights), so that rounding is the same: unconverged iterations amplify it."""
    other = simulate(helicoidal_fibres, GEOMETRY, SCAN.response, noise=0.05)
    scaled = type(other)(1024 * other.data, other.geometry, other.response, weights=other.full_weights() / 256)
    first, second = (reconstruct(s, prior=LearnedPrior(network()), **OPTIONS) for s in (other, scaled))
    np.testing.assert_allclose(second.coefficients, 1024 * first.coefficients, rtol=1e-4, atol=1e-3)


def test_nowhere_negative_and_interrupted(tmp_path):
    prior = LearnedPrior(network(), sigma=(0.2, 0.1))
    found = reconstruct(SCAN, prior=prior, positive=True, **OPTIONS)
    values = found.coefficients @ evaluate(half_sphere_grid(4000), 2).T
    assert values.min() > -1e-5 * values.max()
    reconstruct(SCAN, prior=prior, positive=True, **(OPTIONS | {"iterations": 2}), checkpoint=tmp_path / "state")
    again = reconstruct(SCAN, prior=prior, positive=True, **OPTIONS, checkpoint=tmp_path / "state")
    np.testing.assert_array_equal(again.coefficients, found.coefficients)


def test_from_a_file(tmp_path):
    pytest.importorskip("safetensors")
    save_network(network(), path := tmp_path / "prior.safetensors")
    found = reconstruct(SCAN, prior=str(path), **OPTIONS)
    np.testing.assert_array_equal(
        found.coefficients, reconstruct(SCAN, prior=LearnedPrior(path), **OPTIONS).coefficients
    )


def test_the_shipped_one_beats_total_variation_at_its_best():
    """A test family: ℓ ≥ 2 of a scan whose weight of the total variation is chosen by the truth."""
    pytest.importorskip("safetensors")
    scan, truth = benchmark_scan(0, (16, 16, 16), 4, views=30)

    def error(**how):
        found = reconstruct(scan, ell_max=4, progress=False, **how).coefficients
        return np.linalg.norm((found - truth.numpy())[..., 1:])

    learned = error(prior="learned")
    names = [error(prior=name, iterations=1) for name in ("learned", "residual-unet")]
    assert names[0] == names[1] != learned
    assert learned < 0.9 * min(error(prior="tv", weight=weight, iterations=60) for weight in (1e-3, 3e-3, 1e-2, 3e-2))


@architecture("nothing-of-a-denoiser")
class Other(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 2)


def test_what_is_refused(tmp_path):
    pytest.importorskip("safetensors")
    save_network(Other(), path := tmp_path / "other.safetensors")
    tensors = simulate(helicoidal_fibres, GEOMETRY, RankTwoResponse())
    learned = LearnedPrior(network())
    for scan, given, kind, text in (
        (SCAN, {"prior": str(path)}, TypeError, r"^prior: expected a Denoiser of volumes"),
        (SCAN, {"prior": "nowhere.safetensors"}, FileNotFoundError, r"^path: expected an existing file"),
        (SCAN, {"prior": learned, "method": "fista"}, ValueError, r"^method: expected 'cg' with a learned prior"),
        (SCAN, {"prior": learned, "weight": "cross-validation"}, ValueError, r"^weight: expected"),
        (SCAN, {"prior": learned, "levels": 2}, ValueError, r"^levels: expected 1"),
        (SCAN, {"prior": learned, "weight": 0}, ValueError, r"^weight: expected a finite number in \(0"),
        (SCAN, {"prior": learned, "start": "fbp"}, ValueError, r"^start: expected 'auto' with a prior"),
        (tensors, {"prior": learned}, ValueError, r"^prior: expected one for rank-2 tensors"),
    ):
        with pytest.raises(kind, match=text):
            reconstruct(scan, **given)
    with pytest.raises(TypeError, match=r"^prior: expected one that has a value"):
        learned(torch.zeros(4, 4, 4, 6))
