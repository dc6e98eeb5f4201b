"""How long and how fast a training goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ddf_tomo._checks import LARGEST_SEED, choice, integer, number

__all__ = ["Schedule"]
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    steps
        Number of batches.
    learning_rate
        Highest, after the warm-up; it falls to zero along a cosine.
    warmup
        Share of the steps in which it rises.
    weight_decay
        Of AdamW (Loshchilov & Hutter 2019).
    clip
        Largest norm of the gradient.
    average
        Decay of the averaged weights, which are what is validated and kept; less in the first steps.
    validate_every
        Steps between validations.
    patience
        Validations without a better one after which training stops; 0: never.
    precision
        Of the network's products while it learns: ``"float32"``, or ``"bfloat16"``, which is twice as fast on CPUs and
        cards that have it and slower on others. Weights, losses and everything else stay in single precision.
    seed
        Of fresh weights, and of random numbers that the network draws.

    Raises
    ------
    TypeError, ValueError
        If a value is out of its range.

    Examples
    --------
    >>> schedule = Schedule(steps=1000, learning_rate=2e-3)
    >>> [round(schedule.rate(step), 5) for step in (0, 49, 524, 999)]
    [4e-05, 0.002, 0.001, 0.0]
    """

    steps: int
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.999
    validate_every: int = 500
    patience: int = 0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self.precision, "precision", PRECISIONS)
        for name, low, high in (
            ("steps", 1, 10**8),
            ("validate_every", 1, 10**8),
            ("patience", 0, 10**8),
            ("seed", 0, LARGEST_SEED),
        ):
            object.__setattr__(self, name, integer(getattr(self, name), name, low=low, high=high))
        for name, top, low_open in (
            ("learning_rate", 10.0, True),
            ("warmup", 0.9, False),
            ("weight_decay", 1.0, False),
            ("clip", 1e9, True),
            ("average", 0.99999, False),
        ):
            object.__setattr__(self, name, number(getattr(self, name), name, low=0.0, high=top, low_open=low_open))

    def rate(self, step: int) -> float:
        """Learning rate of a ``step``, from 0."""
        rising = max(1, round(self.warmup * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step + 1 - rising) / max(1, self.steps - rising)))
