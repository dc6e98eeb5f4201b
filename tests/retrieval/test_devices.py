"""Every retrieval method on another device than the CPU: nothing of it comes back to the CPU, and it finds the same."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval._tiles import arrays
from tests.other_device import NAME, other_device
from tests.retrieval.methods import EXAMPLES, NAMES
from tests.retrieval.simulation import frames

PLACES = [pytest.param(NAME, id="another"), pytest.param("cuda", marks=pytest.mark.gpu)]
TRUTH = {"displacement": (0.5, -1.2), "covariance": (1.2, 0.4, 0.5), "transmission": 0.8}


def retrieved(sample: Any, reference: Any, name: str, device: str | None = None, **options: Any) -> Maps:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with other_device() if device == NAME else nullcontext():
        return retrieve(sample, reference, name, device=device, progress=False, **options)


def same(found: Maps, expected: Maps, tolerance: float = 1e-5) -> None:
    """Within a share of the largest number of each map."""
    assert np.array_equal(found.valid, expected.valid)
    assert np.mean(np.asarray(expected.valid)) > 0.3
    for name, value in arrays(expected):
        one, other = (np.asarray(each, float) for each in (getattr(found, name), value))
        finite = np.isfinite(other)
        assert np.array_equal(np.isfinite(one), finite), name
        scale = np.abs(other[finite]).max(initial=0.0) or 1.0
        np.testing.assert_allclose(one[finite], other[finite], rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_finds_the_same(name: str, device: str) -> None:
    sample, reference = EXAMPLES[name].mask((41, 49))
    weights = np.ones((41, 49))
    weights[12:14, 20] = 0
    options: dict[str, Any] = EXAMPLES[name].options | {"weights": weights}
    same(
        retrieved(sample, reference, name, device, **options),
        retrieved(sample, reference, name, **options),
    )


def some(steps: int, **more: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    sample, reference = frames(steps, (36, 33), counts=3000, grain=1.5, **TRUTH, **more)
    return sample, np.maximum(reference, 1)


def distances() -> tuple[NDArray[Any], NDArray[Any]]:
    half = {"displacement": (0.25, -0.6), "covariance": (0.3, 0.1, 0.125), "transmission": 0.8}
    pairs = [frames(5, (30, 33), counts=3000, grain=1.5, seed=n, **each) for n, each in enumerate((half, TRUTH))]
    sample, reference = (np.stack(each) for each in zip(*pairs, strict=True))
    return sample, np.maximum(reference, 1)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize(
    ("make", "options", "dtype", "tolerance"),
    [
        (lambda: some(3), {"gain": 1.0}, np.float64, 1e-5),
        (lambda: some(8, background=0.04), {"background": True, "positive": True}, np.float64, 1e-5),
        (distances, {"distance_m": (0.5, 1.0), "gain": 1.0, "errors": "fisher"}, np.float64, 1e-5),
        (lambda: some(10), {}, np.float32, 1e-4),
    ],
    ids=["T in the window", "background", "distances", "float32"],
)
def test_matching_is_the_compiled_one(
    make: Any, options: dict[str, Any], dtype: Any, tolerance: float, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, reference = (each.astype(dtype) for each in make())
    if dtype is np.float64:  # at its border rounding decides what is valid
        sample[..., 22:25, 8:11] = 0  # a lead shot
    weights = np.ones(sample.shape)
    weights[..., 5, 6], weights[..., 0, 20:23, 25] = 0, 0
    options = {"window": 2.0, "largest_shift": 1.6, "iterations": 2, "weights": weights} | options
    expected = retrieved(sample, reference, "matching", **options)
    monkeypatch.setattr("ddf_tomo.retrieval._matching_torch.NUMBERS", 1 << 21)  # many pieces, the last ones cut
    monkeypatch.setattr("ddf_tomo.retrieval._matching_fit.AT_ONCE", 900)
    same(retrieved(sample, reference, "matching", device, **options), expected, tolerance)


@pytest.mark.parametrize("device", PLACES)
@pytest.mark.parametrize("name", ["differential", "matching"])
def test_gradients_are_those_of_the_cpu(name: str, device: str) -> None:
    pair = EXAMPLES[name].mask((26, 28))
    maps, slopes = [], []
    for place in (None, device):
        given = [torch.tensor(each, requires_grad=True) for each in pair]
        found = retrieved(*given, name, place, **EXAMPLES[name].options)
        maps.append(Maps(**{key: value.detach() for key, value in arrays(found)}))
        assert found.covariance.requires_grad
        if device != NAME:  # torch has no way back from there
            total = found.transmission.sum() + found.displacement.square().sum() + found.covariance.square().sum()
            slopes += [torch.stack(torch.autograd.grad(total, given))]
    same(maps[1], maps[0], 1e-5)
    for each in slopes[1:]:
        torch.testing.assert_close(each, slopes[0], rtol=0, atol=1e-5 * float(slopes[0].abs().max()))


def test_the_other_device_refuses_what_a_card_refuses() -> None:
    with other_device():
        there = torch.ones(3, device=NAME)
        for wrong in (
            lambda: there + torch.ones(3),
            lambda: there[torch.tensor([0, 1])],
            lambda: there.numpy(),
            lambda: torch.stack([there, torch.ones(3)]),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        there[1:] += 2.0 * there[0] + torch.tensor(1.0)
        assert there.tolist() == [1, 4, 4]
        assert (there.device.type, there.cpu().device.type) == (NAME, "cpu")
