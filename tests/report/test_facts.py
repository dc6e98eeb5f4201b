"""The numbers behind a report, and the remarks that follow from them, each provoked once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddf_tomo import Geometry, IsotropicResponse, RankTwoResponse, Reconstruction, Scan, SecondMomentResponse
from ddf_tomo.merits import data_misfit
from ddf_tomo.phantoms import simulate, tilt_series
from ddf_tomo.report._facts import Facts, matching_scan
from ddf_tomo.report._remarks import remark_list, remarks
from tests.report.conftest import SHAPE


def told(reconstruction: Reconstruction, scan: Scan | None = None, kind: str = "warning") -> str:
    return "\n".join(f"{r.what}. {r.advice}" for r in remarks(Facts(reconstruction, scan)) if r.kind == kind)


def changed(volume: Reconstruction, **parts) -> Reconstruction:
    return replace(volume, **parts)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_fit_is_what_other_sums_give(volume: Reconstruction, scan: Scan) -> None:
    fit = Facts(volume, scan).fit
    assert fit.over_noise**2 == pytest.approx(data_misfit(volume, scan), rel=1e-6)
    assert fit.residual_share == pytest.approx(volume.settings["residual_share"], rel=1e-3)
    view = 7
    residual = volume.predicted()[view] - scan.data[view]
    assert fit.per_view[view] == pytest.approx(np.linalg.norm(residual) / np.linalg.norm(scan.data[view]), rel=1e-5)
    assert (fit.masked_share, fit.masked_views) == (0, 0)
    assert fit.free_share == volume.derived().valid.sum() * 6 / scan.data.size


def test_noise_is_unknown_without_weights_that_tell_it(volume: Reconstruction, scan: Scan) -> None:
    masked = np.ones(scan.data.shape, np.float32)
    masked[3], masked[:, 0] = 0, 0
    for weights in (None, masked):
        assert Facts(volume, replace(scan, weights=weights)).fit.over_noise is None
    fit = Facts(volume, replace(scan, weights=masked)).fit
    assert fit.masked_views == 1
    assert fit.masked_share == pytest.approx((masked == 0).mean())
    assert fit.per_view[3] == 0


def test_how_far_the_sample_reaches_beyond_the_detector(volume: Reconstruction) -> None:
    """Against a search, voxel by voxel, for a pixel that its centre falls on."""
    geometry = volume.geometry
    small = Geometry(geometry.p, geometry.j, geometry.k, geometry.j_offset + 1, geometry.k_offset, SHAPE, (8, 12))
    beyond = Facts(changed(volume, geometry=small)).beyond_detector
    view = 11
    pixels = small.pixel_centres()[view].reshape(-1, 3)
    lost, all_ = 0.0, 0.0
    for place in np.argwhere(volume.derived().valid):
        across = [np.abs((pixels - (place + 0.5 - 6)) @ axis) for axis in (small.j[view], small.k[view])]
        all_ += volume.derived().mean[tuple(place)]
        if not (np.maximum(*across) <= 0.5).any():
            lost += volume.derived().mean[tuple(place)]
    assert 0.05 < lost / all_ < 0.9
    assert beyond[view] == pytest.approx(lost / all_, rel=1e-5)
    assert Facts(volume).beyond_detector.max() < 0.01


def test_negative_voxels_are_counted(volume: Reconstruction) -> None:
    coefficients = np.zeros((*SHAPE, 6), np.float32)
    coefficients[..., 0] = 1
    assert Facts(changed(volume, coefficients=coefficients)).negative_share == 0
    coefficients[:3, ..., 3] = -1  # 1 - √5/2 (3 q_z² - 1) falls to 1 - √5 at the pole
    assert Facts(changed(volume, coefficients=coefficients)).negative_share == 0.25
    tensors = np.zeros((*SHAPE, 6), np.float32)
    tensors[..., [0, 3, 5]] = 1, 1, -0.2
    made = changed(volume, coefficients=tensors, response=RankTwoResponse())
    assert Facts(made).negative_share == 1


def test_a_scan_is_binned_to_the_reconstruction(volume: Reconstruction) -> None:
    geometry = tilt_series((16, 16, 16), tilts_rad=[0.0, 0.5], views=[4, 5])
    scan = simulate("helicoidal", geometry, SecondMomentResponse(), noise=0.01)
    made = Reconstruction(np.zeros((8, 8, 8, 6), np.float32), 2, geometry.binned(2), scan.response)
    np.testing.assert_array_equal(matching_scan(made, scan).data, scan.binned(2).data)
    assert matching_scan(replace(made, geometry=geometry), scan) is scan
    rounded = replace(geometry, j_offset=geometry.j_offset + 1e-12)
    assert matching_scan(replace(made, geometry=rounded), scan) is scan
    with pytest.raises(ValueError, match="the scan of this reconstruction"):
        matching_scan(replace(made, geometry=replace(geometry, j_offset=geometry.j_offset + 0.1)), scan)
    with pytest.raises(ValueError, match="the scan of this reconstruction"):
        matching_scan(replace(made, response=IsotropicResponse()), scan)
    with pytest.raises(ValueError, match="the scan of this reconstruction"):
        matching_scan(made, scan.binned(4))


# -- remarks ----------------------------------------------------------------------------------------------------------


def test_a_good_reconstruction_has_no_warnings(volume: Reconstruction, scan: Scan) -> None:
    assert told(volume, scan) == ""
    assert "residuals against noise" in told(volume, scan, "good")
    assert "residuals" not in told(volume, None, "good")
    assert "size of a voxel" in told(volume, scan, "note")


def test_undetermined_orders(volume: Reconstruction) -> None:
    fourth = np.concatenate([volume.coefficients, np.zeros((*SHAPE, 9), np.float32)], axis=-1)
    line = told(changed(volume, coefficients=fourth, ell_max=4))
    assert "do not determine everything up to ℓ = 4" in line
    assert "of the 15 unknowns of a voxel, and fully only those up to ℓ = 2" in line


def test_the_missing_wedge(volume: Reconstruction) -> None:
    limited = Geometry.from_angles(np.linspace(0, 1, 12), 0.0, SHAPE, (12, 12))
    assert "seen by no view" in told(changed(volume, geometry=limited))


@pytest.mark.parametrize(("factor", "words"), [(9.0, "not described to within"), (0.25, "more closely than")])
def test_residuals_against_noise(volume: Reconstruction, scan: Scan, factor: float, words: str) -> None:
    assert words in told(volume, replace(scan, weights=scan.weights * factor))


def test_single_bad_views_are_named(volume: Reconstruction, scan: Scan) -> None:
    data = scan.data.copy()
    data[[5, 9]] = data[[9, 5]] * 0.2
    assert "Views 5, 9 (counted from 0)" in told(volume, replace(scan, data=data))


def test_masked_data(volume: Reconstruction, scan: Scan) -> None:
    weights = np.array(scan.full_weights())
    weights[:, 0, 0] = 0
    line = told(volume, replace(scan, weights=weights), "note")
    assert "0.694 % of the data are masked" in line
    weights[4] = 0
    assert "among them 1 whole views" in told(volume, replace(scan, weights=weights))


def test_truncation(volume: Reconstruction, scan: Scan) -> None:
    g = volume.geometry
    narrow = Geometry(g.p, g.j, g.k, g.j_offset, g.k_offset, SHAPE, (6, 12))
    assert "the sample reaches beyond the detector" in told(changed(volume, geometry=narrow))
    full = changed(volume, coefficients=np.ones((*SHAPE, 6), np.float32))
    assert "touches the faces −x, +x, −y, +y, −z, +z" in told(full)
    assert "does not end within the detector" in told(volume, replace(scan, data=np.ones_like(scan.data)))


def test_the_solver(volume: Reconstruction) -> None:
    stopped = {"stopped_by": "iterations", "adjoint_is_exact": False}
    line = told(changed(volume, residuals=(10.0, 5.0, 4.0), settings=stopped))
    assert "last one still lowered the residual by 20 %" in line
    assert "not the exact transpose" in line
    assert "come to rest" not in told(changed(volume, residuals=(10.0, 4.0, 3.99), settings=stopped))


def test_an_empty_volume(volume: Reconstruction) -> None:
    assert told(changed(volume, coefficients=0 * volume.coefficients)).startswith("The volume holds no sample")


def test_warnings_come_first(volume: Reconstruction) -> None:
    full = changed(volume, coefficients=np.ones((*SHAPE, 6), np.float32))
    kinds = [remark.kind for remark in remarks(Facts(full))]
    assert kinds == sorted(kinds, key=("warning", "good", "note").index)
    assert {"warning", "note"} == set(kinds)
    assert remark_list(remarks(Facts(full))).startswith('<ul class="remarks">\n<li class="warning"><strong>Warning: ')


# -- learned priors ---------------------------------------------------------------------------------------------------


def test_doubts_and_shares_are_told(volume: Reconstruction, scan: Scan) -> None:
    """Stronger priors leave less to the data; without a scan the remark goes without numbers."""
    assert told(volume, scan, "note").count("learned") == 0
    shares = []
    for strength in (1e3, 1e5):
        learned = {"prior_strength": [strength, strength], "doubts": ["noise: 9, where training had 1 to 2"]}
        made = changed(volume, settings=learned)
        assert "may be wrong here. noise: 9, where training had 1 to 2" in told(made, scan)
        assert " % of order ℓ = 0, " in told(made, scan, "note")
        shares.append(Facts(made, scan).share.per_order)
    assert shares[0][2] > shares[1][2] + 0.1
    assert "what the data leave open" in told(made, None, "note")
    assert Facts(made).share is None


def test_what_was_kept_of_the_fit_is_printed(volume: Reconstruction, scan: Scan) -> None:
    from ddf_tomo.reconstruction import DataFit
    from ddf_tomo.report import _sections

    kept = changed(volume, fit=DataFit(1.5, np.array([1.0, np.nan, 2.25]), 0.02, "neighbouring pixels"))
    body = _sections.residuals(Facts(kept)).body
    assert "1.5 (1: residuals as large as the noise)" in body
    assert "2.25 at worst (view 2)" in body
    assert "0.02 of a datum of mean weight, from neighbouring pixels" in body
    assert "χ²" not in _sections.residuals(Facts(volume)).body
