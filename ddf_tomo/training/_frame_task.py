"""What tasks on frames share: which families train and validate, a pool of examples, checks of the fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ddf_tomo._checks import LARGEST_SEED, integer, message, number, real_array, size_tuple
from ddf_tomo.training._inputs import known_device, names_of_families
from ddf_tomo.training.frames import FRAME_FAMILIES, FRAME_SPLITS

__all__ = ["FrameTask"]
SAMPLES, BATCHES, VALIDATION, CALIBRATION, UNROLLED = range(5)  # kinds of random numbers
MOST_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class FrameTask(ABC):
    """A task for `ddf_tomo.training.train` on frames of random samples; its fields are those of `Retrieving`.

    A subclass makes examples, and says what loss and figures a network has on them.
    """

    families: tuple[str, ...] = FRAME_SPLITS["train"]
    validation: tuple[str, ...] = FRAME_SPLITS["validation"]
    size: tuple[int, ...]
    pool: int
    batch: int
    mask_steps: tuple[int, ...]
    counts: tuple[float, ...]
    validation_frames: int
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        low, high = real_array(self.counts, "counts", (2,)).tolist()
        cleaned: dict[str, Any] = {
            "families": names_of_families(self.families, "families", FRAME_FAMILIES, FRAME_SPLITS["test"]),
            "validation": names_of_families(self.validation, "validation", FRAME_FAMILIES, FRAME_SPLITS["test"]),
            "size": size_tuple(self.size, "size", 2),
            "pool": integer(self.pool, "pool", low=1, high=10**7),
            "batch": integer(self.batch, "batch", low=1, high=10_000),
            "mask_steps": fewest_and_most(self.mask_steps, "mask_steps", MOST_STEPS),
            "counts": (number(low, "counts", low=1.0), number(high, "counts", low=low, high=1e9)),
            "validation_frames": integer(self.validation_frames, "validation_frames", low=1, high=10_000),
            "seed": integer(self.seed, "seed", high=LARGEST_SEED),
            "device": str(known_device(self.device)),
        }
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)
        if shared := sorted(set(self.families) & set(self.validation)):
            raise ValueError(message("validation", "families that do not train", ", ".join(map(repr, shared))))

    @abstractmethod
    def example(self, family: str, draw: np.random.Generator, count: int | None = None) -> Any:
        """One example of a ``family``, random by ``draw``; to validate, the ``count`` of those of its family."""

    def varied(self, example: Any, draw: np.random.Generator) -> Any:
        """An example of the pool as a batch takes it."""
        return example

    def examples(self, step: int) -> list[Any]:
        """The batch of a ``step``; the same whenever it is asked for."""
        draw = np.random.default_rng([self.seed, BATCHES, step])
        chosen = draw.integers(self.pool, size=self.batch)
        return [self.varied(self._member(int(each)), draw) for each in chosen]

    def drawn(self, purpose: int, families: Sequence[str]) -> Iterator[Any]:
        """``validation_frames`` examples of each of some families, for a kind of random numbers."""
        for place, family in enumerate(families):
            for count in range(self.validation_frames):
                yield self.example(family, np.random.default_rng([self.seed, purpose, place, count]), count)

    def _member(self, index: int) -> Any:
        if index not in self._pool:
            draw = np.random.default_rng([self.seed, SAMPLES, index])
            self._pool[index] = self.example(str(draw.choice(self.families)), draw)
        return self._pool[index]

    @cached_property
    def _pool(self) -> dict[int, Any]:
        return {}

    @cached_property
    def _validation(self) -> list[Any]:
        return list(self.drawn(VALIDATION, self.validation))


def fewest_and_most(value: Any, argument: str, highest: int) -> tuple[int, int]:
    """Two sizes in order, up to ``highest``.

    Examples
    --------
    >>> fewest_and_most([2, 5], "unrolled", 100)
    (2, 5)
    """
    low, high = size_tuple(value, argument, 2)
    if low > high or high > highest:
        raise ValueError(message(argument, f"fewest and most, up to {highest}", value))
    return low, high
