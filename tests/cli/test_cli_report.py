"""``ddf-tomo report`` writes what the library gives."""

from __future__ import annotations

import json

import pytest

import ddf_tomo
from ddf_tomo import cli
from ddf_tomo.merits import compare


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with a scan, its truth, and a volume."""
    folder = tmp_path_factory.mktemp("simulated")
    words = ["simulate", "helicoidal", "-o", folder / "s.h5", "--truth", folder / "t.h5", "--size", "8"]
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in (*words, "--views", "20")])
    scan = ddf_tomo.Scan.read(folder / "s.h5")
    A = ddf_tomo.TensorXRayTransform(scan.geometry, scan.response, 2)
    volume = ddf_tomo.Reconstruction(0.01 * A.T(scan.data), 2, scan.geometry, scan.response)
    volume.save(folder / "v.h5")
    return folder


def test_report_writes_what_the_library_gives(run, simulated, tmp_path):
    pytest.importorskip("matplotlib")
    files = ("--scan", simulated / "s.h5", "--truth", simulated / "t.h5")
    code, out, err = run("report", simulated / "v.h5", "-o", tmp_path / "r.html", *files, "--title", "mine", "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["output"] == str(tmp_path / "r.html")
    assert any("not described to within their noise" in line for line in figures["warnings"])
    load = ddf_tomo.Reconstruction.load
    expected = compare(load(simulated / "v.h5"), load(simulated / "t.h5"))
    assert figures["merits"]["nrmse"] == pytest.approx(expected.nrmse)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>mine</h1>" in page
    assert all(f'<section id="{name}"' in page for name in ("residuals", "merits"))


def test_report_prints_for_people_too(run, simulated, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "ddf_tomo.report.write_report", lambda volume, path, **given: calls.append((path, given)) or ("look here",)
    )
    code, out, _ = run("report", simulated / "v.h5", "--truth", simulated / "t.h5")
    page = simulated / "v.html"
    assert code == 0
    assert calls[0][0] == page
    assert (calls[0][1]["scan"], calls[0][1]["title"]) == (None, None)
    assert out.startswith("error of the coefficients (NRMSE)")
    assert "°\n" in out
    assert out.endswith(f"warning: look here\noutput: {page}\n")


def test_report_refuses_what_does_not_belong_together(complaint, simulated, scan_file, tmp_path):
    pytest.importorskip("matplotlib")
    words = ("report", simulated / "v.h5", "-o", tmp_path / "r.html")
    assert "scan: expected the scan of this reconstruction" in complaint(*words, "--scan", scan_file)
    complaint(*words, "--scan", simulated / "v.h5")
    complaint(*words, "--truth", simulated / "s.h5")
    complaint("report", simulated / "s.h5", "-o", tmp_path / "r.html")
    complaint("report", tmp_path / "no.h5")
    assert "output: expected a file in an existing folder" in complaint(*words[:3], tmp_path / "no" / "r.html")
    assert list(tmp_path.iterdir()) == []
