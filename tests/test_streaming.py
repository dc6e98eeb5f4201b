"""A scan that stays on the disk gives the same volume by the same call, and is never in memory as a whole."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from ddf_tomo import Scan, _one_scan, _scan_files, _streamed, reconstruct
from ddf_tomo._checks import FileFormatError
from ddf_tomo._streamed import Streamed
from ddf_tomo.operators.responses import RankTwoResponse, SecondMomentResponse
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import Misfit, cgls, irtt, pdhg
from ddf_tomo.solvers.misfit import misfit_of
from ddf_tomo.solvers.regularisation_weight import response_scale


@pytest.fixture(scope="module")
def scan():
    """A small noisy scan with weights that differ, some of them zero."""
    made = simulate(helicoidal_fibres, tilt_series((10, 10, 8))[::8], SecondMomentResponse(), noise=0.02)
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, made.data.shape).astype(np.float32)
    weights[2, :3] = 0
    diode = rng.uniform(0.5, 1, made.data.shape[:3]).astype(np.float32)
    return replace(made, weights=weights, diode=diode, voxel_size_m=1e-5)


@pytest.fixture
def path(scan, tmp_path):
    scan.write(tmp_path / "scan.h5")
    return tmp_path / "scan.h5"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of ten views."""
    monkeypatch.setattr(_streamed, "PIECE_BYTES", 10 * 10 * 8 * 3 * 4)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_the_array_on_the_disk_is_indexed_like_one_in_memory():
    whole = np.random.default_rng(0).normal(size=(7, 2, 3))
    array = Streamed(whole.shape, whole.dtype, lambda views: whole[views])
    for key in (2, -1, slice(1, 5), slice(None, None, -2), [4, 0, 4], (3, 1), (slice(2), 0), ([1, 2], slice(None), 2)):
        np.testing.assert_array_equal(array[key], whole[key])
    keep = np.arange(7) % 2 == 1
    np.testing.assert_array_equal(array.chosen(keep).chosen([2, 0])[:], whole[keep][[2, 0]])
    np.testing.assert_array_equal(array.mapped(np.exp), np.exp(whole))
    assert (array.nbytes, array.ndim, len(array)) == (whole.nbytes, 3, 7)
    with pytest.raises(TypeError):
        array + 1


def test_what_is_read_later_is_what_is_read_now(scan, path, small_pieces):
    there = Scan.read(path, in_memory=False)
    assert there.streams
    assert not Scan.read(path, in_memory=True).streams
    for name in ("data", "weights", "diode"):
        np.testing.assert_array_equal(getattr(there, name), getattr(scan, name))
        np.testing.assert_array_equal(getattr(there[[3, 1]], name), getattr(scan[[3, 1]], name))
        np.testing.assert_array_equal(getattr(there.binned(2), name), getattr(scan.binned(2), name))
        np.testing.assert_array_equal(getattr(there.in_memory(), name), getattr(scan, name))
        np.testing.assert_array_equal(getattr(pickle.loads(pickle.dumps(there)), name), getattr(scan, name))
    assert there[2:5].streams
    assert there.geometry == scan.geometry
    assert (there.voxel_size_m, there.title) == (scan.voxel_size_m, scan.title)
    lines, known = there.summary().splitlines(), scan.summary().splitlines()
    assert lines[0] == known[0]
    assert [line.replace(", on disk", "") for line in lines] == known


def test_two_of_them_are_joined_on_the_disk(scan, path, small_pieces):
    both = Scan.concatenate([Scan.read(path, in_memory=False), scan[:2]])
    assert both.streams
    expected = Scan.concatenate([scan, scan[:2]])
    for name in ("data", "weights", "diode"):
        np.testing.assert_array_equal(getattr(both, name), getattr(expected, name))


def test_it_is_written_again(scan, path, tmp_path):
    Scan.read(path, in_memory=False).write(tmp_path / "again.h5")
    np.testing.assert_array_equal(Scan.read(tmp_path / "again.h5").data, scan.data)


def test_files_are_laid_out_for_reading_view_by_view(path):
    with h5py.File(path) as file:
        for name in ("data", "weights", "diode"):
            assert file[f"projections/3/{name}"].chunks is None  # contiguous: one piece of the file


@pytest.mark.parametrize("free", [1, 10**12])
def test_memory_decides_where_nobody_else_does(path, monkeypatch, free):
    monkeypatch.setattr(_scan_files, "available_memory", lambda: free)
    assert Scan.read(path).streams is (free == 1)
    assert Scan.read(path, in_memory=True).streams is False


