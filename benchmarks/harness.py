"""What all benchmarks share: rows with a bar, equality before speed, and contestants timed in turn."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Unequal(AssertionError):
    """Two contestants do not compute the same thing, so that a ratio of their times would mean nothing."""


@dataclass(frozen=True)
class Row:
    """One figure. ``at_most`` or ``at_least`` is its bar; a figure that is not finite misses any bar."""

    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def bar(self) -> str:
        """The bar as text, empty if there is none."""
        texts = [f"{sign} {bar:.4g}" for sign, bar in (("≤", self.at_most), ("≥", self.at_least)) if bar is not None]
        return " and ".join(texts)

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met; ``None`` if there is none."""
        if self.at_most is None and self.at_least is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return bool(math.isfinite(self.value) and above and below)  # numpy's own kind is no JSON

    @property
    def verdict(self) -> str:
        """``pass``, ``MISSED``, or nothing."""
        return {True: "pass", False: "MISSED", None: ""}[self.passed]


@dataclass(frozen=True)
class Timings:
    """Seconds of each contestant in each round."""

    seconds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Median over the rounds."""
        return statistics.median(self.seconds[name])

    def ratios(self, numerator: str, denominator: str) -> tuple[float, ...]:
        """Ratio of the times within each round: what slows the machine down slows both."""
        return tuple(a / b for a, b in zip(self.seconds[numerator], self.seconds[denominator], strict=True))

    def row(self, name: str, note: str = "") -> Row:
        """Median time of a contestant, and its range."""
        return Row(f"time, {name}", self.median(name), "s", note=join(spread(self.seconds[name], "s"), note))

    def ratio_row(self, what: str, numerator: str, denominator: str, note: str = "", **bar: float) -> Row:
        """Median ratio of the times of two contestants, and its range over the rounds."""
        ratios = self.ratios(numerator, denominator)
        return Row(what, statistics.median(ratios), "×", note=join(spread(ratios), note), **bar)


def in_turn(contestants: Mapping[str, Callable[[], Any]], rounds: int, warm_up: bool = True) -> Timings:
    """Time the contestants one after the other, ``rounds`` times, every other round in reversed order.

    With ``warm_up`` each is called once before, so that neither compilation nor the first touch of memory counts.
    """
    if warm_up:
        for call in contestants.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in list(contestants)[:: -1 if turn % 2 else 1]:
            seconds[name].append(seconds_of(contestants[name]))
    return Timings({name: tuple(values) for name, values in seconds.items()})


def seconds_of(call: Callable[[], Any]) -> float:
    """Wall time of a call; its result is dropped only after the clock has stopped."""
    start = time.perf_counter()
    result = call()
    stop = time.perf_counter()
    del result
    return stop - start


def difference(found: Any, expected: Any) -> float:
    """Norm of the difference relative to the norm of what is expected."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        raise Unequal(f"shape {found.shape} instead of {expected.shape}")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def require(what: str, defect: float, tolerance: float) -> Row:
    """The row of an equality that the ratios after it stand on; raises `Unequal`, so that none is printed, if it fails.

    The comparison is written so that NaN fails.
    """
    if not defect <= tolerance:
        raise Unequal(f"{what}: {defect:.3g}, allowed {tolerance:.3g}; no ratio is given")
    return Row(what, defect, at_most=tolerance)


def spread(values: tuple[float, ...], unit: str = "", of: str = "rounds") -> str:
    """Range over the rounds, as text."""
    return f"{min(values):.3g} … {max(values):.3g} {unit}".strip() + f" in {len(values)} {of}"


def join(*texts: str) -> str:
    """The texts that are not empty, separated by semicolons."""
    return "; ".join(text for text in texts if text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what contestants write to the terminal; kept and shown if they raise."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    except BaseException:
        sys.stderr.write(said.getvalue()[-4000:])
        raise
