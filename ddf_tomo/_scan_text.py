"""A scan in a few lines, for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ddf_tomo._scan_arrays import as_numpy, pieces_of

if TYPE_CHECKING:
    from ddf_tomo.scan import Scan


def scan_text(scan: Scan) -> str:
    """See `Scan.summary`."""
    lines = [repr(scan), f"title: {scan.title}"] if scan.title else [repr(scan)]
    low, high, mean, _ = _statistics(scan.data)
    place = ", on disk" if scan.streams else ""
    lines.append(f"data ({as_numpy(scan.data[:0]).dtype}{place}): {low:.4g} … {high:.4g}, mean {mean:.4g}")
    if scan.weights is None:
        lines.append("weights: none")
    else:
        low, high, _, masked = _statistics(scan.weights)
        lines.append(f"weights: {low:.4g} … {high:.4g}, {masked:.1%} of them masked")
    lines.append("voxel size: " + ("unknown" if scan.voxel_size_m is None else f"{scan.voxel_size_m * 1e6:.4g} µm"))
    lines.append("diode: " + ("none" if scan.diode is None else f"mean {_statistics(scan.diode)[2]:.4g}"))
    lines += [scan.geometry.summary(), *(f"{key}: {value}" for key, value in scan.provenance.items())]
    return "\n".join(lines)


def _statistics(array: Any) -> tuple[float, float, float, float]:
    """Smallest and largest number, mean, and share of zeros."""
    low, high, total, zeros, count = math.inf, -math.inf, 0.0, 0, 0
    for piece in (as_numpy(piece) for _, piece in pieces_of(array)):
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
        total, count = total + float(piece.sum(dtype=np.float64)), count + piece.size
        zeros += int(np.count_nonzero(piece == 0))
    return low, high, total / count, zeros / count
