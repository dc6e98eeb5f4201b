"""Response matrices against numerical integration on the circle and the sphere, closed forms and MUMOTT."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad_vec
from scipy.spatial.transform import Rotation
from scipy.special import gamma

from ddf_tomo.geometry import Geometry
from ddf_tomo.operators import rank_two as r2
from ddf_tomo.operators.responses import (
    DirectionalVisibilityResponse,
    IsotropicResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    VisibilityResponse,
)
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, sphere_quadrature

HALF = np.arange(7) * np.pi / 7
RESPONSES = [
    SaxsResponse(HALF),
    SaxsResponse(np.arange(6) * np.pi / 3 + 0.1, [0.0, 0.3]),
    SecondMomentResponse(),
    IsotropicResponse(),
    DirectionalVisibilityResponse(HALF, 1.0),
    VisibilityResponse([0.0, 0.5, 1.4]),
    RankTwoResponse(),
    RankTwoSaxsResponse(HALF),
]


def random_geometry(views: int, seed: int = 0, mirrored: bool = False) -> Geometry:
    frames = Rotation.random(views, rng=np.random.default_rng(seed)).as_matrix()
    if mirrored:
        frames[:, :, 1] *= -1
    p, j, k = frames.transpose(2, 0, 1)
    return Geometry(p, j, k, 0.0, 0.0, (4, 4, 4), (4, 4))


def on_circle(geometry: Geometry, view: int, phi: float | np.ndarray, theta: float = 0.0) -> np.ndarray:
    e = np.multiply.outer(np.cos(phi), geometry.j[view]) + np.multiply.outer(np.sin(phi), geometry.k[view])
    return np.cos(theta) * e - np.sin(theta) * geometry.p[view]


def integral(function, low: float, high: float, kinks=()) -> np.ndarray:
    return quad_vec(function, low, high, epsabs=1e-12, epsrel=1e-12, points=kinks)[0]


def smooth_integral(function, low: float, high: float) -> np.ndarray:
    """Of a function of many places at once, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    half = (high - low) / 2
    return half * (weights @ function(low + half * (nodes + 1)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("ell_max", [0, 2, 8, 12])
@pytest.mark.parametrize("two_theta", [0.0, 0.2, 1.1])
def test_saxs_is_the_mean_over_the_arc(ell_max, two_theta, mirrored):
    geometry = random_geometry(2, 3, mirrored)
    centres = np.array([0.2, 0.9, 1.3, 2.5])
    edges = np.array([(2.5 - np.pi + 0.2) / 2, 0.55, 1.1, 1.9, (2.5 + np.pi + 0.2) / 2])
    matrix = SaxsResponse(centres, two_theta).matrix(geometry, ell_max)
    assert matrix.shape == (2, 4, coefficient_count(ell_max))
    assert matrix.dtype == torch.float64
    for view in range(2):
        for segment, (low, high) in enumerate(pairwise(edges)):
            expected = smooth_integral(
                lambda phi, v=view: evaluate(on_circle(geometry, v, phi, two_theta / 2), ell_max), low, high
            )
            np.testing.assert_allclose(matrix[view, segment], expected / (high - low), atol=1e-10, rtol=0)


@pytest.mark.parametrize("full_circle", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_saxs_equal_to_mumott(seed, full_circle):
    mumott = pytest.importorskip("mumott")
    from mumott.core.geometry import GeometryTuple
    from mumott.methods.basis_sets import SphericalHarmonics

    rng = np.random.default_rng(seed)
    rotations = Rotation.random(6, rng=rng).as_matrix()
    segments = int(rng.integers(4, 12))
    angles = rng.uniform(-1, 1) + np.arange(segments) * (1 + full_circle) * np.pi / segments
    angles = (angles + rng.uniform(-0.05, 0.05, segments))[:: rng.choice([-1, 1])]
    theirs = mumott.Geometry()
    for rotation in rotations:
        theirs.append(GeometryTuple(rotation=rotation))
    theirs.detector_angles, theirs.full_circle_covered = angles, full_circle
    theirs.detector_direction_origin, theirs.detector_direction_positive_90 = theirs.j_direction_0, theirs.k_direction_0
    basis = SphericalHarmonics(ell_max=8, probed_coordinates=theirs.probed_coordinates)
    geometry = Geometry.from_rotations(rotations, (4, 4, 4), (4, 4))
    response = SaxsResponse(angles)
    assert response.full_circle == full_circle
    np.testing.assert_allclose(response.matrix(geometry, 8), basis.projection_matrix, atol=1e-4)
    two_theta = np.array([0.0, 0.5])
    channels = SaxsResponse(angles, two_theta).matrix(geometry, 4)
    np.testing.assert_allclose(channels[:, :segments], SaxsResponse(angles).matrix(geometry, 4), atol=1e-14)
    np.testing.assert_allclose(channels[:, segments:], SaxsResponse(angles, 0.5).matrix(geometry, 4), atol=1e-14)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.booleans(), st.booleans(), st.floats(-6, 6), st.integers(0, 100))
def test_saxs_segments_tile_the_circle_however_the_angles_run(segments, full, backwards, start, seed):
    turn = 2 * np.pi if full else np.pi
    jitter = np.random.default_rng(seed).uniform(-0.3, 0.3, segments)
    angles = start + (np.arange(segments) + jitter) * turn / segments * (-1 if backwards else 1)
    geometry = random_geometry(2, seed)
    wrapped = np.mod(angles + np.pi, 2 * np.pi) - np.pi
    matrix = SaxsResponse(wrapped, full_circle=full).matrix(geometry, 4)
    np.testing.assert_allclose(SaxsResponse(angles, full_circle=full).matrix(geometry, 4), matrix, atol=1e-12)
    ordered = np.sort(angles)
    edges = np.append((ordered + np.roll(ordered, 1) - np.where(np.arange(segments), 0, turn)) / 2, 0)
    edges[-1] = edges[0] + turn
    lengths = np.diff(edges)[:: -1 if backwards else 1]
    mean = np.einsum("m,vmc->vc", lengths / turn, matrix.numpy())
    whole = SaxsResponse([0.0], full_circle=True).matrix(geometry, 4)[:, 0]
    np.testing.assert_allclose(mean, whole, atol=1e-12)


@pytest.mark.parametrize("ell_max", [0, 2, 4, 8])
def test_second_moment_is_the_integral_over_the_circle(ell_max):
    geometry = random_geometry(3, 1)
    matrix = SecondMomentResponse().matrix(geometry, ell_max)
    for view in range(3):

        def integrand(phi, v=view):
            products = np.array([np.cos(phi) ** 2, np.cos(phi) * np.sin(phi), np.sin(phi) ** 2])
            return products[:, None] * evaluate(on_circle(geometry, v, phi), ell_max) / np.pi

        np.testing.assert_allclose(matrix[view], integral(integrand, 0, 2 * np.pi), atol=1e-10, rtol=0)


def test_isotropic_response_is_the_mean_over_the_sphere():
    directions, weights = sphere_quadrature(8)
    matrix = IsotropicResponse().matrix(random_geometry(2), 4)
    np.testing.assert_allclose(matrix, np.broadcast_to(weights @ evaluate(directions, 4), (2, 1, 15)), atol=1e-14)


def test_isotropic_function_gives_the_unit_matrix():
    geometry = random_geometry(4)
    unit = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(4, 3)
    torch.testing.assert_close(SecondMomentResponse().matrix(geometry, 4)[..., 0], unit)
    for response in (SaxsResponse(HALF, 0.4), DirectionalVisibilityResponse(HALF, 0.7)):
        np.testing.assert_allclose(response.matrix(geometry, 4)[..., 0], 1, atol=1e-13)


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.5, 2.0])
def test_directional_visibility_is_the_convolution_along_the_circle(exponent):
    geometry, azimuths, ell_max = random_geometry(2, 5), np.array([0.0, 0.4, 2.0]), 8
    matrix = DirectionalVisibilityResponse(azimuths, exponent).matrix(geometry, ell_max)
    norm = 2 * np.sqrt(np.pi) * gamma((exponent + 1) / 2) / gamma(exponent / 2 + 1)  # ∮ |cos ψ|^β dψ
    for view in range(2):
        for channel, azimuth in enumerate(azimuths):
            # ψ = π/2 − s²·… removes the kink of |cos ψ|^β at its zeros: with u = (π/2 − ψ) = s^4, du = 4s³ ds.
            def integrand(s, v=view, a=azimuth):
                psi = np.pi / 2 - s**4
                both = evaluate(on_circle(geometry, v, a + psi), ell_max)
                both = both + evaluate(on_circle(geometry, v, a - psi), ell_max)
                return (8 * np.sin(s**4) ** exponent * s**3 / norm)[:, None] * both  # the far half: equal by symmetry

            expected = smooth_integral(integrand, 0, (np.pi / 2) ** 0.25)
            np.testing.assert_allclose(matrix[view, channel], expected, atol=1e-9, rtol=0)


