"""What the page's scripts get: the volume in few bytes, and sticks that are spread over the sample."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from ddf_tomo import Reconstruction
from ddf_tomo.derived import derive
from ddf_tomo.phantoms import helicoidal_fibres

pytest.importorskip("matplotlib")

from ddf_tomo.report import _volume
from ddf_tomo.report._charts import histogram
from ddf_tomo.visualization.slices import strength_of


def decoded(text: str, kind: type, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).reshape(*shape)


def test_what_is_packed_can_be_read(volume: Reconstruction) -> None:
    derived = volume.derived()
    packed = json.loads(_volume.packed(derived, "µrad²"))
    assert (packed["shape"], packed["stride"], packed["unit"]) == ([12, 12, 12], 1, "µrad²")
    mean = packed["least"] + packed["step"] * decoded(packed["mean"], np.uint16, 12, 12, 12)
    np.testing.assert_allclose(mean, derived.mean, atol=packed["step"])
    anisotropy = decoded(packed["anisotropy"], np.uint8, 12, 12, 12)
    np.testing.assert_array_equal(anisotropy == 255, ~derived.valid)
    valid = derived.valid
    np.testing.assert_allclose(anisotropy[valid] / 254, derived.fractional_anisotropy[valid], atol=0.002)
    direction = decoded(packed["direction"], np.int8, 12, 12, 12, 3)
    np.testing.assert_allclose(direction / 127, derived.direction, atol=0.004)


def test_large_volumes_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = derive(helicoidal_fibres((12, 11, 10)).coefficients)
    monkeypatch.setattr(_volume, "MOST_VOXELS", 300)
    packed = json.loads(_volume.packed(derived, ""))
    assert (packed["shape"], packed["stride"]) == ([6, 6, 5], 2)
    mean = packed["least"] + packed["step"] * decoded(packed["mean"], np.uint16, 6, 6, 5)
    np.testing.assert_allclose(mean, derived.mean[::2, ::2, ::2], atol=packed["step"])


def test_the_page_stays_small() -> None:
    """64³ voxels, and any larger volume, in less than 6.5 MB of text."""
    derived = derive(helicoidal_fibres((64, 64, 64), ell_max=2).coefficients)
    assert len(_volume.packed(derived, "")) < 3e6
    assert _volume.MOST_VOXELS * 6 * 4 / 3 < 5e6


@pytest.mark.parametrize("most", [1, 7, 60, 200, 500, 5000])
def test_sticks_are_few_strong_and_spread(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    strength = strength_of(derive(helicoidal_fibres((14, 13, 12)).coefficients))
    strength = strength * np.random.default_rng(0).uniform(0.5, 1, strength.shape)
    monkeypatch.setattr(_volume, "MOST_STICKS", most)
    chosen, spacing = _volume._spread_out(strength)
    count = np.count_nonzero(strength)
    assert len(chosen) == len(set(chosen.tolist())) <= most
    assert len(chosen) >= min(count, most / 4)
    assert (strength.ravel()[chosen] > 0).all()
    edge = next(n for n in range(1, 20) if any(abs(spacing / n - s ** (1 / 3)) < 1e-9 for s in (1, 2, 4)))
    for place in np.stack(np.unravel_index(chosen, strength.shape), axis=-1):
        cube = tuple(slice(n // edge * edge, n // edge * edge + edge) for n in place)
        assert strength[tuple(place)] == strength[cube].max()


def test_a_histogram_is_numpys() -> None:
    values = np.random.default_rng(0).normal(5, 1, 4000)
    svg = histogram(values, "width", "µm", bins=10)
    path = re.search(r'class="bar" d="([^"]+)Z"', svg)[1]
    tops = [float(y) for y in re.findall(r"V([\d.]+)", path)][:-1]
    expected, _ = np.histogram(values, bins=10, range=np.percentile(values, (0.2, 99.8)))
    floor = float(re.search(r"M[\d.]+,(\d+)", path)[1])
    np.testing.assert_allclose((floor - np.array(tops)) / (floor - min(tops)), expected / expected.max(), atol=0.001)
    assert 'aria-label="Histogram of width over 4000 voxels: median 5.0' in svg or "median 4.9" in svg
    assert "width (µm)" in svg


def test_a_histogram_of_one_value() -> None:
    assert "NaN" not in histogram(np.full(5, 3.0), "same", "")
    assert "nan" not in histogram(np.zeros(5), "zero", "")
