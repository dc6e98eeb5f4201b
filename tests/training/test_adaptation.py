"""A prior adapted to one scan: it learns without a truth, and views kept aside decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import RankTwoResponse, SaxsResponse, Scan, TensorXRayTransform
from ddf_tomo.phantoms import simulate, tilt_series
from ddf_tomo.solvers import cgls
from ddf_tomo.training import adapt, random_sample
from ddf_tomo.training.adaptation import Halves
from ddf_tomo.weights import architecture, load_network, read_card, save_network


@architecture("test-shrinkage")
class Shrinkage(torch.nn.Module):
    """Multiplies by a factor: one number to learn, whose best value is known."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, volume, level):
        assert (level > 0).all()
        return self.factor * volume


@pytest.fixture(scope="module")
def scan() -> Scan:
    def sample(shape):
        return random_sample("helicoidal", shape, 2, seed=1)

    geometry = tilt_series((8, 8, 8), views=[20, 20], tilts_rad=[0.0, 0.6])
    return simulate(sample, geometry, SaxsResponse([0.0, 0.8, 1.6, 2.4]), noise=0.15, seed=2)


@pytest.fixture(scope="module")
def volumes(scan):
    """The four reconstructions, of every fourth of the views that are not kept aside."""
    A, views = TensorXRayTransform(scan.geometry, scan.response, 2), np.arange(len(scan))
    kept = np.setdiff1d(views, np.concatenate([views[::10], views[5::10]]))
    return np.stack([cgls(A.views(kept[n::4]), scan.data[kept[n::4]], iterations=30).x.numpy() for n in range(4)])


def test_the_best_factor_is_that_of_least_squares(scan, volumes):
    """The loss is a parabola in it; its lowest point from sums over the four reconstructions."""
    above = below = 0.0
    for ell in (slice(0, 1), slice(1, 6)):
        scale = (volumes[..., ell] ** 2).sum() / 4
        for n in range(4):
            others = np.delete(volumes, n, 0).mean(0)[..., ell]
            above += (others * volumes[n][..., ell]).sum() / scale
            below += (others**2).sum() / scale
    task = Halves(scan, 2, 4, 0, torch.device("cpu"))
    factors = [0.0, 0.5, 1.0]
    losses = [np.mean([task.loss(lambda x, _, f=f: f * x, step).item() for step in range(300)]) for f in factors]
    square, linear, _ = np.polyfit(factors, losses, 2)
    assert -linear / (2 * square) == pytest.approx(above / below, abs=0.02)


def test_it_learns_and_views_kept_aside_agree(scan, volumes):
    given = Shrinkage(0.2)
    found = adapt(scan, given, ell_max=2, parts=4, steps=60, learning_rate=0.1, progress=False)
    assert found.better
    assert found.residuals["adapted"] < found.residuals["given"]
    assert "predict views kept aside better" in str(found)
    assert given.factor.item() == pytest.approx(0.2)
    assert given.training
    judges = torch.as_tensor(scan.data[5::10])
    seen = TensorXRayTransform(scan.geometry, scan.response, 2)(torch.as_tensor(volumes.mean(0)))[5::10]
    factors = {"reconstruction": 1.0, "given": 0.2, "adapted": found.network.factor.item()}
    for name, factor in factors.items():
        assert found.residuals[name] == pytest.approx(float((factor * seen - judges).norm() / judges.norm()), rel=1e-4)


def test_what_is_worse_is_not_kept(scan, volumes):
    """Of all factors, none predicts the views that judge better than the one of least squares: what is given here."""
    judges = torch.as_tensor(scan.data[5::10])
    seen = TensorXRayTransform(scan.geometry, scan.response, 2)(torch.as_tensor(volumes.mean(0)))[5::10]
    best = float((seen * judges).sum() / seen.square().sum())
    found = adapt(scan, Shrinkage(best), ell_max=2, parts=4, steps=30, learning_rate=0.05, progress=False)
    assert not found.better
    assert found.steps == 30
    assert found.residuals["adapted"] > found.residuals["given"]
    assert found.network.factor.item() == pytest.approx(best)
    assert "the given weights stay" in str(found)


class Breaking(Shrinkage):
    """Of no use in training."""

    def forward(self, volume, level):
        return super().forward(volume, level) * (torch.inf if self.training else 1.0)


def test_where_training_fails_the_given_weights_stay(scan):
    found = adapt(scan, Breaking(0.9), ell_max=2, steps=30, progress=False)
    assert not found.better
    assert found.steps == 0
    assert found.network.factor.item() == pytest.approx(0.9)


def test_the_same_every_time(scan):
    found = [adapt(scan, Shrinkage(0.5), ell_max=2, steps=25, progress=False).network.factor for _ in range(2)]
    assert torch.equal(*found)


def test_scans_that_cannot_teach(scan):
    with pytest.raises(ValueError, match="scan: expected at least 20 views, got 12"):
        adapt(scan[:12], Shrinkage())
    geometry = scan.geometry
    tensors = Scan(np.ones((*scan.data.shape[:3], 3), np.float32), geometry, RankTwoResponse())
    with pytest.raises(ValueError, match="scan: expected a response to harmonics, got RankTwoResponse"):
        adapt(tensors, Shrinkage())
    with pytest.raises(ValueError, match="ell_max: expected 'auto' or an even order"):
        adapt(scan, Shrinkage(), ell_max="best")


@pytest.fixture
def run(capsys):
    from ddf_tomo import cli

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        told = capsys.readouterr()
        return end.value.code, told.out, told.err

    return call


def test_on_the_command_line(scan, run, tmp_path):
    scan.write(tmp_path / "scan.h5")
    save_network(Shrinkage(0.2), tmp_path / "start.safetensors")
    output = tmp_path / "adapted.safetensors"
    words = ["train", "--self-supervised", tmp_path / "scan.h5", "--start", tmp_path / "start.safetensors"]
    code, out, err = run(*words, "-o", output, "--ell-max", 2)
    assert code == 0, err
    assert "decision: the " in out
    card = read_card(output)
    assert {"given", "adapted", "reconstruction"} <= card.metrics.keys()
    assert "scan.h5" in str(card.data)
    assert isinstance(load_network(output), Shrinkage)
    assert run(*words, "-o", output, "--resume")[0] == 2


def test_recipes_on_the_command_line(run, tmp_path):
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "[network]\narchitecture = 'residual-unet'\nwidths = [2, 2, 2]\n"
        "[data]\nshape = [4, 4, 4]\norders = [2]\nbatch = 1\nreconstructed = 0.0\nvalidation_volumes = 1\n"
        "[training]\nsteps = 6\nvalidate_every = 3\naverage = 0.5\n"
    )
    output = tmp_path / "weights.safetensors"
    code, out, _ = run("train", recipe, "-o", output, "--time-limit", 0)
    assert code == 0
    assert "stopped by: time" in out
    code, _, err = run("train", recipe, "-o", output)
    assert code == 2
    assert "Resume (--resume)" in err
    code, out, _ = run("train", recipe, "-o", output, "--resume", "--json")
    assert code == 0
    assert '"stopped by": "steps"' in out
    assert load_network(output)
    for words in (["train", "-o", output], ["train", recipe, "--self-supervised", recipe, "-o", output]):
        code, _, err = run(*words)
        assert code == 2
        assert "recipe: expected a recipe, or --self-supervised with a scan" in err
