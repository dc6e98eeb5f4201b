"""Slab by slab the sums are those of the whole volume."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddf_tomo import XRayTransform, check_adjoint
from ddf_tomo.operators.slabs import SlabwiseXRayTransform
from tests.strategies import geometries, random_geometry


def noise(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@given(geometries(), st.integers(1, 5), st.integers(1, 3000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=40)
def test_slabs_add_up_to_the_volume(geometry, channels, chunk_bytes, dtype):
    A, B = SlabwiseXRayTransform(geometry, device="cpu", chunk_bytes=chunk_bytes), XRayTransform(geometry)
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    x = noise((*geometry.volume_shape, channels), dtype)
    torch.testing.assert_close(A(x), B(x), **tolerance)
    y = noise((len(geometry), *geometry.detector_shape, channels), dtype)
    torch.testing.assert_close(A.T(y), B.T(y), **tolerance)
    check_adjoint(A, dtype)


def test_no_more_than_a_chunk_is_on_the_device(monkeypatch):
    seen = []
    for name in ("project_into", "backproject_into"):
        plain = getattr(XRayTransform, name)
        monkeypatch.setattr(
            XRayTransform,
            name,
            lambda self, target, source, views, plain=plain: (
                seen.extend((target.nbytes, source.nbytes)),
                plain(self, target, source, views),
            ),
        )
    A = SlabwiseXRayTransform(random_geometry(9, (11, 6, 5), (8, 9)), device="cpu", chunk_bytes=2000)
    A.T(A(noise((11, 6, 5, 2))))
    assert len(seen) == 2 * 2 * 3 * 9  # four slices at a time, one view of 1152 bytes
    assert max(seen) <= 2000


@pytest.mark.gpu
def test_slabs_on_a_card():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    geometry = random_geometry(7, (40, 31, 37), (35, 42), seed=8)
    A, B = SlabwiseXRayTransform(geometry, chunk_bytes=1_000_000), XRayTransform(geometry)
    x = noise((40, 31, 37, 6), torch.float32)
    y = A(x)
    assert y.device.type == "cpu"
    torch.testing.assert_close(y, B(x), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(A.T(y), B.T(y), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", None])
def test_chunks_are_whole_bytes(value):
    with pytest.raises((TypeError, ValueError), match=r"^chunk_bytes: expected an integer"):
        SlabwiseXRayTransform(random_geometry(1), device="cpu", chunk_bytes=value)


def test_what_is_no_geometry_is_named():
    with pytest.raises(TypeError, match=r"^geometry: expected a ddf_tomo.Geometry, got int"):
        SlabwiseXRayTransform(3)
