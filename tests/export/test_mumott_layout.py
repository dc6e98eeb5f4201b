"""MUMOTT's result files: what its own writers write is found under the same names, with the same numbers."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from ddf_tomo import RankTwoResponse
from ddf_tomo.derived import derive
from ddf_tomo.export import write_mumott_result
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from tests.export.sample import coefficients, reconstruction


def contents(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: found.__setitem__(name, node[()]) if hasattr(node, "dtype") else None)
    return found


@pytest.mark.parametrize("ell_max", [0, 2, 6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_mumott_writes_them(tmp_path, monkeypatch, ell_max, dtype):
    handling = pytest.importorskip("mumott.output_handling")
    basis_sets = pytest.importorskip("mumott.methods.basis_sets")
    monkeypatch.chdir(tmp_path)  # MUMOTT leaves a picture in the current folder, and wants the suffix
    given = coefficients(ell_max).astype(dtype)
    basis_sets.SphericalHarmonics(ell_max=ell_max).get_output(given.astype(float)).write("theirs.h5")
    handling.dict_to_h5({"result": {"x": given, "nit": 12}}, "pipeline.h5")
    theirs = contents("theirs.h5") | contents("pipeline.h5")
    write_mumott_result("ours.h5", given, iterations=12)
    ours = contents("ours.h5")
    assert set(ours) == {*theirs, "ddf_tomo"}
    for name, expected in theirs.items():
        assert ours[name].shape == expected.shape, name
        if ell_max == 0 and name.startswith("eigenvector"):
            continue  # any three axes will do
        np.testing.assert_allclose(ours[name], expected, atol=2e-5 if dtype == np.float32 else 1e-9, err_msg=name)
    np.testing.assert_array_equal(ours["result/x"], given)
    assert ours["result/x"].dtype == dtype


def test_a_saved_reconstruction_goes_on_in_mumott(tmp_path):
    basis_sets = pytest.importorskip("mumott.methods.basis_sets")
    made = reconstruction()
    made.save(tmp_path / "volume.h5", format="mumott")
    found = contents(tmp_path / "volume.h5")
    output = basis_sets.SphericalHarmonics(ell_max=4).get_output(found["result/x"].astype(float))
    derived = made.derived()
    np.testing.assert_allclose(output.mean_intensity, derived.mean)
    np.testing.assert_allclose(output.fractional_anisotropy, derived.fractional_anisotropy, atol=1e-6)
    assert found["result/nit"].tolist() == [2]
    assert os.listdir(tmp_path) == ["volume.h5"]


def test_rank_two_tensors_are_written_as_harmonics(tmp_path):
    made = reconstruction(2, response=RankTwoResponse())
    made.save(tmp_path / "volume.h5", "mumott")
    found = contents(tmp_path / "volume.h5")
    expected = coefficients_from_tensor(made.coefficients)
    np.testing.assert_allclose(found["result/x"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["mean_intensity"].T, derive(expected).mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"coefficients": np.ones((2, 2, 6))}, ValueError, "^coefficients: expected shape"),
        ({"coefficients": np.ones((2, 2, 2, 5))}, ValueError, "^coefficients: expected 1, 6, 15"),
        ({"iterations": -1}, ValueError, "^iterations: expected an integer"),
        ({"notes": "text"}, TypeError, "^notes: expected a mapping"),
        ({"notes": {"what": object()}}, TypeError, "^ddf_tomo: expected texts, numbers"),
    ],
)
def test_bad_input(tmp_path, given, error, text):
    with pytest.raises(error, match=text):
        write_mumott_result(tmp_path / "volume.h5", **{"coefficients": np.ones((2, 2, 2, 6)), **given})
    assert not os.listdir(tmp_path)
