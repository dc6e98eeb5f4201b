"""Loops that are traced into vector instructions, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ddf_tomo.retrieval._lanes import lanewise, least, root, where


@lanewise
def _mixed(c, a, b, t, k, scale, out, found):
    x = a[k, c + 1] * t[0] + b.flat[k + c]
    out[k + 1, c] = root(where(x > 0, x, 0.0)) + 2 / t[1] - least(x, scale)
    found[c] = (x > 0.5) & found[c]


@lanewise
def _halve(c, a, out):
    out[0, c], out[1, c] = a.halves(0, c)


@njit(error_model="numpy")
def run(count, a, b, t, scale, out, found, halves):
    """Both bodies, the first one with an integer that only compiled code knows."""
    for k in range(2):
        _mixed(count, a, b, t, k, scale, out, found)
    _halve(count // 2, a, halves)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bodies_do_as_numpy_does(dtype: type) -> None:
    generator = np.random.default_rng(0)
    a, b, t = (
        generator.standard_normal((2, 33)).astype(dtype),
        generator.random(33).astype(dtype),
        np.array([2, 3], dtype),
    )
    out, found, halves = np.zeros((3, 32), dtype), np.arange(32) % 2 == 0, np.zeros((2, 16), dtype)
    expected = found.copy()
    run(32, a, b, t, dtype(0.7), out, found, halves)
    for k in range(2):
        x = 2 * a[k, 1:33] + b[k : k + 32]
        np.testing.assert_allclose(out[k + 1], np.sqrt(x.clip(0)) + 2 / 3 - np.minimum(x, dtype(0.7)), atol=1e-5)
        expected &= x > 0.5
    assert np.array_equal(found, expected)
    assert np.array_equal(halves, np.stack([a[0, 0:32:2], a[0, 1:32:2]]))
