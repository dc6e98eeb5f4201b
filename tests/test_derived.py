"""Mean, anisotropy and directions from coefficients."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo.derived import angle_between, derive, slabs
from ddf_tomo.operators.rank_two import coefficients_from_tensor, from_matrix, to_matrix
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import evaluate, from_function, sphere_quadrature
from ddf_tomo.phantoms import zonal
from ddf_tomo.visualization import axis_colour

TURN = np.array([[0.36, 0.48, 0.8], [-0.8, 0.6, 0.0], [-0.48, -0.64, 0.6]])
vectors = st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1)


def unit(vector):
    return np.array(vector) / np.linalg.norm(vector)


@given(vectors, st.sampled_from([[1.0, -0.9], [1.0, 0.7], [2.0, -1.5, 0.4], [1.0, 0.8, 0.1]]))
def test_the_axis_of_a_zonal_function_is_its_direction(axis, legendre):
    derived = derive(zonal(unit(axis), legendre)[None, None, None])
    assert angle_between(derived.direction[0, 0, 0], axis) < 1e-7
    assert derived.direction[0, 0, 0, 2] >= 0
    assert derived.mean[0, 0, 0] == pytest.approx(legendre[0])
    np.testing.assert_allclose(np.linalg.norm(derived.eigenvectors, axis=-2), 1)


def test_quantities_by_numerical_integration():
    coefficients = np.random.default_rng(0).normal(size=(1, 1, 1, 15))
    coefficients[..., 0] = 4
    directions, weights = sphere_quadrature(12)
    values = evaluate(directions, 4) @ coefficients.ravel()
    tensor = np.einsum("n,n,na,nb->ab", weights, values, directions, directions)
    eigenvalues, eigenvectors = np.linalg.eigh(tensor)
    derived = derive(coefficients)
    np.testing.assert_allclose(derived.eigenvalues[0, 0, 0], eigenvalues, atol=1e-12)
    for i in range(3):
        assert angle_between(derived.eigenvectors[0, 0, 0, :, i], eigenvectors[:, i]) < 1e-7
    assert derived.mean.item() == pytest.approx(values @ weights)
    deviation = np.linalg.norm(eigenvalues - eigenvalues.mean())
    assert derived.fractional_anisotropy.item() == pytest.approx(
        np.sqrt(1.5) * deviation / np.linalg.norm(eigenvalues), rel=1e-12
    )


def test_everything_turns_with_the_sample():
    coefficients = np.random.default_rng(1).normal(size=(2, 3, 2, 15))
    before, after = derive(coefficients), derive(rotate(coefficients, TURN))
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-12)
    np.testing.assert_allclose(after.fractional_anisotropy, before.fractional_anisotropy, atol=1e-12)
    assert angle_between(after.direction, before.direction @ TURN.T).max() < 1e-6


@pytest.mark.parametrize(
    ("eigenvalues", "anisotropy", "axis"),
    [([0, 0, 1], 1.0, 2), ([1, 1, 1], 0.0, None), ([0, 1, 1], np.sqrt(0.5), 0), ([0, 0, 0], 0.0, None)],
)
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200, 1e-310])
def test_tensors(eigenvalues, anisotropy, axis, scale):
    tensor = from_matrix(TURN @ np.diag(eigenvalues) @ TURN.T)
    derived = derive(scale * tensor[None, None, None], of_harmonics=False)
    assert derived.fractional_anisotropy.item() == pytest.approx(anisotropy, abs=1e-7)
    np.testing.assert_allclose(derived.eigenvalues.ravel() / scale, eigenvalues, atol=1e-7)
    assert derived.mean.item() == pytest.approx(scale * np.mean(eigenvalues))
    if axis is not None:
        assert angle_between(derived.direction.ravel(), TURN[:, axis]) < 1e-6


def test_where_it_can_be_trusted():
    coefficients = np.zeros((5, 1, 1, 6))
    coefficients[:, 0, 0, 0] = [1.0, 0.11, 0.09, 0.0, -0.5]
    assert derive(coefficients).valid.ravel().tolist() == [True, True, False, False, False]
    assert derive(coefficients, threshold=0).valid.ravel().tolist() == [True, True, True, False, False]
    assert not derive(-np.abs(coefficients)).valid.any()


# -- order, power, spread ---------------------------------------------------------------------------------------------


def test_order_power_and_spread_by_numerical_integration():
    coefficients = np.random.default_rng(3).normal(size=(2, 3, 2, 28))
    coefficients[..., 0] = 6
    directions, weights = sphere_quadrature(14)
    values = evaluate(directions, 6) @ coefficients.reshape(-1, 28).T
    derived = derive(coefficients)
    axis = derived.direction.reshape(-1, 3)
    legendre = (3 * (directions @ axis.T) ** 2 - 1) / 2
    order = (weights @ (values * legendre)) / (weights @ values)
    np.testing.assert_allclose(derived.order_parameter.ravel(), order, atol=1e-12)
    np.testing.assert_allclose(derived.power.sum(axis=-1).ravel(), weights @ values**2)
    spread = np.sqrt(weights @ (values - weights @ values) ** 2)
    np.testing.assert_allclose(derived.standard_deviation.ravel(), spread)
    np.testing.assert_allclose(derived.relative_standard_deviation.ravel(), spread / 6)
    of_each = np.split(coefficients, [1, 6, 15], axis=-1)
    np.testing.assert_allclose(derived.power, np.stack([(part**2).sum(-1) for part in of_each], -1))
    eigenvalues = derived.eigenvalues
    np.testing.assert_allclose(derived.relative_anisotropy, eigenvalues.std(axis=-1) / eigenvalues.mean(axis=-1))


@pytest.mark.parametrize(
    ("profile", "order", "relative"),
    [
        (lambda cosine: cosine**60, 1.0, np.sqrt(2)),  # along the axis
        (lambda cosine: (1 - cosine**2) ** 60, -0.5, np.sqrt(0.5)),  # across it
        (lambda cosine: 1 + 0 * cosine, 0.0, 0.0),
    ],
)
def test_the_ends_of_the_scales(profile, order, relative):
    """Closed forms of a needle, a disc, a ball; the profiles are 60th powers, 0.04 off."""
    axis = unit([0.4, -0.3, 0.6])
    derived = derive(from_function(lambda q: profile(q @ axis), 16, degree=120)[None, None, None])
    assert derived.order_parameter.item() == pytest.approx(order, abs=0.05)
    assert derived.relative_anisotropy.item() == pytest.approx(relative, abs=0.07)
    if order:
        assert angle_between(derived.direction[0, 0, 0], axis) < 1e-6


def test_fibres_that_scatter_across_themselves():
    """Hermans' factor of fibres with axes n, <P₂> = S, whose scattering is a ring around each: f has S P₂(0) = −S/2."""
    generator = np.random.default_rng(0)
    fibres = unit([0.2, 0.3, 0.9]) + 0.3 * generator.normal(size=(300, 3))
    fibres /= np.linalg.norm(fibres, axis=1, keepdims=True)
    # The ring around a fibre is Σ (2ℓ + 1) P_ℓ(0) P_ℓ(cos), with P_ℓ(0) = 1, −1/2, 3/8 for ℓ = 0, 2, 4.
    rings = zonal(fibres, [1.0, -5 / 2, 27 / 8]).mean(axis=0)
    derived = derive(rings[None, None, None])
    expected = np.mean((3 * (fibres @ derived.direction.ravel()) ** 2 - 1) / 2)
    assert -2 * derived.order_parameter.item() == pytest.approx(expected, rel=1e-9)
    assert expected > 0.5