def test_directional_visibility_at_exponent_two_is_linear_in_second_moments():
    geometry, azimuths = random_geometry(5, 6), np.linspace(0, 3, 7)
    matrix = DirectionalVisibilityResponse(azimuths, 2.0).matrix(geometry, 8)
    c, s = np.cos(azimuths), np.sin(azimuths)
    from_moments = torch.from_numpy(np.stack([c**2, 2 * c * s, s**2], axis=1))  # eᵀ Θ e
    torch.testing.assert_close(matrix, from_moments @ SecondMomentResponse().matrix(geometry, 8))


def test_directional_visibility_damps_orders_as_published():
    weights = DirectionalVisibilityResponse([0.0], 1.0).azimuthal_weights(6)[0]
    np.testing.assert_allclose(weights[:7], [1, 0, 1 / 3, 0, -1 / 15, 0, 1 / 35], atol=1e-15)


@pytest.mark.parametrize("angles", [[0.0, 0.5, 2.0], [[0.1], [0.2]], [[0.3, 1.2], [0.5, -1.0]]])
def test_visibility_is_the_integral_over_the_sphere(angles):
    """∫ dz ∫ dφ of the weight times each harmonic: nested adaptive integration, azimuth by equal steps."""
    geometry = random_geometry(2, 7)
    matrix = VisibilityResponse(angles).matrix(geometry, 4)
    azimuth = 2 * np.pi * np.arange(24) / 24
    for view, row in enumerate(np.broadcast_to(angles, (2, np.shape(angles)[-1]))):
        for channel, angle in enumerate(row):
            t = np.cos(angle) * geometry.j[view] + np.sin(angle) * geometry.k[view]

            def over_azimuth(z, v=view, t=t):
                r = np.sqrt(1 - z**2)
                u = np.stack([r * np.cos(azimuth), r * np.sin(azimuth), np.full(24, z)], axis=1)
                weight = (np.linalg.norm(np.cross(geometry.p[v], u), axis=1) * (u @ t)) ** 2
                return 2 * np.pi * (weight @ evaluate(u, 4)) / 24

            np.testing.assert_allclose(matrix[view, channel], integral(over_azimuth, -1, 1), atol=1e-9)


