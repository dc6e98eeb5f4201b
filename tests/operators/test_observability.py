"""Ranks and conditions against the published tables, direct linear algebra, and projections of plane waves."""

import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.beams_across import beams_across_z, largest_gap, seeing_views, view_spacing
from ddf_tomo.operators.observability import automatic_ell_max, observability
from ddf_tomo.operators.responses import (
    DirectionalVisibilityResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    SecondMomentResponse,
    VisibilityResponse,
)
from ddf_tomo.operators.spherical_harmonics import half_sphere_grid

SEGMENTS = np.arange(16) * np.pi / 16
SHAPES = ((4, 4, 4), (4, 4))


def random_views(count: int = 250, seed: int = 0) -> Geometry:
    frames = Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix().transpose(2, 0, 1)
    return Geometry(*frames, np.zeros(count), np.zeros(count), *SHAPES)


def tilt_series(largest_degrees: float) -> Geometry:
    """The pattern of a real tensor scan."""
    pattern = {0: 24, 7.5: 45, 15: 42, 22.5: 40, 30: 40, 37.5: 34, 45: 30}
    return Geometry.concatenate(
        Geometry.from_angles(np.arange(n) * (2 * np.pi if tilt else np.pi) / n, np.radians(tilt), *SHAPES)
        for tilt, n in pattern.items()
        if tilt <= largest_degrees
    )


def single_axis(count: int = 180) -> Geometry:
    return Geometry.from_angles(np.arange(count) * np.pi / count, 0.0, *SHAPES)


