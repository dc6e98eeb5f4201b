"""Blur from a slanted edge, against edges whose blur is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from ddf_tomo.retrieval import edge_response


def slanted(size: int, width: float, slope: float = 0.1) -> np.ndarray:
    """An edge behind a Gaussian blur, 0.9 to 0.5: a normal distribution's, in closed form."""
    j, k = np.meshgrid(*[np.arange(size) - size / 2] * 2, indexing="ij")
    return 0.5 + 0.4 * ndtr((k + slope * j) / math.hypot(1, slope) / width)


# Few lines lie at different phases of the pixels where the edge is steep.
@pytest.mark.parametrize(("slope", "accuracy"), [(0.05, 1e-3), (0.1, 1e-3), (-0.3, 3e-3)])
@pytest.mark.parametrize("width", [0.7, 1.5])
def test_edge_has_the_transfer_of_its_blur(width: float, slope: float, accuracy: float) -> None:
    for image in (slanted(64, width, slope), 1 - slanted(64, width, slope).T):
        found = edge_response(image)
        # Of a Gaussian; from a density in another library, so that its scale is not ours.
        density = norm(scale=1 / (2 * np.pi * width)).pdf
        expected = density(found.frequency.numpy()) / density(0)
        np.testing.assert_allclose(found.mtf.numpy(), expected, atol=accuracy)
        assert found.sigma_px == pytest.approx(width, rel=accuracy)
        assert abs(math.tan(found.angle_rad)) == pytest.approx(abs(slope), rel=1e-3)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.ones((8, 8)), "at least 16"),
        (np.ones((20, 20)), "an edge in every line"),
        (slanted(32, 1, 0.0), "2° to 40°"),
    ],
)
def test_images_without_an_edge_are_named(image: np.ndarray, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        edge_response(image)
