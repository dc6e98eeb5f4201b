"""What this machine does in a second, and what a reconstruction will cost on it: ``ddf-tomo doctor --benchmark``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import integer, message, number, of_kind
from ddf_tomo._one_scan import DIRECTIONAL
from ddf_tomo._plan import ROUNDING, Plan
from ddf_tomo.geometry import Geometry
from ddf_tomo.memory import Memory, Size, predicted_memory
from ddf_tomo.operators.backends import BACKENDS
from ddf_tomo.operators.backends.choice import torch_device
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.operators.xray import XRayTransform
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.priors import Functional, Smoothness, TotalVariation
from ddf_tomo.solvers import Misfit

__all__ = ["Cost", "Rate", "Speed", "measure", "predict"]
CHANNELS = (1, 6, 15)
EDGE, VIEWS = 48, 12
FEW_VIEWS, MORE_VIEWS = 2, 32
LARGEST_NUMBERS = 64**3 * 15  # of a volume to measure with; larger ones are scaled
COPIED_BYTES = 128 * 2**20
ITERATIONS = 5
SECONDS = 2.0  # to spend on projections, of a prediction


@dataclass(frozen=True)
class Rate:
    """How many voxels × channels × views a backend handles in a second.

    Attributes
    ----------
    backend, channels
        Which, with how many channels in a voxel.
    forward, adjoint
        Updates a second.

    Examples
    --------
    >>> Rate("numba", 15, 1e9, 5e8).forward
    1000000000.0
    """

    backend: str
    channels: int
    forward: float
    adjoint: float


@dataclass(frozen=True)
class Cost:
    """What a reconstruction will take.

    Attributes
    ----------
    size
        Of the problem.
    method
        Of `ddf_tomo.reconstruct`.
    seconds_per_iteration
        Of the final solution, and of those that find the weight of the prior.
    iterations
        How many there will be, about, with the search for that weight.
    memory
        At its peak.

    Examples
    --------
    >>> size = Size((8, 8, 8), (9, 8, 8, 3), 6)
    >>> Cost(size, "cg", 0.5, 90, predicted_memory(size)).seconds
    45.0
    """

    size: Size
    method: str
    seconds_per_iteration: float
    iterations: int
    memory: Memory

    @property
    def seconds(self) -> float:
        """In all."""
        return self.seconds_per_iteration * self.iterations


@dataclass(frozen=True)
class Speed:
    """What this machine does in a second.

    Attributes
    ----------
    threads
        Of torch and of the projectors.
    copy_bytes
        Read and written by copying a large array.
    flops
        Of a product of large matrices in float32, multiplications and additions.
    rates
        Of every backend that runs here.

    Examples
    --------
    >>> Speed(2, 2e10, 1e11, (Rate("numba", 1, 1e9, 5e8),)).to_json()[:13]
    '{"threads": 2'
    """

    threads: int
    copy_bytes: float
    flops: float
    rates: tuple[Rate, ...]

    def to_json(self, cost: Cost | None = None) -> str:
        """As JSON text, with a cost under ``cost``."""
        told = asdict(self)
        if cost is not None:
            told["cost"] = asdict(cost) | {"seconds": cost.seconds, "memory_bytes": cost.memory.total}
        return json.dumps(told)


def measure(seconds: float = 20.0, *, edge: int = EDGE, device: str = "cpu") -> Speed:
    """Measure copying, arithmetic, and both directions of every backend that runs here.

    Parameters
    ----------
    seconds
        To spend, about; each figure is the best of what fits.
    edge
        Of the volume that is projected, in voxels.
    device
        Of torch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> speed = measure(0.1, edge=8)
    >>> {rate.channels for rate in speed.rates}, speed.copy_bytes > 0
    ({1, 6, 15}, True)
    """
    seconds = number(seconds, "seconds", low=0.0, high=3600.0, low_open=True)
    edge = integer(edge, "edge", low=4, high=512)
    place = torch_device(device)
    geometry = spread_views((edge,) * 3, VIEWS)
    names = list(_usable(geometry, place))
    share = seconds / (2 + 2 * len(CHANNELS) * len(names))
    return Speed(
        torch.get_num_threads(), _copy(share), _arithmetic(share), tuple(_rates(geometry, names, place, share))
    )


def predict(
    size: Size,
    method: str = "cg",
    *,
    prior: str | None = "auto",
    weight: float | str = "auto",
    iterations: int | None = None,
) -> Cost:
    """What `reconstruct` will take on this machine, from two short runs with few views.

    An iteration costs a projection and a back-projection of each view, and something for the prior: both are measured,
    the first with a few dozen views, the second with hardly any. On a quiet machine the time is within a factor of 1.5.
    Large problems are measured on smaller volumes and scaled by the number of voxels.

    Parameters
    ----------
    size
        Of the problem.
    method, prior, weight, iterations
        As in `reconstruct`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> cost = predict(Size((8, 8, 8), (20, 8, 12, 3), 6))
    >>> cost.iterations, cost.seconds_per_iteration > 0
    (90, True)
    """
    of_kind(Size, size, "size")
    if prior is not None and not isinstance(prior, str):
        raise TypeError(message("prior", "a name or None", type(prior).__name__))
    plan = Plan.checked(method, prior, weight, False, iterations, None, None)
    memory = predicted_memory(size, method, prior=prior, weight=weight)
    numbers = math.prod(size.volume_shape) * size.coefficients
    factor = min(1.0, (LARGEST_NUMBERS / numbers) ** (1 / 3))
    small = replace(
        size,
        volume_shape=tuple(max(1, round(n * factor)) for n in size.volume_shape),
        data_shape=(
            size.data_shape[0],
            *(max(1, round(n * factor)) for n in size.data_shape[1:3]),
            size.data_shape[3],
        ),
    )
    scale = math.prod(size.volume_shape) / math.prod(small.volume_shape)
    views = size.data_shape[0]
    few, more = min(views, FEW_VIEWS), min(views, MORE_VIEWS)
    of_a_view = _projections(small, more) / more
    rest = max(0.0, _iteration(small, few, plan) - few * of_a_view)
    if size.streams:
        of_a_view *= 3 / 2  # a projection more, beside one and a back-projection that takes as long
    found = rest + views * of_a_view
    return Cost(size, plan.name, scale * found, plan.expected_iterations, memory)


def show(speed: Speed, cost: Cost | None = None) -> None:
    """Print figures, and a cost, as tables for a person.

    Examples
    --------
    >>> show(Speed(2, 2e10, 1e11, (Rate("numba", 1, 1e9, 5e8),)))  # doctest: +ELLIPSIS
      threads...2...
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(box=None, show_header=False)
    facts.add_row(" threads", str(speed.threads))
    facts.add_row(" copying", f"{speed.copy_bytes / 1e9:.3g} GB/s, read and written")
    facts.add_row(" arithmetic", f"{speed.flops / 1e9:.3g} GFlop/s, product of matrices")
    console.print(facts)
    console.print("\n[bold]Line integrals[/] (voxels × channels × views a second)")
    table = Table(box=None)
    for name in (" backend", "channels", "forward", "adjoint"):
        table.add_column(name, justify="left" if name == " backend" else "right")
    for rate in speed.rates:
        table.add_row(f" {rate.backend}", str(rate.channels), f"{rate.forward:.2e}", f"{rate.adjoint:.2e}")
    console.print(table)
    if cost is None:
        return
    size = cost.size
    volume = " × ".join(map(str, (*size.volume_shape, size.coefficients)))
    views, rows, columns, channels = size.data_shape
    console.print(f"\n[bold]A reconstruction[/] of {volume} from {views} views of {rows} × {columns} × {channels}")
    facts = Table(box=None, show_header=False)
    facts.add_row(" method", cost.method)
    facts.add_row(" an iteration", f"{cost.seconds_per_iteration:.3g} s")
    facts.add_row(" in all", f"{cost.seconds:.3g} s, {cost.iterations} iterations with the search for the weight")
    facts.add_row(" memory", f"{cost.memory.total / 1e9:.3g} GB at its peak")
    console.print(facts)


