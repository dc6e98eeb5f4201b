"""Each method, prior, rule and constraint of `reconstruct`, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ddf_tomo import RankTwoResponse, Reconstruction, SecondMomentResponse, TensorXRayTransform, reconstruct
from ddf_tomo._plan import METHODS, UNREGULARISED
from ddf_tomo.derived import angle_between
from ddf_tomo.operators.rank_two import rank_two_from_second_moment
from ddf_tomo.operators.spherical_harmonics import evaluate, half_sphere_grid
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import L1, GroupSparsity, NonNegativeMean, Smoothness, TotalVariation

SHAPE = (8, 8, 8)
SERIES = tilt_series(SHAPE, views=(14, 16), tilts_rad=(0.0, 0.6))
SCAN = simulate(helicoidal_fibres, SERIES, SecondMomentResponse(), noise=0.03)
TENSORS = dataclasses.replace(
    SCAN, data=rank_two_from_second_moment(SCAN.data), weights=None, response=RankTwoResponse()
)
TRUTH, DIRECTIONS, MASK = helicoidal_fibres(SHAPE)
QUIET = {"progress": False}


def scan_for(method):
    return TENSORS if METHODS[method].of_tensors else SCAN


def objective(volume, scan, prior):
    """``½ |W^(1/2) (A c - data)|² + prior(c)`` in plain numpy, but for the operator."""
    weights = 1.0 if scan.weights is None else scan.weights
    return 0.5 * float((weights * (volume.predicted() - scan.data) ** 2).sum(dtype=np.float64)) + prior


def total_variation(c):
    """Norm over all differences and coefficients of a voxel, beyond the mean doubled; none across the border."""
    c = c * np.where(np.arange(c.shape[-1]) > 0, 2, 1)
    differences = np.zeros((3, *c.shape))
    for axis in range(3):
        step = np.diff(c, axis=axis)
        differences[axis][tuple(slice(n) for n in step.shape)] = step
    return np.sqrt((differences**2).sum((0, -1))).sum()


# -- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_each_method_finds_the_fibres_and_says_how(method):
    found = reconstruct(scan_for(method), method, **QUIET)
    settings = dict(found.settings)
    assert np.median(np.degrees(angle_between(found.derived().direction, DIRECTIONS))[MASK]) < 12
    assert np.corrcoef(found.derived().mean[MASK], TRUTH[..., 0][MASK])[0, 1] > 0.7
    prior = METHODS[method].takes_priors
    iterations = METHODS[method].iterations // (2 if prior else 1)  # half of them where a search went before
    assert settings.pop("weight") > 0 if prior else settings.pop("weight") == 0
    assert 0 < settings.pop("residual_share") < 0.5
    assert settings.pop("height") > 0
    assert settings == {
        "method": method,
        "prior": "tv" if prior else "none",
        "weight_from": "cross-validation" if prior else "no prior",
        "positive": method == "irtt",
        "iterations": iterations,
        "stopped_by": "iterations",
        "start": "fbp" if prior else "zero",
    }
    assert len(found.residuals) == iterations + 1


def test_settings_survive_the_file(tmp_path):
    for number, options in enumerate(({"prior": None}, {"prior": 3 * Smoothness(SHAPE)}, {"weight": 0.01})):
        found = reconstruct(SCAN, ell_max=2, iterations=2, **options, **QUIET)
        found.save(tmp_path / f"{number}.h5")
        assert dict(Reconstruction.load(tmp_path / f"{number}.h5").settings) == dict(found.settings)


def test_iterations_by_default():
    few = reconstruct(SCAN, ell_max=2, prior=None, **QUIET)
    assert few.settings["iterations"] == UNREGULARISED < METHODS["cg"].iterations
    assert reconstruct(SCAN, ell_max=2, weight=0, **QUIET).settings["iterations"] == METHODS["cg"].iterations
    assert reconstruct(SCAN, "lbfgs", ell_max=2, prior=None, iterations=3, **QUIET).settings["iterations"] == 3


@pytest.fixture(scope="module")
def very_long():
    return reconstruct(SCAN, "fista", iterations=150, ell_max=2, weight=0.02, **QUIET)


@pytest.mark.parametrize("method", ["cg", "lbfgs", "fista", "pdhg"])
def test_all_methods_minimise_the_same(method, very_long):
    """The objective of the docstring, with the prior in units of the response to a constant volume."""
    options = {"ell_max": 2, "weight": 0.02, **QUIET}
    found = reconstruct(SCAN, method, iterations=1000 if method == "pdhg" else 100, **options)
    scale = _response(SCAN) * found.settings["height"]

    def value(volume):
        return objective(volume, SCAN, 0.02 * scale * total_variation(volume.coefficients.astype(float)))

    best = value(very_long)
    # Gradients need the corner of the norm rounded: half a rounding a voxel is what that may cost.
    allowed = (
        0.02 * scale * 0.03 * found.settings["height"] * np.prod(SHAPE) if METHODS[method].rounding else 1e-3 * best
    )
    assert value(found) <= best + allowed
    assert value(found) < 0.5 * value(reconstruct(SCAN, method, iterations=1, start="zero", **options))


def _response(scan):
    """``|W^(1/2) A 1|² / |1|²`` of a constant volume."""
    constant = np.zeros((*SHAPE, 6), np.float32)
    constant[..., 0] = 1
    seen = TensorXRayTransform(scan.geometry, scan.response, 2)(constant)
    return float((scan.weights * seen**2).sum(dtype=np.float64)) / np.prod(SHAPE)


# -- priors and weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "lbfgs", "fista", "pdhg", "irtt"])
@pytest.mark.parametrize("prior", ["tv", "smoothness", None])
def test_each_prior_by_its_name(method, prior):
    scan, options = scan_for(method), {"prior": prior, "ell_max": 2, "iterations": 10, **QUIET}
    if prior is None:
        assert reconstruct(scan, method, **options).settings["weight"] == 0
        return
    weak, strong = (reconstruct(scan, method, weight=weight, **options) for weight in (1e-3, 1.0))
    assert total_variation(strong.coefficients) < 0.9 * total_variation(weak.coefficients)
    assert strong.settings["prior"] == prior


@pytest.mark.parametrize("method", ["cg", "lbfgs", "fista", "pdhg"])
def test_a_functional_of_ones_own(method):
    """Its weight is its own, in the units of the data: that of "smoothness" times the response of a volume."""
    named = reconstruct(SCAN, method, ell_max=2, prior="smoothness", weight=0.05, iterations=12, **QUIET)
    own = 0.05 * _response(SCAN) * Smoothness(SHAPE)
    found = reconstruct(SCAN, method, ell_max=2, prior=own, iterations=12, **QUIET)
    tolerance = 1e-3 * np.abs(named.coefficients).max()
    np.testing.assert_allclose(found.coefficients, named.coefficients, atol=tolerance)
    assert found.settings["prior"] == repr(own)
    assert (found.settings["weight"], found.settings["weight_from"]) == (1.0, "given")
    half = reconstruct(SCAN, method, ell_max=2, prior=2 * own, weight=0.5, iterations=12, **QUIET)
    np.testing.assert_allclose(half.coefficients, found.coefficients, atol=tolerance)


def error(volume):
    return np.linalg.norm(volume.coefficients - TRUTH[..., :6])


@pytest.mark.parametrize("rule", ["cross-validation", "discrepancy", "l-curve"])
@pytest.mark.parametrize("prior", ["tv", "smoothness"])
def test_each_rule_finds_a_weight_that_pays(rule, prior):
    found = reconstruct(SCAN, ell_max=2, prior=prior, weight=rule, **QUIET)
    assert found.settings["weight_from"] == rule
    assert 1e-4 < found.settings["weight"] < 1
    weak = reconstruct(SCAN, ell_max=2, prior=prior, weight=1e-6, **QUIET)
    assert error(found) < 0.95 * error(weak)
    if rule == "discrepancy":  # weights are inverse variances: the noise is the root of the number of data
        assert found.residuals[-1] == pytest.approx(np.sqrt(SCAN.data.size), rel=0.03)


def test_discrepancy_aims_at_the_noise_level_that_is_given():
    level = 1.5 * np.sqrt(SCAN.data.size)
    found = reconstruct(SCAN, ell_max=2, weight="discrepancy", noise_level=level, **QUIET)
    assert found.residuals[-1] == pytest.approx(level, rel=0.03)
    assert found.settings["stopped_by"] == "iterations", "a start below the level is not yet a solution"


def test_a_level_does_not_end_a_constrained_run_at_its_start():
    """The search knows no constraint: where it ended below the level, the result would lack it."""
    found = reconstruct(
        SCAN, "fista", ell_max=2, weight="discrepancy", noise_level=1e4, positive=True, iterations=10, **QUIET
    )
    assert found.settings["iterations"] == 10
    assert (lowest(found) >= -0.01 * found.coefficients[..., 0] - 1e-12).all()


def test_few_views_get_a_typical_weight():
    with pytest.warns(UserWarning, match="do not determine"):
        found = reconstruct(SCAN[:8], iterations=2, **QUIET)
    assert found.settings["weight"] == 0.01
    assert found.settings["weight_from"] == "cross-validation was impossible: a typical weight"


@pytest.mark.parametrize("method", ["fista", "pdhg", "lbfgs", "sirt"])
@pytest.mark.parametrize("kind", ["data", "weights"])
def test_the_weight_has_no_unit(method, kind):
    """Neither the unit of the data nor that of the weights changes what a weight does."""
    options = {"ell_max": 2, "iterations": 10, **({} if method == "sirt" else {"weight": 0.02}), **QUIET}
    first = reconstruct(SCAN, method, **options)
    if kind == "data":
        scaled = dataclasses.replace(SCAN, data=np.float32(1e-9) * SCAN.data, weights=SCAN.weights * np.float32(1e18))
        second, factor = reconstruct(scaled, method, **options), 1e-9
    else:
        second = reconstruct(dataclasses.replace(SCAN, weights=16 * SCAN.weights), method, **options)
        factor = 1.0
    np.testing.assert_allclose(second.coefficients / factor, first.coefficients, atol=1e-3 * first.coefficients.max())


def test_a_weight_means_the_same_for_finer_voxels():
    """The weight that predicts best hardly moves when voxels are half as large: it was tried from 1e-3 to 1e-1."""
    fine = tilt_series((14, 14, 14), views=(14, 16), tilts_rad=(0.0, 0.6))
    weights = [
        reconstruct(
            simulate(helicoidal_fibres, series, SecondMomentResponse(), noise=0.03), ell_max=2, iterations=1, **QUIET
        ).settings["weight"]
        for series in (SERIES, fine)
    ]
    assert 1 / 3 < weights[0] / weights[1] < 3


# -- constraints ------------------------------------------------------------------------------------------------------


def lowest(volume):
    """Smallest value of each voxel's function, on directions that the constraint does not know."""
    directions = half_sphere_grid(777)
    return (volume.coefficients.astype(float) @ np.asarray(evaluate(directions, volume.ell_max)).T).min(-1)


