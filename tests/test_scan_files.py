"""Files of scans: all is restored, nothing half-written is left."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo._checks import FileFormatError
from ddf_tomo._files import replaced_when_complete
from ddf_tomo._response_text import response_from_repr
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import (
    DirectionalVisibilityResponse,
    RankTwoResponse,
    RankTwoSaxsResponse,
    SaxsResponse,
    VisibilityResponse,
)
from ddf_tomo.scan import Scan
from tests.scans import MOMENT, assert_same, some_scan

RESPONSES = [
    MOMENT,
    RankTwoResponse(),
    SaxsResponse(np.arange(4) * np.pi / 4),
    SaxsResponse(np.arange(8) * np.pi / 4 - 1, two_theta_rad=0.1),
    SaxsResponse([0.1, 1.1, 2.2], two_theta_rad=[0.0, 0.2], full_circle=False),
    VisibilityResponse([0.0, 1.0]),
    VisibilityResponse(np.arange(8).reshape(4, 2) / 10),
    DirectionalVisibilityResponse([0.0, 1.0, 2.0], 1.3),
    RankTwoSaxsResponse([0.0, 0.5]),
]


@pytest.mark.parametrize("response", RESPONSES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_restore_everything(tmp_path, response, dtype):
    bare = some_scan(response=response, dtype=dtype)
    full = some_scan(
        response=response,
        dtype=dtype,
        weights=np.random.default_rng(0).uniform(size=(4, 6, 5, 1)),
        diode=np.random.default_rng(1).uniform(size=(4, 6, 5)).astype(dtype),
        voxel_size_m=1 / 3e5,
        title="Ästhetik",
        provenance={"source": "test", "steps": 3, "nested": {"a": [1, 2.5]}},
    )
    for scan in (bare, full):
        scan.write(tmp_path / "scan.h5")
        assert_same(Scan.read(tmp_path / "scan.h5"), scan)
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_geometry_is_restored_to_the_last_bit(tmp_path, seed, left_handed):
    frames = Rotation.random(3, random_state=seed).as_matrix()
    p, j, k = frames[:, 2] * (-1 if left_handed else 1), frames[:, 0], frames[:, 1]
    offsets = np.random.default_rng(seed).normal(size=(2, 3))
    scan = Scan(np.zeros((3, 4, 5, 3)), Geometry(p, j, k, *offsets, (3, 4, 5), (4, 5)), MOMENT)
    scan.write(tmp_path / "scan.h5")
    assert Scan.read(tmp_path / "scan.h5").geometry == scan.geometry


def test_torch_scans_are_written_as_numbers(tmp_path):
    data = torch.ones(4, 6, 5, 3, requires_grad=True)
    some_scan(data=data, weights=torch.ones(4)).write(tmp_path / "scan.h5")
    assert Scan.read(tmp_path / "scan.h5").data.sum() == 360


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    path = tmp_path / "scan.h5"
    some_scan(title="first").write(path)
    mixed = some_scan()
    flipped = Geometry(-mixed.geometry.p, mixed.geometry.j, mixed.geometry.k, 0, 0, (6, 7, 5), (6, 5))
    both = Scan.concatenate([mixed, some_scan(geometry=flipped)])
    with pytest.raises(ValueError, match="one handedness"):
        both.write(path)

    def disk_full(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(h5py.Group, "create_group", disk_full)
    with pytest.raises(OSError, match="disk full"):
        some_scan(title="second").write(path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]
    assert Scan.read(path).title == "first"


def test_responses_of_others_cannot_be_stored(tmp_path):
    class Mine:
        channels = 3

        def matrix(self, geometry, ell_max):
            raise NotImplementedError

    with pytest.raises(TypeError, match="package's own responses"):
        some_scan(response=Mine()).write(tmp_path / "scan.h5")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "SaxsResponse(open('x'))",
        "Scan()",
        "SaxsResponse(",
        "3",
        "SaxsResponse([1, 1])",
        "SecondMomentResponse(1)",
        "SaxsResponse(**{})",
    ],
)
def test_only_plain_responses_are_evaluated(text):
    with pytest.raises(FileFormatError, match="response: expected"):
        response_from_repr(text)


def test_temporary_names_vanish(tmp_path):
    def fail():
        with replaced_when_complete(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
