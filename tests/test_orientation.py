"""From the pixel of a frame to the voxel of the volume: every axis and sign, with nothing of ours in the simulation.

A blob that absorbs, refracts and scatters along a skew direction sits off centre. Where it appears in the picture, at
every angle and for every camera, is computed here with plain trigonometry, by somebody who stands at the source: x to
the right, y along the beam, z up.
"""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from ddf_tomo import Reconstruction, XRayTransform
from ddf_tomo.cli import main
from ddf_tomo.manifest import Manifest
from ddf_tomo.map_series import MapSeries

PLACE = np.array([5.0, -3.0, 4.0])  # of the blob in the sample, in pixels from the centre
FIBRE = np.array([2.0, 1.0, 1.5]) / np.linalg.norm([2.0, 1.0, 1.5])  # across which nothing is scattered
WIDTH, MU, DELTA, PIXEL, DISTANCE = 4.0, 0.04, 8e-7, 1e-5, 1.0
SEEN = {"right": [1, 0, 0], "left": [-1, 0, 0], "up": [0, 0, 1], "down": [0, 0, -1]}
CAMERAS = [(a, b) for a, b in itertools.product(SEEN, SEEN) if abs(np.dot(SEEN[a], SEEN[b])) < 0.5]


def turned(vector, angle, tilt):
    """A vector of the sample in the laboratory: a turn, clockwise from above, then a tilt, right-handed about x."""
    x, y, z = vector
    c, s = np.cos(angle), np.sin(angle)
    x, y = c * x + s * y, c * y - s * x
    c, s = np.cos(tilt), np.sin(tilt)
    return np.array([x, c * y - s * z, s * y + c * z])


@pytest.mark.parametrize(("rows", "columns"), CAMERAS)
@pytest.mark.parametrize("axis", ["down", "up", "right"])
def test_a_voxel_is_seen_where_the_camera_sees_it(tmp_path, rows, columns, axis):
    shape, angles = (9, 11), np.array([0.0, 25.0, 130.0])
    np.save(tmp_path / "frames.npy", np.ones((3, 4, *shape)))
    np.save(tmp_path / "reference.npy", np.ones((4, *shape)))
    manifest = Manifest(
        sample="frames.npy",
        reference="reference.npy",
        steps=4,
        angles_deg=angles,
        axis=axis,
        rows=rows,
        columns=columns,
        volume_shape=(9, 9, 9),
        folder=tmp_path,
    )
    geometry = manifest.frames().geometry
    volume = np.zeros((9, 9, 9, 1))
    volume[5, 1, 6] = 1.0
    place = np.array([5, 1, 6]) - 4.0
    pictures = XRayTransform(geometry)(volume)[..., 0]
    for angle, picture in zip(np.radians(angles), pictures, strict=True):
        if axis == "right":  # right-handed about x: y to z
            x, y, z = place
            seen = np.array([x, y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle)])
        else:
            seen = turned(place, angle if axis == "down" else -angle, 0.0)
        row, column = seen @ SEEN[rows] + 4.0, seen @ SEEN[columns] + 5.0
        centre = [float((picture * index).sum() / picture.sum()) for index in np.indices(shape)]
        assert_allclose(centre, (row, column), atol=0.25)  # a voxel on a turned grid


