"""A manifest says where frames are: what it says is found, and what is wrong with it is told with line and key."""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError, Geometry
from ddf_tomo._geometry_file import write_geometry
from ddf_tomo._manifest_keys import KEYS
from ddf_tomo._manifest_text import line_of, toml
from ddf_tomo.manifest import Manifest

VIEWS, DISTANCES, STEPS, IMAGE = 4, 2, 3, (6, 8)
GENERATOR = np.random.default_rng(0)
SAMPLE = GENERATOR.integers(100, 1000, (VIEWS, DISTANCES, STEPS, *IMAGE)).astype(np.uint16)
REFERENCE = GENERATOR.integers(100, 1000, (DISTANCES, STEPS, *IMAGE)).astype(np.uint16)
ANGLES = [0.0, 30.0, 60.0, 90.0]


def described(folder, **keys):
    return Manifest(**{"sample": "s.h5:/s", "reference": "s.h5:/r", "angles_deg": ANGLES, "folder": folder} | keys)


def put(folder, pattern, array, axes, first=0):
    """One file for each index of the named axes."""
    shape = dict(zip(("view", "distance", "step"), SAMPLE.shape, strict=False))
    for index in np.ndindex(*(shape[axis] for axis in axes)):
        numbers = {axis: n + first for axis, n in zip(axes, index, strict=True)}
        places = tuple(index[axes.index(axis)] if axis in axes else slice(None) for axis in shape if axis in array)
        np.save(folder / pattern.format(**numbers), array["frames"][places])


ALL = {"view": 0, "distance": 0, "step": 0, "frames": SAMPLE}
BEAM = {"distance": 0, "step": 0, "frames": REFERENCE}


@pytest.mark.parametrize(
    ("pattern", "axes"),
    [
        ("v{view}_d{distance}_s{step}.npy", ("view", "distance", "step")),
        ("v{view:04d}.npy", ("view",)),
        ("{step}_of_{distance:02d}.npy", ("distance", "step")),
        ("all.npy", ()),
    ],
)
@pytest.mark.parametrize("first", [0, 9])
def test_frames_are_put_in_order_however_files_divide_them(tmp_path, pattern, axes, first):
    put(tmp_path, pattern, ALL, axes, first)
    put(tmp_path, "ref_{distance}_{step}.npy", BEAM, ("distance", "step"), first)
    found = described(
        tmp_path, sample=pattern, reference="ref_{distance}_{step}.npy", distances_m=[0.3, 0.1], steps=STEPS
    ).frames()
    assert found.sample.shape == SAMPLE.shape
    np.testing.assert_array_equal(np.asarray(found.sample), SAMPLE)
    np.testing.assert_array_equal(found.reference, REFERENCE)
    assert found.arguments()["distance_m"] == (0.3, 0.1)
    far = found.at_distance(0.1)[1:3]
    np.testing.assert_array_equal(np.asarray(far.sample), SAMPLE[1:3, 1])
    np.testing.assert_array_equal(far.reference, REFERENCE[1])
    assert far.arguments()["distance_m"] == 0.1
    assert far.geometry == found.geometry[1:3]


def test_the_order_inside_a_file_is_said(tmp_path):
    np.save(tmp_path / "s.npy", SAMPLE[:, 0].swapaxes(0, 1))
    np.save(tmp_path / "r.npy", REFERENCE[0])
    keys = {"sample": "s.npy", "reference": "r.npy", "steps": STEPS}
    found = described(tmp_path, **keys, order=["step", "view"]).frames()
    np.testing.assert_array_equal(np.asarray(found.sample), SAMPLE[:, 0])
    with pytest.raises(ValueError, match=r"sample: expected 4 views × 3 steps in s.npy, got axes \(3, 4\)"):
        described(tmp_path, **keys, order=["view", "step"], distances_m=1.0).frames()
    flat = SAMPLE[:, 0].reshape(-1, *IMAGE)
    np.save(tmp_path / "s.npy", flat)  # where the file does not tell, the manifest is believed
    np.testing.assert_array_equal(np.asarray(described(tmp_path, **keys).frames().sample), SAMPLE[:, 0])


