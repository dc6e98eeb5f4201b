"""Values to call the package with: right ones, and what a person, a file or another program makes of them.

Everything is drawn from one `random.Random`, which may be hypothesis' own: the same code serves the long seeded run and
the short one that shrinks what it finds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

import ddf_tomo as dt
from ddf_tomo.retrieval import Maps

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 10**30, -(10**30), 2**63, 0.5, -0.0, 2.0, 1e-5, 25.0, 90.0, 360.0, 1e300, -1e300, 1e38, 5e-324,
    1e-300, math.nan, math.inf, -math.inf, True, np.True_, 1j, Decimal("1.5"), Fraction(1, 3), np.float16(2),
    np.int8(-3), np.array(2.0), np.array([1.0]), np.array([1.0, 2.0]), torch.tensor(2), torch.tensor([]),
    torch.empty((), device="meta"),
)  # fmt: skip
OBJECTS: tuple[Any, ...] = (
    None, "", "auto", "nonsense", "1", b"bytes", object(), [], {}, (), [[1], [1, 2]], [None], ["a"], {"a": 1},
    random.Random, lambda *_: None, slice(None), ..., NotImplemented, np.empty((0, 3)), np.array(["a"]),
    np.array([object()]), np.datetime64("2020-01-01"), np.zeros(3, [("a", float)]), np.ma.masked_all(3), range(3),
    torch.empty(2, 3, device="meta"), torch.zeros(3, 3).to_sparse(), iter([1.0]),
)  # fmt: skip
HUGE_AND_TINY = (1e300, -1e300, 1e38, 1e20, 1e19, 5e-324, 1e-300, 1e-40, -0.0)


class Source:
    """Draws values from a `random.Random`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def one_of(self, *options: Any) -> Any:
        return options[self.rng.randrange(len(options))]

    def chance(self, probability: float) -> bool:
        return self.rng.randrange(1000) < 1000 * probability

    def size(self, low: int = 1, high: int = 5) -> int:
        return self.rng.randint(low, high)

    def sizes(self, count: int, low: int = 1, high: int = 5) -> tuple[int, ...]:
        return tuple(self.size(low, high) for _ in range(count))

    def number(self, low: float = -3.0, high: float = 3.0) -> float:
        return low + (high - low) * self.rng.randrange(1001) / 1000

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.rng.randrange(2**32))

    def noise(self, *shape: int, positive: bool = False) -> Any:
        """White noise, as one of the kinds of array that are all as good."""
        generator = self.generator()
        array = generator.uniform(0.5, 1.5, shape) if positive else generator.standard_normal(shape)
        return self.as_good(array)

    def as_good(self, array: np.ndarray) -> Any:
        """The same numbers in another kind of array."""
        match self.rng.randrange(12):
            case 0:
                return torch.from_numpy(array.copy())
            case 1:
                return torch.from_numpy(array.astype(np.float32))
            case 2:
                array = array.copy()
                array.setflags(write=False)
                return array
            case 3:
                return np.asfortranarray(array)
            case 4:
                return np.flip(np.flip(array).copy())
            case 5:
                return np.repeat(array[..., None], 2, axis=-1)[..., 0]
            case 6:
                return array.astype(">f8")
            case 7 | 8:
                return array
            case _:
                return array.astype(np.float32)

    def geometry(self, views: int | None = None, low: int = 1, high: int = 5) -> dt.Geometry:
        count = self.size(1, 4) if views is None else views
        angles = [[self.one_of(0.0, math.pi / 4, math.pi / 2, 0.3, self.number()) for _ in range(count)] for _ in "io"]
        offsets = {name: self.one_of(0.0, 0.5, -1.0, self.number()) for name in ("j_offset", "k_offset")}
        volume, detector = self.sizes(3, low, high), self.sizes(2, low, high)
        return dt.Geometry.from_angles(*angles, volume, detector, **offsets)

    def response(self, views: int) -> Any:
        return self.one_of(*(make for make in RESPONSES))(views)

    def scan(self, views: int | None = None, **sizes: int) -> dt.Scan:
        geometry = self.geometry(views, **sizes)
        response = self.response(len(geometry))
        shape = (len(geometry), *geometry.detector_shape, response.channels)
        weights = None if self.chance(0.5) else self.noise(*shape, positive=True)
        diode = None if self.chance(0.5) else self.noise(*shape[:3], positive=True)
        return dt.Scan(self.noise(*shape), geometry, response, weights, diode, self.one_of(None, 1e-5), "title")


RESPONSES: tuple[Callable[[int], Any], ...] = (
    lambda views: dt.IsotropicResponse(),
    lambda views: dt.SaxsResponse(np.arange(4) * np.pi / 4),
    lambda views: dt.SaxsResponse(np.arange(4) * np.pi / 2, two_theta_rad=0.1),
    lambda views: dt.SecondMomentResponse(),
    lambda views: dt.DirectionalVisibilityResponse(np.arange(3) * np.pi / 3, exponent=1.0),
    lambda views: dt.VisibilityResponse([0.0, 1.5]),
    lambda views: dt.VisibilityResponse(np.linspace(0, 1, 2 * views).reshape(views, 2)),
    lambda views: dt.RankTwoResponse(),
    lambda views: dt.RankTwoSaxsResponse([0.1, 0.9]),
)


