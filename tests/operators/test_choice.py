"""What ``backend="auto"`` takes, and what it says of it."""

from __future__ import annotations

import re

import pytest

import ddf_tomo as dt
from ddf_tomo.operators.backends import BACKENDS, Description, choice
from ddf_tomo.operators.backends.choice import choose_backend

GEOMETRY = dt.Geometry.from_angles([0.0, 0.5], 0.0, (10, 20, 30), (40, 30))


@pytest.fixture
def triton(monkeypatch):
    """A machine whose Triton is there or not, whatever this one's is; nothing is measured on cards."""
    there = {"numba": True, "triton": True}
    monkeypatch.setattr(choice, "_is_installed", lambda name: there.get(name, True))
    monkeypatch.setitem(BACKENDS, "triton", Description("ddf_tomo.operators.backends.reference", ("cuda",)))
    monkeypatch.setattr(choice, "MEASURED", {key: table for key, table in choice.MEASURED.items() if key[1] == "cpu"})
    return there


def test_numba_on_the_cpu_with_a_time(triton):
    for channels in (None, 1, 6, 40):
        name, why = choose_backend(GEOMETRY, "cpu", channels)
        assert name == "numba"
        speed = choice.MEASURED["numba", "cpu"][15 if channels == 40 else channels or 1]
        told = re.fullmatch(
            r"numba: (\S+) updates a second .*; reference: \S+; about (\S+) s for one projection.*", why
        )
        assert told is not None, why
        assert float(told[1]) == pytest.approx(speed, rel=0.1)
        assert float(told[2]) == pytest.approx(10 * 20 * 30 * 2 * (channels or 1) / speed, rel=0.1)


def test_triton_on_cards_and_the_reference_without(triton):
    name, why = choose_backend(GEOMETRY, "cuda:1")
    assert name == "triton"
    assert "nobody has measured" in why
    triton["triton"] = False
    name, why = choose_backend(GEOMETRY, "cuda")
    assert (name, "the only one" in why) == ("reference", True)
    assert choose_backend(GEOMETRY, "mps")[0] == "reference"
    triton["numba"] = False
    assert choose_backend(GEOMETRY, "cpu")[0] == "reference"


def test_the_quickest_is_taken_whatever_its_name(triton, monkeypatch):
    monkeypatch.setitem(choice.MEASURED, ("reference", "cpu"), {1: 1e9, 12: 1.0})
    assert choose_backend(GEOMETRY, channels=1)[0] == "reference"
    assert choose_backend(GEOMETRY, channels=12)[0] == "numba"


def test_inexact_ones_are_taken_on_request_only(triton, monkeypatch):
    monkeypatch.setitem(choice.MEASURED, ("astra", "cpu"), {1: 1e20})
    assert choose_backend(GEOMETRY)[0] == "numba"


def test_the_operator_tells():
    A = dt.XRayTransform(GEOMETRY, channels=6)
    assert (A.backend, A.why) == choose_backend(GEOMETRY, "cpu", 6)
    assert A.views([0]).backend == A.backend
    assert dt.XRayTransform(GEOMETRY, "reference").why == "reference: as asked for"


def test_bad_arguments_are_named():
    for arguments, words in (
        ((3,), "geometry: expected a ddf_tomo.Geometry"),
        ((GEOMETRY, "gpu"), "device: expected a torch device"),
        ((GEOMETRY, "cpu", 1.5), "channels: expected an integer"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            choose_backend(*arguments)