def test_numbers_in_datasets(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        for step in range(STEPS):
            file[f"{step + 1}.1/measurement/pco"] = SAMPLE[:, 0, step]
            file[f"ref/{step + 1}"] = REFERENCE[0, step]
    found = described(
        tmp_path,
        sample="raw.h5:/{step}.1/measurement/pco",
        reference="raw.h5::/ref/{step}",
        step_numbers={"first": 1, "last": 3, "count": 3},
    ).frames()
    np.testing.assert_array_equal(np.asarray(found.sample), SAMPLE[:, 0])
    np.testing.assert_array_equal(found.reference, REFERENCE[0])


def test_references_of_each_view_and_repeated_ones(tmp_path):
    np.save(tmp_path / "s.npy", SAMPLE[:, 0])
    beams = SAMPLE[::-1, 0]
    np.save(tmp_path / "r.npy", beams)
    keys = {"sample": "s.npy", "steps": STEPS}
    np.testing.assert_array_equal(np.asarray(described(tmp_path, **keys, reference="r.npy").frames().reference), beams)
    for view in range(VIEWS):
        np.save(tmp_path / f"r{view}.npy", beams[view])
    found = described(tmp_path, **keys, reference="r{view}.npy").frames()
    np.testing.assert_array_equal(np.asarray(found[1:3].reference), beams[1:3])
    found = described(tmp_path, **keys, reference="r{repeat}.npy")
    (tmp_path / "r.npy").unlink()
    np.testing.assert_allclose(found.frames().reference, beams.mean(0), rtol=1e-6)


def test_references_that_were_repeated_during_the_scan(tmp_path):
    np.save(tmp_path / "s.npy", SAMPLE[:, 0])
    beams = SAMPLE[:3, 1].astype(float)
    for n, name in enumerate((2, 10, 11)):  # in the order of numbers
        np.save(tmp_path / f"r{name}.npy", beams[n])
    keys = {"sample": "s.npy", "steps": STEPS, "reference": "r{repeat}.npy"}
    found = described(tmp_path, **keys, reference_at=[0, 2, 3]).frames()
    expected = [beams[0], (beams[0] + beams[1]) / 2, beams[1], beams[2]]
    np.testing.assert_allclose(np.asarray(found.reference), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="reference_at: expected 2 references that differ"):
        described(tmp_path, **keys, reference_at=[0, 3]).frames()
    with pytest.raises(ValueError, match=r"expected 1 references that differ in \{repeat\}, got 'r2.npy'"):
        described(tmp_path, **keys | {"reference": "r2.npy"}, reference_at=[0]).frames()
    with pytest.raises(ValueError, match="reference_at: expected ascending"):
        described(tmp_path, **keys, reference_at=[3, 0, 2])


def nxtomo_files(folder):
    """One NXtomo file a step: two flats, the views, a dark."""
    for step in range(STEPS):
        with h5py.File(folder / f"t_{step}.nxs", "w") as file:
            place = file.create_group("entry/instrument/detector")
            flats = np.stack([REFERENCE[0, step] - 1, REFERENCE[0, step] + 1])
            place["data"] = np.concatenate([flats, SAMPLE[:, 0, step], np.full((1, *IMAGE), 3, np.uint16)])
            place["image_key"] = [1, 1, 0, 0, 0, 0, 2]
            place["x_pixel_size"], place["distance"] = 1e-5, 0.5
            file["entry/sample/rotation_angle"] = [0, 0, *ANGLES, 90]


def test_nxtomo_brings_reference_dark_angles_and_lengths(tmp_path):
    nxtomo_files(tmp_path)
    found = Manifest(sample="t_{step}.nxs", folder=tmp_path).frames()
    np.testing.assert_array_equal(np.asarray(found.sample), SAMPLE[:, 0].astype(float) - 3)
    np.testing.assert_array_equal(found.reference, REFERENCE[0].astype(float) - 3)
    assert (found.pixel_size_m, found.distances_m) == (1e-5, (0.5,))
    assert found.geometry == described(tmp_path)._geometry(VIEWS, IMAGE, np.radians(ANGLES))
    assert Manifest(sample="t_{step}.nxs", pixel_size_m=2e-5, folder=tmp_path).frames().pixel_size_m == 2e-5


def test_corrections(tmp_path):
    np.save(tmp_path / "s.npy", SAMPLE[:, 0])
    np.save(tmp_path / "r.npy", REFERENCE[0])
    flat, bad = GENERATOR.uniform(500, 1500, IMAGE), np.zeros(IMAGE)
    bad[2, 3] = 1
    flat[4, 4] = 0
    for n in range(3):
        np.save(tmp_path / f"dark_{n}.npy", np.full((2, *IMAGE), 10.0 * n))
    np.save(tmp_path / "flat.npy", flat + 10)
    np.save(tmp_path / "bad.npy", bad)
    found = described(
        tmp_path, sample="s.npy", reference="r.npy", steps=STEPS, dark="dark_*.npy", flat="flat.npy",
        bad_pixels="bad.npy", saturation=900, counts_per_photon=2.5,
    ).frames()  # fmt: skip
    gain = np.where(flat > 0, flat, 1) / flat[flat > 0].mean()
    expected = np.where(SAMPLE[:, 0] >= 900, np.inf, (SAMPLE[:, 0] - 10.0) / gain)
    np.testing.assert_allclose(np.asarray(found.sample), expected, rtol=1e-6)
    assert found.weights is not None
    assert np.argwhere(~found.weights).tolist() == [[2, 3], [4, 4]]
    given = found.arguments()
    assert given["gain"] == 2.5
    assert given["saturation"] < np.inf


def test_missing_frames_get_no_weight_or_are_refused(tmp_path):
    for view in range(VIEWS):
        for step in range(STEPS):
            np.save(tmp_path / f"v{view}_s{step}.npy", SAMPLE[view, 0, step])
    np.save(tmp_path / "r.npy", REFERENCE[0])
    (tmp_path / "v1_s2.npy").unlink()
    keys = {"sample": "v{view}_s{step}.npy", "reference": "r.npy"}
    with pytest.warns(UserWarning, match="1 of 12 frames are missing .* view 1, distance 0, step 2"):
        found = described(tmp_path, **keys).frames()
    assert np.isinf(found.sample[1][2]).all()
    assert np.isfinite(np.delete(np.asarray(found.sample).reshape(12, -1), 5, axis=0)).all()
    with pytest.raises(FileNotFoundError, match="1 of 12 frames are missing"):
        described(tmp_path, **keys, missing="refuse").frames()
    for step in range(STEPS):
        (tmp_path / f"v1_s{step}.npy").unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = described(tmp_path, **keys).frames()  # numbers 0, 2, 3 of four views: it is plain which is missing
    assert np.isinf(found.sample[1]).all()
    for step in range(STEPS):
        (tmp_path / f"v3_s{step}.npy").unlink()
    with pytest.raises(ValueError, match=r"sample: expected files of 4 views, got 2, 0 to 2. \[numbers\] view says"):
        described(tmp_path, **keys).frames()


def test_numbers_choose_views(tmp_path):
    for view in range(VIEWS):
        np.save(tmp_path / f"v{view}.npy", SAMPLE[view, 0])
    np.save(tmp_path / "r.npy", REFERENCE[0])
    keys = {"sample": "v{view}.npy", "reference": "r.npy", "steps": STEPS}
    found = described(tmp_path, **keys, view_numbers=[3, 1], angles_deg=[9.0, 5.0]).frames()
    np.testing.assert_array_equal(np.asarray(found.sample), SAMPLE[[3, 1], 0])


# -- geometry ---------------------------------------------------------------------------------------------------------


def frames_here(folder, **keys):
    with h5py.File(folder / "s.h5", "w") as file:
        file["s"], file["r"] = SAMPLE[:, 0], REFERENCE[0]
    return described(folder, **keys).frames()


def test_angles_come_from_lists_tables_and_files(tmp_path):
    expected = frames_here(tmp_path).geometry
    for angles in ({"first": 0, "last": 90, "count": 4}, {"first": 0, "step": 30, "count": 4}, np.array(ANGLES)):
        assert frames_here(tmp_path, angles_deg=angles).geometry == expected
    np.savetxt(tmp_path / "angles.txt", ANGLES)
    assert frames_here(tmp_path, angles_deg="angles.txt").geometry == expected
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["theta"] = np.radians(ANGLES)
        file["theta"].attrs["units"] = "rad"
    found = frames_here(tmp_path, angles_deg=None, angles_rad="a.h5:/theta").geometry
    np.testing.assert_allclose(found.p, expected.p, atol=1e-12)
    with pytest.raises(ValueError, match="angles_deg: expected angles in deg, got a file that says 'rad'"):
        frames_here(tmp_path, angles_deg="a.h5:/theta")
    with pytest.raises(FileNotFoundError, match="angles_deg: expected an existing file"):
        frames_here(tmp_path, angles_deg="none.txt")
    with pytest.raises(ValueError, match="angles_deg: expected 4 angles"):
        frames_here(tmp_path, angles_deg=None)


def test_the_geometry_is_the_stages(tmp_path):
    tilts = [0.0, 10.0, 20.0, 30.0]
    found = frames_here(tmp_path, rows="right", columns="up", tilts_deg=tilts, centre=2.0, volume_shape=[5, 5, 4])
    theirs = Geometry.from_angles(np.radians(ANGLES), np.radians(tilts), (5, 5, 4), IMAGE, j_offset=2.5 - 2.0)
    assert found.geometry == theirs  # the package's own axes
    assert frames_here(tmp_path).geometry.volume_shape == (8, 8, 6)
    assert frames_here(tmp_path, centre=3.0).geometry.k_offset.tolist() == [0.5] * 4
    assert frames_here(tmp_path, axis="right", centre=3.0).geometry.j_offset.tolist() == [-0.5] * 4
    assert frames_here(tmp_path, axis="right").geometry.volume_shape == (8, 6, 6)
    with h5py.File(tmp_path / "g.h5", "w") as file:
        write_geometry(file, theirs)
    assert frames_here(tmp_path, angles_deg=None, geometry="g.h5").geometry == theirs
    with h5py.File(tmp_path / "g.h5", "w") as file:
        write_geometry(file, theirs[:2])
    with pytest.raises(ValueError, match="geometry: expected shape"):
        frames_here(tmp_path, angles_deg=None, geometry="g.h5", views=4)


# -- the file ---------------------------------------------------------------------------------------------------------

# fmt: off
WRONG = {
    "[scan]\nsteps = 3\n[files]\nreference = 'r.npy'": "line 3, [files] sample: expected the files",
    "[files]\nsample = 's.npy'\n\n[scan]\n# metres\npixel_size_m = 6.5\n": "line 6, [scan] pixel_size_m: expected",
    "[files]\nsample = 's.npy'\n[scan]\npixelsize_m = 1e-6": "line 4, [scan] pixelsize_m: expected one of",
    "[files]\nsample = 3": "line 2, [files] sample: expected a text",
    "[file]\nsample = 's.npy'": "line 1, [file] file: expected one of the tables [scan], [files]",
    "steps = 3": "line 1, [steps] steps: expected one of the tables",
    "files.sample = 's.npy'\nscan.steps = 0": "line 2, [scan] steps: expected an integer in [1",
    "[files]\nsample = 's.npy'\n[rotation]\nangles_deg = [1, 2]\n[scan]\nviews = 3":
        "line 4, [rotation] angles_deg: expected 3",
    "[files]\nsample = 's.npy'\n[rotation]\nangles_deg = {first = 0, end = 3}":
        "line 4, [rotation] angles_deg: expected a list",
    "[files]\nsample = 's.npy'\n[detector]\nrows = 'up'\ncolumns = 'down'":
        "line 5, [detector] columns: expected a direction across",
    "[files]\nsample = 's.npy'\norder = ['view', 'row']": "line 3, [files] order: expected some of",
    "[files]\nsample = 's.npy'\n[numbers]\nstep = [1, 1]": "line 4, [numbers] step: expected different whole",
    "[scan\nsteps": "a manifest in TOML",
}
# fmt: on


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=WRONG.values())
def test_what_is_wrong_is_told_with_line_and_key(tmp_path, text, words):
    path = tmp_path / "scan.toml"
    path.write_text(text)
    with pytest.raises(FileFormatError) as error:
        Manifest.read(path)
    assert words in str(error.value)
    assert "scan.toml" in str(error.value)