def test_visibility_of_an_isotropic_function():
    """∫ sin²θ · sin²θ cos²φ dΩ = π · 16/15."""
    found = VisibilityResponse([0.3]).matrix(random_geometry(3), 0)
    np.testing.assert_allclose(found, 16 * np.pi / 15)


def test_visibility_warns_above_order_four_and_fills_with_zeros():
    response, geometry = VisibilityResponse([0.0, 1.0]), random_geometry(2)
    with pytest.warns(UserWarning, match="degree 4.*28 coefficients.*first 15"):
        matrix = response.matrix(geometry, 6)
    assert matrix.shape == (2, 2, 28)
    assert not matrix[..., 15:].any()
    torch.testing.assert_close(matrix[..., :15], response.matrix(geometry, 4))


def test_visibility_angles_of_each_view_follow_the_views():
    geometry, angles = random_geometry(5), np.random.default_rng(0).uniform(0, 3, (5, 2))
    response = VisibilityResponse(angles)
    chosen = [3, 1]
    torch.testing.assert_close(
        response.views(chosen).matrix(geometry[chosen], 2), response.matrix(geometry, 2)[chosen], atol=0, rtol=0
    )
    with pytest.raises(ValueError, match=r"shape \(4, 2\)"):
        response.matrix(geometry[:4], 2)
    np.testing.assert_allclose(
        VisibilityResponse([[0.1], [np.pi + 0.1]]).in_any_view().sensitivity_angles_rad, [0.1], atol=1e-6
    )
    constant = VisibilityResponse([0.1])
    assert constant.in_any_view() is constant
    assert constant.views(slice(2)) is constant
    assert RESPONSES[0].views([0]) is RESPONSES[0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6).map(np.array), st.integers(0, 1000))
def test_rank_two_is_the_block_across_the_beam_and_the_mapped_second_moment(tensor, seed):
    geometry, sigma = random_geometry(3, seed), r2.to_matrix(tensor)
    axes = np.stack([geometry.j, geometry.k], axis=1)
    block = axes @ sigma @ axes.swapaxes(1, 2)
    data = (RankTwoResponse().matrix(geometry, 2) @ torch.from_numpy(tensor)).numpy()
    np.testing.assert_allclose(data, block[:, [0, 0, 1], [0, 1, 1]], atol=1e-12)
    harmonic = torch.from_numpy(r2.coefficients_from_tensor(tensor))
    moments = (SecondMomentResponse().matrix(geometry, 2) @ harmonic).numpy()
    np.testing.assert_allclose(r2.rank_two_from_second_moment(moments), data, atol=1e-12)
    signal = (RankTwoSaxsResponse(HALF).matrix(geometry) @ torch.from_numpy(tensor)).numpy()
    for view, azimuth in ((0, 2), (2, 5)):
        e = on_circle(geometry, view, HALF[azimuth])
        assert signal[view, azimuth] == pytest.approx(e @ sigma @ e, abs=1e-12)
        assert signal[view, azimuth] == pytest.approx(evaluate(e, 2) @ harmonic.numpy(), abs=1e-12)


