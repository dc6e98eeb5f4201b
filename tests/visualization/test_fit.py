"""Figures of the fit and of the acquisition: residuals are what they are called, beams are where they point."""

from __future__ import annotations

import numpy as np
import pytest

from ddf_tomo import (
    Geometry,
    Reconstruction,
    SaxsResponse,
    Scan,
    SecondMomentResponse,
    TensorXRayTransform,
    VisibilityResponse,
    observability,
)
from ddf_tomo._pictures import channel_names, equal_area
from ddf_tomo.phantoms import helicoidal_fibres, tilt_series
from ddf_tomo.visualization import STYLES, misfit_of_views, show_beams, show_observability, show_projections
from ddf_tomo.visualization.projections import predicted_by, standardized_residual

SHAPE = (8, 7, 6)
SIGMA = 0.05


@pytest.fixture(scope="module")
def made():
    """A volume, and a scan of it with known noise, a masked row, and one view that is wrong."""
    geometry = tilt_series(SHAPE, views=[4, 5], tilts_rad=[0.0, 0.5])
    response = SecondMomentResponse()
    coefficients = helicoidal_fibres(SHAPE, 2)[0]
    exact = TensorXRayTransform(geometry, response, 2)(coefficients)
    noise = SIGMA * np.random.default_rng(0).standard_normal(exact.shape)
    data = (exact + noise).astype(np.float32)
    data[6] += 1
    weights = np.full(data.shape, 1 / SIGMA**2, np.float32)
    weights[:, 0] = 0
    scan = Scan(data, geometry, response, weights=weights, provenance={"data_unit": "1e-12 rad^2"})
    return Reconstruction(coefficients, 2, geometry, response), scan, exact


def test_the_misfit_is_the_mean_square_of_what_was_added(made):
    volume, scan, exact = made
    misfit = misfit_of_views(volume, scan)
    expected = (((scan.data - exact)[:, 1:] / SIGMA) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(misfit, expected, rtol=1e-4)
    assert misfit.argmax() == 6
    assert np.delete(misfit, 6) == pytest.approx(1, abs=0.4)
    np.testing.assert_allclose(misfit_of_views(exact, scan), misfit, rtol=1e-4)


def test_residuals_without_weights_are_in_units_of_their_spread(made):
    _, scan, exact = made
    bare = Scan(scan.data[:6], scan.geometry[:6], scan.response)
    residual, known = standardized_residual(exact[:6], bare)
    assert not known
    assert np.median(np.abs(residual)) == pytest.approx(1 / 1.4826)
    perfect, _ = standardized_residual(bare.data, bare)
    assert not perfect.any()


def test_other_views_of_the_same_volume_can_be_predicted(made):
    volume, scan, exact = made
    np.testing.assert_allclose(predicted_by(volume, scan[[7, 2]]), exact[[7, 2]], rtol=1e-5)


def panels(figure):
    return [axis for axis in figure.axes if axis.images]


def test_projections_show_data_prediction_and_residual(made):
    pytest.importorskip("matplotlib")
    volume, scan, exact = made
    figure = show_projections(volume, scan, [3, 6], channels=[0, 1])
    found = panels(figure)
    assert len(found) == 2 * 2 * 3
    by_column = [found[2 * n : 2 * n + 2] for n in range(6)]
    titles = [column[0].get_title() for column in by_column]
    assert titles == [
        "Θ_jj measured",
        "Θ_jj predicted",
        "residual / σ",
        "Θ_jk measured",
        "Θ_jk predicted",
        "residual / σ",
    ]
    for n, values in enumerate((scan.data, exact, (scan.data - exact) / SIGMA)):
        for axis, view in zip(by_column[n], (3, 6), strict=True):
            picture = axis.images[0].get_array()
            assert np.ma.getmaskarray(picture)[0].all()
            np.testing.assert_allclose(np.asarray(picture)[1:], values[view, 1:, :, 0], rtol=1e-3, atol=1e-4)
    assert {axis.images[0].cmap.name for axis in by_column[0] + by_column[1]} == {STYLES["signal"].colours}
    assert {axis.images[0].cmap.name for axis in by_column[3] + by_column[4]} == {STYLES["signed_signal"].colours}
    for column in (2, 5):
        (clim,) = {axis.images[0].get_clim() for axis in by_column[column]}
        assert clim[0] == -clim[1] < 0
    (clim,) = {axis.images[0].get_clim() for axis in by_column[0] + by_column[1]}
    assert clim[0] == 0
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels.count("signal (µrad²)") == 4
    assert labels.count("residual / σ") == 2
    assert by_column[0][1].get_ylabel().startswith("view 6\nmisfit ")


def test_the_worst_view_is_shown_unless_told_otherwise(made):
    pytest.importorskip("matplotlib")
    volume, scan, _ = made
    figure = show_projections(volume, scan)
    shown = [axis.get_ylabel().split("\n")[0] for axis in panels(figure) if axis.get_ylabel()]
    assert shown[-1] == "view 6"
    assert len(shown) == 4
    marked = figure.axes[0].get_lines()[1].get_xdata()
    assert [f"view {view}" for view in marked] == shown


@pytest.mark.parametrize("views", [1, 2])
def test_scans_of_hardly_any_views_or_values(views, tmp_path):
    pytest.importorskip("matplotlib")
    geometry = Geometry.from_angles(np.arange(views), 0.0, (1, 1, 1), (1, 1))
    scan = Scan(np.zeros((views, 1, 1, 2)), geometry, SaxsResponse([0.0, 1.0]))
    show_projections(np.zeros((views, 1, 1, 2)), scan, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"views": [9]}, "views"),
        ({"views": []}, "views"),
        ({"views": 0.5}, "views"),
        ({"channels": [3]}, "channels"),
        ({"views": list(range(9)) * 3}, "views"),
        ({"reconstruction": np.zeros(3)}, "reconstruction"),
        ({"reconstruction": None}, "reconstruction"),
        ({"scan": None}, "scan"),
    ],
)
def test_what_does_not_belong_together_is_told(made, change, text):
    volume, scan, _ = made
    with pytest.raises((ValueError, TypeError), match=text):
        show_projections(**({"reconstruction": volume, "scan": scan} | change))


