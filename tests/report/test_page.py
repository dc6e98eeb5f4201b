"""The page as a text: whole, self-contained, well-formed HTML that says what it must."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ddf_tomo import Reconstruction, Scan
from ddf_tomo.phantoms import helicoidal_fibres

pytest.importorskip("matplotlib")

from ddf_tomo.report import write_report
from ddf_tomo.retrieval import restore_transmission
from tests.report.conftest import SHAPE, TITLE

EMPTY_ELEMENTS = {"meta", "img", "input", "br", "link"}


class Outline(HTMLParser):
    """Collects tags with their attributes and texts; every tag must be closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute of <{tag}> is there twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # SVG's <path/>
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in {*self.open}:
            self.texts[tag] = self.texts.get(tag, "") + data

    def attributes(self, name):
        return [values[name] for _, values in self.tags if name in values]


@pytest.fixture(scope="module")
def outline(page: Path) -> Outline:
    return Outline(page.read_text(encoding="utf-8"))


def test_nothing_is_fetched(page: Path, outline: Outline) -> None:
    """No address but places in the page itself and data in it; and a policy that would forbid any."""
    for name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster"):
        assert all(re.match(r"#|data:image/png;base64,", value) for value in outline.attributes(name)), name
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in outline.tags}
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in next(v["content"] for tag, v in outline.tags if "http-equiv" in v)


def test_names_are_unique_and_references_lead_somewhere(outline: Outline) -> None:
    names = outline.attributes("id")
    assert len(names) == len(set(names))
    pointers = [value[1:] for value in outline.attributes("href")]
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        pointers += outline.attributes(attribute)
    assert len(pointers) > 15
    assert set(pointers) <= set(names)


def test_pictures_have_words(outline: Outline) -> None:
    images = [values for tag, values in outline.tags if tag == "img"]
    assert len(images) >= 6
    assert all(len(values["alt"]) > 10 and values["width"] and values["height"] for values in images)
    drawn = [values for tag, values in outline.tags if tag in ("canvas", "svg")]
    assert len(drawn) >= 13
    assert all(values["role"] == "img" and len(values["aria-label"]) > 10 for values in drawn)
    labelled = set(outline.attributes("for"))
    assert all(values["id"] in labelled for tag, values in outline.tags if tag == "input")


def test_the_order_of_things(outline: Outline) -> None:
    sections = [values["id"] for tag, values in outline.tags if tag == "section"]
    assert sections == [
        "summary", "measured", "residuals", "share", "convergence", "slices", "directions", "merits", "quantities",
        "settings", "provenance",
    ]  # fmt: skip
    assert [value[1:] for value in outline.attributes("href")] == sections
    assert [tag for tag, _ in outline.tags].count("h1") == 1


def test_texts_are_escaped(page: Path, outline: Outline) -> None:
    assert TITLE not in page.read_text(encoding="utf-8")
    assert outline.texts["h1"].strip() == outline.texts["title"].strip() == TITLE


def test_hostile_settings_stay_text(volume: Reconstruction, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    made = Reconstruction(
        volume.coefficients, 2, volume.geometry, volume.response, (3.0, 1.0), None,
        {"method": evil, evil: 1}, {"title": evil, "data_unit": evil, evil: evil},
    )  # fmt: skip
    write_report(made, tmp_path / "evil.html")
    found = Outline((tmp_path / "evil.html").read_text(encoding="utf-8"))
    assert len([tag for tag, _ in found.tags if tag == "script"]) == 5
    assert not found.attributes("onerror")


def test_without_scan_and_truth_it_says_so(volume: Reconstruction, tmp_path: Path) -> None:
    write_report(volume, tmp_path / "plain.html")
    text = (tmp_path / "plain.html").read_text(encoding="utf-8")
    assert "The scan was not given to this report" in text
    assert 'id="merits"' not in text
    assert "Attenuation and refraction" not in text
    Outline(text)


def test_a_restored_transmission_with_what_it_gained_and_cost(volume: Reconstruction, tmp_path: Path) -> None:
    restored = restore_transmission(0.5 + np.eye(24) / 3, 1.0, error=0.001)
    write_report(volume, tmp_path / "restored.html", restored=restored)
    text = (tmp_path / "restored.html").read_text(encoding="utf-8")
    section = text[text.index('id="restored"') :].partition("</section>")[0]
    assert "data:image/png" in section
    for figure in (restored.limit_before, restored.limit_after, restored.noise_gain):
        assert f"<dd>{figure:.3g}</dd>" in section


def test_an_empty_volume_has_a_report_too(volume: Reconstruction, tmp_path: Path) -> None:
    empty = Reconstruction(0 * volume.coefficients, 2, volume.geometry, volume.response)
    write_report(empty, tmp_path / "empty.html")
    text = (tmp_path / "empty.html").read_text(encoding="utf-8")
    assert "The volume holds no sample" in text
    assert "holds no history" in text
    Outline(text)


def test_it_is_whole_or_not_there(volume: Reconstruction, scan: Scan, tmp_path: Path, monkeypatch) -> None:
    def fail(*_):
        raise KeyboardInterrupt

    path = tmp_path / "report.html"
    path.write_text("the report of yesterday")
    monkeypatch.setattr("ddf_tomo.report._sections.settings", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(volume, path)
    assert path.read_text() == "the report of yesterday"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib_it_names_the_line_that_installs_it(volume, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        write_report(volume, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(volume: Reconstruction, scan: Scan, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(TypeError, match="reconstruction: expected a Reconstruction"):
        write_report(volume.coefficients, path)
    with pytest.raises(TypeError, match="scan: expected a Scan"):
        write_report(volume, path, scan=scan.data)
    with pytest.raises(ValueError, match="scan: expected the scan of this reconstruction"):
        write_report(volume, path, scan=scan[:5])
    with pytest.raises(TypeError, match="title: expected a text"):
        write_report(volume, path, title=3)
    with pytest.raises(TypeError, match=r"^restored: expected what restore_transmission gave"):
        write_report(volume, path, restored=volume)
    with pytest.raises(ValueError, match="truth"):
        write_report(volume, path, truth=np.zeros((*SHAPE, 6)))
    with pytest.raises(ValueError, match=r"\(volume\)"):
        write_report(volume, path, truth=helicoidal_fibres((8, 8, 8)))
    with pytest.raises(FileNotFoundError, match="existing folder"):
        write_report(volume, tmp_path / "no" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_volumes_without_direction_have_a_section(volume: Reconstruction, tmp_path: Path) -> None:
    values = {"attenuation_per_m": np.ones(volume.coefficients.shape[:3]), "other_one": np.ones(SHAPE)}
    write_report(replace(volume, scalars=values), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    Outline(text)
    assert "Attenuation coefficient μ in 1/m." in text
    assert "other one." in text
    assert "Attenuation and refraction" in text
