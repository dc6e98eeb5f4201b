"""``ddf-tomo simulate`` writes what the library gives."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import ddf_tomo
from ddf_tomo.operators.responses import RankTwoResponse, SaxsResponse, SecondMomentResponse
from ddf_tomo.phantoms import PHANTOMS, tilt_series
from ddf_tomo.phantoms import simulate as simulate_scan


def test_simulate_writes_what_the_library_gives(run, tmp_path):
    words = ("simulate", "helicoidal", "-o", tmp_path / "s.h5", "--size", 8, "--tilts", "0,30", "--views", 11)
    code, out, err = run(*words, "--seed", 3, "--voxel-size", 25, "--json")
    assert (code, err) == (0, "")
    figures, scan = json.loads(out), ddf_tomo.Scan.read(tmp_path / "s.h5")
    geometry = tilt_series((8, 8, 8), tilts_rad=np.radians([0, 30]), views=[4, 7])
    expected = simulate_scan("helicoidal", geometry, SecondMomentResponse(), noise=0.02, seed=3)
    np.testing.assert_allclose(scan.data, expected.data, rtol=1e-6)
    np.testing.assert_allclose(scan.weights, np.broadcast_to(expected.weights, scan.data.shape))
    np.testing.assert_allclose(scan.geometry.p, geometry.p, atol=1e-12)
    assert (scan.response, scan.voxel_size_m) == (SecondMomentResponse(), pytest.approx(25e-6))
    assert scan.title == "simulated sample: helicoidal"
    assert (figures["views"], figures["shape"], figures["seed"]) == (11, [11, 8, 8, 3], 3)
    assert figures["strongest_signal"] == pytest.approx(float(scan.data.max()))


def test_simulate_has_the_views_of_a_real_scan_by_default(run, tmp_path):
    assert run("simulate", "shells", "-o", tmp_path / "s.h5", "--size", "4,4,6")[0] == 0
    geometry = ddf_tomo.Scan.read(tmp_path / "s.h5").geometry
    np.testing.assert_allclose(geometry.p, tilt_series((4, 4, 6)).p, atol=1e-12)
    assert geometry.volume_shape == (4, 4, 6)


RESPONSES = {
    "second-moment": (SecondMomentResponse(), 3),
    "rank-two": (RankTwoResponse(), 3),
    "saxs": (SaxsResponse(np.arange(5) * np.pi / 5), 5),
    "rank-two-saxs": (ddf_tomo.RankTwoSaxsResponse(np.arange(5) * np.pi / 5), 5),
    "visibility": (ddf_tomo.VisibilityResponse(np.arange(5) * np.pi / 5), 5),
    "directional-visibility": (ddf_tomo.DirectionalVisibilityResponse(np.arange(5) * np.pi / 5, 1.0), 5),
    "isotropic": (ddf_tomo.IsotropicResponse(), 1),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_simulate_for_every_response(run, tmp_path, name):
    """And the truth that is kept predicts the data, up to the finer grid that they were made on."""
    response, channels = RESPONSES[name]
    words = ("simulate", "shells", "-o", tmp_path / "s.h5", "--truth", tmp_path / "t.h5", "--size", 12)
    code, _, err = run(*words, "--views", 8, "--response", name, "--segments", 5, "--noise", 0)
    assert (code, err) == (0, "")
    scan, truth = ddf_tomo.Scan.read(tmp_path / "s.h5"), ddf_tomo.Reconstruction.load(tmp_path / "t.h5")
    assert (scan.response, scan.data.shape, scan.weights) == (response, (8, 12, 12, channels), None)
    assert (truth.response, truth.geometry) == (scan.response, scan.geometry)
    assert np.linalg.norm(truth.predicted() - scan.data) < 0.1 * np.linalg.norm(scan.data)
    expected = PHANTOMS["shells"]((12, 12, 12))
    exact = expected.tensors() if name.startswith("rank-two") else expected.coefficients
    np.testing.assert_array_equal(truth.coefficients, exact)


def test_simulate_counts(run, complaint, tmp_path):
    words = ("simulate", "bundles", "-o", tmp_path / "s.h5", "--size", 8, "--views", 8, "--response", "saxs")
    code, out, _ = run(*words, "--counts", 100)
    assert code == 0
    assert "noise model: poisson\ncounts: 100\n" in out
    scan = ddf_tomo.Scan.read(tmp_path / "s.h5")
    counted = scan.data * 100 / float(scan.provenance["counts"])
    assert len(np.unique(np.round(counted / counted[counted > 0].min(), 3))) < 200  # multiples of one count
    assert "either --noise or --counts" in complaint(*words, "--counts", 100, "--noise", 0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "0"], "size: expected an integer in [1"),
        (["--size", "8,8"], "size: expected one number of voxels"),
        (["--size", "1e9"], "size: expected"),
        (["--size", "100000"], "size: expected"),
        (["--tilts", "0,x"], "tilts: expected angles in degrees"),
        (["--tilts", "0,nan"], "tilts: expected a finite number"),
        (["--tilts", "100"], "tilts: expected"),
        (["--views", "3"], "views: expected an integer in [7"),
        (["--views", "0"], "--views"),
        (["--noise", "-1"], "noise: expected"),
        (["--counts", "0", "--response", "saxs"], "counts: expected"),
        (["--response", "magic"], "response: expected one of"),
        (["--response", "saxs", "--segments", "0"], "--segments"),
        (["--response", "directional-visibility", "--exponent", "3"], "exponent: expected"),
        (["--voxel-size", "0"], "voxel_size: expected"),
        (["--truth", "/nowhere/t.h5"], "truth: expected a file in an existing folder"),
        (["-o", "/nowhere/s.h5"], "output: expected a file in an existing folder"),
    ],
)
def test_simulate_wants_what_makes_sense(complaint, tmp_path, options, words):
    small = () if "--size" in options else ("--size", 4)
    assert words in complaint("simulate", "mixture", "-o", tmp_path / "s.h5", *small, *options)
    assert list(tmp_path.iterdir()) == []


def test_simulate_knows_its_phantoms(complaint, run, tmp_path):
    line = complaint("simulate", "bone", "-o", tmp_path / "s.h5")
    assert "phantom: expected one of 'helicoidal'" in line
    told = re.sub(r"\s+", " ", run("simulate", "--help")[1])
    assert all(name in told for name in (*PHANTOMS, *RESPONSES))


@pytest.mark.parametrize("tilts", [[0.0], [0.0, 30.0], [10.0, 45.0, 90.0], [0.0, -45.0, 45.0]])
@pytest.mark.parametrize("views", [3, 10, 101])
def test_views_are_shared_by_the_lengths_of_the_circles(tilts, views):
    from ddf_tomo.cli._simulate import shared_views

    counts = shared_views(np.radians(tilts), views)
    assert sum(counts) == views
    assert min(counts) >= 1
    length = [0.5 if tilt == 0 else np.cos(np.radians(tilt)) for tilt in tilts]
    expected = 1 + (views - len(tilts)) * np.array(length) / sum(length)
    np.testing.assert_allclose(counts, expected, atol=1)
