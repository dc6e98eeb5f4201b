"""Bad and unusual frames: said what is wrong, or taken as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ddf_tomo.retrieval import retrieve
from tests.retrieval.simulation import frames

SAMPLE, REFERENCE = frames(5, (24, 26), displacement=(0.1, -0.1), counts=5000)


@pytest.mark.parametrize(
    ("sample", "reference", "options", "error", "text"),
    [
        (SAMPLE[:, :-1], REFERENCE, {}, ValueError, "reference: expected"),
        (SAMPLE, REFERENCE[:4], {}, ValueError, "reference: expected"),
        (SAMPLE, REFERENCE[None].repeat(2, 0), {}, ValueError, "reference: expected"),
        (SAMPLE[:3], REFERENCE[:3], {}, ValueError, "at least 4 mask steps"),
        (SAMPLE[0], REFERENCE[0], {}, ValueError, "sample: expected shape"),
        (SAMPLE[:, :0], REFERENCE[:, :0], {}, ValueError, "without empty axes"),
        (SAMPLE[None][:0], REFERENCE, {}, ValueError, "at least one view"),
        (SAMPLE[:, :12], REFERENCE[:, :12], {}, ValueError, "at least 15 rows and columns"),
        (SAMPLE * 1j, REFERENCE, {}, TypeError, "sample: expected real numbers"),
        (torch.tensor(SAMPLE) * 1j, REFERENCE, {}, TypeError, "real numbers"),
        (SAMPLE > 0, REFERENCE, {}, TypeError, "real numbers"),
        (SAMPLE.astype(str), REFERENCE, {}, TypeError, "real numbers"),
        ([[[1, 2], [3]]], REFERENCE, {}, TypeError, "regular array"),
        (None, REFERENCE, {}, TypeError, "real numbers"),
        (np.where(SAMPLE.max() == SAMPLE, np.nan, SAMPLE), REFERENCE, {}, ValueError, "1 NaN or infinite in the view"),
        (SAMPLE, np.where(SAMPLE.max() == SAMPLE, np.inf, REFERENCE), {}, ValueError, "reference: expected finite"),
        (SAMPLE, REFERENCE * 0, {}, ValueError, "624 pixels of zero or less"),
        (SAMPLE * 1e20, REFERENCE, {}, ValueError, "times the mean reference"),
        (SAMPLE[:1].repeat(5, 0), REFERENCE[:1].repeat(5, 0), {}, ValueError, "no information"),
        (SAMPLE * 0 + 7, REFERENCE * 0 + 7, {}, ValueError, "no information"),
        (SAMPLE * 0, REFERENCE, {}, ValueError, "no information"),
        (SAMPLE[None], REFERENCE * 0 + 7, {}, ValueError, "view 0"),
        (SAMPLE, REFERENCE.mean() + 0.01 * (REFERENCE - REFERENCE.mean()), {}, ValueError, "no information"),
        (SAMPLE, REFERENCE, {"method": "magic"}, ValueError, "method: expected one of 'differential'"),
        (SAMPLE, REFERENCE, {"window": 0.1}, ValueError, "window"),
        (SAMPLE, REFERENCE, {"window": float("nan")}, ValueError, "window"),
        (SAMPLE, REFERENCE, {"smoothing": -1}, ValueError, "smoothing"),
        (SAMPLE, REFERENCE, {"weights": np.ones((3, 3))}, ValueError, "weights: expected shape"),
        (SAMPLE, REFERENCE, {"weights": np.zeros((24, 26))}, ValueError, "not all zero"),
        (SAMPLE, REFERENCE, {"weights": -np.ones((24, 26))}, ValueError, "non-negative"),
        (SAMPLE, REFERENCE, {"weights": "heavy"}, TypeError, "weights"),
        (SAMPLE, REFERENCE, {"device": 2**70}, ValueError, "device"),
        (SAMPLE, REFERENCE, {"pixel_size_m": 0.0}, ValueError, "pixel_size_m"),
        (SAMPLE, REFERENCE, {"distance_m": -1.0}, ValueError, "distance_m"),
        (SAMPLE, REFERENCE, {"gain": 5e-324, "method": "matching"}, ValueError, "gain: expected a mean reference of"),
    ],
)
def test_bad_input_is_named(sample, reference, options, error, text) -> None:
    with pytest.raises(error, match=text):
        retrieve(sample, reference, **options)


def test_devices_must_agree() -> None:
    with pytest.raises(ValueError, match="tensor on cpu"):
        retrieve(torch.tensor(SAMPLE), torch.tensor(REFERENCE).to("meta"))


def test_pure_noise_is_not_taken_for_a_pattern() -> None:
    generator = np.random.default_rng(0)
    sample, reference = generator.poisson(1000, (2, 10, 48, 48))
    with pytest.raises(ValueError, match="above the noise"):
        retrieve(sample, reference)


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_dtypes(dtype: type) -> None:
    maps = retrieve(SAMPLE.astype(dtype), REFERENCE.astype(dtype))
    expected = np.float64 if dtype == np.float64 else np.float32
    assert maps.covariance.dtype == expected
    exact = retrieve(SAMPLE, REFERENCE)
    if dtype != np.float16:
        np.testing.assert_allclose(maps.covariance, exact.covariance, atol=2e-3)
    tensors = retrieve(torch.tensor(SAMPLE.astype(dtype)), REFERENCE.astype(dtype))
    assert isinstance(tensors.covariance, torch.Tensor)
    assert np.array_equal(tensors.covariance.numpy(), maps.covariance)


def test_strided_reversed_and_read_only_arrays() -> None:
    expected = retrieve(SAMPLE, REFERENCE)
    wide = np.zeros((5, 24, 52))
    wide[:, :, ::2] = SAMPLE
    locked = REFERENCE.copy()
    locked.flags.writeable = False
    for sample, reference in (
        (wide[:, :, ::2], locked),
        (np.asfortranarray(SAMPLE), REFERENCE.astype(">f8")),
        (SAMPLE[::-1], REFERENCE[::-1]),
    ):
        found = retrieve(sample, reference)
        np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-9)


def test_views_in_front_share_or_own_a_reference() -> None:
    one = retrieve(SAMPLE, REFERENCE)
    sample = np.stack([SAMPLE, SAMPLE * 0.5])[None]
    shared = retrieve(sample, REFERENCE, pixel_size_m=1e-6, distance_m=1.0)
    owned = retrieve(sample, np.stack([REFERENCE, REFERENCE])[None])
    assert shared.transmission.shape == (1, 2, 24, 26)
    assert shared.covariance.shape == (1, 2, 24, 26, 3)
    for maps in (shared, owned):
        np.testing.assert_allclose(maps.covariance[0, 0], one.covariance)
        np.testing.assert_allclose(maps.transmission[0, 1], 0.5 * one.transmission, rtol=1e-3)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample, reference = frames(5, (70, 40), displacement=(0.1, -0.1), covariance=(0.2, 0.1, 0.0), counts=5000)
    options = {"window": 1.0, "smoothing": 0.5}
    whole = retrieve(sample, reference, **options)
    monkeypatch.setattr("ddf_tomo.retrieval._tiles.PIXELS", 1)
    monkeypatch.setattr("ddf_tomo.retrieval._tiles.LEAST", 16)
    tiled = retrieve(sample, reference, **options)
    for name in ("transmission", "covariance", "background", "covariance_error", "transmission_error", "residual"):
        np.testing.assert_allclose(getattr(tiled, name), getattr(whole, name), rtol=1e-9, atol=1e-12, err_msg=name)
    assert np.array_equal(tiled.valid, whole.valid)


def test_progress_bar_counts_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    retrieve(SAMPLE, REFERENCE, progress=True)
    assert "15/15" in capsys.readouterr().err


def test_weights_may_be_tensors_and_only_ratios_matter() -> None:
    weights = torch.rand(24, 26, generator=torch.Generator().manual_seed(0)) + 0.1
    one, other = (retrieve(SAMPLE, REFERENCE, weights=w) for w in (weights, weights.numpy() * 1e-30))
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-4, atol=1e-6)


@settings(max_examples=40)
@given(
    noise=hnp.arrays(
        np.float64, (4, 16, 15), elements=st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1e5, -1e5, 1e-300]))
    ),
    background=st.booleans(),
)
def test_finite_frames_give_finite_maps_or_an_error(noise: np.ndarray, background: bool) -> None:
    reference = SAMPLE[:4, :16, :15] + 1e-3
    try:
        maps = retrieve((reference + noise).astype(np.float32), reference, window=1.0, background=background)
    except ValueError:
        return
    for name in ("transmission", "displacement", "covariance", "background", "residual"):
        assert np.isfinite(getattr(maps, name)).all(), name
        assert not np.isnan(getattr(maps, name + "_error", np.zeros(1))).any(), name
