"""What a transmission means: rays that part or meet are no absorption, whatever the method and the number of distances.

A weak lens ``u(x) = e a sin(q e·x)``, e along the diagonal: the light that arrives at x started at ``x − d u(x)``, and
its density there is the determinant ``1 − d ∇·u``, exactly.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.retrieval import METHODS, Maps, attenuation, retrieve
from tests.retrieval.methods import EXAMPLES
from tests.retrieval.simulation import frames

SIDE, PERIOD, CONTRAST, TRUE = 72, 72, 0.02, 0.8  # pixels; of ∇·u at the longest distance; transmission
INNER = np.s_[16:-16, 16:-16]
REACHES = (1 / 3, 2 / 3, 1.0)
WAVES = ((0.125, 0.0), (0.0, 0.125))
OPTIONS = {
    "periodic": {"waves": WAVES},
    "deconvolution": {"rank": 4, "support": 7, "iterations": 3},
    "deconvolution-unrolled": EXAMPLES["deconvolution-unrolled"].options,
}


def grid(down: NDArray[Any], across: NDArray[Any]) -> NDArray[Any]:
    """Six steps of crossed waves of eight pixels, at any places."""
    turn = 2 * np.pi * np.arange(6)[:, None, None] / 6
    return 1 + 0.3 * np.cos(2 * np.pi * down / 8 + turn) + 0.3 * np.cos(2 * np.pi * across / 8 - turn)


@cache
def lens(periodic: bool, reaches: tuple[float, ...], counts: float = 5e3) -> tuple[NDArray[Any], NDArray[Any]]:
    """Frames ``(distance, step, row, column)`` behind the lens, and without it."""
    from scipy.ndimage import map_coordinates

    generator, sample, reference = np.random.default_rng(0), [], []
    here = np.mgrid[:SIDE, :SIDE].astype(float)
    q = 2 * np.pi / PERIOD
    along = q * here.sum(0) / np.sqrt(2)
    shift, divergence = CONTRAST / q * np.sin(along) / np.sqrt(2), CONTRAST * np.cos(along)
    for n, reach in enumerate(reaches):
        start = here - reach * shift
        if periodic:
            pattern, moved = grid(*here), grid(*start)
        else:
            _, pattern = frames(8, (SIDE, SIDE), seed=n)
            moved = np.stack([map_coordinates(each, start, order=5, mode="grid-wrap") for each in pattern])
        sample.append(TRUE * moved * (1 - reach * divergence))
        reference.append(pattern)
    seen, lit = (generator.poisson(counts * np.stack(each).clip(0)).astype(float) for each in (sample, reference))
    return seen, lit


def found(method: str, reaches: tuple[float, ...]) -> Maps:
    options: dict[str, Any] = OPTIONS.get(method, {})
    sample, reference = lens(method == "periodic", reaches)
    return retrieve(sample, reference, method, distance_m=[0.6 * reach for reach in reaches], gain=1.0, **options)


def contrast_in(values: Any) -> float:
    """How much of the longest distance's contrast is in what should be flat."""
    wave = np.cos(2 * np.pi / PERIOD * np.mgrid[:SIDE, :SIDE].sum(0) / np.sqrt(2))[INNER].ravel()
    return float(np.polyfit(wave, np.asarray(values)[INNER].ravel(), 1)[0] / CONTRAST)


@pytest.mark.parametrize("method", METHODS)
def test_several_distances_tell_contrast_from_absorption(method: str) -> None:
    maps = found(method, REACHES)
    off, error = np.asarray(maps.transmission) - TRUE, np.asarray(maps.transmission_error)
    assert abs(contrast_in(off / TRUE)) < 0.06  # a mean of the distances would leave two thirds
    # Errors are those of noise: what a bent u does to a window of uneven grains comes on top.
    assert 0.6 < np.sqrt(np.mean((off / error)[INNER] ** 2)) < 1.6


@pytest.mark.parametrize("method", METHODS)
def test_of_one_distance_the_displacement_tells(method: str) -> None:
    maps = found(method, (1.0,))
    assert contrast_in(np.log(maps.transmission)) < -0.9
    values, errors = attenuation(maps)
    assert abs(contrast_in(values)) < 0.06
    off = (np.asarray(values) + np.log(TRUE))[INNER]
    assert np.sqrt(np.mean((off / np.asarray(errors)[INNER]) ** 2)) < 1.0  # they are an upper bound


@pytest.mark.parametrize("periods", [32, 16, 10])
@pytest.mark.parametrize("method", ["differential", "matching", "visibility"])
def test_contrast_goes_at_every_resolution(method: str, periods: int) -> None:
    """T is finer than u: what absorbs nothing has no attenuation, also where the window has smoothed ∇·u away."""
    _, mask = frames(10, (80, 80), grain=1.8)
    q = 2 * np.pi / periods
    wave = 0.05 / q * torch.sin(q * torch.arange(80.0, dtype=torch.float64)).expand(80, 80)
    seen = ModulatedImaging(torch.as_tensor(mask), pixel_size_m=1e-5, distance_m=1.0)(
        1.0, displacement=torch.stack([0 * wave, wave], -1)
    )
    maps = retrieve(seen.numpy(), mask, method, window=2.0)
    contrast = np.asarray(maps.transmission)[INNER].mean(0)
    left = np.asarray(attenuation(maps)[0])[INNER].mean(0)
    assert contrast.std() > 0.02
    assert left.std() < 0.09 * contrast.std()
