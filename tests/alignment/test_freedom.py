"""Which corrections are allowed, and which of them no data can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ddf_tomo import Geometry, XRayTransform
from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.phantoms import tilt_series


def scattered(views=9):
    return Geometry.from_rotations(Rotation.random(views, rng=0).as_matrix(), (8, 8, 8), (8, 8))


def test_a_translation_of_the_volume_is_taken_out():
    geometry, shift = scattered(), np.array([0.3, -0.2, 0.5])
    looks_like = torch.from_numpy(np.stack([geometry.j @ shift, geometry.k @ shift], axis=1))
    freedom = Freedom(geometry)
    assert freedom.without_gauge(looks_like).abs().max() < 1e-12
    jitter = freedom.without_gauge(torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert (freedom.without_gauge(jitter) - jitter).abs().max() < 1e-12
    assert abs(float((jitter * looks_like).sum())) < 1e-12


def test_such_offsets_give_the_data_of_a_translated_volume():
    """By the projector itself: whole voxels, so that nothing is interpolated anew."""
    geometry = tilt_series((9, 9, 9), views=[4], tilts_rad=[0.0])
    x = torch.zeros(9, 9, 9, 1, dtype=torch.float64)
    x[3:6, 3:6, 3:6] = torch.rand(3, 3, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = np.array([1.0, 0.0, -2.0])
    moved = Geometry(
        geometry.p,
        geometry.j,
        geometry.k,
        geometry.j_offset + geometry.j @ shift,
        geometry.k_offset + geometry.k @ shift,
        geometry.volume_shape,
        geometry.detector_shape,
    )
    expected = XRayTransform(geometry)(x)[[0, 2]]
    found = XRayTransform(moved)(x.roll((1, 0, -2), (0, 1, 2)))[[0, 2]]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("drift", "rotations", "unseen"),
    [
        (None, False, 3),
        (None, True, 6),
        (0, False, 1),  # the shift along the axis; the one across it is the centre of rotation
        (3, False, 1),
    ],
)
def test_what_about_one_axis_no_data_can_tell(drift, rotations, unseen):
    freedom = Freedom(tilt_series((8, 8, 8), views=[12], tilts_rad=[0.0]), drift, rotations)
    assert freedom.unseen == unseen


def test_a_drift_is_a_polynomial_over_the_views():
    freedom = Freedom(scattered(), drift=2)
    parameters = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corrections = freedom.expand(parameters).numpy()
    assert np.abs(np.diff(corrections, 3, axis=0)).max() < 1e-12
    assert np.abs(np.diff(corrections, 2, axis=0)).max() > 1e-2
    other = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left, right = (freedom.expand(parameters) * other).sum(), (parameters * freedom.collect(other)).sum()
    torch.testing.assert_close(left, right)


def test_curvature_of_a_drift():
    freedom = Freedom(scattered(), drift=1)
    of_views = torch.rand(9, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    of_views = of_views + of_views.mT
    parameters = torch.rand(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    steps = freedom.expand(parameters)
    expected = torch.einsum("va,vab,vb->", steps, of_views, steps)
    flat = parameters.flatten()
    torch.testing.assert_close(flat @ freedom.curvature(of_views)[0] @ flat, expected)


def test_bad_input():
    with pytest.raises(TypeError, match="geometry: expected a ddf_tomo"):
        Freedom(None)
    with pytest.raises(ValueError, match=r"drift: expected an integer in \[0, 8\]"):
        Freedom(scattered(), drift=9)
