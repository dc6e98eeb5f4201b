"""Weights of a reconstruction: dim pixels do not outweigh all others."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ddf_tomo import SaxsResponse, reconstruct
from ddf_tomo._balanced import clipped
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import PHANTOMS, simulate, tilt_series

SHAPE = (14, 14, 14)
SERIES = tilt_series(SHAPE, views=(20, 36, 34, 30), tilts_rad=np.radians([0.0, 15.0, 30.0, 45.0]))


def test_weights_of_dim_pixels_are_clipped():
    data = torch.tensor([0.0, 0.1, 10.0, 10.0])
    weights = torch.tensor([1e4, 50.0, 3.0, 5.0])
    bright = float((weights * data**2).sum() / (data**2).sum())
    torch.testing.assert_close(clipped(weights, data), torch.tensor([10 * bright, 10 * bright, 3.0, 5.0]))
    for even in (torch.ones(4), torch.full((1,), 7.0), torch.tensor([0.0, 1.0, 2.0, 4.0])):
        assert torch.equal(clipped(even, data), even)
    assert torch.equal(clipped(weights, 0 * data), weights)
    data[0], weights[0] = torch.nan, 0.0  # masked
    assert clipped(weights, data)[0] == 0
    torch.testing.assert_close(clipped(weights, 1e-25 * data), clipped(weights, data))


def test_counting_noise_with_its_weights_is_no_worse_than_without():
    """Empty pixels have a thousand times the weight of bright ones, which once made the prior vanish."""
    scan = simulate("mixture", SERIES, SaxsResponse(np.arange(8) * np.pi / 8), noise_model="poisson", counts=2500)
    truth = PHANTOMS["mixture"](SHAPE)
    errors = {}
    for name, weights in (("with", scan.weights), ("without", None)):
        found = reconstruct(dataclasses.replace(scan, weights=weights), ell_max=4, progress=False)
        errors[name] = compare(found, truth).nrmse
    assert errors["with"] < 1.02 * errors["without"]
