"""Unrolled deconvolution: quadratic forms are exact, steps free in number, fields local; and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddf_tomo._checks import FileFormatError
from ddf_tomo.priors.learned import ResidualUNet
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval.deconvolution import deconvolve
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution
from ddf_tomo.retrieval.deconvolution.unrolled import (
    UnrolledDeconvolution,
    _gram,
    _noise_of,
    _Terms,
    evidence,
)
from ddf_tomo.retrieval.method import View
from ddf_tomo.training._frame_maps import FAMILIES
from ddf_tomo.training.deconvolving import crossing_lines, mixed_frames, second_moments
from ddf_tomo.training.frames import MARGIN, MASKS
from ddf_tomo.weights import save_network
from tests.retrieval.simulation import frames

SHAPE = 30, 34


def maps_of(covariance: torch.Tensor) -> Maps:
    """As `matching` would give them: nothing moves, all of the light arrives."""
    rows, columns = covariance.shape[:2]
    flat, vector = torch.zeros(rows, columns), torch.zeros(rows, columns, 2)
    errors = flat + 1, vector + 1, covariance + 1, flat
    return Maps(flat + 1, vector, covariance, flat, *errors, flat, flat > -1)


def view_of(sample: torch.Tensor, reference: torch.Tensor, reach: torch.Tensor, counts: float) -> View:
    return View(sample, reference, torch.ones(1, 1, 1, 1).to(sample), reach.to(sample), counts)


@pytest.fixture(scope="module", params=[(1.0,), (0.5, 1.0)])
def problem(request: pytest.FixtureRequest) -> tuple[View, Maps, torch.Tensor]:
    """Frames that a mixture of the kernels made, and the mixture."""
    generator = torch.Generator().manual_seed(0)
    reach = torch.tensor(request.param, dtype=torch.float64)
    steps = 6
    shape = len(reach), steps, *SHAPE
    light = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 200, 200, generator=generator, dtype=torch.float64), 3, 1)
    reference = 0.5 + light[0, 0, :198, :].unfold(0, SHAPE[0], 9).unfold(1, SHAPE[1], 9).flatten(0, 1)
    reference = reference[: len(reach) * steps].reshape(shape)
    maps = maps_of(torch.tensor([1.0, 0.2, 0.6]).double().expand(*SHAPE, 3))
    of = _Terms(view_of(reference, reference, reach, 1e12), maps)
    weights = torch.rand(13, 1, 1, generator=generator, dtype=torch.float64).expand(13, *SHAPE)
    weights = weights / weights.sum(0)
    sample = torch.stack([(weights * terms).sum(0) for _, terms in of]).reshape(shape)
    return view_of(sample, reference, reach, 1e12), maps, weights


def test_truth_is_the_minimum(problem: tuple[View, Maps, torch.Tensor]) -> None:
    view, maps, weights = problem
    found = evidence(view, maps)
    away = found.solution - torch.einsum("nrsjk,sjk->nrjk", found.response, weights)
    assert float(away.abs().max()) < 1e-6
    other = found.solution - torch.einsum("nrsjk,sjk->nrjk", found.response, torch.full_like(weights, 1 / 13))
    assert float(other.abs().max()) > 1e-2


def test_frames_may_come_in_any_order(problem: tuple[View, Maps, torch.Tensor]) -> None:
    view, maps, _ = problem
    order = [3, 0, 5, 1, 4, 2]
    turned = view._replace(sample=view.sample[:, order], reference=view.reference[:, order])
    for one, other in zip(evidence(view, maps)[:3], evidence(turned, maps)[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_noise_behind_the_kernels_is_what_is_taken_off() -> None:
    """White noise through each kernel: its covariance in a pixel, from many draws."""
    model = ProductConvolution((40, 40), torch.ones(200, dtype=torch.float64), 9, 2, 4.0)
    kernels = torch.rand(3, len(model.positions), len(model.positions), dtype=torch.float64)
    kernels[0] *= (model.positions.abs() < 0.6) * (model.positions.abs() < 0.6)[:, None]
    spectra = model.spectra(kernels / kernels.sum((1, 2), keepdim=True))
    noise = torch.randn(200, *model.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = model.terms(noise, slice(0, 200), spectra)
    found = torch.einsum("mrjk,msjk->rs", terms, terms) / terms[:, 0].numel()
    torch.testing.assert_close(found, _gram(model, spectra)[0], rtol=0.05, atol=2e-4)


def test_noise_is_read_off_the_highest_frequencies() -> None:
    _, reference = frames(8, (64, 64), counts=500, grain=1.5)
    light = torch.from_numpy(reference / reference.mean())
    assert _noise_of(light) == pytest.approx(1 / 500, rel=0.1)


@pytest.fixture(scope="module")
def network() -> UnrolledDeconvolution:
    """Small, with weights that do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = UnrolledDeconvolution(4)
        torch.nn.init.normal_(made.last.weight, std=0.3)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, network: UnrolledDeconvolution) -> str:
    file = tmp_path_factory.mktemp("unrolled") / "small.safetensors"
    save_network(network, file)
    return str(file)


