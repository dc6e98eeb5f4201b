"""Figures of merit, against figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ddf_tomo import (
    RankTwoResponse,
    Reconstruction,
    SaxsResponse,
    Scan,
    SecondMomentResponse,
    TensorXRayTransform,
    reconstruct,
)
from ddf_tomo.derived import derive
from ddf_tomo.merits import Merits, compare, data_misfit
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.rotation import rotate
from ddf_tomo.operators.spherical_harmonics import evaluate, resize, sphere_quadrature
from ddf_tomo.phantoms import fibre_legendre, helicoidal_fibres, mixture, simulate, tilt_series, zonal

TRUTH = helicoidal_fibres((10, 9, 8))
GEOMETRY = tilt_series((10, 9, 8), views=(4, 5), tilts_rad=(0.0, 0.4))


def volume(directions, strengths):
    """Voxels in a row: fibres along the directions, on an isotropic ground, mixed with these shares."""
    fibres = zonal(np.asarray(directions, float), fibre_legendre())
    coefficients = np.asarray(strengths, float)[:, None] * fibres
    coefficients[:, 0] = 1.0
    return coefficients[:, None, None]


def in_plane(degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)


# -- coefficients -----------------------------------------------------------------------------------------------------


def test_the_truth_has_no_error():
    merits = compare(TRUTH, TRUTH)
    assert merits.nrmse == merits.nrmse_shared_orders == merits.anisotropy_rmse == 0
    assert merits.nrmse_per_order == {0: 0, 2: 0, 4: 0}
    assert merits.mean_correlation == pytest.approx(1)
    assert merits.direction_error_p90_rad < 1e-7
    assert merits.voxels == TRUTH.mask.sum()


def test_errors_are_those_of_the_functions():
    """Harmonics are orthogonal: NRMSE of coefficients is that of the functions on the sphere, by quadrature."""
    generator = np.random.default_rng(0)
    truth = np.abs(generator.normal(size=(3, 2, 2, 15)))
    found = truth + 0.3 * generator.normal(size=truth.shape)
    directions, weights = sphere_quadrature(8)
    difference, norm = ((v @ evaluate(directions, 4).T) ** 2 @ weights for v in (found - truth, truth))
    sample = truth[..., 0] > 0.1 * truth[..., 0].max()
    merits = compare(found, truth)
    assert merits.nrmse == pytest.approx(math.sqrt(difference[sample].sum() / norm[sample].sum()))
    for order, columns in ((0, slice(0, 1)), (2, slice(1, 6)), (4, slice(6, 15))):
        error, size = (np.linalg.norm(v[sample][:, columns]) for v in (found - truth, truth))
        assert merits.nrmse_per_order[order] == pytest.approx(error / size)
    assert merits.mean_correlation == pytest.approx(np.corrcoef(found[sample][:, 0], truth[sample][:, 0])[0, 1])
    anisotropy = [derive(v).fractional_anisotropy[sample] for v in (found, truth)]
    assert merits.anisotropy_rmse == pytest.approx(math.sqrt(((anisotropy[0] - anisotropy[1]) ** 2).mean()))


def test_orders_that_one_lacks_count_as_zero():
    short, full = compare(TRUTH.coefficients[..., :6], TRUTH), TRUTH.coefficients[TRUTH.mask].astype(float)
    lost = np.linalg.norm(full[:, 6:]) / np.linalg.norm(full)
    assert short.nrmse == pytest.approx(lost, rel=1e-5)
    assert short.nrmse_shared_orders == 0
    assert short.nrmse_per_order == {0: 0, 2: 0, 4: 1}
    padded = resize(TRUTH.coefficients, 6)
    assert compare(padded, TRUTH).nrmse_per_order == {0: 0, 2: 0, 4: 0, 6: 0}
    padded[..., 20] = 0.1
    invented = compare(padded, TRUTH)
    assert invented.nrmse_per_order[6] == math.inf
    assert invented.nrmse > 0
    assert invented.nrmse_shared_orders == 0


def test_scale_does_not_matter():
    found = 1.2 * TRUTH.coefficients.astype(float)
    for unit in (1.0, 1e-150, 1e200):
        merits = compare(unit * found, unit * TRUTH.coefficients.astype(float))
        assert merits.nrmse == pytest.approx(0.2)
        assert merits.mean_correlation == pytest.approx(1)


# -- directions -------------------------------------------------------------------------------------------------------


def test_angles_between_known_directions():
    errors = [1.0, 2.0, 5.0, 20.0, 50.0]
    truth, found = volume(in_plane([0] * 5), [0.5] * 5), volume(in_plane(errors), [0.4] * 5)
    merits = compare(found, truth)
    for angle in (merits.direction_error_median_rad, merits.direction_error_unweighted_median_rad):
        assert math.degrees(angle) == pytest.approx(5.0)
    assert math.degrees(merits.direction_error_p90_rad) == pytest.approx(50.0)
    assert math.degrees(merits.direction_error_unweighted_p90_rad) == pytest.approx(38.0)  # as numpy's: between two


def test_a_rotation_turns_all_directions_by_its_angle_at_most():
    angle = 0.1
    matrix = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    merits = compare(rotate(TRUTH.coefficients.astype(float), matrix), TRUTH)
    # Fibres 15° out of the plane across the axis.
    expected = math.acos(1 - (1 - math.cos(angle)) * math.cos(math.radians(15)) ** 2)
    assert merits.direction_error_median_rad == pytest.approx(expected, rel=1e-4)
    assert merits.direction_error_p90_rad == pytest.approx(expected, rel=1e-4)


def test_isotropic_voxels_do_not_count_but_in_the_unweighted_figures():
    """Two thirds of the voxels are isotropic, with directions of chance."""
    truth = volume(in_plane([0] * 6), [0, 0, 0, 0, 0.5, 0.5])
    found = volume(in_plane([80, 80, 80, 80, 3, 4]), [0.1] * 4 + [0.5] * 2)
    merits = compare(found, truth)
    assert math.degrees(merits.direction_error_median_rad) == pytest.approx(3.0)
    assert math.degrees(merits.direction_error_p90_rad) == pytest.approx(4.0)
    assert math.degrees(merits.direction_error_unweighted_median_rad) > 60  # true directions are of chance as well


def test_weighted_percentiles_by_repetition():
    """A voxel of three times the anisotropy counts as three voxels do (anisotropy is not linear: weights are found)."""
    generator = np.random.default_rng(1)
    shares, errors = generator.uniform(0.05, 0.6, 30), generator.uniform(0, 60, 30)
    truth, found = volume(in_plane(np.zeros(30)), shares), volume(in_plane(errors), [0.4] * 30)
    counts = np.round(1000 * derive(truth).fractional_anisotropy.ravel()).astype(int)
    repeated = np.sort(np.repeat(errors, counts))
    merits = compare(found, truth)
    for found_angle, share in ((merits.direction_error_median_rad, 0.5), (merits.direction_error_p90_rad, 0.9)):
        assert math.degrees(found_angle) == pytest.approx(repeated[math.ceil(share * len(repeated)) - 1])


def test_what_nothing_defines_is_nan():
    truth = volume(in_plane([0] * 4), [0] * 4)
    merits = compare(volume(in_plane([10] * 4), [0.4] * 4), truth)
    assert math.isnan(merits.direction_error_median_rad)
    assert math.isnan(merits.mean_correlation)  # a constant mean
    assert merits.as_dict()["mean_correlation"] is None
    assert "nan" in str(merits)
    assert compare(np.zeros_like(truth), truth).nrmse == 1


def test_the_threshold_chooses_the_voxels():
    means = np.array([0.0, -1.0, 0.05, 0.2, 0.6, 1.0])
    truth = means[:, None, None, None] * np.ones((1, 1, 1, 1))
    for threshold, count in ((0.1, 3), (0.0, 4), (0.5, 2)):
        assert compare(truth, truth, threshold).voxels == count


# -- what may be compared ---------------------------------------------------------------------------------------------


def test_reconstructions_truths_and_arrays():
    made = Reconstruction(TRUTH.coefficients[..., :6].copy(), 2, GEOMETRY, SecondMomentResponse())
    first, *others = (compare(a, b).as_dict() for a in (made, made.coefficients) for b in (TRUTH, TRUTH.coefficients))
    for name in first:
        assert all(other[name] == pytest.approx(first[name], abs=1e-7) for other in others)
    assert compare(TRUTH, made).nrmse_per_order[4] == math.inf


def test_rank_two_tensors_are_compared_as_what_they_stand_for():
    tensors = TRUTH.tensors()
    made = Reconstruction(1.1 * tensors, 2, GEOMETRY, RankTwoResponse())
    merits = compare(made, TRUTH)
    assert merits.nrmse_per_order == pytest.approx({0: 0.1, 2: 0.1}, rel=1e-5)
    assert merits.anisotropy_rmse < 1e-6
    assert merits.direction_error_p90_rad < 1e-4
    same = Reconstruction(tensors, 2, GEOMETRY, RankTwoResponse())
    assert compare(made, same).nrmse == pytest.approx(merits.nrmse)
    # Arrays are harmonics: of the function q̂ᵀ Σ q̂.
    assert compare(made, coefficients_from_tensor(tensors)).nrmse == pytest.approx(0.1, rel=1e-5)
    assert compare(coefficients_from_tensor(tensors), made).nrmse == pytest.approx(0.1 / 1.1, rel=1e-5)


def test_a_rank_two_scan_comes_back():
    geometry = tilt_series((14, 14, 14), views=(12, 16, 16), tilts_rad=(0.0, 0.4, 0.8))
    found = reconstruct(simulate("helicoidal", geometry, RankTwoResponse(), noise=0.005), progress=False)
    truth = helicoidal_fibres((14, 14, 14))
    merits = compare(found, truth)
    assert merits.nrmse_per_order[2] < 0.25
    assert math.degrees(merits.direction_error_median_rad) < 4
    # The harmonics of the phantom are another function, of 5/2 times the part of order 2.
    assert compare(found, truth.coefficients).nrmse_per_order[2] > 0.5


def test_a_truth_cut_at_a_low_order_knows_its_directions():
    cut = helicoidal_fibres((10, 9, 8), ell_max=0)
    assert compare(cut, TRUTH).direction_error_p90_rad < 1e-7
    assert compare(cut.coefficients, TRUTH).direction_error_median_rad > 0.1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"found": TRUTH.coefficients[:-1]}, ValueError, r"^found \(volume\): expected shape \(10, 9, 8\)"),
        ({"found": TRUTH.coefficients[..., :5]}, ValueError, "^found: expected 1, 6, 15"),
        ({"found": TRUTH.coefficients[0]}, ValueError, "^found: expected shape"),
        ({"found": np.full((10, 9, 8, 6), np.nan)}, ValueError, "^found: expected finite values"),
        ({"found": "fibres"}, TypeError, "^found: expected real numbers"),
        ({"found": None}, (TypeError, ValueError), "^found: expected"),
        ({"truth": TRUTH.coefficients[..., :7]}, ValueError, "^truth: expected 1, 6, 15"),
        ({"truth": 0 * TRUTH.coefficients}, ValueError, "^truth: expected a mean above the threshold"),
        ({"truth": -TRUTH.coefficients}, ValueError, "^truth: expected a mean above the threshold"),
        ({"threshold": 1.0}, ValueError, "^truth: expected a mean above the threshold"),
        ({"threshold": 10}, ValueError, "^threshold: expected a finite number"),
    ],
)
def test_bad_comparisons(arguments, error, text):
    with pytest.raises(error, match=text):
        compare(**{"found": TRUTH.coefficients, "truth": TRUTH, **arguments})


# -- for people and machines ------------------------------------------------------------------------------------------


def test_as_dict_is_json():
    padded = resize(TRUTH.coefficients, 6)
    padded[..., 20] = 0.1
    merits = compare(padded, TRUTH)
    again = json.loads(json.dumps(merits.as_dict(), allow_nan=False))
    assert again["nrmse_per_order"] == {"0": 0.0, "2": 0.0, "4": 0.0, "6": None}
    assert set(again) == set(Merits.__dataclass_fields__)
    assert again["voxels"] == merits.voxels


def test_texts_tell_degrees():
    merits = compare(volume(in_plane([12.0] * 3), [0.3] * 3), volume(in_plane([0] * 3), [0.5] * 3))
    lines = str(merits).splitlines()
    assert any("direction" in line and "12.00° | 12.00°" in line for line in lines)
    assert any("ℓ = 4" in line for line in lines)
    page = merits._repr_html_()
    assert page.startswith("<table>")
    assert page.count("<tr>") == len(lines)


# -- data -------------------------------------------------------------------------------------------------------------


def test_the_truth_explains_noisy_data_to_within_the_noise():
    response = SaxsResponse(np.arange(6) * np.pi / 6)
    scan = simulate(mixture, GEOMETRY, response, oversampling=1, noise=0.03)
    truth = Reconstruction(mixture(GEOMETRY.volume_shape).coefficients, 4, GEOMETRY, response)
    n = scan.data.size
    assert data_misfit(truth, scan) == pytest.approx(1.0, abs=5 * math.sqrt(2 / n))
    residual = TensorXRayTransform(GEOMETRY, response, 4)(truth.coefficients) - scan.data
    assert data_misfit(truth, scan) == pytest.approx((scan.weights * residual.astype(float) ** 2).mean(), rel=1e-5)
    # Masked data do not count, and views that were not reconstructed can be asked about.
    weights = scan.weights.copy()
    weights[:, :5] = 0
    data = np.where(weights > 0, scan.data, 1e6)
    masked = Scan(data, GEOMETRY, response, weights)
    assert data_misfit(truth, masked) == pytest.approx(1.0, abs=0.1)
    assert data_misfit(truth, scan[:3]) == pytest.approx(1.0, abs=0.1)
    nothing = Reconstruction(0 * truth.coefficients, 4, GEOMETRY, response)
    assert data_misfit(nothing, scan) > 10


def test_bad_misfits():
    scan = simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse(), noise=0.1)
    made = Reconstruction(TRUTH.coefficients, 4, GEOMETRY, SecondMomentResponse())
    with pytest.raises(ValueError, match=r"^scan: expected one with weights"):
        data_misfit(made, simulate(helicoidal_fibres, GEOMETRY, SecondMomentResponse()))
    with pytest.raises(ValueError, match=r"^scan \(volume\): expected shape"):
        data_misfit(made, simulate(helicoidal_fibres, tilt_series((5, 5, 5)), SecondMomentResponse(), noise=0.1))
    with pytest.raises(ValueError, match=r"^scan: expected a response to the coefficients"):
        data_misfit(made, simulate(helicoidal_fibres, GEOMETRY, RankTwoResponse(), noise=0.1))
    with pytest.raises(TypeError, match=r"^reconstruction: expected a ddf_tomo\.Reconstruction"):
        data_misfit(TRUTH, scan)
    with pytest.raises(TypeError, match=r"^scan: expected a ddf_tomo\.Scan"):
        data_misfit(made, scan.data)
