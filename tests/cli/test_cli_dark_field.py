"""The command line from a manifest to a volume: it writes what the library gives, and goes on where it was."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from ddf_tomo import Reconstruction, cli
from ddf_tomo.manifest import Manifest
from ddf_tomo.map_series import MapSeries
from ddf_tomo.retrieval import Maps, retrieve
from tests.retrieval.simulation import frames as simulated

VIEWS, STEPS, IMAGE = 6, 7, (24, 26)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two distances; a uniform slab that blurs along one direction."""
    place = tmp_path_factory.mktemp("scan")
    sample, reference = [], []
    for distance in (0.5, 1.0):
        options = {
            "covariance": (0.4 * distance**2, 0.1 * distance**2, 0.2 * distance**2),
            "contrast": 0.2,
            "counts": 1e4,
        }
        views = [simulated(STEPS, IMAGE, transmission=0.7, seed=7, **options) for _ in range(VIEWS)]
        sample.append([view[0] for view in views])
        reference.append(views[0][1])
    with h5py.File(place / "raw.h5", "w") as file:
        file["sample"], file["reference"] = np.swapaxes(sample, 0, 1), np.array(reference)
    Manifest(
        title="slab", sample="raw.h5:/sample", reference="raw.h5:/reference", pixel_size_m=1e-5, distances_m=[0.5, 1.0],
        energy_kev=20.0, angles_deg={"first": 0, "step": 30, "count": VIEWS}, volume_shape=[26, 26, 24],
    ).write(place / "scan.toml")  # fmt: skip
    return place


@pytest.fixture(scope="module")
def series(folder):
    return MapSeries.retrieve(Manifest.read(folder / "scan.toml"), smoothing=0.5)


