"""The rotation axis is found, with its error, and what cannot be is said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo.radiographs import Radiographs
from ddf_tomo.retrieval.absorption import absorption, axial_geometry
from ddf_tomo.retrieval.rotation_axis import RotationAxis, find_rotation_axis, mirror_correlation
from tests.retrieval.blobs import (
    blob_frames,
    blob_scan,
)


@settings(max_examples=30, deadline=None)
@given(
    column=st.floats(24.0, 40.0),
    span=st.sampled_from([np.pi, 1.2 * np.pi, 1.9 * np.pi]),
    views=st.integers(24, 60),
    jitter=st.floats(0.0, 0.9),
    seed=st.integers(0, 1000),
)
def test_axis_is_found_within_a_fifth_of_a_column(column, span, views, jitter, seed):
    rng = np.random.default_rng(seed)
    angles = (np.arange(views) + jitter * rng.uniform(size=views)) * span / views + rng.uniform(0, 6)
    frames = blob_frames(angles, 12, 64, column, seed=seed, counts=1000.0)  # noise of 3 %, signal to 50 %
    result = absorption(Radiographs(frames, np.full((12, 64), 1000.0), None, angles), air=None)
    axis = find_rotation_axis(result.data, angles)
    # Once in a few hundred samples 24 views leave a standard error of 0.09 columns, and the axis 0.22 off.
    assert abs(axis.column - column) < max(0.2, 3 * axis.standard_error)
    assert axis.columns == 64
    assert 0 <= axis.inconsistency < 0.2


def test_a_missing_wedge_is_said_and_does_no_harm_without_noise():
    angles = np.linspace(0, np.radians(140), 40)
    result = absorption(blob_scan(angles, axis_column=27.6, columns=56))
    with pytest.warns(UserWarning, match=r"no view within a range of 40° of directions"):
        axis = find_rotation_axis(result.data, angles)
    assert abs(axis.column - 27.6) < 0.05


def test_standard_error_of_the_axis_is_that_of_repetitions():
    angles = np.linspace(0, np.pi, 45, endpoint=False)
    clean = -np.log(blob_frames(angles, 6, 64, 30.4) / 20000).swapaxes(1, 2)
    rng = np.random.default_rng(3)
    found = [find_rotation_axis(clean + 0.05 * rng.normal(size=clean.shape), angles) for _ in range(60)]
    columns, errors = np.array([a.column for a in found]), np.array([a.standard_error for a in found])
    assert abs(columns.mean() - 30.4) < 4 * columns.std() / np.sqrt(60)
    assert 0.7 < columns.std() / errors.mean() < 1.4


def test_axis_search_and_offset():
    angles = np.linspace(0, np.pi, 30, endpoint=False)
    data = absorption(blob_scan(angles, axis_column=36.7, columns=56)).data
    assert abs(find_rotation_axis(data, angles).column - 36.7) < 0.02
    limited = find_rotation_axis(data, angles, search=(20.0, 30.0))
    assert 20 <= limited.column <= 30
    assert RotationAxis(36.7, 0.0, 0.0, 56).j_offset == pytest.approx(27.5 - 36.7)
    geometry = axial_geometry(angles, (56, 4), 36.7)
    assert geometry.volume_shape == (56, 56, 4)
    centres = geometry.pixel_centres()[:, :, 0]  # the axis projects onto column 36.7 in every view
    along_j = np.einsum("vji,vi->vj", centres, geometry.j)
    np.testing.assert_allclose(along_j, np.arange(56) - 36.7 + 0 * angles[:, None], atol=1e-9)


def test_mirror_correlation_knows_the_axis():
    angles = np.array([0.2, 1.0, 0.2 + np.pi])
    data = absorption(blob_scan(angles, axis_column=25.3)).data
    assert mirror_correlation(data, angles, 25.3) > 0.999
    assert mirror_correlation(data[..., 0], angles, 27.3) < 0.95
    assert mirror_correlation(np.ones((2, 8, 3)), [0.0, np.pi], 3.0) == 0.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.ones((8, 9)), np.arange(8)), "projections: expected shape"),
        ((np.ones((8, 9, 2, 3)), np.arange(8)), "projections: expected shape"),
        ((np.ones((8, 9, 2)), np.arange(7)), "angles_rad: expected shape"),
        ((np.ones((8, 9, 2)), np.zeros(8)), "angles_rad: expected angles that differ, got 8 times 0"),
        ((np.ones((4, 9, 2)), np.arange(4)), "at least 6 different directions, got 4"),
        ((np.zeros((8, 9, 2)), np.linspace(0, 3, 8)), "an object in some view, got zero everywhere"),
        ((np.full((8, 9, 2), np.nan), np.arange(8)), "finite"),
    ],
)
def test_axis_names_what_is_wrong(arguments, text):
    with pytest.raises(ValueError, match=text):
        find_rotation_axis(*arguments)


def test_axis_refuses_a_search_off_the_detector_and_lone_views():
    for search in ((3.0, 2.0), (-1.0, 4.0), (2.0, 9.0)):
        with pytest.raises(ValueError, match="search: expected two increasing columns in"):
            find_rotation_axis(np.ones((8, 9, 2)), np.linspace(0, 3, 8), search=search)
    with pytest.raises(ValueError, match="at least two views"):
        mirror_correlation(np.ones((1, 9, 2)), [0.0], 4.0)
    with pytest.raises(ValueError, match="column: expected a finite number"):
        mirror_correlation(np.ones((2, 9, 2)), [0.0, 1.0], 12.0)
