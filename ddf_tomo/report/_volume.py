"""The volume as the page's scripts read it: a few bytes a voxel, thinned out where it is large."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo.derived import Derived
from ddf_tomo.visualization.slices import strength_of
from ddf_tomo.visualization.style import STYLES, colour_map, limits

MOST_VOXELS = 600_000  # six bytes each, and a third more as text: 4.8 MB
MOST_STICKS = 6000
MISSING = 255
"""Anisotropy of voxels where it would describe noise."""


def packed(derived: Derived, unit: str) -> str:
    """JSON with the slices' quantities, their colour tables, and the sticks of the 3-D view.

    Volumes of more than `MOST_VOXELS` voxels are thinned: every second (third, …) voxel along each axis.
    """
    step = stride(derived)
    thin = (slice(None, None, step),) * 3
    mean = derived.mean[thin]
    least, span = float(mean.min()), float(np.ptp(mean)) or 1.0
    low, high = limits(derived.mean, STYLES["mean"].limits)
    anisotropy = np.where(derived.valid, np.clip(derived.fractional_anisotropy, 0, 1) * (MISSING - 1), MISSING)
    contents = {
        "shape": list(mean.shape),
        "stride": step,
        "unit": unit,
        "least": least,
        "step": span / 65535,
        "low": low,
        "high": high,
        "fullStrength": full_strength(derived),
        "mean": _base64((mean - least) / span * 65535, np.uint16),
        "anisotropy": _base64(anisotropy[thin], np.uint8),
        "direction": _base64(derived.direction[thin] * 127, np.int8),
        "tables": {name: _table(name) for name in ("mean", "fractional_anisotropy")},
        "sticks": _sticks(derived),
    }
    return json.dumps(contents).replace("<", "\\u003c")  # a unit shall not end the script element


def stride(derived: Derived) -> int:
    """Which voxels the page holds along each axis: all (1), every second one (2), ….

    Examples
    --------
    >>> from ddf_tomo.derived import derive
    >>> stride(derive(np.ones((4, 4, 4, 1))))
    1
    """
    return max(1, math.ceil((derived.mean.size / MOST_VOXELS) ** (1 / 3)))


def full_strength(derived: Derived) -> float:
    """Mean times anisotropy that is drawn at full brightness: its 99th percentile in the sample.

    Examples
    --------
    >>> from ddf_tomo.derived import derive
    >>> full_strength(derive(np.zeros((4, 4, 4, 1))))
    1.0
    """
    strength = strength_of(derived)[derived.valid]
    return float(np.percentile(strength, 99)) if strength.size and strength.max() > 0 else 1.0


def _table(quantity: str) -> str:
    return _base64(colour_map(STYLES[quantity])(np.arange(256))[:, :3] * 255, np.uint8)


def _sticks(derived: Derived) -> dict[str, Any]:
    """The strongest voxel of each small cube of voxels, so that sticks are spread over all of the sample."""
    strength = strength_of(derived)
    chosen, spacing = _spread_out(strength)
    place = np.unravel_index(chosen, strength.shape)
    return {
        "count": len(chosen),
        "spacing": spacing,
        "position": _base64(np.stack(place, axis=-1), np.uint16),
        "direction": _base64(derived.direction[place] * 127, np.int8),
        "strength": _base64(np.clip(strength[place] / full_strength(derived), 0, 1) * 255, np.uint8),
    }


def _spread_out(strength: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
    """Flat indices of at most `MOST_STICKS` voxels, and their spacing: of each cube the strongest.

    Between all cubes of one size and all of the next, every second or fourth is taken (a face- or body-centred
    lattice), so that the number never falls far below the largest.
    """
    there = np.flatnonzero(strength)
    voxels = np.unravel_index(there, strength.shape)
    strongest_first = np.argsort(-strength.ravel()[there], kind="stable")
    edge = 1
    while True:
        cubes = [axis // edge for axis in voxels]
        parity = np.stack(cubes) % 2
        whole, second, fourth = np.ones(len(there), bool), parity.sum(0) % 2 == 0, np.ptp(parity, axis=0) == 0
        cube = np.ravel_multi_index(cubes, [-(-n // edge) for n in strength.shape])
        for lattice, sparser in ((whole, 1), (second, 2), (fourth, 4)):
            order = strongest_first[lattice[strongest_first]]
            _, first = np.unique(cube[order], return_index=True)
            if len(first) <= MOST_STICKS:
                return there[order[first]], edge * sparser ** (1 / 3)
        edge += 1


def _base64(values: NDArray[Any], kind: type) -> str:
    little = np.dtype(kind).newbyteorder("<")
    return base64.b64encode(np.rint(values).astype(little).tobytes()).decode()
