"""Small charts as inline SVG: sharp at any size, and in the colours of the page, light or dark."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo.report._html import shown

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 170, 34, 34, 10


def histogram(values: NDArray[Any], title: str, unit: str, bins: int = 48) -> str:
    """How a quantity is spread over voxels; the dashed line is the median."""
    low, high = (float(edge) for edge in np.percentile(values, (0.2, 99.8)))
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    median = float(np.median(values))
    alt = (
        f"Histogram of {title} over {len(values)} voxels: median {shown(median)}, most between {shown(low)} and"
        f" {shown(high)} {unit}"
    )
    label = f"{title} ({unit})" if unit else title
    return _chart(counts / max(counts.max(), 1), edges, label, alt, mark=median, side="voxels")


def _chart(
    heights: NDArray[Any],
    edges: NDArray[Any],
    label: str,
    alt: str,
    mark: float | None = None,
    side: str = "",
) -> str:
    left, right, floor = LEFT, WIDTH - 8, HEIGHT - BOTTOM
    across = left + (edges - edges[0]) / (edges[-1] - edges[0]) * (right - left)
    up = floor - heights * (floor - TOP)
    outline = " ".join(f"H{x1:.1f}V{y:.1f}" for x1, y in zip(across[:-1], up, strict=True))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">',
        f'<path class="bar" d="M{across[0]:.1f},{floor}{outline}H{across[-1]:.1f}V{floor}Z"/>',
        f'<path class="axis" d="M{left},{TOP}V{floor}H{right}"/>',
    ]
    if mark is not None:
        x = left + (mark - edges[0]) / (edges[-1] - edges[0]) * (right - left)
        parts.append(f'<path class="mark" d="M{x:.1f},{TOP}V{floor}"/>')
    for value, anchor in ((edges[0], "start"), (edges[len(edges) // 2], "middle"), (edges[-1], "end")):
        x = left + (value - edges[0]) / (edges[-1] - edges[0]) * (right - left)
        parts.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="{anchor}">{shown(float(f"{value:.2g}"))}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(label)}</text>')
    if side:
        middle = (TOP + floor) / 2
        turned = f'transform="rotate(-90 14 {middle})"'
        parts.append(f'<text x="14" y="{middle}" text-anchor="middle" {turned}>{escape(side)}</text>')
    return "".join([*parts, "</svg>"])
