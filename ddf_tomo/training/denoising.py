"""Denoising of coefficient volumes as a task: batches by step, a loss in which every order counts, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, check_shape, choice, even_order, integer, message, number, size_tuple
from ddf_tomo.operators.spherical_harmonics import power
from ddf_tomo.training._inputs import known_device, real_volume
from ddf_tomo.training.pairs import NOISE, positive_range, reconstructed_pair, white_noise_pair
from ddf_tomo.training.samples import FAMILIES, HIGHEST, SPLITS, random_sample

__all__ = ["Denoising", "order_errors"]
FAINTEST = 0.1  # an order weaker than this, relative to the mean, counts as if it were as strong
VALIDATION = 1  # where its seeds begin to differ from those of training


class Batch(NamedTuple):
    """Volumes with errors, true ones (both ``(volume, x, y, z, K)``), and the level of the errors of each order."""

    noisy: Tensor
    truth: Tensor
    level: Tensor


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
class Denoising:
    """Take noise and errors of reconstruction off volumes of random samples: a task for `train`.

    Parameters
    ----------
    families, validation
        Names of `FAMILIES`: those to learn from and those to validate with. None in both, and none of those kept for
        tests (``SPLITS["test"]``).
    shape
        Voxels along ``(x, y, z)``.
    orders
        Orders ``ell_max`` of the volumes; a batch has one of them, drawn.
    batch
        Volumes in a batch.
    level
        White noise relative to the brightness: lowest and highest.
    reconstructed
        Share of volumes with errors of a reconstruction without prior instead (`reconstructed_pair`).
    projection_noise
        Noise of their data relative to the largest signal: lowest and highest.
    validation_volumes
        Volumes of each family and order to validate with.
    seed
        Of everything that is drawn.
    device
        Where batches are made.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> task = Denoising(shape=(8, 8, 8), orders=(2,), batch=2, validation_volumes=2)
    >>> task.batch_of(step=5).noisy.shape
    torch.Size([2, 8, 8, 8, 6])
    >>> sorted(task.validate(lambda volumes, level: volumes))
    ['input', 'input l0', 'input l2', 'l0', 'l2', 'loss']
    """

    families: tuple[str, ...] = SPLITS["train"]
    validation: tuple[str, ...] = SPLITS["validation"]
    shape: tuple[int, ...] = (24, 24, 24)
    orders: tuple[int, ...] = (2, 4, 6, 8)
    batch: int = 4
    level: tuple[float, float] = (0.01, 0.5)
    reconstructed: float = 0.25
    projection_noise: tuple[float, float] = NOISE
    validation_volumes: int = 4
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        cleaned: dict[str, Any] = {
            "families": names_of_families(self.families, "families"),
            "validation": names_of_families(self.validation, "validation"),
            "shape": size_tuple(self.shape, "shape", 3),
            "orders": orders_of_volumes(self.orders, "orders"),
            "batch": integer(self.batch, "batch", low=1, high=10_000),
            "level": positive_range(self.level, "level"),
            "reconstructed": number(self.reconstructed, "reconstructed", low=0.0, high=1.0),
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

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Mean logarithm of the `order_errors` that ``network`` leaves in the batch of this ``step``.

        A tenth less error of an order counts the same, whether it is strong or faint and in much or little noise.
        """
        noisy, truth, level = self.batch_of(step)
        return order_errors(network(noisy, level), truth).log().mean()

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Geometric means of `order_errors` on the validation families, of all orders (``loss``) and of each.

        For what ``network`` gives, and (``input``) for what it is given.
        """
        errors: dict[str, list[Tensor]] = {"": [], "input": []}
        for noisy, truth, level in self._validation:
            errors[""].append(order_errors(network(noisy, level), truth)[0].cpu())
            errors["input"].append(order_errors(noisy, truth)[0].cpu())
        figures: dict[str, float] = {}
        for name, found in errors.items():
            figures[name or "loss"] = float(torch.stack([each.log().mean() for each in found]).mean().exp())
            for ell in range(0, max(self.orders) + 1, 2):
                of_order = [each[ell // 2] for each in found if len(each) > ell // 2]
                figures[f"{name} l{ell}".strip()] = float(torch.stack(of_order).log().mean().exp())
        return figures

    def batch_of(self, step: int) -> Batch:
        """The batch of a ``step``; the same whenever it is asked for."""
        draw = np.random.default_rng([self.seed, 0, step])
        order = int(draw.choice(self.orders))
        pairs = [self._pair(str(draw.choice(self.families)), order, draw) for _ in range(self.batch)]
        return Batch(*(torch.stack(parts) for parts in zip(*pairs, strict=True)))

    @cached_property
    def _validation(self) -> list[Batch]:
        made = []
        for place, name in enumerate(self.validation):
            for order in self.orders:
                for count in range(self.validation_volumes):
                    draw = np.random.default_rng([self.seed, VALIDATION, place, order, count])
                    # Shares as in training, but the same ones whatever is drawn.
                    kind = (count + 0.5) / self.validation_volumes < self.reconstructed
                    made.append(Batch(*(part[None] for part in self._pair(name, order, draw, kind))))
        return made

    def _pair(
        self, family: str, order: int, draw: np.random.Generator, reconstructed: bool | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        seed, of_noise, share = int(draw.integers(2**62)), int(draw.integers(2**62)), draw.random()
        if share < self.reconstructed if reconstructed is None else reconstructed:
            found, truth, _ = reconstructed_pair(family, self.shape, order, seed=seed, noise=self.projection_noise)
            noisy, truth = found.to(self.device), truth.to(self.device)
            counts = torch.arange(1, 2 * order + 2, 4, device=truth.device)
            return noisy, truth, (power(noisy - truth).mean((0, 1, 2)) / counts).sqrt()
        truth = random_sample(family, self.shape, order, seed=seed, device=self.device)
        noisy, sigma = white_noise_pair(truth, level=self.level, seed=of_noise)
        return noisy, truth, truth.new_full((order // 2 + 1,), sigma)


def names_of_families(values: Any, argument: str) -> tuple[str, ...]:
    """At least one name of a family that is not kept for tests.

    Examples
    --------
    >>> names_of_families(["grains"], "families")
    ('grains',)
    """
    known = tuple(name for name in FAMILIES if name not in SPLITS["test"])
    if isinstance(values, str) or not isinstance(values, (list, tuple)) or not values:
        raise TypeError(message(argument, "a list of families", repr(values)))
    for name in values:
        if isinstance(name, str) and name in SPLITS["test"]:
            raise ValueError(message(argument, "one of " + ", ".join(map(repr, known)), f"{name!r}, kept for tests"))
        choice(name, argument, known)
    return tuple(values)


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