def test_jupyter_shows_it_without_reading_it_all(scan, path, monkeypatch):
    there = Scan.read(path, in_memory=False)
    monkeypatch.setattr(Streamed, "__array__", lambda *_: pytest.fail("all was read"))
    assert "on disk" in there._repr_html_()


def test_padded_projections_are_read_alike(scan, path):
    with h5py.File(path, "r+") as file:
        for name in ("data", "weights", "diode"):
            part = file[f"projections/1/{name}"][:8]
            del file[f"projections/1/{name}"]
            file[f"projections/1/{name}"] = part
    with pytest.warns(UserWarning, match="padded"):
        now, later = (Scan.read(path, in_memory=way) for way in (True, False))
    for name in ("data", "weights", "diode"):
        np.testing.assert_array_equal(getattr(later, name), getattr(now, name))


@pytest.mark.parametrize("name", ["data", "weights", "diode"])
def test_nan_is_refused_or_masked_as_it_is_in_memory(path, name):
    with h5py.File(path, "r+") as file:
        file[f"projections/0/{name}"][4, 2] = np.nan
    for way in (True, False):
        with pytest.raises(FileFormatError, match=name):
            Scan.read(path, in_memory=way)
    now, later = (Scan.read(path, in_memory=way, nonfinite="mask") for way in (True, False))
    assert later.streams
    for array in ("data", "weights", "diode"):
        np.testing.assert_array_equal(getattr(later, array), getattr(now, array))
    assert (np.asarray(later.weights)[0, 4, 2] == 0).all()


def test_nan_without_weight_becomes_zero(scan, path):
    with h5py.File(path, "r+") as file:
        file["projections/2/data"][0, 0, 0] = np.nan
    assert Scan.read(path, in_memory=False).data[2, 0, 0, 0] == 0


def test_a_file_that_changes_meanwhile_is_noticed(path):
    there = Scan.read(path, in_memory=False)
    os.utime(path, (1, 1))
    with pytest.raises(FileFormatError, match="changed"):
        there.data[0]


# -- reconstructing ---------------------------------------------------------------------------------------------------