def random_evidence(rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    start = torch.rand(13, rows, columns, generator=generator)
    solution = 0.1 * torch.rand(2, 13, rows, columns, generator=generator)
    response = 0.1 * torch.rand(2, 13, 13, rows, columns, generator=generator)
    return start / start.sum(0), solution, response


@pytest.mark.parametrize(("steps", "inner"), [(1, 1), (3, 1), (2, 3)])
def test_weights_are_feasible_and_local(network: UnrolledDeconvolution, steps: int, inner: int) -> None:
    """Of any frame and any number of steps; a crop knows as much as it sees: seven pixels a step."""
    given = random_evidence(60, 64)
    found = network(*given, steps, inner)
    assert float(found.min()) >= 0
    torch.testing.assert_close(found.sum(0), torch.ones(60, 64))
    part = network(*(each[..., :50, :56] for each in given), steps, inner)
    edge = 7 * steps
    torch.testing.assert_close(part[:, :-edge, :-edge], found[:, : 50 - edge, : 56 - edge])


def test_more_steps_are_smaller_ones() -> None:
    """Weights that nothing corrects go a short way towards the minima: as far in thirty steps as in three."""
    start, *rest = random_evidence(8, 9)
    network = UnrolledDeconvolution(2).requires_grad_(False)
    gone = [network(start, *rest, steps) - start for steps in (1, 3, 30)]
    torch.testing.assert_close(gone[2], gone[1], rtol=0.02, atol=1e-7)
    assert float((gone[1] / gone[0]).median()) == pytest.approx(3, rel=0.02)


def test_no_step_gives_the_start(network: UnrolledDeconvolution) -> None:
    start, *rest = random_evidence(8, 9)
    assert torch.equal(network(start, *rest, 0), start)


def test_gradients_reach_all_weights() -> None:
    made = UnrolledDeconvolution(3)
    torch.nn.init.normal_(made.last.weight)
    made(*random_evidence(8, 9), 2)[0].square().sum().backward()
    assert all(float(each.grad.abs().max()) > 0 for each in made.parameters() if each.grad is not None)
    assert all(each.grad is not None for each in made.parameters())


def test_field_and_maps_of_frames(model: str) -> None:
    truth = {"transmission": 0.8, "displacement": (0.3, -0.4), "covariance": (1.0, 0.3, 0.6)}
    pair = frames(8, (40, 44), counts=20_000, grain=1.5, **truth)  # type: ignore[arg-type]
    field = deconvolve(*pair, model=model, steps=0, gain=1.0)
    inner = np.s_[10:-10, 10:-10]
    for name, within in (("displacement", 0.02), ("covariance", 0.06), ("transmission", 0.003)):
        np.testing.assert_allclose(getattr(field, name).numpy()[inner].mean((0, 1)), truth[name], atol=within)
    assert field.kernel_field(20, 20).sum().item() == pytest.approx(1)
    assert field.chi2 is not None
    assert float(field.chi2[inner].mean()) == pytest.approx(1, abs=0.25)
    maps = retrieve(*pair, "deconvolution-unrolled", model=model, steps=2, progress=False)
    assert maps.valid[inner].all()
    assert np.isfinite(maps.covariance_error[inner]).all()


def test_what_does_not_fit_is_named(tmp_path: Path, model: str) -> None:
    pair = frames(4, (30, 32))
    other = tmp_path / "other.safetensors"
    save_network(ResidualUNet((2, 2, 2)), other)
    with pytest.raises(FileFormatError, match="expected a network of the class UnrolledDeconvolution"):
        deconvolve(*pair, model=str(other))
    with pytest.raises(FileNotFoundError):
        deconvolve(*pair, model=str(tmp_path / "none.safetensors"))
    wrong: list[tuple[dict[str, Any], str]] = [({"steps": -1}, "steps"), ({"inner": 0}, "inner"), ({"rank": 2}, "rank")]
    for options, told in wrong:
        with pytest.raises((ValueError, TypeError), match=told):
            deconvolve(*pair, model=model, **options)


def crossing(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Frames of lines that cross in every pixel, of a family that no training saw, and their covariance."""
    draw = np.random.default_rng(seed)
    size = 48 + 2 * MARGIN, 48 + 2 * MARGIN
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    maps = FAMILIES["swirls"](size, draw)
    light = MASKS["speckle"](8, size, draw)
    seen, parts = mixed_frames(light, maps.transmission, maps.displacement, crossing_lines(maps.covariance, draw))
    covariance = second_moments(torch.from_numpy(parts[inner]))[1].numpy()
    return [draw.poisson(5000 * each[inner]).astype(np.float32) for each in (seen, light)], covariance


def test_shipped_weights_beat_classical_updates() -> None:
    """Those get a round of updates, which takes as long."""
    logs = []
    for seed in range(3):
        pair, truth = crossing(seed)
        inner = np.s_[12:-12, 12:-12]
        off = [
            np.linalg.norm((np.asarray(deconvolve(*pair, **options).covariance) - truth)[inner] * (1, 2**0.5, 1))
            for options in ({"model": "deconvolution-unrolled"}, {"iterations": 1})
        ]
        logs.append(np.log(off[0] / off[1]))
    assert np.exp(np.mean(logs)) < 0.85
