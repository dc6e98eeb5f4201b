"""Simulated frames: maps of samples with closed forms, what retrieval finds in the frames, files and resuming."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError, Geometry
from ddf_tomo.acquisition import Detector
from ddf_tomo.acquisition import frames as module
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.acquisition.frames import simulate_frames, view_maps
from ddf_tomo.acquisition.specimen import Specimen, phantom_specimen
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.retrieval import retrieve

VOXEL = 4e-5
VIEWS = tilt_series((8, 8, 8), views=[4], tilts_rad=[0.0])
SIZES = {"voxel_size_m": VOXEL, "pixel_size_m": VOXEL / 4, "distance_m": 1.0}


def through(delta=None, mu=None, theta=1e-12):
    """A sample that scatters alike in all directions."""
    return Specimen(lambda shape: np.full((*shape, 1), theta), delta, mu)


def test_a_prism_turns_x_rays_towards_its_edge_and_absorbs_by_beer_and_lambert():
    """δ grows along x, which is j of the first view: n < 1 bends away from the thick side; Θ of isotropic f is f L."""
    geometry = Geometry.from_angles([0.0], 0.0, (8, 6, 4), (8, 4))
    x = np.abs(geometry.j[0]).argmax()
    assert x == 0
    sign = np.sign(geometry.j[0, 0])

    def prism(shape):
        return 1e-6 * np.broadcast_to((np.arange(shape[0]) + 0.5)[:, None, None], shape)

    (maps,) = view_maps(through(prism, lambda shape: np.full(shape, 500.0)), geometry, VOXEL)
    length = 6 * VOXEL
    np.testing.assert_allclose(maps.transmission, np.exp(-500 * length), rtol=1e-5)
    np.testing.assert_allclose(maps.refraction[..., 0], -sign * 1e-6 * 6, rtol=1e-4)
    np.testing.assert_allclose(maps.refraction[..., 1], 0, atol=1e-11)
    np.testing.assert_allclose(maps.scattering, 1e-12 * length * np.array([1, 0, 1]) + np.zeros((8, 4, 3)), atol=1e-21)


def test_a_phantom_is_as_strong_as_asked_for():
    made = phantom_specimen("helicoidal", VIEWS, **SIZES, blur=2.0, shift=0.7, transmission=0.6)
    maps = list(view_maps(made, VIEWS, VOXEL))
    unit = SIZES["distance_m"] / SIZES["pixel_size_m"]
    assert max(m.scattering.max() for m in maps) * unit**2 == pytest.approx(2.0, rel=1e-3)
    assert min(m.transmission.min() for m in maps) == pytest.approx(0.6, rel=1e-3)
    assert 0.3 < max(np.linalg.norm(m.refraction, axis=-1).max() for m in maps) * unit <= 0.7
    plain = phantom_specimen("shells", VIEWS, **SIZES, shift=0, transmission=1)
    assert plain.delta is plain.mu is None


def test_retrieval_finds_what_went_into_the_frames(tmp_path):
    made = phantom_specimen("helicoidal", VIEWS, **SIZES, blur=1.0, shift=0.4)
    kept = simulate_frames(made, VIEWS, tmp_path / "f.h5", voxel_size_m=VOXEL, counts=20_000, truth=True)
    sizes = {"pixel_size_m": kept.pixel_size_m, "distance_m": kept.distance_m}
    maps = retrieve(kept.sample, kept.reference, window=1.2, smoothing=0.7, **sizes)
    truth, inner = kept.truth(), np.s_[:, 6:-6, 6:-6]
    assert truth["covariance"].max() == pytest.approx(1.0, rel=0.1)
    for name, allowed in (("displacement", 0.05), ("covariance", 0.1)):
        off = getattr(maps, name)[inner] - truth[name][inner]
        assert np.sqrt(np.mean(off**2)) < allowed
        assert np.corrcoef(getattr(maps, name)[inner].ravel(), truth[name][inner].ravel())[0, 1] > 0.93
    assert np.median(np.abs(maps.transmission[inner] / truth["transmission"][inner] - 1)) < 0.05


def test_flux_is_conserved_and_blur_grows_with_the_square_of_the_distance(tmp_path):
    strong = phantom_specimen("shells", VIEWS, **SIZES, blur=1.5, shift=0.6, transmission=1)
    options = {"voxel_size_m": VOXEL, "counts": 20_000, "steps": 20}
    kept = simulate_frames(strong, VIEWS, tmp_path / "f.h5", distance_m=[0.5, 1.0], **options)
    assert kept.sample.shape == (4, 2, 20, 32, 32)
    assert kept.distance_m == (0.5, 1.0)
    reference, sample = kept.reference.astype(float), kept.sample[:].astype(float)
    np.testing.assert_allclose(
        sample.sum((-1, -2, -3)), np.broadcast_to(reference.sum((-1, -2, -3)), (4, 2)), rtol=3e-3
    )
    found = [retrieve(kept.sample[:, n], kept.reference[n], smoothing=0.7).covariance.mean() for n in (0, 1)]
    assert found[1] / found[0] == pytest.approx(4, rel=0.2)


def test_an_interrupted_simulation_goes_on_with_the_same_result(tmp_path, monkeypatch):
    options = {"voxel_size_m": VOXEL, "pixels_per_voxel": 2, "steps": 3, "seed": 5, "truth": True}
    specimen = phantom_specimen("shells", VIEWS, **SIZES)
    whole = simulate_frames(specimen, VIEWS, tmp_path / "whole.h5", **options)
    expected, seen = module._expected, []

    def breaks(*arguments):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return expected(*arguments)

    monkeypatch.setattr(module, "_expected", breaks)
    with pytest.raises(KeyboardInterrupt):
        simulate_frames(specimen, VIEWS, tmp_path / "f.h5", **options)
    assert [file.name for file in tmp_path.glob("f.h5*")] == ["f.h5.part"]
    again = simulate_frames(specimen, VIEWS, tmp_path / "f.h5", **options)
    assert len(seen) == 5  # two views, the one that broke off, the two that were left
    assert [file.name for file in tmp_path.glob("f.h5*")] == ["f.h5"]
    np.testing.assert_array_equal(again.sample[:], whole.sample[:])
    np.testing.assert_array_equal(again.truth()["covariance"], whole.truth()["covariance"])
    assert np.abs(np.asarray(whole.sample[0], float) - whole.sample[1]).max() > 0


@pytest.mark.parametrize("left", ["other", "damaged"])
def test_what_another_call_left_unfinished_is_started_anew(tmp_path, left):
    part = tmp_path / "f.h5.part"
    if left == "damaged":
        part.write_bytes(b"no HDF5")
    else:
        with h5py.File(part, "w") as file:
            file.attrs["views_done"] = 3
    made = simulate_frames(through(), VIEWS, tmp_path / "f.h5", voxel_size_m=VOXEL, pixels_per_voxel=2, steps=2)
    assert made.sample[:].min() > 0
    assert not part.exists()


def test_the_detector_is_used_and_its_dark_taken_off(tmp_path):
    options = {"voxel_size_m": VOXEL, "pixels_per_voxel": 2, "steps": 2, "counts": 500.0}
    camera = Detector(gain=3.0, dark=100.0)
    made = simulate_frames(through(), VIEWS, tmp_path / "f.h5", detector=camera, **options)
    assert made.sample[0].mean() == pytest.approx(1500, rel=0.02)
    with h5py.File(made.path) as file:
        assert file["reference"][()].mean() == pytest.approx(1600, rel=0.02)
        assert file.attrs["distance_m"] == 1.0


def test_a_mask_of_ones_own(tmp_path):
    options = {"voxel_size_m": VOXEL, "pixels_per_voxel": 2, "counts": 1e4}
    mask = speckle(3, (16, 16), grain=1.0, visibility=0.5, seed=9)
    made = simulate_frames(through(theta=1e-20), VIEWS, tmp_path / "f.h5", mask=mask, **options)
    assert made.reference.shape == (3, 16, 16)
    assert np.corrcoef(made.reference.ravel(), mask.ravel())[0, 1] > 0.99
    assert np.corrcoef(made.sample[2].ravel(), mask.ravel())[0, 1] > 0.99
    for wrong in (mask[:, :4], -mask, np.stack([mask] * 3)):
        with pytest.raises(ValueError, match="mask"):
            simulate_frames(through(), VIEWS, tmp_path / "g.h5", mask=wrong, **options)


def test_files_that_are_none_of_ours(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["sample"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="frames"):
        FrameFile.load(tmp_path / "other.h5")
    made = simulate_frames(through(), VIEWS, tmp_path / "f.h5", voxel_size_m=VOXEL, pixels_per_voxel=2, steps=2)
    with pytest.raises(ValueError, match="truth=True"):
        made.truth()


def test_volumes_of_the_wrong_shape_are_named():
    for wrong in (Specimen(lambda shape: np.zeros(shape)), through(mu=lambda shape: np.zeros((2, 2, 2)))):
        with pytest.raises(ValueError, match="specimen"):
            next(view_maps(wrong, VIEWS, VOXEL))
    with pytest.raises(ValueError, match="finite"):
        next(view_maps(through(theta=np.nan), VIEWS, VOXEL))