def test_a_reconstruction_of_another_volume_is_told(made):
    volume, scan, _ = made
    other = Reconstruction(np.zeros((3, 3, 3, 6)), 2, volume.geometry, volume.response)
    with pytest.raises(ValueError, match="reconstruction: expected a volume of"):
        misfit_of_views(other, scan)
    fewer = Reconstruction(volume.coefficients[..., :1], 2, volume.geometry, volume.response)
    with pytest.raises(ValueError, match="reconstruction: expected 6 coefficients"):
        misfit_of_views(fewer, scan)


def test_names_of_channels():
    assert channel_names(VisibilityResponse(np.radians([[0.0, 45.0]])), 2) == ["0°", "45°"]
    assert channel_names(object(), 1) == ["signal"]
    assert channel_names(VisibilityResponse(np.zeros((3, 2))), 2) == ["channel 0", "channel 1"]


def test_beams_are_where_they_point_and_have_their_values():
    pytest.importorskip("matplotlib")
    geometry = tilt_series(SHAPE, views=[5, 7], tilts_rad=[0.0, 0.4])
    values = np.arange(12.0) ** 2
    figure = show_beams(geometry, values=values)
    (points,) = (found for found in figure.axes[0].collections if len(found.get_offsets()))
    offsets, shown = np.asarray(points.get_offsets()), np.asarray(points.get_array())
    np.testing.assert_allclose(offsets[:12], equal_area(geometry.p))
    np.testing.assert_allclose(offsets[12:], -equal_area(geometry.p[:5]))  # in the xy plane: at both ends
    np.testing.assert_array_equal(shown, [*values, *values[:5]])
    np.testing.assert_allclose(np.linalg.norm(offsets[:5], axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(offsets[5:12], axis=1), np.sqrt(2) * np.sin((np.pi / 2 - 0.4) / 2))
    assert figure.axes[1].get_ylabel() == "mean square of residual / σ"
    assert show_beams(geometry).axes[1].get_ylabel() == "view"
    assert show_beams(geometry[:0]).axes[0].get_title() == "0 beams"
    with pytest.raises(ValueError, match="values"):
        show_beams(geometry, values=[1.0])


def test_observability_is_that_of_the_nearest_direction(tmp_path):
    pytest.importorskip("matplotlib")
    report = observability(tilt_series(SHAPE, views=[6, 9], tilts_rad=[0.0, 0.5]), SecondMomentResponse(), 4)
    figure = show_observability(report, path=tmp_path / "map.pdf")
    maps = panels(figure)
    assert len(maps) == 4
    generator = np.random.default_rng(0)
    for direction in generator.normal(size=(20, 3)):
        direction /= np.linalg.norm(direction)
        x, y = equal_area(direction)
        if np.hypot(x, y) > 0.98:
            continue
        row, column = (round((c + 1) / 2 * 239) for c in (y, x))
        nearest = np.argsort(-np.abs(report.directions @ direction))[:3]  # a pixel may lie across a border
        assert maps[0].images[0].get_array()[row, column] in report.seeing[nearest]
        assert maps[1].images[0].get_array()[row, column] in np.degrees(report.gap_rad[nearest])
    worst = observability(Geometry.from_angles([0.0], 0.0, SHAPE, (8, 6)), SecondMomentResponse(), 2)
    show_observability(worst)  # all conditions infinite
    with pytest.raises(TypeError, match="report"):
        show_observability(None)
