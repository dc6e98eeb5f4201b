"""What tasks on volumes share: which samples train and validate, the error of each order, figures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, check_shape, even_order, integer, message, size_tuple
from ddf_tomo.operators.spherical_harmonics import power
from ddf_tomo.priors.learned.samples import FAMILIES, HIGHEST, SPLITS
from ddf_tomo.training._inputs import known_device, names_of_families, real_volume
from ddf_tomo.training.pairs import NOISE, positive_range

__all__ = ["order_errors"]
FAINTEST = 0.1  # an order weaker than this, relative to the mean, counts as if it were as strong
MOST_THREADS = 15
SMALL = 0.01  # an error below this is not worth more of the training
VALIDATION = 1  # where its seeds begin to differ from those of training


def order_errors(found: Tensor, truth: Tensor) -> Tensor:
    """Error of each order relative to its strength: shape ``(..., x, y, z, K)`` gives ``(..., ell_max/2 + 1)``.

    ``|found_ℓ - truth_ℓ| / |truth_ℓ|``, norms over all voxels; what is fainter than a tenth of order 0 is taken to be
    a tenth of it. Mean square errors of all coefficients together would be those of order 0, and teach little else.

    Parameters
    ----------
    found, truth
        Coefficients, shape ``(..., x, y, z, K)``.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> truth = torch.ones(4, 4, 4, 6)
    >>> [round(value, 3) for value in order_errors(1.1 * truth, truth).tolist()]
    [0.1, 0.1]
    """
    check_shape(real_volume(found, "found").shape, "found", tuple(real_volume(truth, "truth").shape))
    if truth.ndim < 4:
        raise ValueError(message("truth", "shape (..., x, y, z, K)", tuple(truth.shape)))
    axes = (-4, -3, -2)
    strength = power(truth).sum(axes)
    strength = torch.maximum(strength, FAINTEST**2 * strength[..., :1]).clamp_min(1e-12)
    return (power(found - truth).sum(axes) / strength + 1e-12).sqrt()


@dataclass(frozen=True, kw_only=True)
class VolumeTask(ABC):
    """A task for `ddf_tomo.training.train` whose examples are random samples; its fields are those of `Denoising`.

    A subclass makes examples, and says what error a network leaves in some of them, and how large it is without one.
    """

    families: tuple[str, ...] = SPLITS["train"]
    validation: tuple[str, ...] = SPLITS["validation"]
    shape: tuple[int, ...] = (24, 24, 24)
    orders: tuple[int, ...] = (2, 4, 6, 8)
    batch: int = 4
    projection_noise: tuple[float, float] = NOISE
    validation_volumes: int = 4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        cleaned: dict[str, Any] = {
            "families": names_of_families(self.families, "families", FAMILIES, SPLITS["test"]),
            "validation": names_of_families(self.validation, "validation", FAMILIES, SPLITS["test"]),
            "shape": size_tuple(self.shape, "shape", 3),
            "orders": orders_of_volumes(self.orders, "orders"),
            "batch": integer(self.batch, "batch", low=1, high=10_000),
            "projection_noise": positive_range(self.projection_noise, "projection_noise"),
            "validation_volumes": integer(self.validation_volumes, "validation_volumes", low=1, high=10_000),
            "seed": integer(self.seed, "seed", high=LARGEST_SEED),
            "device": str(known_device(self.device)),
        }
        for name, value in cleaned.items():
            object.__setattr__(self, name, value)
        shared = sorted(set(self.families) & set(self.validation))
        if shared:
            raise ValueError(message("validation", "families that do not train", ", ".join(map(repr, shared))))

    @abstractmethod
    def example(self, family: str, order: int, draw: np.random.Generator, share: float) -> Any:
        """One example of a ``family`` and ``order``; ``share``, 0 to 1, says which kind, where there are several."""

    @abstractmethod
    def errors(self, network: Callable[..., Tensor], examples: Sequence[Any]) -> Tensor:
        """`order_errors` that a ``network`` leaves in ``examples`` of one order, shape ``(example, order)``."""

    @abstractmethod
    def input_errors(self, examples: Sequence[Any]) -> Tensor:
        """The same of what the network is given of the ``examples``."""

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Mean logarithm of the `order_errors` that ``network`` leaves in the batch of this ``step``.

        A tenth less error of an order counts the same, whether it is strong or faint and in much or little noise.
        """
        return (self.errors(network, self._ahead(step)) + SMALL).log().mean()

    def examples(self, step: int) -> list[Any]:
        """The batch of a ``step``; the same whenever it is asked for."""
        draw = np.random.default_rng([self.seed, 0, step])
        order = int(draw.choice(self.orders))
        return [self.example(str(draw.choice(self.families)), order, draw, draw.random()) for _ in range(self.batch)]

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Geometric means of `order_errors` on the validation families, of all orders (``loss``) and of each.

        For what ``network`` gives, and (``input``) for what it is given.
        """
        figures: dict[str, float] = {}
        with torch.no_grad():
            errors = {"": [self.errors(network, [each])[0].cpu() for each in self._validation], "input": self._input}
        for name, found in errors.items():
            figures[name or "loss"] = float(torch.stack([each.log().mean() for each in found]).mean().exp())
            for ell in range(0, max(self.orders) + 1, 2):
                of_order = [each[ell // 2] for each in found if len(each) > ell // 2]
                figures[f"{name} l{ell}".strip()] = float(torch.stack(of_order).log().mean().exp())
        return figures

    @cached_property
    def _ahead(self) -> Callable[[int], list[Any]]:
        """The examples of a step; while a card computes, the CPU makes those of the next ones."""
        return self.examples if torch.device(self.device).type == "cpu" else Ahead(self.examples)

    @cached_property
    def _validation(self) -> list[Any]:
        made = []
        for place, name in enumerate(self.validation):
            for order in self.orders:
                for count in range(self.validation_volumes):
                    draw = np.random.default_rng([self.seed, VALIDATION, place, order, count])
                    # Kinds in the shares of training, but the same ones whatever is drawn.
                    made.append(self.example(name, order, draw, (count + 0.5) / self.validation_volumes))
        return made

    @cached_property
    def _input(self) -> list[Tensor]:
        return [self.input_errors([each])[0].cpu() for each in self._validation]


class Ahead:
    """What a function gives for a number, with the next numbers under way in threads; results do not depend on them.

    Examples
    --------
    >>> squares = Ahead(lambda n: n * n)
    >>> [squares(n) for n in (3, 4, 9)]
    [9, 16, 81]
    """

    def __init__(self, make: Callable[[int], Any], threads: int | None = None) -> None:
        self.make, self.threads = make, threads or max(1, min(MOST_THREADS, (os.cpu_count() or 2) - 1))
        self.pool = ThreadPoolExecutor(self.threads, "ddf_tomo examples")
        self.under_way: dict[int, Future[Any]] = {}

    def __call__(self, step: int) -> Any:
        wanted = range(step, step + self.threads + 1)
        for other in [number for number in self.under_way if number not in wanted]:
            self.under_way.pop(other).cancel()
        for number in wanted:
            if number not in self.under_way:
                self.under_way[number] = self.pool.submit(self.make, number)
        return self.under_way.pop(step).result()


def orders_of_volumes(values: Any, argument: str) -> tuple[int, ...]:
    """At least one of the orders 2, 4, 6, 8.

    Examples
    --------
    >>> orders_of_volumes([2, 4], "orders")
    (2, 4)
    """
    if not isinstance(values, (list, tuple)) or not values:
        raise TypeError(message(argument, "a list of orders", repr(values)))
    found = tuple(even_order(value, argument, high=HIGHEST) for value in values)
    if 0 in found:
        raise ValueError(message(argument, "orders 2, 4, 6 or 8", 0))
    return found
