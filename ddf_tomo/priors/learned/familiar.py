"""Whether a volume is like those that a network has learned from: a few numbers of it, within the ranges of training.

Numbers outside say that nobody knows what the network does there. Numbers inside do not say that it is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import message
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.spherical_harmonics import order_of, power

BRIGHT = 0.1  # of the largest mean: a voxel of the sample
WIDER = 0.1  # of the range, in logarithm: some volumes of training are not among those that it was taken of
TOO_FAR = 1.5  # χ² per datum: with this the data speak against the result
FAINTEST = 1e-3
# Of these, little is easy: an emptier, smoother sample or less noise is nothing to warn of.
WORDS = {
    "filled": "share of the volume that the sample fills",
    "roughness": "change from voxel to voxel, relative to the sample",
    "noise": "noise of the data, relative to the largest signal",
}


def volume_statistics(coefficients: Any) -> dict[str, float]:
    """Numbers of a volume that do not depend on its units: how full, how rough, how strong each order is.

    Parameters
    ----------
    coefficients
        Shape ``(x, y, z, K)``.

    Returns
    -------
    dict
        ``"filled"``: share of the voxels whose mean exceeds a tenth of its maximum; ``"roughness"``: root mean square
        of differences between neighbours over that of the coefficients; ``"l2"``, ``"l4"``, …: amplitude of each order
        relative to order 0. Empty for an empty volume.

    Examples
    --------
    >>> volume = torch.zeros(4, 4, 4, 6)
    >>> volume[:2, ..., 0], volume[:2, ..., 3] = 1.0, 0.5
    >>> {name: round(value, 3) for name, value in volume_statistics(volume).items()}
    {'filled': 0.5, 'roughness': 0.471, 'l2': 0.5}
    """
    x = as_tensor(coefficients, "coefficients").detach().double()
    if x.ndim != 4:
        raise ValueError(message("coefficients", "shape (x, y, z, K)", tuple(x.shape)))
    order_of(x.shape[-1])
    highest = float(x.abs().max()) if x.numel() else 0.0
    if not 0 < highest < math.inf:
        return {}
    x = x / highest
    powers, brightest = power(x).mean((0, 1, 2)), float(x[..., 0].max())
    if brightest <= 0 or powers[0] == 0:
        return {}
    steps = [x.diff(dim=axis).square().sum(-1).mean() for axis in range(3) if x.shape[axis] > 1]
    found = {"filled": float((x[..., 0] > BRIGHT * brightest).double().mean())}
    if steps:
        found["roughness"] = float((torch.stack(steps).mean() / powers.sum()).sqrt())
    amplitudes = (powers / powers[0]).sqrt().tolist()
    return found | {f"l{2 * place}": value for place, value in enumerate(amplitudes) if place}


def ranges(statistics: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """Least and largest of each number, as model cards hold them.

    Parameters
    ----------
    statistics
        `volume_statistics` of many volumes.

    Examples
    --------
    >>> ranges([{"filled": 0.25}, {"filled": 0.5, "l2": 0.125}])
    {'filled': [0.25, 0.5], 'l2': [0.125, 0.125]}
    """
    found: dict[str, list[float]] = {}
    for each in statistics:
        for name, value in each.items():
            low, high = found.get(name, (value, value))
            found[name] = [min(low, value), max(high, value)]
    return found


def unfamiliar(statistics: Mapping[str, float], seen: Mapping[str, Sequence[float]]) -> list[str]:
    """What lies outside the ranges of training, a text each with the numbers.

    Numbers that one side lacks do not count, nor does less noise, a smoother or a smaller sample.

    Parameters
    ----------
    statistics
        Of the volume at hand, from `volume_statistics`, and ``"noise"``.
    seen
        Ranges by name, from `ranges`. A tenth of a range, in logarithm, is added at both ends.

    Examples
    --------
    >>> unfamiliar({"filled": 0.95, "l2": 0.3}, {"filled": [0.2, 0.6], "l2": [0.1, 0.5]})
    ['share of the volume that the sample fills: 0.95, where training had 0.2 to 0.6']
    """
    told = []
    for name, value in statistics.items():
        if name not in seen:
            continue
        low, high = seen[name]
        margin = (max(high, FAINTEST) / max(low, FAINTEST)) ** WIDER
        if value > high * margin or (value < low / margin and name not in WORDS):
            label = WORDS.get(name, f"strength of order ℓ = {name[1:]} relative to the mean")
            told.append(f"{label}: {value:.3g}, where training had {low:.3g} to {high:.3g}")
    return told


def doubts(coefficients: Tensor, per_datum: float, noise: float, seen: Mapping[str, Sequence[float]]) -> list[str]:
    """Why a result of a learned prior may be wrong: what is `unfamiliar` of it, and data that it does not explain.

    Parameters
    ----------
    coefficients
        The result, shape ``(x, y, z, K)``.
    per_datum
        Its χ² per datum; NaN if unknown.
    noise
        Of the data, relative to the largest signal; NaN if unknown.
    seen
        Ranges of training; empty if unknown.

    Examples
    --------
    >>> doubts(torch.ones(2, 2, 2, 1), 4.0, 0.02, {"noise": [0.005, 0.08]})
    ['data that the result does not explain: χ² is 4 per datum, where noise alone leaves 1']
    """
    known = volume_statistics(coefficients) | ({"noise": noise} if math.isfinite(noise) else {})
    told = unfamiliar(known, seen)
    if per_datum > TOO_FAR:
        left = f"χ² is {per_datum:.3g} per datum, where noise alone leaves 1"
        told.append(f"data that the result does not explain: {left}")
    return told
