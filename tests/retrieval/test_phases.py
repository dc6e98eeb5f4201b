"""Attenuation and phase: against closed forms, a dense least-squares solution, and noise of known strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo.retrieval import Maps, attenuation, integrate_gradient, phase, projected_decrement

ROWS, COLUMNS = np.mgrid[:40, :48].astype(float)


def bump(row, column, width, height=1.0):
    """A Gaussian and its gradient."""
    image = height * np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / (2 * width**2))
    return image, np.stack([-(ROWS - row) * image, -(COLUMNS - column) * image], -1) / width**2


def maps_of(transmission, displacement, errors=(1e-3, 1e-3), valid=None, library=np.asarray, **lengths):
    one = np.ones(transmission.shape)
    arrays = {
        "transmission": transmission, "displacement": displacement, "covariance": np.stack([one] * 3, -1),
        "background": 0 * one, "transmission_error": errors[0] * one,
        "displacement_error": errors[1] + 0 * displacement,
        "covariance_error": np.stack([one] * 3, -1), "background_error": one, "residual": one,
        "valid": one > 0 if valid is None else valid,
    }  # fmt: skip
    lengths = {"pixel_size_m": 1e-5, "distance_m": 0.5} | lengths
    return Maps(**{name: library(array) for name, array in arrays.items()}, **lengths)


@pytest.mark.parametrize(("width", "tolerance"), [(2.0, 0.012), (3.0, 0.003), (6.0, 3e-4)])
def test_a_gradient_is_integrated(width, tolerance):
    image, gradient = bump(18.3, 25.1, width)
    found = integrate_gradient(gradient)
    assert abs(found.mean()) < 1e-12
    assert np.abs(found - (image - image.mean())).max() < tolerance


def test_weights_are_those_of_least_squares():
    """Against a dense solution of the same problem, where only the two-point rule applies: 3 × 3 pixels."""
    generator = np.random.default_rng(0)
    gradient, weights = generator.normal(size=(3, 3, 2)), generator.uniform(0.5, 2, (3, 3, 2))
    rows, right, trust = [], [], []
    for r, c in np.ndindex(3, 3):
        for axis, (s, d) in enumerate([(r + 1, c), (r, c + 1)]):
            if s < 3 and d < 3:
                row = np.zeros((3, 3))
                row[s, d], row[r, c] = 1, -1
                both = weights[r, c, axis], weights[s, d, axis]
                rows.append(row.ravel())
                right.append((gradient[r, c, axis] + gradient[s, d, axis]) / 2)
                trust.append(2 / (1 / both[0] + 1 / both[1]))
    root = np.sqrt(trust)
    expected = np.linalg.lstsq(root[:, None] * np.array(rows), root * right, rcond=None)[0].reshape(3, 3)
    np.testing.assert_allclose(integrate_gradient(gradient, weights), expected - expected.mean(), atol=1e-6)


def test_pixels_without_weight_do_not_matter():
    image, gradient = bump(20.0, 24.0, 6.0)
    weights = np.ones(image.shape)
    weights[15:22, 10:30] = 0
    broken = gradient.copy()
    broken[15:22, 10:30] = np.nan
    found = integrate_gradient(broken, weights)
    difference = (found - image)[weights > 0]
    assert np.ptp(difference) < 2e-3
    assert np.isfinite(found).all()


def test_derivatives_batches_and_kinds():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(2, 4, 5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, 5, 2, generator=generator, dtype=torch.float64) + 0.2
    assert torch.autograd.gradcheck(lambda g: integrate_gradient(g, weights), gradient)
    found = integrate_gradient(gradient.detach().float().numpy(), weights.numpy())
    assert (found.dtype, found.shape) == (np.float32, (2, 4, 5))
    np.testing.assert_allclose(
        found[1], integrate_gradient(gradient[1].detach().numpy(), weights[1].numpy()), atol=1e-6
    )
    for shape in ((1, 1), (1, 4), (4, 1), (2, 2), (3, 4)):
        slope = integrate_gradient(np.ones((*shape, 2)))
        expected = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(float)
        np.testing.assert_allclose(slope, expected - expected.mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("gradient", "weights", "words"),
    [
        (np.ones((4, 4)), None, "gradient: expected shape"),
        (np.ones((0, 4, 2)), None, "gradient: expected shape"),
        (np.full((4, 4, 2), np.nan), None, "gradient: expected finite"),
        (np.ones((4, 4, 2)), np.zeros((4, 4)), "some weight above zero"),
        (np.ones((4, 4, 2)), -np.ones((4, 4)), "weights: expected finite weights of zero or more"),
        (np.ones((4, 4, 2)), np.ones((4, 3)), "weights: expected shape"),
    ],
)
def test_gradients_that_cannot_be_integrated(gradient, weights, words):
    with pytest.raises(ValueError, match=words):
        integrate_gradient(gradient, weights)


# -- maps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_phase_and_decrement_of_a_known_object(library):
    """A sphere's worth of δ: displacement, phase and decrement by hand."""
    path, gradient = bump(20.0, 24.0, 5.0, height=3e-5)  # ∫ δ dl in metres
    alpha = -gradient / 1e-5  # rays turn away from matter: per metre, over pixels of 10 µm
    maps = maps_of(np.ones(path.shape), alpha * 0.5 / 1e-5, library=library)
    found = projected_decrement(maps)
    assert isinstance(found, type(maps.transmission))
    np.testing.assert_allclose(found, path / 1e-5, atol=0.002 * path.max() / 1e-5)
    np.testing.assert_allclose(
        phase(maps, 5e-11), -2 * np.pi / 5e-11 * path, atol=0.002 * 2 * np.pi / 5e-11 * path.max()
    )


