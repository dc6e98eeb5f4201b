"""The maps as a value: angles, directions, files."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo import FileFormatError
from ddf_tomo.retrieval import Maps


def some(shape: tuple[int, ...] = (3, 4), **changes: object) -> Maps:
    generator = np.random.default_rng(0)
    scalars = ("transmission", "background", "transmission_error", "background_error", "residual")
    values = {name: generator.random(shape) for name in scalars}
    values |= {name: generator.random((*shape, 2)) for name in ("displacement", "displacement_error")}
    values |= {name: generator.random((*shape, 3)) for name in ("covariance", "covariance_error")}
    return Maps(**(values | {"valid": generator.random(shape) > 0.5} | changes))


@given(angle=st.floats(-1.57, 1.57), largest=st.floats(0.1, 5), share=st.floats(-0.5, 0.9))
def test_direction_is_that_of_the_eigenvectors(angle: float, largest: float, share: float) -> None:
    axis, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    tensor = largest * (np.outer(axis, axis) + share * np.outer(across, across))
    covariance = np.broadcast_to(tensor[[0, 0, 1], [0, 1, 1]], (3, 4, 3))
    found = some(covariance=covariance.copy()).direction()
    values = np.linalg.eigvalsh(tensor)
    np.testing.assert_allclose(found.largest, values[1], atol=1e-12)
    np.testing.assert_allclose(found.smallest, values[0], atol=1e-12)
    np.testing.assert_allclose(np.sin(found.angle_rad - angle), 0, atol=1e-7)
    np.testing.assert_allclose(found.anisotropy, (values[1] - values[0]) / np.abs(values).sum(), atol=1e-12)


def test_direction_of_no_blur_is_finite() -> None:
    found = some(covariance=torch.zeros(3, 4, 3)).direction()
    assert all(isinstance(part, torch.Tensor) and torch.isfinite(part).all() for part in found)
    assert not found.anisotropy.any()


def test_angles_need_the_set_up() -> None:
    maps = some(pixel_size_m=6.5e-6, distance_m=0.7)
    alpha, alpha_error = maps.refraction_angle()
    theta, theta_error = maps.scattering()
    np.testing.assert_allclose(alpha, maps.displacement * 6.5e-6 / 0.7)
    np.testing.assert_allclose(alpha_error, maps.displacement_error * 6.5e-6 / 0.7)
    np.testing.assert_allclose(theta, maps.covariance * (6.5e-6 / 0.7) ** 2)
    np.testing.assert_allclose(theta_error, maps.covariance_error * (6.5e-6 / 0.7) ** 2)
    for name in ("pixel_size_m", "distance_m"):
        with pytest.raises(ValueError, match=name):
            replace(maps, **{name: None}).scattering()
    assert repr(maps) == "Maps(shape=(3, 4), pixel_size_m=6.5e-06, distance_m=0.7)"
    with pytest.raises(ValueError, match="displacement: expected shape"):
        some(displacement=np.zeros((3, 4)))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (0, 3, 4)])
@pytest.mark.parametrize("kind", [np.asarray, lambda a: torch.tensor(a, requires_grad=a.dtype != bool)])
def test_file_round_trip(tmp_path: Path, shape: tuple[int, ...], kind) -> None:
    channels = np.arange(float(np.prod(shape, dtype=int) * 4)).reshape(*shape, 4)
    axes = {"azimuths_rad": (0.0, 1.0), "correlation_lengths_m": (1e-7, 2e-7), "pixel_size_m": 1e-6}
    maps = some(shape, visibility=channels, visibility_error=channels, chi2=channels[..., 0], **axes)
    arrays = {f.name: getattr(maps, f.name) for f in fields(maps) if f.name not in axes}
    Maps(**{name: value if value is None else kind(value) for name, value in arrays.items()}, **axes).save(
        tmp_path / "maps.h5"
    )
    again = Maps.load(tmp_path / "maps.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["maps.h5"]
    for field in fields(maps):
        assert np.array_equal(getattr(again, field.name), getattr(maps, field.name))
    assert (again.distance_m, again.error_matrix, again.azimuths_rad) == (None, None, (0.0, 1.0))


def test_visibility_comes_with_its_axes() -> None:
    channels = np.zeros((3, 4, 2))
    with pytest.raises(ValueError, match="visibility: expected its errors"):
        some(visibility=channels)
    with pytest.raises(ValueError, match="visibility: expected shape"):
        some(visibility=channels, visibility_error=channels, azimuths_rad=(0.0,), correlation_lengths_m=(1e-7,))


def test_foreign_and_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "maps.h5"
    with pytest.raises(FileNotFoundError, match="path"):
        Maps.load(path)
    some().save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3000], b"no HDF5", b""):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="path"):
            Maps.load(path)
    with h5py.File(path, "w") as file:
        file["transmission"] = 1
    with pytest.raises(FileFormatError, match="complete file of maps"):
        Maps.load(path)
    for change in ("missing", "shape", "group"):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            del file["residual"]
            if change == "shape":
                file["residual"] = np.zeros(7)
            elif change == "group":
                file.create_group("residual")
        with pytest.raises(FileFormatError, match="complete file of maps"):
            Maps.load(path)