def test_tensors_have_the_order_of_the_function_they_stand_for():
    tensor = from_matrix(TURN @ np.diag([0.2, 0.3, 1.4]) @ TURN.T)[None, None, None]
    as_tensor, as_harmonics = derive(tensor, of_harmonics=False), derive(coefficients_from_tensor(tensor))
    for name in ("mean", "order_parameter", "standard_deviation", "amplitudes", "direction"):
        np.testing.assert_allclose(getattr(as_tensor, name), getattr(as_harmonics, name), atol=1e-12)
    np.testing.assert_allclose(as_tensor.tensor, tensor)
    assert as_tensor.relative_anisotropy.item() == pytest.approx(np.std([0.2, 0.3, 1.4]) / np.mean([0.2, 0.3, 1.4]))


def test_ratios_to_the_mean_are_zero_where_there_is_none():
    coefficients = np.ones((4, 1, 1, 6))
    coefficients[:, 0, 0, 0] = [2.0, 1e-12, 0.0, -1.0]
    derived = derive(coefficients)
    for name in ("relative_anisotropy", "order_parameter", "relative_standard_deviation"):
        values = getattr(derived, name).ravel()
        assert values[0] != 0
        assert not values[1:].any()


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_no_number_leaves_its_range(scale):
    coefficients = np.random.default_rng(4).normal(size=(2, 2, 2, 15)) + 5
    plain, scaled = derive(coefficients), derive(scale * coefficients)
    np.testing.assert_allclose(scaled.amplitudes / scale, plain.amplitudes)
    np.testing.assert_allclose(scaled.standard_deviation / scale, plain.standard_deviation)
    for name in ("relative_anisotropy", "order_parameter", "fractional_anisotropy", "relative_standard_deviation"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), atol=1e-12)
    largest = derive(np.full((1, 1, 1, 15), np.finfo(np.float32).max, np.float32))
    assert np.isfinite(largest.standard_deviation).all()


