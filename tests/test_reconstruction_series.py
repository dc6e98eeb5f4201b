"""Several scans (q-bins, energies, distances) in one call."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest

from ddf_tomo import IsotropicResponse, RankTwoResponse, SaxsResponse, SecondMomentResponse, reconstruct
from ddf_tomo.operators.rank_two import rank_two_from_second_moment
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from tests.interruption import same

SHAPE = (8, 8, 8)
SERIES = tilt_series(SHAPE, views=(14, 16), tilts_rad=(0.0, 0.6))
QUIET = {"progress": False}


def energy(seed, factor=1.0):
    """The sample at another energy: another noise, and scattering that is stronger by a factor."""
    made = simulate(helicoidal_fibres, SERIES, SecondMomentResponse(), noise=0.03, seed=seed)
    return dataclasses.replace(
        made, data=(factor * made.data).astype(np.float32), weights=made.weights / np.float32(factor**2)
    )


FIRST, SECOND = energy(0), energy(1, 7.0)
TENSORS = dataclasses.replace(
    FIRST, data=rank_two_from_second_moment(FIRST.data), weights=None, response=RankTwoResponse()
)


def distance(found, expected):
    return np.linalg.norm(found.coefficients - expected.coefficients) / np.linalg.norm(expected.coefficients)


def test_a_list_of_one_is_a_list_of_what_one_gives():
    (alone,) = reconstruct([FIRST], ell_max=2, iterations=5, **QUIET)
    assert same(alone, reconstruct(FIRST, ell_max=2, iterations=5, **QUIET))
    (tupled,) = reconstruct((FIRST,), ell_max=2, iterations=5, **QUIET)
    assert same(alone, tupled)


def test_the_results_are_those_of_separate_calls():
    together = reconstruct([FIRST, SECOND], ell_max=2, **QUIET)
    first, second = (reconstruct(scan, ell_max=2, **QUIET) for scan in (FIRST, SECOND))
    assert same(together[0], first)
    # The search for the weight begins elsewhere, and ends as near as its steps allow.
    assert together[1].settings["weight"] == pytest.approx(second.settings["weight"], rel=0.2)
    assert distance(together[1], second) < 0.02
    given = reconstruct([FIRST, SECOND], ell_max=2, weight=0.01, **QUIET)
    assert distance(given[1], reconstruct(SECOND, ell_max=2, weight=0.01, **QUIET)) < 1e-3


@pytest.mark.parametrize(("method", "share"), [("cg", 0.7), ("lbfgs", 0.7), ("fista", 0.7)])
def test_a_warm_start_saves_iterations(method, share):
    """Ten of them come nearer to the minimum than ten from nothing."""
    options = {"method": method, "ell_max": 2, "weight": 0.01, **QUIET}
    end = reconstruct(SECOND, iterations=200, **options)
    cold = reconstruct(SECOND, iterations=10, start="zero", **options)
    warm = reconstruct([FIRST, SECOND], iterations=10, **options)[1]
    assert distance(warm, end) < share * distance(cold, end)


@pytest.mark.parametrize("options", [{"prior": None}, {"method": "sirt"}])
def test_without_a_prior_each_begins_anew(options):
    """There the number of iterations keeps the noise out: those of another scan would count."""
    options |= {"ell_max": 2, "iterations": 8, **QUIET}
    assert same(reconstruct([FIRST, SECOND], **options)[1], reconstruct(SECOND, **options))


def test_scans_may_differ_in_geometry_response_and_order():
    larger = simulate(
        helicoidal_fibres, tilt_series((9, 8, 8), views=(10, 12), tilts_rad=(0.0, 0.6)), SecondMomentResponse()
    )
    segments = simulate(helicoidal_fibres, SERIES, SaxsResponse(np.arange(8) * np.pi / 8), noise=0.03)
    mean = simulate(helicoidal_fibres, SERIES, IsotropicResponse(), noise=0.03)
    scans = [FIRST, mean, segments, TENSORS, larger]
    found = reconstruct(scans, weight=0.01, iterations=30, **QUIET)
    assert [each.ell_max for each in found] == [2, 0, 2, 2, 2]
    assert [each.coefficients.shape[0] for each in found] == [8, 8, 8, 8, 9]
    for each, scan in zip(found, scans, strict=True):
        assert each.geometry is scan.geometry
        assert distance(each, reconstruct(scan, weight=0.01, iterations=30, **QUIET)) < 0.03
    # Six numbers of harmonics are no tensor, and another volume no start: those two began anew.
    for place in (3, 4):
        assert same(found[place], reconstruct(scans[place], weight=0.01, iterations=30, **QUIET))


def test_one_bar_over_all(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, name, show):
            self.total, self.n, self.names = total, 0, []
            bars.append(self)

        def set_description(self, text, refresh):
            self.names.append(text)

        def update(self):
            self.n += 1
            assert self.n <= self.total

        def close(self):
            assert self.n == self.total

    monkeypatch.setattr("ddf_tomo._one_scan.progress_bar", Bar)
    reconstruct([FIRST, SECOND], ell_max=2, iterations=5)
    (bar,) = bars
    assert bar.n > 2 * 5 + 2 * 3 * 12  # weights were tried, too
    assert bar.names == [
        "scan 1 of 2, choosing the weight of the prior",
        "scan 1 of 2, reconstructing",
        "scan 2 of 2, choosing the weight of the prior",
        "scan 2 of 2, reconstructing",
    ]


def test_the_bar_closes_when_something_fails(monkeypatch):
    closed = []
    monkeypatch.setattr("ddf_tomo._one_scan.Bar.close", lambda self: closed.append(True))
    with pytest.raises(ValueError, match=r"^scan 2 of 2: "):
        reconstruct([FIRST, dark(SECOND)], ell_max=2, iterations=2, **QUIET)
    assert closed == [True]


def dark(scan):
    """Numbers that leave the range of float32 when they are multiplied."""
    return dataclasses.replace(scan, data=np.full_like(scan.data, 1e38), weights=None)


def test_errors_and_warnings_name_the_scan():
    with pytest.raises(ValueError, match=r"^scan 2 of 2: method: expected one for harmonics.*, got 'irtt'"):
        reconstruct([TENSORS, FIRST], "irtt", **QUIET)
    with pytest.raises(ValueError, match=r"^scan 1 of 2: ell_max: expected an even order"):
        reconstruct([FIRST, SECOND], ell_max=3, **QUIET)
    unweighted = dataclasses.replace(SECOND, weights=None)
    with pytest.raises(ValueError, match=r"^scan 2 of 2: noise_level: expected a number, where the scan has no"):
        reconstruct([FIRST, unweighted], weight="discrepancy", **QUIET)
    with pytest.raises(TypeError, match=r"^scan: expected at least one Scan, and nothing else, got ndarray"):
        reconstruct([FIRST, FIRST.data])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        reconstruct([FIRST, SECOND[:6]], iterations=1, weight=0.01, **QUIET)
        reconstruct(SECOND[:6], iterations=1, weight=0.01, **QUIET)
    named = [str(each.message) for each in told]
    assert named[0].startswith("scan 2 of 2: these 6 views alone")
    assert named[1].startswith("these 6 views alone")
    assert {each.filename for each in told} == {__file__}, "a warning points at the line of the caller"
    with pytest.raises(ValueError, match=r"^checkpoint: expected a folder"):
        reconstruct([FIRST, SECOND], ell_max=2, checkpoint="/nowhere/at/all", **QUIET)


def test_each_scan_has_its_checkpoint(tmp_path, monkeypatch):
    options = {"ell_max": 2, "iterations": 5, "checkpoint": tmp_path / "state", **QUIET}
    first = reconstruct([FIRST], **options)
    assert sorted(path.name for path in (tmp_path / "state" / "0").iterdir()) == ["final.h5", "plan.h5", "weight.h5"]
    monkeypatch.setattr("ddf_tomo._one_scan.cross_validated_weight", None)
    again = reconstruct([FIRST], **options)
    assert same(first[0], again[0])
    monkeypatch.undo()
    both = reconstruct([FIRST, SECOND], **options)  # one more scan, as it came in
    assert same(both[0], first[0])
    assert same(both[1], reconstruct([FIRST, SECOND], ell_max=2, iterations=5, **QUIET)[1])
    with pytest.raises(ValueError, match=r"^scan 1 of 2: checkpoint: expected these data, .* got other"):
        reconstruct([SECOND, FIRST], **options)