@pytest.mark.parametrize(
    ("response", "ranks"),
    [
        (SecondMomentResponse(), [1, 6, 12, 18, 24]),
        (SaxsResponse(SEGMENTS), [1, 6, 15, 28, 45]),
        (DirectionalVisibilityResponse(SEGMENTS, 0.5), [1, 6, 15, 28, 45]),
        (DirectionalVisibilityResponse(SEGMENTS, 1.0), [1, 6, 15, 28, 45]),
        (DirectionalVisibilityResponse(SEGMENTS, 1.5), [1, 6, 15, 28, 45]),
        (DirectionalVisibilityResponse(SEGMENTS, 2.0), [1, 6, 12, 18, 24]),
        (VisibilityResponse([0.0, 1.0, 2.0]), [1, 6, 12, 12, 12]),
        (VisibilityResponse([0.0, 0.4, 0.9, 1.7, 2.5]), [1, 6, 12, 12, 12]),
        (VisibilityResponse([0.0]), [1, 3, 3, 3, 3]),
        (VisibilityResponse([np.pi / 2]), [1, 3, 5, 5, 5]),
        (VisibilityResponse([0.7]), [1, 5, 9, 9, 9]),
        (VisibilityResponse([0.0, np.pi / 2]), [1, 4, 8, 8, 8]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_rank_of_structures_seen_by_all_perpendicular_beams(response, ranks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = observability(single_axis(4), response, 8, directions=1)
    assert found.orders.tolist() == [0, 2, 4, 6, 8]
    assert found.coefficients.tolist() == [1, 6, 15, 28, 45]
    assert found.ideal_rank.tolist() == ranks
    assert (found.ideal_condition >= 1).all()


@pytest.mark.parametrize("response", [RankTwoResponse(), RankTwoSaxsResponse(SEGMENTS)])
def test_rank_two_tensors_are_fully_seen(response):
    found = observability(tilt_series(45), response)
    assert (found.orders.tolist(), found.ideal_rank.tolist(), found.constant_rank.tolist()) == ([2], [6], [6])
    assert found.highest_determined_order == 2
    assert not found.warn_if_undetermined()


def uniform_tilts(largest_degrees: float) -> Geometry:
    rng = np.random.default_rng(1)
    return Geometry.from_angles(
        rng.uniform(0, 2 * np.pi, 300), np.radians(rng.uniform(0, largest_degrees, 300)), *SHAPES
    )


@pytest.mark.parametrize(
    ("geometry", "to_four", "to_eight"),
    [
        (random_views(300), 2.2, 3.5),
        (uniform_tilts(30), 4.4, 265),
        (uniform_tilts(45), 3.0, 20),
        (uniform_tilts(60), 2.3, 5.1),
    ],
    ids=["random", "30°", "45°", "60°"],
)
def test_conditions_of_constant_fields_as_in_the_physics_notes(geometry, to_four, to_eight):
    found = observability(geometry, SecondMomentResponse(), 8, directions=1)
    assert found.constant_rank.tolist() == [1, 6, 15, 28, 45]
    assert found.constant_condition[2] == pytest.approx(to_four, rel=0.1)
    assert found.constant_condition[4] == pytest.approx(to_eight, rel=0.15)


def test_constant_fields_of_a_single_axis_and_of_gratings():
    found = observability(single_axis(), SecondMomentResponse(), 8, directions=1)
    assert found.constant_rank.tolist() == [1, 6, 12, 18, 24]
    assert np.isinf(found.constant_condition[2:]).all()
    grating = observability(random_views(), VisibilityResponse([0.0, 1.0, 2.0]), 6, directions=1)
    assert grating.constant_rank.tolist() == [1, 6, 15, 15]
    assert grating.constant_condition[2] == pytest.approx(17, rel=0.2)


@pytest.mark.parametrize("response", [SecondMomentResponse(), SaxsResponse(SEGMENTS)])
def test_against_singular_values_of_the_stacked_response(response):
    """All beams exactly across the one direction looked at: numpy's svd of the stack is the reference."""
    axis = half_sphere_grid(1)[0]
    first, second = np.linalg.svd(axis[None])[2][1:]
    angles = np.arange(20) * np.pi / 20
    p = np.cos(angles)[:, None] * first + np.sin(angles)[:, None] * second
    j = np.tile(axis, (20, 1))
    geometry = Geometry(p, j, np.cross(p, j), np.zeros(20), np.zeros(20), *SHAPES)
    found = observability(geometry, response, 6, directions=1, tolerance_rad=0.01)
    assert found.seeing.tolist() == [20]
    assert found.gap_rad[0] == pytest.approx(np.pi / 20)
    for i, order in enumerate((0, 2, 4, 6)):
        values = np.linalg.svd(response.matrix(geometry, order).flatten(0, 1).numpy(), compute_uv=False)
        rank = np.linalg.matrix_rank(np.diag(values), tol=1e-6)
        assert found.ideal_rank[i] == found.rank[0, i] == rank
        assert found.condition[0, i] == pytest.approx(values[0] / values[rank - 1])
        assert found.ideal_condition[i] == pytest.approx(values[0] / values[rank - 1])


def test_a_plane_wave_is_invisible_to_beams_that_are_not_across_it():
    """Why only p ⟂ ξ counts, on the projector itself: a wave along ξ cancels in the line integrals of other beams."""
    from ddf_tomo.operators.xray import XRayTransform

    n, period, width = 32, 6, 5
    x = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    window = torch.exp(-(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2) / (2 * width**2))
    wave = (torch.cos(2 * np.pi * x / period)[:, None, None] * window)[..., None]
    turned = np.radians([0.0, 20.0, 45.0, 90.0])
    geometry = Geometry.from_angles(turned, 0.0, (n, n, n), (n, n))  # from y (across the wave) to x (along it)
    strength = XRayTransform(geometry)(wave).square().sum(dim=(1, 2, 3)).sqrt()
    along_beam = np.sin(turned) * 2 * np.pi / period
    expected = np.exp(-((along_beam * width) ** 2) / 2)  # spectrum of the window at the beam's share of the frequency
    np.testing.assert_allclose(strength / strength[0], expected, atol=0.02)
    assert expected[2] < 0.01


def test_real_tilt_series():
    found = observability(tilt_series(45), SecondMomentResponse(), 8)
    assert found.views == 255
    assert found.ell_max == 8
    assert (found.rank <= found.ideal_rank).all()
    assert found.determined.tolist() == [True, True, False, False, False]
    assert found.highest_determined_order == 2
    assert found.automatic_ell_max() == 2
    assert found.automatic_ell_max(regularised=True) == 4
    # The wedge: directions across the axis miss the beams steeper than 45°, those near the axis miss none.
    from_axis = np.degrees(np.arccos(found.directions[:, 2]))
    assert np.degrees(found.gap_rad[from_axis < 30]).max() < 20
    assert np.degrees(found.gap_rad[from_axis > 80]).min() > 70
    assert found.condition[from_axis > 80, 2].min() > found.condition[from_axis < 30, 2].max()
    saxs = observability(tilt_series(45), SaxsResponse(SEGMENTS), 8)
    assert saxs.highest_determined_order >= 4


def test_single_axis_determines_no_tensor():
    geometry = single_axis()
    found = observability(geometry, SecondMomentResponse(), 4)
    assert found.highest_determined_order == 0
    assert automatic_ell_max(geometry, SecondMomentResponse()) == 0
    assert automatic_ell_max(geometry, SecondMomentResponse(), regularised=True) == 2
    assert automatic_ell_max(geometry, RankTwoResponse()) == 2
    with pytest.warns(UserWarning, match="the data alone determine no order"):
        assert observability(geometry, RankTwoResponse()).warn_if_undetermined(2)


def test_warnings_when_orders_are_asked_for_that_cannot_be_told():
    found = observability(tilt_series(45), SecondMomentResponse(), 6)
    with pytest.warns(UserWarning, match=r"ell_max=4 asks for 15 .* sees 12 .* 15 in constant.*up to ell_max=2"):
        assert found.warn_if_undetermined(4)
    with pytest.warns(UserWarning, match="ell_max=6 asks for 28"):
        assert found.warn_if_undetermined(regularised=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not found.warn_if_undetermined(2)
        assert not found.warn_if_undetermined(4, regularised=True)
    with pytest.raises(ValueError, match=r"one of the orders looked at \[0, 2, 4, 6\]"):
        found.warn_if_undetermined(8)


def test_directions_that_no_view_sees(monkeypatch):
    monkeypatch.setattr("ddf_tomo.operators.beams_across.PAIRS_AT_ONCE", 1)
    geometry = Geometry.from_angles([0.0], 0.0, *SHAPES)
    found = observability(geometry, SecondMomentResponse(), 2, directions=50, tolerance_rad=0.05)
    unseen = found.seeing == 0
    assert unseen.sum() > 40
    assert (found.rank[unseen] == 0).all()
    assert np.isinf(found.condition[unseen]).all()
    np.testing.assert_allclose(found.gap_rad, np.pi)
    assert found.highest_determined_order == 0
    assert "determine no order" in found.summary()


def test_gratings_that_turn_from_view_to_view():
    geometry = tilt_series(45)
    angles = np.random.default_rng(0).uniform(0, np.pi, (len(geometry), 1))
    found = observability(geometry, VisibilityResponse(angles), 4)
    fixed = observability(geometry, VisibilityResponse([0.3]), 4)
    assert found.ideal_rank.tolist() == [1, 6, 12]
    assert np.median(found.rank[:, 2]) > np.median(fixed.rank[:, 2])
    few = VisibilityResponse(np.tile([[0.0], [np.pi]], (128, 1))[: len(geometry)])
    assert observability(geometry, few, 4, directions=1).ideal_rank.tolist() == [1, 3, 3]


def test_a_response_of_somebody_else():
    class Plain:
        def matrix(self, geometry, ell_max):
            return SecondMomentResponse().matrix(geometry, ell_max)

    ours, theirs = (observability(tilt_series(15), r, 4, directions=20) for r in (SecondMomentResponse(), Plain()))
    np.testing.assert_array_equal(ours.rank, theirs.rank)
    np.testing.assert_allclose(ours.constant_condition, theirs.constant_condition)


def test_many_views_are_worked_off_in_chunks(monkeypatch):
    geometry = random_views(60)
    whole = observability(geometry, SecondMomentResponse(), 4, directions=40)
    monkeypatch.setattr("ddf_tomo.operators.beams_across.PAIRS_AT_ONCE", 100)
    parts = observability(geometry, SecondMomentResponse(), 4, directions=40)
    np.testing.assert_array_equal(whole.rank, parts.rank)
    np.testing.assert_array_equal(whole.seeing, parts.seeing)
    np.testing.assert_allclose(whole.condition, parts.condition)
    np.testing.assert_allclose(whole.gap_rad, parts.gap_rad)


def test_views_are_turned_to_the_nearest_perpendicular_beam():
    geometry, grid = random_views(40, seed=3), half_sphere_grid(15)
    pairs = 0
    for chunk, direction, view, turned in seeing_views(geometry, grid, np.sin(0.3)):
        assert set(direction) <= set(chunk)
        np.testing.assert_allclose(np.sum(turned.p * grid[direction], axis=1), 0, atol=1e-14)
        frames = [np.stack([g.p, g.j, g.k], axis=2) for g in (turned, geometry[view])]
        rotation = frames[0] @ frames[1].swapaxes(1, 2)
        deviation = np.abs(np.arcsin(np.sum(geometry.p[view] * grid[direction], axis=1)))
        np.testing.assert_allclose(Rotation.from_matrix(rotation).magnitude(), deviation, atol=1e-7)
        assert (deviation <= 0.3).all()
        pairs += len(view)
    assert pairs == (np.abs(grid @ geometry.p.T) <= np.sin(0.3)).sum()


def test_spacing_and_gaps():
    assert view_spacing(single_axis(60)) == pytest.approx(np.pi / 60)
    there_and_back = Geometry.from_angles(np.arange(60) * 2 * np.pi / 60, 0.0, *SHAPES)
    assert view_spacing(there_and_back) == pytest.approx(np.pi / 30)
    assert view_spacing(single_axis(1)) == pytest.approx(np.pi / 6)
    assert 0.3 < view_spacing(random_views(400)) / np.sqrt(2 * np.pi / 400) < 0.8
    z = np.array([0.0, 0.0, 1.0])
    assert largest_gap(beams_across_z(12).p, z) == pytest.approx(np.pi / 12)
    assert largest_gap(beams_across_z(12).p[:7], z) == pytest.approx(np.pi / 2)
    assert largest_gap(np.empty((0, 3)), z) == np.pi


def test_summary_and_plot(tmp_path):
    found = observability(tilt_series(30), SecondMomentResponse(), 4)
    lines = found.summary().splitlines()
    assert lines[0].startswith("SecondMomentResponse, 191 views")
    assert lines[4].split()[:3] == ["4", "15", "15"]
    assert lines[-1] == "the data alone determine orders up to ell_max=2"
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "map.png"
    figure = found.plot(path)
    assert image.imread(path).std() > 0.1
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[2] == "rank up to ℓ = 4 (of 15; all beams: 12)"
    worst = observability(Geometry.from_angles([0.0], 0.0, *SHAPES), SecondMomentResponse(), 2, tolerance_rad=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert worst.plot() is not None  # all conditions infinite


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"geometry": None}, TypeError, "geometry"),
        ({"geometry": random_views(3)[[]]}, ValueError, "at least one view"),
        ({"response": None}, TypeError, "response"),
        ({"ell_max": 3}, ValueError, "even order"),
        ({"directions": 0}, ValueError, "directions"),
        ({"tolerance_rad": 0.0}, ValueError, "tolerance_rad"),
        ({"tolerance_rad": 10.0}, ValueError, "tolerance_rad"),
        ({"condition_limit": 0.5}, ValueError, "condition_limit"),
    ],
)
def test_bad_input_is_named(change, error, text):
    arguments = {"geometry": random_views(3), "response": SecondMomentResponse(), "ell_max": 2} | change
    with pytest.raises(error, match=text):
        observability(**arguments)
