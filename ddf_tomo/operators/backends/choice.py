"""Which backend ``backend="auto"`` takes, and why: the quickest exact one of those that run here, by measured speed."""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from ddf_tomo._checks import NOT_NUMBERS, integer, message, of_kind
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.backends import BACKENDS

__all__ = ["choose_backend"]

# Updates (voxels × channels × views) a second for 1, 6 and 15 channels, the slower of both directions: 64³ voxels,
# float32, two cores of an AMD EPYC, November 2026, best of nine rounds (numba: benchmarks/results; reference: by hand).
MEASURED: dict[tuple[str, str], dict[int, float]] = {
    ("numba", "cpu"): {1: 8.5e8, 6: 3.0e9, 15: 5.0e9},
    ("reference", "cpu"): {1: 7.4e6, 6: 3.1e7, 15: 5.6e7},
}
# Where nothing has been measured, the first of these that runs.
UNMEASURED = ("triton", "reference")
NEEDS = {"triton": "triton", "numba": "numba"}


def choose_backend(
    geometry: Geometry, device: torch.device | str | None = None, channels: int | None = None
) -> tuple[str, str]:
    """The backend for these line integrals, and the reason in words.

    Backends whose adjoint is not exact (``"astra"``, ``"tomosipo"``) are taken on request only.

    Parameters
    ----------
    geometry
        Its size decides how long the choice will take, which the reason tells.
    device
        Where the volume lives; the CPU by default.
    channels
        Of a voxel, if it is known.

    Returns
    -------
    name, reason
        A name for ``XRayTransform(geometry, backend=name)``, and one line for a person.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (64, 64, 64), (64, 64))
    >>> name, reason = choose_backend(geometry, "cpu", channels=15)
    >>> name
    'numba'
    """
    of_kind(Geometry, geometry, "geometry", "a ddf_tomo.Geometry")
    channels = None if channels is None else integer(channels, "channels", low=1)
    kind = torch_device(device).type
    usable = [
        name
        for name, told in BACKENDS.items()
        if told.adjoint_is_exact and (told.devices is None or kind in told.devices) and _is_installed(name)
    ]
    speeds = {name: _speed(name, kind, channels) for name in usable}
    measured = {name: speed for name, speed in speeds.items() if speed}
    if not measured:
        name = next(name for name in UNMEASURED if name in usable)
        others = f", the only one there is for {kind!r}" if len(usable) == 1 else f", made for {kind!r}"
        return name, f"{name}: exact{others}; nobody has measured it there yet"
    name = max(measured, key=lambda name: measured[name])
    updates = math.prod(geometry.volume_shape) * len(geometry) * (channels or 1)
    seconds = updates / measured[name]
    slower = "".join(f"; {other}: {speed:.2g}" for other, speed in measured.items() if other != name)
    return name, (
        f"{name}: {measured[name]:.2g} updates a second where it was measured{slower}; "
        f"about {seconds:.2g} s for one projection{'' if channels else ' of one channel'}"
    )


def torch_device(device: Any) -> torch.device:
    """A torch device, the CPU for ``None``."""
    try:
        return torch.device("cpu" if device is None else device)
    except NOT_NUMBERS as error:
        raise TypeError(message("device", "a torch device such as 'cpu' or 'cuda:0'", repr(device))) from error


def _speed(name: str, kind: str, channels: int | None) -> float | None:
    """What was measured for the number of channels nearest to this one (in ratio)."""
    table = MEASURED.get((name, kind))
    return table[min(table, key=lambda n: abs(math.log(n / (channels or 1))))] if table else None


@cache
def _is_installed(name: str) -> bool:
    return name not in NEEDS or find_spec(NEEDS[name]) is not None
