"""What Jupyter shows: short, escaped, without scripts, with a picture of the right thing, and never an error."""

from __future__ import annotations

import base64
import io
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo import (
    Geometry,
    IsotropicResponse,
    RankTwoResponse,
    Reconstruction,
    SaxsResponse,
    Scan,
    SecondMomentResponse,
)
from ddf_tomo._html import png
from ddf_tomo.phantoms import helicoidal_fibres, tilt_series
from ddf_tomo.visualization import axis_colour

GEOMETRY = tilt_series((9, 8, 7), views=[3, 4], tilts_rad=[0.0, np.radians(30)])


def a_scan(**options):
    weights = np.ones((7, 9, 7, 3))
    weights[:, :3] = 0
    data = np.linspace(-1, 2, weights.size).reshape(weights.shape)
    return Scan(
        **({"data": data, "geometry": GEOMETRY, "response": SecondMomentResponse(), "weights": weights} | options)
    )


def a_reconstruction(**options):
    coefficients = helicoidal_fibres(GEOMETRY.volume_shape, 2)[0]
    return Reconstruction(coefficients, 2, GEOMETRY, SecondMomentResponse(), **options)


def picture(text):
    """Kind and content of the one picture."""
    ((kind, content),) = re.findall(r'src="data:image/([^;]+);base64,([^"]+)"', text)
    return kind, base64.b64decode(content)


@pytest.mark.parametrize(
    "thing",
    [
        a_scan(),
        a_scan(data=torch.ones(7, 9, 7, 3), weights=None),
        a_scan(title="<script>alert(1)</script> & more", provenance={"data_unit": "<b>"}),
        Scan(np.zeros((7, 9, 7, 1)), GEOMETRY, IsotropicResponse(), diode=np.ones((7, 9, 7))),
        a_reconstruction(),
        a_reconstruction(settings={"method": "<i>", "residual_share": 0.0123}, provenance={"title": "<script>"}),
        Reconstruction(np.zeros((4, 4, 4, 1)), 0, GEOMETRY, SecondMomentResponse()),
        Reconstruction(np.ones((4, 1, 4, 6)), 2, GEOMETRY, RankTwoResponse()),
        Reconstruction(np.full((2, 2, 2, 6), 1e300), 2, GEOMETRY, SecondMomentResponse()),
        GEOMETRY,
        GEOMETRY[:0],
        GEOMETRY[:1],
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_a_card_is_well_formed_short_and_harmless(thing):
    text = thing._repr_html_()
    ElementTree.fromstring(text.replace("<img", "<img ").replace('"><figcaption', '"/><figcaption'))
    assert not re.search(r"<script|<i>|<b>&|javascript|http:|https:|on\w+=", text)
    assert len(text) < 20_000
    assert type(thing).__name__ in text


def test_a_card_says_what_there_is():
    scan = a_scan(title="bone & <tendon>", voxel_size_m=25e-6)._repr_html_()
    for part in (
        "bone &amp; &lt;tendon&gt;", "7 of 9 × 7 pixels", "3: Θ_jj, Θ_jk, Θ_kk (SecondMomentResponse)",
        "9 × 8 × 7 voxels of 25 µm", "-1 … 2", "0 … 1, 33.3% masked",
    ):  # fmt: skip
        assert part in scan
    many = Scan(np.ones((7, 9, 7, 12)), GEOMETRY, SaxsResponse(np.arange(12) * np.pi / 12))._repr_html_()
    assert "12: 0°, 15°, 30°, 45°, …, 165° (SaxsResponse)" in many
    volume = a_reconstruction(settings={"method": "cg", "smoothness": 0.01, "residual_share": 0.0123})._repr_html_()
    for part in ("9 × 8 × 7 voxels", "6, orders up to ℓ = 2", "method cg, smoothness 0.01", "1.23% of the data"):
        assert part in volume
    geometry = GEOMETRY._repr_html_()
    for part in ("7 of 9 × 7 pixels", "0.0 … 30.0° out of the xy plane", "left-handed"):
        assert part in geometry


def test_the_pictures_show_the_things():
    image = pytest.importorskip("matplotlib.image")
    scan = a_scan()
    kind, content = picture(scan._repr_html_())
    assert kind == "png"
    seen = image.imread(io.BytesIO(content))[..., 0]
    assert seen.shape == (9, 7)
    assert np.corrcoef(seen.ravel(), scan.data[3].mean(-1).ravel())[0, 1] > 0.99
    volume = a_reconstruction()
    seen = image.imread(io.BytesIO(picture(volume._repr_html_())[1]))[::-1, :, :3].swapaxes(0, 1)  # (x, y) of z = 3
    derived = volume.derived()
    colours = axis_colour(derived.direction[:, :, 3], derived.valid[:, :, 3].astype(float))
    bright = seen.max(axis=-1)
    assert (bright > 0.5).sum() > 15
    np.testing.assert_allclose(seen[bright > 0.5] / bright[bright > 0.5, None], colours[bright > 0.5], atol=0.02)


@pytest.mark.parametrize(
    ("shape", "voxel", "row", "column"), [((9, 8, 7), (7, 1, 3), 8 - 1 - 1, 7), ((2, 8, 7), (1, 5, 2), 7 - 1 - 2, 5)]
)
def test_a_voxel_is_where_its_coordinates_say(shape, voxel, row, column):
    """The first axis of the slice runs to the right, the second upwards; a flat volume shows its face."""
    image = pytest.importorskip("matplotlib.image")
    coefficients = np.zeros((*shape, 6))
    coefficients[voxel] = [1, 0, 0, 1, 0, 0]
    volume = replace(a_reconstruction(), coefficients=coefficients)
    seen = image.imread(io.BytesIO(picture(volume._repr_html_())[1]))[..., :3]
    assert np.argwhere(seen.any(axis=-1)).tolist() == [[row, column]]
    np.testing.assert_allclose(seen[row, column], [0, 0, 1], atol=0.01)


def test_the_beams_are_drawn_once_each():
    kind, content = picture(GEOMETRY._repr_html_())
    assert kind == "svg+xml"
    circles = [c for c in ElementTree.fromstring(content).iter() if c.tag.endswith("circle") and "cx" in c.attrib]
    assert len(circles) == len(GEOMETRY)
    for circle, p in zip(circles, GEOMETRY.p, strict=True):
        upper = p if p[2] >= 0 else -p
        expected = upper[:2] / np.sqrt(1 + upper[2])
        assert (float(circle.get("cx")), -float(circle.get("cy"))) == pytest.approx(expected, abs=1e-3)


def test_many_beams_are_thinned_out():
    many = Geometry.from_angles(np.linspace(0, 6, 5000), 0.3, (4, 4, 4), (4, 4))._repr_html_()
    assert len(many) < 60_000


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (1000, 3)])
def test_png_is_png(shape):
    image = pytest.importorskip("matplotlib.image")
    colours = np.random.default_rng(0).uniform(size=(*shape, 3))
    seen = image.imread(io.BytesIO(png(colours)))
    step = -(-max(shape) // 256)
    np.testing.assert_allclose(seen[..., :3], colours[::step, ::step], atol=0.003)


def test_matplotlib_is_not_needed(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for thing in (a_scan(), a_reconstruction(), GEOMETRY):
        assert "data:image/" in thing._repr_html_()


def test_a_picture_that_fails_leaves_the_text():
    broken = replace(a_reconstruction(), coefficients=np.full((3, 3, 3, 6), np.nan))
    text = broken._repr_html_()
    assert "3 × 3 × 3 voxels" in text
    assert "<img" not in text