def test_what_does_not_fit_the_files_is_told_with_line_and_key(tmp_path):
    np.save(tmp_path / "s.npy", SAMPLE[:, 0])
    path = tmp_path / "scan.toml"
    text = "[files]\nsample = 's.npy'\n{}\n[rotation]\nangles_deg = [0, 30, 60, 90]\n"
    path.write_text(text.format("reference = 'none.npy'"))
    with pytest.raises(FileNotFoundError, match=r"scan.toml, line 3, \[files\] reference: expected existing files"):
        Manifest.read(path).frames()
    np.save(tmp_path / "r.npy", REFERENCE[0, :, :-1])
    path.write_text(text.format("reference = 'r.npy'"))
    with pytest.raises(FileFormatError, match=r"line 3, \[files\] reference: expected frames of shape \(6, 8\)"):
        Manifest.read(path).frames()
    path.write_text(text.format(""))
    with pytest.raises(FileFormatError, match="reference: expected the files of the frames without the sample"):
        Manifest.read(path).frames()
    path.write_text(text.format("reference = 'r_{nothing}.npy'"))
    with pytest.raises(FileFormatError, match=r"got \{nothing\}"):
        Manifest.read(path).frames()


def test_frames_of_unequal_shape_are_refused(tmp_path):
    for view in range(VIEWS):
        np.save(tmp_path / f"v{view}.npy", SAMPLE[view, 0] if view < 3 else SAMPLE[view, 0, :, 1:])
    np.save(tmp_path / "r.npy", REFERENCE[0])
    found = described(tmp_path, sample="v{view}.npy", reference="r.npy").frames()
    assert found.sample[2].shape == (STEPS, *IMAGE)
    with pytest.raises(FileFormatError, match=r"sample: expected frames of shape \(6, 8\), got \(5, 8\) in .*v3.npy"):
        np.asarray(found.sample)


