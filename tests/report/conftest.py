"""One small scan of fibres, its reconstruction, and the report on it, shared by all tests here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddf_tomo import Reconstruction, Scan, SecondMomentResponse, reconstruct
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series

SHAPE = (12, 12, 12)
TITLE = 'fibres <of> "bone" & more'


@pytest.fixture(scope="package")
def scan() -> Scan:
    geometry = tilt_series(SHAPE, tilts_rad=np.radians([0, 20, 40, 60]), views=(8, 12, 10, 8))
    return simulate("helicoidal", geometry, SecondMomentResponse(), noise=0.02, seed=1)


@pytest.fixture(scope="package")
def volume(scan: Scan) -> Reconstruction:
    return reconstruct(scan, ell_max=2, smoothness=0.01, iterations=12, progress=False)


@pytest.fixture(scope="package")
def page(scan: Scan, volume: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    from ddf_tomo.report import write_report

    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(volume, path, scan=scan, truth=helicoidal_fibres(SHAPE), title=TITLE)
    return path
