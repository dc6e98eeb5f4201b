"""Colours of directions, and figures of any maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.visualization import direction_colour, show_maps

pytest.importorskip("matplotlib")


@given(angle=st.floats(-10, 10), strength=st.floats(0, 1))
def test_direction_colour_is_the_hue_circle(angle: float, strength: float) -> None:
    expected = pytest.importorskip("matplotlib.colors").hsv_to_rgb([angle / np.pi % 1, 1, strength])
    np.testing.assert_allclose(direction_colour(angle, strength), expected, atol=1e-9)
    np.testing.assert_allclose(direction_colour(angle + np.pi, strength), expected, atol=1e-9)


def test_bad_colours() -> None:
    with pytest.raises(ValueError, match="angle_rad"):
        direction_colour(np.nan, 1)
    with pytest.raises(TypeError, match="strength"):
        direction_colour(0.0, "strong")


@pytest.fixture(scope="module")
def maps() -> Maps:
    generator = torch.Generator().manual_seed(0)
    reference = 1 + 0.3 * torch.rand(5, 24, 26, generator=generator)
    return retrieve(torch.stack([reference, 0.5 * reference]), reference)


def test_maps_of_a_view(maps: Maps, tmp_path: Path) -> None:
    assert len(show_maps(maps, view=1).axes) >= 11
    show_maps(replace(maps, valid=torch.zeros_like(maps.valid)), tmp_path / "no_extension")
    assert (tmp_path / "no_extension").read_bytes().startswith(b"\x89PNG")
    show_maps(maps, str(tmp_path / "maps.pdf"))
    assert (tmp_path / "maps.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="view"):
        show_maps(maps, view=2)