CALLS = {
    "linear": {"prior": "smoothness", "weight": 0.03, "iterations": 8},
    "no prior": {"prior": None, "iterations": 6},
    "filtered backprojection": {"method": "fbp"},
    "total variation": {"weight": 0.03, "iterations": 15},
    "lbfgs": {"method": "lbfgs", "weight": 0.03, "iterations": 8},
    "fista": {"method": "fista", "weight": 0.03, "iterations": 6, "positive": True},
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_gives_the_same_volume(scan, path, small_pieces, name):
    now, later = (reconstruct(s, ell_max=2, **CALLS[name]) for s in (scan, Scan.read(path, in_memory=False)))
    largest = np.abs(now.coefficients).max()
    np.testing.assert_allclose(later.coefficients, now.coefficients, atol=1e-5 * largest)
    np.testing.assert_allclose(later.residuals, now.residuals, rtol=1e-5)


def test_in_double_precision_many_iterations_agree(scan):
    """Conjugate gradients multiply rounding errors from iteration to iteration, in memory as from the disk."""
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    y, weights = scan.data.astype(float), scan.weights.astype(float)
    now = cgls(A, y, weights=weights, iterations=12)
    later = cgls(A, on_disk(y), weights=on_disk(weights), iterations=12)
    torch.testing.assert_close(later.x, now.x, atol=1e-9 * float(now.x.abs().max()), rtol=0)
    np.testing.assert_allclose(later.residuals, now.residuals, rtol=1e-9)


@pytest.mark.parametrize("kind", ["none", "on disk", "one for a view", "in memory"])
def test_the_misfit_is_that_in_memory(scan, small_pieces, kind):
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    whole = {"none": None, "one for a view": scan.weights[:, :1, :1, :1]}.get(kind, scan.weights)
    now, later = (
        Misfit(A, scan.data, whole),
        misfit_of(A, on_disk(scan.data), on_disk(whole) if kind == "on disk" else whole),
    )
    x = torch.randn(A.domain_shape, generator=torch.Generator().manual_seed(0))
    views = [1, 5, 6, 11]
    for one, other in ((now, later), (now.subset(views), later.subset(views))):
        r, s = one.residual(x), other.residual(x)
        close(other.norm(s), one.norm(r))
        close(other.gradient(s), one.gradient(r))
        close(other.square(other.look(x)), one.square(one.look(x)))
        close(other.normal(x), one.normal(x))
        close(other.backprojected(), one.backprojected())
        close(other.norm(other.nothing_explained()), one.norm(one.nothing_explained()))
        assert other.count() == one.count()
        close(other.size(), one.size())
        close(other.value(x), one.value(x))
    close(later.curvature(), now.curvature(), 1e-4)
    close(response_scale(A, later.weights, later.y), response_scale(A, now.weights, now.y))


def close(found, expected, tolerance=1e-5):
    found, expected = (np.asarray(a, float) for a in (found, expected))
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def on_disk(array):
    return Streamed(array.shape, array.dtype, lambda views: array[views])


@pytest.mark.parametrize(
    ("y", "weights", "words"),
    [
        (np.ones((3, 10, 8, 3)), None, "shape"),
        (np.full((32, 10, 8, 3), np.nan), None, "finite"),
        (np.ones((32, 10, 8, 3)), -np.ones((32, 10, 8, 3)), "weights"),
        (np.ones((32, 10, 8, 3)), np.zeros((32, 10, 8, 3)), "zero everywhere"),
        (np.ones((32, 10, 8, 3)), np.ones((31, 10, 8, 3)), "weights"),
    ],
)
def test_what_does_not_fit_is_told(scan, y, weights, words):
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    for given in (weights, None if weights is None else on_disk(weights)):
        with pytest.raises(ValueError, match=words):
            misfit_of(A, on_disk(y), given)


def test_the_search_for_the_weight_is_the_same(scan, path, small_pieces, monkeypatch):
    monkeypatch.setattr(_one_scan, "SEARCH_ITERATIONS", 3)
    call = {"ell_max": 2, "prior": "smoothness", "iterations": 3}
    for rule in ("cross-validation", "discrepancy"):
        now, later = (reconstruct(s, weight=rule, **call) for s in (scan, Scan.read(path, in_memory=False)))
        assert later.settings["weight_from"] == rule
        assert later.settings["weight"] == pytest.approx(now.settings["weight"], rel=1e-4)


def test_tensors_too(scan, small_pieces):
    A = TensorXRayTransform(scan.geometry, RankTwoResponse(), 2)
    wide = np.concatenate([scan.data, scan.data], -1)[..., : A.range_shape[-1]]
    torch.testing.assert_close(
        irtt(A, on_disk(wide), iterations=4).x, irtt(A, wide, iterations=4).x, atol=1e-5, rtol=1e-4
    )


def test_it_is_never_in_memory_as_a_whole(path, small_pieces, monkeypatch):
    """Not read at once, and no tensor of its size is made."""
    there, most = Scan.read(path, in_memory=False), []
    real = Streamed.__getitem__
    monkeypatch.setattr(Streamed, "__getitem__", lambda s, key: (found := real(s, key), most.append(len(found)))[0])
    monkeypatch.setattr(Streamed, "__array__", lambda *_: pytest.fail("all was read"))
    reconstruct(there, ell_max=2, weight=0.03, iterations=2)
    assert max(most) <= 16
    assert len(most) > 10


def test_an_interrupted_one_goes_on(scan, path, small_pieces, tmp_path):
    call = {"ell_max": 2, "weight": 0.03}
    there = Scan.read(path, in_memory=False)
    reconstruct(there, iterations=2, checkpoint=tmp_path / "state", **call)
    went_on = reconstruct(there, iterations=5, checkpoint=tmp_path / "state", **call)
    np.testing.assert_array_equal(went_on.coefficients, reconstruct(there, iterations=5, **call).coefficients)


@pytest.mark.parametrize("method", ["pdhg", "sirt"])
def test_methods_that_remember_residuals_say_so(path, method):
    with pytest.raises(ValueError, match="in_memory=True"):
        reconstruct(Scan.read(path, in_memory=False), method, ell_max=2)


def test_solvers_that_remember_residuals_say_so(scan):
    with pytest.raises(TypeError, match="in memory"):
        pdhg(TensorXRayTransform(scan.geometry, scan.response, 2), on_disk(scan.data))


def test_two_runs_with_the_same_threads_are_equal_to_the_bit(scan, path):
    first, second = (reconstruct(scan, ell_max=2, weight=0.03, iterations=5).coefficients for _ in range(2))
    np.testing.assert_array_equal(first, second)
    there = Scan.read(path, in_memory=False)
    first, second = (reconstruct(there, ell_max=2, weight=0.03, iterations=5).coefficients for _ in range(2))
    np.testing.assert_array_equal(first, second)
