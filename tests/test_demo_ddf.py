"""The demonstration of a dark-field tensor scan, on a smaller sample, start to finish."""

import json

import pytest

from ddf_tomo import Reconstruction, Scan, cli, demo_ddf
from ddf_tomo.retrieval import Maps

pytest.importorskip("matplotlib")


def test_from_frames_to_a_volume(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_ddf, "VOXELS", (8, 8, 8))
    monkeypatch.setattr(demo_ddf, "VIEWS", (4, 6, 5, 4))
    folder = tmp_path / "new" / "folder"
    with pytest.raises(SystemExit) as end, pytest.warns(UserWarning, match="determine"):
        cli.main(["--debug", "demo", "--ddf", "-o", str(folder)])
    assert end.value.code == 0
    assert capsys.readouterr().out.rstrip().endswith(str(folder))
    merits = list(json.loads((folder / "figures_of_merit_ddf.json").read_text()).values())
    assert merits[0]["strongest blur, square pixels"] == pytest.approx(1, abs=0.2)
    assert merits[1]["blur, error (RMS), square pixels"] < 0.2
    assert merits[2]["direction error, degrees: median"] < 20
    for name in ("ddf_maps", "ddf_mean", "ddf_directions", "ddf_glyphs"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert Maps.load(folder / "ddf_maps.h5").transmission.shape == (19, 32, 32)
    assert Scan.read(folder / "ddf_scan.h5").data.shape == (19, 8, 8, 3)
    assert Reconstruction.load(folder / "ddf_volume.h5").ell_max == 2
    assert (folder / "ddf_report.html").read_text().rstrip().endswith("</html>")
    assert not list(folder.glob("*.part"))
