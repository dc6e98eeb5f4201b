"""From a reconstruction to one HTML file."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from html import escape
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import message, neighbour, of_kind
from ddf_tomo._files import replaced_when_complete
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.report import _sections, _volume_sections
from ddf_tomo.report._deblurring import sharpened
from ddf_tomo.report._facts import Facts, matching_scan
from ddf_tomo.report._html import page
from ddf_tomo.report._remarks import remarks
from ddf_tomo.report._volume import packed
from ddf_tomo.retrieval import Restored
from ddf_tomo.scan import Scan


def write_report(
    reconstruction: Reconstruction,
    path: str | os.PathLike[str],
    scan: Scan | None = None,
    truth: Any = None,
    title: str | None = None,
    restored: Restored | None = None,
) -> tuple[str, ...]:
    """Write a report that any browser opens, offline: one HTML file with all pictures in it.

    It begins with warnings in plain words (orders that the data do not determine, residuals far from the noise, masked
    data, truncation, …), then shows what was measured, data and residuals, convergence, slices and directions that can
    be moved and turned, derived quantities, settings and provenance. The file takes about 4 MB for 64³ voxels; larger
    volumes are thinned to stay near that, and it says so.

    Parameters
    ----------
    reconstruction
        What `reconstruct` or `Reconstruction.load` gave.
    path
        The file, usually ``….html``; written whole or not at all.
    scan
        What it was made of (unbinned is enough); without it residuals and noise cannot be judged.
    truth
        Of a phantom, where known: a `Reconstruction` or coefficients ``(x, y, z, K)``; adds the figures of merit.
    title
        Heading; the title of the scan by default.
    restored
        A transmission map that `ddf_tomo.retrieval.restore_transmission` made sharper, from the same frames: adds it,
        with the modulation transfer before and after.

    Returns
    -------
    tuple of str
        The warnings that the report begins with, a line each.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or scan or truth do not belong to the reconstruction.
    ImportError
        If matplotlib is missing; the message says how to install it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ddf_tomo import SecondMomentResponse, reconstruct
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> geometry = tilt_series((8, 8, 8), tilts_rad=[0.0, 0.6], views=[8, 8])
    >>> scan = simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.02)
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> warnings = write_report(reconstruct(scan, ell_max=0), path, scan=scan)
    >>> "What was measured" in path.read_text(encoding="utf-8")
    True
    """
    of_kind(Reconstruction, reconstruction, "reconstruction", "a Reconstruction")
    if scan is not None:
        of_kind(Scan, scan, "scan", "a Scan")
        scan = matching_scan(reconstruction, scan)
    if title is not None and not isinstance(title, str):
        raise TypeError(message("title", "a text", repr(title)))
    if restored is not None:
        of_kind(Restored, restored, "restored", "what restore_transmission gave")
    neighbour("matplotlib")
    facts = Facts(reconstruction, scan, truth)
    with replaced_when_complete(path) as partial:
        partial.write_text(_page(facts, title, restored), encoding="utf-8")
    return tuple(remark.what for remark in remarks(facts) if remark.kind == "warning")


def _page(facts: Facts, title: str | None, restored: Restored | None) -> str:
    from ddf_tomo import __version__

    made = facts.reconstruction
    heading = title or str(made.provenance.get("title") or "") or (facts.scan.title if facts.scan else "")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {
        "written": now,
        "ddf_tomo": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    sections = [
        _sections.summary(facts),
        _sections.measured(facts),
        *([] if restored is None else [sharpened(restored)]),
        _sections.residuals(facts),
        _sections.data_or_prior(facts),
        _sections.convergence(facts),
        _volume_sections.slices(facts),
        _volume_sections.directions(facts),
        *([_volume_sections.scalars(facts)] if facts.reconstruction.scalars else []),
        *([] if facts.truth is None else [_volume_sections.merits(facts)]),
        _volume_sections.quantities(facts),
        _sections.settings(facts),
        _sections.provenance(facts, versions),
    ]
    foot = f"Written by ddf_tomo {escape(__version__)} on {now}. This file holds everything it shows."
    return page(
        heading or "Tensor tomography", _sections.lede(facts), sections, packed(facts.derived, facts.unit), foot
    )
