"""Standard errors from the Fisher matrix: the matrix by finite differences, the errors by Monte Carlo."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval._fisher import _information, with_fisher_errors
from ddf_tomo.retrieval.method import View
from tests.retrieval.simulation import frames

SHAPE = (48, 48)
INNER = np.s_[12:-12, 12:-12]
UNKNOWNS = ("displacement", "covariance")
TRUTH: dict[str, Any] = {"transmission": 0.8, "displacement": (0.2, -0.1), "covariance": (0.8, 0.2, 0.6)}
COUNTS = 2000.0


def uniform(background: float = 0.0) -> Maps:
    values = [torch.tensor(TRUTH[name], dtype=torch.float64) for name in TRUTH]
    values = [each.expand(*SHAPE, *each.shape) for each in values]
    one = torch.ones(SHAPE, dtype=torch.float64)
    return Maps(*values, background * one, one, *values[1:], one, one, one > 0)  # errors are not looked at


def test_matrix_is_that_of_finite_differences() -> None:
    def image(**changed: Any) -> np.ndarray:
        return frames(5, SHAPE, grain=1.5, contrast=0.2, seed=1, **(TRUTH | changed))[0]

    expected, (_, reference) = image(), frames(5, SHAPE, grain=1.5, contrast=0.2, seed=1)
    step, slopes = 1e-3, []
    for name in UNKNOWNS:
        for n in range(len(TRUTH[name])):
            moved = [tuple(x + sign * step * (i == n) for i, x in enumerate(TRUTH[name])) for sign in (1, -1)]
            slopes.append((image(**{name: moved[0]}) - image(**{name: moved[1]})) / (2 * step))
    slopes += [np.full_like(expected, TRUTH["transmission"]), expected]  # κ and ln T
    wanted = 1e9 * np.einsum("amjk,bmjk->jkab", np.array(slopes) / expected, np.array(slopes))
    tensors = [torch.as_tensor(each)[None] for each in (expected, reference)]
    view = View(*tensors, torch.ones(1, 1, *SHAPE), torch.ones(1, dtype=torch.float64), 1e9)
    narrow, wide = (_information(uniform(), view, each)[INNER].sum((0, 1)).inverse() for each in (0.5, 1.0))
    found, wanted = np.asarray(narrow @ wide.inverse() @ narrow), np.linalg.inv(wanted[INNER].sum((0, 1)))
    scale = np.sqrt(np.diagonal(wanted))
    np.testing.assert_allclose(np.sqrt(np.diagonal(found)) / scale, 1, atol=0.05)
    np.testing.assert_allclose(found / np.outer(scale, scale), wanted / np.outer(scale, scale), atol=0.1)


@pytest.mark.parametrize(
    ("method", "options"),
    [("matching", {"window": 2.0, "largest_shift": 1.0}), ("differential", {"window": 3.0})],
)
def test_agrees_with_the_sandwich_and_with_the_scatter(method: str, options: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"grain": 1.7, "contrast": 0.25} | TRUTH
    generator = np.random.default_rng(0)
    drawn: dict[str, list[Maps]] = {"sandwich": [], "fisher": []}
    for seed in range(10):
        expected, reference = (np.maximum(each, 0.02) for each in frames(10, (64, 64), seed=seed, **settings))
        sample = generator.poisson(COUNTS * expected).astype(float)
        for errors, gain in (("sandwich", None), ("fisher", 1.0)):
            given = {"gain": gain, "errors": errors, "progress": False} | options
            drawn[errors].append(retrieve(sample, COUNTS * reference, method, **given))

    def mean(name: str, errors: str) -> np.ndarray:
        every = [np.square(getattr(maps, name + "_error")[INNER]).mean((0, 1)) for maps in drawn[errors]]
        return np.sqrt(np.mean(every, 0))

    for name in (*UNKNOWNS, "transmission"):
        values = np.array([getattr(maps, name)[INNER] for maps in drawn["fisher"]])
        spread = np.sqrt(np.square(values - TRUTH[name]).mean((0, 1, 2)))
        # Of some 15 or 30 windows and 10 draws: known to 4 or 6 %.
        np.testing.assert_allclose(mean(name, "fisher") / spread, 1, atol=0.15, err_msg=name)
        if name in UNKNOWNS:
            np.testing.assert_allclose(mean(name, "fisher") / mean(name, "sandwich"), 1, atol=0.1, err_msg=name)


def test_one_setting_changes_errors_and_nothing_else() -> None:
    sample, reference = frames(6, SHAPE, grain=1.5, counts=COUNTS, **TRUTH)
    found = [
        retrieve(sample, np.maximum(reference, 1), "differential", gain=1.0, errors=each, progress=False)
        for each in ("sandwich", "fisher")
    ]
    for name in ("transmission", "background", "chi2", "valid", *UNKNOWNS):
        np.testing.assert_array_equal(getattr(found[1], name), getattr(found[0], name))
    matrix = np.zeros((*SHAPE, 6, 6))
    matrix[..., *np.triu_indices(6)] = found[1].error_matrix
    errors = [found[1].transmission_error[..., None], found[1].displacement_error, found[1].covariance_error]
    diagonal = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))
    np.testing.assert_allclose(diagonal, np.concatenate(errors, -1), rtol=1e-6)
    both = matrix + np.triu(matrix, 1).swapaxes(-1, -2)
    assert np.linalg.eigvalsh(both[INNER]).min() > 0
    # Twice the counts: half of the variances.
    more = retrieve(2 * sample, 2 * np.maximum(reference, 1), "differential", gain=1.0, errors="fisher", progress=False)
    ratio = more.displacement_error[INNER] / found[1].displacement_error[INNER]
    assert np.median(ratio) == pytest.approx(0.5**0.5, abs=0.02)


def test_counts_have_to_be_known() -> None:
    sample, reference = frames(6, SHAPE)
    for method in ("differential", "matching"):
        with pytest.raises(ValueError, match="gain"):
            retrieve(sample, reference, method, errors="fisher", progress=False)
        with pytest.raises(ValueError, match="errors"):
            retrieve(sample, reference, method, errors="jackknife", progress=False)
    view = View(*(torch.ones(1, 4, *SHAPE) for _ in range(2)), torch.ones(1, 1, *SHAPE), torch.ones(1), math.nan)
    with pytest.raises(ValueError, match="gain"):
        with_fisher_errors(uniform(), view, 2.0, 1.0, False)