@pytest.mark.parametrize("response", RESPONSES[:6], ids=lambda r: type(r).__name__)
def test_turning_sample_and_function_together_changes_nothing(response):
    geometry, matrix = random_geometry(3, 8), Rotation.random(rng=4).as_matrix()
    turned = Geometry(geometry.p @ matrix.T, geometry.j @ matrix.T, geometry.k @ matrix.T, 0.0, 0.0, (4, 4, 4), (4, 4))
    coefficients = torch.from_numpy(np.random.default_rng(5).standard_normal(15))
    torch.testing.assert_close(
        response.matrix(turned, 4) @ rotate(coefficients, matrix), response.matrix(geometry, 4) @ coefficients
    )


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_something_that_is_no_geometry_is_refused(response):
    with pytest.raises(TypeError, match="geometry: expected a Geometry, got NoneType"):
        response.matrix(None, 2)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_values_print_compare_and_hash(response):
    copy = eval(repr(response))
    assert copy == response
    assert hash(copy) == hash(response)
    matrix = response.matrix(random_geometry(3), 2)
    assert matrix.shape == (3, response.channels, 6)
    assert response.matrix(random_geometry(0), 2).shape == (0, response.channels, 6)
    with pytest.raises((AttributeError, TypeError)):
        response.channels = 3


def test_coverage_is_judged_from_the_angles():
    assert not SaxsResponse([0.3]).full_circle
    assert not SaxsResponse([0.0, np.pi / 2]).full_circle
    assert SaxsResponse(np.arange(3) * 2 * np.pi / 3).full_circle
    assert not SaxsResponse(-np.arange(20) * np.pi / 20).full_circle
    wrapped = np.mod(np.arange(36) * 2 * np.pi / 36 + 1, 2 * np.pi)
    assert SaxsResponse(wrapped).full_circle


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: SaxsResponse([]), ValueError, "at least one angle"),
        (lambda: SaxsResponse([[0.0, 1.0]]), ValueError, "detector_angles_rad"),
        (lambda: SaxsResponse([0.0, np.nan]), ValueError, "detector_angles_rad"),
        (lambda: SaxsResponse(["a"]), TypeError, "detector_angles_rad"),
        (lambda: SaxsResponse([[0.0], [1.0, 2.0]]), TypeError, "detector_angles_rad"),
        (lambda: SaxsResponse([0.0, 45.0, 90.0]), ValueError, "degrees"),
        (lambda: SaxsResponse([0.0, 0.0]), ValueError, "distinct angles in order around half a circle"),
        (lambda: SaxsResponse([0.0, 1.0, 0.5]), ValueError, "in order"),
        (lambda: SaxsResponse([0.0, 1.0, 4.0], full_circle=False), ValueError, "half a circle"),
        (lambda: SaxsResponse([0.0, 2.0, 1.0, 4.0], full_circle=True), ValueError, "a full circle"),
        (lambda: SaxsResponse([0.0, 1.0], full_circle=1), TypeError, "full_circle"),
        (lambda: SaxsResponse([0.0, 1.0], -0.1), ValueError, "two_theta_rad"),
        (lambda: SaxsResponse([0.0, 1.0], 4.0), ValueError, "two_theta_rad"),
        (lambda: DirectionalVisibilityResponse([0.0], 0.0), ValueError, "exponent"),
        (lambda: DirectionalVisibilityResponse([0.0], 2.5), ValueError, "exponent"),
        (lambda: DirectionalVisibilityResponse([90.0], 1.0), ValueError, "degrees"),
        (lambda: VisibilityResponse([]), ValueError, "at least one angle"),
        (lambda: VisibilityResponse(np.zeros((2, 0))), ValueError, "at least one angle"),
        (lambda: VisibilityResponse(np.zeros((2, 2, 2))), ValueError, "sensitivity_angles_rad"),
        (lambda: VisibilityResponse([90.0]), ValueError, "degrees"),
        (lambda: RankTwoResponse().matrix(random_geometry(1), 4), ValueError, "ell_max: expected 2"),
        (lambda: SecondMomentResponse().matrix(random_geometry(1), 3), ValueError, "even order"),
    ],
)
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