def test_precision_and_memory(monkeypatch):
    """Slabs give what the whole gives, in the precision of the coefficients, without a copy of the volume."""
    coefficients = (np.random.default_rng(5).normal(size=(7, 5, 4, 15)) + 2).astype(np.float32)
    whole = derive(coefficients.astype(np.float64))
    monkeypatch.setattr("ddf_tomo.derived.slabs", lambda shape: slabs(shape, 45))
    parts = derive(coefficients)
    for field in dataclasses.fields(parts)[:-2]:
        found = getattr(parts, field.name)
        assert found.dtype == np.float32
        if field.name not in ("eigenvectors", "direction"):  # which turn fast where eigenvalues are close
            np.testing.assert_allclose(found, getattr(whole, field.name), atol=1e-5, rtol=1e-5, err_msg=field.name)
    np.testing.assert_array_equal(parts.valid, whole.valid)
    assert angle_between(parts.direction, whole.direction).max() < 1e-3


def test_temporary_arrays_are_those_of_a_slab(monkeypatch):
    coefficients = np.ones((64, 64, 16, 45), np.float32)
    monkeypatch.setattr("ddf_tomo.derived.slabs", lambda shape: slabs(shape, 2**11))
    tracemalloc.start()
    try:
        derived = derive(coefficients)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    results = sum(value.nbytes for value in vars(derived).values() if isinstance(value, np.ndarray))
    assert peak < results + 4 * 2**11 * 45 * 8 + 2e5 < results + 0.3 * coefficients.nbytes


# -- for figures and files --------------------------------------------------------------------------------------------


def test_colours_are_those_of_the_figures():
    derived = derive(np.random.default_rng(6).normal(size=(6, 5, 4, 15)) + np.eye(15)[0] * 3)
    strength = np.random.default_rng(7).uniform(-0.2, 1.2, (6, 5, 4))
    expected = 255 * axis_colour(derived.direction, strength)
    assert np.abs(derived.colour(strength) - expected).max() <= 0.501
    full = np.percentile(derived.fractional_anisotropy[derived.valid], 99)
    expected = 255 * axis_colour(derived.direction, derived.valid * derived.fractional_anisotropy / full)
    assert np.abs(derived.colour() - expected).max() <= 0.501
    assert not derived.colour()[~derived.valid].any()
    assert not derive(np.zeros((2, 2, 2, 6))).colour().any()
    with pytest.raises(ValueError, match=r"^strength: expected shape \(6, 5, 4\)"):
        derived.colour(np.ones(3))


