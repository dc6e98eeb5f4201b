"""What every retrieval method keeps to, whatever it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddf_tomo.retrieval import METHODS, Maps, retrieve
from ddf_tomo.retrieval._tiles import ALIGNED, Tile, arrays, tiles
from tests.retrieval.methods import EXAMPLES, NAMES, Example

SHAPE = (41, 49)  # one more than a multiple of all coarse grids: they turn into themselves
ESTIMATES = ("transmission", "displacement", "covariance")


@pytest.fixture(scope="module", params=NAMES)
def example(request: pytest.FixtureRequest) -> tuple[str, Any, Any, Maps]:
    name = request.param
    sample, reference = EXAMPLES[name].mask(SHAPE)
    return name, sample, reference, retrieve(sample, reference, name, **EXAMPLES[name].options)


def again(example: Any, sample: Any, reference: Any, **more: Any) -> Maps:
    return retrieve(sample, reference, example[0], **EXAMPLES[example[0]].options, **more)


def same(found: Maps, expected: Maps, tolerance: float = 1e-5, kept: Any = ...) -> None:
    assert np.array_equal(found.valid, expected.valid)
    for name, _ in arrays(expected):
        if name != "valid":
            one, other = (np.asarray(getattr(each, name))[kept] for each in (found, expected))
            finite = np.isfinite(other)
            assert np.array_equal(np.isfinite(one), finite), name
            scale = np.abs(other[finite]).max(initial=0.0) or 1.0
            np.testing.assert_allclose(one[finite], other[finite], atol=tolerance * scale, rtol=0, err_msg=name)


def test_every_method_has_an_example() -> None:
    assert set(METHODS) == set(EXAMPLES)


def test_shapes_errors_and_validity(example: Any) -> None:
    maps = example[3]
    assert maps.valid.mean() > 0.3
    for name, value in arrays(maps):
        assert value.shape[:2] == SHAPE, name
        assert not np.isnan(value).any(), name
        if name.endswith("_error"):
            assert (value >= 0).all(), name
            if name in ("transmission_error", "displacement_error"):  # a mask may not tell all of a covariance
                border = EXAMPLES[example[0]].border if name == "transmission_error" else 0
                inner = (slice(border, -border or None),) * 2
                assert np.isfinite(value[inner][maps.valid[inner]]).all(), name
        elif name not in ("valid", "error_matrix"):
            assert np.isfinite(value).all(), name
    assert np.median(maps.transmission[maps.valid]) == pytest.approx(0.8, abs=0.05)


def test_units_of_the_counts_do_not_matter(example: Any) -> None:
    _, sample, reference, maps = example
    same(again(example, sample * 1e-4, reference * 1e-4), maps)


def test_kinds_of_arrays(example: Any) -> None:
    _, sample, reference, maps = example
    tensors = again(example, torch.tensor(sample), torch.tensor(reference), device="cpu")
    assert isinstance(tensors.covariance, torch.Tensor)
    assert tensors.covariance.dtype == torch.float64
    np.testing.assert_allclose(tensors.covariance.detach().numpy(), maps.covariance, atol=1e-9)
    integers = again(example, sample.astype(np.uint16), reference.astype(np.uint16))
    assert integers.transmission.dtype == np.float32
    both = integers.valid & maps.valid
    assert both.mean() > 0.3
    np.testing.assert_allclose(integers.transmission[both], maps.transmission[both], atol=5e-3)


def test_views_share_or_own_a_reference(example: Any) -> None:
    _, sample, reference, maps = example
    pair = np.stack([sample, sample[::-1]])
    for references in (reference, np.stack([reference, reference])):
        if references is reference:
            pair[1] = sample
        found = again(example, pair, references)
        assert found.covariance.shape == (2, *SHAPE, 3)
        same(Maps(**{name: value[0] for name, value in arrays(found)}, **axes(found)), maps)


def axes(maps: Maps) -> dict[str, Any]:
    return {"azimuths_rad": maps.azimuths_rad, "correlation_lengths_m": maps.correlation_lengths_m}


def test_turning_the_frames_turns_the_maps(example: Any) -> None:
    name, sample, reference, maps = example
    turned = again(example, *(np.rot90(each, axes=(1, 2)).copy() for each in (sample, reference)))
    # np.rot90 sends the axis k (right) up, that is to -j, and j to k.
    expected = {name: np.rot90(getattr(maps, name)) for name in ESTIMATES}
    u, c = expected["displacement"], expected["covariance"]
    expected["displacement"] = np.stack([-u[..., 1], u[..., 0]], -1)
    expected["covariance"] = np.stack([c[..., 2], -c[..., 1], c[..., 0]], -1)
    valid = np.rot90(maps.valid) & turned.valid
    assert valid.mean() > 0.3
    for part, value in expected.items():
        np.testing.assert_allclose(
            getattr(turned, part)[valid], value[valid], atol=EXAMPLES[name].turned, err_msg=f"{name} {part}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_tiles_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[name]
    sample, reference = example.mask((24, example.columns))
    options = example.options | example.tiled
    whole, cut = retrieve(sample, reference, name, **options), []

    def narrow(*given: Any) -> list[Tile]:
        cut.extend(tiles(*given))
        return cut

    monkeypatch.setattr("ddf_tomo.retrieval._tiles.PIXELS", 1)
    monkeypatch.setattr("ddf_tomo.retrieval._tiles.LEAST", 32)
    monkeypatch.setattr("ddf_tomo.retrieval.frames.tiles", narrow)
    tiled = retrieve(sample, reference, name, **options)
    if example.columns > Example().columns:
        assert min(each.used[1].stop - each.used[1].start for each in cut) < example.columns - 16
    # Where it is known to depend on them a bound is kept all the same.
    same(tiled, whole, tolerance=example.depends_on_tiles or 1e-5)


@pytest.mark.parametrize(("reach", "frames"), [(0, 1), (5, 20), (33, 400)])
def test_tiles_cover_an_image_once(reach: int, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddf_tomo.retrieval._tiles.PIXELS", 1 << 14)
    seen = np.zeros((300, 411), int)
    for tile in tiles((300, 411), frames, reach):
        seen[tile.place] += 1
        for used, kept, place, length in zip(*tile, (300, 411), strict=True):
            assert used.start % ALIGNED == 0
            assert used.start + kept.start == place.start
            assert used.start <= max(place.start - reach, 0)
            assert used.stop >= min(place.stop + reach, length)
    assert np.all(seen == 1)


def test_options_of_other_methods_are_refused() -> None:
    sample, reference = EXAMPLES["differential"].mask(SHAPE)
    with pytest.raises(TypeError, match="magic: expected an option of 'differential', which are 'window'"):
        retrieve(sample, reference, magic=3)
