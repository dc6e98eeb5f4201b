"""From a scan to a volume in one call, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
import torch

from ddf_tomo import (
    FileFormatError,
    IsotropicResponse,
    RankTwoResponse,
    Reconstruction,
    SaxsResponse,
    Scan,
    SecondMomentResponse,
    TensorXRayTransform,
    reconstruct,
)
from ddf_tomo.derived import angle_between
from ddf_tomo.operators.rank_two import rank_two_from_second_moment
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series

SHAPE = (14, 14, 14)
SERIES = tilt_series(SHAPE, views=(20, 36, 34, 30), tilts_rad=np.radians([0.0, 15.0, 30.0, 45.0]))
TRUTH, DIRECTIONS, MASK = helicoidal_fibres(SHAPE)


@pytest.fixture(scope="module")
def scan():
    """Second moments with 2 % noise, from a twice finer grid."""
    return dataclasses.replace(
        simulate(helicoidal_fibres, SERIES, SecondMomentResponse(), noise=0.02),
        voxel_size_m=25e-6,
        title="helix",
        provenance={"sample": "simulated"},
    )


@pytest.fixture(scope="module")
def result(scan):
    return reconstruct(scan, progress=False)


@pytest.fixture(scope="module")
def small():
    geometry = tilt_series((6, 6, 6), views=(6, 8), tilts_rad=(0.0, 0.6))
    return simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.02)


def direction_errors(reconstruction):
    return np.degrees(angle_between(reconstruction.derived().direction, DIRECTIONS))[MASK]


def test_defaults_find_the_fibres(result):
    """Fibres that turn by 26° from one voxel to the next."""
    assert np.median(direction_errors(result)) < 6
    assert np.percentile(direction_errors(result), 90) < 25
    assert result.ell_max == 2
    assert result.coefficients.shape == (*SHAPE, 6)
    assert result.coefficients.dtype == np.float32


def test_mean_and_anisotropy(result):
    derived = result.derived()
    assert result.derived() is derived
    assert np.corrcoef(derived.mean[MASK], TRUTH[..., 0][MASK])[0, 1] > 0.9
    assert np.mean(derived.mean[MASK]) == pytest.approx(TRUTH[..., 0][MASK].mean(), rel=0.05)
    overlap = (derived.valid & MASK).sum() / (derived.valid | MASK).sum()
    assert overlap > 0.75


def test_a_prior_pays(scan, result):
    rough = reconstruct(scan, prior=None, iterations=40, progress=False)
    assert np.median(direction_errors(rough)) > 1.3 * np.median(direction_errors(result))
    assert rough.settings["weight"] == 0


def test_residuals_fall_to_the_noise(scan, result):
    """Weights are inverse variances: the residual of a good fit is the square root of the number of data."""
    level = np.sqrt(scan.data.size)
    assert 0.95 * level < result.residuals[-1] < 1.5 * level
    by_hand = np.sqrt((scan.weights * (result.predicted() - scan.data) ** 2).sum(dtype=np.float64))
    assert result.residuals[-1] == pytest.approx(by_hand, rel=1e-3)
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    np.testing.assert_allclose(result.predicted(), A(result.coefficients))


def test_it_stops_at_the_noise_level(scan):
    level = 1.3 * np.sqrt(scan.data.size)
    found = reconstruct(scan, prior=None, noise_level=level, iterations=50, progress=False)
    assert found.settings["stopped_by"] == "noise level"
    assert found.residuals[-1] <= level < found.residuals[-2]


@pytest.mark.parametrize("factor", [1e-15, 1e-12, 1e9])
def test_units_do_not_matter(small, factor):
    scaled = dataclasses.replace(
        small, data=(factor * small.data).astype(np.float32), weights=small.weights / np.float32(factor**2)
    )
    first, second = (reconstruct(s, ell_max=2, progress=False) for s in (small, scaled))
    assert second.settings["weight"] == pytest.approx(first.settings["weight"], rel=1e-4)
    np.testing.assert_allclose(second.coefficients / factor, first.coefficients, atol=1e-3)
    np.testing.assert_allclose(np.array(second.residuals), first.residuals, rtol=1e-3)
    assert second.settings["residual_share"] == pytest.approx(first.settings["residual_share"], rel=1e-3)


def test_a_larger_weight_scale_changes_residuals_only(small):
    heavier = dataclasses.replace(small, weights=9 * small.weights)
    first, second = (
        reconstruct(s, ell_max=2, prior="smoothness", weight=0.01, progress=False) for s in (small, heavier)
    )
    np.testing.assert_allclose(second.coefficients, first.coefficients, atol=1e-4)
    np.testing.assert_allclose(second.residuals, 3 * np.array(first.residuals), rtol=1e-3)


def test_masked_data_do_not_matter(small):
    weights = small.weights.copy()
    weights[2:4, 1:3] = 0
    clean, spoilt = small.data.copy(), small.data.copy()
    clean[weights == 0], spoilt[weights == 0] = 0, np.nan
    first, second = (
        reconstruct(dataclasses.replace(small, data=data, weights=weights), ell_max=2, progress=False)
        for data in (clean, spoilt)
    )
    np.testing.assert_array_equal(first.coefficients, second.coefficients)


def test_no_weights(small):
    plain = dataclasses.replace(small, weights=None)
    first, second = (reconstruct(s, ell_max=2, prior="smoothness", weight=0.01, progress=False) for s in (small, plain))
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-4)


def test_torch_and_double_precision(small):
    theirs = Scan(torch.from_numpy(small.data).double().requires_grad_(), small.geometry, small.response)
    options = {"ell_max": 2, "prior": "smoothness", "weight": 0.01, "iterations": 8, "start": "zero", "progress": False}
    found = reconstruct(theirs, **options)
    assert found.coefficients.dtype == np.float64
    expected = reconstruct(dataclasses.replace(small, weights=None), **options)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-4)


# -- orders -----------------------------------------------------------------------------------------------------------


def test_more_than_the_acquisition_tells_is_warned_of(small):
    with pytest.warns(UserWarning, match="6"):
        found = reconstruct(small, ell_max=6, prior="smoothness", weight=0.1, iterations=2, progress=False)
    assert found.coefficients.shape[-1] == 28
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reconstruct(small, ell_max=0, iterations=2, progress=False)


def test_segments_tell_more(scan):
    saxs = simulate(helicoidal_fibres, SERIES, SaxsResponse(np.arange(8) * np.pi / 8), noise=0.005)
    found = reconstruct(saxs, ell_max=4, progress=False)
    assert np.median(direction_errors(found)) < 5
    error = np.linalg.norm((found.coefficients - TRUTH)[MASK]) / np.linalg.norm(TRUTH[MASK])
    assert error < 0.45


def test_scalar_case():
    """ℓ = 0: one coefficient, as absorption has it."""
    scalar = simulate(lambda shape: helicoidal_fibres(shape, 0)[0], SERIES[:20], IsotropicResponse(), noise=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of directions there is nothing to miss
        found = reconstruct(scalar, progress=False)
    assert found.coefficients.shape == (*SHAPE, 1)
    assert found.ell_max == 0
    error = np.linalg.norm(found.coefficients[..., 0] - TRUTH[..., 0]) / np.linalg.norm(TRUTH[..., 0])
    assert error < 0.2
    np.testing.assert_allclose(found.derived().fractional_anisotropy, 0, atol=1e-6)


def test_a_tensor_from_mapped_second_moments(scan, result):
    """Second moments of orders up to 2 are rank-2 data after a 3 × 3 map: the same directions come out."""
    mapped = Scan(rank_two_from_second_moment(scan.data), scan.geometry, RankTwoResponse())
    tensor = reconstruct(mapped, weight=result.settings["weight"], progress=False)
    assert tensor.coefficients.shape == (*SHAPE, 6)
    assert tensor.ell_max == 2
    assert np.median(direction_errors(tensor)) < 8
    assert reconstruct(mapped, ell_max=2, prior="smoothness", weight=0.1, iterations=1).ell_max == 2
    with pytest.raises(ValueError, match=r"^ell_max: expected 2 or 'auto' for a rank-2 tensor, got 4"):
        reconstruct(mapped, ell_max=4)


def test_one_axis_warns_of_what_it_cannot_tell(scan):
    """Views at tilt 0 see each structure along z only: a start is made with the prior, and said."""
    flat = dataclasses.replace(
        simulate(helicoidal_fibres, SERIES[:20], SecondMomentResponse(), noise=0.02), voxel_size_m=1e-6
    )
    with pytest.warns(UserWarning, match="20 views alone do not determine directions everywhere; ell_max=2"):
        assert reconstruct(flat, iterations=1, progress=False).ell_max == 2
    with pytest.warns(UserWarning, match="ell_max=0 was chosen: more views or tilts are needed"):
        assert reconstruct(flat, iterations=1, prior=None, progress=False).ell_max == 0


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"scan": np.ones(3)}, TypeError, "^scan: expected a ddf_tomo.Scan or several of them, got ndarray"),
        ({"method": "magic"}, ValueError, "^method: expected one of"),
        ({"ell_max": 3}, ValueError, "^ell_max: expected an even order"),
        ({"ell_max": "most"}, ValueError, "^ell_max: expected one of 'auto'"),
        ({"ell_max": None}, TypeError, "^ell_max"),
        ({"ell_max": 100}, ValueError, "^ell_max"),
        ({"weight": "very"}, ValueError, "^weight: expected one of 'auto'"),
        ({"weight": -1}, ValueError, "^weight: expected a finite number"),
        ({"weight": np.array([1.0, 2.0])}, (TypeError, ValueError), "^weight: expected a finite number"),
        ({"prior": "wisdom"}, ValueError, "^prior: expected one of"),
        ({"prior": 3}, TypeError, "^prior: expected"),
        ({"method": "sirt", "prior": "tv"}, ValueError, "^prior: expected None, as method 'sirt' takes none"),
        ({"positive": 1}, TypeError, "^positive: expected"),
        ({"positive": True}, ValueError, "^positive: expected False, as method 'cg'"),
        ({"checkpoint": "/nowhere/at/all"}, ValueError, "^checkpoint: expected a folder"),
        ({"scan": []}, ValueError, "^scan: expected"),
        ({"scan": ["scan.h5"]}, TypeError, "^scan"),
        ({"iterations": 0}, ValueError, "^iterations: expected an integer"),
        ({"noise_level": -1}, ValueError, "^noise_level: expected a finite number"),
        ({"noise_level": "low"}, TypeError, "^noise_level: expected a finite number"),
    ],
)
def test_bad_arguments(small, arguments, error, text):
    with pytest.raises(error, match=text):
        reconstruct(**{"scan": small, "progress": False, **arguments})


def test_nothing_gives_nothing(small):
    dark = dataclasses.replace(small, data=np.zeros_like(small.data))
    found = reconstruct(dark, ell_max=2, progress=False)
    assert not found.coefficients.any()
    assert not found.derived().valid.any()
    assert "0.0% of the voxels" in found.summary()


# -- on disk ----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_whole(result, tmp_path):
    path = tmp_path / "volume.h5"
    result.save(path)
    assert os.listdir(tmp_path) == ["volume.h5"]
    again = Reconstruction.load(path)
    np.testing.assert_array_equal(again.coefficients, result.coefficients)
    assert again.coefficients.dtype == result.coefficients.dtype
    for name in ("ell_max", "geometry", "response", "residuals", "voxel_size_m"):
        assert getattr(again, name) == getattr(result, name)
    assert dict(again.settings) == dict(result.settings)
    assert dict(again.provenance) == dict(result.provenance)
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["derived/mean"], result.derived().mean, rtol=1e-6)
        np.testing.assert_allclose(file["derived/direction"], result.derived().direction, atol=1e-6)
        assert file["derived/valid"].dtype == bool
    result.save(str(path))  # over an older one
    assert os.listdir(tmp_path) == ["volume.h5"]


def test_every_format_holds_the_same_volume(result, tmp_path):
    for name, files in {
        "a.h5": ["a.h5"],
        "b.nxs": ["b.nxs"],
        "c.VTI": ["c.VTI"],
        "d.xdmf": ["d.h5", "d.xdmf"],
    }.items():
        (tmp_path / name).mkdir()
        result.save(tmp_path / name / name)
        assert sorted(os.listdir(tmp_path / name)) == files
    for path in ("a.h5/a.h5", "b.nxs/b.nxs", "d.xdmf/d.h5", "d.xdmf/d.xdmf"):
        np.testing.assert_array_equal(Reconstruction.load(tmp_path / path).coefficients, result.coefficients)
    with h5py.File(tmp_path / "d.xdmf/d.h5") as file:
        tensor = np.moveaxis(file["display/tensor"][()], (0, 1, 2), (2, 1, 0)).reshape(*SHAPE, 3, 3)
        axes, eigenvectors = np.linalg.eigh(tensor.astype(float))
        np.testing.assert_allclose(axes, result.derived().eigenvalues, atol=1e-5)
        assert np.median(angle_between(eigenvectors, result.derived().eigenvectors)) < 1e-3
        assert "coefficients" not in file["display"]
    result.save(tmp_path / "named", format="hdf5")
    np.testing.assert_array_equal(Reconstruction.load(tmp_path / "named").coefficients, result.coefficients)
    result.save(tmp_path / "e.xdmf", coefficients=True)
    with h5py.File(tmp_path / "e.h5") as file:
        stored = np.moveaxis(file["display/coefficients"][()], (0, 1, 2), (2, 1, 0))
        np.testing.assert_array_equal(stored, result.coefficients)


def test_units_come_from_the_data(result):
    assert result.unit == "data per voxel edge of 2.5e-05 m"
    known = dataclasses.replace(result, provenance={"data_unit": "1e-12 rad^2"}, voxel_size_m=None)
    assert known.derived().units["mean"] == "1e-12 rad^2 per voxel edge"


def test_saving_the_file_of_an_xdmf_again_renews_it(result, tmp_path):
    result.save(tmp_path / "volume.xdmf")
    cut = dataclasses.replace(result, voxel_size_m=1e-6)
    cut.save(tmp_path / "volume.h5")
    assert "1e-06 1e-06 1e-06" in (tmp_path / "volume.xdmf").read_text()
    with h5py.File(tmp_path / "volume.h5") as file:
        assert "display/tensor" in file
    (tmp_path / "other.xdmf").write_text("<Xdmf/>")  # somebody else's
    cut.save(tmp_path / "other.h5")
    assert (tmp_path / "other.xdmf").read_text() == "<Xdmf/>"


def test_a_scan_of_the_same_name_is_not_lost(result, small, tmp_path):
    small.write(tmp_path / "sample.h5")
    before = (tmp_path / "sample.h5").read_bytes()
    with pytest.raises(ValueError, match=r"^path: expected a name whose 'sample.h5' is free"):
        result.save(tmp_path / "sample.xdmf")
    assert (tmp_path / "sample.h5").read_bytes() == before
    assert os.listdir(tmp_path) == ["sample.h5"]


@pytest.mark.parametrize("path", ["volume", "volume.tiff", "volume.h5.gz", ".h5"])
def test_suffixes_without_a_format(result, tmp_path, path):
    with pytest.raises(
        ValueError, match=r"^path: expected a name that ends in .h5, .hdf5, .nxs, .vti, .xdmf, got .*mumott"
    ):
        result.save(tmp_path / path)
    with pytest.raises(ValueError, match=r"^format: expected one of 'hdf5', 'vti', 'xdmf', 'mumott'"):
        result.save(tmp_path / path, format="tiff")
    with pytest.raises(TypeError, match=r"^coefficients: expected True or False"):
        result.save(tmp_path / "volume.vti", coefficients=1)
    assert not os.listdir(tmp_path)


def test_provenance(result):
    assert result.provenance["sample"] == "simulated"
    assert result.provenance["title"] == "helix"
    assert {"ddf_tomo", "torch", "created"} <= set(result.provenance)
    assert result.settings["method"] == "cg"
    assert result.settings["weight"] > 0
    assert 0 < result.settings["residual_share"] < 0.2
    assert result.settings["iterations"] == len(result.residuals) - 1
    assert json.loads(json.dumps(dict(result.provenance))) == dict(result.provenance)
    assert result.voxel_size_m == 25e-6


def test_minimal_contents(small, tmp_path):
    plain = Reconstruction(np.ones((6, 6, 6, 1)), 0, small.geometry, IsotropicResponse())
    plain.save(tmp_path / "plain.h5")
    again = Reconstruction.load(tmp_path / "plain.h5")
    assert again.voxel_size_m is None
    assert again.residuals == ()
    assert again.coefficients.dtype == np.float64
    assert "ell_max=0" in again.summary()


def test_texts(result):
    assert repr(result) == "<Reconstruction: 14 × 14 × 14 voxels, 6 coefficients (ell_max=2)>"
    summary = result.summary()
    assert "fractional anisotropy" in summary
    assert "method: cg" in summary


class Custom:
    """A response of a user, which no file can hold."""

    channels = 1

    def matrix(self, geometry, ell_max):
        return torch.ones(len(geometry), 1, (ell_max + 1) * (ell_max + 2) // 2, dtype=torch.float64)


def test_a_response_of_ones_own_cannot_be_stored(small, tmp_path):
    own = Reconstruction(np.ones((6, 6, 6, 6)), 2, small.geometry, Custom())
    assert own.derived().mean.shape == (6, 6, 6)
    with pytest.raises(TypeError, match=r"^response: expected one of the package's own, to be stored"):
        own.save(tmp_path / "own.h5")
    assert not os.listdir(tmp_path)


def test_a_failure_while_saving_leaves_what_was_there(result, tmp_path, monkeypatch):
    path = tmp_path / "volume.h5"
    result.save(path)
    before = path.read_bytes()
    broken = dataclasses.replace(result, provenance={"what": object()})
    with pytest.raises(TypeError):
        broken.save(path)
    late = dataclasses.replace(result, coefficients=np.full_like(result.coefficients, np.nan))
    with pytest.raises(ValueError, match="coefficients"):
        late.save(path)
    monkeypatch.setattr("ddf_tomo.export.annotate", lambda *arguments, **options: 1 / 0)  # when the file is there
    with pytest.raises(ZeroDivisionError):
        result.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["volume.h5"]
    with pytest.raises(FileNotFoundError):
        result.save(tmp_path / "nowhere" / "volume.h5")


def test_a_process_killed_while_saving_leaves_nothing_under_the_name(tmp_path):
    code = """
