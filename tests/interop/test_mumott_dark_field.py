"""The end of the chain: maps retrieved from frames, as a data container on which MUMOTT's own optimisation runs."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mumott")

from mumott.pipelines import run_sigtt

from ddf_tomo import reconstruct
from ddf_tomo.interop.mumott import (
    Projector,
    ResponseBasisSet,
    reconstruction_from,
    scan_from,
    to_data_container,
)
from ddf_tomo.manifest import Manifest
from ddf_tomo.map_series import MapSeries
from tests.test_orientation import DISTANCE, FIBRE, PIXEL, PLACE, frames_of

ROWS, COLUMNS, SHAPE = "down", "right", (40, 44)


def test_frames_to_mumotts_optimiser(tmp_path):
    angles, tilts = np.tile(np.arange(0, 180, 22.5), 2), np.repeat([0.0, 40.0], 8)
    stage = zip(np.radians(angles), np.radians(tilts), strict=True)
    views = [frames_of(angle, tilt, ROWS, COLUMNS, SHAPE, 12) for angle, tilt in stage]
    np.save(tmp_path / "sample.npy", np.stack([sample for sample, _ in views]))
    np.save(tmp_path / "reference.npy", views[0][1])
    lengths = {"pixel_size_m": PIXEL, "distances_m": DISTANCE, "volume_shape": (44, 44, 40)}
    stages = {"angles_deg": angles, "tilts_deg": tilts, "rows": ROWS, "columns": COLUMNS}
    manifest = Manifest(sample="sample.npy", reference="reference.npy", **lengths, **stages, folder=tmp_path)
    scan = MapSeries.retrieve(manifest, window=1.0, smoothing=0.5).scan().binned(2)
    container = to_data_container(scan)
    again = scan_from(container, scan.response)
    np.testing.assert_array_equal(again.data, scan.data)
    np.testing.assert_allclose(again.geometry.p, scan.geometry.p, atol=1e-12)

    options = {"response": scan.response, "geometry": container.geometry, "ell_max": 2}
    pipeline = {"BasisSet": ResponseBasisSet, "basis_set_kwargs": options, "Projector": Projector}
    found = reconstruction_from(run_sigtt(container, maxiter=15, ftol=0, regularization_weight=1e-2, **pipeline), scan)
    derived = found.derived()
    grid = 2 * (np.indices(derived.mean.shape) - (np.array(derived.mean.shape)[:, None, None, None] - 1) / 2)
    bright = np.where(derived.mean > 0.4 * derived.mean.max(), derived.mean, 0)
    np.testing.assert_allclose((grid * bright).sum((1, 2, 3)) / bright.sum(), PLACE, atol=0.7)
    at = tuple(np.round(PLACE / 2 + (np.array(derived.mean.shape) - 1) / 2).astype(int))
    xx, xy, xz, yy, yz, zz = derived.tensor[at]
    vectors = np.linalg.eigh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])[1]
    assert np.degrees(np.arccos(abs(vectors[:, 0] @ FIBRE))) < 10
    ours = reconstruct(scan, ell_max=2, prior="smoothness", weight=1e-2).derived()
    assert np.corrcoef(ours.mean.ravel(), derived.mean.ravel())[0, 1] > 0.95