def spoiled(value: Any, source: Source) -> Any:
    """The value as a mistake makes it; now and then something else altogether."""
    if source.chance(0.15):
        return source.one_of(*OBJECTS)
    if isinstance(value, (bool, int, float)) or value is None:
        return source.one_of(*NUMBERS, *OBJECTS)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return _spoiled_array(value, source)
    if isinstance(value, (tuple, list)) and value:
        return _spoiled_sequence(value, source)
    if isinstance(value, dict) and value:
        key = source.one_of(*value)
        rest = {name: entry for name, entry in value.items() if name != key}
        return rest if source.chance(0.3) else rest | {key: spoiled(value[key], source)}
    if isinstance(value, str):
        return source.one_of(value.upper(), value + " ", value[:-1], "", "x" * 100, *OBJECTS)
    if isinstance(value, dt.Geometry):
        return source.one_of(value[:0], source.geometry(), *OBJECTS)
    if isinstance(value, dt.Scan):
        return source.one_of(source.scan(), value.data, *OBJECTS)
    if hasattr(value, "matrix"):
        return source.one_of(source.response(3), _Response(source.one_of(*NUMBERS, *OBJECTS)), type(value), *OBJECTS)
    return source.one_of(*NUMBERS, *OBJECTS)


class _Response:
    """A response of somebody's own that gives nonsense."""

    channels = 2

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def matrix(self, geometry: Any, ell_max: Any) -> Any:
        return self.answer


def _spoiled_sequence(value: Any, source: Source) -> Any:
    entries = list(value)
    place = source.rng.randrange(len(entries))
    match source.rng.randrange(5):
        case 0:
            return entries[:-1]
        case 1:
            return [*entries, entries[0]]
        case 2:
            return []
        case 3:
            return entries[0]
        case _:
            entries[place] = spoiled(entries[place], source)
            return type(value)(entries) if type(value) in (tuple, list) else entries


def _spoiled_array(value: Any, source: Source) -> Any:
    tensor = isinstance(value, torch.Tensor)
    if tensor and (value.device.type != "cpu" or value.layout != torch.strided or value.dtype == torch.bfloat16):
        return source.one_of(*OBJECTS)
    array = value.detach().numpy().copy() if tensor else np.array(value, dtype=value.dtype.newbyteorder("="))
    if array.dtype.kind not in "fiu" or array.size == 0:
        return source.one_of(*OBJECTS)
    changes: list[Callable[[], Any]] = [
        lambda: array[None],
        lambda: array[..., None],
        lambda: array[0] if array.ndim else array,
        lambda: array[:-1] if array.ndim else array,
        lambda: array[..., :-1] if array.ndim else array,
        lambda: array[:0] if array.ndim else array,
        lambda: array[..., :0] if array.ndim else array,
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array.T,
        lambda: array.ravel(),
        lambda: np.zeros_like(array),
        lambda: -np.abs(array),
        lambda: np.full_like(array, array.flat[0]),
        lambda: array * 1e6,
        lambda: array.astype(np.float16),
        lambda: array.astype(np.int32),
        lambda: array.astype(np.uint8),
        lambda: array.astype(bool),
        lambda: array.astype(complex),
        lambda: array.astype(object),
        lambda: array.astype(str),
        lambda: np.ma.masked_greater(array, 0.0),
        lambda: array.tolist(),
        lambda: torch.from_numpy(np.ascontiguousarray(array)).to("meta"),
        lambda: torch.from_numpy(np.ascontiguousarray(array)).to(torch.bfloat16),
        lambda: torch.from_numpy(np.ascontiguousarray(array)).to(torch.int64),
        lambda: torch.from_numpy(np.ascontiguousarray(array)).requires_grad_(array.dtype.kind == "f"),
        lambda: torch.from_numpy(array.astype(float)).to_sparse(),
        lambda: np.broadcast_to(array.flat[0], array.shape),
        lambda: array.item(0),
    ]
    if source.chance(0.55) or array.dtype.kind != "f":
        return source.one_of(*changes)()
    return _with_values(array, tensor, source)


def _with_values(array: np.ndarray, tensor: bool, source: Source) -> Any:
    """Single entries, or all, become huge, tiny, infinite or NaN."""
    value = source.one_of(math.nan, math.inf, -math.inf, 0.0, *HUGE_AND_TINY)
    with np.errstate(all="ignore"):
        if source.chance(0.5):
            array.flat[source.rng.randrange(array.size)] = value
        elif source.chance(0.5):
            array = (array * value).astype(array.dtype)
        else:
            array = np.full_like(array, value)
    return torch.from_numpy(np.ascontiguousarray(array)) if tensor else array


def maps_arguments(s: Source, shape: tuple[int, ...]) -> dict[str, Any]:
    one = s.generator().uniform(0.5, 1.5, (9, *shape))
    pair, triple = np.stack([one[1], one[2]], -1), np.stack([one[3], one[4], one[5]], -1)
    return {
        "transmission": one[0],
        "displacement": pair,
        "covariance": triple,
        "background": one[6],
        "transmission_error": one[7],
        "displacement_error": pair,
        "covariance_error": triple,
        "background_error": one[8],
        "residual": one[0],
        "valid": one[0] > 0.6,
        "pixel_size_m": 1e-5,
        "distance_m": 1.0,
    }


def maps(s: Source, shape: tuple[int, ...]) -> Maps:
    return Maps(**maps_arguments(s, shape))
