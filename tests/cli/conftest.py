"""What tests of the command line share: a way to run it, and small files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import ddf_tomo
from ddf_tomo import Geometry, cli
from ddf_tomo.operators.responses import SaxsResponse


@pytest.fixture
def run(capsys):
    """A function that runs ``ddf-tomo`` and gives exit code, standard output and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def complaint(run):
    """A function that runs what must fail, checks the manners of the failure, and gives its one line."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("ddf-tomo: ")
        assert err.count("\n") == 1
        return err

    return call


@pytest.fixture(scope="module")
def frames_file(tmp_path_factory):
    """Frames behind a mask that moved by one pixel, with a third of the light gone."""
    generator = np.random.default_rng(0)
    reference = 3000 * (1 + 0.3 * generator.random((8, 40, 42)))
    path = tmp_path_factory.mktemp("frames") / "frames.h5"
    with h5py.File(path, "w") as file:
        file["reference"], file["sample"] = reference, reference * (2 / 3)
        file.attrs.update({"pixel_size_m": 5e-6, "distance_m": 0.5})
    return path


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    """A small SAXS scan of an anisotropic ball, in MUMOTT's layout."""
    geometry = Geometry.from_angles(np.linspace(0, np.pi, 12, endpoint=False), 0.0, (8, 8, 8), (8, 8))
    geometry = Geometry.concatenate([geometry, Geometry.from_angles([0.3, 1.2, 2.5], 0.7, (8, 8, 8), (8, 8))])
    response = SaxsResponse(np.arange(4) * np.pi / 4)
    grid = np.arange(8) - 3.5
    ball = (grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2 < 9)[..., None]
    coefficients = (ball * [3.0, 0.1, 0.2, 0.5, -0.1, 0.3]).astype(np.float32)
    data = ddf_tomo.TensorXRayTransform(geometry, response, 2)(coefficients)
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    ddf_tomo.Scan(data, geometry, response, voxel_size_m=1e-5).write(path)
    return path