def test_written_manifests_are_read_back(tmp_path):
    every = {
        "title": 'a "title"\\\n\x7fµ', "pixel_size_m": 6.5e-6, "distances_m": (0.4, 0.8), "energy_kev": 25.0,
        "steps": 12, "views": 3, "volume_shape": (4, 5, 6), "sample": "s_{view}.tif", "reference": "r.tif",
        "reference_at": [0.0, 2.5], "dark": "d*.tif", "flat": "f.edf", "bad_pixels": "b.npy", "order": ("step",),
        "missing": "refuse",
        "view_numbers": [1.0, 3.0, 2.0], "distance_numbers": [1.0, 2.0],
        "step_numbers": {"first": 0, "step": 2, "count": 12}, "rows": "left", "columns": "up",
        "counts_per_photon": 2.5, "saturation": 65535.0,
        "angles_rad": [0.0, 0.5, 1.0], "tilts_deg": "tilts.txt", "axis": "up", "tilt_axis": "along", "centre": 7.5,
    }  # fmt: skip
    scan = Manifest(**every)
    scan.write(tmp_path / "scan.toml")
    assert Manifest.read(tmp_path / "scan.toml") == scan
    assert set(every) | {"angles_deg", "tilts_rad", "geometry"} == set(KEYS)
    tomllib.loads((tmp_path / "scan.toml").read_text())


def test_lines_are_found():
    text = "a = 1\n\n[one]\nkey = 2\n  'other' = 3\n[two]\nkey = 4\n[two.deep]\nx = 1\n"
    places = {
        ("one", "key"): 4,
        ("one", "other"): 5,
        ("two", "key"): 7,
        ("two", "deep"): 8,
        ("one", "none"): 3,
        ("no", "x"): 1,
    }
    assert {place: line_of(text, *place) for place in places} == places
    with pytest.raises(TypeError, match="got None"):
        toml({"a": {"b": None}})


def test_every_key_is_in_the_manual():
    page = (Path(__file__).parents[1] / "docs" / "manifest.md").read_text()
    for table, key, _ in KEYS.values():
        section = page.partition(f"## `[{table}]`")[2].partition("\n## ")[0]
        assert f"| `{key}` |" in section, f"[{table}] {key}"


def test_examples_of_the_manual_are_manifests(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "manifest.md").read_text()
    examples = [block.partition("\n```")[0] for block in page.split("```toml\n")[1:]]
    assert len(examples) >= 3
    for example in examples:
        (tmp_path / "scan.toml").write_text(example)
        assert Manifest.read(tmp_path / "scan.toml").sample
