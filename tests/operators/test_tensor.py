"""Coefficients to signals: the order of contraction, chunks of views, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import (
    Geometry,
    SaxsResponse,
    SecondMomentResponse,
    TensorXRayTransform,
    VisibilityResponse,
    XRayTransform,
)
from tests.operators.registry import GEOMETRY, RESPONSES
from tests.strategies import random_geometry


def noise(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", RESPONSES)
def test_projecting_and_contracting_commute(name):
    response, ell_max = RESPONSES[name]
    A, P = TensorXRayTransform(GEOMETRY, response, ell_max), XRayTransform(GEOMETRY)
    R = response.matrix(GEOMETRY, ell_max)
    x, y = noise(A.domain_shape), noise(A.range_shape, 1)
    project_first = torch.einsum("vmc,vabc->vabm", R, P(x))
    contract_first = torch.stack(
        [P.views([v])(torch.einsum("mc,xyzc->xyzm", R[v], x))[0] for v in range(len(GEOMETRY))]
    )
    torch.testing.assert_close(A(x), project_first, rtol=0, atol=1e-12)
    torch.testing.assert_close(A(x), contract_first, rtol=0, atol=1e-12)
    torch.testing.assert_close(A.T(y), P.T(torch.einsum("vmc,vabm->vabc", R, y)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("chunk_views", [1, 2, 3, 4, 7, 100])
def test_chunks_change_nothing(chunk_views, backend):
    geometry = random_geometry(7, (3, 4, 3), (4, 3))
    whole = TensorXRayTransform(geometry, SecondMomentResponse(), 2, backend=backend, chunk_views=7)
    chunked = TensorXRayTransform(geometry, SecondMomentResponse(), 2, backend=backend, chunk_views=chunk_views)
    x, y = noise((2, *whole.domain_shape)), noise((2, *whole.range_shape), 1)
    torch.testing.assert_close(chunked(x), whole(x), rtol=0, atol=1e-13)
    torch.testing.assert_close(chunked.T(y), whole.T(y), rtol=0, atol=1e-13)
    part = chunked.views([6, 0, 3])
    torch.testing.assert_close(part(x), whole(x)[:, [6, 0, 3]], rtol=0, atol=1e-13)
    assert part.chunk_views == chunk_views


def peak_bytes(function) -> int:
    """Largest sum of what torch allocated and had not yet freed, while ``function`` ran."""
    with torch.profiler.profile(profile_memory=True) as profile:
        result = function()
    current = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    del result
    return peak


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("chunk_views", [1, 3])
def test_memory_beyond_the_result_is_one_chunk_and_one_slab(chunk_views, batch):
    geometry = random_geometry(12, (20, 20, 20), (24, 24))
    A = TensorXRayTransform(geometry, SecondMomentResponse(), 4, chunk_views=chunk_views)
    x, y = noise((*batch, *A.domain_shape), dtype=torch.float32), noise((*batch, *A.range_shape), 1, torch.float32)
    A.T(A(x))
    chunk = chunk_views * 24 * 24 * 15 * 4
    slab = 24 * 23 * 23 * 16 * 4  # whole registers, an empty border; of large volumes `SLAB_BYTES`
    for operator, argument in ((A, x), (A.T, y)):
        result_bytes = operator(argument).nbytes
        extra = peak_bytes(lambda operator=operator, argument=argument: operator(argument)) - result_bytes
        most = 1.5 * chunk + (slab if operator is A else 0)
        assert chunk <= extra < most  # the lower bound: the measurement sees what there is


def test_default_chunks_are_bounded_in_bytes(monkeypatch):
    from ddf_tomo.operators import tensor

    geometry = random_geometry(10, (4, 4, 4), (5, 6))
    A = TensorXRayTransform(geometry, SecondMomentResponse(), 2)
    x = noise(A.domain_shape)
    assert len(A._chunks(x)[0]) == 1
    monkeypatch.setattr(tensor, "CHUNK_BYTES", 3 * 5 * 6 * 6 * 8)
    assert [(c.start, c.stop) for c in A._chunks(x)[0]] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    monkeypatch.setattr(tensor, "CHUNK_BYTES", 1)
    assert len(A._chunks(x)[0]) == 10


def test_a_response_that_differs_between_views_follows_a_subset():
    geometry = random_geometry(3)
    A = TensorXRayTransform(geometry, VisibilityResponse([[0.0], [0.5], [1.0]]), 2)
    part = A.views([2, 0])
    assert part.response == VisibilityResponse([[1.0], [0.0]])
    assert part.geometry == geometry[[2, 0]]
    again = TensorXRayTransform(part.geometry, part.response, part.ell_max)
    torch.testing.assert_close(again.matrix, part.matrix)


class Custom:
    """A response of a user: nothing but a matrix, here as numpy."""

    def __init__(self, matrix):
        self.values = matrix

    def matrix(self, geometry, ell_max):
        return self.values


def test_a_response_of_ones_own():
    geometry = random_geometry(2)
    matrix = np.arange(12.0).reshape(2, 1, 6)
    A = TensorXRayTransform(geometry, Custom(matrix), 2)
    x = noise(A.domain_shape)
    expected = (XRayTransform(geometry)(x) * torch.from_numpy(matrix)[:, None]).sum(-1, keepdim=True)
    torch.testing.assert_close(A(x), expected)
    torch.testing.assert_close(A.views([1])(x), expected[1:])


@pytest.mark.parametrize(
    ("response", "error", "text"),
    [
        (None, TypeError, "^response: expected an angular response such as SaxsResponse"),
        (Custom(np.ones((3, 1, 6))), ValueError, r"^response.matrix\(...\): expected shape \(2, any, any\)"),
        (Custom(np.ones((2, 6))), ValueError, r"^response.matrix\(...\): expected shape"),
        (Custom(np.full((2, 1, 6), np.nan)), ValueError, r"^response.matrix\(...\): expected finite values"),
        (Custom("nonsense"), TypeError, r"^response.matrix\(...\): expected an array of real numbers"),
    ],
)
def test_responses_that_cannot_be(response, error, text):
    with pytest.raises(error, match=text):
        TensorXRayTransform(random_geometry(2), response, 2)


@pytest.mark.parametrize("arguments", [{"chunk_views": 0}, {"chunk_views": 1.5}, {"ell_max": 3}, {"ell_max": -2}])
def test_bad_numbers_are_named(arguments):
    with pytest.raises(ValueError, match="^" + next(iter(arguments))):
        TensorXRayTransform(**{"geometry": GEOMETRY, "response": SecondMomentResponse(), "ell_max": 2, **arguments})
    with pytest.raises(TypeError, match=r"^geometry: expected a ddf_tomo.Geometry"):
        TensorXRayTransform(3, SecondMomentResponse(), 2)


def test_an_isotropic_field_gives_its_line_integral_everywhere():
    geometry = Geometry.from_angles(np.linspace(0, 3, 5), 0.4, (6, 6, 6), (7, 7))
    x = torch.zeros(6, 6, 6, 15)
    x[..., 0] = torch.rand(6, 6, 6, generator=torch.Generator().manual_seed(0))
    line = XRayTransform(geometry)(x[..., :1])
    saxs = TensorXRayTransform(geometry, SaxsResponse(np.arange(4) * np.pi / 4), 4)(x)
    torch.testing.assert_close(saxs, line.expand(-1, -1, -1, 4))
    moments = TensorXRayTransform(geometry, SecondMomentResponse(), 4)(x)
    torch.testing.assert_close(moments, line * torch.tensor([1.0, 0.0, 1.0]))
