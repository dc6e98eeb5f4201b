"""``G(ξ̂)`` against integrals over all beams across a direction, and against what an operator does to a plane wave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import Geometry, SaxsResponse, TensorXRayTransform
from ddf_tomo.operators.beams_across import beams_across_z
from ddf_tomo.operators.directional_symbol import directional_symbol
from ddf_tomo.operators.spherical_harmonics import half_sphere_grid

EIGHT = np.arange(8) * np.pi / 8


def evenly(count: int) -> Geometry:
    """Beams spread evenly over the half sphere."""
    p = half_sphere_grid(count)
    j = np.cross(p, [0.3, 0.9, -0.2])
    j /= np.linalg.norm(j, axis=1, keepdims=True)
    return Geometry(p, j, np.cross(p, j), 0.0, 0.0, (24, 24, 24), (36, 36))


def test_even_beams_give_the_mean_over_the_circle_across():
    """A density of views/4π a steradian on the sphere, beams and opposites: views/2 times the mean over the circle."""
    geometry, response = evenly(4000), SaxsResponse(EIGHT)
    found = directional_symbol(response.matrix(geometry, 4), geometry.p, [[0.0, 0.0, 1.0]], 0.06)[0]
    across = response.matrix(beams_across_z(720), 4)
    expected = 4000 / 2 * (across.mT @ across).mean(0)
    assert float((found - expected).abs().max()) < 0.01 * float(expected.abs().max())


def test_a_wave_is_multiplied_by_the_symbol():
    """``AᵀA`` of a wave packet, projected on it, is ``cᵀ G(ξ̂) c / |ξ|``: exact operators, no formula of this module."""
    geometry = evenly(600)
    A = TensorXRayTransform(geometry, SaxsResponse(EIGHT), 2)
    places = np.stack(np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij"), -1)
    frequency = 0.08 * np.array([0.6, 0.0, 0.8])
    packet = np.cos(2 * np.pi * places @ frequency) * np.exp(-(places**2).sum(-1) / (2 * 4.0**2))
    c = np.array([1.0, 0.3, -0.2, 0.5, 0.1, 0.4])
    wave = torch.from_numpy(packet[..., None] * c)
    seen = A(wave)
    found = float((seen**2).sum() / (wave[..., 0] ** 2).sum())
    # The packet's frequencies lie about ξ with a width of 1 / (2π 4): the mean of cᵀGc/|ξ| over them.
    generator = np.random.default_rng(0)
    around = frequency + generator.normal(size=(4000, 3)) / (2 * np.pi * 4.0 * np.sqrt(2))
    radius = np.linalg.norm(around, axis=1)
    G = directional_symbol(A.matrix, geometry.p, around / radius[:, None], 0.1).numpy()
    expected = (np.einsum("nij,i,j->n", G, c, c) / radius).mean()
    assert found == pytest.approx(expected, rel=0.06)


def test_views_off_the_plane_do_not_pretend_to_know_more():
    """Errors of a wide δ are of fourth order: at half the width they fall to a sixteenth."""
    geometry, response = evenly(20000), SaxsResponse(EIGHT)
    across = response.matrix(beams_across_z(720), 2)
    expected = 10000 * (across.mT @ across).mean(0)
    errors = [
        float((directional_symbol(response.matrix(geometry, 2), geometry.p, [[0, 0, 1.0]], w)[0] - expected).norm())
        for w in (0.24, 0.12)
    ]
    assert errors[1] < errors[0] / 10


BAD = [
    ({"matrix": np.ones((2, 1))}, ValueError, r"^matrix: expected shape \(any, any, any\)"),
    ({"matrix": np.ones((2, 1, 1), int)}, TypeError, "^matrix: expected floating-point numbers"),
    ({"beams": np.eye(3)}, ValueError, r"^beams: expected shape \(2, 3\)"),
    ({"directions": [[0.0, 0.0, 2.0]]}, ValueError, "^directions: expected unit vectors, got a length of 2"),
    ({"width_rad": 0.0}, ValueError, "^width_rad: expected a finite number"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_input_is_named(arguments, error, text):
    right = {"matrix": np.ones((2, 1, 1)), "beams": np.eye(3)[:2], "directions": np.eye(3), "width_rad": 0.1}
    with pytest.raises(error, match=text):
        directional_symbol(**right | arguments)
