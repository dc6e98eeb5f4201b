"""Adapters of other programs: their conventions brought to ours, and what is said where they are not installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import h5py
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
FRAMES = np.ones((5, 48, 48))


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


def stand_in(monkeypatch, name, **contents):
    """A package of this name with these functions."""
    parts = name.split(".")
    for n in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:n]))
        module.__path__ = ["/nowhere"]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)


def test_a_peer_that_is_not_there_is_said_to_be_missing(modules, monkeypatch):
    for name in ("UMPA_directional_dark_field", "mbipy", "popcorn"):
        monkeypatch.setitem(sys.modules, name, None)
    retrieval = modules("retrieval")
    for peer in modules("peers").PEERS.values():
        cut = SimpleNamespace(sample=FRAMES, reference=FRAMES)
        answer, problem = retrieval._attempt(lambda peer=peer, cut=cut: retrieval._theirs(peer, cut))
        assert answer is None
        assert problem.startswith("not installed")


def test_coefficients_of_second_derivatives_are_half_a_covariance(modules, monkeypatch):
    """lcs_ddf fits I = T (R − u·∇R + a ∂_jj R + b ∂_kk R + c ∂_jk R), steps last."""

    def lcs_ddf(sample, reference, weak_absorption):
        assert sample.shape == reference.shape == (48, 48, 5)
        assert weak_absorption is False
        return np.broadcast_to([0.9, 0.1, -0.2, 0.5, 0.3, 0.25], (48, 48, 6))

    stand_in(monkeypatch, "mbipy.src.phase_retrieval.implicit.lcs", lcs_ddf=lcs_ddf)
    found = modules("peers").mbipy_lcs_ddf(FRAMES, FRAMES)
    assert found.displacement[3, 4].tolist() == [0.1, -0.2]
    assert found.covariance[3, 4].tolist() == [1.0, 0.25, 0.6]
    assert found.pixels == 48**2


def test_popcorn_gives_columns_first(modules, monkeypatch):
    stand_in(monkeypatch, "popcorn.phase_retrieval")
    flat = np.ones((48, 48))
    stand_in(monkeypatch, "LCS", LCS=lambda experiment: (0.3 * flat, -0.1 * flat, flat))
    stand_in(monkeypatch, "MISTII_2", MISTII_2=lambda experiment: (flat, 0.5 * flat, 0.2 * flat, 0.1 * flat))
    peers = modules("peers")
    moved = peers.popcorn_lcs(FRAMES, FRAMES)
    assert moved.displacement[0, 0].tolist() == [-0.1, 0.3]
    assert moved.covariance is None
    blurred = peers.popcorn_mistii(FRAMES, FRAMES)
    assert blurred.displacement is None
    assert blurred.covariance[0, 0].tolist() == [1.0, 0.1, 0.4]


def test_umpas_kernel_is_the_one_it_convolves_with(modules, monkeypatch):
    """Its kernel is exp(−a i² − b ij − c j²); the covariance is the inverse of [[2a, b], [b, 2c]]."""
    first, second, width = 0.4, 0.3, 1.2

    def do_it_all_for_me(sams, refs, save_path, **options):
        assert np.isclose(np.mean(refs), 1)
        with h5py.File(save_path + "_x.h5", "w") as file:
            shape = (3, 3)
            file["final_vals_stage_2"] = np.broadcast_to([first, second, width], (*shape, 3))
            file["dpcy_stage_2"], file["dpcx_stage_2"] = np.full(shape, 0.5), np.full(shape, -0.25)

    stand_in(monkeypatch, "UMPA_directional_dark_field", do_it_all_for_me=do_it_all_for_me)
    found = modules("peers").umpa_ddf(7 * FRAMES, 5 * FRAMES, window=2, step=8)
    seen = np.isfinite(found.covariance[..., 0])
    assert np.argwhere(seen)[0].tolist() == [15, 15]
    assert found.pixels == seen.sum() == 9
    share, angle = first**2 + second**2, np.arctan2(second, first)
    along, across = width**2 / (1 + share), width**2 / (1 - share)
    a = 0.5 * (np.cos(angle) ** 2 / along + np.sin(angle) ** 2 / across)
    b = 0.5 * (np.sin(2 * angle) / along - np.sin(2 * angle) / across)
    c = 0.5 * (np.sin(angle) ** 2 / along + np.cos(angle) ** 2 / across)
    covariance = np.linalg.inv([[2 * a, b], [b, 2 * c]])
    np.testing.assert_allclose(found.covariance[15, 15], covariance[[0, 0, 1], [0, 1, 1]], rtol=1e-12)
    assert found.displacement[15, 15].tolist() == [-0.5, 0.25]


def test_rods_lean_and_turn(modules):
    """The axis of a leaning cylinder is found; a tensor turned upright has its axes along rows and columns."""
    rods = modules("rods")
    rows, columns = np.arange(30.0)[:, None], np.arange(200.0)
    chord = np.sqrt(np.maximum(60**2 - (columns - 90 - 0.08 * (rows - 14.5)) ** 2, 0))
    texture = 1 + 0.3 * np.sin(columns - 0.08 * (rows - 14.5))
    axis = rods.find_axis(np.exp(-0.003 * chord * texture), (10, 170))
    assert axis.column == pytest.approx(90, abs=1)
    assert axis.radius == pytest.approx(60, abs=2)
    assert axis.lean == pytest.approx(0.08, abs=0.005)
    angle = np.arctan(0.08)
    along = np.array([np.cos(angle), np.sin(angle)])  # of a rod that leans, (j, k)
    tensor = np.eye(2) - 0.7 * np.outer(along, along)
    turned = rods.turn(tensor[[0, 0, 1], [0, 1, 1]], angle)
    np.testing.assert_allclose(turned, [0.3, 0, 1], atol=1e-12)
