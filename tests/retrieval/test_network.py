"""The direct network: its evidence against closed forms and linear algebra, its head, its gradient, its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ddf_tomo._checks import FileFormatError
from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.method import View
from ddf_tomo.retrieval.network import DirectNetwork, evidence, pyramid
from ddf_tomo.retrieval.network._evidence import PAIRS, applied, factor, solved
from ddf_tomo.retrieval.network.direct import covariance_head
from ddf_tomo.retrieval.network.method import METHOD
from ddf_tomo.weights import make_network, save_network
from tests.retrieval.simulation import frames

U, C, T = (0.3, -0.2), (0.5, 0.15, 0.3), 0.8
SHAPE = (41, 50)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained network, which weighs windows by their errors."""
    torch.manual_seed(0)
    network = DirectNetwork((4, 4, 4, 4))
    for name, weight in network.named_parameters():
        if name.startswith(("outward", "error", "shape")):
            torch.nn.init.normal_(weight, std=0.02)
    path: Path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_network(network, path)
    return str(path)


def view_of(steps: int, counts: float = 1e5, **more: object) -> View:
    sample, reference = frames(steps, SHAPE, transmission=T, displacement=U, covariance=C, counts=counts, **more)  # type: ignore[arg-type]
    both = (torch.from_numpy(each)[None] / reference.mean() for each in (sample, reference))
    return View(*both, torch.ones(1, 1, *SHAPE, dtype=torch.float64), torch.ones(1, dtype=torch.float64), counts)


def options(steps: int, model: str) -> dict[str, object]:
    return METHOD.check(METHOD.options | {"model": model}, (1, steps, *SHAPE))


def test_small_solves_are_those_of_linear_algebra() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 4, 6, 8, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT
    rows, columns = torch.triu_indices(6, 6)
    terms, least = matrix[..., rows, columns].permute(2, 0, 1), torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    right = torch.randn(6, 5, 4, generator=generator, dtype=torch.float64)
    lower, variances = factor(terms, least)
    whole = matrix + torch.diag(least)
    expected = torch.linalg.solve(whole, right.permute(1, 2, 0))
    torch.testing.assert_close(solved(lower, right).permute(1, 2, 0), expected)
    inverse = torch.linalg.inv(whole).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(variances.permute(1, 2, 0), inverse)
    product = torch.einsum("jkab,bjk->ajk", matrix, right)
    torch.testing.assert_close(applied(terms, right), product)


def test_indefinite_matrices_give_finite_estimates() -> None:
    terms = torch.randn(PAIRS, 30, 30, generator=torch.Generator().manual_seed(1)) * 1e4
    lower, variances = factor(terms, torch.ones(6))
    assert bool(torch.isfinite(solved(lower, torch.ones(6, 30, 30))).all() and (variances > 0).all())


@pytest.mark.parametrize("steps", [1, 6])
def test_windows_know_a_uniform_sample(steps: int, model: str) -> None:
    """Frames made in the Fourier domain: estimates of all windows are right within what their size allows."""
    found = evidence(view_of(steps), options(steps, model))
    truth = torch.tensor([*U, *C, np.log(T)], dtype=torch.float64)[:, None, None]
    for level in pyramid(found.terms, found.coarse)[1:3]:
        inner = level[:, 2:-2, 2:-2]
        for part in (inner[:12], inner[12:24]):
            off = (part[:6] - truth).abs().flatten(1).median(1).values
            assert bool((off < torch.tensor([0.02, 0.02, 0.06, 0.06, 0.06, 0.004])).all()), off


def test_the_order_of_the_steps_does_not_matter(model: str) -> None:
    sample, reference = frames(5, SHAPE, transmission=T, displacement=U, covariance=C, counts=2000)
    maps = retrieve(sample, reference, "network", model=model, gain=1.0)
    order = [3, 0, 4, 1, 2]
    other = retrieve(sample[order], reference[order], "network", model=model, gain=1.0)
    for name in ("displacement", "covariance", "transmission", "covariance_error"):
        np.testing.assert_allclose(getattr(other, name), getattr(maps, name), atol=1e-5)
    again = retrieve(sample, reference, "network", model=model, gain=1.0)
    assert np.array_equal(again.covariance, maps.covariance)


@pytest.mark.parametrize(("steps", "shape"), [(1, (17, 23)), (4, (33, 16))])
def test_any_size_of_frames_and_kinds_of_numbers(steps: int, shape: tuple[int, int], model: str) -> None:
    sample, reference = frames(steps, shape, transmission=T, displacement=U, covariance=C, counts=5000)
    for kind in (np.float32, np.uint16):
        maps = retrieve(sample.astype(kind), reference.astype(kind), "network", model=model, gain=1.0)
        assert maps.covariance.shape == (*shape, 3)
        assert maps.covariance.dtype == np.float32
        errors = [maps.displacement_error, maps.covariance_error, maps.transmission_error]
        assert all(np.isfinite(each[maps.valid]).all() and (each > 0).all() for each in errors)
        eigenvalues = np.linalg.eigvalsh(maps.covariance[..., [0, 1, 1, 2]].reshape(*shape, 2, 2)[maps.valid])
        assert eigenvalues.min() > 0


