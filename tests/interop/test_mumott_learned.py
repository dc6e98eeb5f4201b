"""A learned prior among MUMOTT's regularizers: the same interface, a gradient that is one, and its optimizers run."""

from __future__ import annotations

import inspect
import logging

import numpy as np
import pytest
import torch

pytest.importorskip("mumott")

from mumott.optimization.regularizers import Laplacian
from mumott.pipelines import run_sigtt

from ddf_tomo import SaxsResponse
from ddf_tomo.interop.mumott import LearnedRegularizer, Projector, to_data_container
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors.learned import EquivariantDenoiser, GradientStep, ResidualUNet


def denoiser(kind=ResidualUNet, seed=0):
    torch.manual_seed(seed)
    return kind().eval().requires_grad_(False)


def coefficients(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("kind", [ResidualUNet, EquivariantDenoiser])
def test_the_gradient_is_that_of_the_norm(kind):
    regularizer = LearnedRegularizer(denoiser(kind).double(), 0.4)
    x, direction, h = coefficients(3, 3, 4, 6), coefficients(4, 3, 3, 6).reshape(3, 3, 4, 6), 1e-5
    found = regularizer.get_regularization_norm(x, get_gradient=True)
    ends = [regularizer.get_regularization_norm(x + s * h * direction)["regularization_norm"] for s in (1, -1)]
    assert (found["gradient"] * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    assert found["regularization_norm"] == pytest.approx(regularizer.get_regularization_norm(x)["regularization_norm"])
    network = denoiser(kind).double()
    removed = x - network(torch.from_numpy(x), 0.4).numpy()
    assert found["regularization_norm"] == pytest.approx((removed**2).sum() / (2 * 0.4**2))


def test_it_is_used_as_mumotts_own_are():
    ours, theirs = LearnedRegularizer(denoiser(), 0.1), Laplacian()
    names = [list(inspect.signature(r.get_regularization_norm).parameters) for r in (ours, theirs)]
    assert names[0] == names[1]
    x = coefficients(4, 4, 4, 6).astype(np.float32)
    for given in ({}, {"get_gradient": True}):
        found, expected = (r.get_regularization_norm(x, **given) for r in (ours, theirs))
        assert set(found) == set(expected)
        assert (found["gradient"] is None) == (expected["gradient"] is None)
    assert found["gradient"].shape == x.shape
    assert isinstance(float(found["regularization_norm"]), float)
    assert str(ours)
    assert ours._repr_html_()
    assert hash(ours) == hash(LearnedRegularizer(denoiser(), 0.1))
    assert len({hash(LearnedRegularizer(denoiser(seed=n), 0.1 + n)) for n in range(3)}) == 3


def test_angles_of_zonal_workflows_are_left_alone():
    regularizer, x = LearnedRegularizer(GradientStep(denoiser()), 0.3), coefficients(3, 3, 3, 8)
    alone = regularizer.get_regularization_norm(x[..., :-2], True)
    for part in ("full", "coefficients", "angles"):
        found = regularizer.get_regularization_norm(x, True, part)
        assert found["regularization_norm"] == alone["regularization_norm"]
        expected = 0 if part == "angles" else alone["gradient"]
        np.testing.assert_array_equal(found["gradient"][..., :-2], expected)
        np.testing.assert_array_equal(found["gradient"][..., -2:], 0)
    with pytest.raises(ValueError, match=r"^gradient_part: expected one of"):
        regularizer.get_regularization_norm(x, True, "everything")


def test_a_pipeline_takes_it_by_keyword():
    logging.disable(logging.WARNING)
    geometry = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.5], views=[8, 8], detector_shape=(12, 12))
    scan = simulate(helicoidal_fibres, geometry, SaxsResponse(np.arange(4) * np.pi / 4), noise=0.05)
    regularizer = LearnedRegularizer(denoiser(), 0.2)

    def loss(weight):
        terms = [{"name": "learned", "regularizer": regularizer, "regularization_weight": weight}]
        options = {"maxiter": 8, "ftol": 0, "Regularizers": terms, "basis_set_kwargs": {"ell_max": 2}}
        result = run_sigtt(to_data_container(scan), Projector=Projector, **options)["result"]["x"]
        return regularizer.get_regularization_norm(result)["regularization_norm"]

    assert loss(300.0) < 0.9 * loss(0.0)
    logging.disable(logging.NOTSET)


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"^denoiser: expected a Denoiser"):
        LearnedRegularizer(torch.nn.Identity(), 0.1)
    with pytest.raises(ValueError, match=r"^sigma: expected"):
        LearnedRegularizer(denoiser(), 0.0)
    with pytest.raises(ValueError, match=r"^x: expected 1, 6, 15"):
        LearnedRegularizer(denoiser(), 0.1).get_regularization_norm(np.ones((3, 3, 3, 5)))
