"""One small scan of fibres, its reconstruction, and the report on it, shared by all tests here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddf_tomo import Reconstruction, Scan, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import Differences
from ddf_tomo.solvers import cgls

SHAPE = (12, 12, 12)
TITLE = 'fibres <of> "bone" & more'


@pytest.fixture(scope="package")
def scan() -> Scan:
    geometry = tilt_series(SHAPE, tilts_rad=np.radians([0, 20, 40, 60]), views=(8, 12, 10, 8))
    return simulate("helicoidal", geometry, SecondMomentResponse(), noise=0.02, seed=1)


@pytest.fixture(scope="package")
def volume(scan: Scan) -> Reconstruction:
    """Smooth to a hundredth of what the data say about a uniform sample."""
    A = TensorXRayTransform(scan.geometry, scan.response, 2)
    uniform = np.zeros((*SHAPE, 6), np.float32)
    uniform[..., 0] = 1
    smooth = {"tikhonov": 0.01 * float((scan.weights * A(uniform) ** 2).sum() / 12**3), "penalty": Differences(SHAPE)}
    found = cgls(A, scan.data, weights=scan.weights, iterations=15, progress=False, **smooth)
    share = found.residuals[-1] / np.linalg.norm(np.sqrt(scan.weights) * scan.data)
    settings = {"method": "cg", "iterations": 15, "residual_share": float(share), "stopped_by": found.stopped_by}
    return Reconstruction(
        found.x.numpy(), 2, scan.geometry, scan.response, found.residuals, None, settings, {"source": "a phantom"}
    )


@pytest.fixture(scope="package")
def page(scan: Scan, volume: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    from ddf_tomo.report import write_report

    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(volume, path, scan=scan, truth=helicoidal_fibres(SHAPE), title=TITLE)
    return path
