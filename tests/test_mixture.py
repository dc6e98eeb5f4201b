"""Several priors for one scan: a mixture, in shares that views left out tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize

from ddf_tomo import Reconstruction, SaxsResponse, TensorXRayTransform, reconstruct, wrap
from ddf_tomo._mixture import EVEN, best_shares, products
from ddf_tomo.memory import predicted_memory
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.report import write_report
from ddf_tomo.solvers import Misfit
from ddf_tomo.solvers.regularisation_weight import views_left_out

GEOMETRY = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.6], views=[10, 10], detector_shape=(10, 10))
SCAN = simulate(helicoidal_fibres, GEOMETRY, SaxsResponse(np.arange(6) * np.pi / 6), noise=0.05)
OPTIONS = {"ell_max": 2, "progress": False}


@pytest.fixture(scope="module")
def mixture():
    return reconstruct(SCAN, prior="tv+smoothness", **OPTIONS)


def test_it_mixes_what_each_prior_gives(mixture):
    parts = [reconstruct(SCAN, prior=name, **OPTIONS) for name in ("tv", "smoothness")]
    shares = [mixture.settings[f"share_of_{name}"] for name in ("tv", "smoothness")]
    expected = sum(share * part.coefficients for share, part in zip(shares, parts, strict=True))
    np.testing.assert_allclose(mixture.coefficients, expected, atol=1e-5 * np.abs(expected).max())
    assert mixture.settings["weight_of_tv"] == parts[0].settings["weight"]
    assert mixture.settings["shares_from"] == "views left out"


def test_its_shares_are_those_that_predict_best(mixture):
    kept, held = views_left_out(len(SCAN))
    parts = [reconstruct(SCAN[kept], prior=name, **OPTIONS).coefficients for name in ("tv", "smoothness")]
    A = TensorXRayTransform(SCAN[held].geometry, SCAN.response, 2)
    weights = np.broadcast_to(SCAN.full_weights(), SCAN.data.shape)[held]

    def error(share):
        predicted = A(torch.from_numpy(share * parts[0] + (1 - share) * parts[1])).numpy()
        return float((weights * (predicted - SCAN.data[held]).astype(float) ** 2).sum())

    tried = np.linspace(0, 1, 201)
    best = tried[np.argmin([error(share) for share in tried])]
    assert mixture.settings["share_of_tv"] == pytest.approx((1 - EVEN) * best + EVEN / 2, abs=0.01)


def test_its_residual_is_its_own(mixture, tmp_path):
    A = TensorXRayTransform(SCAN.geometry, SCAN.response, 2)
    root = np.sqrt(SCAN.full_weights())
    left = np.linalg.norm(root * (A(torch.from_numpy(mixture.coefficients)).numpy() - SCAN.data))
    assert mixture.residuals[-1] == pytest.approx(left, rel=1e-3)
    assert mixture.settings["residual_share"] == pytest.approx(left / np.linalg.norm(root * SCAN.data), rel=1e-3)
    mixture.save(tmp_path / "mixture.h5")
    assert Reconstruction.load(tmp_path / "mixture.h5").settings == mixture.settings


def test_a_report_says_so(mixture, tmp_path):
    pytest.importorskip("matplotlib")
    write_report(mixture, tmp_path / "report.html", scan=SCAN)
    assert "whose volume was then mixed" in (tmp_path / "report.html").read_text()


def test_too_few_views_make_even_shares():
    found = reconstruct(SCAN[::3], prior="smoothness+tv", **OPTIONS)
    assert found.settings["share_of_tv"] == 0.5
    assert found.settings["shares_from"] == "fewer than 10 views"


def test_it_goes_on_after_a_kill(mixture, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    real = TensorXRayTransform.__init__

    def dies(self, geometry, *rest, **how):
        if len(geometry) == len(views_left_out(len(SCAN))[1]):  # when the priors have reconstructed the other views
            raise Killed
        real(self, geometry, *rest, **how)

    folder = tmp_path / "state"
    with monkeypatch.context() as patched:
        patched.setattr(TensorXRayTransform, "__init__", dies)
        with pytest.raises(Killed):
            reconstruct(SCAN, prior="tv+smoothness", checkpoint=folder, **OPTIONS)
    again = reconstruct(SCAN, prior="tv+smoothness", checkpoint=folder, **OPTIONS)
    np.testing.assert_allclose(again.coefficients, mixture.coefficients, atol=1e-6)
    with pytest.raises(ValueError, match="remove the folder"):
        reconstruct(SCAN, prior="smoothness+tv", checkpoint=folder, **OPTIONS)


@given(arrays(float, (4, 3), elements=st.floats(-3, 3)))
def test_best_shares(residuals):
    errors = residuals.T @ residuals + 0.1 * np.eye(3)
    least = minimize(
        lambda s: s @ errors @ s,
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda s: s.sum() - 1},
        options={"ftol": 1e-14},
    )
    found = best_shares(errors)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert found @ errors @ found <= least.fun * (1 + 1e-6) + 1e-9


def test_volumes_that_are_the_same_have_some_shares():
    for errors in (np.zeros((2, 2)), np.ones((2, 2))):
        np.testing.assert_allclose(best_shares(errors), 0.5)


def test_products_are_weighted():
    generator = torch.Generator().manual_seed(0)
    y, w = (torch.rand(4, 4, 4, 6, generator=generator) for _ in range(2))
    volumes = [torch.rand(4, 4, 4, 6, generator=generator) for _ in range(2)]
    same = wrap((lambda x: x, lambda y: y), (4, 4, 4, 6), (4, 4, 4, 6))
    expected = [[float((w * (a - y) * (b - y)).sum()) for b in volumes] for a in volumes]
    np.testing.assert_allclose(products(Misfit(same, y, w), volumes), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prior": "tv+tv"}, "prior: expected different priors, got 'tv\\+tv'"),
        ({"prior": "tv+" + 5000 * "x"}, "prior: expected .*'xxx"),
        ({"prior": "tv+oak"}, "prior: expected .*'oak'"),
        ({"weight": 0.1}, "weight: expected 'auto', as each of several priors has its own, got 0.1"),
        ({"iterations": 3}, "iterations: expected None, as each of several priors has its own, got 3"),
        ({"method": "sirt"}, "prior: expected None, as method 'sirt' takes none"),
    ],
)
def test_refusals(given, words):
    with pytest.raises(ValueError, match=words):
        reconstruct(SCAN, **({"prior": "tv+smoothness"} | given), **OPTIONS)


def test_memory_is_that_of_the_largest():
    both, alone = (predicted_memory(SCAN, ell_max=2, prior=name).total for name in ("tv+learned", "learned"))
    assert both == alone