def test_every_quantity_has_a_unit():
    derived = derive(np.ones((1, 1, 1, 6)), unit="rad^2/m")
    quantities = {field.name for field in dataclasses.fields(derived)} - {"unit"}
    assert set(derived.units) == quantities | {"power", "relative_standard_deviation"}
    assert derived.units["power"] == "(rad^2/m)^2"
    assert derived.units["fractional_anisotropy"] == "1"


def test_what_a_mumott_user_looks_for():
    basis_sets = pytest.importorskip("mumott.methods.basis_sets")
    coefficients = np.random.default_rng(8).normal(size=(3, 4, 5, 15))
    theirs = basis_sets.SphericalHarmonics(ell_max=4).get_output(coefficients)
    ours = derive(coefficients)
    np.testing.assert_allclose(ours.mean, theirs.mean_intensity)
    np.testing.assert_allclose(ours.fractional_anisotropy, theirs.fractional_anisotropy)
    np.testing.assert_allclose(to_matrix(ours.tensor), theirs.second_moment_tensor)
    for n in range(3):
        np.testing.assert_allclose(ours.eigenvalues[..., n], getattr(theirs, f"eigenvalue_{n + 1}"), atol=1e-12)
        vectors = getattr(theirs, f"eigenvector_{n + 1}")
        assert angle_between(ours.eigenvectors[..., n], vectors).max() < 1e-6


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 6, 15, 28])
@pytest.mark.parametrize("shape", [(2, 3, 1), (0, 2, 2)])
def test_any_order_and_empty_volumes(shape, count):
    derived = derive(np.ones((*shape, count), np.float32))
    assert derived.mean.shape == derived.valid.shape == derived.fractional_anisotropy.shape == shape
    assert derived.direction.shape == (*shape, 3)
    assert np.isfinite(derived.direction).all()
    if count == 1:
        np.testing.assert_allclose(derived.fractional_anisotropy, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"coefficients": np.ones((2, 2, 6))}, ValueError, r"^coefficients: expected shape"),
        ({"coefficients": np.ones((2, 2, 2, 5))}, ValueError, "coefficients"),
        ({"coefficients": np.full((2, 2, 2, 6), np.nan)}, ValueError, "^coefficients: expected finite values"),
        ({"coefficients": "x"}, TypeError, "^coefficients: expected real numbers"),
        ({"of_harmonics": False, "coefficients": np.ones((2, 2, 2, 15))}, ValueError, r"^coefficients \(last axis\)"),
        ({"unit": None}, TypeError, "^unit: expected a text"),
        ({"threshold": 2.0}, ValueError, "^threshold: expected a finite number"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=text):
        derive(**{"coefficients": np.ones((2, 2, 2, 6)), **arguments})


@given(vectors, st.floats(0, np.pi / 2), st.sampled_from([-3.0, 1.0, 0.2]))
def test_angles_between_axes(axis, angle, factor):
    first = unit(axis)
    across = unit(np.cross(first, [0.3, -0.5, 0.81]))
    second = factor * (np.cos(angle) * first + np.sin(angle) * across)
    assert angle_between(first, second) == pytest.approx(angle, abs=1e-7)


def test_small_angles_keep_their_digits():
    assert angle_between([1.0, 0, 0], [1.0, 1e-12, 0]) == pytest.approx(1e-12, rel=1e-6)
    with pytest.raises(ValueError, match=r"^second \(last axis\): expected shape \(3\)"):
        angle_between([1.0, 0, 0], [1.0, 0])
    with pytest.raises(ValueError, match=r"^first \(last axis\)"):
        angle_between([1.0, 0], [1.0, 0, 0])