@pytest.mark.parametrize("method", ["fista", "pdhg"])
@pytest.mark.parametrize("ell_max", [0, 2, 4])
def test_positive_is_positive_in_every_direction(method, ell_max):
    """Between the 4000 directions of the last step it dips by 1 % of the voxel's mean at most: half a curvature of
    ``ℓ (ℓ + 1)`` times the square of half their distance, 0.02; for ℓ ≤ 2, measured, far less."""
    options = {"ell_max": ell_max, "weight": 1e-3, "iterations": 15, **QUIET}
    free = reconstruct(SCAN, method, **options)
    assert lowest(free).min() < -0.05 * free.coefficients[..., 0].max()
    found = reconstruct(SCAN, method, positive=True, **options)
    mean = found.coefficients[..., 0]
    assert mean.min() >= 0
    assert (lowest(found) >= -0.01 * mean - 1e-12).all()
    assert found.settings["positive"] is True
    # It is the result that the last residual tells of.
    misfit = np.sqrt((SCAN.weights * (found.predicted() - SCAN.data) ** 2).sum(dtype=np.float64))
    assert found.residuals[-1] == pytest.approx(misfit, rel=1e-4)
    assert found.settings["residual_share"] == pytest.approx(
        misfit / np.sqrt((SCAN.weights * SCAN.data**2).sum(dtype=np.float64)), rel=1e-4
    )