def test_air_fixes_constant_and_drift():
    path, gradient = bump(20.0, 24.0, 4.0, height=1e-5)
    drift = np.array([0.02, -0.03])
    maps = maps_of(np.ones(path.shape), -gradient / 1e-5 * 0.5 / 1e-5 + drift)
    expected = path / 1e-5
    for air in ("columns", "rows", expected < 1e-3 * expected.max()):
        np.testing.assert_allclose(projected_decrement(maps, air=air), expected, atol=0.01 * expected.max())
    off = projected_decrement(maps, air_order=0)
    slope = -drift * 1e-5 / 0.5  # of the integral, a pixel
    assert abs((off - expected)[-1, 24] - (off - expected)[0, 24] - 39 * slope[0]) < 0.01 * expected.max()
    assert abs(projected_decrement(maps, air=None, air_order=0).mean()) < 1e-12
    with pytest.raises(ValueError, match="air: expected 'columns'"):
        projected_decrement(maps, air="margins")
    with pytest.raises(TypeError, match="air: expected 'columns'"):
        projected_decrement(maps, air=np.ones(path.shape))
    with pytest.raises(ValueError, match="air: expected valid pixels of air in every view, got none in view 0"):
        projected_decrement(maps, air=np.zeros(path.shape, bool))
    with pytest.raises(ValueError, match="distance_m: expected a length"):
        projected_decrement(maps_of(np.ones(path.shape), gradient, distance_m=None))
    with pytest.raises(ValueError, match="displacement_error: expected positive"):
        projected_decrement(maps_of(np.ones(path.shape), gradient, errors=(1, 0)))
    assert projected_decrement(maps_of(np.ones(path.shape), gradient, errors=(1, 0)), weighted=False).shape == (40, 48)


def test_a_border_without_results_is_no_air():
    path, gradient = bump(20.0, 24.0, 4.0, height=1e-5)
    valid = np.zeros(path.shape, bool)
    valid[4:-4, 4:-4] = True
    displacement = np.where(valid[..., None], -gradient / 1e-5 * 0.5 / 1e-5, 0)
    found = projected_decrement(maps_of(np.ones(path.shape), displacement, valid=valid))
    np.testing.assert_allclose(found[valid], (path / 1e-5)[valid], atol=0.01 * path.max() / 1e-5)


def test_propagation_contrast_is_taken_out_of_the_attenuation():
    """Rays that part, in closed form: T · (1 − ∇·u) with a Gaussian's ∇·u."""
    thick, _ = bump(20.0, 24.0, 5.0, height=0.4)
    lens, slope = bump(20.0, 24.0, 6.0, height=-3.0)
    laplacian = lens * (((ROWS - 20) ** 2 + (COLUMNS - 24) ** 2) / 6.0**4 - 2 / 6.0**2)
    maps = maps_of(np.exp(-thick) * (1 - laplacian), slope)
    values, errors = attenuation(maps)
    np.testing.assert_allclose(values[1:-1, 1:-1], thick[1:-1, 1:-1], atol=4e-3)
    plain, plain_errors = attenuation(maps, propagation=False)
    assert np.abs(plain - thick).max() > 0.1
    np.testing.assert_allclose(plain_errors, 1e-3 / maps.transmission)
    expected = np.hypot(1e-3 / maps.transmission, np.sqrt(1e-6 / 2 + 1e-6 / 2) / (1 - laplacian))
    np.testing.assert_allclose(errors[5:-5, 5:-5], expected[5:-5, 5:-5], rtol=0.02)


def test_errors_of_the_attenuation_cover():
    generator = np.random.default_rng(0)
    scatter = []
    for _ in range(60):
        noise = generator.normal(size=(40, 48)), generator.normal(size=(40, 48, 2))
        maps = maps_of(0.6 + 0.003 * noise[0], 0.004 * noise[1], errors=(0.003, 0.004))
        values, errors = attenuation(maps)
        scatter.append((values + np.log(0.6))[2:-2, 2:-2] / errors[2:-2, 2:-2])
    assert abs(np.std(scatter) - 1) < 0.01


def test_what_tells_nothing_has_an_infinite_error():
    transmission, valid = np.full((40, 48), 0.5), np.ones((40, 48), bool)
    transmission[3, 3], valid[10, 10] = -0.1, False
    displacement = np.zeros((40, 48, 2))
    displacement[20, 21:, 1] = 2.5  # rays that cross
    values, errors = attenuation(maps_of(transmission, displacement, valid=valid))
    assert np.isfinite(values).all()
    assert {(3, 3), (10, 10), (20, 20)} <= set(map(tuple, np.argwhere(np.isinf(errors)).tolist()))