def test_the_head_makes_positive_blurs_and_keeps_good_ones() -> None:
    good = torch.tensor([[1.0, 0.3, 0.5], [0.4, -0.2, 0.6]]).T[None, :, :, None]
    still = covariance_head(good, torch.full_like(good, -4), torch.zeros_like(good))
    torch.testing.assert_close(still, good, atol=2e-3, rtol=0)
    wild = 3 * torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jj, jk, kk = covariance_head(wild, wild.flip(1), 2 * wild.flip(-1)).unbind(1)
    assert bool((jj > 0).all() and (jj * kk - jk**2 > 0).all())


def test_gradients_reach_the_frames(model: str) -> None:
    """ln T grows as the logarithm of the sample's counts, u as its frames are moved; both by one."""
    view = view_of(2, counts=1e4)
    factor_of_light = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    moved = torch.zeros(SHAPE, dtype=torch.float64, requires_grad=True)
    slope = torch.gradient(view.sample, dim=-1)[0]
    sample = view.sample * factor_of_light.exp() - moved * slope
    maps = METHOD.fit(view._replace(sample=sample), options(2, model), int)  # type: ignore[arg-type]
    inner = np.s_[8:-8, 8:-8]
    by_light = torch.autograd.grad(maps.transmission.log()[inner].mean(), factor_of_light, retain_graph=True)[0]  # type: ignore[union-attr]
    by_move = torch.autograd.grad(maps.displacement[inner][..., 1].mean(), moved)[0]
    assert float(by_light.sum()) == pytest.approx(1, abs=0.1)
    assert float(by_move.sum()) == pytest.approx(1, abs=0.15)


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "denoiser.safetensors"
    save_network(make_network("residual-unet", {"widths": [2, 2, 2]}), path)
    sample, reference = frames(1, (20, 20))
    with pytest.raises(FileFormatError, match=r"denoiser.*a network of the class DirectNetwork, got 'residual-unet'"):
        retrieve(sample, reference, "network", model=str(path))
    with pytest.raises(TypeError, match="model: expected a file of weights, or a name, got int"):
        retrieve(sample, reference, "network", model=3)


def test_matching_goes_on_from_the_network(model: str) -> None:
    sample, reference = frames(6, SHAPE, transmission=T, displacement=U, covariance=C, counts=1e5)
    refined = retrieve(sample, reference, "network+matching", model=model, gain=1.0)
    alone = retrieve(sample, reference, "matching", gain=1.0)
    inner = np.s_[8:-8, 8:-8]
    for name in ("displacement", "covariance"):
        off = np.abs(getattr(refined, name) - getattr(alone, name)) / getattr(alone, f"{name}_error")
        assert np.median(off[inner]) < 0.3


def test_what_is_left_over_is_noise(model: str) -> None:
    """χ² beside that of matching, whose maps of a uniform sample are as good."""
    pair = frames(12, SHAPE, transmission=T, displacement=U, covariance=C, counts=2000.0)
    found = retrieve(*pair, "network", model=model, gain=1.0, progress=False)
    other = retrieve(*pair, "matching", gain=1.0, progress=False)
    inner = np.s_[10:-10, 10:-10]
    assert np.median(found.chi2[inner]) == pytest.approx(np.median(other.chi2[inner]), abs=0.15)


def test_what_is_farther_than_tiles_overlap_does_not_matter() -> None:
    """With the shipped weights: columns of new noise there change nothing but the last digits."""
    shape, kept = (16, 400), 96
    pair = frames(1, shape, transmission=T, displacement=U, covariance=C, counts=2000.0)
    settings = METHOD.check(METHOD.options, (1, 1, *shape))
    reach = METHOD.halo(settings)
    assert kept + reach < shape[1]
    both = [torch.from_numpy(each)[None] / pair[1].mean() for each in pair]
    other = [each.clone() for each in both]
    for each in other:
        each[..., kept + reach :] = each[..., kept + reach :].flip(-1)
    known = torch.ones(1, 1, *shape, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 2000.0
    one, two = (METHOD.fit(View(*each, *known), settings, int) for each in (both, other))
    for name in ("displacement", "covariance", "transmission", "displacement_error", "covariance_error"):
        first, second = (getattr(maps, name)[:, :kept] for maps in (one, two))
        torch.testing.assert_close(second, first, rtol=0, atol=1e-5 * float(first.max()))
        assert not torch.equal(getattr(two, name)[:, -1], getattr(one, name)[:, -1])