@pytest.mark.parametrize(("method", "asked"), [("fista", True), ("pdhg", True), ("irtt", False)])
def test_positive_tensors_have_no_negative_eigenvalue(method, asked):
    """But for the rounding of float32."""
    found = reconstruct(TENSORS, method, positive=asked, iterations=10, **QUIET)
    x = found.coefficients.astype(float)[..., [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(*SHAPE, 3, 3)
    eigenvalues = np.linalg.eigvalsh(x)
    assert eigenvalues.min() > -1e-5 * eigenvalues.max()
    assert eigenvalues.max() > 0
    assert found.settings["positive"] is True


def test_sirt_keeps_the_mean_positive():
    free = reconstruct(SCAN, "sirt", ell_max=2, **QUIET)
    found = reconstruct(SCAN, "sirt", ell_max=2, positive=True, **QUIET)
    assert free.coefficients[..., 0].min() < 0
    assert found.coefficients[..., 0].min() >= 0


# -- what is refused, before the work ---------------------------------------------------------------------------------

REFUSED = [
    ({"method": "irtt"}, "^method: expected one for harmonics, which SecondMoment.*, got 'irtt'.*rank_two_from"),
    ({"prior": Smoothness((9, 8, 8))}, r"^prior: expected one on \(8, 8, 8, 6\), got .*Smoothness> on \(9, 8, 8, .*\)"),
    ({"prior": TotalVariation(SHAPE)}, "^prior: expected a smooth one, as method 'cg' .*, got <1 · Total"),
    ({"prior": GroupSparsity(), "method": "lbfgs"}, "^prior: expected a smooth one, as method 'lbfgs'"),
    ({"prior": NonNegativeMean()}, "^prior: expected a smooth one"),
    ({"prior": L1(), "method": "sirt"}, "^prior: expected None, as method 'sirt' takes none"),
    ({"prior": Smoothness(SHAPE), "weight": "l-curve"}, "^weight: expected 'auto', or a factor, with a prior of"),
    ({"prior": None, "weight": "l-curve"}, "^weight: expected 'auto' or 0 without a prior, got 'l-curve'"),
    ({"prior": None, "weight": 0.1}, "^weight: expected 'auto' or 0 without a prior, got 0.1"),
    ({"method": "sirt", "weight": 0.1}, "^weight: expected 'auto' or 0 without a prior"),
    ({"noise_level": 3.0}, "^noise_level: expected None with prior='tv', weight='cross-.*, got 3.0. it is where"),
    ({"noise_level": 0.0, "weight": "discrepancy"}, "^noise_level: expected a finite number in .0.0"),
    ({"positive": True}, "^positive: expected False, as method 'cg' takes no constraints, got True. 'fista' does"),
    ({"scan": dataclasses.replace(SCAN, weights=None), "weight": "discrepancy"}, "^noise_level: expected a number, wh"),
    ({"scan": TENSORS, "method": "sirt", "positive": True}, "^positive: expected False, .* 'irtt', 'fista' and"),
]  # fmt: skip


@pytest.mark.parametrize(("wishes", "text"), REFUSED)
def test_what_cannot_be_is_refused_at_once(wishes, text, monkeypatch):
    for name in ("conjugate_gradients", "cross_validated_weight"):
        monkeypatch.setattr(f"ddf_tomo._one_scan.{name}", None)
    with pytest.raises(ValueError, match=text):
        reconstruct(**{"scan": SCAN, "ell_max": 2, **QUIET, **wishes})
