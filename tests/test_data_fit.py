"""What a reconstruction keeps of its data's residual: against sums of its own, and through files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddf_tomo import Reconstruction, SecondMomentResponse, reconstruct
from ddf_tomo.merits import data_misfit
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series

GEOMETRY = tilt_series((10, 10, 10), tilts_rad=[0.0, 0.6], views=[9, 9])
SCAN = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.02, seed=1)
QUICK = {"iterations": 4, "ell_max": 2, "prior": None, "progress": False}


@pytest.mark.parametrize("method", ["cg", "fbp"])
def test_it_is_the_sum_over_the_data(method):
    weights = np.array(SCAN.full_weights())
    weights[3], weights[:, 0] = 0, 0
    scan = replace(SCAN, weights=weights)
    options = QUICK if method == "cg" else {"ell_max": 2, "progress": False}
    found = reconstruct(scan, method, **options)
    assert found.fit.per_datum == pytest.approx(data_misfit(found, scan), rel=1e-5)
    squares = weights * (found.predicted() - scan.data) ** 2
    assert found.fit.per_view[5] == pytest.approx(squares[5].sum() / (weights[5] > 0).sum(), rel=1e-4)
    assert np.isnan(found.fit.per_view[3])
    assert found.fit.noise == pytest.approx(weights[weights > 0].mean() ** -0.5, rel=1e-5)
    assert found.fit.noise_from == "weights"


def test_without_weights_noise_is_what_changes_between_neighbours():
    """Of a smooth sample on a fine detector, which hides it least."""
    fine = tilt_series((10, 10, 10), (30, 30), tilts_rad=[0.0, 0.6], views=[9, 9])
    scan = simulate(helicoidal_fibres, fine, SecondMomentResponse(), noise=0.05, seed=1)
    found = reconstruct(replace(scan, weights=None), **QUICK)
    assert found.fit.noise_from == "neighbouring pixels"
    assert found.fit.noise == pytest.approx(np.asarray(scan.full_weights()).mean() ** -0.5, rel=0.2)
    spread = float(np.mean((found.predicted() - scan.data) ** 2))
    assert found.fit.per_datum == pytest.approx(spread / found.fit.noise**2, rel=1e-4)
    masked = reconstruct(replace(scan, weights=np.ones((1, 1, 1, 1), np.float32)), **QUICK)
    assert masked.fit.noise_from == "neighbouring pixels"


def test_where_nothing_tells_the_noise():
    narrow = tilt_series((2, 2, 2), (2, 2), tilts_rad=[0.0, 0.6], views=[4, 4])
    scan = replace(simulate(helicoidal_fibres, narrow, SecondMomentResponse()), weights=None)
    found = reconstruct(scan, **(QUICK | {"ell_max": 0}))
    assert found.fit is None
    assert "χ²" not in found.summary()


def test_files_hold_it(tmp_path):
    found = reconstruct(SCAN, **QUICK)
    found.save(tmp_path / "volume.h5")
    again = Reconstruction.load(tmp_path / "volume.h5")
    np.testing.assert_array_equal(again.fit.per_view, found.fit.per_view)
    assert (again.fit.per_datum, again.fit.noise_from) == (found.fit.per_datum, "weights")
    assert f"χ² of {found.fit.per_datum:.3g} per datum" in again.summary()
    replace(found, fit=None).save(tmp_path / "older.h5")
    assert Reconstruction.load(tmp_path / "older.h5").fit is None
