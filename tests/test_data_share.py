"""What share of each order came from the data: against a dense matrix, a closed form, and what is known of scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo import RankTwoResponse, SaxsResponse, SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo.merits import data_share, resolution
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from tests.test_null_space import dense

GEOMETRY = tilt_series((4, 4, 4), tilts_rad=[0.0, 0.6], views=[4, 4])
SEGMENTS = SaxsResponse(np.arange(6) * np.pi / 6)


def test_against_a_dense_matrix():
    """Every entry of the diagonal, with weights and another strength of each order."""
    A = TensorXRayTransform(GEOMETRY, SEGMENTS, 2)
    small = (4, 4, 4, 6)
    columns = torch.eye(384, dtype=torch.float64).reshape(-1, *small)
    matrix = A(columns).flatten(1).numpy().T
    weights = np.random.default_rng(0).uniform(0.5, 2, len(matrix))
    rho = np.array([3.0, *[8.0] * 5])
    normal = matrix.T @ (weights[:, None] * matrix)
    exact = np.diag(np.linalg.solve(normal + np.diag(np.tile(rho, 64)), normal)).reshape(small)
    expected = np.stack([exact[..., 0], exact[..., 1:].mean(-1)], axis=-1)
    found = resolution(
        dense(matrix.astype(np.float32), small), rho, weights.reshape(-1, 1, 1, 1), probes=100, smoothing=0
    )
    error = found - expected
    # By the bound of the docstring: at most 1/(2 sqrt(100)) at order 0, less at order 2; of the mean an eighth.
    assert np.sqrt((error[..., 0] ** 2).mean()) < 0.05
    assert np.sqrt((error[..., 1] ** 2).mean()) < 0.05
    assert np.abs(error.mean((0, 1, 2))).max() < 0.05 / 8 * 2
    assert expected.std(axis=(0, 1, 2)).min() > 0.03  # there is something to find


def test_smoothing_keeps_means_and_ends():
    A = dense(np.diag(np.repeat(np.float32([1, 3]), 32)), (8, 4, 2, 1))
    rough = resolution(A, 1.0, smoothing=0, probes=1)
    np.testing.assert_allclose(rough[:4], 0.5, atol=1e-5)
    np.testing.assert_allclose(rough[4:], 0.9, atol=1e-5)
    smooth = resolution(A, 1.0, probes=1, smoothing=1.0)
    assert 0.5 <= smooth.min() < 0.53
    assert 0.87 < smooth.max() <= 0.9


def test_of_a_reconstruction():
    """Fewer views, more noise, or second moments in place of segments: less came from the data."""
    views = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.6], views=[10, 10])
    scan = simulate(helicoidal_fibres, views, SEGMENTS, noise=0.02, seed=1)
    noisy = simulate(helicoidal_fibres, views, SEGMENTS, noise=0.1, seed=1)
    moments = simulate(helicoidal_fibres, views, SecondMomentResponse(), noise=0.02, seed=1)
    with pytest.warns(UserWarning, match="asks for 15 coefficients"):
        found = [
            data_share(reconstruct(each, prior=None, iterations=6, ell_max=4, progress=False), each)
            for each in (scan, noisy, moments)
        ]
    assert list(found[0].per_order) == [0, 2, 4]
    for other in found[1:]:
        assert other.per_order[4] < found[0].per_order[4] - 0.05
    assert found[0].strength_from == "the powers of the volume"
    made = reconstruct(scan, prior=None, iterations=6, ell_max=2, progress=False)
    kept = replace(made, settings=dict(made.settings) | {"prior_strength": [1e5, 1e6]})
    assert data_share(kept, scan).strength == (1e5, 1e6)
    assert data_share(kept, scan).strength_from == "the learned prior"
    assert data_share(kept, scan).per_order[2] < data_share(kept, scan, strength=1e3).per_order[2]
    weights = np.asarray(scan.full_weights())
    A = TensorXRayTransform(views, SEGMENTS, 2)
    np.testing.assert_allclose(
        data_share(kept, scan, probes=2).share, resolution(A, [1e5, *[1e6] * 5], weights, probes=2), atol=1e-3
    )


def test_tensors_have_one_share():
    scan = simulate(helicoidal_fibres, GEOMETRY, RankTwoResponse(), noise=0.02)
    found = data_share(reconstruct(replace(scan, weights=None), prior=None, progress=False), scan)
    assert found.share.shape == (4, 4, 4, 1)
    assert list(found.per_order) == [2]


def test_what_is_refused():
    A = dense(np.eye(8, dtype=np.float32), (2, 2, 2, 1))
    for given, kind, text in (
        ({"A": None}, TypeError, r"^A: expected a LinearOperator"),
        ({"strength": 0.0}, ValueError, r"^strength: expected numbers above 0"),
        ({"groups": [1]}, ValueError, r"^groups: expected 1 numbers from 0"),
        ({"probes": 0}, ValueError, r"^probes: expected"),
        ({"smoothing": -1}, ValueError, r"^smoothing: expected"),
    ):
        with pytest.raises(kind, match=text):
            resolution(**{"A": A, "strength": 1.0} | given)
    scan = simulate(helicoidal_fibres, GEOMETRY, SEGMENTS)
    made = reconstruct(scan, prior=None, ell_max=2, iterations=1, progress=False)
    other = simulate(helicoidal_fibres, tilt_series((5, 5, 5), views=[4], tilts_rad=[0.0]), SEGMENTS)
    with pytest.raises(ValueError, match=r"^scan \(volume\)"):
        data_share(made, other)
    with pytest.raises(ValueError, match="strength: expected a number, or 2 of them"):
        data_share(made, scan, strength=[1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="reconstruction: expected"):
        data_share(made.coefficients, scan)
