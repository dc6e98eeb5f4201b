"""What a training has shown to its network, in numbers, for the model card."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddf_tomo._checks import integer, of_kind
from ddf_tomo.priors.learned.familiar import ranges, volume_statistics
from ddf_tomo.training._volume_task import VolumeTask

__all__ = ["training_statistics"]
VOLUMES = 64


def training_statistics(task: Any, volumes: int = VOLUMES) -> dict[str, list[float]]:
    """Ranges of `ddf_tomo.priors.learned.familiar.volume_statistics` over true volumes of a task, and of its noise.

    Model cards keep them (``card.data["statistics"]``), and `ddf_tomo.reconstruct` compares its results with them.

    Parameters
    ----------
    task
        `Denoising` or `Unrolling`.
    volumes
        How many to draw.

    Returns
    -------
    dict
        ``[least, largest]`` by name; ``"noise"`` is that of the data relative to the largest signal,
        where there were data.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind.

    Examples
    --------
    >>> from ddf_tomo.training import Denoising
    >>> found = training_statistics(Denoising(shape=(8, 8, 8), orders=(2,)), 4)
    >>> sorted(found), found["noise"]
    (['filled', 'l2', 'noise', 'roughness'], [0.005, 0.08])
    """
    of_kind(VolumeTask, task, "task", "a Denoising or an Unrolling")
    count = integer(volumes, "volumes", low=1, high=100_000)
    drawn = (
        task.example(name, order, np.random.default_rng([task.seed, 2, number]), 1.0)
        for number, name, order in _turns(task, count)
    )
    found = ranges(volume_statistics(each.truth.cpu()) for each in drawn)
    return found | ({"noise": list(task.projection_noise)} if getattr(task, "reconstructed", 1.0) else {})


def _turns(task: VolumeTask, count: int) -> Any:
    """Families and orders, each combination as often as others."""
    pairs = [(name, order) for order in task.orders for name in task.families]
    return ((number, *pairs[number % len(pairs)]) for number in range(count))
