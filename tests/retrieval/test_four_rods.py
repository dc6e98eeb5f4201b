"""What must hold on the measured rods: nothing in air and smooth plastic, directions along the fibres' normal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddf_tomo.datasets import four_rods
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.visualization import show_maps

ROWS = slice(7, -7)  # the border, where the reach of the filters leaves half a window
EMPTY = {"air": (1420, 1570), "smooth": (600, 1010), "air at the right": (2160, 2200)}
FIBROUS = {"coarse": (50, 450), "fibrous": (1130, 1340), "strong": (1660, 2060)}


@pytest.fixture(scope="module")
def halves_and_all() -> list[Maps]:
    rods = four_rods()
    options = {"pixel_size_m": rods.pixel_size_m, "distance_m": rods.distance_m}
    steps = (slice(0, None, 2), slice(1, None, 2), slice(None))
    return [retrieve(rods.sample[s], rods.reference[s], **options) for s in steps]


def part(maps: Maps, name: str, region: tuple[int, int]) -> np.ndarray:
    return getattr(maps, name)[ROWS, slice(*region)]


def degrees(maps: Maps, region: tuple[int, int]) -> float:
    """Direction of the region's mean blur, from down towards right, in [0, 180)."""
    jj, jk, kk = part(maps, "covariance", region).mean((0, 1))
    return float(np.degrees(0.5 * np.arctan2(2 * jk, jj - kk)) % 180)


@pytest.mark.parametrize("region", EMPTY.values(), ids=EMPTY)
def test_no_dark_field_where_nothing_scatters(halves_and_all: list[Maps], region: tuple[int, int]) -> None:
    z = part(halves_and_all[2], "covariance", region) / part(halves_and_all[2], "covariance_error", region)
    for channel in np.moveaxis(z, -1, 0):
        assert np.mean(abs(channel) < 2) > 0.85
        assert np.mean(abs(channel) < 1) > 0.5
        assert abs(channel.mean()) < 1  # nothing systematic beyond a pixel's own error


def test_smooth_rod_refracts_like_a_cylinder(halves_and_all: list[Maps]) -> None:
    u_k = part(halves_and_all[2], "displacement", (600, 1010))[..., 1].mean(0)
    position = np.arange(600, 1010) - 805
    assert np.corrcoef(u_k, position)[0, 1] > 0.95
    assert part(halves_and_all[2], "transmission", (1420, 1570)).mean() == pytest.approx(0.993, abs=0.003)


@pytest.mark.parametrize("region", FIBROUS.values(), ids=FIBROUS)
def test_fibrous_rods_scatter_across_their_axis(halves_and_all: list[Maps], region: tuple[int, int]) -> None:
    maps = halves_and_all[2]
    error = part(maps, "covariance_error", region)[..., 2]
    assert np.mean(part(maps, "covariance", region)[..., 2] > 3 * error) > 0.9
    # The rods stand up to 4.5° off the vertical, fibres within a rod a little more.
    assert abs(degrees(maps, region) - 90) < 6


def test_direction_of_the_strong_rod_is_its_tilt(halves_and_all: list[Maps]) -> None:
    # Its outline moves 10.3 columns to the left over 171 rows of the full image: 3.5° from the vertical, so that the
    # normal points 3.5° below the horizontal.
    region = FIBROUS["strong"]
    assert degrees(halves_and_all[2], region) == pytest.approx(90 - 3.5, abs=1.2)
    angle = np.degrees(part(halves_and_all[2].direction(), "angle_rad", region)) % 180
    low, high = np.percentile(angle, (10, 90))
    assert high - low < 15


@pytest.mark.parametrize("region", [*EMPTY.values(), *FIBROUS.values()], ids=[*EMPTY, *FIBROUS])
def test_halves_of_the_positions_agree(halves_and_all: list[Maps], region: tuple[int, int]) -> None:
    first, second, _ = halves_and_all
    for name in ("displacement", "covariance"):
        both = np.hypot(part(first, name + "_error", region), part(second, name + "_error", region))
        z = (part(first, name, region) - part(second, name, region)) / both
        assert 0.52 < np.mean(abs(z) < 1) < 0.87
        assert np.mean(abs(z) < 2.5) > 0.9


@pytest.mark.parametrize("name", ["coarse", "strong"])
def test_halves_show_the_same_direction(halves_and_all: list[Maps], name: str) -> None:
    assert degrees(halves_and_all[0], FIBROUS[name]) == pytest.approx(degrees(halves_and_all[1], FIBROUS[name]), abs=2)


def test_figure(halves_and_all: list[Maps], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = show_maps(halves_and_all[2], tmp_path / "maps.png")
    assert [file.name for file in tmp_path.iterdir()] == ["maps.png"]
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert any("direction" in axis.get_title() for axis in figure.axes)