def test_retrieve_from_a_manifest(run, folder, series, tmp_path):
    code, out, err = run("retrieve", folder / "scan.toml", "-o", tmp_path / "m.h5", "--smoothing", 0.5, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["shape"] == [VIEWS, *IMAGE]
    found = MapSeries.load(tmp_path / "m.h5")
    np.testing.assert_array_equal(found.maps.covariance, series.maps.covariance)
    assert (found.geometry, found.energy_kev, found.title) == (series.geometry, 20.0, "slab")
    assert found.provenance["method"] == "differential"
    assert [file.name for file in tmp_path.iterdir()] == ["m.h5"]
    with h5py.File(folder / "raw.h5") as file:
        whole = retrieve(file["sample"], file["reference"], smoothing=0.5, pixel_size_m=1e-5, distance_m=[0.5, 1.0])
    np.testing.assert_allclose(found.maps.covariance, whole.covariance, rtol=1e-4, atol=1e-5)


def test_one_distance_some_views_and_options_of_the_method(run, folder, tmp_path):
    words = ("--distance", 0.5, "--views", "1:4:2", "--option", "background=false", "--option", "smoothing=0.5")
    code, _, err = run("retrieve", folder / "scan.toml", "-o", tmp_path / "m.h5", *words)
    assert code == 0, err
    found = MapSeries.load(tmp_path / "m.h5")
    assert (len(found), found.distances_m, found.maps.distance_m) == (2, (0.5,), 0.5)
    frames = Manifest.read(folder / "scan.toml").frames()
    assert found.geometry == frames.geometry[[1, 3]]
    expected = retrieve(**frames.at_distance(0.5)[[1, 3]].arguments(), background=False, smoothing=0.5)
    np.testing.assert_allclose(found.maps.covariance, expected.covariance, rtol=1e-4, atol=1e-5)
    for words, complaint in {
        ("--distance", "2"): "distance_m: expected one of the distances 0.5, 1, got 2",
        ("--views", "a:b"): "views: expected first:last",
        ("--views", "9"): "views: expected at least one view",
        ("--option", "background"): "option: expected NAME=VALUE",
        ("--option", "nonsense=1"): "nonsense: expected an option of 'differential'",
        ("--option", "background=perhaps"): "background: expected True or False",
    }.items():
        code, out, err = run("retrieve", folder / "scan.toml", "-o", tmp_path / "n.h5", "--no-checkpoint", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
        assert complaint in err
    assert not (tmp_path / "n.h5").exists()


def test_what_was_interrupted_goes_on(run, folder, series, tmp_path, monkeypatch):
    from ddf_tomo.retrieval import frames

    state = tmp_path / "m.h5.checkpoint"
    done = []

    class Counted(frames.Checked):
        def __init__(self, *arguments):
            done.append(1)
            if len(done) == 4:
                raise KeyboardInterrupt
            super().__init__(*arguments)

    monkeypatch.setattr(frames, "Checked", Counted)
    words = ("retrieve", folder / "scan.toml", "-o", tmp_path / "m.h5", "--smoothing", "0.5")
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        cli.main([str(word) for word in words])
    assert state.exists()
    assert not (tmp_path / "m.h5").exists()
    code, _, err = run(*words)
    assert (code, len(done)) == (0, 4 + VIEWS - 3)
    assert f"going on from {state}" in err
    assert not state.exists()
    np.testing.assert_array_equal(MapSeries.load(tmp_path / "m.h5").maps.covariance, series.maps.covariance)


def test_faults_name_the_view(folder, tmp_path):
    with h5py.File(folder / "raw.h5") as file:
        sample, reference = file["sample"][:, 1], file["reference"][1]
    sample[2] = sample[2, :1]
    np.save(tmp_path / "s.npy", sample)
    np.save(tmp_path / "r.npy", np.broadcast_to(reference[:1], reference.shape))
    scan = Manifest(sample="s.npy", reference="r.npy", angles_deg=[0, 1, 2, 3, 4, 5], folder=tmp_path)
    with pytest.raises(ValueError, match="view 0"):
        MapSeries.retrieve(scan)


def test_reconstruct_and_report_from_maps(run, series, tmp_path):
    series.save(tmp_path / "maps.h5")
    words = ("--ell-max", 0, "--weight", 0.01, "--iterations", 4, "--binning", 2)
    code, out, err = run("reconstruct", tmp_path / "maps.h5", "-o", tmp_path / "v.h5", *words)
    assert code == 0, err
    assert "scalars: attenuation_per_m, refractive_decrement" in out
    volume = Reconstruction.load(tmp_path / "v.h5")
    assert volume.coefficients.shape == (13, 13, 12, 1)
    assert {each.shape for each in volume.scalars.values()} == {(13, 13, 12)}
    assert not (tmp_path / "v.h5.checkpoint").exists()
    expected = series.reconstruct(ell_max=0, weight=0.01, iterations=4, binning=2)
    np.testing.assert_allclose(volume.scalars["attenuation_per_m"], expected.scalars["attenuation_per_m"], rtol=1e-4)
    code, out, _ = run("reconstruct", tmp_path / "maps.h5", "-o", tmp_path / "t.h5", *words, "--no-scalars")
    assert (code, dict(Reconstruction.load(tmp_path / "t.h5").scalars)) == (0, {})
    for extra, complaint in {
        ("--quantity", "visibility"): "maps.visibility",
        ("--quantity", "phase"): "quantity: expected one of 'scattering'",
    }.items():
        code, _, err = run("reconstruct", tmp_path / "maps.h5", "-o", tmp_path / "u.h5", *words, *extra)
        assert code == 2
        assert complaint in err
    series.scan().write(tmp_path / "scan.h5")
    code, _, err = run("reconstruct", tmp_path / "scan.h5", "-o", tmp_path / "u.h5", "--quantity", "scattering")
    assert code == 2
    assert "quantity: expected a file of maps" in err
    code, _, err = run("reconstruct", tmp_path / "scan.h5", tmp_path / "maps.h5", "-o", tmp_path / "u_{}.h5")
    assert code == 2
    assert "one file of maps, or scans" in err
    series.maps.save(tmp_path / "alone.h5")
    code, _, err = run("reconstruct", tmp_path / "alone.h5", "-o", tmp_path / "u.h5")
    assert code == 2
    assert "maps with their geometry" in err


def test_a_report_takes_the_maps(run, series, tmp_path):
    pytest.importorskip("matplotlib", exc_type=ImportError)
    series.save(tmp_path / "maps.h5")
    series.reconstruct(ell_max=0, prior=None, iterations=3, scalars=()).save(tmp_path / "v.h5")
    code, _, err = run("report", tmp_path / "v.h5", "--scan", tmp_path / "maps.h5")
    assert code == 0, err
    assert "residual, share of the data" in (tmp_path / "v.html").read_text()


def test_simulated_frames_need_no_manifest(run, tmp_path):
    words = (
        "simulate",
        "helicoidal",
        "-o",
        tmp_path / "f.h5",
        "--frames",
        "--size",
        "6",
        "--tilts",
        "0",
        "--views",
        "2",
    )
    assert run(*words)[0] == 0
    assert run("retrieve", tmp_path / "f.h5", "-o", tmp_path / "m.h5")[0] == 0
    found = MapSeries.load(tmp_path / "m.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert found.maps.transmission.shape == (2, *file["sample"].shape[-2:])
        expected = retrieve(file["sample"][0], file["reference"][()])
        np.testing.assert_array_equal(found.geometry.p, file["geometry/p"][()])
    np.testing.assert_allclose(found.maps.transmission[0], expected.transmission, rtol=1e-5)
    assert isinstance(Maps.load(tmp_path / "m.h5"), Maps)


def test_reconstruction_of_maps_goes_on_at_the_volume_it_was_at(run, series, tmp_path, monkeypatch):
    import ddf_tomo.map_series as module

    real, calls = module.reconstruct, []

    def interrupted(scan, **options):
        calls.append(type(scan.response).__name__)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(scan, **options)

    monkeypatch.setattr(module, "reconstruct", interrupted)
    series.save(tmp_path / "maps.h5")
    words = (
        "reconstruct",
        tmp_path / "maps.h5",
        "-o",
        tmp_path / "v.h5",
        "--ell-max",
        0,
        "--weight",
        0.01,
        "--binning",
        2,
    )
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        cli.main([str(word) for word in words])
    assert (tmp_path / "v.h5.checkpoint" / "0" / "final.h5").exists()
    code, _, err = run(*words)
    assert code == 0
    assert "going on from" in err
    assert calls == ["SecondMomentResponse", "IsotropicResponse"] + ["SecondMomentResponse"] + 2 * ["IsotropicResponse"]
    assert not (tmp_path / "v.h5.checkpoint").exists()
    assert len(Reconstruction.load(tmp_path / "v.h5").scalars) == 2
