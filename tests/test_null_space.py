"""Which part of a volume data leave open: against singular values, and against what tomography is known not to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import Geometry, SaxsResponse, SecondMomentResponse, TensorXRayTransform, XRayTransform, wrap
from ddf_tomo.merits import null_space_share


def dense(matrix, domain):
    """A matrix as an operator on volumes."""
    M = torch.from_numpy(matrix)
    forward = lambda x: (M @ x.reshape(-1)).reshape(-1, 1, 1, 1)  # noqa: E731
    return wrap((forward, lambda y: (M.T @ y.reshape(-1)).reshape(domain)), domain, (len(M), 1, 1, 1))


@pytest.mark.parametrize("weighted", [False, True])
def test_against_singular_values(weighted):
    generator, domain = np.random.default_rng(0), (2, 2, 2, 6)
    matrix = generator.normal(size=(30, 8)) @ generator.normal(size=(8, 48))  # rank 8 of 48
    w = generator.uniform(0.5, 2, 30) if weighted else np.ones(30)
    x = generator.normal(size=domain)
    found = null_space_share(x, dense(matrix, domain), w.reshape(30, 1, 1, 1), threshold=0.02, iterations=60)
    _, s, V = np.linalg.svd(np.sqrt(w)[:, None] * matrix)
    values = np.pad(s**2, (0, 18))
    factors = 1 / (values / (0.02 * values.max()) + 1)
    expected = (V.T @ (factors * (V @ x.ravel()))).reshape(domain)
    np.testing.assert_allclose(found.open, expected, atol=0.02 * np.abs(expected).max())
    np.testing.assert_allclose(found.seen + found.open, x)
    assert found.share == pytest.approx(np.linalg.norm(expected) / np.linalg.norm(x), rel=0.01)
    assert set(found.share_per_order) == {0, 2}
    per_order = np.linalg.norm(expected[..., 1:]) / np.linalg.norm(x[..., 1:])
    assert found.share_per_order[2] == pytest.approx(per_order, rel=0.01)


def test_the_ends():
    generator, domain = np.random.default_rng(1), (2, 2, 2, 1)
    matrix = generator.normal(size=(12, 3)) @ np.linalg.qr(generator.normal(size=(8, 3)))[0].T
    basis = np.linalg.svd(matrix)[2]
    A = dense(matrix, domain)
    assert null_space_share(basis[-1].reshape(domain), A).share == pytest.approx(1, abs=1e-6)
    assert null_space_share(basis[0].reshape(domain), A).share == pytest.approx(0.01 / 1.01, rel=1e-2)
    nothing = null_space_share(np.zeros(domain), A)
    assert not nothing.open.any()
    assert nothing.share == 0


def test_a_missing_wedge():
    """Beams within 45° of one axis see no structure along it (about the z axis, from p = -y at angle 0)."""
    geometry = Geometry.from_angles(np.linspace(-0.7, 0.7, 12), 0.0, (12, 12, 12), (16, 16))
    A = XRayTransform(geometry, channels=1)
    wave = np.cos(np.arange(12) * np.pi / 2)
    along = np.abs(geometry.p.mean(0)).argmax()
    volumes = [
        np.broadcast_to(wave.reshape([-1 if n == axis else 1 for n in range(3)]), (12,) * 3) for axis in range(3)
    ]
    shares = [null_space_share(volume[..., None].astype(np.float32), A).share for volume in volumes]
    assert shares[along] > 0.9
    assert max(share for axis, share in enumerate(shares) if axis != along) < 0.5


def test_second_moments_leave_more_open_than_segments():
    """Of fine structure of order 4; of orders up to 2 they tell all (physics: 12 of 15 coefficients, 6 of 6)."""
    generator = np.random.default_rng(2)
    beams = generator.normal(size=(60, 3))
    inner, outer = np.arctan2(beams[:, 1], beams[:, 0]), np.arcsin(beams[:, 2] / np.linalg.norm(beams, axis=1))
    geometry = Geometry.from_angles(inner, outer, (8, 8, 8), (12, 12))
    x = generator.normal(size=(8, 8, 8, 15)).astype(np.float32)
    moments, segments = (
        null_space_share(x, TensorXRayTransform(geometry, response, 4)).share_per_order[4]
        for response in (SecondMomentResponse(), SaxsResponse(np.arange(8) * np.pi / 8))
    )
    assert moments > segments + 0.1


def test_what_is_refused():
    A = dense(np.eye(8), (2, 2, 2, 1))
    for given, kind, text in (
        ({"A": None}, TypeError, r"^A: expected a LinearOperator"),
        ({"volume": np.full((2, 2, 2, 1), np.nan)}, ValueError, r"^volume: expected finite"),
        ({"volume": np.zeros((2, 2, 2))}, ValueError, r"^volume: expected shape"),
        ({"threshold": 0.0}, ValueError, r"^threshold: expected"),
    ):
        with pytest.raises(kind, match=text):
            null_space_share(**{"volume": np.ones((2, 2, 2, 1)), "A": A} | given)
