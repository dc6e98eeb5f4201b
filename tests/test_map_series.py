"""Maps of a scan with their geometry: in a file and back, as scans, as volumes of tensors and scalars."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError, Geometry, Reconstruction, XRayTransform
from ddf_tomo.manifest import Manifest
from ddf_tomo.map_series import MapSeries
from ddf_tomo.operators.refraction import RefractionTransform
from ddf_tomo.retrieval import Maps
from tests.retrieval.simulation import frames
from tests.scans import some_maps

ANGLES = np.linspace(0, np.pi, 12, endpoint=False)
GEOMETRY = Geometry.from_angles(ANGLES, np.tile([0.0, 0.6], 6), (12, 12, 12), (16, 14))


def series(**changes):
    return MapSeries(some_maps((12, 16, 14)), GEOMETRY, (0.4, 0.8), 25.0, "rods", {"method": "matching"}, **changes)


def test_a_file_restores_everything(tmp_path):
    made = series()
    made.save(tmp_path / "maps.h5")
    found = MapSeries.load(tmp_path / "maps.h5")
    assert (found.geometry, found.distances_m, found.energy_kev) == (GEOMETRY, (0.4, 0.8), 25.0)
    assert (found.title, dict(found.provenance)) == ("rods", {"method": "matching"})
    np.testing.assert_array_equal(found.maps.covariance, made.maps.covariance)
    np.testing.assert_array_equal(Maps.load(tmp_path / "maps.h5").valid, made.maps.valid)
    assert MapSeries.is_one(tmp_path / "maps.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["maps.h5"]
    assert repr(found) == "<MapSeries: 12 views of 16 × 14 pixels>"
    assert found.wavelength_m == pytest.approx(0.4959e-10, rel=1e-4)  # of 25 keV


def test_files_that_hold_no_series(tmp_path):
    series().maps.save(tmp_path / "maps.h5")
    assert MapSeries.is_one(tmp_path / "maps.h5")
    with pytest.raises(FileFormatError, match="maps with their geometry, got maps alone"):
        MapSeries.load(tmp_path / "maps.h5")
    (tmp_path / "text.h5").write_text("x")
    assert not MapSeries.is_one(tmp_path / "text.h5")
    assert not MapSeries.is_one(tmp_path / "nothing.h5")
    series().save(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "cut.h5", "r+") as file:
        del file["geometry/p"]
    with pytest.raises(FileFormatError, match=r"cut.h5"):
        MapSeries.load(tmp_path / "cut.h5")


def test_what_does_not_belong_together():
    with pytest.raises(ValueError, match=r"maps: expected shape \(11, 16, 14\)"):
        MapSeries(some_maps((12, 16, 14)), GEOMETRY[1:])
    with pytest.raises(TypeError, match="maps"):
        MapSeries(3, GEOMETRY)
    with pytest.raises(ValueError, match="energy_kev"):
        MapSeries(some_maps((12, 16, 14)), GEOMETRY, energy_kev=-1.0)
    with pytest.raises(ValueError, match="energy_kev: expected the energy"):
        _ = MapSeries(some_maps((12, 16, 14)), GEOMETRY).wavelength_m
    with pytest.raises(TypeError, match="provenance"):
        MapSeries(some_maps((12, 16, 14)), GEOMETRY, provenance={"a": object()}).save("x.h5")


def test_scans_know_distances_and_air():
    many = series()
    np.testing.assert_allclose(many.scan("attenuation").data[..., 0], -np.log(many.maps.transmission))
    one = MapSeries(many.maps, GEOMETRY, (0.4,))
    assert np.ptp(one.scan("attenuation").weights) > 0  # with the errors of propagation contrast
    assert many.scan().provenance == {"data_unit": "1e-12 rad^2", "method": "matching", "energy_kev": 25.0}
    assert many._sides() == "rows"  # of MUMOTT's axes, rows run across the rotation axis
    turned = Geometry(GEOMETRY.p, GEOMETRY.k, GEOMETRY.j, 0.0, 0.0, (12, 12, 12), (14, 16))
    assert MapSeries(some_maps((12, 14, 16)), turned)._sides() == "columns"


def test_scalars_on_the_same_grid(tmp_path):
    """A cube of attenuation and δ, from transmissions and displacements that were computed from it."""
    volume = np.zeros((12, 12, 12, 1))
    volume[3:8, 4:9, 5:10] = 1.0
    path = XRayTransform(GEOMETRY)(volume)[..., 0]
    mu, delta, pixel, distance = 200.0, 3e-8, 1e-5, 2.0
    slope = np.stack(np.gradient(path, axis=(1, 2)), -1)
    maps = some_maps(
        (12, 16, 14),
        transmission=np.exp(-mu * pixel * path),
        displacement=-delta * slope * distance / pixel,  # u = (d/s) α, α = -grad of the integral of δ
        transmission_error=np.full(path.shape, 1e-4),
        displacement_error=np.full((*path.shape, 2), 1e-3),
        covariance=np.stack([path, 0 * path, path], -1),
    )
    found = MapSeries(maps, GEOMETRY, (1.0, 2.0)).reconstruct(
        checkpoint=tmp_path / "state", ell_max=0, weight=1e-3, binning=1
    )
    inside = np.s_[4:7, 5:8, 6:9]
    assert found.coefficients.shape == (12, 12, 12, 1)
    np.testing.assert_allclose(found.scalars["attenuation_per_m"][inside], mu, rtol=0.1)
    np.testing.assert_allclose(found.scalars["refractive_decrement"][inside].mean(), delta, rtol=0.15)
    assert sorted(file.name for file in (tmp_path / "state").iterdir()) == ["0", "1", "2"]
    found.save(tmp_path / "volume.h5")
    again = Reconstruction.load(tmp_path / "volume.h5")
    np.testing.assert_array_equal(again.scalars["attenuation_per_m"], found.scalars["attenuation_per_m"])
    assert "also: attenuation_per_m, refractive_decrement" in again.summary()
    found.save(tmp_path / "volume.vti")
    assert b"refractive_decrement" in (tmp_path / "volume.vti").read_bytes()
    coarse = MapSeries(maps, GEOMETRY, (1.0, 2.0)).reconstruct(scalars="phase", ell_max=0, weight=1e-3, binning=2)
    assert list(coarse.scalars) == ["refractive_decrement"]
    mass = 8 * coarse.scalars["refractive_decrement"].sum()  # of as many small voxels
    assert mass == pytest.approx(found.scalars["refractive_decrement"].sum(), rel=0.1)
    with pytest.raises(ValueError, match="scalars: expected one of"):
        MapSeries(maps, GEOMETRY).reconstruct(scalars=["density"])
    with pytest.raises(ValueError, match=r"scalars\['x'\]: expected shape \(12, 12, 12\)"):
        Reconstruction(found.coefficients, 0, GEOMETRY, found.response, scalars={"x": np.ones((3, 3, 3))})


def test_visibilities_of_frames_become_a_scan(tmp_path):
    """A Gaussian blur of known covariance: −ln V = ½ q² eᵀ C e at each azimuth, which is a law of exponent 2."""
    jj, jk, kk = covariance = (1.2, 0.4, 0.6)
    sample, reference = frames(8, (48, 52), covariance=covariance, contrast=0.2, counts=2e4, seed=3)
    np.save(tmp_path / "s.npy", np.stack([sample, sample]))
    np.save(tmp_path / "r.npy", reference)
    lengths = {"pixel_size_m": 1e-5, "distances_m": 0.5, "energy_kev": 20.0, "angles_deg": [0, 90]}
    manifest = Manifest(sample="s.npy", reference="r.npy", **lengths, folder=tmp_path)
    found = MapSeries.retrieve(manifest, "visibility", periods=[12.0, 8.0], azimuths=6)
    assert found.maps.correlation_lengths_m == pytest.approx(found.wavelength_m * 0.5 / 1e-5 / np.array([12, 8]))
    scan = found.scan("visibility")
    assert abs(scan.response.exponent - 2) < 0.1
    angles = np.array(scan.response.azimuths_rad)
    e = np.stack([np.cos(angles), np.sin(angles)])
    shape = jj * e[0] ** 2 + 2 * jk * e[0] * e[1] + kk * e[1] ** 2
    inner = scan.data[:, 12:-12, 12:-12].mean((0, 1, 2))
    np.testing.assert_allclose(inner, 0.5 * (2 * np.pi / 8) ** 2 * shape, rtol=0.06)


def test_angles_themselves_give_a_better_decrement_than_their_integrals():
    """A ball behind noise that is four times as large in some views, which a fit of all angles together may know."""
    generator = np.random.default_rng(0)
    geometry = Geometry.from_angles(np.linspace(0, np.pi, 24, endpoint=False), 0.0, (16, 16, 16), (16, 16))
    place = np.mgrid[:16, :16, :16] - 7.5
    delta = 1e-7 * (np.sqrt((place**2).sum(0)) < 5)
    angles = RefractionTransform(geometry)(delta[..., None])
    sigma = np.where(np.arange(24)[:, None, None, None] % 3, 5e-8, 2e-7) * np.ones_like(angles)
    pixel, distance = 1e-5, 2.0
    maps = some_maps(
        (24, 16, 16),
        displacement=(angles + sigma * generator.normal(size=angles.shape)) * distance / pixel,
        displacement_error=sigma * distance / pixel,
    )
    series = MapSeries(maps, geometry, (distance,))
    errors = []
    for integrated in (True, False):
        found = series.reconstruct(scalars="phase", ell_max=0, weight=1e-2, integrated=integrated)
        volume = found.scalars["refractive_decrement"]
        errors.append(np.linalg.norm(volume - delta) / np.linalg.norm(delta))
    assert errors[1] < 0.2
    assert errors[1] < 0.9 * errors[0]