def frames_of(angle, tilt, rows, columns, shape, steps, seed=0):
    """Sample and reference frames: a random mask as a sum of waves, each blurred and displaced exactly."""
    e = np.array([SEEN[rows], SEEN[columns]], float)
    centre = e @ turned(PLACE, angle, tilt) + (np.array(shape) - 1) / 2
    offset = np.indices(shape).transpose(1, 2, 0) - centre
    bump = np.exp(-(offset**2).sum(-1) / (2 * WIDTH**2))
    path = np.sqrt(2 * np.pi) * WIDTH * bump  # of the blob's height, along the ray
    transmission = np.exp(-MU * path)
    # Rays turn away from where there is more matter: u = -(d/s) grad of the integral of delta.
    u = DISTANCE / PIXEL * DELTA * np.sqrt(2 * np.pi) / WIDTH * bump[..., None] * offset
    # f = 1 - (q . fibre)^2 has the second moments of M = 1 - fibre fibre^T: half of it, and a quarter of its trace.
    across = e @ turned(FIBRE, angle, tilt)
    m = np.eye(2) - np.outer(across, across)
    covariance = 1.2 * bump[..., None, None] * (0.5 * m + 0.25 * np.trace(m) * np.eye(2))
    generator = np.random.default_rng(seed)
    count = 60
    wave = generator.uniform(-1.1, 1.1, (count, 2))
    phases = generator.uniform(0, 2 * np.pi, (steps, count))
    here = np.indices(shape).transpose(1, 2, 0)

    def picture(places, damping):
        turn = np.exp(1j * places @ wave.T) * damping
        return 1 + 0.2 * np.sqrt(2 / count) * np.einsum("rcw,sw->src", turn, np.exp(1j * phases)).real

    damping = np.exp(-0.5 * np.einsum("wa,rcab,wb->rcw", wave, covariance, wave))
    spread = 1 - np.gradient(u[..., 0], axis=0) - np.gradient(u[..., 1], axis=1)  # rays that part make it darker
    sample, reference = transmission * spread * picture(here - u, damping), picture(here, 1.0)
    return generator.poisson(20000 * sample), 20000 * reference


@pytest.mark.parametrize(("rows", "columns"), [("down", "right"), ("left", "up")])
def test_an_arrow_is_found_where_it_is_and_how_it_points(tmp_path, rows, columns, capsys):
    shape, steps = ((40, 44) if rows == "down" else (44, 40)), 14
    angles, tilts = np.tile(np.arange(0, 180, 22.5), 2), np.repeat([0.0, 40.0], 8)
    views = [
        frames_of(a, t, rows, columns, shape, steps) for a, t in zip(np.radians(angles), np.radians(tilts), strict=True)
    ]
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["entry/sample"] = (np.stack([sample for sample, _ in views]) + 100).astype(np.uint16)
        file["entry/reference"] = np.round(views[0][1] + 100).astype(np.uint16)
        file["entry/dark"] = np.full(shape, 100, np.uint16)
    manifest = Manifest(
        title="arrow",
        sample="raw.h5:/entry/sample",
        reference="raw.h5:/entry/reference",
        dark="raw.h5:/entry/dark",
        steps=steps,
        pixel_size_m=PIXEL,
        distances_m=DISTANCE,
        energy_kev=25.0,
        rows=rows,
        columns=columns,
        angles_deg=angles,
        tilts_deg=tilts,
        volume_shape=(44, 44, 40),
    )
    manifest.write(tmp_path / "scan.toml")
    for words in (
        ("retrieve", "scan.toml", "-o", "maps.h5", "--window", "1", "--smoothing", "0.5"),
        (
            "reconstruct",
            "maps.h5",
            "-o",
            "volume.h5",
            "--binning",
            "2",
            "--ell-max",
            "2",
            "--weight",
            "0.003",
            "--iterations",
            "25",
        ),
    ):
        with pytest.raises(SystemExit) as end:
            main([str(tmp_path / word) if "." in word and word[0] not in "0123456789" else word for word in words])
        assert end.value.code == 0, capsys.readouterr()
    volume = Reconstruction.load(tmp_path / "volume.h5")
    derived = volume.derived()
    grid = 2 * (np.indices(derived.mean.shape) - (np.array(derived.mean.shape)[:, None, None, None] - 1) / 2)
    for name, values in {"mean": derived.mean, **volume.scalars}.items():
        bright = np.where(values > 0.3 * values.max(), values, 0)
        found = (grid * bright).sum((1, 2, 3)) / bright.sum()
        assert_allclose(found, PLACE, atol=0.7, err_msg=name)
    at = np.unravel_index(derived.mean.argmax(), derived.mean.shape)
    xx, xy, xz, yy, yz, zz = derived.tensor[at]
    vectors = np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])[1]
    assert np.degrees(np.arccos(abs(vectors[:, 0] @ FIBRE))) < 8  # the weakest scattering is along the fibre
    peak = volume.scalars["attenuation_per_m"].max() * PIXEL
    assert 0.6 * MU < peak < 1.15 * MU
    assert 0.6 * DELTA < volume.scalars["refractive_decrement"].max() < 1.15 * DELTA
    assert MapSeries.load(tmp_path / "maps.h5").title == "arrow"
