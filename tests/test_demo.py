"""The demonstration, on a smaller sample and fewer rows, start to finish."""

import dataclasses
import json

import pytest

from ddf_tomo import Reconstruction, Scan, datasets, demo
from ddf_tomo.retrieval import Maps

for neighbour in ("matplotlib", "mumott"):
    pytest.importorskip(neighbour)


@pytest.mark.slow
def test_all_steps_leave_what_they_promise(tmp_path, monkeypatch):
    whole = datasets.ct_projections()
    rows = {name: getattr(whole, name)[..., 20:28, :] for name in ("frames", "flat", "dark")}
    monkeypatch.setattr(demo, "VOXELS", (12, 12, 12))
    monkeypatch.setattr(datasets, "ct_projections", lambda: dataclasses.replace(whole, **rows))
    lines = []
    with pytest.warns(UserWarning, match="air reads"):
        folder = demo.run(tmp_path / "new" / "folder", lines.append)

    assert lines[-1].endswith(str(folder))
    merits = list(json.loads((folder / "figures_of_merit.json").read_text()).values())
    assert abs(abs(merits[0]["fibrous rod: fibres stand at, degrees from the vertical"]) - 4) < 1.5
    assert abs(merits[0]["smooth rod: mean blur, square pixels"]) < 0.02
    assert merits[1]["axis, columns off the detector's centre"] == pytest.approx(-6.34, abs=0.3)
    assert merits[2]["direction error, degrees: median"] < 6
    assert "left out" in merits[3] or merits[3]["direction error, degrees: median"] < 8
    for name in ("four_rods_maps", "ct_volume", "fibres_directions", "fibres_glyphs"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert Maps.load(folder / "four_rods_maps.h5").valid.mean() > 0.95
    assert Reconstruction.load(folder / "ct_volume.h5").ell_max == 0
    assert len(Scan.read(folder / "fibres_scan.h5")) == 255
    assert (folder / "fibres_report.html").read_text().rstrip().endswith("</html>")
    assert (folder / "fibres_volume.vti").stat().st_size > 10_000
    assert not list(folder.glob("*.part"))


def test_without_mumott_the_last_step_says_what_to_install(tmp_path, monkeypatch):
    def missing(module):
        raise ImportError(f"this needs {module}")

    monkeypatch.setattr(demo, "neighbour", missing)
    assert demo.inside_mumott(tmp_path) == {"left out": "this needs mumott"}
