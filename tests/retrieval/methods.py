"""The retrieval methods there are, with an example each of what all must keep to: a new one joins by a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo.retrieval import METHODS
from ddf_tomo.retrieval.deconvolution.unrolled import UnrolledDeconvolution
from ddf_tomo.weights import save_network
from tests.retrieval.simulation import frames

TRUTH = {"transmission": 0.8, "displacement": (0.2, -0.1), "covariance": (0.4, 0.1, 0.2)}
Frames = tuple[NDArray[Any], NDArray[Any]]


def random_mask(shape: tuple[int, int]) -> Frames:
    return frames(6, shape, counts=20000, grain=1.5, **TRUTH)  # type: ignore[arg-type]


def grid_mask(shape: tuple[int, int]) -> Frames:
    """A mask of crossed waves with a period of 8 pixels, stepped along its diagonal."""
    j, k = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    phases = 2 * np.pi * np.arange(6)[:, None, None] / 6
    reference = 1 + 0.3 * np.cos(2 * np.pi * j / 8 + phases) + 0.3 * np.cos(2 * np.pi * k / 8 - phases)
    (u_j, u_k), (jj, _, kk) = (0.2, -0.1), (0.4, 0.1, 0.2)
    losses = [np.exp(-0.5 * c * (2 * np.pi / 8) ** 2) for c in (jj, kk)]
    sample = 1 + 0.3 * losses[0] * np.cos(2 * np.pi * (j - u_j) / 8 + phases)
    sample = 0.8 * (sample + 0.3 * losses[1] * np.cos(2 * np.pi * (k - u_k) / 8 - phases))
    generator = np.random.default_rng(0)
    return generator.poisson(20000 * sample).astype(float), generator.poisson(20000 * reference).astype(float)


@dataclass(frozen=True)
class Example:
    """Options that make a small example quick, and its frames; ``tiled`` options where tiles need others.

    ``columns``: of frames that are cut into tiles smaller than they are, by methods that can work in tiles.
    ``depends_on_tiles``: by how much maps do, where they do not yet keep to it.
    ``turned``: how well maps of turned frames are turned maps; iterations that end early know rows from columns.
    ``border``: pixels at the edge in which T may have no error.
    """

    options: dict[str, Any] = field(default_factory=dict)
    mask: Callable[[tuple[int, int]], Frames] = random_mask
    tiled: dict[str, Any] = field(default_factory=dict)
    turned: float = 1e-4
    border: int = 0
    columns: int = 113
    depends_on_tiles: float = 0.0


def fresh_weights() -> str:
    """A file of an unrolled network that has learned nothing: of its steps, what is exact is left."""
    file = Path(mkdtemp()) / "fresh.safetensors"
    with torch.random.fork_rng(devices=[]):
        save_network(UnrolledDeconvolution(2), file)
    return str(file)


EXAMPLES = {
    "differential": Example({"window": 1.5, "smoothing": 0.5}, columns=240),
    # Gaussians leave the image at its edge, and odd rows are left out where frames are binned.
    "matching": Example({"window": 1.5, "smoothing": 1.0, "iterations": 3}, turned=2e-3, border=3, columns=260),
    "visibility": Example(
        {"window": 2.0},
        turned=1e-2,
        columns=300,
        depends_on_tiles=3e-4,  # pixels at the border, of blurs unlike the sample's; `test_visibility` has the mean
    ),
    "correlation": Example({"window": 2.0, "search": 2}, columns=260),
    "periodic": Example({}, grid_mask, {"waves": [[0.125, 0.0], [0.0, 0.125]]}),
    "deconvolution-unrolled": Example({"model": fresh_weights(), "steps": 2}, turned=2e-3, border=3),
    "network": Example(turned=2e-2, border=3, columns=600),  # trained on turned frames, not made of turning parts
    "network+matching": Example({"window": 1.5, "smoothing": 1.0, "iterations": 3}, turned=1e-2, border=3),
    "deconvolution": Example({"rank": 2, "support": 7, "iterations": 3}, turned=2e-3, border=3),
}
NAMES = tuple(METHODS)