def spread_views(volume_shape: tuple[int, ...], views: int) -> Geometry:
    """So many views of a tilt series, evenly picked."""
    every = tilt_series(volume_shape)
    return every[np.linspace(0, len(every) - 1, views).round().astype(int)]


# -- figures ----------------------------------------------------------------------------------------------------------


def _best(call: Callable[[], Any], seconds: float) -> float:
    """Shortest of the times that fit, at least two, after one that does not count."""
    call()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 2:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _copy(seconds: float) -> float:
    source = torch.ones(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / _best(lambda: target.copy_(source), seconds)


def _arithmetic(seconds: float) -> float:
    n = 1024
    a, b = torch.ones(n, n), torch.ones(n, n)
    c = torch.empty(n, n)
    return 2 * n**3 / _best(lambda: torch.mm(a, b, out=c), seconds)


def _usable(geometry: Geometry, device: torch.device) -> Iterator[str]:
    """Backends that give an answer here; those that need an interpreter or a card do not count."""
    kind = device.type
    for name, told in BACKENDS.items():
        if (told.devices is None or kind in told.devices) and not (name == "triton" and kind == "cpu"):
            try:
                XRayTransform(geometry[:1], name, device)(torch.ones(*geometry.volume_shape, 1, device=device))
            except Exception:  # whatever a neighbour does not like: it is no use here
                continue
            yield name


def _rates(geometry: Geometry, names: list[str], device: torch.device, seconds: float) -> Iterator[Rate]:
    for name in names:
        views = geometry[:1] if name == "reference" else geometry
        for channels in CHANNELS:
            A = XRayTransform(views, name, device)
            x = torch.ones(*views.volume_shape, channels, device=device)
            y = A(x)
            updates = x.numel() * len(views)
            forward, adjoint = (_best(partial(f, z), seconds) for f, z in ((A, x), (A.T, y)))
            yield Rate(name, channels, updates / forward, updates / adjoint)


class _AnyResponse:
    """Numbers of the right shape: what they are does not matter to the time."""

    def __init__(self, channels: int, coefficients: int) -> None:
        self.shape = channels, coefficients

    def matrix(self, geometry: Geometry, ell_max: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(geometry), *self.shape, generator=generator, dtype=torch.float64)


def _problem(size: Size, views: int) -> tuple[Misfit, torch.Tensor]:
    """A misfit of this size, with so many views of noise, and a volume."""
    _, rows, columns, channels = size.data_shape
    geometry = replace(spread_views(size.volume_shape, views), detector_shape=(rows, columns))
    A = TensorXRayTransform(geometry, _AnyResponse(channels, size.coefficients), 0)
    x = torch.rand(*size.volume_shape, size.coefficients, generator=torch.Generator().manual_seed(0))
    y = A(x)
    return Misfit(A, y, torch.ones_like(y) if size.weighted else None), x


def _projections(size: Size, views: int) -> float:
    """Seconds that an iteration spends on so many views: a projection, norms, a back-projection."""
    misfit, x = _problem(size, views)

    def work() -> None:
        seen = misfit.look(x)
        misfit.square(seen)
        misfit.slope(seen)

    return _best(work, SECONDS)


def _iteration(size: Size, views: int, plan: Plan) -> float:
    """Seconds of an iteration with so many views: the shortest of a few."""
    misfit, _ = _problem(size, views)
    times: list[float] = []
    plan.method.solve(
        misfit,
        _terms(size, plan, float(misfit.y.abs().mean())),
        iterations=ITERATIONS,
        progress=False,
        callback=lambda *_: times.append(time.perf_counter()),
    )
    return float(np.diff(times).min()) if len(times) > 1 else 0.0


def _terms(size: Size, plan: Plan, scale: float) -> list[Functional]:
    shape, count = size.volume_shape, size.coefficients
    if plan.prior is None or not plan.weight:
        return []
    if plan.prior == "smoothness":
        return [1e-3 * scale * Smoothness(shape)]
    order = round((math.sqrt(8 * count + 1) - 3) / 2)
    of_harmonics = (order + 1) * (order + 2) // 2 == count and order % 2 == 0
    weights = [1.0, *[DIRECTIONAL] * (order // 2)] if of_harmonics else None
    return [1e-3 * scale * TotalVariation(shape, order_weights=weights, smoothing=ROUNDING)]