import os, sys
import numpy as np
from ddf_tomo import IsotropicResponse, Reconstruction
from ddf_tomo._balanced import clipped
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import PHANTOMS, tilt_series
from ddf_tomo import export
export.annotate = lambda *arguments, **options: os.kill(os.getpid(), 9)
geometry = tilt_series((4, 4, 4), views=[2], tilts_rad=[0.0])
Reconstruction(np.ones((4, 4, 4, 1)), 0, geometry, IsotropicResponse()).save(sys.argv[1])
"""
    path = tmp_path / "volume.h5"
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=120, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert not path.exists()
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".volume.h5.")
    assert left.endswith(".part")


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "volume.h5"
    reconstruct(small, ell_max=2, prior="smoothness", weight=0.01, iterations=1, progress=False).save(path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(saved, share, tmp_path):
    path = tmp_path / "part.h5"
    contents = saved.read_bytes()
    path.write_bytes(contents[: int(share * len(contents))])
    with pytest.raises(FileFormatError, match=r"part\.h5"):
        Reconstruction.load(path)


def test_foreign_files(saved, small, tmp_path):
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["coefficients"] = np.ones(3)
    with pytest.raises(FileFormatError):
        Reconstruction.load(path)
    path.write_text("not HDF5")
    with pytest.raises(FileFormatError):
        Reconstruction.load(path)
    small.write(tmp_path / "scan.h5")
    with pytest.raises(FileFormatError):
        Reconstruction.load(tmp_path / "scan.h5")
    with pytest.raises(FileNotFoundError):
        Reconstruction.load(tmp_path / "none.h5")


@pytest.mark.parametrize("entry", ["coefficients", "residuals", "geometry/p", "geometry"])
def test_files_that_lack_something(saved, entry, tmp_path):
    path = tmp_path / "part.h5"
    path.write_bytes(saved.read_bytes())
    with h5py.File(path, "a") as file:
        del file[entry]
    with pytest.raises(FileFormatError):
        Reconstruction.load(path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("coefficients", np.ones((5, 6, 6, 6))),
        ("coefficients", np.full((6, 6, 6, 6), np.nan)),
        ("coefficients", np.ones(3)),
        ("geometry/p", np.zeros((14, 3))),
    ],
)
def test_files_that_hold_nonsense(saved, entry, value, tmp_path):
    path = tmp_path / "part.h5"
    path.write_bytes(saved.read_bytes())
    with h5py.File(path, "a") as file:
        del file[entry]
        file[entry] = value
    with pytest.raises(FileFormatError):
        Reconstruction.load(path)
