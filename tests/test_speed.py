"""What the machine does, and what a reconstruction will cost: told in the right shape. No times are judged."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from ddf_tomo import speed
from ddf_tomo.cli import main
from ddf_tomo.memory import Size, predicted_memory
from ddf_tomo.speed import Rate, Speed, measure, predict, show

SMALL = Size((8, 8, 8), (20, 8, 12, 3), 6)


@pytest.fixture(scope="module")
def measured():
    return measure(0.05, edge=8)


def test_every_usable_backend_is_measured_in_both_directions(measured):
    assert measured.threads == torch.get_num_threads()
    assert {(rate.backend, rate.channels) for rate in measured.rates} >= {
        (name, count) for name in ("numba", "reference") for count in (1, 6, 15)
    }
    figures = [
        measured.copy_bytes,
        measured.flops,
        *(f for rate in measured.rates for f in (rate.forward, rate.adjoint)),
    ]
    assert all(0 < figure < math.inf for figure in figures)


def test_a_backend_that_fails_is_left_out(monkeypatch):
    real = speed.XRayTransform

    def sometimes(geometry, name, *more, **other):
        if name == "reference":
            raise ImportError("not today")
        return real(geometry, name, *more, **other)

    monkeypatch.setattr(speed, "XRayTransform", sometimes)
    assert "reference" not in {rate.backend for rate in measure(0.01, edge=8).rates}


def test_the_best_time_counts_and_the_first_does_not(monkeypatch):
    ticks = iter([0.0, 3.0, 3.0, 5.0, 5.0, 9.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(ticks))
    calls = []
    assert speed._best(lambda: calls.append(0), 8.0) == 2.0
    assert len(calls) == 4


def test_what_the_views_take_and_what_the_prior_does(monkeypatch):
    """0.1 s for each view, and 0.5 s for the prior."""
    monkeypatch.setattr(speed, "_projections", lambda size, views: 0.1 * views)
    monkeypatch.setattr(speed, "_iteration", lambda size, views, plan: 0.5 + 0.1 * views)
    cost = predict(replace(SMALL, data_shape=(238, 8, 12, 3)))
    assert cost.seconds_per_iteration == pytest.approx(0.5 + 23.8)
    assert cost.seconds == pytest.approx(cost.iterations * cost.seconds_per_iteration)
    streamed = predict(replace(SMALL, data_shape=(238, 8, 12, 3), streams=True))
    assert streamed.seconds_per_iteration == pytest.approx(0.5 + 1.5 * 23.8)
    assert predict(SMALL, weight=0.01).iterations == 60
    assert predict(SMALL).iterations > predict(SMALL, weight=0.01, iterations=20).iterations
    assert predict(SMALL, "fista", weight=0.01, iterations=7).iterations == 7


def test_large_volumes_are_scaled(monkeypatch):
    seen = []
    monkeypatch.setattr(speed, "_projections", lambda size, views: 0.0)
    monkeypatch.setattr(
        speed, "_iteration", lambda size, views, plan: seen.append(size) or 1e-6 * math.prod(size.volume_shape)
    )
    cost = predict(Size((256, 256, 128), (5, 256, 256, 3), 15))
    assert math.prod(seen[0].volume_shape) * 15 == pytest.approx(speed.LARGEST_NUMBERS, rel=0.1)
    assert seen[0].data_shape[1] == seen[0].volume_shape[0]
    assert cost.seconds_per_iteration == pytest.approx(1e-6 * 256 * 256 * 128)
    assert cost.memory == predicted_memory(cost.size)


@pytest.mark.parametrize("method", ["cg", "lbfgs", "fista", "pdhg", "sirt"])
def test_every_method_can_be_predicted(method, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    cost = predict(SMALL, method, weight="auto" if method == "sirt" else 0.01)
    assert 0 < cost.seconds_per_iteration < 60


@pytest.mark.parametrize("given", [{"size": 8}, {"method": "magic"}, {"prior": 3}, {"weight": -1.0}, {"iterations": 0}])
def test_bad_wishes_are_named(given):
    with pytest.raises((TypeError, ValueError), match=next(iter(given))):
        predict(**({"size": SMALL} | given))


def test_tables_and_json(monkeypatch, capsys):
    monkeypatch.setattr(speed, "_projections", lambda size, views: 0.01 * views)
    monkeypatch.setattr(speed, "_iteration", lambda size, views, plan: 0.01 * views)
    figures = Speed(2, 2e10, 1e11, (Rate("numba", 15, 1.7e9, 9e8),))
    monkeypatch.setattr(speed, "measure", lambda *_: figures)
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--benchmark", "--size", "64", "--coefficients", "15", "--views", "100", "--json"])
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rates"] == [{"backend": "numba", "channels": 15, "forward": 1.7e9, "adjoint": 9e8}]
    assert told["cost"]["seconds_per_iteration"] == pytest.approx(1.0)
    assert told["cost"]["memory_bytes"] == predicted_memory(Size(**told["cost"]["size"])).total
    with pytest.raises(SystemExit):
        main(["doctor", "--benchmark", "--size", "64", "--views", "100"])
    shown = capsys.readouterr().out
    for words in (
        "20 GB/s",
        "100 GFlop/s",
        "1.70e+09",
        "64 × 64 × 64 × 15 from 100 views",
        "an iteration",
        "1 s",
        "GB",
    ):
        assert words in shown
    show(figures)
    assert "reconstruction" not in capsys.readouterr().out
